// engine.js - load() and the model it gives: starts the workers, hands requests to them one after another, and turns their
// messages into promises and iterators.

import { cacheName } from './cache.js';
import { loadTemplates, renderChat } from './chat.js';
import { BitpairError, abortError, fail, packError, unpackError } from './errors.js';
import { ASYNC_DISPOSE, Generation, completeOptions } from './generation.js';
import { chooseGrammar } from './grammar.js';
import { LOAD_ID, isNode, nodeModule, startWorker } from './protocol.js';

const ABORT_SECONDS = 0.5; // for a worker to close its files and connections itself

/**
 * Opens a model. See index.d.ts.
 */
export async function load(source, options = {}) {
  return withWorker('load', source, options, async (crew, opened, last) => {
    if (opened.template.source) await loadTemplates().catch(() => {}); // chat() will say it
    const { bytes, cacheReason } = opened.info;
    options.onProgress?.({ phase: 'ready', loaded: bytes, total: bytes, rate: null, eta: 0, retries: last?.retries ?? 0, cacheReason });
    return new Model(crew, opened);
  });
}

/**
 * Memory that load() would take. See index.d.ts.
 */
export async function estimateMemory(source, options = {}) {
  return withWorker('estimate', source, options, async (crew, sizes) => {
    await crew.end(new BitpairError('disposed', 'the estimate is done'));
    return sizes;
  });
}

/** Has a worker of its own open the source; then done(crew, result, the last report) makes what the caller gets. */
async function withWorker(type, source, options, done) {
  const { signal, onProgress } = options;
  const checked = checkOptions(options);
  if (signal?.aborted) throw abortError(signal);
  const { message, pull = null, close } = await describeSource(source).catch(sourceError);
  const crew = new Crew(await startWorker(), pull);
  let timer;
  let last = null;
  const abort = () => {
    crew.link.post({ type: 'abort', id: LOAD_ID });
    timer = setTimeout(() => crew.end(abortError(signal)), 1000 * ABORT_SECONDS);
  };
  signal?.addEventListener('abort', abort, { once: true });
  try {
    if (signal?.aborted) await crew.end(abortError(signal));
    const result = await crew.request(type, { source: message, options: checked }, {
      id: LOAD_ID,
      onMessage: ({ report }) => onProgress?.((last = report)),
    });
    crew.pull = null;
    if (signal?.aborted) throw abortError(signal);
    return await done(crew, result, last);
  } catch (error) {
    const reason = error.code === 'aborted' ? abortError(signal) : error;
    await crew.end(reason);
    throw reason;
  } finally {
    clearTimeout(timer);
    signal?.removeEventListener('abort', abort);
    await close?.();
  }
}

function checkOptions({ threads, contextSize = 0, verify = true, tier, retries = 5, integrity, cache }) {
  const count = (name, value, low) => {
    if (!(Number.isInteger(value) && value >= low && value < 2 ** 31)) fail('argument', `${name} must be a whole number from ${low} on, not ${value}`);
  };
  count('contextSize', contextSize, 0);
  count('retries', retries, 0);
  if (tier !== undefined) count('tier', tier, 1);
  return { threads, contextSize, verify: !!verify, tier, retries, integrity: parseIntegrity(integrity), cache: cacheName(cache) };
}

/** 'sha256-' and 64 hex digits or base64 -> hex digits */
function parseIntegrity(text) {
  if (text === undefined) return null;
  const [, digits, base64] = /^sha256-(?:([0-9a-f]{64})|([\w+/-]{43}=?))$/i.exec(text) ?? [];
  if (digits) return digits.toLowerCase();
  if (!base64) return fail('argument', `integrity must be 'sha256-' and 64 hex digits or 44 characters of base64, not '${text}'`);
  const bytes = atob(base64.slice(0, 43).replaceAll('-', '+').replaceAll('_', '/'));
  return Array.from(bytes, (byte) => byte.charCodeAt(0).toString(16).padStart(2, '0')).join('');
}

