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
 * - a `Response`: its body, read as a stream is. An error has code 'http', a body that breaks off 'network'. Nothing of it is kept or
 *   fetched again: an address does more
 * - a `File` or `Blob`
 * - its bytes; they are copied into the model's memory piece by piece and not kept
 * - a `ReadableStream` of Uint8Arrays; it is read as far as the model goes, then cancelled
 *
 * From a URL several byte ranges come at once where the server has them, and each piece of 1 MiB is checked as it arrives. What
 * breaks goes on where it stopped, what is damaged is fetched again; a file that changes meanwhile is begun anew. Schemes are http, https,
 * data, blob, in Node file, and that of the page; for others there is the Response.
 */
export type ModelSource = string | URL | RequestLike | Response | Blob | Uint8Array | ArrayBuffer | ReadableStream<Uint8Array>;

export interface RequestLike {
  url: string;
  /** GET, as in a Request that says nothing of it; another is an error 'argument'. */
  method?: string;
  /** Stops the load as `LoadOptions.signal` does. Where there are both, either does. */
  signal?: AbortSignal | null;
  /** As fetch() takes them. This and the others are spelled out: projects without a DOM lack its names for them. */
  headers?: { [name: string]: string } | [string, string][] | { forEach(callback: (value: string, name: string) => void): void };
  credentials?: 'include' | 'omit' | 'same-origin';
  /** Of the browser's HTTP cache. 'default', which every Request has, is as none: what this package keeps does not go there too. */
  cache?: 'default' | 'force-cache' | 'no-cache' | 'no-store' | 'only-if-cached' | 'reload';
  mode?: 'cors' | 'navigate' | 'no-cors' | 'same-origin';
  redirect?: 'error' | 'follow' | 'manual';
  referrerPolicy?:
    | '' | 'no-referrer' | 'no-referrer-when-downgrade' | 'origin' | 'origin-when-cross-origin' | 'same-origin' | 'strict-origin'
    | 'strict-origin-when-cross-origin' | 'unsafe-url';
  /** Of the whole response, as fetch() checks it: it rules out ranges. See `LoadOptions.integrity` for the better way. */
  integrity?: string;
}

export type EngineSource = string | URL | ArrayBuffer | ArrayBufferView | WasmModule;

/** A `WebAssembly.Module`. Its own type has no members either, and not every project knows it. */
export type WasmModule = object;

export interface LoadOptions {
  /**
   * Threads, 1 to 64. Default: all logical processors up to two, else half of them, at most four. One where threads cannot be had:
   * then `model.info.threadsReason` says why.
   */
  threads?: number;
  /** Positions of the context, prompt and answer together. Default: the smaller of 2048 and what the model was trained for. */
  contextSize?: number;
  /**
   * How keys and values of the context are kept: 'q8', 8 bits with a scale per head, or 'f16', half precision with twice the memory.
   * 'q8' takes `2 * layers * kvHeads * (headSize + 4)` bytes per position: 25 MB for 2048 positions of SmolLM2-135M. Default 'q8'.
   */
  kvCache?: 'q8' | 'f16';
  /**
   * Read the first `tier` tiers of the file only: fewer bytes, less memory, less quality. 1 to `model.info.tiers`. Default: all.
   * Up to 1 MiB more is read, so that the last piece can be checked.
   */
  tier?: number;
  /**
   * Resolve as soon as the first tiers are there, and go on reading: 'first-tier', or how many. Memory is taken for all of them at once.
   * Each further tier is taken up between two tokens when the last of its pieces is checked; keys and values of earlier tokens stay
   * as they are. So an answer depends on when tiers arrive, even with a seed: see `Chunk.tier`, `GenerateStats.firstTier` and
   * `lastTier`; once `model.complete` has resolved, `generate({ fresh: true })` gives what a model that was loaded whole gives. A file
   * with fewer tiers, or none, is read to its end first. More than `tier` is an error.
   */
  startAt?: 'first-tier' | number;
  /** Called with each number of tiers that the model begins to use, from the first on. What it throws is treated as from `onProgress`. */
  onTier?: (tier: number) => void;
  /** To hold the reading and let it go on, before and after load() has resolved. */
  control?: LoadController;
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
   * file is the same, and where it says nothing of it: when there is no answer within 5 s, an error (401, 403, 404, 5xx), or something
   * that is no model, such as a page to sign in; an incomplete one leads to the error of that. What is read from a copy is checked like
   * the rest. So who may no longer fetch a file may still have it: `cache.delete()` takes it away. Browsers: the origin private
   * file system, else the Cache API. What cannot be kept never stops a load: see `model.info.cacheReason`. While another page writes
   * the same file there, this load does not; it goes on with that copy when it can. Files without checksums, and loads with
   * `verify: false`, are not kept.
   */
  cache?: boolean | string;
  /** Where `worker.js` of this package is served, if not beside its other files: a URL, relative to the page. Browsers want the page's own origin. */
  workerUrl?: string | URL;
  /**
   * The engine, if it is not to come from beside `worker.js`: a URL, bytes, a compiled module; or a function that gives one of
   * these for 'bitpair.wasm' (one thread) and 'bitpair-threads.wasm', and for 'bitpair-relaxed.wasm' and 'bitpair-threads-relaxed.wasm'
   * (the same with relaxed SIMD; undefined: the plain one serves), undefined for the package's own. Without a function the same is
   * taken for all: one for one thread gives one thread, unless `threads` asks for more, which is an error; one for several needs several.
   */
  wasm?: EngineSource | ((file: string) => EngineSource | undefined);
  /**
   * How often in a row a request is tried again after a failure that may pass: no connection, one that breaks or is silent for 30 s, 408, 425, 429, 500,
   * 502, 503, 504. After 0.25 s, then twice as long each time up to 8 s, each half to one and a half times that at random; at least
   * what Retry-After asks for, up to a minute. 64 KiB more begin the count anew. Default 8: about half a minute. A load that has
   * received something and is then offline, as `navigator.onLine` tells, waits however long that takes: it costs no retry. With 0 it fails.
   */
  retries?: number;
  /**
   * Called about ten times a second while the model loads, once a second while nothing comes. What it throws ends the loading:
   * load() rejects with it, or after that `model.complete`.
   */
  onProgress?: (progress: LoadProgress) => void;
  /**
   * Stops loading: the promise rejects with code 'aborted', workers and memory are gone. What has arrived stays in the cache. After
   * load() has resolved it stops the reading of what is missing: `model.complete` rejects, the model stays at its tier.
   */
  signal?: AbortSignal;
}

