// model.js - what load() gives: a model with its own session, and further sessions. Requests of one session run one after another.

import { renderChat } from './chat.js';
import { BitpairError, fail, unlessAborted } from './errors.js';
import { ASYNC_DISPOSE, Generation, completeOptions } from './generation.js';
import { chooseGrammar } from './grammar.js';
import { checkOptions } from './options.js';

const aborted = (signal) =>
  new Promise((resolve) => (signal.aborted ? resolve() : signal.addEventListener('abort', resolve, { once: true })));

const disposed = (what) => new BitpairError('disposed', `the ${what} was disposed`);

export class Session {
  #crew;
  #id;
  #template;
  #last = Promise.resolve(); // settles when the latest call that uses the session has ended
  #end = new AbortController(); // with it the session has ended
  #disposed = null; // a promise: its memory is free

  /** opened: {session: id, contextSize}; template: {source, bos, eos} of the file */
  constructor(crew, { session, contextSize }, template) {
    this.#crew = crew;
    this.#id = session;
    this.#template = template;
    this.contextSize = contextSize;
  }

  generate(prompt, options) {
    const { bos = true, special = false } = options ?? {};
    return this.#generation(options, { bos, special }, async (given) => ({ prompt, grammar: await chooseGrammar(given) }));
  }

  chat(messages, options) {
    const template = { ...this.#template, source: options?.template ?? this.#template.source };
    return this.#generation(options, { bos: false, special: true }, (given) => renderChat(template, messages, given));
  }

  async embed(texts, options) {
    const { pooling = 'mean', normalize = true, bos = true, special = false, signal } = checkOptions(options);
    const one = typeof texts === 'string';
    const prompts = one ? [texts] : Array.isArray(texts) ? texts.map(checkPrompt) : fail('argument', 'embed() takes a string or an array');
    if (pooling !== 'mean' && pooling !== 'last') fail('argument', `pooling must be 'mean' or 'last', not ${pooling}`);
    const vectors = await this.#inTurn('embed', { prompts, options: { pooling, normalize: !!normalize, bos, special } }, signal);
    return one ? vectors[0] : vectors;
  }

  async score(text, options) {
    const { bos = true, special = false, signal } = checkOptions(options);
    return this.#inTurn('score', { prompt: checkPrompt(text), options: { bos, special } }, signal);
  }

  async logits(prompt, options) {
    const { bos = true, special = false, signal } = checkOptions(options);
    return this.#inTurn('logits', { prompt: checkPrompt(prompt), options: { bos, special } }, signal);
  }

  async saveState() {
    return this.#inTurn('saveState', {});
  }

  async restoreState(state) {
    if (!(state instanceof Uint8Array)) fail('argument', 'restoreState() takes the Uint8Array that saveState() gave');
    return this.#inTurn('restoreState', { bytes: state });
  }

  async fork() {
    return new Session(this.#crew, await this.#inTurn('fork', {}), this.#template);
  }

  dispose() {
    return (this.#disposed ??= this.#close());
  }

  async #close() {
    this.#end.abort(disposed('session'));
    await this.#last;
    if (this.#crew.ended) return;
    await this.#crew.request('close', { session: this.#id }).catch((error) => {
      if (!this.#crew.ended) throw error; // else its memory is gone with the workers
    });
  }

  [ASYNC_DISPOSE]() {
    return this.dispose();
  }

  /** Runs work() when the calls before it have ended. */
  #queue(work) {
    const { signal } = this.#end;
    const running = this.#last.then(async () => {
      signal.throwIfAborted();
      try {
        return await work();
      } finally {
        signal.throwIfAborted(); // whatever came of it
      }
    });
    this.#last = running.catch(() => {});
    return running;
  }

  /** A request when its turn comes. One that is stopped ends at once; the next begins when the engine has stopped too. */
  #inTurn(type, fields, signal) {
    const running = this.#queue(() => (signal?.aborted ? null : this.#request(type, fields, [signal])));
    return unlessAborted(running, signal);
  }

  /** A request that these signals stop, and the end of the session. */
  #request(type, fields, signals, onMessage) {
    const id = this.#crew.newId();
    const abort = () => this.#crew.link.post({ type: 'abort', id });
    const all = [this.#end.signal, ...signals].filter(Boolean);
    for (const signal of all) signal.addEventListener('abort', abort, { once: true });
    return this.#crew.request(type, { session: this.#id, ...fields }, { id, onMessage }).finally(() => {
      for (const signal of all) signal.removeEventListener('abort', abort);
    });
  }

  /** A generation that, once started, waits for its turn. prepare(options) -> {prompt, grammar, reader: see tools.js} */
  #generation(options, reading, prepare) {
    return new Generation(async (stop, receive) => {
      const given = checkOptions(options, ['onPrefill']);
      const complete = completeOptions({ ...given, ...reading });
      const stopped = aborted(stop).then(() => null);
      const preparing = prepare(given).then((prepared) => ({ ...prepared, prompt: checkPrompt(prepared.prompt) }));
      let begun = false;
      const running = this.#queue(async () => {
        // What it needs may still be on its way; its place in the order is this one all the same.
        const prepared = await unlessAborted(Promise.race([preparing, stopped]), this.#end.signal);
        if (!prepared) return null;
        begun = true;
        const { prompt, grammar, reader } = prepared;
        return this.#run(prompt, { ...complete, grammar }, given.onPrefill, stop, (message) => receive(message, reader));
      });
      // One that is stopped while it waits ends at once, and does nothing when its turn comes. Nor does one wait to hear what is wrong.
      return Promise.race([running, preparing.then(() => running), stopped.then(() => (begun ? running : null))]);
    }, options?.signal);
  }

  #run(prompt, options, onPrefill, stop, receive) {
    if (stop.aborted) return null;
    return this.#request('generate', { prompt, options }, [stop], (message) => {
      if (message.type === 'prefill') onPrefill?.({ done: message.done, total: message.total });
      else receive(message);
    });
  }
}

