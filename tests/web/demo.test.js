// The parts of the demo page that need no browser: conversations, files of them, and what the page says of its model.

import assert from 'node:assert/strict';
import { statSync } from 'node:fs';
import { describe, test } from 'node:test';

import { FIRST_TIER, MODEL_FACTS, MODEL_PATH, PLAIN_TEMPLATE } from '../../web/demo/config.js';
import { addMessage, chooseMessage, matches, newConversation, pathOf, promptOf, siblingsOf, takeOver, titleOf } from '../../web/demo/conversation.js';
import { ConversationStore } from '../../web/demo/conversation-store.js';
import { fitted } from '../../web/demo/room.js';
import { Status } from '../../web/demo/status.js';
import { exportText, importText } from '../../web/demo/transfer.js';
import { explain, explainCache, megabytes, seconds } from '../../web/demo/words.js';
import { estimateMemory, load } from '../../web/index.js';
import { FIXTURE, ROOT } from './helper.js';

const texts = (conversation) => pathOf(conversation).map(({ text }) => text);

/** Two questions, the first of them edited, and an answer made twice. */
function branched() {
  const c = newConversation(1000);
  const first = addMessage(c, null, { role: 'user', text: 'one' }, 1001);
  const answer = addMessage(c, first, { role: 'assistant', text: 'a', state: 'done' }, 1002);
  addMessage(c, answer, { role: 'user', text: 'two' }, 1003);
  const edited = addMessage(c, null, { role: 'user', text: 'ONE' }, 1004);
  const b = addMessage(c, edited, { role: 'assistant', text: 'b', state: 'done' }, 1005);
  const again = addMessage(c, edited, { role: 'assistant', text: 'B', state: 'done', tier: 2 }, 1006);
  return { c, first, answer, edited, b, again };
}

