// What can be said before the file is there is said then; addresses, answers and engines that cannot work; what stands in for them.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { Host } from '../../web/host.js';
import { BitpairError, estimateMemory, load } from '../../web/index.js';
import { gatedServer } from './gated.js';
import { FIXTURE, fixtureBytes, refused } from './helper.js';
import { enlarge, seal } from './large.js';

const MIB = 1 << 20;
const file = enlarge(fixtureBytes(), 6 * MIB);
const options = { threads: 1, cache: false, retries: 1 };
const root = mkdtempSync(join(tmpdir(), 'bitpair-early-'));
let server;
before(async () => (server = await gatedServer(file)));
after(() => {
  server?.close();
  rmSync(root, { recursive: true });
});
beforeEach(() => server.reset());

/** Loads, answers, ends. -> info */
async function opens(source, more = {}) {
  const model = await load(source, { ...options, ...more });
  await model.complete;
  assert.equal((await model.generate('Once', { maxTokens: 3, ignoreEnd: true }).result).ids.length, 3);
  await model.dispose();
  return model.info;
}

describe('before the pieces are there', () => {
  const foreign = Buffer.from(file);
  const at = foreign.indexOf('llama', foreign.indexOf('general.architecture'));
  foreign.write('gemma', at, 'latin1');
  seal(foreign);

  const cases = [
    ['an architecture that this build does not run', foreign, {}, 'unsupported', /gemma/],
    ['a context that the model does not have', file, { contextSize: 1 << 20 }, 'argument', /a context of 1048576/],
    ['the same, with startAt', file, { contextSize: 1 << 20, startAt: 1 }, 'argument', /a context of 1048576/],
    ['the same, on two threads', file, { contextSize: 1 << 20, threads: 2 }, 'argument', /a context of 1048576/],
  ];
  for (const [name, body, more, code, message] of cases) {
    test(name, async () => {
      Object.assign(server, { file: body, limit: MIB }); // what the first request is for; more never comes
      await refused(load(server.url, { ...options, ...more, signal: AbortSignal.timeout(20_000) }), code, message);
      assert.deepEqual(server.log, ['bytes=0-1048575']);
      await refused(load(body, { ...options, ...more }), code, message);
      const response = await fetch(server.url);
      await refused(load(response, { ...options, ...more, signal: AbortSignal.timeout(20_000) }), code, message);
    });
  }

  test('a copy that was kept', async () => {
    const kept = { cache: join(root, 'kept') };
    await opens(server.url, kept);
    await refused(load(server.url, { ...options, ...kept, contextSize: 1 << 20 }), 'argument', /a context of/);
    assert.ok((await opens(server.url, kept)).cachedBytes > 5 * MIB);
  });
});

describe('there is something else at the address now', () => {
  const page = '<!doctype html><title>Sign in</title>'.repeat(20);
  const answers = {
    'a page, with an etag': [200, { 'content-type': 'text/html', etag: '"page"' }],
    'a page': [200, { 'content-type': 'text/html' }],
    'sign in first': [401, {}],
    'not found': [404, {}],
    'out of order': [503, {}],
  };
  let http;
  let answer = null;
  before(async () => {
    http = createServer((request, response) => (answer ? response.writeHead(...answer).end(page) : server.handle(request, response)));
    await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  });
  after(() => http.closeAllConnections() || http.close());
  const url = () => `http://127.0.0.1:${http.address().port}/model.gguf`;

  for (const [name, head] of Object.entries(answers)) {
    test(`${name}: a complete copy stands for it, part of one does not`, async () => {
      const cache = join(root, name);
      answer = null;
      await opens(url(), { cache, tier: 1 });
      answer = head;
      const codes = head[0] === 200 ? ['format', 'network'] : ['http'];
      await assert.rejects(load(url(), { ...options, cache, retries: 0 }), ({ code }) => codes.includes(code));
      answer = null;
      await opens(url(), { cache });
      answer = head;
      for (let again = 0; again < 2; again++) {
        const info = await opens(url(), { cache });
        assert.deepEqual([info.cached, info.verified, info.cacheReason], [true, true, null]);
        assert.ok(info.cachedBytes > 6 * MIB);
      }
      assert.ok((await estimateMemory(url(), { ...options, cache })).weights > 6 * MIB);
      answer = null;
    });
  }
});

