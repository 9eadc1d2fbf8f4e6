#include "decoder.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/gemm_bf16.h"
#include "linalg/linalg.h"
#include "tune/vector.h"

/* Rows of W in one item of a product: enough for BLAS to reach its speed, few enough to share evenly. */
enum { BLOCK = 192, PRODUCTS = 3 };

struct decoder {
    const model *m;
    workers *w;
    size_t slots, ctx, q_width, kv_width;
    block_weights *layers;   /* [n_layers] */
    float *head;             /* [vocab, d_model] */
    float *keys, *values;    /* [n_layers, slots, n_kv_heads, ctx, head_dim] */
    float *rope;             /* [ctx, head_dim / 2, 2] cos, sin */
    size_t *length;          /* [slots] */
    float *stream;           /* [slots, d_model] residual stream */
    float *x;                /* [slots, width] input of the next linear layers */
    float *q, *k, *v;        /* [slots, q_width or kv_width] */
    float *gate, *up;        /* [slots, d_ff] */
    float *logits, *scores;  /* [slots, vocab]; of each worker [n_heads / n_kv_heads, ctx] */
    size_t width, group;     /* row stride of x; query heads of one key head */
    const decoder_row *rows; /* of the step at hand */
    size_t n;
};

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static void fill_rope(const decoder *d) {
    const model_config *c = &d->m->config;
    size_t half = c->head_dim / 2;
    double step = log((double)c->rope_theta) * 2 / c->head_dim;
    for (size_t t = 0; t < d->ctx; t++)
        for (size_t j = 0; j < half; j++) {
            double angle = (double)t * exp(-step * (double)j) / (c->rope_freqs ? (double)c->rope_freqs[j] : 1);
            d->rope[(t * half + j) * 2] = (float)cos(angle);
            d->rope[(t * half + j) * 2 + 1] = (float)sin(angle);
        }
}

static bool take(float **p, size_t n) { return (*p = malloc(n * sizeof **p)) != NULL; }

static bool take_all(decoder *d) {
    const model_config *c = &d->m->config;
    size_t cache = d->slots * c->n_layers * d->ctx * d->kv_width;
    d->length = calloc(d->slots, sizeof *d->length);
    d->layers = calloc(c->n_layers, sizeof *d->layers);
    return d->length && d->layers && take(&d->head, (size_t)c->vocab * c->d_model) && take(&d->keys, cache) &&
           take(&d->values, cache) && take(&d->rope, d->ctx * c->head_dim) && take(&d->stream, d->slots * c->d_model) &&
           take(&d->x, d->slots * d->width) && take(&d->q, d->slots * d->q_width) &&
           take(&d->k, d->slots * d->kv_width) && take(&d->v, d->slots * d->kv_width) &&
           take(&d->gate, d->slots * c->d_ff) && take(&d->up, d->slots * c->d_ff) &&
           take(&d->logits, d->slots * c->vocab) && take(&d->scores, workers_count(d->w) * d->group * d->ctx);
}

static void head_rows(void *context, size_t i, uint32_t worker) {
    const decoder *d = context;
    size_t width = d->m->config.d_model;
    (void)worker;
    for (size_t r = i * BLOCK; r < bp_min((i + 1) * BLOCK, d->m->config.vocab); r++)
        linear_row(&d->m->head, r, d->head + r * width);
}

static bool fill_weights(decoder *d, bp_err *e) {
    for (uint32_t i = 0; i < d->m->config.n_layers; i++) {
        if (!block_open(&d->layers[i], &d->m->layers[i], e)) return false;
        block_dequantize(d->w, &d->layers[i], &d->m->layers[i]);
    }
    workers_for(d->w, bp_ceil_div(d->m->config.vocab, BLOCK), head_rows, d);
    return true;
}

decoder *decoder_open(const model *m, workers *w, size_t slots, size_t ctx, bp_err *e) {
    const model_config *c = &m->config;
    decoder *d = calloc(1, sizeof *d);
    if (m->factorized) {
        bp_fail(e, BP_ERR_ARGUMENT, 0, "the model is compressed already: give the dense model");
    } else if (d) {
        d->m = m;
        d->w = w;
        d->slots = slots;
        d->ctx = ctx;
        d->q_width = (size_t)c->n_heads * c->head_dim;
        d->kv_width = (size_t)c->n_kv_heads * c->head_dim;
        d->width = bp_max(bp_max(c->d_model, c->d_ff), d->q_width);
        d->group = c->n_heads / c->n_kv_heads;
    }
    if (d && d->m && take_all(d)) {
        fill_rope(d);
        if (fill_weights(d, e)) return d;
    } else if (!m->factorized) {
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory for %zu sequences of %zu tokens", slots, ctx);
    }
    decoder_close(d);
    return NULL;
}

