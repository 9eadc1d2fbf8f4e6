// config.js - which model the page loads. scripts/serve.js and the tests read it too.

/** Path on the server that serves the page. */
export const MODEL_PATH = '/models/smollm2-135m-instruct.gguf';

/** The same as an address, on any host and below any folder: this file, and what it is built into, lies two folders deep. */
export const MODEL_URL = new URL('../../models/smollm2-135m-instruct.gguf', import.meta.url).href;

export const MODEL_NAME = 'SmolLM2-135M-Instruct';

/** What the page can begin with. */
export const SUGGESTIONS = [
  'Why is the sky blue?',
  'Write a short poem about the sea.',
  'Give me three tips for sleeping well.',
];

export const CHAT_OPTIONS = { maxTokens: 512, temperature: 0.5, repeatPenalty: 1.1 };
