#include "output_weights.h"

#include <stdlib.h>

#include "distill.h"
#include "linalg/linalg.h"
#include "network.h"

enum { SEQUENCES = 4 };
static const float HEAD = 0.5f; /* mean over tokens of sum_v p_v (1 - p_v) */

typedef struct {
    output_weights *o;
    workers *w;
    const model *m;
    const file_view *mapped;
    network net;
    distiller head;
    block_trace trace; /* of the block at work: only the streams between blocks are kept, and a block runs forward again
                          before it runs backward, so that memory does not grow with the whole model */
    block_weights W;   /* of the block at work */
    float *between;    /* [n_layers, tokens, d_model] the stream before each block */
    float *E, *stream, *x, *r;
    uint32_t layer;
    size_t tokens; /* so far */
} measuring;

/* ---- sums ------------------------------------------------------------------------------------------------------- */

typedef struct {
    float *sums;
    const float *dY;
    size_t n, tokens;
} squares;

static void add_columns(void *context, size_t item, uint32_t worker) {
    enum { COLUMNS = 64 };
    const squares *s = context;
    size_t first = item * COLUMNS, end = bp_min(s->n, first + COLUMNS);
    (void)worker;
    for (size_t t = 0; t < s->tokens; t++)
        for (size_t i = first; i < end; i++) s->sums[i] += s->dY[t * s->n + i] * s->dY[t * s->n + i];
}

