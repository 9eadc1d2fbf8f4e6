// run.js - one contestant in a page: opened, warmed up, measured.
//
// A contestant is what open(spec) of its own module gives: {threads, generate(prompt, count, onToken): Promise, close(): Promise}.
// prompt: {text, ids}; generate() answers greedily, calls onToken() when a token is there, and does not stop at end tokens.

/** spec: {script: 'bitpair.js' and so on, ...what that script needs} */
export async function openContestant(spec) {
  const { open } = await import(`./${spec.script}`);
  return open(spec);
}

/** Seconds from the call to the first token, and from there to the last. */
async function time(contestant, prompt, count) {
  const begun = performance.now();
  const times = [];
  await contestant.generate(prompt, count, () => times.push(performance.now()));
  if (times.length !== count) throw new Error(`${times.length} tokens instead of ${count}`);
  return { prefill: (times[0] - begun) / 1000, decode: (times.at(-1) - times[0]) / 1000 };
}

/**
 * Tokens per second.
 * @param {{warm: object, prompt: object, count: number}} work warm: another prompt, for the first run, which does not count
 */
export async function measure(spec, { warm, prompt, count }) {
  const contestant = await openContestant(spec);
  await time(contestant, warm, 8);
  const { prefill, decode } = await time(contestant, prompt, count + 1);
  await contestant.close();
  return { threads: contestant.threads, prefill: prompt.ids.length / prefill, decode: count / decode };
}
