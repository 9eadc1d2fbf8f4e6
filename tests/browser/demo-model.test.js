// The first minute and models of one's own on the demo page, and what can go wrong with them.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, afterEach, before, beforeEach, describe, test } from 'node:test';

import { MODEL_FACTS } from '../../web/demo/config.js';
import { FIXTURE } from '../web/helper.js';
import { openPage, openServer, useBrowser } from './browser.js';
import { SMALL, answered, ask, checkAxe, drop, isModel, loaded, openGatedServer, ready, shot, started, visit } from './demo.js';

const bytes = readFileSync(FIXTURE);
const { browser, server } = await useBrowser();

const cached = (page) => page.evaluate(async () => (await import('/web/index.js')).cache.list());

test('before anything is asked: what it is, how large, and nothing of the model is fetched', async () => {
  const page = await openPage(browser, server);
  const asked = [];
  page.on('request', (request) => request.method() === 'GET' && asked.push(new URL(request.url()).pathname));
  await page.goto(server.url());
  await started(page);
  await page.locator('#model-size').filter({ hasText: `${Math.round(MODEL_FACTS.tiers.at(-1) / 1e6)} MB, about ${Math.round(MODEL_FACTS.memory / 1e6)} MB of memory` }).waitFor();
  assert.ok(await page.getByRole('button', { name: 'Load the model' }).isVisible());
  assert.ok(!asked.some((path) => /\.(gguf|wasm)$/.test(path)), asked.join(' '));
  await shot(page, 'start');
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('a second visit begins by itself, also without a network for the model', async () => {
  const page = await loaded(browser, server);
  await page.route(isModel, (route) => route.abort());
  await page.reload();
  await ready(page);
  await ask(page, 'Once upon a time');
  await answered(page);
  await page.context().close();
});

test('a missing model: a clear message, and Try again works', async () => {
  const page = await visit(browser, server);
  let broken = true;
  await page.route((url) => url.pathname.startsWith('/models/'), (route) => (broken ? route.fulfill({ status: 404, body: '' }) : route.continue()));
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('alert').filter({ hasText: 'The server does not have this model' }).waitFor();
  await shot(page, 'failed');
  await checkAxe(page);
  broken = false;
  await page.getByRole('button', { name: 'Try again' }).click();
  await ready(page);
  await page.context().close();
});

test('an address that is none, and a page that is offline: clear messages', async () => {
  const page = await visit(browser, server, { model: 'http://' });
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('alert').filter({ hasText: 'cannot use this source' }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.goto(server.url(`/web/demo/?model=${SMALL}`));
  await started(page);
  await page.evaluate(() => {
    // Only what the browser tells the page; requests fail by the route below.
    Object.defineProperty(navigator, 'onLine', { value: false });
  });
  await page.route(isModel, (route) => route.abort());
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('alert').filter({ hasText: 'You are offline' }).waitFor({ timeout: 40000 });
  await page.context().close();
});

test('no room to keep the model: it works, and the page says so', async () => {
  const page = await openPage(browser, server);
  await page.route('**/web/worker.js', async (route) => {
    const response = await route.fetch();
    await route.fulfill({ response, body: `navigator.storage.estimate = async () => ({ quota: 3e5, usage: 1e5 });\n${await response.text()}` });
  });
  await page.goto(server.url(`/web/demo/?model=${SMALL}`));
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ready(page);
  await page.getByText('There is no room to keep this model for the next visit').waitFor();
  await shot(page, 'no-room');
  await checkAxe(page);
  await page.locator('#kept').getByRole('button', { name: 'Dismiss' }).click();
  await ask(page, 'Once upon a time');
  await answered(page);
  assert.ok(await page.locator('#kept').isHidden());
  await page.context().close();
});

describe('tier by tier', () => {
  const [first, second, size] = MODEL_FACTS.tiers;
  const MARGIN = 2 << 20; // the last piece of a tier ends a little later
  let gated;
  let page;
  before(async () => {
    gated = await openGatedServer();
  });
  beforeEach(async () => {
    gated.gate.at = first / 2;
    page = await visit(browser, gated, { model: null, settings: { seed: '1', maxTokens: 24 } });
    await page.getByRole('button', { name: 'Load the model' }).click();
    await page.locator('#progress-text').filter({ hasText: new RegExp(`^1\\d MB of ${Math.round(size / 1e6)} MB`) }).waitFor();
  });
  afterEach(() => page?.context().close());
  after(() => gated?.close());

  const whole = () => page.locator('#strip .whole').count();
  const tier = () => page.locator('#tier').textContent();

  test('the strip fills, and the conversation begins at the second tier; each answer says at which it was made', { timeout: 240000 }, async () => {
    assert.equal(await page.locator('#strip .tier').count(), 3);
    await page.waitForFunction(() => document.querySelectorAll('#strip i.on').length > 20); // of the first half of the first tier
    assert.ok(await page.locator('#strip i.on').count() < 40);
    await shot(page, 'filling');
    gated.gate.raise(first + MARGIN);
    await page.waitForFunction(() => document.querySelectorAll('#strip .whole').length === 1);
    assert.equal(await page.locator('body').getAttribute('data-model'), 'loading'); // one tier is not usable
    await ask(page, 'What is the capital of France?');
    gated.gate.raise(second + MARGIN);
    await page.locator('body[data-model=arriving]').waitFor();
    assert.equal(await tier(), 'tier 2 of 3');
    await answered(page);
    assert.match(await page.locator('.assistant .facts').textContent(), /^tier 2 of 3/);
    assert.ok(await page.locator('#arrival').isVisible());
    await shot(page, 'arriving');
    await checkAxe(page);
    gated.gate.raise(size);
    await ready(page);
    assert.equal(await tier(), 'tier 3 of 3');
    assert.ok(await page.locator('#arrival').isHidden());
    assert.match(await page.locator('.assistant .facts').textContent(), /^tier 2 of 3/);
    await page.getByRole('button', { name: 'Answer again' }).click();
    await answered(page);
    await page.locator('.assistant .facts').filter({ hasText: /^tier 3 of 3/ }).waitFor();
    assert.deepEqual(page.problems, []);
  });

  test('pause, resume, cancel, and go on from what is kept', { timeout: 240000 }, async () => {
    await page.getByRole('button', { name: 'Pause' }).click();
    await page.locator('#progress-text').filter({ hasText: 'paused' }).waitFor();
    await shot(page, 'paused');
    gated.gate.raise(first + MARGIN);
    await page.waitForTimeout(1000);
    assert.equal(await whole(), 0); // what was in flight came, no more
    await page.getByRole('button', { name: 'Resume' }).click();
    await page.waitForFunction(() => document.querySelectorAll('#strip .whole').length === 1);
    await page.getByRole('button', { name: 'Cancel' }).click();
    await page.getByRole('button', { name: 'Go on loading' }).waitFor(); // it knows what has come
    assert.ok(await page.getByRole('button', { name: 'Go on loading' }).evaluate((button) => button === document.activeElement));
    await page.reload();
    await started(page);
    await page.locator('#model-size').filter({ hasText: /\d+ MB are here already/ }).waitFor();
    gated.gate.raise(size);
    await page.getByRole('button', { name: 'Go on loading' }).click();
    await ready(page);
    assert.deepEqual(page.problems, []);
  });

  test('the rest can be stopped, and asked for later', { timeout: 240000 }, async () => {
    gated.gate.raise(second + MARGIN);
    await page.locator('body[data-model=arriving]').waitFor();
    await page.locator('#arrival').getByRole('button', { name: 'Stop' }).click();
    await page.getByText('Tier 2 of 3 is in use. The rest was not loaded.').waitFor();
    await ask(page, 'What is the capital of France?');
    await answered(page);
    await shot(page, 'stopped-at-two');
    await checkAxe(page);
    gated.gate.raise(size);
    await page.getByRole('button', { name: 'Load the rest' }).click();
    await page.locator('#tier').filter({ hasText: 'tier 3 of 3' }).waitFor({ timeout: 60000 });
    assert.deepEqual(page.problems, []);
  });
});

describe('a file of the visitor', () => {
  let page;
  before(async () => {
    page = await visit(browser, server, { model: null });
  });
  after(() => page?.context().close());

  test('dropped: the memory it takes is told first, then it loads and answers', async () => {
    await page.evaluate(() => document.body.dispatchEvent(new DragEvent('dragenter', {
      bubbles: true, dataTransfer: Object.assign(new DataTransfer(), {}) })));
    assert.ok(await page.locator('#drop').isHidden()); // it was no file
    await drop(page, 'mine.gguf', '', bytes);
    await page.locator('#confirm').filter({ hasText: /mine\.gguf takes [\d.]+ MB of memory/ }).waitFor();
    await shot(page, 'confirm');
    assert.equal(await page.locator('body').getAttribute('data-model'), 'idle');
    await page.getByRole('button', { name: 'Load it' }).click();
    await ready(page);
    await ask(page, 'Once upon a time');
    await answered(page);
    assert.match(await page.locator('.assistant .text').textContent(), /\p{L}{3,}/u);
    assert.deepEqual(page.problems, []);
  });

  test('damaged: the message says so; the model before, chosen again, works', async () => {
    const damaged = Buffer.from(bytes);
    damaged[damaged.length - 1000] ^= 1;
    await page.locator('#models-open').click();
    await page.locator('#model-file').setInputFiles({ name: 'damaged.gguf', mimeType: '', buffer: damaged });
    await page.getByRole('button', { name: 'Load it' }).click();
    await page.getByRole('alert').filter({ hasText: 'The file is damaged: its bytes do not match its checksums' }).waitFor();
    await shot(page, 'damaged');
    await checkAxe(page);
    assert.ok(await page.locator('#messages .message').first().isVisible()); // the conversation is still there
    for (const [name, content, reason] of [['notes.gguf', Buffer.from('these are notes, not weights. '.repeat(9)), /not a model file/], ['cut.gguf', bytes.subarray(0, 9000), /damaged/]]) {
      await drop(page, name, '', content);
      await page.locator('#model-problem').filter({ hasText: reason }).waitFor();
    }
    await page.locator('#model-file').setInputFiles({ name: 'good.gguf', mimeType: '', buffer: bytes });
    await page.getByRole('button', { name: 'Load it' }).click();
    await ready(page);
    await ask(page, 'And then');
    await answered(page);
  });
});

test('an address is looked up, loaded, kept, used again and deleted', async () => {
  const page = await visit(browser, server, { model: null });
  await page.locator('#models-open').click();
  await page.getByLabel('Address').fill('ftp://example.org/x.gguf');
  await page.keyboard.press('Enter');
  await page.locator('#model-problem').filter({ hasText: 'not an address of a model' }).waitFor();
  await page.getByLabel('Address').fill(server.url('/models/none.gguf'));
  await page.keyboard.press('Enter');
  await page.locator('#model-problem').filter({ hasText: 'does not have this model' }).waitFor();
  await page.getByLabel('Address').fill(server.url(SMALL));
  await page.keyboard.press('Enter');
  await page.locator('#confirm').filter({ hasText: /tinystories-656k\.gguf takes [\d.]+ MB/ }).waitFor();
  assert.deepEqual(await cached(page), []); // nothing is loaded before the yes
  await page.keyboard.press('Enter'); // the focus is on it
  await ready(page);
  assert.match(page.url(), /model=/);

  await page.locator('#models-open').click();
  await page.locator('#kept-models').filter({ hasText: /tinystories-656k\.gguf0\.5 MB · used/ }).waitFor();
  await page.locator('#quota-text').filter({ hasText: /uses .* of the .* GB/ }).waitFor();
  await shot(page, 'models');
  await page.getByRole('button', { name: 'Use tinystories-656k.gguf' }).click();
  await ready(page);
  await page.locator('#models-open').click();
  await page.getByRole('button', { name: 'Delete tinystories-656k.gguf' }).click();
  await page.getByText('None yet.').waitFor();
  assert.deepEqual(await cached(page), []);
  assert.deepEqual(page.problems.filter((text) => !/404|ftp/.test(text)), []);
  await page.context().close();
});

test('not isolated: a banner names the headers, and one thread still works', async (t) => {
  const plain = await openServer({ isolated: false });
  t.after(() => plain.close());
  const page = await visit(browser, plain);
  const banner = page.locator('#banner');
  await banner.waitFor();
  assert.match(await banner.textContent(), /Cross-Origin-Opener-Policy: same-origin[^]*Cross-Origin-Embedder-Policy: require-corp/);
  await shot(page, 'banner');
  await checkAxe(page);
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.locator('#status').filter({ hasText: '1 thread ' }).waitFor();
  await banner.getByRole('button', { name: 'Dismiss' }).click();
  assert.ok(await banner.isHidden());
  await ask(page, 'Once upon a time');
  await answered(page);
  await page.context().close();
});
