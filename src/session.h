/* session.h - one timeline of tokens through a model: the KV cache, the position and the buffers of the forward pass.
 * */
#ifndef BP_SESSION_H
#define BP_SESSION_H

#include "model.h"
#include "pool.h"

/* Buffers of one thread. */
typedef struct {
    linear_work work;
    float *x;         /* [chunk][width] normalised input of a layer */
    uint8_t *queries; /* [SESSION_TILE * heads that share keys] prepared for attention */
    float *parts;     /* [2][the same] parts of attention: sums so far, and those of one span */
    float *attended;  /* [n_heads * head_dim] of one token */
} session_thread;

enum { SESSION_TILE = 16 }; /* tokens whose queries go through the cache together */

typedef struct {
    const model *model;
    pool *pool;
    const kernel_table *kernels;
    const kernel_arith *arith;
    uint32_t n_ctx, chunk; /* positions; most tokens of one forward pass */
    uint32_t position;     /* tokens in the cache */
    uint32_t last;         /* row of the residual stream that is the last token's; UINT32_MAX: none, feed first */
    uint32_t exact;        /* keys and values before it never saw a dropped token; UINT32_MAX: none ever did */
    bool has_logits;       /* logits[0] is the last token's row */
    uint32_t begun, layer; /* tokens of a pass in parts, 0: there is none; the layer that comes next */
    uint32_t begun_tier;   /* of the layers before that */
    int32_t *ids;          /* [n_ctx] the tokens in the cache */

    /* The cache: what a head reads lies in a row. Rows are heads padded to `dim` values, in 8 bits with a scale each. */
    const kernel_cache *cache;
    uint32_t positions;         /* n_ctx, padded */
    size_t dim, row_bytes;      /* of a row */
    uint8_t *k, *v;             /* [n_layers][n_kv_heads][positions][row_bytes] */
    float *k_scales, *v_scales; /* [n_layers][n_kv_heads][positions], or NULL */
    float *parts;               /* [n_kv_heads][spans][heads that share keys] parts of attention of one token */

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
    uint32_t n_ctx;   /* 1.. */
    uint32_t chunk;   /* 1..n_ctx */
    uint32_t kv_bits; /* 16 or 8 */
} session_options;

/* Lays the session out (with a measuring arena: only measures). model, pool and tables must outlive it. */
void session_layout(session *s, arena *a, const model *m, pool *p, const kernel_table *kernels,
                    const kernel_arith *arith, const session_options *options);

/* Appends ids [n], 1 <= n <= chunk, position + n <= n_ctx, every id < vocab. all: NULL, or [n][vocab] for the logits
 * of every token. The result does not depend on how tokens are cut into calls, nor on the team. */
void session_forward(session *s, const int32_t *ids, size_t n, float *all);

/* The same in parts: begins, with ids as above, then goes on by `layers` layers at a time. Returns how many are left; with
 * the last one the ids are appended. Whatever else feeds or moves the session ends it; until then there are no logits. */
void session_forward_begin(session *s, const int32_t *ids, size_t n);
uint32_t session_forward_on(session *s, uint32_t layers);

/* The same; scores [n_next] <- ln p(next[i] | everything up to ids[i]), n_next <= n. */
void session_forward_scores(session *s, const int32_t *ids, size_t n, const int32_t *next, size_t n_next,
                            float *scores);

/* Logits [vocab] of the last token, computed when first asked for; NULL when nothing was fed, or after a rewind. */
const float *session_last_logits(session *s);

/* Final normalised hidden state [d_model] of token `row` of the last forward pass, in a buffer that the next call
 * overwrites. */
const float *session_hidden(session *s, size_t row);

/* Measures (profiles [threads], zeroed, with their clock) or no longer measures (NULL) where the time goes. */
void session_profile(session *s, profile *profiles);

/* Forgets the tokens from `position` on; position <= s->position. */
void session_rewind(session *s, uint32_t position);

/* Forgets `drop` tokens after the first `keep`, keep + drop < position, and moves the others there: values as they are,
 * keys turned by -drop positions, since R(p - drop) k = R(-drop) R(p) k, and rounded again. Logits stay those of the last token. */
void session_shift(session *s, uint32_t keep, uint32_t drop);

/* What a session holds besides its options: ids, the last token's residual stream, keys and values of the positions in
 * use. Bytes of it for `position` tokens, with (last) or without the residual stream; out [bytes] <- it; from it. */
size_t session_state_bytes(const session *s, uint32_t position, bool last);
void session_state_save(const session *s, uint8_t *out);
/* Could a session have stored these keys and values? Kernels want scales of [0, 1e15] and finite halves. */
bool session_state_sound(const session *s, uint32_t position, bool last, const uint8_t *bytes);
void session_state_load(session *s, uint32_t position, bool last, const uint8_t *bytes);

/* to becomes what from is; both of one model and kind of cache, from->position <= to->n_ctx. */
void session_copy(session *to, const session *from);

/* ---- rotary embedding ---- */

/* table [head_dim / 2][2] <- cos and sin of position * theta^(-2j / head_dim) / freqs[j], computed in double. */
void session_angles(const model_config *c, double position, float *table);

/* Turns the pairs of x [head_dim] by the angles of a table: (2j, 2j + 1), or (j, j + head_dim / 2). */
void session_rotate(float *x, const float *table, size_t head_dim, bool interleaved);

#endif
