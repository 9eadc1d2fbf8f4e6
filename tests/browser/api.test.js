// The examples of docs/API.md that need a page.

import assert from 'node:assert/strict';
import { test } from 'node:test';

import { bodyOf, examples } from '../web/examples.js';
import { FIXTURE } from '../web/helper.js';
import { openPage, useBrowser } from './browser.js';

const { browser, server } = await useBrowser();

const blocks = examples().filter(({ kind }) => kind === 'page');

test('there are some', () => assert.ok(blocks.length > 0));

for (const { name, code } of blocks) {
  test(`example: ${name}`, { timeout: 300000 }, async () => {
    const page = await openPage(browser, server);
    await page.goto(server.url('/web/demo/'), { waitUntil: 'commit', timeout: 120000 });
    await page.evaluate(() => document.body.replaceChildren(Object.assign(document.createElement('input'), { type: 'file' })));
    await page.setInputFiles('input[type=file]', FIXTURE);
    // The driver may evaluate what the page's policy would not let the page evaluate.
    const said = await page.evaluate(`(async () => { const said = []; const write = (text) => said.push(text); ${bodyOf(code, '/web/index.js')} return said; })()`);
    assert.ok(said.length > 0 && said.every((text) => typeof text === 'string' && text !== ''), JSON.stringify(said));
    await page.context().close();
  });
}
