// serve.js - a static server for the demo page: cross-origin isolated, byte ranges, no dependency.
//
//   node scripts/serve.js [--site FOLDER] [--port 8080] [--host 127.0.0.1] [--model FILE]
//
// With --site it serves what build-demo.js has made there; else the source, of which only the engine must be built: web/, models/ and
// the libraries of the page, nothing else. --model puts FILE in the place of the page's model. A port that is taken is passed over.

import { createReadStream, existsSync } from 'node:fs';
import { stat } from 'node:fs/promises';
import { createServer } from 'node:http';
import { extname, join, posix, resolve as absolute } from 'node:path';
import { pipeline } from 'node:stream';
import { fileURLToPath } from 'node:url';

import { parseOptions, refuse } from '../bench/lib/options.js';
import { MODEL_PATH } from '../web/demo/config.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const FOLDERS = [
  '/web/', '/models/', '/node_modules/@huggingface/jinja/dist/', '/node_modules/marked/lib/', '/node_modules/dompurify/dist/', '/node_modules/uplot/dist/',
];
const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.mjs': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.webmanifest': 'application/manifest+json',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.gguf': 'application/octet-stream',
};
const ISOLATED = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
};
// Other servers are there for addresses that a visitor gives; the page itself asks none.
export const WORKER_POLICY = "default-src 'self'; script-src 'self' 'wasm-unsafe-eval'; worker-src 'self'; connect-src 'self' https: http://localhost:* http://127.0.0.1:*";

const FAILURES = { ENOENT: [404, 'not found\n'], ENOTDIR: [404, 'not found\n'], EREQUEST: [400, 'bad request\n'] };

/**
 * The request handler.
 * @param {{isolated?: boolean, model?: string, site?: string, base?: string}} options isolated false leaves the three headers out;
 *   site: a built folder, served below the path `base`
 */
export function demoHandler({ isolated = true, model, site, base = '/' } = {}) {
  const served = site ? { root: absolute(site), folders: ['/'], base } : { root: ROOT, folders: FOLDERS, base: '/' };
  return async (request, response) => {
    const headers = { 'cache-control': 'no-cache', 'x-content-type-options': 'nosniff', ...(isolated ? ISOLATED : {}) };
    try {
      await answer(request, response, headers, { ...served, site, model });
    } catch (error) {
      const [status, text] = FAILURES[error.code] ?? [500, 'error\n'];
      if (!response.headersSent) response.writeHead(status, headers);
      response.end(text);
    }
  };
}

async function answer(request, response, headers, { site, root, folders, base, model }) {
  const full = pathOf(request.url);
  if (!full.startsWith(base)) throw notFound();
  const path = full.slice(base.length - 1);
  if (path === '/' && !site) return response.writeHead(302, { ...headers, location: '/web/demo/' }).end();
  if (!['GET', 'HEAD'].includes(request.method)) return response.writeHead(405, { ...headers, allow: 'GET, HEAD' }).end();
  const file = path === MODEL_PATH && model ? model : resolve(path, root, folders);
  const { size, mtimeMs } = await statFile(file);
  const type = TYPES[extname(file)] ?? 'application/octet-stream';
  Object.assign(headers, { 'content-type': type, 'accept-ranges': 'bytes', etag: `"${size}-${Math.floor(mtimeMs)}"` });
  if (extname(file) === '.js') headers['content-security-policy'] = WORKER_POLICY; // of workers; pages carry their own
  if (request.headers['if-none-match'] === headers.etag) return response.writeHead(304, headers).end();
  return send(request, response, headers, file, size);
}

function pathOf(url) {
  try {
    return decodeURIComponent(new URL(url, 'http://host').pathname);
  } catch (error) {
    throw Object.assign(error, { code: 'EREQUEST' });
  }
}

/** A path inside the folders that are served; anything else is not found. */
function resolve(path, root, folders) {
  if (/[\\\0]/.test(path)) throw notFound(); // a backslash separates folders on some systems only
  const clean = posix.normalize(path.endsWith('/') ? `${path}index.html` : path);
  const file = join(root, clean);
  if (!folders.some((folder) => clean.startsWith(folder)) || !file.startsWith(root)) throw notFound();
  return file;
}

const notFound = () => Object.assign(new Error('not found'), { code: 'ENOENT' });

async function statFile(file) {
  const found = await stat(file);
  if (!found.isFile()) throw notFound();
  return found;
}

function send(request, response, headers, file, size) {
  const range = /^bytes=(\d*)-(\d*)$/.exec(request.headers.range ?? '');
  let [start, end] = [0, size - 1];
  if (range && (range[1] || range[2])) {
    start = range[1] ? Number(range[1]) : Math.max(0, size - Number(range[2]));
    end = range[1] && range[2] ? Math.min(Number(range[2]), size - 1) : size - 1;
    if (start > end) return response.writeHead(416, { ...headers, 'content-range': `bytes */${size}` }).end();
    headers['content-range'] = `bytes ${start}-${end}/${size}`;
  }
  response.writeHead(headers['content-range'] ? 206 : 200, { ...headers, 'content-length': size ? end - start + 1 : 0 });
  if (request.method === 'HEAD' || size === 0) return response.end();
  // A visitor who leaves must not leave the file open.
  return pipeline(createReadStream(file, { start, end }), response, () => {});
}

/** Listens on `port` or the next one that is free. */
export function listen(handler, port, host = '127.0.0.1') {
  return new Promise((resolve, reject) => {
    const server = createServer(handler);
    server.on('listening', () => resolve(server));
    server.on('error', (error) => {
      if (error.code !== 'EADDRINUSE' || port === 0 || port >= 65535) return reject(error);
      return server.listen(++port, host);
    });
    server.listen(port, host);
  });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseOptions(import.meta.url, {
    options: {
      site: { type: 'string' }, port: { type: 'string', default: '8080' }, host: { type: 'string', default: '127.0.0.1' }, model: { type: 'string' },
    },
  });
  const port = Number(values.port);
  if (!Number.isInteger(port) || port < 0 || port > 65535) refuse(`--port ${values.port}: a number from 0 to 65535 is needed`);
  for (const path of [values.site, values.model]) if (path && !existsSync(path)) refuse(`${path} is missing`, 1);
  const server = await listen(demoHandler(values), port, values.host);
  console.log(`bitpair is at http://localhost:${server.address().port}/ (Ctrl+C ends it)`);
}
