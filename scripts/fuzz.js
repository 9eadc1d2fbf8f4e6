// fuzz.js - runs the libFuzzer programs of tests/fuzz_*.c: `npm run fuzz -- [TARGET...] [--minutes N | --seconds N] [--jobs N]`.
// Each target starts from tests/fuzz/TARGET (committed) and build/fuzz-corpus/TARGET (what it has found here), and gets
// the time; --jobs of them run at once. An input that breaks something lies in build/fuzz-crashes afterwards.
// `--coverage` shows instead which lines of the parsers all inputs reach together, and fails below 90 % (Debian's package llvm-19, which
// the set-up does not install).

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, mkdirSync, readdirSync, rmSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

import { parseOptions } from '../bench/lib/options.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const CORPUS = `${ROOT}build/fuzz-corpus/`;
const CRASHES = `${ROOT}build/fuzz-crashes/`;
const LEAST_COVERAGE = 90; // percent of lines
const PARSERS = ['src/gguf.c', 'src/model.c', 'src/tokenizer.c', 'src/tokenizer_open.c', 'src/tokenizer_table.c', 'src/tokenizer_pre.c', 'src/tokenizer_nfc.c',
  'src/tokenizer_bpe.c', 'src/grammar.c', 'src/grammar_parse.c', 'src/grammar_compile.c', 'src/grammar_vocabulary.c', 'src/sampler.c',
  'src/session_state.c', 'tools/io/safetensors.c', 'tools/io/json.c', 'tools/io/hf_config.c', 'tools/io/hf_tokenizer.c',
  'tools/io/spm.c', 'tools/io/vocab.c', 'tools/chat_template.c'];

const { values: options, positionals } = parseOptions(import.meta.url, {
  allowPositionals: true,
  options: { minutes: { type: 'string' }, seconds: { type: 'string', default: '10' }, jobs: { type: 'string' }, coverage: { type: 'boolean', default: false } },
});
const seconds = options.minutes ? 60 * Number(options.minutes) : Number(options.seconds);
const jobs = Number(options.jobs ?? availableParallelism());
const all = readdirSync(`${ROOT}tests`).map((name) => /^fuzz_(\w+)\.c$/.exec(name)?.[1]).filter(Boolean);
const targets = positionals.length ? positionals : all;
const unknown = targets.filter((target) => !all.includes(target));
if (unknown.length || !(seconds >= 0) || !(jobs >= 1)) {
  console.error(`fuzz: ${unknown.length ? `no target ${unknown.join(', ')}; there are ${all.join(', ')}` : 'bad options'}`);
  process.exit(2);
}

/** The first clang that setup.sh may have installed; its tools carry the same number. */
const version = [19, 20, 21].find((n) => existsSync(`/usr/bin/clang-${n}`));
if (!version) {
  console.error('fuzz: clang is missing: bash scripts/setup.sh installs it on Debian');
  process.exit(1);
}
if (options.coverage && !['profdata', 'cov'].every((name) => existsSync(`/usr/bin/llvm-${name}-${version}`))) {
  console.error(`fuzz: llvm-profdata-${version} or llvm-cov-${version} is missing: apt-get install llvm-${version}`);
  process.exit(1);
}

const build = (preset) => {
  execFileSync('cmake', ['--preset', preset, `-DCMAKE_C_COMPILER=clang-${version}`], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
  execFileSync('cmake', ['--build', '--preset', preset, '-j', String(availableParallelism())], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
};

/** -> {executions, good, tail: its last lines} */
function run(preset, target, length, env = {}) {
  const [corpus, seeds, dictionary] = [`${CORPUS}${target}`, `${ROOT}tests/fuzz/${target}`, `${ROOT}tests/fuzz/${target}.dict`];
  mkdirSync(corpus, { recursive: true });
  mkdirSync(CRASHES, { recursive: true });
  const args = [`-max_total_time=${length}`, '-timeout=25', '-rss_limit_mb=3000', '-max_len=16384', '-print_final_stats=1',
    `-artifact_prefix=${CRASHES}${target}-`, ...(existsSync(dictionary) ? [`-dict=${dictionary}`] : []), corpus, seeds];
  if (length === 0) args[0] = '-runs=0';
  if (!options.minutes) args.unshift('-seed=1'); // short runs are tests: the same for everybody
  return new Promise((resolve) => {
    const child = spawn(`${ROOT}build/${preset}/fuzz_${target}`, args, { stdio: ['ignore', 'ignore', 'pipe'], env: { ...process.env, ...env } });
    let text = '';
    child.stderr.setEncoding('latin1').on('data', (data) => (text = (text + data).slice(-100000)));
    child.on('close', (code) => resolve({
      executions: Number(/number_of_executed_units: (\d+)/.exec(text)?.[1] ?? 0),
      good: code === 0,
      tail: text.split('\n').slice(-40).join('\n'),
    }));
  });
}

/** One after another on each of `jobs` lanes. */
async function fuzz() {
  let [total, failed] = [0, 0];
  const waiting = [...targets];
  const lane = async () => {
    for (let target = waiting.shift(); target; target = waiting.shift()) {
      const { executions, good, tail } = await run('fuzz', target, seconds);
      const bad = !good || executions === 0;
      total += executions;
      failed += bad;
      console.log(`${target.padEnd(10)} ${String(executions).padStart(12)} executions  ${bad ? 'FAILED' : 'ok'}`);
      if (bad) console.log(tail);
    }
  };
  await Promise.all(Array.from({ length: jobs }, lane));
  console.log(`${total} executions`);
  console.log(`${targets.length - failed} passed, ${failed} failed`);
  return failed === 0;
}

async function coverage() {
  const folder = `${ROOT}build/fuzz-coverage`;
  const profiles = [];
  for (const target of targets) {
    profiles.push(`${folder}/${target}.profraw`);
    rmSync(profiles.at(-1), { force: true });
    await run('fuzz-coverage', target, seconds, { LLVM_PROFILE_FILE: profiles.at(-1) });
  }
  const tool = (name, args) => execFileSync(`llvm-${name}-${version}`, args, { cwd: ROOT, encoding: 'utf8', maxBuffer: 1 << 26 });
  tool('profdata', ['merge', '-sparse', ...profiles.filter(existsSync), '-o', `${folder}/all.profdata`]);
  const objects = targets.flatMap((target, i) => (i ? ['-object', `${folder}/fuzz_${target}`] : [`${folder}/fuzz_${target}`]));
  const { files } = JSON.parse(tool('cov', ['export', '-summary-only', `-instr-profile=${folder}/all.profdata`, ...objects])).data[0];
  let [covered, count] = [0, 0];
  for (const { filename, summary: { lines } } of files) {
    const name = filename.slice(ROOT.length);
    if (!PARSERS.includes(name)) continue;
    covered += lines.covered;
    count += lines.count;
    console.log(`${name.padEnd(28)} ${String(lines.covered).padStart(5)} of ${String(lines.count).padStart(5)} lines  ${lines.percent.toFixed(1)} %`);
  }
  const percent = (100 * covered) / count;
  console.log(`parsers: ${covered} of ${count} lines, ${percent.toFixed(1)} %`);
  const good = percent >= LEAST_COVERAGE;
  console.log(good ? '1 passed, 0 failed' : '0 passed, 1 failed');
  return good;
}

build(options.coverage ? 'fuzz-coverage' : 'fuzz');
process.exitCode = (await (options.coverage ? coverage() : fuzz())) ? 0 : 1;
