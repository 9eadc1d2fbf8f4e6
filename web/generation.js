// generation.js - one answer: an async iterator over its tokens and a promise of the whole. It starts when it is first
// asked for something, so one that is never used costs nothing.

import { fail } from './errors.js';

const DEFAULTS = {
  maxTokens: 512,
  temperature: 0.7,
  topK: 40,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
  repeatLast: 64,
};

const INTEGERS = ['maxTokens', 'topK', 'repeatLast'];

/** The caller's options with all that is left out, checked as far as types go; the engine checks the ranges. */
export function completeOptions(options) {
  const complete = { bos: !!options.bos, special: !!options.special, ignoreEnd: !!options.ignoreEnd };
  for (const [key, value] of Object.entries(DEFAULTS)) complete[key] = checkNumber(key, options[key] ?? value);
  if (complete.maxTokens < 1) fail('argument', 'maxTokens must be at least 1');
  if (options.greedy) complete.temperature = 0;
  complete.seed = checkSeed(options.seed);
  complete.stop = typeof options.stop === 'string' ? [options.stop] : (options.stop ?? []);
  if (!Array.isArray(complete.stop) || !complete.stop.every((text) => typeof text === 'string' && text !== ''))
    fail('argument', 'stop must be a string or an array of strings, none of them empty');
  return complete;
}

function checkNumber(key, value) {
  if (typeof value !== 'number' || Number.isNaN(value)) fail('argument', `${key} must be a number, not ${value}`);
  if (INTEGERS.includes(key) && !(Number.isInteger(value) && value >= 0 && value < 2 ** 31))
    fail('argument', `${key} must be a whole number from 0 to 2147483647, not ${value}`);
  return value;
}

function checkSeed(seed) {
  if (seed === undefined) return crypto.getRandomValues(new Uint32Array(1))[0];
  if (!(typeof seed === 'bigint' || Number.isSafeInteger(seed)) || seed < 0 || seed >= 2n ** 64n)
    fail('argument', `seed must be a whole number from 0 to 2^53 - 1, or a bigint below 2^64, not ${seed}`);
  return seed;
}

/** Symbol.asyncDispose, also on hosts that do not have it yet. */
export const ASYNC_DISPOSE = Symbol.asyncDispose ?? Symbol.for('Symbol.asyncDispose');

export class Generation {
  #run;
  #signal;
  #stop = new AbortController();
  #result = null;
  #chunks = []; // arrived, not yet taken
  #wake = () => {};
  #ended = false;
  #iterator = this.#iterate();

  /**
   * @param {(stop: AbortSignal, receive: Function) => Promise<object>} run does the work; receive({id, token, text}) per token
   * @param {AbortSignal | undefined} signal the caller's
   */
  constructor(run, signal) {
    this.#run = run;
    this.#signal = signal;
  }

  get result() {
    this.#result ??= this.#begin();
    return this.#result;
  }

  async text() {
    return (await this.result).text;
  }

  next() {
    return this.#iterator.next();
  }

  return(value) {
    return this.#iterator.return(value);
  }

  throw(error) {
    return this.#iterator.throw(error);
  }

  [Symbol.asyncIterator]() {
    return this;
  }

  /** Stops it; afterwards the engine no longer works on it. */
  async [ASYNC_DISPOSE]() {
    this.#stop.abort();
    await Promise.allSettled([this.#iterator.return(), this.#result]);
  }

  #begin() {
    const follow = () => this.#stop.abort();
    if (this.#signal?.aborted) follow();
    this.#signal?.addEventListener('abort', follow, { once: true });
    const result = this.#collect().finally(() => {
      this.#signal?.removeEventListener('abort', follow);
      this.#ended = true;
      this.#wake();
    });
    result.catch(() => {}); // whoever iterates gets the error there
    return result;
  }

  async #collect() {
    const ids = [];
    let text = '';
    const end = await this.#run(this.#stop.signal, (message) => {
      ids.push(message.token);
      text += message.text;
      this.#chunks.push({ text: message.text, id: message.token });
      this.#wake();
    });
    const { finishReason, stop, stats } = end;
    this.#chunks.push({ text: end.text, id: null, finishReason, stop, stats });
    return { text: text + end.text, ids, finishReason, stop, stats };
  }

  async *#iterate() {
    const { result } = this;
    try {
      for (;;) {
        while (this.#chunks.length > 0) yield this.#chunks.shift();
        if (this.#ended) return await result;
        await new Promise((resolve) => (this.#wake = resolve));
      }
    } finally {
      // Left early: the engine has stopped before the next generation begins.
      this.#stop.abort();
      await result.catch(() => {});
    }
  }
}
