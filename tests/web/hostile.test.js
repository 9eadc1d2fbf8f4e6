// What an attacker may send: damaged files with checksums that agree, schemas, messages; and traps of the engine, should one
// happen, injected here. Properties are tried on random values of a fixed seed; FUZZ_RUNS gives their number.

import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { after, before, describe, test } from 'node:test';
import fc from 'fast-check';

import { BitpairError } from '../../web/errors.js';
import { load } from '../../web/index.js';
import { startWorker } from '../../web/protocol.js';
import { schemaGrammar } from '../../web/schema.js';
import { FIXTURE, fixtureBytes, injectIntoWorkers, openEngine } from './helper.js';

const RUNS = Number(process.env.FUZZ_RUNS ?? 300);
const CODES = ['argument', 'format', 'unsupported', 'memory', 'checksum', 'context', 'network', 'io'];
const NUMBERS = [0n, 1n, 1n << 31n, 1n << 32n, 1n << 63n, (1n << 64n) - 1n];
const check = (property, runs = RUNS) => fc.assert(property, { seed: 8, numRuns: runs });

// ---- files ----

/** Places of the numbers of a header, {at, bytes}, as far as the first items of arrays go. */
function headerNumbers(file) {
  const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8];
  const found = [];
  let at = 4;
  const number = (bytes, keep = true) => {
    if (keep) found.push({ at, bytes });
    at += bytes;
    return bytes === 8 ? Number(file.readBigUInt64LE(at - 8)) : bytes === 4 ? file.readUInt32LE(at - 4) : 0;
  };
  const text = (keep) => {
    const length = number(8, keep);
    at += length;
  };
  const value = (kind, keep) => {
    if (kind === 8) return text(keep);
    if (kind !== 9) return number(SIZES[kind], keep);
    const item = number(4);
    for (let i = 0, n = number(8); i < n; i++) value(item, i < 3);
    return 0;
  };
  number(4);
  const [tensors, keys] = [number(8), number(8)];
  for (let i = 0; i < keys; i++) {
    text(true);
    value(number(4), true);
  }
  for (let i = 0; i < tensors; i++) {
    text(true);
    for (let dims = number(4); dims > 0; dims--) number(8);
    number(4);
    number(8);
  }
  return { found, end: Math.ceil(at / 64) * 64 };
}

/** Makes the header's own checksum agree, as an attacker would. */
function seal(file, end) {
  const key = file.indexOf('bitpair.header_sha256');
  const at = key + 'bitpair.header_sha256'.length + 4 + 4 + 8;
  file.fill(0, at, at + 32);
  createHash('sha256').update(file.subarray(0, end)).digest().copy(file, at);
  return file;
}

const good = Buffer.from(fixtureBytes());
const { found: numbers, end: headerEnd } = headerNumbers(good);

/** Random changes of the good file: numbers of the header, single bytes, its end cut off. */
const damaged = fc.array(fc.oneof(
  fc.record({ number: fc.nat(numbers.length - 1), value: fc.oneof(fc.constantFrom(...NUMBERS), fc.bigInt(0n, (1n << 64n) - 1n)) }),
  fc.record({ byte: fc.nat(headerEnd - 1), value: fc.nat(255) }),
  fc.record({ cut: fc.nat(good.length) }),
), { minLength: 1, maxLength: 3 }).map((changes) => {
  let file = Buffer.from(good);
  const wide = Buffer.alloc(8);
  for (const { number, byte, cut, value } of changes) {
    if (number !== undefined) {
      wide.writeBigUInt64LE(value);
      wide.copy(file, numbers[number].at, 0, numbers[number].bytes);
    } else if (byte !== undefined) file[byte] = value;
    else file = file.subarray(0, Math.min(cut, file.length));
  }
  return file.length > headerEnd ? seal(file, headerEnd) : file;
});

