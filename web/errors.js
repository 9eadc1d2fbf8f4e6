// errors.js - the one error class of the package. `code` is stable, `message` says what is wrong and what to do.

/** Codes, in the order of src/err.h for those that come from the engine. */
const ENGINE_CODES = ['worker', 'argument', 'format', 'unsupported', 'memory', 'checksum', 'context', 'io'];

export class BitpairError extends Error {
  /**
   * @param {string} code see index.d.ts
   * @param {string} message one line
   * @param {{offset?: number, status?: number, url?: string, cause?: unknown}} [details]
   */
  constructor(code, message, details = {}) {
    super(message, details.cause === undefined ? undefined : { cause: details.cause });
    // What fetch and streams throw on abort has this name, and callers look for it.
    this.name = code === 'aborted' ? 'AbortError' : 'BitpairError';
    this.code = code;
    for (const key of ['offset', 'status', 'url']) if (details[key] !== undefined) this[key] = details[key];
  }
}

/** Options as the engine's messages begin with them, in the words of index.d.ts. */
const OPTIONS = {
  top_k: 'topK',
  typical_p: 'typicalP',
  top_p: 'topP',
  min_p: 'minP',
  repeat_penalty: 'repeatPenalty',
  frequency_penalty: 'frequencyPenalty',
  presence_penalty: 'presencePenalty',
  repeat_last: 'repeatLast',
  logit_bias: 'logitBias',
};

/** The error of a bp_err. */
export function engineError(code, offset, text) {
  const message = text.replace(/^[a-z]+_[a-z]+\b/, (name) => OPTIONS[name] ?? name);
  return new BitpairError(ENGINE_CODES[code] ?? 'worker', message, offset > 0 ? { offset } : {});
}

/** Errors cross from worker to page as plain objects: a class does not survive structured cloning. */
export function packError(error) {
  if (error instanceof BitpairError) {
    const { code, message, offset, status, url } = error;
    return { code, message, offset, status, url };
  }
  // What the engine or this package did not foresee: a trap, a bug. The worker is not to be trusted afterwards.
  return { code: 'worker', message: `the worker failed: ${error?.message ?? error}`, stack: error?.stack };
}

export function unpackError(packed) {
  const error = new BitpairError(packed.code, packed.message, packed);
  if (packed.stack) error.stack += `\n  in the worker: ${packed.stack}`;
  return error;
}

/** Is it an AbortSignal? Maybe one of another frame, so its class does not tell. */
export const isSignal = (signal) => typeof signal?.aborted === 'boolean' && typeof signal.addEventListener === 'function';

export function abortError(signal) {
  return new BitpairError('aborted', 'the operation was aborted', { cause: signal?.reason });
}

/** What the promise gives; as soon as the signal aborts, its error instead. */
export function unlessAborted(promise, signal) {
  if (!signal) return promise;
  return new Promise((resolve, reject) => {
    const stop = () => reject(abortError(signal));
    if (signal.aborted) stop();
    signal.addEventListener('abort', stop, { once: true });
    promise.then(resolve, reject).finally(() => signal.removeEventListener('abort', stop));
  });
}

export function fail(code, message, details) {
  throw new BitpairError(code, message, details);
}
