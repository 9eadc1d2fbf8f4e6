// runner.js - one session of the engine: text to tokens and back, prefill in steps that can be interrupted, sampling, stop
// strings. Runs in the engine worker; everything here is synchronous but generate(), which lets messages in between.

import { fail } from './errors.js';
import { makeYield } from './protocol.js';

const BOS = 1;      // BP_TOKENIZE_BOS
const SPECIAL = 2;  // BP_TOKENIZE_SPECIAL
const PIECE_BYTES = 4096;
const FIRST_STEP = 4;       // tokens, before anything is known about the speed
const STEP_SECONDS = 0.025; // aim of one step of prefill, so that an abort is seen within 50 ms
const STEP_MOST = 0.045;    // a step of 16 tokens may take this long: the kernels are slower on fewer
const LISTEN_SECONDS = 0.01; // between two looks at the messages while decoding

const now = () => performance.now() / 1000;

export class Runner {
  /** model and session are pointers of the engine. */
  constructor(wasm, model, session) {
    this.wasm = wasm;
    this.model = model;
    this.session = session;
    this.timeline = []; // the ids behind the session's KV cache
    this.piece = wasm.alloc(PIECE_BYTES);
    this.chunk = wasm.exports.bp_session_chunk(session);
    this.ids = wasm.alloc(4 * this.chunk);
    this.step = Math.min(FIRST_STEP, this.chunk); // tokens of one step of prefill
    this.prefilled = 0;
    this.pause = makeYield();
    this.spm = this.string('tokenizer.ggml.model') === 'llama';
  }

  /** A string of the file's header, or null. */
  string(key) {
    const { wasm } = this;
    return wasm.withText(key, (name) => {
      const text = wasm.exports.bp_model_string(this.model, name, wasm.cells);
      return text ? wasm.text(text, wasm.u32(wasm.cells)) : null;
    });
  }

  tokenize(text, { bos = false, special = false }) {
    const { wasm, model } = this;
    return wasm.withText(text, (bytes, size) => {
      const ids = wasm.alloc(4 * (size + 8));
      try {
        const flags = (bos ? BOS : 0) | (special ? SPECIAL : 0);
        const count = wasm.exports.bp_tokenize(model, bytes, size, flags, ids, size + 8, wasm.error);
        if (count < 0) wasm.raise();
        return Array.from(new Int32Array(wasm.memory.buffer, ids, count));
      } finally {
        wasm.free(ids);
      }
    });
  }

  /** The bytes of one token: maybe a part of a character, empty for control tokens unless `special`. */
  tokenBytes(id, special = false) {
    const { wasm } = this;
    const size = wasm.exports.bp_token_text(this.model, id, special, this.piece, PIECE_BYTES);
    return wasm.bytes(this.piece, Math.min(size, PIECE_BYTES)).slice();
  }

  detokenize(ids, { special = false }) {
    const decoder = textDecoder();
    const text = ids.map((id) => decoder.decode(this.tokenBytes(id, special), { stream: true })).join('') + decoder.decode();
    // SentencePiece puts a space in front of every text.
    return this.spm && text.startsWith(' ') ? text.slice(1) : text;
  }

  /**
   * Prefill and decode.
   * @param {number[]} prompt ids, at least one
   * @param {object} options complete: see engine.js
   * @param {{prefill(done, total): void, token(id, text): void}} emit
   * @param {{aborted: boolean}} control set from outside, between two steps
   * @returns {Promise<{finishReason: string, text: string, stats: object}>} text: what was still held back
   */
  async generate(prompt, options, emit, control) {
    const started = now();
    const cached = this.rewind(prompt);
    this.setSampling(options); // refuses bad options before the work
    const fed = await this.prefill(prompt, cached, emit, control);
    this.setSampling(options); // begins anew: random numbers do not depend on how the prompt was cut
    const prefilled = now();
    const out = new Text(options.stop);
    const run = fed ? await this.decode(options, out, emit, control) : { finishReason: 'abort', count: 0, first: null };
    const ended = now();
    return {
      finishReason: run.finishReason,
      stop: out.found,
      text: out.end(),
      stats: {
        promptTokens: prompt.length,
        cachedTokens: cached,
        completionTokens: run.count,
        prefillSeconds: prefilled - started,
        prefillTokensPerSecond: (this.prefilled - cached) / (prefilled - started),
        decodeSeconds: run.count > 1 ? ended - run.first : 0,
        decodeTokensPerSecond: run.count > 1 ? (run.count - 1) / (ended - run.first) : null,
        timeToFirstToken: run.first === null ? null : run.first - started,
        seed: options.seed,
      },
    };
  }

