// variants.js - '< 2 / 3 >': other versions of a question or an answer.

import { iconButton, make } from './dom.js';

export function makeVariants(message, siblings, choose) {
  if (siblings.length < 2) return [];
  const at = siblings.indexOf(message);
  const step = (name, label, by) =>
    iconButton(name, label, () => choose(siblings[at + by], by), { disabled: !siblings[at + by], 'data-step': by });
  return [make('span', { class: 'variants', role: 'group', 'aria-label': 'Versions' },
    step('left', 'Previous version', -1), make('span', { text: `${at + 1} / ${siblings.length}` }), step('right', 'Next version', 1))];
}