/**
 * Holds a load: `load(url, { control })`. What is in flight still arrives, then nothing is read until resume(); connections that the
 * server closes meanwhile are opened anew. Its state is that of every load it is given to.
 */
export class LoadController {
  readonly paused: boolean;
  pause(): void;
  resume(): void;
}

export interface LoadProgress {
  /**
   * 'ready': once, when load() is about to resolve. With `startAt` the download goes on after it, and 'complete' is the last report
   * where all could be read.
   */
  phase: 'download' | 'ready' | 'complete';
  /** Is it held by `LoadOptions.control`? */
  paused: boolean;
  /** Tiers of the file that are at hand and checked; 0 before the first. */
  tier: number;
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
  /** What the last request that failed and was tried again has said: why it takes so long. null: none has. */
  lastError: string | null;
  /** Why the file is not kept, or no longer: as `model.info.cacheReason`. */
  cacheReason: string | null;
}

/**
 * Opens a model. What its header tells to be impossible (an architecture, a context) is refused before the rest is downloaded.
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
 * used up by it, and so is a Response: give its `clone()`.)
 * @throws {BitpairError} as load() does
 */
export function estimateMemory(
  source: ModelSource,
  options?: Pick<LoadOptions, 'threads' | 'contextSize' | 'kvCache' | 'tier' | 'integrity' | 'cache' | 'retries' | 'signal' | 'workerUrl' | 'wasm'>,
): Promise<MemoryEstimate>;

export interface CachedModel {
  url: string;
  /** Bytes at hand. */
  bytes: number;
  /** Bytes of the whole file. */
  total: number;
  /** Is the whole file there? */
  complete: boolean;
  /** When a load of it last came to its end; null: none has yet. */
  lastUsed: Date | null;
}

/**
 * The models that load() has kept. `name` is what `LoadOptions.cache` had. All fail with code 'io' when the store cannot be read or
 * changed: a model that another page is writing cannot be deleted; with 'argument' for a name or an address that is none.
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

/** One timeline of tokens through a model. Several share its weights; they run side by side and do not know of each other. */
export interface Session {
  /** Positions of its context. */
  readonly contextSize: number;

  /**
   * Continues a prompt: text (BOS is added if the model wants it; names of control tokens are plain text) or token ids.
   * Nothing runs before the first `next()`, `result` or `text()`. Of one session one call runs at a time; others wait, in the order in
   * which they were made (a generation: started).
   * What the prompt shares with the previous prompt and answer is not computed again.
   */
  generate(prompt: string | ArrayLike<number>, options?: RawGenerateOptions): Generation;

