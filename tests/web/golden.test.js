// The bits of the logits: the same in WASM, at one to eight threads, in one piece and token by token, and natively
// (tests/check_golden_hash.c compares with the same file).

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';

import { has } from '../../web/wasm.js';
import { FIXTURE, ROOT, openEngine, openSession } from './helper.js';

if (!has('relaxed')) setFlagsFromString('--experimental-wasm-relaxed-simd'); // Node 20 and 22

const golden = JSON.parse(readFileSync(`${ROOT}tests/golden/logits.json`, 'utf8'));
const bytes = readFileSync(FIXTURE);

test('the fixture is the one that the hashes belong to', () => {
  assert.equal(createHash('sha256').update(bytes).digest('hex'), golden.model_sha256);
});

for (const name of Object.keys(golden.logits_sha256)) {
  const [arith, kv] = name.split('_');
  const kvBits = kv === 'kv16' ? 16 : 8;
  for (const isa of ['ref', 'simd128', 'relaxed']) {
    for (const threads of isa === 'ref' ? [1] : [1, 2]) {
      describe(`${name}, ${isa}, ${threads} thread(s)`, () => {
        let engine;
        before(async () => (engine = await openEngine(threads, { isa, arith, relaxed: isa === 'relaxed' })));
        after(() => engine.close());
        for (const step of [golden.ids.length, 7, 1])
          test(`${step} tokens at a time`, () => assert.equal(hash(engine, kvBits, step), golden.logits_sha256[name]));
      });
    }
  }
}

for (const [i, step] of [16, 5, 33, 2, 47, 13].entries()) {
  const threads = i + 3;
  test(`more threads than processors: ${threads}, ${step} tokens at a time, relaxed and not`, async () => {
    for (const isa of ['simd128', 'relaxed']) {
      const engine = await openEngine(threads, { isa, arith: 'lut8', relaxed: isa === 'relaxed' });
      assert.equal(hash(engine, 8, step), golden.logits_sha256.lut8, isa);
      await engine.close();
    }
  });
}

/** SHA-256 of the float32 logits of every position, fed `step` tokens at a time. */
function hash(engine, kvBits, step) {
  const { wasm } = engine;
  const { session } = openSession(engine, bytes, 0, kvBits);
  const sum = createHash('sha256');
  const n = golden.ids.length;
  const ids = wasm.alloc(4 * n);
  const logits = wasm.alloc(4 * n * golden.vocab);
  for (let at = 0; at < n; at += step) {
    const part = golden.ids.slice(at, at + step);
    new Int32Array(wasm.memory.buffer, ids, part.length).set(part);
    wasm.check(wasm.exports.bp_session_feed_all(session, ids, part.length, logits, wasm.error));
    sum.update(wasm.bytes(logits, 4 * part.length * golden.vocab).slice());
  }
  wasm.exports.bp_session_close(session);
  return sum.digest('hex');
}
