/* check_mathf.c - accuracy of the elementary functions against libm in a wider type, exactness of half precision, and a
 * golden hash that any divergence of compiler or ISA breaks. */
#include "check.h"
#include "golden/kernel_hashes.h"
#include "kernel_cases.h"

#include <math.h>

static uint64_t bits_of(double x) {
    uint64_t u;
    memcpy(&u, &x, sizeof u);
    return u;
}

static float float_of(uint32_t u) {
    float x;
    memcpy(&x, &u, sizeof x);
    return x;
}

/* Error in units of the last place of the exact value (float32, normal) */
static double ulps(float y, double exact) {
    int e;
    frexp(exact, &e);
    return fabs((double)y - exact) / ldexp(1.0, (e < -125 ? -125 : e) - 24);
}

static void check_exp_float(void) {
    double worst = 0, worst_sigmoid = 0;
    for (int i = 0; i <= 4000000; i++) {
        const float x = -87.3f + (float)i * 4.4e-5f;
        if (x > 88.7f) break;
        worst = fmax(worst, ulps(bp_expf(x), exp((double)x)));
        worst_sigmoid = fmax(worst_sigmoid, ulps(bp_sigmoidf(x), 1.0 / (1.0 + exp(-(double)x))));
    }
    printf("expf: %.3f ulp, sigmoidf: %.3f ulp\n", worst, worst_sigmoid);
    CHECK(worst < 2.0, "expf is off by %g ulp", worst);
    CHECK(worst_sigmoid < 4.0, "sigmoidf is off by %g ulp", worst_sigmoid);
    CHECK(bp_expf(0.0f) == 1.0f && bp_expf(-0.0f) == 1.0f, "e^0");
    CHECK(bp_expf(-88.0f) == 0.0f && bp_expf(-INFINITY) == 0.0f, "underflow");
    CHECK(bp_expf(89.0f) == INFINITY && bp_expf(INFINITY) == INFINITY, "overflow");
    float several[] = {-100, -87.3f, -1.5f, 0, 0.3f, 88.7f, 100};
    bp_expf_each(several, 7);
    CHECK(several[0] == 0 && several[1] == bp_expf(-87.3f) && several[2] == bp_expf(-1.5f) && several[3] == 1 &&
              several[4] == bp_expf(0.3f) && several[5] == bp_expf(88.7f) && several[6] == INFINITY,
          "several at once");
    CHECK(isfinite(bp_expf(88.7f)) && bp_expf(-87.3f) > 0.0f, "limits");
    CHECK(isnan(bp_expf(NAN)) && isnan(bp_expf(float_of(0xffc00001))) && isnan(bp_sigmoidf(NAN)), "NaN stays NaN");
    CHECK(bp_sigmoidf(-100.0f) == 0.0f && bp_sigmoidf(100.0f) == 1.0f, "sigmoid saturates");
    CHECK(bp_siluf(3.0f) == 3.0f * bp_sigmoidf(3.0f), "silu");
    CHECK(bp_sqrtf(2.0f) == sqrtf(2.0f) && bp_sqrtf(0.0f) == 0.0f, "sqrt");
}

static double relative(double y, double exact) { return fabs(y - exact) / fabs(exact); }

static void check_double(void) {
    case_rng rng = {7};
    double worst_exp = 0, worst_log = 0, worst_sin = 0, worst_cos = 0;
    for (int i = 0; i < 1000000; i++) {
        const double u = (double)(case_next(&rng) >> 11) * 0x1p-53; /* [0, 1) */
        const double x = (2.0 * u - 1.0) * (i % 3 == 0 ? 1.0 : i % 3 == 1 ? 700.0 : 40.0);
        worst_exp = fmax(worst_exp, relative(bp_exp(x), exp(x)));
        const double y = i & 1 ? exp(x) : 1.0 + 1e-3 * x;
        if (y > 0 && y != 1.0 && isnormal(y)) worst_log = fmax(worst_log, relative(bp_log(y), log(y)));
        const double a = (2.0 * u - 1.0) * (i & 1 ? 1e6 : 10.0);
        double s, c;
        bp_sincos(a, &s, &c);
        if (a != 0) worst_sin = fmax(worst_sin, relative(s, sin(a)));
        worst_cos = fmax(worst_cos, relative(c, cos(a)));
    }
    for (int k = 1; k < 600000; k += 7) { /* the doubles nearest to the zeros */
        double s, c;
        const double a = k * 1.5707963267948966;
        bp_sincos(a, &s, &c);
        worst_sin = fmax(worst_sin, relative(s, sin(a)));
        worst_cos = fmax(worst_cos, relative(c, cos(a)));
    }
    printf("relative error: exp %.2g log %.2g sin %.2g cos %.2g\n", worst_exp, worst_log, worst_sin, worst_cos);
    CHECK(worst_exp < 1e-13, "exp %g", worst_exp);
    CHECK(worst_log < 1e-13, "log %g", worst_log);
    CHECK(worst_sin < 1e-13, "sin %g", worst_sin);
    CHECK(worst_cos < 1e-13, "cos %g", worst_cos);
}

