// bitpair - language models compressed by Double Binary Factorization, in the browser and in Node.
// Everything here is described in index.d.ts.

export { BitpairError } from './errors.js';
export { cache } from './cache.js';
export { LoadController } from './control.js';
export { capabilities, estimateMemory, load } from './engine.js';
export { openai } from './openai.js';
