// install.js - the peers, from npm, into a folder of their own, and the models they run.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

import { ROOT } from '../../tests/web/helper.js';
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
  const missing = Object.entries(PACKAGES).filter(([name]) => !existsSync(join(folder, 'node_modules', name)));
  if (missing.length === 0) return;
  if (!existsSync(join(folder, 'package.json'))) writeFileSync(join(folder, 'package.json'), '{ "private": true }\n');
  const wanted = missing.map(([name, spec]) => (spec.startsWith(`${name}@`) ? spec : `${name}@npm:${spec}`));
  console.error(`bench: npm install ${wanted.join(' ')}`);
  execFileSync('npm', ['install', '--no-audit', '--no-fund', '--no-save', '--ignore-scripts', '--loglevel=error',
    ...Object.entries(PACKAGES).map(([name, spec]) => (spec.startsWith(`${name}@`) ? spec : `${name}@npm:${spec}`))],
  { cwd: folder, stdio: ['ignore', 'ignore', 'inherit'] });
}

/** The teacher in Q4_0, and in Q8_0, as `bitpair compress` rounds it. */
export function roundTeacher(teacher, folder, method) {
  const out = join(folder, `teacher-${method}.gguf`);
  if (existsSync(out)) return out;
  const tool = join(ROOT, 'build/native/bitpair');
  if (!existsSync(tool)) throw new Error(`${tool} is missing: cmake --preset native && cmake --build --preset native`);
  execFileSync(tool, ['compress', teacher, '--method', method, '-o', out, '--quiet'], { stdio: ['ignore', 'ignore', 'inherit'] });
  return out;
}

/** The teacher as a graph for onnxruntime: `kind` is 'q8' or 'q4'. */
export function makeOnnx(teacher, folder, kind) {
  const out = join(folder, `teacher-${kind}.onnx`);
  if (!existsSync(out)) writeOnnxModel(teacher, out, kind);
  return out;
}
