// test.js - everything `npm test` does, and one line at the end that sums up what all test programs have counted.
// A step that fails does not keep the later ones from running, unless they need what it builds.

import { spawn } from 'node:child_process';
import { readdirSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const jobs = String(availableParallelism());
const totals = { passed: 0, failed: 0 };
/** What the end repeats: steps that failed and lines of theirs that say where, and what passed only the second time. */
const failures = [];
const MOST_LINES = 20; // of one command
const FILE_SECONDS = 900; // for a file of tests that may be run again: one that hangs is one that fails
const TELLING = [/^(?:\s*\d+: )?\S+\.[ch]:\d+: /, /\bFAILED\b/, /^\s*✖ (?!failing tests)/, /runtime error|ERROR: \w+Sanitizer/,
  /^\s*\d+ - .*\((?:Failed|Timeout|SEGFAULT|.*abort)/];

/** Sums that programs print: ours, and the reporter of node:test. */
const COUNTS = [
  { pattern: /^(?:\s*\d+: )?(\d+) passed, (\d+) failed\s*$/, passed: 1, failed: 2 },
  { pattern: /^\S+ pass (\d+)$/, passed: 1 },
  { pattern: /^\S+ (?:fail|cancelled) (\d+)$/, failed: 1 },
];

function count(line, sums) {
  for (const { pattern, passed, failed } of COUNTS) {
    const match = pattern.exec(line.replace(/\x1b\[\d+m/g, ''));
    if (!match) continue;
    if (passed) sums.passed += Number(match[passed]);
    if (failed) sums.failed += Number(match[failed]);
  }
}

/** One line of a program: what it counts, and whether the end should repeat it. */
function read(line, sums) {
  count(line, sums);
  if (sums.lines.length < MOST_LINES && TELLING.some((pattern) => pattern.test(line)) && !sums.lines.includes(line)) sums.lines.push(line);
}

/** Its exit code; seconds: it is ended after so many. */
function run(command, args, sums, seconds) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd: ROOT, stdio: ['ignore', 'pipe', 'inherit'] });
    const late = () => {
      read(`✖ ${args.at(-1)} did not end within ${seconds} s`, sums);
      child.kill();
    };
    const timer = seconds && setTimeout(late, 1000 * seconds);
    let rest = '';
    child.stdout.on('data', (data) => {
      process.stdout.write(data);
      const lines = (rest + data).split('\n');
      rest = lines.pop();
      for (const line of lines) read(line, sums);
    });
    child.on('error', (error) => {
      console.error(`${command}: ${error.message}`);
      resolve(1);
    });
    child.on('close', (code) => {
      clearTimeout(timer);
      read(rest, sums);
      resolve(code ?? 1);
    });
  });
}

/** Runs a command, and adds what it counts; with `again` a second time if it fails, which then counts instead. */
async function attempt([command, ...args], sums, again) {
  const seconds = again ? FILE_SECONDS : undefined;
  let own = { passed: 0, failed: 0, lines: [] };
  let code = await run(command, args, own, seconds);
  let first = null;
  if (code !== 0 && again) {
    first = own;
    console.log(`== ${args.at(-1)} failed (${own.failed}): once more`);
    own = { passed: 0, failed: 0, lines: [] };
    code = await run(command, args, own, seconds);
  }
  sums.passed += own.passed;
  sums.failed += own.failed;
  if (code === 0 && first) failures.push(`the second time only: ${args.at(-1)}`, ...first.lines.map((line) => `  ${line}`));
  if (code !== 0) failures.push(`${command} ${args.join(' ')}`.slice(0, 200), ...own.lines.map((line) => `  ${line}`));
  return code === 0;
}

/**
 * Runs commands one after another; true when all succeeded and, where tests are expected, some were counted. `again`: each on its own,
 * and once more if it fails: pages in real browsers, and clocks, race against whatever else the machine does.
 */
async function step(name, commands, { tests = false, again = false } = {}) {
  const begun = performance.now();
  const sums = { passed: 0, failed: 0 };
  console.log(`\n== ${name}`);
  let good = true;
  for (const command of commands) {
    if (await attempt(command, sums, again)) continue;
    good = false;
    if (!again) break;
  }
  if (good && tests && sums.passed === 0) good = false;
  if (!good && sums.failed === 0) sums.failed = 1; // a crash, a build that fails, a step that checked nothing
  if (!good) failures.push(`FAILED: ${name}`);
  totals.passed += sums.passed;
  totals.failed += sums.failed;
  const seconds = ((performance.now() - begun) / 1000).toFixed(1);
  console.log(`== ${name}: ${good && sums.failed === 0 ? 'ok' : 'FAILED'} in ${seconds} s`);
  return good;
}

const preset = (name) => [['cmake', '--preset', name], ['cmake', '--build', '--preset', name, '-j', jobs]];

const testFiles = (folder) => readdirSync(`${ROOT}tests/${folder}`).filter((name) => name.endsWith('.test.js')).sort()
  .map((name) => `tests/${folder}/${name}`);

const nodeTest = (...files) => [process.execPath, '--test', '--test-reporter=spec', '--test-concurrency=1', '--expose-gc', ...files];

const begun = performance.now();
if (await step('set-up', [['bash', 'scripts/setup.sh']])) {
  await step('floors', [['bash', 'tests/floors.sh']], { tests: true });
  if (await step('native build with sanitizers', preset('sanitize')))
    await step('native tests under sanitizers', [['ctest', '--test-dir', 'build/sanitize', '-V', '--no-tests=error', '-j', jobs]], { tests: true });
  if (await step('native build', preset('native')))
    await step('kernels, optimized', [['build/native/check_kernels'], ['build/native/check_golden_hash']], { tests: true });
  if (process.arch !== 'arm64' && await step('build for AArch64', preset('neon')))
    await step('AArch64 under emulation', [['ctest', '--test-dir', 'build/neon', '-V', '--no-tests=error', '-j', jobs]], { tests: true });
  await step('fuzzing, ten seconds for each parser', [[process.execPath, 'scripts/fuzz.js']], { tests: true });
  if (await step('WASM build', preset('wasm'))) {
    await step('package in Node', testFiles('web').map((file) => nodeTest(file)), { tests: true, again: true });
    await step('package as installed', testFiles('package').map((file) => nodeTest(file)), { tests: true, again: true });
    await step('pages in browsers', testFiles('browser').map((file) => nodeTest(file)), { tests: true, again: true });
  }
}
if (failures.length) console.log(`\n${failures.join('\n')}`);
console.log(`\n${((performance.now() - begun) / 60000).toFixed(1)} minutes`);
console.log(`${totals.passed} passed, ${totals.failed} failed`);
process.exitCode = totals.failed === 0 && totals.passed > 0 ? 0 : 1;
