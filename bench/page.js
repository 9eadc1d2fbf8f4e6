// page.js - what the built page costs before the model: bytes and requests, and when it can be used, on a first and a second visit.
//
//   npm run bench:page [-- --json]
//
// Chromium with the network and the processor of a middling phone, as Lighthouse takes them: 1.6 Mbit/s, 150 ms, four times slower.
// Bytes are those of a host that compresses with gzip, as nearly all do. Interactive: the button that loads the model is there and
// no task of 50 ms runs any more. The model is not loaded: its bytes come on top of the last line.

import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { extname, join } from 'node:path';
import { gzipSync } from 'node:zlib';

import { buildDemo } from '../scripts/build-demo.js';
import { listen } from '../scripts/serve.js';
import { openBrowser } from '../tests/browser/browser.js';

import { needEngines, parseOptions } from './lib/options.js';

const { values } = parseOptions(import.meta.url, { options: { json: { type: 'boolean', default: false } } });
needEngines();
const TYPES = {
  '.html': 'text/html; charset=utf-8', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm',
  '.webmanifest': 'application/manifest+json', '.png': 'image/png',
};
const NETWORK = { offline: false, latency: 150, downloadThroughput: 1.6e6 / 8, uploadThroughput: 0.75e6 / 8 };
const SLOWER = 4;

const folder = mkdtempSync(join(tmpdir(), 'bitpair-bench-'));
const { files } = await buildDemo({ out: join(folder, 'page'), model: null });
const packed = new Map([...files].map(([name, bytes]) => [name, extname(name) === '.png' ? Buffer.from(bytes) : gzipSync(bytes)]));
let sent = []; // {name, kept: did the service worker ask for it?}
const server = await listen((request, response) => {
  const name = new URL(request.url, 'http://host').pathname.slice(1) || 'index.html';
  const body = packed.get(name);
  const headers = { 'content-type': TYPES[extname(name)] ?? 'text/plain', 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' };
  if (!body) return response.writeHead(404, headers).end();
  sent.push({ name, kept: request.headers['sec-fetch-dest'] === 'empty' }); // before the model the page itself fetches nothing
  return response.writeHead(200, { ...headers, ...(extname(name) === '.png' ? {} : { 'content-encoding': 'gzip' }) }).end(body);
}, 0);
const address = `http://127.0.0.1:${server.address().port}/`;

/** One visit -> when the page is drawn and usable (ms), and what it has asked of the host by then and after. */
async function visit(context) {
  const page = await context.newPage();
  const session = await context.newCDPSession(page);
  await session.send('Network.enable');
  await session.send('Network.emulateNetworkConditions', NETWORK);
  await session.send('Emulation.setCPUThrottlingRate', { rate: SLOWER });
  await page.addInitScript(() => {
    globalThis.longTasks = [];
    new PerformanceObserver((list) => list.getEntries().forEach((entry) => globalThis.longTasks.push(entry.startTime + entry.duration)))
      .observe({ type: 'longtask', buffered: true });
  });
  sent = [];
  await page.goto(address, { waitUntil: 'commit' });
  const button = page.locator('#load');
  await button.waitFor({ timeout: 120000 });
  const usable = await page.evaluate(() => new Promise((resolve) => {
    const main = () => performance.getEntriesByType('resource').find(({ name }) => name.endsWith('/main.js'))?.responseEnd;
    const look = () => (document.readyState === 'complete' && main() ? setTimeout(() => resolve(Math.max(main(), performance.timing.domContentLoadedEventEnd - performance.timing.navigationStart, ...globalThis.longTasks)), 600) : setTimeout(look, 20));
    look();
  }));
  const drawn = await page.evaluate(() => performance.getEntriesByName('first-contentful-paint')[0]?.startTime ?? NaN);
  await page.waitForTimeout(6000); // the service worker keeps the rest
  const names = (kept) => sent.filter((each) => each.kept === kept).map(({ name }) => name);
  const row = { drawn_ms: drawn, interactive_ms: usable, own: names(false), kept: names(true) };
  await page.close();
  return row;
}

const size = (names, map) => [...new Set(names)].reduce((sum, name) => sum + map.get(name).length, 0);
const kB = (bytes) => `${(bytes / 1e3).toFixed(0)} kB`;
const app = (pattern) => [...files.keys()].filter((name) => name.startsWith('app/') && pattern.test(name));

const browser = await openBrowser();
const context = await browser.newContext({ viewport: { width: 412, height: 823 } });
const rows = [];
for (const name of ['first visit', 'second visit']) {
  const { own, kept, ...times } = await visit(context);
  const row = { visit: name, ...times, requests: own.length, bytes: size(own, packed), bytes_unpacked: size(own, files), kept: size(kept, packed) };
  rows.push(row);
  console.log(`${name.padEnd(13)} drawn ${row.drawn_ms.toFixed(0)} ms, interactive ${row.interactive_ms.toFixed(0)} ms, ` +
    `${row.requests} requests, ${kB(row.bytes)} (unpacked ${kB(row.bytes_unpacked)}), ${kB(row.kept)} more kept meanwhile for visits without a network`);
}
const engine = [...app(/worker\.js$/), ...app(/bitpair-threads-relaxed\.wasm$/), ...app(/dist-.*\.js$/)];
rows.push({ engine_bytes: size(engine, packed), engine_bytes_unpacked: size(engine, files) });
console.log(`with the model come ${kB(size(engine, packed))} (unpacked ${kB(size(engine, files))}): engine, worker, chat templates`);
await browser.close();
server.close();
rmSync(folder, { recursive: true });
if (values.json) console.log(JSON.stringify(rows));
