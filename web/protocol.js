// protocol.js - the messages between a model (engine.js) and its workers (worker.js), and one face for Web Workers and
// Node's worker_threads.
//
//   page -> engine worker                            engine worker -> page
//     load {source, options}, rest                     spawn {count}: please start so many threads
//     estimate {source, options}, capabilities         pull {offset, size}: bytes of a source in the page, please
//     threads {ports, reason}  answer to spawn         progress {id, report: see LoadProgress in index.d.ts}
//     piece {bytes | error}    answer to pull          tier {id, info: what has changed of model.info}
//     pause {id, paused}                               prefill {id, done, total}, token {id, index, token, text, tier, logprobs},
//     generate {id, session, prompt | ids, options}    answer {id, index, text, tier, finishReason, stop}: the end of one of n
//     abort {id}                                       result {id, value}, error {id, error}
//     tokenize {id, text, special}
//     detokenize {id, ids, special}
//     embed {id, session, prompts, options}
//     score, logits {id, session, prompt, options}
//     saveState {id, session}, restoreState {id, session, bytes}
//     session {id, contextSize}, fork {id, session}, close {id, session}, stats {id}
//     layers, tiers {id}, signs {id, layer, stage, factor}, scales {id, layer, stage}
//
//   page -> thread worker                            thread worker -> page
//     thread {port}: of the engine worker              ready; failed {error}
//
//   engine worker -> thread worker, through that port  thread worker -> engine worker
//     join {module, memory, stack}                     hello, then joined {error?}
//     run {engine, index}
//
// The memory does not pass through the page: it would hold on to it until its next garbage collection, and Safari has room for
// few memories that can be shared.
//
// `load` and `estimate` have id 0, `rest` has 1: its result comes when all of the file is there, and what is told of the reading
// bears its id. Other requests count on from there. What uses a session runs one at a time; the page queues it.

import { fail } from './errors.js';

export const LOAD_ID = 0;
export const REST_ID = 1;

/** The binaries of the engine. */
export const ENGINES = ['bitpair.wasm', 'bitpair-threads.wasm', 'bitpair-relaxed.wasm', 'bitpair-threads-relaxed.wasm'];

/** Bytes of the stack of each additional thread; the linker gives the first one 1 MiB. */
export const STACK_BYTES = 256 * 1024;

const NODE = typeof process === 'object' && !!process?.versions?.node && process.type !== 'renderer';

/** Is this Node (or something that says so)? */
export const isNode = () => NODE;

/**
 * A built-in module of Node; not by import(), which bundlers for the web would follow.
 * @param {string} name e.g. 'node:fs'
 */
export const nodeModule = async (name) => process.getBuiltinModule(name);

/** An address, relative to the page, or to the caller's own worker. Throws what is none. */
export const absolute = (url) => new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;

/**
 * Starts web/worker.js, or what the caller serves in its place.
 * @param {string} [url] absolute
 * @returns {Promise<{post(message, transfer?): void, onmessage: Function, onerror: Function, terminate(): Promise,
 *   hold(yes: boolean): void}>} hold(false) lets a Node process end although the worker is there
 */
export async function startWorker(url) {
  try {
    return isNode() ? await startNodeWorker(url) : startWebWorker(url);
  } catch (error) {
    return fail('worker', `worker.js did not start: ${error.message}`, { cause: error });
  }
}

const WORKER_ADVICE = 'worker.js did not load: is it served, and does worker-src of the content security policy allow it? ' +
  "Vite's dev server needs optimizeDeps: { exclude: ['bitpair'] }";

function startWebWorker(url) {
  // Bundlers look for this literal address, so another one is a case of its own.
  const worker = url ? new Worker(url, { type: 'module', name: 'bitpair' })
    : new Worker(new URL('./worker.js', import.meta.url), { type: 'module', name: 'bitpair' });
  const link = {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    terminate: async () => worker.terminate(),
    hold: () => {},
    onmessage: () => {},
    onerror: () => {},
  };
  worker.onmessage = (event) => link.onmessage(event.data);
  worker.onmessageerror = () => link.onerror(new Error('a message could not be read'));
  worker.onerror = (event) => {
    event.preventDefault?.();
    // A script that did not load at all (404, content security policy) gives an event without a message.
    link.onerror(new Error(event.message || WORKER_ADVICE));
  };
  return link;
}

async function startNodeWorker(url) {
  const { Worker: NodeWorker } = await nodeModule('node:worker_threads');
  const base = import.meta.url; // not inside new URL(): bundlers would take it for an asset of their own
  // Flags of this process, --input-type for one, need not suit a file.
  const worker = new NodeWorker(new URL(url ?? './worker.js', base), { execArgv: [] });
  let wanted = true;
  const link = {
    post: (message, transfer = []) => worker.postMessage(message, transfer),
    terminate: () => {
      wanted = false;
      return worker.terminate();
    },
    hold: (yes) => (yes ? worker.ref() : worker.unref()),
    onmessage: () => {},
    onerror: () => {},
  };
  worker.on('message', (message) => link.onmessage(message));
  worker.on('error', (error) => link.onerror(error));
  worker.on('messageerror', (error) => link.onerror(error));
  worker.on('exit', (code) => wanted && link.onerror(new Error(`it has ended, with code ${code}`)));
  return link;
}

/**
 * The worker's side: handler gets every message; returns {post(message)}. The listener of a Web Worker must be there
 * before the first await, or messages are lost; Node keeps them.
 */
export function connectPage(handler) {
  const link = { post: (message) => self.postMessage(message) };
  if (isNode()) {
    nodeModule('node:worker_threads').then(({ parentPort }) => {
      link.post = (message) => parentPort.postMessage(message);
      parentPort.on('message', handler);
    });
  } else {
    self.addEventListener('message', (event) => handler(event.data));
  }
  return link;
}

/**
 * A function that lets the event loop run once: without the 4 ms that browsers add to timers, and in Node by the way of
 * setImmediate, since a port there serves up to a thousand of its own messages before it looks at another port.
 */
export function makeYield() {
  if (isNode()) return () => new Promise((resolve) => setImmediate(resolve));
  const { port1, port2 } = new MessageChannel();
  const waiting = []; // several may wait at once: sessions take turns
  port1.onmessage = () => waiting.shift()();
  return () => new Promise((resolve) => {
    waiting.push(resolve);
    port2.postMessage(0);
  });
}
