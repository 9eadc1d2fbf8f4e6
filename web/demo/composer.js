// composer.js - where the visitor writes: Enter sends, Shift+Enter breaks, Esc stops.

import { SUGGESTIONS } from './config.js';
import { $, make } from './dom.js';
import { forTab } from './kept.js';
import { isComposing, isSend } from './keys.js';

const DRAFT = 'draft';

export class Composer {
  constructor(chat) {
    this.chat = chat;
    this.box = $('prompt');
    $('composer').addEventListener('submit', (event) => {
      event.preventDefault();
      this.send();
    });
    this.box.addEventListener('keydown', (event) => {
      if (!isSend(event)) return;
      event.preventDefault();
      this.send();
    });
    this.box.addEventListener('input', () => {
      forTab.set(DRAFT, this.box.value);
      this.fit();
    });
    document.addEventListener('keydown', (event) => {
      if (event.key !== 'Escape' || isComposing(event) || event.defaultPrevented) return;
      if (event.target.matches?.('input, textarea, select') && !event.target.closest('main')) return; // it clears the search
      if (!document.querySelector('dialog[open], :popover-open')) chat.stop();
    });
    document.querySelector('.skip').addEventListener('click', (event) => {
      event.preventDefault();
      ($('composer').hidden ? $('load') : this.box).focus();
    });
    $('stop').addEventListener('click', () => chat.stop());
    this.box.value = forTab.get(DRAFT) ?? '';
    this.drawSuggestions();
    this.fit();
  }

  send() {
    const { value } = this.box;
    if (!this.chat.send(value)) return;
    this.box.value = '';
    forTab.set(DRAFT, null);
    this.fit();
  }

  drawSuggestions() {
    $('suggestions').replaceChildren(...SUGGESTIONS.map((text) =>
      make('button', { type: 'button', text, onclick: () => this.chat.send(text) })));
  }

  /** usable: is there a model, or one on its way? */
  update({ usable, busy, empty }) {
    $('composer').hidden = !usable;
    $('suggestions').hidden = !usable || !empty;
    const hadFocus = [$('send'), $('stop')].includes(document.activeElement);
    $('send').hidden = busy;
    $('stop').hidden = !busy;
    if (hadFocus) this.box.focus();
  }

  focus() {
    if (matchMedia('(pointer: fine)').matches) this.box.focus();
  }

  /** Height follows the text where CSS cannot do it (field-sizing). */
  fit() {
    if (CSS.supports('field-sizing', 'content')) return;
    this.box.style.height = 'auto';
    this.box.style.height = `${this.box.scrollHeight + 2}px`;
  }
}
