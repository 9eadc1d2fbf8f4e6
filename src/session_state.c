/* session_state.c - a session's state moved: within its cache, to bytes and back, to another session. */
#include "mathf.h"
#include "session.h"

enum { MOST_HEAD = 256 }; /* the widest head that the kernels take */

static size_t kv_width(const session *s) { return (size_t)s->model->config.n_kv_heads * s->model->config.head_dim; }

/* ---- shift ---- */

typedef struct {
    session *s;
    uint32_t keep, drop;
} shift;

static void turn_row(const session *s, uint16_t *to, const uint16_t *from) {
    size_t dim = s->model->config.head_dim;
    float head[MOST_HEAD];
    for (size_t at = 0; at < kv_width(s); at += dim) {
        for (size_t i = 0; i < dim; i++) head[i] = bp_half_to_float(from[at + i]);
        session_rotate(head, s->rope, dim, s->model->config.rope_interleaved);
        s->kernels->to_half(to + at, head, dim);
    }
}

static void shift_layers(void *context, const team *t) {
    const shift *job = context;
    session *s = job->s;
    size_t first, end, width = kv_width(s), from = (size_t)job->keep + job->drop;
    bp_share(s->model->config.n_layers, t->index, t->count, &first, &end);
    for (size_t layer = first; layer < end; layer++) {
        uint16_t *k = s->k + layer * s->n_ctx * width, *v = s->v + layer * s->n_ctx * width;
        memmove(v + job->keep * width, v + from * width, (s->position - from) * width * sizeof *v);
        for (size_t i = from; i < s->position; i++) turn_row(s, k + (i - job->drop) * width, k + i * width);
    }
}

void session_shift(session *s, uint32_t keep, uint32_t drop) {
    shift job = {s, keep, drop};
    session_angles(&s->model->config, -(double)drop, s->rope);
    pool_run(s->pool, shift_layers, &job);
    memmove(s->ids + keep, s->ids + keep + drop, (s->position - keep - drop) * sizeof *s->ids);
    s->position -= drop;
    s->exact = (uint32_t)bp_min(s->exact, keep);
}

/* ---- bytes ---- */

size_t session_state_bytes(const session *s, uint32_t position, bool last) {
    const model_config *c = &s->model->config;
    return position * sizeof *s->ids + (last ? c->d_model * sizeof *s->stream : 0) +
           2 * (size_t)c->n_layers * position * kv_width(s) * sizeof *s->k;
}

static const float *last_stream(const session *s) {
    return s->stream + s->last * bp_round_up(s->model->config.d_model, KERNEL_TILE);
}

static uint8_t *put(uint8_t *out, const void *from, size_t bytes) {
    memcpy(out, from, bytes);
    return out + bytes;
}

static const uint8_t *get(void *to, const uint8_t *in, size_t bytes) {
    memcpy(to, in, bytes);
    return in + bytes;
}

void session_state_save(const session *s, uint8_t *out) {
    size_t stride = s->n_ctx * kv_width(s), used = s->position * kv_width(s) * sizeof *s->k;
    out = put(out, s->ids, s->position * sizeof *s->ids);
    if (s->last != UINT32_MAX) out = put(out, last_stream(s), s->model->config.d_model * sizeof *s->stream);
    for (uint32_t i = 0; i < s->model->config.n_layers; i++) {
        out = put(out, s->k + i * stride, used);
        out = put(out, s->v + i * stride, used);
    }
}

void session_state_load(session *s, uint32_t position, bool last, const uint8_t *in) {
    size_t stride = s->n_ctx * kv_width(s), used = position * kv_width(s) * sizeof *s->k;
    session_rewind(s, 0);
    in = get(s->ids, in, position * sizeof *s->ids);
    if (last) in = get(s->stream, in, s->model->config.d_model * sizeof *s->stream);
    for (uint32_t i = 0; i < s->model->config.n_layers; i++) {
        in = get(s->k + i * stride, in, used);
        in = get(s->v + i * stride, in, used);
    }
    s->position = position;
    s->last = last ? 0 : UINT32_MAX;
}

void session_copy(session *to, const session *from) {
    size_t width = kv_width(from), used = from->position * width * sizeof *from->k;
    memcpy(to->ids, from->ids, from->position * sizeof *from->ids);
    for (size_t i = 0; i < from->model->config.n_layers; i++) {
        memcpy(to->k + i * to->n_ctx * width, from->k + i * from->n_ctx * width, used);
        memcpy(to->v + i * to->n_ctx * width, from->v + i * from->n_ctx * width, used);
    }
    session_rewind(to, from->position);
    to->exact = from->exact;
    if (from->last == UINT32_MAX) return;
    memcpy(to->stream, last_stream(from), from->model->config.d_model * sizeof *from->stream);
    to->last = 0;
}
