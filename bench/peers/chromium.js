// chromium.js - a contestant in Chromium: its speed, its memory, its start. Each measurement has a page of its own.

import { existsSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { chromium } from 'playwright-core';

import { FLAGS, chromiumPath } from '../../tests/browser/browser.js';
import { memoryOf, rendererOf } from '../lib/memory.js';

/** Chromium with a profile on disk, so that what pages keep is where a user's browser keeps it. -> {context, close()} */
export async function openProfile() {
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-bench-'));
  const args = [...FLAGS, '--disable-features=SpareRendererForSitePerProcess'];
  const context = await chromium.launchPersistentContext(folder, { executablePath: chromiumPath(), args });
  return {
    context,
    close: async () => {
      await context.close();
      if (existsSync(folder)) rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function withPage(context, address, work) {
  const page = await context.newPage();
  try {
    await page.goto(address);
    return await work(page);
  } finally {
    await page.close();
  }
}

/** -> {threads, prefill, decode}: tokens per second */
export function measureSpeed(context, server, spec, work) {
  return withPage(context, server.url('/bench/empty.html'), (page) =>
    page.evaluate(async ([s, w]) => (await import('/bench/run.js')).measure(s, w), [spec, work]));
}

/**
 * Bytes that a page takes with a model open and one answer given, over the same page before.
 * @returns {Promise<{pss: number, rss: number, peak: number}>} peak: of the process, over its rss before
 */
export async function measureMemory(server, spec, prompt, count) {
  const { context, close } = await openProfile();
  try {
    // Once for what is kept between visits, once to measure.
    await withPage(context, server.url('/bench/empty.html'), (page) => openAndAnswer(page, spec, prompt, 1));
    const page = await context.newPage();
    await page.goto(server.url('/bench/empty.html'));
    for (const other of context.pages()) if (other !== page) await other.close();
    const pid = await rendererOf(context.browser());
    const before = memoryOf(pid);
    await openAndAnswer(page, spec, prompt, count);
    const after = memoryOf(pid);
    return { pss: after.pss - before.pss, rss: after.rss - before.rss, peak: after.peak - before.rss };
  } finally {
    await close();
  }
}

const openAndAnswer = (page, spec, prompt, count) => page.evaluate(async ([s, p, n]) => {
  const { openContestant } = await import('/bench/run.js');
  globalThis.contestant = await openContestant(s); // stays open
  await globalThis.contestant.generate(p, n, () => {});
}, [spec, prompt, count]);

/**
 * Milliseconds from navigation: {opened: until the model is open, first: until the first token}.
 * @param {boolean} linger a longer visit, which leaves behind what browsers keep of a page that is used
 */
export function measureStart(context, server, spec, prompt, linger = false) {
  const address = server.url(`/bench/start.html#${encodeURIComponent(JSON.stringify({ spec, prompt, linger }))}`);
  return withPage(context, address, async (page) => {
    const handle = await page.waitForFunction(() => globalThis.outcome, null, { timeout: 120000 });
    const outcome = await handle.jsonValue();
    if (outcome.error) throw new Error(outcome.error);
    return outcome;
  });
}
