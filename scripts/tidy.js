// tidy.js - clang-tidy with the checks of .clang-tidy over all files of the native build: `npm run tidy -- [FILE...]`. Some minutes.

import { execFileSync, spawn } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { relative } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const version = [19, 20, 21].find((n) => existsSync(`/usr/bin/clang-tidy-${n}`));
if (!version) {
  console.error('tidy: clang-tidy is missing: apt-get install clang-tidy-19');
  process.exit(1);
}
execFileSync('cmake', ['--preset', 'native'], { cwd: ROOT, stdio: ['ignore', 'ignore', 'inherit'] });
const known = JSON.parse(readFileSync(`${ROOT}build/native/compile_commands.json`, 'utf8')).map(({ file }) => relative(ROOT, file));
const files = process.argv.length > 2 ? process.argv.slice(2) : known.filter((file) => /^(src|tools)\//.test(file));
const counts = { passed: 0, failed: 0 };

const look = (file) => new Promise((resolve) => {
  const child = spawn(`clang-tidy-${version}`, ['-p', 'build/native', '--quiet', file], { cwd: ROOT, stdio: ['ignore', 'pipe', 'ignore'] });
  let text = '';
  child.stdout.setEncoding('utf8').on('data', (data) => (text += data));
  child.on('close', (code) => {
    counts[code === 0 ? 'passed' : 'failed']++;
    if (code !== 0) console.log(text);
    resolve();
  });
});

const waiting = [...files];
const lane = async () => {
  for (let file = waiting.shift(); file; file = waiting.shift()) await look(file);
};
await Promise.all(Array.from({ length: availableParallelism() }, lane));
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed || !counts.passed ? 1 : 0;
