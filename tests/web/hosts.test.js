// Hosts that lack something: WebAssembly.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

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
