// runner.js - one session of the engine: text to tokens and back, prefill in steps that can be interrupted, sampling, stop
// strings. Runs in the engine worker; everything here is synchronous but generate(), which lets messages in between.

import { fail } from './errors.js';

const BOS = 1;      // BP_TOKENIZE_BOS
const SPECIAL = 2;  // BP_TOKENIZE_SPECIAL
const PIECE_BYTES = 4096;
const MOST_ALTERNATIVES = 20;
const LANES = 16;           // tokens for each thread that the kernels take together, many times as fast as one by one
const PART_SECONDS = 0.025; // aim of a part of prefill, so that an abort is seen within 50 ms
const FIRST_LAYERS = 2;     // of a part, before anything is known about the speed
const LISTEN_SECONDS = 0.01; // between two looks at the messages while decoding

const now = () => performance.now() / 1000;

export class Runner {
  /** host: see host.js; session is a pointer of the engine. */
  constructor(host, session) {
    const { wasm } = host;
    this.host = host;
    this.wasm = wasm;
    this.model = host.model;
    this.session = session;
    this.tier = host.tier; // that the last token was fed at
    this.timeline = []; // the ids behind the session's KV cache
    this.chunk = wasm.exports.bp_session_chunk(session);
    Object.assign(this, { piece: 0, ids: 0, alternatives: 0 }); // before open()
    this.cost = null; // seconds that one layer takes for one token of a step
    this.prefilled = 0;
  }

  /** Takes the memory that it needs; where there is none, close() gives back what it has. */
  open() {
    const { wasm } = this;
    this.piece = wasm.alloc(PIECE_BYTES);
    this.ids = wasm.alloc(4 * this.chunk);
    this.alternatives = wasm.alloc(8 * MOST_ALTERNATIVES); // {i32 id, f32 logprob}
    this.spm = this.string('tokenizer.ggml.model') === 'llama';
  }

  /** Lets others do what they have to. */
  pause() {
    return this.host.breathe();
  }

  close() {
    const { wasm } = this;
    for (const pointer of [this.piece, this.ids, this.alternatives]) if (pointer) wasm.free(pointer);
    wasm.exports.bp_session_close(this.session);
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
    const size = this.host.number('vocabulary');
    const wrong = ids.find((id) => id >= size);
    if (wrong !== undefined) fail('argument', `token ${wrong} is not one of the ${size} of the vocabulary`);
    const decoder = textDecoder();
    const text = ids.map((id) => decoder.decode(this.tokenBytes(id, special), { stream: true })).join('') + decoder.decode();
    // SentencePiece puts a space in front of every text.
    return this.spm && text.startsWith(' ') ? text.slice(1) : text;
  }

  /**
   * Prefill, then one answer after another: each goes on from the prompt, of which only the last token is fed again.
   * @param {number[]} prompt ids, at least one
   * @param {object} options complete: see generation.js
   * @param {{prefill(done, total): void, token(index, id, text, logprobs): void, answer(index, end): void}} emit
   * @param {{aborted: boolean}} control set from outside, between two steps
   * @returns {Promise<object>} GenerateStats of index.d.ts
   */
  async generate(prompt, options, emit, control) {
    const started = now();
    this.checkSinks(options);
    const cached = this.rewind(prompt, options.fresh);
    this.setSampling(options, 0); // refuses bad options before the work
    const fed = await this.prefill(prompt, cached, emit.prefill, control);
    const prefillSeconds = now() - started;
    const totals = { promptTokens: prompt.length, cachedTokens: cached, prefillSeconds, seed: options.seed };
    totals.prefillTokensPerSecond = rate(this.prefilled - cached, prefillSeconds);
    const runs = [];
    for (let index = 0; index < options.n; index++) {
      if (index > 0) await this.prefill(prompt, this.rewind(prompt), () => {}, control);
      runs.push(await this.answer(index, options, emit, fed ? control : { aborted: true }));
      if (runs[index].finishReason === 'abort') break;
    }
    return { ...totals, ...decodeStats(runs, started) };
  }

