// chat-view.js - the messages of the conversation that is shown.
//
// actions: edit(message, text), regenerate(message), resume(message), choose(message, step: -1 | 1), probabilities(message, view)

import { AnswerView } from './answer-view.js';
import { siblingsOf, pathOf } from './conversation.js';
import { $ } from './dom.js';
import { QuestionView } from './question-view.js';

const NEAR = 80; // pixels from the end that still count as its end

export class ChatView {
  constructor(root, actions) {
    this.root = root;
    this.views = new Map(); // message id -> its view
    this.following = true;
    this.top = 0; // where the page was scrolled to
    this.actions = { ...actions, atBottom: () => this.following, toBottom: () => this.toBottom() };
    addEventListener('scroll', () => this.noteScroll(), { passive: true });
    addEventListener('resize', () => this.following && this.toBottom());
    $('to-end').addEventListener('click', () => this.toBottom(true));
  }

  /** situation: {busy, live: id of the answer made here, elsewhere: is another tab answering?, tokensOf(id)} */
  show(conversation, situation) {
    if (conversation.id !== this.shown) this.clear(conversation.id);
    const path = pathOf(conversation);
    path.forEach((message, i) => {
      const view = this.viewOf(message);
      if (this.root.children[i] !== view.element) this.root.insertBefore(view.element, this.root.children[i] ?? null);
      view.update({
        busy: situation.busy,
        live: situation.live === message.id,
        elsewhere: situation.elsewhere && message.state === 'writing',
        siblings: siblingsOf(conversation, message),
        tokens: situation.tokensOf(message.id),
      });
    });
    while (this.root.children.length > path.length) this.root.lastElementChild.remove();
  }

  clear(id) {
    this.shown = id;
    this.views.clear();
    this.root.replaceChildren();
    this.following = true;
    this.top = 0;
    $('to-end').hidden = true;
  }

  viewOf(message) {
    const old = this.views.get(message.id);
    if (old?.message === message) return old;
    old?.element.remove();
    const View = message.role === 'user' ? QuestionView : AnswerView;
    const view = new View(message, this.actions);
    this.views.set(message.id, view);
    return view;
  }

  /** The view of an answer, if its conversation is the one that is shown. */
  answer(message) {
    const view = this.views.get(message.id);
    return view?.message === message ? view : null;
  }

  /** After another version was chosen: the same step is at hand again. */
  focusStep(message, by) {
    requestAnimationFrame(() => { // when it has been drawn
      const steps = [...(this.views.get(message.id)?.element.querySelectorAll('.variants button:enabled') ?? [])];
      (steps.find(({ dataset }) => dataset.step === String(by)) ?? steps[0])?.focus();
    });
  }

  /** Whoever scrolls up, however little, wants to read there: growing text does not pull back. */
  noteScroll() {
    const page = document.scrollingElement;
    const left = page.scrollHeight - page.scrollTop - innerHeight;
    if (left < 2) this.following = true;
    else if (page.scrollTop < this.top) this.following = false;
    else if (left < NEAR) this.following = true;
    this.top = page.scrollTop;
    $('to-end').hidden = this.following || this.root.childElementCount === 0;
  }

  toBottom(smooth = false) {
    const page = document.scrollingElement;
    const calm = matchMedia('(prefers-reduced-motion: reduce)').matches;
    scrollTo({ top: page.scrollHeight, behavior: smooth && !calm ? 'smooth' : 'instant' });
  }
}
