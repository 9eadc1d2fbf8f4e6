// Reading, scrolling and moving about on the demo page: where the view stays, where the focus goes, what lies above what.

import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';

import { useBrowser } from './browser.js';
import { answered, ask, loaded, openConversation, openGatedServer, shot, visit } from './demo.js';
import { MODEL_FACTS } from '../../web/demo/config.js';

const { browser, server } = await useBrowser();

const settings = { seed: '7', maxTokens: 40, temperature: 1 };
const focused = (page) => page.evaluate(() => document.activeElement.id || document.activeElement.getAttribute('aria-label') || document.activeElement.tagName);

describe('with the small model', () => {
  let page;
  before(async () => {
    page = await loaded(browser, server, { settings });
  });
  after(() => page?.context().close());

  test('code in a list keeps its lines, lists go on counting, cells keep their side', async () => {
    await openConversation(page, 'md', 'md', ['?', '1. Run this:\n   ```bash\n   npm install\n   npm start\n   ```\n\ntext between\n\n2. Then that\n\n> ```\n> a\n> b\n> ```\n\n| n |\n|--:|\n| 1 |']);
    const code = page.locator('li .code code');
    await code.waitFor();
    assert.equal((await code.textContent()).trim(), 'npm install\nnpm start');
    assert.equal(await page.locator('li .code-bar span').textContent(), 'bash');
    await page.context().grantPermissions(['clipboard-read', 'clipboard-write']);
    const copy = page.locator('li').getByRole('button', { name: 'Copy code' });
    await copy.click();
    await page.locator('.copy[data-said=Copied]').click(); // again, while it says so
    assert.equal((await page.evaluate(() => navigator.clipboard.readText())).trim(), 'npm install\nnpm start');
    await copy.waitFor({ timeout: 5000 }); // its name is back
    assert.equal((await page.locator('blockquote .code code').textContent()).trim(), 'a\nb');
    assert.deepEqual(await page.locator('.text ol').evaluateAll((all) => all.map(({ start }) => start)), [1, 2]);
    assert.match(await page.locator('.text td').evaluate((cell) => getComputedStyle(cell).textAlign), /right/);
    await shot(page, 'nested');
  });

  test('the focus goes where one goes on', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'Once upon a time');
    await answered(page);
    await page.getByRole('button', { name: 'Answer again' }).click();
    assert.equal(await focused(page), 'prompt');
    await answered(page);
    await page.locator('.assistant').getByRole('button', { name: 'Previous version' }).click();
    await page.waitForFunction(() => document.activeElement.closest?.('.variants'));
    assert.equal(await focused(page), 'Next version'); // there is none before
    await page.keyboard.press('Enter');
    await page.locator('.assistant .variants').filter({ hasText: '2 / 2' }).waitFor();
    await page.waitForFunction(() => document.activeElement.closest?.('.variants'));
    await page.getByRole('button', { name: 'Edit message' }).click();
    await page.getByRole('textbox', { name: 'Edit message' }).fill('The big dog');
    await page.keyboard.press('Enter');
    assert.equal(await focused(page), 'prompt');
    await answered(page);
  });

  test('a press inside a sheet does not close it, one outside does', async () => {
    await page.locator('#models-open').click();
    const { x, y, width, height } = await page.locator('#models').boundingBox();
    for (const [dx, dy] of [[4, height / 2], [width - 4, height / 2], [width / 2, height - 4]]) {
      await page.mouse.click(x + dx, y + dy);
      assert.ok(await page.locator('#models').isVisible(), `${dx}, ${dy}`);
    }
    await page.mouse.move(x + 30, y + 200);
    await page.mouse.down();
    await page.mouse.move(x - 60, y + 200); // a selection that is drawn too far
    await page.mouse.up();
    assert.ok(await page.locator('#models').isVisible());
    await page.mouse.click(x - 60, y + 200);
    assert.ok(await page.locator('#models').isHidden());
  });

  test('a schema that is half written stays, and is refused when it is used', async () => {
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('JSON of a schema').check();
    await page.getByLabel('JSON schema', { exact: true }).fill('{"type": "object",}');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'Once upon a time');
    await page.getByRole('alert').filter({ hasText: 'The JSON schema under Settings cannot be used. (This is not JSON yet' }).waitFor();
    await page.getByRole('button', { name: 'Settings' }).click();
    assert.equal(await page.getByLabel('JSON schema', { exact: true }).inputValue(), '{"type": "object",}');
    assert.ok(await page.getByLabel('JSON of a schema').isChecked());
    await page.getByLabel('Text', { exact: true }).check();
    await page.keyboard.press('Escape');
  });

  test('text is continued as text although JSON was chosen meanwhile, and its tokens are counted on', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'Once upon a time');
    await answered(page);
    await page.locator('.facts').filter({ hasText: '40 tokens' }).waitFor();
    const before = await page.locator('.assistant .text').textContent();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('Any JSON object').check();
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.locator('.facts').filter({ hasText: '80 tokens' }).waitFor();
    const after = await page.locator('.assistant .text').textContent();
    assert.ok(after.startsWith(before.trim().slice(0, -10)) && after.length > before.length, after);
    assert.equal(await page.locator('.assistant .code').count(), 0);
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('Text', { exact: true }).check();
    await page.keyboard.press('Escape');
  });

  test('an answer is continued while its probabilities are shown: it grows, and they go on', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await page.getByRole('button', { name: 'Look inside' }).click();
    await page.locator('#inside-body h3').first().waitFor();
    await ask(page, 'Once upon a time');
    await answered(page);
    await page.getByRole('button', { name: 'Probabilities of the tokens' }).click();
    const length = (await page.locator('.inside-tokens').textContent()).length;
    await page.getByRole('button', { name: 'Continue' }).click();
    await page.locator('.facts').filter({ hasText: '80 tokens' }).waitFor();
    assert.equal(await page.locator('.inside-tokens').count(), 0);
    assert.ok((await page.locator('.assistant .text').textContent()).length > length);
    await page.getByRole('button', { name: 'Probabilities of the tokens' }).click();
    assert.ok((await page.locator('.inside-tokens').textContent()).length > 1.3 * length);
    await page.locator('#inside-close').click();
  });

  test('a long conversation goes on without its oldest turns, where that is chosen', { timeout: 60000 }, async () => {
    const texts = Array.from({ length: 40 }, (_, i) => `${i} ${'the dog ran home. '.repeat(8)}`);
    await openConversation(page, 'long', 'long', texts);
    await ask(page, 'And then');
    await page.getByRole('alert').filter({ hasText: 'too long for the model' }).waitFor();
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('When the context is full').selectOption('shift');
    await page.keyboard.press('Escape');
    await page.getByRole('button', { name: 'Try again' }).click();
    await page.locator('.assistant .facts').filter({ hasText: /\d+ earlier messages left out/ }).waitFor();
    await shot(page, 'left-out');
  });

  test('Escape in the search box clears it, and does not stop the answer', async () => {
    await page.getByRole('button', { name: 'New chat' }).click();
    await ask(page, 'Once upon a time');
    await page.getByLabel('Search conversations').fill('dog');
    await page.keyboard.press('Escape');
    const last = await answered(page);
    assert.doesNotMatch(await last.locator('.facts').textContent(), /stopped/);
    assert.deepEqual(page.problems, []);
  });
});