  /** One answer, from the prompt that was fed: {finishReason, count, first, ended}. */
  async answer(index, options, emit, control) {
    this.setSampling(options, index); // begins anew: random numbers do not depend on how the prompt was cut
    const out = new Text(options.stop);
    let firstTier = null;
    const token = (id, text, logprobs) => {
      firstTier ??= this.tier;
      emit.token(index, id, text, logprobs);
    };
    const run = control.aborted ? { finishReason: 'abort', count: 0, first: null } : await this.decode(options, out, token, control);
    emit.answer(index, { finishReason: run.finishReason, stop: out.found, text: out.end() });
    return { ...run, ended: now(), firstTier: firstTier ?? this.tier, lastTier: this.tier };
  }

  checkPrompt(prompt) {
    if (prompt.length === 0) fail('argument', 'the prompt is empty');
    const capacity = this.wasm.exports.bp_session_capacity(this.session);
    if (prompt.length > capacity)
      fail('context', `the prompt has ${prompt.length} tokens, the context ${capacity}: shorten it or load with a larger contextSize`);
  }

  /** Keeps what the prompt shares with the timeline, all but its last token: that one has to be fed for its logits.
   *  What a shift has left is not that of the prompt. */
  rewind(prompt, fresh = false) {
    this.checkPrompt(prompt);
    let shared = 0;
    const most = fresh ? 0 : Math.min(prompt.length - 1, this.wasm.exports.bp_session_exact(this.session));
    while (shared < most && prompt[shared] === this.timeline[shared]) shared++;
    this.wasm.check(this.wasm.exports.bp_session_rewind(this.session, shared, this.wasm.error));
    this.timeline.length = shared;
    return shared;
  }

  /** The options of answer `index`: its seed is that many above the first one's. */
  setSampling(o, index) {
    const { wasm, session } = this;
    const bias = new ArrayBuffer(8 * o.logitBias.length);
    const cells = new DataView(bias);
    o.logitBias.forEach(([id, value], i) => {
      cells.setInt32(8 * i, id, true);
      cells.setFloat32(8 * i + 4, value, true);
    });
    const seed = BigInt.asUintN(64, BigInt(o.seed) + BigInt(index));
    wasm.withBytes(new Uint8Array(bias), (pointer) => wasm.check(wasm.exports.wasm_session_sampling(session, o.temperature, o.topK,
      o.typicalP, o.topP, o.minP, o.repeatPenalty, o.frequencyPenalty, o.presencePenalty, o.repeatLast, pointer, o.logitBias.length,
      seed, wasm.error)));
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
    this.place(ids);
    wasm.check(wasm.exports.bp_session_feed(this.session, this.ids, ids.length, wasm.error));
    this.appended(ids);
  }

  place(ids) {
    new Int32Array(this.wasm.memory.buffer, this.ids >>> 0, ids.length).set(ids);
  }

  appended(ids) {
    this.timeline.push(...ids);
    this.tier = this.host.tier;
  }

  /** Feeds prompt[at...]; report(done, total) after each step; false when it was aborted. */
  async prefill(prompt, at, report, control) {
    for (this.prefilled = at; this.prefilled < prompt.length;) {
      const ids = prompt.slice(this.prefilled, this.prefilled + this.stepSize());
      if (!(await this.host.steadily(() => this.feedInParts(ids, control)))) return false;
      this.prefilled += ids.length;
      report(this.prefilled, prompt.length);
      if (control.aborted) return false;
    }
    return true;
  }

  /** Tokens of the next step: 16 for each thread, or several times as many where all take no more than a part may. */
  stepSize() {
    const unit = LANES * this.host.threads;
    const fit = this.cost ? Math.floor(PART_SECONDS / (this.cost * this.host.number('layers') * unit)) : 1;
    return Math.min(this.chunk, unit * Math.max(1, fit));
  }

