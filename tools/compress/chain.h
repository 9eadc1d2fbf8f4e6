/* chain.h - two chains of activations that walk through the model block by block: the dense model's, and the
 * student's, in which everything so far is compressed. The activations of all calibration tokens are in memory, or in a
 * scratch file of which only the sequences at work are in memory; each step runs over sequences in parallel and leaves
 * the input of the next linear layers in x, where statistics.h reads it.
 * docs/MODEL.md is the drawing; session_forward.c the same block for speed.
 *
 *     stream -> [norm] -> x -> q k v, attention -> x -> o, + stream -> [norm] -> x -> gate up, swiglu -> x -> down, + stream
 */
#ifndef BITPAIR_CHAIN_H
#define BITPAIR_CHAIN_H

#include "block.h"
#include "linalg/linalg.h"
#include "spill.h"

typedef enum { CHAIN_DENSE, CHAIN_STUDENT, CHAINS } chain_side;

typedef struct {
    const model *model;
    workers *w;
    const int32_t *ids; /* [n_seqs, ctx] */
    size_t n_seqs, ctx;
    size_t n_tokens;       /* n_seqs * ctx */
    size_t n_train;        /* tokens that are fitted; the rest, whole sequences, are for validation */
    size_t width;          /* row stride of x */
    float *stream[CHAINS]; /* [n_tokens, d_model] residual stream */
    float *x[CHAINS];      /* [n_tokens, width] input of the next linear layers */
    float *entry; /* [n_tokens, d_model] for the caller: the student's stream before a block; NULL: not wanted */
    linalg_product *product; /* of the steps but attention's scores; chain_open: gemm_bf16_split, as good as float32 */
    float *rope;             /* [ctx, head_dim / 2, 2] cos, sin */
    float *own;              /* scratch of each worker */
    size_t own_size;
    spill activations; /* stream and x */
    void *memory;      /* rope and own */
} chain;

/* Bytes of streams and inputs, which may lie in a scratch file; and of all else that chain_open takes. */
uint64_t chain_activation_bytes(const model *m, size_t n_seqs, size_t ctx, bool entry);
uint64_t chain_own_bytes(const model *m, size_t ctx, uint32_t threads);

/* Bytes of activations that a step or statistics_take holds in memory at once when they lie in a scratch file. */
uint64_t chain_front_bytes(const model *m, size_t n_seqs, size_t ctx, bool entry, uint32_t threads);

/* ids [n_seqs, ctx] stay the caller's; the last n_val sequences are for validation. `folder`: the activations go to a
 * scratch file there; NULL: to memory. BP_ERR_MEMORY, BP_ERR_IO. */
bool chain_open(chain *c, workers *w, const model *m, const int32_t *ids, size_t n_seqs, size_t n_val, size_t ctx,
                bool entry, const char *folder, bp_err *e);
void chain_close(chain *c);

/* Says that nobody needs the activations of tokens [first, first + n) for a while; after reading them outside the steps
 * below, so that memory stays bounded. */
void chain_release(const chain *c, size_t first, size_t n);

enum { CHAIN_CHUNK = 2048 }; /* tokens that readers of the activations take before they release them */

/* stream = rows of an embedding table */
void chain_embed(chain *c, chain_side side, const linear *table);

/* entry = the student's stream */
void chain_keep_entry(chain *c);

/* the student's stream = entry */
void chain_return_to_entry(chain *c);

/* x = rmsnorm(stream) . weight, both sides */
void chain_normalise(chain *c, const float *weight);

/* x [., d_model] -> x [., n_heads * head_dim]: q, k, v, their biases and norms, rotation, causal attention */
void chain_attend(chain *c, chain_side side, const model_layer *layer, const block_weights *b);

/* x [., d_model] -> x [., d_ff]: silu(gate x) . (up x) */
void chain_feed(chain *c, chain_side side, const block_weights *b);

/* stream += W x (W [d_model, m]: attn_output or ffn_down) */
void chain_add(chain *c, chain_side side, const float *W, size_t m);

/* The steps above for one side of a whole block. */
void chain_forward(chain *c, chain_side side, const model_layer *layer, const block_weights *b);

/* A view on n sequences from `first` on, which shares the arrays of c and its scratch: no steps on two views at once,
 * no chain_close. */
chain chain_slice(const chain *c, size_t first, size_t n);

/* Mean negative log-likelihood (nats per token) of the validation sequences after the last block, with the model's
 * final norm and the given head. NAN without memory. */
double chain_nll(chain *c, chain_side side, const linear *head);

#endif
