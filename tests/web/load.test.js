// Ways into the engine, and what goes wrong on them.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { after, before, describe, test } from 'node:test';
import { pathToFileURL } from 'node:url';

import { BitpairError, estimateMemory, load } from '../../web/index.js';
import { FIXTURE, faultyServer, fixtureBytes } from './helper.js';

const bytes = fixtureBytes();
const options = { threads: 1, cache: false, retries: 1 };
let server;
before(async () => (server = await faultyServer(bytes)));
after(() => server.close());

async function opens(source, more = {}) {
  const reports = [];
  const model = await load(source, { ...options, onProgress: (report) => reports.push(report), ...more });
  assert.equal(model.info.bytes, bytes.length);
  assert.equal(model.info.architecture, 'llama');
  assert.equal(model.info.verified, true);
  const { text } = await model.generate('Once upon a time', { greedy: true, maxTokens: 12 }).result;
  await model.dispose();
  assert.equal(reports.at(-1).phase, 'ready');
  assert.ok(reports.some(({ phase, loaded, total }) => phase === 'download' && loaded === total));
  return text;
}

const refused = (promise, code, message) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof BitpairError, String(error));
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });

describe('a model loads from', () => {
  let text;
  before(async () => (text = await opens(FIXTURE)));
  const sources = {
    'a file URL': () => pathToFileURL(FIXTURE),
    'a Uint8Array': () => bytes,
    'a view into a larger buffer': () => new Uint8Array([0, 0, 0, ...bytes]).subarray(3),
    'a Buffer': () => readFileSync(FIXTURE),
    'an ArrayBuffer': () => bytes.buffer.slice(0),
    'a stream': () => new Blob([bytes]).stream(),
    'a Blob': () => new Blob([bytes.subarray(0, 1000), bytes.subarray(1000)]),
    'a URL': () => new URL(server.url('/model')),
    'a Request': () => new Request(server.url('/model'), { headers: { 'x-test': '1' } }),
    'a server without content-length': () => server.url('/no-length'),
    'a compressed response': () => server.url('/gzip'),
    'small pieces': () => server.url('/drip'),
    'a redirect': () => server.url('/redirect'),
    'a response with more behind the model': () => server.url('/long'),
  };
  for (const [name, source] of Object.entries(sources)) test(name, async () => assert.equal(await opens(source()), text));
  test('a URL, on two threads', async () => assert.equal(await opens(server.url('/model'), { threads: 2 }), text));
});

describe('load() refuses', () => {
  const fetching = (path) => load(server.url(path), options);
  test('404', async () => {
    await refused(fetching('/missing'), 'http', /missing answers 404 Not Found/);
    await assert.rejects(fetching('/missing'), { status: 404, url: server.url('/missing') });
  });
  test('HTML', () => refused(fetching('/html'), 'format', /not a GGUF file \(status 200, content type text\/html\).*<!doctype html>/));
  test('a truncated file', () => refused(fetching('/truncated'), 'network', /ends after \d+ of \d+ bytes/));
  test('a connection that breaks', () => refused(fetching('/broken'), 'network', /broken broke off/));
  test('an empty response', () => refused(fetching('/empty'), 'format', /ends after 0 bytes/));
  test('no server', async () => {
    const closed = createServer().listen(0, '127.0.0.1');
    await once(closed, 'listening');
    const { port } = closed.address();
    await once(closed.close(), 'close');
    await refused(load(`http://127.0.0.1:${port}/model`, options), 'network', /cannot be reached/);
  });
  test('a path that is not there', () => refused(load('/no/such/file.gguf', options), 'io', /no such file/));
  test('a folder', () => refused(load('/', options), 'io', /cannot be read/));
  test('other bytes', () => refused(load(new Uint8Array(100), options), 'format', /not a GGUF file/));
  test('few bytes', () => refused(load(new Uint8Array(3), options), 'format', /not a GGUF file/));
  test('no bytes', () => refused(load(new Uint8Array(0), options), 'format', /0 bytes/));
  test('half a header', () => refused(load(bytes.slice(0, 5000), options), 'format', /inside its header|ends after/));
  test('one byte missing', () => refused(load(bytes.slice(0, -1), options), 'format', /ends after/));
  test('a flipped byte', async () => {
    for (const at of [bytes.length - 100, bytes.length >> 1]) {
      const bad = bytes.slice();
      bad[at] ^= 16;
      await refused(load(bad, options), 'checksum', /./);
    }
  });
  test('sizes that lie', async () => {
    for (const at of [8, 16]) { // counts of tensors and keys
      const bad = bytes.slice();
      bad.fill(255, at, at + 8);
      await refused(load(bad, options), 'format', /./);
    }
  });
  test('wrong arguments', async () => {
    await refused(load(42), 'argument', /load\(\) takes/);
    await refused(load(null), 'argument', /load\(\) takes/);
    await refused(load(''), 'argument', /empty/);
    for (const source of ['http://', { url: 'relative' }, 'file:///%', 'file:///%ff', { url: server.url('/model'), headers: { 'a b': '1' } }])
      await refused(load(source), 'argument', /cannot use this source/);
    await refused(load(FIXTURE, { threads: 0 }), 'argument', /threads must be/);
    await refused(load(FIXTURE, { threads: 65 }), 'argument', /threads must be/);
    await refused(load(FIXTURE, { contextSize: -1 }), 'argument', /contextSize/);
  });
  test('more context than the memory holds', () => refused(load(FIXTURE, { ...options, contextSize: 2 ** 31 - 1 }), 'memory', /./)
    .catch(() => refused(load(FIXTURE, { ...options, contextSize: 2 ** 31 - 1 }), 'argument', /./)));
});

