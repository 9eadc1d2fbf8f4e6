// Grammars and JSON schemas: what is generated is valid, what is not supported is refused, and the notation that schema.js
// writes says what the schema does.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { Ajv2020 } from 'ajv/dist/2020.js';
import addFormats from 'ajv-formats';

import { load } from '../../web/index.js';
import { schemaGrammar, toolGrammar } from '../../web/schema.js';
import { EMBEDDED, FIXTURE, fixtureBytes } from './helper.js';
import { seal } from './large.js';

const PROMPT = 'Once upon a time, there was a little';

const ajv = new Ajv2020({ strict: false, allErrors: true });
addFormats.default(ajv);

function assertValid(schema, text, more = '') {
  let value;
  assert.doesNotThrow(() => (value = JSON.parse(text)), `${text} ${more}`);
  const validate = ajv.compile(schema);
  assert.ok(validate(value), `${text} of ${JSON.stringify(schema)}: ${ajv.errorsText(validate.errors)} ${more}`);
}

/** Random numbers of a seed. */
function dice(seed) {
  let state = Math.imul(seed, 0x9e3779b1); // neighbours begin far apart
  return (n) => {
    state = (Math.imul(state ^ (state >>> 15), 1664525) + 1013904223) >>> 0;
    return Math.floor((state / 2 ** 32) * n);
  };
}

/* ---- random texts of a grammar, by a reader of the notation that knows nothing of the engine's ---- */

function readGrammar(text) {
  const rules = {};
  const tokens = /"(?:\\.|[^"\\])*"|\[(?:\\.|[^\]\\])*\]|\{\d+(?:,\d*)?\}|[()|*+?]|[\w-]+/gs;
  for (const line of text.trim().split('\n')) {
    const [, name, body] = /^([\w-]+) ::= ?(.*)$/.exec(line);
    const list = body.match(tokens) ?? [];
    let at = 0;
    const ways = () => {
      const all = [[]];
      for (; at < list.length && list[at] !== ')'; at++) {
        const token = list[at];
        const row = all.at(-1);
        if (token === '|') all.push([]);
        else if ('*+?'.includes(token)) row.push({ repeated: row.pop(), low: token === '+' ? 1 : 0, high: token === '?' ? 1 : null });
        else if (token[0] === '{') {
          const [low, high = low] = token.slice(1, -1).split(',');
          row.push({ repeated: row.pop(), low: Number(low), high: high === '' ? null : Number(high) });
        } else if (token === '(') {
          at++;
          row.push({ ways: ways() });
        } else row.push(token);
      }
      return all;
    };
    rules[name] = { ways: ways() };
  }
  return rules;
}

const unescape = (text) => text.replace(/\\(?:U(.{8})|u(.{4})|x(.{2})|(.))/gs, (_, U, u, x, c) =>
  (c ? ({ n: '\n', t: '\t', r: '\r' }[c] ?? c) : String.fromCodePoint(parseInt(U ?? u ?? x, 16))));

function characterOf(set, random) {
  const pattern = new RegExp(set.replace(/\\U(.{8})/g, (_, digits) => `\\u{${parseInt(digits, 16).toString(16)}}`), 'u');
  for (;;) {
    const point = random(4) > 0 ? 32 + random(96) : random(8) > 0 ? random(0x300) : random(0x110000);
    const character = String.fromCodePoint(point);
    if (pattern.test(character) && !(point >= 0xd800 && point < 0xe000)) return character;
  }
}

/** A text of an element; deep down the shortest ways are taken. */
function derive(rules, element, random, depth = 0) {
  if (Array.isArray(element)) return element.map((part) => derive(rules, part, random, depth)).join('');
  if (element.ways) {
    if (depth < 30) return derive(rules, element.ways[random(element.ways.length)], random, depth + 1);
    return derive(rules, element.ways.reduce((a, b) => (weigh(rules, b) < weigh(rules, a) ? b : a)), random, depth + 1);
  }
  if (element.repeated) {
    const most = element.high ?? element.low + 4;
    const count = depth > 20 ? element.low : element.low + random(Math.min(most - element.low, 6) + 1);
    return Array.from({ length: count }, () => derive(rules, element.repeated, random, depth + 1)).join('');
  }
  if (element[0] === '"') return unescape(element.slice(1, -1));
  if (element[0] === '[') return characterOf(element, random);
  return derive(rules, rules[element], random, depth + 1);
}

