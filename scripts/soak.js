// soak.js - long runs: `npm run soak -- [--short] [node] [chromium] [native] [kills]` (default: all of them).
// 100,000 tokens with sessions created and freed, in Node, in Chromium and natively, 1,000 models loaded and disposed of,
// 100 compressions killed and resumed. Memory must stay flat: it is looked at ten times on the way. --short: a hundredth of it.

import { execFileSync } from 'node:child_process';
import { existsSync, readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { load } from '../web/index.js';
import { openBrowser, openPage, openServer } from '../tests/browser/browser.js';
import { FIXTURE, fixtureBytes, openEngine } from '../tests/web/helper.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const short = process.argv.includes('--short');
const named = process.argv.slice(2).filter((word) => !word.startsWith('--'));
const TOKENS = short ? 1000 : 100_000;
const LOADS = short ? 20 : 1000;
const ANSWER = 50; // tokens of one session
const LOOKS = 10;
const GROWTH_MOST = 30e6; // bytes: collectors work when they like
const counts = { passed: 0, failed: 0 };

function check(good, text) {
  counts[good ? 'passed' : 'failed']++;
  console.log(`${good ? 'ok    ' : 'FAILED'} ${text}`);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Memory at each tenth of the way, in bytes: what the later half has at most beyond what the earlier half had at most. */
class Looks {
  #bytes = [];

  constructor(count, measure) {
    Object.assign(this, { count, measure });
  }

  /** `done` of `count` are done. */
  async at(done) {
    while (this.#bytes.length < Math.floor((LOOKS * done) / this.count)) this.#bytes.push(await this.measure());
  }

  get growth() {
    const half = LOOKS / 2;
    return Math.max(...this.#bytes.slice(half)) - Math.max(...this.#bytes.slice(0, half));
  }

  toString() {
    return `${this.#bytes.map((bytes) => (bytes / 1e6).toFixed(1)).join(', ')} MB`;
  }
}

/** Resident bytes of a process. */
const resident = (pid) => 4096 * Number(readFileSync(`/proc/${pid}/statm`, 'utf8').split(' ')[1]);

/** Sessions of the engine itself, in this thread: nothing but the heap of the instance may hold memory. */
async function nodeSessions() {
  const { wasm, engine, close } = await openEngine(2);
  const { exports } = wasm;
  const bytes = fixtureBytes();
  const file = wasm.alloc(bytes.length);
  wasm.bytes(file, bytes.length).set(bytes);
  const model = wasm.check(exports.bp_model_open(engine, file, bytes.length, wasm.error));
  const ids = wasm.alloc(64);
  const heap = new Looks(TOKENS, () => wasm.memory.buffer.byteLength);
  for (let tokens = 0; tokens < TOKENS; await heap.at(tokens)) {
    const session = wasm.check(exports.wasm_session_open(model, 128, 0, 0, wasm.error));
    const put = (...list) => {
      new Int32Array(wasm.memory.buffer, ids >>> 0, list.length).set(list);
      wasm.check(exports.bp_session_feed(session, ids, list.length, wasm.error));
    };
    put(1, 2, 3, (tokens / ANSWER) % 2000);
    for (let i = 0; i < ANSWER; i++, tokens++) put(exports.bp_session_sample(session, wasm.error));
    exports.bp_session_close(session);
  }
  await close();
  check(heap.growth === 0, `Node: ${TOKENS} tokens in ${TOKENS / ANSWER} sessions; heap ${heap}`);
}

async function nodeLoads() {
  const rss = new Looks(LOADS, () => (globalThis.gc?.(), resident(process.pid)));
  for (let i = 0; i < LOADS; await rss.at(++i)) {
    const model = await load(FIXTURE, { threads: 1 + (i % 2) });
    await model.generate('Once upon a time', { maxTokens: 4, seed: i }).text();
    await model.dispose();
  }
  check(rss.growth < GROWTH_MOST, `Node: ${LOADS} models loaded and disposed of; resident ${rss}`);
}

/** Resident bytes of the largest page of a browser. */
async function openMeter(browser) {
  const session = await browser.newBrowserCDPSession();
  return async () => {
    const { processInfo } = await session.send('SystemInfo.getProcessInfo');
    return Math.max(...processInfo.filter(({ type }) => type === 'renderer').map(({ id }) => resident(id)));
  };
}

async function chromium() {
  const server = await openServer({ model: FIXTURE });
  const browser = await openBrowser();
  try {
    const page = await openPage(browser, server);
    await page.goto(server.url('/'));
    const measure = await openMeter(browser);
    await page.evaluate(async (bytes) => {
      const { load } = await import('/web/index.js');
      const file = new Blob([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))]);
      let model = null;
      globalThis.soak = {
        open: async (threads) => void (model = await load(file, { threads })),
        close: () => model.dispose(),
        heap: async () => (await model.embed('a'), model.info.memoryBytes),
        write: async (seed) => {
          const answer = model.generate('Once upon a time', { maxTokens: 200, seed, ignoreEnd: true });
          await answer.text();
          return (await answer.result).stats.completionTokens;
        },
        loads: async (n) => {
          for (let i = 0; i < n; i++) {
            const one = await load(file, { threads: 1 + (i % 2) });
            await one.generate('Once', { maxTokens: 2 }).text();
            await one.dispose();
          }
        },
      };
    }, Buffer.from(fixtureBytes()).toString('base64'));
    await chromiumTokens(page, measure);
    await chromiumLoads(page, measure);
    check(page.problems.length === 0, `Chromium: no errors on the page ${page.problems[0] ?? ''}`);
  } finally {
    await browser.close();
    server.close();
  }
}

async function chromiumTokens(page, measure) {
  const heap = new Looks(TOKENS, () => page.evaluate(() => soak.heap()));
  const rss = new Looks(TOKENS, measure);
  await page.evaluate(() => soak.open(2));
  let tokens = 0;
  for (let i = 0; tokens < TOKENS; i++) {
    tokens += await page.evaluate((seed) => soak.write(seed), i);
    await heap.at(tokens);
    await rss.at(tokens);
  }
  await page.evaluate(() => soak.close());
  check(heap.growth === 0 && rss.growth < GROWTH_MOST, `Chromium: ${tokens} tokens; heap ${heap}; resident ${rss}`);
}

async function chromiumLoads(page, measure) {
  const rss = new Looks(LOADS, measure);
  const some = Math.max(1, LOADS / 100);
  for (let i = 0; i < LOADS; await rss.at((i += some))) await page.evaluate((n) => soak.loads(n), some);
  check(rss.growth < GROWTH_MOST, `Chromium: ${LOADS} models loaded and disposed of; resident ${rss}`);
}

/** A program of the native build, or of the one with sanitizers. */
function program(build, name, ...args) {
  const path = `${ROOT}build/${build}/${name}`;
  if (!existsSync(path)) return check(false, `${path} is missing: cmake --preset ${build} && cmake --build --preset ${build} --target ${name}`);
  try {
    const lines = execFileSync(path, args, { encoding: 'utf8' }).trim().split('\n');
    check(true, `${build}, ${name}: ${lines.slice(-5).join('; ')}`);
  } catch (error) {
    check(false, `${build}, ${name}: ${String(error.stdout ?? error.message).slice(-2000)}`);
  }
}

const parts = {
  node: async () => { await nodeSessions(); await nodeLoads(); },
  chromium,
  native: () => {
    program('native', 'check_soak', String(TOKENS));
    program('sanitize', 'check_soak', String(TOKENS / 20));
  },
  kills: () => program('native', 'check_faults', ...(short ? [] : ['full'])),
};
for (const [name, part] of Object.entries(parts)) if (named.length === 0 || named.includes(name)) await part();
console.log(`${counts.passed} passed, ${counts.failed} failed`);
process.exitCode = counts.failed || !counts.passed ? 1 : 0;