  /**
   * Answers a conversation, by the chat template in the model file.
   * Errors of the template (roles in an order it refuses, one that does not end) have code 'argument'.
   */
  chat(messages: readonly ChatMessage[], options?: ChatOptions): Generation;

  /**
   * Vectors [info.width] of texts (or lists of token ids): the final normalised hidden states of each, pooled. A string gives one
   * vector, an array one for each of its items. The cached prompt of the last answer is given up.
   * @throws {BitpairError} 'context' for a text longer than the context, 'argument' for one without tokens ('' where no BOS is added),
   *   'aborted'.
   */
  embed(text: string, options?: EmbedOptions): Promise<Float32Array>;
  embed(texts: readonly (string | ArrayLike<number>)[], options?: EmbedOptions): Promise<Float32Array[]>;

  /**
   * How likely the model finds a text, token by token, at temperature 1. Gives up the cached prompt of the last answer.
   * @throws {BitpairError} 'context' for a text longer than the context, 'argument' for one without tokens ('' where no BOS is added),
   *   'aborted'.
   */
  score(text: string | ArrayLike<number>, options?: PromptOptions): Promise<Score>;

  /** Logits [info.vocabulary] of the token after a prompt. @throws {BitpairError} as score(). */
  logits(prompt: string | ArrayLike<number>, options?: PromptOptions): Promise<Float32Array>;

  /**
   * What the session holds: the tokens of the last prompt and answer with their keys and values, sampling options and random
   * numbers. `2 * layers * kvHeads * (headSize + 4)` bytes per token ('f16': `headSize * 2`). Checksummed; for this model, tier and kvCache only,
   * on any machine.
   */
  saveState(): Promise<Uint8Array>;

  /**
   * Takes up a saved state: a prompt that begins with its tokens is not computed again. The model it is given to may have another
   * contextSize and number of threads.
   * @throws {BitpairError} 'format', 'unsupported' (of another version), 'checksum' (damaged), 'argument' (of another model, tier or kvCache),
   *   'context' (longer than this context). Then nothing is changed.
   */
  restoreState(state: Uint8Array): Promise<void>;

  /** A new session that goes on from what this one holds, with the same contextSize: its answers cost no prefill of that. */
  fork(): Promise<Session>;

  /** Frees its memory. Running and later calls fail with code 'disposed'. */
  dispose(): Promise<void>;

  /** dispose(), for `await using`. */
  [Symbol.asyncDispose](): Promise<void>;
}

export interface SessionOptions {
  /** Positions of its context. Default: as many as the model's own session has. */
  contextSize?: number;
}

/** A model, and its own session. */
export interface Model extends Session {
  /** A snapshot: a new object after each tier. */
  readonly info: Readonly<ModelInfo>;

  /** Tiers in use now, and those of the file; 0 for a plain GGUF model. */
  readonly tier: number;
  readonly tiers: number;

  /**
   * Resolves when all is there that load() was asked for; without `startAt` it is resolved. Rejects when the rest cannot be had
   * (codes as load(); 'aborted' by its signal, 'disposed'): the model stays at its tier.
   */
  readonly complete: Promise<void>;

  /** A new, empty session over the same weights. @throws {BitpairError} 'memory', 'argument' */
  session(options?: SessionOptions): Promise<Session>;

  /** What it takes, has done and holds, as of now; also while it answers. */
  stats(): Promise<ModelStats>;

  /** Text -> token ids. */
  tokenize(text: string, options?: TokenizeOptions): Promise<number[]>;

  /**
   * Token ids -> text. Control tokens are left out unless `special`; broken UTF-8 becomes U+FFFD.
   *
   * @throws {BitpairError} code 'argument' for what is not in the vocabulary
   */
  detokenize(ids: ArrayLike<number>, options?: { special?: boolean }): Promise<string>;

  /**
   * What the model is made of: the embedding, the head if it is another matrix, then the linear layers block by block. This and the
   * next three may be called at any time, also while an answer is made.
   */
  layers(): Promise<LayerInfo[]>;

  /** The tiers of the file, the smallest first; none for a plain GGUF. */
  fileTiers(): Promise<TierInfo[]>;

  /**
   * The signs of one factor of a stage, from 0. Packed: see SignMatrix.
   * @throws {BitpairError} 'argument' for a layer that there is not, or a stage that is not loaded
   */
  signs(layer: string, stage: number, factor: 'A' | 'B'): Promise<SignMatrix>;

  /** The scales of a stage. @throws {BitpairError} as signs(). */
  scales(layer: string, stage: number): Promise<StageScales>;

