// tasks.js - what a session does besides answering: embeddings, scores, logits, saved states. Like the runner, whose
// session it uses, it works in the engine worker. Each is given a control: what the page stops ends with code 'aborted'.

import { fail } from './errors.js';

const STEP = 64; // tokens between two looks at the messages; fixed, since the sums of a mean depend on it
const POOLINGS = ['mean', 'last']; // bp_pooling

const stopped = () => fail('aborted', 'the operation was aborted');

/** Begins anew with ids and runs step(pointer to ids, count, index of the first) over them. */
async function walk(runner, ids, control, step) {
  const { wasm, session } = runner;
  const { exports } = wasm;
  runner.checkPrompt(ids);
  wasm.check(exports.bp_session_rewind(session, 0, wasm.error));
  runner.timeline.length = 0;
  for (let at = 0; at < ids.length; at += STEP) {
    const part = ids.slice(at, at + STEP);
    wasm.withBytes(new Uint8Array(Int32Array.from(part).buffer), (pointer) => step(pointer, part.length, at));
    runner.timeline.push(...part);
    await runner.pause();
    if (control.aborted) stopped();
  }
}

/** Float32Array [width] per list of ids. */
export async function embed(runner, lists, { pooling, normalize }, width, control) {
  const { wasm, session } = runner;
  const vectors = [];
  const out = wasm.alloc(4 * width);
  try {
    for (const ids of lists) {
      const sum = new Float64Array(width);
      await walk(runner, ids, control, (pointer, count) => {
        wasm.check(wasm.exports.bp_session_embed(session, pointer, count, POOLINGS.indexOf(pooling), out, wasm.error));
        const part = new Float32Array(wasm.memory.buffer, out, width);
        for (let i = 0; i < width; i++) sum[i] = pooling === 'last' ? part[i] : sum[i] + part[i] * (count / ids.length);
      });
      vectors.push(Float32Array.from(normalize ? unit(sum) : sum));
    }
  } finally {
    wasm.free(out);
  }
  return vectors;
}

function unit(vector) {
  const length = Math.sqrt(vector.reduce((sum, x) => sum + x * x, 0));
  return length > 0 ? vector.map((x) => x / length) : vector;
}

/** Score of index.d.ts. */
export async function score(runner, ids, control) {
  const { wasm, session } = runner;
  const tokens = [];
  const out = wasm.alloc(4 * STEP);
  try {
    await walk(runner, ids, control, (pointer, count, first) => {
      wasm.check(wasm.exports.bp_session_score(session, pointer, count, out, wasm.error));
      const logprobs = new Float32Array(wasm.memory.buffer, out, count).slice();
      if (first === 0) logprobs[0] = NaN;
      logprobs.forEach((logprob, i) => tokens.push(runner.chance(ids[first + i], Number.isNaN(logprob) ? null : logprob)));
    });
  } finally {
    wasm.free(out);
  }
  return { logprob: tokens.reduce((sum, token) => sum + (token.logprob ?? 0), 0), tokens };
}

/** Logits of the token after ids. */
export async function logits(runner, ids, vocabulary, control) {
  const { wasm, session } = runner;
  if (!(await runner.prefill(ids, runner.rewind(ids), () => {}, control))) stopped();
  return new Float32Array(wasm.memory.buffer, wasm.exports.bp_session_logits(session) >>> 0, vocabulary).slice();
}

export function saveState({ wasm, session }) {
  const size = wasm.exports.bp_session_save_bytes(session);
  const pointer = wasm.alloc(size);
  try {
    wasm.check(wasm.exports.bp_session_save(session, pointer, size, wasm.error));
    return wasm.bytes(pointer, size).slice();
  } finally {
    wasm.free(pointer);
  }
}

export function restoreState(runner, bytes) {
  const { wasm, session } = runner;
  const { exports } = wasm;
  wasm.withBytes(bytes, (pointer, size) => wasm.check(exports.bp_session_restore(session, pointer, size, wasm.error)));
  const tokens = new Int32Array(wasm.memory.buffer, exports.bp_session_tokens(session) >>> 0, exports.bp_session_position(session));
  runner.timeline = Array.from(tokens);
  runner.tier = runner.host.tier; // a state of another one is refused
}
