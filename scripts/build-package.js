// build-package.js - dist/, what the npm package ships: the sources of web/ bundled and minified (one file for the page, one for
// the worker, and what is loaded later), the engines, the types. Runs before `npm pack`; the repository itself uses web/.

import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

const ROOT = fileURLToPath(new URL('..', import.meta.url));
const { name, version, license } = JSON.parse(readFileSync(`${ROOT}package.json`, 'utf8'));

const options = {
  absWorkingDir: ROOT,
  outdir: 'dist',
  bundle: true,
  minify: true,
  format: 'esm',
  platform: 'neutral',
  target: 'es2022',
  charset: 'utf8',
  external: ['@huggingface/jinja'],
  banner: { js: `/*! ${name} ${version}, ${license} */` },
  chunkNames: '[name]-[hash]',
  logLevel: 'warning',
};

rmSync(`${ROOT}dist`, { recursive: true, force: true });
mkdirSync(`${ROOT}dist`);
await build({ ...options, entryPoints: ['web/index.js'], splitting: true });
await build({ ...options, entryPoints: ['web/worker.js'] });
const others = readdirSync(`${ROOT}web`).filter((file) => /\.(wasm|d\.ts)$/.test(file));
if (!others.some((file) => file.endsWith('.wasm'))) throw new Error('web/ has no engines: npm run build:wasm makes them');
for (const file of others) copyFileSync(`${ROOT}web/${file}`, `${ROOT}dist/${file}`);
