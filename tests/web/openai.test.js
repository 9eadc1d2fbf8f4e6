// openai(): the shape of OpenAI's client over a model; its types against those of the official package.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { copyFileSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, describe, test } from 'node:test';

import { BitpairError, load, openai } from '../../web/index.js';
import { FIXTURE, ROOT } from './helper.js';

const PROMPT = 'Once upon a time, there was a little girl named';
const TEMPLATE = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
const messages = [{ role: 'developer', content: 'Be kind.' }, { role: 'user', content: [{ type: 'text', text: 'Tell me ' }, { type: 'text', text: 'a story.' }] }];

describe('openai()', () => {
  let model;
  let client;
  before(async () => {
    model = await load(FIXTURE, { threads: 1, contextSize: 128 });
    // The fixture has no chat template.
    const chatting = { info: model.info, chat: (list, options) => model.chat(list, { ...options, template: TEMPLATE }) };
    client = { ...openai(model), chat: openai(chatting).chat };
  });
  after(() => model.dispose());

  test('chat.completions: the answer of chat()', async () => {
    const before = Math.floor(Date.now() / 1000);
    const answer = await client.chat.completions.create({ model: 'mine', messages, seed: 3, max_completion_tokens: 12, n: 2, logprobs: true, top_logprobs: 2 });
    const plain = [{ role: 'system', content: 'Be kind.' }, { role: 'user', content: 'Tell me a story.' }];
    const { answers, stats } = await model.chat(plain, { seed: 3, maxTokens: 12, n: 2, template: TEMPLATE }).result;
    assert.deepEqual(answer.choices.map(({ message }) => message.content), answers.map(({ text }) => text));
    assert.deepEqual(answer.choices.map(({ index, finish_reason }) => [index, finish_reason]), answers.map(({ finishReason }, i) => [i, finishReason]));
    assert.deepEqual([answer.object, answer.model], ['chat.completion', 'mine']);
    assert.match(answer.id, /^chatcmpl-./);
    assert.ok(answer.created >= before && answer.created <= before + 60);
    assert.equal(answer.usage.prompt_tokens, stats.promptTokens);
    assert.equal(answer.usage.completion_tokens, stats.completionTokens);
    assert.equal(answer.usage.total_tokens, stats.promptTokens + stats.completionTokens);
    const [{ logprobs, message }] = answer.choices;
    assert.equal(logprobs.content.map(({ token }) => token).join(''), message.content);
    for (const { logprob, bytes, top_logprobs } of logprobs.content) {
      assert.ok(logprob <= top_logprobs[0].logprob && top_logprobs.length === 2 && bytes.length > 0);
    }
  });

  test('a stream says the same, piece by piece', async () => {
    const params = { messages, seed: 4, max_tokens: 10, n: 2, logprobs: true };
    const whole = await client.chat.completions.create(params);
    const chunks = await collect(await client.chat.completions.create({ ...params, stream: true, stream_options: { include_usage: true } }));
    const usage = chunks.pop();
    assert.deepEqual([usage.choices, usage.usage.completion_tokens], [[], whole.usage.completion_tokens]);
    for (const index of [0, 1]) {
      const own = chunks.map(({ choices: [choice] }) => choice).filter((choice) => choice.index === index);
      assert.deepEqual(own[0].delta, { role: 'assistant', content: '', refusal: null });
      assert.equal(own.map(({ delta }) => delta.content ?? '').join(''), whole.choices[index].message.content);
      assert.deepEqual(own.flatMap(({ logprobs }) => logprobs?.content ?? []), whole.choices[index].logprobs.content);
      assert.deepEqual(own.map(({ finish_reason }) => finish_reason).filter(Boolean), [whole.choices[index].finish_reason]);
      assert.equal(own.at(-1).finish_reason, whole.choices[index].finish_reason);
    }
    assert.ok(chunks.every(({ id, object, usage: none }) => id === chunks[0].id && object === 'chat.completion.chunk' && none === null));
    const bare = await collect(await client.chat.completions.create({ messages, max_tokens: 3, stream: true }));
    assert.ok(bare.every((chunk) => !('usage' in chunk)));
  });

  test('completions: prompts of text and of ids, 16 tokens, logprobs in lists', async () => {
    const ids = await model.tokenize(PROMPT, { bos: true });
    const { choices, usage, object } = await client.completions.create({ prompt: [PROMPT, PROMPT], seed: 7, temperature: 1, logprobs: 2, stop: null });
    const one = await client.completions.create({ prompt: ids, seed: 7, temperature: 1, logprobs: 2 });
    assert.equal(object, 'text_completion');
    assert.deepEqual(choices.map(({ index, text }) => [index, text]), [0, 1].map((i) => [i, one.choices[0].text]));
    assert.equal(usage.completion_tokens, 2 * one.usage.completion_tokens);
    assert.ok(one.usage.completion_tokens <= 16);
    const { tokens, token_logprobs, top_logprobs, text_offset } = one.choices[0].logprobs;
    assert.equal(tokens.join(''), one.choices[0].text);
    assert.deepEqual(text_offset, tokens.map((_, i) => tokens.slice(0, i).join('').length));
    assert.ok(token_logprobs.every((logprob, i) => logprob <= Math.max(...Object.values(top_logprobs[i]))));
    const chunks = await collect(await client.completions.create({ prompt: ids, seed: 7, temperature: 1, logprobs: 2, stream: true }));
    assert.equal(chunks.map(({ choices: [{ text }] }) => text).join(''), one.choices[0].text);
    assert.deepEqual(chunks.flatMap(({ choices: [{ logprobs }] }) => logprobs?.text_offset ?? []), text_offset);
    assert.equal(chunks.at(-1).choices[0].finish_reason, one.choices[0].finish_reason);
    const full = await client.completions.create({ prompt: new Array(120).fill(77), max_tokens: 100, temperature: 1.5, logit_bias: { [model.info.eos]: -100 } });
    assert.equal(full.choices[0].finish_reason, 'length', 'a full context');
  });

  test('embeddings', async () => {
    const input = ['The cat sat.', 'A dog ran.'];
    const { data, usage, object } = await client.embeddings.create({ input, model: 'm' });
    assert.equal(object, 'list');
    assert.deepEqual(data.map(({ embedding }) => Float32Array.from(embedding)), await model.embed(input));
    const counts = await Promise.all(input.map((text) => model.tokenize(text, { bos: true })));
    assert.equal(usage.prompt_tokens, counts.flat().length);
  });

  test('response_format: any JSON object, or one of a schema', async () => {
    const format = { type: 'json_schema', json_schema: { name: 'it', strict: true, schema: { type: 'boolean' } } }; // this model knows no braces
    const { choices } = await client.chat.completions.create({ messages, response_format: format, n: 2, seed: 1 });
    const { choices: [{ text }] } = await client.completions.create({ prompt: PROMPT, response_format: format });
    for (const each of [...choices.map(({ message }) => message.content), text]) assert.equal(typeof JSON.parse(each), 'boolean', each);
    const options = [];
    const told = { info: model.info, chat: (_, each) => (options.push(each), model.generate(PROMPT, { maxTokens: 1 })) };
    for (const response_format of [{ type: 'json_object' }, { type: 'text' }, null]) await openai(told).chat.completions.create({ messages, response_format });
    assert.deepEqual(options.map(({ json, jsonSchema }) => [json, jsonSchema]), [[true, undefined], [undefined, undefined], [undefined, undefined]]);
    for (const type of ['grammar', 'json_schema']) await assert.rejects(client.chat.completions.create({ messages, response_format: { type } }),
      { code: type === 'grammar' ? 'unsupported' : 'argument', status: 400 });
  });

  test('several answers of which one was stopped are none', async () => {
    const answers = ['stop', 'abort'].map((finishReason) => ({ text: 'a', ids: [1], logprobs: null, toolCalls: [], finishReason, stop: null }));
    const stopped = { info: model.info, generate: () => ({ result: Promise.resolve({ ...answers[0], answers, stats: null }) }) };
    await assert.rejects(openai({ ...stopped, chat: stopped.generate }).chat.completions.create({ messages, n: 2 }), { code: 'aborted' });
    await assert.rejects(openai(stopped).completions.create({ prompt: 'a', n: 2 }), { code: 'aborted' });
  });

  test('errors have the status and type of the official ones', async () => {
    const invalid = [{ messages: 'Hi' }, { messages: [] }, { messages, temperature: -1 }, { messages, n: 0 }, { messages, top_logprobs: 21, logprobs: true },
      { messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: '' } }] }] }, { messages, tools: [{ type: 'custom', custom: { name: 'a' } }] },
      { messages, response_format: { type: 'grammar' } }, { messages: [{ role: 'user', content: 'a b c d '.repeat(99) }] }];
    for (const params of invalid)
      await assert.rejects(client.chat.completions.create(params), { status: 400, type: 'invalid_request_error' }, JSON.stringify(params));
    await assert.rejects(client.completions.create({ prompt: [] }), { code: 'argument', status: 400 });
    await assert.rejects(client.completions.create(), { code: 'argument' });
    await assert.rejects(client.completions.create({ prompt: 'a', echo: true }), { code: 'unsupported', status: 400 });
    assert.ok((await client.completions.create({ prompt: 'a', tools: [], response_format: { type: 'text' }, user: 'me' })).choices);
  });

  test('a stream that is at fault rejects at once, and names what is', async () => {
    const stream = true;
    for (const [params, message] of [[{ temperature: -1 }, /^temperature must/], [{ top_p: 0 }, /^top_p must/],
      [{ min_p: 7 }, /^min_p must/],
      [{ repeat_penalty: 0 }, /^repeat_penalty must/], [{ logit_bias: { 9999999: 1 } }, /^logit_bias: token id 9999999/],
      [{ max_tokens: 0 }, /^max_tokens must/],
      [{ n: 0 }, /^n must/], [{ frequency_penalty: 101 }, /^frequency_penalty/], [{ stop: [''] }, /^stop must/],
      [{ top_p: 'x' }, /^top_p must/],
      [{ response_format: { type: 'json_schema', json_schema: { schema: { type: 'x' } } } },
      /^response_format\.json_schema\.schema, #\/type: /]]) {
      for (const more of [{}, { stream }]) {
        const wanted = { code: 'argument', status: 400, message };
        await assert.rejects(client.completions.create({ prompt: 'a', ...params, ...more }), wanted, JSON.stringify(params));
        await assert.rejects(client.chat.completions.create({ messages, ...params, ...more }), wanted, JSON.stringify(params));
      }
    }
    await assert.rejects(client.chat.completions.create({ messages, max_completion_tokens: 0, stream }),
      { message: /^max_completion_tokens must/ });
    await assert.rejects(client.chat.completions.create({ messages, logprobs: true, top_logprobs: 21, stream }),
      { message: /^top_logprobs must/ });
    await assert.rejects(client.completions.create({ prompt: 'a b c '.repeat(99), stream }), { code: 'context', status: 400 });
    assert.ok((await collect(await client.completions.create({ prompt: 'a', max_tokens: 2, stream }))).length > 0);
  });

  test('beside it, generate() names options as its own types do', async () => {
    for (const [name, value] of [['topP', 0], ['minP', 2], ['typicalP', 0], ['repeatPenalty', 0], ['frequencyPenalty', 101],
      ['presencePenalty', -101],
      ['repeatLast', 1025], ['logitBias', { 9999999: 1 }], ['temperature', -1]])
      await assert.rejects(model.generate(PROMPT, { [name]: value }).result, { code: 'argument', message: new RegExp(`^${name}\\b`) });
  });

  test('whatever stands where something else should: a BitpairError with its status', async () => {
    const user = { role: 'user', content: 'Hi' };
    const tool = { type: 'function', function: { name: 'f' } };
    const called = (tool_calls) => ({ messages: [user, { role: 'assistant', content: null, tool_calls }] });
    for (const [params, message] of [[{ tools: [{ type: 'function' }] }, /^tools\[0\]\.function\.name/],
      [{ tools: { a: 1 } }, /^tools must be/], [{ tools: 'x' }, /^tools must/],
      [{ tools: [tool, null] }, /^tools\[1\] must be/],
      [{ tools: [{ type: 'function', function: { name: 'f', parameters: 5 } }] }, /^tools\[0\]\.function\.parameters/],
      [{ tools: [tool], tool_choice: { type: 'function' } }, /^tool_choice\.function\.name/],
      [{ tools: [tool], tool_choice: 'any' }, /^tool_choice must/],
      [{ tools: [tool], tool_choice: { type: 'function', function: { name: 'g' } } }, /^tool_choice: there is no tool g/],
      [{ tool_choice: 'required' }, /^tool_choice needs tools/],
      [{ tools: [], tool_choice: { type: 'function', function: { name: 'f' } } }, /^tool_choice needs tools/],
      [called('x'), /^messages\[1\]\.tool_calls must be an array/], [called([null]), /^messages\[1\]\.tool_calls\[0\] must/],
      [called([{ type: 'function' }]), /tool_calls\[0\]\.function\.name/],
      [called([{ type: 'function', function: { name: 'f', arguments: '[1]' } }]), /tool_calls\[0\]\.function\.arguments must/],
      [called([{ type: 'function', function: { name: 'f', arguments: { a: 1 } } }]), /tool_calls\[0\]\.function\.arguments must/],
      [{ messages: [{ ...user, tool_calls: [{ ...tool, id: 'a' }] }] }, /^messages\[0\]\.tool_calls must/],
      [{ messages: [{ role: 'user' }] }, /^messages\[0\]\.content must be a string/],
      [{ messages: [{ role: 'assistant', content: null }] }, /^messages\[0\]\.content/],
      [{ messages: [null] }, /^messages\[0\]/],
      [{ messages: [{ role: 'user', content: [{ type: 'text' }] }] }, /^messages\[0\]\.content\[0\]\.text/],
      [{ response_format: 'json' }, /^response_format must/], [{ logit_bias: 5 }, /^logit_bias must/], [{ n: 'x' }, /^n must/],
      [{ seed: 1.5 }, /^seed must/]])
      for (const stream of [false, true])
        await assert.rejects(client.chat.completions.create({ messages: [user], ...params, stream }), (error) => {
          assert.ok(error instanceof BitpairError, error.stack);
          assert.deepEqual([error.code, error.status], ['argument', 400]);
          assert.match(error.message, message);
          return true;
        });
    for (const params of [undefined, null, 5, {}, { input: [] }, { input: null }])
      await assert.rejects(client.embeddings.create(params), { code: 'argument', status: 400, message: /^(input must|create\(\) takes)/ });
    for (const tool_choice of ['auto', 'none', null])
      await client.chat.completions.create({ messages: [user], tool_choice, tools: null, max_tokens: 1 }, null);
  });

  test('seeds have a sign', async () => {
    const say = async (seed) =>
      (await client.completions.create({ prompt: PROMPT, seed, temperature: 1.5, n: 2 })).choices.map(({ text }) => text);
    assert.deepEqual(await say(-1), await say(-1));
    assert.notDeepEqual(await say(-1), await say(-2));
    assert.equal((await say(-1))[1], (await say(0))[0], 'the next one of -1 is 0');
  });

  test('a signal rejects what is whole, and ends what streams; so does the controller', async () => {
    const controller = new AbortController();
    const long = { prompt: PROMPT, max_tokens: 110, temperature: 1, logit_bias: { [model.info.eos]: -100 } };
    const whole = client.completions.create(long, { signal: controller.signal });
    const reason = new Error('enough');
    controller.abort(reason);
    await assert.rejects(whole, { code: 'aborted', name: 'AbortError', cause: reason });
    assert.deepEqual(await collect(await client.completions.create({ ...long, stream: true }, { signal: controller.signal })), []);
    await assert.rejects(client.embeddings.create({ input: PROMPT }, { signal: controller.signal }), { code: 'aborted' });
    const stream = await client.completions.create({ ...long, stream: true });
    let seen = 0;
    for await (const _ of stream) if (++seen === 2) stream.controller.abort();
    assert.ok(seen < 110, `${seen} chunks`);
    assert.ok((await client.completions.create({ prompt: 'a', max_tokens: 1 })).choices);
  });
});

