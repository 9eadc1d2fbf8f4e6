#include "student.h"

#include <math.h>
#include <stdlib.h>

#include "compress/pack.h"
#include "vector.h"

enum { ROWS = 16, COLUMNS = 64 };         /* of one item of work */
enum { FIRST_TURN = 20 };                 /* steps before any sign turns: means need as many */
static const uint32_t SHARE = 0x4ccccccc; /* 0.3: of the signs that should turn, those that do so at once */

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static size_t scale_count(size_t n, size_t m, size_t k, size_t n_c) { return n + n_c * k + m; }
static size_t sign_count(size_t n, size_t m, size_t k) { return n * k + k * m; }

uint64_t student_bytes(const model *m, bool train_signs) {
    uint64_t floats = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        for (part p = 0; p < PARTS; p++) {
            const linear *l = part_linear(&m->layers[i], p);
            for (uint32_t s = 0; s < l->n_stages; s++) {
                size_t k = l->stages[s].k;
                floats +=
                    3 * scale_count(l->n, l->m, k, m->n_tiers - s) + (train_signs ? 3 : 1) * sign_count(l->n, l->m, k);
            }
        }
    return floats * sizeof(float);
}

static float mean_size(const float *x, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += fabs((double)x[i]);
    return (float)(sum / (double)n);
}

static bool stage_open(student_stage *s, size_t n, size_t m, stage_shape shape, bool signs, bp_err *e) {
    size_t k = shape.k, n_c = shape.n_c, scales = scale_count(n, m, k, n_c), all = scales + sign_count(n, m, k);
    *s = (student_stage){
        .n = (uint32_t)n, .m = (uint32_t)m, .k = (uint32_t)k, .n_c = (uint32_t)n_c, .eight = shape.eight, .count = all};
    s->kept = signs ? all : scales;
    float *p = s->memory = calloc(s->count + 2 * s->kept, sizeof *p);
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the parameters of the student");
    s->a = p;
    s->c = s->a + n;
    s->b = s->c + n_c * k;
    s->A = s->b + m;
    s->B = s->A + n * k;
    return true;
}

/* Signs, once the scales are there. */
static void stage_begin(student_stage *s, const uint8_t *A, const uint8_t *B) {
    pack_unpack_signs(s->A, A, s->n, s->k);
    pack_unpack_signs(s->B, B, s->k, s->m);
    s->size_a = mean_size(s->a, s->n);
    s->size_c = mean_size(s->c, (size_t)s->n_c * s->k);
    s->size_b = mean_size(s->b, s->m);
}

/* n_c rows of middle scales; those that the file does not have are as its last. */
static bool stage_read(student_stage *s, const gguf *file, const char *name, const linear *l, uint32_t index,
                       stage_shape shape, bool signs, bp_err *e) {
    const linear_stage *from = &l->stages[index];
    if (!stage_open(s, l->n, l->m, shape, signs, e) ||
        !factors_read_middles(s->c, file, name, index, shape.k, shape.n_c, e))
        return false;
    memcpy(s->a, from->a, s->n * sizeof *s->a);
    memcpy(s->b, from->b, s->m * sizeof *s->b);
    stage_begin(s, from->A.bytes, from->B.bytes);
    return true;
}

bool student_layer_open(student_layer *l, const factors *f, bool signs, bp_err *e) {
    *l = (student_layer){.n = f->n, .m = f->m};
    for (; l->n_stages < f->n_stages; l->n_stages++) {
        student_stage *s = &l->stages[l->n_stages];
        const factor_stage *from = &f->stages[l->n_stages];
        if (!stage_open(s, f->n, f->m, from->shape, signs, e)) return false;
        quant_dequantize(from->type_a, from->a, s->a, s->n);
        quant_dequantize(from->type_c, from->c, s->c, (size_t)s->n_c * s->k);
        quant_dequantize(from->type_b, from->b, s->b, s->m);
        stage_begin(s, from->A, from->B);
    }
    return true;
}

void student_layer_close(student_layer *l) {
    for (uint32_t j = 0; j < MODEL_STAGES; j++) free(l->stages[j].memory);
    *l = (student_layer){0};
}

