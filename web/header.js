// header.js - what the first bytes of a model file say, as the engine reads them. Runs in the engine worker.

import { BitpairError, fail } from './errors.js';

const FIELDS = 15; // of wasm_header

/** Bytes of the header if all of it is there, else null. Errors are `damaged`: reading it again may help. */
export function probeHeader(wasm, head) {
  const status = wasm.withBytes(head, (bytes, size) => wasm.exports.bp_probe(bytes, size, wasm.cells, wasm.cells + 8, wasm.error));
  if (status < 0) raiseDamaged(wasm);
  return status > 0 ? wasm.u64(wasm.cells + 8) : null;
}

/**
 * Reads a header, all of which is there, and checks it against its own digest: with the host's SHA-256, which is many times as fast as
 * the engine's, where there is one.
 * @returns {Promise<{size: number, dataOffset: number, digest: string | null, pieces: number, pieceBytes: number, tiers: number[]}>}
 *   size: of the whole file; digest: in hex digits, null: the file has no checksums; pieces: where theirs are in the header, or 0;
 *   tiers: their ends
 */
export async function parseHeader(wasm, head) {
  const { subtle } = globalThis.crypto ?? {};
  const header = wasm.withBytes(head, (bytes, length) => wasm.withBytes(new Uint8Array(8 * FIELDS), (out) => {
    if (!wasm.exports.wasm_header(bytes, length, !subtle, out, wasm.error)) raiseDamaged(wasm);
    const [size, dataOffset, digest, pieces, , pieceBytes, n, ...ends] = new Float64Array(wasm.memory.buffer, out, FIELDS);
    const place = (pointer) => pointer && pointer - (bytes >>> 0);
    return { size, dataOffset, pieceBytes, digest: place(digest), pieces: place(pieces), tiers: ends.slice(0, n) };
  }));
  const at = header.digest;
  header.digest = at ? hex(head.subarray(at, at + 32)) : null;
  if (at && subtle) {
    const bytes = head.slice(0, header.dataOffset).fill(0, at, at + 32);
    if (hex(new Uint8Array(await subtle.digest('SHA-256', bytes))) !== header.digest)
      throw damaged(new BitpairError('checksum', 'the header does not match its checksum: the file is damaged'));
  }
  return header;
}

/**
 * Are these `size` bytes at `at` in the heap what the digest [32] there says? bytes: the same, in memory that is not shared, if they are
 * at hand. The host's own SHA-256 is faster and runs beside this thread, in secure contexts; `here`: it is to be done at once.
 */
export async function goodPiece(wasm, at, size, digest, bytes, here) {
  const { subtle } = globalThis.crypto ?? {};
  if (!subtle || here) return wasm.exports.bp_piece_good(at, size, digest) !== 0;
  const found = await subtle.digest('SHA-256', bytes ?? wasm.bytes(at, size).slice());
  return hex(new Uint8Array(found)) === hex(wasm.bytes(digest, 32));
}

/** Is it the header that the caller has pinned, if any? name: of the source */
export function checkDigest({ digest }, integrity, name) {
  if (!integrity || digest === integrity) return;
  const found = digest ? `the file's is sha256-${digest}` : 'the file has no checksums';
  fail('checksum', `${name} is not what integrity asks for: sha256-${integrity} is wanted, ${found}`);
}

const damaged = (error) => Object.assign(error, { damaged: true });

function raiseDamaged(wasm) {
  try {
    wasm.raise();
  } catch (error) {
    throw damaged(error);
  }
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
