// browser.js - Debian's Chromium under playwright-core, and the server of the demo page.

import { existsSync } from 'node:fs';
import { after } from 'node:test';
import { chromium } from 'playwright-core';

import { demoHandler, listen } from '../../scripts/serve.js';

export const FLAGS = ['--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking',
  '--disable-component-update', '--disable-sync'];

export function chromiumPath() {
  const path = process.env.CHROMIUM ?? '/usr/bin/chromium';
  if (!existsSync(path)) throw new Error(`${path} is missing: run scripts/setup.sh, or set CHROMIUM`);
  return path;
}

export const openBrowser = async () => chromium.launch({ executablePath: chromiumPath(), args: FLAGS });

/** -> {url(path), close()}; options as for demoHandler */
export async function openServer(options) {
  const server = await listen(demoHandler(options), 0);
  return {
    url: (path = '/') => `http://127.0.0.1:${server.address().port}${path}`,
    close: () => server.closeAllConnections() || server.close(),
  };
}

/** The browser and the demo's server of a file of tests, closed after its last one. */
export async function useBrowser() {
  const browser = await openBrowser();
  const server = await openServer();
  after(async () => {
    await browser.close();
    server.close();
  });
  return { browser, server };
}

/** A page that notes what must never happen: errors, broken policy, requests to others. */
export async function openPage(browser, server, options = {}) {
  const context = await browser.newContext({ viewport: { width: 1000, height: 760 }, ...options });
  context.setDefaultTimeout(90000); // a busy machine is not a failure
  const page = await context.newPage();
  page.problems = [];
  page.on('pageerror', (error) => page.problems.push(error.message));
  page.on('console', (message) => message.type() === 'error' && page.problems.push(message.text()));
  page.on('request', (request) => {
    const url = request.url();
    if (!url.startsWith(server.url('/')) && !/^(data|blob):/.test(url)) page.problems.push(`request to ${url}`);
  });
  return page;
}
