/* kernel_rows.h - kernels over rows of floats, written once for every ISA: see kernel_vec.h. */
#ifndef BP_KERNEL_ROWS_H
#define BP_KERNEL_ROWS_H

#include "kernel_vec.h"

static inline void vec_sum_add(vec_sum *s, const float *w, const float *x) {
    for (int i = 0; i < VEC_PARTS; i++)
        s->part[i] += vf_load(w + i * KERNEL_VEC_LANES) * vf_load(x + i * KERNEL_VEC_LANES);
}

/* s[r] = partial sums of w[r] . x for VEC_ROWS rows */
static inline void dots_rows(vec_sum *s, const float *x, const float *const *w, size_t n) {
    for (int r = 0; r < VEC_ROWS; r++) s[r] = vec_sum_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int part = 0; part < VEC_PARTS; part++) {
            const size_t at = i + (size_t)part * KERNEL_VEC_LANES;
            const vf value = vf_load(x + at);
            for (int r = 0; r < VEC_ROWS; r++) s[r].part[part] += value * vf_load(w[r] + at);
        }
    if (i < n) {
        float weights[16], values[16];
        vec_pad16(values, x + i, n - i);
        for (int r = 0; r < VEC_ROWS; r++) {
            vec_pad16(weights, w[r] + i, n - i);
            vec_sum_add(&s[r], weights, values);
        }
    }
}

static void dots_vec(float *y, const float *x, const float *w, size_t w_stride, size_t n, size_t n_rows) {
    for (size_t r = 0; r < n_rows; r += 4) {
        const size_t count = bp_min(4, n_rows - r);
        const float *rows[4];
        for (size_t i = 0; i < 4; i++) rows[i] = w + (r + bp_min(i, count - 1)) * w_stride;
        vec_sum s[4];
        for (int i = 0; i < 4; i += VEC_ROWS) dots_rows(s + i, x, rows + i, n);
        v4f four[4];
        for (int i = 0; i < 4; i++) four[i] = vec_sum_four(s[i]);
        const v4f sums = vec_tree4(four);
        memcpy(y + r, &sums, count * sizeof *y);
    }
}

static void rmsnorm_vec(float *y, const float *x, const float *w, size_t n, float eps) {
    vec_sum s = vec_sum_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16) vec_sum_add(&s, x + i, x + i);
    if (i < n) {
        float values[16];
        vec_pad16(values, x + i, n - i);
        vec_sum_add(&s, values, values);
    }
    const float factor = 1.0f / bp_sqrtf(vec_sum_tree(s) / (float)n + eps);
    for (i = 0; i + KERNEL_VEC_LANES <= n; i += KERNEL_VEC_LANES)
        vf_store(y + i, vf_load(x + i) * vf_set(factor) * vf_load(w + i));
    for (; i < n; i++) y[i] = x[i] * factor * w[i];
}

static void swiglu_vec(float *y, const float *gate, const float *up, size_t n) {
    const vf one = vf_set(1.0f);
    size_t i = 0;
    for (; i + KERNEL_VEC_LANES <= n; i += KERNEL_VEC_LANES) {
        const vf g = vf_load(gate + i);
        vf_store(y + i, g * (one / (one + vf_exp(-g))) * vf_load(up + i));
    }
    for (; i < n; i++) y[i] = bp_siluf(gate[i]) * up[i];
}

#endif
