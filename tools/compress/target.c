#include "target.h"

#include <math.h>
#include <stdlib.h>

static double dot(const float *x, const float *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * y[i];
    return sum;
}

/* ---- validation ------------------------------------------------------------------------------------------------ */

bool validation_open(validation *v, workers *w, const float *W, size_t n, const statistics *s, bp_err *e) {
    size_t m = s->m;
    *v = (validation){.w = w, .n = n, .s = s};
    v->T = malloc(2 * n * m * sizeof *v->T);
    if (!v->T) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the target of a matrix of %zu x %zu", n, m);
    v->scratch = v->T + n * m;
    workers_gemm(w, false, false, n, m, m, 1, W, m, s->D, m, 0, v->scratch, m);
    v->energy = v->constant = dot(W, v->scratch, n * m);
    if (s->E) v->constant += 2 * dot(W, s->E, n * m) + s->delta;
    workers_gemm(w, false, false, n, m, m, 1, W, m, s->val.C, m, 0, v->T, m);
    for (size_t i = 0; s->val.R && i < n * m; i++) v->T[i] += s->val.R[i];
    return true;
}

void validation_close(validation *v) {
    free(v->T);
    *v = (validation){0};
}

double validation_error(const validation *v, const float *V) {
    size_t n = v->n, m = v->s->m;
    workers_gemm(v->w, false, false, n, m, m, 1, V, m, v->s->val.H, m, 0, v->scratch, m);
    double error = dot(V, v->scratch, n * m) - 2 * dot(V, v->T, n * m) + v->constant;
    if (isnan(error)) return INFINITY;
    return v->energy > 0 && error > 0 ? error / v->energy : 0;
}

/* ---- the choice ------------------------------------------------------------------------------------------------ */

const char *target_kind_name(target_kind kind) {
    static const char *const names[] = {"plain", "asymmetric", "residual"};
    return names[kind];
}

/* In the eigenbasis of M0 every lambda is a division: with H = h S M0 S, D = h S^2,
 *     W* S Q = [(W C + R) S^-1 Q / h + lambda W S Q] diag(1 / (mu + lambda))                                docs/DBF.md (15) */
typedef struct {
    workers *w;
    size_t n;
    const metric *t;
    float *moved;   /* [n, m] (W C + R) S^-1 Q / h, for one kind */
    float *kept;    /* [n, m] W S Q */
    float *rotated; /* [n, m] W* S Q, or scratch */
    float *tried;   /* [n, m] W* */
} search;

/* moved for one kind; `tried` and `rotated` are scratch */
static void set_moments(search *r, const float *W, const statistics *s, bool residual) {
    size_t n = r->n, m = s->m;
    workers_gemm(r->w, false, false, n, m, m, 1, W, m, s->train.C, m, 0, r->tried, m);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) {
            float moment = r->tried[i * m + j] + (residual ? s->train.R[i * m + j] : 0);
            r->tried[i * m + j] = moment / (r->t->scale[j] * r->t->mean);
        }
    metric_rotate(r->w, linalg_gemm, r->t, r->moved, r->tried, n);
}

static void try_lambda(search *r, float lambda) {
    size_t n = r->n, m = r->t->m;
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++)
            r->rotated[i * m + j] = (r->moved[i * m + j] + lambda * r->kept[i * m + j]) / (r->t->mu[j] + lambda);
    workers_gemm(r->w, false, true, n, m, m, 1, r->rotated, m, r->t->Q, m, 0, r->tried, m);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) r->tried[i * m + j] /= r->t->scale[j];
}

static void search_kind(search *r, target_kind kind, float *out, target_choice *choice, const validation *v,
                        float lambda) {
    static const float grid[] = {0.0003f, 0.001f, 0.003f, 0.01f, 0.03f, 0.1f, 0.3f, 1.0f};
    size_t count = lambda < 0 ? sizeof grid / sizeof *grid : 1;
    for (size_t i = 0; i < count; i++) {
        float tried = lambda < 0 ? grid[i] : lambda;
        try_lambda(r, tried);
        double error = validation_error(v, r->tried);
        if (!(error < choice->error)) continue;
        *choice = (target_choice){kind, tried, error};
        memcpy(out, r->tried, r->n * r->t->m * sizeof *out);
    }
}

bool target_choose(workers *w, float *out, target_choice *choice, const float *W, size_t n, const statistics *s,
                   const metric *t, const validation *v, float lambda, bp_err *e) {
    size_t m = s->m;
    search r = {.w = w, .n = n, .t = t};
    float *memory = malloc(4 * n * m * sizeof *memory);
    if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the target of a matrix of %zu x %zu", n, m);
    r.moved = memory;
    r.kept = r.moved + n * m;
    r.rotated = r.kept + n * m;
    r.tried = r.rotated + n * m;
    *choice = (target_choice){TARGET_PLAIN, 0, validation_error(v, W)};
    memcpy(out, W, n * m * sizeof *out);
    metric_scale(t, r.tried, W, n);
    metric_rotate(w, linalg_gemm, t, r.kept, r.tried, n);
    set_moments(&r, W, s, false);
    search_kind(&r, TARGET_ASYMMETRIC, out, choice, v, lambda);
    if (s->train.R) {
        set_moments(&r, W, s, true);
        search_kind(&r, TARGET_RESIDUAL, out, choice, v, lambda);
    }
    free(memory);
    return true;
}
