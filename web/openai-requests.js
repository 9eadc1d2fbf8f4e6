// openai-requests.js - what the methods of openai(model) do, on the public methods of a model alone. Loaded with the first call.

import { BitpairError, fail } from './errors.js';
import { ASYNC_DISPOSE } from './generation.js';

const MOST_RECENT = 1024; // OpenAI's penalties count the whole text; this is the longest window of the sampler
const COMPLETION_TOKENS = 16; // OpenAI's default of completions

/** What would change the answer's meaning if it were ignored. Other parameters that are not known have no effect. */
const REFUSED = ['functions', 'audio', 'prediction', 'web_search_options', 'suffix', 'echo'];

/** OpenAI's names, and those that llama.cpp's server has added to them -> ours. */
const RENAMED = {
  temperature: 'temperature',
  top_p: 'topP',
  top_k: 'topK',
  min_p: 'minP',
  typical_p: 'typicalP',
  repeat_penalty: 'repeatPenalty',
  frequency_penalty: 'frequencyPenalty',
  presence_penalty: 'presencePenalty',
  logit_bias: 'logitBias',
  seed: 'seed',
  stop: 'stop',
  n: 'n',
};

/** The methods: (model, params, options) -> answer or stream. */
export const chatCompletion = (...request) => described(() => createChat(...request));
export const completion = (...request) => described(() => createCompletion(...request));
export const embeddings = (...request) => described(() => createEmbeddings(...request));

/* ---- errors ---- */

const INVALID = ['argument', 'context', 'unsupported'];

/** Runs fn; what it throws gets the fields that OpenAI's errors have. */
async function described(fn) {
  try {
    return await fn();
  } catch (error) {
    throw describe(error);
  }
}

function describe(error) {
  if (!(error instanceof BitpairError) || error.code === 'aborted') return error;
  const invalid = INVALID.includes(error.code);
  return Object.assign(error, { status: invalid ? 400 : 500, type: invalid ? 'invalid_request_error' : 'server_error' });
}

/* ---- parameters ---- */

function checkParams(params) {
  if (typeof params !== 'object' || params === null) fail('argument', 'create() takes an object');
  for (const name of REFUSED) if (given(params[name])) fail('unsupported', `${name} is not supported`);
  if (given(params.best_of) && params.best_of !== (params.n ?? 1)) fail('unsupported', 'best_of is not supported');
}

const given = (value) => value !== undefined && value !== null && value !== false && value?.length !== 0;

/** Options of generate(); what is null counts as left out. */
function samplingOptions(params, maxTokens, logprobs, signal) {
  const options = { maxTokens, logprobs, signal, repeatLast: MOST_RECENT };
  for (const [name, ours] of Object.entries(RENAMED)) if (params[name] !== undefined && params[name] !== null) options[ours] = params[name];
  return { ...options, ...formatOptions(params.response_format) };
}

function formatOptions(format) {
  const type = format?.type ?? 'text';
  if (type === 'text') return {};
  if (type === 'json_object') return { json: true };
  if (type !== 'json_schema') fail('unsupported', `response_format ${type} is not supported`);
  return { jsonSchema: format.json_schema?.schema ?? fail('argument', 'response_format json_schema needs json_schema.schema') };
}

function plainMessages(messages) {
  if (!Array.isArray(messages)) fail('argument', 'messages must be an array');
  return messages.map((message) => ({
    ...message,
    role: message?.role === 'developer' ? 'system' : message?.role,
    content: plainContent(message?.content),
    toolCalls: message?.tool_calls?.map(ownCall),
    toolCallId: message?.tool_call_id,
  }));
}

/* ---- tools ---- */

function ownCall({ id, type, function: called }) {
  if (type !== 'function') fail('unsupported', `tool calls of type ${type} are not supported`);
  try {
    return { id, name: called.name, arguments: JSON.parse(called.arguments || '{}') };
  } catch {
    return fail('argument', `the arguments of tool call ${id} are not JSON`);
  }
}

/** Options `tools` and `toolChoice` of chat(). */
function toolOptions({ tools, tool_choice: choice }) {
  if (!given(tools)) return {};
  const own = tools.map(({ type, function: described }) => {
    if (type !== 'function') fail('unsupported', `tools of type ${type} are not supported`);
    return { name: described.name, description: described.description, parameters: described.parameters };
  });
  const named = typeof choice === 'object' && choice !== null;
  if (named && choice.type !== 'function') fail('unsupported', `tool_choice of type ${choice.type} is not supported`);
  return { tools: own, toolChoice: named ? { name: choice.function.name } : (choice ?? 'auto') };
}

