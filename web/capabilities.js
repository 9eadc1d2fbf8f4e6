// capabilities.js - what a host can do, as far as it can be found out without a model.

import { roomOfStore } from './cache.js';
import { isNode } from './protocol.js';
import { chooseThreads, has, logicalCores, memoryLimit } from './wasm.js';

/** What a worker sees: see Capabilities in index.d.ts. */
export async function hostCapabilities() {
  return { ...await pageCapabilities(), ...await roomOfStore() };
}

/** The same as a page sees it, which cannot write where workers can. */
export async function pageCapabilities() {
  const simd = has('simd');
  const { threads, reason } = await chooseThreads();
  return {
    simd,
    relaxedSimd: has('relaxed'),
    threads,
    threadsReason: reason,
    logicalProcessors: await logicalCores(),
    crossOriginIsolated: isNode() || !!globalThis.crossOriginIsolated,
    secureContext: globalThis.isSecureContext !== false,
    storage: null,
    storageReason: 'only workers can tell',
    storageBytes: null,
    memoryLimit: memoryLimit(threads > 1),
    deviceMemory: globalThis.navigator?.deviceMemory ? globalThis.navigator.deviceMemory * 2 ** 30 : null,
  };
}
