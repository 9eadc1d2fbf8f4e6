// Tool calls: how the model is told, how calls are found in its words, chat() and openai() with them; templates that do not end.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { load, openai } from '../../web/index.js';
import { Session } from '../../web/model.js';
import { renderTemplate } from '../../web/template.js';
import { BareReader, TaggedReader, useTools } from '../../web/tools.js';
import { EMBEDDED } from './helper.js';

const TOOLS = [
  { name: 'weather', description: 'Of a city.', parameters: { type: 'object', properties: { city: { enum: ['Rome', 'Oslo'] } }, required: ['city'] } },
  { name: 'now' },
];
const PLAIN = '{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:';
const HERMES = `{% if tools %}<tools>{% for tool in tools %}{{ tool | tojson }}{% endfor %}</tools> Answer with <tool_call>{...}</tool_call>\n{% endif %}` +
  `{% for m in messages %}{{ m.role }}: {{ m.content }}{% if m.tool_calls %}{% for c in m.tool_calls %}<tool_call>{{ c.function | tojson }}</tool_call>{% endfor %}{% endif %}\n{% endfor %}assistant:`;

const known = new Set(['weather', 'now']);
const ids = () => {
  let n = 0;
  return () => `call_${n++}`;
};

/** What a reader makes of a text that comes in pieces of `size` characters. */
function read(Reader, text, size) {
  const reader = new Reader(known, ids());
  const out = { text: '', calls: [] };
  const add = (part) => {
    out.text += part.text;
    out.calls.push(...part.calls);
  };
  for (let at = 0; at < text.length; at += size) add(reader.push(text.slice(at, at + size), false));
  add(reader.push('', true));
  return out;
}

const call = (name, args, n = 0) => ({ id: `call_${n}`, name, arguments: args });
const ROME = call('weather', { city: 'Rome' });

const READINGS = [
  [TaggedReader, '<tool_call>\n{"name": "weather", "arguments": {"city": "Rome"}}\n</tool_call>', '', [ROME]],
  [TaggedReader, 'Let me see. <tool_call>{"name":"weather","arguments":{"city":"Rome"}}</tool_call>\n<tool_call>{"name":"now"}</tool_call>', 'Let me see.', [ROME, call('now', {}, 1)]],
  [TaggedReader, '<tool_call>[{"name": "weather", "arguments": {"city": "Rome"}}, {"name": "now", "arguments": {}}]</tool_call>', '', [ROME, call('now', {}, 1)]],
  [TaggedReader, '<tool_call>{"name": "weather", "arguments": "{\\"city\\": \\"Rome\\"}"}</tool_call> Done.', 'Done.', [ROME]],
  [TaggedReader, '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}', '', [ROME]],
  [TaggedReader, 'a < b and <tool_cal', 'a < b and <tool_cal', []],
  [TaggedReader, '<tool_call>not JSON</tool_call> and on', '<tool_call>not JSON</tool_call> and on', []],
  [TaggedReader, '<tool_call>{"name": "other", "arguments": {}}</tool_call>', '<tool_call>{"name": "other", "arguments": {}}</tool_call>', []],
  [TaggedReader, '  plain text,  with spaces  \n', '  plain text,  with spaces  \n', []],
  [BareReader, ' {"name": "weather", "parameters": {"city": "Rome"}}', '', [ROME]],
  [BareReader, '{"name": "weather", "parameters": {"city": "Rome"}}; {"name": "now", "parameters": {}}', '', [ROME, call('now', {}, 1)]],
  [BareReader, 'It is {"name": "now"}', 'It is {"name": "now"}', []],
  [BareReader, '{"answer": 42}', '{"answer": 42}', []],
  [BareReader, '', '', []],
];

test('calls are found however the text is cut', () => {
  for (const [Reader, text, rest, calls] of READINGS)
    for (let size = 1; size <= text.length + 1; size++) assert.deepEqual(read(Reader, text, size), { text: rest, calls }, `${text} by ${size}`);
});

