#include "output_weights.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "compress/checkpoint.h"
#include "distill.h"
#include "linalg/gemm_bf16.h"
#include "network.h"
#include "platform.h"
#include "vector.h"

enum { SEQUENCES = 4, KEEP_EVERY = 60 /* seconds */ };
static const float DAMPING = 0.1f; /* of correlations */
static const float HEAD = 0.5f;    /* mean over tokens of sum_v p_v (1 - p_v) */

typedef struct {
    output_weights *o;
    workers *w;
    const model *m;
    const output_weights_options *options;
    network net;
    distiller head;
    block_trace trace; /* of the block at work: only the streams between blocks are kept, and a block runs forward again
                          before it runs backward, so that memory does not grow with the whole model */
    block_weights W;   /* of the block at work */
    float *between;    /* [n_layers, tokens, d_model] the stream before each block */
    float *E, *stream, *x, *r;
    uint32_t layer;
    size_t tokens;                    /* so far, of those that count for outputs and tables */
    size_t first;                     /* token of the batch */
    bool counts;                      /* does the batch? */
    float *squares, *evened, *square; /* scratch of add_gradients; square: [n, n] of the largest G */
} measuring;

/* ---- sums ------------------------------------------------------------------------------------------------------- */

/* A batch of gradients dY [tokens, n] of one layer's outputs. */
typedef struct {
    const float *dY;
    size_t n, tokens;
    float *squares; /* [tokens] of their sizes */
    float *evened;  /* [tokens, n] dY_t / sqrt |dY_t| */
    float *sums;    /* [n] += squares of dY */
} gradients;

typedef struct {
    float *G;
    const float *square;
    size_t n;
} triangle;

enum { COLUMNS = 64, ROWS = 64 }; /* of a matrix in an item of work */

static float *tokens_of(const output_weights *o, uint32_t layer, part p) {
    return o->tokens + ((size_t)layer * INPUTS + part_input(p)) * o->n_tokens;
}

const float *output_weights_tokens(const output_weights *o, uint32_t layer, part p) {
    return o->tokens ? tokens_of(o, layer, p) : NULL;
}

static void even_rows(void *context, size_t item, uint32_t worker) {
    const gradients *g = context;
    (void)worker;
    for (size_t t = item * ROWS; t < bp_min(g->tokens, (item + 1) * ROWS); t++) {
        const float *dy = g->dY + t * g->n, square = vector_dot(dy, dy, g->n);
        const float by = square > 0 ? 1 / sqrtf(sqrtf(square)) : 0;
        g->squares[t] = square;
        for (size_t i = 0; i < g->n; i++) g->evened[t * g->n + i] = by * dy[i];
    }
}

static void add_columns(void *context, size_t item, uint32_t worker) {
    const gradients *g = context;
    size_t first = item * COLUMNS, end = bp_min(g->n, first + COLUMNS);
    (void)worker;
    for (size_t t = 0; t < g->tokens; t++)
        for (size_t i = first; i < end; i++) g->sums[i] += g->dY[t * g->n + i] * g->dY[t * g->n + i];
}

/* H [n, n] += X' X; the product's rounding is nothing beside the noise of the gradients */
static void add_moments(const measuring *k, float *H, const float *X, size_t n, size_t tokens) {
    workers_gemm_by(k->w, gemm_bf16, true, false, n, n, tokens, 1, X, n, X, n, 1, H, n);
}

/* Rows of G += those of a square's upper triangle */
static void add_triangle(void *context, size_t item, uint32_t worker) {
    const triangle *t = context;
    size_t n = t->n;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(n, (item + 1) * ROWS); i++) {
        const float *from = t->square + i * n + i;
        float *to = t->G + output_metric_row(i, n);
        for (size_t j = 0; j < n - i; j++) to[j] += from[j];
    }
}

static void add_outer(const measuring *k, float *G, const float *X, size_t n, size_t tokens) {
    triangle t = {G, k->square, n};
    memset(k->square, 0, n * n * sizeof *k->square);
    add_moments(k, k->square, X, n, tokens);
    workers_for(k->w, bp_ceil_div(n, ROWS), add_triangle, &t);
}

