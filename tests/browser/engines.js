// engines.js - three browser engines behind one small face, for tests that must hold in all of them.
//
//   const browser = await openEngine('firefox');         // a name of ENGINES
//   const page = await browser.newPage(url, { viewport: { width: 360, height: 640 } });
//   await page.evaluate(async (a, b) => a + b, 1, 2);    // arguments and result travel as JSON
//   await browser.close();                               // ends all its processes
//
// browser: {name, version, isolates, keepsStorage, canBeOffline, newPage(url?, {viewport?}), close()}
//   isolates: each page has a storage of its own; without, a new origin (another port) gives a fresh one.
//   keepsStorage: also while no page of the origin is open. WebKit under automation does not.
// page:    {goto(url), reload(), evaluate(fn, ...args), waitFor(fn, ...args), click(selector), type(selector, text), press(key),
//           setViewport({width, height}), screenshot(path), offline(yes), problems, another(url?), close()}
//   another: one more tab with the same storage.
//   goto and reload wait for the load event, and so for module scripts. evaluate works under any content security policy;
//   several may run at once. waitFor gives the first true value of fn. press takes 'Enter', 'Escape', 'Tab' or a character.
//   offline rejects where canBeOffline is false. problems: what the page threw or logged as an error; null: nobody tells.
//
// All are Debian's; CHROMIUM, FIREFOX and MINIBROWSER name others.

import { openChromium } from './drive/chromium.js';
import { openFirefox } from './drive/firefox.js';
import { openWebkit } from './drive/webkit.js';

/**
 * webkit has neither SharedArrayBuffer nor a private file system; webkit-safari has what Safari has. Its private file system is
 * there and refuses, as in Safari's private windows: WebKit under automation keeps nothing.
 * threads: does a page that is cross-origin isolated get SharedArrayBuffer? folder: is there a private file system that works?
 */
export const ENGINES = {
  chromium: { open: openChromium, threads: true, folder: true },
  firefox: { open: openFirefox, threads: true, folder: true },
  webkit: { open: () => openWebkit({ safari: false }), threads: false, folder: false },
  'webkit-safari': { open: () => openWebkit({ safari: true }), threads: true, folder: false },
};

export async function openEngine(name) {
  return { name, ...(await ENGINES[name].open()) };
}