describe('damaged files whose checksums agree', () => {
  let engine;
  before(async () => (engine = await openEngine(1)));
  after(() => engine.close());

  /** Opens and runs it in the engine; whatever is thrown but a trap is an error of the file. */
  function tryFile(bytes) {
    const { wasm } = engine;
    const { exports } = wasm;
    const pointer = wasm.alloc(Math.max(1, bytes.length));
    wasm.bytes(pointer, bytes.length).set(bytes);
    const model = exports.bp_model_open(engine.engine, pointer, bytes.length, wasm.error);
    let session = 0;
    if (model) {
      session = exports.wasm_session_open(model, 16, 0, 0, wasm.error);
      const ids = wasm.alloc(12);
      if (session && exports.bp_session_feed(session, ids, 3, wasm.error)) exports.bp_session_sample(session, wasm.error);
      wasm.free(ids);
      if (session) exports.bp_session_close(session);
      exports.bp_model_close(model);
    } else {
      assert.throws(() => wasm.raise(), (error) => CODES.includes(error.code) && error.message.length > 0);
    }
    wasm.free(pointer);
    return !!session;
  }

  test('the engine: no trap, whatever the bytes; memory does not grow with their number', () => {
    assert.ok(tryFile(good));
    const counts = { opened: 0, refused: 0 };
    check(fc.property(damaged, (file) => { counts[tryFile(file) ? 'opened' : 'refused']++; }));
    assert.ok(counts.refused > RUNS / 3, `${counts.refused} of ${RUNS} were refused`);
    assert.ok(tryFile(good), 'and the good one still opens');
    assert.ok(engine.wasm.memory.buffer.byteLength < 256e6, `${engine.wasm.memory.buffer.byteLength} bytes of memory`);
  });

  test('every number of the header at 0, 1, 2^31, 2^32, 2^63', () => {
    const step = process.env.FUZZ_RUNS ? 1 : 7;
    for (let i = 0; i < numbers.length; i += step) {
      for (const value of NUMBERS) {
        const file = Buffer.from(good);
        const wide = Buffer.alloc(8);
        wide.writeBigUInt64LE(value);
        wide.copy(file, numbers[i].at, 0, numbers[i].bytes);
        tryFile(seal(file, headerEnd));
      }
    }
    assert.ok(numbers.length > 300);
  });

  test('load(): an error with a code, never one of the worker, or a model that answers', async () => {
    await fc.assert(fc.asyncProperty(damaged, async (file) => {
      const model = await load(file, { threads: 1, verify: false }).catch((error) => {
        assert.ok(error instanceof BitpairError && CODES.includes(error.code), `${error.code}: ${error.message}`);
      });
      if (!model) return;
      await model.generate([1, 2, 3], { maxTokens: 2 }).text().catch((error) => assert.ok(CODES.includes(error.code), error.message));
      await model.dispose();
    }), { seed: 8, numRuns: Math.min(40, RUNS) });
  });

  test('1 KB that claims 10 GB', async () => {
    const file = Buffer.from(good);
    const last = numbers.at(-1).at - 4 - 8; // the last dimension of the last tensor
    file.writeBigUInt64LE(10n << 30n, last);
    seal(file, headerEnd);
    await assert.rejects(load(file.subarray(0, headerEnd), { threads: 1 }), (error) => ['format', 'memory', 'checksum'].includes(error.code));
  });
});

// ---- schemas ----

const schema = fc.letrec((tie) => ({
  leaf: fc.oneof(
    fc.boolean(),
    fc.record({ type: fc.constantFrom('string', 'number', 'integer', 'boolean', 'null', 'object', 'array') }),
    fc.record({ type: fc.constant('integer'), minimum: fc.oneof(fc.integer(), fc.double()), maximum: fc.oneof(fc.integer(), fc.double()) }, { requiredKeys: ['type'] }),
    fc.record({ type: fc.constant('number'), exclusiveMinimum: fc.double(), maximum: fc.double() }, { requiredKeys: ['type'] }),
    fc.record({ type: fc.constant('string'), minLength: fc.integer({ min: -1, max: 1e6 }), maxLength: fc.integer({ min: -1, max: 1e6 }) }, { requiredKeys: ['type'] }),
    fc.record({ type: fc.constant('string'), pattern: fc.oneof(fc.string(), fc.constantFrom('^(a+)+$', '[a-z]{1,1000000}', '(', '\\p{L}*', '^.{0,9}[^\\]]$')) }),
    fc.record({ type: fc.constant('string'), format: fc.constantFrom('date', 'uuid', 'time', 'email') }),
    fc.record({ enum: fc.array(fc.jsonValue(), { maxLength: 3 }) }),
    fc.record({ const: fc.jsonValue() }),
    fc.record({ $ref: fc.constantFrom('#', '#/$defs/a', '#/properties/x', 'http://x', '#/~2') }),
  ),
  node: fc.oneof({ maxDepth: 3 }, tie('leaf'),
    fc.record({ type: fc.constant('object'), properties: fc.dictionary(fc.string(), tie('node'), { maxKeys: 4 }), required: fc.array(fc.string(), { maxLength: 2 }), additionalProperties: tie('node') }, { requiredKeys: [] }),
    fc.record({ type: fc.constant('array'), items: tie('node'), minItems: fc.integer({ min: -1, max: 1e5 }), maxItems: fc.integer({ min: -1, max: 1e5 }) }, { requiredKeys: ['type'] }),
    fc.record({ anyOf: fc.array(tie('node'), { maxLength: 3 }), $defs: fc.dictionary(fc.constantFrom('a', 'b'), tie('node')) }, { requiredKeys: [] }),
    fc.record({ allOf: fc.array(tie('node'), { maxLength: 3 }) })),
})).node;

