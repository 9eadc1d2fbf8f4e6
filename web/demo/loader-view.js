// loader-view.js - the first minute: the card with one button, the strip that fills, and what is said meanwhile.

import { announce } from './announcer.js';
import { FIRST_TIER, MODEL_FACTS } from './config.js';
import { $ } from './dom.js';
import { Strip } from './strip.js';
import { explainCache, megabytes, seconds } from './words.js';

/** '12 of 62 MB · 3.1 MB/s · 16 s left' */
export function progressText({ loaded, total, rate, eta }, paused, online = true) {
  const parts = [total ? `${megabytes(loaded)} of ${megabytes(total)}` : megabytes(loaded)];
  if (paused) parts.push('paused');
  else if (rate === 0 && loaded !== total) parts.push(online ? 'waiting for the server' : 'no network: it goes on when there is one');
  if (paused) return parts.join(' \u00b7 ');
  if (rate) parts.push(`${megabytes(rate)}/s`);
  if (eta >= 1) parts.push(`${seconds(eta)} left`);
  return parts.join(' \u00b7 ');
}

export class LoaderView {
  constructor(loader) {
    this.loader = loader;
    this.strips = [new Strip($('strip')), new Strip($('arrival-strip'))];
    this.said = '';
    $('load').addEventListener('click', () => loader.start());
    for (const id of ['cancel', 'arrival-stop']) $(id).addEventListener('click', () => loader.cancel());
    for (const id of ['pause', 'arrival-pause']) $(id).addEventListener('click', () => (loader.paused ? loader.resume() : loader.pause()));
    $('arrival-again').addEventListener('click', () => loader.start());
  }

  draw() {
    const { state, model, name, paused, progress } = this.loader;
    document.body.dataset.model = state;
    $('model-name').textContent = name;
    $('model-open-name').textContent = name;
    $('model-size').textContent = this.sizeText();
    this.drawCard(state);
    this.drawArrival(state);
    if (progress) this.drawProgress(progress, paused);
    for (const id of ['pause', 'arrival-pause']) this.drawPause($(id), paused);
    $('tier').hidden = !model || model.info.tiers < 2;
    if (model) $('tier').textContent = `tier ${model.info.tier} of ${model.info.tiers}`;
    this.say(state, paused);
  }

  sizeText() {
    const { size, kept, source } = this.loader;
    if (!size) return '';
    const parts = [megabytes(size)];
    if (source.own) parts[0] += `, about ${megabytes(MODEL_FACTS.memory)} of memory`;
    if (kept > 0) parts.push(kept >= size ? 'kept here' : `${megabytes(kept)} are here already`);
    return parts.join(' \u00b7 ');
  }

  drawCard(state) {
    const loading = state === 'loading';
    const compact = loading && !document.body.classList.contains('empty'); // the conversation has the room
    const { kept, size, problem } = this.loader;
    const hadFocus = $('loading').contains(document.activeElement);
    $('card').hidden = compact || state === 'arriving' || state === 'ready';
    $('loading').hidden = !loading;
    $('load').hidden = $('load-other').hidden = loading;
    $('load-label').textContent = state === 'failed' ? 'Try again' : kept > 0 && kept < size ? 'Go on loading' : 'Load the model';
    $('failure').hidden = state !== 'failed';
    if ($('failure-text').textContent !== problem) $('failure-text').textContent = problem;
    if (hadFocus && !loading && !$('card').hidden) $('load').focus();
    $('hint').hidden = !loading;
  }

  /** What comes while the conversation goes on. */
  drawArrival(state) {
    const { model, problem } = this.loader;
    const cut = state === 'ready' && model.info.tier < Math.min(model.info.tiers, this.loader.tiersThere);
    const coming = state === 'loading' ? $('card').hidden : state === 'arriving' && model.info.tier < model.info.tiers;
    $('arrival').hidden = !coming && !cut;
    $('arrival-strip').hidden = cut;
    $('arrival-pause').hidden = $('arrival-stop').hidden = cut;
    $('arrival-again').hidden = !cut;
    if (cut) $('arrival-text').textContent = problem || `Tier ${model.info.tier} of ${model.info.tiers} is in use. The rest was not loaded.`;
  }

  drawProgress(progress, paused) {
    const text = progressText(progress, paused, navigator.onLine);
    $('progress-text').textContent = text;
    if (!$('arrival-strip').hidden) $('arrival-text').textContent = text;
    const { ends, size } = this.loader;
    for (const strip of this.strips) {
      if (strip.ends !== ends) strip.setEnds(ends);
      strip.update(progress.loaded, progress.total ?? size);
      strip.root.setAttribute('aria-valuetext', text);
    }
    $('hint').textContent = ends.length > FIRST_TIER
      ? `You can write already. Answers begin with tier ${FIRST_TIER}, and get better when the next one is there.` : 'You can write already. The answer comes as soon as the model is there.';
  }

  drawPause(button, paused) {
    const label = paused ? 'Resume' : 'Pause';
    button.querySelector('use').setAttribute('href', paused ? '#icon-play' : '#icon-pause');
    button.querySelector('span').textContent = label;
  }

  /** Each turn of events is announced once. */
  say(state, paused) {
    const { model, progress, problem, name } = this.loader;
    const tier = model?.info.tiers > 1 ? ` with tier ${model.info.tier} of ${model.info.tiers}` : '';
    const text = {
      loading: paused ? 'The download is paused' : `Loading ${name}`, arriving: `${name} is ready${tier}`, ready: `${name} is ready${tier}`,
    }[state] ?? '';
    if (text !== this.said && text) announce(text);
    this.said = text;
    const kept = state === 'ready' ? explainCache(progress?.cacheReason ?? model?.info.cacheReason) : '';
    $('kept').hidden = kept === '' || this.keptDismissed === kept || problem !== '';
    $('kept-text').textContent = kept;
  }
}
