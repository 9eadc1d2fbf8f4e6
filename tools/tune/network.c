#include "network.h"

#include <math.h>
#include <stdlib.h>

#include "vector.h"

enum { QUERIES = 128, ROWS = 32 }; /* rows of one block of scores; tokens of one item of elementwise work */

static size_t q_width(const model_config *c) { return (size_t)c->n_heads * c->head_dim; }
static size_t kv_width(const model_config *c) { return (size_t)c->n_kv_heads * c->head_dim; }

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void rope_table(const network *n) {
    const model_config *c = &n->model->config;
    size_t half = c->head_dim / 2;
    double step = log((double)c->rope_theta) * 2 / c->head_dim;
    for (size_t t = 0; t < n->ctx; t++)
        for (size_t j = 0; j < half; j++) {
            double angle = (double)t * exp(-step * (double)j) / (c->rope_freqs ? (double)c->rope_freqs[j] : 1);
            n->rope[(t * half + j) * 2] = (float)cos(angle);
            n->rope[(t * half + j) * 2 + 1] = (float)sin(angle);
        }
}

uint64_t network_bytes(const model *m, size_t ctx, size_t n_seqs, uint32_t threads) {
    const model_config *c = &m->config;
    uint64_t wide = bp_max(q_width(c), c->d_ff);
    return sizeof(float) * (ctx * c->head_dim + n_seqs * ctx * (3 * wide + c->d_model) + threads * 2 * QUERIES * ctx);
}

bool network_open(network *n, workers *w, const model *m, size_t ctx, size_t n_seqs, product_kind kind, bp_err *e) {
    const model_config *c = &m->config;
    *n = (network){.model = m, .w = w, .kind = kind, .ctx = ctx, .most = n_seqs * ctx};
    size_t wide = bp_max(q_width(c), c->d_ff);
    n->own_size = 2 * QUERIES * ctx;
    float *p = n->memory = malloc((size_t)network_bytes(m, ctx, n_seqs, workers_count(w)));
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a batch of %zu tokens", n->most);
    n->rope = p;
    p += ctx * c->head_dim;
    for (int i = 0; i < 3; i++, p += n->most * wide) n->d_wide[i] = p;
    n->d_input = p;
    n->own = p + n->most * c->d_model;
    rope_table(n);
    return true;
}

void network_close(network *n) {
    free(n->memory);
    *n = (network){0};
}

static size_t trace_floats(const model *m, size_t tokens) {
    const model_config *c = &m->config;
    bool raw = m->layers[0].q_norm != NULL;
    return tokens * (4 * (size_t)c->d_model + 2 + (raw ? 2 : 1) * (q_width(c) + kv_width(c)) + kv_width(c) +
                     q_width(c) + 3 * (size_t)c->d_ff);
}

size_t block_trace_bytes(const model *m, size_t tokens) { return trace_floats(m, tokens) * sizeof(float); }

bool block_trace_open(block_trace *t, const model *m, size_t tokens, bp_err *e) {
    const model_config *c = &m->config;
    bool raw = m->layers[0].q_norm != NULL;
    *t = (block_trace){.memory = malloc(block_trace_bytes(m, tokens))};
    float *p = t->memory;
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the activations of %zu tokens", tokens);
    const struct {
        float **array;
        size_t width;
    } arrays[] = {{&t->in, c->d_model},
                  {&t->r1, 1},
                  {&t->r2, 1},
                  {&t->x1, c->d_model},
                  {&t->x2, c->d_model},
                  {&t->q, q_width(c)},
                  {&t->k, kv_width(c)},
                  {&t->v, kv_width(c)},
                  {&t->attention, q_width(c)},
                  {&t->mid, c->d_model},
                  {&t->gate, c->d_ff},
                  {&t->up, c->d_ff},
                  {&t->h, c->d_ff},
                  {&t->q_raw, raw ? q_width(c) : 0},
                  {&t->k_raw, raw ? kv_width(c) : 0}};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) {
        if (arrays[i].width) *arrays[i].array = p;
        p += tokens * arrays[i].width;
    }
    return true;
}

void block_trace_close(block_trace *t) {
    free(t->memory);
    *t = (block_trace){0};
}

/* ---- steps over rows ------------------------------------------------------------------------------------------- */

typedef struct {
    network *n;
    const model_layer *layer;
    block_trace *t;
    size_t tokens, width;
    float *x, *r, *y; /* of norms: output, factors; in swiglu_backward y = dh */
    const float *stream, *weight, *E;
    const int32_t *ids;
    float *dq, *dk, *dv;
    const float *d_attention;
    bool backward;
} rows;

static void for_rows(rows *s, void (*fn)(void *context, size_t i, uint32_t worker)) {
    workers_for(s->n->w, bp_ceil_div(s->tokens, ROWS), fn, s);
}

