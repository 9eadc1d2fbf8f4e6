#include "block_tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "linalg/linalg.h"
#include "linalg/rng.h"
#include "tune/network.h"
#include "tune/student.h"

enum { SEQUENCES = 8, VALIDATION = 16 }; /* of a step; at most */
static const float DAMPING = 1;          /* of G, in its diagonal */

typedef struct {
    const chain *c;
    const block_tune_options *o;
    const model_layer *layer;
    uint32_t index;          /* of the block */
    uint32_t n_tiers, tiers; /* of the file; of this step */
    bool fused;              /* layers [PARTS] are fused stacks */
    size_t d, most;          /* d_model; tokens of a step */
    product_kind kind;
    network net;
    block_trace trace;
    block_weights W;
    student_layer layers[PARTS];
    student_rates rates;
    float *stream, *wrong, *slope; /* [most, d_model] block's output, its error, gradient */
    float *weights;                /* [most] of tokens */
    float *M;                      /* [d_model, d_model] metric */
    float *dW, *scratch;
    size_t *order; /* [training sequences] */
    float cap;     /* on the energy of a token */
    double scale;  /* of the gradient at this step */
    float *memory;
} fitting;

/* ---- memory ----------------------------------------------------------------------------------------------------- */

static void find_largest(const factors *layers, size_t *weights, size_t *scratch) {
    *weights = *scratch = 0;
    for (part p = 0; p < PARTS; p++) {
        size_t n = layers[p].n, m = layers[p].m;
        *weights = bp_max(*weights, n * m);
        for (uint32_t s = 0; s < layers[p].n_stages; s++) {
            size_t k = layers[p].stages[s].shape.k;
            *scratch = bp_max(*scratch, 2 * k * (n + m) + n + k + m);
        }
    }
}

static bool open_fitting(fitting *f, const factors *layers, bp_err *e) {
    const chain *c = f->c;
    size_t weights, scratch, rows = f->most * f->d;
    find_largest(layers, &weights, &scratch);
    float *p = f->memory = malloc((3 * rows + f->most + f->d * f->d + weights + scratch) * sizeof *p);
    f->order = malloc(c->n_train / c->ctx * sizeof *f->order);
    if (!p || !f->order) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to fit a block");
    f->stream = p;
    f->wrong = f->stream + rows;
    f->slope = f->wrong + rows;
    f->weights = f->slope + rows;
    f->M = f->weights + f->most;
    f->dW = f->M + f->d * f->d;
    f->scratch = f->dW + weights;
    for (part i = 0; i < PARTS; i++)
        if (!student_layer_open(&f->layers[i], &layers[i], false, e)) return false;
    return network_open(&f->net, c->w, c->model, c->ctx, f->most / c->ctx, f->kind, e) &&
           block_trace_open(&f->trace, c->model, f->most, e) && block_open(&f->W, f->layer, e);
}

static void close_fitting(fitting *f) {
    for (part i = 0; i < PARTS; i++) student_layer_close(&f->layers[i]);
    block_close(&f->W);
    block_trace_close(&f->trace);
    network_close(&f->net);
    free(f->order);
    free(f->memory);
}

/* ---- error ------------------------------------------------------------------------------------------------------ */

