// host.js - the model in the engine worker: opened when its first bytes are there, raised as tiers arrive, with its sessions
// and what is counted of them.

import { fail } from './errors.js';
import { makeYield } from './protocol.js';
import { Runner } from './runner.js';

const NUMBERS = ['layers', 'width', 'feedForward', 'heads', 'kvHeads', 'headSize', 'vocabulary', 'trainedContext', 'tiers', 'tier',
  'bitsPerWeight', 'bos', 'eos']; // of wasm_model_number
const BREATH = 0.2; // most of the time that goes to what arrives, while answers are made

const now = () => performance.now() / 1000;

/** Bytes of a session of this model, which may be one of a header alone. */
export function sessionBytes({ exports }, model, { contextSize, kvBits }) {
  const bytes = exports.wasm_session_bytes(model, contextSize, 0, kvBits) >>> 0;
  return bytes || fail('argument', `a context of ${contextSize} is more than this model or the memory allows`);
}

export class Host {
  constructor({ wasm, contextSize, kvBits }) {
    Object.assign(this, { wasm, contextSize, kvBits });
    Object.assign(this, { engine: 0, threads: 0, threadsReason: null }); // before the model is started
    this.model = 0;     // pointer, once there is one
    this.ahead = null;  // one of a header alone, until then: {model, pointer, bytes, room}
    this.file = null;   // as readModel() gives it
    this.reading = true;
    this.arrivals = 0;  // chunks of the file
    this.tier = 0;
    this.wanted = 0;    // tiers that are there; those past `tier` wait until nothing needs a steady model
    this.steady = 0;    // calls that do
    this.risen = () => {}; // called when they have been taken up
    this.sessions = new Map(); // id -> {runner, bytes}
    this.lastId = -1;
    this.totals = { prompt: 0, reused: 0, generated: 0, prefillSeconds: 0, fed: 0, decodeSeconds: 0, decoded: 0 };
    this.turn = makeYield();
    this.breathed = now();
    this.told = () => {}; // gets what changes of the page's info with a tier
  }

  // ---- the model ----

  /** Opens what can be opened of a model whose header is there, {pointer, bytes, room}; null: it is not to be used. Throws where start()
   *  is going to. */
  prepare(place) {
    const { wasm, engine } = this;
    const { exports } = wasm;
    if (this.ahead) exports.bp_model_close(this.ahead.model);
    this.ahead = null;
    if (!place || this.model) return;
    const model = wasm.check(exports.bp_model_preview(engine, place.pointer, place.bytes, place.room, wasm.error));
    try {
      sessionBytes(wasm, model, this);
      if (exports.wasm_model_number(model, NUMBERS.indexOf('tiers')) > 0) this.ahead = { ...place, model };
    } finally {
      if (!this.ahead) exports.bp_model_close(model);
    }
  }

  /** Opens the model with the first `tier` tiers of the file, 0: all of it. Returns what becomes of it in the page. */
  start(file, tier) {
    this.file = file;
    this.model = this.openModel(file, tier);
    this.tier = this.wanted = this.number('tier');
    const { session, contextSize } = this.open(this.contextSize);
    this.contextSize = contextSize;
    return { info: this.describe(session), template: this.template(), total: file.room };
  }

  openModel({ pointer, room }, tier) {
    const { wasm, engine, ahead } = this;
    const { exports, error } = wasm;
    if (ahead?.pointer === pointer && ahead.room === room) {
      const { model } = ahead;
      const all = exports.wasm_model_number(model, NUMBERS.indexOf('tier')); // those that there is room for
      wasm.check(exports.bp_model_raise_tier(model, tier || all, error));
      this.ahead = null;
      return model;
    }
    this.prepare(null);
    const open = tier === 0 ? exports.bp_model_open(engine, pointer, room, error) : exports.bp_model_open_tiers(engine, pointer, room, tier, error);
    return wasm.check(open);
  }

  /** The first n tiers are there. */
  raise(n, file) {
    Object.assign(this.file, { ...file, room: this.file.room });
    this.wanted = n;
    this.rise();
  }

  /** One after the other: the page hears of each. */
  rise() {
    if (this.steady > 0 || this.wanted === this.tier) return;
    while (this.tier < this.wanted) {
      this.wasm.check(this.wasm.exports.bp_model_raise_tier(this.model, this.tier + 1, this.wasm.error));
      this.tier++;
      this.told({ tier: this.tier, bitsPerWeight: this.number('bitsPerWeight'), bytes: this.file.size, cachedBytes: this.file.cachedBytes });
    }
    this.risen();
  }

  /** All of the file that was wanted is there; resolves when it is in use. */
  async finish(file) {
    if (this.file) Object.assign(this.file, { ...file, room: this.file.room });
    if (this.wanted !== this.tier) await new Promise((resolve) => (this.risen = resolve));
  }

