// Models that answer before all of them is there; loads that are held, let go, stopped.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { LoadController, load } from '../../web/index.js';
import { Meter } from '../../web/meter.js';
import { gatedServer } from './gated.js';
import { fixtureBytes } from './helper.js';
import { spread } from './large.js';

const MIB = 1 << 20;
const PROMPT = 'Once upon a time, there was a little girl named';
const GREEDY = { greedy: true, maxTokens: 12, ignoreEnd: true };
const file = spread(fixtureBytes(), [2 * MIB + 64, 2 * MIB, 2 * MIB]);
const options = { threads: 1, cache: false, retries: 1 };
const texts = []; // of the model with so many tiers
const ends = [];  // of tiers, bytes
let server;
const folder = mkdtempSync(join(tmpdir(), 'bitpair-progress-'));

before(async () => {
  server = await gatedServer(file);
  for (const tier of [1, 2, 3]) {
    const model = await load(file, { ...options, tier });
    texts[tier] = await model.generate(PROMPT, GREEDY).text();
    ends[tier] = model.info.bytes;
    await model.dispose();
  }
  assert.equal(new Set(texts.slice(1)).size, 3, 'the tiers say different things');
  assert.ok(ends[2] - ends[1] > 2 * MIB);
});
after(() => {
  server?.close();
  rmSync(folder, { recursive: true });
});
beforeEach(() => server.reset());

/** The end of the piece in which tier n ends: what must come before it can be checked. */
const checkedEnd = (n) => Math.min(file.length, Math.ceil((ends[n] - (ends[3] % MIB)) / MIB) * MIB + (ends[3] % MIB) + MIB);

/** Loads until tier 1 is there, and no further. */
async function first(more = {}) {
  server.limit = checkedEnd(1);
  const tiers = [];
  const reports = [];
  const model = await load(server.url, { ...options, startAt: 'first-tier', onTier: (n) => tiers.push(n), onProgress: (report) => reports.push(report), ...more });
  return { model, tiers, reports };
}

const ENDLESS = { maxTokens: 20000, overflow: 'shift' }; // seconds longer than the download, and still an end if that never comes
const answer = (model, more = {}) => model.generate(PROMPT, { ...GREEDY, fresh: true, ...more });
const until = async (check) => {
  while (!check()) await new Promise((resolve) => setTimeout(resolve, 5));
};

