/* gemm_bf16: exact where bfloat16 and float32 are exact, else within the bound of its header; what it may touch; the
 * same bits for every split and thread. `check_gemm_bf16 --bench` prints GFLOPS beside those of linalg_gemm. */
#include "check.h"

#include <math.h>
#include <pthread.h>
#include <sys/mman.h>
#include <time.h>

#include "linalg/gemm_bf16.h"
#include "linalg/linalg.h"
#include "linalg/rng.h"

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

static guarded guarded_open(void) {
    guarded g = {NULL, BIGGEST * sizeof(float) + PAGE, NULL};
    g.base = mmap(NULL, g.bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (g.base == MAP_FAILED || mprotect(g.base + g.bytes - PAGE, PAGE, PROT_NONE) != 0) {
        printf("no guarded memory\n");
        exit(1);
    }
    g.end = (float *)(void *)(g.base + g.bytes - PAGE);
    return g;
}

static size_t rows_of_a(const shape *s) { return s->trans_a ? s->k : s->m; }
static size_t cols_of_a(const shape *s) { return s->trans_a ? s->m : s->k; }
static size_t rows_of_b(const shape *s) { return s->trans_b ? s->n : s->k; }
static size_t cols_of_b(const shape *s) { return s->trans_b ? s->k : s->n; }

/* The first value of a matrix whose last row ends at the guard. */
static float *place(const guarded *g, size_t rows, size_t cols, size_t gap) {
    return g->end - (rows * (cols + gap) - gap);
}

/* Small integers or normals; the gaps between rows are NaN: who reads them spoils the result. */
static void fill(float *X, size_t rows, size_t cols, size_t gap, bool integers, rng *r) {
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols + gap && (i + 1 < rows || j < cols); j++)
            X[i * (cols + gap) + j] = j >= cols  ? NAN
                                      : integers ? (float)(int)(rng_next(r) % 17) - 8
                                                 : (float)rng_normal(r);
}

static void run(const shape *s, const float *a, const float *b, float *c) {
    gemm_bf16(s->trans_a, s->trans_b, s->m, s->n, s->k, s->alpha, a, cols_of_a(s) + s->gap, b, cols_of_b(s) + s->gap,
              s->beta, c, s->n + s->gap);
}

static float rounded(float x) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fff + (bits >> 16 & 1)) & 0xffff0000;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* sum and sum of magnitudes of row i of op(A) times column j of op(B), with factors rounded or as they are */
static double dot(const shape *s, const float *a, const float *b, size_t i, size_t j, bool round, double *magnitude) {
    const size_t lda = cols_of_a(s) + s->gap, ldb = cols_of_b(s) + s->gap;
    double sum = 0;
    *magnitude = 0;
    for (size_t p = 0; p < s->k; p++) {
        const float x = s->trans_a ? a[p * lda + i] : a[i * lda + p], y = s->trans_b ? b[j * ldb + p] : b[p * ldb + j];
        const double product = round ? (double)rounded(x) * (double)rounded(y) : (double)x * (double)y;
        sum += product;
        *magnitude += fabs(product);
    }
    return sum;
}

/* ---- exact: integers up to 8, whose products and sums float32 holds ---- */