export class Model extends Session {
  #crew;
  #opened;

  /** opened: {info, template}; whoever follows the reading replaces info. complete: see index.d.ts */
  constructor(crew, opened, complete) {
    super(crew, { session: 0, contextSize: opened.info.contextSize }, opened.template);
    this.#crew = crew;
    this.#opened = opened;
    this.complete = complete;
  }

  get info() {
    return this.#opened.info;
  }

  get tier() {
    return this.info.tier;
  }

  get tiers() {
    return this.info.tiers;
  }

  async session(options) {
    const { contextSize } = checkOptions(options);
    if (contextSize !== undefined && !(Number.isInteger(contextSize) && contextSize >= 1 && contextSize < 2 ** 31))
      fail('argument', `contextSize must be a whole number from 1 on, not ${contextSize}`);
    return new Session(this.#crew, await this.#crew.request('session', { contextSize }), this.#opened.template);
  }

  async stats() {
    return this.#crew.request('stats', {});
  }

  async layers() {
    return this.#crew.request('layers', {});
  }

  async fileTiers() {
    return this.#crew.request('tiers', {});
  }

  async signs(layer, stage, factor) {
    return this.#crew.request('signs', { layer, stage, factor });
  }

  async scales(layer, stage) {
    return this.#crew.request('scales', { layer, stage });
  }

  async tokenize(text, options) {
    const { bos = false, special = false } = checkOptions(options);
    if (typeof text !== 'string') fail('argument', 'tokenize() takes a string');
    return this.#crew.request('tokenize', { text, options: { bos, special } });
  }

  async detokenize(ids, options) {
    const { special = false } = checkOptions(options);
    return this.#crew.request('detokenize', { ids: checkIds(ids), options: { special } });
  }

  async dispose() {
    await this.#crew.end(disposed('model'));
  }
}

const checkPrompt = (prompt) => (typeof prompt === 'string' ? prompt : checkIds(prompt));

function checkIds(ids) {
  const list = typeof ids === 'object' && Number.isInteger(ids?.length) ? Array.from(ids) : null;
  if (!list?.every((id) => Number.isInteger(id) && id >= 0 && id < 2 ** 31))
    fail('argument', 'a string or an array of token ids is needed');
  return list;
}
