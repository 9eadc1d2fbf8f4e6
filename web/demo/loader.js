// loader.js - the model of the page: where it comes from, how far it is, and whoever waits for it.
//
// A source is {url, name} or {file, name}. state:
//   'idle'      nothing is loaded
//   'loading'   not usable yet
//   'arriving'  usable, further tiers are on their way
//   'ready'     usable, and nothing more comes
//   'failed'    see `problem`

import { BitpairError, LoadController, cache, load } from '../index.js';
import { FIRST_TIER, MODEL_FACTS, MODEL_NAME, MODEL_URL } from './config.js';
import { explain, fileName } from './words.js';

export class Loader {
  #stop = null; // AbortController of the load
  #control = null;
  #running = null; // promise of the load
  #turn = null; // of the latest use()
  #waiting = []; // {resolve, reject} of whenReady()

  constructor() {
    this.onchange = () => {}; // state, progress or tier
    this.onmodel = () => {}; // (model, first): another model (first: it is new), or the same with another tier; null: none
    this.#take(sourceOf(new URLSearchParams(location.search).get('model')));
  }

  /** Whether this visit can begin without a click: all of the model is kept here. kept: bytes that are. */
  async look() {
    const source = this.source;
    if (!source.url) return false;
    const url = absolute(source.url);
    const found = (await cache.list().catch(() => [])).find((each) => each.url === url);
    if (this.source !== source) return false; // another was taken meanwhile
    this.kept = found?.bytes ?? 0;
    if (found) this.#setSize(found.total);
    else if (this.state === 'idle' && url.startsWith(`${location.origin}/`)) await this.#askSize(); // others are asked for nothing before a click
    this.onchange();
    return !!found?.complete;
  }

  /** Another model: the one before is put away. Of several that are asked for meanwhile, the last is taken. */
  async use(source) {
    const turn = (this.#turn = {});
    do {
      await this.cancel();
      if (this.#turn !== turn) return;
      await this.#putAway();
      if (this.#turn !== turn) return;
    } while (this.#running); // somebody who needs a model has begun anew with the one before
    this.#take(source);
    if (source.file) this.#setSize(source.file.size);
    await this.start();
  }

  /** Loads; does nothing while that is under way. */
  start() {
    this.#running ??= this.#load().finally(() => (this.#running = null));
    return this.#running;
  }

  async #load() {
    const stop = (this.#stop = new AbortController());
    this.#control = new LoadController();
    Object.assign(this, { paused: false, problem: '', progress: { loaded: 0, total: this.size, rate: null, eta: null }, begun: performance.now() });
    if (this.model) await this.#putAway(); // the rest of it could not be had: begin anew with what was kept
    this.#enter('loading');
    try {
      const model = await load(this.source.file ?? this.source.url, {
        signal: stop.signal,
        control: this.#control,
        startAt: this.source.own ? FIRST_TIER : 'first-tier',
        onProgress: (progress) => this.#report(progress),
        onTier: () => this.#tier(),
      });
      await this.#use(model);
      await this.#complete(model);
    } catch (error) {
      if (error.code !== 'aborted') this.problem = explain(error);
      this.#enter(error.code === 'aborted' ? 'idle' : 'failed');
      this.#refuse(error);
      await this.look(); // what has come is kept
    }
  }

  pause() {
    this.#control?.pause();
    this.paused = true;
    this.onchange();
  }

  resume() {
    this.#control?.resume();
    this.paused = false;
    this.onchange();
  }

  /** Stops the download. What has come is kept; a model that is usable stays. */
  async cancel() {
    this.#stop?.abort();
    await this.#running;
  }

  /** The model, as soon as it is usable; if nobody has asked for it yet, it is loaded now. Rejects when that fails. */
  whenReady(signal) {
    if (this.model) return Promise.resolve(this.model);
    const model = new Promise((resolve, reject) => {
      this.#waiting.push({ resolve, reject });
      signal.addEventListener('abort', () => reject(new BitpairError('aborted', 'the wait was ended')), { once: true });
    });
    this.start();
    return model;
  }

  #take(source) {
    Object.assign(this, {
      source, name: source.name, model: null, state: 'idle', problem: '', paused: false, progress: null, kept: 0, size: null, ends: [],
    });
    if (source.own) this.#setSize(MODEL_FACTS.tiers.at(-1));
  }

  /** Tiers of the file at its source, which may have been cut at the end of one. */
  get tiersThere() {
    return this.ends.filter((end) => end <= this.size).length;
  }

  /** Where the tiers end is known of the page's own model only, until a header is there. */
  #setSize(size) {
    this.size = size;
    this.ends = this.source.own && size === MODEL_FACTS.tiers.at(-1) ? MODEL_FACTS.tiers : size ? [size] : [];
  }

  async #askSize() {
    const head = await fetch(this.source.url, { method: 'HEAD' }).catch(() => null);
    const size = Number(head?.ok && head.headers.get('content-length'));
    if (size > 0) this.#setSize(size);
  }

  #report(progress) {
    this.progress = progress;
    if (progress.total && progress.total !== this.size) this.#setSize(progress.total);
    this.onchange();
  }

  async #use(model) {
    this.ends = (await model.fileTiers()).map(({ bytes }) => bytes);
    if (this.ends.length === 0) this.ends = [model.info.bytes];
    this.model = model;
    this.name = this.source.own ? MODEL_NAME : (model.info.name ?? this.source.name);
    this.seconds = (performance.now() - this.begun) / 1000;
    this.#enter('arriving');
    this.onmodel(model, true);
    for (const { resolve } of this.#waiting.splice(0)) resolve(model);
  }

  #tier() {
    if (!this.model) return;
    this.onmodel(this.model);
    this.onchange();
  }

  /** Until the last tier is there. The model is usable whatever becomes of the rest. */
  async #complete(model) {
    try {
      await model.complete;
    } catch (error) {
      if (this.model !== model) return;
      this.problem = error.code === 'aborted' ? '' : explain(error);
    }
    if (this.model === model) this.#enter('ready');
  }

  async #putAway() {
    const { model } = this;
    this.model = null;
    this.onmodel(null);
    await model?.dispose();
  }

  #enter(state) {
    this.state = state;
    this.onchange();
  }

  #refuse(error) {
    for (const { reject } of this.#waiting.splice(0)) reject(error);
  }
}

const absolute = (url) => {
  try {
    return new URL(url, document.baseURI).href;
  } catch {
    return url; // load() says what is wrong with it
  }
};

/** url: as the visitor gave it; none: the page's own model */
export function sourceOf(url) {
  if (!url || absolute(url) === MODEL_URL) return { url: MODEL_URL, name: MODEL_NAME, own: true };
  return { url, name: fileName(url) };
}
