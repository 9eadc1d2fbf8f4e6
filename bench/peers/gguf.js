// gguf.js - just enough of GGUF to take the weights of the teacher, as 32-bit floats.

import { readFileSync } from 'node:fs';

const SCALARS = { 0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8 }; // bytes of the types of values
const STRING = 8;
const ARRAY = 9;
const NUMBERS = { 4: 'getUint32', 5: 'getInt32', 6: 'getFloat32' };

class Reader {
  constructor(bytes) {
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = 8; // behind magic and version
  }

  u32() {
    return this.view.getUint32((this.at += 4) - 4, true);
  }

  u64() {
    return Number(this.view.getBigUint64((this.at += 8) - 8, true));
  }

  string() {
    const size = this.u64();
    this.at += size;
    return Buffer.from(this.view.buffer, this.view.byteOffset + this.at - size, size).toString('utf8');
  }

  /** A value of the header; arrays are skipped. */
  value(type) {
    if (type === STRING) return this.string();
    if (type === ARRAY) {
      const inner = this.u32();
      for (let n = this.u64(); n > 0; n--) this.value(inner);
      return null;
    }
    const at = this.at;
    this.at += SCALARS[type];
    return NUMBERS[type] ? this.view[NUMBERS[type]](at, true) : null;
  }
}

const half = (bits) => {
  const [exponent, fraction] = [(bits >> 10) & 31, bits & 1023];
  const size = exponent === 0 ? fraction * 2 ** -24 : (1 + fraction / 1024) * 2 ** (exponent - 15);
  return bits & 0x8000 ? -size : size;
};

/** Formats of tensors: bytes of a block of 32 numbers, and what they say. */
const FORMATS = {
  0: { bytes: 128, read: (view, at, out, to) => { for (let i = 0; i < 32; i++) out[to + i] = view.getFloat32(at + 4 * i, true); } }, // F32
  3: { bytes: 20, read: readQ4_1 },
  8: { bytes: 34, read: readQ8_0 },
};

function readQ4_1(view, at, out, to) {
  const [scale, least] = [half(view.getUint16(at, true)), half(view.getUint16(at + 2, true))];
  for (let i = 0; i < 16; i++) {
    const two = view.getUint8(at + 4 + i);
    out[to + i] = scale * (two & 15) + least;
    out[to + 16 + i] = scale * (two >> 4) + least;
  }
}

function readQ8_0(view, at, out, to) {
  const scale = half(view.getUint16(at, true));
  for (let i = 0; i < 32; i++) out[to + i] = scale * view.getInt8(at + 2 + i);
}

/** -> {keys: Map of the header's numbers and strings, tensor(name): {rows, columns, data: Float32Array [rows * columns]}} */
export function openGguf(path) {
  const reader = new Reader(readFileSync(path));
  const [nTensors, nKeys] = [reader.u64(), reader.u64()];
  const keys = new Map();
  for (let i = 0; i < nKeys; i++) {
    const name = reader.string();
    keys.set(name, reader.value(reader.u32()));
  }
  const infos = new Map();
  for (let i = 0; i < nTensors; i++) {
    const name = reader.string();
    const sizes = Array.from({ length: reader.u32() }, () => reader.u64());
    infos.set(name, { columns: sizes[0], rows: sizes[1] ?? 1, type: reader.u32(), offset: reader.u64() });
  }
  const align = keys.get('general.alignment') ?? 32;
  const base = Math.ceil(reader.at / align) * align;
  return { keys, tensor: (name) => readTensor(reader.view, base, infos.get(name)) };
}

function readTensor(view, base, { columns, rows, type, offset }) {
  const format = FORMATS[type];
  if (!format) throw new Error(`tensors of type ${type} are not read here`);
  const data = new Float32Array(rows * columns);
  for (let block = 0; block < data.length / 32; block++) format.read(view, base + offset + block * format.bytes, data, 32 * block);
  return { rows, columns, data };
}