describe('startAt', () => {
  test('the first tier answers while the others are on their way, and they are taken up between two tokens', async () => {
    const { model, tiers, reports } = await first();
    assert.deepEqual([model.tier, model.tiers, model.info.tier, tiers], [1, 3, 1, [1]]);
    const ready = reports.find(({ phase }) => phase === 'ready');
    assert.deepEqual([ready.tier, ready.total], [1, file.length]);
    assert.ok(ready.loaded < ends[2]);
    const { text, stats } = await answer(model).result;
    assert.deepEqual([text, stats.firstTier, stats.lastTier], [texts[1], 1, 1]);
    const bits = model.info.bitsPerWeight;
    const seen = [];
    const enough = new AbortController(); // however fast the machine is, it goes on until all tiers took part
    const answering = answer(model, { ...ENDLESS, signal: enough.signal });
    for await (const chunk of answering) {
      seen.push(chunk.tier);
      if (seen.length === 20) server.let(checkedEnd(2));
      if (seen.length > 20 && model.tier === 2) server.let(Infinity);
      if (chunk.tier === 3) enough.abort();
    }
    assert.deepEqual([...new Set(seen)], [1, 2, 3]);
    const ended = await answering.result;
    assert.deepEqual([ended.finishReason, ended.stats.firstTier, ended.stats.lastTier], ['abort', 1, 3]);
    await model.complete;
    assert.deepEqual(tiers, [1, 2, 3]);
    assert.deepEqual([model.tier, model.info.bytes, model.info.verified], [3, file.length, true]);
    assert.ok(model.info.bitsPerWeight > bits);
    assert.equal(await answer(model).text(), texts[3]);
    const last = reports.at(-1);
    assert.deepEqual([last.phase, last.loaded, last.total, last.tier], ['complete', file.length, file.length, 3]);
    assert.equal(reports.filter(({ phase }) => phase !== 'download').length, 2);
    await model.dispose();
  });

  test('what was computed stays: a new tier changes what follows, not what is at hand', async () => {
    const { model } = await first();
    const before = await model.generate(PROMPT, { ...GREEDY, maxTokens: 4 }).result;
    server.let(Infinity);
    await model.complete;
    const { stats, text } = await model.generate(PROMPT, GREEDY).result;
    assert.equal(stats.cachedTokens, before.stats.promptTokens - 1);
    assert.notEqual(text, texts[1]);
    assert.deepEqual([stats.firstTier, stats.lastTier], [3, 3]);
    assert.equal(await answer(model).text(), texts[3]);
    await model.dispose();
  });

  test('a number of tiers', async () => {
    server.limit = checkedEnd(2);
    const model = await load(server.url, { ...options, startAt: 2 });
    assert.equal(model.tier, 2);
    assert.equal(await answer(model).text(), texts[2]);
    server.let(Infinity);
    await model.complete;
    assert.equal(await answer(model).text(), texts[3]);
    await model.dispose();
  });

  test('together with `tier`: the rest ends there', async () => {
    const { model } = await first({ tier: 2 });
    server.let(Infinity);
    await model.complete;
    assert.deepEqual([model.tier, model.info.bytes], [2, ends[2]]);
    assert.equal(await answer(model).text(), texts[2]);
    await model.dispose();
  });

  const path = join(folder, 'model.gguf');
  const sources = {
    bytes: () => file,
    'a Blob': () => new Blob([file]),
    'a stream': () => new Blob([file]).stream(),
    'a path': () => (writeFileSync(path, file), path),
    'a server without ranges': () => Object.assign(server, { ranges: false }).url,
    'a URL': () => server.url,
  };
  for (const [name, source] of Object.entries(sources)) {
    for (const threads of name === 'a URL' ? [1, 2] : [1]) {
      test(`from ${name}, on ${threads} thread${threads > 1 ? 's' : ''}`, async () => {
        const tiers = [];
        const model = await load(source(), { ...options, threads, startAt: 'first-tier', onTier: (n) => tiers.push(n) });
        await answer(model, { maxTokens: 3 }).text();
        await model.complete;
        assert.deepEqual(tiers, [1, 2, 3]);
        assert.equal(await answer(model).text(), texts[3]);
        await model.dispose();
      });
    }
  }

  test('one piece, no tiers, wrong values', async () => {
    const small = await load(fixtureBytes(), { ...options, startAt: 'first-tier' });
    await small.complete;
    assert.equal(small.tier, 3);
    await small.dispose();
    for (const startAt of [0, 1.5, 'last']) await assert.rejects(load(file, { ...options, startAt }), { code: 'argument' }, String(startAt));
    await assert.rejects(load(file, { ...options, startAt: 2, tier: 1 }), { code: 'argument' });
    await assert.rejects(load(file, { ...options, control: {} }), { code: 'argument' });
  });

  test('more tiers than the file has: all of them', async () => {
    for (const [source, tiers] of [[server.url, 3], [file.subarray(0, ends[1]), 1]]) {
      const told = [];
      const phases = new Set();
      const model = await load(source, { ...options, startAt: 4, onTier: (n) => told.push(n), onProgress: ({ phase }) => phases.add(phase) });
      await model.complete;
      assert.deepEqual([model.tier, told, [...phases]], [tiers, [tiers], ['download', 'ready', 'complete']]);
      assert.equal(await answer(model).text(), texts[tiers]);
      await model.dispose();
    }
  });

  test('without it, `complete` is there and resolved', async () => {
    const model = await load(file, options);
    await model.complete;
    assert.equal(model.tier, 3);
    await model.dispose();
  });

  test('the piece that a tier shares with the next is read whole, and checked', async () => {
    let bad = true;
    server.change = (chunk, start) => {
      if (bad && start <= ends[1] + 100 && start + chunk.length > ends[1] + 100) {
        chunk[ends[1] + 100 - start] ^= 1;
        bad = false;
      }
      return chunk;
    };
    const { model, reports } = await first();
    assert.equal(bad, false);
    assert.equal(reports.at(-1).retries, 1);
    assert.equal(await answer(model).text(), texts[1]);
    await model.dispose();
  });

  test('embeddings, scores and states are of one tier from beginning to end', async () => {
    const { model } = await first();
    const state = await model.saveState();
    const long = PROMPT.repeat(30);
    const alone = await model.score(long);
    const scoring = model.score(long);
    server.let(Infinity);
    assert.deepEqual(await scoring, alone);
    await model.complete;
    assert.equal(model.tier, 3);
    await assert.rejects(model.restoreState(state), { code: 'argument' });
    const after = await model.score(long);
    assert.notEqual(after.logprob, alone.logprob);
    await model.dispose();
  });
});

