// openai-requests.js - what the methods of openai(model) do, on the public methods of a model alone. Loaded with the first call.

import { BitpairError, abortError, fail } from './errors.js';
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
export const chatCompletion = (model, params, options) => described(() => createChat(model, params, options?.signal), params);
export const completion = (model, params, options) => described(() => createCompletion(model, params, options?.signal), params);
export const embeddings = (model, params, options) => described(() => createEmbeddings(model, params, options?.signal), params);

/* ---- errors ---- */

const INVALID = ['argument', 'context', 'unsupported'];

/** Runs fn; what it throws gets the fields that OpenAI's errors have, and names parameters as the caller does. */
async function described(fn, params) {
  try {
    return await fn();
  } catch (error) {
    throw describe(error, params);
  }
}

function describe(error, params) {
  if (!(error instanceof BitpairError) || error.code === 'aborted') return error;
  const invalid = INVALID.includes(error.code);
  if (invalid) error.message = inTheirWords(error.message, params);
  return Object.assign(error, { status: invalid ? 400 : 500, type: invalid ? 'invalid_request_error' : 'server_error' });
}

/** Messages begin with the option that they are about. */
function inTheirWords(message, params) {
  const names = {
    ...Object.fromEntries(Object.entries(RENAMED).map(([theirs, ours]) => [ours, theirs])),
    maxTokens: isGiven(params?.max_completion_tokens) ? 'max_completion_tokens' : 'max_tokens',
    logprobs: isGiven(params?.top_logprobs) ? 'top_logprobs' : 'logprobs',
    jsonSchema: 'response_format.json_schema.schema',
    toolChoice: 'tool_choice',
    toolCalls: 'tool_calls',
  };
  return message
    .replace(/^(messages\[\d+\]\.|give )?(\w+)/, (_, before = '', name) => before + (Object.hasOwn(names, name) ? names[name] : name))
    .replace(/^(tools\[\d+\])\.(?=parameters)/, '$1.function.');
}

/* ---- parameters ---- */

function checkParams(params) {
  if (typeof params !== 'object' || params === null) fail('argument', 'create() takes an object');
  for (const name of REFUSED) if (given(params[name])) fail('unsupported', `${name} is not supported`);
  if (given(params.best_of) && params.best_of !== (params.n ?? 1)) fail('unsupported', 'best_of is not supported');
}

const isGiven = (value) => value !== undefined && value !== null;
const given = (value) => isGiven(value) && value !== false && value.length !== 0;

/** Options of generate(); what is null counts as left out. */
function samplingOptions(params, maxTokens, logprobs, signal) {
  const options = { maxTokens, logprobs, signal, repeatLast: MOST_RECENT };
  for (const [name, ours] of Object.entries(RENAMED)) if (isGiven(params[name])) options[ours] = params[name];
  // OpenAI's seeds have a sign, the engine's have none: the same 64 bits.
  if (Number.isInteger(params.seed) && params.seed < 0 && params.seed >= -(2 ** 63)) options.seed = BigInt.asUintN(64, BigInt(params.seed));
  return { ...options, ...formatOptions(params.response_format) };
}

function formatOptions(format) {
  if (isGiven(format) && typeof format !== 'object') fail('argument', 'response_format must be an object');
  const type = format?.type ?? 'text';
  if (type === 'text') return {};
  if (type === 'json_object') return { json: true };
  if (type !== 'json_schema') fail('unsupported', `response_format ${type} is not supported`);
  return { jsonSchema: format.json_schema?.schema ?? fail('argument', 'response_format json_schema needs json_schema.schema') };
}

function plainMessages(messages) {
  if (!Array.isArray(messages)) fail('argument', 'messages must be an array');
  return messages.map((message, i) => ({
    ...message,
    role: message?.role === 'developer' ? 'system' : message?.role,
    content: plainContent(message?.content, `messages[${i}].content`),
    toolCalls: ownCalls(message?.tool_calls ?? undefined, `messages[${i}].tool_calls`),
    toolCallId: message?.tool_call_id ?? undefined,
  }));
}

/* ---- tools ---- */

