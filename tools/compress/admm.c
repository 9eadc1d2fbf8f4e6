#include "admm.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/gemm_bf16.h"
#include "linalg/gemm_int16.h"
#include "linalg/gemm_int8.h"
#include "linalg/tridiagonal.h"
#include "svid.h"

enum { ROWS = 144, COLUMNS = 192, SOLVED = 32, INNER = 2, SVID_ROUNDS = 3 };

static const float RIDGE = 0.03f; /* keeps both normal equations away from singular */
static const float RHO_FLOOR = 1e-4f;
static const float LEVEL =
    1.1f; /* mean eigenvalue of M; rho = 1 is tuned to it: half or twice that costs a tenth of the error */

/* One factor [rows, columns] in the state of ADMM: N = F + U, from which Z = sign(N) . (u v') and the dual U = N - Z
 * follow. */
typedef struct {
    size_t rows, columns;
    float *N, *u, *v;
} state;

/* Everything of one run. Names as in docs/DBF.md; arrays live in `memory`. */
typedef struct {
    workers *w;
    const metric *t;
    const output_metric *o;
    size_t n, m, k;
    float rho;       /* of the first inner step; 1 in the later ones */
    float inverse_g; /* 1 / mean diagonal of B M B' */
    unsigned inner;  /* current inner step */
    state A, B;
    float *mu;         /* [m]: eigenvalues of M = LEVEL (M0 + damping I) / (1 + damping) */
    float *scaled;     /* [n, m]: scratch of set_target */
    float *Wm;         /* [n, m] = R Wn Q diag(mu): the target, rotated and weighted */
    float *normed;     /* [n, k] or [k, m]: A with unit columns, B with unit rows */
    float *rotated;    /* [k, m] = normed B times Q */
    float *G;          /* [k, k] */
    float *inverse[2]; /* [k, k]: (G + (RIDGE + rho) I)^-1 for the first and for the later inner steps */
    float *P, *d, *e;  /* [k, k], [k], [k]: A'A + RIDGE I = P'TP, or, where outputs are correlated, the A-step's
                         G + RIDGE I; T has d on its diagonal and e beside it. P shares memory with inverse[0] */
    float *turned[2];  /* [n, k] scratch, where outputs are correlated */
    float *Y;          /* [n, k] or [k, m]: right-hand side, fixed during a step */
    float *E, *EQ;     /* [k, m] */
    float *svid;
    size_t n_block, m_block, k_block, y_block; /* rows or columns of an item */
    float *own;                                /* scratch of each worker */
    size_t own_size;
    linalg_product *product; /* of the steps: its rounding is nothing beside what taking signs changes */
    linalg_product *coarse;  /* of those that only turn signs and their duals to and fro */
    bool failed[2];
    void *memory;
} run;

static float *own_scratch(const run *r, uint32_t worker) { return r->own + worker * r->own_size; }

/* ---- memory ---------------------------------------------------------------------------------------------------- */

static size_t larger(size_t a, size_t b) { return a > b ? a : b; }