static void take_metric(fitting *f, const float *G) {
    size_t d = f->d;
    double mean = 0;
    for (size_t i = 0; i < d; i++) mean += (1 + (double)DAMPING) * (double)G[i * (d + 1)] / (double)d;
    float unit = mean > 0 ? (float)(1 / mean) : 0;
    for (size_t i = 0; i < d * d; i++) f->M[i] = unit * G[i] * (i % (d + 1) == 0 ? 1 + DAMPING : 1);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static float energy(const fitting *f, size_t token) {
    const float *r = f->c->stream[CHAIN_DENSE] + token * f->d;
    float sum = 0;
    for (size_t i = 0; i < f->d; i++) sum += r[i] * r[i];
    return sum;
}

/* f->cap <- o->clip times the median energy of one token in 16 */
static bool find_cap(fitting *f, bp_err *e) {
    enum { EVERY = 16 };
    size_t n = bp_ceil_div(f->c->n_tokens, EVERY);
    float *sorted = malloc(n * sizeof *sorted);
    if (!sorted) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to fit a block");
    for (size_t i = 0; i < n; i++) sorted[i] = energy(f, i * EVERY);
    qsort(sorted, n, sizeof *sorted, by_size);
    f->cap = f->o->clip > 0 ? f->o->clip * sorted[n / 2] : INFINITY;
    free(sorted);
    return true;
}

static void materialise(fitting *f, uint32_t tiers) {
    f->tiers = tiers;
    for (part p = 0; p < PARTS; p++) student_dense(f->c->w, f->kind, &f->layers[p], tiers, f->W.W[p], f->scratch);
}

/* Place `slot` of the batch <- the student's stream before the block, the weights of its tokens. */
static void load_sequence(fitting *f, size_t slot, size_t seq) {
    size_t ctx = f->c->ctx, n = ctx * f->d;
    memcpy(f->stream + slot * n, f->c->entry + seq * n, n * sizeof *f->stream);
    for (size_t t = 0; t < ctx; t++) {
        float size = energy(f, seq * ctx + t);
        f->weights[slot * ctx + t] = size > f->cap ? f->cap / size : 1;
    }
}

/* Sum over the tokens of a batch of the weighted error in the metric; f->slope <- M (r_q - r_d) */
static double batch_error(fitting *f, const size_t *seqs, size_t count) {
    size_t n = f->c->ctx * f->d, tokens = count * f->c->ctx, d = f->d;
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        const float *right = f->c->stream[CHAIN_DENSE] + seqs[i] * n;
        for (size_t j = 0; j < n; j++) f->wrong[i * n + j] = f->stream[i * n + j] - right[j];
    }
    workers_gemm(f->c->w, false, false, tokens, d, d, 1, f->wrong, d, f->M, d, 0, f->slope, d);
    for (size_t t = 0; t < tokens; t++) {
        double own = 0;
        for (size_t i = 0; i < d; i++) own += (double)f->wrong[t * d + i] * (double)f->slope[t * d + i];
        sum += own * (double)f->weights[t];
    }
    return sum;
}

/* The batch through the block (or past it), and its error as above. */
static double forward(fitting *f, const size_t *seqs, size_t count, bool through) {
    for (size_t i = 0; i < count; i++) load_sequence(f, i, seqs[i]);
    if (through) network_forward(&f->net, f->layer, &f->W, f->stream, count * f->c->ctx, &f->trace);
    double error = batch_error(f, seqs, count);
    for (size_t i = 0; i < count; i++) chain_release(f->c, seqs[i] * f->c->ctx, f->c->ctx);
    return error;
}

/* Error on validation sequences with the matrices as they are; `through` false: of the block left out */
static double validate(fitting *f, bool through) {
    size_t first = f->c->n_train / f->c->ctx, n = bp_min(VALIDATION, f->c->n_seqs - first), batch = f->most / f->c->ctx;
    size_t seqs[SEQUENCES];
    double sum = 0;
    for (size_t i = 0; i < n; i += batch) {
        size_t count = bp_min(batch, n - i);
        for (size_t j = 0; j < count; j++) seqs[j] = first + i + j;
        sum += forward(f, seqs, count, through);
    }
    return sum;
}

/* ---- steps ------------------------------------------------------------------------------------------------------ */

static void use_gradient(void *context, part p, const float *dY, const float *X, size_t tokens) {
    fitting *f = context;
    student_layer *l = &f->layers[stack_first(p, f->fused)];
    size_t n = part_linear(f->layer, p)->n;
    product_run(f->c->w, f->kind, true, false, n, l->m, tokens, dY, n, X, l->m, 0,
                f->dW + stack_row(f->layer, p, f->fused) * l->m, l->m);
    if (!stack_complete(p, f->fused)) return;
    student_update(f->c->w, f->kind, l,
                   (student_turn){.tiers = f->tiers, .first = f->o->first_tier, .n_tiers = f->n_tiers}, f->dW,
                   &f->rates, f->scratch);
}

static void step(fitting *f, const size_t *seqs, size_t count) {
    size_t tokens = count * f->c->ctx;
    gradient_sink sink = {use_gradient, f};
    forward(f, seqs, count, true);
    for (size_t t = 0; t < tokens; t++)
        for (size_t i = 0; i < f->d; i++) f->slope[t * f->d + i] *= (float)(f->scale * (double)f->weights[t]);
    network_backward(&f->net, f->layer, &f->W, f->slope, tokens, &f->trace, &sink);
}

/* The fewest tiers that are trained: one alone would spoil those after it. */
static uint32_t fewest(const fitting *f) {
    uint32_t least = f->n_tiers > 1 ? 2 : 1;
    return least > f->o->first_tier ? least : f->o->first_tier + 1;
}

