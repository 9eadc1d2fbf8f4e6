// messages.js - bubbles of the conversation. Text goes in as text nodes only, so nothing in it can become markup.

function element(parent, tag, name) {
  const made = document.createElement(tag);
  if (name) made.className = name;
  parent.append(made);
  return made;
}

/** Writes text as paragraphs: an empty line begins a new one, other line breaks are kept by CSS. */
class Paragraphs {
  constructor(parent) {
    this.parent = parent;
    this.open();
  }

  open() {
    this.node = document.createTextNode('');
    element(this.parent, 'p').append(this.node);
    this.breaks = '';
  }

  append(text) {
    for (const part of text.split(/(\n)/)) {
      if (part === '') continue;
      if (part === '\n') {
        this.breaks += part;
      } else {
        if (this.breaks.length > 1 && this.node.length > 0) this.open();
        this.node.appendData((this.node.length > 0 ? this.breaks : '') + part);
        this.breaks = '';
      }
    }
  }
}

/** What the visitor wrote. */
export function say(list, text) {
  const bubble = element(list, 'div', 'message user');
  new Paragraphs(bubble).append(text.trim());
  bubble.scrollIntoView({ block: 'end' });
}

/** An answer that grows; drawn once per frame. */
export class Answer {
  constructor(list) {
    this.bubble = element(list, 'div', 'message assistant busy');
    this.bubble.setAttribute('aria-busy', 'true');
    this.paragraphs = new Paragraphs(this.bubble);
    this.text = '';
    this.waiting = '';
    this.frame = 0;
    this.note = element(this.bubble, 'div', 'facts');
    this.note.hidden = true;
    scrollDown(true);
  }

  /** Reading a long prompt takes time: say how far it is. */
  reading({ done, total }) {
    if (total < 64) return;
    this.note.hidden = done === total;
    this.note.textContent = `Reading ${Math.floor((100 * done) / total)} %`;
  }

  append(text) {
    this.text += text;
    this.waiting += text;
    this.note.hidden = true;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  draw() {
    const follow = atBottom();
    cancelAnimationFrame(this.frame);
    this.frame = 0;
    this.note.remove();
    this.paragraphs.append(this.waiting);
    this.waiting = '';
    this.bubble.append(this.note);
    scrollDown(follow);
  }

  finish({ finishReason, stats }) {
    this.close();
    if (!stats) return;
    const parts = [`${stats.completionTokens} tokens`];
    if (stats.decodeTokensPerSecond) parts.push(`${stats.decodeTokensPerSecond.toFixed(1)} tokens/s`);
    if (stats.timeToFirstToken !== null) parts.push(`first after ${stats.timeToFirstToken.toFixed(2)} s`);
    const ends = { abort: 'stopped', length: 'cut at its longest', context: 'the context is full' };
    if (ends[finishReason]) parts.push(ends[finishReason]);
    const follow = atBottom();
    this.note.textContent = parts.join(' \u00b7 ');
    this.note.hidden = false;
    scrollDown(follow);
  }

  fail(text) {
    this.close();
    element(this.bubble, 'p', 'problem').textContent = text;
    this.bubble.lastElementChild.setAttribute('role', 'alert');
    scrollDown(true);
  }

  close() {
    this.draw();
    this.bubble.classList.remove('busy');
    this.bubble.removeAttribute('aria-busy');
  }
}

const page = () => document.scrollingElement;

const atBottom = () => page().scrollHeight - page().scrollTop - innerHeight < 80;

function scrollDown(follow) {
  if (follow) page().scrollTop = page().scrollHeight;
}