static bool run_open(run *r, workers *w, const metric *t, const output_metric *o, size_t n, size_t m, size_t k,
                     bp_err *e) {
    *r = (run){.w = w, .t = t, .o = o, .n = n, .m = m, .k = k, .product = admm_product()};
    r->coarse = gemm_bf16_amx() ? gemm_bf16 : gemm_int8_available() ? gemm_int8 : r->product;
    r->n_block = workers_block(w, r->coarse, n, ROWS);
    r->m_block = workers_block(w, r->coarse, m, COLUMNS);
    r->k_block = workers_block(w, r->coarse, k, ROWS);
    r->y_block = bp_round_up(r->n_block, 64) / 2; /* smaller, to go beside what one thread does */
    size_t widest = larger(n * k, k * m), svid = larger(svid_scratch(n, k), svid_scratch(k, m));
    r->own_size = larger(r->n_block + 2 * SOLVED, 2 * larger(r->n_block, r->m_block)) * k;
    const struct {
        float **at;
        size_t floats;
    } parts[] = {{&r->A.N, n * k},
                 {&r->A.u, n},
                 {&r->A.v, k},
                 {&r->B.N, k * m},
                 {&r->B.u, k},
                 {&r->B.v, m},
                 {&r->mu, m},
                 {&r->scaled, n * m},
                 {&r->Wm, n * m},
                 {&r->normed, widest},
                 {&r->rotated, k * m},
                 {&r->G, k * k},
                 {&r->inverse[0], k * k},
                 {&r->inverse[1], k * k},
                 {&r->d, k},
                 {&r->e, k},
                 {&r->Y, widest},
                 {&r->E, k * m},
                 {&r->EQ, t->Q ? k * m : 0},
                 {&r->svid, svid},
                 {&r->turned[0], o->n_blocks ? n * k : 0},
                 {&r->turned[1], o->n_blocks ? n * k : 0},
                 {&r->own, r->own_size * workers_count(w)}};
    size_t total = 0, count = sizeof parts / sizeof *parts;
    for (size_t i = 0; i < count; i++) total += bp_round_up(parts[i].floats, 16);
    float *p = r->memory = aligned_alloc(BP_ALIGN, total * sizeof *p);
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to factorize a matrix of %zu x %zu", n, m);
    for (size_t i = 0; i < count; i++) {
        *parts[i].at = p;
        p += bp_round_up(parts[i].floats, 16);
    }
    r->P = r->inverse[0];
    if (!t->Q) r->EQ = r->E;
    r->A.rows = n;
    r->A.columns = r->B.rows = k;
    r->B.columns = m;
    return true;
}

/* ---- pieces of a step ------------------------------------------------------------------------------------------ */

/* out [rows, columns] (row stride ldo) = 2 Z - N = Z - U on a part of a factor */
static void pull(const state *s, float *out, size_t ldo, size_t row, size_t rows, size_t column, size_t columns) {
    for (size_t i = 0; i < rows; i++) {
        const float *N = s->N + (row + i) * s->columns + column, *v = s->v + column;
        float u = 2 * s->u[row + i], *o = out + i * ldo;
        for (size_t j = 0; j < columns; j++) o[j] = copysignf(u * v[j], N[j]) - N[j];
    }
}

/* N <- F + U = F + N - Z on the same part: the scaled dual update before the next projection */
static void push(const state *s, const float *F, size_t ldf, size_t row, size_t rows, size_t column, size_t columns) {
    for (size_t i = 0; i < rows; i++) {
        float *N = s->N + (row + i) * s->columns + column;
        const float *v = s->v + column, *f = F + i * ldf;
        float u = s->u[row + i];
        for (size_t j = 0; j < columns; j++) N[j] += f[j] - copysignf(u * v[j], N[j]);
    }
}

static void project(const run *r, const state *s) {
    svid_project(r->w, s->u, s->v, s->N, s->rows, s->columns, SVID_ROUNDS, r->svid);
}

/* out = sign(N) . (1 x'): Z with its rows (x = v / |v|) at unit norm */
static void unit_rows(const state *s, float *out) {
    double sum = 0;
    for (size_t j = 0; j < s->columns; j++) sum += (double)s->v[j] * s->v[j];
    float scale = (float)(1 / (sqrt(sum) + 1e-12));
    for (size_t i = 0; i < s->rows; i++)
        for (size_t j = 0; j < s->columns; j++)
            out[i * s->columns + j] = copysignf(scale * s->v[j], s->N[i * s->columns + j]);
}

/* out = sign(N) . (x 1'): Z with its columns (x = u / |u|) at unit norm; returns 1 / |u| */
static float unit_columns(const state *s, float *out) {
    double sum = 0;
    for (size_t i = 0; i < s->rows; i++) sum += (double)s->u[i] * s->u[i];
    float scale = (float)(1 / (sqrt(sum) + 1e-12));
    for (size_t i = 0; i < s->rows; i++)
        for (size_t j = 0; j < s->columns; j++)
            out[i * s->columns + j] = copysignf(scale * s->u[i], s->N[i * s->columns + j]);
    return scale;
}

/* ---- A-step: F = (Wn M B'/g + rho (Z - U)) (B M B'/g + (RIDGE + rho) I)^-1, rows of B at unit norm    docs/DBF.md
 * (7) */

