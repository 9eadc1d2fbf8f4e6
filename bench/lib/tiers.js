// tiers.js - the beginning of a model file as a file of its own: what ends with a tier is a complete model.

import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { ROOT } from '../../tests/web/helper.js';
import { load } from '../../web/index.js';
import { refuse } from './options.js';

/** Path of a program of the native build, undefined when it has not been built. */
function findNative(name) {
  const path = join(ROOT, 'build/native', name);
  return existsSync(path) ? path : undefined;
}

/** A program of the native build is there, or the process ends. */
export function needNative(name) {
  const made = 'npm run setup -- native && cmake --preset native && cmake --build --preset native';
  if (!findNative(name)) refuse(`build/native/${name} is missing: ${made}`, 1);
}

/** The native command, which must have been built. */
export function nativeTool(name = 'bitpair') {
  const path = findNative(name);
  if (!path) throw new Error(`build/native/${name} is missing: cmake --preset native && cmake --build --preset native`);
  return path;
}

const inspectTiers = (model) => JSON.parse(execFileSync(nativeTool(), ['inspect', model, '--json'], { encoding: 'utf8' })).tiers;

/** How many tiers a file has, by whichever engine has been built. */
export async function countTiers(model) {
  if (findNative('bitpair')) return inspectTiers(model).length;
  const opened = await load(model, { threads: 1, tier: 1 });
  const tiers = await opened.fileTiers();
  await opened.dispose();
  return tiers.length;
}

/** Path of `model` up to `tier`: itself without a tier, else a temporary file that is gone when the process ends. */
export function cutTier(model, tier) {
  if (!tier) return model;
  const tiers = inspectTiers(model);
  const end = tiers[tier - 1]?.end;
  if (!end) throw new Error(`${model} has ${tiers.length} tiers`);
  const bytes = Buffer.alloc(end);
  const file = openSync(model);
  readSync(file, bytes, 0, end, 0);
  closeSync(file);
  const folder = mkdtempSync(join(tmpdir(), 'bitpair-tier-'));
  process.on('exit', () => rmSync(folder, { recursive: true, force: true }));
  writeFileSync(join(folder, 'model.gguf'), bytes);
  return join(folder, 'model.gguf');
}