static size_t row_end(const rows *s, size_t item) { return bp_min(s->tokens, (item + 1) * ROWS); }

static void embed_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    size_t d = s->n->model->config.d_model;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++)
        memcpy(s->x + t * d, s->E + (size_t)s->ids[t] * d, d * sizeof(float));
}

void network_embed(network *n, const float *E, const int32_t *ids, float *stream, size_t tokens) {
    rows s = {.n = n, .tokens = tokens, .x = stream, .E = E, .ids = ids};
    for_rows(&s, embed_rows);
}

static void normalise_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    const model_config *c = &s->n->model->config;
    size_t d = c->d_model;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++)
        s->r[t] = vector_rmsnorm(s->x + t * d, s->stream + t * d, s->weight, d, c->norm_eps);
}

void network_normalise(network *n, float *x, float *r, const float *stream, const float *weight, size_t tokens) {
    rows s = {.n = n, .tokens = tokens, .x = x, .r = r, .stream = stream, .weight = weight};
    for_rows(&s, normalise_rows);
}

/* s->x [tokens, d_model] += gradient of the norm for s->y */
static void normalise_back_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    size_t d = s->n->model->config.d_model;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++)
        vector_rmsnorm_backward(s->x + t * d, s->y + t * d, s->stream + t * d, s->weight, s->r[t], d);
}

static void normalise_back(network *n, float *d, float *dy, const float *stream, const float *weight, float *r,
                           size_t tokens) {
    rows s = {.n = n, .tokens = tokens, .x = d, .y = dy, .r = r, .stream = stream, .weight = weight};
    for_rows(&s, normalise_back_rows);
}

void network_normalise_backward(network *n, float *d, const float *stream, const float *weight, const float *r,
                                size_t tokens) {
    size_t count = tokens * n->model->config.d_model;
    memcpy(n->d_input, d, count * sizeof *d);
    memset(d, 0, count * sizeof *d);
    rows s = {.n = n,
              .tokens = tokens,
              .x = d,
              .y = n->d_input,
              .r = (float *)(uintptr_t)r,
              .stream = stream,
              .weight = weight};
    for_rows(&s, normalise_back_rows);
}

static void swiglu_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    size_t ff = s->n->model->config.d_ff;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++)
        vector_swiglu(s->t->h + t * ff, s->t->gate + t * ff, s->t->up + t * ff, ff);
}

static void swiglu_back_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    size_t ff = s->n->model->config.d_ff;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++)
        vector_swiglu_backward(s->t->gate + t * ff, s->t->up + t * ff, s->y + t * ff, ff);
}

/* ---- rotation -------------------------------------------------------------------------------------------------- */

/* Rotates one head [head_dim] by the angles of its position, or back. */
static void rotate_head(const model_config *c, float *head, const float *table, bool back) {
    size_t half = c->head_dim / 2, stride = c->rope_interleaved ? 2 : 1, other = c->rope_interleaved ? 1 : half;
    for (size_t j = 0; j < half; j++) {
        float cosine = table[2 * j], sine = back ? -table[2 * j + 1] : table[2 * j + 1], a = head[j * stride],
              b = head[j * stride + other];
        head[j * stride] = a * cosine - b * sine;
        head[j * stride + other] = a * sine + b * cosine;
    }
}

static void rotate_token(const rows *s, float *x, const float *raw, size_t t, size_t heads, const float *norm) {
    const model_config *c = &s->n->model->config;
    size_t dim = c->head_dim;
    const float *table = s->n->rope + t % s->n->ctx * dim;
    for (size_t h = 0; h < heads; h++) {
        float *head = x + (t * heads + h) * dim;
        if (norm) vector_rmsnorm(head, raw + (t * heads + h) * dim, norm, dim, c->norm_eps);
        rotate_head(c, head, table, false);
    }
}

static void rotate_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    const model_config *c = &s->n->model->config;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++) {
        rotate_token(s, s->t->q, s->t->q_raw, t, c->n_heads, s->layer->q_norm);
        rotate_token(s, s->t->k, s->t->k_raw, t, c->n_kv_heads, s->layer->k_norm);
    }
}

static void rotate_token_back(const rows *s, float *d, const float *raw, size_t t, size_t heads, const float *norm) {
    const model_config *c = &s->n->model->config;
    size_t dim = c->head_dim;
    const float *table = s->n->rope + t % s->n->ctx * dim;
    float dy[1024];
    for (size_t h = 0; h < heads; h++) {
        float *head = d + (t * heads + h) * dim;
        rotate_head(c, head, table, true);
        if (!norm) continue;
        const float *x = raw + (t * heads + h) * dim;
        float r = 1 / sqrtf(vector_dot(x, x, dim) / (float)dim + c->norm_eps);
        memcpy(dy, head, dim * sizeof *dy);
        memset(head, 0, dim * sizeof *head);
        vector_rmsnorm_backward(head, dy, x, norm, r, dim);
    }
}