const theirCall = ({ id, name, arguments: values }) => ({ id, type: 'function', function: { name, arguments: JSON.stringify(values) } });

const endOf = (finishReason, calls) => (finishReason === 'stop' && calls > 0 ? 'tool_calls' : FINISH[finishReason]);

function plainContent(content) {
  if (!Array.isArray(content)) return content ?? '';
  return content.map((part) => {
    if (part?.type !== 'text') fail('unsupported', `message parts of type ${part?.type} are not supported`);
    return part.text;
  }).join('');
}

/* ---- answers ---- */

const FINISH = { stop: 'stop', length: 'length', context: 'length' };

/** Waits for the whole; one that was stopped has no result, however many of its answers are there. */
async function finished(generation) {
  const result = await generation.result;
  if (result.answers.some(({ finishReason }) => finishReason === 'abort')) fail('aborted', 'the request was aborted');
  return result;
}

/** The fields that answers and chunks begin with. */
function envelope(model, params, prefix, object) {
  const id = `${prefix}-${globalThis.crypto.randomUUID?.() ?? Math.random().toString(36).slice(2)}`;
  return { id, object, created: Math.floor(Date.now() / 1000), model: params.model ?? model.info.name ?? 'bitpair' };
}

const NO_USAGE = { promptTokens: 0, cachedTokens: 0, completionTokens: 0 };

function usageOf(stats) {
  const { promptTokens, cachedTokens, completionTokens } = stats ?? NO_USAGE;
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: cachedTokens },
  };
}

/**
 * Chunks of a generation as an iterable with a `controller`, like OpenAI's Stream. choices(chunk) gives a list of choices, each of
 * which becomes a chunk of its own. Stopped by the caller, it just ends.
 */
function stream(head, generation, choices, includeUsage) {
  const controller = new AbortController();
  controller.signal.addEventListener('abort', () => generation[ASYNC_DISPOSE](), { once: true });
  const usage = includeUsage ? { usage: null } : {};
  async function* iterate() {
    try {
      for await (const chunk of generation) {
        if (chunk.finishReason === 'abort') return;
        for (const each of choices(chunk)) yield { ...head, choices: [each], ...usage };
        if (includeUsage && chunk.stats) yield { ...head, choices: [], usage: usageOf(chunk.stats) };
      }
    } catch (error) {
      throw describe(error);
    }
  }
  const iterator = iterate();
  const ending = (way) => {
    const end = iterator[way].bind(iterator);
    return (value) => {
      controller.abort(); // a next() that waits ends with it
      return end(value);
    };
  };
  return Object.assign(iterator, { controller, return: ending('return'), throw: ending('throw') });
}

/* ---- chat.completions ---- */

const chance = ({ text, bytes, logprob }) => ({ token: text, bytes, logprob });

const chatLogprobs = (list) =>
  (list ? { content: list.map((each) => ({ ...chance(each), top_logprobs: each.top.map(chance) })), refusal: null } : null);

async function createChat(model, params, { signal } = {}) {
  checkParams(params);
  const most = params.max_completion_tokens ?? params.max_tokens ?? model.info.contextSize;
  const options = samplingOptions(params, most, params.logprobs ? (params.top_logprobs ?? 0) : null, signal);
  const generation = model.chat(plainMessages(params.messages), { ...options, ...toolOptions(params) });
  if (params.stream) return streamChat(model, params, generation);
  const { answers, stats } = await finished(generation);
  return {
    ...envelope(model, params, 'chatcmpl', 'chat.completion'),
    choices: answers.map(({ text, toolCalls, finishReason, logprobs }, index) => ({
      index,
      message: chatMessage(text, toolCalls),
      logprobs: chatLogprobs(logprobs),
      finish_reason: endOf(finishReason, toolCalls.length),
    })),
    usage: usageOf(stats),
  };
}

function chatMessage(text, calls) {
  const message = { role: 'assistant', content: text, refusal: null };
  return calls.length > 0 ? { ...message, content: text || null, tool_calls: calls.map(theirCall) } : message;
}

