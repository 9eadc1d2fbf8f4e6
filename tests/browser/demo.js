// demo.js - what tests do on the demo page, as a visitor would.

import { mkdirSync } from 'node:fs';

import { ROOT } from '../web/helper.js';
import { openPage } from './browser.js';

export const SMALL = '/models/tinystories-656k.gguf';
export const SHOTS = `${ROOT}tests/out`;
mkdirSync(SHOTS, { recursive: true });

/** For page.route(): requests for models. */
export const isModel = (url) => url.pathname.endsWith('.gguf');

/** The page with the small model (or another; null: the embedded one), not loaded yet. */
export async function visit(browser, server, { model = SMALL, settings, ...options } = {}) {
  const page = await openPage(browser, server, options);
  if (settings) await page.addInitScript((values) => (localStorage['bitpair-demo-settings'] ??= JSON.stringify(values)), settings);
  await page.goto(server.url(model ? `/web/demo/?model=${model}` : '/web/demo/'));
  await started(page);
  return page;
}

export const started = (page) => page.locator('body[data-started]').waitFor();

/** Everything that was asked for is there. */
export const ready = (page) => page.locator('body[data-model=ready]').waitFor({ timeout: 120000 });

export async function loaded(browser, server, options) {
  const page = await visit(browser, server, options);
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ready(page);
  return page;
}

export async function ask(page, text) {
  await page.locator('#prompt').fill(text);
  await page.keyboard.press('Enter');
}

/** The latest answer is finished. */
export async function answered(page) {
  await page.waitForFunction(() => !document.querySelector('.busy') && document.querySelector('.assistant .facts')?.textContent, null, { timeout: 120000 });
  return page.locator('.assistant').last();
}

/** The latest answer has begun. */
export const writing = (page, length = 5) =>
  page.waitForFunction((n) => document.querySelector('.busy .text')?.textContent.length > n, length, { timeout: 60000, polling: 20 });

export const shot = (page, name) => page.screenshot({ path: `${SHOTS}/${name}.png` });

/** Files let fall on the page. files: [{name, type, bytes}] */
export async function drop(page, name, type, bytes) {
  const transfer = await page.evaluateHandle(([file, kind, data]) => {
    const made = new DataTransfer();
    made.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], file, { type: kind }));
    return made;
  }, [name, type, Buffer.from(bytes).toString('base64')]);
  for (const event of ['dragenter', 'dragover', 'drop']) await page.dispatchEvent('body', event, { dataTransfer: transfer });
}
