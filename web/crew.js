// crew.js - the workers of one model as the page sees them: hands requests to the engine worker, turns its messages into promises,
// and starts the threads that it asks for.

import { BitpairError, packError, unpackError } from './errors.js';
import { LOAD_ID, REST_ID, startWorker } from './protocol.js';

/** The engine worker, the threads it asked for, and the requests that are open. */
export class Crew {
  constructor(link, pull, workerUrl) {
    this.link = link;
    this.workerUrl = workerUrl;
    this.pull = pull; // of a source that stays here
    this.threads = [];
    this.requests = new Map(); // id -> {resolve, reject, onMessage, failure: what onMessage threw}
    this.lastId = REST_ID;
    this.ended = null; // a promise, once it has ended: settles when the workers are gone
    this.reason = null; // the error that every further request gets then: what a callback threw may be anything
    link.onmessage = (message) => this.receive(message);
    link.onerror = (error) => this.end(new BitpairError('worker', `the worker failed: ${error.message}`, { cause: error }));
  }

  newId() {
    return ++this.lastId;
  }

  /** Sends a request and waits for its result; onMessage gets what comes before that. */
  request(type, fields, { id = this.newId(), onMessage } = {}) {
    return new Promise((resolve, reject) => {
      if (this.ended) return reject(this.reason);
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
      // Until load() has resolved, nothing is left of it.
      if (id === LOAD_ID || (id === REST_ID && this.requests.has(LOAD_ID))) this.end(error);
      else this.link.post({ type: 'abort', id: id === REST_ID ? LOAD_ID : id });
    }
  }

  settle(id, { type, value, error }) {
    const { resolve, reject, failure } = this.requests.get(id);
    this.requests.delete(id);
    if (this.requests.size === 0) this.link.hold(false);
    if (failure) return reject(failure.error);
    if (type === 'result') return resolve(value);
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
    if (this.ended) return;
    const ports = started.map(({ value }) => value).filter(Boolean);
    this.link.post({ type: 'threads', ports, reason: failure ? failure.message : null }, ports);
  }

  /** -> the port that leads to it */
  async startThread() {
    const thread = await startWorker(this.workerUrl);
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

  /** Ends all workers, and with them their memory; open and later requests fail with `error`, at once: a worker may be stuck. Resolves
   *  when all is gone, for whoever calls it again too. */
  end(error) {
    if (this.ended) return this.ended;
    this.reason = error;
    const open = [...this.requests.values()];
    this.requests.clear();
    for (const { reject } of open) reject(error);
    this.ended = Promise.all([this.link, ...this.threads].map((link) => link.terminate())).then(() => {});
    return this.ended;
  }
}
