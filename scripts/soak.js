// soak.js - long runs: `npm run soak -- [--short] [node] [chromium] [native] [kills]` (default: all of them).
// 100,000 tokens with sessions created and freed, in Node, in Chromium and natively, 1,000 models loaded and disposed of,
// 100 compressions killed and resumed. Memory must stay flat. --short: a hundredth of it, as in CI.

import { execFileSync } from 'node:child_process';
import { existsSync } from 'node:fs';
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
const counts = { passed: 0, failed: 0 };

function check(good, text) {
  counts[good ? 'passed' : 'failed']++;
  console.log(`${good ? 'ok    ' : 'FAILED'} ${text}`);
}

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(1)} MB`;

/** Sessions of the engine itself, in this thread: nothing but the heap of the instance may hold memory. */
async function nodeSessions() {
  const { wasm, engine, close } = await openEngine(2);
  const { exports } = wasm;
  const bytes = fixtureBytes();
  const file = wasm.alloc(bytes.length);
  wasm.bytes(file, bytes.length).set(bytes);
  const model = wasm.check(exports.bp_model_open(engine, file, bytes.length, wasm.error));
  const ids = wasm.alloc(64);
  let warm = 0;
  for (let tokens = 0; tokens < TOKENS; tokens += ANSWER) {
    const session = wasm.check(exports.wasm_session_open(model, 128, 0, wasm.error));
    const put = (...list) => {
      new Int32Array(wasm.memory.buffer, ids >>> 0, list.length).set(list);
      wasm.check(exports.bp_session_feed(session, ids, list.length, wasm.error));
    };
    put(1, 2, 3, (tokens / ANSWER) % 2000);
    for (let i = 0; i < ANSWER; i++) put(exports.bp_session_sample(session, wasm.error));
    exports.bp_session_close(session);
    if (tokens === 10 * ANSWER) warm = wasm.memory.buffer.byteLength;
  }
  const growth = wasm.memory.buffer.byteLength - warm;
  await close();
  check(growth === 0, `Node: ${TOKENS} tokens in ${TOKENS / ANSWER} sessions; the heap grew by ${megabytes(growth)}`);
}

async function nodeLoads() {
  let warm = 0;
  const rss = () => (globalThis.gc?.(), process.memoryUsage().rss);
  const began = Math.floor(LOADS / 4);
  for (let i = 0; i < LOADS; i++) {
    const model = await load(FIXTURE, { threads: 1 + (i % 2) });
    await model.generate('Once upon a time', { maxTokens: 4, seed: i }).text();
    await model.dispose();
    if (i === began) warm = rss();
  }
  const growth = rss() - warm;
  check(growth < 60e6, `Node: ${LOADS} models loaded and disposed of; ${megabytes(growth)} more than after ${began}`);
}

async function chromium() {
  const server = await openServer({ model: FIXTURE });
  const browser = await openBrowser();
  try {
    const page = await openPage(browser, server);
    await page.goto(server.url('/'));
    const result = await page.evaluate(async ([tokens, loads, bytes]) => {
      const { load } = await import('/web/index.js');
      const file = new Blob([Uint8Array.from(atob(bytes), (c) => c.charCodeAt(0))]);
      const model = await load(file, { threads: 2 });
      const size = async () => (await model.embed('a'), model.info.memoryBytes);
      const before = await size();
      let written = 0;
      for (let i = 0; written < tokens; i++) {
        const answer = model.generate('Once upon a time', { maxTokens: 200, seed: i, ignoreEnd: true });
        await answer.text();
        written += (await answer.result).stats.completionTokens;
      }
      const growth = (await size()) - before;
      await model.dispose();
      let loaded = 0;
      for (; loaded < loads; loaded++) {
        const one = await load(file, { threads: 1 });
        await one.generate('Once', { maxTokens: 2 }).text();
        await one.dispose();
      }
      return { written, growth, loaded, heap: performance.memory?.usedJSHeapSize ?? 0 };
    }, [TOKENS, LOADS, Buffer.from(fixtureBytes()).toString('base64')]);
    check(result.written >= TOKENS && result.growth === 0, `Chromium: ${result.written} tokens; the heap grew by ${megabytes(result.growth)}`);
    check(result.loaded === LOADS && result.heap < 100e6, `Chromium: ${result.loaded} models loaded and disposed of; ${megabytes(result.heap)} of JavaScript heap`);
    check(page.problems.length === 0, `Chromium: no errors on the page ${page.problems[0] ?? ''}`);
  } finally {
    await browser.close();
    server.close();
  }
}

/** A program of the native build, or of the one with sanitizers. */
function program(build, name, ...args) {
  const path = `${ROOT}build/${build}/${name}`;
  if (!existsSync(path)) return check(false, `${path} is missing: cmake --preset ${build} && cmake --build --preset ${build} --target ${name}`);
  try {
    const lines = execFileSync(path, args, { encoding: 'utf8' }).trim().split('\n');
    check(true, `${build}, ${name}: ${lines.slice(-3).join('; ')}`);
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
