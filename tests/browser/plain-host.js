// plain-host.js - a web server that can do nothing: files below some path, by their names. No headers, no ranges.

import { readFileSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname } from 'node:path';

import { MODEL_PATH } from '../../web/demo/config.js';

export const BASE = '/some/where/';
const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.css': 'text/css', '.svg': 'image/svg+xml', '.wasm': 'application/wasm' };

/**
 * Serves a built page until the test ends.
 * @param {{after(fn): void}} t the test
 * @param {{made?: object, model?: string, handler?: Function, slow?: string}} options made: what buildDemo() gives; model: a file;
 *   hold: a name that is answered only after release(); handler: another one instead of all that
 * @returns {Promise<{url(path?): string, asked: string[], replace(files): void, release(): void, close(): Promise}>} asked: names, as
 *   they came
 */
export async function plainHost(t, { made, model, handler, hold }) {
  let files = made?.files;
  const asked = [];
  let release;
  const released = new Promise((resolve) => (release = resolve));
  const find = (path) => {
    if (!path.startsWith(BASE)) return undefined;
    const name = path.slice(BASE.length) || 'index.html';
    asked.push(name);
    return `/${name}` === MODEL_PATH ? readFileSync(model) : files.get(name);
  };
  const server = createServer(handler ?? (async (request, response) => {
    const path = new URL(request.url, 'http://host').pathname;
    const bytes = find(path);
    if (hold && path === BASE + hold) await released;
    const type = path.endsWith('/') ? TYPES['.html'] : TYPES[extname(path)];
    response.writeHead(bytes === undefined ? 404 : 200, { 'content-type': type ?? 'application/octet-stream' }).end(bytes ?? 'nothing here');
  }));
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  const { port } = server.address();
  const close = () => {
    server.closeAllConnections();
    return new Promise((resolve) => server.close(resolve));
  };
  t.after(close);
  return { asked, url: (path = '/') => `http://127.0.0.1:${port}${path}`, replace: (others) => (files = others), release, close };
}