static void add_gradients(void *context, part p, const float *dY, const float *X, size_t tokens) {
    measuring *k = context;
    const block_output_weights *b = &k->o->blocks[k->layer];
    size_t n = part_linear(&k->m->layers[k->layer], p)->n;
    gradients g = {dY, n, tokens, k->squares, k->evened, b->w[p]};
    (void)X;
    workers_for(k->w, bp_ceil_div(tokens, ROWS), even_rows, &g);
    if (k->counts) workers_for(k->w, bp_ceil_div(n, COLUMNS), add_columns, &g);
    if (k->counts && b->G[p]) add_outer(k, b->G[p], g.evened, n, tokens);
    if (!k->o->tokens) return;
    float *sums = tokens_of(k->o, k->layer, p) + k->first;
    for (size_t t = 0; t < tokens; t++) sums[t] += g.squares[t];
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

/* sums of squares -> their roots, clipped, mean 1; sorted [n] is scratch */
static void finish_tokens(float *v, float *sorted, size_t n) {
    double sum = 0;
    for (size_t t = 0; t < n; t++) sorted[t] = v[t] = sqrtf(v[t]);
    qsort(sorted, n, sizeof *v, by_size);
    float limit = sorted[(n - 1) - (n - 1) / 100];
    for (size_t t = 0; t < n; t++) sum += (double)(v[t] = v[t] > limit ? limit : v[t]);
    for (size_t t = 0; t < n; t++) v[t] = sum > 0 ? (float)((double)v[t] * (double)n / sum) : 1;
}

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static size_t outputs(const model *m) {
    size_t n = 0;
    for (part p = 0; p < PARTS; p++) n += part_linear(&m->layers[0], p)->n;
    return n;
}

static size_t widest(const model *m) {
    size_t n = 0;
    for (part p = 0; p < PARTS; p++) n = bp_max(n, part_linear(&m->layers[0], p)->n);
    return n;
}

bool output_weights_whole(part p) { return p != PART_GATE && p != PART_UP; }

static size_t triangle_of(const model *m, part p) {
    size_t n = part_linear(&m->layers[0], p)->n;
    return output_weights_whole(p) ? n * (n + 1) / 2 : 0;
}

/* Of the largest G */
static size_t largest_square(const model *m) {
    size_t n = 0;
    for (part p = 0; p < PARTS; p++)
        if (output_weights_whole(p)) n = bp_max(n, part_linear(&m->layers[0], p)->n);
    return n * n;
}

/* n_tokens of the whole text */
static size_t floats_of(const model *m, size_t n_tokens, const output_weights_options *options) {
    size_t square = (size_t)m->config.d_model * m->config.d_model, block = outputs(m);
    for (part p = 0; options->moments && p < PARTS; p++) block += triangle_of(m, p);
    if (options->streams) block += square;
    if (options->tokens) block += INPUTS * n_tokens;
    return m->config.n_layers * block + 2 * square;
}

uint64_t output_weights_kept_bytes(const model *m, size_t n_tokens, const output_weights_options *options) {
    return sizeof(float) * (uint64_t)floats_of(m, n_tokens, options);
}

static bool weights_open(output_weights *o, const model *m, size_t n_tokens, const output_weights_options *options) {
    uint32_t layers = m->config.n_layers;
    size_t square = (size_t)m->config.d_model * m->config.d_model;
    float *p = o->memory = calloc(floats_of(m, n_tokens, options), sizeof *p);
    o->blocks = calloc(layers, sizeof *o->blocks);
    if (!p || !o->blocks) return false;
    for (uint32_t i = 0; i < layers; i++)
        for (part j = 0; j < PARTS; j++) {
            o->blocks[i].w[j] = p;
            p += part_linear(&m->layers[i], j)->n;
        }
    for (uint32_t i = 0; options->moments && i < layers; i++)
        for (part j = 0; j < PARTS; j++) {
            o->blocks[i].G[j] = output_weights_whole(j) ? p : NULL;
            p += triangle_of(m, j);
        }
    o->embedding = p;
    o->head = p + square;
    p = o->head + square;
    o->streams = options->streams ? p : NULL;
    p += options->streams ? layers * square : 0;
    o->tokens = options->tokens ? p : NULL;
    o->n_tokens = options->tokens ? n_tokens : 0;
    return true;
}

bool output_weights_metric(output_metric *out, const output_weights *o, const model *m, uint32_t layer, part p,
                           size_t n, bp_err *e) {
    const block_output_weights *b = o->blocks ? &o->blocks[layer] : NULL;
    if (!output_metric_open(out, b ? b->w[p] : NULL, n, e)) return false;
    for (size_t first = 0, rows; b && first < n; first += rows, p++) {
        rows = part_linear(&m->layers[layer], p)->n;
        if (!b->G[p] || output_metric_add(out, first, rows, b->G[p], DAMPING, e)) continue;
        output_metric_close(out);
        return false;
    }
    return true;
}

void output_weights_close(output_weights *o) {
    free(o->blocks);
    free(o->memory);
    *o = (output_weights){0};
}

static bool measuring_open(measuring *k, const calibration *text, bp_err *e) {
    const model_config *c = &k->m->config;
    size_t ctx = text->ctx, tokens = SEQUENCES * ctx, d = c->d_model;
    k->E = malloc((size_t)c->vocab * d * sizeof *k->E);
    k->between = malloc(c->n_layers * tokens * d * sizeof *k->between);
    k->stream = malloc(tokens * d * sizeof *k->stream);
    k->x = malloc(tokens * d * sizeof *k->x);
    k->r = malloc(tokens * sizeof *k->r);
    k->squares = malloc(tokens * sizeof *k->squares);
    k->evened = malloc(tokens * widest(k->m) * sizeof *k->evened);
    k->square = malloc(largest_square(k->m) * sizeof *k->square);
    if (!weights_open(k->o, k->m, text->n_seqs * ctx, k->options) || !k->squares || !k->evened || !k->square || !k->E ||
        !k->between || !k->stream || !k->x || !k->r)
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
    free(k->squares);
    free(k->evened);
    free(k->square);
    distiller_close(&k->head);
    network_close(&k->net);
}

uint64_t output_weights_bytes(const model *m, size_t ctx, size_t n_tokens, const output_weights_options *options,
                              uint32_t threads) {
    const model_config *c = &m->config;
    uint64_t tokens = SEQUENCES * ctx, d = c->d_model, weights = m->linear_weights / c->n_layers;
    uint64_t floats = c->vocab * d + (c->n_layers + 2) * tokens * d + weights + (options->tokens ? n_tokens : 0) +
                      tokens * (widest(m) + 1) + largest_square(m);
    return output_weights_kept_bytes(m, n_tokens, options) + sizeof(float) * floats + block_trace_bytes(m, tokens) +
           network_bytes(m, ctx, SEQUENCES, threads) + distiller_bytes(c->vocab, false, threads);
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
    block_release(k->options->mapped, l);
    network_forward(&k->net, l, &k->W, k->stream, tokens, &k->trace);
}

/* sums -> mean times scale */
static void finish_moments(const measuring *k, float *H, float scale) {
    size_t d = k->m->config.d_model;
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
    if (k->counts) add_moments(k, k->o->head, k->x, d, tokens);
    distiller_run_drawn(&k->head, k->x, k->x, k->first, tokens, &score);
    for (size_t i = 0; i < tokens * d; i++) k->x[i] *= (float)tokens; /* L is a mean over them: now a sum */
    network_normalise_backward(&k->net, k->x, k->stream, m->out_norm, k->r, tokens);
    while (k->layer-- > 0) {
        gradient_sink sink = {add_gradients, k};
        if (k->counts && k->o->streams) add_moments(k, k->o->streams + k->layer * d * d, k->x, d, tokens);
        memcpy(k->stream, k->between + k->layer * stride, tokens * d * sizeof *k->stream);
        run_block(k, tokens);
        network_backward(&k->net, &m->layers[k->layer], &k->W, k->x, tokens, &k->trace, &sink);
    }
    if (!k->counts) return;
    add_moments(k, k->o->embedding, k->x, d, tokens);
    k->tokens += tokens;
}

/* ---- what is kept of a measurement that is under way ------------------------------------------------------------ */

static const char KEPT_MAGIC[8] = "bpgrad4";

typedef struct {
    char magic[8];
    uint8_t source[32];
    uint64_t floats;       /* of output_weights.memory */
    uint64_t next, tokens; /* sequence, and what measuring has of them */
} kept_header;

static kept_header kept_of(const measuring *k, size_t next) {
    kept_header h = {{0}, {0}, floats_of(k->m, k->o->n_tokens, k->options), next, k->tokens};
    memcpy(h.magic, KEPT_MAGIC, sizeof h.magic);
    memcpy(h.source, k->options->source, sizeof h.source);
    return h;
}

static bool keep(const measuring *k, size_t next, bp_err *e) {
    kept_header h = kept_of(k, next);
    return checkpoint_save_bytes(k->options->kept, &h, sizeof h, k->o->memory, h.floats * sizeof(float), e);
}

/* next <- the sequence to go on with */
static bool recall(measuring *k, size_t *next, bp_err *e) {
    const char *path = k->options->kept;
    kept_header h = kept_of(k, 0), there;
    FILE *f = path ? fopen(path, "rb") : NULL;
    *next = 0;
    if (!f) return true;
    const bool ours = fread(&there, sizeof there, 1, f) == 1 && memcmp(&there, &h, offsetof(kept_header, next)) == 0;
    fclose(f);
    if (!ours)
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "'%s' holds no gradients of this model, this text and these options: name another file", path);
    if (!checkpoint_load_bytes(path, &h, sizeof h, offsetof(kept_header, next), k->o->memory, h.floats * sizeof(float)))
        return true;
    k->tokens = h.tokens;
    *next = h.next;
    return true;
}

