// The package in the three browser engines, WebKit's both with SharedArrayBuffer and without: the same files, the same
// bits, the same errors. BITPAIR_ENGINES=firefox,webkit runs some of them only.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { after, before, beforeEach, describe, test } from 'node:test';

import { load } from '../../web/index.js';
import { FIXTURE, ROOT } from '../web/helper.js';
import { ENGINES, openEngine } from './engines.js';
import { LARGE, MIB, SMALL, largeFile, openSite } from './site.js';

const golden = JSON.parse(readFileSync(`${ROOT}tests/golden/logits.json`, 'utf8'));
const names = process.env.BITPAIR_ENGINES?.split(',') ?? Object.keys(ENGINES);
const STEPS = [1, 1, 7, 16, 48, 5, 33, 2]; // tokens at a time, for 1 to 8 threads
const RANDOM = { greedy: false, seed: 5, temperature: 1, maxTokens: 40 };
const POLICY = "default-src 'none'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self'";
const limits = { timeout: 300000 };

for (const name of names) describe(name, () => suite(name));

function suite(name) {
  const { threads, folder } = ENGINES[name];
  const counts = threads ? [1, 2] : [1];
  let browser;
  let site;
  let page;
  before(async () => {
    browser = await openEngine(name);
    site = await openSite(); // an origin of its own, so storage is empty
    page = await browser.newPage(site.url());
  }, { timeout: 240000 });
  after(async () => {
    await browser?.close();
    site?.close();
  });
  beforeEach(() => Object.assign(site, { requests: 0, down: false, delay: () => 0, change: (bytes) => bytes }));

  const opens = (source, options = {}) => page.evaluate((s, o) => opens(s, o), source, options);
  const listed = (from = page) => from.evaluate(() => bitpair.cache.list());
  const forget = () => page.evaluate(() => bitpair.cache.clear());

  test('load: threads, and why not more', limits, async () => {
    assert.equal(await page.evaluate(() => crossOriginIsolated), true);
    const info = await opens(SMALL, { threads: 2, cache: false });
    const { relaxedSimd } = await page.evaluate(() => bitpair.capabilities());
    assert.deepEqual([info.threads, info.verified, info.isa], [threads ? 2 : 1, true, relaxedSimd ? 'relaxed' : 'simd128']);
    if (threads) assert.equal(info.threadsReason, null);
    else assert.match(info.threadsReason, /no SharedArrayBuffer/);
    assert.equal(info.phases.at(-1), 'ready');
  });

  test('the bits of the logits are the native ones: 1 to 8 threads, eight cuts of the text, relaxed and not', limits, async () => {
    const hashes = await wantedHashes();
    const { relaxedSimd } = await page.evaluate(() => bitpair.capabilities());
    for (const [i, step] of STEPS.entries()) {
      const [count, plain] = [threads ? i + 1 : 1, i % 2 === 1];
      const found = await page.evaluate((s, ids, n, by, simple) => logitsHash(s, ids, n, by, simple), SMALL, golden.ids, count, step, plain);
      assert.deepEqual(found, { used: count, isa: relaxedSimd && !plain ? 'relaxed' : 'simd128', hash: hashes[i] }, `${count} threads, ${step} at a time`);
    }
  });

  for (const count of counts) {
    test(`the same text for the same seed as in Node, ${count} thread(s)`, limits, async () => {
      const model = await load(FIXTURE, { threads: 1, cache: false });
      const wanted = await model.generate('Once upon a time', RANDOM).text();
      await model.dispose();
      assert.equal((await opens(SMALL, { threads: count, generate: RANDOM })).text, wanted);
    });
  }

  test('bytes, a File, a stream, and what is no model', limits, async () => {
    const found = await page.evaluate(async (small) => {
      const bytes = new Uint8Array(await (await fetch(small)).arrayBuffer());
      const texts = [];
      for (const source of [small, bytes, new File([bytes], 'model.gguf'), new File([bytes], 'model.gguf').stream()])
        texts.push((await opens(source, { cache: false })).text);
      const { load } = bitpair;
      return {
        texts,
        html: await codeOf(load('/test/index.html')),
        missing: await codeOf(load('/models/none.gguf')),
        truncated: await codeOf(load(bytes.slice(0, -999))),
        flipped: await codeOf(load(bytes.map((byte, i) => (i === bytes.length - 9 ? byte ^ 1 : byte)))),
        path: await codeOf(load('file:///etc/passwd')),
        threads: await codeOf(load(bytes, { threads: 0 })),
      };
    }, SMALL);
    const { texts, ...codes } = found;
    assert.equal(texts.length, 4);
    assert.equal(new Set(texts).size, 1);
    assert.deepEqual(codes, { html: 'format', missing: 'http', truncated: 'format', flipped: 'checksum', path: 'argument', threads: 'argument' });
  });

  test('a Response and its clone, a Request with its signal and its method', limits, async () => {
    const found = await page.evaluate(async (small) => {
      const response = await fetch(small);
      const { weights } = await bitpair.estimateMemory(response.clone());
      const { text } = await opens(response, { cache: false });
      const stop = new AbortController();
      const load = (init, options) => bitpair.load(new Request(small, init), { cache: false, threads: 1, ...options });
      return {
        weights,
        same: text === (await opens(new Request(small, { signal: stop.signal }), { cache: false, signal: new AbortController().signal })).text,
        own: await codeOf(load({ signal: stop.signal }, { onProgress: () => stop.abort() })),
        gone: await codeOf(load({ signal: AbortSignal.abort() })),
        option: await codeOf(load({ signal: new AbortController().signal }, { signal: AbortSignal.abort() })),
        posted: await codeOf(load({ method: 'POST', body: 'x' })),
        failed: await codeOf(bitpair.load((await fetch('/test/index.html')).clone())),
      };
    }, SMALL);
    assert.deepEqual(found, {
      weights: readFileSync(FIXTURE).length, same: true, own: 'aborted', gone: 'aborted', option: 'aborted', posted: 'argument', failed: 'format',
    });
  });

  test('a chat, a grammar, an embedding, a state that is taken up again', limits, async () => {
    const found = await page.evaluate(async (small) => {
      const model = await bitpair.load(small, { threads: 1 });
      const chat = await model.chat([{ role: 'user', content: 'Once' }], { template: '{{ messages[0].content }} upon', greedy: true, maxTokens: 9 }).text();
      const formal = await model.generate('The cat said ', { grammar: 'root ::= ("yes" | "no")+ "."', seed: 1, maxTokens: 60 }).text();
      const prompt = await model.tokenize('Once upon a time there was', { bos: true });
      const whole = await model.generate(prompt, { greedy: true, maxTokens: 9 }).text();
      const state = await model.saveState();
      await model.generate('The cat', { greedy: true, maxTokens: 9 }).text();
      await model.restoreState(state);
      const again = model.generate(prompt, { greedy: true, maxTokens: 9 });
      const { cachedTokens } = (await again.result).stats;
      const vector = await model.embed('a cat');
      await model.dispose();
      return { chat, formal, same: (await again.text()) === whole, cachedTokens, prompt: prompt.length, length: Math.hypot(...vector) };
    }, SMALL);
    assert.match(found.chat, /\w{3}/);
    assert.match(found.formal, /^(yes|no)+\.?$/);
    assert.equal(found.same, true);
    assert.equal(found.cachedTokens, found.prompt - 1);
    assert.ok(Math.abs(found.length - 1) < 1e-4);
  });

  test('sessions that answer side by side', limits, async () => {
    const found = await page.evaluate(async (small) => {
      const model = await bitpair.load(small, { threads: 1 });
      const sessions = [model, await model.session(), await model.session()];
      const text = (session) => session.generate('Once upon a time', { greedy: true, maxTokens: 40 }).text();
      const alone = await text(model);
      const together = await Promise.all(sessions.map((session) => text(session)));
      const vectors = await Promise.all([sessions[1].embed('a cat'), sessions[2].embed('a cat'), text(model)]);
      await model.dispose();
      return { alone, together, vectors: vectors.length };
    }, SMALL);
    assert.deepEqual(found.together, [found.alone, found.alone, found.alone]);
    assert.equal(found.vectors, 3);
  });

  test('abort: within 50 ms in prefill and after, and the session goes on', limits, async () => {
    const found = await page.evaluate(async (small, count) => {
      const model = await bitpair.load(small, { threads: count });
      const times = [];
      for (let i = 0; i < 9; i++) {
        const abort = new AbortController();
        const prompt = Array.from({ length: 300 }, (_, at) => 3 + ((at * 31 + i) % 2000));
        const { result } = model.generate(prompt, { signal: abort.signal, maxTokens: 200, ignoreEnd: true });
        await new Promise((resolve) => setTimeout(resolve, i));
        const asked = performance.now();
        abort.abort();
        if ((await result).finishReason !== 'abort') throw new Error('it came to its end before it was stopped');
        times.push(performance.now() - asked);
      }
      const after = await model.generate('Once upon a time', { greedy: true, maxTokens: 12 }).text();
      await model.dispose();
      const stop = new AbortController();
      const loading = codeOf(bitpair.load(small, { signal: stop.signal }));
      stop.abort();
      return { median: times.sort((a, b) => a - b)[4], after, fresh: (await opens(small)).text, loading: await loading };
    }, SMALL, counts.at(-1));
    assert.ok(found.median < 50, `${found.median} ms`);
    assert.equal(found.after, found.fresh);
    assert.equal(found.loading, 'aborted');
  });

  // WebKit has room for a few shared memories only, and frees one when nobody holds it any more.
  test('threads come and go', limits, async () => {
    const rounds = name === 'webkit-safari' ? 20 : 5;
    const counts = await page.evaluate(async (small, n) => {
      const found = [];
      for (let i = 0; i < n; i++) found.push((await opens(small, { threads: 2, cache: false })).threads);
      return found;
    }, SMALL, rounds);
    assert.deepEqual(counts, Array(rounds).fill(threads ? 2 : 1));
  });

  test('cache: kept for the next load, without a network, until it is deleted', limits, async () => {
    await forget();
    const first = await opens(LARGE);
    assert.deepEqual([first.cached, first.cachedBytes, first.cacheReason], [true, 0, null]);
    assert.equal(await page.evaluate(async () => {
      if (typeof navigator.storage?.getDirectory !== 'function') return false;
      return navigator.storage.getDirectory().then((root) => root.getDirectoryHandle('bitpair')).then(() => true, () => false);
    }), folder);
    site.requests = 0;
    const second = await opens(LARGE);
    assert.deepEqual([second.text, second.verified, second.cachedBytes > 5 * MIB, site.requests], [first.text, true, true, 1]);
    const [entry] = await listed();
    assert.deepEqual([entry.url, entry.bytes, entry.complete], [site.url(LARGE), largeFile.length, true]);
    site.down = true;
    assert.equal((await opens(LARGE)).text, first.text);
    site.down = false;
    const left = await page.evaluate(async (path) => [await bitpair.cache.delete(path), await bitpair.cache.size()], LARGE);
    assert.deepEqual(left, [true, 0]);
    assert.equal((await opens(LARGE)).cachedBytes, 0);
  });

  test('cache: goes on after a reload in the middle', limits, async () => {
    await forget();
    site.delay = (n) => (n < 3 ? 0 : 60000);
    const lost = opens(LARGE).catch(() => 'lost');
    for (let bytes = 0; bytes < 2 * MIB;) bytes = (await listed())[0]?.bytes ?? 0;
    const keeper = browser.keepsStorage ? null : await page.another(site.url());
    if (keeper) await listed(keeper);
    await page.reload();
    assert.equal(await lost, 'lost');
    site.delay = () => 0;
    const { cachedBytes, cached, verified } = await opens(LARGE);
    assert.ok(cachedBytes >= MIB && cached && verified, `${cachedBytes}`);
    await keeper?.close();
  });

  test('cache: two tabs at once both have a right model', limits, async () => {
    await forget();
    site.delay = () => 100;
    const other = await page.another(site.url());
    const both = await Promise.all([page, other].map((tab) => tab.evaluate((s) => opens(s), LARGE)));
    assert.equal(both[0].text, both[1].text);
    assert.ok(both.every(({ verified, bytes }) => verified && bytes === largeFile.length));
    assert.ok(both.some(({ cached }) => cached));
    await other.close();
  });

  test('a damaged piece is fetched again; one that stays damaged is an error', limits, async () => {
    const flip = (part) => {
      const bad = Buffer.from(part);
      bad[bad.length - 99] ^= 4;
      return bad;
    };
    let damaged = 0;
    site.change = (part, from) => (from > MIB && damaged++ === 0 ? flip(part) : part);
    const { verified, retries } = await opens(LARGE, { cache: false });
    assert.deepEqual([verified, damaged > 0, retries > 0], [true, true, true]);
    site.change = (part, from) => (from > MIB ? flip(part) : part);
    assert.equal(await page.evaluate((s) => codeOf(bitpair.load(s, { cache: false })), LARGE), 'checksum');
  });

  test('not isolated: one thread, and the reason names the headers', limits, async (t) => {
    const plain = await openSite({ isolated: false });
    t.after(() => plain.close());
    const visitor = await browser.newPage(plain.url());
    const { threads: used, threadsReason, text } = await visitor.evaluate((s) => opens(s, { threads: 4 }), SMALL);
    assert.equal(used, 1);
    assert.match(threadsReason, /Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp/);
    assert.equal(text, (await opens(SMALL, { threads: 1 })).text);
    await visitor.close();
  });

  test('under a strict content security policy', limits, async (t) => {
    const strict = await openSite({ policy: POLICY });
    t.after(() => strict.close());
    const visitor = await browser.newPage(strict.url('/test/strict.html'));
    const found = await visitor.evaluate(async (small, count) => {
      await new Promise((resolve) => setTimeout(resolve)); // what a driver sends may evaluate
      const evaluates = await codeOf(Promise.resolve().then(() => new Function('return 1')()));
      return { ...(await opens(small, { threads: count })), evaluates };
    }, SMALL, counts.at(-1));
    assert.notEqual(found.evaluates, 'none'); // the policy is in force
    assert.deepEqual([found.text, found.threads], [(await opens(SMALL)).text, counts.at(-1)]);
    await visitor.close();
  });

  test('nothing was logged as an error', () => assert.deepEqual(page.problems?.filter((text) => !expected(text)) ?? [], []));
}

/** The hash of the rows that each of STEPS gives, from those in Node, which are the native ones. */
let rows = null;
async function wantedHashes() {
  const sha = (parts) => parts.reduce((sum, part) => sum.update(part), createHash('sha256')).digest('hex');
  if (!rows) {
    const model = await load(FIXTURE, { threads: 1, cache: false });
    rows = [];
    for (let n = 1; n <= golden.ids.length; n++) rows.push(new Uint8Array((await model.logits(golden.ids.slice(0, n), { bos: false })).buffer));
    await model.dispose();
    assert.equal(sha(rows), golden.logits_sha256.lut8);
  }
  return STEPS.map((step) => sha(rows.filter((_, i) => (i + 1) % step === 0 || i + 1 === rows.length)));
}

/** What browsers themselves say of answers that tests break on purpose. */
const expected = (text) => /status of 404|net::ERR_|NetworkError/.test(text);