static bool layer_read(student_layer *layer, const model *m, const char *name, const linear *l, bool signs,
                       bool tier_scales, bp_err *e) {
    *layer = (student_layer){.n = l->n, .m = l->m};
    for (; layer->n_stages < l->n_stages; layer->n_stages++) {
        uint32_t i = layer->n_stages;
        stage_shape shape = factors_shape(m->file, name, i, l->stages[i].k);
        if (tier_scales) shape.n_c = m->n_tiers - i;
        if (!stage_read(&layer->stages[i], m->file, name, l, i, shape, signs, e)) return false;
    }
    return true;
}

bool student_open(student *s, const model *m, bool train_signs, bool tier_scales, bp_err *e) {
    char name[64];
    *s = (student){.n_layers = m->config.n_layers, .n_tiers = m->tier, .train_signs = train_signs};
    if (!m->factorized) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the student is not a bitpair file");
    s->layers = calloc((size_t)s->n_layers * PARTS, sizeof *s->layers);
    if (!s->layers) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the parameters of the student");
    for (uint32_t i = 0; i < s->n_layers; i++)
        for (part p = 0; p < PARTS; p++) {
            stack_name(name, sizeof name, i, p, stack_of(&m->layers[i], p, false).parts);
            if (!layer_read(&s->layers[i * PARTS + p], m, name, part_linear(&m->layers[i], p), train_signs, tier_scales,
                            e))
                return false;
        }
    return true;
}

void student_close(student *s) {
    for (uint32_t i = 0; s->layers && i < s->n_layers * PARTS; i++) student_layer_close(&s->layers[i]);
    free(s->layers);
    *s = (student){0};
}

size_t student_scratch(const model *m) {
    size_t most = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++)
        for (part p = 0; p < PARTS; p++) {
            const linear *l = part_linear(&m->layers[i], p);
            for (uint32_t s = 0; s < l->n_stages; s++) {
                size_t n = l->n, columns = l->m, k = l->stages[s].k;
                most = bp_max(most, 2 * (n * k + k * columns) + n + k + columns);
            }
        }
    return most;
}

/* ---- the scaled sign matrices ----------------------------------------------------------------------------------- */

typedef struct {
    student_stage *s;
    const float *c; /* [k] the row of this step */
    float *Aa, *Bb; /* [n, k] diag(a) A (diag(c)), [k, m] B diag(b) */
    bool with_c;
    float *P, *Q; /* [k, m], [n, k]: gradients, see student_update */
    float *da, *dc, *db;
    sign_step signs;
    bool watch;
} stage_work;

static void scale_A_rows(void *context, size_t item, uint32_t worker) {
    const stage_work *t = context;
    const student_stage *s = t->s;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(s->n, (item + 1) * ROWS); i++)
        vector_signs(t->Aa + i * s->k, s->A + i * s->k, s->a[i], t->with_c ? t->c : NULL, s->k);
}

static void scale_B_rows(void *context, size_t item, uint32_t worker) {
    const stage_work *t = context;
    const student_stage *s = t->s;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(s->k, (item + 1) * ROWS); i++)
        vector_signs(t->Bb + i * s->m, s->B + i * s->m, 1, s->b, s->m);
}

static void scale_signs(workers *w, stage_work *t) {
    workers_for(w, bp_ceil_div(t->s->n, ROWS), scale_A_rows, t);
    workers_for(w, bp_ceil_div(t->s->k, ROWS), scale_B_rows, t);
}

/* Which middle scales stage `index` has with so many tiers. */
static size_t middle_row(const student_stage *s, uint32_t index, uint32_t tiers) {
    return bp_min(tiers - 1 - index, s->n_c - 1);
}

void student_dense(workers *w, product_kind kind, const student_layer *l, uint32_t tiers, float *W, float *scratch) {
    if (l->n_stages == 0 || tiers == 0) memset(W, 0, (size_t)l->n * l->m * sizeof *W);
    for (uint32_t i = 0; i < bp_min(tiers, l->n_stages); i++) {
        const student_stage *s = &l->stages[i];
        stage_work t = {.s = (student_stage *)(uintptr_t)s,
                        .c = s->c + middle_row(s, i, tiers) * s->k,
                        .Aa = scratch,
                        .Bb = scratch + (size_t)s->n * s->k,
                        .with_c = true};
        scale_signs(w, &t);
        product_run(w, kind, false, false, s->n, s->m, s->k, t.Aa, s->k, t.Bb, s->m, i > 0, W, s->m);
    }
}