/** {message: what the worker is told, pull(offset, size): what it will ask from here, if anything, close?} */
async function describeSource(source) {
  // A Buffer is seen as what it extends: its own slice() does not copy.
  if (source instanceof Uint8Array) return pulled(new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
  if (source instanceof ArrayBuffer) return pulled(new Uint8Array(source));
  if (typeof Blob !== 'undefined' && source instanceof Blob) return { message: { kind: 'blob', blob: source } };
  if (typeof source?.getReader === 'function') return streamed(source);
  if (source instanceof URL) return fromUrl(source.href);
  if (typeof source === 'string') return fromString(source);
  if (typeof source?.url === 'string') return fromUrl(absolute(source.url), requestInit(source));
  return fail('argument', 'load() takes a URL, a Request, a File or Blob, a Uint8Array or ArrayBuffer, a ReadableStream, or in Node a path');
}

/** Whatever a source holds that is not an address, a header and so on. */
function sourceError(error) {
  if (error instanceof BitpairError) throw error;
  return fail('argument', `load() cannot use this source: ${error.message}`, { cause: error });
}

const pulled = (bytes) => ({
  message: { kind: 'pull', size: bytes.length },
  pull: async (offset, size) => bytes.slice(offset, offset + size),
});

/** Not transferred: not every browser can do that. */
function streamed(stream) {
  const reader = stream.getReader();
  const pull = async () => {
    const { done, value } = await reader.read();
    if (done) return null;
    if (!(value instanceof Uint8Array)) fail('argument', 'the stream must be one of bytes: its chunks are not Uint8Arrays');
    return new Uint8Array(value); // a copy: the chunk may be a part of something larger
  };
  return { message: { kind: 'stream' }, pull, close: () => reader.cancel().catch(() => {}) };
}

const absolute = (url) => new URL(url, globalThis.document?.baseURI ?? globalThis.location?.href).href;

/** In Node a string without a scheme is a path. One letter before the colon is a drive. */
function fromString(text) {
  if (text === '') fail('argument', 'the source is an empty string');
  const isUrl = /^[a-z][a-z0-9+.-]+:/i.test(text);
  return isNode() && !isUrl ? { message: { kind: 'path', path: text } } : fromUrl(absolute(text));
}

async function fromUrl(url, init = {}) {
  if (!url.startsWith('file:')) return { message: { kind: 'url', url, init } };
  if (!isNode()) return fail('argument', 'file: addresses cannot be read by a page: give the File itself');
  const { fileURLToPath } = await nodeModule('node:url');
  return { message: { kind: 'path', path: fileURLToPath(url) } };
}

/** What of a Request can travel to a worker. */
function requestInit({ headers, credentials, cache, mode, redirect, referrerPolicy, integrity }) {
  const init = { credentials, cache, mode: mode === 'navigate' ? undefined : mode, redirect, referrerPolicy, integrity };
  for (const key in init) if (init[key] === undefined || init[key] === '') delete init[key];
  if (headers) init.headers = Object.fromEntries(new Headers(headers));
  return init;
}

/** The engine worker, the threads it asked for, and the requests that are open. */
class Crew {
  constructor(link, pull) {
    this.link = link;
    this.pull = pull; // of a source that stays here
    this.threads = [];
    this.requests = new Map(); // id -> {resolve, reject, onMessage, failure: what onMessage threw}
    this.lastId = LOAD_ID;
    this.ended = null; // the error that every further request gets
    link.onmessage = (message) => this.receive(message);
    link.onerror = (error) => this.end(new BitpairError('worker', `the worker failed: ${error.message}`, { cause: error }));
  }

  newId() {
    return ++this.lastId;
  }

  /** Sends a request and waits for its result; onMessage gets what comes before that. */
  request(type, fields, { id = this.newId(), onMessage } = {}) {
    return new Promise((resolve, reject) => {
      if (this.ended) return reject(this.ended);
      try {
        this.link.post({ type, id, ...fields });
      } catch (error) {
        return reject(new BitpairError('argument', `an option cannot be sent to the worker: ${error.message}`, { cause: error }));
      }
      this.requests.set(id, { resolve, reject, onMessage });
      return this.link.hold(true);
    });
  }

  receive(message) {
    if (this.ended) return;
    const { type, id } = message;
    if (type === 'result' || type === 'error') this.settle(id, message);
    else if (type === 'pull') this.sendPiece(message);
    else if (type === 'spawn') this.spawn(message);
    else this.notify(id, message);
  }

  /** What a callback of the caller throws becomes the error of its request, once the engine has stopped working on it. */
  notify(id, message) {
    const request = this.requests.get(id);
    if (!request || request.failure) return;
    try {
      request.onMessage?.(message);
    } catch (error) {
      request.failure = { error };
      if (id === LOAD_ID) this.end(error);
      else this.link.post({ type: 'abort', id });
    }
  }

  settle(id, { type, value, error }) {
    const { resolve, reject, failure } = this.requests.get(id);
    this.requests.delete(id);
    if (this.requests.size === 0) this.link.hold(false);
    if (type === 'result') return failure ? reject(failure.error) : resolve(value);
    const unpacked = unpackError(error);
    reject(unpacked);
    // After a trap nothing in that memory can be relied on.
    return unpacked.code === 'worker' ? this.end(unpacked) : undefined;
  }

  async sendPiece({ offset, size }) {
    try {
      const bytes = await this.pull(offset, size);
      if (!this.ended) this.link.post({ type: 'piece', bytes }, bytes ? [bytes.buffer] : []);
    } catch (error) {
      const known = error instanceof BitpairError ? error : new BitpairError('io', `the source cannot be read: ${error?.message ?? error}`);
      if (!this.ended) this.link.post({ type: 'piece', error: packError(known) });
    }
  }

  /** Starts `count` workers and gives the engine worker a port to each. Those that do not come up are left out. */
  async spawn({ count }) {
    const started = await Promise.allSettled(Array.from({ length: count }, () => this.startThread()));
    const failure = started.find(({ status }) => status === 'rejected')?.reason;
    const ports = started.map(({ value }) => value).filter(Boolean);
    this.link.post({ type: 'threads', ports, reason: failure ? failure.message : null }, ports);
  }

  /** -> the port that leads to it */
  async startThread() {
    const thread = await startWorker();
    if (this.ended) return thread.terminate();
    this.threads.push(thread);
    thread.hold(false);
    const { port1, port2 } = new MessageChannel();
    try {
      await new Promise((resolve, reject) => {
        thread.onerror = reject;
        thread.onmessage = resolve;
        thread.post({ type: 'thread', port: port1 }, [port1]);
      });
    } catch (error) {
      this.threads.splice(this.threads.indexOf(thread), 1);
      await thread.terminate();
      throw error;
    }
    // From here on the engine counts on it: without it the others would wait for ever.
    thread.onerror = (error) => this.end(new BitpairError('worker', `a thread failed: ${error.message}`, { cause: error }));
    thread.onmessage = ({ error }) => this.end(unpackError(error));
    return port2;
  }

  /** Ends all workers, and with them their memory; open and later requests fail with `error`. */
  async end(error) {
    if (this.ended) return;
    this.ended = error;
    const open = [...this.requests.values()];
    this.requests.clear();
    await Promise.all([this.link, ...this.threads].map((link) => link.terminate()));
    for (const { reject } of open) reject(error);
  }
}

const aborted = (signal) =>
  new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener('abort', resolve, { once: true })));

