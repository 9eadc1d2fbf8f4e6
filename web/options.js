// options.js - looks at what callers give besides a source or a prompt, before anything is started that an error would leave behind.

import { cacheName } from './cache.js';
import { LoadController } from './control.js';
import { fail, isSignal } from './errors.js';
import { ENGINES, absolute } from './protocol.js';

/**
 * The options of a call, none as {}. What is only used later is checked here: the signal, and callbacks.
 * @param {unknown} options
 * @param {string[]} callbacks names of options that are functions
 */
export function checkOptions(options, callbacks = []) {
  const given = options ?? {};
  if (typeof given !== 'object') fail('argument', `options must be an object, not ${typeof given}`);
  const { signal } = given;
  if (isSomething(signal) && !isSignal(signal))
    fail('argument', `signal must be an AbortSignal${isSignal(signal.signal) ? ': not the controller, but its signal' : ''}`);
  for (const name of callbacks)
    if (isSomething(given[name]) && typeof given[name] !== 'function') fail('argument', `${name} must be a function`);
  return given;
}

const isSomething = (value) => value !== undefined && value !== null;

export const workerScript = (workerUrl) => (workerUrl === undefined ? undefined : addressOf('workerUrl', workerUrl));

const KV_BITS = { q8: 8, f16: 16 };

/** What of the options of load() the worker is told. */
export function checkLoad({ threads, contextSize = 0, kvCache = 'q8', verify = true, tier, startAt, control, retries = 8, integrity, cache, wasm }) {
  const count = (name, value, low) => {
    if (!(Number.isInteger(value) && value >= low && value < 2 ** 31)) fail('argument', `${name} must be a whole number from ${low} on, not ${value}`);
  };
  count('contextSize', contextSize, 0);
  count('retries', retries, 0);
  if (tier !== undefined) count('tier', tier, 1);
  const first = startAt === 'first-tier' ? 1 : startAt;
  if (first !== undefined) count('startAt', first, 1);
  if (first > tier) fail('argument', `startAt ${first}: only ${tier} tiers are wanted`);
  if (control !== undefined && !(control instanceof LoadController)) fail('argument', 'control must be a LoadController');
  if (!Object.hasOwn(KV_BITS, kvCache)) fail('argument', `kvCache must be 'q8' or 'f16', not ${kvCache}`);
  const plain = { threads, contextSize, kvBits: KV_BITS[kvCache], verify: !!verify, tier, startAt: first, retries };
  return { ...plain, integrity: parseIntegrity(integrity), cache: cacheName(cache), wasm: describeEngines(wasm) };
}

/** What the worker is told of engines that come from elsewhere: {file name: absolute URL, bytes or module}. */
function describeEngines(wasm) {
  if (wasm === undefined) return null;
  const choose = typeof wasm === 'function' ? wasm : () => wasm;
  const given = ENGINES.map((name) => [name, choose(name)]).filter(([, engine]) => engine !== undefined);
  return Object.fromEntries(given.map(([name, engine]) => [name, isBinary(engine) ? engine : addressOf('wasm', engine)]));
}

const isModule = (value) => typeof WebAssembly === 'object' && value instanceof WebAssembly.Module; // some hosts have none
const isBinary = (value) => isModule(value) || value instanceof ArrayBuffer || ArrayBuffer.isView(value);

function addressOf(option, value) {
  try {
    if (typeof value === 'string' || value instanceof URL) return absolute(value);
  } catch {
    // said below
  }
  return fail('argument', `${option} must be an absolute URL, or one relative to the page${option === 'wasm' ? ', or bytes, a module or a function that gives them' : ''}`);
}

/** 'sha256-' and 64 hex digits or base64 -> hex digits */
function parseIntegrity(text) {
  if (text === undefined) return null;
  const [, digits, base64] = /^sha256-(?:([0-9a-f]{64})|([\w+/-]{43}=?))$/i.exec(text) ?? [];
  if (digits) return digits.toLowerCase();
  if (!base64) return fail('argument', `integrity must be 'sha256-' and 64 hex digits or 44 characters of base64, not '${text}'`);
  const bytes = atob(base64.slice(0, 43).replaceAll('-', '+').replaceAll('_', '/'));
  return Array.from(bytes, (byte) => byte.charCodeAt(0).toString(16).padStart(2, '0')).join('');
}
