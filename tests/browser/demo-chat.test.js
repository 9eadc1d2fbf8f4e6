// Chatting on the demo page: with the embedded model where an answer must last, else with the small one.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { useBrowser } from './browser.js';
import { answered, ask, checkAxe, drop, isModel, loaded, ready, shot, started, visit, writing } from './demo.js';

const { browser, server } = await useBrowser();

const text = (page) => page.locator('.assistant .text').last().textContent();
const conversations = (page) => page.locator('#conversations .title').allTextContents();
const LONG = 'Tell me a very long story about a dragon, with many chapters.';

describe('with the embedded model', () => {
  let page;
  before(async () => {
    page = await loaded(browser, server, { model: null, settings: { seed: '1', maxTokens: 200 } });
  });
  after(() => page?.context().close());

  test('a question, a finished answer, and another question', { timeout: 240000 }, async () => {
    assert.ok(await page.evaluate(() => crossOriginIsolated));
    assert.ok(await page.locator('#banner').isHidden());
    assert.match(await page.locator('#status').textContent(), /\d threads? · (SIMD128|relaxed SIMD) · .* MB of memory/);
    assert.ok(await page.locator('#prompt').evaluate((box) => box === document.activeElement));
    await page.context().setOffline(true); // whatever an answer needs is there
    await page.keyboard.type('What is the capital');
    await page.keyboard.press('Shift+Enter');
    await page.keyboard.type('of France?');
    assert.equal(await page.locator('#prompt').inputValue(), 'What is the capital\nof France?');
    await page.keyboard.press('Enter');
    await page.locator('.assistant.busy').waitFor();
    const answer = await answered(page);
    assert.match(await text(page), /\p{L}{3,}/u);
    assert.doesNotMatch(await text(page), /<\|im_/);
    assert.match(await answer.locator('.facts').textContent(), /tier 3 of 3 · \d+ tokens? · ([\d.]+ tokens\/s · )?first after [\d.]+ s/);
    assert.match(await page.locator('#context-text').textContent(), /^[1-9]\d* \/ 2048$/);
    await ask(page, 'And of Italy?');
    await page.waitForFunction(() => document.querySelectorAll('.assistant').length === 2);
    await answered(page);
    await page.context().setOffline(false);
    await shot(page, 'answer');
    assert.deepEqual(page.problems, []);
  });

  test('Stop and Escape end an answer, also while the prompt is read; it can be continued', { timeout: 240000 }, async () => {
    for (const stop of [() => page.getByRole('button', { name: 'Stop' }).click(), () => page.keyboard.press('Escape')]) {
      await page.getByRole('button', { name: 'New chat' }).click();
      await ask(page, LONG);
      await writing(page);
      await stop();
      await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
    }
    const before = await text(page);
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.waitForFunction((n) => document.querySelector('.busy .text')?.textContent.length > n + 8, before.length);
    await page.keyboard.press('Escape');
    await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
    assert.ok((await text(page)).startsWith(before.trim()), await text(page));
    assert.equal(await page.locator('.message').count(), 2);

    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, `${'The quick brown fox jumps over the lazy dog. '.repeat(120)} What is this?`);
    await page.locator('.waiting').filter({ hasText: /Reading your text: \d+ %/ }).waitFor();
    await page.keyboard.press('Escape');
    await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
    assert.equal(await text(page), '');
    assert.deepEqual(page.problems, []);
  });

  test('a conversation goes on while another is read, and the list shows it', { timeout: 120000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, LONG);
    await writing(page);
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.waitForFunction(() => document.querySelectorAll('.message').length === 0);
    await page.getByRole('button', { name: 'Send' }).waitFor();
    await page.locator('#conversations .date').filter({ hasText: 'writing' }).waitFor();
    await page.locator('#conversations .open').first().click();
    const length = (await text(page)).length;
    await writing(page, length);
    await page.keyboard.press('Escape');
    await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
  });

  test('a conversation that is deleted while it is written stays deleted', { timeout: 60000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, LONG);
    await writing(page);
    const before = await page.locator('#conversations li').count();
    await page.locator('#conversations li.current').getByRole('button', { name: /^Delete/ }).click();
    await page.waitForFunction((n) => document.querySelectorAll('#conversations li').length === n - 1, before);
    await page.waitForTimeout(500); // until the answer has ended
    await page.reload();
    await ready(page);
    assert.equal(await page.locator('#conversations li').count(), before - 1);
  });

  test('Undo brings back what was written when it was deleted', { timeout: 60000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, LONG);
    await writing(page, 40);
    const before = await text(page);
    await page.locator('#conversations li.current').getByRole('button', { name: /^Delete/ }).click();
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.locator('#conversations .open').first().click();
    await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor();
    assert.ok((await text(page)).startsWith(before.trim()), await text(page));
  });

  test('the page is closed in the middle of an answer: what there was is kept, and can be continued', { timeout: 120000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, LONG);
    await writing(page, 40);
    const before = await text(page);
    await page.reload();
    await started(page);
    await page.locator('.assistant .facts').filter({ hasText: 'interrupted' }).waitFor();
    const kept = await text(page);
    assert.ok(kept.length >= before.length, `${kept.length} of ${before.length}`);
    await shot(page, 'interrupted');
    await checkAxe(page);
    await ready(page); // from the cache, without a click
    await page.getByRole('button', { name: 'Continue' }).click();
    await writing(page, kept.length + 5);
    await page.keyboard.press('Escape');
    await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
    assert.ok((await text(page)).startsWith(kept.trim()));
    assert.deepEqual(page.problems, []);
  });

  test('another tab sees an answer grow, and does not answer at the same time', { timeout: 120000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, LONG);
    await writing(page);
    const other = await page.context().newPage();
    await other.goto(server.url('/web/demo/'));
    await started(other);
    await other.locator('#conversations .open').first().click();
    await other.locator('.assistant .facts').filter({ hasText: 'another tab' }).waitFor();
    assert.ok(await other.locator('#send').isHidden());
    const length = (await text(other)).length;
    await other.waitForFunction((n) => document.querySelector('.assistant .text').textContent.length > n, length);
    await page.keyboard.press('Escape');
    await other.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
    await other.close();
  });

  test('JSON of a schema', { timeout: 120000 }, async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('JSON of a schema').check();
    await page.getByLabel('JSON schema', { exact: true }).fill('{"type": ');
    await page.locator('#schema-problem').filter({ hasText: 'not JSON yet' }).waitFor();
    const schema = { type: 'object', properties: { city: { type: 'string', maxLength: 20 }, big: { type: 'boolean' } }, required: ['city', 'big'] };
    await page.getByLabel('JSON schema', { exact: true }).fill(JSON.stringify(schema));
    await page.getByLabel('JSON of a schema').check();
    await shot(page, 'settings');
    await page.getByRole('button', { name: 'Done' }).click();
    assert.ok(await page.locator('#mode').isVisible());
    await ask(page, 'Name the capital of France.');
    await answered(page);
    const found = JSON.parse(await page.locator('.assistant code').textContent());
    assert.deepEqual([Object.keys(found), typeof found.city, typeof found.big], [['city', 'big'], 'string', 'boolean']);
    await shot(page, 'json');
    await checkAxe(page);
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByRole('button', { name: 'Reset' }).click();
    await page.keyboard.press('Escape');
    assert.ok(await page.locator('#mode').isHidden());
  });
});

