// dom.js - elements, made without markup: text goes in as text, so nothing in it can become anything else.

export const $ = (id) => document.getElementById(id);

const SVG = 'http://www.w3.org/2000/svg';

/**
 * @param {string} tag
 * @param {object} props `class`, `text`, `onclick` and other listeners; everything else is an attribute (true: empty, false: none)
 * @param {...(Node | string)} children
 */
export function make(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props)) {
    if (value === undefined || value === null || value === false) continue;
    if (key === 'text') element.textContent = value;
    else if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? '' : value);
  }
  element.append(...children);
  return element;
}

/** A symbol of index.html. */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const use = document.createElementNS(SVG, 'use');
  use.setAttribute('href', `#icon-${name}`);
  svg.append(use);
  return svg;
}

export const iconButton = (name, label, onclick, props = {}) =>
  make('button', { type: 'button', class: 'icon-button', 'aria-label': label, title: label, onclick, ...props }, icon(name));

/** A dialog closes by a press outside of it, not by one that begins inside and ends there, nor by one between its parts. */
export function closeOutside(dialog) {
  const outside = ({ target, clientX, clientY }) => {
    const { left, right, top, bottom } = dialog.getBoundingClientRect();
    return target === dialog && (clientX < left || clientX > right || clientY < top || clientY > bottom);
  };
  let begun = false;
  dialog.addEventListener('pointerdown', (event) => (begun = outside(event)));
  dialog.addEventListener('click', (event) => begun && outside(event) && dialog.close());
}

/** Saves text as a file of the visitor's. */
export function download(name, text, type = 'application/json') {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return copyBySelection(text); // no permission, or no secure context
  }
}

function copyBySelection(text) {
  const focused = document.activeElement;
  const box = make('textarea', { class: 'hidden', readonly: true, 'aria-hidden': 'true' });
  box.value = text;
  (document.querySelector('dialog[open]') ?? document.body).append(box);
  box.select();
  const done = document.execCommand('copy');
  box.remove();
  focused?.focus({ preventScroll: true });
  return done;
}

const saying = new WeakMap(); // button -> {label, timer}: what it is called, until when it says something else

/** Puts text on the clipboard and says so on the button. */
export async function copyFrom(button, text) {
  const said = (await copy(text)) ? 'Copied' : 'Not allowed';
  const { label = button.getAttribute('aria-label'), timer } = saying.get(button) ?? {};
  clearTimeout(timer);
  button.dataset.said = said;
  button.setAttribute('aria-label', said);
  const back = () => {
    delete button.dataset.said;
    button.setAttribute('aria-label', label);
    saying.delete(button);
  };
  saying.set(button, { label, timer: setTimeout(back, 1600) });
}
