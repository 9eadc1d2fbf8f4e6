/* gemm_bf16: exact where bfloat16 and float32 are exact, else within the bound of its header; what it may touch; the
 * same bits for every split and thread. `check_gemm_bf16 --bench` prints GFLOPS beside those of linalg_gemm. */
#include "gemm_check.h"

#include "linalg/gemm_bf16.h"

static float integer(rng *r, size_t v, size_t p, size_t k, bool of_b) {
    (void)v, (void)p, (void)k, (void)of_b;
    return (float)(int)(rng_next(r) % 17) - 8;
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
    double sum = 0;
    *magnitude = 0;
    for (size_t p = 0; p < s->k; p++) {
        const float x = at_a(s, a, i, p), y = at_b(s, b, p, j);
        const double product = round ? (double)rounded(x) * (double)rounded(y) : (double)x * (double)y;
        sum += product;
        *magnitude += fabs(product);
    }
    return sum;
}

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

/* Normals against float64: the bound of the header, `rounding` and `sums` for each term of k; where factors are rounded
 * once, against rounded factors float32's own errors are all that is left. */
static void check_bound(double rounding, unsigned sums, bool once) {
    rng r = rng_named(2, "bound");
    for (unsigned i = 0; i < 8; i++) {
        const shape s = {i & 1, i >> 1 & 1, 37, 41, i < 4 ? 333 : 1601, 1, 0.7f, (float)(i & 1)};
        float *a = place(&A, rows_of_a(&s), cols_of_a(&s), 1), *b = place(&B, rows_of_b(&s), cols_of_b(&s), 1);
        float *c = place(&C, s.m, s.n, 1);
        fill(a, &s, false, gemm_normal_value, &r);
        fill(b, &s, true, gemm_normal_value, &r);
        for (size_t j = 0; j < s.m * (s.n + 1) - 1; j++) c[j] = 1;
        run(&s, a, b, c);
        double worst = 0, worst_rounded = 0; /* as shares of their bounds */
        const double of_sums = (sums * (double)s.k + 2) * 0x1p-23;
        for (size_t j = 0; j < s.m * s.n; j++) {
            const double got = (double)c[j / s.n * (s.n + 1) + j % s.n], old = (double)s.beta;
            double magnitude, exact = (double)s.alpha * dot(&s, a, b, j / s.n, j % s.n, false, &magnitude) + old;
            const double size = (double)s.alpha * magnitude + old;
            worst = fmax(worst, fabs(got - exact) / (size * (rounding + of_sums)));
            exact = (double)s.alpha * dot(&s, a, b, j / s.n, j % s.n, true, &magnitude) + old;
            worst_rounded = fmax(worst_rounded, fabs(got - exact) / (size * of_sums));
        }
        CHECK(worst <= 1, "k %zu: %g of the bound", s.k, worst);
        if (once) CHECK(worst_rounded <= 1, "k %zu: %g of float32's bound", s.k, worst_rounded);
    }
}

/* A long sum of products of values far apart, whose errors float32's rounding does not hide: two factors of 2^-9 each
 * are the whole of the error of a factor rounded once. */
static void check_split_rounding(void) {
    float a[64], b[64], c;
    rng r = rng_named(4, "split rounding");
    double exact = 0, magnitude = 0;
    for (size_t p = 0; p < 64; p++) {
        a[p] = (float)(rng_normal(&r) * pow(2, (int)(rng_next(&r) % 40) - 20));
        b[p] = (float)rng_normal(&r);
        exact += (double)a[p] * (double)b[p];
        magnitude += fabs((double)a[p] * (double)b[p]);
    }
    gemm_bf16_split(false, false, 1, 1, 64, 1, a, 64, b, 1, 0, &c, 1);
    CHECK(fabs((double)c - exact) <= magnitude * 0x1p-16, "%g instead of %g", (double)c, exact);
    const float x = 0x1.010101p0f, one = 1;
    gemm_bf16_split(false, false, 1, 1, 1, 1, &x, 1, &one, 1, 0, &c, 1);
    CHECK(fabs((double)c - (double)x) <= 0x1p-17, "%a becomes %a", (double)x, (double)c);
}

static void force_float(bool is_float) { gemm_bf16_force(is_float ? GEMM_BF16_FLOAT : GEMM_BF16_BEST); }

static void check_path(gemm_bf16_path path) {
    gemm_bf16_force(path);
    check_exact_shapes();
    check_empty();
    check_bound(0x1p-7, 1, gemm_bf16_available());
    if (gemm_bf16_available()) {
        check_rounding();
        check_split();
    }
}

int main(int argc, char **argv) {
    gemm_tested = gemm_bf16;
    gemm_exact_value = integer;
    linalg_init();
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench();
    printf("AVX-512 BF16: %s, AMX BF16: %s\n", gemm_bf16_available() ? "yes" : "no", gemm_bf16_amx() ? "yes" : "no");
    guarded_open_all();
    if (gemm_bf16_amx()) check_path(GEMM_BF16_BEST);
    check_path(GEMM_BF16_AVX512);
    check_fallback(force_float, gemm_bf16_available());
    gemm_tested = gemm_bf16_split;
    check_exact_shapes();
    check_empty();
    check_bound(0x1p-16, 3, false);
    check_split_rounding();
    if (gemm_bf16_amx()) check_split();
    check_fallback(force_float, gemm_bf16_amx());
    return check_end();
}
