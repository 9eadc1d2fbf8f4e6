/* ADMM, its projection, the scales: planted factorizations, published error levels, the gain of the metrics of inputs
 * and outputs, and the same bytes at any number of threads. `check_admm --bench` prints milliseconds an iteration for
 * the layers of SmolLM2-135M. */
#include "check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "compress/refit.h"
#include "compress/svid.h"
#include "linalg/linalg.h"
#include "platform.h"
#include "random.h"

static const admm_options OPTIONS = {.iterations = 40, .damping = 0.3f};

/* H [m, m] of inputs with a decaying spectrum in random directions, channels of different size */
static float *correlated(size_t m) {
    size_t t = 3 * m;
    float *H = calloc(m * m, sizeof *H), *X = malloc(t * m * sizeof *X), *Y = malloc(t * m * sizeof *Y),
          *mix = malloc(m * m * sizeof *mix);
    rng r = rng_named(11, "inputs");
    rng_fill_normal(&r, X, t * m);
    rng_fill_normal(&r, mix, m * m);
    for (size_t i = 0; i < t; i++)
        for (size_t j = 0; j < m; j++) X[i * m + j] /= 1 + 0.1f * (float)j;
    linalg_gemm(false, false, t, m, m, 1, X, m, mix, m, 0, Y, m);
    for (size_t i = 0; i < t; i++) Y[i * m + 1] *= 20;
    linalg_gemm(true, false, m, m, t, 1, Y, m, Y, m, 0, H, m);
    linalg_mirror(H, m);
    free(X);
    free(Y);
    free(mix);
    return H;
}

static float *identity(size_t m) {
    float *H = calloc(m * m, sizeof *H);
    for (size_t i = 0; i < m; i++) H[i * m + i] = 1;
    return H;
}

static float *gaussian(size_t n, size_t m) {
    float *W = malloc(n * m * sizeof *W);
    rng r = rng_named(12, "weights");
    rng_fill_normal(&r, W, n * m);
    return W;
}

/* The upper triangle of such moments, row after row */
static float *triangle(size_t n) {
    float *H = correlated(n), *G = malloc(n * (n + 1) / 2 * sizeof *G);
    for (size_t i = 0; i < n; i++) memcpy(G + output_metric_row(i, n), H + i * n + i, (n - i) * sizeof *G);
    free(H);
    return G;
}

static output_metric opened(const float *weights, size_t n) {
    output_metric o;
    bp_err e;
    CHECK(output_metric_open(&o, weights, n, &e), "%s", e.text);
    return o;
}

/* tr(G (W-V) H (W-V)') of V = f: the error that the fits of scales reduce, damping included. NAN without memory. */
static double refit_error(workers *w, const binary_factors *f, const float *W, const output_metric *o, const metric *t,
                          float damping) {
    size_t n = f->n, m = f->m;
    float *V = malloc((2 * n * m + bp_max(n, f->k) * m) * sizeof *V);
    if (!V) return NAN;
    float *DM = V + n * m;
    binary_factors_product(w, f, V, DM + n * m);
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < m; j++) V[i * m + j] = (W[i * m + j] - V[i * m + j]) * o->root[i];
    metric_scale(t, V, V, n);
    metric_apply(w, t, damping, DM, V, n);
    output_metric_apply(w, linalg_gemm, o, DM + n * m, DM, m);
    double sum = 0;
    for (size_t i = 0; i < n * m; i++) sum += (double)V[i] * (double)DM[n * m + i];
    free(V);
    return sum * (double)t->mean;
}

/* Error of f relative to that of nothing, in the metrics. */
static double relative_error(const binary_factors *f, const float *W, const metric *t, const output_metric *o) {
    binary_factors none;
    binary_factors_open(&none, f->n, f->m, f->k, NULL);
    for (size_t i = 0; i < f->n; i++) none.a[i] = 0;
    for (size_t i = 0; i < f->k; i++) none.c[i] = 0;
    for (size_t j = 0; j < f->m; j++) none.b[j] = 0;
    for (size_t i = 0; i < f->n * f->k; i++) none.A[i] = 1;
    for (size_t i = 0; i < f->k * f->m; i++) none.B[i] = 1;
    double error = refit_error(NULL, f, W, o, t, 0) / refit_error(NULL, &none, W, o, t, 0);
    binary_factors_close(&none);
    return error;
}