/* ---- gradients and steps ---------------------------------------------------------------------------------------- */

/* `row` tells the draws of rows apart. */
static void watch_row(const stage_work *t, float *x, const float *g, float scale, const float *v, size_t n,
                      size_t row) {
    sign_step step = t->signs;
    step.seed += (uint32_t)row * 0x85ebca6bu;
    vector_watch(x, x + t->s->count, x + t->s->count + t->s->kept, g, scale, v, n, step);
}

/* Rows of A: gradient of a_i, news for its signs. dA_ik = a_i c_k Q_ik, da_i = sum_k sign(A_ik) c_k Q_ik */
static void update_A_rows(void *context, size_t item, uint32_t worker) {
    const stage_work *t = context;
    const student_stage *s = t->s;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(s->n, (item + 1) * ROWS); i++) {
        float *A = s->A + i * s->k;
        const float *Q = t->Q + i * s->k;
        t->da[i] = vector_signs_dot(A, Q, t->c, s->k);
        if (t->watch) watch_row(t, A, Q, s->a[i], t->c, s->k, i);
    }
}

/* Columns of B: db_j = sum_k c_k sign(B_kj) P_kj, before signs turn */
static void gradient_b(void *context, size_t item, uint32_t worker) {
    const stage_work *t = context;
    const student_stage *s = t->s;
    size_t first = item * COLUMNS, count = bp_min(COLUMNS, s->m - first);
    (void)worker;
    memset(t->db + first, 0, count * sizeof *t->db);
    for (size_t k = 0; k < s->k; k++)
        vector_signs_add(t->db + first, s->B + k * s->m + first, t->P + k * s->m + first, t->c[k], count);
}

/* Rows of B: dB_kj = c_k b_j P_kj, dc_k = sum_j sign(B_kj) b_j P_kj */
static void update_B_rows(void *context, size_t item, uint32_t worker) {
    const stage_work *t = context;
    const student_stage *s = t->s;
    (void)worker;
    for (size_t k = item * ROWS; k < bp_min(s->k, (item + 1) * ROWS); k++) {
        float *B = s->B + k * s->m;
        const float *P = t->P + k * s->m;
        t->dc[k] = vector_signs_dot(B, P, s->b, s->m);
        if (t->watch) watch_row(t, B, P, t->c[k], s->b, s->m, s->n + k);
    }
}

/* `steps`: of this vector, this one counted */
static void update_vector(const student_stage *s, float *p, const float *g, size_t n, float size, uint32_t steps,
                          const student_rates *rates) {
    const adam_step step = {.rate = rates->scales * size,
                            .beta1 = rates->beta1,
                            .beta2 = rates->beta2,
                            .correct1 = 1 / (1 - powf(rates->beta1, (float)steps)),
                            .correct2 = 1 / (1 - powf(rates->beta2, (float)steps)),
                            .eps = 1e-14f};
    vector_adam(p, p + s->count, p + s->count + s->kept, g, n, step);
}

/* m and s begin at 0; after t steps the deviation of m from its mean is
 *     sqrt(s (1 - beta) (1 - beta^2t) / ((1 + beta) (1 - beta^t))) */
static sign_step watch_step(const student_stage *s, const student_rates *rates) {
    float beta = rates->sign_beta, left = powf(beta, (float)s->steps);
    return (sign_step){.beta = beta,
                       .curvature = rates->curvature,
                       .noise = rates->noise * sqrtf((1 - beta) * (1 - left * left) / ((1 + beta) * (1 - left))),
                       .share = s->steps >= FIRST_TURN ? SHARE : 0,
                       .seed = s->steps * 0x9e3779b9u};
}