describe('worker and engine from elsewhere', () => {
  const web = new URL('../../web/', import.meta.url);
  const single = readFileSync(new URL('bitpair.wasm', web));
  const threaded = readFileSync(new URL('bitpair-threads.wasm', web));

  test('a URL, bytes, a module, a function', async () => {
    for (const wasm of [new URL('bitpair.wasm', web), new URL('bitpair.wasm', web).href, single, await WebAssembly.compile(single)])
      await opens(bytes, { threads: 1, wasm });
    const asked = [];
    const model = await load(bytes, { threads: 2, wasm: (name) => (asked.push(name), name.startsWith('bitpair-threads') ? threaded : undefined) });
    assert.deepEqual([asked.sort(), model.info.threads], [['bitpair-relaxed.wasm', 'bitpair-threads-relaxed.wasm', 'bitpair-threads.wasm', 'bitpair.wasm'], 2]);
    await model.dispose();
    await opens(bytes, { threads: 2, workerUrl: new URL('worker.js', web) });
  });

  test('they are used, and what is wrong with them is said', async () => {
    await refused(load(bytes, { threads: 1, wasm: new Uint8Array(8) }), 'worker', /the engine that was given did not load/);
    await refused(load(bytes, { threads: 1, wasm: new URL('none.wasm', web) }), 'worker', /none\.wasm did not load/);
    await refused(load(bytes, { wasm: 3 }), 'argument', /wasm must be/);
    const empty = new Uint8Array([0, 97, 115, 109, 1, 0, 0, 0]);
    for (const threads of [1, 2])
      await refused(load(bytes, { threads, wasm: empty }), 'argument', /no engine of this package, it has no wasm_err_bytes/);
    await refused(load(bytes, { workerUrl: new URL('none.js', web) }), 'worker', /./);
    await refused(load(bytes, { workerUrl: 'relative.js' }), 'argument', /workerUrl must be/);
  });
});

test('an engine for one thread, given for all, is one thread where nothing else was asked for', async () => {
  const web = new URL('../../web/', import.meta.url);
  const single = readFileSync(new URL('bitpair.wasm', web));
  const { threads: usual } = await estimateMemory(bytes, {});
  const model = await load(bytes, { cache: false, wasm: single });
  assert.equal(model.info.threads, 1);
  if (usual > 1) assert.match(model.info.threadsReason, /the engine that was given is for one thread/);
  await model.dispose();
  assert.equal((await estimateMemory(bytes, { wasm: single })).threads, 1);
  for (const call of [load, estimateMemory]) {
    await refused(call(bytes, { threads: 2, wasm: single }), 'argument', /for one thread, 2 are wanted/);
    await refused(call(bytes, { threads: 1, wasm: readFileSync(new URL('bitpair-threads.wasm', web)) }), 'argument', /for several threads/);
  }
});

test('the source stays the caller\'s', async () => {
  for (const source of [readFileSync(FIXTURE), bytes.slice()]) {
    await opens(source);
    assert.equal(source.length, bytes.length);
    assert.equal(source[0], 71);
  }
});

test('what onProgress throws is what load() throws', async () => {
  for (const wanted of ['download', 'ready']) {
    const wrong = new Error('of the caller');
    const onProgress = ({ phase }) => {
      if (phase === wanted) throw wrong;
    };
    await assert.rejects(load(FIXTURE, { ...options, onProgress }), (error) => error === wrong);
  }
});

describe('abort', () => {
  test('before the start', () => refused(load(FIXTURE, { signal: AbortSignal.abort() }), 'aborted', /./));

  test('in the middle of a download', async () => {
    const abort = new AbortController();
    const begun = performance.now();
    const loading = load(server.url('/drip'), {
      ...options,
      signal: abort.signal,
      onProgress: ({ loaded }) => loaded > 0 && abort.abort(new Error('enough')),
    });
    await refused(loading, 'aborted', /./);
    await assert.rejects(loading, (error) => error.name === 'AbortError' && error.cause.message === 'enough');
    assert.ok(performance.now() - begun < 2000);
  });
});

test('twenty loads and disposals leave no memory behind', async () => {
  const used = [];
  for (let i = 0; i < 20; i++) {
    const model = await load(bytes, { threads: i % 2 ? 2 : 1 });
    await model.dispose();
    globalThis.gc?.();
    used.push(process.memoryUsage().rss);
  }
  const growth = used.at(-1) - used[9];
  assert.ok(growth < 40e6, `${(growth / 1e6).toFixed(1)} MB more after ten more loads`);
});

test('a program that forgets dispose() ends all the same', async () => {
  const { spawn } = await import('node:child_process');
  const program = `import { load } from ${JSON.stringify(new URL('../../web/index.js', import.meta.url).href)};
    const model = await load(${JSON.stringify(FIXTURE)}, { threads: 2 });
    await model.generate('Once', { maxTokens: 3 }).text();`;
  const child = spawn(process.execPath, ['--input-type=module', '-e', program], { stdio: 'inherit', timeout: 20000 });
  const [code] = await once(child, 'exit');
  assert.equal(code, 0);
});
