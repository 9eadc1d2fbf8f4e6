// random-model.js - a GGUF file of random weights (Q8_0) in the shape of a given model: for time and memory of `bitpair compress`.
//
//   node bench/random-model.js OUT.gguf --tokenizer FOLDER [--layers 28 --d 1024 --ff 3072 --heads 16 --kv 8 --head-dim 128 --vocab 151936]
//
// FOLDER holds vocab.json and merges.txt of a byte-level BPE tokenizer. The defaults are Qwen3-0.6B's shape, query and key norms included.

import { closeSync, openSync, readFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';

import { parseOptions } from './lib/options.js';

const number = (value) => ({ type: 'string', default: String(value) });
const { values, positionals } = parseOptions(import.meta.url, {
  allowPositionals: true,
  options: {
    tokenizer: { type: 'string' },
    layers: number(28),
    d: number(1024),
    ff: number(3072),
    heads: number(16),
    kv: number(8),
    'head-dim': number(128),
    vocab: number(151936),
  },
});
if (positionals.length !== 1 || !values.tokenizer) {
  console.error('usage: node bench/random-model.js OUT.gguf --tokenizer FOLDER [options]');
  process.exit(2);
}
const size = Object.fromEntries(Object.entries(values).map(([name, value]) => [name, Number(value)]));

const TYPE = { u32: 4, f32: 6, string: 8, array: 9 };
const F32 = 0;
const Q8_0 = 8;
const ALIGN = 64;

function tokens() {
  const vocab = JSON.parse(readFileSync(join(values.tokenizer, 'vocab.json'), 'utf8'));
  const list = Array.from({ length: size.vocab }, (_, i) => `<unused ${i}>`);
  const types = new Array(size.vocab).fill(5);
  for (const [text, id] of Object.entries(vocab)) {
    list[id] = text;
    types[id] = 1;
  }
  const merges = readFileSync(join(values.tokenizer, 'merges.txt'), 'utf8').split('\n');
  return { list, types, merges: merges.filter((line) => line && !line.startsWith('#version')) };
}

// ---- header ---------------------------------------------------------------------------------------------------------

const parts = [];
const u32 = (x) => parts.push(Buffer.from(new Uint32Array([x]).buffer));
const u64 = (x) => parts.push(Buffer.from(new BigUint64Array([BigInt(x)]).buffer));
const f32 = (x) => parts.push(Buffer.from(new Float32Array([x]).buffer));
function string(text) {
  const bytes = Buffer.from(text, 'utf8');
  u64(bytes.length);
  parts.push(bytes);
}
const write = { u32, f32, string };
let keys = 0;
function key(name, type, value) {
  keys++;
  string(name);
  u32(TYPE[type]);
  write[type](value);
}
function array(name, type, items) {
  keys++;
  string(name);
  u32(TYPE.array);
  u32(TYPE[type]);
  u64(items.length);
  items.forEach(write[type]);
}

function putKeys() {
  const { list, types, merges } = tokens();
  key('general.architecture', 'string', 'qwen3');
  key('general.name', 'string', 'random');
  key('general.alignment', 'u32', ALIGN);
  key('qwen3.block_count', 'u32', size.layers);
  key('qwen3.context_length', 'u32', 32768);
  key('qwen3.embedding_length', 'u32', size.d);
  key('qwen3.feed_forward_length', 'u32', size.ff);
  key('qwen3.attention.head_count', 'u32', size.heads);
  key('qwen3.attention.head_count_kv', 'u32', size.kv);
  key('qwen3.attention.key_length', 'u32', size['head-dim']);
  key('qwen3.attention.value_length', 'u32', size['head-dim']);
  key('qwen3.attention.layer_norm_rms_epsilon', 'f32', 1e-6);
  key('qwen3.rope.freq_base', 'f32', 1e6);
  key('qwen3.vocab_size', 'u32', size.vocab);
  key('tokenizer.ggml.model', 'string', 'gpt2');
  key('tokenizer.ggml.pre', 'string', 'qwen2');
  array('tokenizer.ggml.tokens', 'string', list);
  array('tokenizer.ggml.token_type', 'u32', types);
  array('tokenizer.ggml.merges', 'string', merges);
  key('tokenizer.ggml.eos_token_id', 'u32', size.vocab - 1);
}

/** [name, type, columns, rows] of every tensor; rows 0: a vector of ones. */
function tensors() {
  const { d, ff } = size;
  const q = size.heads * size['head-dim'];
  const kv = size.kv * size['head-dim'];
  const list = [['token_embd.weight', Q8_0, d, size.vocab], ['output_norm.weight', F32, d, 0]];
  for (let i = 0; i < size.layers; i++) {
    const matrix = (name, rows, columns) => list.push([`blk.${i}.${name}.weight`, Q8_0, columns, rows]);
    const norm = (name, n) => list.push([`blk.${i}.${name}.weight`, F32, n, 0]);
    norm('attn_norm', d);
    norm('attn_q_norm', size['head-dim']);
    norm('attn_k_norm', size['head-dim']);
    matrix('attn_q', q, d);
    matrix('attn_k', kv, d);
    matrix('attn_v', kv, d);
    matrix('attn_output', d, q);
    norm('ffn_norm', d);
    matrix('ffn_gate', ff, d);
    matrix('ffn_up', ff, d);
    matrix('ffn_down', d, ff);
  }
  return list;
}

const bytesOf = ([, type, columns, rows]) => (type === F32 ? 4 * columns : (columns / 32) * 34 * rows);
const padding = (n) => Buffer.alloc((ALIGN - (n % ALIGN)) % ALIGN);

// ---- data -----------------------------------------------------------------------------------------------------------

let state = 1;
/** Uniform 8-bit weights; the scale gives them a standard deviation of 0.02. */
function randomBlocks(n) {
  const words = new Uint32Array((n * 34) / 4 + 1);
  for (let i = 0; i < words.length; i++) {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    words[i] = state;
  }
  const bytes = Buffer.from(words.buffer, 0, n * 34);
  for (let at = 0; at < bytes.length; at += 34) bytes.writeUInt16LE(0x0c6f, at); // 0.02 / 73.9 in half precision
  return bytes;
}

const all = tensors();
putKeys();
const keyBytes = parts.splice(0);
let offset = 0;
for (const tensor of all) {
  const [name, type, columns, rows] = tensor;
  string(name);
  u32(rows ? 2 : 1);
  u64(columns);
  if (rows) u64(rows);
  u32(type);
  u64(offset);
  offset += bytesOf(tensor);
  offset += padding(offset).length;
}
const tensorBytes = parts.splice(0);
parts.push(Buffer.from('GGUF'));
u32(3);
u64(all.length);
u64(keys);
const header = Buffer.concat([...parts, ...keyBytes, ...tensorBytes]);

const file = openSync(positionals[0], 'w');
writeSync(file, header);
writeSync(file, padding(header.length));
for (const tensor of all) {
  const [, type, columns, rows] = tensor;
  const total = bytesOf(tensor);
  const blocks = total / 34;
  if (type === F32) writeSync(file, Buffer.from(new Float32Array(columns).fill(1).buffer));
  for (let done = 0; type === Q8_0 && done < blocks; done += 1 << 16) writeSync(file, randomBlocks(Math.min(1 << 16, blocks - done)));
  writeSync(file, padding(total));
  if (rows === size.vocab) console.log(`${positionals[0]}: ${((header.length + offset) / 1e6).toFixed(1)} MB`);
}
closeSync(file);
