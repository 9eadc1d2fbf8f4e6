// ablation.js - what each step of the recipe brings: the same model compressed again and again, one step more each time.
//
//   npm run ablation -- [options]
//
// Prints a table (Markdown): bytes, bits per weight, minutes of `compress` (or `tune`), and perplexity, KL and top-1 of every text.
//
//   --teacher FILE       the dense model (default: SmolLM2-135M-Instruct Q4_1 of the shared data)
//   --calib A,B          what to calibrate on (default: calib_12MB.txt and all of c4.utf8 but its first 300,000 bytes, of the shared data)
//   --calib-tokens N     (default 32768); --iterations N (default 20); --tune-minutes N (default 10)
//   --steps LIST         of paper,stages,metric,fused,gradients,allocation,table,seeds,longer,tune (default all)
//   --text A,B           texts to judge by (default: heldout_500KB.txt and the first 300,000 bytes of c4.utf8 of the shared data)
//   --tokens N           of each text (default 10240; 0: all), in windows of --ctx 512
//   --cache DIR          where files and results are kept (default build/ablation); a run that broke off goes on
//   --tool FILE          the command (default build/native/bitpair), --threads N

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync, writeFileSync } from 'node:fs';

import { COMMON, Evaluator, ROOT, SHARED, C4_BYTES, digest, stamp } from './lib/evaluate.js';
import { parseOptions } from './lib/options.js';
import { table } from './lib/table.js';

const { values: options } = parseOptions(import.meta.url, {
  options: {
    ...COMMON,
    calib: { type: 'string' },
    'calib-tokens': { type: 'string', default: '32768' },
    iterations: { type: 'string', default: '20' },
    'tune-minutes': { type: 'string', default: '10' },
    steps: { type: 'string' },
    tokens: { type: 'string', default: '10240' },
    cache: { type: 'string', default: `${ROOT}build/ablation` },
  },
});

function fail(text) {
  console.error(`ablation: ${text}`);
  process.exit(1);
}

const tool = new Evaluator({ ...options, fail });
const texts = tool.texts(options.text);

/** The calibration texts: of c4.utf8 nothing that is judged by. */
function calibration() {
  if (options.calib) return options.calib;
  const whole = `${SHARED}/text/c4.utf8`;
  const rest = tool.once(`c4-rest-${digest(stamp(whole))}.txt`, (path) => {
    const bytes = readFileSync(whole);
    writeFileSync(path, bytes.subarray(bytes.indexOf(0x0a, C4_BYTES) + 1)); // whole lines
  });
  return `${SHARED}/text/calib_12MB.txt,${rest}`;
}

const CALIBRATION = calibration();
const KEPT_TABLE = ['--embedding-bits', '0'];
const SMALL_TABLE = ['--embedding-bits', '5'];
const DIAGONAL = ['--method', 'diagonal', '--gradients', 'none', '--separate'];
const STAGES = ['--stages', '1.02,1.02'];
const INPUTS = [options.teacher, ...CALIBRATION.split(',')].map(stamp);
const MEASURED = digest(INPUTS, options['calib-tokens'], options.ctx); // what the next two files are measured on
const GRADIENTS = ['--gradients', 'full', '--gradients-file', tool.path(`gradients-${MEASURED}`)];
const EQUAL_LOSS = ['--allocate', 'equal-loss', '--allocation', tool.path(`allocation-${MEASURED}.json`)];
const RECIPE = [...STAGES, ...GRADIENTS, ...EQUAL_LOSS, ...SMALL_TABLE];

/** Each step is the one before and what its name says. `longer`: how many times the iterations. */
const STEPS = [
  { key: 'paper', name: 'one factorization, channels weighed one by one (the paper)', words: ['--stages', '2.04', ...DIAGONAL, ...KEPT_TABLE] },
  { key: 'stages', name: 'a stack of two stages', words: [...STAGES, ...DIAGONAL, ...KEPT_TABLE] },
  { key: 'metric', name: 'the full input metric, corrected targets', words: [...STAGES, '--gradients', 'none', '--separate', ...KEPT_TABLE] },
  { key: 'fused', name: 'q, k, v and gate, up fused', words: [...STAGES, '--gradients', 'none', ...KEPT_TABLE] },
  { key: 'gradients', name: 'outputs and tokens weighed by gradients', words: [...STAGES, ...GRADIENTS, ...KEPT_TABLE] },
  { key: 'allocation', name: 'bits by equal loss', words: [...STAGES, ...GRADIENTS, ...EQUAL_LOSS, ...KEPT_TABLE] },
  { key: 'table', name: 'embedding and head in 5 planes instead of 8 bits', words: RECIPE },
  { key: 'seeds', name: 'the same, seed 2', words: RECIPE, seed: 2 },
  { key: 'seeds', name: 'the same, seed 3', words: RECIPE, seed: 3 },
  { key: 'longer', name: 'four times the iterations', words: RECIPE, longer: 4 },
  { key: 'tune', name: 'scales tuned end to end', words: RECIPE, longer: 4, tuned: true },
];

/** A file that the tool makes of its inputs with these words, once, and its minutes (of a run that broke off: of its last part). */
function make(words) {
  const name = digest(stamp(tool.tool), INPUTS, words);
  const path = tool.path(`${name}.gguf`);
  const minutes = tool.kept(['minutes', name], () => {
    const [command, ...rest] = words;
    const left = ['.work', '.tune'].some((state) => existsSync(path + state)); // what compress and tune leave when they are stopped
    const began = left ? ['--resume'] : ['--force'];
    const { seconds } = JSON.parse(tool.run(command, ...rest, '-o', path, ...began, '--json', ...tool.words));
    return seconds / 60;
  });
  return { path, minutes };
}

const compress = ({ words, seed = 1, longer = 1 }) => make(['compress', options.teacher, ...words, '--calib', CALIBRATION,
  '--calib-tokens', options['calib-tokens'], '--ctx', options.ctx, '--iterations', `${longer * options.iterations}`, '--seed', `${seed}`]);

const tune = (path) => make(['tune', options.teacher, path, '--calib', CALIBRATION, '--ctx', options.ctx, '--minutes', options['tune-minutes'],
  '--scales-only', '--embedding-rate', '0', '--rate', '0.003', '--seed', '1']);

function measure(step) {
  const fresh = compress(step);
  const { path, minutes } = step.tuned ? tune(fresh.path) : fresh;
  const [row] = tool.evaluateTexts([path], texts, options);
  const judged = row.texts.flatMap(({ ppl, teacher_ppl: teacher, kl, top1 }) => [(ppl / teacher).toFixed(3), kl.toFixed(3), `${(100 * top1).toFixed(1)} %`]);
  return [step.name, row.bytes.toLocaleString('en-US'), row.bits_per_weight.toFixed(2), minutes.toFixed(1), ...judged];
}

const wanted = options.steps?.split(',') ?? STEPS.map(({ key }) => key);
for (const key of wanted) if (!STEPS.some((step) => step.key === key)) fail(`--steps knows ${[...new Set(STEPS.map((step) => step.key))]}, not ${key}`);
const rows = STEPS.filter(({ key }) => wanted.includes(key)).map(measure);
const commit = execFileSync('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD']).toString().trim();
console.error(`ablation: measured at ${commit}, ${options.tokens} tokens of each text in windows of ${options.ctx}`);
console.log(table([['step', 'bytes', 'bits per weight', 'minutes', ...texts.flatMap(({ name }) => [`${name}: x teacher`, 'KL', 'top-1'])], ...rows]));
