// onnx-model.js - the teacher as a decoder graph for onnxruntime, of the operators that exports for the web use: weights in 8 bits
// with inputs quantized as they come (DynamicQuantizeLinear, MatMulInteger), or in 4 bits by blocks of 32 (MatMulNBits);
// GroupQueryAttention with rotary embeddings and a cache that goes in and comes out. In the peer's favour: logits of the last
// token only, and no attention mask to be evaluated.

import { closeSync, openSync, writeSync } from 'node:fs';

import { openGguf } from './gguf.js';
import { Graph, TYPE } from './onnx.js';

const BLOCK = 32;
const MOST_TOKENS = 4096; // of the tables of the rotary embedding

/**
 * Rows of a matrix in signed 8 bits, one scale each; largest: the largest value. 63 is what exports call a reduced range: sums of two
 * products with unsigned 8 bits then fit the 16 bits that some kernels have.
 */
function quantizeRows({ rows, columns, data }, largest) {
  const values = new Int8Array(data.length);
  const scales = new Float32Array(rows);
  for (let row = 0; row < rows; row++) {
    const from = data.subarray(row * columns, (row + 1) * columns);
    const scale = (scales[row] = from.reduce((most, x) => Math.max(most, Math.abs(x)), 1e-12) / largest);
    for (let i = 0; i < columns; i++) values[row * columns + i] = Math.round(from[i] / scale);
  }
  return { values, scales };
}

function transpose(values, rows, columns) {
  const out = new values.constructor(values.length);
  for (let row = 0; row < rows; row++) for (let i = 0; i < columns; i++) out[i * rows + row] = values[row * columns + i];
  return out;
}

/** Blocks of 32 in 4 bits: two to a byte, the lower one first, zero is 8. */
function quantizeBlocks({ data }) {
  const values = new Uint8Array(data.length / 2);
  const scales = new Float32Array(data.length / BLOCK);
  for (let block = 0; block < scales.length; block++) {
    const from = data.subarray(block * BLOCK, (block + 1) * BLOCK);
    const peak = from.reduce((most, x) => (Math.abs(x) > Math.abs(most) ? x : most), 0);
    const scale = (scales[block] = peak / -8 || 1e-12);
    const level = (x) => Math.min(15, Math.max(0, Math.round(x / scale) + 8));
    for (let i = 0; i < BLOCK; i += 2) values[(block * BLOCK + i) / 2] = level(from[i]) | (level(from[i + 1]) << 4);
  }
  return { values, scales };
}

class Decoder {
  constructor(gguf, kind) {
    const key = (name) => gguf.keys.get(`llama.${name}`);
    Object.assign(this, { gguf, kind, graph: new Graph(), layers: key('block_count'), heads: key('attention.head_count'),
      kvHeads: key('attention.head_count_kv'), width: key('embedding_length'), base: key('rope.freq_base'),
      epsilon: key('attention.layer_norm_rms_epsilon') });
    this.headSize = this.width / this.heads;
  }

  /** x W^T of several matrices; the quantized input is shared. */
  products(x, names) {
    const { graph } = this;
    const shared = this.kind === 'q8' ? this.quantized(x) : null;
    return names.map((name) => {
      const matrix = this.gguf.tensor(name);
      return shared ? this.product8(shared, name, matrix) : this.product4(x, name, matrix, graph);
    });
  }

  quantized(x) {
    const outputs = ['', '_scale', '_zero'].map((end) => `${x}_8${end}`);
    this.graph.node('DynamicQuantizeLinear', [x], {}, { outputs });
    return outputs;
  }

  product8([x, scale, zero], name, matrix) {
    const { graph } = this;
    const { rows, columns } = matrix;
    const { values, scales } = quantizeRows(matrix, 63);
    const weight = graph.weight(`${name}_8`, TYPE.i8, [columns, rows], transpose(values, rows, columns));
    const weightZero = graph.weight(`${name}_zero`, TYPE.i8, [rows], new Int8Array(rows));
    const sums = graph.node('Cast', [graph.node('MatMulInteger', [x, weight, zero, weightZero])], { to: TYPE.f32 });
    const factor = graph.node('Mul', [scale, graph.weight(`${name}_scale`, TYPE.f32, [rows], scales)]);
    return graph.node('Mul', [sums, factor]);
  }

  product4(x, name, matrix, graph) {
    const { rows, columns } = matrix;
    const { values, scales } = quantizeBlocks(matrix);
    const weight = graph.weight(`${name}_4`, TYPE.u8, [rows, columns / BLOCK, BLOCK / 2], values);
    return graph.contrib('MatMulNBits', [x, weight, graph.weight(`${name}_scale`, TYPE.f32, [scales.length], scales)],
      { K: columns, N: rows, bits: 4, block_size: BLOCK, accuracy_level: 4 });
  }

