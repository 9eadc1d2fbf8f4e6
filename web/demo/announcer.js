// announcer.js - what a screen reader says. An answer is told in whole sentences and in batches: every token would be noise.

import { $ } from './dom.js';

const PAUSE = 3000; // ms between two batches

let told = 0; // characters of the answer
let last = 0; // when
let current = null; // which answer

/** Says one thing, now. While a dialog is open, only what is in it is heard. */
export function announce(text) {
  (document.querySelector('dialog[open] > .announcer') ?? $('announcer')).textContent = text;
}

/** The answer `id` has come so far. */
export function announceAnswer(id, text, ended = false) {
  if (id !== current) [current, told, last] = [id, 0, 0];
  const now = Date.now();
  if (!ended && now - last < PAUSE) return;
  const end = ended ? text.length : told + sentencesEnd(text.slice(told));
  if (end <= told) return;
  announce(text.slice(told, end).trim());
  [told, last] = [end, now];
}

/** Where the last whole sentence or line ends. */
function sentencesEnd(text) {
  let end = 0;
  for (const { index, 0: mark } of text.matchAll(/[.!?\u061f\u3002](?=\s)|\n/g)) end = index + mark.length;
  return end;
}