  /** Ends the workers and frees all memory, sessions included. Running and later calls fail with code 'disposed'; a download ends. */
  dispose(): Promise<void>;
}

export interface ModelStats {
  /** Bytes of WebAssembly memory: `total` of all, `weights` for the file, `sessions` for all sessions; the rest is the engine's own. */
  memory: { total: number; weights: number; sessions: number };
  /** Sessions that are open, the model's own included. */
  sessions: number;
  /** Since load(): tokens fed as prompts, of prompts taken over from before, and generated. */
  tokens: { prompt: number; reused: number; generated: number };
  /** Tokens per second, over all that was measured since load(); null before. */
  rates: { prefill: number | null; decode: number | null };
  tier: number;
  tiers: number;
  bitsPerWeight: number;
  threads: number;
  threadsReason: string | null;
  /** Kernels in use. */
  isa: string;
  /** As in `info`, but while it loads as far as it has come. */
  cache: { cached: boolean; bytes: number; reason: string | null };
  /** Bytes of the file at hand, and those to be read. */
  loaded: number;
  total: number;
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
  /** How its keys and values are kept. */
  kvCache: 'q8' | 'f16';
  /** Quality tiers of the file and how many of them are in use; 0 for a plain GGUF model. */
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
  /** Kernels in use: 'relaxed' where the browser has relaxed SIMD, else 'simd128'. Both give the same bits. */
  isa: string;
}

/** A matrix W [rows, columns] of the model, y = W x. */
export interface LayerInfo {
  /** As in the file: 'token_embd', 'output', 'blk.3.attn_q'; 'blk.3.attn_qkv' and 'blk.3.ffn_gate_up' where layers are fused. */
  name: string;
  /** Which block it belongs to, from 0; null: embedding and head. */
  block: number | null;
  rows: number;
  columns: number;
  /** 'signs': a stack of stages. 'planes': bit planes. Else the type of a plain tensor: 'Q8_0'. */
  type: string;
  /** Number of bit planes; null for other types. */
  planes: number | null;
  /** Of type 'signs': W is the sum of diag(a) A diag(c) B diag(b) over these; none for other types. */
  stages: LayerStage[];
  /** Bits in the file of what is loaded, scales and padding counted. */
  bits: number;
  /** bits / (rows * columns) */
  bitsPerWeight: number;
}

export interface LayerStage {
  /** Middle dimension k: A is [rows, k], B is [k, columns]. */
  middle: number;
  /** Bits in the file, scales and padding counted. */
  bits: number;
  loaded: boolean;
}

export interface TierInfo {
  /** Bytes of the file up to here. */
  bytes: number;
  /** Bits per weight of the linear layers up to here, all scales counted. */
  bitsPerWeight: number;
  loaded: boolean;
}

/**
 * Signs row by row: bit i (the least significant first) of byte `row * ceil(columns / 8) + j` is column 8 j + i; 1 means +1, 0 means
 * -1. Bits past the last column are 0.
 */
export interface SignMatrix {
  rows: number;
  columns: number;
  bits: Uint8Array;
}

/** diag(a) A diag(c) B diag(b): a [rows], c [middle], b [columns]. */
export interface StageScales {
  a: Float32Array;
  c: Float32Array;
  b: Float32Array;
}

/** What this host can do, as a worker of it sees. Nothing is downloaded but the package's own script; safe on a server. */
export function capabilities(options?: Pick<LoadOptions, 'workerUrl'>): Promise<Capabilities>;

export interface Capabilities {
  /** null: workers start. Else nothing works here; the rest is what the page sees. */
  workerReason: string | null;
  /** SIMD of 128 bits: without it load() fails with code 'unsupported'. */
  simd: boolean;
  relaxedSimd: boolean;
  /** Threads that load() would use, and why not more. */
  threads: number;
  threadsReason: string | null;
  logicalProcessors: number;
  /** Is the page cross-origin isolated? Node counts as such. */
  crossOriginIsolated: boolean;
  secureContext: boolean;
  /** Where models are kept: 'opfs' (the origin private file system), 'cache-api', 'folder' (Node); null: nowhere, and why. */
  storage: 'opfs' | 'cache-api' | 'folder' | null;
  storageReason: string | null;
  /** Bytes that this origin (or the disk) still has room for; null where it is not told. */
  storageBytes: number | null;
  /** Address space that an engine gets at most, bytes: the limit of model and contexts together. The host may have less memory. */
  memoryLimit: number;
  /** Bytes of memory of the device, rounded by the browser; null where it is not told. */
  deviceMemory: number | null;
}

