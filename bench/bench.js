// bench.js - speed of the package in Node and Chromium: tokens per second of a prompt of 128 tokens and of the 64 after it.
//
//   npm run bench -- [--json] [--model FILE] [--runtime node,chromium] [--threads 1,2] [--rounds 3]
//
// Medians; the first round warms up and does not count. --json: the last line is an array of the rows.

import { existsSync } from 'node:fs';
import { parseArgs } from 'node:util';

import { EMBEDDED } from '../tests/web/helper.js';
import { openBrowser, openServer } from '../tests/browser/browser.js';
import { load } from '../web/index.js';
import { MODEL_PATH } from '../web/demo/config.js';

const { values } = parseArgs({
  options: {
    json: { type: 'boolean', default: false },
    model: { type: 'string', default: EMBEDDED },
    runtime: { type: 'string', default: 'node,chromium' },
    threads: { type: 'string', default: '1,2' },
    rounds: { type: 'string', default: '3' },
  },
});

/** Measures one set-up. Self-contained: its text also runs in the page. */
async function measure({ load: open, source, threads, rounds }) {
  const model = await open(source, { threads });
  const { vocabulary, isa } = model.info;
  const median = (numbers) => numbers.sort((a, b) => a - b)[numbers.length >> 1];
  const prefill = [];
  const decode = [];
  for (let round = 0; round <= rounds; round++) {
    let state = 1 + round; // another prompt each time: nothing is cached
    const prompt = Array.from({ length: 128 }, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      return (state >>> 8) % vocabulary;
    });
    const { stats } = await model.generate(prompt, { greedy: true, maxTokens: 65, ignoreEnd: true }).result;
    if (round === 0) continue;
    prefill.push(stats.prefillTokensPerSecond);
    decode.push(stats.decodeTokensPerSecond);
  }
  const row = { isa, threads: model.info.threads, prefill_tps: median(prefill), decode_tps: median(decode) };
  await model.dispose();
  return row;
}

async function inNode(threads, rounds) {
  return { runtime: `node ${process.versions.node}`, ...(await measure({ load, source: values.model, threads, rounds })) };
}

async function inChromium(browser, server, threads, rounds) {
  const page = await browser.newPage();
  await page.goto(server.url('/web/demo/'));
  const row = await page.evaluate(`import('/web/index.js').then(({ load }) =>
    (${measure})({ load, source: ${JSON.stringify(MODEL_PATH)}, threads: ${threads}, rounds: ${rounds} }))`);
  await page.close();
  return { runtime: `chromium ${browser.version()}`, ...row };
}

if (!existsSync(values.model)) {
  console.error(`bench: ${values.model} is missing`);
  process.exit(1);
}
const rows = [];
const rounds = Number(values.rounds);
const report = (row) => {
  rows.push(row);
  const { runtime, isa, threads, prefill_tps: prefill, decode_tps: decode } = row;
  console.log(`${runtime.padEnd(24)} ${isa} ${threads} thread(s)  prefill ${prefill.toFixed(1)} tokens/s  decode ${decode.toFixed(1)} tokens/s`);
};
const threads = values.threads.split(',').map(Number);
if (values.runtime.includes('node')) for (const count of threads) report(await inNode(count, rounds));
if (values.runtime.includes('chromium')) {
  const [browser, server] = [await openBrowser(), await openServer({ model: values.model })];
  for (const count of threads) report(await inChromium(browser, server, count, rounds));
  await browser.close();
  server.close();
}
if (values.json) console.log(JSON.stringify(rows));
