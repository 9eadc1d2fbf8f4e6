// engine.js - load() and what goes before it: checks what the caller gives, starts the worker that reads the model, and follows the
// reading until all of it is there.

import { pageCapabilities } from './capabilities.js';
import { loadTemplates } from './chat.js';
import { follow } from './control.js';
import { Crew } from './crew.js';
import { BitpairError, abortError, fail, isSignal, unlessAborted } from './errors.js';
import { Model } from './model.js';
import { checkLoad, checkOptions, workerScript } from './options.js';
import { LOAD_ID, REST_ID, absolute, isNode, nodeModule, startWorker } from './protocol.js';

const ABORT_SECONDS = 0.5; // for a worker to close its files and connections itself
const END_SECONDS = 2;     // to wait for workers that are told to end: one that is stuck in a call of the system may not

/** Opens a model. See index.d.ts. */
export async function load(source, given) {
  const options = checkOptions(given, ['onProgress', 'onTier']);
  const checked = checkLoad(options);
  return withWorker(source, options, async (crew, request, signal) => {
    const following = new Following(options);
    const loading = request('load', checked);
    const templates = loadTemplates().catch(() => {}); // chat() will say it
    const rest = crew.request('rest', {}, { id: REST_ID, onMessage: (message) => following.receive(message) });
    rest.catch(() => {}); // whoever asks for model.complete hears of it
    const letGo = options.control ? follow(options.control, (paused) => crew.link.post({ type: 'pause', id: LOAD_ID, paused })) : () => {};
    try {
      const opened = await loading;
      if (opened.template.source) await unlessAborted(templates, signal);
      following.open(opened);
      const complete = rest.then((file) => following.finish(file)).finally(letGo);
      return { value: new Model(crew, opened, explained(complete, signal)), rest: complete };
    } catch (error) {
      letGo();
      throw error;
    }
  });
}

/** Memory that load() would take. See index.d.ts. */
export async function estimateMemory(source, given) {
  const options = checkOptions(given);
  const checked = checkLoad(options);
  return withWorker(source, options, async (crew, request) => {
    const sizes = await request('estimate', checked);
    await crew.end(new BitpairError('disposed', 'the estimate is done'));
    return { value: sizes, rest: null };
  });
}

/** What this host can do. See index.d.ts. */
export async function capabilities(options) {
  const script = workerScript(checkOptions(options).workerUrl);
  let crew = null;
  try {
    crew = new Crew(await startWorker(script), null, script);
    return { workerReason: null, ...await crew.request('capabilities', {}) };
  } catch (error) {
    return { workerReason: error.message, ...await pageCapabilities() };
  } finally {
    await crew?.end(new BitpairError('disposed', 'the capabilities are known'));
  }
}

/** What a load tells its caller as it goes on. */
class Following {
  constructor({ onProgress, onTier, startAt }) {
    Object.assign(this, { onProgress, onTier, startAt });
    this.opened = null; // {info, template, total}, once the model is open
    this.early = [];    // tiers that came before the page knew of it
    this.last = null;   // the last report
  }

  receive({ type, report, info }) {
    if (type === 'progress') {
      this.last = report;
      this.onProgress?.(report);
    } else if (this.opened) {
      this.raise(info);
    } else {
      this.early.push(info);
    }
  }

  update(news) {
    this.opened.info = Object.freeze({ ...this.opened.info, ...news });
  }

  raise(info) {
    this.update(info);
    this.onTier?.(info.tier);
  }

  open(opened) {
    this.opened = opened;
    this.update({});
    const { tier, tiers } = opened.info;
    if (tiers > 0) this.onTier?.(tier);
    this.report('ready');
    for (const info of this.early) this.raise(info);
  }

  /** All is there. */
  finish({ size, verified, cached, cachedBytes, cacheReason }) {
    this.update({ bytes: size, verified, cached, cachedBytes, cacheReason });
    if (this.startAt !== undefined) this.report('complete');
  }

