#include "refit.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/linalg.h"
#include "pack.h"

/* In scaled rows and columns everything is least squares in the metrics R and M = M0 + damping I: target T = diag(root)
 * W S, V = diag(alpha) A diag(c) B diag(beta) with alpha = root a, beta = b S. */
typedef struct {
    workers *w;
    binary_factors *f;
    const metric *t;
    const output_metric *o;
    float damping;
    size_t n, m, k;
    float *T, *TM; /* [n, m]: target (or scratch), R times target times M */
    float *X, *XM; /* [max(n, k), m] scratch: one side of V, and times M */
    float *P, *RP; /* [n, k]: diag(alpha) A, and R times that */
    float *K, *L;  /* [max(m, k)^2] normal equations */
    float *right;  /* [max(m, k)] */
    void *memory;
} fit;

static bool fit_open(fit *r, workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t,
                     float damping, bp_err *e) {
    size_t n = f->n, m = f->m, k = f->k, tall = bp_max(n, k), wide = bp_max(m, bp_max(k, o->n_blocks ? n : 0));
    *r = (fit){.w = w, .f = f, .t = t, .o = o, .damping = damping, .n = n, .m = m, .k = k};
    size_t floats = 2 * n * m + 2 * tall * m + 2 * n * k + 2 * wide * wide + wide;
    float *p = r->memory = malloc(bp_max(floats, 1) * sizeof *p);
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to fit the scales of a matrix of %zu x %zu", n, m);
    r->T = p;
    r->TM = r->T + n * m;
    r->X = r->TM + n * m;
    r->XM = r->X + tall * m;
    r->P = r->XM + tall * m;
    r->RP = r->P + n * k;
    r->K = r->RP + n * k;
    r->L = r->K + wide * wide;
    r->right = r->L + wide * wide;
    metric_scale(t, r->T, W, n);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) r->T[i * m + j] *= o->root[i];
    metric_apply(w, t, damping, r->TM, r->T, n);
    if (o->n_blocks) {
        output_metric_apply(w, linalg_gemm, o, r->T, r->TM, m);
        memcpy(r->TM, r->T, n * m * sizeof *r->T);
    }
    return true;
}

static double dot(const float *x, const float *y, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * y[i];
    return sum;
}

/* Solves K x = right for the n unknowns and stores x where the system is sound; otherwise the old scales stay. */
static void solve_into(fit *r, float *x, const float *old, size_t n) {
    double trace = 0;
    for (size_t i = 0; i < n; i++) trace += r->K[i * n + i];
    float ridge = (float)(1e-6 * trace / (double)n);
    for (size_t i = 0; i < n; i++) {
        r->K[i * n + i] += ridge;
        r->right[i] += ridge * old[i]; /* pulls unknowns that nothing determines to their old values */
    }
    if (!(trace > 0) || !linalg_solve_spd(r->K, r->right, n, 1)) return;
    for (size_t i = 0; i < n; i++)
        if (!(r->right[i] - r->right[i] == 0)) return;
    memcpy(x, r->right, n * sizeof *x);
}

/* X [k, m] = B diag(beta), XM = X M */
static void take_right(fit *r) {
    const binary_factors *f = r->f;
    for (size_t i = 0; i < r->k; i++)
        for (size_t j = 0; j < r->m; j++) r->X[i * r->m + j] = f->B[i * r->m + j] * f->b[j] * r->t->scale[j];
    metric_apply(r->w, r->t, r->damping, r->XM, r->X, r->k);
}

static void take_left(fit *r) {
    for (size_t i = 0; i < r->n; i++)
        for (size_t l = 0; l < r->k; l++) r->P[i * r->k + l] = r->o->root[i] * r->f->a[i] * r->f->A[i * r->k + l];
}

/* ((P'RP) o (X M X')) c = diag(P' R T M X')    docs/DBF.md (10) */
static void fit_c(fit *r) {
    size_t n = r->n, m = r->m, k = r->k;
    take_left(r);
    take_right(r);
    output_metric_apply(r->w, linalg_gemm, r->o, r->RP, r->P, k);
    workers_gemm(r->w, true, false, k, k, n, 1, r->P, k, r->RP, k, 0, r->K, k);
    workers_gemm(r->w, false, true, k, k, m, 1, r->XM, m, r->X, m, 0, r->L, k);
    for (size_t i = 0; i < k * k; i++) r->K[i] *= r->L[i];
    workers_gemm(r->w, true, false, k, m, n, 1, r->P, k, r->TM, m, 0, r->XM, m);
    for (size_t l = 0; l < k; l++) r->right[l] = (float)dot(r->XM + l * m, r->X + l * m, m);
    solve_into(r, r->f->c, r->f->c, k);
}

/* X [n, m] = A diag(c) B diag(beta): V without alpha */
static void take_product(fit *r) {
    const binary_factors *f = r->f;
    for (size_t l = 0; l < r->k; l++)
        for (size_t j = 0; j < r->m; j++) r->XM[l * r->m + j] = f->c[l] * f->B[l * r->m + j] * f->b[j] * r->t->scale[j];
    workers_gemm(r->w, false, false, r->n, r->m, r->k, 1, f->A, r->k, r->XM, r->m, 0, r->X, r->m);
}

