// start.js - from navigation to the first token, without anybody's help: the work is described in the address.

import { openContestant } from './run.js';

const { spec, prompt, linger } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
try {
  const contestant = await openContestant(spec);
  const opened = performance.now();
  let first = null;
  await contestant.generate(prompt, linger ? 64 : 1, () => (first ??= performance.now()));
  // A visit that fills the caches: the browser keeps what it has compiled once it has been quiet for two seconds.
  if (linger) await new Promise((resolve) => setTimeout(resolve, 3000));
  globalThis.outcome = { opened, first };
} catch (error) {
  globalThis.outcome = { error: String(error?.stack ?? error) };
}
