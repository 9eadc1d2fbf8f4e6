// A Request says more than an address: its signal, its method, its cache mode.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';

import { estimateMemory, load } from '../../web/index.js';
import { fixtureBytes, injectIntoWorkers, loadsFixture, refused } from './helper.js';
import { spread } from './large.js';

const MIB = 1 << 20;
const bytes = fixtureBytes();
const options = { threads: 1, cache: false, retries: 0 };
const limits = { timeout: 300_000 }; // for what would never settle

describe('a Request', limits, () => {
  let server;
  let url;
  let log;      // of each request: {method, mode: what fetch() was told of the HTTP cache}
  let handle;   // (response): answers itself
  let restore;
  before(async () => {
    restore = injectIntoWorkers(`const { fetch } = globalThis;
      globalThis.fetch = (url, init) => (init.headers.set('x-cache', String(init.cache)), fetch(url, init))`);
    server = createServer((request, response) => {
      log.push({ method: request.method, mode: request.headers['x-cache'] });
      if (handle) handle(response);
      else response.writeHead(200, { 'content-length': bytes.length }).end(bytes);
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    url = `http://127.0.0.1:${server.address().port}/model.gguf`;
  });
  after(() => {
    restore();
    server.closeAllConnections();
    server.close();
  });
  beforeEach(() => {
    log = [];
    handle = null;
  });

  test('its signal stops the load', async () => {
    const stop = new AbortController();
    handle = () => stop.abort(new Error('enough'));
    const loading = load(new Request(url, { signal: stop.signal }), options);
    await assert.rejects(loading, (error) => error.code === 'aborted' && error.cause.message === 'enough');
    await refused(load(new Request(url, { signal: AbortSignal.abort() }), options), 'aborted', /./);
    await refused(estimateMemory({ url, signal: AbortSignal.abort() }, options), 'aborted', /./);
    assert.equal(log.length, 1);
  });

  const { any } = AbortSignal;
  for (const [name, combine] of [['', any], [', where the host cannot combine them', undefined]]) {
    test(`beside the signal of the options: either stops the load${name}`, async () => {
      AbortSignal.any = combine;
      try {
        for (const which of [0, 1]) {
          const [own, option] = [new AbortController(), new AbortController()];
          handle = () => [own, option][which].abort(new Error('enough'));
          const loading = load(new Request(url, { signal: own.signal }), { ...options, signal: option.signal });
          await assert.rejects(loading, (error) => error.code === 'aborted' && error.cause.message === 'enough');
        }
        await refused(load({ url, signal: AbortSignal.abort() }, { ...options, signal: new AbortController().signal }), 'aborted', /./);
        handle = null;
        await loadsFixture(new Request(url, { signal: new AbortController().signal }), { signal: new AbortController().signal });
      } finally {
        AbortSignal.any = any;
      }
    });
  }

  test('its signal stops the rest, though nobody else has kept the Request', async () => {
    setFlagsFromString('--expose-gc');
    const gc = runInNewContext('gc');
    const stop = new AbortController();
    const file = spread(bytes, [2 * MIB, MIB, MIB]);
    handle = (response) => response.writeHead(200, { 'content-length': file.length }).write(file.subarray(0, -1)); // tier 3 is not there
    const model = await load(new Request(url, { signal: stop.signal }), { ...options, retries: 8, startAt: 'first-tier' });
    for (let i = 0; i < 5; i++) {
      gc();
      await new Promise(setImmediate);
    }
    stop.abort(new Error('enough'));
    await assert.rejects(model.complete, (error) => error.code === 'aborted' && error.cause.message === 'enough');
    await model.dispose();
  });

  test('null for its signal is none; what is no signal is refused', async () => {
    await loadsFixture({ url, signal: null });
    await refused(load({ url, signal: {} }, options), 'argument', /signal of a Request must be an AbortSignal/);
  });

  test('of another method is refused', async () => {
    await refused(load(new Request(url, { method: 'POST', body: 'x' }), options), 'argument', /GET.*POST/);
    await refused(estimateMemory({ url, method: 'HEAD' }, options), 'argument', /GET.*HEAD/);
    await refused(load({ url, method: 7 }, options), 'argument', /method|GET/);
    assert.deepEqual(log, []);
    for (const method of ['GET', 'get', undefined, null]) await loadsFixture({ url, method });
  });

  test('does not have the file kept a second time, in the HTTP cache, unless it says so', async () => {
    const folder = mkdtempSync(join(tmpdir(), 'bitpair-sources-'));
    try {
      const told = async (source, cache) => {
        log = [];
        await loadsFixture(source, { cache });
        return [...new Set(log.map(({ mode }) => mode))];
      };
      assert.deepEqual(await told(url, join(folder, 'a')), ['no-store']);
      assert.deepEqual(await told(new Request(url), join(folder, 'b')), ['no-store']);
      assert.deepEqual(await told(new Request(url, { cache: 'force-cache' }), join(folder, 'c')), ['force-cache']);
      assert.deepEqual(await told(new Request(url), false), ['undefined']);
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
