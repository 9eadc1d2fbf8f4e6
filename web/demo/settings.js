// settings.js - system prompt, sampling, JSON answers and looks: a dialog, and what of it an answer is made with.

import { SAMPLING } from './config.js';
import { $ } from './dom.js';
import { forBrowser } from './kept.js';

const KEY = 'bitpair-demo-settings';

const DEFAULTS = { system: '', seed: '', overflow: 'stop', answer: 'text', schema: '', theme: 'auto', ...SAMPLING };

const EXAMPLE = {
  type: 'object',
  properties: {
    title: { type: 'string', maxLength: 60 },
    steps: { type: 'array', items: { type: 'string', maxLength: 120 }, minItems: 1, maxItems: 4 },
  },
  required: ['title', 'steps'],
};

const LONGEST_SEED = 2n ** 64n;

function readKept() {
  try {
    const kept = JSON.parse(forBrowser.get(KEY)) ?? {};
    const known = Object.entries(kept).filter(([name, value]) => typeof value === typeof DEFAULTS[name]);
    return { ...DEFAULTS, ...Object.fromEntries(known) };
  } catch {
    return { ...DEFAULTS }; // not ours
  }
}

function schemaProblem(text) {
  try {
    const schema = JSON.parse(text);
    return typeof schema === 'object' && schema !== null ? '' : 'A schema is an object.';
  } catch (error) {
    return `This is not JSON yet: ${error.message}`;
  }
}

export class Settings {
  #values = readKept();

  constructor() {
    this.form = $('settings-form');
    this.onchange = () => {};
    this.applyTheme();
    $('settings-open').addEventListener('click', () => this.open());
    $('settings-reset').addEventListener('click', () => this.set({ ...DEFAULTS }));
    $('schema-example').addEventListener('click', () => this.set({ answer: 'schema', schema: JSON.stringify(EXAMPLE, null, 2) }));
    this.form.addEventListener('input', () => this.read());
    addEventListener('storage', ({ key }) => key === KEY && this.reread()); // another tab has changed them
  }

  get system() {
    return this.#values.system.trim();
  }

  get json() {
    return this.#values.answer !== 'text';
  }

  /** Options of model.chat(). Throws if the schema is none. */
  options() {
    const { temperature, topP, topK, minP, repeatPenalty, maxTokens, overflow, seed, answer, schema } = this.#values;
    const options = { temperature, topP, topK, minP, repeatPenalty, maxTokens, overflow };
    if (seed !== '') options.seed = BigInt(seed);
    if (answer === 'json') options.json = true;
    if (answer === 'schema') {
      const problem = schemaProblem(schema);
      if (problem) throw Object.assign(new Error(problem), { code: 'schema' });
      options.jsonSchema = JSON.parse(schema);
    }
    return options;
  }

  reread() {
    this.#values = readKept();
    if ($('settings').open) this.fill();
    this.applyTheme();
    this.onchange();
  }

  open() {
    this.fill();
    $('settings').showModal();
  }

  set(values) {
    Object.assign(this.#values, values);
    this.fill();
    this.keep();
  }

  fill() {
    for (const [name, value] of Object.entries(this.#values)) {
      const field = this.form.elements[name];
      if (field) field.value = value;
    }
    this.drawOutputs();
    this.check();
  }

  /** Takes over what is valid; the rest stays as it was, and its field says what is wrong. */
  read() {
    this.check();
    for (const name of Object.keys(DEFAULTS)) {
      const field = this.form.elements[name];
      const valid = name === 'schema' || field instanceof RadioNodeList || field.validity.valid; // a schema may be half written
      if (valid) this.#values[name] = typeof DEFAULTS[name] === 'number' ? Number(field.value) : field.value;
    }
    this.drawOutputs();
    this.keep();
  }

  keep() {
    forBrowser.set(KEY, JSON.stringify(this.#values));
    this.applyTheme();
    this.onchange();
  }

  check() {
    const { elements } = this.form;
    const seed = elements.seed.value;
    const badSeed = !/^\d*$/.test(seed) || (seed !== '' && BigInt(seed) >= LONGEST_SEED);
    this.show('seed', badSeed ? 'A whole number from 0 on, or nothing.' : '');
    this.show('schema', elements.answer.value === 'schema' ? schemaProblem(elements.schema.value) : '');
  }

  show(name, problem) {
    const field = this.form.elements[name];
    field.setCustomValidity(problem);
    field.setAttribute('aria-invalid', String(problem !== ''));
    $(`${name}-problem`).textContent = problem;
  }

  drawOutputs() {
    const { elements } = this.form;
    for (const output of this.form.querySelectorAll('output')) output.value = elements[output.htmlFor.value].value;
    $('schema-part').hidden = elements.answer.value !== 'schema';
  }

  applyTheme() {
    document.documentElement.dataset.theme = this.#values.theme;
  }
}
