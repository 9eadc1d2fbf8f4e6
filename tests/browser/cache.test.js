// Models kept by a page: in the origin private file system and in the Cache API, over reloads, in two tabs, without room.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';

import { demoHandler, listen } from '../../scripts/serve.js';
import { ROOT, fixtureBytes } from '../web/helper.js';
import { enlarge } from '../web/large.js';
import { openBrowser, openPage } from './browser.js';

const MIB = 1 << 20;
const MODEL = '/models/large.gguf';
const file = enlarge(fixtureBytes(), 5 * MIB);
const WITHOUT_FOLDER = 'delete FileSystemFileHandle.prototype.createSyncAccessHandle;\n';

let browser;
let server;
before(async () => {
  browser = await openBrowser();
  const pages = demoHandler();
  const http = await listen((request, response) => {
    if (request.url === MODEL) return sendModel(request, response);
    if (request.url === '/web/worker.js' && server.prelude) return sendWorker(response);
    return pages(request, response);
  }, 0);
  server = { url: (path = '/') => `http://127.0.0.1:${http.address().port}${path}`, close: () => http.closeAllConnections() || http.close() };
});
after(async () => {
  await browser?.close();
  server?.close();
});
beforeEach(() => Object.assign(server, { requests: 0, prelude: '', down: false, delay: () => 0 }));

function sendModel(request, response) {
  if (server.down) return response.destroy();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range);
  const part = file.subarray(Number(from), Number(to) + 1);
  const range = `bytes ${from}-${Number(from) + part.length - 1}/${file.length}`;
  return setTimeout(() => {
    response.writeHead(206, { etag: '"1"', 'content-range': range, 'content-length': part.length, 'cross-origin-resource-policy': 'same-origin' });
    response.end(part);
  }, server.delay(server.requests++));
}

function sendWorker(response) {
  response.writeHead(200, { 'content-type': 'text/javascript', 'cross-origin-embedder-policy': 'require-corp' });
  response.end(server.prelude + readFileSync(`${ROOT}web/worker.js`, 'utf8'));
}

async function visit(context) {
  const page = context ? await context.newPage() : await openPage(browser, server);
  await page.goto(server.url('/web/demo/'));
  return page;
}

const loads = (page, options = {}) => page.evaluate(async ([path, more]) => {
  const { load } = await import('/web/index.js');
  const model = await load(path, { threads: 1, ...more });
  const text = await model.generate('Once upon a time', { greedy: true, maxTokens: 8 }).text();
  await model.dispose();
  return { ...model.info, text };
}, [MODEL, options]);

const listed = (page) => page.evaluate(async () => (await import('/web/index.js')).cache.list());

