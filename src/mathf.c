/* mathf.c - elementary functions from +, -, *, / and bit operations in a fixed order. Argument reduction in the style
 * of Cody and Waite (constants split so that k * hi is exact); polynomials: Cephes for e^x in float, Taylor elsewhere.
 */
#include "mathf.h"

static uint32_t float_bits(float x) {
    uint32_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_from_bits(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

static uint64_t double_bits(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static double double_from_bits(uint64_t u) {
    double x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* ---- float ---- */

/* e^x = 2^n e^r, n = round(x / ln 2), |r| <= ln 2 / 2. Adding 1.5 * 2^23 leaves n in the low bits of the sum, from
 * where it is added to the exponent of e^r (which is a normal number within these bounds). kernel_vec.h repeats these
 * operations lane by lane. */
float bp_expf(float x) {
    const float magic = 12582912.0f;
    float c = x < -87.3f ? -87.3f : x;
    c = c > 88.7f ? 88.7f : c;
    float k = c * 1.44269504f + magic;
    float n = k - magic;
    float r = (c - n * 0.693359375f) - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = (p * (r * r) + r) + 1.0f;
    float y = float_from_bits(float_bits(p) + (float_bits(k) << 23));
    if (x < -87.3f) y = 0.0f;
    if (x > 88.7f) y = float_from_bits(0x7f800000u);
    return x != x ? x : y;
}

void bp_expf_each(float *x, size_t n) {
    for (size_t i = 0; i < n; i++) x[i] = bp_expf(x[i]);
}

float bp_sigmoidf(float x) { return 1.0f / (1.0f + bp_expf(-x)); }

float bp_siluf(float x) { return x * bp_sigmoidf(x); }

float bp_sqrtf(float x) { return __builtin_sqrtf(x); }

/* ---- double ---- */

static const double INVERSE_FACTORIAL[19] = {1.0,
                                             1.0,
                                             1.0 / 2,
                                             1.0 / 6,
                                             1.0 / 24,
                                             1.0 / 120,
                                             1.0 / 720,
                                             1.0 / 5040,
                                             1.0 / 40320,
                                             1.0 / 362880,
                                             1.0 / 3628800,
                                             1.0 / 39916800,
                                             1.0 / 479001600,
                                             1.0 / 6227020800.0,
                                             1.0 / 87178291200.0,
                                             1.0 / 1307674368000.0,
                                             1.0 / 20922789888000.0,
                                             1.0 / 355687428096000.0,
                                             1.0 / 6402373705728000.0};

double bp_exp(double x) {
    if (x != x) return x;
    if (x > 709.782712893384) return double_from_bits(0x7ff0000000000000u);
    if (x < -745.1332191019412) return 0.0;
    const double magic = 6755399441055744.0; /* 1.5 * 2^52 */
    double n = (x * 1.4426950408889634 + magic) - magic;
    double r = (x - n * 6.93147180369123816490e-01) - n * 1.90821492927058770002e-10;
    double p = INVERSE_FACTORIAL[14];
    for (int i = 13; i >= 0; i--) p = p * r + INVERSE_FACTORIAL[i];
    int e = (int)n, half = e / 2;
    return p * double_from_bits((uint64_t)(half + 1023) << 52) * double_from_bits((uint64_t)(e - half + 1023) << 52);
}

/* ln(2^e m) = e ln 2 + 2 atanh(f), f = (m - 1) / (m + 1), sqrt(1/2) <= m < sqrt(2) */
double bp_log(double x) {
    if (x != x) return x;
    if (x < 0.0) return double_from_bits(0x7ff8000000000000u);
    if (x == 0.0) return double_from_bits(0xfff0000000000000u);
    uint64_t u = double_bits(x);
    if (u == 0x7ff0000000000000u) return x;
    int e = 0;
    if (u < 0x0010000000000000u) {
        u = double_bits(x * 18014398509481984.0); /* 2^54 */
        e = -54;
    }
    e += (int)(u >> 52) - 1023;
    double m = double_from_bits((u & 0x000fffffffffffffu) | 0x3ff0000000000000u);
    if (m > 1.4142135623730951) {
        m *= 0.5;
        e++;
    }
    double f = (m - 1.0) / (m + 1.0), f2 = f * f, p = 0.0;
    for (int i = 23; i >= 3; i -= 2) p = (p + 1.0 / i) * f2;
    double n = e;
    return n * 6.93147180369123816490e-01 + (2.0 * (f + f * p) + n * 1.90821492927058770002e-10);
}

/* x = k pi/2 + r with pi/2 in four parts, the first three of 33 bits (fdlibm), so that k times each is exact for
 * k < 2^20; the subtractions cancel exactly or round relative to what is left. */
void bp_sincos(double x, double *sin_x, double *cos_x) {
    if (!(x < 1073741824.0 && x > -1073741824.0)) {
        *sin_x = *cos_x = double_from_bits(0x7ff8000000000000u);
        return;
    }
    const double magic = 6755399441055744.0;
    double k = (x * 0.63661977236758138 + magic) - magic;
    double r = x - k * 1.57079632673412561417e+00;
    r -= k * 6.07710050630396597660e-11;
    r -= k * 2.02226624871116645580e-21;
    r -= k * 8.47842766036889956997e-32;
    double r2 = -(r * r), s = INVERSE_FACTORIAL[17], c = INVERSE_FACTORIAL[18];
    for (int i = 15; i >= 1; i -= 2) {
        s = s * r2 + INVERSE_FACTORIAL[i];
        c = c * r2 + INVERSE_FACTORIAL[i + 1];
    }
    s *= r;
    c = c * r2 + 1.0;
    uint32_t quadrant = (uint32_t)(int64_t)k & 3;
    double a = quadrant & 1 ? c : s, b = quadrant & 1 ? s : c;
    *sin_x = quadrant & 2 ? -a : a;
    *cos_x = (quadrant + 1) & 2 ? -b : b;
}

/* ---- half precision ---- */

uint16_t bp_half_from_float(float x) {
    uint32_t bits = float_bits(x), sign = bits >> 16 & 0x8000u, a = bits & 0x7fffffffu;
    if (a > 0x7f800000u) return 0;
    if (a > 0x477fe000u) a = 0x477fe000u; /* 65504 */
    if (a < 0x38800000u) { /* below 2^-14: the sum with 1/2 has the spacing of half subnormals, and rounds */
        a = float_bits(float_from_bits(a) + 0.5f) - 0x3f000000u;
        return (uint16_t)(sign | a);
    }
    a += 0xfffu + (a >> 13 & 1); /* nearest even */
    return (uint16_t)(sign | ((a - 0x38000000u) >> 13));
}
