// models-dialog.js - bring your own: a file or an address, the memory it takes before anything is loaded, and the models kept here.

import { cache, estimateMemory } from '../index.js';
import { announce } from './announcer.js';
import { $, iconButton, make } from './dom.js';
import { sourceOf } from './loader.js';
import { explain, fileName, megabytes, when } from './words.js';

const MUCH = 0.5; // of the device's memory: more than this is worth a warning

export class ModelsDialog {
  #asking = null; // AbortController of an estimate
  #wanted = null; // source that waits for a yes

  constructor(loader) {
    this.loader = loader;
    $('models-open').addEventListener('click', () => this.open());
    for (const link of document.querySelectorAll('[data-open=models]')) link.addEventListener('click', () => this.open());
    $('models').addEventListener('close', () => this.#asking?.abort());
    $('model-form').addEventListener('submit', (event) => {
      event.preventDefault();
      this.askUrl($('model-url').value.trim());
    });
    $('model-pick').addEventListener('click', () => $('model-file').click());
    $('model-file').addEventListener('change', () => {
      const [file] = $('model-file').files;
      $('model-file').value = '';
      if (file) this.askFile(file);
    });
    $('confirm-yes').addEventListener('click', () => this.accept());
    $('confirm-no').addEventListener('click', () => this.settle());
    $('model-own').addEventListener('click', () => this.use(sourceOf(null)));
    $('persist').addEventListener('click', () => this.persist());
  }

  open() {
    this.settle();
    if (!$('models').open) $('models').showModal();
    this.refresh();
  }

  askFile(file) {
    this.open();
    return this.ask({ file, name: file.name });
  }

  askUrl(url) {
    if (!url) return undefined;
    try {
      const { protocol, href } = new URL(url, document.baseURI);
      if (!/^https?:$/.test(protocol)) throw new Error(`${protocol} is not https:`);
      return this.ask({ ...sourceOf(href), url: href });
    } catch (error) {
      return this.fail(`This is not an address of a model: ${error.message}`);
    }
  }

  /** Tells what a model takes, and waits for a yes. */
  async ask(source) {
    this.settle();
    const asking = (this.#asking = new AbortController());
    this.say(`Reading the header of ${source.name}`);
    try {
      const memory = await estimateMemory(source.file ?? source.url, { signal: asking.signal });
      if (this.#asking !== asking) return;
      this.#wanted = source;
      this.say('');
      this.drawConfirm(source, memory);
    } catch (error) {
      if (this.#asking === asking && error.code !== 'aborted') this.fail(explainSource(error, source));
    }
  }

  drawConfirm(source, { total, weights, session, engine, threads }) {
    const { deviceMemory } = navigator; // GB, where the browser tells
    $('confirm-name').textContent = source.name;
    $('confirm-memory').textContent = megabytes(total);
    $('confirm-parts').textContent =
      `${megabytes(weights)} weights, ${megabytes(session)} context and buffers, ${megabytes(engine)} engine; ${threads === 1 ? 'one thread' : `${threads} threads`}`;
    $('confirm-warning').hidden = !(deviceMemory && total > MUCH * deviceMemory * 1e9);
    $('confirm-warning').textContent = `This device has ${deviceMemory} GB of memory or a little more: the tab may be ended by the browser.`;
    $('confirm').hidden = false;
    $('confirm-yes').focus();
    announce(`${source.name} takes ${megabytes(total)} of memory`);
  }

  accept() {
    const source = this.#wanted;
    if (source) this.use(source);
  }

  use(source) {
    $('models').close();
    this.settle();
    // The address keeps what is shown: a reload comes back to it.
    const address = new URL(location.href);
    if (source.url && !source.own) address.searchParams.set('model', source.url);
    else address.searchParams.delete('model');
    history.replaceState(history.state, '', address);
    this.loader.use(source);
  }

  settle() {
    this.#asking?.abort();
    this.#asking = this.#wanted = null;
    $('confirm').hidden = true;
    this.say('');
    this.fail('');
  }

  say(text) {
    $('model-note').textContent = text;
  }

  fail(text) {
    this.say('');
    $('model-problem').textContent = text;
    $('model-problem').hidden = text === '';
  }

  async refresh() {
    const { own, file, name } = this.loader.source;
    $('model-own').hidden = !!own;
    $('model-current').textContent = `${this.loader.name ?? name}${file ? ', a file of yours: it is not kept here' : ''}`;
    try {
      const kept = await cache.list();
      $('kept-models').replaceChildren(...kept.map((each) => this.item(each)));
      $('no-models').hidden = kept.length > 0;
      if (!isSecureContext) $('no-models').textContent = 'None: this page was not opened by https, and the browser keeps no models for such pages.';
    } catch (error) {
      $('no-models').hidden = false;
      $('no-models').textContent = explain(error);
    }
    await this.drawQuota();
  }

  item({ url, bytes, total, complete, lastUsed }) {
    const name = fileName(url);
    const facts = [complete ? megabytes(bytes) : `${megabytes(bytes)} of ${megabytes(total)}`];
    if (lastUsed) facts.push(`used ${when(lastUsed)}`);
    return make('li', {},
      make('div', { class: 'kept-model' }, make('strong', { text: name }), make('span', { class: 'muted', text: facts.join(' \u00b7 ') })),
      make('button', { type: 'button', class: 'quiet', text: 'Use', 'aria-label': `Use ${name}`, onclick: () => this.use(sourceOf(url)) }),
      iconButton('trash', `Delete ${name}`, () => this.delete(url, name)));
  }

  async delete(url, name) {
    try {
      await cache.delete(url);
      await this.loader.look();
      announce(`${name} is deleted`);
    } catch (error) {
      this.fail(explain(error));
    }
    await this.refresh();
    $('kept-models').querySelector('button')?.focus() ?? $('model-url').focus();
  }

  async drawQuota() {
    const { quota, usage } = (await navigator.storage?.estimate?.().catch(() => null)) ?? {};
    $('quota').hidden = !quota;
    if (!quota) return;
    const persisted = await navigator.storage.persisted?.();
    $('quota-text').textContent = `This page uses ${megabytes(usage)} of the ${megabytes(quota)} that the browser allows it.${
      persisted ? ' The browser will not delete it by itself.' : ' The browser may delete it when the disk is full.'}`;
    $('persist').hidden = persisted !== false;
  }

  async persist() {
    const granted = await navigator.storage.persist();
    await this.drawQuota();
    if (!granted) announce('The browser did not agree.');
    $('persist').textContent = granted ? 'Ask to keep it' : 'The browser did not agree';
  }
}

function explainSource(error, { url }) {
  const text = explain(error);
  if (error.code !== 'network' || !url || new URL(url).origin === location.origin) return text;
  return `${text} Servers must allow other pages to read their files (CORS), and the address must begin with https:.`;
}