export class Model {
  #crew;
  #template;
  #last = Promise.resolve(); // settles when the latest call that uses the session has ended

  constructor(crew, { info, template }) {
    this.#crew = crew;
    this.#template = template;
    this.info = Object.freeze(info);
  }

  generate(prompt, options = {}) {
    return this.#generation(() => prompt, { bos: true, special: false, ...options });
  }

  chat(messages, options = {}) {
    const template = { ...this.#template, source: options.template ?? this.#template.source };
    return this.#generation(() => renderChat(template, messages, options), { ...options, bos: false, special: true });
  }

  async tokenize(text, { bos = false, special = false } = {}) {
    if (typeof text !== 'string') fail('argument', 'tokenize() takes a string');
    return this.#crew.request('tokenize', { text, options: { bos, special } });
  }

  async detokenize(ids, { special = false } = {}) {
    return this.#crew.request('detokenize', { ids: checkIds(ids), options: { special } });
  }

  async embed(texts, { pooling = 'mean', normalize = true, bos = true, special = false } = {}) {
    const one = typeof texts === 'string';
    const prompts = one ? [texts] : Array.isArray(texts) ? texts.map(checkPrompt) : fail('argument', 'embed() takes a string or an array');
    if (pooling !== 'mean' && pooling !== 'last') fail('argument', `pooling must be 'mean' or 'last', not ${pooling}`);
    const vectors = await this.#inTurn('embed', { prompts, options: { pooling, normalize: !!normalize, bos, special } });
    return one ? vectors[0] : vectors;
  }

  async score(text, { bos = true, special = false } = {}) {
    return this.#inTurn('score', { prompt: checkPrompt(text), options: { bos, special } });
  }

  async logits(prompt, { bos = true, special = false } = {}) {
    return this.#inTurn('logits', { prompt: checkPrompt(prompt), options: { bos, special } });
  }

  async saveState() {
    return this.#inTurn('saveState', {});
  }

  async restoreState(state) {
    if (!(state instanceof Uint8Array)) fail('argument', 'restoreState() takes the Uint8Array that saveState() gave');
    return this.#inTurn('restoreState', { bytes: state });
  }

  async layers() {
    return this.#crew.request('layers', {});
  }

  async fileTiers() {
    return this.#crew.request('tiers', {});
  }

  async signs(layer, stage, factor) {
    return this.#crew.request('signs', { layer, stage, factor });
  }

  async scales(layer, stage) {
    return this.#crew.request('scales', { layer, stage });
  }

  async dispose() {
    await this.#crew.end(new BitpairError('disposed', 'the model was disposed'));
  }

  [ASYNC_DISPOSE]() {
    return this.dispose();
  }

  /** A request that uses the session: it waits until the calls before it have ended. */
  #inTurn(type, fields) {
    const running = this.#last.then(() => this.#crew.request(type, fields));
    this.#last = running.catch(() => {});
    return running;
  }

