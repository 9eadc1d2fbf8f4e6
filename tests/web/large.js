// large.js - the small model with tensors of noise in it: a file of several pieces, all checksums right.

import { createHash } from 'node:crypto';

const PIECE = 1 << 20;
const I8 = 24;
const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]; // of GGUF's scalar kinds
const [STRING, ARRAY] = [8, 9];

const sha256 = (bytes) => createHash('sha256').update(bytes).digest();

/** Walks a header: {keys: [{name, at, valueAt, end}], tensors: [{at, offsetAt, end, offset}], dataAt}. */
function readHeader(file) {
  let at = 24;
  const u32 = () => file.readUInt32LE((at += 4) - 4);
  const u64 = () => Number(file.readBigUInt64LE((at += 8) - 8));
  const text = () => file.toString('latin1', at + 8, (at = at + 8 + Number(file.readBigUInt64LE(at))));
  const skip = (kind) => (kind === STRING ? text() : (at += SIZES[kind]));
  const keys = Array.from({ length: Number(file.readBigUInt64LE(16)) }, () => {
    const start = at;
    const name = text();
    const kind = u32();
    const valueAt = at;
    if (kind === ARRAY) for (let item = u32(), n = u64(); n > 0; n--) skip(item);
    else skip(kind);
    return { name, at: start, valueAt, end: at };
  });
  const tensors = Array.from({ length: Number(file.readBigUInt64LE(8)) }, () => {
    const start = at;
    text();
    const dims = u32();
    at += 8 * dims + 4;
    const offsetAt = at;
    return { at: start, offsetAt, offset: u64(), end: at };
  });
  return { keys, tensors, dataAt: padTo(at) };
}

const u64Bytes = (n) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(n));
  return bytes;
};

const padTo = (n) => Math.ceil(n / 64) * 64;

function noise(size, seed) {
  const data = Buffer.alloc(size);
  for (let i = 0, x = seed; i < size; i += 4) data.writeUInt32LE((x = (Math.imul(x, 1664525) + 1013904223) >>> 0), i);
  return data;
}

const noiseTensor = (i, size, offset) => {
  const name = Buffer.from(`noise${i}`);
  return Buffer.concat([u64Bytes(name.length), name, Buffer.from([1, 0, 0, 0]), u64Bytes(size), Buffer.from([I8, 0, 0, 0]), u64Bytes(offset)]);
};

/** The last tier with `extra` bytes of noise behind it: see spread(). */
export const enlarge = (bytes, extra, seed = 1) => spread(bytes, [0, 0, extra], seed);

/**
 * @param {Uint8Array} bytes of a bitpair file
 * @param {number[]} extras for each tier, bytes of noise at its end, multiples of 64
 * @param {number} seed of the noise
 * @returns {Buffer}
 */
export function spread(bytes, extras, seed = 1) {
  const file = Buffer.from(bytes);
  const { keys, tensors, dataAt } = readHeader(file);
  const tiersKey = keys.find(({ name }) => name === 'bitpair.tiers');
  const ends = extras.map((_, i) => Number(file.readBigUInt64LE(tiersKey.valueAt + 12 + 8 * i)) - dataAt);
  const before = (offset) => extras.reduce((sum, extra, i) => (ends[i] <= offset ? sum + extra : sum), 0);
  const parts = [];
  const infos = tensors.map((tensor) => {
    const info = Buffer.from(file.subarray(tensor.at, tensor.end));
    u64Bytes(tensor.offset + before(tensor.offset)).copy(info, tensor.offsetAt - tensor.at);
    return { offset: tensor.offset + before(tensor.offset), info };
  });
  let at = 0;
  let size = 0;
  ends.forEach((end, i) => {
    parts.push(file.subarray(dataAt + at, dataAt + end), noise(extras[i], seed + i));
    size += end - at;
    if (extras[i] > 0) infos.push({ offset: size, info: noiseTensor(i, extras[i], size) });
    size += extras[i];
    at = end;
  });
  const data = Buffer.concat(parts);
  infos.sort((a, b) => a.offset - b.offset);
  const pieces = Math.ceil(data.length / PIECE);
  const digests = Array.from({ length: pieces }, (_, i) => sha256(data.subarray(i * PIECE, (i + 1) * PIECE)));
  const start = Buffer.concat([file.subarray(0, 8), u64Bytes(infos.length), file.subarray(16, 24)]);
  const build = (newDataAt) => Buffer.concat([start, ...keys.map((key) => {
    const old = Buffer.from(file.subarray(key.at, key.end));
    const value = key.valueAt - key.at;
    if (key.name === 'bitpair.tiers') ends.forEach((end, i) => u64Bytes(newDataAt + end + before(end)).copy(old, value + 12 + 8 * i));
    if (key.name !== 'bitpair.piece_sha256') return old;
    return Buffer.concat([old.subarray(0, value + 4), u64Bytes(32 * pieces), ...digests]);
  }), ...infos.map(({ info }) => info)]);
  const newDataAt = padTo(build(0).length);
  const header = Buffer.alloc(newDataAt);
  build(newDataAt).copy(header);
  seal(header);
  return Buffer.concat([header, data]);
}

/** Sets the checksum of the header, in place, to what it now holds. */
export function seal(file) {
  const { keys, dataAt } = readHeader(file);
  const digest = keys.find((key) => key.name === 'bitpair.header_sha256').end - 32;
  file.fill(0, digest, digest + 32);
  sha256(file.subarray(0, dataAt)).copy(file, digest);
}
