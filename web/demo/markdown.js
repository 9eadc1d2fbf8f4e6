// markdown.js - Markdown that grows. Blocks that did not change keep their elements, so a selection in them, or the focus on
// a button, survives the next token. HTML in the text is shown as text; what the parser makes is cleaned nevertheless.

import DOMPurify from 'dompurify';
import { Marked } from 'marked';

import { copyFrom, icon, make } from './dom.js';

const CLEAN = {
  ALLOWED_TAGS: ['p', 'br', 'hr', 'em', 'strong', 'del', 'code', 'blockquote', 'ul', 'ol', 'li', 'h3', 'h4', 'h5', 'h6', 'table', 'thead', 'tbody',
    'tr', 'th', 'td', 'a', 'pre'],
  ALLOWED_ATTR: ['href', 'start', 'align', 'data-lang'],
  ALLOWED_URI_REGEXP: /^(?:https?:|mailto:)/i,
  ADD_URI_SAFE_ATTR: ['start', 'align', 'data-lang'], // no addresses
  RETURN_DOM_FRAGMENT: true,
};

const escape = (text) => text.replace(/[&<>"]/g, (c) => ({ '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' })[c]);

const marked = new Marked({
  gfm: true,
  breaks: true,
  renderer: {
    html: ({ text }) => escape(text),
    code: ({ text, lang }) => `<pre data-lang="${escape(lang ?? '')}"><code>${escape(text)}</code></pre>`, // in a list or a quotation
    image: ({ text, href }) => escape(text || href), // nothing is fetched on behalf of a model
    checkbox: ({ checked }) => (checked ? '\u2611 ' : '\u2610 '),
    heading({ tokens, depth }) {
      const level = Math.min(6, depth + 2); // the page has two levels above
      return `<h${level}>${this.parser.parseInline(tokens)}</h${level}>`;
    },
  },
});

function renderBlock(token) {
  if (token.type === 'code') return renderCode(token);
  const fragment = DOMPurify.sanitize(marked.parser([token]), CLEAN);
  for (const link of fragment.querySelectorAll('a')) {
    if (!link.href) link.replaceWith(...link.childNodes); // it led nowhere good
    link.rel = 'noopener noreferrer nofollow';
    link.target = '_blank';
  }
  for (const table of fragment.querySelectorAll('table')) {
    const frame = make('div', { class: 'table', tabindex: 0, role: 'group', 'aria-label': 'Table' });
    table.replaceWith(frame);
    frame.append(table);
  }
  for (const pre of fragment.querySelectorAll('pre')) pre.replaceWith(renderCode({ text: pre.textContent, lang: pre.dataset.lang }));
  return make('div', { class: 'block', dir: 'auto' }, fragment);
}

function renderCode({ text, lang }) {
  const code = make('code', { text });
  const copy = make('button', { type: 'button', class: 'copy', 'aria-label': 'Copy code', onclick: () => copyFrom(copy, code.textContent) }, icon('copy'));
  return make('div', { class: 'block code', dir: 'ltr' },
    make('div', { class: 'code-bar' }, make('span', { text: (lang ?? '').split(/\s/)[0].slice(0, 24) }), copy),
    make('pre', { tabindex: 0, role: 'group', 'aria-label': 'Code' }, code));
}

export class MarkdownView {
  /** @param {HTMLElement} root is filled, and is nobody else's */
  constructor(root) {
    this.root = root;
    this.blocks = []; // {raw, type, lang, element}
  }

  update(text) {
    const tokens = marked.lexer(text).filter(({ type }) => type !== 'space' && type !== 'def');
    tokens.forEach((token, i) => this.#place(token, i));
    for (const { element } of this.blocks.splice(tokens.length)) element.remove();
  }

  #place(token, i) {
    const old = this.blocks[i];
    if (old && old.raw === token.raw && old.type === token.type) return;
    if (old?.type === 'code' && token.type === 'code' && old.lang === token.lang) {
      old.element.querySelector('code').textContent = token.text;
      old.raw = token.raw;
      return;
    }
    const element = renderBlock(token);
    if (old) old.element.replaceWith(element);
    else this.root.append(element);
    this.blocks[i] = { raw: token.raw, type: token.type, lang: token.lang, element };
  }
}
