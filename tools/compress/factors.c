#include "factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "pack.h"
#include "refit.h"

enum { REFIT_ROUNDS = 2 };
static const float REFIT_DAMPING = 0.03f; /* of the metric in which scales are fitted */

uint32_t factors_middle(double bits, size_t n, size_t m) {
    double k = 32 * round(bits * (double)n * (double)m / (double)(n + m) / 32);
    return k < 32 ? 32 : (uint32_t)k;
}

uint64_t factors_middle_bytes(stage_shape s) { return pack_scales_bytes(pack_scales_type(s.eight, s.k), s.k); }

uint64_t factors_stage_bytes(size_t n, size_t m, stage_shape s) {
    return pack_scales_bytes(pack_scales_type(s.eight, n), n) + factors_middle_bytes(s) +
           pack_scales_bytes(QUANT_F16, m) + pack_bytes(n, s.k, 1) + pack_bytes(s.k, m, 1);
}

/* ---- storage --------------------------------------------------------------------------------------------------- */

static factor_stage make_empty(stage_shape shape, size_t n) {
    return (factor_stage){.shape = shape,
                          .type_a = pack_scales_type(shape.eight, n),
                          .type_c = pack_scales_type(shape.eight, shape.k),
                          .type_b = QUANT_F16};
}

static void place_stage(factor_stage *s, uint8_t **at, size_t n, size_t m) {
    s->a = *at;
    s->A = s->a + pack_scales_bytes(s->type_a, n);
    s->c = s->A + pack_bytes(n, s->shape.k, 1);
    s->B = s->c + s->shape.n_c * pack_scales_bytes(s->type_c, s->shape.k);
    s->b = s->B + pack_bytes(s->shape.k, m, 1);
    *at = s->b + pack_scales_bytes(s->type_b, m);
}

bool factors_open(factors *f, size_t n, size_t m, const stage_shape *shapes, uint32_t n_stages, bp_err *e) {
    *f = (factors){.n = (uint32_t)n, .m = (uint32_t)m, .n_stages = n_stages};
    for (uint32_t s = 0; s < n_stages; s++) {
        f->stages[s] = make_empty(shapes[s], n);
        f->n_bytes +=
            (size_t)(factors_stage_bytes(n, m, shapes[s]) + (shapes[s].n_c - 1) * factors_middle_bytes(shapes[s]));
    }
    uint8_t *at = f->memory = malloc(bp_max(f->n_bytes, 1));
    if (!at) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for %zu bytes of factors", f->n_bytes);
    for (uint32_t s = 0; s < n_stages; s++) place_stage(&f->stages[s], &at, n, m);
    return true;
}

void factors_close(factors *f) {
    free(f->memory);
    *f = (factors){0};
}

static void store_stage(factor_stage *s, const binary_factors *b) {
    pack_scales(s->a, s->type_a, b->a, b->n);
    pack_scales(s->c, s->type_c, b->c, b->k);
    pack_scales(s->b, s->type_b, b->b, b->m);
    pack_signs(s->A, b->A, b->n, b->k);
    pack_signs(s->B, b->B, b->k, b->m);
}

static void load_stage(binary_factors *b, const factor_stage *s) {
    quant_dequantize(s->type_a, s->a, b->a, b->n);
    quant_dequantize(s->type_c, s->c + (s->shape.n_c - 1) * factors_middle_bytes(s->shape), b->c, b->k);
    quant_dequantize(s->type_b, s->b, b->b, b->m);
    pack_unpack_signs(b->A, s->A, b->n, b->k);
    pack_unpack_signs(b->B, s->B, b->k, b->m);
}

static const gguf_tensor *find_middle(const gguf *file, const char *name, uint32_t stage, uint32_t tier) {
    char tensor[96];
    snprintf(tensor, sizeof tensor, tier > stage ? "%s.%u.c.%u" : "%s.%u.c", name, (unsigned)stage, (unsigned)tier);
    return gguf_tensor_find(file, tensor);
}