/* Steps grow over the first tenth, then shrink along a cosine to 2 %. */
static void set_rates(fitting *f, double share) {
    double rise = fmin(1, (share + 0.02) / 0.1), fall = 0.02 + 0.98 * (0.5 + 0.5 * cos(3.14159265358979 * share));
    f->rates = (student_rates){.scales = (float)(rise * fall * f->o->rate), .beta1 = 0.9f, .beta2 = 0.99f};
}

static bool run_steps(fitting *f, const double *before, bp_err *e) {
    char name[48];
    size_t n = f->c->n_train / f->c->ctx, batch = bp_min(f->most / f->c->ctx, n);
    snprintf(name, sizeof name, "block/%u", (unsigned)f->index);
    rng random = rng_named(f->o->seed, name);
    for (uint64_t i = 0, at = n; i < f->o->steps; i++, at += batch) {
        if (at + batch > n) {
            rng_permutation(&random, f->order, n);
            at = 0;
        }
        uint32_t least = fewest(f), tiers = least + (uint32_t)(rng_uniform(&random) * (f->n_tiers - least + 1));
        set_rates(f, (double)i / (double)f->o->steps);
        f->scale = before[tiers - 1] > 0 ? 1 / before[tiers - 1] : 0;
        materialise(f, tiers);
        step(f, f->order + at, batch);
        if (f->o->tick && !f->o->tick(f->o->context)) return bp_fail(e, BP_OK, 0, "interrupted");
    }
    return true;
}

/* errors [tiers - 1] <- on validation tokens; returns the sum of their logarithms */
static double score(fitting *f, double *errors) {
    double sum = 0;
    for (uint32_t tiers = fewest(f); tiers <= f->n_tiers; tiers++) {
        materialise(f, tiers);
        errors[tiers - 1] = validate(f, true);
        sum += log(errors[tiers - 1] + 1e-300);
    }
    return sum;
}

static bool fit(fitting *f, factors *layers, const float *G, block_tune_report *r, bp_err *e) {
    take_metric(f, G);
    if (!find_cap(f, e)) return false;
    double without = validate(f, false), at_first = score(f, r->before);
    if (!run_steps(f, r->before, e)) return false;
    r->kept = score(f, r->after) < at_first;
    for (part p = 0; r->kept && p < PARTS; p++) {
        factor_report report = layers[p].report;
        factors_close(&layers[p]);
        if (!student_factors(&f->layers[p], &layers[p], e)) return false;
        layers[p].report = report;
    }
    for (uint32_t i = 0; i < f->n_tiers && without > 0; i++) {
        r->before[i] /= without;
        r->after[i] /= without;
    }
    return true;
}

bool block_tune(const chain *c, uint32_t layer, factors *layers, const float *G, const block_tune_options *o,
                block_tune_report *r, bp_err *e) {
    fitting f = {.c = c, .o = o, .layer = &c->model->layers[layer], .index = layer, .n_tiers = layers[0].n_stages};
    f.fused = layers[PART_K].n == 0;
    f.d = c->model->config.d_model;
    f.most = bp_min(SEQUENCES, bp_max(1, c->n_train / c->ctx)) * c->ctx;
    f.kind = product_fastest();
    *r = (block_tune_report){.kept = false};
    bool ok = open_fitting(&f, layers, e) && fit(&f, layers, G, r, e);
    close_fitting(&f);
    return ok;
}

/* ---- plan ------------------------------------------------------------------------------------------------------- */

double block_tune_work(const model *m, size_t ctx, double bits, uint64_t steps) {
    double weights = (double)m->linear_weights / m->config.n_layers, tokens = (double)SEQUENCES * (double)ctx;
    double narrow = sqrt(weights / (double)PARTS) / 2 * bits; /* k of all stages of a square layer */
    return (double)steps * (6 * weights * tokens + 6 * weights * narrow);
}

uint64_t block_tune_bytes(const model *m, size_t ctx, double bits, uint32_t threads) {
    uint64_t tokens = SEQUENCES * ctx, d = m->config.d_model, weights = m->linear_weights / m->config.n_layers;
    uint64_t floats = 3 * tokens * d + tokens + d * d + 3 * weights;
    return sizeof(float) * (floats + (uint64_t)(bits * (double)weights)) + block_trace_bytes(m, tokens) +
           network_bytes(m, ctx, SEQUENCES, threads);
}
