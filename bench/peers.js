// peers.js - bitpair beside what else runs such a model in a page, all in one Chromium, one after the other: speed, start, memory.
//
//   npm run bench:peers -- [--rounds 3] [--threads 1,2] [--only 'wllama 2.4.0,onnx'] [--parts speed,start,memory] [--json]
//                          [--prompt 128] [--generate 64] [--context 2048] [--folder DIR] [--llama-bench PATH]
//
// Installs wllama and onnxruntime-web from npm into DIR (default: bitpair-peers in the system's temporary folder) and makes their
// models from the teacher in ../shared/data (or BITPAIR_SHARED_DATA) with the native `bitpair`, which must have been built. bitpair
// is what `npm run build:package` makes of it, as it is published. --only: peers whose names, as the tables have them, hold one of
// these words. --llama-bench: a llama-bench binary of llama.cpp, to compare the native engine with (--parts native). Rounds are
// interleaved; each figure is a median with its range.

import { existsSync } from 'node:fs';
import { availableParallelism, cpus, tmpdir } from 'node:os';
import { join } from 'node:path';

import { load } from '../web/index.js';
import { EMBEDDED, sharedData } from '../tests/web/helper.js';
import { countOf, countsOf, needEngines, parseOptions, refuse, wordsOf } from './lib/options.js';
import { cutPrompt } from './lib/prompts.js';
import { needNative } from './lib/tiers.js';
import { openBenchServer } from './peers/server.js';
import { TEACHER, findContestants, foldersOf, strangeWords } from './peers/contestants.js';
import { measureMemory, measureSpeed, measureStart, openProfile } from './peers/chromium.js';
import { measureNative } from './peers/native.js';
import { printMemory, printNative, printSpeed, printStart } from './peers/report.js';

const text = (value) => ({ type: 'string', default: value });
const { values } = parseOptions(import.meta.url, {
  options: {
    rounds: text('3'),
    threads: text('1,2'),
    only: text(''),
    parts: text('speed,start,memory'),
    prompt: text('128'),
    generate: text('64'),
    context: text('2048'),
    folder: text(join(tmpdir(), 'bitpair-peers')),
    'llama-bench': { type: 'string' },
    json: { type: 'boolean', default: false },
  },
});
const parts = wordsOf('parts', values.parts, ['speed', 'start', 'memory', 'native']);
const only = values.only ? wordsOf('only', values.only) : [];
const [strange] = strangeWords(only);
if (strange) refuse(`--only ${values.only}: ${strange.word} is in no name; there are ${strange.names.join(', ')}`);
const rounds = countOf('rounds', values.rounds);
const threads = countsOf('threads', values.threads);
const prompt = countOf('prompt', values.prompt);
const generate = countOf('generate', values.generate);
const context = countOf('context', values.context);
const START_TOKENS = 20;

async function makePrompts() {
  const model = await load(EMBEDDED, { threads: 1, tier: 1 });
  const cut = (which, n) => cutPrompt(model, which, n);
  const prompts = { warm: await cut(1, prompt), prompt: await cut(0, prompt), start: await cut(0, START_TOKENS) };
  await model.dispose();
  return prompts;
}

/** One contestant that fails does not end the benchmark: it is named, and has no figures. */
async function attempt(name, work) {
  try {
    return await work();
  } catch (error) {
    console.error(`bench: ${name}: ${error.message.split('\n')[0]}`);
    return null;
  }
}

/** Runs work(contestant, threads, round) in turn; rows: {name, ours, threads, figures: one per round}. */
async function inTurn(contestants, label, counts, times, work) {
  const rows = contestants.flatMap((contestant) => counts.map((count) => ({ contestant, threads: count, figures: [] })));
  for (let round = 1; round <= times; round++) {
    for (const row of rows) {
      const { contestant, threads: count } = row;
      const figure = await attempt(contestant.name, () => work(contestant, count, round));
      if (figure) row.figures.push(figure);
      console.error(`${label} ${round}/${times}: ${contestant.name}, ${count} thread(s): ${JSON.stringify(figure)}`);
    }
  }
  return rows.map(({ contestant: { name, ours = false, bytes }, ...row }) => ({ name, ours, bytes, ...row }));
}

async function withProfile(work) {
  const { context: profile, close } = await openProfile();
  try {
    return await work(profile);
  } finally {
    await close();
  }
}

async function inBrowser(server, contestants, prompts) {
  const result = {};
  const full = (spec, count) => ({ ...spec, threads: count, context });
  if (parts.includes('speed'))
    result.speed = await withProfile((profile) => inTurn(contestants, 'speed', threads, rounds, ({ spec }, count) =>
      measureSpeed(profile, server, full(spec, count), { ...prompts, count: generate })));
  if (parts.includes('start')) result.start = await withProfile((profile) => measureStarts(profile, server, contestants, prompts, full));
  if (parts.includes('memory'))
    result.memory = await inTurn(contestants, 'memory', threads.slice(-1), 1, ({ spec }, count) =>
      measureMemory(server, full(spec, count), prompts.prompt, generate));
  return result;
}

/** The visits before the rounds fill the caches; what they download is counted. */
async function measureStarts(profile, server, contestants, prompts, full) {
  const count = threads.at(-1);
  for (const contestant of contestants) {
    server.code();
    await attempt(contestant.name, () => measureStart(profile, server, full(contestant.spec, count), prompts.start, true));
    contestant.bytes = server.code();
  }
  return inTurn(contestants, 'start', [count], rounds, ({ spec }) => measureStart(profile, server, full(spec, count), prompts.start));
}

/** What is wanted is there: known before anything is installed and measured. */
function checkAll() {
  const bench = values['llama-bench'];
  if (parts.some((part) => part !== 'native')) needEngines();
  if (parts.includes('native')) needNative('bitpair');
  if (bench && !existsSync(bench)) refuse(`${bench} is missing`, 1);
  try {
    sharedData(TEACHER);
  } catch ({ message }) {
    refuse(message, 1);
  }
}

checkAll();
const result = { cpu: cpus()[0].model, cores: availableParallelism(), prompt, generate, context };
if (parts.some((part) => part !== 'native')) {
  const contestants = findContestants(values.folder, only);
  const server = await openBenchServer(foldersOf(values.folder));
  try {
    Object.assign(result, await inBrowser(server, contestants, await makePrompts()));
  } finally {
    server.close();
  }
}
if (parts.includes('native')) result.native = await measureNative({ ...values, threads, rounds, generate, prompt });
console.log(`${result.cpu}, ${result.cores} processors; a prompt of ${result.prompt} tokens, ${generate} after it`);
if (result.speed) printSpeed(result.speed);
if (result.start) printStart(result.start);
if (result.memory) printMemory(result.memory, context);
if (result.native) printNative(result.native);
if (values.json) console.log(JSON.stringify(result));
