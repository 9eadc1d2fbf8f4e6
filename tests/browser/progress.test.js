// In a page: a model that answers before all of it is there, a load that is interrupted three times, memory that comes back.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { after, before, beforeEach, test } from 'node:test';

import { demoHandler } from '../../scripts/serve.js';
import { load } from '../../web/index.js';
import { gatedServer } from '../web/gated.js';
import { fixtureBytes } from '../web/helper.js';
import { spread } from '../web/large.js';
import { openBrowser, openPage } from './browser.js';

const MIB = 1 << 20;
const MODEL = '/models/large.gguf';
const PROMPT = 'Once upon a time, there was a little girl named';
const file = spread(fixtureBytes(), [3 * MIB, 2 * MIB, 3 * MIB]);
const texts = [];

let browser;
let gated;
let site; // {start(), stop(), url()}: the server of the page and of the model

before(async () => {
  browser = await openBrowser();
  gated = await gatedServer(file, { 'cross-origin-resource-policy': 'same-origin', 'cache-control': 'no-store' });
  site = makeSite();
  await site.start();
  for (const tier of [1, 2, 3]) {
    const model = await load(file, { threads: 1, tier });
    texts[tier] = await model.generate(PROMPT, { greedy: true, maxTokens: 12 }).text();
    await model.dispose();
  }
});
after(async () => {
  await browser?.close();
  gated?.close();
  await site?.stop();
});
beforeEach(() => gated.reset());

function makeSite() {
  const pages = demoHandler();
  let http = null;
  let port = 0;
  return {
    url: (path = '/') => `http://127.0.0.1:${port}${path}`,
    async start() {
      http = createServer((request, response) => (request.url === MODEL ? gated.handle(request, response) : pages(request, response)));
      await new Promise((resolve) => http.listen(port, '127.0.0.1', resolve));
      ({ port } = http.address());
    },
    /** As if it were killed: connections break, nobody listens. */
    async stop() {
      http.closeAllConnections();
      await new Promise((resolve) => http.close(resolve));
    },
  };
}

async function visit() {
  const page = await openPage(browser, site);
  await page.goto(site.url('/web/demo/'), { waitUntil: 'commit', timeout: 120000 });
  return page;
}

const until = async (check) => {
  while (!(await check())) await new Promise((resolve) => setTimeout(resolve, 20));
};

for (const threads of [1, 2]) {
  test(`startAt on ${threads} thread${threads > 1 ? 's' : ''}: answers of the first tier, then of what has arrived`, { timeout: 300000 }, async () => {
    gated.limit = 4.5 * MIB; // the first tier and the piece in which it ends
    const page = await visit();
    page.on('console', (message) => message.text() === 'let go' && gated.let(Infinity));
    const seen = await page.evaluate(async ([path, prompt, count]) => {
      const { load } = await import('/web/index.js');
      const tiers = [];
      const model = await load(path, { threads: count, cache: false, startAt: 'first-tier', onTier: (tier) => tiers.push(tier) });
      const greedy = { greedy: true, maxTokens: 12, fresh: true };
      const first = await model.generate(prompt, greedy).text();
      const chunks = [];
      for (let round = 0; round < 500 && !chunks.includes(3); round++) {
        for await (const { id, tier } of model.generate(prompt, { greedy: true, maxTokens: 120, ignoreEnd: true, fresh: true })) {
          if (id !== null) chunks.push(tier);
          if (chunks.length === 5) console.log('let go');
        }
      }
      await model.complete;
      const last = await model.generate(prompt, greedy).text();
      const { isa, verified } = model.info;
      await model.dispose();
      return { tiers, first, last, chunks, isa, verified };
    }, [MODEL, PROMPT, threads]);
    assert.deepEqual([seen.first, seen.last, seen.tiers, seen.verified], [texts[1], texts[3], [1, 2, 3], true]);
    assert.equal(seen.chunks[0], 1);
    assert.ok(seen.chunks.every((tier, i) => i === 0 || tier >= seen.chunks[i - 1]));
    assert.ok(seen.chunks.includes(3), 'the rest came while it answered');
    await page.context().close();
  });
}

