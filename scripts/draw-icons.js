// draw-icons.js - the page's icons as PNG, drawn by Chromium from web/demo/icon.svg: run it when that has changed.

import { readFileSync, writeFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { openBrowser } from '../tests/browser/browser.js';

const DEMO = fileURLToPath(new URL('../web/demo/', import.meta.url));
const svg = readFileSync(`${DEMO}icon.svg`, 'utf8');
// Systems cut a maskable icon to a shape of theirs: its ground fills the square, its drawing keeps within the inner 80 %.
const maskable = svg.replace('viewBox="0 0 32 32"', 'viewBox="-3 -3 38 38"').replace('<rect width="32" height="32" rx="8"', '<rect x="-3" y="-3" width="38" height="38"');

const browser = await openBrowser();
for (const [name, size, source] of [['icon-192', 192, svg], ['icon-512', 512, svg], ['icon-maskable-512', 512, maskable]]) {
  const page = await browser.newPage({ viewport: { width: size, height: size } });
  await page.setContent(`<style>body { margin: 0 } svg { display: block; width: ${size}px; height: ${size}px }</style>${source}`);
  writeFileSync(`${DEMO}${name}.png`, await page.screenshot({ omitBackground: true }));
  await page.close();
}
await browser.close();