static void check_exact(const shape *s, rng *r) {
    const size_t ldc = s->n + s->gap;
    float *a = place(&A, rows_of_a(s), cols_of_a(s), s->gap), *b = place(&B, rows_of_b(s), cols_of_b(s), s->gap);
    float *c = place(&C, s->m, s->n, s->gap);
    static float old[BIGGEST];
    fill(a, rows_of_a(s), cols_of_a(s), s->gap, true, r);
    fill(b, rows_of_b(s), cols_of_b(s), s->gap, true, r);
    for (size_t i = 0; i < s->m * ldc - s->gap; i++) c[i] = s->beta == 0 ? NAN : (float)(i % 5);
    c[-1] = 77;
    memcpy(old, c, (s->m * ldc - s->gap) * sizeof *c);
    run(s, a, b, c);
    size_t wrong = 0, touched = c[-1] != 77;
    for (size_t i = 0; i < s->m; i++)
        for (size_t j = 0; j < s->n; j++) {
            double magnitude, kept = s->beta == 0 ? 0 : (double)s->beta * (double)old[i * ldc + j];
            wrong += (double)c[i * ldc + j] != (double)s->alpha * dot(s, a, b, i, j, false, &magnitude) + kept;
        }
    for (size_t i = 0; i + 1 < s->m; i++)
        touched += memcmp(c + i * ldc + s->n, old + i * ldc + s->n, s->gap * sizeof *c) != 0;
    CHECK(wrong == 0, "%c%c %zu x %zu x %zu, alpha %g, beta %g: %zu elements differ", "NT"[s->trans_a],
          "NT"[s->trans_b], s -> m, s -> n, s -> k, (double)s -> alpha, (double)s -> beta, wrong);
    CHECK(touched == 0, "%zu x %zu x %zu: wrote outside C", s->m, s->n, s->k);
}

