// start.js - from navigation to the first token, without anybody's help: the work is described in the address.

import { openContestant } from './run.js';

const { spec, prompt } = JSON.parse(decodeURIComponent(location.hash.slice(1)));
try {
  const contestant = await openContestant(spec);
  const opened = performance.now();
  await contestant.generate(prompt, 1, () => (globalThis.outcome ??= { opened, first: performance.now() }));
} catch (error) {
  globalThis.outcome = { error: String(error?.stack ?? error) };
}
