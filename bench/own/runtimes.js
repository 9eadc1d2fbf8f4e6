// runtimes.js - where the engine runs: the native command, Node, Chromium. Each takes {model, tier, threads, context, rounds, cases}
// and gives {runtime, isa, threads, figures} as measure.js does.

import { execFileSync } from 'node:child_process';

import { openBrowser, openServer } from '../../tests/browser/browser.js';
import { load } from '../../web/index.js';
import { MODEL_PATH } from '../../web/demo/config.js';
import { cutTier, nativeTool } from '../lib/tiers.js';
import { measure } from './measure.js';

function inNative({ model, tier, threads, rounds, cases }) {
  const file = cutTier(model, tier);
  const figures = cases.map(() => ({ prefill: [], decode: [] }));
  let isa = null;
  for (let round = 0; round < rounds; round++) {
    for (const [i, { prompt, generate }] of cases.entries()) {
      const result = JSON.parse(execFileSync(nativeTool(), ['bench', file, '--json', '--quiet', '--repetitions', 1, '--threads', threads,
        '--prompt-tokens', prompt, '--tokens', Math.max(1, generate)].map(String), { encoding: 'utf8' }));
      isa = result.isa;
      figures[i].prefill.push(result.prefill_tps);
      if (generate > 0) figures[i].decode.push(result.decode_tps);
    }
  }
  return { runtime: 'native', isa, threads, figures };
}

async function inNode({ model, ...work }) {
  return { runtime: `Node ${process.versions.node}`, ...(await measure({ load, source: model, ...work })) };
}

async function inChromium({ model, ...work }) {
  const [browser, server] = [await openBrowser(), await openServer({ model })];
  try {
    const page = await browser.newPage();
    await page.goto(server.url('/web/demo/'));
    const result = await page.evaluate(`import('/web/index.js').then(({ load }) =>
      (${measure})({ load, source: ${JSON.stringify(MODEL_PATH)}, ...${JSON.stringify(work)} }))`);
    return { runtime: `Chromium ${browser.version().split('.')[0]}`, ...result };
  } finally {
    await browser.close();
    server.close();
  }
}

export const RUNTIMES = { native: inNative, node: inNode, chromium: inChromium };