/* Sizes around the tiles, the vectors and the blocks; every pair of transposes, alpha and beta. */
static void check_exact_shapes(void) {
    static const size_t sizes[] = {1, 2, 3, 5, 11, 12, 13, 15, 16, 17, 23, 25, 31, 32, 33, 47, 48, 49, 64, 65};
    static const shape large[] = {{0, 0, 277, 35, 70, 0, 1, 1},
                                  {0, 0, 13, 3110, 9, 2, 1, 0},
                                  {0, 0, 9, 33, 769, 1, 2, 1},
                                  {0, 0, 14, 31, 1538, 0, 1, 0},
                                  {0, 0, 14, 5, 2305, 3, -1, 0.5}};
    static const float alphas[] = {1, -2, 0.5f, 0}, betas[] = {0, 1, -0.5f};
    rng r = rng_named(1, "exact");
    for (unsigned i = 0; i < 240; i++) {
        enum { COUNT = sizeof sizes / sizeof sizes[0] };
        const shape s = {i & 1,
                         i >> 1 & 1,
                         sizes[rng_next(&r) % COUNT],
                         sizes[rng_next(&r) % COUNT],
                         sizes[rng_next(&r) % COUNT],
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

static void check_empty(void) {
    float one = 3, c[2] = {5, NAN};
    gemm_bf16(false, false, 0, 1, 1, 1, &one, 1, &one, 1, 0, c, 1);
    gemm_bf16(false, false, 1, 0, 1, 1, &one, 1, &one, 1, 0, c, 1);
    CHECK(c[0] == 5, "an empty product wrote %g", (double)c[0]);
    gemm_bf16(false, false, 1, 1, 0, 1, &one, 1, &one, 1, 2, c, 1);
    gemm_bf16(false, false, 1, 1, 0, 1, &one, 1, &one, 1, 0, c + 1, 1);
    CHECK(c[0] == 10 && c[1] == 0, "k = 0 gives %g and %g", (double)c[0], (double)c[1]);
}

/* ---- rounding ---- */

/* One product of k = 1 shows how a factor was rounded: ties to even, overflow, special values, subnormals. */
static void check_rounding(void) {
    static const struct {
        float in, out;
    } cases[] = {
        {0x1.01p0f, 0x1p0f},        {0x1.03p0f, 0x1.04p0f},  {0x1.010002p0f, 0x1.02p0f}, {-0x1.03p-9f, -0x1.04p-9f},
        {0x1.fep127f, 0x1.fep127f}, {0x1.ffp127f, INFINITY}, {INFINITY, INFINITY},       {-INFINITY, -INFINITY},
        {0x1p-126f, 0x1p-126f},     {0x1p-127f, 0},          {0x1.fffffep9f, 0x1p10f},   {0, 0}};
    const float one = 1, nan = NAN;
    float c;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        for (int turn = 0; turn < 2; turn++) {
            gemm_bf16(false, false, 1, 1, 1, 1, turn ? &one : &cases[i].in, 1, turn ? &cases[i].in : &one, 1, 0, &c, 1);
            CHECK(c == cases[i].out, "%a becomes %a, not %a", (double)cases[i].in, (double)c, (double)cases[i].out);
        }
    gemm_bf16(false, false, 1, 1, 1, 1, &nan, 1, &one, 1, 0, &c, 1);
    CHECK(isnan(c), "NaN becomes %g", (double)c);
}

/* Normals against float64: the bound of the header; against rounded factors float32's own errors are all that is left.
 */
static void check_bound(void) {
    rng r = rng_named(2, "bound");
    for (unsigned i = 0; i < 8; i++) {
        const shape s = {i & 1, i >> 1 & 1, 37, 41, i < 4 ? 333 : 1601, 1, 0.7f, (float)(i & 1)};
        float *a = place(&A, rows_of_a(&s), cols_of_a(&s), 1), *b = place(&B, rows_of_b(&s), cols_of_b(&s), 1);
        float *c = place(&C, s.m, s.n, 1);
        fill(a, rows_of_a(&s), cols_of_a(&s), 1, false, &r);
        fill(b, rows_of_b(&s), cols_of_b(&s), 1, false, &r);
        for (size_t j = 0; j < s.m * (s.n + 1) - 1; j++) c[j] = 1;
        run(&s, a, b, c);
        double worst = 0, worst_rounded = 0; /* as shares of their bounds */
        for (size_t j = 0; j < s.m * s.n; j++) {
            const double got = (double)c[j / s.n * (s.n + 1) + j % s.n], old = (double)s.beta, sums = (double)(s.k + 2);
            double magnitude, exact = (double)s.alpha * dot(&s, a, b, j / s.n, j % s.n, false, &magnitude) + old;
            const double size = (double)s.alpha * magnitude + old;
            worst = fmax(worst, fabs(got - exact) / (size * (0x1p-7 + sums * 0x1p-23)));
            exact = (double)s.alpha * dot(&s, a, b, j / s.n, j % s.n, true, &magnitude) + old;
            worst_rounded = fmax(worst_rounded, fabs(got - exact) / (size * sums * 0x1p-23));
        }
        CHECK(worst <= 1, "k %zu: %g of the bound", s.k, worst);
        if (gemm_bf16_available()) CHECK(worst_rounded <= 1, "k %zu: %g of float32's bound", s.k, worst_rounded);
    }
}

/* ---- the same bits ---- */

enum { SPLIT_M = 301, SPLIT_N = 77, SPLIT_K = 901 };

static float split_a[SPLIT_M * SPLIT_K], split_b[SPLIT_N * SPLIT_K], whole[SPLIT_M * SPLIT_N];

/* dW += dy' x on a thread of its own, in blocks of `*argument` rows and columns. */
static void *multiply_split(void *argument) {
    const size_t block = *(const size_t *)argument;
    float *c = calloc(SPLIT_M * SPLIT_N, sizeof *c);
    for (size_t i = 0; c && i < SPLIT_M; i += block)
        for (size_t j = 0; j < SPLIT_N; j += block)
            gemm_bf16(true, false, bp_min(block, SPLIT_M - i), bp_min(block, SPLIT_N - j), SPLIT_K, 0.3f, split_a + i,
                      SPLIT_M, split_b + j, SPLIT_N, 1, c + i * SPLIT_N + j, SPLIT_N);
    return c;
}

static void check_split(void) {
    size_t blocks[] = {1000, 100, 32, 17};
    enum { THREADS = sizeof blocks / sizeof blocks[0] };
    pthread_t threads[THREADS];
    rng r = rng_named(3, "split");
    rng_fill_normal(&r, split_a, SPLIT_M * SPLIT_K);
    rng_fill_normal(&r, split_b, SPLIT_N * SPLIT_K);
    gemm_bf16(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 0.3f, split_a, SPLIT_M, split_b, SPLIT_N, 1, whole, SPLIT_N);
    for (size_t i = 0; i < THREADS; i++)
        if (pthread_create(&threads[i], NULL, multiply_split, &blocks[i]) != 0) exit(1);
    for (size_t i = 0; i < THREADS; i++) {
        void *c = NULL;
        pthread_join(threads[i], &c);
        CHECK(c && memcmp(c, whole, sizeof whole) == 0, "blocks of %zu on a thread give other bits", blocks[i]);
        free(c);
    }
}

/* Forced, the fallback is linalg_gemm bit for bit; released, factors are rounded again. */
static void check_fallback(void) {
    const float third = 1.0f / 3;
    static float expected[SPLIT_M * SPLIT_N], c[SPLIT_M * SPLIT_N];
    float product = 0;
    gemm_bf16_force_fallback(true);
    gemm_bf16(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 1, split_a, SPLIT_M, split_b, SPLIT_N, 0, c, SPLIT_N);
    linalg_gemm(true, false, SPLIT_M, SPLIT_N, SPLIT_K, 1, split_a, SPLIT_M, split_b, SPLIT_N, 0, expected, SPLIT_N);
    CHECK(memcmp(c, expected, sizeof c) == 0, "the fallback is not linalg_gemm");
    check_exact_shapes();
    gemm_bf16_force_fallback(false);
    gemm_bf16(false, false, 1, 1, 1, 3, &third, 1, (float[]){1}, 1, 0, &product, 1);
    CHECK(product == 3 * (gemm_bf16_available() ? rounded(third) : third), "released, 1/3 is %a", (double)product / 3);
}

/* ---- bench ---- */

/* Seconds of this thread alone: the machine may be busy. */
static double thread_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

typedef void gemm_function(bool, bool, size_t, size_t, size_t, float, const float *, size_t, const float *, size_t,
                           float, float *, size_t);

static double seconds_of(gemm_function *gemm, const shape *s, const float *a, const float *b, float *c, int repeats) {
    const double start = thread_seconds();
    for (int i = 0; i < repeats; i++)
        gemm(s->trans_a, s->trans_b, s->m, s->n, s->k, 1, a, cols_of_a(s), b, cols_of_b(s), s->beta, c, s->n);
    return (thread_seconds() - start) / repeats;
}

/* Best of rounds that take turns. */
static void bench_shape(const shape *s) {
    const double flops = 2.0 * (double)s->m * (double)s->n * (double)s->k;
    float *a = malloc(s->m * s->k * sizeof *a), *b = malloc(s->n * s->k * sizeof *b),
          *c = calloc(s->m * s->n, sizeof *c);
    if (!a || !b || !c) exit(1);
    rng r = rng_named(4, "bench");
    rng_fill_normal(&r, a, s->m * s->k);
    rng_fill_normal(&r, b, s->n * s->k);
    double bf16 = 1e9, sgemm = 1e9;
    for (int round = 0; round < (flops > 1e10 ? 4 : 12); round++) {
        bf16 = fmin(bf16, seconds_of(gemm_bf16, s, a, b, c, (int)(1 + 2e9 / flops)));
        sgemm = fmin(sgemm, seconds_of(linalg_gemm, s, a, b, c, (int)(1 + 2e9 / flops)));
    }
    printf("%c%c %6zu %6zu %6zu  %7.1f %7.1f  %5.2f\n", "NT"[s->trans_a], "NT"[s->trans_b], s -> m, s -> n, s -> k,
           flops / bf16 * 1e-9, flops / sgemm * 1e-9, sgemm / bf16);
    free(a);
    free(b);
    free(c);
}

static int bench(void) {
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

int main(int argc, char **argv) {
    linalg_init();
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench();
    printf("AVX-512 BF16: %s\n", gemm_bf16_available() ? "yes" : "no");
    A = guarded_open();
    B = guarded_open();
    C = guarded_open();
    check_exact_shapes();
    check_empty();
    check_bound();
    if (gemm_bf16_available()) {
        check_rounding();
        check_split();
    }
    check_fallback();
    return check_end();
}
