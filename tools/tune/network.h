/* network.h - the transformer block of docs/MODEL.md over a batch of sequences, forward and backward: for tuning, and
 * for the statistics of output gradients. Weights are plain float matrices (block_weights); what a gradient is used for
 * is the caller's: every linear layer hands its input and the gradient of its output to a sink.
 *
 *     in -> [norm] x1 -> q k v -> rotate -> attention -> o -> + in = mid -> [norm] x2 -> gate up -> h -> down -> + mid
 */
#ifndef BITPAIR_NETWORK_H
#define BITPAIR_NETWORK_H

#include "compress/block.h"
#include "product.h"

typedef struct {
    const model *model; /* shapes, norms, biases, rotation; its weights are not read */
    workers *w;
    product_kind kind;
    size_t ctx;       /* tokens of a sequence */
    size_t most;      /* most tokens of a batch, whole sequences */
    float *rope;      /* [ctx, head_dim / 2, 2] cos, sin */
    float *d_wide[3]; /* [most, d_ff or heads] gradients inside a block */
    float *d_input;   /* [most, d_model] */
    float *own;       /* scratch of each worker */
    size_t own_size;
    float *memory;
} network;

/* What the backward pass of a block reads, T tokens. One allocation. */
typedef struct {
    float *in;            /* [T, d_model] */
    float *r1, *r2;       /* [T] factors of the two norms */
    float *x1, *x2;       /* [T, d_model] normalised inputs */
    float *q, *k, *v;     /* [T, heads * head_dim], rotated */
    float *q_raw, *k_raw; /* before norm and rotation, where the model normalises heads (Qwen3), else NULL */
    float *attention;     /* [T, heads * head_dim] input of attn_output */
    float *mid;           /* [T, d_model] stream between the halves */
    float *gate, *up, *h; /* [T, d_ff] */
    float *memory;
} block_trace;

/* Bytes that network_open takes; BP_ERR_MEMORY. The model must outlive it. */
uint64_t network_bytes(const model *m, size_t ctx, size_t n_seqs, uint32_t threads);
bool network_open(network *n, workers *w, const model *m, size_t ctx, size_t n_seqs, product_kind kind, bp_err *e);
void network_close(network *n);

size_t block_trace_bytes(const model *m, size_t tokens);
bool block_trace_open(block_trace *t, const model *m, size_t tokens, bp_err *e);
void block_trace_close(block_trace *t);

/* stream [tokens, d_model] <- block(stream); t keeps what the backward pass needs. */
void network_forward(network *n, const model_layer *layer, const block_weights *b, float *stream, size_t tokens,
                     block_trace *t);

/* Takes, for every linear layer, the gradient of its output dY [tokens, n] and its input X [tokens, m]. The matrices of
 * the block are no longer read for that layer's own input gradient after its call. */
typedef struct {
    void (*layer)(void *context, part p, const float *dY, const float *X, size_t tokens);
    void *context;
} gradient_sink;

/* d [tokens, d_model]: gradient of the block's output, replaced by that of its input. t's gate, up and h are
 * overwritten. */
void network_backward(network *n, const model_layer *layer, const block_weights *b, float *d, size_t tokens,
                      block_trace *t, const gradient_sink *sink);

/* stream [tokens, d_model] <- rows of table E [vocab, d_model] */
void network_embed(network *n, const float *E, const int32_t *ids, float *stream, size_t tokens);

/* x [tokens, d_model] <- rmsnorm(stream) . weight, r [tokens] its factors; and back: d (gradient of x) is replaced by
 * that of stream. */
void network_normalise(network *n, float *x, float *r, const float *stream, const float *weight, size_t tokens);
void network_normalise_backward(network *n, float *d, const float *stream, const float *weight, const float *r,
                                size_t tokens);

#endif
