// ranges.js - a file on an HTTP server: asks for byte ranges, finds out whether the server has them, whether the file is
// still the same, and which failures may pass. It never believes more than the answer shows.

import { BitpairError } from './errors.js';
import { isNode } from './protocol.js';

const LANES = 4;          // connections at once; browsers open at most six to a host that speaks HTTP/1.1
const LONGEST_WAIT = 60;  // seconds that a server may ask us to wait
const TRANSIENT = [408, 425, 429, 500, 502, 503, 504];

/** Marks an error after which asking again may help, `after` so many seconds. */
export const transient = (error, after = 0) => Object.assign(error, { transient: true, after });

export class HttpFile {
  /** init: as for fetch(); kept: does this package keep the file itself? Then the browser's HTTP cache need not. */
  constructor({ url, init }, kept) {
    this.name = url;
    this.remote = true;
    this.init = init;
    this.mode = init.cache ?? (kept ? 'no-store' : undefined);
    this.forget();
  }

  /** Begins anew: the file has changed. */
  forget() {
    this.size = null;    // bytes, once an answer has told
    this.version = null; // {etag, modified} of the first answer
    this.about = '';     // status and type of the first answer
    this.ranges = !this.init.integrity; // until an answer shows that there are none; a digest is of the whole
  }

  get lanes() {
    return this.ranges ? LANES : 1;
  }

  /**
   * Asks for bytes [start, end).
   * @returns {Promise<{read(): Promise<Uint8Array | null>, close(): Promise}>} bytes from `start` on; they may go on past `end`,
   *   or end earlier
   */
  async open(start, end, { signal, fresh = false } = {}) {
    const ranged = this.ranges; // another connection may change it
    const response = await this.ask(start, end, signal, fresh);
    try {
      if (response.ok) this.compare(response);
      if (response.status === 206) return this.part(response, start, end, signal, ranged);
      if (response.status === 200) return this.whole(response, start, signal);
      throw this.refusal(response, ranged);
    } catch (error) {
      await response.body?.cancel().catch(() => {});
      if (error.again) return this.open(start, end, { signal, fresh });
      throw error;
    }
  }

  async ask(start, end, signal, fresh) {
    const headers = new Headers(this.init.headers);
    if (this.ranges) {
      headers.set('range', `bytes=${start}-${end - 1}`);
      if (this.version && this.ifRange()) headers.set('if-range', this.ifRange());
    }
    try {
      return await fetch(this.name, { ...this.init, cache: fresh ? 'no-store' : this.mode, headers, signal });
    } catch (error) {
      if (signal?.aborted) throw signal.reason;
      throw transient(this.error('network', `cannot be reached: ${error.cause?.message ?? error.message}`, error));
    }
  }

  /** For another origin this header would need its consent; there, comparing what comes must do. */
  ifRange() {
    const { etag, modified, direct } = this.version;
    if (!direct || !(isNode() || new URL(this.name).origin === globalThis.location?.origin)) return null;
    return etag && !etag.startsWith('W/') ? etag : modified;
  }

  error(code, text, cause, status) {
    return new BitpairError(code, `${this.name} ${text}`, { url: this.name, status, cause });
  }

  /** All answers must be of one file. */
  compare(response) {
    const { headers, status, redirected } = response;
    const version = { etag: headers.get('etag'), modified: headers.get('last-modified'), direct: !redirected };
    const type = headers.get('content-type');
    if (this.version && !sameVersion(this.version, version)) throw this.changed();
    this.about ||= `status ${status}, ${type ? `content type ${type}` : 'no content type'}`;
    this.version ??= version;
  }

  changed() {
    return Object.assign(this.error('network', 'has changed while it was being read'), { changed: true });
  }

  setSize(size) {
    if (this.size !== null && this.size !== size) throw this.changed();
    this.size = size;
  }

  part(response, start, end, signal, ranged) {
    const { headers } = response;
    const text = headers.get('content-range');
    const length = Number(headers.get('content-length') ?? NaN);
    const [, first, , total] = /^bytes (\d+)-(\d+)\/(\d+|\*)$/.exec(text ?? '') ?? [];
    // Another range than we asked for, or one of compressed bytes: such a server is asked for the whole.
    if (!ranged || headers.has('content-encoding') || (text !== null && Number(first) !== start)) {
      const wrong = this.error('network', `answers a request for the bytes from ${start} on with "${text}"`);
      throw ranged ? this.withoutRanges(wrong) : wrong;
    }
    if (total > 0) this.setSize(Number(total));
    // Servers of another origin may hide the range; a part that is too short is the last.
    else if (text === null && length < end - start) this.setSize(start + length);
    return new Body(this, response, 0, signal, true);
  }

  /** An error after which open() asks for the whole at once. */
  withoutRanges(error) {
    this.ranges = false;
    return Object.assign(error, { again: true });
  }

  whole(response, start, signal) {
    const { headers } = response;
    this.ranges = false;
    // With a content encoding the length counts compressed bytes.
    if (headers.has('content-length') && !headers.has('content-encoding')) this.setSize(Number(headers.get('content-length')));
    return new Body(this, response, start, signal);
  }

  refusal(response, ranged) {
    const { status, statusText, headers } = response;
    const after = waitOf(headers.get('retry-after'));
    const wait = after > LONGEST_WAIT ? ` and asks to wait ${Math.ceil(after)} s` : '';
    const error = this.error('http', `answers ${status}${statusText ? ` ${statusText}` : ''}${wait}`, undefined, status);
    if (status === 416 && ranged) return this.withoutRanges(error); // the whole will show how long it is
    return TRANSIENT.includes(status) && !wait ? transient(error, after) : error;
  }
}

/** Are these of the same file, as far as both tell? */
export function sameVersion(a, b) {
  if (a.etag && b.etag) return a.etag.replace(/^W\//, '') === b.etag.replace(/^W\//, '');
  return !(a.modified && b.modified) || a.modified === b.modified;
}

/** Seconds of a Retry-After: a number, or a date. */
function waitOf(text) {
  if (!text) return 0;
  const seconds = /^\d+$/.test(text.trim()) ? Number(text) : (Date.parse(text) - Date.now()) / 1000;
  return seconds > 0 ? seconds : 0;
}

/** The body of an answer without its first `skip` bytes. */
class Body {
  constructor(file, response, skip, signal, part = false) {
    this.part = part;
    this.file = file;
    this.reader = response.body?.getReader();
    this.skip = skip;
    this.signal = signal;
  }

  async read() {
    for (;;) {
      const { value, done } = await this.next();
      if (done) return null;
      const rest = value.subarray(this.skip);
      this.skip -= value.length - rest.length;
      if (rest.length > 0) return rest;
    }
  }

  async next() {
    try {
      return this.reader ? await this.reader.read() : { done: true };
    } catch (error) {
      if (this.signal?.aborted) throw this.signal.reason;
      throw transient(this.file.error('network', `broke off: ${error.cause?.message ?? error.message}`, error));
    }
  }

  async close() {
    await this.reader?.cancel().catch(() => {}); // a broken one cannot be cancelled: nothing left to do
  }
}
