// Looking inside a model: layers(), fileTiers(), signs() and scales() against the bytes of the file, read here by docs/FORMAT.md alone.

import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';

import { load } from '../../web/index.js';
import { fixtureBytes } from './helper.js';

const bytes = fixtureBytes();

/** name -> {offset, dims} of the tensors of a GGUF file, and its bitpair.linear keys. */
function readGguf() {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  let at = 8;
  const u32 = () => view.getUint32((at += 4) - 4, true);
  const u64 = () => Number(view.getBigUint64((at += 8) - 8, true));
  const text = () => {
    const size = u64();
    return new TextDecoder().decode(bytes.subarray(at, (at += size)));
  };
  const sizes = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 };
  const value = (type) => {
    if (type === 8) return text();
    if (type !== 9) return type === 4 ? u32() : void (at += sizes[type]);
    const item = u32();
    return Array.from({ length: u64() }, () => value(item));
  };
  const [tensorCount, keyCount] = [u64(), u64()];
  const keys = Object.fromEntries(Array.from({ length: keyCount }, () => [text(), value(u32())]));
  const tensors = Array.from({ length: tensorCount }, () => {
    const name = text();
    const dims = Array.from({ length: u32() }, u64);
    u32();
    return [name, { dims, offset: u64() }];
  });
  const start = Math.ceil(at / 64) * 64;
  for (const [, tensor] of tensors) tensor.offset += start;
  return { keys, tensors: Object.fromEntries(tensors), half: (offset) => halfToNumber(view.getUint16(offset, true)) };
}

function halfToNumber(half) {
  const [sign, exponent, fraction] = [half >> 15 ? -1 : 1, (half >> 10) & 31, half & 1023];
  return sign * (exponent ? 2 ** (exponent - 15) * (1 + fraction / 1024) : 2 ** -14 * (fraction / 1024));
}

/** Sign at [row, column] of a tile16 tensor. */
const tile16 = (offset, columns, row, column) => {
  const groups = 4 * Math.ceil(columns / 32);
  const j = 2 * (row % 8) + (row % 16 >= 8 ? 1 : 0);
  return (bytes[offset + (Math.floor(row / 16) * groups + (column >> 3)) * 16 + j] >> (column & 7)) & 1;
};

const file = readGguf();
let model;
before(async () => (model = await load(bytes, { threads: 1 })));
after(() => model.dispose());

test('the layers are those of the file, and their bits add up', async () => {
  const layers = await model.layers();
  const stacks = Object.keys(file.keys).filter((key) => key.startsWith('bitpair.linear.'));
  assert.equal(layers.length, 1 + stacks.length);
  assert.equal(layers[0].name, 'token_embd');
  assert.equal(layers[0].rows, model.info.vocabulary);
  assert.equal(layers[0].planes, file.keys['bitpair.embedding.planes']);
  let bits = 0;
  let weights = 0;
  for (const { name, block, rows, columns, stages, ...rest } of layers.slice(1)) {
    const [n, m, ...middles] = file.keys[`bitpair.linear.${name}`];
    assert.deepEqual([rows, columns, ...stages.map(({ middle }) => middle)], [n, m, ...middles]);
    assert.ok(name.startsWith(`blk.${block}.`) && rest.type === 'signs' && stages.every(({ loaded }) => loaded));
    assert.equal(rest.bits, stages.reduce((sum, stage) => sum + stage.bits, 0));
    bits += rest.bits;
    weights += rows * columns;
  }
  assert.equal(bits / weights, model.info.bitsPerWeight);
});

test('every sign and every scale of a layer is the one in the file', async () => {
  for (const layer of ['blk.0.attn_q', 'blk.1.ffn_down']) {
    const [n, m, k] = file.keys[`bitpair.linear.${layer}`];
    for (const [factor, rows, columns] of [['A', n, k], ['B', k, m]]) {
      const found = await model.signs(layer, 0, factor);
      assert.deepEqual([found.rows, found.columns, found.bits.length], [rows, columns, rows * Math.ceil(columns / 8)]);
      const { offset } = file.tensors[`${layer}.0.${factor}`];
      const stride = Math.ceil(columns / 8);
      for (let row = 0; row < rows; row++)
        for (let column = 0; column < columns; column++)
          if (((found.bits[row * stride + (column >> 3)] >> (column & 7)) & 1) !== tile16(offset, columns, row, column))
            assert.fail(`${layer} ${factor} [${row}, ${column}]`);
    }
    const scales = await model.scales(layer, 0);
    for (const [part, length] of [['a', n], ['c', k], ['b', m]]) {
      assert.equal(scales[part].length, length);
      const { offset } = file.tensors[`${layer}.0.${part}`];
      scales[part].forEach((scale, i) => assert.equal(scale, file.half(offset + 2 * i)));
    }
  }
});

test('of a lower tier the later stages are named, and refused', async () => {
  const tiers = await model.fileTiers();
  assert.equal(tiers.length, model.info.tiers);
  assert.deepEqual([tiers.at(-1).bytes, tiers.at(-1).bitsPerWeight], [bytes.length, model.info.bitsPerWeight]);
  const small = await load(bytes, { threads: 1, tier: 1 });
  try {
    assert.deepEqual((await small.fileTiers()).map(({ loaded }) => loaded), tiers.map((_, i) => i === 0));
    assert.equal((await small.fileTiers())[0].bitsPerWeight, small.info.bitsPerWeight);
    const layer = (await small.layers()).find(({ stages }) => stages.length > 1);
    assert.deepEqual(layer.stages.map(({ loaded }) => loaded), layer.stages.map((_, i) => i === 0));
    await assert.rejects(small.signs(layer.name, 1, 'A'), { code: 'argument', message: /1 stages at hand/ });
  } finally {
    await small.dispose();
  }
});

test('what there is not is refused, and the model goes on', async () => {
  await assert.rejects(model.signs('blk.99.attn_q', 0, 'A'), { code: 'argument' });
  await assert.rejects(model.signs('token_embd', 0, 'A'), { code: 'argument' });
  await assert.rejects(model.signs('blk.0.attn_q', 0, 'C'), { code: 'argument' });
  await assert.rejects(model.scales('blk.0.attn_q', -1), { code: 'argument' });
  const running = model.generate('Once upon a time', { greedy: true, maxTokens: 30, ignoreEnd: true });
  await running.next();
  assert.ok((await model.layers()).length > 1, 'while an answer is made');
  assert.equal((await running.result).ids.length, 30);
});
