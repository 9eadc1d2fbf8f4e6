// config.js - which model the page loads, and what answers begin with. scripts/serve.js and the tests read it too.

/** Path on the server that serves the page. */
export const MODEL_PATH = '/models/smollm2-135m-instruct.gguf';

/** The same as an address, on any host and below any folder: this file, and what it is built into, lies two folders deep. */
export const MODEL_URL = new URL('../../models/smollm2-135m-instruct.gguf', import.meta.url).href;

export const MODEL_NAME = 'SmolLM2-135M-Instruct';

/** What the file is, so that the page can say it before anything is fetched. A test holds them to the file. */
export const MODEL_FACTS = {
  tiers: [33578560, 47179968, 60833472], // where each ends
  memory: 105e6, // bytes that load() takes, about
};

/** A conversation may begin here: of one tier alone the model card says that it is not usable. */
export const FIRST_TIER = 2;

/** What the page can begin with. */
export const SUGGESTIONS = [
  'Why is the sky blue?',
  'Write a short poem about the sea.',
  'Give me three tips for sleeping well.',
  'Explain what a matrix is to a child.',
];

/** What a model without a chat template is given: it was made to continue text. */
export const PLAIN_TEMPLATE = "{{ bos_token }}{% for message in messages %}{{ message.content }}{% if not loop.last %}{{ '\\n' }}{% endif %}{% endfor %}";

/** Of a small model with lossy weights: greedy answers repeat themselves. */
export const SAMPLING = {
  temperature: 0.5,
  topP: 0.95,
  topK: 40,
  minP: 0.05,
  repeatPenalty: 1.1,
  maxTokens: 512,
};
