// probabilities.js - an answer token by token: coloured by how uncertain the model was, and for each what else it might have said.

import { make } from '../dom.js';

/** Bits of uncertainty from which the colours get stronger. */
const LEVELS = [0.7, 1.6, 2.6, 3.6];

const SCROLL = { passive: true, capture: true };

const percent = (logprob) => {
  const share = 100 * Math.exp(logprob);
  return share >= 99.95 ? '100 %' : share >= 10 ? `${share.toFixed(0)} %` : share >= 0.1 ? `${share.toFixed(1)} %` : '< 0.1 %';
};

/**
 * Entropy of the next token in bits, from the most likely ones; what is left over is taken as one more, so the true value is
 * larger or equal.
 */
export function entropyOf(top) {
  let [sum, rest] = [0, 1];
  for (const { logprob } of top) {
    const p = Math.exp(logprob);
    rest -= p;
    sum -= p * logprob;
  }
  return (sum - (rest > 1e-6 ? rest * Math.log(rest) : 0)) / Math.LN2;
}

/** A token as one sees it: spaces and line breaks have signs of their own. */
const visible = (text) => text.replace(/^ | $/g, '\u2423').replaceAll('\n', '\u21b5').replaceAll('\t', '\u21e5') || '\u2205';

/** [{text, token}]: what each token adds to the text. One that is a part of a character adds nothing until the character is whole. */
function piecesOf(tokens) {
  const decoder = new TextDecoder();
  const pieces = tokens.map((token) => ({ token, text: token.bytes ? decoder.decode(Uint8Array.from(token.bytes), { stream: true }) : token.text }));
  const rest = decoder.decode();
  if (rest && pieces.length > 0) pieces.at(-1).text += rest;
  return pieces.filter(({ text }) => text !== '');
}

/**
 * Draws tokens into an element, in place of what is there. Pointing at one, tapping it, or going to it by the arrow keys shows the
 * ten most likely.
 * @param {HTMLElement} element
 * @param {{text: string, bytes?: number[], logprob: number, top: {text: string, logprob: number}[], tier?: number}[]} tokens
 * @returns {{remove(): void}}
 */
export function renderProbabilities(element, tokens) {
  const view = new TokenView(tokens);
  element.replaceChildren(view.text, view.legend, view.said);
  return { remove: () => view.remove() };
}

class TokenView {
  #at = -1;      // the token that is shown
  #pinned = false;
  #follow = () => this.#place();

  constructor(tokens) {
    this.spans = piecesOf(tokens).map(({ token, text }) => this.#span(token, text));
    this.text = make('div', {
      class: 'inside-tokens', tabindex: 0, role: 'group',
      'aria-label': 'The answer, token by token. Arrow keys go from one to the next and say what else was likely.',
    }, ...this.spans.map(({ element }) => element));
    this.said = make('p', { class: 'hidden', role: 'status' });
    this.popover = make('div', { class: 'inside-popover', 'aria-hidden': 'true', hidden: true });
    this.legend = make('p', { class: 'inside-scale' }, 'certain', ...[0, 1, 2, 3, 4].map((level) => make('i', { class: `u${level}` })), 'uncertain');
    this.#listen();
  }

  remove() {
    this.#hide();
    this.popover.remove();
  }

  #span(token, text) {
    const entropy = entropyOf(token.top);
    const level = LEVELS.filter((limit) => entropy >= limit).length;
    const element = make('span', { class: `u${level}` });
    text.split(/(?=\n)/).forEach((part) => {
      if (part.startsWith('\n')) element.append(make('i', { class: 'break' })); // a break alone would leave nothing to point at
      element.append(part);
    });
    return { element, token, entropy };
  }

  #listen() {
    const { text } = this;
    const indexOf = (event) => this.spans.findIndex(({ element }) => element === event.target.closest('span'));
    text.addEventListener('pointerover', (event) => event.pointerType === 'mouse' && !this.#pinned && indexOf(event) >= 0 && this.#show(indexOf(event)));
    text.addEventListener('pointerleave', () => !this.#pinned && this.#hide());
    text.addEventListener('click', (event) => {
      const index = indexOf(event);
      if (index < 0 || (this.#pinned && index === this.#at)) return this.#hide();
      this.#pinned = true;
      return this.#show(index);
    });
    text.addEventListener('keydown', (event) => this.#key(event));
    text.addEventListener('blur', () => this.#hide());
  }

  #key(event) {
    const last = this.spans.length - 1;
    const to = { ArrowLeft: this.#at - 1, ArrowUp: this.#at - 1, ArrowRight: this.#at + 1, ArrowDown: this.#at + 1, Home: 0, End: last }[event.key];
    if (event.key === 'Escape' && this.#at >= 0) this.#hide();
    else if (to !== undefined) {
      this.#pinned = true;
      this.#show(Math.min(last, Math.max(0, to)));
      this.said.textContent = this.#words();
    } else return;
    event.preventDefault();
    event.stopPropagation();
  }

  #show(index) {
    this.spans[this.#at]?.element.classList.remove('current');
    this.#at = index;
    const { element, token, entropy } = this.spans[index];
    element.classList.add('current');
    const chosen = token.top.some(({ id, text }) => id === token.id && text === token.text);
    const rows = token.top.map((each) => this.#row(each, each.id === token.id && each.text === token.text));
    if (!chosen) rows.push(this.#row(token, true));
    this.popover.replaceChildren(make('ol', {}, ...rows),
      make('p', { text: `${entropy.toFixed(1)} bits of uncertainty${token.tier ? `, tier ${token.tier}` : ''}` }));
    if (!this.popover.isConnected) document.body.append(this.popover);
    this.popover.hidden = false;
    addEventListener('scroll', this.#follow, SCROLL);
    this.#place();
  }

  #row({ text, logprob }, chosen) {
    const bar = make('i');
    bar.style.setProperty('inline-size', `${100 * Math.exp(logprob)}%`);
    return make('li', { class: chosen ? 'chosen' : undefined }, make('span', { class: 'token', text: visible(text) }), make('span', { class: 'share' }, bar), make('span', { class: 'value', text: percent(logprob) }));
  }

  /** Under the token, or above where there is no room; never beyond the window. */
  #place() {
    const { popover } = this;
    const boxes = this.spans[this.#at].element.getClientRects();
    const token = boxes[0];
    if (!token || token.bottom < 0 || token.top > innerHeight) return void (popover.hidden = true);
    popover.hidden = false;
    const { width, height } = popover.getBoundingClientRect();
    const below = token.bottom + 6;
    const top = below + height <= innerHeight - 8 || token.top - 6 - height < 8 ? below : token.top - 6 - height;
    popover.style.setProperty('left', `${Math.max(8, Math.min(token.left, document.documentElement.clientWidth - width - 8))}px`);
    popover.style.setProperty('top', `${Math.max(8, Math.min(top, innerHeight - height - 8))}px`);
  }

  /** What the popover shows, for those who hear it. */
  #words() {
    const { token } = this.spans[this.#at];
    const say = ({ text, logprob }) => `${visible(text)} ${percent(logprob)}`;
    const others = token.top.filter(({ text }) => text !== token.text).slice(0, 4);
    return `${say(token)}. Others: ${others.map(say).join(', ')}`;
  }

  #hide() {
    this.spans[this.#at]?.element.classList.remove('current');
    this.#at = -1;
    this.#pinned = false;
    this.popover.hidden = true;
    removeEventListener('scroll', this.#follow, SCROLL);
  }
}