export interface ChatMessage {
  role: 'system' | 'user' | 'assistant' | 'tool';
  /** May be left out or null in an assistant's message that has `toolCalls`. */
  content?: string | null;
  /** Of an assistant: the tools that it called. */
  toolCalls?: readonly ToolCall[];
  /** Of a tool's answer: the call's `id`, and the tool's name. */
  toolCallId?: string;
  name?: string;
}

/** A function that the model may ask for. */
export interface Tool {
  name: string;
  description?: string;
  /** JSON schema of its arguments, an object. */
  parameters?: object;
}

/** Something that the model asks for. */
export interface ToolCall {
  /** Made up here: 'call_' and a number, unique in its conversation as far as `messages` shows it. */
  id: string;
  name: string;
  arguments: { [name: string]: unknown };
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
  /** Sample among the fewest tokens whose surprise is nearest to the expected one and that reach p, 0 < p <= 1. Default 1: off. */
  typicalP?: number;
  /** Sample among the fewest tokens whose probabilities reach p, 0 < p <= 1. Default 0.95. */
  topP?: number;
  /** Drop tokens less likely than p times the most likely one, 0 to 1. Default 0.05. */
  minP?: number;
  /** Divides (or multiplies, where negative) the logits of recent tokens; 1 is off. Default 1. */
  repeatPenalty?: number;
  /** Is subtracted from a token's logit for each time it is among the recent ones, -100 to 100; OpenAI's range is -2 to 2. Default 0. */
  frequencyPenalty?: number;
  /** Is subtracted once from the logit of each recent token, -100 to 100. Default 0. */
  presencePenalty?: number;
  /** How many tokens of prompt and answer are recent to the three penalties, at most 1024. Default 64. */
  repeatLast?: number;
  /** Token id -> what is added to its logit; -Infinity bans it. At most 1024 tokens. Default: none. */
  logitBias?: Readonly<Record<number, number>> | ReadonlyMap<number, number>;
  /**
   * Give each token's log probability, and those of so many most likely tokens, 0 to 20. They are the model's own: at temperature 1,
   * before bias, penalties and truncation. Default: none are computed.
   */
  logprobs?: number | null;
  /**
   * How many answers, 1 to 128, one after another; the prompt is read once. Answer i is the one that `seed + i` alone would give.
   * Default 1.
   */
  n?: number;
  /**
   * When the context is full: 'stop' ends the answer (finishReason 'context'), 'error' rejects with code 'context', 'shift' forgets the
   * older half of what follows the first `sinkTokens` tokens and goes on. What was computed while the forgotten could be seen stays,
   * so this is not the same as a shorter prompt. A prompt that is too long is an error in any case. Default 'stop'.
   */
  overflow?: 'stop' | 'shift' | 'error';
  /** First tokens that a shift keeps, at most half the context. Default 4. */
  sinkTokens?: number;
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
   * $ref within the schema (recursion too); discriminator and a propertyNames of any string say nothing. Integers have at most 15
   * digits and bounded numbers lie within +-1e9: wider bounds are narrowed to that. All else is an error 'argument' that names its place.
   */
  jsonSchema?: object | boolean;
  /** Only a JSON object, of any content. */
  json?: boolean;
  /** Compute the whole prompt anew, also what it shares with the one before. Default false. */
  fresh?: boolean;
  /** Ends the answer when one of these appears; it is not part of the text. They may span tokens. */
  stop?: string | readonly string[];
  /** Go on past tokens that end a turn, for measuring. Default false. */
  ignoreEnd?: boolean;
  /** Ends the generation within about 50 ms, also while the prompt is read: finishReason 'abort', no error. */
  signal?: AbortSignal;
  /** Tokens of the prompt read so far, those taken over from before included. What it throws ends the generation. */
  onPrefill?: (progress: { done: number; total: number }) => void;
}

/** How a prompt given as text becomes tokens. */
export interface PromptOptions {
  /** Begin with BOS if the model wants it. Default true. */
  bos?: boolean;
  /** Read names such as `<|im_start|>` in the prompt as control tokens. Default false. */
  special?: boolean;
  /** Stops the call, also while it waits for its turn: it rejects with code 'aborted'; the session stays usable. */
  signal?: AbortSignal;
}

export interface RawGenerateOptions extends GenerateOptions, Omit<PromptOptions, 'signal'> {}

export interface EmbedOptions extends PromptOptions {
  /** The mean over all tokens, or the last token's. Default 'mean'. */
  pooling?: 'mean' | 'last';
  /** Scale to length 1. Default true. */
  normalize?: boolean;
}

