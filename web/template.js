// template.js - runs a chat template of a model file, which is hostile until proved otherwise: in bounded time and memory.

import { fail } from './errors.js';

const LONGEST = 1 << 18;       // characters of a template; real ones have a few thousand
const MOST_SECONDS = 2;        // real ones take milliseconds
const MOST_ITEMS = 1 << 14;    // of one list: a loop over it takes a fraction of a second
const MOST_WEIGHT = 1 << 22;   // characters and items that a value holds, counted as often as they are reached

/** The template engine. load() asks for it too: a page that has lost its network by the first chat() has it already. */
export async function loadTemplates() {
  try {
    return await import('@huggingface/jinja');
  } catch (error) {
    return fail('network', `the template engine @huggingface/jinja did not load: ${error.message}`, { cause: error });
  }
}

/**
 * @param {string} source Jinja
 * @param {object} variables
 * @returns {Promise<string>}
 * @throws whatever the template raises
 */
export async function renderTemplate(source, variables) {
  const { Environment, Interpreter, parse, tokenize } = await loadTemplates();
  if (source.length > LONGEST) throw new Error(`it has ${source.length} characters, ${LONGEST} are allowed`);
  const environment = new Environment();
  for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value);
  const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  const interpreter = new (bounded(Interpreter))(environment);
  return interpreter.run(program).value;
}

/**
 * Jinja has no loop but over lists. So it is enough to look at the clock with each evaluation, and to bound lists and strings as they
 * are made: then no single evaluation takes long.
 */
const bounded = (Interpreter) => class extends Interpreter {
  end = performance.now() + 1000 * MOST_SECONDS;
  weights = new WeakMap(); // value -> characters and items in it; values do not change

  evaluate(node, environment) {
    if (performance.now() > this.end) throw new Error(`it was stopped after ${MOST_SECONDS} s`);
    const value = super.evaluate(node, environment);
    this.weigh(value);
    return value;
  }

  weigh(value) {
    if (value === null || typeof value?.value !== 'object' || value.value === null) return sizeOf(value);
    const known = this.weights.get(value);
    if (known !== undefined) return known;
    this.weights.set(value, 1); // should it hold itself
    const size = sizeOf(value);
    if (size > MOST_ITEMS) throw new Error(`it makes a list of ${size} items: it was stopped`);
    let weight = 1 + size;
    for (const item of value.value.values?.() ?? []) weight += this.weigh(item);
    if (weight > MOST_WEIGHT) throw new Error('it makes too large a value: it was stopped');
    this.weights.set(value, weight);
    return weight;
  }
};

/** Characters of a string, items of a list or mapping. */
function sizeOf(value) {
  const content = value?.value;
  const size = typeof content === 'string' ? content.length : Array.isArray(content) ? content.length : content instanceof Map ? content.size : 0;
  if (typeof content === 'string' && size > MOST_WEIGHT) throw new Error('it makes too long a text: it was stopped');
  return size;
}

// ---- what every template may use ----

function range(start, stop, step = 1) {
  const [from, to] = stop === undefined ? [0, start] : [start, stop];
  const count = Math.max(0, Math.ceil((to - from) / step));
  if (!(count <= MOST_ITEMS)) throw new Error(`it asks for a list of ${count} numbers: it was stopped`);
  return Array.from({ length: count }, (_, i) => from + i * step);
}

const two = (n) => String(n).padStart(2, '0');
const named = (field, style) => (date) => new Intl.DateTimeFormat('en', { [field]: style }).format(date);
const TIMES = {
  '%Y': (date) => String(date.getFullYear()),
  '%m': (date) => two(date.getMonth() + 1),
  '%d': (date) => two(date.getDate()),
  '%H': (date) => two(date.getHours()),
  '%M': (date) => two(date.getMinutes()),
  '%S': (date) => two(date.getSeconds()),
  '%b': named('month', 'short'),
  '%B': named('month', 'long'),
  '%a': named('weekday', 'short'),
  '%A': named('weekday', 'long'),
  '%%': () => '%',
};

const GLOBALS = {
  true: true, false: false, none: null, True: true, False: false, None: null,
  range,
  raise_exception: (message) => {
    throw new Error(message);
  },
  strftime_now: (format) => format.replace(/%./g, (token) => TIMES[token]?.(new Date()) ?? token),
};
