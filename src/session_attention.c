/* Attention of a pass, between the products that make queries, keys and values and the one that takes what it gives.
 *
 * One token: each thread takes a stretch of all positions of all heads, whole spans of one head, and leaves a part of
 * each; then everyone merges all parts for itself, which is cheaper than to meet again. The last span of a head is
 * worked on by the thread that stores its new key and value, so nobody waits for those.
 * Several tokens: each thread takes tokens of heads; a span that all tokens of a tile see in full is read once for them.
 * Both give the same bits: parts are of the same spans, and are merged in their order. */
#include "mathf.h"
#include "session_internal.h"

static size_t group_of(const span *sp) { return sp->c->n_heads / sp->c->n_kv_heads; }

/* q/k norm (Qwen3) and rotation of one head: head [dim] <- x [head_dim], padded */
static void turn_head(const span *sp, float *head, const float *x, const float *norm, size_t token) {
    size_t dim = sp->c->head_dim;
    memset(head + dim, 0, (sp->s->dim - dim) * sizeof *head);
    if (norm)
        sp->s->kernels->rmsnorm(head, x, norm, dim, sp->c->norm_eps);
    else
        memcpy(head, x, dim * sizeof *head);
    session_rotate(head, sp->s->rope + token * dim, dim, sp->c->rope_interleaved);
}

static void store_kv(const span *sp, const model_layer *l, size_t layer, size_t kv_head, size_t token) {
    session *s = sp->s;
    size_t at = token * sp->kv + kv_head * sp->c->head_dim;
    size_t row = cache_row(s, layer, kv_head, s->position + token);
    float head[KERNEL_HEAD];
    turn_head(sp, head, s->key + at, l->k_norm, token);
    cache_store(s, s->k, s->k_scales, row, head);
    cache_store(s, s->v, s->v_scales, row, s->value + at);
}

/* own->queries from `first` on <- those of one token that share a KV head */
static void prepare_queries(const span *sp, const model_layer *l, size_t kv_head, size_t token, size_t first) {
    session *s = sp->s;
    size_t group = group_of(sp), bytes = kernel_query_bytes(s->dim);
    const float *q = s->q + token * sp->q + kv_head * group * sp->c->head_dim;
    float factor = 1.0f / bp_sqrtf((float)sp->c->head_dim), head[KERNEL_HEAD];
    for (size_t i = 0; i < group; i++) {
        turn_head(sp, head, q + i * sp->c->head_dim, l->q_norm, token);
        s->cache->prepare(sp->own->queries + (first + i) * bytes, head, s->dim, factor);
    }
}

static kernel_span span_at(const session *s, size_t layer, size_t kv_head, size_t position) {
    size_t row = cache_row(s, layer, kv_head, position), at = row * s->row_bytes;
    return (kernel_span){.k = s->k + at,
                         .v = s->v + at,
                         .k_scales = s->k_scales ? s->k_scales + row : NULL,
                         .v_scales = s->v_scales ? s->v_scales + row : NULL};
}

/* out [head_dim] <- values / sum */
static void finish(const span *sp, float *out, const float *part) {
    float sum = part[sp->s->dim + KERNEL_PART_SUM];
    for (size_t i = 0; i < sp->c->head_dim; i++) out[i] = part[i] / sum;
}

/* ---- one token ---- */

/* own->attended <- all parts, merged */
static void merge_heads(const span *sp, size_t spans) {
    session *s = sp->s;
    size_t group = group_of(sp), floats = kernel_part_floats(s->dim);
    for (size_t head = 0; head < sp->c->n_heads; head++) {
        const float *part = s->parts + (head / group * spans * group + head % group) * floats;
        memcpy(sp->own->parts, part, floats * sizeof *part);
        for (size_t i = 1; i < spans; i++) s->kernels->merge(sp->own->parts, part + i * group * floats, s->dim);
        finish(sp, sp->own->attended + head * sp->c->head_dim, sp->own->parts);
    }
}

/* Keys of the span at a position, or of the next head's first where there is none; NULL if it is not full, or after the
 * last head */
static const void *keys_after(const span *sp, size_t layer, size_t kv_head, size_t position) {
    size_t known = (size_t)sp->s->position + 1;
    if (position >= known) {
        kv_head++;
        position = 0;
    }
    const bool full = kv_head < sp->c->n_kv_heads && position + KERNEL_SPAN <= known;
    return full ? span_at(sp->s, layer, kv_head, position).k : NULL;
}

