#include "factors.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mathf.h"
#include "pack.h"
#include "refit.h"

enum { REFIT_ROUNDS = 2 };
static const float REFIT_DAMPING = 0.03f; /* of the metric in which scales are fitted */

uint32_t factors_middle(double bits, size_t n, size_t m) {
    double k = 32 * round(bits * (double)n * (double)m / (double)(n + m) / 32);
    return k < 32 ? 32 : (uint32_t)k;
}

uint64_t factors_stage_bytes(size_t n, size_t m, size_t k) {
    return 2 * ((uint64_t)n + m + k) + pack_bytes(n, k, 1) + pack_bytes(k, m, 1);
}

/* ---- storage --------------------------------------------------------------------------------------------------- */

static void place_stage(factor_stage *s, uint8_t **at, size_t n, size_t m) {
    /* bytes of a half array are even and those of signs multiples of 16, so every array keeps its alignment */
    s->a = (uint16_t *)(void *)*at;
    s->A = *at + 2 * n;
    s->c = (uint16_t *)(void *)(s->A + pack_bytes(n, s->k, 1));
    s->B = (uint8_t *)(s->c + (size_t)s->n_c * s->k);
    s->b = (uint16_t *)(void *)(s->B + pack_bytes(s->k, m, 1));
    *at = (uint8_t *)(s->b + m);
}

bool factors_open(factors *f, size_t n, size_t m, const uint32_t *k, const uint32_t *n_c, uint32_t n_stages,
                  bp_err *e) {
    *f = (factors){.n = (uint32_t)n, .m = (uint32_t)m, .n_stages = n_stages};
    for (uint32_t s = 0; s < n_stages; s++) {
        f->stages[s].k = k[s];
        f->stages[s].n_c = n_c ? n_c[s] : 1;
        f->n_bytes += (size_t)factors_stage_bytes(n, m, k[s]) + 2 * (size_t)(f->stages[s].n_c - 1) * k[s];
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

static void halve(uint16_t *out, const float *x, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = bp_half_from_float(x[i]);
}

static void widen(float *out, const uint16_t *x, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = bp_half_to_float(x[i]);
}

static void store_stage(factor_stage *s, const binary_factors *b) {
    halve(s->a, b->a, b->n);
    halve(s->c, b->c, b->k);
    halve(s->b, b->b, b->m);
    pack_signs(s->A, b->A, b->n, b->k);
    pack_signs(s->B, b->B, b->k, b->m);
}

static void load_stage(binary_factors *b, const factor_stage *s) {
    widen(b->a, s->a, b->n);
    widen(b->c, s->c + (size_t)(s->n_c - 1) * s->k, b->k);
    widen(b->b, s->b, b->m);
    pack_unpack_signs(b->A, s->A, b->n, b->k);
    pack_unpack_signs(b->B, s->B, b->k, b->m);
}

uint32_t factors_middles(const gguf *file, const char *name, uint32_t stage) {
    uint32_t n_c = 1;
    for (uint32_t t = stage + 1; t < MODEL_TIERS; t++)
        if (model_middle_renewed(file, name, stage, t)) n_c = t - stage + 1;
    return n_c;
}

bool factors_read_middles(float *c, const gguf *file, const char *name, uint32_t stage, uint32_t k, uint32_t n_c,
                          bp_err *e) {
    char tensor[96];
    for (uint32_t i = 0; i < n_c; i++, c += k) {
        snprintf(tensor, sizeof tensor, i ? "%s.%u.c.%u" : "%s.%u.c", name, (unsigned)stage, (unsigned)(stage + i));
        const gguf_tensor *t = gguf_tensor_find(file, tensor);
        if (!t && i) { /* that tier goes on with the scales of the one before */
            memcpy(c, c - k, k * sizeof *c);
            continue;
        }
        const void *data = t && t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3] == k ? gguf_data(file, t) : NULL;
        if (!data || (t->type != QUANT_F32 && t->type != QUANT_F16 && t->type != QUANT_BF16))
            return bp_fail(e, BP_ERR_FORMAT, t ? t->offset : 0, "tensor '%s' is not %u floats", tensor, (unsigned)k);
        quant_dequantize(t->type, data, c, k);
    }
    return true;
}

static bool take_middles(factor_stage *s, const gguf *file, const char *name, uint32_t stage, bp_err *e) {
    size_t count = (size_t)s->n_c * s->k;
    float *c = malloc(count * sizeof *c);
    bool ok = c ? factors_read_middles(c, file, name, stage, s->k, s->n_c, e)
                : bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the scales of %s", name);
    if (ok) halve(s->c, c, count);
    free(c);
    return ok;
}

bool factors_take(factors *f, const model *m, const char *name, const linear *l, uint32_t count, bp_err *e) {
    for (uint32_t i = 0; i < count; i++) {
        factor_stage *s = &f->stages[i];
        const linear_stage *from = &l->stages[i];
        halve(s->a, from->a, f->n);
        halve(s->b, from->b, f->m);
        memcpy(s->A, from->A.bytes, pack_bytes(f->n, s->k, 1));
        memcpy(s->B, from->B.bytes, pack_bytes(s->k, f->m, 1));
        if (!take_middles(s, m->file, name, i, e)) return false;
    }
    return true;
}

static size_t widest_middle(const factors *f) {
    size_t k = 0;
    for (uint32_t s = 0; s < f->n_stages; s++) k = bp_max(k, f->stages[s].k);
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
        ok = binary_factors_open(&b, n, m, f->stages[s].k, e);
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
    if (!binary_factors_open(&b, k->f->n, k->f->m, k->f->stages[index].k, e)) return false;
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
    if (!binary_factors_open(&b, f->n, f->m, f->stages[index].k, e)) return false;
    const float *weights = k->options->weights;
    bool ok = admm_factorize(k->w, &b, k->left, weights, k->t, &options, &random, e) &&
              refit_scales(k->w, &b, k->left, weights, k->t, REFIT_DAMPING, REFIT_ROUNDS, e) &&
              refit_round(k->w, &b, k->left, weights, k->t, REFIT_DAMPING, e);
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
