// fetch.js - brings a model file from where it is into the WASM heap: the header first, which tells how much memory the file
// needs and what each piece must hash to; then the pieces, from the copy that was kept and over several connections, each
// written to its final place and checked as soon as it is whole. Runs in the engine worker.

import { Connections } from './connection.js';
import { Copy } from './copy.js';
import { copyPieces } from './copying.js';
import { fail } from './errors.js';
import { HeadReading, TRIES } from './head.js';
import { goodPiece } from './header.js';
import { Meter } from './meter.js';
import { openSource, readError } from './source.js';

const SPAN_PIECES = 8; // most pieces of one request, after the first
const RESTARTS = 2;    // after the file has changed on its server

/**
 * Reads a model, or its first tiers.
 * @param {import('./wasm.js').Wasm} wasm
 * @param {object} described the source, as engine.js describes it
 * @param {{tier?: number, verify: boolean, integrity: string | null, cache?: string, retries: number}} options integrity: 64 hex
 *   digits; cache: name of the store
 * @param {{pull: Function, progress: Function, signal: AbortSignal, gate: Gate, tier?: Function, arrived?: Function}} page
 *   pull(offset, size) -> bytes; progress(report); gate: see connection.js; tier(n, file): the first n tiers are there and checked,
 *   file as below with `room`, bytes up to which the file may grow; true: they are in use from now on, so that nothing of them may be
 *   moved, freed or written again; arrived(): something came; lend?: see copying.js; headed?(place): the header is in its place,
 *   {pointer, bytes, room}, null: no longer; rejects where no model can be opened from it; begun?(): no job will be lent any more
 * @param {Promise<Copy>} [copy] of openCopy(), for a caller who has begun early
 * @returns {Promise<{pointer: number, size: number, verified: boolean, cached: boolean, cachedBytes: number, cacheReason: string | null}>}
 *   the file in the heap, `size` where its last tier ends; memory is freed if reading fails
 */
export const readModel = (wasm, described, options, page, copy) => reading(wasm, described, options, page, (run) => run.load(), copy);

/** -> {head: Uint8Array, end: bytes of the file up to the tier} */
export const readHeader = (wasm, described, options, page) => reading(wasm, described, options, page, (run) => run.peek());

/** What is kept of a source: a promise, for readModel. Of blob: and data: addresses nothing, they have their bytes at hand. */
export const openCopy = ({ kind, url }, { verify, cache }) =>
  Copy.open(url, kind === 'url' && /^https?:/.test(url) && verify ? cache : undefined);

async function reading(wasm, described, options, page, work, copying = openCopy(described, options)) {
  const copy = await copying;
  const source = await openSource(described, page.pull, copy.wanted);
  const meter = new Meter(page.progress);
  page.gate.changed = (paused) => meter.pause(paused);
  if (page.gate.closed) meter.pause(true);
  try {
    for (let restarts = 0; ; restarts++) {
      const run = new Reading({ wasm, source, copy, options, meter, page });
      try {
        return await work(run);
      } catch (error) {
        run.release();
        if (!error.changed || restarts === RESTARTS || run.live) throw readError(error, source, page.signal);
        source.forget();
        copy.suspect = true;
        meter.again();
      }
    }
  } finally {
    meter.end();
    await Promise.all([copy.close(), source.close?.()]);
  }
}

class Reading extends HeadReading {
  constructor({ wasm, source, copy, options, meter, page }) {
    const { signal } = page;
    const stop = new AbortController(); // ends all connections
    if (signal.aborted) stop.abort(signal.reason);
    signal.addEventListener('abort', () => stop.abort(signal.reason));
    const net = new Connections(source, meter, options.retries, stop.signal, page.gate);
    super({ wasm, source, copy, options, net, meter, stop });
    this.page = page;
    this.pointer = 0;
    this.cachedBytes = 0;
    this.busy = 0;      // lanes that have something to do
    this.whole = 0;     // pieces from the first on that are there
    this.tier = 0;      // tiers that are
    this.live = false;  // are they in use?
    meter.tier = 0;
  }