static bool together(const run *r) { return r->o->n_blocks > 0; }

static void invert(run *r, size_t i) {
    float diagonal = RIDGE + (i == 0 ? r->rho : 1);
    memcpy(r->inverse[i], r->G, r->k * r->k * sizeof *r->G);
    for (size_t j = 0; j < r->k; j++) r->inverse[i][j * r->k + j] += diagonal;
    r->failed[i] = !linalg_invert_spd(r->inverse[i], r->k);
}

/* P' T P = P + RIDGE I */
static void reduce(run *r) {
    for (size_t i = 0; i < r->k; i++) r->P[i * r->k + i] += RIDGE;
    r->failed[0] = !tridiagonal_reduce(r->P, r->d, r->e, r->k);
}

/* The first items: what one thread does with G; the others: blocks of rows of Y = Wn M B' / g. */
static void a_item(void *context, size_t item, uint32_t worker) {
    run *r = context;
    size_t m = r->m, k = r->k, serial = together(r) ? 1 : 2;
    (void)worker;
    if (item < serial) {
        if (serial == 1)
            reduce(r);
        else
            invert(r, item);
        return;
    }
    size_t first = (item - serial) * r->y_block, rows = bp_min(r->y_block, r->n - first);
    r->product(false, true, rows, k, m, r->inverse_g, r->Wm + first * m, m, r->rotated, m, 0, r->Y + first * k, k);
}

static bool a_system(run *r) {
    size_t m = r->m, k = r->k;
    unit_rows(&r->B, r->normed);
    metric_rotate(r->w, r->product, r->t, r->rotated, r->normed, k);
    for (size_t i = 0; i < k; i++)
        for (size_t j = 0; j < m; j++) r->normed[i * m + j] = r->rotated[i * m + j] * r->mu[j];
    workers_gemm_by(r->w, r->product, false, true, k, k, m, 1, r->normed, m, r->rotated, m, 0, r->G, k);
    double trace = 0;
    for (size_t i = 0; i < k; i++) trace += r->G[i * k + i];
    r->inverse_g = (float)((double)k / trace);
    float *G = together(r) ? r->P : r->G;
    for (size_t i = 0; i < k * k; i++) G[i] = r->G[i] * r->inverse_g;
    r->failed[0] = r->failed[1] = false;
    workers_for(r->w, (together(r) ? 1 : 2) + bp_ceil_div(r->n, r->y_block), a_item, r);
    return !r->failed[0] && !r->failed[1];
}

/* one block of rows of A: solve, then the dual update */
static void a_rows(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t k = r->k, first = block * r->n_block, rows = bp_min(r->n_block, r->n - first);
    float rho = r->inner == 0 ? r->rho : 1, *right = own_scratch(r, worker), *F = right + r->n_block * k;
    pull(&r->A, right, k, first, rows, 0, k);
    for (size_t i = 0; i < rows * k; i++) right[i] = r->Y[first * k + i] + rho * right[i];
    r->product(false, false, rows, k, k, 1, right, k, r->inverse[r->inner > 0], k, 0, F, k);
    push(&r->A, F, k, first, rows, 0, k);
}

static void a_step_apart(run *r) {
    for (r->inner = 0; r->inner < INNER; r->inner++) {
        workers_for(r->w, bp_ceil_div(r->n, r->n_block), a_rows, r);
        project(r, &r->A);
    }
}

/* The same where outputs are correlated: R F (B M B'/g + RIDGE I) + rho F = Y + rho (Z - U), docs/DBF.md (7'). With
 * R = Qr diag(r) Qr' and B M B'/g + RIDGE I = P'TP, row i of Qr'FP' solves a system of matrix r_i T + rho I. */

/* turned[0] = (Z - U) P', by rows */
static void a_into(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t k = r->k, first = block * r->n_block, rows = bp_min(r->n_block, r->n - first);
    float *D = own_scratch(r, worker);
    pull(&r->A, D, k, first, rows, 0, k);
    r->coarse(false, true, rows, k, k, 1, D, k, r->P, k, 0, r->turned[0] + first * k, k);
}

