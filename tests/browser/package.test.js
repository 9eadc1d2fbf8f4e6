// The package in a page: the same text as in Node, errors, aborts, and a page that stays alive.

import assert from 'node:assert/strict';
import { describe, test } from 'node:test';

import { FIXTURE } from '../web/helper.js';
import { openPage, useBrowser } from './browser.js';

const { browser, server } = await useBrowser();

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
});
