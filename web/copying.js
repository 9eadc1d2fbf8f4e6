// copying.js - the pieces of a kept copy, read into the heap and checked. The engine worker and the threads that help it, which have
// nothing else to do yet, each take the next one. Once a model is to run the threads leave, and the engine worker does the rest.

import { openStore } from './cache.js';
import { unpackError } from './errors.js';
import { hex } from './header.js';

const LANES = 4; // pieces that one thread has in hand
const PAUSE_MS = 20;

// In `state`, which all threads see: how many pieces are taken, is the reading paused, are the helping threads to leave?
const [TAKEN, PAUSED, LEAVE] = [0, 1, 2];
const WORDS = 3;

/** Has the helping threads end soon, paused or not: they begin no other piece, and drop those that they have not written. */
const dismiss = (state) => Atomics.store(state, LEAVE, 1);

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

/** Takes pieces until none is left, or pass() says that it is to leave. Ends only when nothing is written any more, then throws what was
 *  thrown first. */
async function takePieces(reader, { pieces, pieceBytes, dataOffset, size, state }, { pass, write, good, piece }) {
  const lane = async () => {
    const room = new Uint8Array(pieceBytes);
    for (;;) {
      if (await pass()) return;
      const i = pieces[Atomics.add(state, TAKEN, 1)];
      if (i === undefined) return;
      const start = dataOffset + i * pieceBytes;
      const bytes = room.subarray(0, Math.min(size, start + pieceBytes) - start);
      if (!(await reader.fill(start, bytes))) continue;
      if (await pass()) return;
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
 * @param {{gate: Gate, signal: AbortSignal, lend?: Function}} page lend(job, piece): has other threads take part, settles when they have
 *   ended; what they leave is read here
 * @param {{pass: Function, write: Function, good: Function, piece: Function}} to pass(): waits while the reading is paused, throws when
 *   it is stopped; write(start, bytes); good(i, bytes) -> is it what the header says?; piece(i): it is in its place and good
 */
export async function copyPieces(store, job, { gate, signal, lend }, to) {
  const state = new Int32Array(lend ? new SharedArrayBuffer(4 * WORDS) : WORDS);
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
  const leave = () => dismiss(state);
  signal.addEventListener('abort', leave);
  const helped = lend?.({ ...job, state }, piece);
  helped?.catch(() => {}); // looked at when the reading here has ended
  const reader = await openReader(store, job.id);
  const take = (pieces) => takePieces(reader, { ...job, pieces, state }, { ...to, piece });
  try {
    const taking = take(job.pieces);
    taking.catch(leave);
    const [own, others] = await Promise.allSettled([taking, helped]);
    if (own.reason !== undefined) throw own.reason;
    if (others.reason !== undefined || Atomics.load(state, LEAVE)) {
      Atomics.store(state, TAKEN, 0);
      await take([...left]);
    }
  } finally {
    gate.changed = changed;
    signal.removeEventListener('abort', leave);
    await reader.close();
  }
}

/** What a helping thread does of a job, to the end of it or until it is to leave; told(i) for each piece. */
export async function helpCopying(memory, { store, id, pointer, digests, ...job }, told) {
  const reader = await openReader(await openStore(store), id);
  memory.grow(0); // another thread has made it larger, of which the buffer here may not know yet
  const heap = new Uint8Array(memory.buffer);
  const leaving = () => Atomics.load(job.state, LEAVE) === 1;
  try {
    await takePieces(reader, job, {
      pass: async () => {
        while (Atomics.load(job.state, PAUSED) && !leaving()) await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
        return leaving();
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

/** Gives threads a job, once and before they go into the engine. over: resolves when none will come any more. */
export class Lending {
  /** gathered: a promise of {team: ports of the threads} */
  constructor(gathered) {
    this.gathered = gathered;
    this.open = true;
    this.job = null;
    this.ended = Promise.resolve(); // when they have done it
    this.over = new Promise((resolve) => (this.resolve = resolve));
  }

  end() {
    this.open = false;
    this.resolve();
  }

  /** piece(i) for each that they have done; settles when all have ended. */
  lend(job, piece) {
    if (!this.open) return Promise.resolve();
    this.open = false;
    this.job = job;
    return (this.ended = this.run(job, piece));
  }

  /** They are needed now; resolves when none of them copies any more. */
  async leave() {
    if (this.job) dismiss(this.job.state);
    await this.ended.catch(() => {}); // said to whoever has lent them the job
  }

  async run(job, piece) {
    const given = await this.give(job, piece).finally(() => this.end()); // what they are told next, they do afterwards
    const ended = await Promise.allSettled(given);
    for (const { reason } of ended) if (reason) throw reason;
  }

  async give(job, piece) {
    const { team } = await this.gathered;
    if (Atomics.load(job.state, LEAVE)) return [];
    return team.map((thread) => new Promise((resolve, reject) => {
      let failure = null;
      thread.onmessage = ({ data }) => {
        try {
          if (data.piece !== undefined) return piece(data.piece);
        } catch (error) {
          failure ??= error; // the thread goes on
          return dismiss(job.state);
        }
        if (data.error) failure ??= unpackError(data.error);
        return failure ? reject(failure) : resolve();
      };
      thread.postMessage({ type: 'copy', job });
    }));
  }
}