  report(phase) {
    const { bytes, tier, cacheReason } = this.opened.info;
    const { loaded = 0, rate = null, eta = null, retries = 0, paused = false, lastError = null } = this.last ?? {};
    const whole = this.startAt === undefined || phase === 'complete';
    const sizes = whole ? { loaded: bytes, total: bytes, rate: null, eta: 0 } : { loaded: Math.max(loaded, bytes), total: this.opened.total, rate, eta };
    this.onProgress?.({ phase, paused, tier, ...sizes, retries, lastError, cacheReason });
  }
}

/** The rest of a load, with the reason of the signal where that has stopped it. */
function explained(complete, signal) {
  const told = complete.then(() => {}, (error) => {
    throw error?.code === 'aborted' ? abortError(signal) : error;
  });
  told.catch(() => {});
  return told;
}

/**
 * Has a worker of its own open the source. work(crew, request, signal) -> {value: what the caller gets, rest: a promise of what goes on
 * after that, or null}; request(type, options) asks the worker; signal: stops it all, if there is one.
 */
async function withWorker(source, { signal: given, workerUrl }, work) {
  const signal = either(given, signalOf(source));
  if (signal?.aborted) throw abortError(signal);
  const script = workerScript(workerUrl);
  const { message, pull = null, close } = await describeSource(source).catch(sourceError);
  const link = await startWorker(script).catch((error) => {
    close?.();
    throw error;
  });
  const crew = new Crew(link, pull, script);
  let timer = null;
  let open = false; // has the caller what it wanted?
  const abort = () => {
    crew.link.post({ type: 'abort', id: LOAD_ID });
    if (!open) timer = setTimeout(() => crew.end(abortError(signal)), 1000 * ABORT_SECONDS);
  };
  const end = () => {
    signal?.removeEventListener('abort', abort);
    crew.pull = null;
    source = null; // until here it is kept: in Node a Request that is gone aborts its signal no more
    close?.();
  };
  try {
    signal?.addEventListener('abort', abort, { once: true });
    if (signal?.aborted) await crew.end(abortError(signal));
    const { value, rest } = await work(crew, (type, options) => crew.request(type, { source: message, options }, { id: LOAD_ID }), signal);
    if (signal?.aborted) throw abortError(signal);
    open = true;
    if (rest) rest.catch(() => {}).finally(end);
    else end();
    return value;
  } catch (error) {
    const reason = error?.code === 'aborted' ? abortError(signal) : error; // a callback may throw anything
    await soon(crew.end(reason));
    end();
    throw reason;
  } finally {
    clearTimeout(timer);
  }
}

/** The signal of a Request. */
function signalOf(source) {
  const signal = source?.signal ?? undefined;
  return signal === undefined || isSignal(signal) ? signal : fail('argument', 'the signal of a Request must be an AbortSignal');
}

/** A signal that aborts as soon as one of two does, either of which may be missing. */
function either(one, other) {
  if (!one || !other) return one ?? other;
  if (AbortSignal.any && one instanceof AbortSignal && other instanceof AbortSignal) return AbortSignal.any([one, other]);
  const both = new AbortController();
  for (const signal of [one, other]) {
    if (signal.aborted) both.abort(signal.reason);
    signal.addEventListener('abort', () => both.abort(signal.reason), { once: true });
  }
  return both.signal;
}

