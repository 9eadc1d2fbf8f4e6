// Options that are none, callbacks that throw, calls whose promise nobody waits for: an error with a code, and nothing stays behind.

import assert from 'node:assert/strict';
import { execFile } from 'node:child_process';
import { after, before, describe, test } from 'node:test';

import { Crew } from '../../web/crew.js';
import { BitpairError, capabilities, estimateMemory, load } from '../../web/index.js';
import { FIXTURE, ROOT } from './helper.js';

const INDEX = new URL('../../web/index.js', import.meta.url).href;

/** Runs a program that has `load` and so on; it must end by itself, and without a complaint. -> what it prints */
const program = (text) => new Promise((resolve, reject) => {
  const code = `import { estimateMemory, load } from ${JSON.stringify(INDEX)}; const FIXTURE = ${JSON.stringify(FIXTURE)};
    const codeOf = (promise) => promise.then(() => 'fine', (error) => error?.code ?? String(error)); ${text}`;
  const ended = (error, out) => (error ? reject(error) : resolve(out.trim()));
  execFile(process.execPath, ['--input-type=module', '-e', code], { cwd: ROOT, timeout: 60_000 }, ended);
});

describe('options that are none', () => {
  let model;
  before(async () => (model = await load(FIXTURE, { threads: 1, contextSize: 64 })));
  after(() => model.dispose());
  const refused = (promise, message) => assert.rejects(promise, (error) => {
    assert.ok(error instanceof BitpairError, error.stack);
    assert.equal(error.code, 'argument');
    assert.match(error.message, message);
    return true;
  });
  const calls = () => ({
    load: (options) => load(FIXTURE, options),
    estimateMemory: (options) => estimateMemory(FIXTURE, options),
    generate: (options) => model.generate('a', options).result,
    chat: (options) => model.chat([{ role: 'user', content: 'a' }], options).result,
    embed: (options) => model.embed('a', options),
    score: (options) => model.score('a', options),
    logits: (options) => model.logits('a', options),
  });

  test('a signal that is none', async () => {
    for (const call of Object.values(calls())) {
      await refused(call({ signal: new AbortController() }), /signal must be an AbortSignal: not the controller/);
      for (const signal of [{}, 'x', 5]) await refused(call({ signal }), /signal must be an AbortSignal$/);
    }
  });

  test('callbacks that are none', async () => {
    const { load: open, generate, chat } = calls();
    for (const name of ['onProgress', 'onTier']) await refused(open({ [name]: 'x' }), new RegExp(`${name} must be a function`));
    for (const call of [generate, chat]) await refused(call({ onPrefill: {} }), /onPrefill must be a function/);
  });

  test('null is none, a string is an error', async () => {
    const small = await load(FIXTURE, null);
    await small.dispose();
    assert.ok((await estimateMemory(FIXTURE, null)).total > 0);
    assert.equal((await capabilities(null)).workerReason, null);
    const text = 'Once upon';
    assert.deepEqual(await model.tokenize(text, null), await model.tokenize(text));
    assert.equal(await model.detokenize(await model.tokenize(text), null), text);
    for (const name of ['embed', 'score', 'logits']) assert.deepEqual(await model[name](text, null), await model[name](text));
    assert.ok((await model.generate(text, null).result).ids.length > 0);
    await assert.rejects(model.chat([{ role: 'user', content: 'a' }], null).result, { code: 'unsupported' }); // no template in this file
    await (await model.session(null)).dispose();
    const others = [capabilities, (x) => model.session(x), (x) => model.tokenize('a', x), (x) => model.detokenize([1], x)];
    for (const call of [...Object.values(calls()), ...others]) await refused(call('x'), /options must be an object/);
  });

  test('null for a signal or a callback is none', async () => {
    assert.ok((await model.generate('a', { signal: null, onPrefill: null, maxTokens: 2, ignoreEnd: true }).result).ids.length === 2);
    assert.ok(await model.score('Once upon', { signal: null }));
    await (await load(FIXTURE, { threads: 1, signal: null, onProgress: null })).dispose();
  });
});

test('a program whose options are wrong ends', async () => {
  const out = await program(`const signal = new AbortController();
    const wrong = [load(FIXTURE, { signal }), estimateMemory(FIXTURE, { signal }), load(FIXTURE, { onTier: 1 })];
    console.log((await Promise.all(wrong.map(codeOf))).join(' '));`);
  assert.equal(out, 'argument argument argument');
});

test('a program whose callbacks throw null or undefined ends', async () => {
  const out = await program(`
    const thrower = (what, wanted) => ({ phase }) => { if (phase === wanted) throw what; };
    for (const what of [null, undefined]) {
      for (const phase of ['download', 'ready']) console.log(await codeOf(load(FIXTURE, { threads: 2, onProgress: thrower(what, phase) })));
      console.log(await codeOf(load(FIXTURE, { threads: 1, onTier: () => { throw what; } })));
    }`);
  assert.equal(out, 'null\nnull\nnull\nundefined\nundefined\nundefined');
});

test('a session whose end nobody waits for, and the model ends', async () => {
  const out = await program(`const model = await load(FIXTURE, { threads: 1 });
    for (const pause of [Promise.resolve(), new Promise(setImmediate)]) {
      const session = await model.session();
      session.dispose();
      await pause;
    }
    (await model.session()).dispose();
    await new Promise((resolve) => process.nextTick(resolve));
    await model.dispose();
    console.log('good');`);
  assert.equal(out, 'good');
});

test('a second dispose() waits for what the first one does', async () => {
  const model = await load(FIXTURE, { threads: 1 });
  const session = await model.session();
  let freed = false;
  session.dispose().then(() => (freed = true));
  await session.dispose();
  assert.equal(freed, true, 'session');
  let gone = false;
  model.dispose().then(() => (gone = true));
  await model.dispose();
  assert.equal(gone, true, 'model');
});

describe('a crew', () => {
  const stuck = () => ({ post() {}, hold() {}, terminate: () => new Promise(() => {}) });

  test('that ends lets its requests go at once, though a worker is stuck', async () => {
    const crew = new Crew(stuck());
    const open = crew.request('load', {});
    crew.end(new BitpairError('aborted', 'enough'));
    await assert.rejects(open, { code: 'aborted' });
    await assert.rejects(crew.request('stats', {}), { code: 'aborted' });
  });

  test('has ended, whatever was thrown', async () => {
    const crew = new Crew({ ...stuck(), terminate: async () => {} });
    await crew.end(null);
    assert.ok(crew.ended);
    await assert.rejects(crew.request('stats', {}), (error) => error === null);
  });
});