/* T [rows, k], rows from `first` on: solutions for Y + rho turned[1]. X [k, SOLVED], inverse [k, SOLVED]: scratch */
static void a_solve(const run *r, size_t first, size_t rows, float *T, float *X, float *inverse) {
    size_t k = r->k;
    float rho = r->inner == 0 ? r->rho : 1;
    for (size_t at = 0; at < rows; at += SOLVED) {
        const float *Y = r->Y + (first + at) * k, *D = r->turned[1] + (first + at) * k;
        size_t w = bp_min(SOLVED, rows - at);
        for (size_t i = 0; i < w; i++)
            for (size_t j = 0; j < k; j++) X[j * w + i] = Y[i * k + j] + rho * D[i * k + j];
        tridiagonal_solve(r->d, r->e, k, r->o->mu + first + at, rho, X, w, w, inverse);
        for (size_t i = 0; i < w; i++)
            for (size_t j = 0; j < k; j++) T[(at + i) * k + j] = X[j * w + i];
    }
}

/* turned[0] = those solutions times P, by rows */
static void a_from(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t k = r->k, first = block * r->n_block, rows = bp_min(r->n_block, r->n - first);
    float *T = own_scratch(r, worker), *X = T + r->n_block * k;
    a_solve(r, first, rows, T, X, X + SOLVED * k);
    r->coarse(false, false, rows, k, k, 1, T, k, r->P, k, 0, r->turned[0] + first * k, k);
}

/* the dual update with F = turned[1], by rows */
static void a_out(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t first = block * r->n_block;
    (void)worker;
    push(&r->A, r->turned[1] + first * r->k, r->k, first, bp_min(r->n_block, r->n - first), 0, r->k);
}

static void a_step_together(run *r) {
    size_t n = r->n, k = r->k, blocks = bp_ceil_div(n, r->n_block);
    workers_gemm_by(r->w, r->product, false, true, n, k, k, 1, r->Y, k, r->P, k, 0, r->turned[0], k);
    output_metric_turn(r->w, r->product, r->o, OUTPUT_INTO_BASIS, r->Y, r->turned[0], k);
    for (r->inner = 0; r->inner < INNER; r->inner++) {
        workers_for(r->w, blocks, a_into, r);
        output_metric_turn(r->w, r->coarse, r->o, OUTPUT_INTO_BASIS, r->turned[1], r->turned[0], k);
        workers_for(r->w, blocks, a_from, r);
        output_metric_turn(r->w, r->coarse, r->o, OUTPUT_FROM_BASIS, r->turned[1], r->turned[0], k);
        workers_for(r->w, blocks, a_out, r);
        project(r, &r->A);
    }
}

static bool a_step(run *r) {
    if (!a_system(r)) return false;
    if (together(r))
        a_step_together(r);
    else
        a_step_apart(r);
    return true;
}

/* ---- B-step: (A'RA + RIDGE I) F M + rho F = A' R Wn M + rho (Z - U), columns of A at unit norm: docs/DBF.md (8), (9).
 * With A'RA + RIDGE I = P'TP and M = Q diag(mu) Q', column j of P F Q solves a system of matrix mu_j T + rho I. */

/* Item 0: what one thread does with A'RA; the others: blocks of rows of E = A' Wn M Q. */
static void b_item(void *context, size_t item, uint32_t worker) {
    run *r = context;
    size_t n = r->n, m = r->m, k = r->k;
    (void)worker;
    if (item == 0) {
        reduce(r);
        return;
    }
    size_t first = (item - 1) * r->k_block, rows = bp_min(r->k_block, k - first);
    r->product(true, false, rows, m, n, 1, r->normed + first, k, r->Wm, m, 0, r->E + first * m, m);
}

static bool b_system(run *r) {
    size_t n = r->n, k = r->k;
    const float *RA = r->normed;
    unit_columns(&r->A, r->normed);
    if (together(r)) {
        output_metric_apply(r->w, r->product, r->o, r->turned[0], r->normed, k);
        RA = r->turned[0];
    }
    workers_gemm_by(r->w, r->product, true, false, k, k, n, 1, r->normed, k, RA, k, 0, r->P, k);
    workers_for(r->w, 1 + bp_ceil_div(k, r->k_block), b_item, r);
    return !r->failed[0];
}

