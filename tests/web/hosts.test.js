// Hosts that lack something: WebAssembly, a clock that is fine enough.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { setEnvironmentData } from 'node:worker_threads';

import { capabilities, estimateMemory, load } from '../../web/index.js';
import { has } from '../../web/wasm.js';
import { FIXTURE, injectIntoWorkers, refused } from './helper.js';

describe('without WebAssembly', () => {
  const { WebAssembly } = globalThis;
  let restore;
  before(() => {
    restore = injectIntoWorkers('delete globalThis.WebAssembly');
    delete globalThis.WebAssembly;
  });
  after(() => {
    restore();
    globalThis.WebAssembly = WebAssembly;
  });

  test('there is no feature of it', () => assert.deepEqual(['simd', 'relaxed', 'threads'].map(has), [false, false, false]));

  test('capabilities() says so, from the worker and from the page', async () => {
    for (const [workerUrl, reason] of [[undefined, /^null$/], [new URL('none.js', import.meta.url), /none\.js/]]) {
      const { workerReason, simd, relaxedSimd, threads, threadsReason, memoryLimit } = await capabilities({ workerUrl });
      assert.match(String(workerReason), reason);
      assert.deepEqual([simd, relaxedSimd, threads, memoryLimit], [false, false, 1, 0]);
      assert.match(threadsReason, /WebAssembly/);
    }
  });

  test('nothing can be loaded', async () => {
    for (const threads of [1, undefined]) await refused(load(FIXTURE, { threads, cache: false }), 'unsupported', /WebAssembly.*SIMD/);
    await refused(estimateMemory(FIXTURE), 'unsupported', /WebAssembly.*SIMD/);
  });
});

test('a clock that stands still: no rate of that answer, but of those after it', async () => {
  const cell = new Int32Array(new SharedArrayBuffer(4)); // 1: it goes
  setEnvironmentData('clock', cell);
  const restore = injectIntoWorkers(`import { getEnvironmentData } from 'node:worker_threads';
    const cell = getEnvironmentData('clock');
    const now = performance.now.bind(performance);
    performance.now = () => (Atomics.load(cell, 0) ? now() : 0)`);
  const answer = { greedy: true, ignoreEnd: true, maxTokens: 8, fresh: true };
  try {
    const model = await load(FIXTURE, { threads: 1, cache: false });
    const { stats } = await model.generate('Once upon a time', answer).result;
    assert.deepEqual([stats.completionTokens, stats.prefillSeconds, stats.decodeSeconds, stats.timeToFirstToken], [8, 0, 0, 0]);
    assert.deepEqual([stats.prefillTokensPerSecond, stats.decodeTokensPerSecond], [null, null]);
    assert.deepEqual((await model.stats()).rates, { prefill: null, decode: null });
    Atomics.store(cell, 0, 1);
    const then = (await model.generate('Once upon a time', answer).result).stats;
    assert.ok(then.prefillTokensPerSecond > 0 && then.decodeTokensPerSecond > 0);
    const { rates } = await model.stats();
    assert.ok(rates.prefill > 0 && Number.isFinite(rates.prefill), `${rates.prefill}`);
    assert.ok(rates.decode > 0 && Number.isFinite(rates.decode), `${rates.decode}`);
    await model.dispose();
  } finally {
    restore();
    setEnvironmentData('clock', undefined);
  }
});
