// Servers that misbehave, the cache, tiers, and what load() makes of them.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';
import { gzipSync } from 'node:zlib';

import { cache, estimateMemory, load } from '../../web/index.js';
import { Connections } from '../../web/connection.js';
import { HttpFile } from '../../web/ranges.js';
import { FIXTURE, fixtureBytes, injectIntoWorkers, refused } from './helper.js';
import { enlarge } from './large.js';

const MIB = 1 << 20;
const file = enlarge(fixtureBytes(), 6 * MIB);
const other = enlarge(fixtureBytes(), 6 * MIB, 2);
const small = enlarge(fixtureBytes(), 2 * MIB);
const options = { threads: 1, cache: false };

/**
 * A server of `file` with byte ranges. server.fault(request, response, count): true when it has answered itself.
 * server.log: of each request {range, sent: bytes of the body}.
 */
let server;
before(async () => {
  const http = createServer((request, response) => {
    const entry = { range: request.headers.range ?? null, ifRange: request.headers['if-range'] ?? null };
    server.log.push(entry);
    if (server.fault?.(request, response, server.log.length - 1)) return;
    serve(request, response, server.file);
  });
  http.keepAliveTimeout = 60_000; // a connection that the server closes between two requests would be a retry more
  await new Promise((resolve) => http.listen(0, '127.0.0.1', resolve));
  server = { url: `http://127.0.0.1:${http.address().port}/model.gguf`, close: () => http.closeAllConnections() || http.close() };
});
after(() => server.close());
beforeEach(() => Object.assign(server, { file, log: [], fault: null }));

const tagOf = (body) => `"${createHash('sha256').update(body).digest('hex').slice(0, 8)}"`;
const tags = new Map([file, other, small].map((body) => [body, tagOf(body)]));
const rangeOf = (request, body) => {
  const [, start, end] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range ?? '') ?? [];
  return start === undefined ? null : [Number(start), Math.min(Number(end), body.length - 1) + 1];
};

function serve(request, response, body, change = (chunk) => chunk) {
  const etag = tags.get(body);
  const range = (request.headers['if-range'] ?? etag) === etag ? rangeOf(request, body) : null;
  const [start, end] = range ?? [0, body.length];
  const headers = { etag, 'content-length': end - start };
  if (range) headers['content-range'] = `bytes ${start}-${end - 1}/${body.length}`;
  response.writeHead(range ? 206 : 200, headers);
  response.end(change(body.subarray(start, end), start));
}

/** Loads, answers, and checks the answer. -> {info, reports} */
let expected = null;
async function opens(more = {}, source = server.url) {
  const reports = [];
  const model = await load(source, { ...options, onProgress: (report) => reports.push(report), ...more });
  const text = await model.generate('Once upon a time', { greedy: true, maxTokens: 12 }).text();
  const { info } = model;
  await model.dispose();
  if (!more.tier && !more.loose) {
    expected ??= text;
    assert.equal(text, expected);
    assert.equal(info.bytes, file.length);
    assert.equal(info.verified, true);
  }
  for (const { loaded, total } of reports) assert.ok(total === null || loaded <= total, `${loaded} of ${total}`);
  return { info, reports, retries: reports.at(-1).retries };
}

/** How often each byte was asked for: most and least. */
function asked() {
  const ranges = server.log.map(({ range }) => /^bytes=(\d+)-(\d+)$/.exec(range).slice(1).map(Number));
  const edges = [...new Set([0, file.length - 1, ...ranges.flat()])].filter((at) => at < file.length);
  const times = edges.map((at) => ranges.filter(([start, end]) => start <= at && at <= end).length);
  return { most: Math.max(...times), least: Math.min(...times) };
}

