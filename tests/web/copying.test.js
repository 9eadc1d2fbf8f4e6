// A kept copy that several threads read together: who ends when, and that nobody is waited for who cannot come.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, beforeEach, describe, test } from 'node:test';

import { openStore } from '../../web/cache.js';
import { Gate } from '../../web/connection.js';
import { Lending, copyPieces, helpCopying } from '../../web/copying.js';
import { packError } from '../../web/errors.js';
import { LoadController, load } from '../../web/index.js';
import { gatedServer } from './gated.js';
import { fixtureBytes, injectIntoWorkers } from './helper.js';
import { spread } from './large.js';

const MIB = 1 << 20;
const LIMIT = 60_000; // ms
const limits = { timeout: 2 * LIMIT };
const root = mkdtempSync(join(tmpdir(), 'bitpair-copying-'));
after(() => rmSync(root, { recursive: true }));

const until = async (check) => {
  while (!check()) await new Promise((resolve) => setTimeout(resolve, 5));
};

/** The promise, or an error when it takes so long that it will never settle. */
async function settles(promise, ms = LIMIT) {
  let timer;
  const late = new Promise((_, reject) => (timer = setTimeout(() => reject(new Error('it does not settle')), ms)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

describe('copyPieces()', () => {
  const COUNT = 40;
  const SIZE = 100;
  const bytes = Uint8Array.from({ length: COUNT * SIZE - 7 }, (_, i) => i * 7 + (i >> 8));
  const pieces = [...Array(COUNT).keys()];
  const job = { pieces, pieceBytes: SIZE, dataOffset: 0, size: bytes.length, store: root, id: 'copy', pointer: 64, digests: 0 };
  let memory; // with the heap
  let heap;
  let done;   // pieces, in the order in which they were
  let store;
  before(async () => {
    writeFileSync(join(root, 'copy.gguf'), bytes);
    store = await openStore(root);
  });
  beforeEach(() => {
    memory = new WebAssembly.Memory({ initial: 1, maximum: 1, shared: true });
    heap = new Uint8Array(memory.buffer, job.pointer, bytes.length);
    done = [];
  });

  const to = (pass) => ({ pass, write: (start, part) => heap.set(part, start), good: async () => true, piece: (i) => done.push(i) });
  const open = async () => {};
  const signal = () => new AbortController().signal;

  /** Ends as worker.js does; run(job, told): the thread's own work. */
  function port(run = (given, told) => helpCopying(memory, given, told)) {
    const thread = { orders: 0, ended: 0, onmessage: null };
    thread.postMessage = async ({ job: given }) => {
      thread.orders++;
      const error = await run(given, (piece) => thread.onmessage({ data: { piece } })).then(() => null, packError);
      thread.ended++;
      thread.onmessage({ data: { error } });
    };
    return thread;
  }
  const lendingTo = (...team) => new Lending(Promise.resolve({ team }));

  function copied() {
    assert.deepEqual([...done].sort((a, b) => a - b), pieces, 'each piece counts once');
    assert.deepEqual(heap.slice(), bytes);
  }

  test('a thread that is to leave does so, and what it leaves is read here', limits, async () => {
    for (const paused of [false, true]) {
      done = [];
      heap.fill(0);
      const gate = new Gate();
      let go;
      const alone = new Promise((resolve) => (go = resolve));
      const lending = lendingTo(port());
      const lend = (given, piece) => lending.lend(given, (i) => {
        piece(i);
        if (paused) gate.close(true);
        else lending.leave();
      });
      const copying = copyPieces(store, job, { gate, signal: signal(), lend }, to(() => alone));
      await settles(lending.over);
      await settles(until(() => done.length > 0));
      await settles(lending.leave());
      const others = done.length;
      assert.ok(others < COUNT, `${others} pieces were done before it left`);
      go();
      await settles(copying);
      copied();
    }
  });

  test('none is told to begin where they are to leave before they have come', limits, async () => {
    const thread = port();
    let come;
    const lending = new Lending(new Promise((resolve) => (come = resolve)));
    const copying = copyPieces(store, job, { gate: new Gate(), signal: signal(), lend: (...given) => lending.lend(...given) }, to(open));
    const left = lending.leave();
    come({ team: [thread] });
    await settles(left);
    await settles(lending.over);
    await settles(copying);
    copied();
    assert.equal(thread.orders, 0);
  });

  test('an abort ends it while threads wait because the reading is paused', limits, async () => {
    const abort = new AbortController();
    const gate = new Gate();
    gate.close(true);
    // Nothing is left to take here, so nothing here hears of it.
    const lending = lendingTo(port((given, told) => helpCopying(memory, { ...given, pieces }, told)));
    const lend = (...given) => lending.lend(...given);
    const idle = copyPieces(store, { ...job, pieces: [] }, { gate, signal: abort.signal, lend }, to(open));
    await settles(lending.over);
    abort.abort(new Error('enough'));
    await settles(idle);
    assert.deepEqual(done, []);

    const again = lendingTo(port());
    const copying = copyPieces(store, job, { gate, signal: abort.signal, lend: (...given) => again.lend(...given) },
      to(() => gate.pass(abort.signal)));
    await assert.rejects(settles(copying), /enough/);
    assert.deepEqual(done, []);
  });

  test('one thread fails, another goes on: the rest is read when that has ended too', limits, async () => {
    const gate = new Gate();
    const lending = lendingTo(port(() => Promise.reject(new Error('torn'))), port());
    let go;
    const held = new Promise((resolve) => (go = resolve));
    const lend = (given, piece) => lending.lend(given, (i) => {
      piece(i);
      if (done.length > 1) return;
      gate.close(true); // it waits, with others in hand
      go();
    });
    let ended = false;
    const copying = copyPieces(store, job, { gate, signal: signal(), lend }, to(() => held)).finally(() => (ended = true));
    await settles(until(() => gate.closed));
    await new Promise((resolve) => setTimeout(resolve, 50)); // time to read all the others here
    assert.equal(ended, false);
    gate.close(false);
    await settles(copying);
    copied();
  });

  test('what counting a piece throws is thrown when the thread has ended', limits, async () => {
    const thread = port();
    const lending = lendingTo(thread);
    const state = new Int32Array(new SharedArrayBuffer(12));
    let count = 0;
    const lent = lending.lend({ ...job, state }, () => {
      count++;
      throw new Error('of the caller');
    });
    await assert.rejects(settles(lent), /of the caller/);
    assert.ok(count < COUNT, 'it had to leave');
    assert.equal(thread.ended, 1);
  });
});

// ---- a model ----

const PROMPT = 'Once upon a time, there was a little girl named';
const GREEDY = { greedy: true, maxTokens: 12, ignoreEnd: true, fresh: true };
const [HELPING, HELPED, RELEASED] = [0, 1, 2]; // words that the workers share

/** Workers begin with this. Reads of a copy from `from` on wait until the test says so, in a thread for `most` ms at the longest; in the
 *  engine worker all wait for a thread to take part. In worker `fails` no digest can be had. */
const SLOW = `
  import fs from 'node:fs/promises';
  import { workerData } from 'node:worker_threads';
  const { index, words, from, most, fails } = workerData;
  const until = async (check) => { while (!check()) await new Promise((resolve) => setTimeout(resolve, 5)); };
  const { open } = fs;
  fs.open = async (...given) => {
    const file = await open(...given);
    const { read } = file;
    file.read = async (out, offset, size, at) => {
      const begun = performance.now();
      const released = () => Atomics.load(words, ${RELEASED}) || (index > 0 && performance.now() - begun > most);
      if (index > 0 && at >= from) {
        Atomics.add(words, ${HELPING}, 1);
        Atomics.add(words, ${HELPED}, 1);
      }
      if (index === 0 && at > 0) await until(() => Atomics.load(words, ${HELPED}) > 0);
      if (at >= from) await until(released);
      if (index > 0 && at >= from) Atomics.sub(words, ${HELPING}, 1);
      return read.call(file, out, offset, size, at);
    };
    return file;
  };
  if (index === fails) crypto.subtle.digest = () => Promise.reject(new Error('no digest'));
`;

describe('a model from a copy', () => {
  const file = spread(fixtureBytes(), [MIB, 5 * MIB, 8 * MIB]);
  const cache = join(root, 'models');
  const texts = [];
  const ends = [];
  let keptBytes; // in pieces
  let server;
  let words;
  let model = null;
  before(async () => {
    server = await gatedServer(file);
    await (await load(server.url, { threads: 1, cache })).dispose();
    for (const tier of [1, 3]) {
      model = await load(server.url, { threads: 1, cache, tier });
      texts[tier] = await answer();
      ends[tier] = model.info.bytes;
      keptBytes = model.info.cachedBytes;
      await model.dispose();
    }
    assert.notEqual(texts[1], texts[3]);
  });
  beforeEach(() => server.reset());
  after(() => server.close());

  const answer = () => model.generate(PROMPT, GREEDY).text();

  /** Loads it so; dataOf: see SLOW */
  async function opens(t, threads, dataOf, more) {
    words = new Int32Array(new SharedArrayBuffer(12));
    const restore = injectIntoWorkers(SLOW, (index) => ({ index, words, most: 1000, ...dataOf(index) }));
    try {
      model = await settles(load(server.url, { threads, cache, ...more }));
    } finally {
      restore();
    }
    t.after(() => model.dispose());
    assert.equal(model.info.threads, threads);
    assert.ok(Atomics.load(words, HELPED) > 0, 'the threads took part');
    assert.equal(Atomics.load(words, HELPING), 0, 'they have ended');
  }
  const behindFirst = () => ({ from: ends[1] });

  /** All is there, from the copy, and each piece counts once. */
  async function whole() {
    await settles(model.complete);
    assert.deepEqual([model.tier, model.info.verified, model.info.cached], [3, true, true]);
    assert.equal(model.info.cachedBytes, keptBytes);
    assert.equal(server.log.length, 1, 'nothing but whether it is current was asked for');
    assert.equal(await answer(), texts[3]);
  }

  test('the first tier answers before the rest is read', limits, async (t) => {
    await opens(t, 2, behindFirst, { startAt: 1 });
    assert.equal(await settles(answer()), texts[1]);
    assert.equal(model.tier, 1);
    Atomics.store(words, RELEASED, 1);
    await whole();
  });

  test('it answers while it is paused, and the rest comes afterwards', limits, async (t) => {
    const control = new LoadController();
    let paused = false;
    await opens(t, 2, behindFirst, { startAt: 1, control, onProgress: (report) => ({ paused } = report) });
    control.pause();
    await settles(until(() => paused));
    Atomics.store(words, RELEASED, 1);
    assert.equal(await settles(answer()), texts[1]);
    assert.equal(model.tier, 1);
    control.resume();
    await whole();
  });

  test('its signal stops it while it is paused', limits, async (t) => {
    const control = new LoadController();
    const abort = new AbortController();
    await opens(t, 2, behindFirst, { startAt: 1, control, signal: abort.signal });
    control.pause();
    abort.abort();
    Atomics.store(words, RELEASED, 1);
    await assert.rejects(settles(model.complete), { code: 'aborted' });
    assert.equal(await settles(answer()), texts[1]);
  });

  test('one thread fails while another is slow', limits, async (t) => {
    await opens(t, 3, (index) => ({ from: index === 2 ? 1 : Infinity, fails: 1 }), {});
    await whole();
  });
});
