// head.js - the first step of a reading (fetch.js): the header of the file, from the copy that was kept where that is current, else from
// the source. Runs in the engine worker.

import { fail } from './errors.js';
import { checkDigest, parseHeader, probeHeader } from './header.js';
import { concatenate, sniff } from './source.js';

export const TRIES = 3;      // of a piece, or a header, that does not match its checksum
const SNIFF = 64;            // bytes that show whether this is a model at all
const FIRST_PROBE = 1 << 16; // bytes of header before the first look at it
const FIRST_RANGE = 1 << 20; // bytes of the first request
const ASK_SECONDS = 5;       // to ask whether a complete copy is current: without an answer it is used

/** What comes before the pieces. The one that reads these goes on: plan(), announce(), report() are its own. */
export class HeadReading {
  constructor({ wasm, source, copy, options, net, meter, stop }) {
    Object.assign(this, { wasm, source, copy, options, net, meter, stop });
    this.head = null;   // the first bytes, the whole header among them
    this.header = null; // see header.js
    this.same = false;  // is the copy's header this one?
    this.loaded = 0;    // bytes in their place
    this.unsure = false; // is the copy read before the source has said whether it is current?
    this.current = null; // settles when it has
  }

  /** Fills head and header; returns the reader that has what follows, or null. */
  async readHead() {
    const stored = await this.storedHead();
    if (stored && (await this.isCurrent())) {
      this.head = stored;
      this.same = true;
      return null;
    }
    for (let tries = 1; ; tries++) {
      try {
        const reader = await this.fetchHead(tries > 1);
        this.header = await this.parse(this.head);
        this.same = stored !== null && stored.length === this.header.dataOffset && stored.every((byte, i) => byte === this.head[i]);
        return reader;
      } catch (error) {
        if (stored && this.standsFor(stored, error)) return null;
        if (!error.damaged || !this.source.remote || tries === TRIES) throw error;
        this.meter.again();
      }
    }
  }

  /** The header of the copy, checked; null where there is none, or another than the pinned one. */
  async storedHead() {
    const { copy } = this;
    if (!copy.meta) return null;
    const head = await copy.readHead();
    try {
      this.header = head && (await this.parse(head));
    } catch {
      this.header = null;
    }
    return this.header?.pieces && this.header.dataOffset === head.length ? head : null;
  }

  /** May the copy be used without reading the header anew? */
  async isCurrent() {
    const { copy, source } = this;
    if (copy.suspect) return false;
    if (this.options.integrity) return true; // it is the pinned one
    this.plan();
    const known = copy.meta.etag || copy.meta.modified;
    if (known) source.version = { ...copy.meta, direct: true };
    // Of an incomplete copy more is needed anyway, and those answers are compared with its version.
    if (!copy.holds(this.count)) return !!known;
    const answer = this.askSource();
    if (!known) return !(await answer);
    this.unsure = true; // the copy is read meanwhile
    this.current = answer.then(() => {
      this.unsure = false;
      this.announce();
    });
    this.current.catch(() => {}); // load() and peek() hear of it
    return true;
  }

  /** There is no model at the address now, but, say, a page that asks to sign in. Then a complete copy stands for it. */
  standsFor(stored, { code, damaged }) {
    const { copy, source } = this;
    if (code !== 'format' || damaged) return false;
    source.forget(); // its size and version are of that page
    this.plan();
    if (!copy.holds(this.count)) return false;
    copy.suspect = false;
    this.head = stored;
    this.same = true;
    return true;
  }

  /** Does the source answer? Throws if it has another file than the copy. */
  async askSource() {
    try {
      await (await this.net.open(0, FIRST_PROBE, false, ASK_SECONDS)).close();
      return true;
    } catch (error) {
      this.stop.signal.throwIfAborted();
      if (error.changed) throw error;
      return false; // without a network the copy is all there is
    }
  }

  async fetchHead(fresh) {
    const chunks = [];
    let size = 0;
    let nextProbe = FIRST_PROBE;
    let need = Infinity; // bytes of the header, once known
    let reader = null;
    const look = () => {
      sniff(chunks, size, this.source);
      need = probeHeader(this.wasm, concatenate(chunks, size)) ?? Infinity;
      nextProbe = 2 * size;
    };
    const step = async () => {
      const chunk = await this.net.read(reader, size);
      if (chunk === null) {
        if (need === Infinity) look();
        if (need > size) fail('format', `${this.source.name} ends after ${size} bytes, inside its header`);
      } else if (chunk.length > 0) {
        const known = size >= SNIFF;
        chunks.push(chunk);
        size += chunk.length;
        if (!known && size >= SNIFF) sniff(chunks, size, this.source);
        if (need === Infinity && size >= nextProbe) look();
        this.loaded = size;
        this.report();
      }
    };
    const drop = async () => {
      await reader?.close();
      reader = null;
    };
    await this.net.patiently(async () => {
      while (size < need) {
        reader ??= await this.net.open(size, Math.max(FIRST_RANGE, 2 * size), fresh);
        await step();
        if (size < need && reader.spent) reader = null;
      }
    }, drop);
    this.head = concatenate(chunks, size);
    return reader;
  }

  async parse(head) {
    const header = await parseHeader(this.wasm, head);
    checkDigest(header, this.options.integrity, this.source.name);
    return header;
  }
}
