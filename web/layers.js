// layers.js - what the model is made of: its layers, tiers, signs and scales, copied out of the heap. Runs in the engine worker.

import { fail } from './errors.js';

const NAME = 32;   // BP_NAME
const STAGES = 8;  // BP_STAGES
const FIELDS = 7;  // of wasm_model_layer, before the stages

const FACTORS = ['A', 'B'];

/** LayerInfo[] of index.d.ts. */
export function layers({ wasm, model }) {
  const out = wasm.alloc(8 * (FIELDS + 2 * STAGES) + NAME);
  const name = out + 8 * (FIELDS + 2 * STAGES);
  try {
    return Array.from({ length: wasm.exports.bp_model_layers(model) }, (_, i) => {
      wasm.exports.wasm_model_layer(model, i, name, out);
      return describe(wasm.cString(name), new Float64Array(wasm.memory.buffer, out, FIELDS + 2 * STAGES).slice(), wasm);
    });
  } finally {
    wasm.free(out);
  }
}

function describe(name, [type, rows, columns, planes, count, loaded, bits, ...cells], wasm) {
  const stages = Array.from({ length: count }, (_, i) => ({ middle: cells[2 * i], bits: cells[2 * i + 1], loaded: i < loaded }));
  const block = /^blk\.(\d+)\./.exec(name);
  return {
    name,
    block: block ? Number(block[1]) : null,
    rows,
    columns,
    type: wasm.cString(type),
    planes: planes || null,
    stages,
    bits,
    bitsPerWeight: bits / (rows * columns),
  };
}

/** TierInfo[] of index.d.ts. */
export function tiers({ wasm, model }, loaded) {
  const found = [];
  while (wasm.exports.bp_model_tier(model, found.length, wasm.cells, wasm.cells + 8)) {
    found.push({ bytes: wasm.u64(wasm.cells), bitsPerWeight: wasm.f64(wasm.cells + 8), loaded: found.length < loaded });
  }
  return found;
}

function find(runner, layer) {
  const all = layers(runner);
  const index = all.findIndex(({ name }) => name === layer);
  return index >= 0 ? { index, ...all[index] } : fail('argument', `the model has no layer '${layer}': layers() lists them`);
}

function checkStage(stage) {
  if (!(Number.isInteger(stage) && stage >= 0 && stage < STAGES)) fail('argument', `stage must be a whole number from 0 on, not ${stage}`);
}

/** SignMatrix of index.d.ts. */
export function signs(runner, layer, stage, factor) {
  const { wasm, model } = runner;
  if (!FACTORS.includes(factor)) fail('argument', `factor must be 'A' or 'B', not ${factor}`);
  checkStage(stage);
  const { index, rows, columns, stages } = find(runner, layer);
  const middle = stages[stage]?.middle ?? 0; // what is not there the engine refuses
  const shape = factor === 'A' ? { rows, columns: middle } : { rows: middle, columns };
  const size = shape.rows * Math.ceil(shape.columns / 8);
  const out = wasm.alloc(Math.max(size, 1));
  try {
    wasm.check(wasm.exports.bp_model_signs(model, index, stage, factor.charCodeAt(0), out, size, wasm.error));
    return { ...shape, bits: wasm.bytes(out, size).slice() };
  } finally {
    wasm.free(out);
  }
}

/** StageScales of index.d.ts. */
export function scales(runner, layer, stage) {
  const { wasm, model } = runner;
  checkStage(stage);
  const { index, rows, columns, stages } = find(runner, layer);
  const at = wasm.cells;
  wasm.check(wasm.exports.bp_model_scales(model, index, stage, at, at + 4, at + 8, wasm.error));
  const copy = (cell, length) => new Float32Array(wasm.memory.buffer, wasm.u32(cell), length).slice();
  return { a: copy(at, rows), c: copy(at + 4, stages[stage].middle), b: copy(at + 8, columns) };
}
