// What the scripts of bench/ do around their measuring: what is kept and when it is measured again, and options that are none (of others
// too). The `bitpair` command is played by a script that notes what it is asked.
import assert from 'node:assert/strict';
import { spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';

import { ROOT } from './helper.js';

/** Answers as bitpair does: a file's KL is the number that its first bytes are; files have two tiers; what compress makes is empty. */
const TOOL = `#!${process.execPath}
const { appendFileSync, existsSync, readFileSync, writeFileSync } = require('node:fs');
const [command, ...words] = process.argv.slice(2);
appendFileSync(__filename + '.log', JSON.stringify([command, ...words]) + '\\n');
const after = (name) => words[words.indexOf(name) + 1];
if (command === 'inspect') console.log(JSON.stringify({ tiers: [{ end: 4 }, { end: 8 }] }));
if (command === 'eval') {
  const files = words.slice(0, words.findIndex((word) => word.startsWith('--')));
  const one = (file) => ({ ppl: 2, teacher_ppl: 1, kl: parseFloat(readFileSync(file, 'utf8')), top1: 0.5 });
  for (const file of files) console.log(JSON.stringify(words.includes('--tasks') ? { tasks: [], mean: 0.5, mean_se: 0.1 }
    : { bytes: readFileSync(file).length, bits_per_weight: 1, texts: [one(file)] }));
}
if (command === 'compress' || command === 'tune') {
  const out = after('-o');
  if (command === 'tune' && existsSync(__filename + '.stop')) { writeFileSync(out + '.tune', ''); process.exit(130); }
  writeFileSync(out, '1');
  console.log(JSON.stringify({ seconds: 60 }));
}
`;

function makeFolder(t) {
  const folder = mkdtempSync(join(tmpdir(), 'bench-'));
  t.after(() => rmSync(folder, { recursive: true }));
  const put = (name, text, options) => {
    writeFileSync(join(folder, name), text, options);
    return join(folder, name);
  };
  const tool = put('bitpair', TOOL, { mode: 0o755 });
  put('package.json', '{ "type": "commonjs" }');
  const [teacher, text] = [put('teacher.gguf', '0'), put('text.txt', 'words')];
  const lines = () => (existsSync(`${tool}.log`) ? readFileSync(`${tool}.log`, 'utf8').trim().split('\n') : []);
  const log = () => lines().map((line) => JSON.parse(line));
  const given = ['--tool', tool, '--teacher', teacher, '--text', text, '--cache', join(folder, 'cache')];
  const run = (script, ...words) => spawnSync(process.execPath, [`${ROOT}bench/${script}.js`, ...given, ...words], { encoding: 'utf8' });
  return { folder, put, run, log };
}

test('quality: tiers of two files of one name are two files', (t) => {
  const { folder, put, run } = makeFolder(t);
  for (const name of ['a', 'b']) mkdirSync(join(folder, name));
  const [a, b] = [put('a/model.gguf', '1.25____'), put('b/model.gguf', '3.50____')];
  const { stdout, stderr, status } = run('quality', '--baselines', 'none', '--tiers', `A=${a}`, `B=${b}`);
  assert.equal(status, 0, stderr);
  assert.match(stdout, /^\| A, tier 1 of 2 \|.*\| 1\.250 \|/m);
  assert.match(stdout, /^\| B, tier 1 of 2 \|.*\| 3\.500 \|/m);
});

test('quality: what is kept holds until a text, the teacher or a task is another', (t) => {
  const { folder, put, run, log } = makeFolder(t);
  const file = put('model.gguf', '1.25____');
  mkdirSync(join(folder, 'tasks'));
  put('tasks/one.jsonl', '{}');
  const measured = () => {
    const before = log().length;
    const { stderr, status } = run('quality', '--baselines', 'q8_0', '--tasks', join(folder, 'tasks'), file);
    assert.equal(status, 0, stderr);
    return log().slice(before).map((words) => ['tasks', 'text'].find((what) => words.includes(`--${what}`)) ?? words[0]);
  };
  assert.deepEqual(measured(), ['compress', 'text', 'tasks', 'tasks']);
  assert.deepEqual(measured(), []);
  put('text.txt', 'other words');
  assert.deepEqual(measured(), ['text']);
  put('tasks/one.jsonl', '{ "more": 1 }');
  assert.deepEqual(measured(), ['tasks', 'tasks']);
  put('teacher.gguf', '0.5');
  assert.deepEqual(measured(), ['compress', 'text', 'tasks']);
  assert.deepEqual(measured(), []);
});

test('ablation: a step of tuning that was stopped goes on, and another calibration is another file', (t) => {
  const { folder, put, run, log } = makeFolder(t);
  const calib = put('calib.txt', 'words');
  const ablate = () => run('ablation', '--steps', 'tune', '--calib', calib);
  const last = (command) => log().findLast(([name]) => name === command);
  put('bitpair.stop', '');
  assert.equal(ablate().status, 1);
  assert.ok(last('tune').includes('--force'));
  rmSync(join(folder, 'bitpair.stop'));
  assert.equal(ablate().status, 0);
  assert.ok(last('tune').includes('--resume') && !last('tune').includes('--force'));
  assert.equal(log().filter(([name]) => name === 'compress').length, 1);
  put('calib.txt', 'other words');
  assert.equal(ablate().status, 0);
  assert.equal(log().filter(([name]) => name === 'compress').length, 2);
});

test('options that are none: one line, and exit code 2', () => {
  const wrong = (script, ...words) => {
    const { status, stdout, stderr } = spawnSync(process.execPath, [`${ROOT}${script}.js`, ...words], { encoding: 'utf8' });
    assert.equal(status, 2, `${script} ${words}: ${stderr}`);
    assert.equal(stdout, '');
    assert.equal(stderr.trim().split('\n').length, 1, stderr);
    return stderr;
  };
  assert.match(wrong('bench/bench', '--parts', 'foo'), /^bench: --parts foo: no foo; there are kernels, speed/);
  assert.match(wrong('bench/bench', '--parts', ''), /--parts is empty; there are kernels/);
  assert.match(wrong('bench/bench', '--runtime', 'node,foo'), /no foo; there are native, node, chromium/);
  assert.match(wrong('bench/bench', '--rounds', '0'), /--rounds 0: a whole number from 1 on/);
  assert.match(wrong('bench/bench', '--threads', '1,two'), /--threads two/);
  assert.match(wrong('bench/bench', '--tiers', '0'), /--tiers 0/);
  assert.match(wrong('bench/bench', '--tiers', '9', '--runtime', 'node'), /--tiers 9: .* has 3 tiers/);
  assert.match(wrong('bench/peers', '--only', 'onnx,wlama'), /wlama is in no name; there are .*wllama 2\.4\.0 Q4_0/);
  assert.match(wrong('bench/peers', '--parts', 'sped'), /no sped; there are speed, start, memory, native/);
  assert.match(wrong('scripts/serve', '--port', 'x'), /^serve: --port x: a number from 0 to 65535/);
});

test('--help prints the comment at the top', () => {
  for (const script of ['bench/bench', 'bench/peers', 'bench/page', 'bench/quality', 'bench/ablation', 'scripts/fuzz', 'scripts/serve']) {
    const { status, stdout, stderr } = spawnSync(process.execPath, [`${ROOT}${script}.js`, '--help'], { encoding: 'utf8' });
    assert.deepEqual([status, stderr], [0, ''], script);
    assert.match(stdout, new RegExp(`^${script.split('/')[1]}\\.js - `));
  }
});

test('peers are found by words of their names, with hyphens or blanks', async () => {
  const { strangeWords } = await import('../../bench/peers/contestants.js');
  assert.deepEqual(strangeWords(['wllama-2.4.0', 'wllama 2.3.1 Q4_0', 'onnx', 'q8', 'bitpair']), []);
  assert.deepEqual(strangeWords(['wllama-2.5.0', 'onnx']).map(({ word }) => word), ['wllama-2.5.0']);
});
