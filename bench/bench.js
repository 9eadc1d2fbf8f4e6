// bench.js - speed of the engine: native, in Node and in Chromium.
//
//   npm run bench -- [--parts kernels,speed,prompts,depths] [--runtime native,node,chromium] [--threads 1,2] [--tiers all,2]
//                    [--rounds 3] [--prompts 1,3,...] [--depths 128,...] [--model FILE] [--json]
//
//   kernels   the native kernels alone, as check_kernels --bench prints them
//   speed     a prompt of 128 tokens and 64 generated after it
//   prompts   tokens per second of prompts of other lengths
//   depths    64 tokens generated after prompts that long
//
// Medians with their range, in tokens per second. --tiers: all is the whole file. --json: the last line is an array of the rows.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';

import { EMBEDDED } from '../tests/web/helper.js';
import { countOf, countsOf, needEngines, parseOptions, refuse, wordsOf } from './lib/options.js';
import { spread, table } from './lib/table.js';
import { countTiers, needNative, nativeTool } from './lib/tiers.js';
import { RUNTIMES } from './own/runtimes.js';

const text = (value) => ({ type: 'string', default: value });
const { values } = parseOptions(import.meta.url, {
  options: {
    parts: text('speed'),
    runtime: text('native,node,chromium'),
    threads: text('1,2'),
    tiers: text('all,2'),
    rounds: text('3'),
    prompts: text('1,3,7,17,128,512,1000'),
    depths: text('128,512,2048'),
    model: text(EMBEDDED),
    json: { type: 'boolean', default: false },
  },
});
const parts = wordsOf('parts', values.parts, ['kernels', 'speed', 'prompts', 'depths']);
const runtimes = wordsOf('runtime', values.runtime, Object.keys(RUNTIMES));
const threads = countsOf('threads', values.threads);
const tiers = wordsOf('tiers', values.tiers).map((word) => (word === 'all' ? word : countOf('tiers', word)));
const rounds = countOf('rounds', values.rounds);
const prompts = countsOf('prompts', values.prompts);
const depths = countsOf('depths', values.depths);
const GENERATE = 64;

/** What is run in one go, so that it is measured side by side. */
function listCases() {
  const cases = [];
  if (parts.includes('speed')) cases.push({ part: 'speed', prompt: 128, generate: GENERATE });
  if (parts.includes('prompts')) for (const prompt of prompts) cases.push({ part: 'prompts', prompt, generate: 0 });
  if (parts.includes('depths')) for (const prompt of depths) cases.push({ part: 'depths', prompt, generate: GENERATE });
  return cases;
}

async function measureAll(cases) {
  const context = Math.max(...cases.map(({ prompt, generate }) => prompt + generate + 1));
  const rows = [];
  for (const runtime of runtimes) {
    for (const named of tiers) {
      const tier = named === 'all' ? undefined : named;
      for (const count of threads) {
        const result = await RUNTIMES[runtime]({ model: values.model, tier, threads: count, context, rounds, cases });
        console.error(`bench: ${result.runtime}, ${named} tiers, ${count} thread(s): done`);
        rows.push(...cases.map((one, i) => ({ ...one, ...result, tiers: `${named}`, figures: result.figures[i] })));
      }
    }
  }
  return rows;
}

function printPart(name, rows) {
  if (rows.length === 0) return;
  const line = ({ figures, ...row }) =>
    [row.runtime, row.isa, row.tiers, row.threads, row.prompt, spread(figures.prefill), spread(figures.decode)];
  console.log(`\n${name}, tokens per second\n`);
  console.log(table([['', 'kernels', 'tiers', 'threads', 'prompt', 'prefill', 'decode after it'], ...rows.map(line)]));
}

/** What is wanted is there: known before hours of measuring, not after. */
async function checkAll(cases) {
  if (!existsSync(values.model)) refuse(`${values.model} is missing`, 1);
  if (parts.includes('kernels')) needNative('check_kernels');
  if (cases.length === 0) return;
  if (runtimes.includes('native')) needNative('bitpair');
  if (runtimes.some((runtime) => runtime !== 'native')) needEngines();
  const [most, count] = [Math.max(0, ...tiers.filter(Number)), await countTiers(values.model)];
  if (most > count) refuse(`--tiers ${values.tiers}: ${values.model} has ${count} tiers`);
}

const cases = listCases();
await checkAll(cases);
if (parts.includes('kernels')) console.log(execFileSync(nativeTool('check_kernels'), ['--bench'], { encoding: 'utf8' }));
const rows = cases.length > 0 ? await measureAll(cases) : [];
for (const part of ['speed', 'prompts', 'depths']) printPart(part, rows.filter((row) => row.part === part));
if (values.json) console.log(JSON.stringify(rows));