static void rotate_back_rows(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    const model_config *c = &s->n->model->config;
    (void)worker;
    for (size_t t = item * ROWS; t < row_end(s, item); t++) {
        rotate_token_back(s, s->dq, s->t->q_raw, t, c->n_heads, s->layer->q_norm);
        rotate_token_back(s, s->dk, s->t->k_raw, t, c->n_kv_heads, s->layer->k_norm);
    }
}

/* ---- attention ------------------------------------------------------------------------------------------------- */

/* P [count, seen] = softmax(q k' / sqrt(head_dim)) of the queries first.. of one head; returns seen. */
static size_t probabilities(const network *n, float *P, const float *q, const float *k, size_t first, size_t count) {
    const model_config *c = &n->model->config;
    size_t dim = c->head_dim, seen = first + count;
    /* scores in float32: they are large, and their rounding would be that of an exponent */
    product_one(PRODUCT_F32, false, true, count, seen, dim, q + first * q_width(c), q_width(c), k, kv_width(c), 0, P,
                seen);
    for (size_t i = 0; i < count; i++) vector_softmax(P + i * seen, 1 / sqrtf((float)dim), first + i + 1, seen);
    return seen;
}

static void attend_head(const rows *s, size_t seq, size_t head, float *P) {
    const network *n = s->n;
    const model_config *c = &n->model->config;
    size_t dim = c->head_dim, kv = head / (c->n_heads / c->n_kv_heads), row = seq * n->ctx;
    const float *q = s->t->q + row * q_width(c) + head * dim, *k = s->t->k + row * kv_width(c) + kv * dim,
                *v = s->t->v + row * kv_width(c) + kv * dim;
    float *out = s->t->attention + row * q_width(c) + head * dim;
    for (size_t first = 0; first < n->ctx; first += QUERIES) {
        size_t count = bp_min(QUERIES, n->ctx - first), seen = probabilities(n, P, q, k, first, count);
        product_one(n->kind, false, false, count, dim, seen, P, seen, v, kv_width(c), 0, out + first * q_width(c),
                    q_width(c));
    }
}

static void attend_back_head(const rows *s, size_t seq, size_t head, float *P, float *dP) {
    const network *n = s->n;
    const model_config *c = &n->model->config;
    size_t dim = c->head_dim, kv = head / (c->n_heads / c->n_kv_heads), row = seq * n->ctx, qs = q_width(c),
           ks = kv_width(c), q_at = row * qs + head * dim, k_at = row * ks + kv * dim;
    const float *q = s->t->q + q_at, *k = s->t->k + k_at, *v = s->t->v + k_at, *d = s->d_attention + q_at;
    for (size_t first = 0; first < n->ctx; first += QUERIES) {
        size_t count = bp_min(QUERIES, n->ctx - first), seen = probabilities(n, P, q, k, first, count);
        product_one(n->kind, true, false, seen, dim, count, P, seen, d + first * qs, qs, 1, s->dv + k_at, ks);
        product_one(n->kind, false, true, count, seen, dim, d + first * qs, qs, v, ks, 0, dP, seen);
        for (size_t i = 0; i < count; i++)
            vector_softmax_backward(dP + i * seen, P + i * seen, 1 / sqrtf((float)dim), seen);
        product_one(n->kind, false, false, count, dim, seen, dP, seen, k, ks, 0, s->dq + q_at + first * qs, qs);
        product_one(n->kind, true, false, seen, dim, count, dP, seen, q + first * qs, qs, 1, s->dk + k_at, ks);
    }
}

/* An item is the group of heads that share keys and values, in one sequence: nobody else adds to their gradients. */
static void attend_group(void *context, size_t item, uint32_t worker) {
    const rows *s = context;
    const model_config *c = &s->n->model->config;
    size_t seq = item / c->n_kv_heads, group = c->n_heads / c->n_kv_heads, first = item % c->n_kv_heads * group;
    float *P = s->n->own + worker * s->n->own_size;
    for (size_t h = first; h < first + group; h++)
        if (s->backward)
            attend_back_head(s, seq, h, P, P + QUERIES * s->n->ctx);
        else
            attend_head(s, seq, h, P);
}

static void attend(rows *s) {
    workers_for(s->n->w, s->tokens / s->n->ctx * s->n->model->config.n_kv_heads, attend_group, s);
}

/* ---- the block ------------------------------------------------------------------------------------------------- */

/* Y [tokens, n] = X W' + bias, or += */
static void project(network *n, float *Y, const float *X, const linear *w, const float *W, size_t tokens, bool add) {
    product_run(n->w, n->kind, false, true, tokens, w->n, w->m, X, w->m, W, w->m, add, Y, w->n);
    if (w->bias)
        for (size_t t = 0; t < tokens; t++) vector_add(Y + t * w->n, w->bias, 1, w->n);
}