  /** Some layers at a time, with looks at the messages between; false when it was aborted: then nothing is appended. */
  async feedInParts(ids, control) {
    const { wasm, session } = this;
    const all = this.host.number('layers');
    this.place(ids);
    wasm.check(wasm.exports.bp_session_feed_begin(session, this.ids, ids.length, wasm.error));
    for (let left = all; left > 0;) {
      const part = this.cost ? Math.max(1, Math.min(left, Math.floor(PART_SECONDS / (this.cost * ids.length)))) : FIRST_LAYERS;
      const begun = now();
      left = wasm.exports.bp_session_feed_layers(session, part);
      this.cost = (now() - begun) / (Math.min(part, all) * ids.length);
      if (left === 0) this.appended(ids);
      await this.pause();
      if (control.aborted) return left === 0;
    }
    return true;
  }

  /** token(id, text, logprobs) gets each token. */
  async decode(options, out, token, control) {
    const { wasm, session } = this;
    const { maxTokens, ignoreEnd, logprobs } = options;
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
      const chances = logprobs === null ? undefined : this.chances(id, logprobs); // of logits that feed() will replace
      token(id, out.push(this.tokenBytes(id)), chances);
      if (out.found !== null) return finish('stop');
      if (count === maxTokens) break;
      if (this.timeline.length === wasm.exports.bp_session_capacity(session) && !this.makeRoom(options)) return finish('context');
      this.feed([id]);
      if (now() - listened > LISTEN_SECONDS) {
        await this.pause();
        if (control.aborted) return finish('abort');
        listened = now();
      }
    }
    return finish('length');
  }

  /** TokenLogprobs of index.d.ts: the token that was chosen, and the `n` most likely ones. */
  chances(id, n) {
    const { wasm, session, alternatives } = this;
    wasm.check(wasm.exports.bp_session_logprob(session, id, wasm.cells, wasm.error));
    const own = this.chance(id, new Float32Array(wasm.memory.buffer, wasm.cells, 1)[0]);
    if (n > 0) wasm.check(wasm.exports.bp_session_alternatives(session, n, alternatives, wasm.error));
    const cells = new DataView(wasm.bytes(alternatives, 8 * n).slice().buffer);
    const top = [];
    for (let i = 0; i < n && cells.getInt32(8 * i, true) >= 0; i++) top.push(this.chance(cells.getInt32(8 * i, true), cells.getFloat32(8 * i + 4, true)));
    return { ...own, top };
  }

  chance(id, logprob) {
    const bytes = this.tokenBytes(id, true);
    return { id, logprob, text: textDecoder().decode(bytes), bytes: Array.from(bytes) };
  }

  checkSinks({ overflow, sinkTokens }) {
    const most = this.wasm.exports.bp_session_capacity(this.session) >> 1;
    if (overflow === 'shift' && sinkTokens > most) fail('argument', `sinkTokens must be at most half the context, ${most}`);
  }

  /** In a full context: forgets the older half of what follows the sink tokens, if the caller wants that. */
  makeRoom({ overflow, sinkTokens }) {
    const { wasm, session, timeline } = this;
    if (overflow === 'error') fail('context', `the context of ${timeline.length} tokens is full`);
    if (overflow === 'stop') return false;
    const drop = Math.max(1, (timeline.length - sinkTokens) >> 1);
    wasm.check(wasm.exports.bp_session_shift(session, sinkTokens, drop, wasm.error));
    timeline.splice(sinkTokens, drop);
    return true;
  }
}

/** Per second; null where the clock is too coarse to tell. */
const rate = (tokens, seconds) => (seconds > 0 ? tokens / seconds : null);

/** What GenerateStats says of decoding: first tokens belong to the time to the first token. */
function decodeStats(runs, started) {
  const steady = runs.filter(({ count }) => count > 1);
  const seconds = steady.reduce((sum, { first, ended }) => sum + ended - first, 0);
  const tokens = steady.reduce((sum, { count }) => sum + count - 1, 0);
  return {
    completionTokens: runs.reduce((sum, { count }) => sum + count, 0),
    decodeSeconds: seconds,
    decodeTokensPerSecond: tokens > 0 ? rate(tokens, seconds) : null,
    timeToFirstToken: runs[0].first === null ? null : runs[0].first - started,
    firstTier: runs[0].firstTier,
    lastTier: runs.at(-1).lastTier,
  };
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
