/**
 * bitpair: language models compressed by Double Binary Factorization, in the browser and in Node.
 *
 * ```js
 * import { load } from 'bitpair';
 *
 * const model = await load('model.gguf', { onProgress: ({ loaded, total }) => console.log(loaded, total) });
 * for await (const { text } of model.chat([{ role: 'user', content: 'Why is the sky blue?' }])) write(text);
 * await model.dispose();
 * ```
 *
 * Durations are seconds, sizes are bytes, rates are per second. Everything runs in a worker; the page never waits.
 */

declare global {
  // Older `lib` settings do not have it.
  interface SymbolConstructor {
    readonly asyncDispose: unique symbol;
  }
}

/**
 * Where a model comes from:
 * - a URL, as string or `URL`; relative ones are resolved against the page. In Node a string without a scheme is a path.
 * - a `Request`, or an object with its fields `url` and e.g. `headers`
 * - a `File` or `Blob`
 * - its bytes; they are copied into the model's memory piece by piece and not kept
 */
export type ModelSource = string | URL | RequestLike | Blob | Uint8Array | ArrayBuffer;

export interface RequestLike {
  url: string;
  headers?: HeadersInit;
  credentials?: RequestCredentials;
  cache?: RequestCache;
  mode?: RequestMode;
  redirect?: RequestRedirect;
  referrerPolicy?: ReferrerPolicy;
  integrity?: string;
}

export interface LoadOptions {
  /**
   * Threads, 1 to 64. Default: all logical processors up to two, else half of them, at most four. One where threads cannot be had:
   * then `model.info.threadsReason` says why.
   */
  threads?: number;
  /** Positions of the context, prompt and answer together. Default: the smaller of 2048 and what the model was trained for. */
  contextSize?: number;
  /** Check the file's SHA-256 digests after reading. Default true. Files without digests (plain GGUF) are accepted either way. */
  verify?: boolean;
  /** Called about ten times a second while the model loads. What it throws ends the loading. */
  onProgress?: (progress: LoadProgress) => void;
  /** Stops loading: the promise rejects with code 'aborted', workers and memory are gone. */
  signal?: AbortSignal;
}

export interface LoadProgress {
  phase: 'download' | 'verify' | 'ready';
  /** Bytes at hand. */
  loaded: number;
  /** Bytes of the file; null until they are known. */
  total: number | null;
  /** Bytes per second over the last three seconds; null when not known. */
  rate: number | null;
  /** Seconds left; null when not known. */
  eta: number | null;
}

/**
 * Opens a model.
 * @throws {BitpairError} code 'http', 'network', 'io', 'format', 'checksum', 'unsupported', 'memory', 'aborted', 'argument' or 'worker'.
 *   After a failure nothing is left: no worker, no memory.
 */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model>;

export interface Model {
  readonly info: Readonly<ModelInfo>;

  /**
   * Continues a prompt: text (BOS is added if the model wants it; names of control tokens are plain text) or token ids.
   * Nothing runs before the first `next()`, `result` or `text()`. One generation runs at a time; others wait in order.
   * What the prompt shares with the previous prompt and answer is not computed again.
   */
  generate(prompt: string | ArrayLike<number>, options?: RawGenerateOptions): Generation;

  /**
   * Answers a conversation, by the chat template in the model file.
   * Errors of the template (roles in an order it refuses, say) have code 'argument'.
   */
  chat(messages: readonly ChatMessage[], options?: ChatOptions): Generation;

  /** Text -> token ids. */
  tokenize(text: string, options?: TokenizeOptions): Promise<number[]>;

  /** Token ids -> text. Control tokens are left out unless `special`; broken UTF-8 becomes U+FFFD. */
  detokenize(ids: ArrayLike<number>, options?: { special?: boolean }): Promise<string>;

  /** Ends the workers and frees all memory. Running and later calls fail with code 'disposed'. */
  dispose(): Promise<void>;

  /** dispose(), for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface ModelInfo {
  /** 'llama', 'qwen2' or 'qwen3'. */
  architecture: string;
  /** general.name of the file. */
  name: string | null;
  layers: number;
  /** Width of the residual stream. */
  width: number;
  feedForward: number;
  heads: number;
  kvHeads: number;
  headSize: number;
  vocabulary: number;
  /** Context the model was trained for. */
  trainedContext: number;
  /** Context of this session. */
  contextSize: number;
  /** Quality tiers of the file and how many of them are loaded; 0 for a plain GGUF model. */
  tiers: number;
  tier: number;
  /** Bits per weight of the linear layers at this tier, all scales counted. */
  bitsPerWeight: number;
  /** Token ids; -1 where there is none. */
  bos: number;
  eos: number;
  /** Bytes of the model file at hand. */
  bytes: number;
  /** Bytes of WebAssembly memory after loading: model, session, everything. */
  memoryBytes: number;
  /** Was every byte checked? false: the file has no checksums, ends at an earlier tier (inside a checked piece), or `verify` was false. */
  verified: boolean;
  threads: number;
  /** Why there are fewer threads than wanted; null when there are as many. */
  threadsReason: string | null;
  /** Kernels in use: 'simd128'. */
  isa: string;
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool';
  content: string;
}

