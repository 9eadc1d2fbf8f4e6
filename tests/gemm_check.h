/* gemm_check.h - what the checks of gemm_bf16 and gemm_int16 share: matrices at the edge of memory, exact products,
 * what a product may touch, the same bits for every split and thread, the fallback, GFLOPS beside linalg_gemm. */
#ifndef BITPAIR_GEMM_CHECK_H
#define BITPAIR_GEMM_CHECK_H

#include "check.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "linalg/linalg.h"
#include "random.h"

typedef void gemm_function(bool, bool, size_t, size_t, size_t, float, const float *, size_t, const float *, size_t,
                           float, float *, size_t);

/* Element p of vector v (a row of op(A), or a column of op(B) where `of_b`) over k. */
typedef float gemm_value(rng *r, size_t v, size_t p, size_t k, bool of_b);

static gemm_function *gemm_tested;
static gemm_value *gemm_exact_value;  /* of small integers whose products are exact, */
static size_t gemm_exact_least_k = 1; /* from this k on */

typedef struct {
    bool trans_a, trans_b;
    size_t m, n, k;
    size_t gap; /* ld beyond the width, of all three */
    float alpha, beta;
} shape;

/* Matrices that end where memory ends: a page that faults when it is touched follows each. */
typedef struct {
    char *base;
    size_t bytes;
    float *end;
} guarded;

enum { PAGE = 65536, BIGGEST = 4 << 20 };

static guarded A, B, C;

static inline guarded guarded_open(void) {
    guarded g = {NULL, BIGGEST * sizeof(float) + PAGE, NULL};
    g.base = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + g.bytes - PAGE, PAGE, PROT_NONE) != 0) {
        printf("no guarded memory\n");
        exit(1);
    }
    g.end = (float *)(void *)(g.base + g.bytes - PAGE);
    return g;
}

static inline void guarded_open_all(void) {
    A = guarded_open();
    B = guarded_open();
    C = guarded_open();
}

static inline size_t rows_of_a(const shape *s) { return s->trans_a ? s->k : s->m; }
static inline size_t cols_of_a(const shape *s) { return s->trans_a ? s->m : s->k; }
static inline size_t rows_of_b(const shape *s) { return s->trans_b ? s->n : s->k; }
static inline size_t cols_of_b(const shape *s) { return s->trans_b ? s->k : s->n; }

/* The first value of a matrix whose last row ends at the guard. */
static inline float *place(const guarded *g, size_t rows, size_t cols, size_t gap) {
    return g->end - (rows * (cols + gap) - gap);
}

static inline float gemm_normal_value(rng *r, size_t v, size_t p, size_t k, bool of_b) {
    (void)v, (void)p, (void)k, (void)of_b;
    return (float)rng_normal(r);
}

/* The gaps between rows are NaN: who reads them spoils the result. */
static inline void fill(float *X, const shape *s, bool of_b, gemm_value *value, rng *r) {
    const size_t rows = of_b ? rows_of_b(s) : rows_of_a(s), cols = of_b ? cols_of_b(s) : cols_of_a(s);
    const bool along_k = of_b ? s->trans_b : !s->trans_a;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols + s->gap && (i + 1 < rows || j < cols); j++)
            X[i * (cols + s->gap) + j] = j < cols ? value(r, along_k ? i : j, along_k ? j : i, s->k, of_b) : NAN;
}

static inline void run(const shape *s, const float *a, const float *b, float *c) {
    gemm_tested(s->trans_a, s->trans_b, s->m, s->n, s->k, s->alpha, a, cols_of_a(s) + s->gap, b, cols_of_b(s) + s->gap,
                s->beta, c, s->n + s->gap);
}

/* Element (i, p) of op(A), element (p, j) of op(B). */
static inline float at_a(const shape *s, const float *a, size_t i, size_t p) {
    const size_t lda = cols_of_a(s) + s->gap;
    return s->trans_a ? a[p * lda + i] : a[i * lda + p];
}

static inline float at_b(const shape *s, const float *b, size_t p, size_t j) {
    const size_t ldb = cols_of_b(s) + s->gap;
    return s->trans_b ? b[j * ldb + p] : b[p * ldb + j];
}

/* ---- exact: small integers, whose products and sums float32 holds ---- */

