// site.js - the demo's server with a page for tests and a model that has several pieces and, when asked for, faults.

import { readFileSync } from 'node:fs';
import { extname } from 'node:path';

import { demoHandler, listen } from '../../scripts/serve.js';
import { ROOT, fixtureBytes } from '../web/helper.js';
import { enlarge } from '../web/large.js';

export const MIB = 1 << 20;
export const SMALL = '/models/tinystories-656k.gguf';
export const LARGE = '/models/large.gguf'; // the same model, 6 pieces
export const largeFile = enlarge(fixtureBytes(), 5 * MIB);
const TYPES = { '.html': 'text/html; charset=utf-8', '.js': 'text/javascript; charset=utf-8' };

/**
 * -> {url(path), close(), requests: of LARGE, down, delay(n) -> ms, change(bytes, start, n) -> bytes, headers}; n counts requests
 * @param {{isolated?: boolean, policy?: string}} options policy: the Content-Security-Policy of everything that is served
 */
export async function openSite({ isolated = true, policy } = {}) {
  const pages = demoHandler({ isolated });
  const site = { requests: 0, down: false, delay: () => 0, change: (bytes) => bytes };
  const server = await listen((request, response) => {
    const { pathname } = new URL(request.url, 'http://host');
    if (pathname === LARGE) return sendLarge(site, request, response);
    if (policy) keepPolicy(response, policy);
    if (pathname.startsWith('/test/')) return sendPage(response, pathname.slice('/test/'.length) || 'index.html', isolated);
    return pages(request, response);
  }, 0);
  site.url = (path = '/test/') => `http://127.0.0.1:${server.address().port}${path}`;
  site.close = () => server.closeAllConnections() || server.close();
  return site;
}

/** The policy given here, whatever the handler would say. */
function keepPolicy(response, policy) {
  const write = response.writeHead;
  response.writeHead = (status, headers) => write.call(response, status, { ...headers, 'content-security-policy': policy });
}

function sendPage(response, name, isolated) {
  const headers = { 'content-type': TYPES[extname(name)], 'cache-control': 'no-cache' };
  if (isolated) Object.assign(headers, { 'cross-origin-opener-policy': 'same-origin', 'cross-origin-embedder-policy': 'require-corp' });
  if (!/^[\w-]+\.(js|html)$/.test(name)) return response.writeHead(404).end();
  response.writeHead(200, headers);
  return response.end(readFileSync(`${ROOT}tests/browser/page/${name}`));
}

function sendLarge(site, request, response) {
  if (site.down) return response.destroy();
  const [, from, to] = /^bytes=(\d+)-(\d+)$/.exec(request.headers.range).map(Number);
  const n = site.requests++;
  const part = site.change(largeFile.subarray(from, to + 1), from, n);
  return setTimeout(() => {
    response.writeHead(206, {
      etag: '"1"',
      'content-range': `bytes ${from}-${from + part.length - 1}/${largeFile.length}`,
      'content-length': part.length,
      'cross-origin-resource-policy': 'same-origin',
    });
    response.end(part);
  }, site.delay(n));
}
