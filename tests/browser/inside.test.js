// Looking inside, without the chat around it: what is drawn of the small model, and that it is what the model says.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { test } from 'node:test';

import AxeBuilder from '@axe-core/playwright';

import { ROOT } from '../web/helper.js';
import { openPage, useBrowser } from './browser.js';

const PAGE = '/web/demo/inside/?model=/models/tinystories-656k.gguf';
const SHOTS = `${ROOT}tests/out`;
mkdirSync(SHOTS, { recursive: true });

const { browser, server } = await useBrowser();

const ready = (page) => page.locator('body[data-state=ready]').waitFor();

async function opened(options = {}, query = '') {
  const page = await openPage(browser, server, { viewport: { width: 1180, height: 900 }, ...options });
  page.setDefaultTimeout(90000); // of a busy machine
  await page.goto(server.url(PAGE + query));
  await ready(page);
  await page.locator('.inside-map svg').waitFor();
  return page;
}

async function answered(page) {
  await page.getByRole('button', { name: 'Continue' }).click();
  await page.locator('.inside-tokens').waitFor();
  await ready(page);
}

/** What the package says of the same model, from a load of its own. */
const ask = (page, fn, argument) => page.evaluate(`import('/web/index.js').then(async ({ load }) => {
  const model = await load('/models/tinystories-656k.gguf', { threads: 1 });
  try {
    return await (${fn})(model, ${JSON.stringify(argument)});
  } finally {
    await model.dispose();
  }
})`);