/** Resolves with the promise, or when it takes too long. */
function soon(promise) {
  let timer;
  const late = new Promise((resolve) => (timer = setTimeout(resolve, 1000 * END_SECONDS)));
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** {message: what the worker is told, pull(offset, size): what it will ask from here, if anything, close?} */
async function describeSource(source) {
  // A Buffer is seen as what it extends: its own slice() does not copy.
  if (source instanceof Uint8Array) return pulled(new Uint8Array(source.buffer, source.byteOffset, source.byteLength));
  if (source instanceof ArrayBuffer) return pulled(new Uint8Array(source));
  if (typeof Blob !== 'undefined' && source instanceof Blob) return { message: { kind: 'blob', blob: source } };
  if (typeof source?.getReader === 'function') return streamed(source);
  if (Object.prototype.toString.call(source) === '[object Response]') return fromResponse(source);
  if (source instanceof URL) return fromUrl(source.href);
  if (typeof source === 'string') return fromString(source);
  if (typeof source?.url === 'string') return fromUrl(absolute(source.url), requestInit(source));
  return fail('argument', 'load() takes a URL, a Request or Response, a File or Blob, a Uint8Array or ArrayBuffer, a ReadableStream, or in Node a path');
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

/** What came for a request of the caller's: its body. Where that can be made again, giving the address is better. */
function fromResponse({ ok, status, url, body, bodyUsed }) {
  if (!ok) fail('http', `${url || 'the Response'} answers ${status}`, { status, url });
  if (typeof body?.getReader !== 'function' || bodyUsed) fail('argument', 'the Response has no body, or it was read already');
  return streamed(body, (error) => {
    fail('network', `${url || 'the Response'} broke off: ${error?.message ?? error}`, { url: url || undefined });
  });
}

/** Not transferred: not every browser can do that. broken(error) throws what is told of a body that breaks off. */
function streamed(stream, broken) {
  const reader = stream.getReader();
  const pull = async () => {
    const { done, value } = await reader.read().catch(broken);
    if (done) return null;
    if (!(value instanceof Uint8Array)) fail('argument', 'the stream must be one of bytes: its chunks are not Uint8Arrays');
    return new Uint8Array(value); // a copy: the chunk may be a part of something larger
  };
  // Nothing waits for it: of two that are read from one body, it ends when the other does.
  return { message: { kind: 'stream' }, pull, close: () => void reader.cancel().catch(() => {}) };
}

/** In Node a string without a scheme is a path. One letter before the colon is a drive. */
function fromString(text) {
  if (text === '') fail('argument', 'the source is an empty string');
  const isUrl = /^[a-z][a-z0-9+.-]+:/i.test(text);
  return isNode() && !isUrl ? { message: { kind: 'path', path: text } } : fromUrl(absolute(text));
}

const SCHEMES = ['http:', 'https:', 'data:', 'blob:'];

/** Refuses what fetch() never takes, which would look like a network that is down. A page may have a scheme of its own. */
function checkAddress({ href, protocol, username, password }) {
  if (!SCHEMES.includes(protocol) && (isNode() || protocol !== globalThis.location?.protocol))
    fail('argument', `${href}: '${protocol}' is no scheme that can be read, only http, https, data and blob: is 'http:' missing?`);
  if (username || password)
    fail('argument', 'an address with a user name or password cannot be fetched: give it without, and the header authorization');
}

async function fromUrl(url, init = {}) {
  if (!url.startsWith('file:')) {
    checkAddress(new URL(url));
    return { message: { kind: 'url', url, init } };
  }
  if (!isNode()) return fail('argument', 'file: addresses cannot be read by a page: give the File itself');
  const { fileURLToPath } = await nodeModule('node:url');
  return { message: { kind: 'path', path: fileURLToPath(url) } };
}

/** What of a Request can travel to a worker. */
function requestInit({ method, headers, credentials, cache, mode, redirect, referrerPolicy, integrity }) {
  if (!/^get$/i.test(method ?? 'GET')) fail('argument', `a model is fetched with GET: the Request has the method ${method}`);
  const init = { credentials, cache, mode, redirect, referrerPolicy, integrity };
  if (cache === 'default') init.cache = undefined; // every Request has it, so it says nothing
  if (mode === 'navigate') init.mode = undefined;
  for (const key in init) if (init[key] === undefined || init[key] === '') delete init[key];
  if (headers) init.headers = Object.fromEntries(new Headers(headers));
  return init;
}
