// question-view.js - what the visitor wrote, and its editor.

import { copyFrom, iconButton, make } from './dom.js';
import { isSend } from './keys.js';
import { makeVariants } from './variants.js';

export class QuestionView {
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.bubble = make('div', { class: 'bubble', dir: 'auto', text: message.text.trim() });
    this.buttons = make('div', { class: 'actions' });
    this.element = make('article', { class: 'message user', 'aria-label': 'You' }, this.bubble, this.buttons);
  }

  update({ busy, siblings }) {
    if (this.editor) return;
    const key = `${busy} ${siblings.length}`;
    if (key === this.key) return;
    this.key = key;
    const copy = iconButton('copy', 'Copy message', () => copyFrom(copy, this.message.text));
    const edit = iconButton('edit', 'Edit message', () => this.edit());
    this.buttons.replaceChildren(...makeVariants(this.message, siblings, this.actions.choose), copy, ...(busy ? [] : [edit]));
  }

  edit() {
    const box = make('textarea', { 'aria-label': 'Edit message', rows: 2, dir: 'auto' });
    box.value = this.message.text;
    const send = () => {
      const text = box.value.trim();
      if (!text) return;
      if (text !== this.message.text.trim() && this.actions.edit(this.message, text) === false) return;
      this.close();
    };
    box.addEventListener('keydown', (event) => {
      if (event.key === 'Escape' && !event.isComposing) this.close(true);
      else if (isSend(event)) send();
      else return;
      event.preventDefault();
      event.stopPropagation();
    });
    this.editor = make('div', { class: 'editor' }, box, make('div', { class: 'row' },
      make('button', { type: 'button', class: 'quiet', text: 'Cancel', onclick: () => this.close(true) }),
      make('button', { type: 'button', class: 'primary', text: 'Send again', onclick: send })));
    this.bubble.hidden = this.buttons.hidden = true;
    this.element.append(this.editor);
    box.focus();
    box.setSelectionRange(box.value.length, box.value.length);
  }

  close(focus) {
    if (!this.editor) return;
    this.editor.remove();
    this.editor = null;
    this.bubble.hidden = this.buttons.hidden = false;
    if (focus) this.buttons.querySelector('[aria-label="Edit message"]')?.focus();
  }
}
