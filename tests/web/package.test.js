// The package as others meet it: types, what is packed, no reach beyond what the user named, the page's promises.

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';

import { demoHandler, listen } from '../../scripts/serve.js';
import { ROOT } from './helper.js';

const manifest = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));
const sources = readdirSync(`${ROOT}web`).filter((name) => name.endsWith('.js'));
const read = (path) => readFileSync(`${ROOT}${path}`, 'utf8');

const USE = `
import { BitpairError, cache, estimateMemory, load, type CachedModel, type Chunk, type GenerateResult, type Model } from 'bitpair';

const model: Model = await load(new URL('https://example.org/m.gguf'), {
  threads: 2,
  contextSize: 1024,
  signal: new AbortController().signal,
  onProgress: ({ phase, loaded, total }) => { const share: number = loaded / (total ?? 1); void [phase, share]; },
});
await load(new File([], 'm.gguf'), { tier: 1, retries: 2, cache: 'models', integrity: 'sha256-' });
await load(new File([], 'm.gguf').stream(), { cache: false });
const memory: number = (await estimateMemory('m.gguf', { contextSize: 512, tier: 2 })).total;
const kept: CachedModel[] = await cache.list();
void [memory, kept[0]?.lastUsed?.getTime(), await cache.delete(new URL('https://example.org/m.gguf')), await cache.size('models')];
await cache.clear();
await load(new Uint8Array(3));
await load(new Request('https://example.org/m.gguf'));
for await (const chunk of model.chat([{ role: 'user', content: 'Hi' }], { greedy: true, stop: ['a'], seed: 3n })) {
  const text: string = chunk.text;
  if (chunk.finishReason) { const rate: number | null | undefined = chunk.stats?.decodeTokensPerSecond; void rate; }
  else { const id: number = chunk.id; void id; }
  void text;
}
const generation = model.generate([1, 2, 3], { bos: false, onPrefill: ({ done, total }) => void (done / total) });
const first: IteratorResult<Chunk, GenerateResult> = await generation.next();
const { text, finishReason, stats } = await generation.result;
model.generate('As JSON: ', { jsonSchema: { type: 'object', properties: { a: { type: 'string' } } } });
model.chat([{ role: 'user', content: 'Yes or no?' }], { grammar: 'root ::= "yes" | "no"' });
model.generate('As JSON: ', { json: true });
const ids: number[] = await model.tokenize(text, { special: true });
void [first, finishReason, stats?.seed, await model.detokenize(ids), model.info.threadsReason?.length];
const [layer] = await model.layers();
if (layer?.stages[0]?.loaded) {
  const { rows, columns, bits } = await model.signs(layer.name, 0, 'A');
  const { a, c, b } = await model.scales(layer.name, 0);
  const sizes: number[] = [rows, columns, bits.length, a.length, c.length, b.length, (await model.fileTiers())[0]?.bytes ?? 0];
  void sizes;
}
await generation[Symbol.asyncDispose]();
await model[Symbol.asyncDispose]();
try { await model.dispose(); } catch (error) { if (error instanceof BitpairError && error.code === 'http') void error.status; }
// @ts-expect-error a role that is none
model.chat([{ role: 'boss', content: 'Hi' }]);
// @ts-expect-error info is read-only
model.info.threads = 3;
// @ts-expect-error an option that is none
model.generate('a', { maxToken: 3 });
`;

test('index.d.ts passes tsc --strict, and so does a program that uses it', () => {
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-types-'));
  try {
    mkdirSync(join(folder, 'node_modules'));
    symlinkSync(ROOT, join(folder, 'node_modules', 'bitpair'));
    writeFileSync(join(folder, 'use.mts'), USE);
    const flags = ['--strict', '--noEmit', '--module', 'nodenext', '--target', 'es2022', '--noUncheckedIndexedAccess', '--exactOptionalPropertyTypes'];
    for (const lib of ['es2022,dom,dom.iterable', 'es2022,esnext.disposable,dom,dom.iterable'])
      execFileSync(process.execPath, [`${ROOT}node_modules/typescript/bin/tsc`, ...flags, '--lib', lib, 'use.mts'], { cwd: folder, encoding: 'utf8' });
  } catch (error) {
    assert.fail(error.stdout || error.message);
  } finally {
    rmSync(folder, { recursive: true });
  }
});

test('what index.js exports and what index.d.ts declares are the same', async () => {
  const declared = [...read('web/index.d.ts').matchAll(/^export (?:class|function|const) (\w+)/gm)].map(([, name]) => name);
  assert.deepEqual(Object.keys(await import('bitpair')).sort(), declared.sort());
});

test('the tarball holds the package and nothing else', () => {
  const out = execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts'], { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const files = JSON.parse(out)[0].files.map(({ path }) => path);
  for (const path of [...sources.map((name) => `web/${name}`), 'web/index.d.ts', 'web/bitpair.wasm', 'web/bitpair-threads.wasm', 'LICENSE', 'README.md'])
    assert.ok(files.includes(path), `${path} is missing`);
  for (const path of files) assert.match(path, /^web\/[\w-]+\.(js|wasm|d\.ts)$|^(package\.json|LICENSE|README\.md|CHANGELOG\.md)$/);
  for (const target of Object.values(manifest.exports).flatMap((entry) => (typeof entry === 'string' ? [entry] : Object.values(entry))))
    assert.ok(existsSync(join(ROOT, target)), target);
  assert.deepEqual(Object.keys(manifest.dependencies), ['@huggingface/jinja']);
});

describe('sources of the package', () => {
  const all = sources.map((name) => read(`web/${name}`)).join('\n');
  test('no eval, no blob worker, no host', () => {
    assert.doesNotMatch(all, /\beval\(|new Function|createObjectURL|https?:\/\//);
  });
  test('literal URLs, so that bundlers find worker and wasm', () => {
    assert.match(all, /new Worker\(new URL\('\.\/worker\.js', import\.meta\.url\), \{ type: 'module'/);
    assert.match(all, /new URL\('\.\/bitpair\.wasm', import\.meta\.url\)/);
    assert.match(all, /new URL\('\.\/bitpair-threads\.wasm', import\.meta\.url\)/);
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