  norm(name) {
    const { data } = this.gguf.tensor(name);
    return this.graph.weight(name, TYPE.f32, [data.length], data);
  }

  /** The sum of both, and its norm: [norm, sum]. */
  addNorm(x, y, name) {
    const outputs = [`${name}_out`, '', '', `${name}_sum`];
    this.graph.contrib('SkipSimplifiedLayerNormalization', [x, y, this.norm(name)], { epsilon: { float: this.epsilon } }, outputs);
    return [outputs[0], outputs[3]];
  }

  embedding(ids) {
    const { graph } = this;
    const matrix = this.gguf.tensor('token_embd.weight');
    const { values, scales } = quantizeRows(matrix, 127);
    const rows = graph.node('Gather', [graph.weight('embedding_8', TYPE.i8, [matrix.rows, matrix.columns], values), ids]);
    const factors = graph.node('Gather', [graph.weight('embedding_scale', TYPE.f32, [matrix.rows, 1], scales), ids]);
    return graph.node('Mul', [graph.node('Cast', [rows], { to: TYPE.f32 }), factors]);
  }

  rotation() {
    const halves = this.headSize / 2;
    const table = (fn) => Float32Array.from({ length: MOST_TOKENS * halves },
      (_, i) => fn(Math.floor(i / halves) * this.base ** (-(i % halves) / halves)));
    return [['cos', Math.cos], ['sin', Math.sin]].map(([name, fn]) => this.graph.weight(name, TYPE.f32, [MOST_TOKENS, halves], table(fn)));
  }

  attention(i, [q, k, v], rotation) {
    const { graph, kvHeads, headSize, heads } = this;
    const outputs = [`attention_${i}`, `present_key_${i}`, `present_value_${i}`];
    const past = ['key', 'value'].map((what) => graph.input(`past_${what}_${i}`, TYPE.f32, [1, kvHeads, 'past', headSize]));
    graph.contrib('GroupQueryAttention', [q, k, v, ...past, 'last', 'total', ...rotation],
      { num_heads: heads, kv_num_heads: kvHeads, do_rotary: 1, rotary_interleaved: 1 }, outputs);
    for (const name of outputs.slice(1)) graph.output(name, TYPE.f32, [1, kvHeads, 'present', headSize]);
    return outputs[0];
  }

  build() {
    const { graph } = this;
    const ids = graph.input('ids', TYPE.i64, [1, 'tokens']);
    graph.input('last', TYPE.i32, [1]);  // tokens so far and these, less one
    graph.input('total', TYPE.i32, [1]); // tokens so far and these
    const rotation = this.rotation();
    let sum = this.embedding(ids);
    let x = graph.node('SimplifiedLayerNormalization', [sum, this.norm('blk.0.attn_norm.weight')], { axis: -1, epsilon: { float: this.epsilon } });
    for (let i = 0; i < this.layers; i++) {
      const name = (part) => `blk.${i}.${part}.weight`;
      const mixed = this.attention(i, this.products(x, ['attn_q', 'attn_k', 'attn_v'].map(name)), rotation);
      [x, sum] = this.addNorm(sum, this.products(mixed, [name('attn_output')])[0], name('ffn_norm'));
      const [gate, up] = this.products(x, [name('ffn_gate'), name('ffn_up')]);
      const hidden = graph.node('Mul', [graph.node('Mul', [gate, graph.node('Sigmoid', [gate])]), up]);
      const down = this.products(hidden, [name('ffn_down')])[0];
      [x, sum] = this.addNorm(sum, down, i + 1 < this.layers ? `blk.${i + 1}.attn_norm.weight` : 'output_norm.weight');
    }
    const lastRow = graph.node('Gather', [x, graph.weight('last_row', TYPE.i64, [1], new BigInt64Array([-1n]))], { axis: 1 });
    const [logits] = this.products(lastRow, ['token_embd.weight']);
    graph.output(graph.node('Identity', [logits], {}, { outputs: ['logits'] }), TYPE.f32, [1, 1, 'vocabulary']);
    return graph.bytes();
  }
}

/** Writes the model of the GGUF file `teacher` to `out`; kind: 'q8' or 'q4'. */
export function writeOnnxModel(teacher, out, kind) {
  const parts = new Decoder(openGguf(teacher), kind).build();
  const file = openSync(out, 'w');
  for (const part of parts) writeSync(file, part);
  closeSync(file);
}
