// Answers: text, determinism, stopping, order.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { load } from '../../web/index.js';
import { has } from '../../web/wasm.js';
import { FIXTURE } from './helper.js';

const PROMPT = 'Once upon a time, there was a little girl named';

for (const threads of [1, 2]) {
  describe(`on ${threads} thread${threads > 1 ? 's' : ''}`, () => {
    let model;
    before(async () => (model = await load(FIXTURE, { threads })));
    after(() => model.dispose());

    test('info', () => {
      assert.equal(model.info.threads, threads);
      assert.equal(model.info.threadsReason, null);
      assert.equal(model.info.isa, has('relaxed') ? 'relaxed' : 'simd128');
      assert.equal(model.info.vocabulary, 2048);
      assert.ok(model.info.bitsPerWeight > 0.5 && model.info.memoryBytes > model.info.bytes);
      assert.throws(() => (model.info.threads = 9));
    });

    test('chunks, result and text agree', async () => {
      const generation = model.generate(PROMPT, { seed: 7, maxTokens: 30 });
      const chunks = await collect(generation);
      const result = await generation.result;
      const last = chunks.pop();
      assert.equal(last.id, null);
      assert.equal(last.finishReason, result.finishReason);
      assert.equal(chunks.map(({ text }) => text).join('') + last.text, result.text);
      assert.deepEqual(chunks.map(({ id }) => id), result.ids);
      assert.equal(await model.detokenize(result.ids), result.text);
      assert.equal(result.stats.completionTokens, result.ids.length);
      assert.equal(result.stats.promptTokens, (await model.tokenize(PROMPT, { bos: true })).length);
      assert.ok(result.stats.decodeTokensPerSecond > 0 && result.stats.timeToFirstToken > 0);
    });

    test('a seed decides; 64-bit seeds differ in their high half', async () => {
      const text = (seed) => model.generate(PROMPT, { seed, maxTokens: 40, temperature: 1.2 }).text();
      const first = await text(1);
      assert.equal(await text(1), first);
      assert.notEqual(await text(2), first);
      assert.notEqual(await text(1n + (1n << 40n)), first);
      const { stats, text: random } = await model.generate(PROMPT, { maxTokens: 40, temperature: 1.2 }).result;
      assert.equal(await text(stats.seed), random);
    });

    test('what was computed before is not computed again, and changes nothing', async () => {
      const options = { seed: 3, maxTokens: 24, repeatPenalty: 1.3 };
      await model.generate('Something else entirely', { maxTokens: 1 }).text();
      const fresh = await model.generate(PROMPT, options).result;
      const again = await model.generate(PROMPT, options).result;
      assert.equal(again.text, fresh.text);
      assert.equal(again.stats.cachedTokens, again.stats.promptTokens - 1);
      const longer = await model.generate([...await model.tokenize(PROMPT, { bos: true }), ...fresh.ids, 5], { maxTokens: 1 }).result;
      assert.ok(longer.stats.cachedTokens >= again.stats.promptTokens + fresh.ids.length - 1);
    });

    test('stop strings that span tokens', async () => {
      const { text, ids } = await model.generate(PROMPT, { greedy: true, maxTokens: 40 }).result;
      for (const [from, to] of [[3, 9], [10, 22], [15, 16], [0, 4]]) {
        const stop = text.slice(from, to);
        const cut = text.slice(0, text.indexOf(stop));
        const generation = model.generate(PROMPT, { greedy: true, maxTokens: 40, stop: ['never appears', stop] });
        let seen = '';
        for await (const chunk of generation) {
          seen += chunk.text;
          assert.ok(cut.startsWith(seen), `'${seen}' shows a part of the stop string '${stop}'`);
        }
        const result = await generation.result;
        assert.equal(result.text, cut);
        assert.equal(result.finishReason, 'stop');
        assert.equal(result.stop, stop);
        assert.ok(result.ids.length <= ids.length);
      }
      const held = await model.generate(PROMPT, { greedy: true, maxTokens: 40, stop: `${text.slice(-5)}?!` }).result;
      assert.equal(held.text, text, 'what was held back in vain comes at the end');
    });

    test('maxTokens, a full context, a prompt too long', async () => {
      assert.equal((await model.generate(PROMPT, { maxTokens: 5 }).result).ids.length, 5);
      const n = model.info.contextSize;
      const full = await model.generate(new Int32Array(n - 3).fill(100), { temperature: 2, topK: 0, topP: 1, minP: 0, maxTokens: 50 }).result;
      if (full.finishReason !== 'stop') assert.equal(full.finishReason, 'context');
      assert.ok(full.ids.length <= 4);
      await assert.rejects(model.generate(new Int32Array(n + 1)).result, { code: 'context' });
      await assert.rejects(model.generate(new Int32Array(n + 1)).next(), { code: 'context' });
    });

    test('leaving the loop stops the engine', async () => {
      let seen = 0;
      const generation = model.generate(PROMPT, { maxTokens: 400, temperature: 1, ignoreEnd: true });
      for await (const _ of generation) if (++seen === 3) break;
      const { finishReason, ids } = await generation.result;
      assert.equal(finishReason, 'abort');
      assert.ok(ids.length < 300, `${ids.length} tokens`);
      assert.ok((await model.generate(PROMPT, { maxTokens: 3 }).text()).length > 0);
    });

    test('two at once wait for each other', async () => {
      const alone = await model.generate(PROMPT, { seed: 1, maxTokens: 20 }).text();
      const order = [];
      const texts = await Promise.all([1, 2, 1].map(async (seed, i) => {
        const text = await model.generate(PROMPT, { seed, maxTokens: 20 }).text();
        order.push(i);
        return text;
      }));
      assert.deepEqual(order, [0, 1, 2]);
      assert.equal(texts[0], alone);
      assert.equal(texts[2], alone);
    });

    test('one that is stopped while it waits ends at once; the order stays', async () => {
      const order = [];
      const note = (name, result) => result.then((end) => order.push(name) && end);
      const abort = new AbortController();
      const options = { maxTokens: 300, temperature: 1, ignoreEnd: true };
      const all = [
        note('first', model.generate(PROMPT, options).result),
        note('stopped', model.generate(PROMPT, { ...options, signal: abort.signal }).result),
        note('last', model.generate(PROMPT, { maxTokens: 2, ignoreEnd: true }).result),
      ];
      setTimeout(() => abort.abort(), 5);
      const [first, stopped, last] = await Promise.all(all);
      assert.deepEqual(order, ['stopped', 'first', 'last']);
      const nothing = { text: '', ids: [], logprobs: null, toolCalls: [], finishReason: 'abort', stop: null };
      assert.deepEqual(stopped, { ...nothing, stats: null, answers: [nothing] });
      assert.deepEqual([first.ids.length, last.ids.length], [300, 2]);
    });

    test('what onPrefill throws is the error of its generation only', async () => {
      const wrong = new Error('of the caller');
      const onPrefill = () => {
        throw wrong;
      };
      const failed = model.generate(new Int32Array(300).fill(77), { maxTokens: 100, onPrefill }).result;
      const next = model.generate(PROMPT, { maxTokens: 2, ignoreEnd: true }).result;
      await assert.rejects(failed, (error) => error === wrong);
      assert.equal((await next).ids.length, 2);
    });

    test('asyncDispose stops a generation', async () => {
      const generation = model.generate(PROMPT, { maxTokens: 400, temperature: 1, ignoreEnd: true });
      await generation.next();
      await generation[Symbol.asyncDispose]();
      assert.equal((await generation.result).finishReason, 'abort');
    });

    test('one that is not asked does not run', async () => {
      model.generate(PROMPT, { maxTokens: 100000 });
      await model.generate(PROMPT).return();
      assert.ok(await model.generate(PROMPT, { maxTokens: 2 }).text());
    });

    test('bos and special that are undefined are left out', async () => {
      const prompt = `${PROMPT}<|end_story|>`;
      const count = async (options) => (await model.generate(prompt, { maxTokens: 1, ...options }).result).stats.promptTokens;
      const plain = await count({});
      assert.equal(await count({ bos: undefined, special: undefined }), plain);
      assert.equal(await count({ bos: false }), plain - 1);
      assert.notEqual(await count({ special: true }), plain);
    });

    test('bad options', async () => {
      const bad = [{ maxTokens: 0 }, { maxTokens: 1.5 }, { temperature: 'hot' }, { temperature: -1 }, { topP: 0 }, { topK: -1 }, { minP: 2 },
        { seed: -1 }, { seed: 1.5 }, { stop: '' }, { stop: [3] }, { repeatPenalty: 0 }, { temperature: NaN }];
      for (const options of bad) await assert.rejects(model.generate(PROMPT, options).result, { code: 'argument' }, JSON.stringify(options));
      for (const prompt of [[], '', [-1], [1.5], ['a'], null, 7, [2048]]) {
        if (prompt === '' && model.info.bos >= 0) continue;
        await assert.rejects(model.generate(prompt, { bos: false }).result, { code: 'argument' }, String(prompt));
      }
      assert.ok(await model.generate(PROMPT, { maxTokens: 2 }).text(), 'and the model is still well');
    });

    test('no chat template: chat() says so, or takes one', async () => {
      const messages = [{ role: 'user', content: 'Tell me a story.' }];
      await assert.rejects(model.chat(messages).result, { code: 'unsupported' });
      const template = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
      assert.ok((await model.chat(messages, { template, maxTokens: 4 }).result).stats.promptTokens > 4);
      for (const wrong of [[], 'hello', [{ role: 'boss', content: '' }], [{ role: 'user' }]])
        await assert.rejects(model.chat(wrong, { template }).result, { code: 'argument' });
      await assert.rejects(model.chat(messages, { template: '{{ raise_exception("no") }}' }).result, { code: 'argument' });
    });

    test('tokenize and detokenize', async () => {
      await assert.rejects(model.detokenize([1, 1 << 20]), { code: 'argument', message: /not one of the \d+/ });
      const text = 'The cat sat on the mat.\n\nThen it went home.';
      assert.equal(await model.detokenize(await model.tokenize(text)), text);
      assert.deepEqual(await model.tokenize(''), []);
      await assert.rejects(model.tokenize(3), { code: 'argument' });
      await assert.rejects(model.detokenize('ids'), { code: 'argument' });
      const ids = await model.tokenize(text);
      assert.equal(await model.detokenize({ ...ids, length: 3 }), await model.detokenize(ids.slice(0, 3)));
    });
  });
}

test('one and two threads write the same text', async () => {
  const models = await Promise.all([1, 2].map((threads) => load(FIXTURE, { threads })));
  for (const seed of [1, 2, 3]) {
    const [one, two] = await Promise.all(models.map((model) => model.generate(PROMPT, { seed, maxTokens: 60, temperature: 1 }).text()));
    assert.equal(one, two);
  }
  await Promise.all(models.map((model) => model.dispose()));
});

test('after dispose() everything is refused, what runs is ended', async () => {
  const model = await load(FIXTURE, { threads: 2 });
  const running = model.generate(PROMPT, { maxTokens: 400, temperature: 1.5 });
  await running.next();
  await model.dispose();
  await assert.rejects(running.result, { code: 'disposed' });
  await assert.rejects(model.generate(PROMPT).result, { code: 'disposed' });
  await assert.rejects(model.tokenize('a'), { code: 'disposed' });
  await model.dispose();
});

async function collect(iterable) {
  const all = [];
  for await (const item of iterable) all.push(item);
  return all;
}
