// inside-panel.js - the place where one looks inside. What is drawn there is in inside/, and loaded when it is first asked for.

import { $ } from './dom.js';
import { forTab } from './kept.js';

const KEY = 'bitpair-demo-inside';
const COVERS = '(max-width: 56rem)'; // where the panel lies above the page: style.css

export class InsidePanel {
  #module = null;
  #panel = null;

  /** @param {{getModel: () => object | null, getSource: () => any, getPrompt: () => string}} parts see inside/index.js */
  constructor(parts) {
    this.parts = parts;
    this.shown = false;
    $('inside-toggle').addEventListener('click', () => (this.shown ? this.hide() : this.show()));
    $('inside-close').addEventListener('click', () => this.hide());
    $('inside').addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || event.defaultPrevented) return;
      event.preventDefault();
      this.hide();
    });
    this.covers = matchMedia(COVERS);
    this.covers.addEventListener('change', () => this.draw());
    if (forTab.get(KEY) && !this.covers.matches) this.show(false);
  }

  async show(focus = true) {
    this.shown = true;
    forTab.set(KEY, '1');
    this.draw();
    try {
      await this.#open();
    } catch (error) {
      $('inside-body').textContent = `The panel did not load: ${error.message}`;
    }
    if (focus && this.shown) $('inside-close').focus();
  }

  hide() {
    const inPanel = $('inside').contains(document.activeElement);
    this.shown = false;
    forTab.set(KEY, null);
    this.#panel?.hide();
    this.draw();
    if (inPanel) $('inside-toggle').focus();
  }

  draw() {
    $('inside').hidden = !this.shown;
    $('inside-toggle').setAttribute('aria-expanded', String(this.shown));
    document.body.classList.toggle('with-inside', this.shown);
    document.querySelector('.page').inert = this.shown && this.covers.matches;
  }

  async #open() {
    this.#module ??= await import('./inside/index.js');
    if (!this.#panel) {
      this.#panel = this.#module.createInside({ ...this.parts, root: $('inside-body'), onClose: () => this.hide() });
    }
    if (this.shown) this.#panel.show();
  }

  // ---- what the chat tells ----

  /** Are probabilities of tokens worth computing? */
  wantsTokens() {
    return this.shown && !!this.#panel;
  }

  modelChanged(model) {
    this.#panel?.modelChanged(model);
  }

  answerStarted(meta) {
    if (this.shown) this.#panel?.answerStarted(meta);
  }

  prefill(progress) {
    if (this.shown) this.#panel?.prefill(progress);
  }

  token(token) {
    if (this.shown) this.#panel?.token(token);
  }

  answerEnded(stats) {
    if (this.shown) this.#panel?.answerEnded(stats);
  }

  renderProbabilities(element, tokens) {
    this.#module.renderProbabilities(element, tokens);
  }
}