  async load() {
    const reader = await this.readHead();
    this.plan();
    this.pointer = this.wasm.alloc(this.limit);
    this.loaded = Math.min(this.head.length, this.limit);
    this.meter.total = this.limit;
    this.wasm.bytes(this.pointer, this.loaded).set(this.head.subarray(0, this.loaded));
    const far = this.source.remote || this.source.size === null; // what is at hand is read before anybody would hear of it
    const opening = (far || this.same) && this.page.headed?.({ pointer: this.pointer, bytes: this.header.dataOffset, room: this.end });
    if (this.same) await this.fromCopy();
    this.page.begun?.();
    if (far) await opening; // before bytes come that nothing could be done with
    await this.current;
    await this.keepHead();
    await this.fromSource(reader);
    this.whole = this.count; // where the source was cut at a tier, the last piece cannot be checked
    this.announce();
    await this.keepRest();
    await this.copy.note();
    this.report(true);
    return this.result();
  }

  async peek() {
    const reader = await this.readHead();
    await reader?.close();
    await this.current;
    this.plan();
    return { head: this.head.subarray(0, this.header.dataOffset), end: this.end };
  }

  release() {
    this.stop.abort();
    this.page.headed?.(null);
    if (this.pointer && !this.live) this.wasm.free(this.pointer);
    this.pointer = 0;
  }

  // ---- what is to be read ----

  /** end: where the wanted tier ends; limit: where its last piece does, so that it can be checked; count: pieces up to there. */
  plan() {
    const { size, tiers, dataOffset, pieceBytes } = this.header;
    const { tier } = this.options;
    if (tier > tiers.length) fail('argument', tiers.length ? `tier ${tier}: the file has ${tiers.length}` : `tier ${tier}: this file has no tiers`);
    this.end = tier ? tiers[tier - 1] : size;
    this.count = Math.ceil((this.end - dataOffset) / pieceBytes);
    this.limit = Math.min(size, dataOffset + this.count * pieceBytes);
    this.done = new Uint8Array(this.count);
    if (this.source.size !== null && this.source.size < this.limit) this.cutTo(this.source.size);
  }

  /** The source has no more than `size` bytes: enough, or a complete file of fewer tiers, or an error. */
  cutTo(size) {
    const { name, remote } = this.source;
    const lower = !this.options.tier && this.header.tiers.includes(size);
    if (size < this.end && !lower)
      fail(remote ? 'network' : 'format', `${name} ends after ${size} of ${this.header.size} bytes`, { offset: size });
    this.end = Math.min(this.end, size);
    this.limit = this.meter.total = size;
    this.count = Math.ceil((this.end - this.header.dataOffset) / this.header.pieceBytes);
  }

  /** Piece i is in its place, and good. */
  finish(i) {
    this.done[i] = 1;
    while (this.done[this.whole]) this.whole++;
    if (!this.unsure) this.announce();
  }

  /** Tells of the tiers that are there. */
  announce() {
    const { tiers, dataOffset, pieceBytes } = this.header;
    while (this.tier < tiers.length && tiers[this.tier] <= this.end) {
      if (Math.ceil((tiers[this.tier] - dataOffset) / pieceBytes) > this.whole) return;
      this.meter.reach(++this.tier);
      const file = { ...this.result(), size: tiers[this.tier - 1], room: this.end };
      this.live = this.page.tier?.(this.tier, file) || this.live;
    }
  }

  pieceStart(i) {
    return this.header.dataOffset + i * this.header.pieceBytes;
  }

  pieceEnd(i) {
    return Math.min(this.header.size, this.pieceStart(i + 1));
  }

  /** Is piece i, in its place, what the header says? bytes: see goodPiece(). Beside answers turns of the event loop are scarce. */
  async good(i, bytes) {
    const { pointer, header: { pieces } } = this;
    if (!pieces || !this.options.verify) return true;
    const [start, end] = [this.pieceStart(i), this.pieceEnd(i)];
    return goodPiece(this.wasm, pointer + start, end - start, pointer + pieces + 32 * i, bytes, this.live);
  }