for (const [name, prelude] of [['the origin private file system', ''], ['the Cache API', WITHOUT_FOLDER]]) {
  describe(name, () => {
    beforeEach(() => (server.prelude = prelude));

    test('keeps a model: for the next load, without a network, until it is deleted', { timeout: 120000 }, async () => {
      const page = await visit();
      const first = await loads(page);
      assert.deepEqual([first.cached, first.cachedBytes, first.cacheReason], [true, 0, null]);
      const inFolder = await page.evaluate(async () => {
        // The page may have looked for it, which makes an empty one.
        const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('bitpair', { create: true });
        const names = [];
        for await (const key of folder.keys()) names.push(key);
        return names.some((name) => name.endsWith('.gguf'));
      });
      assert.equal(inFolder, prelude === '');
      server.requests = 0;
      const second = await loads(page);
      assert.ok(second.cachedBytes > 5 * MIB && second.verified && second.text === first.text);
      assert.equal(server.requests, 1);
      const both = await loads(page, { threads: 2 }); // who read the copy together
      assert.deepEqual([both.threads, both.cachedBytes, both.verified, both.text], [2, second.cachedBytes, true, first.text]);
      const [entry] = await listed(page);
      assert.deepEqual([entry.url, entry.bytes, entry.complete], [server.url(MODEL), file.length, true]);
      server.down = true;
      assert.equal((await loads(page)).text, first.text);
      server.down = false;
      const left = await page.evaluate(async (path) => {
        const { cache } = await import('/web/index.js');
        return [await cache.delete(path), await cache.delete(path), await cache.size()];
      }, MODEL);
      assert.deepEqual(left, [true, false, 0]);
      assert.equal((await loads(page)).cachedBytes, 0);
      await page.context().close();
    });

    for (const way of ['a reload', 'its tab was closed']) {
      test(`goes on after ${way} in the middle`, { timeout: 120000 }, async () => {
        server.delay = (n) => (n < 3 ? 0 : 60000);
        let page = await visit();
        const loading = loads(page).catch(() => {});
        for (let bytes = 0; bytes < 2 * MIB;) bytes = (await listed(page))[0]?.bytes ?? 0;
        const context = page.context();
        if (way === 'a reload') await page.reload();
        else await page.close();
        await loading;
        server.delay = () => 0;
        if (page.isClosed()) page = await visit(context);
        const { cachedBytes, cached, verified } = await loads(page);
        assert.ok(cachedBytes >= MIB && cached && verified, `${cachedBytes}`);
        await context.close();
      });
    }

    test('two tabs at once: both have a right model', { timeout: 120000 }, async () => {
      server.delay = () => 100;
      const one = await visit();
      const two = await visit(one.context());
      const infos = await Promise.all([loads(one), loads(two)]);
      assert.equal(infos[0].text, infos[1].text);
      assert.ok(infos.every(({ verified, bytes }) => verified && bytes === file.length));
      assert.ok(infos.some(({ cached }) => cached));
      for (const { cached, cacheReason } of infos) if (!cached) assert.match(cacheReason, /another page/);
      assert.ok((await loads(one)).cachedBytes > 5 * MIB);
      await one.context().close();
    });
  });
}

test('the tab that writes a copy is closed: the other goes on with it', { timeout: 120000 }, async () => {
  server.delay = (n) => (n < 3 ? 0 : 60000);
  const one = await visit();
  const two = await visit(one.context());
  const closed = loads(one).catch(() => {});
  for (let bytes = 0; bytes < 2 * MIB;) bytes = (await listed(two))[0]?.bytes ?? 0;
  server.delay = () => 1500;
  const loading = two.evaluate(async (path) => {
    const { load } = await import('/web/index.js');
    const model = await load(path, { threads: 1, onProgress: ({ cacheReason }) => (window.reason = cacheReason) });
    await model.dispose();
    return model.info;
  }, MODEL);
  await two.waitForFunction(() => /another page/.test(window.reason));
  await one.close();
  await closed;
  const { cached, cacheReason, verified } = await loading;
  assert.deepEqual([cached, cacheReason, verified], [true, null, true]);
  const [{ bytes, complete }] = await listed(two);
  assert.deepEqual([bytes, complete], [file.length, true]);
  server.down = true;
  assert.ok((await loads(two)).cachedBytes > 5 * MIB);
  await two.context().close();
});

test('what the browser has evicted is fetched anew', { timeout: 120000 }, async () => {
  const page = await visit();
  await loads(page);
  await page.evaluate(async () => {
    const folder = await (await navigator.storage.getDirectory()).getDirectoryHandle('bitpair');
    for await (const name of folder.keys()) if (name.endsWith('.gguf')) await folder.removeEntry(name);
  });
  const { cached, cachedBytes, verified } = await loads(page);
  assert.deepEqual([cached, cachedBytes, verified], [true, 0, true]);
  await page.context().close();
});

const NO_ROOM = 'navigator.storage.estimate = async () => ({ quota: 3e6, usage: 1e6 });\n';
const FULL = `{
  const { write } = FileSystemSyncAccessHandle.prototype;
  let left = 5;
  FileSystemSyncAccessHandle.prototype.write = function (...args) {
    if (left-- > 0) return write.apply(this, args);
    throw new DOMException('full', 'QuotaExceededError');
  };
}\n`;

for (const [name, prelude, reason] of [['too little room', NO_ROOM, /room for 2\.0 MB/], ['a store that is full half-way', FULL, /the store is full/]]) {
  test(`${name}: the load goes on, and says so`, { timeout: 120000 }, async () => {
    server.prelude = prelude;
    const page = await visit();
    const { cached, cacheReason, verified } = await loads(page);
    assert.deepEqual([cached, verified], [false, true]);
    assert.match(cacheReason, reason);
    await page.context().close();
  });
}
