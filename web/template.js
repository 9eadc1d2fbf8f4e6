// template.js - runs a chat template of a model file, which is hostile until proved otherwise: in bounded time and memory.

import { fail } from './errors.js';

const LONGEST = 1 << 18;       // characters of a template; real ones have a few thousand
const MOST_SECONDS = 2;        // real ones take milliseconds
const MOST_ITEMS = 1 << 14;    // of one list: a loop over it takes a fraction of a second
const MOST_WEIGHT = 1 << 22;   // characters and items that a value holds, counted as often as they are reached
const MOST_MADE = 1 << 26;     // characters of all strings that are made, an item of a list for ITEM_WEIGHT of them
const ITEM_WEIGHT = 16;
const MOST_COMPARED = 1 << 28; // characters of a text times those that are looked for in it
const LONGEST_GAP = 512;       // white space in a row: the template engine takes time with the square of it
const LONGEST_FORMAT = 256;    // characters of a format of strftime_now

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
  for (const [gap] of source.matchAll(/\s+/g))
    if (gap.length > LONGEST_GAP) throw new Error(`it has ${gap.length} characters of white space in a row, ${LONGEST_GAP} are allowed`);
  const environment = new Environment();
  for (const [name, value] of Object.entries({ ...GLOBALS, ...variables })) environment.set(name, value);
  const program = parse(tokenize(source, { lstrip_blocks: true, trim_blocks: true }));
  const interpreter = new (bounded(Interpreter))(environment);
  return interpreter.run(program).value;
}

/**
 * Jinja has no loop but over lists. So it is enough to look at the clock with each evaluation, to bound lists and strings as they
 * are made, and to ask beforehand of what makes much out of little: then no single evaluation takes long, nor much memory.
 */
const bounded = (Interpreter) => class extends Interpreter {
  end = performance.now() + 1000 * MOST_SECONDS;
  weights = new WeakMap(); // value -> characters and items in it; values do not change
  made = 0;

  evaluate(node, environment) {
    if (node?.type === KNOWN) return node.value;
    if (performance.now() > this.end) throw new Error(`it was stopped after ${MOST_SECONDS} s`);
    const value = super.evaluate(node, environment);
    this.weigh(value);
    return value;
  }

  weigh(value) {
    const content = value?.value;
    if (content === null || (typeof content !== 'string' && typeof content !== 'object')) return 0;
    const known = this.weights.get(value);
    if (known !== undefined) return known;
    this.weights.set(value, 1); // should it hold itself
    const size = sizeOf(content);
    this.made += typeof content === 'string' ? size : ITEM_WEIGHT * size;
    if (this.made > MOST_MADE) throw new Error('it makes too many values: it was stopped');
    let weight = 1 + size;
    if (typeof content === 'object') for (const item of content.values?.() ?? []) weight += this.weigh(item);
    if (weight > MOST_WEIGHT) throw new Error('it makes too large a value: it was stopped');
    this.weights.set(value, weight);
    return weight;
  }

  /** Filters with arguments: they are looked at first. */
  applyFilter(operand, node, environment) {
    const check = node.type === 'CallExpression' && Object.hasOwn(FILTERS, node.callee.value) && FILTERS[node.callee.value];
    if (!check) return super.applyFilter(operand, node, environment);
    const [values, named] = this.evaluateArguments(node.args, environment);
    check(operand, values, named);
    const args = values.map(known);
    for (const [name, value] of named) args.push({ type: 'KeywordArgumentExpression', key: { value: name }, value: known(value) });
    return super.applyFilter(operand, { ...node, args }, environment);
  }

  /** Methods of strings likewise, by whatever way they are called. */
  evaluateMemberExpression(node, environment) {
    const object = this.evaluate(node.object, environment);
    const value = super.evaluateMemberExpression({ ...node, object: known(object) }, environment);
    if (typeof object?.value !== 'string') return value;
    for (const [name, check] of Object.entries(METHODS)) {
      if (object.builtins.get(name) !== value) continue;
      return new value.constructor((args, scope) => (check(object, args), value.value(args, scope)));
    }
    return value;
  }

  evaluateBinaryExpression(node, environment) {
    if (!/^(not )?in$/.test(node.operator.value)) return super.evaluateBinaryExpression(node, environment);
    const [left, right] = [this.evaluate(node.left, environment), this.evaluate(node.right, environment)];
    if (typeof left.value === 'string' && typeof right.value === 'string') checkSearch(right.value, left.value);
    return super.evaluateBinaryExpression({ ...node, left: known(left), right: known(right) }, environment);
  }
};

