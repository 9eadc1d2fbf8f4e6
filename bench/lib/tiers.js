// tiers.js - the beginning of a model file as a file of its own: what ends with a tier is a complete model.

import { execFileSync } from 'node:child_process';
import { closeSync, existsSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { ROOT } from '../../tests/web/helper.js';

/** The native command, which must have been built. */
export function nativeTool(name = 'bitpair') {
  const path = join(ROOT, 'build/native', name);
  if (!existsSync(path)) throw new Error(`${path} is missing: cmake --preset native && cmake --build --preset native`);
  return path;
}

/** Path of `model` up to `tier`: itself without a tier, else a temporary file that is gone when the process ends. */
export function cutTier(model, tier) {
  if (!tier) return model;
  const { tiers } = JSON.parse(execFileSync(nativeTool(), ['inspect', model, '--json'], { encoding: 'utf8' }));
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
