// native.js - `bitpair bench` beside llama.cpp's llama-bench, one after the other in each round.

import { execFileSync } from 'node:child_process';
import { mkdirSync } from 'node:fs';

import { EMBEDDED, sharedData } from '../../tests/web/helper.js';
import { cutTier, nativeTool } from '../lib/tiers.js';
import { TEACHER } from './contestants.js';
import { roundTeacher } from './install.js';

const run = (file, args) => JSON.parse(execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] }));

function runOwn({ prompt, generate, model }, threads) {
  const { prefill_tps: prefill, decode_tps: decode } = run(nativeTool(), ['bench', model, '--json', '--quiet', '--prompt-tokens', prompt,
    '--tokens', generate, '--repetitions', 3, '--threads', threads].map(String));
  return { prefill, decode };
}

function runLlama({ prompt, generate, bench, model }, threads) {
  const rows = run(bench, ['-m', model, '-p', prompt, '-n', generate, '-t', threads, '-r', 3, '-o', 'json'].map(String));
  const rate = (test) => rows.find(test).avg_ts;
  return { prefill: rate(({ n_prompt: n }) => n > 0), decode: rate(({ n_gen: n }) => n > 0) };
}

/** -> rows as peers.js prints them */
export async function measureNative({ 'llama-bench': bench, folder, threads, rounds, prompt, generate }) {
  mkdirSync(folder, { recursive: true });
  const teacher = sharedData(TEACHER);
  const size = { prompt, generate };
  const contestants = [
    ['bitpair, 2 tiers', cutTier(EMBEDDED, 2)],
    ['bitpair, whole file', EMBEDDED],
  ].map(([name, model]) => ({ name, ours: true, run: (count) => runOwn({ ...size, model }, count) }));
  if (bench) {
    for (const method of ['q4_0', 'q8_0']) {
      const model = roundTeacher(teacher, folder, method);
      contestants.push({ name: `llama.cpp ${method.toUpperCase()}`, run: (count) => runLlama({ ...size, bench, model }, count) });
    }
  }
  const rows = contestants.flatMap(({ name, ours = false, run: work }) => threads.map((count) => ({ name, ours, threads: count, work, figures: [] })));
  for (let round = 1; round <= rounds; round++) {
    for (const row of rows) {
      row.figures.push(row.work(row.threads));
      console.error(`native ${round}/${rounds}: ${row.name}, ${row.threads} thread(s): ${JSON.stringify(row.figures.at(-1))}`);
    }
  }
  return rows.map(({ work, ...row }) => row);
}
