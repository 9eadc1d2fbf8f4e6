// contestants.js - who is measured: {name, file: of the model, spec: what pages/run.js opens, without threads and context}.

import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

import { EMBEDDED, sharedData } from '../../tests/web/helper.js';
import { installPeers, makeOnnx, roundTeacher } from './install.js';

export const TEACHER = 'models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf';

const own = (tier) => ({
  name: tier ? `bitpair, ${tier} tiers` : 'bitpair, whole file',
  ours: true,
  file: EMBEDDED,
  spec: { script: 'bitpair.js', model: '/models/smollm2-135m-instruct.gguf', tier },
});

const wllama = (version, format, file) => ({
  name: `wllama ${version} ${format}`,
  file,
  spec: { script: `wllama${version[0]}.js`, folder: `/peers/node_modules/wllama-${version}/`, model: file.url },
});

const onnx = (kind, file) => ({
  name: `onnxruntime-web 1.30.0 ${kind}`,
  file,
  spec: { script: 'onnx.js', folder: '/peers/node_modules/onnxruntime-web/', model: file.url },
});

const VERSIONS = ['2.3.1', '2.4.0', '3.8.1']; // of wllama

/** Ours first, then peers with their models: q40 and q41 for wllama, q8 and q4 for onnxruntime. */
const listAll = ({ q40, q41, q8, q4 }) => [own(2), own(undefined),
  ...VERSIONS.flatMap((version) => [wllama(version, 'Q4_0', q40), wllama(version, 'Q4_1', q41)]), onnx('q8', q8), onnx('q4', q4)];

/** 'wllama-2.4.0', as npm has it, is 'wllama 2.4.0' too. */
const spaced = (text) => text.replaceAll('-', ' ');
const holds = (name, word) => spaced(name).includes(spaced(word));

/** Words of `only` that no name holds: {word, names: all}. */
export function strangeWords(only) {
  const names = listAll({ q40: {}, q41: {}, q8: {}, q4: {} }).map(({ name }) => name);
  return only.filter((word) => !names.some((name) => holds(name, word))).map((word) => ({ word, names }));
}

/**
 * All of them whose name holds one of the words of `only` (all, without it); ours first.
 * @param {string} folder of the peers
 */
export function findContestants(folder, only) {
  const teacher = sharedData(TEACHER);
  const wanted = ({ name, ours }) => ours || only.length === 0 || only.some((word) => holds(name, word));
  const lazy = (url, make) => ({ url, make });
  const inFolder = (make) => lazy(`/peers/${make.name}`, make.run);
  const q41 = lazy('/teacher/SmolLM2-135M-Instruct.Q4_1.gguf', () => teacher);
  const q40 = inFolder({ name: 'teacher-q4_0.gguf', run: () => roundTeacher(teacher, folder, 'q4_0') });
  const q8 = inFolder({ name: 'teacher-q8.onnx', run: () => makeOnnx(teacher, folder, 'q8') });
  const q4 = inFolder({ name: 'teacher-q4.onnx', run: () => makeOnnx(teacher, folder, 'q4') });
  const chosen = listAll({ q40, q41, q8, q4 }).filter(wanted);
  installPeers(folder);
  for (const contestant of chosen) if (contestant.file.make) contestant.file = contestant.file.make();
  for (const { file } of chosen) if (!existsSync(file)) throw new Error(`${file} is missing`);
  return chosen;
}

/** Where the server finds what contestants name. */
export const foldersOf = (folder) => ({
  '/package/': fileURLToPath(new URL('../../dist/', import.meta.url)),
  '/bench/': fileURLToPath(new URL('./pages/', import.meta.url)),
  '/peers/': folder,
  '/teacher/': join(sharedData(TEACHER), '..'),
});
