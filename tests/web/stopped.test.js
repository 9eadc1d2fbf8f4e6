// What is stopped while it waits, or while the engine works on it: it ends at once, and the session goes on.

import assert from 'node:assert/strict';
import { register } from 'node:module';
import { after, before, describe, test } from 'node:test';

import { load, openai } from '../../web/index.js';
import { EMBEDDED, FIXTURE } from './helper.js';

// The template engine comes when a test says so.
let arrive;
globalThis.templateEngine = new Promise((_, reject) => (arrive = () => reject(new Error('lost'))));
globalThis.templateEngine.catch(() => {}); // it may be lost before anybody waits for it
const hooks = `export const resolve = (name, context, next) => (name === '@huggingface/jinja'
  ? { url: 'data:text/javascript,await globalThis.templateEngine', shortCircuit: true } : next(name, context));`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);

const wait = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const limits = { timeout: 15000 };

describe('while the template engine is on its way', () => {
  test('load()', limits, async () => {
    const abort = new AbortController();
    let read;
    const ready = new Promise((resolve) => (read = resolve));
    const onProgress = ({ loaded, total }) => loaded === total && read();
    const loading = load(EMBEDDED, { tier: 1, threads: 1, signal: abort.signal, onProgress, onTier: () => assert.fail('it is not open') });
    await ready;
    await wait(800); // the worker has opened it
    abort.abort(new Error('enough'));
    await assert.rejects(loading, (error) => error.code === 'aborted' && error.cause.message === 'enough');
  });

  test('chat()', limits, async () => {
    const model = await load(FIXTURE, { threads: 1 });
    const abort = new AbortController();
    const generation = model.chat([{ role: 'user', content: 'Hi' }], { template: '{{ messages }}', signal: abort.signal });
    const chunk = generation.next();
    await wait(20);
    abort.abort();
    assert.equal((await chunk).value.finishReason, 'abort');
    assert.equal((await generation.result).stats, null);
    arrive(); // too late: nobody hears of it
    await wait(20);
    assert.equal((await model.generate('a', { maxTokens: 2, ignoreEnd: true }).result).ids.length, 2);
    await model.dispose();
  });
});

describe('while the engine reads', () => {
  const contextSize = 8192;
  const long = new Array(contextSize - 10).fill(77); // takes longer than the limit
  let model;
  before(async () => (model = await load(EMBEDDED, { tier: 1, threads: 1, contextSize })));
  after(() => model.dispose());
  const goesOn = async () => assert.equal((await model.generate('a', { maxTokens: 2, ignoreEnd: true }).result).ids.length, 2);

  for (const [name, ask] of [['embed', [long]], ['score', long], ['logits', long]]) {
    test(`${name}()`, limits, async () => {
      const abort = new AbortController();
      const stopped = assert.rejects(model[name](ask, { signal: abort.signal }), (error) =>
        error.code === 'aborted' && error.name === 'AbortError' && error.cause.message === 'enough');
      await wait(100);
      const waiting = new AbortController();
      const next = assert.rejects(model[name](ask, { signal: waiting.signal }), { code: 'aborted' });
      waiting.abort();
      await next; // before its turn
      abort.abort(new Error('enough'));
      await stopped;
      await goesOn();
      await assert.rejects(model[name](ask, { signal: AbortSignal.abort() }), { code: 'aborted' });
      assert.ok(await model[name]([1, 2], { signal: new AbortController().signal }).catch((error) => error.code === 'argument'));
    });

    test(`${name}(), and its session is disposed`, limits, async () => {
      const session = await model.session();
      const stopped = assert.rejects(session[name](ask, { signal: new AbortController().signal }), { code: 'disposed' });
      await wait(100);
      await session.dispose();
      await stopped;
    });
  }

  test('return() of a generation', limits, async () => {
    let reads;
    const reading = new Promise((resolve) => (reads = resolve));
    const generation = model.generate(long, { fresh: true, onPrefill: reads });
    const chunk = generation.next();
    await reading;
    assert.deepEqual(await generation.return('x'), { value: 'x', done: true });
    assert.equal((await chunk).value.finishReason, 'abort');
    assert.deepEqual((await generation.result).ids, []);
    await assert.rejects(model.generate(long, { fresh: true }).throw(new Error('mine')), /mine/);
    await goesOn();
  });

  test('return() and throw() of what openai() streams', limits, async () => {
    for (const way of ['return', 'throw']) {
      const stream = await openai(model).completions.create({ prompt: long, max_tokens: 2, stream: true });
      const chunk = stream.next();
      await wait(100);
      const ended = stream[way](new Error('mine'));
      assert.equal((await chunk).done, true);
      if (way === 'return') await ended;
      else await assert.rejects(ended, /mine/);
      assert.equal(stream.controller.signal.aborted, true);
      await goesOn();
    }
  });
});