stage_shape factors_shape(const gguf *file, const char *name, uint32_t stage, uint32_t k) {
    const gguf_tensor *c = find_middle(file, name, stage, stage);
    stage_shape shape = {k, 1, c && c->type == QUANT_Q8_0};
    for (uint32_t t = stage + 1; t < MODEL_TIERS; t++)
        if (model_middle_renewed(file, name, stage, t)) shape.n_c = t - stage + 1;
    return shape;
}

bool factors_read_middles(float *c, const gguf *file, const char *name, uint32_t stage, uint32_t k, uint32_t n_c,
                          bp_err *e) {
    for (uint32_t i = 0; i < n_c; i++, c += k) {
        const gguf_tensor *t = find_middle(file, name, stage, stage + i);
        if (!t && i) { /* that tier goes on with the scales of the one before */
            memcpy(c, c - k, k * sizeof *c);
            continue;
        }
        const void *data = t && t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] == k ? gguf_data(file, t) : NULL;
        if (!data || !model_scale_type(t->type))
            return bp_fail(e, BP_ERR_FORMAT, t ? t->offset : 0, "layer '%s': stage %u has no %u middle scales", name,
                           (unsigned)stage, (unsigned)k);
        quant_dequantize(t->type, data, c, k);
    }
    return true;
}

static bool take_middles(factor_stage *s, const gguf *file, const char *name, uint32_t stage, bp_err *e) {
    stage_shape shape = s->shape;
    float *c = malloc((size_t)shape.n_c * shape.k * sizeof *c);
    bool ok = c ? factors_read_middles(c, file, name, stage, shape.k, shape.n_c, e)
                : bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the scales of %s", name);
    for (uint32_t i = 0; ok && i < shape.n_c; i++)
        pack_scales(s->c + i * factors_middle_bytes(shape), s->type_c, c + (size_t)i * shape.k, shape.k);
    free(c);
    return ok;
}

bool factors_take(factors *f, const model *m, const char *name, const linear *l, uint32_t count, bp_err *e) {
    for (uint32_t i = 0; i < count; i++) {
        factor_stage *s = &f->stages[i];
        const linear_stage *from = &l->stages[i];
        pack_scales(s->a, s->type_a, from->a, f->n);
        pack_scales(s->b, s->type_b, from->b, f->m);
        memcpy(s->A, from->A.bytes, pack_bytes(f->n, s->shape.k, 1));
        memcpy(s->B, from->B.bytes, pack_bytes(s->shape.k, f->m, 1));
        if (!take_middles(s, m->file, name, i, e)) return false;
    }
    return true;
}

static size_t widest_middle(const factors *f) {
    size_t k = 0;
    for (uint32_t s = 0; s < f->n_stages; s++) k = bp_max(k, f->stages[s].shape.k);
    return k;
}

bool factors_dense(workers *w, const factors *f, float *W, bp_err *e) {
    size_t n = f->n, m = f->m;
    float *V = malloc((n * m + widest_middle(f) * m) * sizeof *V);
    if (!V) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a matrix of %zu x %zu", n, m);
    bool ok = true;
    memset(W, 0, n * m * sizeof *W);
    for (uint32_t s = 0; ok && s < f->n_stages; s++) {
        binary_factors b;
        ok = binary_factors_open(&b, n, m, f->stages[s].shape.k, e);
        if (!ok) break;
        load_stage(&b, &f->stages[s]);
        binary_factors_product(w, &b, V, V + n * m);
        for (size_t i = 0; i < n * m; i++) W[i] += V[i];
        binary_factors_close(&b);
    }
    free(V);
    return ok;
}

/* ---- making ---------------------------------------------------------------------------------------------------- */

/* What is under way: target = what is still to be approximated. */
typedef struct {
    workers *w;
    factors *f;
    const char *name;
    const metric *t;
    const factor_options *options;
    float *left;    /* [n, m] target minus the stages so far */
    float *sum;     /* [n, m] the stages so far */
    float *V;       /* [n, m] the newest stage */
    float *scratch; /* [k, m] */
} making;

