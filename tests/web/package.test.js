// The package's sources: no reach beyond what the user named; the page's promises; the server. tests/package/ has the package itself.

import assert from 'node:assert/strict';
import { execFileSync, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { copyFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describe, test } from 'node:test';

import { demoHandler, listen } from '../../scripts/serve.js';
import { ROOT } from './helper.js';

const sources = readdirSync(`${ROOT}web`).filter((name) => name.endsWith('.js'));
const read = (path) => readFileSync(`${ROOT}${path}`, 'utf8');

test('what index.js exports and what index.d.ts declares are the same', async () => {
  const declared = [...read('web/index.d.ts').matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(await import('../../web/index.js')).sort(), declared.sort());
});

/** A program of Node: no DOM, and everything that a page alone has is missing. */
const USE = `
import { load, openai, type EngineSource, type Model, type RequestLike } from 'bitpair';

const headers = new Headers({ authorization: 'Bearer a' });
const wasm: EngineSource = new Uint8Array(8);
const request: RequestLike = { url: 'm.gguf', headers, credentials: 'include', cache: 'no-store', mode: 'cors', redirect: 'follow',
  referrerPolicy: '' };
const model: Model = await load(request, { signal: new AbortController().signal, wasm });
await load({ url: 'm.gguf', headers: { authorization: 'Bearer a' } }, { wasm: (file) => \`/\${file.toUpperCase()}\` });
await load({ url: 'm.gguf', headers: [['authorization', 'Bearer a']] });
await load(new Request('https://example.org/m.gguf', { headers }));
for await (const { text } of model.chat([{ role: 'user', content: 'Hi' }])) process.stdout.write(text);
void openai(model).embeddings.create({ input: 'a' });
// @ts-expect-error
await load({ url: 'm.gguf', mode: 'any' });
`;

test('the types need no DOM: a project of Node, and one of a page', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-types-'));
  try {
    const own = join(folder, 'node_modules', 'bitpair');
    mkdirSync(own, { recursive: true });
    writeFileSync(join(own, 'package.json'), '{ "type": "module", "exports": { "types": "./index.d.ts" } }');
    copyFileSync(`${ROOT}web/index.d.ts`, join(own, 'index.d.ts'));
    for (const name of ['@types', 'undici-types']) symlinkSync(`${ROOT}node_modules/${name}`, join(folder, 'node_modules', name));
    writeFileSync(join(folder, 'package.json'), '{ "type": "module" }');
    writeFileSync(join(folder, 'use.ts'), USE);
    writeFileSync(join(folder, 'page.ts'), USE.replace('process.stdout.write', 'document.write')
      .replace('new Uint8Array(8)', "await WebAssembly.compileStreaming(fetch('a.wasm'))"));
    const flags = ['--strict', '--noEmit', '--exactOptionalPropertyTypes', '--target', 'es2022',
      '--module', 'esnext', '--moduleResolution', 'bundler'];
    const compile = (...more) =>
      execFileSync(process.execPath, [`${ROOT}node_modules/typescript/bin/tsc`, ...flags, ...more], { cwd: folder, encoding: 'utf8' });
    compile('use.ts', '--lib', 'es2022', '--types', 'node', '--skipLibCheck', 'false');
    compile('page.ts', '--lib', 'es2022,dom,dom.iterable', '--typeRoots', 'none');
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what is packed: every relative link and picture of its pages leads to a file of it', () => {
  const options = { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] };
  const [{ files }] = JSON.parse(execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], options));
  const packed = files.map(({ path }) => path);
  const pages = packed.filter((path) => path.endsWith('.md'));
  assert.ok(pages.includes('README.md') && pages.length > 5);
  const anchors = (path) => [...read(path).matchAll(/^#+ (.*)$/gm)]
    .map(([, title]) => title.toLowerCase().replace(/[^\w -]/g, '').replaceAll(' ', '-'));
  for (const page of pages) {
    const text = read(page).replace(/^```[^]*?^```$|`[^`\n]*`/gm, ''); // without code
    for (const [, link, target = link] of text.matchAll(/\]\(([^)\s]+)\)|(?:src|href)="([^"]+)"/g)) {
      if (/^\w+:/.test(target)) continue;
      const [path, anchor] = target.split('#');
      const full = path === '' ? page : join(dirname(page), path);
      assert.ok(packed.includes(full), `${page}: ${target} is not in the package`);
      if (anchor) assert.ok(anchors(full).includes(anchor), `${page}: ${target}`);
    }
  }
});

test('the import map of docs/API.md is the one that tests/package/ runs', () => {
  const part = (path) => /<script type="importmap">[^]*?<\/script>\n<script type="module".*/.exec(read(path))[0];
  assert.equal(part('docs/API.md'), part('tests/package/fixtures/script.html'));
});

test('a build without engines says what makes them, and leaves what an earlier one has built', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-build-'));
  try {
    const filter = (path) => !path.endsWith('bitpair.wasm');
    for (const name of ['package.json', 'bench', 'scripts', 'web']) cpSync(`${ROOT}${name}`, join(folder, name), { recursive: true, filter });
    symlinkSync(`${ROOT}node_modules`, join(folder, 'node_modules'));
    for (const [script, built] of [['build-package', 'dist/index.js'], ['build-demo', 'build/demo/sw.js']]) {
      mkdirSync(dirname(join(folder, built)), { recursive: true });
      writeFileSync(join(folder, built), 'earlier');
      const { status, stderr } = spawnSync(process.execPath, [`scripts/${script}.js`], { cwd: folder, encoding: 'utf8' });
      assert.deepEqual([status, stderr], [1, `${script}: web/bitpair.wasm is missing: npm run build:wasm makes it\n`]);
      assert.equal(readFileSync(join(folder, built), 'utf8'), 'earlier');
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('engines: versions of Node that have process.getBuiltinModule, and no others', () => {
  const { engines: { node } } = JSON.parse(read('package.json'));
  assert.equal(JSON.parse(read('package-lock.json')).packages[''].engines.node, node);
  for (const [version, has] of [['20.15.1', false], ['20.16.0', true], ['20.20.2', true], ['21.7.3', false], ['22.0.0', false],
    ['22.2.0', false], ['22.3.0', true],
    ['24.0.0', true]]) assert.equal(inRange(version, node), has, version);
  assert.ok(read('README.md').includes('Node (20.16 and later 20s, 22.3 and newer)'));
});

/** Is a version in a range made of '^' and '>='? */
function inRange(version, range) {
  const numbers = (text) => text.split('.').map(Number);
  return range.split(' || ').some((part) => {
    const [, sign, low] = /^(\^|>=)([\d.]+)$/.exec(part);
    const [a, b] = [numbers(version), numbers(low)];
    const at = a.findIndex((n, i) => n !== b[i]);
    return (at < 0 || a[at] > b[at]) && (sign === '>=' || a[0] === b[0]);
  });
}

const engines = readdirSync(`${ROOT}web`).filter((name) => name.endsWith('.wasm')).map((name) => `web/${name}`);

describe('sources of the package', () => {
  const all = sources.map((name) => read(`web/${name}`)).join('\n');
  test('no eval, no blob worker, no host', () => {
    assert.doesNotMatch(all, /\beval\(|new Function|createObjectURL|https?:\/\//);
  });
  test('literal URLs, so that bundlers find worker and wasm', () => {
    assert.match(all, /new Worker\(new URL\('\.\/worker\.js', import\.meta\.url\), \{ type: 'module'/);
    for (const path of engines) assert.ok(all.includes(`new URL('./${path.slice(4)}', import.meta.url)`), path);
    assert.doesNotMatch(all, /(from|import\() ?'node:/);
  });
  test('only the listed exports of the engine are used', () => {
    const listed = read('wasm/exports.txt');
    const used = new Set([...all.matchAll(/exports\.(\w+_\w+)/g)].map(([, name]) => name));
    used.delete('__stack_pointer');
    assert.ok(used.size > 20);
    for (const name of used) assert.match(listed, new RegExp(`^${name}\\b`, 'm'), name);
  });
});

test('the page: its policy allows its import map, and every name in it is served', async () => {
  const page = read('web/demo/index.html');
  const [, map] = /<script type="importmap">(.*?)<\/script>/s.exec(page);
  const hash = createHash('sha256').update(map).digest('base64');
  assert.ok(page.includes(`'sha256-${hash}'`), `the policy must name 'sha256-${hash}'`);
  assert.doesNotMatch(page, /(src|href|action)="(\w+:)?\/\/|unsafe-inline|'unsafe-eval'| on\w+=/);
  const server = await listen(demoHandler(), 0);
  const base = `http://127.0.0.1:${server.address().port}`;
  const names = [...page.matchAll(/(?:src|href)="([^"]+)"/g)].map(([, name]) => name);
  for (const name of [...names, ...Object.values(JSON.parse(map).imports), '../worker.js', '../bitpair.wasm']) {
    const response = await fetch(new URL(name, `${base}/web/demo/`));
    assert.equal(response.status, 200, name);
    await response.arrayBuffer();
  }
  server.close();
});

test('the server: headers, ranges, types, and nothing outside its folders', async () => {
  const server = await listen(demoHandler(), 0);
  const get = (path, init) => fetch(`http://127.0.0.1:${server.address().port}${path}`, init);
  const page = await get('/');
  assert.match(page.url, /\/web\/demo\/$/);
  assert.equal(page.headers.get('cross-origin-opener-policy'), 'same-origin');
  assert.equal(page.headers.get('cross-origin-embedder-policy'), 'require-corp');
  assert.match(page.headers.get('content-type'), /text\/html/);
  const wasm = await get('/web/bitpair.wasm', { headers: { range: 'bytes=0-3' } });
  assert.deepEqual([wasm.status, wasm.headers.get('content-type')], [206, 'application/wasm']);
  assert.deepEqual([...new Uint8Array(await wasm.arrayBuffer())], [0, 97, 115, 109]);
  const size = readFileSync(`${ROOT}web/bitpair.wasm`).length;
  assert.equal((await get('/web/bitpair.wasm', { headers: { range: 'bytes=-10' } })).headers.get('content-range'), `bytes ${size - 10}-${size - 1}/${size}`);
  assert.equal((await get('/web/bitpair.wasm', { headers: { range: `bytes=${size}-` } })).status, 416);
  assert.equal((await get('/web/bitpair.wasm', { method: 'HEAD' })).headers.get('content-length'), String(size));
  assert.equal((await get('/web/index.js', { method: 'POST' })).status, 405);
  const tag = (await get('/web/index.js')).headers.get('etag');
  assert.equal((await get('/web/index.js', { headers: { 'if-none-match': tag } })).status, 304);
  for (const path of ['/package.json', '/web/../package.json', '/web/%2e%2e/package.json', '/web/..%2fpackage.json', '/src/base.h', '/web/none.js', '/web/demo',
    '/web/index.js/more', '/web/..%5cpackage.json', '/web/..%5c..%5c..%5c..%5c..%5c..%5cetc%5cpasswd', '/web%5c..%5cpackage.json', '/web/%00'])
    assert.equal((await get(path)).status, 404, path);
  for (const path of ['/web/%', '/web/%ff.js']) assert.equal((await get(path)).status, 400, path);
  const second = await listen(demoHandler(), server.address().port);
  assert.ok(second.address().port > server.address().port, 'the next free port');
  for (const each of [server, second]) each.close();
});
