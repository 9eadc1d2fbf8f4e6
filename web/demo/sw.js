// sw.js - the service worker of the built page. scripts/build-demo.js defines VERSION, a hash of all that is built, and FILES,
// what to keep, relative to this file. The files of a version lie in a folder of its name, so that no two versions mix: a page asks
// only for its own. Models are no business of this: the package keeps them, and their requests go past it.

import { has } from '../wasm.js';

/* global VERSION, FILES */

const { scope } = self.registration;
const OURS = `bitpair-page ${scope} `; // caches are shared by everything on this host
const CACHE = OURS + VERSION;
const known = new Set(FILES.map((file) => new URL(file, scope).href));

/** Of the engines this browser runs those with relaxed SIMD, or those without. */
const needed = (url) => !url.endsWith('.wasm') || url.includes('relaxed') === has('relaxed');

const ISOLATION = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
};

/** The same response with the headers that a host may have left out. */
function isolated(response) {
  if (response.status === 0) return response; // a redirect, which the browser follows itself
  const headers = new Headers(response.headers);
  for (const [name, value] of Object.entries(ISOLATION)) headers.set(name, value);
  const { status, statusText } = response;
  return new Response([204, 304].includes(status) ? null : response.body, { status, statusText, headers });
}

async function get(url) {
  const response = await fetch(url, { cache: 'no-cache' });
  if (!response.ok) throw new Error(`${url} answers ${response.status}`);
  return response;
}

/** Fills the cache of this version; the page itself comes last, so it is there only when everything is. */
async function keep() {
  const cache = await caches.open(CACHE);
  if (await cache.match(scope)) return;
  await Promise.all([...known].filter(needed).map(async (url) => {
    if (!(await cache.match(url))) await cache.put(url, isolated(await get(url)));
  }));
  const page = await get(scope);
  // While a host replaces one version by another, the page may already, or still, be another's.
  if (!(await page.clone().text()).includes(VERSION)) throw new Error('the page is of another version');
  await cache.put(scope, isolated(page));
}

const ourCaches = async () => (await caches.keys()).filter((name) => name.startsWith(OURS));

/** The version before this one stays: a page of it may be open, and ask for a part of itself. */
async function tidy() {
  const old = (await ourCaches()).filter((name) => name !== CACHE);
  await Promise.all(old.slice(0, -1).map((name) => caches.delete(name)));
}

/** An update begins its work when all is there; whatever is open hears of it. */
async function update() {
  await keep();
  await self.skipWaiting();
  for (const client of await self.clients.matchAll({ includeUncontrolled: true })) client.postMessage('updated');
}

// The first time nothing waits for the files: the page may need the isolation, and has them from the network anyway. It asks for
// them to be kept once it runs.
self.addEventListener('install', (event) => event.waitUntil(self.registration.active ? update() : self.skipWaiting()));

self.addEventListener('activate', (event) => event.waitUntil(self.clients.claim()));

self.addEventListener('message', (event) => {
  if (event.data === 'keep') event.waitUntil(keep().then(tidy).catch(() => {})); // the next visit tries again
});

/** What is kept, of this version or the one before. */
async function kept(url) {
  const hit = await (await caches.open(CACHE)).match(url);
  if (hit) return hit;
  for (const name of await ourCaches()) {
    const old = url === scope ? null : await (await caches.open(name)).match(url);
    if (old) return old;
  }
  return null;
}

self.addEventListener('fetch', (event) => {
  const { request } = event;
  const url = new URL(request.url);
  if (request.method !== 'GET' || !url.href.startsWith(scope)) return;
  const path = url.origin + url.pathname;
  const navigates = request.mode === 'navigate';
  const isPage = navigates && (path === scope || path === `${scope}index.html`);
  if (!navigates && !known.has(path) && !path.startsWith(`${scope}app/`)) return;
  event.respondWith(kept(isPage ? scope : path).then(async (hit) => hit ?? isolated(await fetch(request))));
});
