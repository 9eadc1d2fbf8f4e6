// Sampling options, several answers, a full context, states, embeddings, scores.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { load } from '../../web/index.js';
import { FIXTURE } from './helper.js';

const PROMPT = 'Once upon a time, there was a little girl named';
const LIVELY = { temperature: 1.2, topK: 0, topP: 1, minP: 0, seed: 5, maxTokens: 40, ignoreEnd: true };

describe('a model', () => {
  let model;
  let one;
  before(async () => ([model, one] = await Promise.all([load(FIXTURE, { threads: 2, contextSize: 128 }), load(FIXTURE, { threads: 1, contextSize: 100 })])));
  after(() => Promise.all([model.dispose(), one.dispose()]));
  const answer = (options, m = model) => m.generate(PROMPT, { ...LIVELY, ...options }).result;

  test('each sampling option changes the text, and alike on one thread and on two', async () => {
    const plain = await answer({});
    for (const option of [{ typicalP: 0.3 }, { frequencyPenalty: 2 }, { presencePenalty: 2 }, { topP: 0.3 }, { minP: 0.3 }, { repeatPenalty: 1.5 }]) {
      const { text } = await answer(option);
      assert.notEqual(text, plain.text, JSON.stringify(option));
      assert.equal((await answer(option, one)).text, text, JSON.stringify(option));
    }
  });

  test('logitBias bans and forces', async () => {
    const [first] = (await answer({ greedy: true })).ids;
    assert.notEqual((await answer({ greedy: true, logitBias: { [first]: -Infinity } })).ids[0], first);
    assert.deepEqual((await answer({ logitBias: new Map([[77, 1000]]), maxTokens: 3 })).ids, [77, 77, 77]);
    for (const logitBias of [{ x: 1 }, { 5: 'a' }, { 5: NaN }, { 5: Infinity }, { 2048: 1 }, 7])
      await assert.rejects(answer({ logitBias }), { code: 'argument' }, String(logitBias));
  });

  test('logprobs are those of the model, whatever the options', async () => {
    const { ids, logprobs, text } = await answer({ logprobs: 5, maxTokens: 10, frequencyPenalty: 1 });
    assert.deepEqual(logprobs.map(({ id }) => id), ids);
    assert.equal(logprobs.map((each) => each.text).join(''), text);
    const prompt = await model.tokenize(PROMPT, { bos: true });
    const { tokens } = await model.score([...prompt, ...ids]);
    for (const [i, { logprob, top }] of logprobs.entries()) {
      assert.equal(logprob, tokens[prompt.length + i].logprob);
      assert.equal(top.length, 5);
      const order = top.map((each) => each.logprob);
      assert.deepEqual(order, order.toSorted?.((a, b) => b - a) ?? [...order].sort((a, b) => b - a));
      assert.ok(logprob <= order[0]);
    }
    const chunks = [];
    for await (const chunk of model.generate(PROMPT, { ...LIVELY, logprobs: 0, maxTokens: 3 })) chunks.push(chunk);
    assert.deepEqual(chunks.map((chunk) => chunk.logprobs?.top), [[], [], [], undefined]);
    assert.equal((await answer({ maxTokens: 2 })).logprobs, null);
    for (const wrong of [-1, 21, 1.5, 'a']) await assert.rejects(answer({ logprobs: wrong }), { code: 'argument' });
  });

  test('n answers: each as if asked for alone, over one prefill', async () => {
    const { answers, stats, text } = await answer({ n: 3, logprobs: 1 });
    assert.equal(answers.length, 3);
    assert.equal(text, answers[0].text);
    for (const [i, { text: each, ids, finishReason, logprobs }] of answers.entries()) {
      const alone = await answer({ seed: LIVELY.seed + i }, one);
      assert.deepEqual([each, ids, finishReason], [alone.text, alone.ids, alone.finishReason]);
      assert.equal(logprobs.length, ids.length);
    }
    assert.equal(stats.completionTokens, 120);
    const ends = [];
    for await (const chunk of model.generate(PROMPT, { ...LIVELY, n: 2, maxTokens: 2 })) if (chunk.finishReason) ends.push(chunk);
    assert.deepEqual(ends.map(({ index, stats: s }) => [index, s?.completionTokens]), [[0, undefined], [1, 4]]);
    for (const n of [0, 129, 1.5]) await assert.rejects(answer({ n }), { code: 'argument' });
  });

  test('a full context: stop, error, shift', async () => {
    const long = { maxTokens: 300 };
    const stopped = await answer(long);
    assert.equal(stopped.finishReason, 'context');
    await assert.rejects(answer({ ...long, overflow: 'error' }), { code: 'context' });
    const shifted = await answer({ ...long, overflow: 'shift' });
    assert.equal(shifted.finishReason, 'length');
    assert.equal(shifted.ids.length, 300);
    assert.deepEqual(shifted.ids.slice(0, stopped.ids.length), stopped.ids);
    assert.deepEqual((await answer({ ...long, overflow: 'shift' })).ids, shifted.ids, 'nothing shifted is taken for the prompt');
    const twice = await answer({ ...long, overflow: 'shift', n: 2 });
    assert.deepEqual(twice.answers[0].ids, shifted.ids);
    assert.deepEqual(twice.answers[1].ids, (await answer({ ...long, overflow: 'shift', seed: LIVELY.seed + 1 })).ids);
    await assert.rejects(answer({ overflow: 'slide' }), { code: 'argument' });
    await assert.rejects(answer({ overflow: 'shift', sinkTokens: 100 }), { code: 'argument' });
  });

  test('a saved state spares the prefill, also on another number of threads', async () => {
    const prompt = [...await model.tokenize(PROMPT, { bos: true }), 5, 6, 7];
    const expected = await model.generate(prompt, LIVELY).result;
    const state = await model.saveState();
    assert.ok(state instanceof Uint8Array && state.length > 1000);
    await model.generate('Something else').result;
    for (const each of [model, one]) {
      await each.restoreState(state);
      const again = await each.generate(prompt, LIVELY).result;
      assert.equal(again.text, expected.text);
      assert.equal(again.stats.cachedTokens, prompt.length - 1);
    }
    const damaged = state.slice();
    damaged[500] ^= 1;
    await assert.rejects(model.restoreState(damaged), { code: 'checksum' });
    await assert.rejects(model.restoreState(state.subarray(0, 300)), { code: 'format' });
    await assert.rejects(model.restoreState(new Uint8Array(0)), { code: 'format' });
    await assert.rejects(model.restoreState('state'), { code: 'argument' });
    assert.equal((await model.generate(prompt, LIVELY).result).text, expected.text);
    await model.generate(PROMPT, { ...LIVELY, maxTokens: 110 }).result;
    const long = await model.saveState();
    await assert.rejects(one.restoreState(long), { code: 'context' });
  });

  test('embeddings have length 1, and alike texts are near', async () => {
    const texts = ['The cat sat on the mat.', 'The cat sat on a mat.', 'Lily went to the park with her mom and dad'];
    for (const pooling of ['mean', 'last']) {
      const [a, b, c] = await model.embed(texts, { pooling });
      assert.equal(a.length, model.info.width);
      assert.ok(Math.abs(dot(a, a) - 1) < 1e-5);
      assert.ok(dot(a, b) > dot(a, c), `${pooling}: ${dot(a, b)} ${dot(a, c)}`);
      assert.deepEqual(await one.embed(texts[0], { pooling }), a);
    }
    const [raw] = await model.embed([texts[0]], { normalize: false });
    assert.ok(Math.abs(dot(raw, raw) - 1) > 1e-3);
    for (const [wrong, options] of [['a', { pooling: 'max' }], [7, {}], [[7], {}], [[[]], { bos: false }], ['', { bos: false }]])
      await assert.rejects(model.embed(wrong, options), { code: 'argument' });
    assert.equal((await model.embed('')).length, model.info.width, 'BOS is a token too');
  });

  test('scores and logits agree', async () => {
    const text = `${PROMPT} Lily. She liked to play.`.repeat(3);
    const { logprob, tokens } = await model.score(text);
    assert.deepEqual(await one.score(text), { logprob, tokens });
    assert.equal(tokens[0].logprob, null);
    assert.equal(tokens.slice(1).map((token) => token.text).join('').trimStart(), text);
    const ids = tokens.map(({ id }) => id);
    const logits = await model.logits(ids.slice(0, 30));
    const most = logits.reduce((a, b) => Math.max(a, b));
    const total = logits.reduce((sum, x) => sum + Math.exp(x - most), 0);
    assert.ok(Math.abs(logits[ids[30]] - most - Math.log(total) - tokens[30].logprob) < 1e-4);
    assert.ok(Math.abs(tokens.slice(1).reduce((sum, token) => sum + token.logprob, 0) - logprob) < 1e-9);
    assert.ok(logprob < (await model.score(text.slice(0, 40))).logprob);
    await assert.rejects(model.score(text.repeat(9)), { code: 'context' });
    await assert.rejects(model.logits([]), { code: 'argument' });
  });

  test('they wait for the answers before them', async () => {
    const alone = await answer({});
    const [first, , state, second] = await Promise.all([answer({}), model.embed('Hello'), model.saveState(), answer({})]);
    assert.equal(first.text, alone.text);
    assert.equal(second.text, alone.text);
    assert.ok(state.length > 0);
  });
});

const dot = (a, b) => a.reduce((sum, x, i) => sum + x * b[i], 0);
