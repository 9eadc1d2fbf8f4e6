// worker.js - the worker's entry. The first message decides what it becomes: the engine worker, which holds the model and
// runs its requests, or one of the threads that help it.

import { fail, packError, unpackError } from './errors.js';
import { readHeader, readModel } from './fetch.js';
import { LOAD_ID, STACK_BYTES, connectPage } from './protocol.js';
import { Runner } from './runner.js';
import * as tasks from './tasks.js';
import { chooseThreads, joinWasm, openWasm } from './wasm.js';

let runner = null;
const answers = {}; // resolvers of what the page was asked for: 'threads', 'piece'
const controls = new Map(); // id of a running generate -> {aborted}

function ask(message, answer) {
  return new Promise((resolve) => {
    answers[answer] = resolve;
    port.post(message);
  });
}

const handlers = { load, estimate, tokenize, detokenize, generate, embed, score, logits, saveState, restoreState };

const port = connectPage(async (message) => {
  const { type, id } = message;
  if (type in handlers) {
    try {
      port.post({ type: 'result', id, value: await handlers[type](message) });
    } catch (error) {
      port.post({ type: 'error', id, error: packError(error) });
    }
  } else if (type === 'abort') {
    const control = controls.get(id);
    if (control) control.aborted = true;
  } else if (type === 'thread') {
    await serve(message).catch((error) => port.post({ type: 'failed', error: packError(error) }));
  } else if (type in answers) {
    answers[type](message);
  }
});

/** A thread of the team: in the engine from `run` until the worker is terminated. */
async function serve({ module, memory, stack }) {
  const exports = await joinWasm(module, memory, stack, STACK_BYTES);
  const { engine, index } = await ask({ type: 'ready' }, 'run');
  exports.bp_engine_thread(engine, index);
}

/** Opens engine, model and session; returns what becomes model.info. */
async function load({ source, options }) {
  let { threads, reason } = await chooseThreads(options.threads);
  const { wasm, module, memory } = await openWasm(threads);
  if (threads > 1) ({ threads, reason } = await gather(wasm, module, memory, threads));
  const engine = wasm.check(wasm.exports.wasm_engine_open(threads, 0, 0, wasm.error));
  if (threads > 1) port.post({ type: 'run', engine });

  const file = await readModel(wasm, source, options, page());
  const model = wasm.check(wasm.exports.bp_model_open(engine, file.pointer, file.size, wasm.error));
  const session = wasm.check(wasm.exports.wasm_session_open(model, options.contextSize, 0, options.kvBits, wasm.error));
  runner = new Runner(wasm, model, session);
  const { size, verified, cached, cachedBytes, cacheReason } = file;
  return describe(wasm, engine, model, { threads, threadsReason: reason, bytes: size, verified, cached, cachedBytes, cacheReason });
}

/** What the reading of a model needs of the page. */
function page() {
  const stop = new AbortController();
  controls.set(LOAD_ID, { set aborted(yes) { if (yes) stop.abort(); } });
  return {
    signal: stop.signal,
    progress: (report) => port.post({ type: 'progress', id: LOAD_ID, report }),
    pull: async (offset, size) => {
      const { bytes, error } = await ask({ type: 'pull', offset, size }, 'piece');
      if (error) throw unpackError(error);
      return bytes;
    },
  };
}

/** Memory that load() would take. Everything but the weights and the session is there when the header is: it is measured. */
async function estimate({ source, options }) {
  const { threads } = await chooseThreads(options.threads);
  const { wasm } = await openWasm(1);
  const { exports } = wasm;
  const engine = wasm.check(exports.wasm_engine_open(threads, 0, 0, wasm.error));
  const { head, end } = await readHeader(wasm, source, options, page());
  return wasm.withBytes(head, (bytes) => {
    const model = wasm.check(exports.bp_model_preview(engine, bytes, head.length, end, wasm.error));
    const session = exports.wasm_session_bytes(model, options.contextSize, 0, options.kvBits) >>> 0;
    if (session === 0) fail('argument', `a context of ${options.contextSize} is more than this model or the memory allows`);
    const engineBytes = wasm.memory.buffer.byteLength - head.length + (threads - 1) * STACK_BYTES;
    return { total: end + session + engineBytes, weights: end, session, engine: engineBytes, threads };
  });
}

/** Has the page start the other threads; the engine is opened for those that came. */
async function gather(wasm, module, memory, threads) {
  const stacks = Array.from({ length: threads - 1 }, () => wasm.alloc(STACK_BYTES));
  const { count, reason } = await ask({ type: 'spawn', module, memory, stacks }, 'threads');
  return { threads: count + 1, reason };
}

const NUMBERS = ['layers', 'width', 'feedForward', 'heads', 'kvHeads', 'headSize', 'vocabulary', 'trainedContext', 'tiers', 'tier',
  'bitsPerWeight', 'bos', 'eos'];

function describe(wasm, engine, model, rest) {
  const { exports } = wasm;
  const info = { ...rest, architecture: wasm.cString(exports.wasm_model_arch(model)) };
  NUMBERS.forEach((name, field) => (info[name] = exports.wasm_model_number(model, field)));
  info.name = runner.string('general.name');
  info.contextSize = exports.bp_session_capacity(runner.session);
  info.kvCache = exports.bp_session_kv_bits(runner.session) === 8 ? 'q8' : 'f16';
  info.isa = wasm.cString(exports.bp_engine_isa(engine));
  info.memoryBytes = wasm.memory.buffer.byteLength;
  const token = (id) => (id < 0 ? '' : new TextDecoder().decode(runner.tokenBytes(id, true)));
  return {
    info,
    template: { source: runner.string('tokenizer.chat_template'), bos: token(info.bos), eos: token(info.eos) },
  };
}

function tokenize({ text, options }) {
  return runner.tokenize(text, options);
}

function detokenize({ ids, options }) {
  return runner.detokenize(ids, options);
}

const promptIds = (prompt, options) => (typeof prompt === 'string' ? runner.tokenize(prompt, options) : prompt);

async function embed({ prompts, options }) {
  const lists = prompts.map((prompt) => promptIds(prompt, options));
  return tasks.embed(runner, lists, options, runner.number(NUMBERS.indexOf('width')));
}

function score({ prompt, options }) {
  return tasks.score(runner, promptIds(prompt, options));
}

function logits({ prompt, options }) {
  return tasks.logits(runner, promptIds(prompt, options), runner.number(NUMBERS.indexOf('vocabulary')));
}

function saveState() {
  return tasks.saveState(runner);
}

function restoreState({ bytes }) {
  return tasks.restoreState(runner, bytes);
}

async function generate({ id, prompt, options }) {
  const control = { aborted: false };
  controls.set(id, control);
  try {
    return await runner.generate(promptIds(prompt, options), options, {
      prefill: (done, total) => port.post({ type: 'prefill', id, done, total }),
      token: (index, token, text, logprobs) => port.post({ type: 'token', id, index, token, text, logprobs }),
      answer: (index, end) => port.post({ type: 'answer', id, index, ...end }),
    }, control);
  } finally {
    controls.delete(id);
  }
}