  async steadily(work) {
    this.steady++;
    try {
      return await work();
    } finally {
      this.steady--;
      this.rise();
    }
  }

  number(name) {
    return this.wasm.exports.wasm_model_number(this.model, NUMBERS.indexOf(name));
  }

  describe(session) {
    const { wasm, engine, model, file } = this;
    const { exports } = wasm;
    const { size, verified, cached, cachedBytes, cacheReason } = file;
    const info = { threads: this.threads, threadsReason: this.threadsReason, bytes: size, verified, cached, cachedBytes, cacheReason };
    info.architecture = wasm.cString(exports.wasm_model_arch(model));
    for (const name of NUMBERS) info[name] = this.number(name);
    info.name = this.main.string('general.name');
    info.contextSize = exports.bp_session_capacity(this.session(session).session);
    info.kvCache = exports.bp_session_kv_bits(this.session(session).session) === 8 ? 'q8' : 'f16';
    info.isa = wasm.cString(exports.bp_engine_isa(engine));
    info.memoryBytes = wasm.memory.buffer.byteLength;
    return info;
  }

  template() {
    const token = (id) => (id < 0 ? '' : new TextDecoder().decode(this.main.tokenBytes(id, true)));
    return { source: this.main.string('tokenizer.chat_template'), bos: token(this.number('bos')), eos: token(this.number('eos')) };
  }

  // ---- sessions ----

  /** The model's own. */
  get main() {
    return this.session(0);
  }

  session(id) {
    return this.sessions.get(id)?.runner ?? fail('disposed', 'the session was disposed');
  }

  /** contextSize 0: the engine's default, or the first session's. */
  open(contextSize = this.contextSize) {
    const { wasm, model } = this;
    const bytes = wasm.exports.wasm_session_bytes(model, contextSize, 0, this.kvBits) >>> 0;
    return this.add(wasm.check(wasm.exports.wasm_session_open(model, contextSize, 0, this.kvBits, wasm.error)), bytes);
  }

  fork(id) {
    const { wasm } = this;
    const from = this.session(id);
    const to = this.add(wasm.check(wasm.exports.bp_session_fork(from.session, wasm.error)), this.sessions.get(id).bytes);
    this.session(to.session).timeline = [...from.timeline];
    return to;
  }

  add(pointer, bytes) {
    const id = ++this.lastId;
    const runner = new Runner(this, pointer);
    try {
      runner.open();
    } catch (error) {
      runner.close();
      throw error;
    }
    this.sessions.set(id, { runner, bytes });
    return { session: id, contextSize: this.wasm.exports.bp_session_capacity(pointer) };
  }

  close(id) {
    const runner = this.session(id);
    this.sessions.delete(id);
    runner.close();
  }

  // ---- time ----

  /** Lets messages in. While the file is being read, also what has arrived of it, for a part of the time that the engine works. */
  async breathe() {
    const begun = now();
    const most = BREATH * (begun - this.breathed);
    for (let seen = -1; seen !== this.arrivals && now() - begun <= most;) {
      seen = this.arrivals;
      await this.turn();
      if (!this.reading) break;
    }
    this.breathed = now();
  }

  // ---- what is told ----

  /** Notes what an answer took. */
  count(stats) {
    const { totals } = this;
    totals.prompt += stats.promptTokens;
    totals.reused += stats.cachedTokens;
    totals.generated += stats.completionTokens;
    if (stats.prefillSeconds > 0) { // coarse clocks say 0
      totals.fed += stats.prefillTokensPerSecond * stats.prefillSeconds;
      totals.prefillSeconds += stats.prefillSeconds;
    }
    totals.decoded += (stats.decodeTokensPerSecond ?? 0) * stats.decodeSeconds;
    totals.decodeSeconds += stats.decodeSeconds;
    return stats;
  }

  stats() {
    const { totals, file, sessions } = this;
    let bytes = 0;
    for (const each of sessions.values()) bytes += each.bytes;
    const rate = (tokens, seconds) => (tokens > 0 && seconds > 0 ? tokens / seconds : null);
    return {
      memory: { total: this.wasm.memory.buffer.byteLength, weights: file.room, sessions: bytes },
      sessions: sessions.size,
      tokens: { prompt: totals.prompt, reused: totals.reused, generated: totals.generated },
      rates: { prefill: rate(totals.fed, totals.prefillSeconds), decode: rate(totals.decoded, totals.decodeSeconds) },
      tier: this.tier,
      tiers: this.number('tiers'),
      bitsPerWeight: this.number('bitsPerWeight'),
      threads: this.threads,
      threadsReason: this.threadsReason,
      isa: this.wasm.cString(this.wasm.exports.bp_engine_isa(this.engine)),
      cache: { cached: file.cached, bytes: file.cachedBytes, reason: file.cacheReason },
      loaded: file.size,
      total: file.room,
    };
  }
}