/** The `function` of a tool, a call or a choice; `place` names it. */
function functionOf(value, place) {
  if (typeof value !== 'object' || value === null) fail('argument', `${place} must be an object`);
  if (value.type !== 'function') fail('unsupported', `${place}: the type ${value.type} is not supported`);
  if (typeof value.function?.name !== 'string' || value.function.name === '') fail('argument', `${place}.function.name must be a string`);
  return value.function;
}

function ownCalls(calls, place) {
  if (calls !== undefined && !Array.isArray(calls)) fail('argument', `${place} must be an array`);
  return calls?.map((call, i) => {
    const { name, arguments: text } = functionOf(call, `${place}[${i}]`);
    return { id: call.id, name, arguments: ownArguments(text || '{}', `${place}[${i}].function.arguments`) };
  });
}

function ownArguments(text, place) {
  let values = null;
  try {
    values = typeof text === 'string' ? JSON.parse(text) : null;
  } catch {
    // as what is no text
  }
  if (typeof values !== 'object' || values === null || Array.isArray(values)) fail('argument', `${place} must be a JSON object, as text`);
  return values;
}

/** Options `tools` and `toolChoice` of chat(). */
function toolOptions({ tools, tool_choice: choice }) {
  if (isGiven(tools) && !Array.isArray(tools)) fail('argument', 'tools must be an array');
  const wanted = isGiven(choice) && choice !== 'auto' && choice !== 'none';
  const toolChoice = wanted && typeof choice === 'object' ? { name: functionOf(choice, 'tool_choice').name } : (choice ?? 'auto');
  if (!given(tools)) return wanted ? fail('argument', 'tool_choice needs tools') : {};
  const own = tools.map((tool, i) => {
    const { name, description, parameters } = functionOf(tool, `tools[${i}]`);
    return { name, description, parameters: parameters ?? undefined };
  });
  return { tools: own, toolChoice };
}

/** How many calls of an answer are told: what `parallel_tool_calls` says. */
const mostCalls = (params) => (params.parallel_tool_calls === false ? 1 : Infinity);

const theirCall = ({ id, name, arguments: values }) => ({ id, type: 'function', function: { name, arguments: JSON.stringify(values) } });

const endOf = (finishReason, calls) => (finishReason === 'stop' && calls > 0 ? 'tool_calls' : FINISH[finishReason]);

/** What is no list of parts is for chat() to judge. */
function plainContent(content, place) {
  if (!Array.isArray(content)) return content;
  return content.map((part, i) => {
    if (part?.type !== 'text') fail('unsupported', `${place}[${i}]: parts of type ${part?.type} are not supported`);
    return typeof part.text === 'string' ? part.text : fail('argument', `${place}[${i}].text must be a string`);
  }).join('');
}

/* ---- answers ---- */

const FINISH = { stop: 'stop', length: 'length', context: 'length' };

