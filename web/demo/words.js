// words.js - sizes, times and errors in words.

export function megabytes(bytes) {
  if (bytes >= 1e9) return `${(bytes / 1e9).toFixed(2)} GB`;
  return `${(bytes / 1e6).toFixed(bytes < 1e7 ? 1 : 0)} MB`;
}

export const seconds = (time) => (time < 90 ? `${Math.ceil(time)} s` : `${Math.ceil(time / 60)} min`);

export const count = (n, one, many = `${one}s`) => `${n} ${n === 1 ? one : many}`;

/** The last part of an address or path. */
export const fileName = (url) => url.split(/[?#]/)[0].split('/').filter(Boolean).pop() ?? url;

const ADVICE = {
  http: 'The server does not have this model.',
  network: 'The download broke off. Is the server still there?',
  format: 'This is not a model file, or it is damaged.',
  checksum: 'The file is damaged: its bytes do not match its checksums.',
  memory: 'There is not enough memory. Closing other tabs may help, and so may a smaller model.',
  unsupported: 'This browser or this model is not supported.',
  io: 'The file cannot be read.',
  worker: 'The engine failed. Reloading the page starts it anew; your conversations are kept.',
  context: 'This conversation is too long for the model. Edit an earlier message, or begin a new chat.',
  aborted: 'The model was not loaded.',
  schema: 'The JSON schema under Settings cannot be used.',
  disposed: 'The model was put away before the answer was finished.',
};

/** One sentence a visitor can act on, then what exactly went wrong. */
export function explain(error) {
  if (error.code === 'network' && globalThis.navigator?.onLine === false) return `You are offline, and not all of this model is kept here yet. (${error.message})`;
  return `${ADVICE[error.code] ?? 'That did not work.'} (${error.message})`;
}

/** Why a model is not kept, for a visitor; '' when it is. */
export function explainCache(reason) {
  if (!reason) return '';
  if (/room|full/.test(reason)) return `There is no room to keep this model for the next visit. Delete others under Models. (${reason})`;
  return `This model is not kept for the next visit. (${reason})`;
}

/** Day and time as this visitor writes them. */
export function when(time, now = Date.now()) {
  const date = new Date(time);
  const today = new Date(now).toDateString() === date.toDateString();
  return date.toLocaleString(undefined, today ? { timeStyle: 'short' } : { dateStyle: 'medium' });
}