function streamChat(model, params, generation) {
  const begun = new Set(); // indices of the answers whose role was said
  const called = [];       // of each answer: how many tool calls were told
  const choice = (index, delta, logprobs = null, finish = null) => ({ index, delta, logprobs, finish_reason: finish });
  const calls = (index, list) => {
    const from = called[index] ?? 0;
    called[index] = from + list.length;
    return list.map((call, i) => ({ index: from + i, ...theirCall(call) }));
  };
  const choices = ({ index, text, toolCalls, logprobs, finishReason }) => {
    const list = begun.has(index) ? [] : [choice(index, { role: 'assistant', content: '', refusal: null })];
    begun.add(index);
    if (text || logprobs) list.push(choice(index, { content: text }, logprobs ? chatLogprobs([logprobs]) : null));
    if (toolCalls) list.push(choice(index, { tool_calls: calls(index, toolCalls) }));
    if (finishReason) list.push(choice(index, {}, null, endOf(finishReason, called[index] ?? 0)));
    return list;
  };
  const head = envelope(model, params, 'chatcmpl', 'chat.completion.chunk');
  return stream(head, generation, choices, !!params.stream_options?.include_usage);
}

/* ---- completions ---- */

/** OpenAI's older form: parallel lists. */
function textLogprobs(list, offset = 0) {
  if (!list) return null;
  const offsets = [];
  for (const { text } of list) {
    offsets.push(offset);
    offset += text.length;
  }
  return {
    tokens: list.map(({ text }) => text),
    token_logprobs: list.map(({ logprob }) => logprob),
    top_logprobs: list.map(({ top }) => Object.fromEntries(top.map(({ text, logprob }) => [text, logprob]))),
    text_offset: offsets,
  };
}

/** A text, a list of ids, or a list of those -> a list of prompts. */
function promptList(prompt) {
  if (typeof prompt === 'string' || typeof prompt?.[0] === 'number') return [prompt];
  if (!Array.isArray(prompt) || prompt.length === 0) fail('argument', 'prompt must be a string, an array of token ids, or an array of those');
  return prompt;
}

async function createCompletion(model, params, { signal } = {}) {
  checkParams(params);
  const prompts = promptList(params.prompt);
  const options = samplingOptions(params, params.max_tokens ?? COMPLETION_TOKENS, params.logprobs ?? null, signal);
  if (params.stream) return streamCompletion(model, params, prompts, options);
  const results = [];
  for (const prompt of prompts) results.push(await finished(model.generate(prompt, options)));
  const totals = { ...NO_USAGE };
  for (const { stats } of results) for (const name in totals) totals[name] += stats[name];
  return {
    ...envelope(model, params, 'cmpl', 'text_completion'),
    choices: results.flatMap(({ answers }) => answers).map(({ text, finishReason, logprobs }, index) => ({
      index,
      text,
      logprobs: textLogprobs(logprobs),
      finish_reason: FINISH[finishReason],
    })),
    usage: usageOf(totals),
  };
}

function streamCompletion(model, params, prompts, options) {
  if (prompts.length > 1) fail('unsupported', 'several prompts cannot be streamed: ask for them one by one');
  const offsets = []; // of each answer's next token
  const choices = ({ index, text, logprobs, finishReason = null }) => {
    const at = offsets[index] ?? 0;
    offsets[index] = at + (logprobs?.text.length ?? 0);
    if (!text && !logprobs && !finishReason) return [];
    return [{ index, text, logprobs: textLogprobs(logprobs && [logprobs], at), finish_reason: finishReason && FINISH[finishReason] }];
  };
  const head = envelope(model, params, 'cmpl', 'text_completion');
  return stream(head, model.generate(prompts[0], options), choices, !!params.stream_options?.include_usage);
}

/* ---- embeddings ---- */

async function createEmbeddings(model, params) {
  checkParams(params);
  if (given(params.dimensions) && params.dimensions !== model.info.width) fail('unsupported', `vectors have ${model.info.width} dimensions`);
  if ((params.encoding_format ?? 'float') !== 'float') fail('unsupported', `encoding_format ${params.encoding_format} is not supported`);
  const texts = promptList(params.input);
  const vectors = await model.embed(texts);
  const counts = await Promise.all(texts.map(async (text) => (typeof text === 'string' ? await model.tokenize(text, { bos: true }) : text).length));
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  return {
    object: 'list',
    model: params.model ?? model.info.name ?? 'bitpair',
    data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: Array.from(vector) })),
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  };
}
