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

/** Saves text as a file of the visitor's. */
export function download(name, text, type = 'application/json') {
  const url = URL.createObjectURL(new Blob([text], { type }));
  make('a', { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
}

/** Puts text on the clipboard and says so on the button. */
export async function copyFrom(button, text) {
  let done = true;
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    done = false; // no permission, or no secure context
  }
  const label = button.getAttribute('aria-label');
  button.dataset.said = done ? 'Copied' : 'Not allowed';
  button.setAttribute('aria-label', button.dataset.said);
  setTimeout(() => {
    delete button.dataset.said;
    button.setAttribute('aria-label', label);
  }, 1600);
}
