// main.js - the demo page: load the model, hold one conversation.

import { load } from '../index.js';
import { CHAT_OPTIONS, MODEL_NAME, MODEL_URL, SUGGESTIONS } from './config.js';
import { Answer, say } from './messages.js';
import { isolation } from './offline.js';

const $ = (id) => document.getElementById(id);
const other = new URLSearchParams(location.search).get('model'); // ?model=/models/other.gguf
const modelUrl = other ?? MODEL_URL;

let model = null;
let loading = null; // AbortController while a model loads
let running = null; // AbortController while an answer of this conversation is made
let messages = [];

const megabytes = (bytes) => `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
const announce = (text) => ($('announcer').textContent = text);

// ---- loading ----

async function showSize() {
  $('model-name').textContent = other?.split(/[?#]/)[0].split('/').pop() || other || MODEL_NAME;
  const head = await fetch(modelUrl, { method: 'HEAD' }).catch(() => null);
  const size = Number(head?.ok && head.headers.get('content-length'));
  if (size > 0) $('model-size').textContent = `${megabytes(size)}, from this server`;
}

function showProgress({ phase, loaded, total, rate, eta }) {
  if (phase === 'ready') return;
  const share = total ? loaded / total : 0;
  $('strip').setAttribute('aria-valuenow', Math.floor(100 * share));
  $('strip').firstElementChild.style.transform = `translateX(${100 * share - 100}%)`;
  const parts = [total ? `${megabytes(loaded)} of ${megabytes(total)}` : megabytes(loaded)];
  if (rate) parts.push(`${megabytes(rate)}/s`);
  if (eta >= 1) parts.push(`${eta < 90 ? `${Math.ceil(eta)} s` : `${Math.ceil(eta / 60)} min`} left`);
  $('progress-text').textContent = parts.join(' \u00b7 ');
}

/** One sentence a visitor can act on, then what exactly went wrong. */
function explain(error) {
  const advice = {
    http: 'The server does not have the model.',
    network: 'The download broke off. Is the server still running?',
    format: 'This is not a model file, or it is damaged.',
    checksum: 'The file is damaged.',
    memory: 'There is not enough memory. Closing other tabs may help.',
    unsupported: 'This browser or this model is not supported.',
    worker: 'The engine failed.',
  };
  return `${advice[error.code] ?? 'Something went wrong.'} (${error.message})`;
}

async function loadModel() {
  loading = new AbortController();
  $('load').hidden = $('failure').hidden = true;
  $('loading').hidden = false;
  showProgress({ phase: 'download', loaded: 0, total: null });
  announce('Loading the model');
  try {
    model = await load(modelUrl, { signal: loading.signal, onProgress: showProgress });
    beginChat();
  } catch (error) {
    if (error.code !== 'aborted') {
      $('failure-text').textContent = explain(error);
      $('failure').hidden = false;
      $('load').textContent = 'Try again';
    }
    $('load').hidden = false;
    $('load').focus();
  } finally {
    $('loading').hidden = true;
    loading = null;
  }
}

function beginChat() {
  $('start').hidden = true;
  $('chat').hidden = $('composer').hidden = $('new-chat').hidden = false;
  showStatus(null);
  newChat();
  announce('The model is ready');
}

// ---- conversation ----

function newChat() {
  running?.abort();
  running = null; // the model itself lets the next question wait until this answer has ended
  setBusy(false);
  messages = [];
  $('messages').replaceChildren();
  $('suggestions').replaceChildren(...SUGGESTIONS.map((text) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.textContent = text;
    button.addEventListener('click', () => send(text));
    return button;
  }));
  $('prompt').focus();
}

function showStatus(stats) {
  const { threads, isa, bitsPerWeight, memoryBytes } = model.info;
  const parts = [`${threads} ${threads === 1 ? 'thread' : 'threads'}`, isa.toUpperCase()];
  if (bitsPerWeight) parts.push(`${bitsPerWeight.toFixed(2)} bits per weight`);
  parts.push(`${megabytes(memoryBytes)} of memory`);
  if (stats?.decodeTokensPerSecond) parts.unshift(`${stats.decodeTokensPerSecond.toFixed(0)} tokens/s`);
  $('status').textContent = parts.join(' \u00b7 ');
}

function setBusy(busy) {
  $('send').hidden = busy;
  $('stop').hidden = !busy;
}

function rest() {
  running = null;
  setBusy(false);
  if (matchMedia('(pointer: fine)').matches) $('prompt').focus();
}

async function send(text) {
  if (!text.trim() || running) return;
  const stop = new AbortController();
  const turn = (messages = [...messages, { role: 'user', content: text }]);
  running = stop;
  setBusy(true);
  $('suggestions').replaceChildren();
  say($('messages'), text);
  const answer = new Answer($('messages'));
  const shown = () => messages === turn;
  try {
    const end = await stream(turn, answer, stop.signal);
    if (!shown()) return;
    answer.finish(end);
    messages = [...turn, { role: 'assistant', content: answer.text }];
    if (end.stats) showStatus(end.stats);
    announce(answer.text || 'No answer');
  } catch (error) {
    if (!shown()) return;
    answer.fail(error.code === 'context' ? 'This conversation is too long for the model. Please begin a new chat.' : explain(error));
    messages = turn.slice(0, -1);
  } finally {
    if (running === stop) rest();
  }
}

async function stream(turn, answer, signal) {
  const generation = model.chat(turn, { ...CHAT_OPTIONS, signal, onPrefill: (progress) => answer.reading(progress) });
  for await (const chunk of generation) answer.append(chunk.text);
  return generation.result;
}

// ---- wiring ----

$('load').addEventListener('click', loadModel);
$('cancel').addEventListener('click', () => loading?.abort());
$('new-chat').addEventListener('click', newChat);
$('stop').addEventListener('click', () => running?.abort());
isolation.then((isolated) => ($('banner').hidden = isolated));
$('banner-close').addEventListener('click', () => ($('banner').hidden = true));

$('composer').addEventListener('submit', (event) => {
  event.preventDefault();
  if (running || !$('prompt').value.trim()) return;
  const text = $('prompt').value;
  $('prompt').value = '';
  fitPrompt();
  send(text);
});

$('prompt').addEventListener('keydown', (event) => {
  // While an input method composes, Enter picks a candidate; Safari tells only by key code 229.
  if (event.key !== 'Enter' || event.shiftKey || event.isComposing || event.keyCode === 229) return;
  event.preventDefault();
  $('composer').requestSubmit();
});

document.addEventListener('keydown', (event) => {
  if (event.key !== 'Escape' || event.isComposing) return;
  running?.abort();
  loading?.abort();
});

/** Height follows the text where CSS cannot do it (field-sizing). */
function fitPrompt() {
  if (CSS.supports('field-sizing', 'content')) return;
  $('prompt').style.height = 'auto';
  $('prompt').style.height = `${$('prompt').scrollHeight + 2}px`;
}
$('prompt').addEventListener('input', fitPrompt);

showSize();
