// The built page in Firefox and WebKit (hosting.test.js has Chromium), from a host that sends no headers: isolated by its service
// worker, and there again when the host is gone. BITPAIR_ENGINES=firefox,webkit runs some of them only.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { buildDemo } from '../../scripts/build-demo.js';
import { FIXTURE } from '../web/helper.js';
import { ENGINES, openEngine } from './engines.js';
import { BASE, plainHost } from './plain-host.js';

const names = process.env.BITPAIR_ENGINES?.split(',') ?? Object.keys(ENGINES).filter((name) => name !== 'chromium');

let folder;
let made;
before(async () => {
  folder = mkdtempSync(join(tmpdir(), 'bitpair-page-'));
  made = await buildDemo({ out: join(folder, 'page'), model: null });
});
after(() => rmSync(folder, { recursive: true }));

const kept = (page) => eventually(page, async (version, base) => {
  const name = (await caches.keys()).find((key) => key.endsWith(version));
  return !!name && !!(await (await caches.open(name)).match(new URL(base, location.href).href));
}, made.version, BASE);

/** Waits for a page that reloads itself meanwhile: what is asked of it just then fails. */
async function eventually(page, fn, ...args) {
  for (const end = performance.now() + 60000; ;) {
    if (await page.evaluate(fn, ...args).catch(() => false)) return;
    assert.ok(performance.now() < end, `waited too long for ${fn}`);
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
}

for (const name of names) {
  test(`${name}: isolated without headers, loads and answers, comes back without its host`, { timeout: 180000 }, async (t) => {
    const browser = await openEngine(name);
    t.after(() => browser.close());
    const host = await plainHost(t, { made, model: FIXTURE });
    const page = await browser.newPage(host.url(BASE));
    await eventually(page, () => globalThis.crossOriginIsolated && navigator.serviceWorker.controller && document.body.dataset.started);
    await kept(page);
    await page.click('#load');
    await eventually(page, () => document.body.dataset.model === 'ready');
    const status = await page.evaluate(() => document.querySelector('#status').textContent);
    assert.match(status, ENGINES[name].threads ? /[2-9] threads/ : /1 thread /);
    await page.type('#prompt', 'Once upon a time');
    await page.press('Enter');
    await eventually(page, () => document.querySelector('.assistant .text')?.textContent.trim().length > 20);

    await host.close();
    await page.reload();
    await eventually(page, () => document.body.dataset.started);
    assert.ok(await page.evaluate(() => globalThis.crossOriginIsolated));
    assert.equal(await page.evaluate(() => document.querySelector('meta[name=bitpair-build]').content), made.version);
    await eventually(page, () => document.body.dataset.model === 'ready');
    await page.close();
  });
}
