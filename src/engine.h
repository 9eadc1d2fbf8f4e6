/* engine.h - the public API of bitpair's engine, the only header its users see.
 *
 *     engine   a team of threads and the choice of kernels
 *     model    a loaded file: immutable, its bytes stay the caller's
 *     session  one timeline of tokens: KV cache, position, sampler
 *
 *     bp_engine *eng = bp_engine_open(NULL, &e);
 *     bp_model *m = bp_model_open(eng, bytes, size, &e);
 *     bp_session *s = bp_session_open(m, NULL, &e);
 *     bp_session_feed(s, ids, n, &e);                        prefill, in chunks of your choice
 *     for (;;) { id = bp_session_sample(s, NULL); if (bp_model_is_end(m, id)) break;  ...  bp_session_feed(s, &id, 1, &e); }
 *
 * Rules. An engine and all that belongs to it is used by one thread at a time. Close sessions before their model,
 * models before their engine. Functions that can fail return false, NULL or a negative number and fill *e (which may
 * be NULL). Nothing prints, nothing exits, and nothing is allocated by feed or sample. Results do not depend on the
 * number of threads, the ISA, or how a text is cut into feeds. */
#ifndef BP_ENGINE_H
#define BP_ENGINE_H

#include "err.h"
#include "profile.h"
#include "sampler.h"

typedef struct bp_engine bp_engine;
typedef struct bp_model bp_model;
typedef struct bp_session bp_session;

/* ---- engine ---------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t threads;  /* 1..64; 0 means 1 */
    const char *isa;   /* "ref", "simd128", "relaxed", "avx2", "avx512", "neon"; NULL: the best of this machine */
    const char *arith; /* "lut8" or "popcount"; NULL: "lut8" */
} bp_engine_options;

/* options may be NULL. BP_ERR_ARGUMENT: unknown or unavailable isa or arith, threads out of range; BP_ERR_MEMORY. */
bp_engine *bp_engine_open(const bp_engine_options *options, bp_err *e);
void bp_engine_close(bp_engine *engine);

/* WASM only: thread `index` (1..threads-1) enters here and returns after bp_engine_close. Native engines start their
 * own threads. */
void bp_engine_thread(bp_engine *engine, uint32_t index);

uint32_t bp_engine_threads(const bp_engine *engine);
const char *bp_engine_isa(const bp_engine *engine);
const char *bp_engine_arith(const bp_engine *engine);

/* Makes WebAssembly engines compile the kernels well before the first prompt needs them: to be called once, early, while a
 * model is on its way. Takes some milliseconds and no memory afterwards; never fails. */
void bp_warm(void);

/* ---- model ----------------------------------------------------------------------------------------------------- */

/* What the first bytes of a file say. Returns 1 and fills *file_size and *data_offset (bytes), 0 when more of the
 * header is needed,
 * -1 with *e when it is not a GGUF v3 file. */
int bp_probe(const void *bytes, size_t size, uint64_t *file_size, uint64_t *data_offset, bp_err *e);

enum { BP_PIECE = 1 << 20, BP_TIERS = 8 }; /* bytes of a checked piece, the last may be shorter; most tiers of a file */

/* What a header says of the bytes behind it; the pointers are into the header. */
typedef struct {
    uint64_t file_size, data_offset; /* as from bp_probe */
    const uint8_t *digest;           /* [32] SHA-256 of the header; NULL: the file has no checksums (a plain GGUF) */
    const uint8_t *pieces;           /* [n_pieces][32] SHA-256 of each BP_PIECE bytes from data_offset on, or NULL */
    uint32_t n_pieces;
    uint32_t n_tiers; /* 0 for a dense model */
    uint64_t tier_end[BP_TIERS];
} bp_header;

/* Reads a header, bytes [size >= data_offset]. BP_ERR_FORMAT, BP_ERR_UNSUPPORTED, BP_ERR_MEMORY. */
bool bp_header_parse(const void *bytes, size_t size, bp_header *header, bp_err *e);