/* Factorizes, improves and rounds; also checks that each step does what it promises. */
static double factorize_for(unsigned iterations, binary_factors *f, const float *W, const metric *t,
                            const output_metric *o, workers *w, const char *stream) {
    rng r = rng_named(0, stream);
    bp_err e;
    admm_options options = {.iterations = iterations, .damping = 0.3f};
    CHECK(admm_factorize(w, f, W, o, t, &options, &r, &e), "%s", e.text);
    double before = refit_error(w, f, W, o, t, 0.03f);
    CHECK(refit_scales(w, f, W, o, t, 0.03f, 2, &e), "%s", e.text);
    double after = refit_error(w, f, W, o, t, 0.03f);
    CHECK(after <= before * (1 + 1e-4), "the scales' fit made it worse: %g -> %g", before, after);
    CHECK(refit_round(w, f, W, o, t, 0.03f, false, &e), "%s", e.text);
    double rounded = refit_error(w, f, W, o, t, 0.03f);
    CHECK(rounded <= after * 1.02 + 1e-5 * before, "half precision costs too much: %g -> %g", after, rounded);
    return relative_error(f, W, t, o);
}

/* All outputs weigh the same. */
static double factorize(binary_factors *f, const float *W, const metric *t, const char *stream) {
    output_metric o = opened(NULL, f->n);
    double error = factorize_for(OPTIONS.iterations, f, W, t, &o, NULL, stream);
    output_metric_close(&o);
    return error;
}

static void check_svid(void) {
    enum { ROWS = 50, COLUMNS = 70 };
    static float N[ROWS * COLUMNS], u[ROWS], v[COLUMNS], p[ROWS], q[COLUMNS];
    rng r = rng_named(1, "svid");
    float *scratch = malloc(svid_scratch(ROWS, COLUMNS) * sizeof *scratch);
    for (size_t i = 0; i < ROWS; i++) p[i] = (float)(0.1 + rng_uniform(&r));
    for (size_t j = 0; j < COLUMNS; j++) q[j] = (float)(0.1 + rng_uniform(&r));
    rng_fill_signs(&r, N, ROWS * COLUMNS);
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) N[i * COLUMNS + j] *= p[i] * q[j];
    for (size_t j = 0; j < COLUMNS; j++) v[j] = 1;
    svid_project(NULL, u, v, N, ROWS, COLUMNS, 2, scratch);
    double worst = 0, norm = 0;
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++)
            worst = fmax(worst, fabs((double)(u[i] * v[j]) - fabs((double)N[i * COLUMNS + j])));
    for (size_t j = 0; j < COLUMNS; j++) norm += (double)v[j] * v[j];
    CHECK(worst < 1e-5, "rank one is not recovered: %g", worst);
    CHECK(fabs(norm - 1) < 1e-5, "|v|^2 = %g", norm);
    free(scratch);
}

/* W is an exact factorization with few middle columns. */
static void check_planted(void) {
    enum { ROWS = 96, COLUMNS = 128, MIDDLE = 8 };
    binary_factors planted, found;
    bp_err e;
    metric t;
    float *W = malloc(ROWS * COLUMNS * sizeof *W), *scratch = malloc(MIDDLE * COLUMNS * sizeof *scratch),
          *H = correlated(COLUMNS);
    rng r = rng_named(5, "planted");
    binary_factors_open(&planted, ROWS, COLUMNS, MIDDLE, &e);
    binary_factors_open(&found, ROWS, COLUMNS, MIDDLE, &e);
    rng_fill_signs(&r, planted.A, ROWS * MIDDLE);
    rng_fill_signs(&r, planted.B, MIDDLE * COLUMNS);
    for (size_t i = 0; i < ROWS; i++) planted.a[i] = (float)(0.5 + rng_uniform(&r));
    for (size_t i = 0; i < MIDDLE; i++) planted.c[i] = (float)(0.5 + rng_uniform(&r));
    for (size_t j = 0; j < COLUMNS; j++) planted.b[j] = (float)(0.5 + rng_uniform(&r));
    binary_factors_product(NULL, &planted, W, scratch);
    CHECK(metric_open(&t, H, COLUMNS, true, &e), "%s", e.text);
    output_metric o = opened(NULL, ROWS);
    double error = factorize_for(100, &found, W, &t, &o, NULL, "planted");
    CHECK(error < 1e-3, "planted factorization is not recovered: error %g", error);
    output_metric_close(&o);
    metric_close(&t);
    binary_factors_close(&planted);
    binary_factors_close(&found);
    free(W);
    free(H);
    free(scratch);
}

