// The demo page in Chromium with the embedded model: what a visitor does, and what can go wrong for one.

import assert from 'node:assert/strict';
import { mkdirSync } from 'node:fs';
import { after, before, describe, test } from 'node:test';

import { FIXTURE, ROOT } from '../web/helper.js';
import { openBrowser, openPage, openServer } from './browser.js';

const SMALL = '?model=/models/tinystories-656k.gguf';
const SHOTS = `${ROOT}tests/out`;
mkdirSync(SHOTS, { recursive: true });

let browser;
let server;
before(async () => {
  browser = await openBrowser();
  server = await openServer();
});
after(async () => {
  await browser?.close();
  server?.close();
});

async function loaded(page, path = '/') {
  await page.goto(server.url(path));
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('button', { name: 'Send' }).waitFor();
}

const answered = (page) =>
  page.waitForFunction(() => !document.querySelector('.busy') && document.querySelector('.assistant .facts:not([hidden])'), null, { timeout: 90000 });

const shot = (page, name) => page.screenshot({ path: `${SHOTS}/${name}.png` });

test('a visitor loads the embedded model, asks, and reads a finished answer', { timeout: 240000 }, async () => {
  const page = await openPage(browser, server);
  await page.goto(server.url());
  assert.ok(await page.evaluate(() => crossOriginIsolated));
  assert.ok(await page.locator('#banner').isHidden());
  await page.locator('#model-size').filter({ hasText: 'MB' }).waitFor();
  await shot(page, 'start');
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('button', { name: 'Send' }).waitFor({ timeout: 60000 });
  await shot(page, 'ready');
  assert.match(await page.locator('#status').textContent(), /\d threads? · SIMD128 · .* MB of memory/);
  assert.ok(await page.locator('#prompt').evaluate((box) => box === document.activeElement));

  await page.context().setOffline(true); // whatever an answer needs is there
  await page.keyboard.type('What is the capital');
  await page.keyboard.press('Shift+Enter');
  await page.keyboard.type('of France?');
  assert.equal(await page.locator('#prompt').inputValue(), 'What is the capital\nof France?');
  await page.keyboard.press('Enter');
  await page.locator('.assistant.busy').waitFor();
  await answered(page);
  const answer = await page.locator('.assistant p').first().textContent();
  assert.match(answer, /\p{L}{3,}/u);
  assert.doesNotMatch(answer, /<\|im_/);
  assert.match(await page.locator('.assistant .facts').textContent(), /\d+ tokens · [\d.]+ tokens\/s · first after [\d.]+ s/);
  const words = (text) => text.split(/\s+/).filter(Boolean).join(' ');
  assert.equal(words(await page.locator('#announcer').textContent()), words((await page.locator('.assistant p').allTextContents()).join(' ')));
  await shot(page, 'answer');

  await page.keyboard.type('And of Italy?');
  await page.keyboard.press('Enter');
  await page.waitForFunction(() => document.querySelectorAll('.assistant .facts:not([hidden])').length === 2, null, { timeout: 90000 });
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

describe('with the small model', () => {
  /** The small model has no chat template: prompts go through the page's own package. */
  async function smallModel(page, threads) {
    await page.goto(server.url('/web/demo/'));
    return page.evaluateHandle(async (count) => {
      const { load } = await import('/web/index.js');
      return load('/models/tinystories-656k.gguf', { threads: count });
    }, threads);
  }

  test('the package gives the same text in Chromium and in Node, at one and two threads', async () => {
    const { load } = await import('../../web/index.js');
    const options = { seed: 5, maxTokens: 40, temperature: 1 };
    const here = await load(FIXTURE, { threads: 1 });
    const wanted = await here.generate('Once upon a time', options).text();
    await here.dispose();
    for (const threads of [1, 2]) {
      const page = await openPage(browser, server);
      const model = await smallModel(page, threads);
      const found = await model.evaluate(async (m, o) => ({ text: await m.generate('Once upon a time', o).text(), info: m.info }), options);
      assert.equal(found.text, wanted);
      assert.equal(found.info.threads, threads);
      assert.deepEqual(page.problems, []);
      await page.context().close();
    }
  });

  test('files, bytes, errors and abort, in the browser', async () => {
    const page = await openPage(browser, server);
    await page.goto(server.url('/web/demo/'));
    const codes = await page.evaluate(async () => {
      const { load } = await import('/web/index.js');
      const bytes = new Uint8Array(await (await fetch('/models/tinystories-656k.gguf')).arrayBuffer());
      const loads = async (source, options) => {
        const model = await load(source, options);
        const text = await model.generate('Once', { greedy: true, maxTokens: 5 }).text();
        await model.dispose();
        return text;
      };
      const code = (promise) => promise.then(() => 'none', (error) => error.code);
      const abort = new AbortController();
      const stopped = code(load('/models/tinystories-656k.gguf', { signal: abort.signal }));
      abort.abort();
      return {
        same: new Set([await loads(bytes), await loads(new File([bytes], 'model.gguf')), await loads('/models/tinystories-656k.gguf')]).size,
        html: await code(load('/web/demo/index.html')),
        missing: await code(load('/models/none.gguf')),
        truncated: await code(load(bytes.slice(0, bytes.length - 999))),
        path: await code(load('file:///etc/passwd')),
        stopped: await stopped,
      };
    });
    assert.deepEqual(codes, { same: 1, html: 'format', missing: 'http', truncated: 'format', path: 'argument', stopped: 'aborted' });
    await page.context().close();
  });

  test('an abort is obeyed within 50 ms', async () => {
    const page = await openPage(browser, server);
    const model = await smallModel(page, 2);
    const late = await model.evaluate(async (m) => {
      const times = [];
      for (let i = 0; i < 9; i++) {
        const abort = new AbortController();
        const result = m.generate(new Int32Array(300).map((_, at) => 3 + ((at * 31 + i) % 2000)), { signal: abort.signal, maxTokens: 200, ignoreEnd: true }).result;
        await new Promise((resolve) => setTimeout(resolve, i));
        const asked = performance.now();
        abort.abort();
        if ((await result).finishReason !== 'abort') throw new Error('it came to its end before it was stopped');
        times.push(performance.now() - asked);
      }
      return times.sort((a, b) => a - b)[4];
    });
    assert.ok(late < 50, `${late} ms`);
    await page.context().close();
  });

  test('the page never freezes while the model works', async () => {
    const page = await openPage(browser, server);
    const model = await smallModel(page, 2);
    const longest = await model.evaluate(async (m) => {
      let last = performance.now();
      const gaps = [];
      const note = () => {
        gaps.push(performance.now() - last);
        last = performance.now();
      };
      const timer = setInterval(note, 4);
      await m.generate('Once upon a time', { maxTokens: 300, temperature: 1, ignoreEnd: true }).text();
      clearInterval(timer);
      note();
      return gaps.sort((a, b) => b - a)[Math.floor(gaps.length / 20)]; // on a busy machine a few are long for its reasons
    });
    assert.ok(longest < 200, `${longest} ms`);
    await page.context().close();
  });

  test('a model without a chat template gives a clear message in the conversation', async () => {
    const page = await openPage(browser, server);
    await loaded(page, `/web/demo/${SMALL}`);
    await page.getByRole('button', { name: 'Why is the sky blue?' }).click();
    await page.getByRole('alert').filter({ hasText: 'chat template' }).waitFor();
    assert.ok(await page.getByRole('button', { name: 'Send' }).isVisible());
    await page.context().close();
  });
});

test('Stop and Escape end an answer, New chat empties the page', { timeout: 240000 }, async () => {
  const page = await openPage(browser, server);
  await loaded(page);
  for (const stop of [() => page.getByRole('button', { name: 'Stop' }).click(), () => page.keyboard.press('Escape')]) {
    await page.locator('#prompt').fill('Tell me a very long story about a dragon, with many chapters.');
    await page.keyboard.press('Enter');
    await page.waitForFunction(() => document.querySelector('.busy p')?.textContent.length > 5, null, { timeout: 60000 });
    await stop();
    await page.locator('.assistant').last().locator('.facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
  }
  await page.getByRole('button', { name: 'New chat' }).click();
  assert.equal(await page.locator('.message').count(), 0);
  assert.equal(await page.getByRole('button', { name: 'Why is the sky blue?' }).count(), 1);

  await page.getByRole('button', { name: 'Why is the sky blue?' }).click();
  await page.waitForFunction(() => document.querySelector('.busy p')?.textContent.length > 5, null, { timeout: 60000 });
  await page.evaluate(() => {
    document.getElementById('announcer').textContent = 'nothing yet';
    document.getElementById('new-chat').click();
    document.querySelector('#suggestions button').click();
  });
  await page.waitForFunction(() => document.querySelector('.busy p')?.textContent.length > 5, null, { timeout: 60000 });
  assert.equal(await page.locator('.message').count(), 2);
  assert.equal(await page.locator('#announcer').textContent(), 'nothing yet');
  assert.ok(await page.getByRole('button', { name: 'Stop' }).isVisible());
  await page.getByRole('button', { name: 'Stop' }).click();
  await page.locator('.assistant .facts').filter({ hasText: 'stopped' }).waitFor({ timeout: 5000 });
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('a missing model: a clear message, and Try again works', async () => {
  const page = await openPage(browser, server);
  let broken = true;
  await page.route((url) => url.pathname.startsWith('/models/'), (route) => (broken ? route.fulfill({ status: 404, body: '' }) : route.continue()));
  await page.goto(server.url(`/web/demo/${SMALL}`));
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('alert').filter({ hasText: 'The server does not have the model' }).waitFor();
  broken = false;
  await page.getByRole('button', { name: 'Try again' }).click();
  await page.getByRole('button', { name: 'Send' }).waitFor();
  await page.context().close();
});

test('an address that is none: a clear message', async () => {
  const page = await openPage(browser, server);
  await page.goto(server.url('/web/demo/?model=http://'));
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.getByRole('alert').filter({ hasText: 'cannot use this source' }).waitFor();
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('not isolated: a banner names the headers, and one thread still works', async () => {
  const plain = await openServer({ isolated: false });
  const page = await openPage(browser, plain);
  await page.goto(plain.url(`/web/demo/${SMALL}`));
  const banner = page.locator('#banner');
  await banner.waitFor();
  assert.match(await banner.textContent(), /Cross-Origin-Opener-Policy: same-origin[^]*Cross-Origin-Embedder-Policy: require-corp/);
  await shot(page, 'banner');
  await page.getByRole('button', { name: 'Load the model' }).click();
  await page.locator('#status').filter({ hasText: '1 thread ' }).waitFor();
  await page.getByRole('button', { name: 'Dismiss' }).click();
  assert.ok(await banner.isHidden());
  const reason = await page.evaluate(async () => {
    const { load } = await import('/web/index.js');
    return (await load('/models/tinystories-656k.gguf', { threads: 4 })).info.threadsReason;
  });
  assert.match(reason, /Cross-Origin-Opener-Policy/);
  await page.context().close();
  plain.close();
});

test('a phone of 360 px: nothing sticks out; dark theme', async () => {
  for (const colorScheme of ['light', 'dark']) {
    const page = await openPage(browser, server, { viewport: { width: 360, height: 640 }, colorScheme, deviceScaleFactor: 2 });
    const fits = () => page.evaluate(() => document.documentElement.scrollWidth <= innerWidth);
    await page.goto(server.url(`/web/demo/${SMALL}`));
    assert.ok(await fits());
    await shot(page, `phone-start-${colorScheme}`);
    await page.getByRole('button', { name: 'Load the model' }).click();
    await page.getByRole('button', { name: 'Send' }).waitFor();
    await page.locator('#prompt').fill('A'.repeat(200));
    assert.ok(await fits());
    await page.keyboard.press('Enter');
    await page.getByRole('alert').last().waitFor();
    assert.ok(await fits());
    await shot(page, `phone-chat-${colorScheme}`);
    await page.context().close();
  }
});