describe('byte ranges', () => {
  test('several at once, every byte asked for once', async () => {
    let open = 0;
    let most = 0;
    server.fault = (request, response) => {
      most = Math.max(most, ++open);
      response.on('close', () => open--);
      setTimeout(() => serve(request, response, file), 20);
      return true;
    };
    const { retries } = await opens();
    assert.ok(most > 1, 'one connection only');
    assert.deepEqual(asked(), { most: 1, least: 1 });
    assert.equal(retries, 0);
  });

  test('a connection that breaks goes on where it stopped', async () => {
    const got = [];
    server.fault = (request, response, n) => {
      const [start, end] = rangeOf(request, file);
      got.push(start);
      if (n % 3 !== 1) return false;
      response.writeHead(206, { etag: tags.get(file), 'content-length': end - start, 'content-range': `bytes ${start}-${end - 1}/${file.length}` });
      response.write(file.subarray(start, start + 300_001), () => setTimeout(() => response.destroy(), 30));
      return true;
    };
    const { retries } = await opens();
    assert.ok(retries > 0);
    assert.ok(got.some((start) => got.includes(start + 300_001)), 'none was resumed at the byte where it broke');
  });

  test('a server that answers 200 to ranges', async () => {
    server.fault = (request, response) => {
      delete request.headers.range;
      return false;
    };
    await opens();
    assert.equal(server.log.length, 1);
  });

  test('one that does so only later', async () => {
    server.fault = (request, response, n) => {
      if (n > 1) delete request.headers.range;
      return false;
    };
    await opens();
  });

  test('a broken connection to a server without ranges', async () => {
    server.fault = (request, response, n) => {
      delete request.headers.range;
      if (n > 1) return false;
      response.writeHead(200, { 'content-length': file.length });
      response.write(file.subarray(0, (n + 1) * 2 * MIB), () => setTimeout(() => response.destroy(), 50));
      return true;
    };
    const { retries } = await opens();
    assert.equal(retries, 2);
  });

  test('compressed answers', async () => {
    const packed = gzipSync(file, { level: 0 });
    server.fault = (request, response) => {
      const range = rangeOf(request, packed);
      const headers = { 'content-encoding': 'gzip' };
      if (range) headers['content-range'] = `bytes ${range[0]}-${range[1] - 1}/${packed.length}`;
      response.writeHead(range ? 206 : 200, headers).end(range ? packed.subarray(...range) : packed);
      return true;
    };
    await opens();
    assert.deepEqual(server.log.map(({ range }) => range), ['bytes=0-1048575', null]);
  });

  test('redirects, of every request', async () => {
    server.fault = (request, response) => {
      if (request.url !== '/model.gguf') return false;
      response.writeHead(302, { location: '/moved' }).end();
      return true;
    };
    await opens();
    assert.deepEqual(server.log.filter(({ ifRange }) => ifRange), []);
  });

  test('another range than the one asked for', async () => {
    server.fault = (request, response, n) => {
      const range = rangeOf(request, file);
      if (!range || n !== 2) return false;
      response.writeHead(206, { etag: tags.get(file), 'content-range': `bytes 0-${range[1] - 1}/${file.length}` }).end(file.subarray(0, range[1]));
      return true;
    };
    await opens();
  });

  test('ranges shorter and longer than asked for, without a length', async () => {
    server.fault = (request, response, n) => {
      const [start, end] = rangeOf(request, file);
      const to = Math.min(file.length, n % 2 ? end + 5000 : Math.ceil((start + end) / 2));
      response.writeHead(206, { etag: tags.get(file), 'content-range': `bytes ${start}-${to - 1}/${file.length}` }).end(file.subarray(start, to));
      return true;
    };
    await opens();
  });

  test('416 to what is there', async () => {
    server.fault = (request, response, n) => {
      if (n !== 1) return false;
      response.writeHead(416).end();
      return true;
    };
    await opens();
  });
});

describe('what passes', () => {
  test('503 with Retry-After', async () => {
    const begun = performance.now();
    server.fault = (request, response, n) => {
      if (n > 0) return false;
      response.writeHead(503, { 'retry-after': '1' }).end();
      return true;
    };
    const { retries } = await opens();
    assert.equal(retries, 1);
    assert.ok(performance.now() - begun > 950);
  });

  test('a flipped byte, in a piece and in the header', async () => {
    for (const at of [MIB * 4 + 99, 3000]) {
      let flipped = false;
      server.fault = (request, response) => {
        const [start, end] = rangeOf(request, file);
        if (flipped || at < start || at >= end) return false;
        flipped = true;
        serve(request, response, file, (chunk) => {
          const bad = Buffer.from(chunk);
          bad[at - start] ^= 4;
          return bad;
        });
        return true;
      };
      const { retries } = await opens();
      assert.equal(retries, 1);
      assert.ok(flipped);
    }
  });

  test('a file that changes in between: all of it is the new one', async () => {
    server.fault = (request, response, n) => {
      if (n === 2) server.file = other;
      return false;
    };
    const { retries, info } = await opens();
    assert.ok(retries >= 1 && info.verified);
    assert.ok(server.log.some(({ ifRange }) => ifRange));
  });
});