/* The product of a stage goes from what is left to what is there. */
static void subtract_stage(making *k, const binary_factors *b) {
    size_t count = (size_t)k->f->n * k->f->m;
    binary_factors_product(k->w, b, k->V, k->scratch);
    for (size_t i = 0; i < count; i++) {
        k->left[i] -= k->V[i];
        k->sum[i] += k->V[i];
    }
}

static bool keep_stage(making *k, uint32_t index, bp_err *e) {
    binary_factors b;
    if (!binary_factors_open(&b, k->f->n, k->f->m, k->f->stages[index].shape.k, e)) return false;
    load_stage(&b, &k->f->stages[index]);
    subtract_stage(k, &b);
    binary_factors_close(&b);
    return true;
}

static bool make_stage(making *k, uint32_t index, bp_err *e) {
    factors *f = k->f;
    admm_options options = {k->options->iterations, k->options->damping, k->options->tick, k->options->context};
    char stream[96];
    snprintf(stream, sizeof stream, "%s/%u", k->name, (unsigned)index);
    rng random = rng_named(k->options->seed, stream);
    binary_factors b;
    if (!binary_factors_open(&b, f->n, f->m, f->stages[index].shape.k, e)) return false;
    const output_metric *o = k->options->outputs;
    bool ok = admm_factorize(k->w, &b, k->left, o, k->t, &options, &random, e) &&
              refit_scales(k->w, &b, k->left, o, k->t, REFIT_DAMPING, REFIT_ROUNDS, e) &&
              refit_round(k->w, &b, k->left, o, k->t, REFIT_DAMPING, f->stages[index].shape.eight, e);
    if (ok) {
        store_stage(&f->stages[index], &b);
        subtract_stage(k, &b);
    }
    binary_factors_close(&b);
    return ok;
}

/* tr(X H X') in the metric, damping left out; scratch [2 n, m] */
static double metric_energy(workers *w, const metric *t, const float *X, size_t n, float *scratch) {
    double sum = 0;
    float *applied = scratch + n * t->m;
    metric_scale(t, scratch, X, n);
    metric_apply(w, t, 0, applied, scratch, n);
    for (size_t i = 0; i < n * t->m; i++) sum += (double)scratch[i] * applied[i];
    return sum;
}

static bool make_stack(making *k, const float *W, const statistics *s, bool corrected, bp_err *e) {
    factors *f = k->f;
    size_t n = f->n, count = n * f->m;
    validation v;
    if (!validation_open(&v, k->w, W, n, s, e)) return false;
    f->report.target = (target_choice){TARGET_PLAIN, 0, validation_error(&v, W)};
    memcpy(k->left, W, count * sizeof *W);
    bool ok = !corrected || target_choose(k->w, k->left, &f->report.target, W, n, s, k->t, &v, k->options->lambda, e);
    double energy = ok ? metric_energy(k->w, k->t, k->left, n, k->V) : 0;
    for (uint32_t i = 0; ok && i < f->n_stages; i++) {
        ok = i < k->options->kept ? keep_stage(k, i, e) : make_stage(k, i, e);
        if (ok) f->report.validation[i] = validation_error(&v, k->sum);
    }
    if (ok) f->report.fit = energy > 0 ? metric_energy(k->w, k->t, k->left, n, k->V) / energy : 0;
    validation_close(&v);
    return ok;
}

bool factors_make(workers *w, factors *f, const char *name, const float *W, const statistics *s, const metric *t,
                  bool corrected, const factor_options *options, bp_err *e) {
    size_t count = (size_t)f->n * f->m;
    float *memory = calloc(4 * count + widest_middle(f) * f->m, sizeof *memory);
    if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to factorize %s", name);
    making k = {w, f, name, t, options, memory, memory + count, memory + 2 * count, memory + 4 * count};
    bool ok = make_stack(&k, W, s, corrected, e);
    free(memory);
    return ok;
}