/** A node that has been evaluated. */
const KNOWN = 'bitpair known';
const known = (value) => ({ type: KNOWN, value });

/** Characters of a string, items of a list or mapping. */
function sizeOf(content) {
  if (typeof content === 'string') {
    if (content.length > MOST_WEIGHT) throw new Error('it makes too long a text: it was stopped');
    return content.length;
  }
  const size = Array.isArray(content) ? content.length : content instanceof Map ? content.size : 0;
  if (size > MOST_ITEMS) throw new Error(`it makes a list of ${size} items: it was stopped`);
  return size;
}

// ---- what would make much of little ----

function checkLength(characters) {
  if (!(characters <= MOST_WEIGHT)) throw new Error('it asks for too long a text: it was stopped');
}

function checkSearch(text, wanted) {
  if (text.length * wanted.length > MOST_COMPARED) throw new Error('it looks for a long text in a long one: it was stopped');
}

/** How often `part` is in `text`; of an empty one how often it would be found. */
function countOf(text, part) {
  if (typeof text !== 'string' || typeof part !== 'string') return 0;
  if (part === '') return text.length + 1;
  checkSearch(text, part);
  let n = 0;
  for (let at = text.indexOf(part); at >= 0; at = text.indexOf(part, at + part.length)) n++;
  return n;
}

const numberOf = (value, otherwise) => (value === undefined ? otherwise : Number(value.value) || 0);
const lengthOf = (value) => (typeof value?.value === 'string' ? value.value.length : 0);

/** -> {nodes, depth} of a value with all that it holds; its weight has been bounded. */
function shapeOf({ value }) {
  const shape = { nodes: 1, depth: 0 };
  if (value === null || typeof value !== 'object') return shape;
  for (const item of value.values?.() ?? []) {
    const inner = shapeOf(item);
    shape.nodes += inner.nodes;
    shape.depth = Math.max(shape.depth, inner.depth + 1);
  }
  return shape;
}

function checkReplace(text, [from, to]) {
  checkLength(text.value.length + countOf(text.value, from?.value) * lengthOf(to));
}

const FILTERS = {
  indent: (text, [first], named) => checkLength(lengthOf(text) + (1 + countOf(text.value, '\n')) * numberOf(first ?? named.get('width'), 4)),
  replace: checkReplace,
  join: (list, [first], named) => checkLength((list.value?.length ?? 0) * lengthOf(first ?? named.get('separator'))),
  tojson: (value, values, named) => {
    const { nodes, depth } = shapeOf(value);
    const separators = named.get('separators')?.value;
    const between = Array.isArray(separators) ? separators.reduce((sum, one) => sum + lengthOf(one), 0) : 2;
    checkLength(nodes * (numberOf(named.get('indent'), 0) * (depth + 1) + between));
  },
};

const METHODS = {
  replace: checkReplace,
  split: ({ value }, [by]) => {
    const parts = typeof by?.value === 'string' ? countOf(value, by.value) : wordsOf(value);
    if (parts >= MOST_ITEMS) throw new Error('it makes a list of too many items: it was stopped');
  },
};

/** Words of a text, as far as it matters. */
function wordsOf(text) {
  let n = 0;
  for (const word = /\S+/g; n < MOST_ITEMS && word.exec(text);) n++;
  return n;
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
  strftime_now: (format) => {
    if (format.length > LONGEST_FORMAT) throw new Error(`it asks for a date of ${format.length} characters: it was stopped`);
    return format.replace(/%./g, (token) => TIMES[token]?.(new Date()) ?? token);
  },
};