describe('conversations', () => {
  test('the latest branch is shown, and every other can be', () => {
    const { c, first, answer, edited, b, again } = branched();
    assert.deepEqual(texts(c), ['ONE', 'B']);
    assert.deepEqual(siblingsOf(c, again), [b, again]);
    assert.deepEqual(siblingsOf(c, first), [first, edited]);
    chooseMessage(c, first);
    assert.deepEqual(texts(c), ['one', 'a', 'two']);
    chooseMessage(c, edited);
    chooseMessage(c, b);
    assert.deepEqual(texts(c), ['ONE', 'b']);
    assert.deepEqual(siblingsOf(c, answer), [answer]);
  });

  test('what the model is asked: the path, the system prompt, the beginning of an answer that goes on', () => {
    const { c, again } = branched();
    assert.deepEqual(promptOf(c, again, 'Be brief.'), [
      { role: 'system', content: 'Be brief.' }, { role: 'user', content: 'ONE' }, { role: 'assistant', content: 'B' }]);
    again.text = '';
    assert.deepEqual(promptOf(c, again, ''), [{ role: 'user', content: 'ONE' }]);
  });

  test('questions that got no answer are not asked again with the next', () => {
    const c = newConversation();
    const ask = (text) => addMessage(c, pathOf(c).at(-1), { role: 'user', text });
    const answer = (fields) => addMessage(c, pathOf(c).at(-1), { role: 'assistant', ...fields });
    ask('one');
    answer({ text: '1', state: 'done' });
    ask('too long');
    answer({ state: 'failed', problem: 'no room' });
    ask('three');
    const last = answer({ state: 'writing' });
    assert.deepEqual(promptOf(c, last, '').map(({ content }) => content), ['one', '1', 'three']);
    last.text = '3';
    assert.deepEqual(promptOf(c, last, '').map(({ content }) => content), ['one', '1', 'three', '3']);
  });

  test('what another tab wrote is taken over, and messages stay the objects they were', () => {
    const { c, first, again } = branched();
    const found = structuredClone(c);
    Object.assign(found, { title: 'other', named: true });
    Object.assign(found.messages.find(({ id }) => id === again.id), { text: 'B and more', tier: undefined });
    delete found.messages.find(({ id }) => id === again.id).tier;
    addMessage(found, found.messages.at(-1), { role: 'user', text: 'next' });
    takeOver(c, found);
    assert.deepEqual(c, found);
    assert.ok(c.messages.includes(first) && c.messages.includes(again));
    assert.deepEqual([again.text, 'tier' in again], ['B and more', false]);
  });

  test('room in the context: the oldest turns go, and the next questions find the same beginning', async () => {
    const model = { info: { contextSize: 1000 }, tokenize: async (text) => Array.from(text, () => 0) };
    const turn = (i) => [{ role: 'user', content: `${i}`.padEnd(92) }, { role: 'assistant', content: `${i}`.padEnd(92) }]; // 200 tokens
    const system = { role: 'system', content: 'x'.repeat(42) }; // 50 tokens
    const chat = (turns) => [system, ...Array.from({ length: turns }, (_, i) => turn(i)).flat(), { role: 'user', content: '?' }];
    assert.deepEqual(await fitted(model, chat(3), 100), { messages: chat(3), leftOut: undefined });
    const { messages, leftOut } = await fitted(model, chat(5), 100);
    assert.deepEqual([messages, leftOut], [[system, ...chat(5).slice(7)], 6]);
    assert.equal((await fitted(model, chat(6), 100, leftOut)).leftOut, 6);
    assert.equal((await fitted(model, chat(4), 100, 40)).leftOut, 8); // never the question itself
    assert.equal((await fitted(model, [{ role: 'user', content: 'x'.repeat(5000) }], 100)).leftOut, undefined);
  });

  test('titles and search', () => {
    const { c } = branched();
    assert.equal(c.title, 'ONE');
    assert.equal(titleOf('  first line\nsecond'), 'first line');
    assert.equal([...titleOf('\u{1f600}'.repeat(100))].length, 60);
    assert.equal(titleOf(' \n '), 'New chat');
    assert.ok(matches(c, 'TWO') && matches(c, '') && !matches(c, 'three'));
  });

  test('a store shows at once what is written to it; what is deleted is gone, and can be put back', async (t) => {
    const { BroadcastChannel } = globalThis; // no other tabs; Node waits for an open channel
    delete globalThis.BroadcastChannel;
    t.after(() => Object.assign(globalThis, { BroadcastChannel }));
    const store = new ConversationStore(null, 'no database here'); // pages in browsers have one: tests/browser/demo-chat.test.js
    const list = async () => (await store.all()).map(({ id }) => id);
    const one = { id: 'one', updated: 1 };
    store.put(one);
    store.put({ id: 'two', updated: 2 });
    assert.deepEqual(await list(), ['two', 'one']);
    const gone = store.delete('one');
    assert.deepEqual(await list(), ['two']);
    assert.equal(await store.get('one'), undefined);
    await gone;
    assert.deepEqual(await list(), ['two']);
    store.delete('two');
    await Promise.all([store.put(one), store.put({ id: 'two', updated: 3 })]);
    assert.deepEqual(await list(), ['two', 'one']);
    await Promise.all([store.put(one), store.delete('one')]);
    assert.deepEqual(await list(), ['two']);
    assert.equal(await store.get('one'), undefined);
  });
});