describe('what does not pass', () => {
  test('503 for ever: a bounded number of requests, further and further apart', async () => {
    const times = [];
    server.fault = (request, response) => {
      times.push(performance.now());
      response.writeHead(503).end();
      return true;
    };
    await refused(load(server.url, { ...options, retries: 3 }), 'http', /answers 503/);
    assert.equal(times.length, 4);
    assert.ok(times[1] - times[0] > 100 && times[3] - times[0] > 0.5 * 1000 * (0.25 + 0.5 + 1));
  });

  test('a server that asks for an hour', () => {
    server.fault = (request, response) => {
      response.writeHead(429, { 'retry-after': '3600' }).end();
      return true;
    };
    return refused(load(server.url, options), 'http', /asks to wait 3600 s/);
  });

  test('a piece that stays damaged', async () => {
    server.file = Buffer.from(file);
    server.file[4 * MIB] ^= 1;
    tags.set(server.file, '"damaged"');
    await refused(load(server.url, options), 'checksum', /piece \d+ does not match/);
    assert.ok(server.log.length < 25);
  });

  test('a connection that always breaks at the same byte', async () => {
    server.fault = (request, response) => {
      const [start, end] = rangeOf(request, file);
      const limit = 3 * MIB;
      response.writeHead(206, { 'content-length': end - start, 'content-range': `bytes ${start}-${end - 1}/${file.length}` });
      const part = file.subarray(start, Math.max(start, Math.min(end, limit)));
      response.write(part.length > 0 ? part : '', () => setTimeout(() => (part.length === end - start ? response.end() : response.destroy()), 20));
      if (part.length === 0) response.destroy();
      return true;
    };
    await refused(load(server.url, { ...options, retries: 2 }), 'network', /broke off|cannot be reached/);
  });

  test('a file that changes again and again', async () => {
    let tag = 0;
    server.fault = (request, response) => {
      const [start, end] = rangeOf(request, file);
      response.writeHead(206, { etag: `"${tag++}"`, 'content-range': `bytes ${start}-${end - 1}/${file.length}` }).end(file.subarray(start, end));
      return true;
    };
    await refused(load(server.url, options), 'network', /has changed while it was being read/);
  });

  test('silence, before an answer and within it', async () => {
    const net = new Connections(new HttpFile({ url: server.url, init: {} }, false), { again() {} }, 0, new AbortController().signal);
    server.fault = () => true;
    await refused(net.open(0, 10, false, 0.2), 'network', /sent nothing for 0.2 s/);
    server.fault = (request, response) => response.writeHead(206, { 'content-range': `bytes 0-9/${file.length}` }).write('abc') || true;
    const reader = await net.open(0, 10, false, 1);
    assert.equal((await net.read(reader, 0)).length, 3);
    await refused(net.read(reader, 3), 'network', /sent nothing for 1 s/);
    await reader.close();
  });

  test('a file cut off on the server', async () => {
    server.file = file.subarray(0, 4 * MIB);
    tags.set(server.file, '"cut"');
    await refused(load(server.url, options), 'network', /ends after 4194304 of \d+ bytes/);
    assert.equal(server.log.length, 1);
  });
});

describe('integrity', () => {
  const at = file.indexOf('bitpair.header_sha256') + 'bitpair.header_sha256'.length + 16;
  const digest = file.subarray(at, at + 32);

  test('the header\'s digest, in hex or base64', async () => {
    await opens({ integrity: `sha256-${digest.toString('hex')}` });
    await opens({ integrity: `sha256-${digest.toString('base64')}` });
  });

  test('another file is refused, after its header', async () => {
    server.file = other;
    await refused(load(server.url, { ...options, integrity: `sha256-${digest.toString('hex')}` }), 'checksum', /not what integrity asks for/);
    assert.equal(server.log.length, 1);
    await refused(load(server.url, { ...options, integrity: 'md5-abc' }), 'argument', /integrity must be/);
  });
});