/* Stages of one bit on a Gaussian matrix: .335 and .113 at size 576 and 60 iterations. */
static void check_stacking(void) {
    enum { SIZE = 256, MIDDLE = 128 };
    static const double bound[] = {0.36, 0.13};
    binary_factors f;
    bp_err e;
    metric t;
    float *W = gaussian(SIZE, SIZE), *H = identity(SIZE), *V = malloc(SIZE * SIZE * sizeof *V),
          *scratch = malloc(MIDDLE * SIZE * sizeof *V);
    metric_open(&t, H, SIZE, false, &e);
    binary_factors_open(&f, SIZE, SIZE, MIDDLE, &e);
    double total = 1;
    for (int s = 0; s < 2; s++) {
        total *= factorize(&f, W, &t, s ? "second" : "first");
        CHECK(total < bound[s] && total > 0.8 * bound[s], "error after %d bits: %g", s + 1, total);
        binary_factors_product(NULL, &f, V, scratch);
        for (size_t i = 0; i < SIZE * SIZE; i++) W[i] -= V[i];
    }
    metric_close(&t);
    binary_factors_close(&f);
    free(W);
    free(H);
    free(V);
    free(scratch);
}

/* Under correlated inputs the full metric must beat the diagonal one clearly, judged by the full one. */
static void check_metric(void) {
    enum { ROWS = 96, COLUMNS = 160, MIDDLE = 64 };
    binary_factors f;
    bp_err e;
    metric full, diagonal;
    float *W = gaussian(ROWS, COLUMNS), *H = correlated(COLUMNS);
    CHECK(metric_open(&full, H, COLUMNS, true, &e) && metric_open(&diagonal, H, COLUMNS, false, &e), "%s", e.text);
    double trace = 0;
    for (size_t j = 0; j < COLUMNS; j++) trace += (double)full.mu[j];
    CHECK(fabs(trace / (double)COLUMNS - 1) < 1e-3, "the metric's diagonal is not 1 on average but %g",
          trace / (double)COLUMNS);
    binary_factors_open(&f, ROWS, COLUMNS, MIDDLE, &e);
    output_metric o = opened(NULL, ROWS);
    factorize(&f, W, &diagonal, "diagonal");
    double blind = relative_error(&f, W, &full, &o);
    double seeing = factorize(&f, W, &full, "full");
    CHECK(seeing < 0.8 * blind, "full metric %g, diagonal %g", seeing, blind);
    output_metric_close(&o);
    metric_close(&full);
    metric_close(&diagonal);
    binary_factors_close(&f);
    free(W);
    free(H);
}

/* Weights of the outputs: rows that count more come out better. */
static void check_weights(void) {
    enum { ROWS = 64, COLUMNS = 96, MIDDLE = 32 };
    binary_factors f;
    bp_err e;
    metric t;
    float *W = gaussian(ROWS, COLUMNS), *H = identity(COLUMNS), weights[ROWS], V[ROWS * COLUMNS],
          scratch[MIDDLE * COLUMNS];
    for (size_t i = 0; i < ROWS; i++) weights[i] = i < ROWS / 4 ? 10 : 0.1f;
    metric_open(&t, H, COLUMNS, true, &e);
    binary_factors_open(&f, ROWS, COLUMNS, MIDDLE, &e);
    output_metric o = opened(weights, ROWS);
    factorize_for(OPTIONS.iterations, &f, W, &t, &o, NULL, "weights");
    output_metric_close(&o);
    binary_factors_product(NULL, &f, V, scratch);
    double heavy = 0, light = 0;
    for (size_t i = 0; i < ROWS; i++)
        for (size_t j = 0; j < COLUMNS; j++) {
            double d = (double)W[i * COLUMNS + j] - (double)V[i * COLUMNS + j];
            *(i < ROWS / 4 ? &heavy : &light) += d * d;
        }
    CHECK(3 * heavy < 0.5 * light, "heavy rows %g, light rows %g", 3 * heavy, light);
    metric_close(&t);
    binary_factors_close(&f);
    free(W);
    free(H);
}