test('scrolling up while an answer grows, in however small steps', { timeout: 120000 }, async () => {
  const page = await loaded(browser, server, { model: null, settings: { seed: '1', maxTokens: 300 } });
  await openConversation(page, 'tall', 'tall', ['?', 'word\n\n'.repeat(80), 'Tell me a long story about a dragon.', ' ']);
  await page.getByRole('button', { name: 'Answer again' }).last().click();
  await page.waitForFunction(() => document.querySelector('.busy .text')?.textContent.length > 60, null, { timeout: 60000 });
  const left = () => page.evaluate(() => document.scrollingElement.scrollHeight - scrollY - innerHeight);
  await page.mouse.move(640, 300);
  for (let i = 0; i < 6; i++) {
    await page.mouse.wheel(0, -20);
    await page.waitForTimeout(100);
  }
  const away = await left();
  assert.ok(away > 60, `${away}`);
  await page.waitForTimeout(500);
  assert.ok((await left()) >= away - 1);
  await page.getByRole('button', { name: 'To the end' }).click();
  await page.waitForFunction(() => document.scrollingElement.scrollHeight - scrollY - innerHeight < 2);
  await page.waitForTimeout(500);
  assert.ok((await left()) < 60, 'it follows again');
  await page.keyboard.press('Escape');
  await page.evaluate(() => scrollTo(0, 0));
  await page.getByRole('button', { name: 'To the end' }).waitFor();
  await page.getByRole('button', { name: 'New chat' }).click();
  await page.getByRole('button', { name: 'To the end' }).waitFor({ state: 'hidden' });
  await page.context().close();
});

