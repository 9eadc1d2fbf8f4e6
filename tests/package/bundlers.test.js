// The packed package in pages, by the ways in which pages get their code: each way loads a model in Chromium, threads
// included, and answers as Node does.

import assert from 'node:assert/strict';
import { copyFileSync, createReadStream, mkdirSync, readdirSync, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join } from 'node:path';
import { after, before, test } from 'node:test';

import { load } from '../../web/index.js';
import { openEngine } from '../browser/engines.js';
import { FIXTURE } from '../web/helper.js';
import { importTool, installPackage, installTools } from './installed.js';

const TYPES = { '.html': 'text/html', '.js': 'text/javascript', '.wasm': 'application/wasm' };
const ISOLATED = {
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-embedder-policy': 'require-corp',
  'cross-origin-resource-policy': 'same-origin',
};

let project;
let browser;
let wanted;
before(async () => {
  installTools();
  project = installPackage();
  mkdirSync(`${project.path}/app/public`);
  copyFileSync(FIXTURE, `${project.path}/app/public/model.gguf`);
  browser = await openEngine('chromium');
  const model = await load(FIXTURE, { cache: false });
  wanted = await model.generate('Once upon a time', { greedy: true, maxTokens: 12 }).text();
  await model.dispose();
}, { timeout: 300000 });
after(async () => {
  await browser?.close();
  project?.remove();
});

/** A static server without any cleverness. -> {url, close()} */
async function serve(folder, headers = ISOLATED) {
  const server = createServer((request, response) => {
    const path = decodeURIComponent(new URL(request.url, 'http://host').pathname);
    const file = path === '/model.gguf' ? FIXTURE : join(folder, path.endsWith('/') ? `${path}index.html` : path);
    if (!statSync(file, { throwIfNoEntry: false })?.isFile()) return response.writeHead(404, headers).end();
    response.writeHead(200, { ...headers, 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' });
    return createReadStream(file).pipe(response);
  });
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
  return { url: `http://127.0.0.1:${server.address().port}/`, close: () => server.closeAllConnections() || server.close() };
}

/** Opens the page and checks what it got. */
async function visit(url, threads = 2) {
  const page = await browser.newPage(url);
  const answer = await page.evaluate(() => globalThis.answer);
  assert.deepEqual(page.problems, []);
  assert.equal(answer.error, undefined, answer.error);
  assert.equal(answer.text, wanted);
  assert.match(answer.formal, /^(yes|no)\.$/);
  assert.ok(answer.chat.length > 0);
  assert.match(answer.schema, /^(true|false)$/);
  assert.equal(answer.threads, threads);
  await page.close();
}

async function visitFolder(folder, { page = '', threads, headers } = {}) {
  const server = await serve(folder, headers);
  await visit(server.url + page, threads).finally(server.close);
}

/** What bundlers that leave `new URL(..., import.meta.url)` alone need beside their output. */
function addAssets(folder) {
  const from = `${project.path}/node_modules/bitpair/dist`;
  for (const name of readdirSync(from)) if (name.endsWith('.wasm')) copyFileSync(`${from}/${name}`, `${folder}/${name}`);
  copyFileSync(`${project.path}/app/index.html`, `${folder}/index.html`);
}

const limits = { timeout: 300000 };

test('a script tag and an import map', limits, () => visitFolder(project.path, { page: 'script.html' }));

test('the same without isolation: one thread', limits, () => visitFolder(project.path, { page: 'script.html', threads: 1, headers: {} }));

test('Vite, development server', limits, async () => {
  const { createServer: createVite } = await importTool('vite');
  const vite = await createVite({
    root: `${project.path}/app`,
    configFile: false,
    logLevel: 'warn',
    cacheDir: `${project.path}/.vite`,
    server: { host: '127.0.0.1', port: 0, headers: ISOLATED, fs: { allow: [project.path] } },
    optimizeDeps: { exclude: ['bitpair'] },
  });
  try {
    await vite.listen();
    await visit(`http://127.0.0.1:${vite.httpServer.address().port}/`);
  } finally {
    await vite.close();
  }
});

test('Vite, build', limits, async () => {
  const { build } = await importTool('vite');
  const outDir = `${project.path}/out-vite`;
  await build({ root: `${project.path}/app`, configFile: false, logLevel: 'warn', build: { outDir, emptyOutDir: true } });
  await visitFolder(outDir);
});

test('webpack', limits, async () => {
  const { default: webpack } = await importTool('webpack');
  const path = `${project.path}/out-webpack`;
  const stats = await new Promise((resolve, reject) => webpack({
    mode: 'production',
    optimization: { minimize: false }, // the package is, and it takes long
    performance: false, // it finds 250 KB large
    context: `${project.path}/app`,
    entry: './main.js',
    output: { path },
  }, (error, result) => (error ? reject(error) : resolve(result))));
  assert.equal(stats.toString({ all: false, errors: true, warnings: true }), '');
  copyFileSync(`${project.path}/app/index.html`, `${path}/index.html`);
  await visitFolder(path);
});

test('esbuild: a worker of one\'s own that imports the package\'s, the engines copied', limits, async () => {
  const { build } = await import('esbuild');
  const outdir = `${project.path}/out-esbuild`;
  const { warnings } = await build({
    absWorkingDir: `${project.path}/app`,
    entryPoints: { main: './main.js', worker: './worker.js' },
    bundle: true,
    format: 'esm',
    outdir,
    logLevel: 'silent',
  });
  assert.deepEqual(warnings, []);
  addAssets(outdir);
  await visitFolder(outdir);
});

test('rollup: the worker as a second entry, the engines copied', limits, async () => {
  const { rollup } = await importTool('rollup');
  const { nodeResolve } = await importTool('@rollup/plugin-node-resolve');
  const warnings = [];
  const dir = `${project.path}/out-rollup`;
  const bundle = await rollup({
    input: { main: `${project.path}/app/main.js`, worker: 'bitpair/worker.js' },
    plugins: [nodeResolve({ browser: true, rootDir: `${project.path}/app` })],
    onwarn: ({ message }) => warnings.push(message),
  });
  await bundle.write({ dir, entryFileNames: '[name].js', chunkFileNames: '[name].js' });
  await bundle.close();
  assert.deepEqual(warnings, []);
  addAssets(dir);
  await visitFolder(dir);
});
