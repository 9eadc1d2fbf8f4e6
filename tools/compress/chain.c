#include "chain.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/gemm_bf16.h"
#include "score.h"
#include "tune/vector.h"

enum { QUERIES = 64 }; /* rows of one block of attention scores */

static size_t q_width(const model_config *c) { return (size_t)c->n_heads * c->head_dim; }
static size_t kv_width(const model_config *c) { return (size_t)c->n_kv_heads * c->head_dim; }
static size_t x_width(const model_config *c) { return bp_max(bp_max(c->d_model, c->d_ff), q_width(c)); }

/* Floats of scratch for one sequence: q, k, v and a block of scores, or gate and up. */
static size_t scratch_floats(const model_config *c, size_t ctx) {
    size_t attention = ctx * (q_width(c) + 2 * kv_width(c)) + QUERIES * ctx, feed = 2 * ctx * c->d_ff;
    return bp_round_up(bp_max(attention, feed), 16);
}

uint64_t chain_activation_bytes(const model *m, size_t n_seqs, size_t ctx, bool entry) {
    uint64_t d = m->config.d_model;
    return sizeof(float) * (uint64_t)n_seqs * ctx * (CHAINS * (d + x_width(&m->config)) + entry * d);
}

uint64_t chain_own_bytes(const model *m, size_t ctx, uint32_t threads) {
    return sizeof(float) * ((uint64_t)ctx * m->config.head_dim + (uint64_t)threads * scratch_floats(&m->config, ctx));
}

uint64_t chain_front_bytes(const model *m, size_t n_seqs, size_t ctx, bool entry, uint32_t threads) {
    size_t seqs = bp_max(threads, bp_ceil_div(CHAIN_CHUNK, ctx) + 1);
    return chain_activation_bytes(m, bp_min(n_seqs, seqs), ctx, entry);
}

static void rope_table(const chain *c) {
    const model_config *config = &c->model->config;
    size_t half = config->head_dim / 2;
    double step = log((double)config->rope_theta) * 2 / config->head_dim;
    for (size_t t = 0; t < c->ctx; t++)
        for (size_t j = 0; j < half; j++) {
            double angle =
                (double)t * exp(-step * (double)j) / (config->rope_freqs ? (double)config->rope_freqs[j] : 1);
            c->rope[(t * half + j) * 2] = (float)cos(angle);
            c->rope[(t * half + j) * 2 + 1] = (float)sin(angle);
        }
}

