// large.js - the small model with a tensor of noise behind it: a file of several pieces, all checksums right.

import { createHash } from 'node:crypto';

const PIECE = 1 << 20;
const I8 = 24;
const SIZES = [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8]; // of GGUF's scalar kinds
const [STRING, ARRAY] = [8, 9];

const sha256 = (bytes) => createHash('sha256').update(bytes).digest();

/** Walks a header: {keys: [{name, at, valueAt, end}], tensorsAt, tensorsEnd, nTensors}. */
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
  const tensorsAt = at;
  const nTensors = Number(file.readBigUInt64LE(8));
  for (let i = 0; i < nTensors; i++) {
    text();
    const dims = u32();
    at += 8 * dims + 12;
  }
  return { keys, tensorsAt, tensorsEnd: at, nTensors };
}

const u64Bytes = (n) => {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(n));
  return bytes;
};

const padTo = (n) => Math.ceil(n / 64) * 64;

/**
 * @param {Uint8Array} bytes of a bitpair file
 * @param {number} extra bytes of noise, a multiple of 64; they belong to the last tier
 * @param {number} seed of the noise
 * @returns {Buffer}
 */
export function enlarge(bytes, extra, seed = 1) {
  const file = Buffer.from(bytes);
  const { keys, tensorsAt, tensorsEnd, nTensors } = readHeader(file);
  const oldOffset = padTo(tensorsEnd);
  const data = Buffer.alloc(file.length - oldOffset + extra);
  file.copy(data, 0, oldOffset);
  for (let i = file.length - oldOffset, x = seed; i < data.length; i += 4) data.writeUInt32LE((x = (Math.imul(x, 1664525) + 1013904223) >>> 0), i);
  const name = Buffer.from('noise');
  const tensor = Buffer.concat([u64Bytes(name.length), name, Buffer.from([1, 0, 0, 0]), u64Bytes(extra), Buffer.from([I8, 0, 0, 0]), u64Bytes(file.length - oldOffset)]);
  const pieces = Math.ceil(data.length / PIECE);
  const oldPieces = keys.find((key) => key.name === 'bitpair.piece_sha256');
  const newOffset = padTo(tensorsEnd + tensor.length + 32 * pieces - (oldPieces.end - oldPieces.valueAt - 12));
  const start = Buffer.concat([file.subarray(0, 8), u64Bytes(nTensors + 1), file.subarray(16, 24)]);
  const parts = [start, ...keys.map((key) => rewrite(file, key, data, pieces, newOffset)), file.subarray(tensorsAt, tensorsEnd), tensor];
  const header = Buffer.alloc(newOffset);
  Buffer.concat(parts).copy(header);
  seal(header);
  return Buffer.concat([header, data]);
}

/** Sets the checksum of the header, in place, to what it now holds. */
export function seal(file) {
  const { keys, tensorsEnd } = readHeader(file);
  const digest = keys.find((key) => key.name === 'bitpair.header_sha256').end - 32;
  file.fill(0, digest, digest + 32);
  sha256(file.subarray(0, padTo(tensorsEnd))).copy(file, digest);
}

function rewrite(file, { name, at, valueAt, end }, data, pieces, newOffset) {
  const old = Buffer.from(file.subarray(at, end));
  const value = valueAt - at;
  if (name === 'bitpair.header_sha256') old.fill(0, value + 12);
  if (name === 'bitpair.tiers') {
    const n = Number(old.readBigUInt64LE(value + 4));
    const shift = newOffset - padTo(readHeader(file).tensorsEnd);
    for (let i = 0; i < n; i++) {
      const place = value + 12 + 8 * i;
      const tier = Number(old.readBigUInt64LE(place)) + shift;
      u64Bytes(i === n - 1 ? newOffset + data.length : tier).copy(old, place);
    }
  }
  if (name !== 'bitpair.piece_sha256') return old;
  const digests = Array.from({ length: pieces }, (_, i) => sha256(data.subarray(i * PIECE, (i + 1) * PIECE)));
  return Buffer.concat([old.subarray(0, value + 4), u64Bytes(32 * pieces), ...digests]);
}
