// worker.js - the worker's entry. The first message decides what it becomes: the engine worker, which holds the model and
// runs its requests, or one of the threads that help it.

import { hostCapabilities } from './capabilities.js';
import { Gate } from './connection.js';
import { Lending, helpCopying } from './copying.js';
import { packError, unpackError } from './errors.js';
import { openCopy, readHeader, readModel } from './fetch.js';
import { Host, sessionBytes } from './host.js';
import * as inside from './layers.js';
import { LOAD_ID, REST_ID, STACK_BYTES, connectPage } from './protocol.js';
import * as tasks from './tasks.js';
import { chooseThreads, joinWasm, openChosen, openWasm } from './wasm.js';

const MOST_TRIES = 3; // to hand a thread the memory

let host = null;
let rest = null; // settles when all of the file is read
const answers = {}; // resolvers of what the page was asked for: 'threads', 'piece'
const controls = new Map(); // id of what can be stopped -> {aborted, gate?}

function ask(message, answer) {
  return new Promise((resolve) => {
    answers[answer] = resolve;
    port.post(message);
  });
}

const handlers = {
  load, estimate, capabilities: hostCapabilities, generate, embed, score, logits, saveState, restoreState,
  rest: () => rest,
  stats: () => host.stats(),
  session: ({ contextSize }) => host.open(contextSize),
  fork: ({ session }) => host.fork(session),
  close: ({ session }) => host.close(session),
  tokenize: ({ text, options }) => host.main.tokenize(text, options),
  detokenize: ({ ids, options }) => host.main.detokenize(ids, options),
  layers: () => inside.layers(host),
  tiers: () => inside.tiers(host, host.tier),
  signs: ({ layer, stage, factor }) => inside.signs(host, layer, stage, factor),
  scales: ({ layer, stage }) => inside.scales(host, layer, stage),
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
  } else if (type === 'pause') {
    controls.get(id)?.gate.close(message.paused);
  } else if (type === 'thread') {
    serve(message.port);
  } else if (type in answers) {
    answers[type](message);
  }
});

/** A thread of the team: in the engine from `run` until the worker is terminated. One order after the other. */
function serve(team) {
  let exports;
  let shared;
  let done = Promise.resolve();
  const orders = {
    async join({ module, memory, stack }) {
      let error;
      shared = memory;
      exports = await joinWasm(module, memory, stack, STACK_BYTES).catch((reason) => void (error = packError(reason)));
      team.postMessage({ type: 'joined', error });
    },
    async copy({ job }) {
      const told = (piece) => team.postMessage({ type: 'copied', piece });
      const error = await helpCopying(shared, job, told).then(() => null, packError);
      team.postMessage({ type: 'copied', error });
    },
    async run({ engine, index }) {
      exports.bp_engine_thread(engine, index);
    },
  };
  team.onmessageerror = () => team.postMessage({ type: 'joined', error: packError(new Error('a message could not be read')) });
  team.onmessage = ({ data }) => {
    done = done.then(() => orders[data.type](data)).catch((error) => port.post({ type: 'failed', error: packError(error) }));
  };
  port.post({ type: 'ready' });
  team.postMessage({ type: 'hello' });
}

/** Opens engine, model and session; returns what becomes of them in the page. With `startAt` the reading goes on behind it: `rest`. */
async function load({ source, options }) {
  const link = page(); // before the first wait: the page may pause or stop it at once
  let fulfil;
  rest = new Promise((resolve) => (fulfil = resolve));
  const copying = openCopy(source, options);
  const { wasm, module, memory, ...chosen } = await openChosen(options);
  const helpers = spawn(chosen.threads - 1);
  wasm.exports.bp_warm(); // while they start
  const opening = new Host({ wasm, contextSize: options.contextSize, kvBits: options.kvBits });
  opening.told = (info) => port.post({ type: 'tier', id: REST_ID, info });
  const gathered = gather(wasm, module, memory, chosen, helpers);
  const lending = new Lending(gathered);
  const ready = openEngine(opening, gathered, lending.over); // the file is read meanwhile
  let latest = null; // header of the file, while one is in its place
  const headed = (place) => {
    latest = place;
    const prepared = ready.then(() => latest === place && opening.prepare(place));
    prepared.catch(() => {}); // said to whoever waits, or when the model is started
    return prepared;
  };

  const opened = new Promise((resolve, reject) => {
    ready.catch(reject); // no need to read on
    let started = null; // a promise: the tiers that are there belong to the model, though the threads may still be on their way
    const begin = (file, n) => {
      // A thread that still copied would not answer the engine, which waits for it without looking at messages.
      started = Promise.all([ready, lending.leave()]).then(() => opening.start(file, n));
      resolve(started);
    };
    const tier = (n, file) => {
      if (options.startAt === undefined || (!started && n < options.startAt)) return false;
      if (opening.model) opening.raise(n, file);
      else if (started) started.then(() => opening.reading && opening.raise(n, file)).catch(reject);
      else begin(file, n);
      return true;
    };
    const read = async () => {
      const lend = chosen.threads > 1 ? (job, piece) => lending.lend(job, piece) : undefined;
      const more = { tier, headed, lend, begun: () => lending.end(), arrived: () => opening.arrivals++ };
      const file = await readModel(wasm, source, options, { ...link, ...more }, copying);
      await (started ?? ready);
      await opening.finish(file);
      if (!started) begin({ ...file, room: file.size }, 0);
      await opened;
      return opening.file;
    };
    const reading = read().finally(() => {
      opening.reading = false;
      opening.wanted = opening.tier; // where it failed, tiers that still wait are not taken up: the page would not hear of it any more
    });
    reading.catch(reject);
    fulfil(reading);
  });
  rest.catch(() => {}); // told by `opened`, or to whoever asks for the rest
  const description = await opened;
  host = opening;
  return description;
}