/* dX [tokens, m] = dY W, or += */
static void project_back(network *n, float *dX, const float *dY, const linear *w, const float *W, size_t tokens,
                         bool add) {
    product_run(n->w, n->kind, false, false, tokens, w->m, w->n, dY, w->n, W, w->m, add, dX, w->m);
}

void network_forward(network *n, const model_layer *l, const block_weights *b, float *stream, size_t tokens,
                     block_trace *t) {
    size_t d = n->model->config.d_model;
    rows s = {.n = n, .layer = l, .t = t, .tokens = tokens};
    memcpy(t->in, stream, tokens * d * sizeof *stream);
    network_normalise(n, t->x1, t->r1, stream, l->attn_norm, tokens);
    project(n, t->q_raw ? t->q_raw : t->q, t->x1, &l->q, b->W[PART_Q], tokens, false);
    project(n, t->k_raw ? t->k_raw : t->k, t->x1, &l->k, b->W[PART_K], tokens, false);
    project(n, t->v, t->x1, &l->v, b->W[PART_V], tokens, false);
    for_rows(&s, rotate_rows);
    attend(&s);
    project(n, stream, t->attention, &l->o, b->W[PART_O], tokens, true);
    memcpy(t->mid, stream, tokens * d * sizeof *stream);
    network_normalise(n, t->x2, t->r2, stream, l->ffn_norm, tokens);
    project(n, t->gate, t->x2, &l->gate, b->W[PART_GATE], tokens, false);
    project(n, t->up, t->x2, &l->up, b->W[PART_UP], tokens, false);
    for_rows(&s, swiglu_rows);
    project(n, stream, t->h, &l->down, b->W[PART_DOWN], tokens, true);
}

static void feed_backward(network *n, const model_layer *l, const block_weights *b, float *d, size_t tokens,
                          block_trace *t, const gradient_sink *sink) {
    rows s = {.n = n, .layer = l, .t = t, .tokens = tokens, .y = n->d_wide[0]};
    project_back(n, n->d_wide[0], d, &l->down, b->W[PART_DOWN], tokens, false);
    sink->layer(sink->context, PART_DOWN, d, t->h, tokens);
    for_rows(&s, swiglu_back_rows);
    project_back(n, n->d_input, t->gate, &l->gate, b->W[PART_GATE], tokens, false);
    project_back(n, n->d_input, t->up, &l->up, b->W[PART_UP], tokens, true);
    sink->layer(sink->context, PART_GATE, t->gate, t->x2, tokens);
    sink->layer(sink->context, PART_UP, t->up, t->x2, tokens);
    normalise_back(n, d, n->d_input, t->mid, l->ffn_norm, t->r2, tokens);
}

static void attention_backward(network *n, const model_layer *l, const block_weights *b, float *d, size_t tokens,
                               block_trace *t, const gradient_sink *sink) {
    const model_config *c = &n->model->config;
    float *dq = n->d_wide[1], *dk = n->d_wide[2], *dv = dk + tokens * kv_width(c);
    if (2 * kv_width(c) > bp_max(q_width(c), c->d_ff)) dv = t->gate; /* free by now, [tokens, d_ff] */
    rows s = {.n = n,
              .layer = l,
              .t = t,
              .tokens = tokens,
              .dq = dq,
              .dk = dk,
              .dv = dv,
              .backward = true,
              .d_attention = n->d_wide[0]};
    project_back(n, n->d_wide[0], d, &l->o, b->W[PART_O], tokens, false);
    sink->layer(sink->context, PART_O, d, t->attention, tokens);
    memset(dk, 0, tokens * kv_width(c) * sizeof *dk);
    memset(dv, 0, tokens * kv_width(c) * sizeof *dv);
    attend(&s);
    for_rows(&s, rotate_back_rows);
    project_back(n, n->d_input, dq, &l->q, b->W[PART_Q], tokens, false);
    project_back(n, n->d_input, dk, &l->k, b->W[PART_K], tokens, true);
    project_back(n, n->d_input, dv, &l->v, b->W[PART_V], tokens, true);
    sink->layer(sink->context, PART_Q, dq, t->x1, tokens);
    sink->layer(sink->context, PART_K, dk, t->x1, tokens);
    sink->layer(sink->context, PART_V, dv, t->x1, tokens);
    normalise_back(n, d, n->d_input, t->in, l->attn_norm, t->r1, tokens);
}

void network_backward(network *n, const model_layer *layer, const block_weights *b, float *d, size_t tokens,
                      block_trace *t, const gradient_sink *sink) {
    feed_backward(n, layer, b, d, tokens, t, sink);
    attention_backward(n, layer, b, d, tokens, t, sink);
}
