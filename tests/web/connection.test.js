// Connections that fail: how many failures are borne, and when they do not count.

import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import { afterEach, beforeEach, describe, test } from 'node:test';

import { load } from '../../web/index.js';
import { Connections } from '../../web/connection.js';
import { transient } from '../../web/ranges.js';
import { fixtureBytes, injectIntoWorkers } from './helper.js';
import { spread } from './large.js';

describe('offline', () => {
  const scope = new EventTarget();
  const before = Object.getOwnPropertyDescriptor(globalThis, 'navigator');
  let failures; // still to come
  let retries;  // so far
  async function read(size) {
    if (failures-- > 0) throw transient(new Error('no network'));
    return new Uint8Array(size);
  }
  const source = {
    name: 'the file', remote: true, ranges: true, size: 10,
    open: async (at) => ({ read: () => read(10 - at), close: async () => {} }),
  };
  const setOnline = (onLine) => Object.defineProperty(globalThis, 'navigator', { value: { onLine }, configurable: true });
  beforeEach(() => {
    setOnline(false);
    retries = 0;
    for (const name of ['addEventListener', 'removeEventListener']) globalThis[name] = scope[name].bind(scope);
  });
  afterEach(() => {
    if (before) Object.defineProperty(globalThis, 'navigator', before);
    else delete globalThis.navigator;
    delete globalThis.addEventListener;
    delete globalThis.removeEventListener;
  });

  /** Reads all of the source, of which so many bytes have come; again() is called with each failure. */
  function reading(received, most, again, signal = new AbortController().signal) {
    const net = new Connections(source, { again: () => again(++retries) }, most, signal);
    net.received = received;
    return net.patiently(async () => net.read(await net.open(received, 10, false), received), async () => {});
  }
  const soon = (fn) => setTimeout(fn, 5);
  const online = () => soon(() => scope.dispatchEvent(new Event('online')));

  test('once something has come, failures cost nothing, and the host says when to try again', async () => {
    failures = 6;
    const begun = performance.now();
    assert.equal((await reading(5, 1, online)).length, 5);
    assert.equal(retries, 6);
    assert.ok(performance.now() - begun < 2000, 'it did not wait for its timer');
    setOnline(true);
    failures = 4; // the first of them is the only one that counts
    assert.equal((await reading(5, 1, () => (setOnline(false), online()))).length, 5);
  });

  test('it does count before that, for a server that is gone, and where no retries are wanted', async () => {
    for (const [received, most] of [[0, 1], [5, 0]]) {
      failures = 9;
      await assert.rejects(reading(received, most, online), /no network/);
      assert.equal(failures, 9 - most - 1);
    }
    setOnline(true);
    failures = 9;
    await assert.rejects(reading(5, 1, () => {}), /no network/);
  });

  test('its signal ends the wait', async () => {
    failures = Infinity;
    const abort = new AbortController();
    await assert.rejects(reading(5, 1, () => soon(() => abort.abort(new Error('enough'))), abort.signal), /enough/);
  });
});

test('by default eight retries, for about half a minute', async (t) => {
  let requests = 0;
  const http = createServer((request, response) => {
    requests++;
    response.writeHead(503).end();
  });
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  t.after(() => http.closeAllConnections() || http.close());
  const hurry = 50;
  const restore = injectIntoWorkers(`const { setTimeout: later } = globalThis;
    globalThis.setTimeout = (fn, ms, ...rest) => later(fn, ms / ${hurry}, ...rest);`);
  const begun = performance.now();
  await assert.rejects(load(`http://127.0.0.1:${http.address().port}/`, { threads: 1, cache: false }), { name: 'BitpairError' });
  restore();
  assert.equal(requests, 9);
  assert.ok(performance.now() - begun > (0.5 * 31_750) / hurry);
});

describe('a stream whose producer says nothing', () => {
  const MIB = 1 << 20;
  const file = spread(fixtureBytes(), [2 * MIB, 2 * MIB, 2 * MIB]);

  /** The first 4 MiB, then nothing. waiting: resolves when more is asked for; cancelled: when the stream is. */
  function stalling() {
    const told = {};
    const waiting = new Promise((resolve) => (told.waiting = resolve));
    const cancelled = new Promise((resolve) => (told.cancelled = resolve));
    let bytes = new Uint8Array(file.subarray(0, 4 * MIB));
    const pull = (controller) => {
      if (!bytes) return told.waiting();
      controller.enqueue(bytes);
      return (bytes = null);
    };
    const stream = new ReadableStream({ pull, cancel: told.cancelled }, { highWaterMark: 0 });
    return { stream, waiting, cancelled };
  }

  for (const [name, of] of [['a ReadableStream', (stream) => stream], ['a Response', (stream) => new Response(stream)]]) {
    test(`${name}: its signal ends the wait, and the stream is cancelled`, { timeout: 60_000 }, async (t) => {
      const abort = new AbortController();
      const { stream, waiting, cancelled } = stalling();
      const model = await load(of(stream), { threads: 1, startAt: 1, signal: abort.signal });
      t.after(() => model.dispose());
      await waiting;
      abort.abort(new Error('enough'));
      await assert.rejects(model.complete, ({ code, cause }) => code === 'aborted' && cause.message === 'enough');
      await cancelled;
      assert.equal((await model.generate('Once', { maxTokens: 3, ignoreEnd: true }).result).ids.length, 3);
    });
  }

  test('its silence has no end, that of a connection has', async () => {
    const seconds = 0.02;
    for (const remote of [false, true]) {
      let go;
      const open = async () => ({ read: () => new Promise((resolve) => (go = resolve)), close: async () => {} });
      const source = { name: 'the file', remote, ranges: false, size: 1, open };
      const net = new Connections(source, null, 0, new AbortController().signal);
      const reader = await net.open(0, 1, false, seconds);
      const reading = net.read(reader, 0);
      if (remote) {
        await assert.rejects(reading, /sent nothing for 0.02 s/);
        go(new Uint8Array(1)); // too late
      } else {
        setTimeout(() => go(new Uint8Array(1)), 4000 * seconds);
        assert.equal((await reading).length, 1);
      }
    }
  });
});