/** Opens the engine for the threads that were gathered, which go into it once they have been given what else they are to do. */
async function openEngine(opening, gathered, lent) {
  const { wasm } = opening;
  const { team, threads, reason } = await gathered;
  const engine = wasm.check(wasm.exports.wasm_engine_open(threads, 0, 0, wasm.error));
  await lent;
  team.forEach((thread, i) => thread.postMessage({ type: 'run', engine, index: i + 1 }));
  Object.assign(opening, { engine, threads, threadsReason: reason });
}

/** What the reading of a model needs of the page. */
function page() {
  const stop = new AbortController();
  const gate = new Gate();
  controls.set(LOAD_ID, { gate, set aborted(yes) { if (yes) stop.abort(); } });
  return {
    gate,
    signal: stop.signal,
    progress: (report) => port.post({ type: 'progress', id: REST_ID, report }),
    pull: async (offset, size) => {
      const { bytes, error } = await ask({ type: 'pull', offset, size }, 'piece');
      if (error) throw unpackError(error);
      return bytes;
    },
  };
}

/** Memory that load() would take. Everything but the weights and the session is there when the header is: it is measured. */
async function estimate({ source, options }) {
  const link = page();
  const { wasm, threads } = options.wasm ? await openChosen(options) : { ...(await openWasm(1)), ...(await chooseThreads(options.threads)) };
  const { exports } = wasm;
  const engine = wasm.check(exports.wasm_engine_open(threads, 0, 0, wasm.error));
  const { head, end } = await readHeader(wasm, source, options, link);
  return wasm.withBytes(head, (bytes) => {
    const model = wasm.check(exports.bp_model_preview(engine, bytes, head.length, end, wasm.error));
    const session = sessionBytes(wasm, model, options);
    const engineBytes = wasm.memory.buffer.byteLength - head.length + (threads - 1) * STACK_BYTES;
    return { total: end + session + engineBytes, weights: end, session, engine: engineBytes, threads };
  });
}

/** Has the page start the other threads. -> {threads, reason: why some did not start} */
async function spawn(count) {
  if (count === 0) return { threads: [], reason: null };
  const { ports, reason } = await ask({ type: 'spawn', count }, 'threads');
  return { threads: ports.map(greet), reason };
}

/** Listens at once to what leads to a thread: in Firefox a port that is still on its way loses shared memory now and then, so nothing is
 *  sent before the thread has said something. */
function greet(port) {
  const greeted = new Promise((resolve) => (port.onmessage = resolve));
  return { port, greeted };
}

/** Gives those that came the engine, which is opened for them: team, their ports. */
async function gather(wasm, module, memory, { threads, reason: alone }, helpers) {
  if (threads === 1) return { team: [], threads, reason: alone };
  const { threads: others, reason } = await helpers;
  const joined = await Promise.allSettled(others.map((thread) => join(thread, { module, memory, stack: wasm.alloc(STACK_BYTES) })));
  const team = others.filter((_, i) => joined[i].status === 'fulfilled').map(({ port }) => port);
  const failure = joined.find(({ status }) => status === 'rejected')?.reason.message ?? reason;
  return { team, threads: team.length + 1, reason: failure && `a thread did not start: ${failure}` };
}

async function join({ port, greeted }, message) {
  await greeted;
  for (let tries = 1; ; tries++) {
    const error = await new Promise((resolve) => {
      port.onmessage = ({ data }) => resolve(data.error);
      port.postMessage({ type: 'join', ...message });
    });
    if (!error) return;
    if (tries === MOST_TRIES) throw unpackError(error);
  }
}

const promptIds = (runner, prompt, options) => (typeof prompt === 'string' ? runner.tokenize(prompt, options) : prompt);

/** Runs what must see one tier from its beginning to its end. */
const steadily = (session, work) => host.steadily(() => work(host.session(session)));

/** Runs what the page may stop: work(control), of which `aborted` becomes true then. */
async function stoppable(id, work) {
  const control = { aborted: false };
  controls.set(id, control);
  try {
    return await work(control);
  } finally {
    controls.delete(id);
  }
}

function embed({ id, session, prompts, options }) {
  return stoppable(id, (control) => steadily(session, (runner) => {
    const lists = prompts.map((prompt) => promptIds(runner, prompt, options));
    return tasks.embed(runner, lists, options, host.number('width'), control);
  }));
}

function score({ id, session, prompt, options }) {
  return stoppable(id, (control) => steadily(session, (runner) => tasks.score(runner, promptIds(runner, prompt, options), control)));
}

function logits({ id, session, prompt, options }) {
  return stoppable(id, (control) => steadily(session, (runner) =>
    tasks.logits(runner, promptIds(runner, prompt, options), host.number('vocabulary'), control)));
}

function saveState({ session }) {
  return tasks.saveState(host.session(session));
}

function restoreState({ session, bytes }) {
  return tasks.restoreState(host.session(session), bytes);
}

function generate({ id, session, prompt, options }) {
  return stoppable(id, async (control) => {
    const runner = host.session(session);
    const stats = await runner.generate(promptIds(runner, prompt, options), options, {
      prefill: (done, total) => port.post({ type: 'prefill', id, done, total }),
      token: (index, token, text, logprobs) => port.post({ type: 'token', id, index, token, text, tier: runner.tier, logprobs }),
      answer: (index, end) => port.post({ type: 'answer', id, index, tier: runner.tier, ...end }),
    }, control);
    return host.count(stats);
  });
}