describe('files of conversations', () => {
  test('out and in again: the same; twice: nothing twice; changed: both', () => {
    const { c } = branched();
    const text = exportText([c]);
    const { added } = importText(text, []);
    assert.deepEqual(added, JSON.parse(JSON.stringify([c])));
    assert.deepEqual(importText(text, added), { added: [], same: 1 });
    const changed = importText(text, [{ ...c, title: 'other' }]);
    assert.equal(changed.added.length, 1);
    assert.notEqual(changed.added[0].id, c.id);
  });

  test('what is damaged or not ours is refused with a reason, what is unknown is left out', () => {
    const { c } = branched();
    const file = (change) => {
      const copy = JSON.parse(exportText([c]));
      change(copy);
      return JSON.stringify(copy);
    };
    const bad = [
      ['{', /not JSON/], ['null', /no conversations of this page/], ['[1]', /no conversations of this page/],
      [file((f) => (f.version = 2)), /version 2/], [file((f) => (f.conversations = {})), /damaged/],
      [file((f) => (f.conversations[0] = null)), /damaged/], [file((f) => (f.conversations[0].messages = 3)), /damaged/],
      [file((f) => (f.conversations[0].messages[0].parent = f.conversations[0].messages[1].id)), /place/], // a circle
      [file((f) => (f.conversations[0].messages[1].id = f.conversations[0].messages[0].id)), /place/],
      [file((f) => (f.conversations[0].messages[0].role = 'system')), /not one/], [file((f) => (f.conversations[0].messages[0].text = 5)), /not one/],
      [file((f) => (f.conversations[0].created = 'x')), /dates/],
    ];
    for (const [text, reason] of bad) assert.throws(() => importText(text, []), reason, text.slice(0, 80));
    const { added: [read] } = importText(file((f) => {
      f.conversations[0].evil = 1;
      Object.assign(f.conversations[0].messages[0], { evil: 1, state: 'strange', tier: 'x' });
      f.conversations[0].chosen.nowhere = 'x';
    }), []);
    assert.deepEqual(read, JSON.parse(JSON.stringify(c)));
  });
});

test('words: sizes, times, errors', () => {
  assert.deepEqual([megabytes(477120), megabytes(62178240), megabytes(2.5e9)], ['0.5 MB', '62 MB', '2.50 GB']);
  assert.deepEqual([seconds(3.2), seconds(200)], ['4 s', '4 min']);
  for (const code of ['http', 'network', 'format', 'checksum', 'memory', 'unsupported', 'io', 'worker', 'context', 'disposed']) {
    const text = explain(Object.assign(new Error('the details'), { code }));
    assert.match(text, /^[A-Z][^(]+[.?] .*\(the details\)$/, code);
    assert.doesNotMatch(text, /That did not work/, code);
  }
  assert.match(explain(new Error('x')), /That did not work/);
  assert.match(explainCache('there is room for 2.0 MB only'), /no room/);
  assert.equal(explainCache(null), '');
});

test('what the page says of its model is true', async () => {
  const file = `${ROOT}${MODEL_PATH.slice(1)}`;
  assert.equal(MODEL_FACTS.tiers.at(-1), statSync(file).size);
  const { total } = await estimateMemory(file, { threads: 2 });
  assert.ok(Math.abs(total / MODEL_FACTS.memory - 1) < 0.05, `${total}`);
  for (const [i, end] of MODEL_FACTS.tiers.entries()) assert.equal((await estimateMemory(file, { tier: i + 1 })).weights, end);
  assert.ok(FIRST_TIER <= MODEL_FACTS.tiers.length);
});

test('an answer is continued from its beginning; a model without a chat template continues text', async () => {
  const model = await load(FIXTURE, { threads: 1 });
  const options = { template: PLAIN_TEMPLATE, greedy: true, repeatPenalty: 1.1, maxTokens: 12 };
  const question = [{ role: 'user', content: 'Once upon a time' }];
  const whole = await model.chat(question, options).text();
  assert.match(whole, /\p{L}{3}/u);
  const prompt = `${(await model.detokenize([model.info.bos], { special: true }))}Once upon a time`;
  assert.equal(whole, await model.generate(prompt, { ...options, bos: false, special: true }).text());
  const begun = await model.chat(question, { ...options, maxTokens: 6 }).text();
  const rest = await model.chat([...question, { role: 'assistant', content: begun }], { ...options, maxTokens: 6, continueLast: true }).text();
  assert.equal(begun + rest, whole);
  await assert.rejects(model.chat(question, { ...options, continueLast: true }).text(), { code: 'argument', message: /continueLast/ });
  await model.dispose();
});

test('a clock that stands still: no speed rather than an infinite one', (t) => {
  let time = 0;
  t.mock.method(performance, 'now', () => time);
  const status = new Status();
  const speeds = [5, 5, 5, 5, 25].map((now) => {
    time = now;
    status.token(false);
    return status.speed;
  });
  assert.deepEqual(speeds, [null, null, null, null, 200]);
});