static inline void check_exact(const shape *s, rng *r) {
    const size_t ldc = s->n + s->gap;
    float *a = place(&A, rows_of_a(s), cols_of_a(s), s->gap), *b = place(&B, rows_of_b(s), cols_of_b(s), s->gap);
    float *c = place(&C, s->m, s->n, s->gap);
    static float old[BIGGEST];
    fill(a, s, false, gemm_exact_value, r);
    fill(b, s, true, gemm_exact_value, r);
    for (size_t i = 0; i < s->m * ldc - s->gap; i++) c[i] = s->beta == 0 ? NAN : (float)(i % 5);
    c[-1] = 77;
    memcpy(old, c, (s->m * ldc - s->gap) * sizeof *c);
    run(s, a, b, c);
    size_t wrong = 0, touched = c[-1] != 77;
    for (size_t i = 0; i < s->m; i++)
        for (size_t j = 0; j < s->n; j++) {
            double sum = 0, kept = s->beta == 0 ? 0 : (double)s->beta * (double)old[i * ldc + j];
            for (size_t p = 0; p < s->k; p++) sum += (double)at_a(s, a, i, p) * (double)at_b(s, b, p, j);
            wrong += (double)c[i * ldc + j] != (double)s->alpha * sum + kept;
        }
    for (size_t i = 0; i + 1 < s->m; i++)
        touched += memcmp(c + i * ldc + s->n, old + i * ldc + s->n, s->gap * sizeof *c) != 0;
    CHECK(wrong == 0, "%c%c %zu x %zu x %zu, alpha %g, beta %g: %zu elements differ", "NT"[s->trans_a],
          "NT"[s->trans_b], s -> m, s -> n, s -> k, (double)s -> alpha, (double)s -> beta, wrong);
    CHECK(touched == 0, "%zu x %zu x %zu: wrote outside C", s->m, s->n, s->k);
}

/* Sizes around the tiles, the vectors and the blocks; every pair of transposes, alpha and beta. */
static inline void check_exact_shapes(void) {
    static const size_t sizes[] = {1, 2, 3, 5, 6, 7, 11, 12, 13, 15, 16, 17, 23, 25, 31, 32, 33, 47, 48, 49, 64, 65};
    static const shape large[] = {{0, 0, 277, 35, 70, 0, 1, 1},  {0, 0, 13, 3110, 9, 2, 1, 0},
                                  {0, 0, 9, 33, 769, 1, 2, 1},   {0, 0, 19, 130, 577, 1, 1, 0},
                                  {0, 0, 14, 31, 1538, 0, 1, 0}, {0, 0, 14, 5, 2305, 3, -1, 0.5}};
    static const float alphas[] = {1, -2, 0.5f, 0}, betas[] = {0, 1, -0.5f};
    rng r = rng_named(1, "exact");
    for (unsigned i = 0; i < 240; i++) {
        enum { COUNT = sizeof sizes / sizeof sizes[0] };
        const shape s = {i & 1,
                         i >> 1 & 1,
                         sizes[rng_next(&r) % COUNT],
                         sizes[rng_next(&r) % COUNT],
                         bp_max(gemm_exact_least_k, sizes[rng_next(&r) % COUNT]),
                         rng_next(&r) % 4,
                         alphas[rng_next(&r) % 8 ? rng_next(&r) % 3 : 3],
                         betas[rng_next(&r) % 3]};
        check_exact(&s, &r);
    }
    for (unsigned i = 0; i < 4 * sizeof large / sizeof large[0]; i++) {
        shape s = large[i / 4];
        s.trans_a = i & 1;
        s.trans_b = i >> 1 & 1;
        check_exact(&s, &r);
    }
}

static inline void check_empty(void) {
    float one = 3, c[2] = {5, NAN};
    gemm_tested(false, false, 0, 1, 1, 1, &one, 1, &one, 1, 0, c, 1);
    gemm_tested(false, false, 1, 0, 1, 1, &one, 1, &one, 1, 0, c, 1);
    CHECK(c[0] == 5, "an empty product wrote %g", (double)c[0]);
    gemm_tested(false, false, 1, 1, 0, 1, &one, 1, &one, 1, 2, c, 1);
    gemm_tested(false, false, 1, 1, 0, 1, &one, 1, &one, 1, 0, c + 1, 1);
    CHECK(c[0] == 10 && c[1] == 0, "k = 0 gives %g and %g", (double)c[0], (double)c[1]);
}

/* ---- the same bits ---- */

enum { SPLIT_M = 301, SPLIT_N = 77, SPLIT_K = 901 };

static float split_a[SPLIT_M * SPLIT_K], split_b[SPLIT_N * SPLIT_K], whole[SPLIT_M * SPLIT_N];

static inline void split_fill(void) {
    rng r = rng_named(3, "split");
    rng_fill_normal(&r, split_a, SPLIT_M * SPLIT_K);
    rng_fill_normal(&r, split_b, SPLIT_N * SPLIT_K);
}

/* dW += dy' x on a thread of its own, in blocks of `*argument` rows and columns. */
static inline void *multiply_split(void *argument) {
    const size_t block = *(const size_t *)argument;
    float *c = calloc(SPLIT_M * SPLIT_N, sizeof *c);
    for (size_t i = 0; c && i < SPLIT_M; i += block)
        for (size_t j = 0; j < SPLIT_N; j += block)
            gemm_tested(true, false, bp_min(block, SPLIT_M - i), bp_min(block, SPLIT_N - j), SPLIT_K, 0.3f, split_a + i,
                        SPLIT_M, split_b + j, SPLIT_N, 1, c + i * SPLIT_N + j, SPLIT_N);
    return c;
}