export interface TokenLogprob {
  id: number;
  /** Its text, control tokens by name; U+FFFD where it is a part of a character, see `bytes`. */
  text: string;
  bytes: number[];
  /** Natural logarithm of its probability. */
  logprob: number;
}

export interface TokenLogprobs extends TokenLogprob {
  /** The most likely tokens, best first. */
  top: TokenLogprob[];
}

export interface Score {
  /** Sum over all tokens but the first, to which nothing is given. */
  logprob: number;
  /** The text's tokens, BOS included; null for the first. */
  tokens: (Omit<TokenLogprob, 'logprob'> & { logprob: number | null })[];
}

export interface ChatOptions extends GenerateOptions {
  /** A Jinja chat template instead of the file's. */
  template?: string;
  /**
   * The last message, of the assistant and without `toolCalls`, is the beginning of the answer: go on with it. Only what is new is
   * given. Default false.
   */
  continueLast?: boolean;
  /**
   * Functions that the model may ask for. The template tells the model of them if it knows tools; else a system message does, in the
   * words of SmolLM2. Calls are cut out of the text and come as `toolCalls`: in the chunk that ends them, and in the result.
   * Understood are `<tool_call>{"name": ..., "arguments": ...}</tool_call>` (Hermes, Qwen, SmolLM2 also with a list) and a whole
   * answer {"name": ..., "parameters": ...} where the template asks for that (Llama 3). What looks like a call but is not JSON, or
   * names no tool of the list, stays text.
   */
  tools?: readonly Tool[];
  /**
   * 'auto': the model chooses. 'none': it is told of no tools. 'required', or { name }: the answer is one call of some tool, or of this
   * one, with arguments that satisfy its schema (see `jsonSchema`; `#` is the schema itself), by a grammar. Default 'auto'.
   */
  toolChoice?: 'auto' | 'none' | 'required' | { name: string };
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
  /** Which of `n` answers it belongs to, from 0. */
  index: number;
  /** Tiers that the model used when it chose this token. */
  tier: number;
  /** Tool calls that this token has ended. */
  toolCalls?: ToolCall[];
  /** Where the option `logprobs` asks for it. */
  logprobs?: TokenLogprobs;
  finishReason?: undefined;
}

/** The last chunk of an answer: text that was held back, and how it ended. */
export interface FinalChunk {
  text: string;
  id: null;
  index: number;
  tier: number;
  toolCalls?: ToolCall[];
  finishReason: FinishReason;
  /** The stop string that was met. */
  stop: string | null;
  /** Of all answers, with the last one; null with those before it. */
  stats: GenerateStats | null;
}

export type Chunk = TokenChunk | FinalChunk;

export interface Answer {
  text: string;
  ids: number[];
  /** One entry per token; null unless the option `logprobs` asks for them. */
  logprobs: TokenLogprobs[] | null;
  /** In the order of the text; empty where there are none. */
  toolCalls: ToolCall[];
  finishReason: FinishReason;
  stop: string | null;
}

/** The first answer, and all of them. */
export interface GenerateResult extends Answer {
  /** As many as option `n` says; fewer when it was aborted. */
  answers: Answer[];
  /** null when it was aborted before its turn came. */
  stats: GenerateStats | null;
}

