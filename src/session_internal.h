/* session_internal.h - what the files of a forward pass share. */
#ifndef BP_SESSION_INTERNAL_H
#define BP_SESSION_INTERNAL_H

#include "session.h"

/* What one thread works on: a span of the pass's tokens, with the team that shares their rows. */
typedef struct {
    session *s;
    const model_config *c;
    const team *everyone;
    team rows; /* who shares the rows of my tokens: everyone, or only me */
    session_thread *own;
    linear_work work;    /* own->work with mid moved to my first token */
    size_t first, n;     /* my tokens */
    size_t d, kv, q, ff; /* row strides: d_model, keys, queries, d_ff, padded */
} span;

static inline size_t padded(size_t n) { return bp_round_up(n, KERNEL_TILE); }

/* Position-wise boxes that need no one else: shares [first, end) of `items` among those who share my rows. */
static inline void own_items(const span *sp, size_t items, size_t *first, size_t *end) {
    team_share(&sp->rows, items, first, end);
}

static inline void meet(const span *sp, const team *t) {
    team_barrier(t);
    profile_mark(sp->work.profile, PROFILE_BARRIERS);
}

/* Rows of the cache, counted from its beginning: of a head of a layer, at a position */
static inline size_t cache_row(const session *s, size_t layer, size_t head, size_t position) {
    return (layer * s->model->config.n_kv_heads + head) * s->positions + position;
}

/* Row <- x [head_dim], padded */
static inline void cache_store(const session *s, uint8_t *rows, float *scales, size_t row, const float *x) {
    float head[KERNEL_HEAD] = {0};
    memcpy(head, x, s->model->config.head_dim * sizeof *x);
    s->cache->store(rows + row * s->row_bytes, scales ? scales + row : NULL, head, s->dim);
}

/* Rotates queries and keys of my tokens, caches keys and values, attends. Returns what `o` multiplies: [n][n_heads *
 * head_dim], complete for all who share my rows. */
const float *session_attend(const span *sp, const model_layer *l, size_t layer);

#endif
