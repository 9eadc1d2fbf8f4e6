// generation.js - one answer: an async iterator over its tokens and a promise of the whole. It starts when it is first
// asked for something, so one that is never used costs nothing.

import { fail, isSignal } from './errors.js';

const DEFAULTS = {
  maxTokens: 512,
  temperature: 0.7,
  topK: 40,
  typicalP: 1,
  topP: 0.95,
  minP: 0.05,
  repeatPenalty: 1,
  frequencyPenalty: 0,
  presencePenalty: 0,
  repeatLast: 64,
  sinkTokens: 4,
  n: 1,
};

const INTEGERS = ['maxTokens', 'topK', 'repeatLast', 'sinkTokens', 'n', 'logprobs'];
const OVERFLOWS = ['stop', 'shift', 'error'];
const MOST_LOGPROBS = 20;
const MOST_ANSWERS = 128;

/** The caller's options with all that is left out, checked as far as types go; the engine checks the ranges. */
export function completeOptions(options) {
  const complete = { bos: !!options.bos, special: !!options.special, ignoreEnd: !!options.ignoreEnd, fresh: !!options.fresh };
  for (const [key, value] of Object.entries(DEFAULTS)) complete[key] = checkNumber(key, options[key] ?? value);
  if (complete.maxTokens < 1) fail('argument', 'maxTokens must be at least 1');
  if (options.greedy) complete.temperature = 0;
  if (complete.n < 1 || complete.n > MOST_ANSWERS) fail('argument', `n must be from 1 to ${MOST_ANSWERS}, not ${complete.n}`);
  complete.seed = checkSeed(options.seed);
  complete.logitBias = checkBias(options.logitBias ?? {});
  complete.logprobs = checkLogprobs(options.logprobs);
  complete.overflow = options.overflow ?? 'stop';
  if (!OVERFLOWS.includes(complete.overflow)) fail('argument', `overflow must be one of ${OVERFLOWS.join(', ')}`);
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

/** {id: bias} or a Map -> pairs. */
function checkBias(bias) {
  if (typeof bias !== 'object') fail('argument', 'logitBias must be an object or a Map of token ids and numbers');
  const pairs = (bias instanceof Map ? [...bias] : Object.entries(bias)).map(([id, value]) => [Number(id), value]);
  for (const [id, value] of pairs) {
    if (!(Number.isInteger(id) && id >= 0 && id < 2 ** 31)) fail('argument', `logitBias: ${id} is not a token id`);
    checkNumber(`logitBias of token ${id}`, value);
  }
  return pairs;
}

/** null: none wanted */
function checkLogprobs(count) {
  if (count === undefined || count === null) return null;
  if (checkNumber('logprobs', count) > MOST_LOGPROBS) fail('argument', `logprobs must be at most ${MOST_LOGPROBS}, not ${count}`);
  return count;
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
   * @param {(stop: AbortSignal, receive: Function) => Promise<object | null>} run does the work and gives the stats, null if it
   *   never began; receive(message, reader) gets the messages 'token' and 'answer' of protocol.js, and of tools.js what makes a
   *   reader of an answer's tool calls, or null
   * @param {AbortSignal | undefined} signal the caller's
   */
  constructor(run, signal) {
    this.#run = run;
    this.#signal = isSignal(signal) ? signal : undefined; // run() refuses what is none
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

  /** Stops it at once, so that a next() that waits ends too: it comes before this in the iterator's queue. */
  return(value) {
    this.#stop.abort();
    return this.#iterator.return(value);
  }

  throw(error) {
    this.#stop.abort();
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
    const answers = [];
    let end = null; // chunk that ends the latest answer: it waits, since the very last one carries the stats
    const readers = [];
    const stats = await this.#run(this.#stop.signal, (message, reader) => {
      const { type, index, tier, finishReason, stop } = message;
      const answer = (answers[index] ??= newAnswer());
      if (reader) readers[index] ??= reader();
      const part = { ...readText(answer, message, readers[index]), index, tier };
      if (end) this.#push(end);
      end = null;
      if (type === 'token') return this.#push(tokenChunk(answer, message, part));
      Object.assign(answer, { finishReason, stop });
      end = { ...part, id: null, finishReason, stop, stats: null };
      return undefined;
    });
    answers[0] ??= newAnswer();
    end ??= { text: '', id: null, index: 0, tier: 0, finishReason: 'abort', stop: null, stats: null };
    this.#push({ ...end, stats });
    return { ...answers[0], stats, answers };
  }

  #push(chunk) {
    this.#chunks.push(chunk);
    this.#wake();
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

/** An answer nothing is known of: one that was stopped before its turn came. */
const newAnswer = () => ({ text: '', ids: [], logprobs: null, toolCalls: [], finishReason: 'abort', stop: null });

/** Notes what a message adds to its answer: {text, toolCalls?} of a chunk. */
function readText(answer, { type, text }, reader) {
  const read = reader ? reader.push(text, type === 'answer') : { text, calls: [] };
  answer.text += read.text;
  answer.toolCalls.push(...read.calls);
  return read.calls.length > 0 ? { text: read.text, toolCalls: read.calls } : { text: read.text };
}

/** Notes a token in its answer and gives its chunk. */
function tokenChunk(answer, { token, logprobs }, part) {
  answer.ids.push(token);
  const chunk = { ...part, id: token };
  if (!logprobs) return chunk;
  (answer.logprobs ??= []).push(logprobs);
  return { ...chunk, logprobs };
}
