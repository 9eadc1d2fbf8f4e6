// openai.js - a model behind the shape of OpenAI's client: openai(model).chat.completions.create(), completions.create() and
// embeddings.create().

import { fail } from './errors.js';

/** See index.d.ts. */
export function openai(model) {
  const call = (choose) => async (params, options) => {
    // Most pages never need it.
    const requests = await import('./openai-requests.js').catch((error) =>
      fail('network', `openai-requests.js did not load: ${error.message}`, { cause: error }));
    return choose(requests)(model, params, options);
  };
  return {
    chat: { completions: { create: call((requests) => requests.chatCompletion) } },
    completions: { create: call((requests) => requests.completion) },
    embeddings: { create: call((requests) => requests.embeddings) },
  };
}
