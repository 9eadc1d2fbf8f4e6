/* mathf.h - the elementary functions of the engine. They use only +, -, *, / and bit operations in a fixed order, so
 * gcc, clang, native and WASM return the same bits (with -ffp-contract=off); libm would not. */
#ifndef BP_MATHF_H
#define BP_MATHF_H

#include "base.h"

/* e^x, float32; relative error < 2 ulp; 0 below -87.3, +inf above 88.7; NaN stays NaN. */
float bp_expf(float x);

/* x[i] <- bp_expf(x[i]), the same bits, several at a time where the machine can. */
void bp_expf_each(float *x, size_t n);

/* 1 / (1 + e^-x), and x times that (SiLU). */
float bp_sigmoidf(float x);
float bp_siluf(float x);

/* sqrt, correctly rounded (one instruction on every target). */
float bp_sqrtf(float x);

/* e^x, ln x (x > 0), sin x and cos x in double, relative error < 1e-13 for |x| < 1e6: for tables and probabilities. */
double bp_exp(double x);
double bp_log(double x);
void bp_sincos(double x, double *sin_x, double *cos_x);

/* IEEE half precision. To half: round to nearest even, values past the largest finite half are clamped to it, NaN
 * becomes 0 (a cache or a file never holds one of ours). From half: exact for all 65536 patterns. */
uint16_t bp_half_from_float(float x);

/* By a multiplication with 2^112, which subnormal ones survive; NaN is made quiet, as the F16C instruction does. Without
 * a branch, so that loops over it are vectorized. */
static inline float bp_half_to_float(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)(h & 0x7fffu) << 13};
    const uint32_t special = v.u >= 0x0f800000u ? 0x7f800000u : 0, quiet = v.u > 0x0f800000u ? 0x00400000u : 0;
    v.f *= 5.192296858534828e33f;
    v.u |= (uint32_t)(h & 0x8000u) << 16 | special | quiet;
    return v.f;
}

/* bfloat16 -> float32, exact. */
static inline float bp_bf16_to_float(uint16_t h) {
    union {
        uint32_t u;
        float f;
    } v = {(uint32_t)h << 16};
    return v.f;
}

#endif