describe('tiers', () => {
  test('a file that was cut at the end of a tier is used up to there, wherever it began', async () => {
    const { weights: end } = await estimateMemory(file, { tier: 2 });
    server.file = file.subarray(0, end);
    tags.set(server.file, '"two tiers"');
    for (const startAt of [undefined, 1, 2, 3]) {
      const model = await load(server.url, { ...options, startAt });
      await model.complete;
      assert.deepEqual([model.info.tier, model.info.tiers, model.info.bytes], [2, 3, end], `${startAt}`);
      await model.dispose();
    }
  });

  test('the first tiers only are fetched', async () => {
    const { info } = await opens({ tier: 2 });
    assert.deepEqual([info.tier, info.tiers, info.verified], [2, 3, true]);
    assert.ok(info.bytes < MIB);
    assert.ok(server.log.every(({ range }) => Number(range.split('-')[1]) < 1.2 * MIB), 'up to the end of the first piece');
    const local = await opens({ tier: 2 }, file);
    assert.equal(local.info.bytes, info.bytes);
    const whole = await opens({ tier: 3 });
    assert.deepEqual([whole.info.tier, whole.info.bytes], [3, file.length]);
    await refused(load(server.url, { ...options, tier: 4 }), 'argument', /the file has 3/);
    await refused(load(server.url, { ...options, tier: 0 }), 'argument', /tier must be/);
  });

  test('a prefix on the server is a complete model, as far as it goes', async () => {
    const whole = await load(FIXTURE, { ...options, tier: 1 });
    const { bytes } = whole.info;
    await whole.dispose();
    const { info } = await opens({ loose: true }, fixtureBytes().slice(0, bytes));
    assert.deepEqual([info.tier, info.bytes, info.verified], [1, bytes, false]);
  });
});

describe('estimateMemory', () => {
  test('tells within 2 % what load() takes, from one request of a range', async () => {
    for (const more of [{}, { tier: 1 }, { contextSize: 128 }, { threads: 2 }]) {
      server.log = [];
      const guess = await estimateMemory(server.url, { ...options, ...more });
      assert.equal(server.log.length, 1);
      const model = await load(server.url, { ...options, ...more });
      const { memoryBytes, bytes } = model.info;
      await model.dispose();
      assert.ok(Math.abs(guess.total - memoryBytes) < 0.02 * memoryBytes + 2 * MIB, `${JSON.stringify(guess)}, not ${memoryBytes}`);
      assert.equal(guess.weights, bytes);
    }
    await refused(estimateMemory(server.url, { ...options, contextSize: 1 << 20 }), 'argument', /context/);
  });
});

describe('a stream', () => {
  const streamOf = (size) => new ReadableStream({
    at: 0,
    pull(controller) {
      if (this.at >= file.length) return controller.close();
      controller.enqueue(new Uint8Array(file.subarray(this.at, this.at += size)));
    },
  });

  test('of bytes, in chunks of any size', async () => {
    for (const size of [1 << 16, 3 * MIB + 1]) await opens({}, streamOf(size));
  });

  test('that fails, and one of other things', async () => {
    const failing = new ReadableStream({ pull: () => Promise.reject(new Error('torn')) });
    await refused(load(failing, options), 'io', /torn/);
    const wrong = new ReadableStream({ pull: (controller) => controller.enqueue('text') });
    await refused(load(wrong, options), 'argument', /Uint8Array/);
  });
});

/** For the beginning of a worker: after so many calls that write, the disk is full, and the first such write is refused, or cut short. */
const fullDisk = (left, cut) => `
  import fs from 'node:fs/promises';
  import { syncBuiltinESMExports } from 'node:module';
  let left = ${left};
  const full = () => Object.assign(new Error('ENOSPC: no space left on device'), { code: 'ENOSPC' });
  const spend = () => { if (left-- <= 0) throw full(); };
  const { mkdir, open } = fs;
  fs.mkdir = async (...args) => (spend(), mkdir(...args));
  fs.open = async (path, flags, ...rest) => {
    if (flags === undefined) return open(path);
    spend();
    const file = await open(path, flags, ...rest);
    const { write, appendFile } = file;
    file.write = async (bytes, from, n, at) => {
      if (${cut} && left-- === 0) return write.call(file, bytes, from, n >> 1, at);
      if (${cut} ? left < 0 : left-- <= 0) throw full();
      return write.call(file, bytes, from, n, at);
    };
    file.appendFile = async (text) => {
      if (${cut} && left === 0) await appendFile.call(file, text.slice(0, text.length >> 1));
      spend();
      return appendFile.call(file, text);
    };
    return file;
  };
  syncBuiltinESMExports();
`;