test('how the model is told: by its template, else by a system message', async () => {
  const messages = [{ role: 'user', content: 'Hi' }];
  const hermes = await useTools(HERMES, messages, { tools: TOOLS });
  assert.deepEqual(hermes.messages, messages);
  const prompt = await renderTemplate(HERMES, { messages, ...hermes.variables });
  assert.match(prompt, /<tools>\{"type": "function", "function": \{"name": "weather", "description": "Of a city\.", "parameters": \{/);
  const plain = await useTools(PLAIN, [{ role: 'system', content: 'Be kind.' }, ...messages], { tools: TOOLS });
  assert.match(plain.messages[0].content, /expert in composing functions[^]*<tools>\[\{"name":"weather"[^]*Be kind\.$/);
  assert.deepEqual(plain.variables, {});
  const none = await useTools(HERMES, messages, { tools: TOOLS, toolChoice: 'none' });
  assert.deepEqual([none.variables, none.reader, none.grammar], [{}, null, null]);
});

/** A session whose model says `words`, a token each; session.prompts: what it was asked. */
function saying(words, template = HERMES) {
  const prompts = [];
  const request = async (type, { prompt, options }, { onMessage }) => {
    prompts.push({ prompt, grammar: options.grammar });
    words.forEach((text, token) => onMessage({ type: 'token', index: 0, token, text, tier: 1 }));
    onMessage({ type: 'answer', index: 0, text: '', tier: 1, finishReason: 'stop', stop: null });
    return { promptTokens: 1, cachedTokens: 0, completionTokens: words.length };
  };
  const crew = { request, newId: () => 2, link: { post() {} }, ended: null };
  const session = new Session(crew, { session: 0, contextSize: 512 }, { source: template, bos: '', eos: '' });
  return Object.assign(session, { prompts, info: { name: 'fake', contextSize: 512 } });
}

const ask = [{ role: 'user', content: 'The weather in Rome?' }];
const CALL = ['Wait', '. <too', 'l_call>{"name": "weather", ', '"arguments": {"city": "Rome"}}', '</tool_call>', '\n'];

describe('chat()', () => {
  test('a call comes in the chunk that ends it, and in the result', async () => {
    const session = saying(CALL);
    const generation = session.chat(ask, { tools: TOOLS });
    const chunks = [];
    for await (const chunk of generation) chunks.push([chunk.text, chunk.toolCalls]);
    assert.deepEqual(chunks, [['Wait', undefined], ['.', undefined], ['', undefined], ['', undefined], ['', [ROME]], ['', undefined], ['', undefined]]);
    const { text, toolCalls } = await generation.result;
    assert.deepEqual([text, toolCalls], ['Wait.', [ROME]]);
    assert.equal(session.prompts[0].grammar, null);
    const { text: all, toolCalls: none } = await saying(CALL).chat(ask).result;
    assert.deepEqual([all, none], [CALL.join(''), []], 'nothing is looked for where there are no tools');
  });

  test('what was called and answered goes into the next prompt', async () => {
    const talk = [...ask, { role: 'assistant', toolCalls: [ROME] }, { role: 'tool', toolCallId: 'call_0', name: 'weather', content: 'Sunny.' }];
    for (const [template, wanted] of [[HERMES, '<tool_call>{"name": "weather", "arguments": {"city": "Rome"}}</tool_call>'],
      [PLAIN, '<tool_call>[{"name":"weather","arguments":{"city":"Rome"}}]</tool_call>']]) {
      for (const more of [{}, { tools: TOOLS }, { tools: TOOLS, toolChoice: 'none' }]) {
        const session = saying(CALL, template);
        const { toolCalls } = await session.chat(talk, more).result;
        assert.ok(session.prompts[0].prompt.includes(wanted), session.prompts[0].prompt);
        if (more.tools && !more.toolChoice) assert.equal(toolCalls[0].id, 'call_1');
      }
    }
  });

  test('a call that must come, with parameters that refer to their $defs', async () => {
    const parameters = { type: 'object', properties: { city: { $ref: '#/$defs/City' } }, $defs: { City: { enum: ['Rome', 'Oslo'] } } };
    for (const toolChoice of ['required', { name: 'weather' }]) {
      const session = saying(CALL);
      await session.chat(ask, { tools: [{ name: 'weather', parameters }, { name: 'now' }], toolChoice }).text();
      assert.match(session.prompts[0].grammar, /Rome[^]*Oslo/);
    }
  });

  test('wrong tools, choices and messages', async () => {
    const rejects = (messages, options) => assert.rejects(saying([], PLAIN).chat(messages, options).text(), { code: 'argument' }, JSON.stringify([messages, options]));
    for (const wrong of [{ tools: {} }, { tools: [{}] }, { tools: TOOLS, toolChoice: 'any' }, { tools: TOOLS, toolChoice: { name: 'x' } }, { toolChoice: 'required' },
      { tools: [{ name: 'a', parameters: 7 }] }, { tools: TOOLS, toolChoice: 'required', json: true }]) await rejects(ask, wrong);
    for (const messages of [[{ role: 'assistant' }], [{ role: 'assistant', content: null }], [{ role: 'user', toolCalls: [ROME] }],
      [{ role: 'assistant', toolCalls: [{}] }]]) await rejects(messages, {});
  });

  test('continueLast goes on with a text, not with a call', async () => {
    const begun = { role: 'assistant', content: 'It is' };
    for (const toolCalls of [undefined, []]) {
      const session = saying([], PLAIN);
      await session.chat([...ask, { ...begun, toolCalls }], { continueLast: true }).text();
      assert.ok(session.prompts[0].prompt.endsWith('assistant:It is'), session.prompts[0].prompt);
    }
    for (const content of [null, 'It is']) {
      const session = saying([], PLAIN);
      await assert.rejects(session.chat([...ask, { role: 'assistant', content, toolCalls: [ROME] }], { continueLast: true }).text(),
        { code: 'argument', message: /^continueLast/ });
      assert.equal(session.prompts.length, 0);
    }
  });

  test('a template that does not end, or asks for too much, is stopped', async () => {
    const long = '{% set ns = namespace(x="a") %}{% for i in range(21) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}'; // 2 MB
    const bombs = {
      loops: '{% for i in range(16000) %}{% for j in range(16000) %}{% endfor %}{% endfor %}',
      range: '{% for i in range(1000000000) %}{% endfor %}',
      texts: '{% set ns = namespace(x="ab") %}{% for i in range(60) %}{% set ns.x = ns.x ~ ns.x %}{% endfor %}{{ ns.x|upper }}',
      lists: '{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = ns.x + ns.x %}{% endfor %}',
      shared: '{% set ns = namespace(x=[1]) %}{% for i in range(60) %}{% set ns.x = [ns.x, ns.x] %}{% endfor %}{{ ns.x|tojson }}',
      macros: '{% macro f(n) %}{% if n > 0 %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(60) }}',
      recursion: '{% macro f(n) %}{{ f(n) }}{% endmacro %}{{ f(1) }}',
      parentheses: `{{ ${'('.repeat(100000)} }}`,
      length: 'a'.repeat(300000),
      spaces: `{{ ${' '.repeat(200000)} 1 }}`,
      indent: '{{ "a\\nb"|indent(500000000) }}',
      'indent by name': '{{ "a\\nb"|indent(width=500000000, first=true) }}',
      lines: `{% set text %}${'x\n'.repeat(9999)}{% endset %}{{ text|indent(9999) }}`,
      'indent of JSON': '{{ [1, [2]]|tojson(indent=500000000) }}',
      'depth of JSON': '{% set ns = namespace(x=[1]) %}{% for i in range(900) %}{% set ns.x = [ns.x] %}{% endfor %}{{ ns.x|tojson(indent=9999) }}',
      separators: `${long}{{ range(9999)|tojson(separators=(ns.x, ns.x)) }}`,
      join: `${long}{{ range(9999)|join(ns.x) }}`,
      'join of a text': `${long}{{ ns.x|join("abc") }}`,
      replace: `${long}{{ ns.x.replace("a", ns.x) }}`,
      'replace, held': `${long}{% set f = ns.x["replace"] %}{{ f("a", "123456789") }}`,
      'replace, a filter': `${long}{{ ns.x|replace("a", ns.x) }}`,
      'replace nothing': `${long}{{ ns.x.replace("", ns.x) }}`,
      split: `${long}{{ ns.x.split("a")|length }}`,
      words: `${long}{{ ns.x.replace("a", "a ").split()|length }}`,
      search: `${long}{{ ("b" ~ ns.x) in (ns.x ~ ns.x) }}`,
      copies: `${long}${'{% set a = ns.x|upper %}'.repeat(5000)}`,
      rows: '{% set a = range(16000) %}'.repeat(5000),
      dates: `${long}{{ strftime_now(ns.x.replace("aa", "%B")) }}`,
    };
    const before = process.resourceUsage().maxRSS;
    for (const [name, template] of Object.entries(bombs)) {
      const begun = performance.now();
      await assert.rejects(saying([]).chat(ask, { template }).text(), { code: 'argument' }, name);
      assert.ok(performance.now() - begun < 20000, `${name} took ${performance.now() - begun} ms`);
    }
    const grown = (process.resourceUsage().maxRSS - before) / 1024;
    assert.ok(grown < 400, `${grown} MB more at the most`);
  });

  test('what real templates do with texts still works', async () => {
    const results = {
      '{{ "a\\nb"|indent(2) }}|{{ "a\\nb"|indent(width=1, first=true) }}|{{ "a\\nb"|indent }}': 'a\n  b| a\n b|a\n    b',
      '{{ "a-b-a".replace("a", "xy") }}{{ "aa"|replace("a", "b", 1) }}{{ "ab".replace("", ".") }}': 'xy-b-xyba.a.b.',
      '{{ "a b  c".split()|join("+") }} {{ "a,b".split(",")[-1] }} {{ "</think>x".split("</think>")|last }}': 'a+b+c b x',
      '{{ {"a": [1, {"b": "c"}]}|tojson }}': '{"a": [1, {"b": "c"}]}',
      '{{ {"a": [1]}|tojson(indent=2) }}': '{\n  "a": [\n    1\n  ]\n}',
      '{{ [1, 2]|tojson(separators=(",", ":")) }}{{ "b" in "abc" }}{{ "b" not in ["b"] }}{{ "k" in {"k": 1} }}': '[1,2]truefalsetrue',
    };
    for (const [template, wanted] of Object.entries(results)) assert.equal(await renderTemplate(template, {}), wanted, template);
  });
});

test('openai(): tool_calls in answers and in streams, and back', async () => {
  const session = saying(CALL);
  const { chat } = openai(session);
  const tools = TOOLS.map((tool) => ({ type: 'function', function: tool }));
  const params = { messages: ask, tools };
  const { choices: [{ message, finish_reason }] } = await chat.completions.create(params);
  assert.deepEqual([message.content, finish_reason, message.tool_calls.length], ['Wait.', 'tool_calls', 1]);
  const [{ id, type, function: called }] = message.tool_calls;
  assert.deepEqual([id, type, called.name, JSON.parse(called.arguments)], ['call_0', 'function', 'weather', { city: 'Rome' }]);
  const deltas = [];
  for await (const { choices: [choice] } of await chat.completions.create({ ...params, stream: true })) deltas.push(choice);
  assert.deepEqual(deltas.flatMap(({ delta }) => delta.tool_calls ?? []), [{ index: 0, ...message.tool_calls[0] }]);
  assert.equal(deltas.map(({ delta }) => delta.content ?? '').join(''), 'Wait.');
  assert.equal(deltas.at(-1).finish_reason, 'tool_calls');
  await chat.completions.create({ ...params, messages: [...ask, message, { role: 'tool', tool_call_id: id, content: 'Sunny.' }] });
  assert.match(session.prompts.at(-1).prompt, /Wait\.<tool_call>\{"name": "weather"[^]*tool: Sunny\./);
  await chat.completions.create({ ...params, tool_choice: { type: 'function', function: { name: 'weather' } } });
  assert.match(session.prompts.at(-1).grammar, /tool-call ::=/);
  const { choices: [none] } = await chat.completions.create({ ...params, tool_choice: 'none' });
  assert.deepEqual([none.message.tool_calls, none.finish_reason], [undefined, 'stop']);
  const twice = openai(saying(['<tool_call>{"name": "now"}</tool_call>', '<tool_call>{"name": "now"}</tool_call>'])).chat;
  for (const [parallel_tool_calls, count] of [[true, 2], [undefined, 2], [false, 1]]) {
    const all = { ...params, parallel_tool_calls };
    const { choices: [{ message: { tool_calls }, finish_reason: end }] } = await twice.completions.create(all);
    assert.deepEqual([tool_calls.length, end], [count, 'tool_calls']);
    const told = [];
    for await (const { choices: [{ delta }] } of await twice.completions.create({ ...all, stream: true }))
      told.push(...(delta.tool_calls ?? []));
    assert.deepEqual(told.map(({ index }) => index), [0, 1].slice(0, count));
  }
  const broken = { role: 'assistant', content: null, tool_calls: [{ id: 'a', type: 'function', function: { name: 'f', arguments: '{' } }] };
  await assert.rejects(chat.completions.create({ ...params, messages: [...ask, broken] }), { code: 'argument', status: 400 });
});

test('a call that must come is one that its schema allows: in both notations, by a real model', async () => {
  const model = await load(EMBEDDED, { tier: 1, threads: 2, contextSize: 256 });
  const last = '{{ messages[-1].content }}';
  for (const template of [`{# tools <tool_call> #}${last}`, `{# tools "parameters" #}${last}`]) {
    const options = { tools: TOOLS, toolChoice: { name: 'weather' }, template, maxTokens: 100, greedy: true };
    const { text, toolCalls, finishReason } = await model.chat(ask, options).result;
    assert.deepEqual([text, toolCalls.length, finishReason], ['', 1, 'stop'], template);
    const [{ name, arguments: { city } }] = toolCalls;
    assert.equal(name, 'weather');
    assert.ok(['Rome', 'Oslo'].includes(city));
  }
  await model.dispose();
});

test('a real conversation is far from the bounds of templates', async () => {
  const messages = Array.from({ length: 2000 }, (_, i) => ({ role: i % 2 ? 'assistant' : 'user', content: 'word '.repeat(100) }));
  const text = await renderTemplate(PLAIN, { messages });
  assert.ok(text.length > 1e6);
});