const USE = `
import type OpenAI from 'openai';
import { openai, type Model } from 'bitpair';

declare const model: Model;
const client = openai(model);

// What is written for the official client: its parameters are taken, its results are given.
const chat: OpenAI.ChatCompletionCreateParamsNonStreaming = { model: 'm', messages: [{ role: 'user', content: 'Hi' }] };
const whole: OpenAI.ChatCompletion = await client.chat.completions.create(chat);
const streamed: OpenAI.ChatCompletionCreateParamsStreaming = { ...chat, stream: true };
for await (const chunk of await client.chat.completions.create(streamed)) {
  const same: OpenAI.ChatCompletionChunk = chunk;
  void same.choices[0]?.delta.content;
}
const tools: OpenAI.ChatCompletionTool[] = [{ type: 'function', function: { name: 'f', parameters: { type: 'object' } } }];
const calling: OpenAI.ChatCompletion = await client.chat.completions.create({ ...chat, tools, tool_choice: 'required' });
for (const call of calling.choices[0]?.message.tool_calls ?? []) if (call.type === 'function') void JSON.parse(call.function.arguments);
await client.chat.completions.create({ ...chat, tools, tool_choice: { type: 'function', function: { name: 'f' } },
  messages: [...chat.messages, calling.choices[0]!.message, { role: 'tool', tool_call_id: 'call_0', content: '1' }] });
const older: OpenAI.CompletionCreateParamsNonStreaming = { model: 'm', prompt: 'a' };
const text: OpenAI.Completion = await client.completions.create(older);
for await (const { choices: [choice], usage } of await client.completions.create({ ...older, stream: true })) void [choice?.text, usage?.total_tokens];
const format: OpenAI.ResponseFormatJSONSchema = { type: 'json_schema', json_schema: { name: 'it', schema: { type: 'object' }, strict: true } };
for (const response_format of [format, { type: 'json_object' }, { type: 'text' }] as const) await client.chat.completions.create({ ...chat, response_format });
// Whether it streams may be known later.
declare const params: OpenAI.ChatCompletionCreateParams;
const either = await client.chat.completions.create(params);
if ('controller' in either) for await (const { choices: [choice] } of either) void choice?.delta;
else void either.choices[0]?.message;
const olderEither = await client.completions.create({ ...older, stream: Math.random() < 0.5 });
if ('controller' in olderEither) olderEither.controller.abort();
else void olderEither.usage;
const embeddings: OpenAI.CreateEmbeddingResponse = await client.embeddings.create({ model: 'm', input: ['a'] });
void [whole, text, embeddings];
await client.chat.completions.create({ messages: [{ role: 'user', content: 'Hi' }], top_k: 40 }, { signal: new AbortController().signal });
// @ts-expect-error messages are missing
await client.chat.completions.create({ model: 'm' });
`;

test('the types are those of the official package', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-openai-'));
  try {
    const own = join(folder, 'node_modules', 'bitpair');
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, 'package.json'), '{ "type": "module", "exports": { "types": "./index.d.ts" } }');
    copyFileSync(`${ROOT}web/index.d.ts`, join(own, 'index.d.ts'));
    symlinkSync(`${ROOT}node_modules/openai`, join(folder, 'node_modules', 'openai'));
    writeFileSync(join(folder, 'use.mts'), USE);
    const flags = ['--strict', '--noEmit', '--skipLibCheck', '--module', 'nodenext', '--target', 'es2022', '--lib', 'es2022,esnext.disposable,dom,dom.iterable'];
    execFileSync(process.execPath, [`${ROOT}node_modules/typescript/bin/tsc`, ...flags, 'use.mts'], { cwd: folder, encoding: 'utf8' });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

async function collect(iterable) {
  const all = [];
  for await (const item of iterable) all.push(item);
  return all;
}