describe('a Response', () => {
  test('is read as its body; its headers go nowhere', async () => {
    assert.equal((await opens(await fetch(server.url))).bytes, file.length);
    assert.equal(server.log.length, 1);
    assert.equal((await opens(new Response(fixtureBytes()))).verified, true);
  });

  test('that is an error, was read, or has nothing', async (t) => {
    const missing = createServer((request, response) => response.writeHead(404).end('none'));
    await new Promise((resolve) => missing.listen(0, '127.0.0.1', resolve));
    t.after(() => missing.closeAllConnections() || missing.close());
    const url = `http://127.0.0.1:${missing.address().port}/none.gguf`;
    await refused(load(await fetch(url), options), 'http', /none\.gguf answers 404/);
    await assert.rejects(load(await fetch(url), options), { status: 404, url });
    const read = new Response('x');
    await read.text();
    const locked = new Response('x');
    locked.body.getReader();
    for (const each of [read, locked, new Response(null)]) await refused(load(each, options), 'argument', /./);
    await refused(load(new Response('<!doctype html>'), options), 'format', /doctype/);
  });
});

describe('addresses', () => {
  test('that can never work are refused at once', async () => {
    const begun = performance.now();
    const urls = ['localhost:8080/model.gguf', 'ftp://localhost/model.gguf', 'ws://localhost/', new URL('about:blank'), { url: 'chrome://a' }];
    for (const url of urls)
      await refused(load(url, { threads: 1 }), 'argument', /is no scheme that can be read/);
    await refused(estimateMemory('localhost:8080/model.gguf'), 'argument', /is 'http:' missing/);
    await refused(load(server.url.replace('://', '://me:secret@'), { threads: 1 }), 'argument', /user name or password/);
    assert.ok(performance.now() - begun < 2000);
    assert.deepEqual(server.log, []);
  });

  test('onProgress tells what the last request that failed has said', async (t) => {
    let broken = 2;
    const http = createServer((request, response) => (broken-- > 0 ? response.writeHead(503).end() : server.handle(request, response)));
    await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
    t.after(() => http.closeAllConnections() || http.close());
    const reports = [];
    const url = `http://127.0.0.1:${http.address().port}/model.gguf`;
    await opens(url, { retries: 3, onProgress: (report) => reports.push(report) });
    await opens(FIXTURE, { onProgress: ({ lastError }) => assert.equal(lastError, null) });
    const said = reports.find(({ retries }) => retries === 1);
    assert.match(said.lastError, /answers 503/);
    assert.deepEqual([reports.at(-1).phase, reports.at(-1).retries], ['ready', 2]);
    assert.match(reports.at(-1).lastError, /answers 503/);
  });
});

test('a session that there is no memory for leaves nothing behind', () => {
  const [freed, closed] = [[], []];
  let left = 2;
  const wasm = {
    alloc: () => (left-- > 0 ? 100 + left : (() => { throw new BitpairError('memory', 'none'); })()),
    free: (pointer) => freed.push(pointer),
    check: (value) => value,
    exports: { wasm_session_bytes: () => 9, wasm_session_open: () => 7, bp_session_chunk: () => 64 },
  };
  wasm.exports.bp_session_close = (pointer) => closed.push(pointer);
  const host = new Host({ wasm, contextSize: 0, kvBits: 8 });
  assert.throws(() => host.open(), { code: 'memory' });
  assert.deepEqual([closed, freed.sort(), host.sessions.size], [[7], [100, 101], 0]);
});
