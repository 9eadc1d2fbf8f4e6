// helper.js - what the tests share: models, a server with faults, the engine without its package.

import assert from 'node:assert/strict';
import { existsSync, readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { createRequire, syncBuiltinESMExports } from 'node:module';
import { fileURLToPath } from 'node:url';
import { Worker } from 'node:worker_threads';
import { gzipSync } from 'node:zlib';

import { BitpairError } from '../../web/errors.js';
import { load } from '../../web/index.js';
import { STACK_BYTES } from '../../web/protocol.js';
import { openWasm } from '../../web/wasm.js';

export const ROOT = fileURLToPath(new URL('../../', import.meta.url));

/** The small model of all fast tests, and the one the demo page loads. */
export const FIXTURE = `${ROOT}models/tinystories-656k.gguf`;
export const EMBEDDED = `${ROOT}models/smollm2-135m-instruct.gguf`;

/** A file of ../shared/data; tests that need it fail without it. */
export function sharedData(path) {
  const full = `${process.env.BITPAIR_SHARED_DATA ?? `${ROOT}../shared/data`}/${path}`;
  if (!existsSync(full)) throw new Error(`${full} is missing: set BITPAIR_SHARED_DATA`);
  return full;
}

/** The promise rejects with a BitpairError of this code, whose message matches. */
export const refused = (promise, code, message) =>
  assert.rejects(promise, (error) => {
    assert.ok(error instanceof BitpairError, error.stack);
    assert.equal(error.code, code, error.message);
    assert.match(error.message, message);
    return true;
  });

export const fixtureBytes = () => new Uint8Array(readFileSync(FIXTURE));

/** Loads the fixture from a source, on one thread if nothing else is said: all of it, and verified. */
export async function loadsFixture(source, options) {
  const model = await load(source, { threads: 1, cache: false, retries: 0, ...options });
  assert.deepEqual([model.info.bytes, model.info.verified], [fixtureBytes().length, true]);
  await model.dispose();
}

/** Serves `bytes` at /model and, under other paths, with one fault each. -> {url(path), close()} */
export async function faultyServer(bytes) {
  const body = Buffer.from(bytes);
  const half = body.subarray(0, body.length >> 1);
  const type = { 'content-type': 'application/octet-stream' };
  const routes = {
    '/model': (response) => response.writeHead(200, { ...type, 'content-length': body.length }).end(body),
    '/no-length': (response) => response.writeHead(200, type).end(body),
    '/gzip': (response) => response.writeHead(200, { ...type, 'content-encoding': 'gzip' }).end(gzipSync(body)),
    '/drip': (response) => drip(response.writeHead(200, { ...type, 'content-length': body.length }), body),
    '/html': (response) => response.writeHead(200, { 'content-type': 'text/html' }).end('<!doctype html><title>Sign in</title>'.repeat(9)),
    '/truncated': (response) => response.writeHead(200, type).end(half),
    '/broken': (response) => response.writeHead(200, { 'content-length': body.length }).write(half, () => response.destroy()),
    '/empty': (response) => response.writeHead(200, type).end(),
    '/long': (response) => response.writeHead(200, type).end(Buffer.concat([body, Buffer.alloc(1000)])),
    '/redirect': (response) => response.writeHead(302, { location: '/model' }).end(),
  };
  const server = createServer((request, response) => {
    const route = routes[request.url];
    if (route) route(response);
    else response.writeHead(404, 'Not Found').end('nothing here');
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return {
    url: (path) => `http://127.0.0.1:${server.address().port}${path}`,
    close: () => server.closeAllConnections() || server.close(),
  };
}

/** Odd pieces of growing size: every boundary falls somewhere. */
async function drip(response, body) {
  for (let at = 0, size = 7; at < body.length && !response.destroyed; at += size, size = Math.ceil(size * 1.7)) {
    response.write(body.subarray(at, at + size));
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
  response.end();
}

/** The engine itself, on this thread and `threads` - 1 workers: {wasm, engine, close}. onStack(pointer) per worker; `relaxed`: its binary. */
export async function openEngine(threads, { isa, arith, onStack, relaxed } = {}) {
  const { wasm, module, memory } = await openWasm(threads, null, relaxed);
  const stacks = Array.from({ length: threads - 1 }, () => wasm.alloc(STACK_BYTES));
  stacks.forEach((stack) => onStack?.(stack));
  const workers = await Promise.all(stacks.map((stack) => startThread(module, memory, stack)));
  const named = (text, fn) => (text ? wasm.withText(text, fn) : fn(0));
  const engine = named(isa, (i) => named(arith, (a) => wasm.check(wasm.exports.wasm_engine_open(threads, i, a, wasm.error))));
  workers.forEach(({ port }, i) => port.postMessage({ type: 'run', engine, index: i + 1 }));
  return { wasm, engine, close: () => Promise.all(workers.map(({ worker }) => worker.terminate())) };
}

async function startThread(module, memory, stack) {
  const worker = new Worker(new URL('../../web/worker.js', import.meta.url));
  const { port1, port2 } = new MessageChannel();
  await new Promise((resolve, reject) => {
    worker.on('error', reject);
    port2.onmessage = ({ data: { type, error } }) => type === 'joined' && (error ? reject(new Error(error.message)) : resolve());
    worker.postMessage({ type: 'thread', port: port1 }, [port1]);
    port2.postMessage({ type: 'join', module, memory, stack });
  });
  port2.unref();
  return { worker, port: port2 };
}

/** Opens `bytes` as a model: {model, session}, pointers. */
export function openSession({ wasm, engine }, bytes, chunk = 0, kvBits = 0) {
  const pointer = wasm.alloc(bytes.length);
  wasm.bytes(pointer, bytes.length).set(bytes);
  const model = wasm.check(wasm.exports.bp_model_open(engine, pointer, bytes.length, wasm.error));
  return { model, session: wasm.check(wasm.exports.wasm_session_open(model, 0, chunk, kvBits, wasm.error)) };
}

/** Node workers begin with this code; returns a function that takes it back. dataOf(n): the workerData of the n-th, the engine's is 0. */
export function injectIntoWorkers(prelude, dataOf = () => undefined) {
  const threads = createRequire(import.meta.url)('node:worker_threads');
  const { Worker } = threads;
  let count = 0;
  threads.Worker = class extends Worker {
    constructor(url, options) {
      super(new URL(`data:text/javascript,${encodeURIComponent(`${prelude}; await import(${JSON.stringify(url.href)});`)}`), { ...options, workerData: dataOf(count++) });
    }
  };
  syncBuiltinESMExports();
  return () => {
    threads.Worker = Worker;
    syncBuiltinESMExports();
  };
}
