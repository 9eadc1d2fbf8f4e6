// The built page on a host that can do nothing: files below some path, no headers, no ranges. And without a host.

import assert from 'node:assert/strict';
import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { after, before, test } from 'node:test';

import { buildDemo } from '../../scripts/build-demo.js';
import { demoHandler } from '../../scripts/serve.js';
import { EMBEDDED, FIXTURE } from '../web/helper.js';
import { openBrowser, openPage } from './browser.js';
import { answered, ask, ready, started, writing } from './demo.js';
import { BASE, plainHost } from './plain-host.js';


let browser;
let folder;
let made;
before(async () => {
  browser = await openBrowser();
  folder = mkdtempSync(join(tmpdir(), 'bitpair-page-'));
  made = await buildDemo({ out: join(folder, 'page'), model: EMBEDDED });
});
after(async () => {
  await browser?.close();
  if (folder) rmSync(folder, { recursive: true });
});

/** Waits until an asynchronous function of the page gives something true. */
async function until(page, fn, argument) {
  for (const end = performance.now() + 90000; !(await page.evaluate(fn, argument)); ) {
    assert.ok(performance.now() < end, `waited too long for ${fn}`);
    await page.waitForTimeout(50);
  }
}

const isolated = (page) => page.waitForFunction(() => globalThis.crossOriginIsolated && navigator.serviceWorker.controller);

/** Waits until the service worker has kept the whole page: the page itself is stored last. */
const kept = (page, version) => until(page, async ([base, wanted]) => {
  const name = (await caches.keys()).find((key) => key.endsWith(` ${wanted}`));
  return !!name && !!(await (await caches.open(name)).match(new URL(base, location.href).href));
}, [BASE, version]);

async function open(host) {
  const page = await openPage(browser, host);
  page.setDefaultTimeout(90000); // of a busy machine
  return page;
}

const versionOf = (page) => page.locator('meta[name=bitpair-build]').getAttribute('content');

/** Waits until a version is kept, then visits until its page shows: the first or second time. */
async function shows(page, version) {
  await kept(page, version);
  for (let visits = 0; visits < 10 && (await versionOf(page)) !== version; visits++) {
    await page.waitForTimeout(1000);
    await page.reload({ waitUntil: 'domcontentloaded' });
  }
  assert.equal(await versionOf(page), version);
  await started(page);
}

const versions = (page) => page.evaluate(async () => (await caches.keys()).filter((name) => name.startsWith('bitpair-page')).map((name) => name.split(' ').pop()));

/** again: the model is kept, and the page loads it by itself. */
async function withModel(page, again) {
  await started(page);
  if (!again) await page.getByRole('button', { name: 'Load the model' }).click();
  await ready(page);
  assert.match(await page.locator('#status').textContent(), /[2-9] threads/);
}

async function answer(page, question) {
  await ask(page, question);
  await writing(page);
  await page.keyboard.press('Escape');
  await answered(page);
}

test('below a path, without headers: isolated by the service worker, answers; then again with the host gone', { timeout: 300000 }, async (t) => {
  const host = await plainHost(t, { made, model: EMBEDDED });
  const page = await open(host);
  await page.goto(host.url(BASE));
  await isolated(page);
  assert.ok(await page.locator('#banner').isHidden());
  await kept(page, made.version);
  await withModel(page);
  await answer(page, 'What is the sea?');

  const stored = await page.evaluate(async () => {
    const all = await Promise.all((await caches.keys()).map(async (name) => (await (await caches.open(name)).keys()).map(({ url }) => url)));
    return all.flat();
  });
  assert.ok(stored.length > 10 && stored.every((url) => !url.includes('.gguf')), 'the model is kept by the package, and once');

  await host.close();
  await page.reload();
  assert.ok(await page.evaluate(() => globalThis.crossOriginIsolated));
  await withModel(page, true);
  await answer(page, 'What is a mountain?');
  const ours = page.problems.filter((problem) => !/ERR_CONNECTION_REFUSED|404/.test(problem)); // asking whether the model has changed
  assert.deepEqual(ours, []);
  await page.context().close();
});

test('a page that has been touched is not reloaded under the hand', async (t) => {
  const host = await plainHost(t, { made, model: EMBEDDED, hold: 'sw.js' });
  const page = await open(host);
  await page.goto(host.url(BASE));
  await page.locator('#hero').click();
  await page.evaluate(() => (globalThis.marked = true));
  host.release();
  await until(page, () => navigator.serviceWorker.controller !== null);
  await page.waitForTimeout(300);
  assert.deepEqual(await page.evaluate(() => [globalThis.marked, globalThis.crossOriginIsolated]), [true, false]);
  assert.ok(await page.locator('#banner').isVisible(), 'and says that one thread runs');
  await page.reload();
  assert.ok(await page.evaluate(() => globalThis.crossOriginIsolated), 'the next visit is isolated');
  await page.context().close();
});

