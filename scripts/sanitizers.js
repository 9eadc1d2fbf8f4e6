// sanitizers.js - native tests under sanitizers that `npm test` has no time for: `npm run sanitizers -- [memory] [threads] [--seconds 30]`.
//
//   memory   MemorySanitizer: the tests of the engine, then the fuzzers, so many seconds each. Only code that was built with it may
//            touch memory, so what calls cJSON or OpenBLAS stays out.
//   threads  ThreadSanitizer: what runs on several threads: the pool under sessions, soak, tiers and golden hashes.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOREIGN = /cJSON|io\/json\.h|io\/hf|linalg|compress|tune\/|eval\/|command_run\.h|"text\.h"|chain\.h/; // includes of what is not built with it
const FOLDERS = ['check_session', 'check_session_state']; // open a folder, through cJSON
const THREADED = ['check_soak', 'check_session', 'check_session_state', 'check_tiers', 'check_tier_scales', 'check_fused', 'check_golden_hash', 'check_engine_errors', 'check_grammar_session', 'check_inside'];
const SLOW = 3600; // seconds
const { values: { seconds }, positionals } = parseArgs({ allowPositionals: true, options: { seconds: { type: 'string', default: '30' } } });
const named = (part) => positionals.length === 0 || positionals.includes(part);
const counts = { passed: 0, failed: 0 };

const version = [19, 20, 21].find((n) => existsSync(`/usr/bin/clang-${n}`));
if (!version) {
  console.error('sanitizers: clang is missing: bash scripts/setup.sh installs it on Debian');
  process.exit(1);
}

function build(preset, targets) {
  const options = { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] };
  execFileSync('cmake', ['--preset', preset, `-DCMAKE_C_COMPILER=clang-${version}`], options);
  execFileSync('cmake', ['--build', '--preset', preset, '-j', String(availableParallelism()), '--target', ...targets], options);
}

function run(preset, name, args = []) {
  const begun = performance.now();
  const { status, stdout, stderr } = spawnSync(`${ROOT}build/${preset}/${name}`, args, { encoding: 'latin1', maxBuffer: 1 << 28, timeout: 1000 * SLOW });
  const executions = /number_of_executed_units: (\d+)/.exec(stderr)?.[1];
  const said = executions ? `${executions} executions` : stdout.trim().split('\n').at(-1);
  counts[status === 0 ? 'passed' : 'failed']++;
  console.log(`${status === 0 ? 'ok    ' : 'FAILED'} ${preset}, ${name}: ${said} in ${Math.round((performance.now() - begun) / 1000)} s`);
  if (status !== 0) console.log(stdout.slice(-2000) + stderr.slice(-6000));
}

const source = (name) => readFileSync(`${ROOT}tests/${name}`, 'utf8');
const all = (prefix) => readdirSync(`${ROOT}tests`).filter((name) => name.startsWith(prefix) && name.endsWith('.c'));
const own = (prefix) => all(prefix).filter((name) => !FOREIGN.test(source(name))).map((name) => name.slice(0, -2))
  .filter((name) => !FOLDERS.includes(name));

if (named('memory')) {
  const [checks, fuzzers] = [own('check_'), own('fuzz_')];
  build('memory', checks);
  for (const name of checks) run('memory', name);
  build('fuzz-memory', fuzzers);
  for (const name of fuzzers) {
    const corpus = `${ROOT}build/fuzz-corpus/${name.slice('fuzz_'.length)}`;
    mkdirSync(corpus, { recursive: true });
    const seeds = `${ROOT}tests/fuzz/${name.slice('fuzz_'.length)}`;
    run('fuzz-memory', name, [`-max_total_time=${seconds}`, '-timeout=60', '-rss_limit_mb=6000', '-max_len=16384', '-print_final_stats=1', corpus, seeds]);
  }
}
if (named('threads')) {
  build('threads', THREADED);
  for (const name of THREADED) run('threads', name);
}
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed || !counts.passed ? 1 : 0;
