// worker.js - the worker's entry. The first message decides what it becomes: the engine worker, which holds the model and
// runs its requests, or one of the threads that help it.

import { fail, packError, unpackError } from './errors.js';
import { readHeader, readModel } from './fetch.js';
import * as inside from './layers.js';
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

const handlers = {
  load, estimate, tokenize, detokenize, generate, embed, score, logits, saveState, restoreState,
  layers: () => inside.layers(runner),
  tiers: () => inside.tiers(runner, runner.number(NUMBERS.indexOf('tier'))),
  signs: ({ layer, stage, factor }) => inside.signs(runner, layer, stage, factor),
  scales: ({ layer, stage }) => inside.scales(runner, layer, stage),
};

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
    serve(message.port);
  } else if (type in answers) {
    answers[type](message);
  }
});

/** A thread of the team: in the engine from `run` until the worker is terminated. */
function serve(team) {
  let exports;
  const orders = {
    async join({ module, memory, stack }) {
      let error;
      exports = await joinWasm(module, memory, stack, STACK_BYTES).catch((reason) => void (error = packError(reason)));
      team.postMessage({ error });
    },
    async run({ engine, index }) {
      exports.bp_engine_thread(engine, index);
    },
  };
  team.onmessage = ({ data }) => orders[data.type](data).catch((error) => port.post({ type: 'failed', error: packError(error) }));
  port.post({ type: 'ready' });
}

/** Opens engine, model and session; returns what becomes model.info. */
async function load({ source, options }) {
  const chosen = await chooseThreads(options.threads);
  const { wasm, module, memory } = await openWasm(chosen.threads);
  const gathering = gather(wasm, module, memory, chosen);
  gathering.catch(() => {}); // heard of below, if the file can be read
  const file = await readModel(wasm, source, options, page()); // while the threads start
  const { team, threads, reason } = await gathering;
  const engine = wasm.check(wasm.exports.wasm_engine_open(threads, 0, 0, wasm.error));
  team.forEach((thread, i) => thread.postMessage({ type: 'run', engine, index: i + 1 }));

  const model = wasm.check(wasm.exports.bp_model_open(engine, file.pointer, file.size, wasm.error));
  const session = wasm.check(wasm.exports.wasm_session_open(model, options.contextSize, 0, wasm.error));
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
    const session = exports.wasm_session_bytes(model, options.contextSize, 0) >>> 0;
    if (session === 0) fail('argument', `a context of ${options.contextSize} is more than this model or the memory allows`);
    const engineBytes = wasm.memory.buffer.byteLength - head.length + (threads - 1) * STACK_BYTES;
    return { total: end + session + engineBytes, weights: end, session, engine: engineBytes, threads };
  });
}

/** Has the page start the other threads; the engine is opened for those that came: team, their ports. */
async function gather(wasm, module, memory, { threads, reason: alone }) {
  if (threads === 1) return { team: [], threads, reason: alone };
  const { ports, reason } = await ask({ type: 'spawn', count: threads - 1 }, 'threads');
  const joined = await Promise.allSettled(ports.map((thread) => join(thread, { module, memory, stack: wasm.alloc(STACK_BYTES) })));
  const team = ports.filter((_, i) => joined[i].status === 'fulfilled');
  const failure = joined.find(({ status }) => status === 'rejected')?.reason.message ?? reason;
  return { team, threads: team.length + 1, reason: failure && `a thread did not start: ${failure}` };
}

function join(thread, message) {
  return new Promise((resolve, reject) => {
    thread.onmessage = ({ data: { error } }) => (error ? reject(unpackError(error)) : resolve());
    thread.postMessage({ type: 'join', ...message });
  });
}

const NUMBERS = ['layers', 'width', 'feedForward', 'heads', 'kvHeads', 'headSize', 'vocabulary', 'trainedContext', 'tiers', 'tier',
  'bitsPerWeight', 'bos', 'eos'];

function describe(wasm, engine, model, rest) {
  const { exports } = wasm;
  const info = { ...rest, architecture: wasm.cString(exports.wasm_model_arch(model)) };
  NUMBERS.forEach((name, field) => (info[name] = exports.wasm_model_number(model, field)));
  info.name = runner.string('general.name');
  info.contextSize = exports.bp_session_capacity(runner.session);
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
