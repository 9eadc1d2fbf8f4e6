// fetch.js - brings a model file from where it is into the WASM heap, once: every chunk is written to its final place as
// it arrives. Only the header is buffered, until it tells how much memory the file needs. Runs in the engine worker.

import { BitpairError, fail } from './errors.js';
import { isNode, nodeModule } from './protocol.js';

const SNIFF = 64;            // bytes that show whether this is a model at all
const FIRST_PROBE = 1 << 16; // bytes of header before the first look at it
const PIECE = 1 << 22;       // bytes of one read from a file or from the page
const REPORT_EVERY = 0.1;    // seconds between two progress reports
const RATE_WINDOW = 3;       // seconds over which the rate is averaged

/**
 * Reads a whole model.
 * @param {import('./wasm.js').Wasm} wasm
 * @param {object} source as engine.js describes it: {kind: 'url' | 'path' | 'blob' | 'pull', ...}
 * @param {{pull: Function, progress: Function}} page pull(offset, size) -> bytes; progress(report)
 * @returns {Promise<{pointer: number, size: number, fullSize: number, name: string}>} the file in the heap; fullSize is what its
 *   header says; memory is freed if reading fails
 */
export async function readModel(wasm, source, page) {
  const stream = await openSource(source, page);
  const sink = new Sink(wasm, stream, new Meter(page.progress, stream.total));
  try {
    for await (const chunk of stream.chunks) if (sink.write(chunk) === 'full') break;
    sink.end();
    return { pointer: sink.pointer, size: sink.loaded, fullSize: sink.size, name: stream.name };
  } catch (error) {
    sink.release();
    throw readError(error, source.kind, stream.name);
  }
}

function readError(error, kind, name) {
  if (error instanceof BitpairError || error instanceof WebAssembly.RuntimeError) return error;
  if (kind !== 'url') return new BitpairError('io', `${name} cannot be read: ${error.message}`, { cause: error });
  return new BitpairError('network', `${name} broke off: ${error.message}`, { cause: error });
}

/** Header first into a buffer, then everything into one block of the heap. */
class Sink {
  constructor(wasm, stream, meter) {
    this.wasm = wasm;
    this.stream = stream;
    this.meter = meter;
    this.head = []; // chunks, until the header is complete
    this.loaded = 0;
    this.nextProbe = FIRST_PROBE;
    this.pointer = 0;
    this.size = 0; // of the complete file, once known
  }

  /** Takes a chunk; 'full' when the file is complete. Bytes past its end are not looked at. */
  write(chunk) {
    if (this.pointer) {
      this.place(chunk);
    } else {
      const known = this.loaded >= SNIFF;
      this.head.push(chunk);
      this.loaded += chunk.length;
      if (!known && this.loaded >= SNIFF) sniff(this.head, this.stream);
      if (this.loaded >= this.nextProbe) this.probe();
    }
    this.meter.report(this.loaded);
    return this.pointer && this.loaded === this.size ? 'full' : 'more';
  }

  place(chunk) {
    const part = chunk.subarray(0, this.size - this.loaded);
    this.wasm.bytes(this.pointer + this.loaded, part.length).set(part);
    this.loaded += part.length;
  }

  /** Looks whether the header is complete; if so, the block for the whole file is there afterwards. */
  probe() {
    const { wasm } = this;
    const status = wasm.withBytes(concatenate(this.head, this.loaded), (bytes, size) =>
      wasm.exports.bp_probe(bytes, size, wasm.cells, wasm.cells + 8, wasm.error));
    if (status < 0) wasm.raise();
    this.nextProbe = this.loaded * 2;
    if (status === 0) return;
    this.size = wasm.u64(wasm.cells);
    this.meter.total = this.size;
    this.pointer = wasm.alloc(this.size);
    const chunks = this.head;
    this.head = [];
    this.loaded = 0;
    for (const chunk of chunks) this.place(chunk);
  }

  /** The source has no more. A file that ends at a tier is complete (bp_model_open decides), so it is handed on. */
  end() {
    if (!this.pointer && this.loaded > 0) {
      sniff(this.head, this.stream);
      this.probe();
    }
    if (!this.pointer) fail('format', `${this.stream.name} ends after ${this.loaded} bytes, inside its header`);
    this.meter.report(this.loaded, true);
  }

  release() {
    if (this.pointer) this.wasm.free(this.pointer);
    this.head = [];
  }
}