/* a_i = <T_i, X_i>_M / <X_i, X_i>_M, row by row    docs/DBF.md (11) */
static void fit_a_apart(fit *r) {
    size_t m = r->m;
    for (size_t i = 0; i < r->n; i++) {
        double square = dot(r->XM + i * m, r->X + i * m, m), cross = dot(r->TM + i * m, r->X + i * m, m);
        double a = cross / square / (double)r->o->root[i];
        if (square > 0 && a - a == 0) r->f->a[i] = (float)a;
    }
}

/* The same where outputs are correlated: (R o (X M X')) alpha = diag(R T M X') */
static void fit_a_together(fit *r) {
    size_t n = r->n, m = r->m;
    workers_gemm(r->w, false, true, n, n, m, 1, r->XM, m, r->X, m, 0, r->L, n);
    memset(r->K, 0, n * n * sizeof *r->K);
    for (size_t i = 0; i < n; i++) {
        r->K[i * n + i] = r->L[i * n + i];
        r->right[i] = (float)dot(r->TM + i * m, r->X + i * m, m);
    }
    for (size_t b = 0; b < r->o->n_blocks; b++) {
        const output_block *o = &r->o->blocks[b];
        for (size_t i = 0; i < o->n; i++)
            for (size_t j = 0; j < o->n; j++) {
                size_t at = (o->first + i) * n + o->first + j;
                r->K[at] = o->R[i * o->n + j] * r->L[at];
            }
    }
    float *alpha = r->XM;
    for (size_t i = 0; i < n; i++) alpha[i] = r->o->root[i] * r->f->a[i];
    solve_into(r, alpha, alpha, n);
    for (size_t i = 0; i < n; i++) r->f->a[i] = alpha[i] / r->o->root[i];
}

static void fit_a(fit *r) {
    take_product(r);
    metric_apply(r->w, r->t, r->damping, r->XM, r->X, r->n);
    if (r->o->n_blocks)
        fit_a_together(r);
    else
        fit_a_apart(r);
}

/* ((X'RX) o M) beta' = diag(X' R T M) with X = diag(alpha) A diag(c) B; here beta' = ratio of the new beta to the old, X
 * with the old one multiplied in, which keeps the unknowns near 1.    docs/DBF.md (12) */
static void fit_b(fit *r) {
    size_t n = r->n, m = r->m;
    take_product(r);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) r->X[i * m + j] *= r->o->root[i] * r->f->a[i];
    if (r->t->M0) {
        output_metric_apply(r->w, linalg_gemm, r->o, r->T, r->X, m);
        workers_gemm(r->w, true, false, m, m, n, 1, r->X, m, r->T, m, 0, r->K, m);
        for (size_t j = 0; j < m; j++)
            for (size_t l = 0; l < m; l++) r->K[j * m + l] *= r->t->M0[j * m + l] + (j == l ? r->damping : 0);
    } else {
        memset(r->K, 0, m * m * sizeof *r->K);
        for (size_t i = 0; i < n; i++)
            for (size_t j = 0; j < m; j++) r->K[j * m + j] += r->X[i * m + j] * r->X[i * m + j] * (1 + r->damping);
    }
    memset(r->right, 0, m * sizeof *r->right);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) r->right[j] += r->X[i * m + j] * r->TM[i * m + j];
    float *ratio = r->XM;
    for (size_t j = 0; j < m; j++) ratio[j] = 1;
    solve_into(r, ratio, ratio, m);
    for (size_t j = 0; j < m; j++) r->f->b[j] *= ratio[j];
}

bool refit_scales(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t, float damping,
                  unsigned rounds, bp_err *e) {
    fit r;
    if (!fit_open(&r, w, f, W, o, t, damping, e)) return false;
    for (unsigned i = 0; i < rounds; i++) {
        fit_c(&r);
        fit_a(&r);
        fit_b(&r);
    }
    free(r.memory);
    return true;
}

/* mean of log |x| over the entries that are not 0 */
static double mean_log(const float *x, size_t n) {
    double sum = 0;
    size_t count = 0;
    for (size_t i = 0; i < n; i++)
        if (x[i] != 0) {
            sum += log(fabs((double)x[i]));
            count++;
        }
    return count ? sum / (double)count : 0;
}

bool refit_round(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t, float damping,
                 bool eight, bp_err *e) {
    fit r;
    double la = mean_log(f->a, f->n), lc = mean_log(f->c, f->k), lb = mean_log(f->b, f->m), each = (la + lc + lb) / 3;
    pack_round_scales(f->a, exp(each - la), eight, f->n);
    pack_round_scales(f->b, exp(each - lb), false, f->m);
    for (size_t i = 0; i < f->k; i++) f->c[i] *= (float)exp(each - lc);
    if (!fit_open(&r, w, f, W, o, t, damping, e)) return false;
    fit_c(&r);
    pack_round_scales(f->c, 1, eight, f->k);
    free(r.memory);
    return true;
}