  /** Keeps what the prompt shares with the timeline, all but its last token: that one has to be fed for its logits. */
  rewind(prompt) {
    if (prompt.length === 0) fail('argument', 'the prompt is empty');
    const capacity = this.wasm.exports.bp_session_capacity(this.session);
    if (prompt.length > capacity)
      fail('context', `the prompt has ${prompt.length} tokens, the context ${capacity}: shorten it or load with a larger contextSize`);
    let shared = 0;
    while (shared < prompt.length - 1 && prompt[shared] === this.timeline[shared]) shared++;
    this.wasm.check(this.wasm.exports.bp_session_rewind(this.session, shared, this.wasm.error));
    this.timeline.length = shared;
    return shared;
  }

  setSampling(o) {
    this.wasm.check(this.wasm.exports.wasm_session_sampling(this.session, o.temperature, o.topK, o.topP, o.minP, o.repeatPenalty,
      o.repeatLast, BigInt(o.seed), this.wasm.error));
    this.setGrammar(o.grammar);
  }

  /** Begins a new text of a grammar, or of none (null). */
  setGrammar(grammar) {
    const { wasm, session } = this;
    const set = (text, size) => wasm.check(wasm.exports.bp_session_grammar(session, text, size, wasm.error));
    if (grammar === null) set(0, 0);
    else wasm.withText(grammar, set);
  }

  feed(ids) {
    const { wasm } = this;
    new Int32Array(wasm.memory.buffer, this.ids >>> 0, ids.length).set(ids);
    wasm.check(wasm.exports.bp_session_feed(this.session, this.ids, ids.length, wasm.error));
    this.timeline.push(...ids);
  }

  /** Feeds prompt[at...]; false when it was aborted. */
  async prefill(prompt, at, emit, control) {
    for (this.prefilled = at; this.prefilled < prompt.length;) {
      const begun = now();
      const ids = prompt.slice(this.prefilled, this.prefilled + this.step);
      this.feed(ids);
      this.prefilled += ids.length;
      if (ids.length === this.step) this.step = nextStep(this.step, now() - begun, this.chunk);
      emit.prefill(this.prefilled, prompt.length);
      await this.pause();
      if (control.aborted) return false;
    }
    return true;
  }

  async decode({ maxTokens, ignoreEnd }, out, emit, control) {
    const { wasm, session } = this;
    let count = 0;
    let first = null;
    let listened = now();
    const finish = (finishReason) => ({ finishReason, count, first });
    while (count < maxTokens) {
      const id = wasm.exports.bp_session_sample(session, wasm.error);
      if (id < 0) wasm.raise();
      first ??= now();
      if (!ignoreEnd && wasm.exports.bp_model_is_end(this.model, id)) return finish('stop');
      count++;
      emit.token(id, out.push(this.tokenBytes(id)));
      if (out.found !== null) return finish('stop');
      if (count === maxTokens) break;
      if (this.timeline.length === wasm.exports.bp_session_capacity(session)) return finish('context');
      this.feed([id]);
      if (now() - listened > LISTEN_SECONDS) {
        await this.pause();
        if (control.aborted) return finish('abort');
        listened = now();
      }
    }
    return finish('length');
  }
}

/** Tokens of the next step, so that it takes STEP_SECONDS. The kernels like multiples of 16. */
function nextStep(step, seconds, largest) {
  const each = Math.max(seconds, 1e-6) / step;
  const fit = Math.floor(STEP_SECONDS / each);
  if (fit >= 16 || 16 * each <= STEP_MOST) return Math.min(largest, Math.max(16, fit - (fit % 16)));
  return Math.max(1, fit);
}

const textDecoder = () => new TextDecoder('utf-8', { ignoreBOM: true });

/** Token bytes -> text that may be shown: whole characters, nothing that could still become a stop string. */
class Text {
  constructor(stop) {
    this.stop = stop;
    this.decoder = textDecoder();
    this.held = '';
    this.found = null; // the stop string that was met
  }

  push(bytes) {
    this.held += this.decoder.decode(bytes, { stream: true });
    return this.release();
  }

  /** The rest, after the last token. */
  end() {
    if (this.found === null) this.held += this.decoder.decode();
    const rest = this.found === null ? this.release() + this.held : '';
    this.held = '';
    return rest;
  }

  release() {
    let end = this.held.length;
    for (const stop of this.stop) {
      const at = this.held.indexOf(stop);
      if (at >= 0 && at < end) [end, this.found] = [at, stop];
    }
    if (this.found === null) end -= this.heldBack();
    const text = this.held.slice(0, end);
    this.held = this.held.slice(end);
    return text;
  }

  /** Length of the longest end of `held` that begins a stop string. */
  heldBack() {
    let longest = 0;
    for (const stop of this.stop)
      for (let n = Math.min(stop.length - 1, this.held.length); n > longest; n--)
        if (stop.startsWith(this.held.slice(-n))) longest = n;
    return longest;
  }
}
