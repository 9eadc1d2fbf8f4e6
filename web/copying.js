// copying.js - the pieces of a kept copy, read into the heap and checked. The engine worker and the threads that help it, which have
// nothing else to do yet, each take the next one.

import { openStore } from './cache.js';
import { hex } from './header.js';

const LANES = 4; // pieces that one thread has in hand
const PAUSE_MS = 20;

const [TAKEN, PAUSED] = [0, 1]; // in `state`, which all threads see: how many pieces are taken, is the reading paused?

/** Reads one piece after another of a copy: fill(start, out) -> are its bytes there?; close(). */
async function openReader(store, id) {
  const reader = await store.reader?.(id).catch(() => null);
  const plain = async (start, out) => {
    const bytes = await store.read(id, start, start + out.length);
    if (bytes?.length !== out.length) return false;
    out.set(bytes);
    return true;
  };
  return {
    fill: (start, out) => (reader ? reader.fill(start, out) : plain(start, out)).catch(() => false),
    close: async () => reader?.close(),
  };
}

/** Takes pieces until none is left. Ends only when nothing is written any more, then throws what was thrown first. */
async function takePieces(reader, { pieces, pieceBytes, dataOffset, size, state }, { pass, write, good, piece }) {
  const lane = async () => {
    const room = new Uint8Array(pieceBytes);
    for (;;) {
      await pass();
      const i = pieces[Atomics.add(state, TAKEN, 1)];
      if (i === undefined) return;
      const start = dataOffset + i * pieceBytes;
      const bytes = room.subarray(0, Math.min(size, start + pieceBytes) - start);
      if (!(await reader.fill(start, bytes))) continue;
      await pass();
      write(start, bytes);
      if (await good(i, bytes)) piece(i);
    }
  };
  const ended = await Promise.allSettled(Array.from({ length: LANES }, lane));
  for (const { reason } of ended) if (reason) throw reason;
}

/**
 * Reads pieces of a copy; ends, well or with an error, only when nothing is written any more.
 * @param {object} store of the copy
 * @param {{pieces: number[], pieceBytes: number, dataOffset: number, size: number, store: string, id: string, pointer: number, digests:
 *   number}} job pieces: which; size: of the file; store, id: names of the store and the copy; pointer: of the file in the heap; digests:
 *   of those of the pieces, 0: they are not checked
 * @param {{gate: Gate, lend?: Function}} page lend(job, piece): has other threads take part, resolves when they have done so
 * @param {{pass: Function, write: Function, good: Function, piece: Function}} to pass(): waits while the reading is paused; write(start,
 *   bytes); good(i, bytes) -> is it what the header says?; piece(i): it is in its place and good
 */
export async function copyPieces(store, job, { gate, lend }, to) {
  const state = new Int32Array(lend ? new SharedArrayBuffer(8) : 2);
  const left = new Set(job.pieces);
  const piece = (i) => {
    left.delete(i);
    to.piece(i);
  };
  const { changed } = gate;
  gate.changed = (paused) => {
    Atomics.store(state, PAUSED, paused ? 1 : 0);
    changed(paused);
  };
  Atomics.store(state, PAUSED, gate.closed ? 1 : 0);
  const helped = lend?.({ ...job, state }, piece);
  const reader = await openReader(store, job.id);
  const take = (pieces) => takePieces(reader, { ...job, pieces, state }, { ...to, piece });
  const taking = take(job.pieces).finally(() => Atomics.store(state, TAKEN, job.pieces.length)); // nobody else begins another
  const [own, others] = await Promise.allSettled([taking, helped]);
  if (own.reason === undefined && others.reason !== undefined) {
    Atomics.store(state, TAKEN, 0);
    await take([...left]).catch((reason) => Object.assign(own, { reason }));
  }
  gate.changed = changed;
  await reader.close();
  if (own.reason !== undefined) throw own.reason;
}

/** What a helping thread does of a job, to the end of it; told(i) for each piece. */
export async function helpCopying(memory, { store, id, pointer, digests, ...job }, told) {
  const heap = new Uint8Array(memory.buffer);
  const reader = await openReader(await openStore(store), id);
  try {
    await takePieces(reader, job, {
      pass: async () => {
        while (Atomics.load(job.state, PAUSED)) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
      },
      write: (start, bytes) => heap.set(bytes, pointer + start),
      good: async (i, bytes) => {
        const wanted = heap.subarray(digests + 32 * i, digests + 32 * i + 32);
        return !digests || hex(new Uint8Array(await crypto.subtle.digest('SHA-256', bytes))) === hex(wanted);
      },
      piece: told,
    });
  } finally {
    await reader.close();
  }
}