/* tr(G D H D'), D = W - V, entry by entry, for a metric with one block. */
static double error_by_entries(const binary_factors *f, const float *W, const float *H, const output_metric *o) {
    float *V = malloc((f->n + f->k) * f->m * sizeof *V), *DH = malloc(f->n * f->m * sizeof *DH);
    double sum = 0;
    binary_factors_product(NULL, f, V, V + f->n * f->m);
    for (size_t i = 0; i < f->n * f->m; i++) V[i] = W[i] - V[i];
    linalg_gemm(false, false, f->n, f->m, f->m, 1, V, f->m, H, f->m, 0, DH, f->m);
    const output_block *b = &o->blocks[0];
    for (size_t i = 0; i < f->n; i++)
        for (size_t j = 0; j < f->n; j++) {
            bool inside = i >= b->first && j >= b->first && i < b->first + b->n && j < b->first + b->n;
            double G = inside ? (double)b->R[(i - b->first) * b->n + j - b->first] : i == j, product = 0;
            for (size_t l = 0; G != 0 && l < f->m; l++) product += (double)DH[i * f->m + l] * (double)V[j * f->m + l];
            sum += (double)o->root[i] * (double)o->root[j] * G * product;
        }
    free(V);
    free(DH);
    return sum;
}

/* Outputs whose errors weigh together: in one block of several, beside outputs that stand alone. */
static void check_correlated_outputs(void) {
    enum { ROWS = 112, BLOCK = 80, FIRST = 16, COLUMNS = 128, MIDDLE = 48 };
    binary_factors f;
    bp_err e;
    metric t;
    float *W = gaussian(ROWS, COLUMNS), *H = correlated(COLUMNS), *G = triangle(BLOCK), weights[ROWS];
    for (size_t i = 0; i < ROWS; i++) weights[i] = 0.5f + (float)(i % 5);
    output_metric alone = opened(weights, ROWS), together = opened(weights, ROWS);
    CHECK(metric_open(&t, H, COLUMNS, true, &e) && output_metric_add(&together, FIRST, BLOCK, G, 0.1f, &e), "%s",
          e.text);
    binary_factors_open(&f, ROWS, COLUMNS, MIDDLE, &e);
    factorize_for(OPTIONS.iterations, &f, W, &t, &alone, NULL, "alone");
    double blind = relative_error(&f, W, &t, &together);
    double seeing = factorize_for(OPTIONS.iterations, &f, W, &t, &together, NULL, "together");
    CHECK(seeing < 0.8 * blind, "correlations of outputs %g, without %g", seeing, blind);
    double error = refit_error(NULL, &f, W, &together, &t, 0), entries = error_by_entries(&f, W, H, &together);
    CHECK(fabs(error - entries) < 1e-3 * entries, "error %g, entry by entry %g", error, entries);
    double trace = 0;
    for (size_t i = 0; i < ROWS; i++) trace += (double)together.mu[i];
    CHECK(fabs(trace - ROWS) < 1e-2 && together.mu[0] == 1 && together.mu[ROWS - 1] == 1, "eigenvalues sum to %g",
          trace);
    G[BLOCK] = NAN;
    CHECK(!output_metric_add(&together, FIRST, BLOCK, G, 0.1f, &e) && e.code == BP_ERR_ARGUMENT,
          "takes NaN for a metric");
    output_metric_close(&alone);
    output_metric_close(&together);
    metric_close(&t);
    binary_factors_close(&f);
    free(W);
    free(H);
    free(G);
}

static bool stop_at_once(void *context) {
    (void)context;
    return false;
}

/* W [rows, columns] in stages of middle k on 1 to 6 threads; the outputs up to `together` weigh together. */
static void check_threads(size_t rows, size_t columns, size_t k, size_t together) {
    enum { MOST = 6 };
    const size_t bytes = (rows * k + k * columns + rows + k + columns) * sizeof(float);
    binary_factors first = {0};
    bp_err e;
    metric t;
    float *W = gaussian(rows, columns), *H = correlated(columns), *G = triangle(together);
    metric_open(&t, H, columns, true, &e);
    output_metric o = opened(NULL, rows);
    CHECK(output_metric_add(&o, 0, together, G, 0.1f, &e), "%s", e.text);
    for (uint32_t threads = 1; threads <= MOST; threads++) {
        binary_factors f;
        workers *w = workers_open(threads, &e);
        binary_factors_open(&f, rows, columns, k, &e);
        factorize_for(OPTIONS.iterations, &f, W, &t, &o, w, "threads");
        workers_close(w);
        if (threads == 1) {
            first = f;
            continue;
        }
        CHECK(memcmp(first.A, f.A, bytes) == 0, "%zu x %zu: %u threads give other bytes than 1", rows, columns,
              threads);
        binary_factors_close(&f);
    }
    binary_factors_close(&first);
    output_metric_close(&o);
    metric_close(&t);
    free(W);
    free(H);
    free(G);
}

