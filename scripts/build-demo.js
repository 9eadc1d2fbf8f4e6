// build-demo.js - the demo page as a static folder, for any host and below any path.
//
//   npm run build:demo -- [--out build/demo] [--model FILE | --no-model]
//
//   index.html sw.js manifest, icons, 404.html, _headers    the page, and what hosts look for
//   app/VERSION/                                            scripts, styles and engines; VERSION is a hash of all that is built
//   models/                                                 the model, as it is
//
// Everything asks for everything else by relative addresses. Threads need two headers: hosts that read _headers send them, elsewhere
// the service worker adds them.

import { createHash } from 'node:crypto';
import { existsSync } from 'node:fs';
import { copyFile, mkdir, readFile, readdir, rename, rm, writeFile } from 'node:fs/promises';
import { basename, dirname, extname, join, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

import { build } from 'esbuild';

import { MODEL_PATH } from '../web/demo/config.js';
import { ENGINES } from '../web/protocol.js';
import { WORKER_POLICY } from './serve.js';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const DEMO = `${ROOT}web/demo/`;
const ASSETS = ['.svg', '.png', '.webmanifest'];
// What runs the engine at all: SIMD in WebAssembly, and modules in workers.
const TARGET = ['chrome91', 'firefox114', 'safari16.4'];

const COMMON = {
  bundle: true, minify: true, write: false, metafile: true, format: 'esm', target: TARGET, outdir: '/', logLevel: 'warning', legalComments: 'none',
};

const HEADERS = `# For hosts that read this file (Netlify, Cloudflare Pages): isolation without a reload, and caching.
/*
  Cross-Origin-Opener-Policy: same-origin
  Cross-Origin-Embedder-Policy: require-corp
  Cross-Origin-Resource-Policy: same-origin
  X-Content-Type-Options: nosniff
  Referrer-Policy: no-referrer
  Content-Security-Policy: frame-ancestors 'self'
/app/*
  Content-Security-Policy: ${WORKER_POLICY}
  Cache-Control: public, max-age=31536000, immutable
/sw.js
  Cache-Control: no-cache
`;

const NOT_FOUND = `<!doctype html>
<html lang="en">
<head>
  <meta charset="utf-8">
  <meta http-equiv="Content-Security-Policy" content="default-src 'none'; base-uri 'none'; form-action 'none'">
  <meta name="viewport" content="width=device-width, initial-scale=1">
  <meta name="color-scheme" content="light dark">
  <title>Not found - bitpair</title>
</head>
<body>
  <main>
    <h1>There is nothing at this address</h1>
    <p><a href="./">Up to the page</a></p>
  </main>
</body>
</html>
`;

/** Scripts, styles and engines: name -> bytes; and `first`, the names of the scripts that the page needs at once. */
async function bundle(styles) {
  const builds = [
    await build({ ...COMMON, entryPoints: [`${DEMO}main.js`], splitting: true, chunkNames: '[name]-[hash]' }),
    await build({ ...COMMON, entryPoints: [`${ROOT}web/worker.js`] }), // one file: a thread asks for it alone
    await build({ ...COMMON, entryPoints: styles }),
  ];
  const files = new Map(builds.flatMap(({ outputFiles }) => outputFiles.map(({ path, contents }) => [basename(path), contents])));
  for (const engine of ENGINES) {
    if (!existsSync(`${ROOT}web/${engine}`)) throw new Error(`web/${engine} is missing: npm run build:wasm makes it`);
    files.set(engine, await readFile(`${ROOT}web/${engine}`));
  }
  return { files, first: importedBy('main.js', builds[0].metafile.outputs) };
}

/** What a script imports before it runs, and what that imports. */
function importedBy(name, outputs) {
  const found = new Set();
  const visit = (path) => {
    const [, { imports }] = Object.entries(outputs).find(([output]) => basename(output) === path);
    for (const { path: next, kind } of imports) {
      if (kind !== 'import-statement' || found.has(basename(next))) continue;
      found.add(basename(next));
      visit(basename(next));
    }
  };
  visit(name);
  return [...found];
}

/** Style sheets of the page, and those that its parts bring along. */
const findStyles = (page) =>
  [...[...page.matchAll(/<link rel="stylesheet" href="([^"]+)"/g)].map(([, name]) => name), 'inside/inside.css'].map((name) => DEMO + name);

/** The page for the built folder: its own addresses, no import map, and its version. */
function rewritePage(source, version, first) {
  const app = `app/${version}/`;
  const preload = first.map((name) => `  <link rel="modulepreload" href="${app}${name}">\n`).join('');
  return source
    .replace(/ *<script type="importmap">[^]*?<\/script>\n/, '')
    .replace(/ 'sha256-[^']*'/g, '') // of the import map
    .replace(/(<link rel="stylesheet" href=")(?:[^"]*\/)?([^"/]+")/g, `$1${app}$2`)
    .replace('<script type="module" src="main.js">', `<script type="module" src="${app}main.js">`)
    .replace('</head>', `${preload}  <meta name="bitpair-build" content="${version}">\n</head>`);
}

function hash(parts) {
  const sum = createHash('sha256');
  for (const [name, bytes] of parts) sum.update(`${name} ${bytes.length}\n`).update(bytes);
  return sum.digest('hex').slice(0, 12);
}

async function writeAll(folder, files) {
  for (const [name, bytes] of files) {
    await mkdir(dirname(join(folder, name)), { recursive: true });
    await writeFile(join(folder, name), bytes);
  }
}

/** name -> bytes of all files but the model. */
async function makeFiles() {
  const page = await readFile(`${DEMO}index.html`, 'utf8');
  const { files, first } = await bundle(findStyles(page));
  const assets = (await readdir(DEMO)).filter((name) => ASSETS.includes(extname(name)));
  const root = new Map(await Promise.all(assets.map(async (name) => [name, await readFile(`${DEMO}${name}`)])));
  const worker = await readFile(`${DEMO}sw.js`, 'utf8');
  const version = hash([...[...files, ...root].sort(([a], [b]) => (a < b ? -1 : 1)), ['index.html', page], ['sw.js', worker]]);
  const kept = [...[...files.keys()].map((name) => `app/${version}/${name}`), ...root.keys()].sort();
  const define = { VERSION: JSON.stringify(version), FILES: JSON.stringify(kept) };
  const { outputFiles } = await build({ ...COMMON, entryPoints: [`${DEMO}sw.js`], define });
  root.set('sw.js', outputFiles[0].text);
  root.set('index.html', rewritePage(page, version, first));
  root.set('404.html', NOT_FOUND).set('_headers', HEADERS).set('.nojekyll', '');
  for (const [name, bytes] of files) root.set(`app/${version}/${name}`, bytes);
  return { version, files: root };
}

/**
 * Builds the page into `out`, which is replaced; a folder that is something else is left alone.
 * @param {{out: string, model?: string | null}} options model: the file that becomes the page's model; null: none is copied
 * @returns {Promise<{version: string, files: Map<string, Uint8Array | string>}>} what was written, but the model
 */
export async function buildDemo({ out, model = ROOT + MODEL_PATH.slice(1) }) {
  if (existsSync(out) && (await readdir(out)).length > 0 && !existsSync(join(out, 'sw.js')))
    throw new Error(`${out} is there and no build of the page: remove it, or give another --out`);
  const made = await makeFiles();
  const fresh = `${out}.new`;
  await rm(fresh, { recursive: true, force: true });
  await writeAll(fresh, made.files);
  if (model) {
    const place = join(fresh, MODEL_PATH);
    await mkdir(dirname(place), { recursive: true });
    await copyFile(model, place);
  }
  await rm(out, { recursive: true, force: true });
  await rename(fresh, out);
  return made;
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const { values } = parseArgs({
    options: { out: { type: 'string', default: `${ROOT}build/demo` }, model: { type: 'string' }, 'no-model': { type: 'boolean' } },
  });
  const out = resolve(values.out);
  try {
    const { version, files } = await buildDemo({ out, model: values['no-model'] ? null : values.model });
    const bytes = [...files.values()].reduce((sum, { length }) => sum + length, 0);
    console.log(`${out}: version ${version}, ${files.size} files, ${(bytes / 1e6).toFixed(2)} MB without the model`);
  } catch (error) {
    console.error(`build-demo: ${error.message}`);
    process.exitCode = 1;
  }
}
