// header.js - what the first bytes of a model file say, as the engine reads them. Runs in the engine worker.

const FIELDS = 15; // of wasm_header

/** Bytes of the header if all of it is there, else null. Errors are `damaged`: reading it again may help. */
export function probeHeader(wasm, head) {
  const status = wasm.withBytes(head, (bytes, size) => wasm.exports.bp_probe(bytes, size, wasm.cells, wasm.cells + 8, wasm.error));
  if (status < 0) raiseDamaged(wasm);
  return status > 0 ? wasm.u64(wasm.cells + 8) : null;
}

/**
 * Reads a header, all of which is there, and checks it against its own digest.
 * @returns {{size: number, dataOffset: number, digest: string | null, pieces: number, pieceBytes: number, tiers: number[]}} size of the
 *   whole file; digest in hex digits, null: the file has no checksums; pieces: where theirs are in the header, or 0; tiers: their ends
 */
export function parseHeader(wasm, head) {
  return wasm.withBytes(head, (bytes, length) => wasm.withBytes(new Uint8Array(8 * FIELDS), (out) => {
    if (!wasm.exports.wasm_header(bytes, length, out, wasm.error)) raiseDamaged(wasm);
    const [size, dataOffset, digest, pieces, , pieceBytes, n, ...ends] = new Float64Array(wasm.memory.buffer, out, FIELDS);
    return {
      size, dataOffset, pieceBytes,
      digest: digest ? hex(wasm.bytes(digest, 32)) : null,
      pieces: pieces && pieces - (bytes >>> 0),
      tiers: ends.slice(0, n),
    };
  }));
}

function raiseDamaged(wasm) {
  try {
    wasm.raise();
  } catch (error) {
    throw Object.assign(error, { damaged: true });
  }
}

export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