/* The same, and checks it against its own digest: that of all its bytes with the digest's taken as 0. BP_ERR_CHECKSUM. */
bool bp_header_read(const void *bytes, size_t size, bp_header *header, bp_err *e);

/* Is `digest` [32] the SHA-256 of bytes [size]? */
bool bp_piece_good(const void *bytes, size_t size, const uint8_t *digest);

/* bytes [size], 64-byte aligned, stay the caller's and must not change or move while the model is open. size may be
 * that of the whole file or the end of one of its tiers. BP_ERR_FORMAT, BP_ERR_UNSUPPORTED, BP_ERR_MEMORY. */
bp_model *bp_model_open(bp_engine *engine, const void *bytes, size_t size, bp_err *e);
void bp_model_close(bp_model *model);

/* The same while the file is still arriving: there is memory for `size` bytes, of which those up to the end of the first
 * `tier` tiers are there. Sessions take the memory that the model needs with all `size` bytes. Besides the errors above
 * BP_ERR_ARGUMENT: no such tier. */
bp_model *bp_model_open_tiers(bp_engine *engine, const void *bytes, size_t size, uint32_t tier, bp_err *e);

/* The bytes of the first `tier` tiers are there now, and are used from the next feed on. Sessions stay open: keys and
 * values of earlier tokens, and the logits of the last one if they were computed, are those of the tier they were made
 * at. Saved states of the old tier are refused from here on. On failure nothing is changed: BP_ERR_ARGUMENT for fewer
 * tiers than in use or more than there is room for; BP_ERR_FORMAT. */
bool bp_model_raise_tier(bp_model *model, uint32_t tier, bp_err *e);

/* The model that would open with the first file_size bytes at hand, from its header alone, bytes [size >= data_offset]:
 * good for describing it, for bp_session_bytes and for tokens, not for opening a session. Where `bytes` is the file's own
 * place, with memory for file_size bytes, and the file has tiers, bp_model_raise_tier makes it the model itself. Errors as
 * above. */
bp_model *bp_model_preview(bp_engine *engine, const void *bytes, size_t size, size_t file_size, bp_err *e);

/* Checks the header's and every piece's stored SHA-256 over the bytes at hand. Of a prefix, the piece in which it ends
 * cannot be checked. BP_ERR_CHECKSUM names the offset; BP_ERR_UNSUPPORTED for a file without checksums (plain GGUF). */
bool bp_verify(const void *bytes, size_t size, bp_err *e);

typedef struct {
    const char *arch; /* "llama", "qwen2", "qwen3" */
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab, n_ctx;
    uint32_t n_tiers, tier; /* tiers of the file, tiers at hand; 0, 0 for a dense model */
    double bits_per_weight; /* linear layers of the blocks at this tier, all scales counted */
    int32_t bos, eos;       /* -1: none */
} bp_model_info;

void bp_model_describe(const bp_model *model, bp_model_info *info);

/* A string key of the file, e.g. "tokenizer.chat_template", "general.name"; NULL where there is none. Not
 * NUL-terminated: *size bytes. */
const char *bp_model_string(const bp_model *model, const char *key, size_t *size);

/* Tiers: file length at the end of tier i (0-based), and bits per weight up to it; false past the last. */
bool bp_model_tier(const bp_model *model, uint32_t i, uint64_t *end, double *bits_per_weight);

/* ---- looking inside -------------------------------------------------------------------------------------------- */

enum { BP_NAME = 32, BP_STAGES = 8 }; /* longest name of a layer, with its NUL; most stages of one */

