// memory.js - what the operating system says of a process (Linux).

import { existsSync, readFileSync } from 'node:fs';

const field = (text, name) => Number(new RegExp(`^${name}:\\s+(\\d+) kB`, 'm').exec(text)[1]) * 1024;

/** Bytes of process `pid`: {pss: its share of what is in memory, rss, peak: the most that rss has been}. */
export function memoryOf(pid) {
  const rollup = readFileSync(`/proc/${pid}/smaps_rollup`, 'utf8');
  return { pss: field(rollup, 'Pss'), rss: field(rollup, 'Rss'), peak: field(readFileSync(`/proc/${pid}/status`, 'utf8'), 'VmHWM') };
}

/** Chromium's own pages, its toolbar for one, have renderers too; and those of closed pages may be gone by now. */
const isPage = (pid) => existsSync(`/proc/${pid}/cmdline`) && !readFileSync(`/proc/${pid}/cmdline`, 'utf8').includes('--top-chrome-webui');

/** The process that shows the only page of `browser`. */
export async function rendererOf(browser) {
  const session = await browser.newBrowserCDPSession();
  const { processInfo } = await session.send('SystemInfo.getProcessInfo');
  await session.detach();
  const renderers = processInfo.filter(({ type, id }) => type === 'renderer' && isPage(id));
  if (renderers.length !== 1) throw new Error(`${renderers.length} renderers instead of one`);
  return renderers[0].id;
}
