// server.js - serves the package, its peers, the models and the pages of this benchmark, cross-origin isolated, and counts what
// each page downloads.

import { createReadStream } from 'node:fs';
import { stat } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';
import { pipeline } from 'node:stream';

import { demoHandler, listen } from '../../scripts/serve.js';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.mjs': 'text/javascript', '.wasm': 'application/wasm' };
const CODE = new Set(['.js', '.mjs', '.wasm']);

/**
 * @param {Record<string, string>} folders address of each folder ('/peers/') and where it is
 * @returns {Promise<{url(path): string, close(): void, code(): number}>} code(): bytes of scripts and WebAssembly, headers included,
 *   sent since the last call
 */
export async function openBenchServer(folders) {
  const pages = demoHandler();
  let code = 0;
  const server = await listen((request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://host').pathname);
    const prefix = Object.keys(folders).find((folder) => path.startsWith(folder));
    const { socket } = request;
    const before = socket.bytesWritten;
    if (CODE.has(extname(path))) response.on('finish', () => (code += socket.bytesWritten - before));
    if (!prefix) return pages(request, response);
    return send(request, response, join(folders[prefix], normalize(path.slice(prefix.length))));
  }, 0);
  return {
    url: (path) => `http://127.0.0.1:${server.address().port}${path}`,
    close: () => server.closeAllConnections() || server.close(),
    code: () => {
      const bytes = code;
      code = 0;
      return bytes;
    },
  };
}

async function send(request, response, file) {
  const found = await stat(file).catch(() => null);
  if (!found?.isFile()) return response.writeHead(404).end();
  const etag = `"${found.size}-${Math.floor(found.mtimeMs)}"`;
  const headers = {
    'content-type': TYPES[extname(file)] ?? 'application/octet-stream',
    'cache-control': 'no-cache',
    etag,
    'accept-ranges': 'bytes',
    'cross-origin-opener-policy': 'same-origin',
    'cross-origin-embedder-policy': 'require-corp',
    'cross-origin-resource-policy': 'same-origin',
  };
  if (request.headers['if-none-match'] === etag) return response.writeHead(304, headers).end();
  const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? '');
  const start = range ? Number(range[1]) : 0;
  const end = range?.[2] ? Math.min(Number(range[2]), found.size - 1) : found.size - 1;
  if (range) headers['content-range'] = `bytes ${start}-${end}/${found.size}`;
  response.writeHead(range ? 206 : 200, { ...headers, 'content-length': end - start + 1 });
  if (request.method === 'HEAD') return response.end();
  return pipeline(createReadStream(file, { start, end }), response, () => {});
}
