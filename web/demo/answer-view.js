// answer-view.js - one answer on the page: its text as it grows, how it was made, and what can be done with it.

import { copyFrom, iconButton, make } from './dom.js';
import { MarkdownView } from './markdown.js';
import { makeVariants } from './variants.js';
import { count } from './words.js';

const ENDS = { abort: 'stopped', length: 'cut at the longest length', context: 'the context is full' };
const LONG_PROMPT = 64; // tokens from which reading takes a time worth telling
const DRAW_EVERY = 50; // ms: growing text is drawn so often and no more, for without a GPU a frame takes time from the threads that make the text

/** '2', or '2 to 3' where a tier came while it was written */
const tiersOf = ({ firstTier, tier }) => (firstTier < tier ? `${firstTier} to ${tier}` : tier);

/** 'tier 2 of 3 · 41 tokens · ...' */
export function factsOf(answer) {
  const parts = [];
  if (answer.state === 'failed' && !answer.text) return '';
  if (answer.tiers > 1) parts.push(`tier ${tiersOf(answer)} of ${answer.tiers}`);
  if (answer.tokens) parts.push(count(answer.tokens, 'token'));
  if (answer.speed) parts.push(`${answer.speed.toFixed(1)} tokens/s`);
  if (isFinite(answer.first ?? NaN)) parts.push(`first after ${answer.first.toFixed(2)} s`);
  if (answer.leftOut) parts.push(`${count(answer.leftOut, 'earlier message')} left out`);
  if (answer.plain) parts.push('continued as text: this model has no chat template');
  if (ENDS[answer.finishReason]) parts.push(ENDS[answer.finishReason]);
  return parts.join(' \u00b7 ');
}

/** JSON as it is meant to be read, once it is whole. */
function asMarkdown({ text, json, state }) {
  if (!json || text === '') return text;
  let shown = text;
  try {
    if (state === 'done') shown = JSON.stringify(JSON.parse(text), null, 2);
  } catch {
    // cut off before its end
  }
  return `\`\`\`\`json\n${shown}\n\`\`\`\``;
}

export class AnswerView {
  /** actions: see chat-view.js */
  constructor(message, actions) {
    this.message = message;
    this.actions = actions;
    this.status = ''; // before the first token: what is waited for
    this.frame = 0; // asked for
    this.timer = 0; // until it is asked for
    this.drawn = 0; // when
    this.tokens = null; // shown as probabilities instead of as Markdown
    this.shown = null; // the Markdown that is
    this.text = make('div', { class: 'text' });
    this.markdown = new MarkdownView(this.text);
    this.waiting = make('p', { class: 'waiting', hidden: true });
    this.problem = make('p', { class: 'problem', role: 'alert', hidden: true });
    this.facts = make('p', { class: 'facts' });
    this.buttons = make('div', { class: 'actions' });
    this.element = make('article', { class: 'message assistant', 'aria-label': 'Answer' },
      this.text, this.waiting, this.problem, make('div', { class: 'below' }, this.buttons, this.facts));
  }

  /** Draws with the next frame; live: it is being written in this tab; elsewhere: in another. */
  update(state) {
    this.state = state;
    this.frame ||= requestAnimationFrame(() => this.draw());
  }

  /** Reading a long prompt takes time: say how far it is. */
  reading({ done, total }) {
    this.status = total >= LONG_PROMPT && done < total ? `Reading your text: ${Math.floor((100 * done) / total)} %` : '';
    this.update(this.state);
  }

  /** What the answer waits for before the model is asked; '': nothing. */
  waitFor(status) {
    this.status = status;
    this.update(this.state);
  }

  /** The text has become longer. */
  grow() {
    this.timer ||= setTimeout(() => this.update(this.state), Math.max(0, this.drawn + DRAW_EVERY - performance.now()));
  }

  draw() {
    cancelAnimationFrame(this.frame);
    clearTimeout(this.timer);
    this.frame = this.timer = 0;
    this.drawn = performance.now();
    const { message, state } = this;
    const follow = this.actions.atBottom();
    this.element.classList.toggle('busy', state.live);
    this.element.setAttribute('aria-busy', state.live);
    if (!this.tokens) this.drawText(asMarkdown(message));
    this.waiting.hidden = !state.live || message.text !== '';
    this.waiting.textContent = this.status || 'Thinking';
    this.problem.hidden = !message.problem;
    this.problem.textContent = message.problem ?? '';
    this.facts.textContent = this.factsText(state);
    if (this.buttonsFor !== this.buttonsKey(state)) this.drawButtons(state);
    if (follow) this.actions.toBottom();
  }

  drawText(text) {
    if (text === this.shown) return;
    this.shown = text;
    this.markdown.update(text);
  }

  factsText({ live, elsewhere }) {
    if (live) return '';
    if (elsewhere) return 'another tab is writing this answer';
    const facts = factsOf(this.message);
    return this.message.state === 'writing' ? ['interrupted', facts].filter(Boolean).join(' \u00b7 ') : facts;
  }

  buttonsKey({ live, elsewhere, busy, siblings, tokens }) {
    const { id, state, finishReason } = this.message;
    return [live, elsewhere, busy, state, finishReason, !!tokens, !!this.tokens, siblings.map((each) => each.id).join(), id].join(' ');
  }

  drawButtons(state) {
    this.buttonsFor = this.buttonsKey(state);
    this.buttons.replaceChildren(...(state.live || state.elsewhere ? [] : this.makeButtons(state)));
  }

  makeButtons({ siblings, busy, tokens }) {
    const { message, actions } = this;
    const buttons = [];
    if (message.text) buttons.push(this.copyButton());
    if (!busy) {
      const again = () => actions.regenerate(message);
      if (message.state === 'failed') buttons.push(quietButton('Try again', again));
      else buttons.push(iconButton('again', 'Answer again', again));
      if (canResume(message)) buttons.push(quietButton('Continue', () => actions.resume(message)));
    }
    if (tokens) {
      const shown = iconButton('chart', 'Probabilities of the tokens', () => actions.probabilities(message, this), { 'aria-pressed': String(!!this.tokens) });
      buttons.push(shown);
    }
    return [...makeVariants(message, siblings, actions.choose), ...buttons];
  }

  copyButton() {
    const button = iconButton('copy', 'Copy answer', () => copyFrom(button, this.message.text));
    return button;
  }

  /** tokens: [{text, logprob, top}] to show instead of the Markdown, null: back; fill(element, tokens) draws them */
  showTokens(tokens, fill) {
    if (!tokens && !this.tokens) return;
    [this.tokens, this.shown] = [tokens, null];
    this.text.replaceChildren();
    this.text.classList.toggle('tokens', !!tokens);
    this.markdown = new MarkdownView(this.text);
    if (tokens) fill(this.text, tokens);
    this.draw();
  }
}

const quietButton = (text, onclick) => make('button', { type: 'button', class: 'quiet', text, onclick });

/** A grammar cannot begin in the middle of an answer, so JSON is made anew instead. */
export const canResume = ({ state, finishReason, json, text }) => !json && text !== '' && (state !== 'done' || ['abort', 'length'].includes(finishReason));
