// The embedded model in Node: a conversation by its own template, and stopping a model that has work to do.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, test } from 'node:test';

import { load } from '../../web/index.js';
import { EMBEDDED } from './helper.js';

let model;
const bytes = readFileSync(EMBEDDED); // a Buffer of many pieces
before(async () => (model = await load(bytes, { threads: 2 })));
after(() => model?.dispose());

test('it is verified and says what it is', () => {
  assert.ok(bytes.length > 1 << 23, 'the source is still there');
  const { verified, architecture, layers, vocabulary, bitsPerWeight, tiers, tier } = model.info;
  assert.deepEqual({ verified, architecture, layers, vocabulary }, { verified: true, architecture: 'llama', layers: 30, vocabulary: 49152 });
  assert.ok(bitsPerWeight > 1 && bitsPerWeight < 5 && tiers >= 1 && tier === tiers);
});

test('chat: the template is applied, the next turn reads only what is new', async () => {
  const messages = [{ role: 'user', content: 'What is the capital of France?' }];
  const first = await model.chat(messages, { greedy: true, maxTokens: 60 }).result;
  assert.match(first.text, /\p{L}{3,}/u);
  assert.doesNotMatch(first.text, /<\|/);
  messages.push({ role: 'assistant', content: first.text }, { role: 'user', content: 'And of Italy?' });
  const second = await model.chat(messages, { greedy: true, maxTokens: 30 }).result;
  assert.ok(second.stats.cachedTokens >= first.stats.promptTokens - 2, `${second.stats.cachedTokens} cached`);
  assert.ok(second.text.length > 0);
});

test('text survives its way through tokens, also character by character', async () => {
  const text = 'The cat. \u00c0 bient\u00f4t, \u4f60\u597d \u{1f600}\u{1f44d}\u{1f3fd} \ufeff\n\tend';
  const ids = await model.tokenize(text);
  assert.equal(await model.detokenize(ids), text);
  assert.match(await model.detokenize(await model.tokenize('\u{1f600}').then((all) => all.slice(0, 1))), /^\ufffd?$|\u{1f600}/u);
});

test('control tokens: named in a chat, plain text in a prompt', async () => {
  const text = '<|im_start|>user\nHi<|im_end|>';
  const special = await model.tokenize(text, { special: true });
  const plain = await model.tokenize(text);
  assert.ok(special.length < plain.length);
  assert.equal(await model.detokenize(special, { special: true }), text);
  assert.equal(await model.detokenize(special), 'user\nHi');
  assert.equal(await model.detokenize(plain), text);
});

test('an abort is obeyed within 50 ms, in prefill and while decoding', async () => {
  const long = Array.from({ length: 1800 }, (_, i) => 1000 + ((i * 7919) % 40000));
  const late = [];
  for (const delay of [20, 40, 60, 90, 110, 150, 180, 230]) {
    const abort = new AbortController();
    let prefilled = 0;
    const running = model.generate(long, { signal: abort.signal, onPrefill: ({ done }) => (prefilled = done) }).result;
    await new Promise((resolve) => setTimeout(resolve, delay));
    const asked = performance.now();
    abort.abort();
    assert.equal((await running).finishReason, 'abort');
    late.push(performance.now() - asked);
    assert.ok(prefilled < long.length, 'still reading');
    long[0]++; // nothing of it is cached
  }
  const abort = new AbortController();
  let asked;
  for await (const { id, finishReason } of model.generate('The sea', { signal: abort.signal, maxTokens: 400, ignoreEnd: true })) {
    if (id === null) {
      late.push(performance.now() - asked);
      assert.equal(finishReason, 'abort');
    }
    if (!asked) [asked] = [performance.now(), abort.abort()];
  }
  late.sort((a, b) => a - b);
  const { stats } = await model.generate('The sea', { maxTokens: 12, ignoreEnd: true }).result;
  const limit = Math.max(50, 2000 / stats.decodeTokensPerSecond); // on a machine so busy that a token takes longer: two tokens
  assert.ok(late[late.length >> 1] < limit, `median of ${late.map((ms) => ms.toFixed(0)).join(', ')} ms, limit ${limit.toFixed(0)}`);
});

test('threads use less than half of their stacks', async () => {
  const { STACK_BYTES } = await import('../../web/protocol.js');
  const { openEngine, openSession } = await import('./helper.js');
  const stacks = [];
  const engine = await openEngine(2, { onStack: (pointer) => stacks.push(pointer) });
  const { session } = openSession(engine, bytes);
  const { wasm } = engine;
  const ids = wasm.alloc(4 * 300);
  new Int32Array(wasm.memory.buffer, ids, 300).fill(500);
  wasm.check(wasm.exports.bp_session_feed(session, ids, 300, wasm.error));
  wasm.check(wasm.exports.bp_session_feed(session, ids, 1, wasm.error));
  for (const stack of stacks) {
    const untouched = wasm.bytes(stack, STACK_BYTES).findIndex((byte) => byte !== 0);
    assert.ok(untouched > STACK_BYTES / 2, `${STACK_BYTES - untouched} of ${STACK_BYTES} bytes were used`);
  }
  assert.equal(stacks.length, 1);
  await engine.close();
});
