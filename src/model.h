/* model.h - the map of a model: its configuration, and a view on every weight with its [shape]. No tokens here, no
 * state. Weights stay in the caller's bytes; only fp16 scales are widened to float32 in the model's arena. */
#ifndef BP_MODEL_H
#define BP_MODEL_H

#include "arena.h"
#include "err.h"
#include "gguf.h"
#include "linear.h"

typedef enum { MODEL_LLAMA, MODEL_QWEN2, MODEL_QWEN3 } model_arch;

enum { MODEL_STAGES = 8, MODEL_TIERS = 8 }; /* most stages of a layer, most tiers of a file */

typedef struct {
    model_arch arch;
    uint32_t n_layers;
    uint32_t d_model; /* residual stream */
    uint32_t d_ff;
    uint32_t n_heads;
    uint32_t n_kv_heads; /* divides n_heads */
    uint32_t head_dim;   /* not always d_model / n_heads */
    uint32_t vocab;
    uint32_t n_ctx; /* context the model was trained for */
    float rope_theta;
    float norm_eps;
    bool rope_interleaved;   /* Llama in GGUF order: pairs (2i, 2i+1); Qwen: pairs (i, i + head_dim/2) */
    const float *rope_freqs; /* [head_dim / 2] divisors of the frequencies (Llama 3 scaling), or NULL */
} model_config;

typedef struct {
    const float *attn_norm; /* [d_model] */
    const float *ffn_norm;  /* [d_model] */
    const float *q_norm;    /* [head_dim] or NULL (Qwen3) */
    const float *k_norm;    /* [head_dim] or NULL */
    linear q;    /* [n_heads * head_dim, d_model]     attn_q; or attn_qkv, fused: its rows, then those of k and v */
    linear k;    /* [n_kv_heads * head_dim, d_model]  attn_k; n = 0 where fused */
    linear v;    /* [n_kv_heads * head_dim, d_model]  attn_v; n = 0 where fused */
    linear o;    /* [d_model, n_heads * head_dim]     attn_output */
    linear gate; /* [d_ff, d_model]                   ffn_gate; or ffn_gate_up, fused */
    linear up;   /* [d_ff, d_model]                   ffn_up; n = 0 where fused */
    linear down; /* [d_model, d_ff]                   ffn_down */
} model_layer;

enum { MODEL_LINEARS = 7 }; /* most linear layers of a block */

/* The linear layers of a block in the order of the file, ls and names [MODEL_LINEARS] ("attn_q"); returns how many. */
uint32_t model_linears(const model_layer *layer, const linear **ls, const char **names);

typedef struct {
    model_config config;
    const gguf *file;
    linear embedding;      /* [vocab, d_model], rows are looked up */
    linear head;           /* [vocab, d_model]; the embedding itself when tied */
    const float *out_norm; /* [d_model] */
    model_layer *layers;   /* [n_layers] */
    bool factorized;
    uint32_t n_tiers;                /* 0 for a dense model */
    uint32_t tier;                   /* tiers at hand: 1..n_tiers (layers use the stages of these) */
    uint32_t laid;                   /* tiers that there is room for: tier..n_tiers */
    uint64_t tier_end[MODEL_TIERS];  /* file length at which tier i is complete */
    uint64_t linear_weights;         /* number of weights in the linear layers of the blocks */
    uint64_t tier_bits[MODEL_TIERS]; /* bits stored for them up to tier i, scales counted (dense: tier_bits[0]) */
} model;

/* Lays the model out over an opened file (with a measuring arena: measures; then m->layers is NULL). The file and its
 * bytes must outlive it. Fails with BP_ERR_FORMAT (missing tensor, wrong shape, truncated: named), BP_ERR_UNSUPPORTED
 * (architecture, type). */
bool model_open(model *m, arena *a, const gguf *file, bp_err *e);

/* File lengths at which tiers end: ends [MODEL_TIERS], *n of them; 0 without 'bitpair.version'. BP_ERR_UNSUPPORTED for
 * another version than 1 to 3, BP_ERR_FORMAT unless they ascend from the end of the header to the end of the file. */
bool model_tiers(const gguf *file, uint64_t *ends, uint32_t *n, bp_err *e);

/* gguf_open and model_open in memory of their own; NULL on failure (also BP_ERR_MEMORY). bytes stay the caller's. */
model *model_load(const void *bytes, uint64_t size, bp_err *e);

/* The same with memory for `size` bytes, of which those of the first `tier` tiers are there yet. */
model *model_load_tiers(const void *bytes, uint64_t size, uint32_t tier, bp_err *e);

/* As model_load from the header alone, bytes [size]: a model as it would be with the first file_size bytes at hand. Its
 * shapes and sizes are right, its weights are not there. */
model *model_preview(const void *bytes, uint64_t size, uint64_t file_size, bp_err *e);

/* The first `tier` tiers are there now. Nothing moves: layers gain stages. On failure nothing is changed:
 * BP_ERR_ARGUMENT for fewer than now, or more than there is room for; BP_ERR_FORMAT when a stage lies outside. */
bool model_raise(model *m, uint32_t tier, bp_err *e);

void model_unload(model *m); /* NULL is ignored */

/* Types that scales of stages may have: float ones, Q8_0. */
bool model_scale_type(uint32_t type);

/* Does a file have middle scales for a stage of a layer (blk.N.PART) that replace earlier ones from `tier` (0-based) on
 * (docs/FORMAT.md)? And the bits that they take, 0 where it has none. */
bool model_middle_renewed(const gguf *file, const char *layer, uint32_t stage, uint32_t tier);
uint64_t model_middle_bits(const gguf *file, const char *layer, uint32_t stage, uint32_t tier);

/* Bits that a stage of an [n, m] layer takes in the file, padding of signs and scales counted. */
uint64_t model_stage_bits(const gguf *file, const char *layer, uint32_t stage, uint64_t n, uint64_t m, uint64_t k);

#endif
