// chat.js - conversations and the answers in them: which one is shown, what is being written, what is kept.

import { announceAnswer } from './announcer.js';
import { PLAIN_TEMPLATE } from './config.js';
import { isAnswered, whenAnswered, whileAnswering } from './conversation-store.js';
import { addMessage, chooseMessage, newConversation, pathOf, pathTo, promptOf, takeOver } from './conversation.js';
import { forTab } from './kept.js';
import { fitted } from './room.js';
import { toast } from './toast.js';
import { explain } from './words.js';

const KEEP_EVERY = 300; // ms: so much of an answer may be lost when the tab dies

export class Chat {
  #runs = new Map(); // conversation id -> {answer, stop: AbortController}
  #elsewhere = false;
  #watched = new Set(); // conversations that other tabs are answering
  #opening = null; // of the conversation that is being fetched to be shown
  #tokens = new Map(); // answer id -> its tokens with probabilities
  #plain = new WeakSet(); // models without a chat template

  /**
   * @param {{store, loader, settings, status, hooks}} parts hooks: see inside-panel.js
   * onchange(): the conversation that is shown, or whether it is being answered, has changed; onlist(): any other
   */
  constructor(parts) {
    Object.assign(this, parts);
    this.current = newConversation();
    this.onchange = this.onlist = () => {};
    this.store.listen((news) => this.#heard(news));
  }

  /** ChatView, set once it is there */
  view = null;

  get busy() {
    return this.#runs.has(this.current.id) || this.#elsewhere;
  }

  /** Is any conversation being answered in this tab? */
  get running() {
    return this.#runs.size > 0;
  }

  /** Is this conversation being answered in this tab? */
  isRunning(id) {
    return this.#runs.has(id);
  }

  draw() {
    const run = this.#runs.get(this.current.id);
    this.view.show(this.current, {
      busy: this.busy, live: run?.answer.id, elsewhere: this.#elsewhere, tokensOf: (id) => this.#tokens.get(id),
    });
    this.onchange();
  }

  begin() {
    return this.#show(newConversation());
  }

  /** Shows a conversation as it is now: the caller's copy may be old. An answer in the one before goes on. */
  async open(conversation) {
    const { id } = conversation;
    const opening = (this.#opening = {});
    const kept = this.living(id) ?? (await this.store.get(id)) ?? conversation;
    if (this.#opening === opening) await this.#show(this.living(id) ?? kept);
  }

  async #show(conversation) {
    this.#opening = null;
    this.current = conversation;
    this.#elsewhere = false;
    const elsewhere = await this.#isAnsweredElsewhere(conversation.id);
    if (this.current !== conversation) return; // something else was opened meanwhile
    this.#elsewhere = elsewhere;
    forTab.set('conversation', this.current.id);
    this.draw();
    this.view.toBottom();
  }

  send(text) {
    if (this.busy || !text.trim()) return false;
    const question = addMessage(this.current, pathOf(this.current).at(-1), { role: 'user', text: text.trim() });
    this.#answerTo(question);
    return true;
  }

  /** false: not while an answer is made. */
  edit(message, text) {
    if (this.busy) return false;
    const question = addMessage(this.current, this.#parentOf(message), { role: 'user', text });
    this.#answerTo(question);
    return true;
  }

  regenerate(answer) {
    if (!this.busy) this.#answerTo(this.#parentOf(answer));
  }

  resume(answer) {
    if (this.busy) return;
    if (!this.hooks.wantsTokens()) this.#tokens.delete(answer.id); // they would end in the middle
    this.view.answer(answer)?.showTokens(null);
    this.#run(this.current, answer);
  }

  choose(message) {
    chooseMessage(this.current, message);
    this.store.put(this.current);
    this.draw();
  }

  /** The conversation as it is being changed in this tab, or null. */
  living(id) {
    return this.#runs.get(id)?.conversation ?? (this.current.id === id ? this.current : null);
  }

  stop() {
    this.#runs.get(this.current.id)?.stop.abort();
  }

  stopAll() {
    for (const { stop } of this.#runs.values()) stop.abort();
  }

  /** Gives up a conversation that is deleted. */
  drop(id) {
    const run = this.#runs.get(id);
    if (run) run.dropped = true;
    run?.stop.abort();
    if (id === this.current.id) this.begin();
  }

  /** Writes what has not been written yet: the page may be about to go. */
  flush() {
    for (const run of this.#runs.values()) this.#keep(run, true);
  }

  /** The page goes: also what can no longer be written is kept. */
  leave() {
    this.flush();
    this.store.leave([...this.#runs.values()].filter(({ dropped }) => !dropped).map(({ conversation }) => conversation));
  }

  tokensOf(answer) {
    return this.#tokens.get(answer.id);
  }

  #parentOf({ parent }) {
    return this.current.messages.find(({ id }) => id === parent) ?? null;
  }

  #answerTo(question) {
    this.#run(this.current, addMessage(this.current, question, { role: 'assistant', state: 'writing' }));
  }

  async #run(conversation, answer) {
    const run = { conversation, answer, before: answer.text === '' ? null : { ...answer }, stop: new AbortController() };
    this.#runs.set(conversation.id, run);
    Object.assign(answer, { state: 'writing', problem: undefined, finishReason: undefined });
    this.draw();
    this.view.toBottom();
    const mine = await whileAnswering(conversation.id, async () => {
      this.#keep(run, true).then(() => this.onlist());
      await this.#write(run);
      return true;
    });
    if (this.#runs.get(conversation.id) === run) this.#runs.delete(conversation.id);
    conversation.updated = Date.now();
    // What another tab has written there is newer: only this page shows what was not done.
    if (mine) this.#keep(run, true).then(() => this.onlist());
    else Object.assign(answer, { state: 'failed', problem: 'Another tab is answering this conversation.' });
    if (this.current === conversation) this.draw();
  }

  async #write(run) {
    const { answer } = run;
    try {
      const end = await this.#generate(run);
      Object.assign(answer, { state: 'done', finishReason: end.finishReason });
      this.#note(run, end.stats);
      if (this.#shows(run)) announceAnswer(answer.id, answer.text || 'No answer', true);
    } catch (error) {
      if (run.stop.signal.aborted) return Object.assign(answer, { state: 'done', finishReason: 'abort' });
      Object.assign(answer, { state: 'failed', problem: explain(error) });
    }
    return undefined;
  }

  #note(run, stats) {
    if (!stats) return;
    const { answer, before } = run; // before: what is continued
    answer.tokens = before ? before.tokens && before.tokens + stats.completionTokens : stats.completionTokens;
    answer.speed = stats.decodeTokensPerSecond ?? undefined;
    if (!before) answer.first = stats.timeToFirstToken ?? undefined;
    answer.context = stats.promptTokens + stats.completionTokens;
    answer.seed = String(stats.seed);
    answer.firstTier = before?.firstTier ?? before?.tier ?? stats.firstTier ?? answer.tier;
    answer.tier = stats.lastTier ?? answer.tier;
    if (this.#shows(run)) this.status.answered(stats);
    this.hooks.answerEnded(stats);
  }

  async #generate(run) {
    const { answer, stop } = run;
    this.view.answer(answer)?.waitFor(this.loader.model ? '' : 'Waiting for the model');
    const model = await this.loader.whenReady(stop.signal);
    this.view.answer(answer)?.waitFor('');
    const { tiers, tier } = model.info;
    Object.assign(answer, { model: this.loader.name, tiers, tier });
    if (!run.before) answer.json = this.settings.json || undefined;
    this.hooks.answerStarted({ id: answer.id, model: answer.model, tier: answer.tier, text: answer.text });
    try {
      return await this.#stream(run, model, this.#plain.has(model) ? PLAIN_TEMPLATE : undefined);
    } catch (error) {
      if (error.code !== 'unsupported' || !/chat template/.test(error.message)) throw error;
      this.#plain.add(model);
      return this.#stream(run, model, PLAIN_TEMPLATE);
    }
  }

  async #stream(run, model, template) {
    const { answer, conversation, stop } = run;
    answer.plain = template ? true : undefined;
    const earlier = run.before ? this.#tokens.get(answer.id) : [];
    const tokens = (this.hooks.wantsTokens() && earlier) || null;
    const options = this.settings.options();
    if (run.before) options.json = options.jsonSchema = undefined; // a grammar cannot begin in the middle
    let messages = promptOf(conversation, answer, this.settings.system);
    const before = pathTo(conversation, answer).findLast((each) => each.leftOut)?.leftOut;
    answer.leftOut = undefined;
    if (options.overflow === 'shift') ({ messages, leftOut: answer.leftOut } = await fitted(model, messages, options.maxTokens, before));
    const generation = model.chat(messages, {
      ...options,
      template,
      continueLast: answer.text !== '',
      logprobs: tokens ? 10 : undefined,
      signal: stop.signal,
      onPrefill: (progress) => {
        this.view.answer(answer)?.reading(progress);
        this.status.reading(progress);
        this.hooks.prefill(progress);
      },
    });
    for await (const chunk of generation) this.#take(run, chunk, tokens);
    if (tokens?.length) this.#tokens.set(answer.id, tokens);
    return generation.result;
  }

  #take(run, { text, id, logprobs }, tokens) {
    const { answer } = run;
    answer.text += text;
    if (id !== null) this.status.token(this.#shows(run));
    if (tokens && logprobs) {
      const token = { ...logprobs, tier: answer.tier, time: performance.now() };
      tokens.push(token);
      this.hooks.token(token);
    } else if (id !== null) {
      this.hooks.token({ text, id, tier: answer.tier, time: performance.now() });
    }
    this.#keep(run, false);
    if (!this.#shows(run)) return;
    this.view.answer(answer)?.grow();
    announceAnswer(answer.id, answer.text);
  }

  #shows({ conversation }) {
    return conversation === this.current;
  }

  #keep(run, now) {
    const time = Date.now();
    if (run.dropped || (!now && time - (run.kept ?? 0) < KEEP_EVERY)) return Promise.resolve();
    run.kept = time;
    return this.store.put(run.conversation);
  }

  /** Is another tab answering it? Then this hears of the end, however it comes. */
  async #isAnsweredElsewhere(id) {
    const elsewhere = !this.isRunning(id) && (await isAnswered(id));
    if (elsewhere && !this.#watched.has(id)) {
      this.#watched.add(id);
      whenAnswered(id).then(() => {
        this.#watched.delete(id);
        return this.#heard({ id });
      });
    }
    return elsewhere;
  }

  /** Another tab has written a conversation, has given it a title, deleted it, or come to the end of an answer. */
  async #heard({ id, deleted, title, named }) {
    const run = this.#runs.get(id);
    if (run) return deleted ? this.#heardDeletion(run) : this.#heardTitle(run, title, named);
    this.onlist();
    if (id !== this.current.id) return undefined;
    const found = await this.store.get(id);
    const elsewhere = await this.#isAnsweredElsewhere(id);
    if (id !== this.current.id || this.#runs.has(id)) return undefined;
    if (!found && this.current.messages.length > 0) {
      toast('This conversation was deleted in another tab.');
      return this.begin();
    }
    if (found) takeOver(this.current, found);
    this.#elsewhere = elsewhere;
    return this.draw();
  }

  /** What is being answered here is written again and again: what is deleted elsewhere must not come back by that. */
  async #heardDeletion({ conversation }) {
    this.drop(conversation.id);
    await this.store.delete(conversation.id);
    this.onlist();
    toast(`\u201c${conversation.title}\u201d was deleted in another tab.`);
  }

  #heardTitle({ conversation }, title, named) {
    if (!named || conversation.title === title) return;
    Object.assign(conversation, { title, named });
    this.onchange();
    this.onlist();
  }
}