export interface GenerateOptions {
  /** Most tokens to generate. Default 512. */
  maxTokens?: number;
  /** 0 is greedy: always the most likely token. Default 0.7. */
  temperature?: number;
  /** Same as temperature 0. */
  greedy?: boolean;
  /** Sample among the k most likely tokens; 0: all. Default 40. */
  topK?: number;
  /** Sample among the fewest tokens whose probabilities reach p, 0 < p <= 1. Default 0.95. */
  topP?: number;
  /** Drop tokens less likely than p times the most likely one, 0 to 1. Default 0.05. */
  minP?: number;
  /** Makes recent tokens less likely; 1 is off. Default 1. */
  repeatPenalty?: number;
  /** How many tokens are recent, at most 1024. Default 64. */
  repeatLast?: number;
  /** Same seed and options, same text: on every machine, with any number of threads. Default: random, see stats.seed. */
  seed?: number | bigint;
  /**
   * Only texts of this grammar, in GBNF, the notation of llama.cpp: its rule `root` is the whole answer. Tokens that cannot follow are
   * out before topK and the other options choose. The answer ends ('stop') when the grammar can end and the model wants to, or nothing
   * else is possible; maxTokens and a full context may cut it before. Error 'argument' names line and column (`offset`: the byte),
   * 'unsupported': the vocabulary lacks what the grammar wants, or the grammar is too ambiguous.
   */
  grammar?: string;
  /**
   * Only JSON that satisfies this JSON schema; true or {}: any JSON. Objects have their properties in the order of the schema, and others
   * only where `additionalProperties` is given or `properties` is not; a schema without `type` means the type its keywords are about.
   * Known: type (also an array of them), nullable, enum, const, properties, required, additionalProperties, items, prefixItems, minItems,
   * maxItems, minLength, maxLength, pattern (no look-around, no back references), format (date, time, date-time, uuid), minimum, maximum,
   * exclusiveMinimum, exclusiveMaximum (whole bounds, where the type is number), anyOf, oneOf (of parts that exclude each other), allOf,
   * $ref within the schema (recursion too). All else is an error 'argument' that names its place.
   */
  jsonSchema?: object | boolean;
  /** Only a JSON object, of any content. */
  json?: boolean;
  /** Ends the answer when one of these appears; it is not part of the text. They may span tokens. */
  stop?: string | readonly string[];
  /** Go on past tokens that end a turn, for measuring. Default false. */
  ignoreEnd?: boolean;
  /** Ends the generation within about 50 ms, also while the prompt is read: finishReason 'abort', no error. */
  signal?: AbortSignal;
  /** Tokens of the prompt read so far, those taken over from before included. What it throws ends the generation. */
  onPrefill?: (progress: { done: number; total: number }) => void;
}

export interface RawGenerateOptions extends GenerateOptions {
  /** Begin with BOS if the model wants it. Default true. */
  bos?: boolean;
  /** Read names such as `<|im_start|>` in the prompt as control tokens. Default false. */
  special?: boolean;
}

export interface ChatOptions extends GenerateOptions {
  /** A Jinja chat template instead of the file's. */
  template?: string;
}

export interface TokenizeOptions {
  /** Put BOS first if the model wants it. Default false. */
  bos?: boolean;
  /** Read names such as `<|im_start|>` as control tokens. Default false. */
  special?: boolean;
}

/** Why an answer ended: a stop token or string, maxTokens, a full context, or the caller. */
export type FinishReason = 'stop' | 'length' | 'context' | 'abort';

/** One token. */
export interface TokenChunk {
  /**
   * Text that has become certain: whole characters only, and nothing that may still turn out to begin a stop string. May be empty.
   */
  text: string;
  id: number;
  finishReason?: undefined;
}

/** The last chunk: text that was held back, and how it ended. */
export interface FinalChunk {
  text: string;
  id: null;
  finishReason: FinishReason;
  /** The stop string that was met. */
  stop: string | null;
  stats: GenerateStats | null;
}

export type Chunk = TokenChunk | FinalChunk;

export interface GenerateResult {
  text: string;
  ids: number[];
  finishReason: FinishReason;
  stop: string | null;
  /** null when it was aborted before its turn came. */
  stats: GenerateStats | null;
}

export interface GenerateStats {
  promptTokens: number;
  /** Tokens of the prompt that were taken over from the previous call. */
  cachedTokens: number;
  completionTokens: number;
  prefillSeconds: number;
  prefillTokensPerSecond: number;
  decodeSeconds: number;
  /** null below two tokens. */
  decodeTokensPerSecond: number | null;
  /** Seconds from the start of the prefill to the first token; null if there was none. */
  timeToFirstToken: number | null;
  seed: number | bigint;
}

/**
 * An answer in the making. Iterate it for its chunks, the last of which has `finishReason`; leaving the loop early stops the engine.
 * Or await `text()` or `result`.
 */
export interface Generation extends AsyncGenerator<Chunk, GenerateResult, undefined> {
  readonly result: Promise<GenerateResult>;
  text(): Promise<string>;
  /** Stops the engine, for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

/**
 * - `http`: the server answered with an error; `status`, `url`
 * - `network`: it cannot be reached, or the download broke off
 * - `io`: a file cannot be read (Node)
 * - `format`: not a model, or a damaged one; `offset` in the file
 * - `checksum`: bytes differ from their digest; `offset`
 * - `unsupported`: an architecture, type or host that this build does not run
 * - `memory`: it does not fit
 * - `context`: the prompt is longer than the context
 * - `argument`: a call with a value that is not allowed; the message names it
 * - `aborted`: load() was stopped by its signal; `cause` is the signal's reason, `name` is 'AbortError'
 * - `disposed`: the model is gone
 * - `worker`: a worker did not start, or failed; the model is gone
 */
export type ErrorCode =
  | 'http' | 'network' | 'io' | 'format' | 'checksum' | 'unsupported' | 'memory' | 'context' | 'argument' | 'aborted' | 'disposed'
  | 'worker';

export class BitpairError extends Error {
  constructor(code: ErrorCode, message: string, details?: { offset?: number; status?: number; url?: string; cause?: unknown });
  readonly code: ErrorCode;
  readonly offset?: number;
  readonly status?: number;
  readonly url?: string;
}
