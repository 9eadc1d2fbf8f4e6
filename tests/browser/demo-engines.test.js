// The demo page in the three browser engines: load, chat, stop, reload, a file dropped, a damaged one, no isolation, a phone, axe.
// BITPAIR_ENGINES=firefox,webkit runs some of them only.

import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { FIXTURE, ROOT } from '../web/helper.js';
import { SHOTS, SMALL } from './demo.js';
import { ENGINES, openEngine } from './engines.js';
import { openSite } from './site.js';

const bytes = readFileSync(FIXTURE);
const axe = new Function(`${readFileSync(`${ROOT}node_modules/axe-core/axe.min.js`, 'utf8')}\nreturn true;`);
const names = process.env.BITPAIR_ENGINES?.split(',') ?? Object.keys(ENGINES);
const limits = { timeout: 240000 };

for (const name of names) describe(name, () => suite(name));

const started = (page) => page.waitFor(() => document.body.dataset.started);
const ready = (page) => page.waitFor(() => document.body.dataset.model === 'ready');
const answered = (page) => page.waitFor(() => !document.querySelector('.busy') && document.querySelector('.assistant .facts')?.textContent);
const press = (page, selector) => page.evaluate((s) => document.querySelector(s).click(), selector);

async function ask(page, text) {
  await page.type('#prompt', text);
  await page.press('Enter');
}

/** Settings of a fresh page. */
const set = (page, values) => page.evaluate((v) => localStorage.setItem('bitpair-demo-settings', JSON.stringify(v)), values);

const drop = (page, name, data) => page.evaluate((file, base64) => {
  const transfer = new DataTransfer();
  transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], file));
  for (const type of ['dragenter', 'dragover', 'drop'])
    document.body.dispatchEvent(new DragEvent(type, { bubbles: true, cancelable: true, dataTransfer: transfer }));
}, name, data.toString('base64'));

function suite(name) {
  const { threads } = ENGINES[name];
  let browser;
  let site;
  let page;
  before(async () => {
    browser = await openEngine(name);
    site = await openSite(); // an origin of its own, so storage is empty
    page = await browser.newPage(site.url(`/web/demo/?model=${SMALL}`), { viewport: { width: 1000, height: 760 } });
    await set(page, { seed: '7', maxTokens: 30, temperature: 1 });
    await page.reload();
    await started(page);
  }, limits);
  after(async () => {
    await browser?.close();
    site?.close();
  });

  test('loads and answers; the status says on how many threads', limits, async () => {
    await page.click('#load');
    await ready(page);
    await ask(page, 'Once upon a time');
    await answered(page);
    const { text, status } = await page.evaluate(() => ({
      text: document.querySelector('.assistant .text').textContent, status: document.getElementById('status').textContent,
    }));
    assert.match(text, /\p{L}{3,}/u);
    assert.match(status, threads ? /[2-9] threads/ : /1 thread /);
    await page.screenshot(`${SHOTS}/engine-${name}.png`);
  });

  test('Escape stops, also before the first token', limits, async () => {
    await page.evaluate(() => {
      document.getElementById('new-chat').click();
      document.getElementById('prompt').value = 'dog '.repeat(380);
      document.getElementById('composer').requestSubmit();
      document.body.dispatchEvent(new KeyboardEvent('keydown', { key: 'Escape', bubbles: true, cancelable: true }));
    });
    await answered(page);
    assert.match(await page.evaluate(() => document.querySelector('.assistant .facts').textContent), /stopped/);
  });

  test('a reload keeps the conversations, and the model where it can be kept', limits, async () => {
    const titles = () => page.evaluate(() => [...document.querySelectorAll('#conversations .title')].map((each) => each.textContent.trim().slice(0, 16)));
    await page.waitFor(() => document.querySelectorAll('#conversations .title').length === 2);
    const before = await titles();
    await page.reload();
    await started(page);
    assert.deepEqual(await titles(), before);
    if (!browser.keepsStorage) await press(page, '#load'); // else it begins without a click
    await ready(page);
  });

  test('axe finds nothing', limits, async () => {
    await press(page, '#conversations li:last-child .open');
    await answered(page);
    assert.equal(await page.evaluate(axe), true);
    const { violations, passes } = await page.evaluate(async () => {
      const found = await window.axe.run();
      return { violations: found.violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html).join(' ')}`), passes: found.passes.length };
    });
    assert.deepEqual(violations, []);
    assert.ok(passes > 20, `${passes}`);
  });

  test('a damaged file says so, a good one loads', limits, async () => {
    const damaged = Buffer.from(bytes);
    damaged[damaged.length - 1000] ^= 1;
    for (const [file, data, state] of [['damaged.gguf', damaged, 'failed'], ['good.gguf', bytes, 'ready']]) {
      await drop(page, file, data);
      await page.waitFor((wanted) => document.getElementById('confirm-name').textContent === wanted && !document.getElementById('confirm').hidden, file);
      await press(page, '#confirm-yes');
      await page.waitFor((wanted) => document.body.dataset.model === wanted, state);
      if (state === 'failed') assert.match(await page.evaluate(() => document.getElementById('failure-text').textContent), /damaged: its bytes do not match/);
    }
    await ask(page, 'And then');
    await answered(page);
  });

  test('a phone of 360 px: nothing sticks out, and the list opens as a drawer', limits, async () => {
    await page.setViewport({ width: 360, height: 640 });
    const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth + 1);
    assert.ok(await fits());
    assert.equal(await page.evaluate(() => document.getElementById('sidebar').checkVisibility()), false);
    await page.click('.bar [popovertarget]');
    await page.waitFor(() => document.getElementById('sidebar').checkVisibility());
    await page.screenshot(`${SHOTS}/engine-${name}-360.png`);
    await page.press('Escape');
    await page.waitFor(() => !document.getElementById('sidebar').checkVisibility());
    assert.ok(await fits());
    for (const dialog of ['settings', 'models']) {
      await press(page, `#${dialog}-open`);
      await page.waitFor((id) => document.getElementById(id).open, dialog);
      assert.ok(await fits());
      await page.press('Escape');
      await page.waitFor((id) => !document.getElementById(id).open, dialog);
    }
    await page.setViewport({ width: 1000, height: 760 });
    if (page.problems) assert.deepEqual(page.problems, []);
  });

  test('not isolated: the banner, and one thread', limits, async () => {
    const plain = await openSite({ isolated: false });
    try {
      await page.goto(plain.url(`/web/demo/?model=${SMALL}`));
      await started(page);
      await page.waitFor(() => !document.getElementById('banner').hidden);
      await page.click('#load');
      await ready(page);
      assert.match(await page.evaluate(() => document.getElementById('status').textContent), /1 thread /);
    } finally {
      plain.close();
    }
  });
}