/* A linear layer, W [rows, columns]: y = W x. */
typedef struct {
    char name
        [BP_NAME]; /* as in the file: "token_embd", "output" where it is not the same, "blk.3.attn_q"; "blk.3.attn_qkv" and
                           "blk.3.ffn_gate_up" where layers are fused */
    const char *type; /* "signs": a stack of stages; "planes": bit planes; else that of a plain tensor: "Q8_0" */
    uint32_t rows, columns;
    uint32_t planes;            /* bit planes; 0 for other types */
    uint32_t n_stages, loaded;  /* stages of the file, and the first so many that are at hand; 0, 0 for other types */
    uint32_t middle[BP_STAGES]; /* k of each stage: A is [rows, k], B is [k, columns] */
    uint64_t stage_bits[BP_STAGES]; /* bits of each in the file, padding and scales counted */
    uint64_t bits;                  /* of all that is at hand; middle scales that a tier renews count again */
} bp_layer;

/* Layers: the embedding, the head if it is another matrix, then per block attn_q, attn_k, attn_v (or attn_qkv),
 * attn_output, ffn_gate, ffn_up (or ffn_gate_up), ffn_down. bp_model_layer: false past the last. */
uint32_t bp_model_layers(const bp_model *model);
bool bp_model_layer(const bp_model *model, uint32_t layer, bp_layer *out);

/* The scales of one stage of a layer of type "signs", *a [rows], *c [k], *b [columns], valid while the model is open
 * and stays at its tier: the stage is diag(a) A diag(c) B diag(b). BP_ERR_ARGUMENT: no such stage at hand. */
bool bp_model_scales(const bp_model *model, uint32_t layer, uint32_t stage, const float **a, const float **c,
                     const float **b, bp_err *e);

/* The signs of its factor 'A' [rows, k] or 'B' [k, columns], row by row: out [rows of it][ceil(columns of it / 8)], bit i
 * (least significant first) of byte j is column 8 j + i, 1 means +1 and 0 means -1; bits past the last column are 0.
 * BP_ERR_ARGUMENT: no such stage at hand, another factor, or a capacity below that. */
bool bp_model_signs(const bp_model *model, uint32_t layer, uint32_t stage, char factor, uint8_t *out, size_t capacity,
                    bp_err *e);

/* ---- text ------------------------------------------------------------------------------------------------------ */

enum { BP_TOKENIZE_BOS = 1, BP_TOKENIZE_SPECIAL = 2 }; /* as TOKENIZE_* of tokenizer.h */

/* ids [capacity] <- tokens of UTF-8 text [n]; returns their number, at most n + 8; -1 with *e (not UTF-8, more than n + 8 tokens, capacity
 * below n + 8, memory). */
ptrdiff_t bp_tokenize(const bp_model *model, const char *text, size_t n, uint32_t flags, int32_t *ids, size_t capacity,
                      bp_err *e);

/* The bytes of one token, cut to capacity; a token may be part of a character. Control tokens are empty unless
 * `special`. */
size_t bp_token_text(const bp_model *model, int32_t id, bool special, char *out, size_t capacity);

bool bp_model_is_end(const bp_model *model, int32_t id); /* does this token end a turn? */

/* ---- session --------------------------------------------------------------------------------------------------- */

typedef struct {
    uint32_t n_ctx;   /* positions; 0: the smaller of the model's context and 2048 */
    uint32_t chunk;   /* most tokens of one forward pass, up to 4096; 0: 32 per thread */
    uint32_t kv_bits; /* of a key or value in the cache: 16 (half precision) or 8 (int8, a scale per head); 0: 8 */
} bp_session_options;

/* Bytes that a session with these options takes, without opening it; 0 if they are out of range. */
size_t bp_session_bytes(const bp_model *model, const bp_session_options *options);

/* options NULL: all defaults. NULL with *e: BP_ERR_ARGUMENT for options out of range (n_ctx above the model's context,
 * chunk above 4096, another kv_bits), BP_ERR_MEMORY. */
bp_session *bp_session_open(bp_model *model, const bp_session_options *options, bp_err *e);
void bp_session_close(bp_session *session);

/* Appends ids [n]. BP_ERR_CONTEXT when they do not fit, BP_ERR_ARGUMENT for an id outside the vocabulary; then nothing
 * is changed. */
