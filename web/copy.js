// copy.js - one kept copy of a model, as a load sees it: what of it is there, and what is written to it as it arrives. The log that it
// speaks of is described in cache.js. Runs in the engine worker.

import { idOf, openStore, parseLog, reasonOf } from './cache.js';
import { sameVersion } from './ranges.js';

const LOCKED = 'NoModificationAllowedError'; // of files that another page has opened to write

/** Never throws: what does not work is `reason`, and the load goes on without. */
export class Copy {
  constructor(wanted) {
    this.store = null;
    this.output = null;  // writer, when the header is there and pieces may follow
    this.opening = null; // a promise of that, meanwhile
    this.begun = null;   // what begin() was given
    this.log = parseLog('');
    this.damaged = new Set(); // pieces that were not what the log says
    this.wanted = wanted;
    this.reason = null;  // why nothing is kept, or no longer
    this.busy = false;   // is it that another page writes the copy? Then each piece is a try
    this.suspect = false; // has the server's file another version?
    this.early = null;   // a promise of the header's bytes, read before anybody asks for them
  }

  /** name: of the store; undefined: this source is not kept. */
  static async open(url, name) {
    const copy = new Copy(name !== undefined);
    if (copy.wanted) {
      await copy.attempt(async () => {
        copy.store = await openStore(name);
        copy.id = await idOf(url);
        copy.url = url.split('#')[0];
        copy.log = parseLog(await copy.store.text(`${copy.id}.log`));
      });
      if (copy.meta) copy.early = copy.read(0, copy.meta.dataOffset);
    }
    return copy;
  }

  get meta() {
    return this.log.meta;
  }

  /** Are all of these pieces said to be there? */
  holds(count) {
    for (let i = 0; i < count; i++) if (!this.log.pieces.has(i)) return false;
    return this.meta !== null;
  }

  /** Is this piece still to be written? */
  lacks(i) {
    return this.begun !== null && !this.log.pieces.has(i);
  }

  /** This piece is damaged: it does not count before it is written again. */
  discard(i) {
    this.damaged.add(i);
    this.log.pieces.delete(i);
  }

  /** The header's bytes if they are there, else null. */
  readHead() {
    const early = this.early ?? this.read(0, this.meta.dataOffset);
    this.early = null; // the next time they may be others
    return early;
  }

  /** Bytes [start, end) if they are there, else null. */
  async read(start, end) {
    const bytes = await this.store.read(this.id, start, end).catch(() => null);
    return bytes?.length === end - start ? bytes : null;
  }

  /** Begins a new copy, or goes on with the one at hand (`same`), when there is room for `limit` bytes of the file. */
  begin(meta, head, same, limit) {
    this.begun = { meta: { url: this.url, ...meta }, head, same, limit };
    return this.attempt(() => this.prepare());
  }

  /** bytes(): those of piece i, which begins at `start`. */
  put(i, start, bytes) {
    return this.attempt(async () => {
      if (!this.output) await (this.opening ??= this.prepare().finally(() => (this.opening = null)));
      if (this.log.pieces.has(i)) return; // another page has written it meanwhile
      await this.output.write(start, bytes());
      await this.output.append(`${i}\n`);
      this.log.pieces.add(i);
      this.damaged.delete(i);
    });
  }

  /** Opens the files and makes them a copy of this file, as far as they are none. */
  async prepare() {
    const { meta, head, limit } = this.begun;
    const output = this.output ?? (await this.store.writer(this.id));
    this.output = null;
    try {
      const { same, empty } = this.busy || !this.meta ? await this.lookAgain() : { same: this.begun.same };
      if (!same && !empty) {
        await output.clear();
        this.log = parseLog('');
        this.damaged.clear();
      }
      const bytes = this.missing(meta, limit);
      const room = await this.store.room();
      if (room < bytes) throw new Error(`the store has room for ${megabytes(room)} MB, ${megabytes(bytes)} are needed`);
      this.log.meta = meta;
      await output.write(0, head);
      await output.append(`${JSON.stringify(meta)}\n`);
    } catch (error) {
      await output.close().catch(() => {});
      throw error;
    }
    Object.assign(this, { output, reason: null, busy: false });
  }

  /** Others may have written the log by now. Is theirs a copy of this file? The header tells, which has the digests of all pieces, and
   *  the server's name for the version. */
  async lookAgain() {
    const { head, meta } = this.begun;
    const text = await this.store.text(`${this.id}.log`).catch(() => null);
    this.log = parseLog(text ?? '');
    for (const i of this.damaged) this.log.pieces.delete(i);
    const alike = this.meta?.dataOffset === head.length && this.meta.size === meta.size && sameVersion(this.meta, meta);
    const found = alike ? await this.read(0, head.length) : null;
    return { same: found !== null && found.every((byte, i) => byte === head[i]), empty: text === '' };
  }

  /** Bytes of the first `limit` that are to be written. */
  missing({ dataOffset, pieceBytes }, limit) {
    let bytes = limit;
    for (const i of this.log.pieces) bytes -= Math.max(0, Math.min(pieceBytes, limit - dataOffset - i * pieceBytes));
    return bytes;
  }

  async attempt(write) {
    if (!this.wanted || (this.reason && !this.busy)) return;
    try {
      await write();
    } catch (error) {
      const busy = error.name === LOCKED && this.begun !== null;
      this.refuse(reasonOf(error), busy);
      if (!busy) await this.close();
    }
  }

  /** Nothing is kept, or no longer. The first reason counts: other writes under way fail after it. */
  refuse(reason, busy = false) {
    if (this.wanted && (!this.reason || this.busy)) Object.assign(this, { reason, busy });
  }

  /** Notes that the copy was used, if nobody else writes it. */
  async note() {
    if (!this.meta || this.reason) return;
    try {
      this.output ??= await this.store.writer(this.id);
      await this.output.append(`@${Date.now()}\n`);
    } catch {
      // said by whoever keeps something
    }
  }

  async close() {
    const { output } = this;
    this.output = null;
    await output?.close().catch(() => {});
  }
}

const megabytes = (bytes) => (bytes / 1e6).toFixed(1);