/** How many calls an element needs at least, about. */
function weigh(rules, element, depth = 0) {
  if (depth > 12) return 1000;
  if (Array.isArray(element)) return element.reduce((sum, part) => sum + weigh(rules, part, depth), 0);
  if (element.ways) return Math.min(...element.ways.map((way) => weigh(rules, way, depth + 1)));
  if (element.repeated) return element.low && weigh(rules, element.repeated, depth + 1);
  return '"['.includes(element[0]) ? 1 : 1 + weigh(rules, rules[element], depth + 1);
}

/* ---- random schemas ---- */

function randomSchema(random, depth = 3) {
  const pick = (list) => list[random(list.length)];
  const leaf = [
    () => ({ type: 'string' }), () => ({ type: 'string', minLength: random(3), maxLength: 3 + random(9) }), () => ({ type: 'boolean' }),
    () => ({ type: ['integer', 'null'] }), () => ({ type: 'number' }), () => ({ type: 'string', nullable: true }), () => ({ const: pick([1, 'a"b', null, { x: [1] }]) }),
    () => ({ type: 'integer', minimum: random(2000) - 1000, maximum: 1000 + random(100000) }),
    () => ({ type: 'integer', exclusiveMaximum: random(500) - 250 }),
    () => ({ type: 'number', minimum: random(20) - 10, exclusiveMaximum: 11 + random(100) }), () => ({ type: 'number', exclusiveMinimum: -random(3) }),
    () => ({ enum: ['red', 'gr\u00fcn', 3, null, [1, 'x']].slice(random(4)) }), () => ({ type: 'string', format: pick(['date', 'time', 'date-time', 'uuid']) }),
    () => ({ type: 'string', pattern: pick(['^[A-Z]{2}-\\d+$', 'ab+c?|^\\w{3,5}$', '^(?:x|y\\.z)*[^a-f"\\s]$', '^"\\\\\\t.$', '^\\S\\D$']) }),
  ];
  const inner = () => randomSchema(random, depth - 1);
  const branch = [
    () => {
      const properties = {};
      for (const name of ['name', 'n', 'a b', 'na', '"q"'].slice(random(4))) properties[name] = inner();
      const required = Object.keys(properties).filter(() => random(2));
      return { type: 'object', properties, required, ...pick([{}, { additionalProperties: false }, { additionalProperties: { type: 'integer' } }]) };
    },
    () => ({ type: 'array', items: inner(), minItems: random(3), maxItems: 3 + random(3) }),
    () => ({ type: 'array', prefixItems: [inner(), inner()], items: pick([false, { type: 'boolean' }]), minItems: random(3) }),
    () => ({ type: 'array', items: inner(), maxItems: random(2) }),
    () => ({ anyOf: [inner(), inner()] }),
    () => ({ oneOf: [{ type: 'string', maxLength: 3 }, { type: 'integer' }, { type: 'object', properties: { kind: { const: 'a' } }, required: ['kind'] },
      { type: 'object', properties: { kind: { const: 'b' }, value: inner() }, required: ['kind', 'value'] }] }),
    () => ({ allOf: [{ type: 'object', properties: { a: { type: 'number' } }, required: ['a'] }, { properties: { a: { minimum: 3 }, b: inner() } }] }),
    () => ({ type: 'object', additionalProperties: inner() }),
    () => pick([true, {}]),
  ];
  return depth > 0 && random(3) > 0 ? pick(branch)() : pick(leaf)();
}

const TREE = {
  $ref: '#/$defs/node',
  $defs: { node: { type: 'object', properties: { value: { type: 'integer' }, next: { anyOf: [{ $ref: '#/$defs/node' }, { type: 'null' }] } }, required: ['value', 'next'], additionalProperties: false } },
};

test('random texts of the grammars of random schemas are valid', () => {
  const lengths = [];
  for (let seed = 1; seed <= 250; seed++) {
    const random = dice(seed);
    const schema = seed % 25 === 0 ? TREE : randomSchema(random);
    const grammar = schemaGrammar(schema);
    const rules = readGrammar(grammar);
    for (let k = 0; k < 6; k++) {
      const text = derive(rules, 'root', random);
      assertValid(schema, text, grammar);
      lengths.push(text.length);
    }
  }
  const long = lengths.filter((length) => length > 20).length;
  assert.ok(long > 300, `only ${long} texts are longer than 20`);
});

