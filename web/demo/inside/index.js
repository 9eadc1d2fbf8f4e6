// index.js - looking inside: the panel beside a chat, the probabilities of an answer's tokens, the tiers side by side. This is all the
// page sees of this folder; it is loaded when it is first asked for.

import { make } from '../dom.js';
import { Anatomy } from './anatomy.js';
import { openCompare } from './compare.js';
import { renderProbabilities } from './probabilities.js';
import { SpeedView } from './speed.js';

export { openCompare, renderProbabilities };

await loadStyles(new URL('./inside.css', import.meta.url).href);

/** Whoever imports this draws nothing without them. */
function loadStyles(href) {
  const link = make('link', { rel: 'stylesheet', href });
  return new Promise((resolve) => {
    link.addEventListener('load', resolve);
    link.addEventListener('error', resolve);
    document.head.append(link);
  });
}

/**
 * The panel, drawn into root.
 * @param {{root: HTMLElement, getModel: () => object | null, getSource?: () => any, getPrompt?: () => string, onClose?: () => void}} parts
 *   getSource: what load() takes, for comparing tiers; getPrompt: what to compare them with; onClose: called by Escape in the panel
 * @returns what the page tells it:
 *   modelChanged(model | null)   also when the same model has got another tier
 *   answerStarted({tier})        before the prompt is read
 *   prefill({done, total})
 *   token({text, logprob?, top?, tier, time})   time: ms, as performance.now() gives it
 *   answerEnded(stats)           GenerateStats, or null
 */
export function createInside({ root, getModel, getSource, getPrompt = () => '', onClose }) {
  const speed = new SpeedView();
  const anatomy = new Anatomy();
  const compare = make('button', {
    type: 'button', class: 'quiet', text: 'Compare the tiers',
    onclick: () => openCompare({ root: document.body, getModel, getSource, prompt: getPrompt() }),
  });
  const tail = make('section', { class: 'inside-section', 'aria-labelledby': 'inside-compare-title' },
    make('h3', { id: 'inside-compare-title', text: 'Tiers side by side' }),
    make('p', { class: 'inside-note', text: 'The same question, answered by the first tier alone, by the first two, and so on.' }), compare);
  root.replaceChildren(speed.element, anatomy.element, tail);
  root.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || event.defaultPrevented || !onClose) return;
    event.preventDefault();
    onClose();
  });

  let shown = false;
  let stale = true; // has the model changed since it was drawn?
  const draw = () => {
    const model = getModel();
    speed.setModel(model);
    tail.hidden = !getSource || !(model?.info.tiers > 1);
    if (shown && stale) {
      stale = false;
      anatomy.setModel(model);
    }
  };
  draw();
  return {
    show() {
      shown = true;
      draw();
      speed.show();
    },
    hide() {
      shown = false;
      speed.hide();
    },
    modelChanged() {
      stale = true;
      draw();
    },
    answerStarted: (meta) => speed.begin(meta),
    prefill: (progress) => speed.prefill(progress),
    token: (token) => speed.token(token),
    answerEnded: (stats) => speed.end(stats),
  };
}