test('a further tier does not take the focus from what is being written', { timeout: 60000 }, async () => {
  const gated = await openGatedServer();
  const page = await visit(browser, gated, { model: null });
  gated.gate.at = MODEL_FACTS.tiers[1] + (1 << 20);
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.locator('body[data-model=arriving]').waitFor({ timeout: 30000 });
  await page.getByLabel('Search conversations').focus();
  gated.gate.raise(Infinity);
  await page.locator('body[data-model=ready]').waitFor({ timeout: 30000 });
  await page.keyboard.type('dog');
  assert.equal(await page.getByLabel('Search conversations').inputValue(), 'dog');
  await page.context().close();
  gated.close();
});

test('a server that falls silent is told, and that the network is gone', { timeout: 60000 }, async () => {
  const gated = await openGatedServer();
  const page = await visit(browser, gated, { model: null });
  gated.gate.at = 5 << 20;
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.locator('#progress-text').filter({ hasText: 'waiting for the server' }).waitFor({ timeout: 10000 });
  await page.context().setOffline(true);
  await page.locator('#progress-text').filter({ hasText: 'no network' }).waitFor({ timeout: 10000 });
  await page.context().setOffline(false);
  await page.getByRole('button', { name: 'Cancel' }).click();
  await page.locator('#model-size').filter({ hasText: 'are here already' }).waitFor();
  assert.equal(await page.locator('#load-label').textContent(), 'Go on loading');
  await page.locator('#models-open').click();
  await page.getByRole('button', { name: /^Delete smollm2/ }).click();
  await page.locator('#models > .announcer').filter({ hasText: 'is deleted' }).waitFor({ state: 'attached' });
  await page.keyboard.press('Escape');
  assert.equal(await page.locator('#load-label').textContent(), 'Load the model');
  await page.context().close();
  gated.close();
});

test('narrow windows: the panel leaves room for the chat, or waits above it', { timeout: 60000 }, async () => {
  const page = await loaded(browser, server, { settings, viewport: { width: 1100, height: 760 } });
  await ask(page, 'Once upon a time');
  await answered(page);
  await page.getByRole('button', { name: 'Look inside' }).click();
  await page.locator('#inside-body h3').first().waitFor();
  const panel = await page.locator('#inside').boundingBox();
  for (const id of ['prompt', 'send', 'settings-open', 'inside-toggle']) {
    const box = await page.locator(`#${id}`).boundingBox();
    assert.ok(box.x + box.width <= panel.x + 1, id);
  }
  await shot(page, 'inside-1100');
  await page.getByRole('button', { name: 'Conversations' }).click();
  await page.locator('#conversations .open').first().click();
  await page.setViewportSize({ width: 360, height: 640 });
  assert.ok(await page.locator('.page').evaluate((element) => element.inert));
  await page.locator('#inside-close').click();
  assert.ok(!(await page.locator('.page').evaluate((element) => element.inert)));
  await page.getByRole('button', { name: 'Look inside' }).click();
  await page.reload();
  await page.locator('body[data-model=ready]').waitFor();
  assert.ok(await page.locator('#inside').isHidden()); // there it would hide everything
  await page.context().close();
});

test('a phone: Undo lies above the list; upright tables keep their words; on its side nothing sticks', { timeout: 60000 }, async () => {
  const page = await visit(browser, server, { viewport: { width: 360, height: 640 }, hasTouch: true, settings });
  await openConversation(page, 'table', 'table', ['?', '| column one | column two | column three | column four |\n|---|---|---|---|\n| some | words | stand | here |']);
  const cells = await page.locator('.text th').evaluateAll((all) => all.map((each) => each.getBoundingClientRect().height));
  assert.ok(Math.max(...cells) < 70, `${cells}`); // two lines of whole words at most
  await page.getByRole('button', { name: 'Conversations' }).click();
  await page.getByRole('button', { name: 'Delete table' }).click();
  await page.locator('.toast').getByRole('button', { name: 'Undo' }).click({ timeout: 5000 });
  await page.locator('#conversations .title').filter({ hasText: 'table' }).waitFor({ state: 'attached' });
  await page.keyboard.press('Escape');
  await page.setViewportSize({ width: 740, height: 360 });
  assert.equal(await page.locator('.dock').evaluate((element) => getComputedStyle(element).position), 'static');
  await page.context().close();
});

test('a long answer grows while it is read', { timeout: 60000 }, async () => {
  const page = await loaded(browser, server, { settings: { ...settings, maxTokens: 300 } });
  await ask(page, 'Once upon a time');
  await answered(page);
  const { bottom, height } = await page.locator('.assistant').last().evaluate((each) => ({ bottom: each.getBoundingClientRect().bottom, height: innerHeight }));
  assert.ok(bottom <= height, `${bottom} of ${height}`);
  await page.context().close();
});