describe('with the small model', () => {
  let page;
  before(async () => {
    page = await loaded(browser, server, { settings: { seed: '7', maxTokens: 40, temperature: 1 } });
  });
  after(() => page?.context().close());

  test('a model without a chat template continues what is written, and says so', async () => {
    await ask(page, 'Once upon a time');
    await answered(page);
    await page.locator('.facts').filter({ hasText: 'no chat template' }).waitFor();
    assert.match(await text(page), /\p{L}{3,}/u);
  });

  test('edit and send again, answer again: every version stays', async () => {
    const first = await text(page);
    await page.getByRole('button', { name: 'Edit message' }).click();
    const box = page.getByRole('textbox', { name: 'Edit message' });
    await box.fill('The big dog');
    await page.keyboard.press('Escape');
    assert.equal(await page.locator('.bubble').textContent(), 'Once upon a time');
    await page.getByRole('button', { name: 'Edit message' }).click();
    await box.fill('The big dog');
    await page.keyboard.press('Enter');
    await answered(page);
    assert.equal(await page.locator('.bubble').textContent(), 'The big dog');
    assert.equal(await page.locator('.user .variants').textContent(), '2 / 2');
    await page.locator('.user').getByRole('button', { name: 'Previous version' }).click();
    assert.equal(await text(page), first);

    await page.getByRole('button', { name: 'Answer again' }).click();
    await answered(page);
    assert.equal(await page.locator('.assistant .variants').textContent(), '2 / 2');
    assert.equal(await text(page), first); // the seed is the same, and so is the answer
    await page.locator('.assistant').getByRole('button', { name: 'Previous version' }).click();
    assert.equal(await page.locator('.assistant .variants').textContent(), '1 / 2');
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.locator('#conversations .open').first().click();
    assert.equal(await page.locator('.assistant .variants').textContent(), '1 / 2'); // the choice is kept
    assert.deepEqual(page.problems, []);
  });

  test('a reload keeps the conversation, the settings, and what was being written', async () => {
    const shown = await page.locator('#messages').textContent();
    await page.locator('#prompt').fill('a draft');
    await page.reload();
    await ready(page);
    assert.equal(await page.locator('#messages').textContent(), shown);
    assert.equal(await page.locator('#prompt').inputValue(), 'a draft');
    await page.getByRole('button', { name: 'Settings' }).click();
    assert.equal(await page.getByLabel('Seed').inputValue(), '7');
    await page.getByLabel('Seed').fill('x');
    await page.locator('#seed-problem').filter({ hasText: 'whole number' }).waitFor();
    await page.getByLabel('Seed').fill('18446744073709551616');
    await page.locator('#seed-problem').filter({ hasText: 'whole number' }).waitFor();
    await page.getByLabel('Seed').fill('7');
    await page.keyboard.press('Escape');
  });

  test('search, rename, delete, and undo', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'A red ball');
    await answered(page);
    assert.deepEqual(await conversations(page), ['A red ball', 'The big dog']);
    await page.getByLabel('Search conversations').fill('once UPON'); // of an earlier version
    assert.deepEqual(await conversations(page), ['The big dog']);
    await page.getByLabel('Search conversations').fill('nowhere');
    await page.getByText('Nothing found').waitFor();
    await page.getByLabel('Search conversations').fill('');

    await page.getByRole('button', { name: 'Rename A red ball' }).click();
    await page.getByLabel('Title').fill('Balls');
    await page.keyboard.press('Enter');
    await page.locator('#conversations .title').filter({ hasText: 'Balls' }).waitFor();
    assert.match(await page.title(), /^Balls/);
    await page.getByRole('button', { name: 'Rename Balls' }).click();
    await page.getByLabel('Title').fill('Other');
    await page.keyboard.press('Escape');
    await page.waitForFunction(() => !document.querySelector('#conversations input'));
    assert.deepEqual(await conversations(page), ['Balls', 'The big dog']);

    await page.getByRole('button', { name: 'Delete Balls' }).click();
    await page.getByText('\u201cBalls\u201d is deleted.').waitFor();
    assert.deepEqual(await conversations(page), ['The big dog']);
    assert.equal(await page.locator('.message').count(), 0);
    await page.getByRole('button', { name: 'Undo' }).click();
    await page.locator('#conversations .title').filter({ hasText: 'Balls' }).waitFor();
    await page.reload();
    await started(page);
    assert.deepEqual(await conversations(page), ['Balls', 'The big dog']);
  });

  test('export and import', async () => {
    const [download] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Export' }).click()]);
    assert.match(download.suggestedFilename(), /^bitpair-chats-\d{4}-\d\d-\d\d\.json$/);
    const file = readFileSync(await download.path());
    assert.equal(JSON.parse(file).conversations.length, 2);
    await page.locator('#conversations li').filter({ hasText: 'The big dog' }).hover();
    await page.getByRole('button', { name: 'Delete The big dog' }).click();
    await page.locator('#import-file').setInputFiles({ name: 'chats.json', mimeType: 'application/json', buffer: file });
    await page.getByText('1 conversation imported, 1 were here already.').waitFor();
    assert.deepEqual(await conversations(page), ['Balls', 'The big dog']);
    await page.locator('#import-file').setInputFiles({ name: 'chats.json', mimeType: 'application/json', buffer: file });
    await page.getByText('0 conversations imported, 2 were here already.').waitFor();
    assert.deepEqual(await conversations(page), ['Balls', 'The big dog']);
    await drop(page, 'broken.json', 'application/json', file.subarray(0, 300));
    await page.getByText('This file is not JSON').waitFor();
    assert.deepEqual(page.problems, []);
  });

  test('Markdown: what a model writes is shown, and does nothing', async () => {
    const evil = [
      '# Title', '**bold** and `code` <img src=x onerror="window.hacked=1">', '![picture](https://example.org/x.png)',
      '[link](javascript:window.hacked=1) [good](https://example.org/)', '<script>window.hacked=1</script>', '<a href="javascript:window.hacked=1">x</a>',
      '| a | b |\n|---|---|\n| 1 | 2 |', '- [x] done', '```js\nconsole.log(1);\n```', '<form action=x><input autofocus onfocus="window.hacked=1">', '<style>*{display:none}</style>',
    ].join('\n\n');
    const conversation = {
      id: 'evil', title: 'Evil', named: true, created: 1, updated: 1, chosen: {},
      messages: [{ id: 'q', parent: null, role: 'user', text: '<b>x</b>', time: 1 }, { id: 'a', parent: 'q', role: 'assistant', text: evil, time: 1, state: 'done' }],
    };
    await drop(page, 'evil.json', 'application/json', JSON.stringify({ format: 'bitpair-conversations', version: 1, conversations: [conversation] }));
    await page.locator('#conversations .open').filter({ hasText: 'Evil' }).click();
    await page.locator('.text h3').filter({ hasText: 'Title' }).waitFor();
    assert.equal(await page.locator('.bubble').textContent(), '<b>x</b>');
    const found = await page.locator('.text').evaluate((element) => ({
      forbidden: element.querySelectorAll('img, script, style, form, input, iframe, [onerror], [onfocus], [style]').length,
      links: [...element.querySelectorAll('a')].map(({ href, rel, target }) => [href, rel, target]),
      cells: element.querySelectorAll('td').length, bold: element.querySelectorAll('strong').length, hacked: window.hacked,
    }));
    assert.deepEqual(found, {
      forbidden: 0, links: [['https://example.org/', 'noopener noreferrer nofollow', '_blank']], cells: 2, bold: 1, hacked: undefined,
    });
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    await page.getByRole('button', { name: 'Copy code' }).click();
    await page.locator('.copy[data-said=Copied]').waitFor();
    assert.equal(await page.evaluate(() => navigator.clipboard.readText()), 'console.log(1);');
    await shot(page, 'markdown');
    assert.deepEqual(page.problems, []);
  });

  test('Look inside: the panel follows an answer, whose tokens then show their probabilities', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByRole('button', { name: 'Look inside' }).click();
    await page.locator('#inside-body h3').first().waitFor();
    await ask(page, 'Once upon a time');
    await answered(page);
    const plain = await text(page);
    await page.getByRole('button', { name: 'Probabilities of the tokens' }).click();
    await page.locator('.inside-tokens').waitFor();
    assert.ok((await page.locator('.inside-tokens').textContent()).includes(plain.trim().slice(0, 20)));
    await shot(page, 'inside');
    await page.getByRole('button', { name: 'Probabilities of the tokens' }).click();
    assert.equal(await text(page), plain);
    await page.getByRole('button', { name: 'Close the panel' }).click();
    assert.ok(await page.getByRole('button', { name: 'Look inside' }).evaluate((button) => button === document.activeElement));
    await page.getByRole('button', { name: 'Answer again' }).click();
    await answered(page);
    assert.equal(await page.getByRole('button', { name: 'Probabilities of the tokens' }).count(), 0); // none were asked for
    assert.deepEqual(page.problems, []);
  });

  test('a conversation that is too long: a clear message, and a way on', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'dog '.repeat(900));
    await page.getByRole('alert').filter({ hasText: 'too long for the model' }).waitFor();
    await page.getByRole('button', { name: 'Try again' }).waitFor();
    await page.getByRole('button', { name: 'Edit message' }).click();
    await page.getByRole('textbox', { name: 'Edit message' }).fill('A dog');
    await page.keyboard.press('Enter');
    await answered(page);
    assert.ok(await page.getByRole('alert').first().isHidden());
  });

  test('keys of an input method do not send', async () => {
    await page.locator('#prompt').fill('ni');
    for (const init of [{ key: 'Enter', isComposing: true }, { key: 'Enter', keyCode: 229 }]) {
      await page.locator('#prompt').evaluate((box, options) => box.dispatchEvent(new KeyboardEvent('keydown', { ...options, bubbles: true, cancelable: true })), init);
    }
    assert.equal(await page.locator('#prompt').inputValue(), 'ni');
  });
});

test('written before the model is there: the question waits for it', { timeout: 60000 }, async () => {
  const page = await visit(browser, server);
  let go;
  const gate = new Promise((resolve) => (go = resolve));
  await page.route(isModel, async (route) => {
    await gate;
    return route.continue();
  });
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ask(page, 'Once upon a time');
  await page.locator('.waiting').filter({ hasText: 'Waiting for the model' }).waitFor();
  go();
  await ready(page);
  await answered(page);
  assert.match(await text(page), /\p{L}{3,}/u);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});
