/* gemm_int16 and gemm_int8: exact where their integers are exact, else within the bound of their headers and as good as
 * so many bits can be; what they may touch; the same bits for every split and thread. `check_gemm_integers --bench`
 * prints GFLOPS beside those of linalg_gemm. */
#include "gemm_check.h"

#include "linalg/gemm_int16.h"
#include "linalg/gemm_int8.h"
#include "random.h"

/* ---- what the header says, on its own ---- */

/* Length of the blocks of k; the last may be shorter. */
static size_t depth_of(size_t k) {
    const size_t blocks = (k + 575) / 576, equal = (k + blocks - 1) / blocks;
    return equal + equal % 2;
}

static double levels_of(size_t block) {
    return gemm_tested == gemm_int8 ? 127 : fmin(32767, floor(sqrt(2147483647.0 / (double)block)));
}

static bool available(void) { return gemm_tested == gemm_int8 ? gemm_int8_available() : gemm_int16_available(); }

/* Small integers, and two largest ones in every block of a row or column, so that its scale is 1. Those of A meet none
 * of B: the sums stay below 2^24. No block is of length 1. */
static float integer(rng *r, size_t v, size_t p, size_t k, bool of_b) {
    const size_t depth = depth_of(k), block = bp_min(depth, k - p / depth * depth);
    const size_t place = (2 * v + of_b) % (block - block % 2);
    if (p % depth == place) return (float)(v & 2 ? -levels_of(block) : levels_of(block));
    return (float)(int)(rng_next(r) % 17) - 8;
}

/* ---- rounding ---- */

static double most_of(const shape *s, const float *x, bool of_b, size_t v, size_t first, size_t end) {
    double most = 0;
    for (size_t p = first; p < end; p++) most = fmax(most, fabs((double)(of_b ? at_b(s, x, p, v) : at_a(s, x, v, p))));
    return most;
}

typedef struct {
    double sum, bound, variance; /* exact, of the header, and of evenly spread rounding */
} expectation;

static expectation expect(const shape *s, const float *a, const float *b, size_t i, size_t j, double old) {
    const size_t depth = depth_of(s->k);
    double sum = 0, size = 0, rounding = 0, variance = 0, blocks = 0;
    for (size_t first = 0; first < s->k; first += depth, blocks++) {
        const size_t end = bp_min(first + depth, s->k);
        const double levels = levels_of(end - first);
        const double most_a = most_of(s, a, false, i, first, end), most_b = most_of(s, b, true, j, first, end);
        for (size_t p = first; p < end; p++) {
            const double x = (double)at_a(s, a, i, p), y = (double)at_b(s, b, p, j);
            const double by_a = y * most_a / levels, by_b = x * most_b / levels;
            sum += x * y;
            size += fabs(x * y);
            rounding += (fabs(by_a) + fabs(by_b) + most_a * most_b / levels / (2 * levels)) / 2;
            variance += (by_a * by_a + by_b * by_b) / 12;
        }
    }
    const double alpha = (double)s->alpha, kept = (double)s->beta * old;
    return (expectation){alpha * sum + kept,
                         fabs(alpha) * rounding * (1 + 0x1p-8) +
                             (blocks + 6) * 0x1p-23 * (fabs(alpha) * size + fabs(kept)),
                         alpha * alpha * variance};
}

/* Normals against float64: no error beyond the bound, and all of them together as large as rounding to nearest makes
 * them with that many integers. */
static void check_bound(void) {
    static const size_t lengths[] = {64, 333, 576, 1601};
    rng r = rng_named(2, "bound");
    for (unsigned i = 0; i < 16; i++) {
        const shape s = {i & 1, i >> 1 & 1, 37, 41, lengths[i / 4], 1, 0.7f, (float)(i & 1)};
        float *a = place(&A, rows_of_a(&s), cols_of_a(&s), 1), *b = place(&B, rows_of_b(&s), cols_of_b(&s), 1);
        float *c = place(&C, s.m, s.n, 1);
        fill(a, &s, false, gemm_normal_value, &r);
        fill(b, &s, true, gemm_normal_value, &r);
        for (size_t j = 0; j < s.m * (s.n + 1) - 1; j++) c[j] = 1;
        run(&s, a, b, c);
        double worst = 0, squares = 0, variance = 0;
        for (size_t j = 0; j < s.m * s.n; j++) {
            const expectation x = expect(&s, a, b, j / s.n, j % s.n, 1);
            const double error = (double)c[j / s.n * (s.n + 1) + j % s.n] - x.sum;
            worst = fmax(worst, fabs(error) / x.bound);
            squares += error * error;
            variance += x.variance;
        }
        CHECK(worst <= 1, "k %zu: %g of the bound", s.k, worst);
        if (available())
            CHECK(fabs(squares / variance - 1) < 0.15, "k %zu: %g times the squared error of rounding", s.k,
                  squares / variance);
    }
}

/* ---- rows and columns apart ---- */

enum { M = 29, N = 51, K = 701 }; /* two blocks of k */

static float a[M * K], b[K * N], plain[M * N], c[M * N];

static void multiply(float *to) { gemm_tested(false, false, M, N, K, 1, a, K, b, N, 0, to, N); }