async function axe(page) {
  assert.deepEqual(page.problems, []);
  const { violations } = await new AxeBuilder({ page }).options({ resultTypes: ['violations'] }).analyze();
  page.problems.length = 0; // axe itself tries inline styles
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' | ').slice(0, 300)}`), []);
}

test('the model is drawn as it is: matrices, stages, tiers, one matrix by keyboard', async () => {
  const page = await opened();
  const layers = await ask(page, (model) => model.layers());
  const stacks = layers.filter(({ type }) => type === 'signs');
  assert.equal(await page.locator('.inside-map g').count(), stacks.length);
  assert.equal(await page.locator('.inside-map g rect').count(), stacks.reduce((sum, { stages }) => sum + stages.length, 0));
  assert.equal(await page.locator('.inside-map .missing').count(), 0);
  const widths = await page.locator(`[data-name="${stacks[0].name}"] rect`).evaluateAll((rects) => rects.map((rect) => rect.width.baseVal.value));
  const bits = stacks[0].stages.map((stage) => stage.bits);
  widths.forEach((width, i) => assert.ok(Math.abs((width + 0.6) / (widths[0] + 0.6) - bits[i] / bits[0]) < 0.02, 'as wide as the bits'));

  const last = stacks.at(-1);
  await page.getByRole('combobox', { name: 'Block' }).selectOption(String(last.block));
  await page.getByRole('combobox', { name: 'Matrix' }).selectOption(last.name.split('.').pop());
  await page.locator('.inside-caption').filter({ hasText: `${last.rows} \u00d7 ${last.columns}` }).waitFor();
  assert.match(await page.locator('.inside-caption').textContent(), new RegExp(`${last.bitsPerWeight.toFixed(2)} bits per weight`));
  await page.locator(`[data-name="${stacks[0].name}"]`).click();
  assert.equal(await page.getByRole('combobox', { name: 'Matrix' }).inputValue(), stacks[0].name.split('.').pop());

  await page.getByText('All matrices as a table').click();
  await page.locator('.inside-table tbody tr').first().waitFor();
  assert.equal(await page.locator('.inside-table tbody tr').count(), layers.length);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('the picture shows the signs: each square has the colour of the sign that the model gives', async () => {
  const page = await opened();
  const { rows, columns, bits } = await ask(page, async (model) => {
    const { rows: r, columns: c, bits: b } = await model.signs('blk.0.attn_q', 0, 'A');
    return { rows: r, columns: c, bits: [...b] };
  });
  const sign = (row, column) => (bits[row * Math.ceil(columns / 8) + (column >> 3)] >> (column & 7)) & 1;
  await page.locator('.inside-readout').first().filter({ hasText: `${rows} \u00d7 ${columns}` }).waitFor();
  const zoomIn = page.getByRole('button', { name: 'Zoom into A' });
  for (let i = 0; i < 2; i++) await zoomIn.click(); // 8 pixels per sign
  const stage = page.getByRole('group', { name: /^A: arrow keys/ });
  await stage.focus();
  await page.keyboard.press('Home');
  await page.waitForTimeout(100);
  const wide = await stage.evaluate((element) => [element.clientWidth, element.clientHeight].map((size) => Math.floor(size / 8)));
  const [width, height] = [Math.min(wide[0], columns), Math.min(wide[1], rows)];
  const drawn = await stage.locator('canvas').evaluate((canvas, [w, h]) => {
    const { data } = canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height);
    return Array.from({ length: w * h }, (_, i) => data[4 * ((Math.floor(i / w) * 8 + 4) * canvas.width + (i % w) * 8 + 4)]);
  }, [width, height]);
  const colours = [...new Set(drawn)];
  assert.equal(colours.length, 2, 'two colours and nothing between');
  const plus = Math.min(...colours); // the accent is the darker one
  drawn.forEach((colour, i) => assert.equal(Number(colour === plus), sign(Math.floor(i / width), i % width), `sign ${i}`));

  const box = await stage.boundingBox();
  await page.mouse.move(box.x + 1 + 8 * 5 + 4, box.y + 1 + 8 * 3 + 4);
  assert.equal(await page.locator('.inside-readout').first().textContent(), `row 3, column 5: ${sign(3, 5) ? '+1' : '\u22121'}`);
  await stage.focus();
  for (let i = 0; i < 5; i++) await page.keyboard.press('-');
  await page.getByRole('button', { name: 'Zoom out of A', disabled: true }).waitFor({ timeout: 10000 }); // the whole matrix
  await page.keyboard.press('+');
  await page.keyboard.press('ArrowDown');
  await page.getByRole('combobox', { name: 'Stage' }).selectOption('1');
  await page.locator('.inside-histogram').nth(2).waitFor();
  assert.match(await page.getByRole('img', { name: /^Scales c:/ }).getAttribute('aria-label'), /values from .* to .* on average/);
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('an answer: rates, time to the first token, and what else was likely, by mouse, tap and keyboard', async () => {
  const page = await opened();
  await answered(page);
  await page.getByRole('img', { name: /^Tokens per second over [\d.]+ m?s: from .* on average/ }).waitFor();
  assert.match(await page.locator('.inside-big').textContent(), /^\d+(\.\d)?$/);
  const facts = await page.locator('.inside-facts').textContent();
  for (const part of [/First token\d/, /Prompt\d+ tokens/, /Answer1\d\d tokens/, /Threads\d/, /Kernels(SIMD128|relaxed SIMD)/, /Memory\d+.* MB/]) assert.match(facts, part);
  assert.ok(await page.locator('.inside-chart canvas').evaluate((canvas) => canvas.getContext('2d').getImageData(0, 0, canvas.width, canvas.height).data.some(Boolean)));

  const text = await page.locator('.inside-tokens').textContent();
  const wanted = await ask(page, async (model) => model.generate('Once upon a time', { seed: 1, maxTokens: 120, logprobs: 10 }).text());
  assert.equal(text.trim(), wanted.trim());

  const popover = page.locator('.inside-popover');
  await page.locator('.inside-tokens span').nth(10).hover();
  assert.ok(await popover.isVisible());
  assert.ok((await popover.locator('li').count()) >= 10);
  const shares = (await popover.locator('.value').allTextContents()).slice(0, 10).map((share) => parseFloat(share.replace('<', '')));
  assert.ok(shares.every((share, i) => i === 0 || share <= shares[i - 1]) && shares.reduce((sum, share) => sum + share, 0) <= 103, shares.join());
  assert.equal(await popover.locator('.chosen').count(), 1);
  const [box, view] = [await popover.boundingBox(), page.viewportSize()];
  assert.ok(box.x >= 0 && box.y >= 0 && box.x + box.width <= view.width && box.y + box.height <= view.height);
  await page.mouse.move(5, 5);
  assert.ok(await popover.isHidden());

  await page.locator('.inside-tokens').focus();
  await page.keyboard.press('ArrowRight');
  await page.keyboard.press('ArrowRight');
  assert.ok(await popover.isVisible());
  assert.match(await page.locator('#answer [role=status]').textContent(), /%\. Others: .*%/);
  await page.keyboard.press('Escape');
  assert.ok(await popover.isHidden());
  await page.locator('.inside-tokens span').nth(3).click();
  assert.ok(await popover.isVisible());
  await page.locator('.inside-tokens span').nth(3).click();
  assert.ok(await popover.isHidden());
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('of a lower tier the later stages are hollow, and said to be missing', async () => {
  const page = await opened({}, '&tier=1');
  assert.ok((await page.locator('.inside-map .missing').count()) > 0);
  assert.match(await page.locator('.inside-legend').textContent(), /not loaded/);
  await page.getByRole('combobox', { name: 'Stage' }).selectOption('1');
  await page.getByText('This stage is not loaded').waitFor();
  assert.ok(await page.locator('.inside-signs').first().isHidden());
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('the tiers side by side: memory first, then each answers as it would alone; Stop and Close', async () => {
  const page = await opened();
  await page.getByRole('button', { name: 'Compare the tiers' }).click();
  await page.getByText(/at most [\d.]+ MB of memory more.*Nothing is fetched/).waitFor();
  await axe(page);
  await page.getByRole('button', { name: 'Answer at every tier' }).click();
  await page.getByText('All tiers have answered').waitFor();
  const { tiers, texts } = await ask(page, async (model) => {
    const { SAMPLING, PLAIN_TEMPLATE } = await import('/web/demo/config.js');
    const { load } = await import('/web/index.js');
    const all = await model.fileTiers();
    const found = [];
    for (let tier = 1; tier <= all.length; tier++) {
      const one = await load('/models/tinystories-656k.gguf', { tier });
      found.push(await one.chat([{ role: 'user', content: 'Once upon a time' }], { ...SAMPLING, maxTokens: 96, seed: 1, template: PLAIN_TEMPLATE }).text());
      await one.dispose();
    }
    return { tiers: all.length, texts: found };
  });
  assert.ok(tiers > 1);
  assert.deepEqual(await page.locator('.inside-answer').allTextContents(), texts);
  assert.notEqual(texts[0], texts.at(-1));
  for (const rate of await page.locator('.inside-rate strong').allTextContents()) assert.ok(Number(rate) > 0, rate);
  await axe(page);
  await page.screenshot({ path: `${SHOTS}/inside-compare.png` });
  await page.getByRole('button', { name: 'Answer at every tier' }).click();
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.getByText('Stopped').waitFor();
  await page.keyboard.press('Escape');
  await page.locator('.inside-compare').waitFor({ state: 'detached' });
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('axe finds nothing, light and dark; on a phone nothing sticks out', async () => {
  for (const [name, options] of [
    ['light', { colorScheme: 'light' }], ['dark', { colorScheme: 'dark' }],
    ['phone', { colorScheme: 'light', viewport: { width: 360, height: 740 }, deviceScaleFactor: 2, reducedMotion: 'reduce' }],
  ]) {
    const page = await opened(options);
    await answered(page);
    if (name !== 'phone') await axe(page);
    assert.ok(await page.evaluate(() => document.documentElement.scrollWidth <= innerWidth), name);
    await page.screenshot({ path: `${SHOTS}/inside-${name}.png`, fullPage: name === 'phone' });
    assert.deepEqual(page.problems, [], name);
    await page.context().close();
  }
});
