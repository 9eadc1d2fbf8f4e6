// What is kept while another page writes it, what is not kept, and what the functions of `cache` say.

import assert from 'node:assert/strict';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { Copy } from '../../web/copy.js';
import { cache, estimateMemory, load } from '../../web/index.js';
import { gatedServer } from './gated.js';
import { FIXTURE, fixtureBytes, injectIntoWorkers } from './helper.js';
import { enlarge } from './large.js';

const MIB = 1 << 20;
const file = enlarge(fixtureBytes(), 5 * MIB);
const other = enlarge(fixtureBytes(), 5 * MIB, 2);
const options = { threads: 1, retries: 1 };
const root = mkdtempSync(join(tmpdir(), 'bitpair-kept-'));
const until = async (check) => {
  for (const end = Date.now() + 10_000; !check();) {
    assert.ok(Date.now() < end, `${check}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
};
let server;
let folder;
let folders = 0;
before(async () => (server = await gatedServer(file)));
after(() => {
  server?.close();
  rmSync(root, { recursive: true });
});
beforeEach(() => {
  server.reset();
  folder = join(root, `${folders++}`);
});

const path = (end) => join(folder, readdirSync(folder).find((name) => name.endsWith(end)));
const keeps = async (more = {}) => {
  const model = await load(server.url, { ...options, cache: folder, ...more });
  await model.complete;
  await model.dispose();
  return model.info;
};

/** For the beginning of a worker: a writer has a file for itself, as in the origin private file system; while `lock` is there another page
 *  has it. */
const exclusive = (lock) => `
  import fs from 'node:fs/promises';
  import { existsSync } from 'node:fs';
  import { syncBuiltinESMExports } from 'node:module';
  const { open } = fs;
  const held = new Set();
  fs.open = async (path, flags, ...rest) => {
    if (flags === undefined) return open(path);
    if (held.has(path) || existsSync(${JSON.stringify(lock)})) throw new DOMException('locked', 'NoModificationAllowedError');
    held.add(path);
    const file = await open(path, flags, ...rest);
    const { close } = file;
    file.close = () => (held.delete(path), close.call(file));
    return file;
  };
  syncBuiltinESMExports();
`;

describe('another page writes the copy', () => {
  const lock = join(root, 'lock');
  const BUSY = /another page or worker is writing/;

  /** Loads while the copy is locked, until so many bytes have come; then comes change(), and the lock goes. -> {info, reasons: reported} */
  async function waits(bytes, change = () => {}) {
    writeFileSync(lock, '');
    server.limit = bytes;
    const reports = [];
    const restore = injectIntoWorkers(exclusive(lock));
    const loading = keeps({ onProgress: (report) => reports.push(report) });
    await until(() => reports.at(-1)?.loaded === bytes);
    restore();
    assert.match(reports.at(-1).cacheReason, BUSY);
    change();
    rmSync(lock);
    server.let(Infinity);
    const info = await loading;
    return { info, reasons: new Set(reports.map(({ cacheReason }) => cacheReason)) };
  }

  const complete = async (info) => {
    assert.deepEqual([info.cached, info.cacheReason, info.verified], [true, null, true]);
    assert.deepEqual(readFileSync(path('.gguf')), file);
    assert.equal((await cache.list(folder))[0].complete, true);
    server.down = true;
    assert.ok((await keeps()).cachedBytes > 4 * MIB);
  };

  test('and ends without one: all of it is kept, also what came meanwhile', async () => {
    const { info, reasons } = await waits(3 * MIB + 9);
    assert.ok(reasons.has(null) && [...reasons].some((reason) => BUSY.test(reason)), String([...reasons]));
    await complete(info);
  });

  /** Keeps the file that the server has, and takes the copy away: {log: its first line, data, put(log, data)}. */
  async function prepared() {
    await keeps();
    const [log, data] = [path('.log'), path('.gguf')];
    const copy = { log: readFileSync(log, 'utf8').split('\n')[0], data: readFileSync(data) };
    copy.put = (text) => {
      writeFileSync(log, text);
      writeFileSync(data, copy.data);
    };
    for (const each of [log, data]) rmSync(each);
    return copy;
  }

  test('and ends with pieces of the same file: the copy goes on from them', async () => {
    const copy = await prepared();
    copy.data.fill(0, 2 * MIB, 4 * MIB);
    const { info } = await waits(2 * MIB + 9, () => copy.put(`${copy.log}\n0\n4\n5\n@7\n`));
    const lines = readFileSync(path('.log'), 'utf8').split('\n');
    assert.equal(lines[4], '@7', 'what the other page wrote is there');
    assert.equal(lines.lastIndexOf('0'), 1, 'a piece that is there is not written again');
    await complete(info);
  });

  test('and ends with another file, or one whose header is damaged: it is begun anew', async () => {
    server.file = other;
    const copy = await prepared();
    for (const damage of [() => {}, () => (copy.data = Buffer.from(file).fill(0, 99, 200))]) {
      damage();
      server.reset();
      const { info } = await waits(3 * MIB + 9, () => copy.put(`${copy.log}\n0\n1\n2\n3\n4\n5\n`));
      await complete(info);
      await cache.clear(folder);
    }
  });

  test('to the end: the load does not keep it, and says so', async () => {
    writeFileSync(lock, '');
    const restore = injectIntoWorkers(exclusive(lock));
    const info = await keeps();
    restore();
    rmSync(lock);
    assert.equal(info.cached, false);
    assert.match(info.cacheReason, BUSY);
    assert.equal(existsSync(folder) && readdirSync(folder).length > 0, false);
  });

  test('and ends when several pieces come: they open the files once', async () => {
    let locked = true;
    let text = '';
    const writer = async () => {
      if (locked) throw new DOMException('locked', 'NoModificationAllowedError');
      locked = true;
      const append = async (line) => void (text += line);
      return { write: async () => {}, append, clear: async () => void (text = ''), close: async () => void (locked = false) };
    };
    const store = { text: async () => text, read: async () => new Uint8Array(4), room: async () => 100, writer };
    const copy = Object.assign(new Copy(true), { store, id: 'id', url: 'http://localhost/' });
    await copy.begin({ size: 34, dataOffset: 4, pieceBytes: 10 }, new Uint8Array(4), false, 34);
    assert.match(copy.reason, BUSY);
    locked = false;
    await Promise.all([0, 1, 2].map((i) => copy.put(i, 4 + 10 * i, () => new Uint8Array(10))));
    assert.deepEqual([copy.reason, copy.holds(3), text.split('\n').length], [null, true, 5]);
    await copy.close();
  });

  test('a damaged piece does not count as kept before it is written again', async () => {
    await keeps();
    const bytes = readFileSync(path('.gguf'));
    bytes[3 * MIB] ^= 1;
    writeFileSync(path('.gguf'), bytes);
    writeFileSync(lock, '');
    const restore = injectIntoWorkers(exclusive(lock));
    const locked = await keeps();
    rmSync(lock);
    assert.deepEqual([locked.cached, locked.verified], [false, true]);
    const info = await keeps();
    restore();
    await complete(info);
  });
});

test('two first loads of one file into one folder write one copy; another version begins anew', async () => {
  const meta = { etag: '"1"', modified: null, size: 34, dataOffset: 4, pieceBytes: 10 };
  const head = Uint8Array.of(1, 2, 3, 4);
  const piece = (i) => new Uint8Array(10).fill(10 + i);
  const put = (copy, i) => copy.put(i, 4 + 10 * i, () => piece(i));
  const open = () => Copy.open('http://localhost/', folder);
  const [first, second, third] = [await open(), await open(), await open()]; // none finds a copy
  await first.begin(meta, head, false, 34);
  await put(first, 0);
  await second.begin({ ...meta, etag: 'W/"1"' }, head, false, 34);
  assert.deepEqual([second.lacks(0), second.lacks(1)], [false, true]);
  await put(second, 1);
  await second.close(); // stopped
  await Promise.all([1, 2].map((i) => put(first, i)));
  await first.close();
  assert.deepEqual([first.reason, second.reason, (await open()).holds(3)], [null, null, true]);
  assert.deepEqual([...readFileSync(path('.gguf'))], [head, piece(0), piece(1), piece(2)].flatMap((bytes) => [...bytes]));
  await third.begin({ ...meta, etag: '"2"' }, head, false, 34);
  await third.close();
  assert.deepEqual([third.reason, (await open()).holds(1)], [null, false]);
});

test('addresses that hold their bytes themselves are not kept', async () => {
  const base64 = Buffer.from(fixtureBytes()).toString('base64');
  const model = await load(`data:application/octet-stream;base64,${base64}`, { ...options, cache: folder });
  assert.deepEqual([model.info.cached, model.info.cacheReason, model.info.verified], [false, null, true]);
  await model.dispose();
  assert.equal(existsSync(folder), false);
});

test('lastUsed is of loads that came to their end', async () => {
  const abort = new AbortController();
  server.limit = 3 * MIB;
  const loading = keeps({ signal: abort.signal });
  const names = () => (existsSync(folder) ? readdirSync(folder) : []);
  await until(() => names().some((name) => name.endsWith('.log') && /\n1\n/.test(readFileSync(join(folder, name), 'utf8'))));
  abort.abort();
  await assert.rejects(loading, { code: 'aborted' });
  assert.equal((await cache.list(folder))[0].lastUsed, null);
  server.let(Infinity);
  await keeps();
  const [{ lastUsed }] = await cache.list(folder);
  assert.ok(Math.abs(lastUsed - Date.now()) < 60_000);
  await new Promise((resolve) => setTimeout(resolve, 5));
  await estimateMemory(server.url, { ...options, cache: folder });
  await assert.rejects(keeps({ integrity: `sha256-${'0'.repeat(64)}` }), { code: 'checksum' });
  assert.deepEqual((await cache.list(folder))[0].lastUsed, lastUsed);
  await keeps();
  assert.ok((await cache.list(folder))[0].lastUsed > lastUsed);
});

test('an address is relative to the worker that asks, where there is no page', async () => {
  await keeps();
  globalThis.location = { href: new URL('/worker.js', server.url).href }; // of the caller's own worker
  try {
    assert.equal(await cache.delete('/model.gguf', folder), true);
    assert.deepEqual(await cache.list(folder), []);
  } finally {
    delete globalThis.location;
  }
});

test('what a store refuses has code io, what is no address or name argument', async () => {
  mkdirSync(join(folder, `${'0'.repeat(32)}.log`), { recursive: true });
  for (const name of [FIXTURE, folder]) { // a file; a folder in the place of a log
    await assert.rejects(cache.list(name), { code: 'io', name: 'BitpairError', message: /the cache cannot be read or changed: E/ });
    await assert.rejects(cache.size(name), { code: 'io' });
    await assert.rejects(cache.clear(name), { code: 'io' });
  }
  await assert.rejects(cache.delete('http://localhost/a', FIXTURE), { code: 'io' });
  for (const url of ['http://', 'relative', undefined, 7]) await assert.rejects(cache.delete(url, folder), { code: 'argument' });
  for (const call of ['list', 'size', 'clear']) await assert.rejects(cache[call](''), { code: 'argument' });
});
