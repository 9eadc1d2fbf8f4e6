/* session.h - one timeline of tokens through a model: the KV cache, the position and the buffers of the forward pass.
 * */
#ifndef BP_SESSION_H
#define BP_SESSION_H

#include "model.h"
#include "pool.h"

/* Buffers of one thread. */
typedef struct {
    linear_work work;
    float *x;      /* [chunk][width] normalised input of a layer */
    float *scores; /* [n_ctx] attention */
} session_thread;

typedef struct {
    const model *model;
    pool *pool;
    const kernel_table *kernels;
    const kernel_arith *arith;
    uint32_t n_ctx, chunk; /* positions; most tokens of one forward pass */
    uint32_t position;     /* tokens in the cache */
    uint32_t last;         /* row of the residual stream that is the last token's; UINT32_MAX: none, feed first */
    bool has_logits;       /* logits[0] is the last token's row */
    int32_t *ids;          /* [n_ctx] the tokens in the cache */

    uint16_t *k, *v;         /* cache, half precision: [n_layers][n_ctx][n_kv_heads * head_dim] */
    float *rope;             /* [chunk][head_dim / 2][2] cos, sin of the chunk's positions */
    float *stream;           /* [chunk][d_model padded] residual stream */
    float *q, *key, *value;  /* [chunk][... padded] */
    float *attended;         /* [chunk][n_heads * head_dim] */
    float *gate, *up;        /* [chunk][d_ff padded] */
    float *mid;              /* [chunk][mid_width] */
    size_t mid_width;        /* widest sum of middle dimensions of layers that share an input */
    float *logits;           /* [KERNEL_LANES][vocab padded] */
    session_thread *threads; /* [threads] */
} session;

typedef struct {
    uint32_t n_ctx; /* 1.. */
    uint32_t chunk; /* 1..n_ctx */
} session_options;

/* Lays the session out (with a measuring arena: only measures). model, pool and tables must outlive it. */
void session_layout(session *s, arena *a, const model *m, pool *p, const kernel_table *kernels,
                    const kernel_arith *arith, const session_options *options);

/* Appends ids [n], 1 <= n <= chunk, position + n <= n_ctx, every id < vocab. all: NULL, or [n][vocab] for the logits
 * of every token. The result does not depend on how tokens are cut into calls, nor on the team. */
void session_forward(session *s, const int32_t *ids, size_t n, float *all);

/* Logits [vocab] of the last token, computed when first asked for; NULL when nothing was fed, or after a rewind. */
const float *session_last_logits(session *s);

/* Forgets the tokens from `position` on; position <= s->position. */
void session_rewind(session *s, uint32_t position);

#endif
