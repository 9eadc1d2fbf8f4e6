// build-package.js - dist/, what the npm package ships: the sources of web/ bundled and minified (one file for the page, one for
// the worker, and what is loaded later), the engines, the types. Runs before `npm pack`; the repository itself uses web/.

import { copyFileSync, mkdirSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { fileURLToPath } from 'node:url';

import { build } from 'esbuild';

import { ENGINES } from '../web/protocol.js';

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

const others = readdirSync(`${ROOT}web`).filter((file) => /\.(wasm|d\.ts)$/.test(file));
const missing = ENGINES.filter((engine) => !others.includes(engine));
if (missing.length > 0) {
  console.error(`build-package: web/${missing[0]} is missing: npm run build:wasm makes it`);
  process.exit(1); // the dist/ of an earlier build stays
}
rmSync(`${ROOT}dist`, { recursive: true, force: true });
mkdirSync(`${ROOT}dist`);
await build({ ...options, entryPoints: ['web/index.js'], splitting: true });
await build({ ...options, entryPoints: ['web/worker.js'] });
for (const file of others) copyFileSync(`${ROOT}web/${file}`, `${ROOT}dist/${file}`);