/** Another version: its name, the hash, wherever it occurs. */
function nextVersion({ version, files }, next) {
  const renamed = (text) => text.replaceAll(version, next);
  return new Map([...files].map(([name, bytes]) => [renamed(name), typeof bytes === 'string' ? renamed(bytes) : bytes]));
}

test('a new version replaces the old one, and never in parts', async (t) => {
  const host = await plainHost(t, { made, model: EMBEDDED });
  const page = await open(host);
  await page.goto(host.url(BASE));
  await isolated(page);
  await kept(page, made.version);
  const [second, third] = ['bbbbbbbbbbbb', 'cccccccccccc'];

  const files = nextVersion(made, second);
  const broken = new Map(files);
  broken.delete(`app/${second}/worker.js`);
  host.replace(broken); // half of it is not there yet
  await page.evaluate(() => navigator.serviceWorker.getRegistration().then((found) => found.update()));
  await until(page, async (wanted) => (await caches.keys()).some((name) => name.endsWith(wanted)), second);
  await page.waitForTimeout(300);
  assert.equal(await page.evaluate(async (base) => {
    const page = await (await caches.match(new URL(base, location.href).href)).text();
    return /bitpair-build" content="(.*?)"/.exec(page)[1];
  }, BASE), made.version, 'the old one is what is kept');

  host.replace(files);
  host.asked.length = 0;
  await page.reload(); // has the browser look for an update
  await shows(page, second);
  assert.ok(await page.evaluate(() => globalThis.crossOriginIsolated));
  assert.deepEqual(host.asked.filter((name) => name.includes(made.version)), [], 'what the old page needs comes from its own cache');

  host.replace(nextVersion({ version: second, files }, third));
  await page.reload();
  await shows(page, third);
  await until(page, async (first) => !(await caches.keys()).some((name) => name.endsWith(first)), made.version);
  assert.deepEqual(await versions(page), [second, third], 'this one and the one before it');
  await page.context().close();
});

test('what is built: relative addresses only, a strict policy, icons and a manifest that fit, and a clear 404', async () => {
  const { files, version } = made;
  const page = files.get('index.html');
  for (const [, address] of page.matchAll(/(?:src|href)="([^"]+)"/g)) {
    assert.doesNotMatch(address, /^(\/|[a-z]+:)/, address);
    if (!address.startsWith('#')) assert.ok(files.has(address), address);
  }
  assert.doesNotMatch(page, /importmap|unsafe-inline|'unsafe-eval'| on\w+=/);
  const manifest = JSON.parse(files.get('manifest.webmanifest'));
  assert.deepEqual([manifest.start_url, manifest.scope, manifest.display], ['./', './', 'standalone']);
  for (const { src, sizes, type } of manifest.icons) {
    if (type !== 'image/png') continue;
    const png = files.get(src); // width and height are the first fields of a PNG
    assert.equal(`${png.readUInt32BE(16)}x${png.readUInt32BE(20)}`, sizes);
  }
  for (const size of ['192x192', '512x512']) assert.ok(manifest.icons.some((icon) => icon.sizes === size));
  assert.match(files.get('_headers'), /Cross-Origin-Embedder-Policy: require-corp/);
  const scripts = [...files].filter(([name]) => name.endsWith('.js'));
  for (const [name, bytes] of scripts) assert.doesNotMatch(new TextDecoder().decode(Buffer.from(bytes)), /node_modules|\beval\(/, name);
  assert.equal(statSync(join(folder, 'page/models/smollm2-135m-instruct.gguf')).size, statSync(EMBEDDED).size);
  assert.deepEqual((await buildDemo({ out: join(folder, 'again'), model: null })).version, version, 'the same source, the same version');
  await assert.rejects(buildDemo({ out: tmpdir(), model: FIXTURE }), /no build of the page/);
});

test('our own server serves it, with ranges and headers, and nothing beside it', async (t) => {
  const host = await plainHost(t, { handler: demoHandler({ site: join(folder, 'page'), model: FIXTURE }) });
  const get = (path, init) => fetch(host.url(path), init);
  const page = await get('/');
  assert.equal(page.headers.get('cross-origin-embedder-policy'), 'require-corp');
  assert.match(await page.text(), /bitpair-build/);
  const part = await get('/models/smollm2-135m-instruct.gguf', { headers: { range: 'bytes=0-3' } });
  assert.deepEqual([part.status, await part.text(), part.headers.get('content-range')], [206, 'GGUF', `bytes 0-3/${statSync(FIXTURE).size}`]);
  for (const path of ['/web/index.js', '/..%2fpackage.json', '/app/', '/none']) assert.equal((await get(path)).status, 404, path);
});
