// compare.js - the same prompt at every tier of the model, one after the other: what each says, how fast, and what it takes.

import { cache, estimateMemory, load } from '../../index.js';
import { PLAIN_TEMPLATE, SAMPLING } from '../config.js';
import { make } from '../dom.js';

const LENGTH = 96; // tokens of an answer
const SEED = 1;

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;

/**
 * Opens the dialog. Each tier is loaded on its own, answers, and is given up before the next.
 * @param {{root: HTMLElement, getModel: () => object, getSource: () => any, prompt?: string}} parts getSource: what load() takes
 * @returns {Promise<void>} when it is closed
 */
export async function openCompare({ root, getModel, getSource, prompt = '' }) {
  const dialog = new CompareDialog(getSource(), await getModel().fileTiers());
  root.append(dialog.element);
  await dialog.open(prompt);
  dialog.element.remove();
}

/** A template of the model's own, or none: whatever answers. */
async function* answer(model, prompt, options) {
  const messages = [{ role: 'user', content: prompt }];
  for (const template of [undefined, PLAIN_TEMPLATE]) {
    const generation = model.chat(messages, { ...SAMPLING, maxTokens: LENGTH, seed: SEED, ...options, template });
    try {
      for await (const { text } of generation) yield text;
      return await generation.result;
    } catch (error) {
      if (template || error.code !== 'unsupported') throw error;
    }
  }
  return undefined;
}

class CompareDialog {
  #stop = null; // AbortController of a run

  constructor(source, tiers) {
    Object.assign(this, { source, tiers });
    this.prompt = make('textarea', { id: 'inside-compare-prompt', rows: 2, required: true });
    this.memory = make('p', { class: 'inside-note', text: 'Asking what each tier takes\u2026' });
    this.state = make('p', { class: 'inside-note', role: 'status' });
    this.run = make('button', { type: 'submit', class: 'primary', text: 'Answer at every tier' });
    this.stop = make('button', { type: 'button', class: 'quiet', text: 'Stop', hidden: true, onclick: () => this.#stop?.abort() });
    this.close = make('button', { type: 'button', class: 'quiet', text: 'Close', onclick: () => this.element.close() });
    this.columns = tiers.map((tier, i) => new Column(i + 1, tier));
    const form = make('form', { onsubmit: (event) => this.#submit(event) },
      make('label', { for: 'inside-compare-prompt', text: 'Prompt' }), this.prompt, this.memory,
      make('div', { class: 'inside-actions' }, this.run, this.stop, this.close));
    this.element = make('dialog', { class: 'inside-compare', 'aria-labelledby': 'inside-compare-head' },
      make('h2', { id: 'inside-compare-head', text: 'Tiers side by side' }), form, this.state,
      make('div', { class: 'inside-columns' }, ...this.columns.map(({ element }) => element)));
  }

  open(prompt) {
    this.prompt.value = prompt;
    this.element.showModal();
    this.prompt.focus();
    this.#tellMemory();
    return new Promise((resolve) => {
      this.element.addEventListener('close', () => {
        this.#stop?.abort();
        resolve();
      }, { once: true });
    });
  }

  /** What it will take, before anything is taken. */
  async #tellMemory() {
    try {
      const sizes = await Promise.all(this.tiers.map((_, i) => estimateMemory(this.source, { tier: i + 1 })));
      sizes.forEach(({ total, weights }, i) => this.columns[i].setSize(total, weights));
      const most = Math.max(...sizes.map(({ total }) => total));
      const missing = Math.max(0, sizes.at(-1).weights - (await this.#bytesAtHand()));
      this.memory.textContent = `They are loaded one after the other, beside the model of the page: at most ${megabytes(most)} of memory more, given back at the end. ` +
        (missing > 2 ** 20 ? `${megabytes(missing)} are fetched.` : 'Nothing is fetched: all of it is on this device.');
    } catch (error) {
      this.memory.textContent = `What it will take could not be found out: ${error.message}`;
    }
  }

  async #bytesAtHand() {
    if (typeof this.source !== 'string' && !(this.source instanceof URL)) return Infinity; // a file
    const { href } = new URL(this.source, document.baseURI);
    return (await cache.list().catch(() => [])).find(({ url }) => url === href)?.bytes ?? 0;
  }

  async #submit(event) {
    event.preventDefault();
    if (this.#stop) return;
    const stop = (this.#stop = new AbortController());
    this.#setBusy(true);
    for (const column of this.columns) column.clear();
    try {
      for (const column of this.columns) {
        this.state.textContent = `Tier ${column.number} of ${this.columns.length} answers`;
        await this.#answerAt(column, stop.signal);
      }
      this.state.textContent = 'All tiers have answered';
    } catch (error) {
      this.state.textContent = error.code === 'aborted' || stop.signal.aborted ? 'Stopped' : `This tier could not answer: ${error.message}`;
    } finally {
      this.#stop = null;
      this.#setBusy(false);
    }
  }

  async #answerAt(column, signal) {
    column.say('Loading');
    const model = await load(this.source, { tier: column.number, signal, onProgress: ({ loaded, total }) => total && column.say(`Loading ${Math.floor((100 * loaded) / total)} %`) });
    try {
      column.say('Reading the prompt');
      const run = answer(model, this.prompt.value, { signal });
      for (;;) {
        const { done, value } = await run.next();
        if (done) {
          column.finish(value);
          break;
        }
        column.append(value);
      }
    } finally {
      await model.dispose();
    }
    signal.throwIfAborted();
    const most = Math.max(...this.columns.map(({ rate }) => rate));
    for (const each of this.columns) each.drawBar(most);
  }

  #setBusy(busy) {
    this.run.disabled = busy;
    this.stop.hidden = !busy;
  }
}

class Column {
  constructor(number, { bitsPerWeight }) {
    this.number = number;
    this.rate = 0;
    this.size = make('small');
    this.bar = make('i');
    this.speed = make('p', { class: 'inside-rate' }, make('strong', { text: '\u2013' }), ' tokens/s', make('span', { class: 'inside-ratebar', 'aria-hidden': 'true' }, this.bar));
    this.facts = make('p', { class: 'inside-note' });
    this.text = make('p', { class: 'inside-answer', dir: 'auto' });
    this.element = make('section', { class: 'inside-column', 'aria-label': `Tier ${number}` },
      make('h3', {}, `Tier ${number}`, make('small', { text: `${bitsPerWeight.toFixed(2)} bits per weight` })), this.size, this.speed, this.facts, this.text);
  }

  setSize(total, weights) {
    this.size.textContent = `${megabytes(weights)} of the file, ${megabytes(total)} of memory`;
  }

  clear() {
    this.rate = 0;
    this.text.textContent = this.facts.textContent = '';
    this.speed.firstElementChild.textContent = '\u2013';
    this.drawBar(1);
  }

  say(text) {
    this.facts.textContent = text;
  }

  append(text) {
    this.text.append(text);
  }

  finish({ stats }) {
    this.rate = stats?.decodeTokensPerSecond ?? 0;
    if (this.rate) this.speed.firstElementChild.textContent = this.rate.toFixed(1);
    this.facts.textContent = stats?.timeToFirstToken ? `first token after ${stats.timeToFirstToken.toFixed(2)} s, ${stats.completionTokens} tokens` : '';
  }

  drawBar(most) {
    this.bar.style.setProperty('inline-size', `${(100 * this.rate) / (most || 1)}%`);
  }
}