describe('the rest cannot be had: the model stays at its tier', () => {
  /** complete rejects so, and the model goes on. */
  async function stays(model, expected, tier = 1) {
    await assert.rejects(model.complete, expected);
    assert.equal(model.tier, tier);
    assert.equal(await answer(model).text(), texts[tier]);
    await model.dispose();
  }

  test('the server is gone', async () => {
    const { model } = await first();
    server.down = true;
    server.let(0);
    await stays(model, { code: 'network' });
  });

  test('a piece of the last tier stays damaged', async () => {
    server.change = (chunk, start) => {
      if (start <= file.length - 99 && start + chunk.length > file.length - 99) chunk[file.length - 99 - start] ^= 1;
      return chunk;
    };
    const { model } = await first();
    server.let(Infinity);
    await stays(model, { code: 'checksum' }, 2);
  });

  test('the file has changed', async () => {
    const { model } = await first();
    Object.assign(server, { file: spread(fixtureBytes(), [2 * MIB + 64, 2 * MIB, 2 * MIB], 9), etag: '"2"' });
    server.let(Infinity);
    await model.complete.catch(() => {});
    // What was in flight may have brought the next tier already.
    const tier = model.tier;
    assert.ok(tier < 3);
    await stays(model, { code: 'network', message: /has changed/ }, tier);
  });

  test('its signal stops it', async () => {
    const abort = new AbortController();
    const { model } = await first({ signal: abort.signal });
    abort.abort(new Error('enough'));
    await assert.rejects(model.complete, (error) => error.code === 'aborted' && error.name === 'AbortError' && error.cause.message === 'enough');
    const requests = server.log.length;
    server.let(Infinity);
    await stays(model, { code: 'aborted' });
    assert.equal(server.log.length, requests);
  });

  test('also a tier that is there, but waits for a call that needs a steady model', async (t) => {
    const [abort, enough] = [new AbortController(), new AbortController()];
    const { model, tiers, reports } = await first({ signal: abort.signal });
    t.after(() => model.dispose());
    const embedding = model.embed(new Array(3e4).fill(PROMPT), { signal: enough.signal });
    server.let(checkedEnd(2));
    await until(() => reports.at(-1).tier === 2);
    assert.equal(model.tier, 1);
    abort.abort();
    await assert.rejects(model.complete, { code: 'aborted' });
    enough.abort();
    await assert.rejects(embedding, { code: 'aborted' });
    const { stats } = await answer(model).result;
    assert.deepEqual([stats.lastTier, model.info.tier, (await model.stats()).tier, tiers], [1, 1, 1, [1]]);
    await stays(model, { code: 'aborted' });
  });

  test('a callback throws', async () => {
    const wrong = new Error('of the caller');
    const { model } = await first({ onTier: (n) => {
      if (n === 2) throw wrong;
    } });
    server.let(checkedEnd(2));
    await assert.rejects(model.complete, (error) => error === wrong);
    assert.ok((await model.generate(PROMPT, GREEDY).text()).length > 0);
    await model.dispose();
  });

  test('dispose() ends it', async () => {
    const { model } = await first();
    await model.dispose();
    await assert.rejects(model.complete, { code: 'disposed' });
    await assert.rejects(model.generate('a').text(), { code: 'disposed' });
  });
});

