// demo.js - what tests do on the demo page, as a visitor would.

import assert from 'node:assert/strict';
import { mkdirSync, readFileSync } from 'node:fs';

import { AxeBuilder } from '@axe-core/playwright';

import { demoHandler, listen } from '../../scripts/serve.js';
import { MODEL_PATH } from '../../web/demo/config.js';
import { ROOT } from '../web/helper.js';
import { openPage } from './browser.js';

export const SMALL = '/models/tinystories-656k.gguf';
export const SHOTS = `${ROOT}tests/out`;
const embedded = readFileSync(`${ROOT}${MODEL_PATH}`);
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

/** axe finds nothing. rules: only these */
export async function checkAxe(page, rules) {
  // What is sliding in has colours of its own until it is there.
  await page.evaluate(() => Promise.all(document.getAnimations().filter((each) => each.effect.getTiming().iterations === 1).map((each) => each.finished.catch(() => {}))));
  // preload would put imported styles into the page, which its policy forbids.
  const axe = new AxeBuilder({ page }).options({ preload: false, ...(rules ? { runOnly: { type: 'rule', values: rules } } : {}) });
  const { violations, passes } = await axe.analyze();
  assert.deepEqual(violations.map(({ id, nodes }) => `${id}: ${nodes.map(({ html }) => html.slice(0, 120)).join(' | ')}`), []);
  assert.ok(passes.length > 0);
}

/** Files let fall on the page. files: [{name, type, bytes}] */
export async function drop(page, name, type, bytes) {
  const transfer = await page.evaluateHandle(([file, kind, data]) => {
    const made = new DataTransfer();
    made.items.add(new File([Uint8Array.from(atob(data), (c) => c.charCodeAt(0))], file, { type: kind }));
    return made;
  }, [name, type, Buffer.from(bytes).toString('base64')]);
  for (const event of ['dragenter', 'dragover', 'drop']) await page.dispatchEvent('body', event, { dataTransfer: transfer });
}

/** A conversation of these texts, question and answer in turns, is imported and opened. more: other fields of answers */
export async function openConversation(page, id, title, texts, more = {}) {
  const messages = texts.map((text, i) => ({
    id: `${id}${i}`, parent: i ? `${id}${i - 1}` : null, role: i % 2 ? 'assistant' : 'user', text, time: 1, ...(i % 2 ? { state: 'done', ...more } : {}),
  }));
  const conversation = { id, title, named: true, created: Date.now(), updated: Date.now(), chosen: {}, messages };
  await drop(page, 'chat.json', 'application/json', JSON.stringify({ format: 'bitpair-conversations', version: 1, conversations: [conversation] }));
  const open = page.locator('#conversations .open').filter({ hasText: title });
  await open.waitFor({ state: 'attached' });
  if (!(await open.isVisible())) await page.getByRole('button', { name: 'Conversations' }).click();
  await open.click();
  // Until then the messages are those of the conversation before.
  await page.waitForFunction((text) => document.querySelector('.message')?.textContent.includes(text), texts[0].slice(0, 30));
}

/**
 * The page's server, whose embedded model stops coming at the byte `gate.at` until that is raised.
 * -> {url(path), close(), gate: {at, raise(to)}}
 */
export async function openGatedServer() {
  const pages = demoHandler();
  const waiting = new Set();
  const gate = {
    at: Infinity,
    raise(to) {
      gate.at = to;
      for (const go of waiting) go();
      waiting.clear();
    },
  };
  const server = await listen(async (request, response) => {
    if (new URL(request.url, 'http://host').pathname !== MODEL_PATH || request.method !== 'GET') return pages(request, response);
    const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range).map(Number);
    const end = Math.min(to, embedded.length - 1) + 1;
    response.writeHead(206, {
      etag: '"1"', 'content-range': `bytes ${from}-${end - 1}/${embedded.length}`, 'content-length': end - from, 'cross-origin-resource-policy': 'same-origin',
    });
    for (let at = from; at < end && !response.destroyed;) {
      const next = Math.min(end, gate.at, at + (1 << 18));
      if (next <= at) await new Promise((resolve) => waiting.add(resolve));
      else if (!response.write(embedded.subarray(at, (at = next)))) await flowing(response);
    }
    return response.end();
  }, 0);
  return {
    gate,
    url: (path = '/') => `http://127.0.0.1:${server.address().port}${path}`,
    close: () => {
      gate.raise(Infinity);
      server.closeAllConnections();
      server.close();
    },
  };
}

/** Resolves when more can be written, or nobody listens any more. */
function flowing(response) {
  return new Promise((resolve) => {
    const go = () => {
      response.off('drain', go).off('close', go);
      resolve();
    };
    response.on('drain', go).on('close', go);
  });
}