size_t output_weights_kept_tokens(const char *kept) {
    kept_header there;
    FILE *f = kept ? fopen(kept, "rb") : NULL;
    if (!f) return 0;
    const bool whole =
        fread(&there, sizeof there, 1, f) == 1 && memcmp(there.magic, KEPT_MAGIC, sizeof there.magic) == 0;
    fclose(f);
    return whole ? (size_t)there.tokens : 0;
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

/* Sequences are taken in batches: all of them, training before validation, or so many for training, spread over the
 * text. */
static bool run_batches(measuring *k, const calibration *text, bp_err *e) {
    const output_weights_options *o = k->options;
    size_t ctx = text->ctx, train = text->n_seqs - text->n_val,
           n = o->tokens ? text->n_seqs : bp_min(bp_max(1, o->n_tokens / ctx), train),
           stride = o->tokens ? 1 : train / n;
    double kept = platform_seconds();
    size_t i, count;
    if (!recall(k, &i, e)) return false;
    for (; i < n; i += count) {
        k->counts = i < train;
        count = bp_min(SEQUENCES, (k->counts ? bp_min(n, train) : n) - i);
        k->first = i * stride * ctx;
        run_batch(k, text->ids + k->first, count * ctx);
        bool whole = i + count == n, go_on = !o->tick || o->tick(o->context, (double)(i + count) / (double)n);
        if (o->kept && (whole || !go_on || platform_seconds() > kept + KEEP_EVERY)) {
            if (!keep(k, i + count, e)) return false;
            kept = platform_seconds();
        }
        if (!go_on) return bp_fail(e, BP_OK, 0, "interrupted");
    }
    return true;
}

/* Sums become means and weights. */
static void finish_all(measuring *k) {
    const model *m = k->m;
    output_weights *o = k->o;
    size_t square = (size_t)m->config.d_model * m->config.d_model;
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        for (part p = 0; p < PARTS; p++) {
            stack s = stack_of(&m->layers[i], p, k->options->fused);
            if (s.n) finish(o->blocks[i].w[p], k->stream, s.n);
        }
        if (o->streams) finish_moments(k, o->streams + i * square, 1);
    }
    finish_moments(k, o->embedding, 1);
    finish_moments(k, o->head, HEAD);
}

/* Each is sorted once: scratch of its own. */
static bool finish_all_tokens(output_weights *o, uint32_t layers, bp_err *e) {
    if (!o->tokens) return true;
    float *sorted = malloc(o->n_tokens * sizeof *sorted);
    if (!sorted) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the weights of %zu tokens", o->n_tokens);
    for (size_t i = 0; i < (size_t)layers * INPUTS; i++)
        finish_tokens(o->tokens + i * o->n_tokens, sorted, o->n_tokens);
    free(sorted);
    return true;
}

bool output_weights_measure(output_weights *o, workers *w, const model *m, const calibration *text,
                            const output_weights_options *options, bp_err *e) {
    measuring k = {.o = o, .w = w, .m = m, .options = options};
    *o = (output_weights){0};
    bool ok = measuring_open(&k, text, e);
    if (ok) widen(k.E, &m->head);
    file_release(options->mapped, m->head.rows, m->head.n * m->head.row_bytes);
    ok = ok && run_batches(&k, text, e);
    if (ok) finish_all(&k);
    ok = ok && finish_all_tokens(o, m->config.n_layers, e);
    measuring_close(&k);
    if (!ok) output_weights_close(o);
    return ok;
}
