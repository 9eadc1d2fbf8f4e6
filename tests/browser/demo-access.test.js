// The demo page for everyone: axe in each state, light and dark; the keyboard alone; a phone; zoom; right-to-left text; what a
// screen reader is told; reduced motion.

import assert from 'node:assert/strict';
import { before, describe, test } from 'node:test';

import { useBrowser } from './browser.js';
import { answered, ask, checkAxe, isModel, openConversation, ready, shot, started, visit } from './demo.js';

const { browser, server } = await useBrowser();

const settings = { seed: '7', maxTokens: 30, temperature: 1 };
const MARKDOWN = '# Heading\n\n**Bold**, *soft*, `code`, a [link](https://example.org/).\n\n- one\n- two\n\n> quoted\n\n| a | b |\n|---|---|\n| 1 | 2 |\n\n```js\nlet x = 1;\n```';

async function importAnswer(page, id, question, answer) {
  await openConversation(page, id, question, [question, answer], { tier: 2, tiers: 3, tokens: 40 });
  await page.locator('.assistant .text > .block').first().waitFor();
}

/**
 * States of the page, each reached from the one before.
 * @type {[string, (page) => Promise<void>][]}
 */
const STATES = [
  ['start', async () => {}],
  ['loading', async (page) => {
    page.held = new Promise((resolve) => (page.release = resolve));
    await page.route(isModel, async (route) => {
      if (route.request().method() !== 'HEAD') await page.held;
      return route.continue();
    });
    await page.getByRole('button', { name: 'Load the model' }).click();
    await page.locator('#loading').waitFor();
  }],
  ['waiting', async (page) => {
    await ask(page, 'Once upon a time');
    await page.locator('.waiting').filter({ hasText: 'Waiting' }).waitFor();
  }],
  ['answered', async (page) => {
    page.release();
    await ready(page);
    await answered(page);
  }],
  ['versions', async (page) => {
    await page.getByRole('button', { name: 'Answer again' }).click();
    await answered(page);
    await page.locator('.variants').waitFor();
  }],
  ['inside', async (page) => {
    await page.getByRole('button', { name: 'Look inside' }).click();
    await page.locator('#inside-body h3').first().waitFor();
    await page.getByRole('button', { name: 'Close the panel' }).waitFor();
  }],
  ['tokens', async (page) => {
    await page.locator('#inside-close').click();
    await page.evaluate(() => document.getElementById('inside-toggle').click());
    await page.evaluate(() => document.querySelector('.assistant [aria-label="Answer again"]').click());
    await answered(page);
    await page.evaluate(() => document.querySelector('[aria-label="Probabilities of the tokens"]').click());
    await page.locator('.inside-tokens').waitFor();
    await page.locator('#inside-close').click();
  }],
  ['editing', async (page) => page.getByRole('button', { name: 'Edit message' }).click()],
  ['problem', async (page) => {
    await page.getByRole('textbox', { name: 'Edit message' }).fill('dog '.repeat(900));
    await page.keyboard.press('Enter');
    await page.locator('.assistant').getByRole('alert').filter({ hasText: 'too long' }).waitFor();
  }],
  ['markdown', async (page) => importAnswer(page, 'md', 'Markdown please', MARKDOWN)],
  ['settings', async (page) => {
    await page.getByRole('button', { name: 'Settings' }).click();
    await page.getByLabel('JSON of a schema').check();
  }],
  ['models', async (page) => {
    await page.keyboard.press('Escape');
    await page.locator('#models-open').click();
    await page.locator('#model-url').fill('/models/tinystories-656k.gguf');
    await page.keyboard.press('Enter');
    await page.locator('#confirm').waitFor();
  }],
  ['list', async (page) => {
    await page.keyboard.press('Escape');
    const menu = page.getByRole('button', { name: 'Conversations' });
    if (await menu.isVisible()) await menu.click();
    await page.getByRole('button', { name: 'Rename Markdown please' }).click();
  }],
];

/** Runs check(name) in every state. */
async function walk(page, check) {
  for (const [name, reach] of STATES) {
    await reach(page);
    await check(name);
  }
}

describe('axe finds nothing', () => {
  for (const colorScheme of ['light', 'dark']) {
    test(`in any state, ${colorScheme}`, { timeout: 480000 }, async () => {
      const page = await visit(browser, server, { colorScheme, settings });
      await walk(page, async (name) => {
        await checkAxe(page, colorScheme === 'dark' ? ['color-contrast'] : undefined); // the rest is the same in both
        await shot(page, `${name}-${colorScheme}`);
      });
      assert.deepEqual(page.problems, []);
      await page.context().close();
    });
  }
});

