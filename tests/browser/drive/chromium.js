// chromium.js - Chromium under playwright-core.

import { openBrowser } from '../browser.js';
import { until } from './common.js';

export async function openChromium() {
  const browser = await openBrowser();
  return {
    version: browser.version(),
    isolates: true,
    keepsStorage: true,
    canBeOffline: true,
    newPage: (url, options) => newPage(browser, url, options),
    close: () => browser.close(),
  };
}

async function newPage(browser, url, { viewport = { width: 1000, height: 760 } } = {}) {
  const context = await browser.newContext({ viewport });
  return openPage(context, url);
}

async function openPage(context, url) {
  const page = await context.newPage();
  page.setDefaultTimeout(0); // tests have limits of their own
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  if (url) await page.goto(url);
  const call = (fn, args) => `(${fn})(...${JSON.stringify(args)})`;
  return {
    problems,
    another: (to) => openPage(context, to),
    goto: (to) => page.goto(to),
    reload: () => page.reload(),
    evaluate: (fn, ...args) => page.evaluate(call(fn, args)),
    // Not waitForFunction(), whose predicate is compiled in the page, against a policy without 'unsafe-eval'.
    waitFor: (fn, ...args) => until(() => page.evaluate(call(fn, args)), fn),
    click: (selector) => page.click(selector),
    type: (selector, text) => page.locator(selector).pressSequentially(text),
    press: (key) => page.keyboard.press(key),
    setViewport: (size) => page.setViewportSize(size),
    screenshot: (path) => page.screenshot({ path }),
    offline: (yes) => context.setOffline(yes),
    close: () => page.close(),
  };
}