describe('what was kept', () => {
  test('a load that was stopped after its first tier goes on from there, also without ranges', async () => {
    for (const ranges of [true, false]) {
      server.reset();
      const cache = join(folder, `cache-${ranges}`);
      const abort = new AbortController();
      const { model } = await first({ cache, signal: abort.signal });
      abort.abort();
      await model.complete.catch(() => {});
      await model.dispose();
      server.reset();
      server.ranges = ranges;
      // Pieces that are there stay as they are, whatever a server without ranges sends for them again.
      if (!ranges) server.change = (chunk, start) => (start > 1.5 * MIB && start < 1.8 * MIB ? chunk.fill(0) : chunk);
      const again = await load(server.url, { ...options, cache, startAt: 'first-tier' });
      assert.ok(again.info.cachedBytes >= 2 * MIB);
      assert.equal(await answer(again, { maxTokens: 1 }).result.then(({ stats }) => stats.firstTier >= 1), true);
      await again.complete;
      assert.deepEqual([again.info.cached, again.info.verified], [true, true]);
      assert.equal(await answer(again).text(), texts[3]);
      await again.dispose();
      server.down = true;
      const offline = await load(server.url, { ...options, cache, startAt: 'first-tier' });
      await offline.complete;
      assert.equal(await answer(offline).text(), texts[3]);
      await offline.dispose();
    }
  });
});

describe('LoadController', () => {
  test('holds a load before it begins, in the middle, and after load()', async () => {
    const control = new LoadController();
    control.pause();
    assert.equal(control.paused, true);
    const reports = [];
    server.limit = checkedEnd(1);
    const loading = load(server.url, { ...options, startAt: 'first-tier', control, onProgress: (report) => reports.push(report) });
    await until(() => reports.some(({ paused }) => paused));
    assert.equal(server.log.length, 0);
    control.resume();
    const model = await loading;
    control.pause();
    await until(() => reports.at(-1).paused);
    server.let(Infinity);
    await new Promise((resolve) => setTimeout(resolve, 150));
    assert.ok(model.tier < 3);
    assert.equal(await answer(model, { maxTokens: 4 }).text(), texts[model.tier].slice(0, (await answer(model, { maxTokens: 4 }).text()).length));
    control.resume();
    await model.complete;
    assert.equal(reports.at(-1).phase, 'complete');
    assert.equal(await answer(model).text(), texts[3]);
    await model.dispose();
  });

  test('connections that break meanwhile are opened anew', async () => {
    const control = new LoadController();
    const { model } = await first({ control });
    control.pause();
    server.down = true;
    server.let(0);
    await new Promise((resolve) => setTimeout(resolve, 100));
    server.down = false;
    server.let(Infinity);
    control.resume();
    await model.complete;
    assert.equal(model.tier, 3);
    await model.dispose();
  });

  test('a held load can be stopped', async () => {
    for (const startAt of [undefined, 1]) {
      const control = new LoadController();
      const abort = new AbortController();
      control.pause();
      const loading = load(server.url, { ...options, startAt, control, signal: abort.signal });
      setTimeout(() => abort.abort(), 100);
      await assert.rejects(loading, { code: 'aborted' });
    }
  });
});

test('what came last is reported, also if nothing comes after it for long', { timeout: 20000 }, async () => {
  const reports = [];
  const meter = new Meter((report) => reports.push(report));
  meter.report(1);
  meter.report(2);
  meter.reach(1);
  await until(() => reports.length > 1);
  assert.deepEqual(reports.map(({ loaded, tier }) => [loaded, tier]), [[1, 0], [2, 1]]);
  meter.report(3);
  meter.end();
  await new Promise((resolve) => setTimeout(resolve, 300));
  assert.equal(reports.length, 2);

  const { model, reports: told } = await first();
  await until(() => told.at(-1).tier === 1 && told.at(-1).loaded >= ends[1]); // while the server holds the rest
  const stopped = assert.rejects(model.complete, { code: 'disposed' });
  await model.dispose();
  await stopped;
});

test('a download and an answer do not stop each other', async () => {
  server.limit = checkedEnd(1);
  const model = await load(server.url, { ...options, startAt: 1 });
  const alone = (await answer(model, { maxTokens: 200 }).result).stats.decodeTokensPerSecond;
  const enough = new AbortController();
  const answering = answer(model, { ...ENDLESS, signal: enough.signal });
  let tokens = 0;
  let during = 0; // tokens until all was there
  model.complete.then(() => (during = tokens));
  for await (const { id } of answering) {
    if (id !== null) tokens++;
    server.let(tokens < 13 ? checkedEnd(1) + 65536 * tokens : Infinity);
    if (during && tokens > during + 20) enough.abort();
  }
  assert.ok(during > 3 && tokens > during, `${during} of ${tokens} tokens until the rest was there`);
  assert.ok(alone > 0);
  await model.complete;
  await model.dispose();
});
