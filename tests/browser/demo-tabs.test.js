// The demo page in two tabs, and in a browser that has no room left: nothing that was written is lost, nothing that was deleted comes back.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { useBrowser } from './browser.js';
import { answered, ask, loaded, shot, started, visit, writing } from './demo.js';

const { browser, server } = await useBrowser();

const LONG = 'Tell me a very long story about a dragon, with many chapters.';
const titles = (page) => page.locator('#conversations .title').allTextContents();
const hasTitle = (page, title) => page.locator('#conversations .title').filter({ hasText: title }).first().waitFor();
const toast = (page, text) => page.locator('.toast').filter({ hasText: text }).waitFor({ timeout: 5000 });

describe('two tabs', () => {
  let a;
  let b;
  before(async () => {
    a = await loaded(browser, server, { model: null, settings: { seed: '1', maxTokens: 1500 } });
    b = await a.context().newPage();
    await b.goto(server.url('/web/demo/'));
    await started(b);
  });
  after(() => a?.context().close());

  /** A begins an answer, and B shows it. */
  async function both() {
    await a.getByRole('button', { name: 'New chat' }).click();
    await ask(a, LONG);
    await writing(a);
    await hasTitle(b, 'Tell me a very long story');
    await b.locator('#conversations .open').first().click();
    await b.locator('.assistant .facts').filter({ hasText: 'another tab' }).waitFor();
  }

  test('what is being written or selected in one tab stays while the other answers', { timeout: 120000 }, async () => {
    await a.getByRole('button', { name: 'New chat' }).click();
    await ask(a, 'What is two plus two?');
    await answered(a);
    await hasTitle(b, 'What is two plus two?');
    await b.locator('#conversations .open').first().click();
    await b.getByRole('button', { name: 'Edit message' }).first().click();
    await b.getByRole('textbox', { name: 'Edit message' }).fill('a half written edit');
    await ask(a, LONG);
    await writing(a, 40);
    await b.waitForFunction(() => document.querySelectorAll('.assistant').length === 2 && document.querySelectorAll('.assistant .text')[1].textContent.length > 40);
    assert.equal(await b.getByRole('textbox', { name: 'Edit message' }).inputValue(), 'a half written edit');
    assert.ok(await b.getByRole('textbox', { name: 'Edit message' }).evaluate((box) => box === document.activeElement));
    const open = b.locator('#conversations .open').first();
    const same = await open.evaluateHandle((element) => element);
    await b.waitForTimeout(1000); // several writes of the other tab
    assert.ok(await same.evaluate((element) => element.isConnected), 'a press that has begun on the list would be lost');
    await a.keyboard.press('Escape');
    await b.locator('.assistant .facts').last().filter({ hasText: /tokens/ }).waitFor({ timeout: 10000 });
    assert.deepEqual([...a.problems], []);
  });

  test('a title that is given in the other tab holds', { timeout: 120000 }, async () => {
    await both();
    await b.getByRole('button', { name: 'Rename Tell me a very long story' }).first().click();
    await b.getByLabel('Title').fill('Dragons');
    await b.keyboard.press('Enter');
    await hasTitle(a, 'Dragons');
    await a.waitForTimeout(700); // it is written again and again meanwhile
    await a.keyboard.press('Escape');
    await answered(a);
    assert.equal((await titles(a))[0], 'Dragons');
    await hasTitle(b, 'Dragons');
  });

  test('what the other tab deletes while it is answered here stays deleted', { timeout: 120000 }, async () => {
    await both();
    const before = (await titles(b)).length;
    await b.locator('#conversations li').first().getByRole('button', { name: /^Delete/ }).click();
    await toast(a, 'was deleted in another tab');
    await a.waitForTimeout(700);
    for (const page of [a, b]) assert.equal((await titles(page)).length, before - 1);
    assert.equal(await a.locator('.message').count(), 0);
    assert.ok(await a.locator('#send').isVisible());
  });

  test('what the other tab deletes while it is only shown here is told', { timeout: 120000 }, async () => {
    await a.locator('#conversations .open').filter({ hasText: 'Dragons' }).click();
    await a.locator('.message').first().waitFor();
    await b.getByRole('button', { name: 'Delete Dragons' }).click({ force: true });
    await toast(a, 'This conversation was deleted in another tab.');
    assert.equal(await a.locator('.message').count(), 0);
  });

  test('settings of one tab are not undone by the other', async () => {
    await a.getByRole('button', { name: 'Settings' }).click();
    await a.getByLabel('System prompt').fill('Be brief.');
    await a.keyboard.press('Escape');
    await b.waitForFunction(() => JSON.parse(localStorage['bitpair-demo-settings']).system === 'Be brief.');
    await b.getByRole('button', { name: 'Settings' }).click();
    await b.getByLabel('Dark').check();
    await b.keyboard.press('Escape');
    await a.locator('html[data-theme=dark]').waitFor();
    assert.equal(await a.evaluate(() => JSON.parse(localStorage['bitpair-demo-settings']).system), 'Be brief.');
  });

  test('the answering tab is closed: the other one can go on', { timeout: 120000 }, async () => {
    await b.getByRole('button', { name: 'New chat' }).click();
    await a.getByRole('button', { name: 'New chat' }).click();
    await ask(a, 'What is three plus three?');
    await answered(a);
    await hasTitle(b, 'What is three plus three?');
    await b.locator('#conversations .open').first().click(); // before the other tab answers again
    await ask(a, LONG);
    await b.locator('.assistant .facts').filter({ hasText: 'another tab' }).waitFor();
    await a.close();
    await b.locator('.assistant .facts').filter({ hasText: 'interrupted' }).waitFor({ timeout: 10000 });
    assert.ok(await b.getByRole('button', { name: 'Answer again' }).first().isVisible());
    await b.context().close();
  });
});

test('no room for chats: they stay in this tab, which is told once, and are kept when there is room', { timeout: 60000 }, async () => {
  const page = await visit(browser, server, { settings: { seed: '7', maxTokens: 60, temperature: 1 } });
  await page.evaluate(() => {
    const { put } = IDBObjectStore.prototype;
    window.full = true;
    IDBObjectStore.prototype.put = function (...args) {
      const request = put.apply(this, args);
      if (window.full) this.transaction.abort();
      return request;
    };
    window.toasts = 0;
    new MutationObserver((all) => (window.toasts += all.reduce((sum, { addedNodes }) => sum + addedNodes.length, 0)))
      .observe(document.getElementById('toasts'), { childList: true });
  });
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ask(page, 'Once upon a time');
  await answered(page);
  await toast(page, 'could not be kept');
  assert.equal(await page.evaluate(() => window.toasts), 1);
  await hasTitle(page, 'Once upon a time');
  await page.getByRole('button', { name: 'New chat' }).click();
  await page.locator('#conversations .open').first().click();
  await page.locator('.message').nth(1).waitFor();
  await shot(page, 'no-room');
  await page.evaluate(() => (window.full = false));
  await page.getByRole('button', { name: 'New chat' }).click();
  await ask(page, 'The big dog');
  await answered(page);
  await page.reload();
  await started(page);
  assert.deepEqual(await titles(page), ['The big dog', 'Once upon a time']);
  await page.context().close();
});
