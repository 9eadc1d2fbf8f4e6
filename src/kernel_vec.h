/* kernel_vec.h - arithmetic over vectors of KERNEL_VEC_LANES floats, of which kernel_rows.h and kernel_attention.h are
 * written once for every ISA. kernel_vec_<isa>.h includes it and defines before:
 *
 *     KERNEL_VEC_LANES                        4 or 8
 *     vf                                      vector type of that many floats
 *     static inline vf vf_set(float x)        x in all lanes
 *     static inline vf vf_max(vf x, vf y)     x < y ? y : x
 *     static inline vf vf_min(vf x, vf y)     x > y ? y : x
 *     static inline vf vf_halves(const uint16_t *h)   KERNEL_VEC_LANES finite halves, exact
 *
 * Lane operations are those of the scalar reference in the same order. Where a vector is padded, the padding products
 * are +0, and adding +0 to a partial sum changes no bit: a sum that started at +0 is never -0. */
#ifndef BP_KERNEL_VEC_H
#define BP_KERNEL_VEC_H

#include "kernel_impl.h"
#include "mathf.h"

enum {
    VEC_PARTS = 16 / KERNEL_VEC_LANES, /* vectors of the 16 partial sums */
    VEC_ROWS = KERNEL_VEC_LANES / 2    /* rows at a time: 8 vectors of partial sums stay in registers */
};

typedef float v4f __attribute__((vector_size(16)));
typedef int32_t v4i __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(4 * KERNEL_VEC_LANES)));
typedef uint32_t vu __attribute__((vector_size(4 * KERNEL_VEC_LANES)));

typedef struct {
    vf part[VEC_PARTS];
} vec_sum;

static inline vf vf_load(const float *p) {
    vf v;
    memcpy(&v, p, sizeof v);
    return v;
}

static inline void vf_store(float *p, vf v) { memcpy(p, &v, sizeof v); }

static inline vf vf_select(vi mask, vf yes, vf no) { return (vf)((mask & (vi)yes) | (~mask & (vi)no)); }

/* bp_expf of -87.3 <= c <= 88.7 or NaN, which gives anything */
static inline vf vf_exp_within(vf c) {
    const vf magic = vf_set(12582912.0f);
    const vf k = c * vf_set(1.44269504f) + magic;
    const vf n = k - magic;
    const vf r = (c - n * vf_set(0.693359375f)) - n * vf_set(-2.12194440e-4f);
    vf p = vf_set(1.9875691500e-4f);
    p = p * r + vf_set(1.3981999507e-3f);
    p = p * r + vf_set(8.3334519073e-3f);
    p = p * r + vf_set(4.1665795894e-2f);
    p = p * r + vf_set(1.6666665459e-1f);
    p = p * r + vf_set(5.0000001201e-1f);
    p = (p * (r * r) + r) + vf_set(1.0f);
    return (vf)((vu)p + ((vu)k << 23));
}

/* bp_expf, lane by lane */
static inline vf vf_exp(vf x) {
    const vf low = vf_set(-87.3f), high = vf_set(88.7f);
    vf y = vf_exp_within(vf_min(vf_max(x, low), high));
    y = vf_select((vi)(x < low), vf_set(0.0f), y);
    y = vf_select((vi)(x > high), vf_set(__builtin_inff()), y);
    return vf_select((vi)(x != x), x, y);
}

/* bp_expf of x <= 0 or NaN: of both masks at most one is set */
static inline vf vf_exp_down(vf x) {
    const vf low = vf_set(-87.3f), y = vf_exp_within(vf_max(x, low));
    return (vf)(((vi)(x >= low) & (vi)y) | ((vi)(x != x) & (vi)x));
}

static inline vec_sum vec_sum_zero(void) {
    vec_sum s;
    for (int i = 0; i < VEC_PARTS; i++) s.part[i] = vf_set(0.0f);
    return s;
}

/* The first two or three levels of the summation tree: 16 partial sums to 4 */
static inline v4f vec_sum_four(vec_sum s) {
#if KERNEL_VEC_LANES == 8
    const vf v = s.part[0] + s.part[1];
    return __builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7);
#else
    return (s.part[0] + s.part[2]) + (s.part[1] + s.part[3]);
#endif
}

/* The last two levels for four sums at once: lane i is the sum of s[i] */
static inline v4f vec_tree4(const v4f *s) {
    const v4f ab01 = __builtin_shufflevector(s[0], s[1], 0, 4, 1, 5),
              ab23 = __builtin_shufflevector(s[0], s[1], 2, 6, 3, 7);
    const v4f cd01 = __builtin_shufflevector(s[2], s[3], 0, 4, 1, 5),
              cd23 = __builtin_shufflevector(s[2], s[3], 2, 6, 3, 7);
    const v4f ab = ab01 + ab23, cd = cd01 + cd23; /* lanes: a0+a2, b0+b2, a1+a3, b1+b3 */
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

/* Lane i is the sum of all lanes of s[i] */
static inline v4i vi_sum4(const vi *s) {
    v4i four[4];
    for (int i = 0; i < 4; i++) {
#if KERNEL_VEC_LANES == 8
        four[i] = __builtin_shufflevector(s[i], s[i], 0, 1, 2, 3) + __builtin_shufflevector(s[i], s[i], 4, 5, 6, 7);
#else
        four[i] = s[i];
#endif
    }
    const v4i ab =
        __builtin_shufflevector(four[0], four[1], 0, 4, 1, 5) + __builtin_shufflevector(four[0], four[1], 2, 6, 3, 7);
    const v4i cd =
        __builtin_shufflevector(four[2], four[3], 0, 4, 1, 5) + __builtin_shufflevector(four[2], four[3], 2, 6, 3, 7);
    return __builtin_shufflevector(ab, cd, 0, 1, 4, 5) + __builtin_shufflevector(ab, cd, 2, 3, 6, 7);
}

static inline float vec_sum_tree(vec_sum s) {
    const v4f a = vec_sum_four(s);
    const float even = a[0] + a[2], odd = a[1] + a[3];
    return even + odd;
}

/* n <= 16 floats followed by zeros */
static inline void vec_pad16(float *to, const float *from, size_t n) {
    memset(to, 0, 16 * sizeof *to);
    memcpy(to, from, n * sizeof *to);
}

#endif
