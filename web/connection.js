// connection.js - readers of a source, with patience: silence ends a connection, what may pass is tried again.

import { BitpairError } from './errors.js';
import { transient } from './ranges.js';

const SILENT_SECONDS = 30;   // after which a connection counts as broken
const PROGRESS = 1 << 16;    // bytes after which a failure counts as the first again
const FIRST_DELAY = 0.25;    // seconds, doubled from failure to failure
const LONGEST_DELAY = 8;

/** Holds what is read, while the caller wants that. */
export class Gate {
  #waiting = [];
  closed = false;
  changed = () => {}; // (closed), for whoever wants to know

  close(yes) {
    if (yes === this.closed) return;
    this.closed = yes;
    this.changed(yes);
    if (!yes) for (const go of this.#waiting.splice(0)) go();
  }

  async pass(signal) {
    signal.throwIfAborted();
    while (this.closed) {
      await new Promise((resolve) => {
        this.#waiting.push(resolve);
        signal.addEventListener('abort', resolve, { once: true });
      });
      signal.throwIfAborted();
    }
  }
}

/** What the promise gives, or the signal's reason as soon as it aborts: what comes from the page does not hear of that. */
function unlessStopped(promise, signal) {
  return new Promise((resolve, reject) => {
    const stop = () => reject(signal.reason);
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

export class Connections {
  /** retries: failures in a row that are borne; signal: ends everything; gate: before each read. */
  constructor(source, meter, retries, signal, gate = new Gate()) {
    Object.assign(this, { source, meter, retries, signal, gate });
    this.received = 0; // bytes
  }

  /** A reader of bytes from `start` on. A connection that is silent for so many seconds has failed; what is no connection may take its
   *  time. */
  async open(start, end, fresh, seconds = SILENT_SECONDS) {
    const { signal, source } = this;
    await this.gate.pass(signal);
    const own = new AbortController();
    const stop = () => own.abort(signal.reason);
    const silent = transient(new BitpairError('network', `${source.name} sent nothing for ${seconds} s`));
    const timely = async (fn) => {
      signal.throwIfAborted();
      const timer = source.remote ? setTimeout(() => own.abort(silent), 1000 * seconds) : undefined;
      return unlessStopped(fn(), own.signal).finally(() => clearTimeout(timer));
    };
    let reader = null;
    const close = async () => {
      signal.removeEventListener('abort', stop);
      await reader?.close();
    };
    signal.addEventListener('abort', stop);
    try {
      reader = await timely(() => source.open(start, end, { signal: own.signal, fresh }));
    } catch (error) {
      await close();
      throw error;
    }
    return { end, part: reader.part, spent: false, read: () => timely(() => reader.read()), close };
  }

  /** The next chunk of a reader, behind `at`; empty when the reader is spent and another must go on; null at the end of the source. */
  async read(reader, at) {
    const { source } = this;
    await this.gate.pass(this.signal);
    const chunk = await reader.read();
    this.signal.throwIfAborted();
    if (chunk !== null) {
      this.received += chunk.length;
      return chunk;
    }
    reader.spent = true;
    await reader.close();
    if (source.size === null ? !source.ranges && at < reader.end : at >= source.size) return null;
    if (at >= reader.end) return new Uint8Array(0);
    throw transient(new BitpairError(source.remote ? 'network' : 'io', `${source.name} broke off after ${at} bytes`, { offset: at }));
  }

  /** Runs fn until it does not fail in a way that may pass; drop() takes away the reader that failed. Once something has come, being
   *  offline is nobody's failure: it costs no retry (but who wants none gets none). */
  async patiently(fn, drop) {
    for (let failures = 0, mark = this.received; ;) {
      try {
        return await fn();
      } catch (error) {
        if (this.received - mark >= PROGRESS) failures = 0;
        const offline = this.received > 0 && this.retries > 0 && globalThis.navigator?.onLine === false;
        if (!error.transient || !this.source.remote || (failures === this.retries && !offline)) {
          await drop();
          throw error;
        }
        mark = this.received;
        this.meter.again(error);
        await drop();
        if (offline) await this.pause(LONGEST_DELAY, 'online');
        else await this.pause(Math.max(error.after ?? 0, Math.min(LONGEST_DELAY, FIRST_DELAY * 2 ** failures++) * (0.5 + Math.random())));
      }
    }
  }

  /** event: of the global scope, that ends it too. */
  pause(seconds, event) {
    const { signal } = this;
    return new Promise((resolve, reject) => {
      const end = () => {
        clearTimeout(timer);
        signal.removeEventListener('abort', end);
        if (event) globalThis.removeEventListener?.(event, end);
        if (signal.aborted) reject(signal.reason);
        else resolve();
      };
      const timer = setTimeout(end, 1000 * seconds);
      signal.addEventListener('abort', end);
      if (event) globalThis.addEventListener?.(event, end);
    });
  }
}