describe('nothing sticks out', () => {
  const sizes = { 'a phone of 360 px': { viewport: { width: 360, height: 640 }, deviceScaleFactor: 2, hasTouch: true }, 'zoom of 200 %': { viewport: { width: 640, height: 400 }, deviceScaleFactor: 2 } };
  for (const [name, size] of Object.entries(sizes)) {
    test(name, { timeout: 360000 }, async () => {
      const page = await visit(browser, server, { ...size, settings, colorScheme: name.includes('phone') ? 'dark' : 'light' });
      const wide = [];
      await walk(page, async (state) => {
        const out = await page.evaluate(() => {
          const scrolls = (element) => element && element !== document.body && (/auto|scroll|hidden/.test(getComputedStyle(element).overflowX) || scrolls(element.parentElement));
          return [...document.querySelectorAll('body *')].filter((each) => {
            const { right, left, width } = each.getBoundingClientRect();
            return each.checkVisibility() && width > 1 && (right > innerWidth + 1 || left < -1) && !scrolls(each.parentElement);
          }).map((each) => `${each.tagName}#${each.id}.${each.className}`).concat(document.documentElement.scrollWidth > innerWidth ? ['the page'] : []);
        });
        if (out.length) wide.push(`${state}: ${out.join(', ')}`);
        await shot(page, `${state}-${size.viewport.width}`);
      });
      assert.deepEqual(wide, []);
      await page.context().close();
    });
  }
});

test('the keyboard alone: load, ask, edit, settings and back', { timeout: 60000 }, async () => {
  const page = await visit(browser, server, { settings });
  const focus = () => page.evaluate(() => document.activeElement.getAttribute('aria-label') ?? document.activeElement.textContent.trim());
  const tabTo = async (name) => {
    for (let i = 0; i < 40; i++) {
      await page.keyboard.press('Tab');
      if ((await focus()) === name) return;
    }
    assert.fail(`${name} cannot be reached`);
  };
  await tabTo('Load the model');
  await page.keyboard.press('Enter');
  await ready(page);
  assert.ok(await page.locator('#prompt').evaluate((box) => box === document.activeElement));
  await page.keyboard.type('Once upon a time');
  await page.keyboard.press('Enter');
  await answered(page);
  await page.evaluate(() => document.activeElement.blur());
  await tabTo('Skip to the message box');
  await page.keyboard.press('Enter');
  await page.keyboard.type('x');
  assert.equal(await page.locator('#prompt').inputValue(), 'x');
  await tabTo('Edit message').catch(() => {});
  for (let i = 0; i < 40 && (await focus()) !== 'Edit message'; i++) await page.keyboard.press('Shift+Tab');
  await page.keyboard.press('Enter');
  await page.keyboard.press('ControlOrMeta+a');
  await page.keyboard.type('A dog');
  await page.keyboard.press('Enter');
  await answered(page);
  await tabTo('Settings');
  await page.keyboard.press('Enter');
  await page.locator('#settings[open]').waitFor();
  await page.keyboard.press('Escape');
  assert.equal(await focus(), 'Settings');
  assert.deepEqual(page.problems, []);
  await page.context().close();
});

test('a screen reader is told an answer in few batches, and all of it', { timeout: 60000 }, async () => {
  const page = await visit(browser, server, { settings: { ...settings, maxTokens: 300 } });
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ready(page);
  await page.evaluate(() => {
    window.told = [];
    new MutationObserver(() => window.told.push(document.getElementById('announcer').textContent))
      .observe(document.getElementById('announcer'), { childList: true, characterData: true, subtree: true });
  });
  const begun = Date.now();
  await ask(page, 'Once upon a time');
  await answered(page);
  const told = await page.evaluate(() => window.told);
  const words = (text) => text.split(/\s+/).filter(Boolean).join(' ');
  assert.equal(words(told.join(' ')), words(await page.locator('.assistant .text').innerText()));
  assert.ok(told.length <= 2 + (Date.now() - begun) / 3000, `${told.length} batches`);
  await page.context().close();
});

test('right-to-left text stands on its side', async () => {
  const page = await visit(browser, server, { settings });
  await importAnswer(page, 'rtl', '\u0645\u0627 \u0647\u064a \u0639\u0627\u0635\u0645\u0629 \u0641\u0631\u0646\u0633\u0627\u061f', '\u0639\u0627\u0635\u0645\u0629 \u0641\u0631\u0646\u0633\u0627 \u0647\u064a \u0628\u0627\u0631\u064a\u0633.\n\n- \u0648\u0627\u062d\u062f\n- \u0627\u062b\u0646\u0627\u0646\n\nAnd one line in English.');
  const directions = await page.locator('.bubble, .text > .block').evaluateAll((all) => all.map((each) => getComputedStyle(each).direction));
  assert.deepEqual(directions, ['rtl', 'rtl', 'rtl', 'ltr']);
  await shot(page, 'rtl');
  await page.context().close();
});

test('reduced motion: nothing moves', async () => {
  const page = await visit(browser, server, { settings, reducedMotion: 'reduce' });
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.keyboard.press('Escape');
  await page.getByRole('button', { name: 'Load the model' }).click();
  await ready(page);
  await page.evaluate(() => {
    window.moving = 0;
    const look = () => {
      window.moving += document.getAnimations().filter(({ playState }) => playState === 'running').length;
      requestAnimationFrame(look);
    };
    look();
  });
  await ask(page, 'Once upon a time');
  await answered(page);
  assert.equal(await page.evaluate(() => window.moving), 0);
  await page.context().close();
});

test('the theme can be chosen, and stays', async () => {
  const page = await visit(browser, server, { colorScheme: 'light' });
  const dark = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor === 'rgb(19, 20, 24)');
  assert.equal(await dark(), false);
  await page.getByRole('button', { name: 'Settings' }).click();
  await page.getByLabel('Dark').check();
  assert.equal(await dark(), true);
  await page.reload();
  await started(page);
  assert.equal(await dark(), true);
  await page.context().close();
});