void decoder_close(decoder *d) {
    if (!d) return;
    for (uint32_t i = 0; d->layers && i < d->m->config.n_layers; i++) block_close(&d->layers[i]);
    float *const all[] = {d->head, d->keys, d->values, d->rope, d->stream, d->x,     d->q,
                          d->k,    d->v,    d->gate,   d->up,   d->logits, d->scores};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) free(all[i]);
    free(d->layers);
    free(d->length);
    free(d);
}

void decoder_rewind(decoder *d, size_t slot, size_t length) { d->length[slot] = length; }

/* ---- products -------------------------------------------------------------------------------------------------- */

/* Up to three products y_i [n, rows_i] = beta y_i + x W_i' + bias_i of the same input, as one loop over blocks. */
typedef struct {
    size_t n, m, ldx, count;
    const float *x;
    float beta;
    struct {
        const float *W, *bias; /* [rows, m]; [rows] or NULL */
        float *y;              /* [n, rows] */
        size_t rows;
    } of[PRODUCTS];
} products;

static void product_block(void *context, size_t i, uint32_t worker) {
    const products *p = context;
    size_t which = 0;
    (void)worker;
    while (i >= bp_ceil_div(p->of[which].rows, BLOCK)) i -= bp_ceil_div(p->of[which++].rows, BLOCK);
    size_t first = i * BLOCK, rows = p->of[which].rows, count = bp_min(BLOCK, rows - first);
    float *y = p->of[which].y + first;
    const float *bias = p->of[which].bias;
    gemm_bf16_split(false, true, p->n, count, p->m, 1, p->x, p->ldx, p->of[which].W + first * p->m, p->m, p->beta, y,
                    rows);
    for (size_t t = 0; bias && t < p->n; t++)
        for (size_t j = 0; j < count; j++) y[t * rows + j] += bias[first + j];
}

static void products_run(workers *w, products *p) {
    size_t blocks = 0;
    for (size_t i = 0; i < p->count; i++) blocks += bp_ceil_div(p->of[i].rows, BLOCK);
    workers_for(w, blocks, product_block, p);
}

/* stream += x W' */
static void add_product(const decoder *d, const linear *w, const float *W) {
    products p = {d->n, w->m, d->width, 1, d->x, 1, {{W, w->bias, d->stream, w->n}}};
    products_run(d->w, &p);
}

/* ---- rows ------------------------------------------------------------------------------------------------------ */

/* What a loop over the rows of a step works on. */
typedef struct {
    decoder *d;
    const model_layer *layer;
    uint32_t index;      /* of the layer */
    const float *weight; /* of a norm */
} row_task;

