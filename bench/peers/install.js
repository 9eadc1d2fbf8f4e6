// install.js - the peers, from npm, into a folder of their own, and the models they run.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { nativeTool } from '../lib/tiers.js';
import { writeOnnxModel } from './onnx-model.js';

/** Folder of node_modules -> package at its version. */
export const PACKAGES = {
  'wllama-3.8.1': '@wllama/wllama@3.8.1',
  'wllama-2.4.0': '@wllama/wllama@2.4.0',
  'wllama-2.3.1': '@wllama/wllama@2.3.1',
  'onnxruntime-web': 'onnxruntime-web@1.30.0',
};

/** Installs what is not in `folder` yet. Nothing of theirs is run by the installation. */
export function installPeers(folder) {
  mkdirSync(folder, { recursive: true });
  if (Object.keys(PACKAGES).every((name) => existsSync(join(folder, 'node_modules', name)))) return;
  if (!existsSync(join(folder, 'package.json'))) writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  // All of them at once: npm removes what it is not told of.
  const specs = Object.entries(PACKAGES).map(([name, spec]) => (spec.startsWith(`${name}@`) ? spec : `${name}@npm:${spec}`));
  console.error(`bench: npm install ${specs.join(' ')}`);
  execFileSync('npm', ['install', '--no-audit', '--no-fund', '--no-save', '--ignore-scripts', '--loglevel=error', ...specs],
    { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** The teacher as `bitpair compress` rounds it; method: 'q4_0' or 'q8_0'. */
export function roundTeacher(teacher, folder, method) {
  const out = join(folder, `teacher-${method}.gguf`);
  if (existsSync(out)) return out;
  execFileSync(nativeTool(), ['compress', teacher, '--method', method, '-o', out, '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });
  return out;
}

/** The teacher as a graph for onnxruntime: `kind` is 'q8' or 'q4'. */
export function makeOnnx(teacher, folder, kind) {
  const out = join(folder, `teacher-${kind}.onnx`);
  if (!existsSync(out)) writeOnnxModel(teacher, out, kind);
  return out;
}