describe('schemas', () => {
  let engine;
  let session;
  before(async () => {
    engine = await openEngine(1);
    const { wasm } = engine;
    const pointer = wasm.alloc(good.length);
    wasm.bytes(pointer, good.length).set(good);
    session = wasm.check(wasm.exports.wasm_session_open(wasm.check(wasm.exports.bp_model_open(engine.engine, pointer, good.length, wasm.error)), 0, 0, 0, wasm.error));
  });
  after(() => engine.close());

  const compiles = (value) => {
    let grammar;
    const begun = performance.now();
    try {
      grammar = schemaGrammar(value);
    } catch (error) {
      assert.ok(error instanceof BitpairError && error.code === 'argument', `${error.stack}`);
    }
    assert.ok(performance.now() - begun < 5000, 'a schema takes seconds');
    if (grammar === undefined) return false;
    const { wasm } = engine;
    return wasm.withText(grammar, (text, size) => {
      if (wasm.exports.bp_session_grammar(session, text, size, wasm.error)) return true;
      // what is too large for the engine is said, and is the only reason
      assert.throws(() => wasm.raise(), (error) => error.code === 'argument' && /too (long|large|many|deep)|longer than|more than|at most/.test(error.message));
      return false;
    });
  };

  test('of any shape: a grammar that the engine takes, or an argument error', () => {
    let taken = 0;
    check(fc.property(schema, (value) => { taken += compiles(value); }));
    assert.ok(taken > RUNS / 10, `${taken} of ${RUNS} became grammars`);
  });

  test('any JSON at all', () => check(fc.property(fc.jsonValue(), (value) => { compiles(value); })));

  test('bombs: depth, cycles, widths', () => {
    const deep = (n) => (n ? { type: 'array', items: deep(n - 1) } : {});
    assert.equal(compiles(deep(2000)), false);
    assert.equal(compiles({ $ref: '#' }), false);
    assert.equal(compiles({ $defs: { a: { $ref: '#/$defs/b' }, b: { $ref: '#/$defs/a' } }, $ref: '#/$defs/a' }), false);
    const doubled = (leaf, key, n) => (n ? doubled({ [key]: [leaf, leaf] }, key, n - 1) : leaf);
    const chain = (key, n) => Object.fromEntries(Array.from({ length: n + 1 }, (_, i) =>
      [`a${i}`, i < n ? { [key]: [{ $ref: `#/$defs/a${i + 1}` }, { $ref: `#/$defs/a${i + 1}` }] } : { type: 'object', properties: { x: { type: 'integer' } } }]));
    for (const key of ['anyOf', 'allOf']) { // 2^40 schemas in a few lines
      assert.equal(compiles(doubled({ type: 'object', properties: { a: { type: 'integer' } } }, key, 40)), false);
      compiles({ $defs: chain(key, 40), $ref: '#/$defs/a0' });
    }
    const pair = (i) => ({ anyOf: [{ type: 'object', properties: { [`a${i}`]: {} } }, { type: 'object', properties: { [`b${i}`]: {} } }] });
    assert.equal(compiles({ allOf: Array.from({ length: 20 }, (_, i) => pair(i)) }), false);
    compiles({ type: 'object', properties: Object.fromEntries(Array.from({ length: 5000 }, (_, i) => [`p${i}`, { type: 'string' }])) });
    compiles({ type: 'string', pattern: '(((a{1,99}){1,99}){1,99}){1,99}' });
  });
});

// ---- messages ----