  // ---- the copy ----

  async fromCopy() {
    const { copy, header, page, pointer, options } = this;
    const { pieceBytes, dataOffset, size } = header;
    const pieces = [...copy.log.pieces].filter((i) => i < this.count && !this.done[i] && this.pieceEnd(i) <= this.limit);
    const digests = header.pieces && options.verify ? pointer + header.pieces : 0;
    await copyPieces(copy.store, { pieces, pieceBytes, dataOffset, size, store: options.cache, id: copy.id, pointer, digests }, page, {
      pass: () => page.gate.pass(this.stop.signal),
      write: (start, bytes) => this.wasm.bytes(pointer + start, bytes.length).set(bytes),
      good: (i, bytes) => this.good(i, bytes),
      piece: (i) => this.copied(i),
    });
    for (const i of pieces) if (!this.done[i]) copy.discard(i);
    this.meter.restart();
  }

  copied(i) {
    const [start, end] = [this.pieceStart(i), this.pieceEnd(i)];
    this.cachedBytes += end - start;
    this.loaded += Math.max(0, end - Math.max(start, this.head.length));
    this.finish(i);
    this.page.arrived?.();
    this.report();
  }

  async keepHead() {
    const { copy, header, source, same } = this;
    if (this.done.every(Boolean) && same && !copy.suspect) return;
    if (!header.pieces) copy.refuse('the file has no checksums');
    const { etag = null, modified = null } = source.version ?? {};
    const meta = { etag, modified, size: header.size, dataOffset: header.dataOffset, pieceBytes: header.pieceBytes };
    await copy.begin(meta, this.head.subarray(0, header.dataOffset), same, this.limit);
    this.meter.cacheReason = copy.reason;
  }

  // ---- the source ----

  /** Reads all pieces that are not done; `reader` goes on behind the head. */
  async fromSource(reader) {
    const unneeded = this.done.subarray(0, this.count).every(Boolean);
    if (unneeded) await reader?.close();
    const first = reader && !unneeded ? this.firstSpan(reader) : null;
    this.missing = [];
    for (let i = 0; i < this.count; i++) if (!this.done[i] && !(first && this.pieceStart(i) < first.end)) this.missing.push(i);
    this.tries = new Map(); // piece -> how often it was damaged
    let failure = null;
    const lane = (span) => this.lane(span).catch((error) => {
      failure ??= error;
      this.stop.abort(error);
    });
    // All of them must have ended before the memory may be freed.
    await Promise.all([lane(first), ...Array.from({ length: this.source.lanes - 1 }, () => lane(null))]);
    if (failure) throw failure;
  }

  /** The head, and what the first connection brings besides. */
  firstSpan(reader) {
    const at = Math.min(this.head.length, this.limit);
    const last = Math.floor((Math.max(at, reader.end) - 1 - this.header.dataOffset) / this.header.pieceBytes);
    return { at, piece: 0, end: this.source.ranges ? Math.min(this.limit, this.pieceEnd(Math.max(0, last))) : this.limit, reader: reader.spent ? null : reader };
  }

  /** One connection after another, until nothing is missing. */
  async lane(first) {
    for (let span = first ?? this.take(); span; span = this.take()) {
      this.busy++;
      let { reader = null } = span;
      const drop = async () => {
        await reader?.close();
        reader = null;
      };
      await this.net.patiently(async () => {
        await this.settle(span);
        while (span.at < span.end) {
          reader ??= await this.net.open(span.at, span.end, span.fresh);
          if (!reader.part && this.busy > 1) return this.giveBack(span);
          const chunk = await this.net.read(reader, span.at);
          if (chunk === null) this.cutTo(span.end = span.at);
          else if (chunk.length > 0) this.place(span, chunk);
          await this.settle(span);
          if (reader.spent) reader = null;
        }
      }, drop);
      await drop();
      this.busy--;
    }
  }