static void add_squares(void *context, part p, const float *dY, const float *X, size_t tokens) {
    measuring *k = context;
    squares s = {k->o->blocks[k->layer].w[p], dY, part_linear(&k->m->layers[k->layer], p)->n, tokens};
    (void)X;
    workers_for(k->w, bp_ceil_div(s.n, 64), add_columns, &s);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

/* mean 1, clipped, shrunk, mean 1 again; sorted [n] is scratch */
static void finish(float *w, float *sorted, size_t n) {
    double sum = 0, mean;
    memcpy(sorted, w, n * sizeof *w);
    qsort(sorted, n, sizeof *w, by_size);
    float limit = sorted[(n - 1) - (n - 1) / 1000];
    for (size_t i = 0; i < n; i++) sum += (double)(w[i] = w[i] > limit ? limit : w[i]);
    mean = sum / (double)n;
    for (size_t i = 0; i < n; i++) w[i] = mean > 0 ? (float)(0.8 * (double)w[i] / mean + 0.2) : 1;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static size_t outputs(const model *m) {
    size_t n = 0;
    for (part p = 0; p < PARTS; p++) n += part_linear(&m->layers[0], p)->n;
    return n;
}

static bool weights_open(output_weights *o, const model *m) {
    uint32_t layers = m->config.n_layers;
    size_t square = (size_t)m->config.d_model * m->config.d_model;
    float *p = o->memory = calloc(layers * outputs(m) + (2 + layers) * square, sizeof *p);
    o->blocks = calloc(layers, sizeof *o->blocks);
    for (uint32_t i = 0; p && o->blocks && i < layers; i++)
        for (part j = 0; j < PARTS; j++) {
            o->blocks[i].w[j] = p;
            p += part_linear(&m->layers[i], j)->n;
        }
    o->embedding = p;
    o->head = p ? p + square : NULL;
    o->streams = p ? o->head + square : NULL;
    return o->memory && o->blocks;
}

void output_weights_close(output_weights *o) {
    free(o->blocks);
    free(o->memory);
    *o = (output_weights){0};
}

static bool measuring_open(measuring *k, size_t ctx, bp_err *e) {
    const model_config *c = &k->m->config;
    size_t tokens = SEQUENCES * ctx, d = c->d_model;
    k->E = malloc((size_t)c->vocab * d * sizeof *k->E);
    k->between = malloc(c->n_layers * tokens * d * sizeof *k->between);
    k->stream = malloc(tokens * d * sizeof *k->stream);
    k->x = malloc(tokens * d * sizeof *k->x);
    k->r = malloc(tokens * sizeof *k->r);
    if (!weights_open(k->o, k->m) || !k->E || !k->between || !k->stream || !k->x || !k->r)
        return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the gradients of the dense model");
    return block_trace_open(&k->trace, k->m, tokens, e) && block_open(&k->W, &k->m->layers[0], e) &&
           network_open(&k->net, k->w, k->m, ctx, SEQUENCES, product_fastest(), e) &&
           distiller_open(&k->head, k->w, product_fastest(), d, c->vocab, NULL, k->E, NULL, tokens, e);
}

static void measuring_close(measuring *k) {
    block_trace_close(&k->trace);
    block_close(&k->W);
    free(k->between);
    free(k->E);
    free(k->stream);
    free(k->x);
    free(k->r);
    distiller_close(&k->head);
    network_close(&k->net);
}

uint64_t output_weights_bytes(const model *m, size_t ctx, uint32_t threads) {
    const model_config *c = &m->config;
    uint64_t tokens = SEQUENCES * ctx, d = c->d_model, weights = m->linear_weights / c->n_layers;
    uint64_t floats =
        c->vocab * d + (c->n_layers + 2) * tokens * d + weights + c->n_layers * outputs(m) + (2 + c->n_layers) * d * d;
    return sizeof(float) * floats + block_trace_bytes(m, tokens) + network_bytes(m, ctx, SEQUENCES, threads) +
           distiller_bytes(c->vocab, false, threads);
}

double output_weights_work(const model *m, size_t n_tokens) {
    double head = (double)m->config.vocab * m->config.d_model;
    return (double)n_tokens * (3 * 2 * (double)m->linear_weights + 2 * 2 * head);
}

/* ---- passes ----------------------------------------------------------------------------------------------------- */

static void widen(float *E, const linear *table) {
    for (size_t i = 0; i < table->n; i++) linear_row(table, i, E + i * table->m);
}

/* Block k->layer, from the stream before it; its trace is left. */
static void run_block(measuring *k, size_t tokens) {
    const model_layer *l = &k->m->layers[k->layer];
    block_dequantize(k->w, &k->W, l);
    block_release(k->mapped, l);
    network_forward(&k->net, l, &k->W, k->stream, tokens, &k->trace);
}

/* sums in the upper triangle -> mean times scale */
static void finish_moments(const measuring *k, float *H, float scale) {
    size_t d = k->m->config.d_model;
    linalg_mirror(H, d);
    for (size_t i = 0; i < d * d; i++) H[i] *= scale / (float)k->tokens;
}

static void run_batch(measuring *k, const int32_t *ids, size_t tokens) {
    const model *m = k->m;
    size_t d = m->config.d_model, stride = SEQUENCES * k->net.ctx * d;
    distill_score score = {0};
    for (size_t t = 0; t < tokens; t++) linear_row(&m->embedding, (size_t)ids[t], k->stream + t * d);
    for (k->layer = 0; k->layer < m->config.n_layers; k->layer++) {
        memcpy(k->between + k->layer * stride, k->stream, tokens * d * sizeof *k->stream);
        run_block(k, tokens);
    }
    network_normalise(&k->net, k->x, k->r, k->stream, m->out_norm, tokens);
    linalg_gram(k->o->head, d, k->x, d, tokens);
    distiller_run_text(&k->head, k->x, k->x, ids, k->net.ctx, tokens, &score);
    for (size_t i = 0; i < tokens * d; i++) k->x[i] *= (float)tokens; /* L is a mean over them: now a sum */
    network_normalise_backward(&k->net, k->x, k->stream, m->out_norm, k->r, tokens);
    while (k->layer-- > 0) {
        gradient_sink sink = {add_squares, k};
        linalg_gram(k->o->streams + k->layer * d * d, d, k->x, d, tokens);
        memcpy(k->stream, k->between + k->layer * stride, tokens * d * sizeof *k->stream);
        run_block(k, tokens);
        network_backward(&k->net, &m->layers[k->layer], &k->W, k->x, tokens, &k->trace, &sink);
    }
    linalg_gram(k->o->embedding, d, k->x, d, tokens);
    k->tokens += tokens;
}

bool output_weights_measure(output_weights *o, workers *w, const model *m, const file_view *mapped,
                            const calibration *text, size_t n_tokens, bool fused,
                            bool (*tick)(void *context, double share), void *context, bp_err *e) {
    measuring k = {.o = o, .w = w, .m = m, .mapped = mapped};
    size_t ctx = text->ctx, n_seqs = bp_min(bp_max(1, n_tokens / ctx), text->n_seqs - text->n_val);
    *o = (output_weights){0};
    bool ok = measuring_open(&k, ctx, e);
    if (ok) widen(k.E, &m->head);
    file_release(mapped, m->head.rows, m->head.n * m->head.row_bytes);
    for (size_t i = 0; ok && i < n_seqs; i += SEQUENCES) {
        /* spread over the whole text */
        int32_t *ids = text->ids + i * ((text->n_seqs - text->n_val) / n_seqs) * ctx;
        run_batch(&k, ids, bp_min(SEQUENCES, n_seqs - i) * ctx);
        if (tick && !tick(context, (double)(i + 1) / (double)n_seqs)) ok = bp_fail(e, BP_OK, 0, "interrupted");
    }
    for (uint32_t i = 0; ok && i < m->config.n_layers; i++)
        for (part p = 0; p < PARTS; p++) {
            stack s = stack_of(&m->layers[i], p, fused);
            if (s.n) finish(o->blocks[i].w[p], k.stream, s.n);
        }
    for (uint32_t i = 0; ok && i < m->config.n_layers; i++)
        finish_moments(&k, o->streams + (size_t)i * m->config.d_model * m->config.d_model, 1);
    if (ok) finish_moments(&k, o->embedding, 1);
    if (ok) finish_moments(&k, o->head, HEAD);
    measuring_close(&k);
    if (!ok) output_weights_close(o);
    return ok;
}