for (const threads of [1, 2]) describe(`the cache, in a folder, ${threads} thread(s)`, () => { // two read the copy together
  let folder;
  beforeEach(() => (folder = mkdtempSync(join(tmpdir(), 'bitpair-cache-'))));
  const remove = () => rmSync(folder, { recursive: true });
  const kept = () => ({ cache: folder, threads });
  const data = () => join(folder, readdirSync(folder).find((name) => name.endsWith('.gguf')));

  test('the second load asks for nothing but whether the file is the same', async () => {
    const first = await opens(kept());
    assert.deepEqual([first.info.cached, first.info.cachedBytes, first.info.cacheReason], [true, 0, null]);
    assert.deepEqual(readFileSync(data()), file);
    server.log = [];
    const { info } = await opens(kept());
    assert.ok(info.cached && info.cachedBytes > 6 * MIB);
    assert.equal(server.log.length, 1);
    const [entry] = await cache.list(folder);
    assert.deepEqual([entry.url, entry.bytes, entry.total, entry.complete], [server.url, file.length, file.length, true]);
    assert.ok(Math.abs(entry.lastUsed - Date.now()) < 60_000);
    assert.equal(await cache.size(folder), file.length);
    remove();
  });

  test('the copy is read while the server is asked, and used when it has answered', async () => {
    await opens(kept());
    for (const now of [file, other]) {
      let answer = null; // to the question
      server.fault = (request, response) => !answer && (answer = () => serve(request, response, server.file)) !== null;
      server.log = [];
      let answered = false;
      const onProgress = ({ loaded }) => {
        if (answered || !answer || loaded < MIB) return;
        answered = true;
        server.file = now;
        setTimeout(answer, 100); // time to read the rest
      };
      const model = await load(server.url, { ...options, ...kept(), startAt: 1, onProgress });
      await model.complete;
      assert.ok(answered, 'a report of pieces came before the answer');
      assert.equal(model.info.verified, true);
      assert.equal(model.info.cachedBytes > 5 * MIB, now === file);
      assert.deepEqual(readFileSync(data()), now);
      await model.dispose();
    }
    remove();
  });

  test('without a network, and pinned', async () => {
    await opens(kept());
    server.fault = (request, response) => response.destroy();
    server.log = [];
    await opens(kept());
    const at = file.indexOf('bitpair.header_sha256') + 'bitpair.header_sha256'.length + 16;
    server.log = [];
    await opens({ ...kept(), integrity: `sha256-${file.subarray(at, at + 32).toString('hex')}` });
    assert.equal(server.log.length, 0);
    remove();
  });

  test('a load that was stopped goes on where it was', async () => {
    const abort = new AbortController();
    server.fault = (request, response, n) => n > 3; // no answer to the later ones
    const stopped = refused(load(server.url, { ...options, ...kept(), signal: abort.signal }), 'aborted', /./);
    const bytesKept = async () => (await cache.list(folder))[0]?.bytes ?? 0;
    while ((await bytesKept()) < 2 * MIB) await new Promise((resolve) => setTimeout(resolve, 20));
    abort.abort();
    await stopped;
    const [before] = await cache.list(folder);
    assert.ok(!before.complete, `${before.bytes}`);
    server.fault = null;
    server.log = [];
    const { info } = await opens(kept());
    assert.ok(info.cachedBytes >= before.bytes - MIB, `${info.cachedBytes} of ${before.bytes}`);
    assert.equal(asked().most, 1);
    assert.equal((await cache.list(folder))[0].complete, true);
    remove();
  });

  test('damage heals: in a piece, in the header, in the log, a file that is gone', async () => {
    await opens(kept());
    const damages = [
      (bytes) => (bytes[3 * MIB] ^= 1),
      (bytes) => (bytes[2000] ^= 1),
      (bytes) => bytes.subarray(0, 4 * MIB + 5),
      () => Buffer.alloc(0),
    ];
    for (const damage of damages) {
      const bytes = readFileSync(data());
      const shorter = damage(bytes);
      writeFileSync(data(), typeof shorter === 'number' ? bytes : shorter);
      await opens(kept());
      assert.deepEqual(readFileSync(data()), file);
    }
    const log = data().replace('.gguf', '.log');
    writeFileSync(log, `${readFileSync(log, 'utf8').replace('{', '[')}9999\n@x\n7`);
    await opens(kept());
    await opens(kept());
    assert.equal((await cache.list(folder))[0].complete, true);
    rmSync(data());
    await opens(kept());
    assert.deepEqual(readFileSync(data()), file);
    remove();
  });

  test('another file at the same address replaces it; the same file under a new tag does not', async () => {
    await opens(kept());
    tags.set(file, '"renamed"');
    server.log = [];
    const same = await opens(kept());
    assert.ok(same.info.cachedBytes > 5 * MIB, `${same.info.cachedBytes}`);
    server.file = other;
    await opens(kept());
    assert.deepEqual(readFileSync(data()), other);
    tags.set(file, tagOf(file));
    remove();
  });

  test('tiers first, the rest later', async () => {
    const { info } = await opens({ ...kept(), tier: 1 });
    assert.deepEqual([info.cached, info.tier], [true, 1]);
    assert.equal((await cache.list(folder))[0].complete, false);
    const rest = await opens(kept());
    assert.ok(rest.info.cached && rest.info.cachedBytes > 0);
    remove();
  });

  test('two at once: both have a right model, and so has the next', async () => {
    await Promise.all([opens(kept()), opens(kept())]);
    await opens(kept());
    assert.deepEqual(readFileSync(data()), file);
    remove();
  });

  test('a place where nothing can be written never stops a load', async () => {
    const blocked = join(folder, 'file');
    writeFileSync(blocked, 'x');
    const { info, reports } = await opens({ cache: join(blocked, 'cache') });
    assert.equal(info.cached, false);
    assert.match(info.cacheReason, /ENOTDIR/);
    assert.match(reports.at(-1).cacheReason, /ENOTDIR/);
    remove();
  });

  for (const [name, cut] of [['is refused', false], ['is cut short', true]]) {
    test(`a disk that is full: the load goes on, whichever call ${name}`, async () => {
      const load = () => opens({ ...kept(), loose: true });
      let calls = cut ? 3 : 0; // the first make the folder and open the files
      server.file = small;
      for (let cached = false; !cached; calls++) {
        const restore = injectIntoWorkers(fullDisk(calls, cut));
        const { info } = await load();
        restore();
        ({ cached } = info);
        assert.ok(info.verified);
        if (!cached) assert.equal(info.cacheReason, 'the store is full', `call ${calls}`);
        if (calls % 8 === 3) assert.ok((await load()).info.cached, `after call ${calls}`);
        for (const left of readdirSync(folder)) rmSync(join(folder, left));
      }
      assert.ok(calls > 8, `${calls} calls were seen`);
      remove();
    });
  }

  test('what has no checksums, and what is not checked, is not kept', async () => {
    await opens({ ...kept(), verify: false, loose: true });
    assert.deepEqual(readdirSync(folder), []);
    remove();
  });

  test('delete and clear take away copies and nothing else', async () => {
    await opens({ ...kept(), tier: 1 });
    await opens({ ...kept(), tier: 1 }, `${server.url}?2`);
    writeFileSync(join(folder, 'mine.gguf'), 'x');
    assert.equal((await cache.list(folder)).length, 2);
    assert.equal(await cache.delete(server.url, folder), true);
    assert.equal(await cache.delete(server.url, folder), false);
    assert.deepEqual((await cache.list(folder)).map(({ url }) => url), [`${server.url}?2`]);
    await cache.clear(folder);
    assert.deepEqual(readdirSync(folder), ['mine.gguf']);
    assert.deepEqual(await cache.list(join(folder, 'none')), []);
    await refused(load(server.url, { ...options, cache: 7 }), 'argument', /cache must be/);
    remove();
  });
});