/* A span is worked on by the thread in whose share of all positions its middle lies. */
static void attend_one(const span *sp, const model_layer *l, size_t layer) {
    session *s = sp->s;
    size_t known = (size_t)s->position + 1, spans = bp_ceil_div(known, KERNEL_SPAN), group = group_of(sp), first, end;
    own_items(sp, sp->c->n_kv_heads * known, &first, &end);
    for (size_t kv_head = 0; kv_head < sp->c->n_kv_heads; kv_head++) {
        bool ready = false;
        for (size_t i = 0; i < spans; i++) {
            size_t at = i * KERNEL_SPAN, n = bp_min(known - at, KERNEL_SPAN);
            size_t middle = kv_head * known + at + n / 2;
            if (middle < first || middle >= end) continue;
            if (!ready) prepare_queries(sp, l, kv_head, 0, 0);
            ready = true;
            if (i + 1 == spans) store_kv(sp, l, layer, kv_head, 0);
            kernel_span cached = span_at(s, layer, kv_head, at);
            cached.next = keys_after(sp, layer, kv_head, at + KERNEL_SPAN);
            s->cache->attend(s->parts + (kv_head * spans + i) * group * kernel_part_floats(s->dim), sp->own->queries,
                             group, &cached, n, s->dim);
        }
    }
    profile_mark(sp->work.profile, PROFILE_ATTENTION);
    meet(sp, &sp->rows);
    merge_heads(sp, spans);
}

/* ---- several tokens ---- */

/* Of own->parts, those of queries [first, first + n) <- with n_pos positions of one more span */
static void attend_span(const span *sp, size_t layer, size_t kv_head, size_t at, size_t n_pos, size_t first, size_t n) {
    session *s = sp->s;
    size_t floats = kernel_part_floats(s->dim);
    float *sum = sp->own->parts + first * floats, *part = sp->own->parts + SESSION_TILE * group_of(sp) * floats;
    const uint8_t *queries = sp->own->queries + first * kernel_query_bytes(s->dim);
    kernel_span cached = span_at(s, layer, kv_head, at);
    s->cache->attend(at ? part : sum, queries, n, &cached, n_pos, s->dim);
    for (size_t i = 0; at && i < n; i++) s->kernels->merge(sum + i * floats, part + i * floats, s->dim);
}

/* Tokens [token, token + n), n <= SESSION_TILE, of the heads that share a KV head */
static void attend_tile(const span *sp, const model_layer *l, size_t layer, size_t kv_head, size_t token, size_t n) {
    session *s = sp->s;
    size_t group = group_of(sp), dim = sp->c->head_dim, known = s->position + token + 1; /* to the first of them */
    size_t shared = known / KERNEL_SPAN * KERNEL_SPAN;
    for (size_t i = 0; i < n; i++) prepare_queries(sp, l, kv_head, token + i, i * group);
    for (size_t at = 0; at < shared; at += KERNEL_SPAN) attend_span(sp, layer, kv_head, at, KERNEL_SPAN, 0, n * group);
    for (size_t i = 0; i < n; i++) {
        for (size_t at = shared; at < known + i; at += KERNEL_SPAN)
            attend_span(sp, layer, kv_head, at, bp_min(known + i - at, KERNEL_SPAN), i * group, group);
        for (size_t j = 0; j < group; j++)
            finish(sp, s->attended + ((token + i) * sp->c->n_heads + kv_head * group + j) * dim,
                   sp->own->parts + (i * group + j) * kernel_part_floats(s->dim));
    }
}

static void attend_several(const span *sp, const model_layer *l, size_t layer) {
    size_t first, end, n;
    own_items(sp, sp->c->n_kv_heads * sp->n, &first, &end);
    for (size_t at = first; at < end; at++) store_kv(sp, l, layer, at / sp->n, sp->first + at % sp->n);
    profile_mark(sp->work.profile, PROFILE_ATTENTION);
    meet(sp, sp->everyone);
    for (size_t at = first; at < end; at += n) {
        size_t token = at % sp->n;
        n = bp_min(bp_min(end - at, sp->n - token), SESSION_TILE);
        attend_tile(sp, l, layer, at / sp->n, sp->first + token, n);
    }
    profile_mark(sp->work.profile, PROFILE_ATTENTION);
    meet(sp, &sp->rows);
}

const float *session_attend(const span *sp, const model_layer *l, size_t layer) {
    if (sp->n == 1) {
        attend_one(sp, l, layer);
        profile_mark(sp->work.profile, PROFILE_ATTENTION);
        return sp->own->attended;
    }
    attend_several(sp, l, layer);
    return sp->s->attended + sp->first * sp->c->n_heads * sp->c->head_dim;
}