static void fill_normal(void) {
    rng r = rng_named(5, "rows");
    rng_fill_normal(&r, a, M * K);
    rng_fill_normal(&r, b, K * N);
    multiply(plain);
}

/* Rows of A and columns of B of every size: powers of two change nothing but the size of the result. */
static void check_sizes(void) {
    size_t wrong = 0;
    fill_normal();
    for (size_t i = 0; i < M * K; i++) a[i] = ldexpf(a[i], (int)(i / K * 6) - 86);
    for (size_t i = 0; i < K * N; i++) b[i] = ldexpf(b[i], (int)(i % N % 31) - 15);
    multiply(c);
    for (size_t i = 0; i < M * N; i++)
        wrong += c[i] != ldexpf(plain[i], (int)(i / N * 6) - 86 + (int)(i % N % 31) - 15);
    CHECK(wrong == 0, "%zu elements of rows and columns of other sizes differ", wrong);
}

/* What is not finite reaches all of its row or column and nothing else; rows that are next to nothing are zero. */
static void check_special(void) {
    size_t wrong = 0, touched = 0;
    fill_normal();
    a[3 * K + 650] = NAN;
    a[28 * K] = -INFINITY;
    b[700 * N + 20] = INFINITY;
    b[123 * N + 50] = NAN;
    for (size_t p = 0; p < K; p++) a[7 * K + p] = p % 2 ? 0x1p-101f : 0;
    multiply(c);
    for (size_t i = 0; i < M; i++)
        for (size_t j = 0; j < N; j++) {
            const float x = c[i * N + j];
            if (i == 3 || i == 28 || j == 20 || j == 50)
                wrong += isnan(x) == 0;
            else
                touched += x != (i == 7 ? 0.0f : plain[i * N + j]);
        }
    CHECK(wrong == 0, "%zu elements are not NaN", wrong);
    CHECK(touched == 0, "%zu elements of other rows and columns differ", touched);
}

/* The largest sums that 32 bits must hold, of both signs, and the largest numbers. */
static void check_largest(void) {
    static const size_t lengths[] = {1, 2, 3, 64, 511, 512, 575, 576, 1152};
    for (size_t t = 0; t < 2 * sizeof lengths / sizeof lengths[0]; t++) {
        const size_t k = lengths[t / 2];
        const float size = t & 1 ? 0x1p100f : 3, tiny = 1 / size;
        float got;
        for (size_t p = 0; p < k; p++) a[p] = -size, b[p] = tiny;
        gemm_tested(false, true, 1, 1, k, 1, a, k, b, k, 0, &got, 1);
        CHECK(fabs((double)got / (double)k + 1) < 0x1p-20, "%zu products of %g and %g give %g", k, (double)-size,
              (double)tiny, (double)got);
    }
}

static void force_float(bool is_float) { gemm_int16_force(is_float ? GEMM_INT16_FLOAT : GEMM_INT16_BEST); }

static void check_tested(void) {
    check_exact_shapes();
    check_empty();
    check_bound();
    check_largest();
    if (available()) {
        check_sizes();
        check_special();
        check_split();
    }
}

/* AVX2 and VNNI give the same bits. */
static void check_paths_agree(void) {
    static float other[SPLIT_M * SPLIT_N];
    split_fill();
    for (int trans_a = 0; trans_a < 2; trans_a++)
        for (int trans_b = 0; trans_b < 2; trans_b++) {
            const shape s = {trans_a, trans_b, SPLIT_M, SPLIT_N, SPLIT_K, 0, 0.7f, -0.3f};
            for (int path = 0; path < 2; path++) {
                float *to = path ? other : whole;
                for (size_t i = 0; i < SPLIT_M * SPLIT_N; i++) to[i] = (float)(i % 7);
                gemm_int16_force(path ? GEMM_INT16_AVX2 : GEMM_INT16_BEST);
                run(&s, split_a, split_b, to);
            }
            CHECK(memcmp(whole, other, sizeof whole) == 0, "%c%c: AVX2 and VNNI differ", "NT"[trans_a], "NT"[trans_b]);
        }
}

static void check_int16(void) {
    gemm_tested = gemm_int16;
    if (gemm_int16_vnni()) check_tested();
    gemm_int16_force(GEMM_INT16_AVX2);
    check_tested();
    check_paths_agree();
    check_fallback(force_float, gemm_int16_available());
}

static void check_int8(void) {
    gemm_tested = gemm_int8;
    check_tested();
    check_fallback(gemm_int8_force, gemm_int8_available());
}

static int bench_both(void) {
    gemm_tested = gemm_int16;
    bench();
    gemm_tested = gemm_int8;
    printf("8 bits\n");
    return bench();
}

int main(int argc, char **argv) {
    gemm_exact_value = integer;
    gemm_exact_least_k = 2; /* one product of the largest integers is rounded to float32 */
    linalg_init();
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench_both();
    printf("AVX2: %s, AVX-512 VNNI: %s\n", gemm_int16_available() ? "yes" : "no", gemm_int16_vnni() ? "yes" : "no");
    guarded_open_all();
    check_int16();
    check_int8();
    return check_end();
}
