// The table and the picture of `npm run quality`, from made-up rows; `npm run ablation` and `npm run quality` over a small model.
import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';

import { drawQuality, tableOf } from '../../bench/quality_draw.js';

const row = (name, kind, bytes, ratio, more = {}) => ({
  name, kind, bytes, bits_per_weight: 3, texts: [1, 1.1].map((k) => ({ ppl: 20 * ratio * k, teacher_ppl: 20, kl: 0.3, top1: 0.7 })), ...more,
});
const ROWS = [
  row('teacher', 'teacher', 98362432, 1),
  row('small & <fast>', 'ours', 37650496, 20, { line: 'a' }),
  row('larger', 'ours', 65717056, 1.3, { line: 'a' }),
  row('rounded, 3 bits', 'baseline', 65175872, 1.31, { packed: true }),
];
const NAMES = ['books', 'web'];

test('table: by size, every text, packed sizes marked', () => {
  const lines = tableOf(ROWS, NAMES).split('\n');
  assert.deepEqual(lines.slice(2, 6).map((line) => line.split(' | ')[0]), ['| teacher', '| larger', '| rounded, 3 bits', '| small & <fast>']);
  assert.equal(lines.slice(0, 6).filter((line) => line.split('|').length === lines[0].split('|').length).length, 6);
  assert.match(lines[4], /65,175,872 \* \| 3\.00 \| 26\.20 \(1\.31\) \| 0\.300 \| 70\.0 % \| 28\.82 \(1\.44\)/);
  assert.match(lines.at(-1), /packed/);
  assert.doesNotMatch(lines[0], /zero-shot/);
  const tasks = tableOf(ROWS.map((one) => (one.kind === 'baseline' ? one : { ...one, mean: 0.512, mean_se: 0.011 })), NAMES);
  assert.match(tasks, /zero-shot mean[^]*51\.2 ± 1\.1 %/);
  assert.deepEqual(tasks.split('\n').slice(2, 6).map((line) => line.split(' | ').at(-1)), ['51.2 ± 1.1 % |', '51.2 ± 1.1 % |', ' |', '51.2 ± 1.1 % |']);
});

test('picture: a mark per row and text, points beyond the edge with their number, labels apart and inside', () => {
  const svg = drawQuality(ROWS, NAMES);
  assert.equal(svg.match(/<circle/g).length, 6);
  assert.equal(svg.match(/<path class="ours"/g).length, 2);
  assert.match(svg, />small &amp; &lt;fast&gt;: 20\.00×</);
  assert.equal(svg.match(/<polyline/g).length, 2);
  assert.match(svg, /prefers-color-scheme:dark/);
  const labels = [...svg.matchAll(/<text class="t" x="([\d.]+)" y="([\d.]+)" font-size="12"[^>]*>([^<]*)</g)]
    .map(([, x, y, s]) => ({ x: +x, y: +y, w: s.replace(/&\w+;/g, '.').length * 6.6 }));
  assert.equal(labels.length, 8);
  for (const a of labels) {
    assert.ok(a.x > 0 && a.x + a.w < 960 && a.y > 10 && a.y < 430);
    for (const b of labels)
      assert.ok(a === b || a.x >= b.x + b.w || b.x >= a.x + a.w || Math.abs(a.y - b.y) >= 12, 'two labels overlap');
  }
});

test('ablation and quality: real files of a small model, the second run prints what the first measured', (t) => {
  const root = fileURLToPath(new URL('../../', import.meta.url));
  const shared = process.env.BITPAIR_SHARED_DATA ?? `${root}../shared/data`;
  const cache = mkdtempSync(join(tmpdir(), 'quality-'));
  t.after(() => rmSync(cache, { recursive: true }));
  const text = `${shared}/text/tinystories_sample_2MiB.txt`;
  const judged = ['--teacher', `${shared}/models/tinystories-656k`, '--text', text, '--tokens', '512', '--ctx', '128', '--cache', cache];
  const run = (script, ...words) => execFileSync('node', [`${root}bench/${script}.js`, ...words, ...judged], { stdio: ['ignore', 'pipe', 'ignore'] }).toString();

  const ablate = () => run('ablation', '--steps', 'stages,metric', '--calib', text, '--calib-tokens', '8192', '--iterations', '10');
  const table = ablate();
  const [plain, better] = table.trim().split('\n').slice(2).map((line) => line.split('|').map((cell) => cell.trim()));
  assert.equal(plain[2], better[2], 'the same bytes');
  assert.ok(Number(better[6]) < 0.8 * Number(plain[6]), `KL ${plain[6]} -> ${better[6]}`);
  assert.equal(ablate(), table);

  const ours = join(cache, readdirSync(cache).find((name) => /^[0-9a-f]{16}\.gguf$/.test(name)));
  const compare = () => run('quality', `ours=${ours}`, '--tiers', '--baselines', 'q8_0');
  const rows = compare();
  assert.deepEqual(rows.trim().split('\n').slice(2).map((line) => line.split(' | ')[0].slice(2)).sort(), ['Q8_0', 'ours', 'ours, tier 1 of 2', 'teacher']);
  assert.equal(compare(), rows);
});