/* E = P (Z - U), by columns */
static void b_into(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t m = r->m, k = r->k, first = block * r->m_block, columns = bp_min(r->m_block, m - first);
    float *D = own_scratch(r, worker);
    pull(&r->B, D, columns, 0, k, first, columns);
    r->coarse(false, false, k, columns, k, 1, r->P, k, D, columns, 0, r->E + first, m);
}

/* EQ = Y + rho E Q, by rows; EQ is E where there is no Q */
static void b_right(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t m = r->m, first = block * r->k_block, rows = bp_min(r->k_block, r->k - first);
    float rho = r->inner == 0 ? r->rho : 1, *X = r->EQ + first * m;
    const float *Y = r->Y + first * m;
    (void)worker;
    if (r->t->Q) r->coarse(false, false, rows, m, m, 1, r->E + first * m, m, r->t->Q, m, 0, X, m);
    for (size_t i = 0; i < rows * m; i++) X[i] = Y[i] + rho * X[i];
}

/* SOLVED columns of EQ */
static void b_solve(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t first = block * SOLVED;
    tridiagonal_solve(r->d, r->e, r->k, r->mu + first, r->inner == 0 ? r->rho : 1, r->EQ + first, r->m,
                      bp_min(SOLVED, r->m - first), own_scratch(r, worker));
}

/* E = EQ Q', by rows */
static void b_back(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t m = r->m, first = block * r->k_block, rows = bp_min(r->k_block, r->k - first);
    (void)worker;
    r->coarse(false, true, rows, m, m, 1, r->EQ + first * m, m, r->t->Q, m, 0, r->E + first * m, m);
}

/* F = P' E and the dual update, by columns */
static void b_out(void *context, size_t block, uint32_t worker) {
    const run *r = context;
    size_t m = r->m, k = r->k, first = block * r->m_block, columns = bp_min(r->m_block, m - first);
    float *F = own_scratch(r, worker);
    r->coarse(true, false, k, columns, k, 1, r->P, k, r->E + first, m, 0, F, columns);
    push(&r->B, F, columns, 0, k, first, columns);
}

