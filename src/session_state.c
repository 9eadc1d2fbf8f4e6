/* session_state.c - a session's state moved: within its cache, to bytes and back, to another session. */
#include "session_internal.h"

/* ---- shift ---- */

typedef struct {
    session *s;
    uint32_t keep, drop;
} shift;

/* Rows of a head, of keys or values, from one position on, moved to another before it */
static void move_rows(const session *s, uint8_t *rows, float *scales, size_t to, size_t from, size_t n) {
    memmove(rows + to * s->row_bytes, rows + from * s->row_bytes, n * s->row_bytes);
    if (scales) memmove(scales + to, scales + from, n * sizeof *scales);
}

static void turn_rows(const session *s, size_t first, size_t n) {
    float head[KERNEL_HEAD];
    for (size_t row = first; row < first + n; row++) {
        s->cache->restore(head, s->k + row * s->row_bytes, s->k_scales ? s->k_scales[row] : 1.0f, s->dim);
        session_rotate(head, s->rope, s->model->config.head_dim, s->model->config.rope_interleaved);
        cache_store(s, s->k, s->k_scales, row, head);
    }
}

static void shift_heads(void *context, const team *t) {
    const shift *job = context;
    session *s = job->s;
    size_t first, end, from = (size_t)job->keep + job->drop, n = s->position - from;
    bp_share((size_t)s->model->config.n_layers * s->model->config.n_kv_heads, t->index, t->count, &first, &end);
    for (size_t head = first; head < end; head++) {
        size_t base = head * s->positions;
        move_rows(s, s->v, s->v_scales, base + job->keep, base + from, n);
        move_rows(s, s->k, s->k_scales, base + job->keep, base + from, n);
        turn_rows(s, base + job->keep, n);
    }
}

void session_shift(session *s, uint32_t keep, uint32_t drop) {
    shift job = {s, keep, drop};
    session_angles(&s->model->config, -(double)drop, s->rope);
    pool_run(s->pool, shift_heads, &job);
    memmove(s->ids + keep, s->ids + keep + drop, (s->position - keep - drop) * sizeof *s->ids);
    s->position -= drop;
    s->begun = 0;
    s->exact = (uint32_t)bp_min(s->exact, keep);
}

/* ---- bytes ---- */

static size_t heads_of(const session *s) {
    return (size_t)s->model->config.n_layers * s->model->config.n_kv_heads;
}

size_t session_state_bytes(const session *s, uint32_t position, bool last) {
    size_t row = s->row_bytes + (s->k_scales ? sizeof *s->k_scales : 0);
    return position * sizeof *s->ids + (last ? s->model->config.d_model * sizeof *s->stream : 0) +
           2 * heads_of(s) * position * row;
}

static const float *last_stream(const session *s) {
    return s->stream + s->last * padded(s->model->config.d_model);
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
    size_t rows = s->position * s->row_bytes, scales = s->position * sizeof *s->k_scales;
    out = put(out, s->ids, s->position * sizeof *s->ids);
    if (s->last != UINT32_MAX) out = put(out, last_stream(s), s->model->config.d_model * sizeof *s->stream);
    for (size_t head = 0; head < heads_of(s); head++) {
        size_t at = head * s->positions;
        out = put(out, s->k + at * s->row_bytes, rows);
        out = put(out, s->v + at * s->row_bytes, rows);
        if (s->k_scales) out = put(out, s->k_scales + at, scales);
        if (s->v_scales) out = put(out, s->v_scales + at, scales);
    }
}

static bool sound_scales(const uint8_t *in, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float scale;
        memcpy(&scale, in + i * sizeof scale, sizeof scale);
        if (!(scale >= 0 && scale <= 1e15f)) return false;
    }
    return true;
}

/* Finite ones */
static bool sound_halves(const uint8_t *in, size_t n) {
    for (size_t i = 0; i < n; i++)
        if ((in[2 * i + 1] & 0x7c) == 0x7c) return false;
    return true;
}

bool session_state_sound(const session *s, uint32_t position, bool last, const uint8_t *in) {
    size_t rows = position * s->row_bytes, scales = position * sizeof *s->k_scales;
    in += position * sizeof *s->ids;
    if (last) in += s->model->config.d_model * sizeof *s->stream;
    for (size_t head = 0; head < heads_of(s); head++) {
        if (!s->k_scales && !sound_halves(in, rows)) return false; /* keys and values: 2 rows of half as many halves */
        in += 2 * rows;
        if (!s->k_scales) continue;
        if (!sound_scales(in, 2 * (size_t)position)) return false;
        in += 2 * scales;
    }
    return true;
}

void session_state_load(session *s, uint32_t position, bool last, const uint8_t *in) {
    size_t rows = position * s->row_bytes, scales = position * sizeof *s->k_scales;
    session_rewind(s, 0);
    in = get(s->ids, in, position * sizeof *s->ids);
    if (last) in = get(s->stream, in, s->model->config.d_model * sizeof *s->stream);
    for (size_t head = 0; head < heads_of(s); head++) {
        size_t at = head * s->positions;
        in = get(s->k + at * s->row_bytes, in, rows);
        in = get(s->v + at * s->row_bytes, in, rows);
        if (s->k_scales) in = get(s->k_scales + at, in, scales);
        if (s->v_scales) in = get(s->v_scales + at, in, scales);
    }
    s->position = position;
    s->last = last ? 0 : UINT32_MAX;
}

/* Rows of all heads, of keys or values */
static void copy_rows(session *to, const session *from, uint8_t *rows, const uint8_t *old, float *scales,
                      const float *old_scales) {
    for (size_t head = 0; head < heads_of(from); head++) {
        size_t at = head * to->positions, old_at = head * from->positions, n = from->position;
        memcpy(rows + at * to->row_bytes, old + old_at * from->row_bytes, n * from->row_bytes);
        if (scales) memcpy(scales + at, old_scales + old_at, n * sizeof *scales);
    }
}

void session_copy(session *to, const session *from) {
    memcpy(to->ids, from->ids, from->position * sizeof *from->ids);
    copy_rows(to, from, to->k, from->k, to->k_scales, from->k_scales);
    copy_rows(to, from, to->v, from->v, to->v_scales, from->v_scales);
    session_rewind(to, from->position);
    to->exact = from->exact;
    if (from->last == UINT32_MAX) return;
    memcpy(to->stream, last_stream(from), from->model->config.d_model * sizeof *from->stream);
    to->last = 0;
}