static inline void check_split(void) {
    size_t blocks[] = {1000, 100, 32, 17};
    enum { THREADS = sizeof blocks / sizeof blocks[0] };
    pthread_t threads[THREADS];
    split_fill();
    memset(whole, 0, sizeof whole);
    gemm_tested(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 0.3f, split_a, SPLIT_M, split_b, SPLIT_N, 1, whole, SPLIT_N);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, multiply_split, &blocks[i]) != 0) exit(1);
    for (size_t i = 0; i < THREADS; i++) {
        void *c = NULL;
        pthread_join(threads[i], &c);
        CHECK(c && memcmp(c, whole, sizeof whole) == 0, "blocks of %zu on a thread give other bits", blocks[i]);
        free(c);
    }
}

/* Forced, the fallback is linalg_gemm bit for bit; released, the fast path is taken again where there is one. */
static inline void check_fallback(void (*force)(bool), bool available) {
    static float expected[SPLIT_M * SPLIT_N], c[SPLIT_M * SPLIT_N];
    split_fill();
    force(true);
    gemm_tested(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 1, split_a, SPLIT_M, split_b, SPLIT_N, 0, c, SPLIT_N);
    linalg_gemm(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 1, split_a, SPLIT_M, split_b, SPLIT_N, 0, expected, SPLIT_N);
    CHECK(memcmp(c, expected, sizeof c) == 0, "the fallback is not linalg_gemm");
    check_exact_shapes();
    force(false);
    gemm_tested(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 1, split_a, SPLIT_M, split_b, SPLIT_N, 0, c, SPLIT_N);
    CHECK((memcmp(c, expected, sizeof c) != 0) == available, "the fallback is not released");
}

/* ---- bench ---- */

/* Seconds of this thread alone: the machine may be busy. */
static inline double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static inline double seconds_of(gemm_function *gemm, const shape *s, const float *a, const float *b, float *c,
                                int repeats) {
    const double start = thread_seconds();
    for (int i = 0; i < repeats; i++)
        gemm(s->trans_a, s->trans_b, s->m, s->n, s->k, 1, a, cols_of_a(s), b, cols_of_b(s), s->beta, c, s->n);
    return (thread_seconds() - start) / repeats;
}

/* Best of rounds that take turns. */
static inline void bench_shape(const shape *s) {
    const double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k;
    float *a = malloc(s->m * s->k * sizeof *a), *b = malloc(s->n * s->k * sizeof *b),
          *c = calloc(s->m * s->n, sizeof *c);
    if (!a || !b || !c) exit(1);
    rng r = rng_named(4, "bench");
    rng_fill_normal(&r, a, s->m * s->k);
    rng_fill_normal(&r, b, s->n * s->k);
    double tested = 1e9, sgemm = 1e9;
    for (int round = 0; round < (flops > 1e10 ? 4 : 12); round++) {
        tested = fmin(tested, seconds_of(gemm_tested, s, a, b, c, (int)(1 + 2e9 / flops)));
        sgemm = fmin(sgemm, seconds_of(linalg_gemm, s, a, b, c, (int)(1 + 2e9 / flops)));
    }
    printf("%c%c %6zu %6zu %6zu  %7.1f %7.1f  %5.2f\n", "NT"[s->trans_a], "NT"[s->trans_b], s -> m, s -> n, s -> k,
           flops / tested * 1e-9, flops / sgemm * 1e-9, sgemm / tested);
    free(a);
    free(b);
    free(c);
}

/* Shapes of the tuner: forward, backward to inputs, gradients of weights, head. */
static inline int bench(void) {
    static const shape shapes[] = {
        {0, 1, 512, 576, 576, 0, 1, 0},   {0, 1, 512, 192, 576, 0, 1, 0},   {0, 1, 512, 1536, 576, 0, 1, 0},
        {0, 1, 512, 576, 1536, 0, 1, 0},  {0, 1, 2048, 576, 576, 0, 1, 0},  {0, 1, 2048, 1536, 576, 0, 1, 0},
        {0, 1, 512, 49152, 576, 0, 1, 0}, {0, 0, 512, 576, 192, 0, 1, 0},   {0, 0, 512, 576, 576, 0, 1, 0},
        {0, 0, 512, 576, 1536, 0, 1, 0},  {0, 0, 512, 1536, 576, 0, 1, 0},  {0, 0, 2048, 576, 1536, 0, 1, 0},
        {0, 0, 512, 576, 49152, 0, 1, 0}, {1, 0, 192, 576, 1024, 0, 1, 1},  {1, 0, 576, 576, 1024, 0, 1, 1},
        {1, 0, 1536, 576, 2048, 0, 1, 1}, {1, 0, 576, 1536, 4096, 0, 1, 1}, {1, 0, 49152, 576, 512, 0, 1, 1},
        {0, 1, 512, 512, 64, 0, 1, 0},    {0, 0, 512, 64, 512, 0, 1, 0},    {1, 0, 512, 64, 512, 0, 1, 1}};
    printf("op      m      n      k  GFLOPS:   sgemm  ratio\n");
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) bench_shape(&shapes[i]);
    return 0;
}

#endif