export interface GenerateStats {
  promptTokens: number;
  /** Tokens of the prompt that were taken over from the previous call. */
  cachedTokens: number;
  /** Of all answers, as are the durations and rates. */
  completionTokens: number;
  prefillSeconds: number;
  /** null where the clock is too coarse to tell. */
  prefillTokensPerSecond: number | null;
  decodeSeconds: number;
  /** null below two tokens, and where the clock is too coarse to tell. */
  decodeTokensPerSecond: number | null;
  /** Seconds from the start of the prefill to the first token; null if there was none. */
  timeToFirstToken: number | null;
  seed: number | bigint;
  /** Tiers that the model used at the first token and at the last; they differ where tiers arrived meanwhile. */
  firstTier: number;
  lastTier: number;
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
 * - `io`: a file or stream cannot be read
 * - `format`: not a model, or a damaged one; `offset` in the file
 * - `checksum`: bytes differ from their digest; `offset`
 * - `unsupported`: an architecture, type or host that this build does not run
 * - `memory`: it does not fit
 * - `context`: the prompt is longer than the context, or that is full and `overflow` is 'error'
 * - `argument`: a call with a value that is not allowed; the message names it
 * - `aborted`: the call was stopped by its signal; `cause` is the signal's reason, `name` is 'AbortError'
 * - `disposed`: the model, or the session, is gone
 * - `worker`: a worker did not start, or failed; the model is gone
 */
export type ErrorCode =
  | 'http' | 'network' | 'io' | 'format' | 'checksum' | 'unsupported' | 'memory' | 'context' | 'argument' | 'aborted' | 'disposed'
  | 'worker';

/* ---- the shape of OpenAI's client ---- */

/**
 * A model behind the methods of OpenAI's client: what is written for `client.chat.completions.create()` and so on runs on it.
 *
 * ```js
 * const client = openai(model);
 * const { choices } = await client.chat.completions.create({ messages: [{ role: 'user', content: 'Hi' }] });
 * for await (const { choices } of await client.chat.completions.create({ messages, stream: true })) write(choices[0]?.delta.content ?? '');
 * ```
 *
 * What is left out or null has the default of `generate()`, not OpenAI's; penalties look at the last 1024 tokens. `functions`,
 * `audio`, `prediction`, `suffix`, `echo`, a `best_of` that differs from `n`, image parts and a `response_format` other than those
 * of OpenAI are refused with code 'unsupported'; parameters that only concern a service (`user`, `store`, ...) have no effect.
 * `parallel_tool_calls: false` gives the first call of an answer and no other. With `stream: true` create() resolves when the
 * prompt is being read, so it rejects for a request that is at fault; the answer goes on whether or not its chunks are taken.
 * `finish_reason` is 'stop', 'length' (also for a full context) or 'tool_calls'. Errors are BitpairErrors with `status` 400 and `type`
 * 'invalid_request_error' where the request is at fault, else 500 and 'server_error'. A request stopped by its signal rejects with
 * code 'aborted'; a stream just ends.
 */
export function openai(model: Model): OpenAIClient;

export interface OpenAIClient {
  chat: {
    completions: {
      create(params: OpenAIChatParams & { stream: true }, options?: OpenAIRequestOptions): Promise<OpenAIStream<OpenAIChatCompletionChunk>>;
      create(params: OpenAIChatParams & { stream?: false | null | undefined }, options?: OpenAIRequestOptions): Promise<OpenAIChatCompletion>;
      create(params: OpenAIChatParams, options?: OpenAIRequestOptions): Promise<OpenAIStream<OpenAIChatCompletionChunk> | OpenAIChatCompletion>;
    };
  };
  completions: {
    create(params: OpenAICompletionParams & { stream: true }, options?: OpenAIRequestOptions): Promise<OpenAIStream<OpenAICompletionChunk>>;
    create(params: OpenAICompletionParams & { stream?: false | null | undefined }, options?: OpenAIRequestOptions): Promise<OpenAICompletion>;
    create(params: OpenAICompletionParams, options?: OpenAIRequestOptions): Promise<OpenAIStream<OpenAICompletionChunk> | OpenAICompletion>;
  };
  embeddings: {
    /** Vectors of length 1, mean over the tokens. */
    create(params: OpenAIEmbeddingParams, options?: OpenAIRequestOptions): Promise<OpenAIEmbeddings>;
  };
}

export interface OpenAIRequestOptions {
  signal?: AbortSignal | undefined;
}

/** Aborting the controller, or leaving the loop, stops the engine. */
export interface OpenAIStream<T> extends AsyncGenerator<T, void, undefined> {
  controller: AbortController;
}

/** As in OpenAI's API; `top_k`, `min_p`, `typical_p` and `repeat_penalty` as in llama.cpp's server. */
export interface OpenAISamplingParams {
  /** Only repeated in the answer. Default: the name in the file. */
  model?: string;
  temperature?: number | null | undefined;
  top_p?: number | null | undefined;
  top_k?: number | null | undefined;
  min_p?: number | null | undefined;
  typical_p?: number | null | undefined;
  repeat_penalty?: number | null | undefined;
  frequency_penalty?: number | null | undefined;
  presence_penalty?: number | null | undefined;
  /** Token id -> added to its logit. */
  logit_bias?: { [id: string]: number } | null | undefined;
  /** May be negative. */
  seed?: number | null | undefined;
  stop?: string | string[] | null | undefined;
  n?: number | null | undefined;
  /** What the answer must be. OpenAI has it in chats only. */
  response_format?: OpenAIResponseFormat | null | undefined;
  stream?: boolean | null | undefined;
  stream_options?: { include_usage?: boolean } | null | undefined;
}

/** As the options `json` and `jsonSchema`. A json_schema needs its `schema`; name, description and strict have no effect. */
export type OpenAIResponseFormat =
  | { type: 'text' }
  | { type: 'json_object' }
  | { type: 'json_schema'; json_schema: { schema?: object | undefined; name?: string; description?: string; strict?: boolean | null | undefined } };

export interface OpenAIChatParams extends OpenAISamplingParams {
  /** role 'developer' is read as 'system'; content is text, or parts of type 'text'. */
  messages: readonly {
    role: string;
    content?: string | null | readonly { type: string }[] | undefined;
    tool_calls?: readonly object[] | undefined;
    tool_call_id?: string | undefined;
    name?: string | undefined;
  }[];
  /** Default: as many as fit into the context. */
  max_completion_tokens?: number | null | undefined;
  max_tokens?: number | null | undefined;
  logprobs?: boolean | null | undefined;
  /** 0 to 20. */
  top_logprobs?: number | null | undefined;
  /** Of type 'function'; see `ChatOptions.tools`. A call comes whole in one delta of a stream. */
  tools?: readonly object[] | null | undefined;
  /** 'none', 'auto', 'required', or { type: 'function', function: { name } }. */
  tool_choice?: string | object | null | undefined;
  parallel_tool_calls?: boolean | null | undefined;
}

export interface OpenAICompletionParams extends OpenAISamplingParams {
  /** Several prompts are answered one after another; they cannot be streamed. null, which OpenAI's types have, is an error 'argument'. */
  prompt: string | string[] | number[] | number[][] | null;
  /** Default 16. */
  max_tokens?: number | null | undefined;
  /** So many alternatives, 0 to 20. */
  logprobs?: number | null | undefined;
}

export interface OpenAIEmbeddingParams {
  input: string | string[] | number[] | number[][];
  model?: string;
  /** No other than info.width. */
  dimensions?: number | undefined;
  encoding_format?: 'float' | undefined;
}

export interface OpenAIUsage {
  prompt_tokens: number;
  completion_tokens: number;
  total_tokens: number;
  prompt_tokens_details: { cached_tokens: number };
}

export interface OpenAITokenLogprob {
  token: string;
  bytes: number[];
  logprob: number;
}

export interface OpenAIChatLogprobs {
  content: (OpenAITokenLogprob & { top_logprobs: OpenAITokenLogprob[] })[];
  refusal: null;
}

export interface OpenAIToolCall {
  id: string;
  type: 'function';
  /** arguments: JSON */
  function: { name: string; arguments: string };
}

export interface OpenAIChatCompletion {
  id: string;
  object: 'chat.completion';
  /** Seconds since 1970. */
  created: number;
  model: string;
  choices: {
    index: number;
    /** content is null where there are tool calls and no text. */
    message: { role: 'assistant'; content: string | null; refusal: null; tool_calls?: OpenAIToolCall[] };
    logprobs: OpenAIChatLogprobs | null;
    finish_reason: 'stop' | 'length' | 'tool_calls';
  }[];
  usage: OpenAIUsage;
}

export interface OpenAIChatCompletionChunk {
  id: string;
  object: 'chat.completion.chunk';
  created: number;
  model: string;
  /** One; none in the chunk that has the usage. */
  choices: {
    index: number;
    delta: { role?: 'assistant'; content?: string; refusal?: null; tool_calls?: (OpenAIToolCall & { index: number })[] };
    logprobs: OpenAIChatLogprobs | null;
    finish_reason: 'stop' | 'length' | 'tool_calls' | null;
  }[];
  /** With `stream_options.include_usage`: null but in the last chunk. */
  usage?: OpenAIUsage | null;
}

export interface OpenAICompletion {
  id: string;
  object: 'text_completion';
  created: number;
  model: string;
  choices: {
    index: number;
    text: string;
    logprobs: {
      tokens: string[];
      token_logprobs: number[];
      top_logprobs: { [token: string]: number }[];
      text_offset: number[];
    } | null;
    /** null in the chunks of a stream before the last, which OpenAI's types do not say either. */
    finish_reason: 'stop' | 'length';
  }[];
  usage: OpenAIUsage;
}

/** The next piece of a completion; with `stream_options.include_usage` the last one has no choices, but the usage. */
export interface OpenAICompletionChunk extends Omit<OpenAICompletion, 'usage'> {
  usage?: OpenAIUsage | null;
}

export interface OpenAIEmbeddings {
  object: 'list';
  model: string;
  data: { object: 'embedding'; index: number; embedding: number[] }[];
  usage: { prompt_tokens: number; total_tokens: number };
}

export class BitpairError extends Error {
  constructor(code: ErrorCode, message: string, details?: { offset?: number; status?: number; url?: string; cause?: unknown });
  readonly code: ErrorCode;
  readonly offset?: number;
  readonly status?: number;
  readonly url?: string;
  /** From openai(): 'invalid_request_error' or 'server_error'. */
  readonly type?: string;
}