bool bp_session_feed(bp_session *session, const int32_t *ids, size_t n, bp_err *e);

/* The same in parts, for who must not be away for long: begins with ids [n], 1 <= n <= bp_session_chunk, then does
 * `layers` layers of the model at a time. bp_session_feed_layers returns how many are left (all of them
 * again where the model's tier was raised meanwhile: it begins anew then); after the last one the ids are appended, as bp_session_feed would have it. Whatever else feeds, rewinds, shifts or restores the session ends it:
 * then they are not. From its beginning to its end there are no logits, nor afterwards if it was ended. Without one that
 * was begun bp_session_feed_layers returns 0. Errors as above, and BP_ERR_ARGUMENT for another n. */
bool bp_session_feed_begin(bp_session *session, const int32_t *ids, size_t n, bp_err *e);
uint32_t bp_session_feed_layers(bp_session *session, uint32_t layers);

/* The same, and logits [n][vocab] of every position. */
bool bp_session_feed_all(bp_session *session, const int32_t *ids, size_t n, float *logits, bp_err *e);

uint32_t bp_session_position(const bp_session *session); /* tokens fed */
uint32_t bp_session_capacity(const bp_session *session); /* n_ctx */
uint32_t bp_session_chunk(const bp_session *session);    /* most tokens of one forward pass */

uint32_t bp_session_kv_bits(const bp_session *session); /* 16 or 8 */

/* Where the time goes: from now on thread i adds to profiles[i] (an array of bp_engine_threads, zeroed, with their clock);
 * NULL: no longer. Sums of thread 0 are the time inside feed, logits and sample; other threads' leave out the time between
 * passes. Costs nothing while it is off. */
void bp_session_profile(bp_session *session, profile *profiles);

/* Forgets all tokens from `position` on (position <= current); feed again before the next sample. */
bool bp_session_rewind(bp_session *session, uint32_t position, bp_err *e);

/* Logits [vocab] of the last token fed, computed when first asked for, valid until the next call; NULL before any feed
 * or after a rewind. A head of bit planes rounds its input; the likeliest tokens (up to e^-4 of the first, at most 64) are
 * computed from the unrounded one. */
const float *bp_session_logits(bp_session *session);

/* Sets the sampling options and restarts the random numbers. The repetition penalty looks at the session's own tokens,
 * prompt and answer alike. BP_ERR_ARGUMENT names the bad option. */
bool bp_session_sampling(bp_session *session, const sampler_options *options, bp_err *e);

/* Lets only texts of a grammar be sampled: gbnf [n], in llama.cpp's notation; NULL: any text again. The text begins with
 * the next sample. From there on whatever is fed belongs to it, a rewind takes it back, and a rewind to its beginning or
 * further lets it begin anew with the sample after that. Tokens that cannot follow are out before any other option looks
 * at the logits; those that end a turn are in exactly where the text may end. Memory is taken here and not by sample:
 * about 4 MB, and once per model a tree of its tokens (about 40 bytes each). Setting the same grammar again is cheap
 * and begins a new text. BP_ERR_ARGUMENT ("grammar, line 3, column 7: ..."), BP_ERR_UNSUPPORTED (it begins in more ways
 * than the tables hold) or BP_ERR_MEMORY: the grammar is as before. */
bool bp_session_grammar(bp_session *session, const char *gbnf, size_t n, bp_err *e);

/* Picks the next token from the logits (it is not fed). -1 with BP_ERR_ARGUMENT when there are no logits, or what was
 * fed since the grammar began is not of it; BP_ERR_UNSUPPORTED when no token can follow: the text is complete and the
 * model has no token that ends a turn, the vocabulary lacks what the grammar wants, or the grammar is too ambiguous. */
int32_t bp_session_sample(bp_session *session, bp_err *e);

/* ---- probabilities, scores, embeddings ------------------------------------------------------------------------- */