describe('messages to the worker', () => {
  const TYPES = ['estimate', 'tokenize', 'detokenize', 'generate', 'embed', 'score', 'logits', 'saveState', 'restoreState', 'abort', 'threads', 'piece', 'nonsense', 'load'];
  const wild = fc.oneof(fc.jsonValue(), fc.uint8Array({ maxLength: 40 }), fc.constant(undefined), fc.array(fc.double(), { maxLength: 4 }));
  const message = fc.record({
    type: fc.constantFrom(...TYPES), id: fc.oneof(fc.nat(99), wild), text: wild, ids: wild, prompt: wild, prompts: wild, bytes: wild, options: wild, source: wild,
  }, { requiredKeys: ['type'] });

  test('wild ones get an error, and it goes on working', { timeout: 60000 }, async (t) => {
    const link = await startWorker();
    t.after(() => link.terminate());
    const answers = new Map();
    link.onmessage = (answer) => ['result', 'error'].includes(answer.type) && answers.get(answer.id)?.(answer);
    link.onerror = (error) => assert.fail(error);
    const ask = (fields) => new Promise((resolve) => {
      answers.set(fields.id, resolve);
      link.post(fields);
    });
    const ping = async (id) => (await ask({ type: 'tokenize', id, text: 'Once upon a time', options: {} }));
    assert.equal((await ping(1000)).type, 'error', 'no model yet');
    const source = { kind: 'path', path: FIXTURE };
    const loaded = await ask({ type: 'load', id: 0, source, options: { threads: 1, contextSize: 64, verify: true, retries: 0, integrity: null } });
    assert.equal(loaded.type, 'result', loaded.error?.message);
    const { value: tokens } = await ping(1001);
    const wildMessages = fc.sample(message, { seed: 8, numRuns: RUNS });
    for (const one of wildMessages) if (one.type !== 'load') link.post(one);
    const { type, value } = await ping(1002);
    assert.equal(type, 'result');
    assert.deepEqual(value, tokens);
  });
});

// ---- traps ----

const trapIn = (name) => `const real = WebAssembly.instantiate;
  WebAssembly.instantiate = async (module, imports) => {
    const { exports } = await real(module, imports);
    return { exports: { ...exports, ${name}: () => { throw new WebAssembly.RuntimeError('unreachable'); } } };
  }`;

describe('a trap of the engine', () => {
  const works = async () => {
    const model = await load(FIXTURE, { threads: 2 });
    assert.ok((await model.generate('Once upon a time', { greedy: true, maxTokens: 4 }).text()).length > 0);
    await model.dispose();
  };

  for (const [name, threads] of [['bp_session_sample', 1], ['bp_session_feed', 2], ['bp_tokenize', 1]]) {
    test(`in ${name} is an error of its call; the next model works`, async () => {
      const restore = injectIntoWorkers(trapIn(name));
      const model = await load(FIXTURE, { threads });
      restore();
      await assert.rejects(model.generate('Once upon a time', { maxTokens: 4 }).text(), (error) => error.code === 'worker' && /unreachable/.test(error.message));
      await model.dispose();
      await works();
    });
  }

  test('while a file is opened', async () => {
    const restore = injectIntoWorkers(trapIn('bp_model_open'));
    await assert.rejects(load(FIXTURE, { threads: 1 }), (error) => error.code === 'worker' && /unreachable/.test(error.message));
    restore();
    await works();
  });

  test('in another thread ends what waits for it', { timeout: 30000 }, async () => {
    const restore = injectIntoWorkers(trapIn('bp_engine_thread'));
    const failing = load(FIXTURE, { threads: 2 }).then((model) => model.generate('Once upon a time', { maxTokens: 4 }).text());
    await assert.rejects(failing, (error) => error.code === 'worker' && /unreachable/.test(error.message));
    restore();
    await works();
  });
});

describe('a worker that is ended by something else', () => {
  const ending = (name) => trapIn(name).replace("throw new WebAssembly.RuntimeError('unreachable');", 'process.exit(7);');

  for (const [name, threads] of [['bp_session_feed', 1], ['bp_model_open', 1], ['bp_engine_thread', 2]]) {
    test(`in ${name}: an error, also for later calls, and the next model works`, { timeout: 30000 }, async () => {
      const restore = injectIntoWorkers(ending(name));
      let model = null;
      const answer = load(FIXTURE, { threads }).then((loaded) => (model = loaded).generate('Once upon a time', { maxTokens: 4 }).text());
      await assert.rejects(answer, (error) => error.code === 'worker' && /ended, with code 7/.test(error.message));
      restore();
      if (model) await assert.rejects(model.embed('a'), { code: 'worker' });
      await model?.dispose();
      const next = await load(FIXTURE, { threads: 1 });
      assert.ok((await next.generate('Once upon a time', { greedy: true, maxTokens: 4 }).text()).length > 0);
      await next.dispose();
    });
  }
});
