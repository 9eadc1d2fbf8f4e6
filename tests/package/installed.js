// installed.js - the package as its users get it: packed, and installed from the tarball into a folder of its own; and the
// tools that the tests need beside it, in build/package-tools, installed once.

import { execFileSync } from 'node:child_process';
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';

import { ROOT } from '../web/helper.js';

const TOOLS = `${ROOT}build/package-tools`;
const PINNED = `${ROOT}tests/package/tools`;

const npm = (args, cwd) => execFileSync('npm', args, { cwd, encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, npm_config_loglevel: 'error' } });

/** Installs the tools, if they are not those of the lock file. Nothing that they bring is run while installing. */
export function installTools() {
  const lock = readFileSync(`${PINNED}/package-lock.json`, 'utf8');
  const marker = `${TOOLS}/installed.json`;
  if (existsSync(marker) && readFileSync(marker, 'utf8') === lock) return;
  mkdirSync(TOOLS, { recursive: true });
  for (const file of ['package.json', 'package-lock.json', '.npmrc']) copyFileSync(`${PINNED}/${file}`, `${TOOLS}/${file}`);
  npm(['ci', '--ignore-scripts', '--prefer-offline'], TOOLS);
  writeFileSync(marker, lock);
}

const require = createRequire(`${TOOLS}/package.json`);

/** A module of the tools. */
export const importTool = (name) => import(pathToFileURL(require.resolve(name)));

/** A file of the tools, or null where this platform has none. */
export function toolFile(path) {
  const full = `${TOOLS}/node_modules/${path}`;
  return existsSync(full) ? full : null;
}

/** Packs the repository into `folder`: {tarball: path, files: [{path, size}], ...}. dist/ must be up to date. */
export function pack(folder, root = ROOT) {
  const [result] = JSON.parse(npm(['pack', '--json', '--ignore-scripts', `--pack-destination=${folder}`], root));
  return { ...result, tarball: join(folder, result.filename) };
}

/** A new project with the package, from the tarball, in its node_modules: {path, packed, remove()}. */
export function installPackage() {
  const path = mkdtempSync(join(tmpdir(), 'bitpair-installed-'));
  const remove = () => rmSync(path, { recursive: true, force: true, maxRetries: 5, retryDelay: 100 });
  try {
    execFileSync(process.execPath, [`${ROOT}scripts/build-package.js`], { stdio: 'inherit' });
    const packed = pack(path);
    writeFileSync(`${path}/package.json`, '{ "private": true, "type": "module" }\n');
    copyFileSync(`${ROOT}.npmrc`, `${path}/.npmrc`);
    npm(['install', '--ignore-scripts', '--prefer-offline', packed.tarball], path);
    cpSync(`${ROOT}tests/package/fixtures`, path, { recursive: true });
    return { path, packed, remove };
  } catch (error) {
    remove();
    throw error;
  }
}