static void check_errors(void) {
    enum { ROWS = 64, COLUMNS = 96, MIDDLE = 32 };
    binary_factors f;
    bp_err e;
    metric t, bad;
    float *W = gaussian(ROWS, COLUMNS), *H = correlated(COLUMNS);
    metric_open(&t, H, COLUMNS, true, &e);
    output_metric o = opened(NULL, ROWS);
    binary_factors_open(&f, ROWS, COLUMNS, MIDDLE, &e);
    rng r = rng_named(0, "stop");
    admm_options stop = {.iterations = 40, .damping = 0.3f, .tick = stop_at_once};
    CHECK(!admm_factorize(NULL, &f, W, &o, &t, &stop, &r, &e) && e.code == BP_OK, "does not stop when told to");
    W[7] = NAN;
    CHECK(!admm_factorize(NULL, &f, W, &o, &t, &OPTIONS, &r, &e) && e.code == BP_ERR_ARGUMENT, "factorizes NaN");
    H[0] = NAN;
    CHECK(!metric_open(&bad, H, COLUMNS, true, &e) && e.code == BP_ERR_ARGUMENT, "takes a metric of NaN");
    binary_factors_close(&f);
    output_metric_close(&o);
    metric_close(&t);
    free(W);
    free(H);
}

/* Outputs whose errors weigh together: all of them, none, or q, k and v one by one. */
static output_metric bench_outputs(size_t n, bool apart, bool qkv) {
    static const size_t heads[] = {576, 192, 192};
    output_metric o = opened(NULL, n);
    bp_err e;
    for (size_t first = 0, i = 0; !apart && first < n; first += o.blocks[i++].n) {
        const size_t rows = qkv ? heads[i] : n;
        float *G = triangle(rows);
        CHECK(output_metric_add(&o, first, rows, G, 0.1f, &e), "%s", e.text);
        free(G);
    }
    return o;
}

static int bench(void) {
    enum { ITERATIONS = 24 };
    static const struct {
        const char *name;
        size_t n, m, k;
    } layers[] = {{"attn_qkv", 960, 576, 384},
                  {"attn_output", 576, 576, 320},
                  {"ffn_gate_up", 3072, 576, 512},
                  {"ffn_down", 576, 1536, 448}};
    const admm_options options = {.iterations = ITERATIONS, .damping = 0.3f};
    bp_err e;
    for (uint32_t threads = 1; threads <= 2; threads++) {
        workers *w = workers_open(threads, &e);
        double sum = 0;
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            const size_t n = layers[i].n, m = layers[i].m, k = layers[i].k;
            float *H = correlated(m), *W = gaussian(n, m);
            metric t;
            binary_factors f;
            output_metric o = bench_outputs(n, i == 2, i == 0);
            CHECK(metric_open(&t, H, m, true, &e) && binary_factors_open(&f, n, m, k, &e), "%s", e.text);
            rng r = rng_named(1, layers[i].name);
            const double start = platform_seconds();
            CHECK(admm_factorize(w, &f, W, &o, &t, &options, &r, &e), "%s", e.text);
            const double ms = (platform_seconds() - start) * 1e3 / ITERATIONS;
            printf("%u threads, %-11s %zu x %zu, k %zu: %5.1f ms an iteration\n", threads, layers[i].name, n, m, k, ms);
            sum += ms;
            binary_factors_close(&f);
            output_metric_close(&o);
            metric_close(&t);
            free(W);
            free(H);
        }
        printf("%u threads, a block: %.1f ms\n", threads, sum);
        workers_close(w);
    }
    return check_end();
}

int main(int argc, char **argv) {
    const bool measure = argc > 1 && !strcmp(argv[1], "--bench");
    if (measure) linalg_restart_with_best(argv);
    linalg_init();
    if (measure) return bench();
    check_svid();
    check_planted();
    check_stacking();
    check_metric();
    check_weights();
    check_correlated_outputs();
    check_threads(200, 224, 96, 100);
    check_threads(128, 128, 64, 128); /* rows for four threads in blocks of 32, the smallest */
    check_errors();
    return check_end();
}