static void rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(sum / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static void normalise_row(void *context, size_t i, uint32_t worker) {
    const row_task *t = context;
    const model_config *c = &t->d->m->config;
    (void)worker;
    rmsnorm(t->d->x + i * t->d->width, t->d->stream + i * c->d_model, t->weight, c->d_model, c->norm_eps);
}

/* Norm (Qwen3) and rotation of the heads of one row of q or k. */
static void rotate(const decoder *d, float *x, size_t heads, const float *norm, size_t position) {
    const model_config *c = &d->m->config;
    size_t dim = c->head_dim, half = dim / 2, stride = c->rope_interleaved ? 2 : 1,
           other = c->rope_interleaved ? 1 : half;
    const float *table = d->rope + position * dim;
    for (float *head = x; head < x + heads * dim; head += dim) {
        if (norm) rmsnorm(head, head, norm, dim, c->norm_eps);
        for (size_t j = 0; j < half; j++) {
            float cosine = table[2 * j], sine = table[2 * j + 1], a = head[j * stride], b = head[j * stride + other];
            head[j * stride] = a * cosine - b * sine;
            head[j * stride + other] = a * sine + b * cosine;
        }
    }
}

/* Appends k and v of a row to its sequence's cache and attends: x = softmax(q keys' / sqrt(head_dim)) values, the query
 * heads that share a key head together. */
static void attend_row(void *context, size_t i, uint32_t worker) {
    const row_task *t = context;
    decoder *d = t->d;
    const model_config *c = &d->m->config;
    size_t slot = d->rows[i].slot, at = d->length[slot], dim = c->head_dim;
    float *q = d->q + i * d->q_width, *k = d->k + i * d->kv_width, *v = d->v + i * d->kv_width,
          *scores = d->scores + worker * d->group * d->ctx, scale = 1 / sqrtf((float)dim);
    rotate(d, q, c->n_heads, t->layer->q_norm, at);
    rotate(d, k, c->n_kv_heads, t->layer->k_norm, at);
    for (size_t h = 0; h < c->n_kv_heads; h++) {
        size_t cache = ((t->index * d->slots + slot) * c->n_kv_heads + h) * d->ctx * dim;
        float *keys = d->keys + cache, *values = d->values + cache;
        memcpy(keys + at * dim, k + h * dim, dim * sizeof *k);
        memcpy(values + at * dim, v + h * dim, dim * sizeof *v);
        linalg_gemm(false, true, d->group, at + 1, dim, 1, q + h * d->group * dim, dim, keys, dim, 0, scores, at + 1);
        for (size_t g = 0; g < d->group; g++) vector_softmax(scores + g * (at + 1), scale, at + 1, at + 1);
        linalg_gemm(false, false, d->group, dim, at + 1, 1, scores, at + 1, values, dim, 0,
                    d->x + i * d->width + h * d->group * dim, dim);
    }
}

static void gate_row(void *context, size_t i, uint32_t worker) {
    const row_task *t = context;
    size_t ff = t->d->m->config.d_ff;
    float *x = t->d->x + i * t->d->width, *gate = t->d->gate + i * ff, *up = t->d->up + i * ff;
    (void)worker;
    vector_swiglu(x, gate, up, ff);
}

/* ---- the step -------------------------------------------------------------------------------------------------- */

static void run_layer(decoder *d, uint32_t index) {
    const model_layer *l = &d->m->layers[index];
    float *const *W = d->layers[index].W;
    row_task t = {d, l, index, l->attn_norm};
    products qkv = {d->n,
                    l->q.m,
                    d->width,
                    3,
                    d->x,
                    0,
                    {{W[PART_Q], l->q.bias, d->q, l->q.n},
                     {W[PART_K], l->k.bias, d->k, l->k.n},
                     {W[PART_V], l->v.bias, d->v, l->v.n}}};
    products feed = {d->n,
                     l->up.m,
                     d->width,
                     2,
                     d->x,
                     0,
                     {{W[PART_GATE], l->gate.bias, d->gate, l->gate.n}, {W[PART_UP], l->up.bias, d->up, l->up.n}}};
    workers_for(d->w, d->n, normalise_row, &t);
    products_run(d->w, &qkv);
    workers_for(d->w, d->n, attend_row, &t);
    add_product(d, &l->o, W[PART_O]);
    t.weight = l->ffn_norm;
    workers_for(d->w, d->n, normalise_row, &t);
    products_run(d->w, &feed);
    workers_for(d->w, d->n, gate_row, &t);
    add_product(d, &l->down, W[PART_DOWN]);
}

/* Logits of the rows that want them; these rows move to the front of x. */
static void run_head(decoder *d, decoder_row *rows) {
    const model_config *c = &d->m->config;
    size_t wanted = 0;
    for (size_t i = 0; i < d->n; i++) {
        rows[i].logits = NULL;
        if (!rows[i].wanted) continue;
        rmsnorm(d->x + wanted * d->width, d->stream + i * c->d_model, d->m->out_norm, c->d_model, c->norm_eps);
        rows[i].logits = d->logits + wanted++ * c->vocab;
    }
    products p = {wanted, c->d_model, d->width, 1, d->x, 0, {{d->head, NULL, d->logits, c->vocab}}};
    if (wanted) products_run(d->w, &p);
}

void decoder_step(decoder *d, decoder_row *rows, size_t n) {
    d->rows = rows;
    d->n = n;
    for (size_t i = 0; i < n; i++)
        linear_row(&d->m->embedding, (size_t)rows[i].id, d->stream + i * d->m->config.d_model);
    for (uint32_t layer = 0; layer < d->m->config.n_layers; layer++) run_layer(d, layer);
    run_head(d, rows);
    for (size_t i = 0; i < n; i++) d->length[rows[i].slot]++;
}
