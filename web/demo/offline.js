// offline.js - the service worker of the built page (scripts/build-demo.js), seen from the page: it keeps the page for visits
// without a network, and isolates it where the host cannot send the two headers. The page as it lies in the source has none.

const TRIED = 'bitpair-isolating'; // of this tab: reloading again would not help

let touched = false;
for (const type of ['pointerdown', 'keydown']) addEventListener(type, () => (touched = true), { once: true, capture: true });

/**
 * Is this page isolated, so that several threads can run? true or false as soon as that is certain: it never settles where the page
 * is about to be reloaded to become so, which happens only to one that nobody has touched yet.
 * @type {Promise<boolean>}
 */
export const isolation = start().catch(() => globalThis.crossOriginIsolated);

/** Calls fn when a newer version of the page is kept: the next visit, or reload, shows it. */
export function onUpdate(fn) {
  navigator.serviceWorker?.addEventListener('message', ({ data }) => data === 'updated' && fn());
}

async function start() {
  const isolated = globalThis.crossOriginIsolated;
  if (!document.querySelector('meta[name="bitpair-build"]') || !navigator.serviceWorker) return isolated;
  const first = !navigator.serviceWorker.controller;
  await navigator.serviceWorker.register(new URL('sw.js', document.baseURI), { updateViaCache: 'none' });
  const { active } = await navigator.serviceWorker.ready;
  if (!isolated && first && !touched && !sessionStorage.getItem(TRIED)) {
    sessionStorage.setItem(TRIED, 'yes');
    location.reload();
    return new Promise(() => {});
  }
  active.postMessage('keep');
  return isolated;
}