test('a load that is interrupted three times ends with a verified model', { timeout: 300000 }, async () => {
  const begun = performance.now();
  const record = [];
  const note = (text) => record.push(`${((performance.now() - begun) / 1000).toFixed(1).padStart(5)} s  ${text}`);
  const mib = (bytes) => `${(bytes / MIB).toFixed(2)} MiB`;
  const page = await visit();
  let last = { loaded: 0, retries: 0 };
  page.on('console', (message) => {
    if (message.text().startsWith('{"phase"')) last = JSON.parse(message.text());
  });
  const begin = () => page.evaluate(async ([path, prompt]) => {
    const { load } = await import('/web/index.js');
    const model = await load(path, { threads: 1, onProgress: (report) => console.log(JSON.stringify(report)) });
    const text = await model.generate(prompt, { greedy: true, maxTokens: 12 }).text();
    await model.dispose();
    return { ...model.info, text };
  }, [MODEL, PROMPT]);

  gated.limit = 2.5 * MIB;
  const first = begin().catch(() => {});
  await until(() => last.loaded >= 2.3 * MIB);
  note(`${mib(last.loaded)} of ${mib(file.length)} are there: the server is killed`);
  await site.stop();
  await until(() => last.retries > 0);
  note(`the load tries again: ${last.retries} time${last.retries > 1 ? 's' : ''} so far, ${mib(last.loaded)} kept`);
  assert.ok(last.loaded >= 2 * MIB);
  gated.log = [];
  gated.limit = 5.5 * MIB;
  await site.start();
  await until(() => last.loaded >= 5 * MIB);
  const starts = gated.log.map((range) => Number(/\d+/.exec(range)[0]));
  assert.ok(starts.length > 0 && starts.every((start) => start > 0.9 * MIB), `what is there is not asked for again: ${starts}`);
  note(`the server is back, requests begin at ${starts.map(mib).join(', ')}: ${mib(last.loaded)}`);

  await page.reload();
  await first;
  note('the page is reloaded');
  gated.log = [];
  let flipped = null;
  gated.change = (chunk, start) => {
    if (flipped === null && start > 6.5 * MIB) {
      chunk[1000] ^= 16;
      flipped = start + 1000;
    }
    return chunk;
  };
  last = { loaded: 0, retries: 0 };
  gated.let(Infinity);
  const { cachedBytes, verified, cached, text, bytes } = await begin();
  note(`${mib(cachedBytes)} come from what was kept; byte ${flipped} arrives flipped`);
  note(`${last.retries} piece was fetched again; all ${bytes} bytes: ${verified ? 'verified' : 'NOT verified'}, ${cached ? 'cached' : 'not cached'}`);
  console.log(record.join('\n'));
  assert.ok(cachedBytes >= 3 * MIB, `${cachedBytes}`);
  assert.ok(flipped !== null);
  assert.deepEqual([verified, cached, last.retries, bytes, text], [true, true, 1, file.length, texts[3]]);
  await page.context().close();
});

/** Bytes of memory of all renderers. */
async function rendererMemory(session) {
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  return processInfo.filter(({ type }) => type === 'renderer').reduce((sum, { id }) => {
    const [, kilobytes] = /^VmRSS:\s+(\d+)/m.exec(readFileSync(`/proc/${id}/status`, 'utf8')) ?? [0, 0];
    return sum + 1024 * Number(kilobytes);
  }, 0);
}

test('twenty loads and disposals leave no memory behind', { timeout: 300000 }, async () => {
  const page = await visit();
  const session = await browser.newBrowserCDPSession();
  const used = [];
  for (let i = 0; i < 20; i++) {
    await page.evaluate(async ([path, threads]) => {
      const { load } = await import('/web/index.js');
      const model = await load(path, { threads });
      await model.generate('Once', { maxTokens: 2 }).text();
      await model.dispose();
    }, [MODEL, i % 2 ? 2 : 1]);
    await page.requestGC?.();
    if (i === 9 || i === 19) await new Promise((resolve) => setTimeout(resolve, 500));
    used.push(await rendererMemory(session));
  }
  const growth = used[19] - used[9];
  console.log(`renderers: ${(used[0] / 1e6).toFixed(0)} MB after one load, ${(used[9] / 1e6).toFixed(0)} after ten, ${(used[19] / 1e6).toFixed(0)} after twenty`);
  assert.ok(growth < 40e6, `${(growth / 1e6).toFixed(1)} MB more after ten more loads`);
  await page.context().close();
});

test('capabilities(), a held load, an answer that is stopped while the prompt is read', { timeout: 300000 }, async () => {
  const page = await visit();
  const seen = await page.evaluate(async ([path, prompt]) => {
    const { LoadController, capabilities, load } = await import('/web/index.js');
    const host = await capabilities();
    const control = new LoadController();
    control.pause();
    const reports = [];
    const loading = load(path, { threads: 2, cache: false, control, onProgress: (report) => reports.push(report) });
    while (!reports.some(({ paused }) => paused)) await new Promise((resolve) => setTimeout(resolve, 20));
    const held = reports.map(({ paused, loaded }) => [paused, loaded]).at(-1);
    control.resume();
    const model = await loading;
    const abort = new AbortController();
    let asked = 0;
    const { finishReason, ids } = await model.generate(prompt.repeat(40), { signal: abort.signal, onPrefill: ({ done, total }) => {
      if (asked || done === total) return;
      asked = performance.now();
      abort.abort();
    } }).result;
    const waited = performance.now() - asked;
    const text = await model.generate(prompt, { greedy: true, maxTokens: 12 }).text();
    const { memory } = await model.stats();
    await model.dispose();
    return { host, held, finishReason, ids, text, waited, memory };
  }, [MODEL, PROMPT]);
  const { host } = seen;
  assert.deepEqual([host.workerReason, host.simd, host.storage, host.crossOriginIsolated], [null, true, 'opfs', true]);
  assert.ok(host.storageBytes > 0 && host.memoryLimit === 2 ** 32);
  assert.deepEqual(seen.held, [true, 0]);
  assert.deepEqual([seen.finishReason, seen.ids, seen.text], ['abort', [], texts[3]]);
  console.log(`stopped in prefill after ${seen.waited.toFixed(1)} ms`);
  assert.ok(seen.memory.total > seen.memory.weights);
  await page.context().close();
});