  /** The next pieces for a lane; null when there is nothing to do for it. */
  take() {
    const { missing, source } = this;
    if (missing.length === 0 || (!source.ranges && this.busy > 0)) return null;
    const piece = missing[0];
    if (!source.ranges) return this.takeRest(piece);
    const most = Math.min(SPAN_PIECES, Math.ceil(missing.length / (2 * source.lanes)));
    let n = 1;
    while (n < most && missing[n] === piece + n) n++;
    missing.splice(0, n);
    return { at: this.pieceStart(piece), piece, end: Math.min(this.limit, this.pieceEnd(piece + n - 1)), fresh: this.tries.has(piece) };
  }

  /** Without ranges one connection brings all that follows, also what is there already. */
  takeRest(piece) {
    const at = this.pieceStart(piece);
    const last = this.missing.at(-1);
    this.missing = [];
    return { at, piece, end: Math.min(this.limit, this.pieceEnd(last)), fresh: this.tries.size > 0 };
  }

  /** Without ranges all connections would bring the same: the last one does the work. */
  giveBack(span) {
    if (!this.done[span.piece]) this.loaded -= span.at - this.pieceStart(span.piece);
    for (let i = span.piece; i < this.count && this.pieceStart(i) < span.end; i++) if (!this.done[i]) this.missing.push(i);
    this.missing.sort((a, b) => a - b);
  }

  /** Pieces that are there already stay as they are: the model may be using them. */
  place(span, chunk) {
    const { dataOffset, pieceBytes } = this.header;
    for (let part = chunk.subarray(0, span.end - span.at); part.length > 0;) {
      const i = Math.floor((span.at - dataOffset) / pieceBytes);
      const n = Math.min(part.length, this.pieceEnd(i) - span.at);
      if (!this.done[i]) {
        this.wasm.bytes(this.pointer + span.at, n).set(part.subarray(0, n));
        this.loaded += n;
      }
      span.at += n;
      part = part.subarray(n);
    }
    this.page.arrived?.();
    this.report();
  }

  /** Checks the pieces of a span that have become whole. */
  async settle(span) {
    for (; span.piece < this.count && this.pieceEnd(span.piece) <= span.at; span.piece++) {
      const i = span.piece;
      if (this.done[i]) continue;
      if (await this.good(i)) {
        this.finish(i);
        await this.keep(i);
      } else {
        this.refuse(i);
      }
    }
  }

  async keep(i) {
    const start = this.pieceStart(i);
    await this.copy.put(i, start, () => this.wasm.bytes(this.pointer + start, this.pieceEnd(i) - start).slice());
    this.meter.cacheReason = this.copy.reason;
  }

  /** What could not be kept when it came: another page may have been writing the copy then. */
  async keepRest() {
    for (let i = 0; i < this.count; i++) {
      if (!this.done[i] || !this.copy.lacks(i)) continue;
      await this.keep(i);
      if (this.copy.reason) return;
    }
  }

  /** A damaged piece is read again, some times, where that can help. */
  refuse(i) {
    const tries = (this.tries.get(i) ?? 0) + 1;
    const start = this.pieceStart(i);
    if (!this.source.remote || tries === TRIES)
      fail('checksum', `${this.source.name}: piece ${i} does not match its checksum: the file is damaged`, { offset: start });
    this.tries.set(i, tries);
    this.missing.unshift(i);
    this.loaded -= this.pieceEnd(i) - start;
    this.meter.again();
  }

  report(now = false) {
    this.meter.report(Math.min(this.loaded, this.meter.total ?? Infinity), now);
  }

  result() {
    const { copy, header, options } = this;
    return {
      pointer: this.pointer,
      size: this.end,
      verified: options.verify && header.pieces !== 0 && this.pieceEnd(this.count - 1) <= this.limit,
      cached: copy.wanted && copy.holds(this.count),
      cachedBytes: this.cachedBytes,
      cacheReason: copy.reason,
    };
  }
}