/* P = A' diag(a) dW tells c and B, Q = dW diag(b) B' tells a and A; b needs the first as well. */
static void update_stage(workers *w, product_kind kind, student_stage *s, size_t row, bool middle_alone,
                         const float *dW, const student_rates *rates, float *scratch) {
    size_t n = s->n, m = s->m, k = s->k;
    float *c = s->c + row * k;
    stage_work t = {.s = s, .c = c, .Aa = scratch, .Bb = scratch + n * k};
    t.P = t.Bb + k * m;
    t.Q = t.P + k * m;
    t.da = t.Q + n * k;
    t.dc = t.da + n;
    t.db = t.dc + k;
    s->steps += !middle_alone;
    t.watch = s->kept == s->count && !middle_alone;
    if (t.watch) t.signs = watch_step(s, rates);
    scale_signs(w, &t);
    product_run(w, kind, true, false, k, m, n, t.Aa, k, dW, m, 0, t.P, m);
    if (!middle_alone) {
        product_run(w, kind, false, true, n, k, m, dW, m, t.Bb, m, 0, t.Q, k);
        workers_for(w, bp_ceil_div(m, COLUMNS), gradient_b, &t);
        workers_for(w, bp_ceil_div(n, ROWS), update_A_rows, &t);
    }
    workers_for(w, bp_ceil_div(k, ROWS), update_B_rows, &t);
    update_vector(s, c, t.dc, k, s->size_c, ++s->c_steps[row], rates);
    if (middle_alone) return;
    update_vector(s, s->a, t.da, n, s->size_a, s->steps, rates);
    update_vector(s, s->b, t.db, m, s->size_b, s->steps, rates);
}

/* A row of middle scales but for the last serves one tier, the last serves all from there on. */
void student_update(workers *w, product_kind kind, student_layer *l, student_turn turn, const float *dW,
                    const student_rates *rates, float *scratch) {
    for (uint32_t i = 0; i < bp_min(turn.tiers, l->n_stages); i++) {
        student_stage *s = &l->stages[i];
        size_t row = middle_row(s, i, turn.tiers);
        bool whole = i >= turn.first && !(turn.apart && i + 1 < turn.n_tiers),
             own_middle = row + 1 < s->n_c || i + s->n_c == turn.n_tiers;
        if (whole || (own_middle && turn.tiers > turn.first)) update_stage(w, kind, s, row, !whole, dW, rates, scratch);
    }
}

/* ---- the stored form -------------------------------------------------------------------------------------------- */

void student_set_eight(student *s, bool eight) {
    for (uint32_t i = 0; i < s->n_layers * PARTS; i++)
        for (uint32_t j = 0; j < s->layers[i].n_stages; j++) s->layers[i].stages[j].eight = eight;
}

bool student_factors(const student_layer *l, factors *f, bp_err *e) {
    stage_shape shapes[MODEL_STAGES];
    for (uint32_t i = 0; i < l->n_stages; i++)
        shapes[i] = (stage_shape){l->stages[i].k, l->stages[i].n_c, l->stages[i].eight};
    if (!factors_open(f, l->n, l->m, shapes, l->n_stages, e)) return false;
    for (uint32_t i = 0; i < l->n_stages; i++) {
        const student_stage *s = &l->stages[i];
        factor_stage *to = &f->stages[i];
        pack_scales(to->a, to->type_a, s->a, s->n);
        pack_scales(to->c, to->type_c, s->c, (size_t)s->n_c * s->k);
        pack_scales(to->b, to->type_b, s->b, s->m);
        pack_signs(to->A, s->A, s->n, s->k);
        pack_signs(to->B, s->B, s->k, s->m);
    }
    return true;
}

static uint64_t count_flips(const uint8_t *one, const uint8_t *two, size_t rows, size_t columns) {
    const size_t n = rows * columns;
    float *signs = malloc(2 * n * sizeof *signs);
    uint64_t flips = 0;
    if (!signs) return 0;
    pack_unpack_signs(signs, one, rows, columns);
    pack_unpack_signs(signs + n, two, rows, columns);
    for (size_t i = 0; i < n; i++) flips += (signs[i] >= 0) != (signs[n + i] >= 0);
    free(signs);
    return flips;
}

void student_flips(const factors *f, const model *m, uint64_t *flipped, uint64_t *all) {
    *flipped = *all = 0;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        const linear *l = part_linear(&m->layers[i / PARTS], i % PARTS);
        for (uint32_t j = 0; j < f[i].n_stages; j++) {
            const factor_stage *t = &f[i].stages[j];
            *flipped += count_flips(t->A, l->stages[j].A.bytes, f[i].n, t->shape.k) +
                        count_flips(t->B, l->stages[j].B.bytes, t->shape.k, f[i].m);
            *all += (uint64_t)t->shape.k * (f[i].n + f[i].m);
        }
    }
}