bool chain_open(chain *c, workers *w, const model *m, const int32_t *ids, size_t n_seqs, size_t n_val, size_t ctx,
                bool entry, const char *folder, bp_err *e) {
    const model_config *config = &m->config;
    *c = (chain){.model = m, .w = w, .ids = ids, .n_seqs = n_seqs, .ctx = ctx, .n_tokens = n_seqs * ctx};
    c->product = gemm_bf16_split;
    c->n_train = (n_seqs - n_val) * ctx;
    c->width = x_width(config);
    c->own_size = scratch_floats(config, ctx);
    if (!spill_open(&c->activations, (size_t)chain_activation_bytes(m, n_seqs, ctx, entry), folder, e)) return false;
    c->rope = c->memory = malloc((size_t)chain_own_bytes(m, ctx, workers_count(w)));
    if (!c->memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for sequences of %zu tokens: lower --ctx", ctx);
    float *p = c->activations.at;
    for (int side = 0; side < CHAINS; side++) {
        c->stream[side] = p;
        c->x[side] = c->stream[side] + c->n_tokens * config->d_model;
        p = c->x[side] + c->n_tokens * c->width;
    }
    c->entry = entry ? p : NULL;
    c->own = c->rope + ctx * config->head_dim;
    rope_table(c);
    return true;
}

void chain_close(chain *c) {
    spill_close(&c->activations);
    free(c->memory);
    *c = (chain){0};
}

void chain_release(const chain *c, size_t first, size_t n) {
    size_t d = c->model->config.d_model;
    for (int side = 0; side < CHAINS; side++) {
        spill_release(&c->activations, c->stream[side] + first * d, n * d * sizeof(float));
        spill_release(&c->activations, c->x[side] + first * c->width, n * c->width * sizeof(float));
    }
    if (c->entry) spill_release(&c->activations, c->entry + first * d, n * d * sizeof(float));
}

/* ---- steps: each is a loop over sequences ---------------------------------------------------------------------- */

typedef struct step step;
struct step {
    chain *c;
    void (*run)(const step *s, size_t seq, uint32_t worker);
    chain_side side;
    const model_layer *layer;
    const block_weights *b;
    const linear *table; /* embedding */
    const float *weight; /* of a norm, or W [d_model, m] */
    size_t m;
};

static void run_sequence(void *context, size_t seq, uint32_t worker) {
    const step *s = context;
    s->run(s, seq, worker);
    chain_release(s->c, seq * s->c->ctx, s->c->ctx);
}

static void run_step(step *s) { workers_for(s->c->w, s->c->n_seqs, run_sequence, s); }

static void embed_sequence(const step *s, size_t seq, uint32_t worker) {
    chain *c = s->c;
    size_t d = c->model->config.d_model;
    (void)worker;
    for (size_t t = seq * c->ctx; t < (seq + 1) * c->ctx; t++)
        linear_row(s->table, (size_t)c->ids[t], c->stream[s->side] + t * d);
}

void chain_embed(chain *c, chain_side side, const linear *table) {
    step s = {.c = c, .run = embed_sequence, .side = side, .table = table};
    run_step(&s);
}

static void keep_sequence(const step *s, size_t seq, uint32_t worker) {
    size_t n = s->c->ctx * s->c->model->config.d_model;
    (void)worker;
    memcpy(s->c->entry + seq * n, s->c->stream[CHAIN_STUDENT] + seq * n, n * sizeof(float));
}

static void return_sequence(const step *s, size_t seq, uint32_t worker) {
    size_t n = s->c->ctx * s->c->model->config.d_model;
    (void)worker;
    memcpy(s->c->stream[CHAIN_STUDENT] + seq * n, s->c->entry + seq * n, n * sizeof(float));
}

void chain_keep_entry(chain *c) {
    step s = {.c = c, .run = keep_sequence};
    run_step(&s);
}

void chain_return_to_entry(chain *c) {
    step s = {.c = c, .run = return_sequence};
    run_step(&s);
}

static void normalise_sequence(const step *s, size_t seq, uint32_t worker) {
    chain *c = s->c;
    size_t d = c->model->config.d_model;
    (void)worker;
    for (size_t t = seq * c->ctx; t < (seq + 1) * c->ctx; t++)
        score_rmsnorm(c->x[s->side] + t * c->width, c->stream[s->side] + t * d, s->weight, d,
                      c->model->config.norm_eps);
}

static void normalise_side(chain *c, chain_side side, const float *weight) {
    step s = {.c = c, .run = normalise_sequence, .side = side, .weight = weight};
    run_step(&s);
}

void chain_normalise(chain *c, const float *weight) {
    for (chain_side side = 0; side < CHAINS; side++) normalise_side(c, side, weight);
}

/* out [ctx, w->n] = x W' + bias */
static void project(const chain *c, float *out, const float *x, const linear *w, const float *W) {
    c->product(false, true, c->ctx, w->n, w->m, 1, x, c->width, W, w->m, 0, out, w->n);
    if (!w->bias) return;
    for (size_t t = 0; t < c->ctx; t++)
        for (size_t i = 0; i < w->n; i++) out[t * w->n + i] += w->bias[i];
}

/* norm (Qwen3) and rotation of every head of q or k [ctx, heads * head_dim] */
static void rotate(const chain *c, float *x, size_t heads, const float *norm) {
    const model_config *config = &c->model->config;
    size_t dim = config->head_dim, half = dim / 2, stride = config->rope_interleaved ? 2 : 1,
           other = config->rope_interleaved ? 1 : half;
    for (size_t t = 0; t < c->ctx; t++) {
        const float *table = c->rope + t * dim;
        for (size_t h = 0; h < heads; h++) {
            float *head = x + (t * heads + h) * dim;
            if (norm) score_rmsnorm(head, head, norm, dim, config->norm_eps);
            for (size_t j = 0; j < half; j++) {
                float cosine = table[2 * j], sine = table[2 * j + 1], a = head[j * stride],
                      b = head[j * stride + other];
                head[j * stride] = a * cosine - b * sine;
                head[j * stride + other] = a * sine + b * cosine;
            }
        }
    }
}

/* One head of one sequence: out [ctx, head_dim] (row stride width) = softmax(q k' / sqrt(head_dim)) v */
static void attend_head(const chain *c, float *out, const float *q, const float *k, const float *v, float *scores) {
    const model_config *config = &c->model->config;
    size_t dim = config->head_dim, qs = q_width(config), ks = kv_width(config);
    float scale = 1 / sqrtf((float)dim);
    for (size_t first = 0; first < c->ctx; first += QUERIES) {
        size_t rows = bp_min(QUERIES, c->ctx - first), seen = first + rows;
        gemm_bf16_split(false, true, rows, seen, dim, 1, q + first * qs, qs, k, ks, 0, scores, seen);
        for (size_t i = 0; i < rows; i++) vector_softmax(scores + i * seen, scale, first + i + 1, seen);
        c->product(false, false, rows, dim, seen, 1, scores, seen, v, ks, 0, out + first * c->width, c->width);
    }
}

static void attend_sequence(const step *s, size_t seq, uint32_t worker) {
    chain *c = s->c;
    const model_config *config = &c->model->config;
    size_t dim = config->head_dim, group = config->n_heads / config->n_kv_heads;
    float *x = c->x[s->side] + seq * c->ctx * c->width;
    float *q = c->own + worker * c->own_size, *k = q + c->ctx * q_width(config), *v = k + c->ctx * kv_width(config);
    project(c, q, x, &s->layer->q, s->b->W[PART_Q]);
    project(c, k, x, &s->layer->k, s->b->W[PART_K]);
    project(c, v, x, &s->layer->v, s->b->W[PART_V]);
    rotate(c, q, config->n_heads, s->layer->q_norm);
    rotate(c, k, config->n_kv_heads, s->layer->k_norm);
    for (size_t h = 0; h < config->n_heads; h++)
        attend_head(c, x + h * dim, q + h * dim, k + h / group * dim, v + h / group * dim,
                    v + c->ctx * kv_width(config));
}

void chain_attend(chain *c, chain_side side, const model_layer *layer, const block_weights *b) {
    step s = {.c = c, .run = attend_sequence, .side = side, .layer = layer, .b = b};
    run_step(&s);
}

static void feed_sequence(const step *s, size_t seq, uint32_t worker) {
    chain *c = s->c;
    size_t d = c->model->config.d_model, ff = c->model->config.d_ff;
    float *x = c->x[s->side] + seq * c->ctx * c->width, *gate = c->own + worker * c->own_size, *up = gate + c->ctx * ff;
    c->product(false, true, c->ctx, ff, d, 1, x, c->width, s->b->W[PART_GATE], d, 0, gate, ff);
    c->product(false, true, c->ctx, ff, d, 1, x, c->width, s->b->W[PART_UP], d, 0, up, ff);
    for (size_t t = 0; t < c->ctx; t++) vector_swiglu(x + t * c->width, gate + t * ff, up + t * ff, ff);
}

void chain_feed(chain *c, chain_side side, const block_weights *b) {
    step s = {.c = c, .run = feed_sequence, .side = side, .b = b};
    run_step(&s);
}

static void add_sequence(const step *s, size_t seq, uint32_t worker) {
    chain *c = s->c;
    size_t d = c->model->config.d_model, first = seq * c->ctx;
    (void)worker;
    c->product(false, true, c->ctx, d, s->m, 1, c->x[s->side] + first * c->width, c->width, s->weight, s->m, 1,
               c->stream[s->side] + first * d, d);
}

void chain_add(chain *c, chain_side side, const float *W, size_t m) {
    step s = {.c = c, .run = add_sequence, .side = side, .weight = W, .m = m};
    run_step(&s);
}

void chain_forward(chain *c, chain_side side, const model_layer *layer, const block_weights *b) {
    normalise_side(c, side, layer->attn_norm);
    chain_attend(c, side, layer, b);
    chain_add(c, side, b->W[PART_O], layer->o.m);
    normalise_side(c, side, layer->ffn_norm);
    chain_feed(c, side, b);
    chain_add(c, side, b->W[PART_DOWN], layer->down.m);
}

/* ---- views and scores ------------------------------------------------------------------------------------------ */

chain chain_slice(const chain *c, size_t first, size_t n) {
    chain slice = *c;
    slice.n_seqs = n;
    slice.n_tokens = n * c->ctx;
    slice.n_train = slice.n_tokens;
    slice.ids += first * c->ctx;
    for (int side = 0; side < CHAINS; side++) {
        slice.stream[side] += first * c->ctx * c->model->config.d_model;
        slice.x[side] += first * c->ctx * c->width;
    }
    return slice;
}

double chain_nll(chain *c, chain_side side, const linear *head) {
    size_t first = c->n_train / c->ctx, scored = c->ctx - 1;
    double total = 0, sum;
    bp_err e;
    for (size_t i = first; i < c->n_seqs; i++) {
        const float *stream = c->stream[side] + i * c->ctx * c->model->config.d_model;
        if (!score_nll(&sum, c->w, c->model, head, stream, c->ids + i * c->ctx + 1, scored, &e)) return NAN;
        chain_release(c, i * c->ctx, c->ctx);
        total += sum;
    }
    return total / (double)((c->n_seqs - first) * scored);
}