static bool b_step(run *r) {
    size_t m = r->m, k = r->k, row_blocks = bp_ceil_div(k, r->k_block), column_blocks = bp_ceil_div(m, r->m_block);
    if (!b_system(r)) return false;
    workers_gemm_by(r->w, r->product, false, false, k, m, k, 1, r->P, k, r->E, m, 0, r->Y, m);
    for (r->inner = 0; r->inner < INNER; r->inner++) {
        workers_for(r->w, column_blocks, b_into, r);
        workers_for(r->w, row_blocks, b_right, r);
        workers_for(r->w, bp_ceil_div(m, SOLVED), b_solve, r);
        if (r->t->Q) workers_for(r->w, row_blocks, b_back, r);
        workers_for(r->w, column_blocks, b_out, r);
        project(r, &r->B);
    }
    return true;
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

/* mu, and Wm = R diag(root) W S Q diag(mu) */
static void set_target(run *r, const float *W, float damping) {
    for (size_t j = 0; j < r->m; j++) r->mu[j] = LEVEL * (r->t->mu[j] + damping) / (1 + damping);
    metric_scale(r->t, r->scaled, W, r->n);
    metric_rotate(r->w, linalg_gemm, r->t, r->Wm, r->scaled, r->n);
    for (size_t i = 0; i < r->n; i++)
        for (size_t j = 0; j < r->m; j++) r->Wm[i * r->m + j] *= r->o->root[i] * r->mu[j];
    if (!r->o->n_blocks) return;
    output_metric_apply(r->w, linalg_gemm, r->o, r->scaled, r->Wm, r->m);
    memcpy(r->Wm, r->scaled, r->n * r->m * sizeof *r->Wm);
}

/* Random signs, no duals: Z = N. */
static void start(state *s, rng *r) {
    rng_fill_signs(r, s->N, s->rows * s->columns);
    for (size_t i = 0; i < s->rows; i++) s->u[i] = 1;
    for (size_t j = 0; j < s->columns; j++) s->v[j] = 1;
}

/* The last B was fitted to A with unit columns, sign(A) . (u 1') / |u|: so V = diag(u_A / |u_A|) A diag(u_B) B
 * diag(v_B), and the weights and the scaling of the columns are undone. */
static void finish(run *r, binary_factors *f) {
    float scale = unit_columns(&r->A, r->normed);
    for (size_t i = 0; i < r->n; i++) f->a[i] = r->A.u[i] * scale / r->o->root[i];
    for (size_t i = 0; i < r->k; i++) f->c[i] = r->B.u[i];
    for (size_t j = 0; j < r->m; j++) f->b[j] = r->B.v[j] / r->t->scale[j];
    for (size_t i = 0; i < r->n * r->k; i++) f->A[i] = copysignf(1, r->A.N[i]);
    for (size_t i = 0; i < r->k * r->m; i++) f->B[i] = copysignf(1, r->B.N[i]);
}

bool admm_factorize(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t,
                    const admm_options *options, rng *random, bp_err *e) {
    run r;
    if (!run_open(&r, w, t, o, f->n, f->m, f->k, e)) return false;
    set_target(&r, W, options->damping);
    start(&r.A, random);
    start(&r.B, random);
    bool ok = true, stopped = false;
    for (unsigned i = 0; ok && !stopped && i < options->iterations; i++) {
        float ramp = (float)bp_min(i, options->iterations - 3) / (float)(options->iterations - 3);
        r.rho = ramp * ramp * ramp > RHO_FLOOR ? ramp * ramp * ramp : RHO_FLOOR;
        ok = a_step(&r) && b_step(&r);
        stopped = options->tick && !options->tick(options->context);
    }
    if (ok && !stopped) finish(&r, f);
    free(r.memory);
    if (stopped) return bp_fail(e, BP_OK, 0, "interrupted");
    return ok || bp_fail(e, BP_ERR_ARGUMENT, 0, "the matrix to factorize is not finite, or memory is short");
}

linalg_product *admm_product(void) { return gemm_bf16_amx() ? gemm_bf16_split : gemm_int16_or_float(); }

double admm_work(size_t n, size_t m, size_t k, unsigned iterations, bool full, bool correlated) {
    double dn = (double)n, dm = (double)m, dk = (double)k, rotation = full ? 2 * dk * dm * dm : 0;
    double a = rotation + 2 * dk * dk * dm + 2 * dn * dm * dk + 4 * dk * dk * dk + (double)INNER * 2 * dn * dk * dk;
    double b = 2 * dn * dm * dk + 2 * dn * dk * dk + 3 * dk * dk * dk + 2 * dk * dk * dm +
               (double)INNER * (4 * dk * dk * dm + 2 * rotation);
    if (correlated) { /* a basis instead of inverses; n^2 k and n k^2 for each turn into theirs and back */
        a += (1 + INNER) * 2 * dn * dk * dk + (1 + 2 * INNER) * 2 * dn * dn * dk - dk * dk * dk;
        b += 2 * dn * dn * dk;
    }
    return iterations * (a + b);
}

bool binary_factors_open(binary_factors *f, size_t n, size_t m, size_t k, bp_err *e) {
    *f = (binary_factors){.n = n, .m = m, .k = k};
    float *p = malloc((n * k + k * m + n + k + m) * sizeof *p);
    if (!p) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the factors of a matrix of %zu x %zu", n, m);
    f->A = p;
    f->B = f->A + n * k;
    f->a = f->B + k * m;
    f->c = f->a + n;
    f->b = f->c + k;
    return true;
}

void binary_factors_close(binary_factors *f) {
    free(f->A);
    *f = (binary_factors){0};
}

void binary_factors_product(workers *w, const binary_factors *f, float *V, float *scratch) {
    for (size_t i = 0; i < f->k; i++)
        for (size_t j = 0; j < f->m; j++) scratch[i * f->m + j] = f->c[i] * f->B[i * f->m + j] * f->b[j];
    workers_gemm(w, false, false, f->n, f->m, f->k, 1, f->A, f->k, scratch, f->m, 0, V, f->m);
    for (size_t i = 0; i < f->n; i++)
        for (size_t j = 0; j < f->m; j++) V[i * f->m + j] *= f->a[i];
}
