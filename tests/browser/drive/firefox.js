// firefox.js - Firefox under puppeteer-core, which speaks WebDriver BiDi to it.

import puppeteer from 'puppeteer-core';

import { programPath, until } from './common.js';

export async function openFirefox() {
  const browser = await puppeteer.launch({
    browser: 'firefox',
    executablePath: programPath('FIREFOX', '/usr/bin/firefox-esr'),
    headless: true,
    protocolTimeout: 0, // tests have limits of their own
    extraPrefsFirefox: QUIET,
  });
  return {
    version: await browser.version(),
    isolates: true,
    keepsStorage: true,
    canBeOffline: false,
    newPage: (url, options) => newPage(browser, url, options),
    close: () => browser.close(),
  };
}

/** Nothing of the browser's own goes to the network. */
const QUIET = {
  'app.normandy.enabled': false,
  'browser.safebrowsing.downloads.remote.enabled': false,
  'browser.safebrowsing.malware.enabled': false,
  'browser.safebrowsing.phishing.enabled': false,
  'captivedetect.canonicalURL': '',
  'extensions.systemAddon.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
  'network.trr.mode': 5,
};

async function newPage(browser, url, { viewport = { width: 1000, height: 760 } } = {}) {
  return openPage(await browser.createBrowserContext(), url, viewport);
}

async function openPage(context, url, viewport) {
  const page = await context.newPage();
  page.setDefaultTimeout(0);
  await page.setViewport(viewport);
  const problems = [];
  page.on('pageerror', (error) => problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && problems.push(message.text()));
  if (url) await page.goto(url);
  const evaluate = (fn, ...args) => page.evaluate(fn, ...args);
  return {
    problems,
    evaluate,
    another: (to) => openPage(context, to, viewport),
    goto: (to) => page.goto(to),
    reload: () => page.reload(),
    waitFor: (fn, ...args) => until(() => evaluate(fn, ...args), fn),
    click: (selector) => page.click(selector),
    type: (selector, text) => page.type(selector, text),
    press: (key) => page.keyboard.press(key),
    setViewport: (size) => page.setViewport(size),
    screenshot: (path) => page.screenshot({ path }),
    offline: async () => Promise.reject(new Error('this driver cannot take Firefox off the network')),
    close: () => page.close(),
  };
}
