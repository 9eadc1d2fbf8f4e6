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
 * - a `ReadableStream` of Uint8Arrays; it is read as far as the model goes, then cancelled
 *
 * From a URL several byte ranges come at once where the server has them, and each piece of 1 MiB is checked as it arrives. What
 * breaks goes on where it stopped, what is damaged is fetched again; a file that changes meanwhile is begun anew.
 */
export type ModelSource = string | URL | RequestLike | Blob | Uint8Array | ArrayBuffer | ReadableStream<Uint8Array>;

export interface RequestLike {
  url: string;
  headers?: HeadersInit;
  credentials?: RequestCredentials;
  cache?: RequestCache;
  mode?: RequestMode;
  redirect?: RequestRedirect;
  referrerPolicy?: ReferrerPolicy;
  /** Of the whole response, as fetch() checks it: it rules out ranges. See `LoadOptions.integrity` for the better way. */
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
  /**
   * Read the first `tier` tiers of the file only: fewer bytes, less memory, less quality. 1 to `model.info.tiers`. Default: all.
   * Up to 1 MiB more is read, so that the last piece can be checked.
   */
  tier?: number;
  /** Check each piece against its SHA-256 digest. Default true. Files without digests (plain GGUF) are accepted either way. */
  verify?: boolean;
  /**
   * Which file it must be: 'sha256-' and the value of its key `bitpair.header_sha256`, as 64 hex digits or in base64. That is the
   * digest of everything before the tensor data (its own 32 bytes taken as zero): hyper-parameters, tokenizer, chat template, the
   * place of each tensor, and the digests of all pieces. So with `verify` it covers every byte that is read. Another file is
   * refused with code 'checksum', as soon as its header is there. A complete pinned copy is opened without asking the server.
   */
  integrity?: string;
  /**
   * Keep what comes from an http(s) URL: true, false, or the name of another cache than 'bitpair' (in Node: the path of a folder;
   * the default is `bitpair` in the user's cache folder). Default true. Pieces are kept as they arrive, so a load that was broken
   * off goes on where it stopped, also after a reload or in a new process. A complete copy is used when the server says that the
   * file is the same, or does not answer within 5 s; what is read from it is checked like the rest. Browsers: the origin private
   * file system, else the Cache API. What cannot be kept never stops a load: see `model.info.cacheReason`. Files without
   * checksums, and loads with `verify: false`, are not kept.
   */
  cache?: boolean | string;
  /**
   * How often in a row a request is tried again after a failure that may pass: no connection, one that breaks or is silent for 30 s, 408, 425, 429, 500,
   * 502, 503, 504. After 0.25 s, then twice as long each time up to 8 s, each half to one and a half times that at random; at least
   * what Retry-After asks for, up to a minute. 64 KiB more begin the count anew. Default 5.
   */
  retries?: number;
  /** Called about ten times a second while the model loads. What it throws ends the loading. */
  onProgress?: (progress: LoadProgress) => void;
  /** Stops loading: the promise rejects with code 'aborted', workers and memory are gone. What has arrived stays in the cache. */
  signal?: AbortSignal;
}

export interface LoadProgress {
  phase: 'download' | 'ready';
  /** Bytes at hand, in memory. */
  loaded: number;
  /** Bytes to be read in all; null until they are known. */
  total: number | null;
  /** Bytes per second over the last three seconds; null when not known. */
  rate: number | null;
  /** Seconds left; null when not known. */
  eta: number | null;
  /** Requests that failed and were tried again, damaged pieces, and new beginnings, so far. */
  retries: number;
  /** Why the file is not kept, or no longer: as `model.info.cacheReason`. */
  cacheReason: string | null;
}

/**
 * Opens a model.
 * @throws {BitpairError} code 'http', 'network', 'io', 'format', 'checksum', 'unsupported', 'memory', 'aborted', 'argument' or 'worker'.
 *   After a failure nothing is left: no worker, no memory.
 */
export function load(source: ModelSource, options?: LoadOptions): Promise<Model>;

export interface MemoryEstimate {
  /** Bytes of WebAssembly memory after load(): what `model.info.memoryBytes` will be, to within a few percent. */
  total: number;
  /** Bytes of the file up to the tier. */
  weights: number;
  /** Bytes of the session: context and buffers. */
  session: number;
  /** Bytes of the rest: engine, tokenizer, tables, stacks of threads. */
  engine: number;
  /** Threads that load() would use. */
  threads: number;
}

/**
 * Tells what load() would take, from the header of the file alone: one request of a range, two for a large tokenizer. (A stream is
 * used up by it.)
 * @throws {BitpairError} as load() does
 */
export function estimateMemory(
  source: ModelSource,
  options?: Pick<LoadOptions, 'threads' | 'contextSize' | 'tier' | 'integrity' | 'cache' | 'retries' | 'signal'>,
): Promise<MemoryEstimate>;

export interface CachedModel {
  url: string;
  /** Bytes at hand. */
  bytes: number;
  /** Bytes of the whole file. */
  total: number;
  /** Is the whole file there? */
  complete: boolean;
  /** null: it has not been loaded to the end yet. */
  lastUsed: Date | null;
}

/**
 * The models that load() has kept. `name` is what `LoadOptions.cache` had. All fail with code 'io' when the store cannot be read or
 * changed: a model that another page is writing cannot be deleted.
 */
export const cache: {
  /** The last used first. */
  list(name?: string): Promise<CachedModel[]>;
  /** Bytes of all. */
  size(name?: string): Promise<number>;
  /** Deletes what was kept of one URL; false: there was nothing. */
  delete(url: string | URL, name?: string): Promise<boolean>;
  clear(name?: string): Promise<void>;
};

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
  /** Is everything that was loaded now in the cache? */
  cached: boolean;
  /** Bytes that came from there. */
  cachedBytes: number;
  /** Why it is not in the cache although that was wanted; else null. */
  cacheReason: string | null;
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