function concatenate(chunks, size) {
  const all = new Uint8Array(size);
  let at = 0;
  for (const chunk of chunks) {
    all.set(chunk, at);
    at += chunk.length;
  }
  return all;
}

/** The first bytes of what is not a model usually tell what it is: an error page, a pointer of Git LFS. */
function sniff(chunks, { name, about }) {
  const bytes = concatenate(chunks, chunks.reduce((sum, chunk) => sum + chunk.length, 0));
  if (bytes.length < 4 || (bytes[0] === 71 && bytes[1] === 71 && bytes[2] === 85 && bytes[3] === 70)) return;
  const start = String.fromCharCode(...bytes.subarray(0, 40)).replace(/[^ -~]+/g, '.');
  fail('format', `${name} is not a GGUF file${about ? ` (${about})` : ''}: it begins with "${start}"`);
}

/** Bytes, rate over the last seconds, and the time that is left. */
class Meter {
  constructor(send, total) {
    this.send = send;
    this.total = total;
    this.samples = [];
    this.last = -Infinity;
  }

  report(loaded, final = false) {
    const time = performance.now() / 1000;
    if (!final && time - this.last < REPORT_EVERY) return;
    this.last = time;
    this.samples.push([time, loaded]);
    while (this.samples.length > 2 && time - this.samples[0][0] > RATE_WINDOW) this.samples.shift();
    const [since, from] = this.samples[0];
    const rate = time > since ? (loaded - from) / (time - since) : null;
    const eta = rate > 0 && this.total !== null ? Math.max(0, this.total - loaded) / rate : null;
    this.send({ phase: 'download', loaded, total: this.total, rate, eta: final ? 0 : eta });
  }
}

/** -> {name: for messages, about: status and type, total: bytes or null, chunks: async iterable of Uint8Array} */
function openSource(source, page) {
  switch (source.kind) {
    case 'url':
      return openUrl(source);
    case 'path':
      return openPath(source.path);
    case 'blob':
      return { name: source.blob.name ?? 'the file', total: source.blob.size, chunks: blobChunks(source.blob) };
    default:
      return { name: 'the data', total: source.size, chunks: pulledChunks(source.size, page.pull) };
  }
}

async function openUrl({ url, init }) {
  let response;
  try {
    response = await fetch(url, init);
  } catch (error) {
    return fail('network', `${url} cannot be reached: ${error.cause?.message ?? error.message}`, { url, cause: error });
  }
  if (!response.ok) {
    await response.body?.cancel();
    const text = response.statusText ? ` ${response.statusText}` : '';
    return fail('http', `${url} answers ${response.status}${text}`, { url, status: response.status });
  }
  // With a content encoding the length counts compressed bytes.
  const length = response.headers.get('content-encoding') ? NaN : Number(response.headers.get('content-length') ?? NaN);
  const type = response.headers.get('content-type');
  return {
    name: url,
    about: `status ${response.status}, ${type ? `content type ${type}` : 'no content type'}`,
    total: Number.isFinite(length) ? length : null,
    chunks: bodyChunks(response.body),
  };
}

async function* bodyChunks(body) {
  const reader = body.getReader();
  try {
    for (let next; !(next = await reader.read()).done;) yield next.value;
  } finally {
    await reader.cancel().catch(() => {}); // a broken stream cannot be cancelled: nothing left to do
  }
}

async function* blobChunks(blob) {
  for (let at = 0; at < blob.size; at += PIECE) yield new Uint8Array(await blob.slice(at, at + PIECE).arrayBuffer());
}

async function* pulledChunks(size, pull) {
  for (let at = 0; at < size; at += PIECE) yield await pull(at, Math.min(PIECE, size - at));
}

async function openPath(path) {
  if (!isNode()) return fail('argument', 'paths can be opened in Node only: give a URL, a File or bytes');
  const fs = await nodeModule('node:fs/promises');
  let file;
  try {
    file = await fs.open(path);
    const { size } = await file.stat();
    return { name: path, total: size, chunks: fileChunks(file, size) };
  } catch (error) {
    await file?.close();
    return fail('io', `${path} cannot be read: ${error.message}`, { cause: error });
  }
}

async function* fileChunks(file, size) {
  const piece = new Uint8Array(Math.min(PIECE, size));
  try {
    for (;;) {
      const { bytesRead } = await file.read(piece, 0, piece.length);
      if (bytesRead === 0) return;
      yield piece.slice(0, bytesRead);
    }
  } finally {
    await file.close();
  }
}
