// toast.js - a line at the edge of the page that goes away by itself, with one thing to do about it.

import { announce } from './announcer.js';
import { $, iconButton, make } from './dom.js';

const STAYS = 9000;

/** Above all that is open: the drawer and dialogs are in the browser's top layer, where the latest one is highest. */
function raise(element) {
  if (element.matches(':popover-open')) element.hidePopover();
  element.showPopover();
}

/** @param {{label: string, run: Function}} [action] */
export function toast(text, action) {
  const line = make('div', { class: 'toast', role: 'status' }, make('span', { text }));
  const close = () => {
    if (!line.isConnected) return;
    line.remove();
    $('toasts').hidePopover();
  };
  if (action) {
    line.append(make('button', { type: 'button', class: 'quiet', text: action.label, onclick: () => {
      close();
      action.run();
    } }));
  }
  line.append(iconButton('close', 'Dismiss', close));
  $('toasts').replaceChildren();
  raise($('toasts'));
  $('toasts').append(line);
  if (document.querySelector('dialog[open]')) announce(text); // what is behind it is not told
  let timer = setTimeout(close, STAYS);
  // It must not go away while it is read or reached for.
  for (const event of ['pointerenter', 'focusin']) line.addEventListener(event, () => clearTimeout(timer));
  for (const event of ['pointerleave', 'focusout']) line.addEventListener(event, () => (timer = setTimeout(close, STAYS)));
}
