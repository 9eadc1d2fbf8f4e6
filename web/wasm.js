// wasm.js - finds out what this host can do, instantiates the right binary, and wraps its exports (wasm/exports.txt):
// strings, errors and 64-bit results. Runs inside workers.

import { BitpairError, engineError, fail } from './errors.js';
import { isNode, nodeModule } from './protocol.js';

// (module (func (result v128) i32.const 0 i8x16.splat))
const SIMD_PROBE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 8, 1, 6, 0, 65, 0, 253, 15, 11];
// (module (memory 1 1 shared) (func i32.const 0 i32.atomic.load drop))
const THREADS_PROBE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 4, 1, 96, 0, 0, 3, 2, 1, 0, 5, 4, 1, 3, 1, 1, 10, 11, 1, 9, 0, 65,
  0, 254, 16, 2, 0, 26, 11];

// (module (func (result v128) i32.const 0 i8x16.splat i32.const 0 i8x16.splat i8x16.relaxed_swizzle))
const RELAXED_PROBE = [0, 97, 115, 109, 1, 0, 0, 0, 1, 5, 1, 96, 0, 1, 123, 3, 2, 1, 0, 10, 15, 1, 13, 0, 65, 0, 253, 15, 65, 0,
  253, 15, 253, 128, 2, 11];
const PROBES = { simd: SIMD_PROBE, relaxed: RELAXED_PROBE, threads: THREADS_PROBE };

/** Has WebAssembly here 'simd', 'relaxed' SIMD, 'threads'? Some browsers have a mode without any of it. */
export const has = (feature) => typeof WebAssembly === 'object' && WebAssembly.validate(new Uint8Array(PROBES[feature]));

/** Most threads that pay: more than the physical cores only disturb each other, and memory is the limit past four. */
function defaultThreads(logical) {
  return logical <= 2 ? logical : Math.min(4, Math.ceil(logical / 2));
}

export const logicalCores = async () =>
  isNode() ? (await nodeModule('node:os')).availableParallelism() : (navigator.hardwareConcurrency ?? 1);

/**
 * How many threads to use, and why not more.
 * @param {number | undefined} wanted what the caller asked for
 * @returns {{threads: number, reason: string | null}} reason: why a request for more could not be met
 */
export async function chooseThreads(wanted) {
  if (wanted !== undefined && !(Number.isInteger(wanted) && wanted >= 1 && wanted <= 64))
    fail('argument', `threads must be an integer from 1 to 64, not ${wanted}`);
  if (wanted === 1) return { threads: 1, reason: null };
  if (globalThis.isSecureContext === false)
    return { threads: 1, reason: 'this page is not a secure context: threads need https or localhost' };
  if (!isNode() && !globalThis.crossOriginIsolated)
    return {
      threads: 1,
      reason: 'this page is not cross-origin isolated: serve it with the headers ' +
        'Cross-Origin-Opener-Policy: same-origin and Cross-Origin-Embedder-Policy: require-corp',
    };
  if (typeof SharedArrayBuffer === 'undefined') return { threads: 1, reason: 'this browser has no SharedArrayBuffer' };
  if (!has('threads')) return { threads: 1, reason: 'this host has no WebAssembly with threads' };
  return { threads: wanted ?? defaultThreads(await logicalCores()), reason: null };
}

/** @param {URL | BufferSource | WebAssembly.Module} engine */
async function compile(engine) {
  if (!has('simd'))
    fail('unsupported', 'this host has no WebAssembly with SIMD (Chrome 91, Firefox 89, Safari 16.4, Node 16 have it)');
  if (engine instanceof WebAssembly.Module) return engine;
  const url = engine instanceof URL ? engine : 'that was given';
  try {
    if (!(engine instanceof URL)) return await WebAssembly.compile(engine);
    if (url.protocol === 'file:') return await WebAssembly.compile(await (await nodeModule('node:fs/promises')).readFile(url));
    const response = await fetch(url);
    if (!response.ok) fail('http', `${url} answers ${response.status}`, { status: response.status, url: url.href });
    // compileStreaming insists on a MIME type that some servers do not know.
    if (response.headers.get('content-type') === 'application/wasm') return await WebAssembly.compileStreaming(response);
    return await WebAssembly.compile(await response.arrayBuffer());
  } catch (error) {
    if (error instanceof BitpairError) throw error;
    return fail('worker', `the engine ${url} did not load: ${error.message}`, { cause: error });
  }
}

// Whole literals: bundlers look for them.
const RELAXED_URLS = () => [new URL('./bitpair-relaxed.wasm', import.meta.url), new URL('./bitpair-threads-relaxed.wasm', import.meta.url)];
const PLAIN_URLS = () => [new URL('./bitpair.wasm', import.meta.url), new URL('./bitpair-threads.wasm', import.meta.url)];

const now = () => performance.now() / 1000;

const LARGEST = 65536; // pages: 4 GiB, as both binaries say
const PAGE = 65536;    // bytes

/** Reserves address space for up to 4 GiB; hosts that refuse are asked for less, null when they refuse all. Nothing is committed yet. */
function reserve(shared) {
  for (const maximum of [LARGEST, LARGEST / 2, LARGEST / 4, LARGEST / 8]) {
    try {
      return { memory: new WebAssembly.Memory({ initial: shared ? 64 : 1, maximum, shared }), maximum };
    } catch {
      // try the next size
    }
  }
  return null;
}

/** Bytes of address space that an engine gets at most. */
export const memoryLimit = (shared) => (reserve(shared)?.maximum ?? 0) * PAGE;