/** Waits for the whole; one that was stopped has no result, however many of its answers are there. */
async function finished(generation, signal) {
  const result = await generation.result;
  if (result.answers.some(({ finishReason }) => finishReason === 'abort')) throw abortError(signal);
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

async function* continued(first, generation) {
  const { value, done } = await first;
  if (done) return;
  yield value;
  yield* generation;
}

/**
 * Chunks of a generation as an iterable with a `controller`, like OpenAI's Stream. start(onPrefill) makes the generation, choices(chunk)
 * gives a list of choices, each of which becomes a chunk of its own. Stopped by the caller, it just ends.
 */
async function stream(head, params, start, choices) {
  let accept;
  const accepted = new Promise((resolve) => (accept = resolve));
  const generation = start(accept);
  const first = generation.next();
  await Promise.race([accepted, first]); // where its prompt is read, nothing is wrong with the request
  const controller = new AbortController();
  controller.signal.addEventListener('abort', () => generation[ASYNC_DISPOSE](), { once: true });
  const includeUsage = !!params.stream_options?.include_usage;
  const usage = includeUsage ? { usage: null } : {};
  async function* iterate() {
    try {
      for await (const chunk of continued(first, generation)) {
        if (chunk.finishReason === 'abort') return;
        for (const each of choices(chunk)) yield { ...head, choices: [each], ...usage };
        if (includeUsage && chunk.stats) yield { ...head, choices: [], usage: usageOf(chunk.stats) };
      }
    } catch (error) {
      throw describe(error, params);
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

async function createChat(model, params, signal) {
  checkParams(params);
  const most = params.max_completion_tokens ?? params.max_tokens ?? model.info.contextSize;
  const sampling = samplingOptions(params, most, params.logprobs ? (params.top_logprobs ?? 0) : null, signal);
  const options = { ...sampling, ...toolOptions(params) };
  const messages = plainMessages(params.messages);
  const start = (onPrefill) => model.chat(messages, { ...options, onPrefill });
  if (params.stream) return streamChat(model, params, start);
  const { answers, stats } = await finished(start(), signal);
  return {
    ...envelope(model, params, 'chatcmpl', 'chat.completion'),
    choices: answers.map(({ text, toolCalls, finishReason, logprobs }, index) => ({
      index,
      message: chatMessage(text, toolCalls.slice(0, mostCalls(params))),
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

function streamChat(model, params, start) {
  const begun = new Set(); // indices of the answers whose role was said
  const called = [];       // of each answer: how many tool calls were told
  const choice = (index, delta, logprobs = null, finish = null) => ({ index, delta, logprobs, finish_reason: finish });
  const calls = (index, all) => {
    const from = called[index] ?? 0;
    const list = all.slice(0, mostCalls(params) - from);
    called[index] = from + list.length;
    return list.map((call, i) => ({ index: from + i, ...theirCall(call) }));
  };
  const choices = ({ index, text, toolCalls, logprobs, finishReason }) => {
    const list = begun.has(index) ? [] : [choice(index, { role: 'assistant', content: '', refusal: null })];
    begun.add(index);
    if (text || logprobs) list.push(choice(index, { content: text }, logprobs ? chatLogprobs([logprobs]) : null));
    const told = toolCalls ? calls(index, toolCalls) : [];
    if (told.length > 0) list.push(choice(index, { tool_calls: told }));
    if (finishReason) list.push(choice(index, {}, null, endOf(finishReason, called[index] ?? 0)));
    return list;
  };
  return stream(envelope(model, params, 'chatcmpl', 'chat.completion.chunk'), params, start, choices);
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
function promptList(prompt, name) {
  if (typeof prompt === 'string' || typeof prompt?.[0] === 'number') return [prompt];
  if (!Array.isArray(prompt) || prompt.length === 0)
    fail('argument', `${name} must be a string, an array of token ids, or an array of those`);
  return prompt;
}

async function createCompletion(model, params, signal) {
  checkParams(params);
  const prompts = promptList(params.prompt, 'prompt');
  const options = samplingOptions(params, params.max_tokens ?? COMPLETION_TOKENS, params.logprobs ?? null, signal);
  if (params.stream) return streamCompletion(model, params, prompts, options);
  const results = [];
  for (const prompt of prompts) results.push(await finished(model.generate(prompt, options), signal));
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
  const start = (onPrefill) => model.generate(prompts[0], { ...options, onPrefill });
  return stream(envelope(model, params, 'cmpl', 'text_completion'), params, start, choices);
}

/* ---- embeddings ---- */

async function createEmbeddings(model, params, signal) {
  checkParams(params);
  if (given(params.dimensions) && params.dimensions !== model.info.width) fail('unsupported', `vectors have ${model.info.width} dimensions`);
  if ((params.encoding_format ?? 'float') !== 'float') fail('unsupported', `encoding_format ${params.encoding_format} is not supported`);
  const texts = promptList(params.input, 'input');
  const vectors = await model.embed(texts, { signal });
  const counts = await Promise.all(texts.map(async (text) => (typeof text === 'string' ? await model.tokenize(text, { bos: true }) : text).length));
  const tokens = counts.reduce((sum, count) => sum + count, 0);
  return {
    object: 'list',
    model: params.model ?? model.info.name ?? 'bitpair',
    data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: Array.from(vector) })),
    usage: { prompt_tokens: tokens, total_tokens: tokens },
  };
}