test('references of a tool are into its own parameters, also beside other tools', () => {
  const city = (names) => ({ type: 'object', properties: { city: { $ref: '#/$defs/City' } }, required: ['city'],
    $defs: { City: { enum: names } } });
  const tools = [{ name: 'weather', parameters: city(['Rome', 'Oslo']) }, { name: 'a "trip"', parameters: city(['Bonn']) },
    { name: 'plant', parameters: TREE },
    { name: 'old', parameters: { properties: { at: { $ref: '#/definitions/At' } }, definitions: { At: { type: 'boolean' } } } },
    { name: 'now' }, { name: 'any', parameters: {} }];
  for (const chosen of [tools, ...tools.map((tool) => [tool])]) {
    const rules = readGrammar(toolGrammar(chosen, 'arguments'));
    const random = dice(chosen.length);
    const seen = new Set();
    for (let k = 0; k < 60; k++) {
      const text = derive(rules, 'root', random);
      const call = JSON.parse(text);
      assert.deepEqual(Object.keys(call), ['name', 'arguments'], text);
      assertValid({ type: 'object', ...chosen.find(({ name }) => name === call.name).parameters }, JSON.stringify(call.arguments), text);
      seen.add(call.name);
    }
    assert.equal(seen.size, chosen.length);
  }
  const wrong = { name: 'b', parameters: { properties: { x: { $ref: '#/$defs/None' } }, $defs: {} } };
  assert.throws(() => toolGrammar([tools[0], wrong], 'arguments'), { code: 'argument',
    message: /^parameters of the tool b, #\/properties\/x\/\$ref: there is no/ });
});

/** What the texts of a schema match; of schemas without recursion. */
function accepts(schema) {
  const rules = readGrammar(schemaGrammar(schema));
  const pattern = (element) => {
    if (Array.isArray(element)) return element.map(pattern).join('');
    if (element.ways) return `(?:${element.ways.map(pattern).join('|')})`;
    if (element.repeated) return `(?:${pattern(element.repeated)}){${element.low},${element.high ?? ''}}`;
    if (element[0] === '"') return unescape(element.slice(1, -1)).replace(/[.+-]/g, '\\$&');
    return element[0] === '[' ? element : pattern(rules[element]);
  };
  return new RegExp(`^${pattern(rules.root)}$`);
}

test('bounds of numbers are met exactly', () => {
  const random = dice(5);
  for (let i = 0; i < 60; i++) {
    const low = random(400) - 200;
    const high = low + random(i % 2 ? 20 : 2000);
    const [whole, real, open] = [{ type: 'integer', minimum: low, maximum: high }, { type: 'number', minimum: low, maximum: high },
      { type: 'number', exclusiveMinimum: low, exclusiveMaximum: high + 1 }].map(accepts);
    for (let n = low - 12; n <= high + 12; n += 1 + random(3)) {
      const inside = n >= low && n <= high;
      assert.equal(whole.test(String(n)), inside, `${n} in ${low}..${high}`);
      assert.equal(real.test(String(n)), inside, `${n} in ${low}..${high}`);
      assert.equal(real.test(`${n}.25`), Number(`${n}.25`) >= low && Number(`${n}.25`) <= high, `${n}.25 in ${low}..${high}`);
      assert.equal(open.test(String(n)), n > low && n < high + 1, `${n} in ${low}..${high + 1}, open`);
      assert.equal(open.test(`${n}.5`), Number(`${n}.5`) > low && Number(`${n}.5`) < high + 1, `${n}.5 in ${low}..${high + 1}, open`);
    }
    assert.ok(!whole.test('007') && !whole.test(''));
  }
});

test('bounds beyond what the grammar has are cut off; where nothing is left they are refused', () => {
  const most = Number.MAX_SAFE_INTEGER; // zod's integers have it
  const whole = accepts({ type: 'integer', minimum: -most, maximum: most });
  const natural = accepts({ type: 'integer', exclusiveMinimum: 0, maximum: most });
  for (const [text, signed, positive] of [['0', true, false], ['-7', true, false], ['12', true, true], ['999999999999999', true, true],
    ['-999999999999999', true, false], ['9999999999999999', false, false]])
    assert.deepEqual([whole.test(text), natural.test(text)], [signed, positive], text);
  const real = accepts({ type: 'number', minimum: -3.4e38, maximum: 3.4e38 });
  const above = accepts({ type: 'number', exclusiveMinimum: 5, exclusiveMaximum: 1e300 });
  for (const [text, any, more] of [['0.5', true, false], ['-1000000000', true, false], ['5', true, false], ['5.5', true, true],
    ['999999999.5', true, true],
    ['10000000000', false, false]])
    assert.deepEqual([real.test(text), above.test(text)], [any, more], text);
  for (const schema of [{ minimum: 1e15 }, { maximum: -1e15 }, { exclusiveMinimum: 999999999999999 }, { minimum: most, maximum: most }])
    assert.throws(() => schemaGrammar({ type: 'integer', ...schema }), { code: 'argument', message: /^jsonSchema, #: .* not supported$/ });
  for (const schema of [{ minimum: 1e10 }, { maximum: -1e10 }, { exclusiveMinimum: 1e9 }])
    assert.throws(() => schemaGrammar({ type: 'number', ...schema }), { code: 'argument' }, JSON.stringify(schema));
});

test('what pydantic and zod write beside the rest', () => {
  const cat = { type: 'object', properties: { kind: { const: 'cat', title: 'Kind', type: 'string' } }, required: ['kind'],
    additionalProperties: false };
  const dog = { ...cat, properties: { kind: { const: 'dog' } } };
  const union = { oneOf: [{ $ref: '#/$defs/Cat' }, { $ref: '#/$defs/Dog' }], $defs: { Cat: cat, Dog: dog },
    discriminator: { propertyName: 'kind', mapping: { cat: '#/$defs/Cat', dog: '#/$defs/Dog' } } };
  const pets = accepts(union);
  for (const [text, inside] of [['{"kind":"cat"}', true], ['{"kind": "dog"}', true],
    ['{"kind":"cow"}', false]]) assert.equal(pets.test(text), inside, text);
  const record = { type: 'object', additionalProperties: { type: 'boolean' } };
  for (const propertyNames of [{ type: 'string' }, { type: 'string', description: 'a name' }, {}, true])
    assert.equal(schemaGrammar({ ...record, propertyNames }), schemaGrammar(record));
  for (const propertyNames of [{ type: 'string', minLength: 1 }, { enum: ['a'] }, { type: 'integer' }, false, null, 5])
    assert.throws(() => schemaGrammar({ ...record, propertyNames }), { code: 'argument', message: /#\/propertyNames/ });
});

test('whatever stands where something else should: code argument, and nothing else', () => {
  const loop = { a: [] };
  loop.a.push(loop);
  for (const [schema, part] of [[{ type: 'string', pattern: 5 }, '#/pattern'], [{ type: 'string', format: {} }, '#/format'],
    [{ $ref: '#/%E0%A4%A' }, 'there is no'],
    [{ enum: [1n] }, '#/enum'], [{ enum: [undefined] }, '#/enum'], [{ enum: [{ a: [NaN] }] }, '#/enum'], [{ const: 1n }, '#/const'],
    [{ const: () => 1 }, '#/const'],
    [{ enum: [loop] }, '#/enum'], [{ oneOf: [null, { type: 'string' }] }, '#']])
    assert.throws(() => schemaGrammar(schema), (error) => error.code === 'argument' && error.message.includes(part), part);
  assert.equal(schemaGrammar({ const: undefined, type: 'boolean' }), schemaGrammar({ type: 'boolean' }), 'as if it were left out');
  const junk = [null, undefined, 5, -1, NaN, '', '#', '#/%', 1n, Symbol('a'), () => 1, [],
    [[]], {}, true, false, [null], { a: null }, ['a'], { $ref: '#' }, Infinity];
  const keys = ['type', 'nullable', 'enum', 'const', 'anyOf', 'oneOf', 'allOf', '$ref', 'properties', 'required', 'additionalProperties',
    'minProperties', 'items',
    'prefixItems', 'additionalItems', 'minItems', 'maxItems', 'minLength', 'pattern', 'format', 'minimum', 'exclusiveMaximum', '$defs',
      'propertyNames', 'uniqueItems'];
  const random = dice(9);
  const pick = (list) => list[random(list.length)];
  const wrong = (depth) => (depth === 0 || random(3) === 0 ? pick(junk) : random(3) === 0 ? [wrong(depth - 1), wrong(depth - 1)] :
    Object.fromEntries(Array.from({ length: 1 + random(3) }, () => [pick([...keys, 'a']), wrong(depth - 1)])));
  let refused = 0;
  for (let i = 0; i < 20000; i++) {
    const schema = wrong(4);
    try {
      schemaGrammar(schema);
    } catch (error) {
      refused++;
      if (error.code !== 'argument') assert.fail(error.stack);
    }
  }
  assert.ok(refused > 10000 && refused < 20000, `${refused} refused`);
});

test('what is not supported is refused with its place', () => {
  const bad = [
    [{ not: {} }, '#/not'], [false, '#'], [3, '#'], [{ type: 'float' }, '#/type'], [{ properties: { 'a/b': { if: {} } } }, '#/properties/a~1b/if'],
    [{ type: 'string', format: 'email' }, '#/format'], [{ type: 'string', pattern: '(?=a)' }, 'look-around'], [{ type: 'string', pattern: '^a\\1' }, '\\1'],
    [{ type: 'string', pattern: '\\bword' }, '\\b'], [{ type: 'string', pattern: '^(a$)' }, "'$'"], [{ type: 'string', pattern: '[' }, 'open set'],
    [{ type: 'string', pattern: 'a', maxLength: 3 }, 'cannot be combined'], [{ type: 'array', uniqueItems: true }, '#/uniqueItems'],
    [{ type: 'number', multipleOf: 2 }, '#/multipleOf'], [{ type: 'number', minimum: 0.5 }, 'not whole'], [{ type: 'integer', minimum: 3, maximum: 2 }, 'between'],
    [{ type: 'string', minimum: 3 }, '#/minimum'], [{ type: 'integer', minimum: '3' }, '#/minimum'], [{ enum: [1], minimum: 3 }, '#/minimum'],
    [{ enum: [] }, 'no value'], [{ type: 'string', enum: [1, 2] }, 'no value'], [{ oneOf: [{ type: 'integer' }, { type: 'number' }] }, '#/oneOf'],
    [{ $ref: '#/none' }, "'#/none'"], [{ $ref: 'https://example.org/a' }, 'within the schema'], [{ $ref: '#' }, 'back to itself'],
    [{ $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }, 'back to itself'],
    [{ allOf: [{ type: 'string' }, { type: 'integer' }] }, 'no value is of type'], [{ required: ['a'], additionalProperties: false }, "'a'"],
    [{ properties: { a: {} }, minProperties: 1 }, '#/minProperties'], [{ type: 'array', minItems: 3, maxItems: 2 }, 'minItems'],
    [{ type: 'array', minItems: -1 }, '#/minItems'], [{ anyOf: [] }, '#/anyOf'], [{ type: 'string', minLength: 2, maxLength: 1 }, 'minLength'],
  ];
  for (const [schema, part] of bad)
    assert.throws(() => schemaGrammar(schema), (error) => error.code === 'argument' && error.message.includes(part), `${JSON.stringify(schema)}: ${part}`);
  let deep = {};
  for (let i = 0; i < 500; i++) deep = { type: 'array', items: deep };
  assert.throws(() => schemaGrammar(deep), { code: 'argument' });
});

/* ---- in the engine ---- */

/** The small model with the signs of JSON in place of some of its characters. */
function jsonFixture() {
  const bytes = fixtureBytes();
  const from = Buffer.from(bytes.buffer).indexOf('tokenizer.ggml.tokens');
  const signs = { $: '{', ';': '[', X: '}', Q: ']', Z: '\\' };
  for (const [old, sign] of Object.entries(signs)) {
    const entry = Buffer.from([1, 0, 0, 0, 0, 0, 0, 0, old.charCodeAt(0)]);
    const at = Buffer.from(bytes.buffer).indexOf(entry, from);
    bytes[at + 8] = sign.charCodeAt(0);
  }
  seal(Buffer.from(bytes.buffer));
  return bytes;
}

describe('generation', () => {
  let model, json;
  before(async () => ([model, json] = await Promise.all([load(FIXTURE, { threads: 1 }), load(jsonFixture(), { threads: 1 })])));
  after(() => Promise.all([model.dispose(), json.dispose()]));

  test('an answer is a text of its grammar; the next one is free', async () => {
    const grammar = 'root ::= " yes" | " no" | " may" "be"{1,2}';
    for (let seed = 0; seed < 10; seed++) {
      const { text, finishReason } = await model.generate(PROMPT, { grammar, seed, temperature: 1.5, topK: seed % 2 ? 0 : 40 }).result;
      assert.match(text, /^ (yes|no|maybe|maybebe)$/);
      assert.equal(finishReason, 'stop');
    }
    const free = await model.generate(PROMPT, { greedy: true, maxTokens: 12 }).text();
    assert.equal(await model.generate(PROMPT, { greedy: true, maxTokens: 12, grammar: 'root ::= .*' }).text(), free);
  });

  test('the same seed gives the same text, with one thread and two', async () => {
    const two = await load(FIXTURE, { threads: 2 });
    for (const seed of [1, 2, 3]) {
      const options = { grammar: 'root ::= [a-z ]{20,30} "."', seed, temperature: 1.2 };
      const text = await model.generate(PROMPT, options).text();
      assert.match(text, /^[a-z ]{20,30}\.$/);
      assert.equal(await two.generate(PROMPT, options).text(), text);
    }
    await two.dispose();
  });

  test('bad grammars and options', async () => {
    await assert.rejects(model.generate(PROMPT, { grammar: 'root ::= "a' }).result, (error) => error.code === 'argument' && /line 1, column 10/.test(error.message) && error.offset === 9);
    for (const options of [{ grammar: 3 }, { grammar: 'root ::= ""', json: true }, { jsonSchema: { type: 'x' } }, { jsonSchema: {}, json: true }])
      await assert.rejects(model.generate(PROMPT, options).result, { code: 'argument' }, JSON.stringify(options));
    await assert.rejects(model.generate(PROMPT, { grammar: 'root ::= "\u20ac"' }).result, { code: 'unsupported' });
    assert.ok(await model.generate(PROMPT, { maxTokens: 2 }).text(), 'and the model is still well');
  });

  test('random schemas, many seeds: all that ends is valid', async () => {
    let ended = 0;
    for (let seed = 1; seed <= 60; seed++) {
      const random = dice(1000 + seed);
      const schema = seed % 10 === 0 ? TREE : randomSchema(random, 2);
      let answer;
      try {
        answer = await json.generate(PROMPT, { jsonSchema: schema, seed, temperature: 0.5 + random(3), topK: [40, 0, 5][seed % 3], maxTokens: 200 }).result;
      } catch (error) {
        if (error.code === 'unsupported' && JSON.stringify(schema).match(/[^\x20-\x7e]/)) continue; // letters that this vocabulary lacks
        throw error;
      }
      if (answer.finishReason !== 'stop') continue;
      ended++;
      assertValid(schema, answer.text);
    }
    assert.ok(ended > 30, `${ended} of 60 ended`);
  });

  test('json: an object', async () => {
    for (let seed = 0; seed < 6; seed++) {
      const { text, finishReason } = await json.generate(PROMPT, { json: true, seed, temperature: 2, maxTokens: 300 }).result;
      if (finishReason === 'stop') assert.equal(Object.prototype.toString.call(JSON.parse(text)), '[object Object]');
      else assert.match(text, /^\{/);
    }
  });
});

test('the embedded model fills in a form', async () => {
  const model = await load(EMBEDDED, { contextSize: 256 });
  const jsonSchema = {
    type: 'object',
    properties: { name: { type: 'string', maxLength: 12 }, age: { type: 'integer', minimum: 0, maximum: 120 }, colour: { enum: ['red', 'gr\u00fcn', 'blue'] } },
    required: ['name', 'age', 'colour'],
    additionalProperties: false,
  };
  const { text, finishReason } = await model.chat([{ role: 'user', content: 'Describe a girl as JSON.' }], { jsonSchema, seed: 3, maxTokens: 60 }).result;
  assert.equal(finishReason, 'stop', text);
  assertValid(jsonSchema, text);
  await model.dispose();
});