/* Of the token that comes next, as the model itself says: at temperature 1, before bias, penalties and truncation (as
 * OpenAI's log probabilities are). *logprob <- ln p(id); out [n] <- the n most likely, best first (where fewer logits are numbers, the rest has
 * id -1 and ln p -inf). BP_ERR_ARGUMENT: no
 * logits, an id outside the vocabulary, n above the vocabulary. */
bool bp_session_logprob(bp_session *session, int32_t id, float *logprob, bp_err *e);
bool bp_session_alternatives(bp_session *session, size_t n, sampler_alternative *out, bp_err *e);

/* Appends ids [n] as feed does; logprobs [n] <- ln p(ids[i] | all tokens before it). Without logits for the first (an
 * empty or rewound session) its entry is 0. Takes no memory for logits, however long the text. Errors as feed. */
bool bp_session_score(bp_session *session, const int32_t *ids, size_t n, float *logprobs, bp_err *e);

typedef enum { BP_POOL_MEAN, BP_POOL_LAST } bp_pooling;

/* Appends ids [n], n > 0, as feed does; out [d_model] <- the final normalised hidden state (what the head multiplies) of
 * the last token, or its mean over these n tokens. Not scaled to length 1. Errors as feed. */
bool bp_session_embed(bp_session *session, const int32_t *ids, size_t n, bp_pooling pooling, float *out, bp_err *e);

/* ---- states ---------------------------------------------------------------------------------------------------- */

/* Everything a session is: tokens, keys and values of the positions in use, the last token's logits, sampling options
 * and the state of the random numbers; but a grammar. Restored, it goes on with the tokens that the saved one would have
 * given, on any machine and number of threads; a grammar of the session that takes it begins anew with the next sample. */
size_t bp_session_save_bytes(const bp_session *session);

/* out [capacity] <- the state; the first bp_session_save_bytes are written. BP_ERR_ARGUMENT when they do not fit. */
bool bp_session_save(const bp_session *session, void *out, size_t capacity, bp_err *e);

/* Replaces the session's state by a saved one; n_ctx may differ. On failure nothing is changed. BP_ERR_FORMAT: not a
 * state; BP_ERR_UNSUPPORTED: of another version; BP_ERR_CHECKSUM: damaged; BP_ERR_ARGUMENT: of another model, tier,
 * arithmetic or kind of cache; BP_ERR_CONTEXT: more tokens than fit. */
bool bp_session_restore(bp_session *session, const void *bytes, size_t size, bp_err *e);

/* A second session with the same options, without a grammar, that goes on from the same state; they do not know of each
 * other. The caller closes it. NULL with BP_ERR_MEMORY. */
bp_session *bp_session_fork(const bp_session *session, bp_err *e);

/* Makes room: forgets `drop` tokens after the first `keep` and moves the later ones up, keep + drop < position. Their
 * keys are turned back by `drop` positions, which is exact but for one rounding per shift (relative 2^-11 in half
 * precision, 1/254 of the largest value of the head in 8 bits). What is approximate: keys and values from the second
 * layer on were computed while the dropped tokens could be seen, and stay so; feeding the remaining tokens anew would
 * give others. The logits stay those of the last token.
 * BP_ERR_ARGUMENT when nothing would remain after them; with a grammar also the errors of bp_session_sample: set none,
 * or a new text of it, first. */
bool bp_session_shift(bp_session *session, uint32_t keep, uint32_t drop, bp_err *e);

/* How many tokens from the first have keys and values that no dropped token has touched: all of them, unless the session
 * was shifted. A text that shares so many tokens with this one may go on from there as if it had been fed anew; where
 * the model's tier was raised meanwhile, tokens fed before keep the keys and values of the lower tier, in saved states
 * too: feed them anew for those of the new one. */
uint32_t bp_session_exact(const bp_session *session);

/* The tokens [position] in the session; valid until the next call. */
const int32_t *bp_session_tokens(const bp_session *session);

#endif