  /** A generation that, once started, waits for its turn. */
  #generation(makePrompt, options) {
    return new Generation(async (stop, receive) => {
      const complete = { ...completeOptions(options), grammar: await chooseGrammar(options) };
      const prompt = checkPrompt(await makePrompt());
      let begun = false;
      const running = this.#last.then(() => {
        begun = true;
        return this.#run(prompt, complete, options.onPrefill, stop, receive);
      });
      this.#last = running.catch(() => {});
      // One that is stopped while it waits ends at once, and does nothing when its turn comes.
      return Promise.race([running, aborted(stop).then(() => (begun ? running : null))]);
    }, options.signal);
  }

  #run(prompt, options, onPrefill, stop, receive) {
    if (stop.aborted) return null;
    const id = this.#crew.newId();
    stop.addEventListener('abort', () => this.#crew.link.post({ type: 'abort', id }), { once: true });
    return this.#crew.request('generate', { prompt, options }, {
      id,
      onMessage: (message) => {
        if (message.type === 'prefill') onPrefill?.({ done: message.done, total: message.total });
        else receive(message);
      },
    });
  }
}

const checkPrompt = (prompt) => (typeof prompt === 'string' ? prompt : checkIds(prompt));

function checkIds(ids) {
  const list = typeof ids === 'object' && Number.isInteger(ids?.length) ? Array.from(ids) : null;
  if (!list?.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31))
    fail('argument', 'a string or an array of token ids is needed');
  return list;
}
