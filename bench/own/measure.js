// measure.js - the package's speed in Node and in a page.

/**
 * Tokens per second of each case in each round. Self-contained: its text also runs in the page.
 * @param {{load: Function, source: string, threads: number, tier?: number, context: number, rounds: number,
 *   cases: {prompt: number, generate: number}[]}} work generate 0: the prompt alone
 * @returns {Promise<{isa: string, threads: number, figures: {prefill: number[], decode: number[]}[]}>} one element per case
 */
export async function measure({ load, source, threads, tier, context, rounds, cases }) {
  const model = await load(source, { threads, tier, contextSize: context });
  const { vocabulary, isa, threads: running } = model.info;
  let state = 1;
  const random = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return (state >>> 8) % vocabulary;
  };
  const figures = cases.map(() => ({ prefill: [], decode: [] }));
  for (let round = 0; round <= rounds; round++) { // the first warms up and does not count
    for (const [i, { prompt, generate }] of cases.entries()) {
      const ids = Array.from({ length: prompt }, random); // others each time: nothing is cached
      const { stats } = await model.generate(ids, { greedy: true, maxTokens: generate + 1, ignoreEnd: true }).result;
      if (round === 0) continue;
      figures[i].prefill.push(stats.prefillTokensPerSecond);
      if (generate > 0) figures[i].decode.push(stats.decodeTokensPerSecond);
    }
  }
  await model.dispose();
  return { isa, threads: running, figures };
}