function sharedMemory() {
  return reserve(true)?.memory ?? fail('memory', 'this host gives no shared memory of 512 MiB: use threads: 1');
}

const NEEDED = ['wasm_err_bytes', 'platform_alloc', 'wasm_engine_open', 'wasm_header', 'bp_model_preview', 'bp_session_sample'];

/** Looks at an engine of the caller. -> is it for several threads? */
function sharesMemory(module, threads) {
  const names = new Set(WebAssembly.Module.exports(module).map(({ name }) => name));
  const missing = NEEDED.find((name) => !names.has(name));
  if (missing) fail('argument', `wasm: what was given is no engine of this package, it has no ${missing}`);
  const shared = WebAssembly.Module.imports(module).some(({ module: from, name }) => from === 'env' && name === 'memory');
  if (shared && threads === 1) fail('argument', 'wasm: the engine that was given is the one for several threads, and there is one');
  return shared;
}

/** The engine that the options of load() ask for, as openWasm() gives it, with `reason`: why it has fewer threads than that. */
export async function openChosen({ threads, wasm: given }) {
  const chosen = await chooseThreads(threads);
  const opened = await openWasm(chosen.threads, given);
  if (opened.threads === chosen.threads) return { ...opened, reason: chosen.reason };
  if (threads > 1) fail('argument', `wasm: the engine that was given is for one thread, ${threads} are wanted`);
  return { ...opened, reason: 'the engine that was given is for one thread' };
}

/**
 * Instantiates the engine for `threads` threads: {wasm: Wasm, module, memory (shared, or null), threads}; these are one for an engine of
 * the caller that can do no more. `given`: those by their file's name, used before the package's own. `relaxed`: the binary with relaxed
 * SIMD.
 */
export async function openWasm(threads, given = null, relaxed = has('relaxed')) {
  const [single, shared] = relaxed ? RELAXED_URLS() : PLAIN_URLS();
  const kind = threads > 1 ? '-threads' : '';
  const other = (relaxed ? given?.[`bitpair${kind}-relaxed.wasm`] : undefined) ?? given?.[`bitpair${kind}.wasm`];
  const module = await compile(typeof other === 'string' ? new URL(other) : (other ?? (threads > 1 ? shared : single)));
  const shares = other === undefined ? threads > 1 : sharesMemory(module, threads);
  const memory = shares ? sharedMemory() : null;
  return { wasm: new Wasm(await instantiate(module, memory), memory), module, memory, threads: shares ? threads : 1 };
}

/** One more thread on the memory of the first; `stack` [bytes] is its own. Returns the exports. */
export async function joinWasm(module, memory, stack, bytes) {
  const exports = await instantiate(module, memory);
  exports.__stack_pointer.value = stack + bytes; // stacks grow down
  return exports;
}

async function instantiate(module, memory) {
  const env = memory ? { seconds: now, memory } : { seconds: now };
  return (await WebAssembly.instantiate(module, { env })).exports;
}

/** The exports of one instance, spoken to in JavaScript's types. */
export class Wasm {
  constructor(exports, memory) {
    this.exports = exports;
    this.memory = memory ?? exports.memory;
    this.error = this.alloc(exports.wasm_err_bytes());
    this.cells = this.alloc(16); // results through pointers
  }

  /** A view of [pointer, pointer + size). Do not keep it: growing the memory detaches it. */
  bytes(pointer, size) {
    return new Uint8Array(this.memory.buffer, pointer >>> 0, size);
  }

  /** Zeroed and 64-byte aligned; throws a 'memory' error. */
  alloc(size) {
    const pointer = size < 2 ** 32 ? this.exports.platform_alloc(size) >>> 0 : 0;
    return pointer || fail('memory', `out of memory: ${(size / 1e6).toFixed(1)} MB more do not fit`);
  }

  free(pointer) {
    this.exports.platform_free(pointer);
  }

  /** Runs fn with `data` copied into the heap for the time of the call. */
  withBytes(data, fn) {
    const pointer = this.alloc(data.length);
    try {
      this.bytes(pointer, data.length).set(data);
      return fn(pointer, data.length);
    } finally {
      this.free(pointer);
    }
  }

  withText(text, fn) {
    return this.withBytes(new TextEncoder().encode(`${text}\0`), (pointer, size) => fn(pointer, size - 1));
  }

  /** Text [size] at pointer. The copy is needed: decoders refuse shared memory. */
  text(pointer, size) {
    return new TextDecoder().decode(this.bytes(pointer, size).slice());
  }

  cString(pointer) {
    const rest = new Uint8Array(this.memory.buffer, pointer >>> 0);
    return this.text(pointer, rest.indexOf(0));
  }

  u32(pointer) {
    return new Uint32Array(this.memory.buffer, pointer, 1)[0];
  }

  /** u64 as a number: file sizes and offsets stay far below 2^53. */
  u64(pointer) {
    return Number(new BigUint64Array(this.memory.buffer, pointer, 1)[0]);
  }

  f64(pointer) {
    return new Float64Array(this.memory.buffer, pointer, 1)[0];
  }

  /** Throws what the last failing call has written. */
  raise() {
    const { exports, error } = this;
    throw engineError(exports.wasm_err_code(error), exports.wasm_err_offset(error), this.cString(exports.wasm_err_text(error)));
  }

  /** The value of a call that returns 0 or false on failure. */
  check(value) {
    return value || this.raise();
  }
}