static void check_double_limits(void) {
    double s, c;
    CHECK(bp_exp(0.0) == 1.0 && bp_exp(-800.0) == 0.0 && bp_exp(800.0) == INFINITY && isnan(bp_exp(NAN)), "exp");
    CHECK(bp_exp(INFINITY) == INFINITY && bp_exp(-INFINITY) == 0.0, "exp of infinity");
    CHECK(bp_exp(-740.0) > 0.0 && relative(bp_exp(-740.0), exp(-740.0)) < 0.2, "exp of subnormal result");
    CHECK(bp_log(1.0) == 0.0 && bp_log(0.0) == -INFINITY && isnan(bp_log(-1.0)) && isnan(bp_log(NAN)), "log");
    CHECK(bp_log(INFINITY) == INFINITY && relative(bp_log(1e-310), log(1e-310)) < 1e-13, "log at the ends");
    bp_sincos(0.0, &s, &c);
    CHECK(bits_of(s) == 0 && c == 1.0, "sin 0, cos 0");
    bp_sincos(INFINITY, &s, &c);
    CHECK(isnan(s) && isnan(c), "no sine of infinity");
    bp_sincos(1.0, &s, &c);
    CHECK(fabs(s * s + c * c - 1.0) < 1e-15, "sin^2 + cos^2");
}

/* The exact value of a half that is a number */
static double half_value(uint32_t h) {
    const int e = h >> 10 & 31, m = h & 1023;
    return (h & 0x8000 ? -1 : 1) * (e ? ldexp(1024 + m, e - 25) : ldexp(m, -24));
}

static void check_half(void) {
    for (uint32_t h = 0; h < 65536; h++) {
        const float x = bp_half_to_float((uint16_t)h);
        if ((h & 0x7c00) == 0x7c00) {
            const bool nan = h & 0x3ff;
            CHECK(nan ? isnan(x) : isinf(x) && !signbit(x) == !(h & 0x8000), "half %04x", h);
            CHECK(bp_half_from_float(x) == (nan ? 0 : (h & 0x8000) | 0x7bff), "half %04x is clamped", h);
            continue;
        }
        CHECK((double)x == half_value(h) && !signbit(x) == !(h & 0x8000), "half %04x is %g", h, (double)x);
        CHECK(bp_half_from_float(x) == h, "half %04x does not come back", h);
        if ((h & 0x7fff) == 0x7bff) continue;
        /* half way to the next one goes to the even one; a little off goes to the nearer */
        const float next = bp_half_to_float((uint16_t)(h + 1)), tie = 0.5f * x + 0.5f * next;
        CHECK(bp_half_from_float(tie) == h + (h & 1), "tie after %04x", h);
        CHECK(bp_half_from_float(nextafterf(tie, x)) == h, "below the tie after %04x", h);
        CHECK(bp_half_from_float(nextafterf(tie, next)) == h + 1, "above the tie after %04x", h);
    }
    CHECK(bp_half_from_float(1e30f) == 0x7bff && bp_half_from_float(-65520.0f) == 0xfbff, "clamped to 65504");
    CHECK(bp_half_from_float(1e-30f) == 0 && bp_half_from_float(-1e-30f) == 0x8000, "underflow keeps the sign");
    CHECK(bp_bf16_to_float(0x3f80) == 1.0f && bp_bf16_to_float(0xc040) == -3.0f, "bfloat16");
}

int main(void) {
    check_exp_float();
    check_double();
    check_double_limits();
    check_half();
    CHECK(golden_mathf() == GOLDEN_MATHF, "golden hash is 0x%016llx", (unsigned long long)golden_mathf());
    return check_end();
}
