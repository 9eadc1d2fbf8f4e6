// quality.js - quality against bytes: `bitpair eval` over the teacher, plainly rounded baselines and files of ours.
//
//   npm run quality -- [NAME=]FILE.gguf... [options]
//
// Prints the README's table (Markdown) and draws it (--svg). NAME is what the table calls a file.
//
//   --teacher FILE    the dense model (default: SmolLM2-135M-Instruct Q4_1 of the shared data)
//   --text A,B        texts (default: heldout_500KB.txt and the first 300,000 bytes of c4.utf8 of the shared data)
//   --tokens N        of each text (default 20480; 0: all), in windows of --ctx 512
//   --tasks DIR       zero-shot sets too (shared: those of the shared data), of the teacher and the files of ours;
//                     --limit N: only N rows of each; --baseline-tasks: of the baselines as well
//   --tiers           also every shorter tier of the files
//   --baselines LIST  of rtn2,rtn3,rtn4,q4_0,q8_0 (default all; none)
//   --cache DIR       where baselines, tiers and results are kept (default build/quality); what was measured is measured again
//                     only with another tool, other models, texts, tasks or options, so a run that broke off goes on; baselines
//                     are made anew only of another teacher
//   --tool FILE       the command (default build/native/bitpair), --threads N
//   --svg FILE        draw the picture, e.g. docs/quality.svg

import { execFileSync } from 'node:child_process';
import { copyFileSync, existsSync, statSync, truncateSync, utimesSync, writeFileSync } from 'node:fs';
import { basename, resolve } from 'node:path';

import { COMMON, Evaluator, ROOT, SHARED, digest, stamp } from './lib/evaluate.js';
import { parseOptions } from './lib/options.js';
import { drawQuality, tableOf } from './quality_draw.js';

const BASELINES = {
  q8_0: { name: 'Q8_0', options: ['--method', 'q8_0'] },
  q4_0: { name: 'Q4_0', options: ['--method', 'q4_0'] },
  rtn4: { name: 'rounded, 4 bits', options: ['--method', 'rtn', '--bits', '4'] },
  rtn3: { name: 'rounded, 3 bits', options: ['--method', 'rtn', '--bits', '3'] },
  rtn2: { name: 'rounded, 2 bits', options: ['--method', 'rtn', '--bits', '2'] },
};

const { values: options, positionals } = parseOptions(import.meta.url, {
  allowPositionals: true,
  options: {
    ...COMMON,
    tokens: { type: 'string', default: '20480' },
    tasks: { type: 'string' },
    'baseline-tasks': { type: 'boolean', default: false },
    limit: { type: 'string', default: '0' },
    tiers: { type: 'boolean', default: false },
    baselines: { type: 'string', default: Object.keys(BASELINES).join(',') },
    cache: { type: 'string', default: `${ROOT}build/quality` },
    svg: { type: 'string' },
  },
});

function fail(text) {
  console.error(`quality: ${text}`);
  process.exit(1);
}

const tool = new Evaluator({ ...options, fail });

function listBaselines() {
  const teacher = `${basename(options.teacher, '.gguf')}-${digest(stamp(options.teacher))}`;
  const wanted = options.baselines === 'none' ? [] : options.baselines.split(',');
  return wanted.map((key) => {
    const known = BASELINES[key] ?? fail(`--baselines knows ${Object.keys(BASELINES)}, not ${key}`);
    const path = tool.once(`${teacher}-${key}.gguf`, (out) => tool.run('compress', options.teacher, '-o', out, ...known.options));
    return { path, name: known.name, kind: 'baseline' };
  });
}

/** A file, and with --tiers every shorter tier of it as a file of its own. */
function listFile(word) {
  const equals = word.indexOf('=');
  const path = equals > 0 ? word.slice(equals + 1) : word;
  if (!existsSync(path)) fail(`${path} is missing`);
  const name = equals > 0 ? word.slice(0, equals) : basename(path, '.gguf');
  const ends = options.tiers ? JSON.parse(tool.run('inspect', path, '--json')).tiers.map(({ end }) => end) : [];
  const shorter = ends.slice(0, -1).map((end, i) => {
    const prefix = tool.path(`tier-${i + 1}-of-${digest(resolve(path))}-${basename(path)}`); // files of two folders may share a name
    copyFileSync(path, prefix);
    truncateSync(prefix, end);
    utimesSync(prefix, statSync(path).atime, statSync(path).mtime); // what is kept of it holds as long as the file itself
    return { path: prefix, name: `${name}, tier ${i + 1} of ${ends.length}`, kind: 'ours', line: name };
  });
  return [{ path, name, kind: 'ours', line: name }, ...shorter];
}

/** One object per model: texts of all beside the teacher, then the zero-shot sets of one after the other. */
function measure(models, texts) {
  const paths = models.map(({ path }) => path);
  const rows = tool.evaluateTexts(paths, texts, options);
  if (!options.tasks) return rows;
  const folder = options.tasks === 'shared' ? `${SHARED}/evalsets` : options.tasks;
  return rows.map((row, i) => {
    if (models[i].kind === 'baseline' && !options['baseline-tasks']) return row;
    const [{ tasks, mean, mean_se }] = tool.evaluate([paths[i]], ['--tasks', folder, '--limit', options.limit], [folder]);
    return { ...row, tasks, mean, mean_se };
  });
}

const texts = tool.texts(options.text);
const models = [
  { path: options.teacher, name: 'teacher', kind: 'teacher' },
  ...listBaselines(),
  ...positionals.flatMap(listFile),
];
const rows = measure(models, texts).map((measured, i) => ({ ...models[i], ...measured }));
const commit = execFileSync('git', ['-C', ROOT, 'rev-parse', '--short', 'HEAD']).toString().trim();
console.error(`quality: measured at ${commit}, ${options.tokens} tokens of each text in windows of ${options.ctx}`);
console.log(tableOf(rows, texts.map(({ name }) => name)));
if (options.svg) writeFileSync(options.svg, drawQuality(rows, texts.map(({ name }) => name)));
