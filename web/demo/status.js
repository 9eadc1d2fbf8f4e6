// status.js - the line below the composer: how fast, on what, and how full the context is.

import { pathOf } from './conversation.js';
import { $, make } from './dom.js';
import { count, megabytes } from './words.js';

const SHOW_EVERY = 250; // ms
const ISA = { simd128: 'SIMD128', relaxed: 'relaxed SIMD' };

export class Status {
  constructor() {
    this.model = null;
    this.speed = null;
    this.prompt = 0; // tokens of the prompt being answered
    this.made = 0;
    this.times = []; // of the latest tokens
    this.shown = 0;
  }

  setModel(model) {
    this.model = model;
    this.speed = null;
    this.draw();
  }

  /** The context as the shown conversation left it. */
  setConversation(conversation) {
    const answer = pathOf(conversation).findLast(({ context }) => context);
    this.prompt = answer?.context ?? 0;
    this.made = 0;
    this.draw();
  }

  reading({ total }) {
    this.prompt = total;
    this.made = 0;
    this.times = [];
  }

  /** shown: is it a token of the conversation on the page? */
  token(shown) {
    const now = performance.now();
    this.made++;
    this.times.push(now);
    if (this.times.length > 24) this.times.shift();
    const passed = now - this.times[0]; // 0 where the clock is coarse
    if (this.times.length > 2 && passed > 0) this.speed = (1000 * (this.times.length - 1)) / passed;
    if (!shown || now - this.shown < SHOW_EVERY) return;
    this.shown = now;
    this.draw();
  }

  answered({ decodeTokensPerSecond, promptTokens, completionTokens }) {
    this.speed = decodeTokensPerSecond;
    this.prompt = promptTokens;
    this.made = completionTokens;
    this.draw();
  }

  draw() {
    $('status-line').hidden = !this.model;
    if (!this.model) return;
    const { threads, isa, bitsPerWeight, memoryBytes, contextSize } = this.model.info;
    const most = [count(threads, 'thread')];
    if (this.speed) most.unshift(`${this.speed.toFixed(0)} tokens/s`);
    const more = [ISA[isa] ?? isa, `${megabytes(memoryBytes)} of memory`];
    if (bitsPerWeight) more.splice(1, 0, `${bitsPerWeight.toFixed(2)} bits per weight`);
    const rest = make('span', { class: 'more', text: ` \u00b7 ${more.join(' \u00b7 ')}` }); // where there is room
    $('status').replaceChildren(most.join(' \u00b7 '), rest);
    this.drawContext(Math.min(contextSize, this.prompt + this.made), contextSize);
  }

  drawContext(used, size) {
    const meter = $('context');
    meter.setAttribute('aria-valuemax', size);
    meter.setAttribute('aria-valuenow', used);
    meter.setAttribute('aria-valuetext', `${used} of ${size} tokens`);
    meter.title = `Context: ${used} of ${size} tokens`;
    meter.classList.toggle('near', used > 0.85 * size);
    meter.firstElementChild.style.transform = `scaleX(${used / size})`;
    $('context-text').textContent = `${used} / ${size}`;
  }
}
