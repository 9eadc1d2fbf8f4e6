/* kernel_vec.h - the float kernels, written once over vectors of KERNEL_VEC_LANES floats. An ISA file defines, before
 * it includes this file:
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
    VEC_ROWS = KERNEL_VEC_LANES / 2,   /* rows at a time: 8 vectors of partial sums stay in registers */
    VEC_DIMS = 8 * KERNEL_VEC_LANES,   /* dimensions of attention's output held in registers */
    VEC_HEAD_MAX = 256
};

typedef float v4f __attribute__((vector_size(16)));
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

/* bp_expf, lane by lane */
static inline vf vf_exp(vf x) {
    const vf low = vf_set(-87.3f), high = vf_set(88.7f), magic = vf_set(12582912.0f);
    const vf c = vf_min(vf_max(x, low), high);
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
    vf y = (vf)((vu)p + ((vu)k << 23));
    y = vf_select((vi)(x < low), vf_set(0.0f), y);
    y = vf_select((vi)(x > high), vf_set(__builtin_inff()), y);
    return vf_select((vi)(x != x), x, y);
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
static inline v4f vec_sum_tree4(const vec_sum *s) {
    const v4f a = vec_sum_four(s[0]), b = vec_sum_four(s[1]), c = vec_sum_four(s[2]), d = vec_sum_four(s[3]);
    const v4f ab01 = __builtin_shufflevector(a, b, 0, 4, 1, 5), ab23 = __builtin_shufflevector(a, b, 2, 6, 3, 7);
    const v4f cd01 = __builtin_shufflevector(c, d, 0, 4, 1, 5), cd23 = __builtin_shufflevector(c, d, 2, 6, 3, 7);
    const v4f ab = ab01 + ab23, cd = cd01 + cd23; /* lanes: a0+a2, b0+b2, a1+a3, b1+b3 */
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

static inline void vec_sum_add(vec_sum *s, const float *w, const float *x) {
    for (int i = 0; i < VEC_PARTS; i++)
        s->part[i] += vf_load(w + i * KERNEL_VEC_LANES) * vf_load(x + i * KERNEL_VEC_LANES);
}

/* s[t] = partial sums of w . x[t] for VEC_ROWS rows */
static inline void dots_rows(vec_sum *s, const float *w, const float *const *x, size_t n) {
    for (int t = 0; t < VEC_ROWS; t++) s[t] = vec_sum_zero();
    size_t i = 0;
    for (; i + 16 <= n; i += 16)
        for (int part = 0; part < VEC_PARTS; part++) {
            const size_t at = i + (size_t)part * KERNEL_VEC_LANES;
            const vf weight = vf_load(w + at);
            for (int t = 0; t < VEC_ROWS; t++) s[t].part[part] += weight * vf_load(x[t] + at);
        }
    if (i < n) {
        float weights[16], values[16];
        vec_pad16(weights, w + i, n - i);
        for (int t = 0; t < VEC_ROWS; t++) {
            vec_pad16(values, x[t] + i, n - i);
            vec_sum_add(&s[t], weights, values);
        }
    }
}

static void dots_vec(float *y, const float *w, const float *x, size_t x_stride, size_t n, size_t n_tokens) {
    for (size_t t = 0; t < n_tokens; t += 4) {
        const size_t count = bp_min(4, n_tokens - t);
        const float *rows[4];
        for (size_t i = 0; i < 4; i++) rows[i] = x + (t + bp_min(i, count - 1)) * x_stride;
        vec_sum s[4];
        for (int i = 0; i < 4; i += VEC_ROWS) dots_rows(s + i, w, rows + i, n);
        const v4f sums = vec_sum_tree4(s);
        memcpy(y + t, &sums, count * sizeof *y);
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

/* ---- attention ---- */

/* s[i] = partial sums of q . k[i] for VEC_ROWS positions; q is padded to a multiple of 16 with zeros */
static inline void attention_scores(vec_sum *s, const float *q, const uint16_t *const *k, size_t head_dim) {
    for (int i = 0; i < VEC_ROWS; i++) s[i] = vec_sum_zero();
    size_t d = 0;
    for (; d + 16 <= head_dim; d += 16)
        for (int part = 0; part < VEC_PARTS; part++) {
            const size_t at = d + (size_t)part * KERNEL_VEC_LANES;
            const vf query = vf_load(q + at);
            for (int i = 0; i < VEC_ROWS; i++) s[i].part[part] += query * vf_halves(k[i] + at);
        }
    for (int i = 0; i < VEC_ROWS && d < head_dim; i++) {
        uint16_t halves[16] = {0};
        memcpy(halves, k[i] + d, (head_dim - d) * sizeof *halves);
        for (int part = 0; part < VEC_PARTS; part++)
            s[i].part[part] += vf_load(q + d + part * KERNEL_VEC_LANES) * vf_halves(halves + part * KERNEL_VEC_LANES);
    }
}

/* scores[p] = e^(s_p - max s); returns their sum by 16 partial sums */
static float attention_softmax(float *scores, size_t n_pos) {
    float largest = -__builtin_inff(), partial[16];
    vf top = vf_set(largest);
    size_t p = 0;
    for (; p + KERNEL_VEC_LANES <= n_pos; p += KERNEL_VEC_LANES) {
        top = vf_max(top, vf_load(scores + p));
    }
    for (int i = 0; i < KERNEL_VEC_LANES; i++) largest = top[i] > largest ? top[i] : largest;
    for (; p < n_pos; p++) largest = scores[p] > largest ? scores[p] : largest;

    vec_sum total = vec_sum_zero();
    for (p = 0; p + 16 <= n_pos; p += 16)
        for (int part = 0; part < VEC_PARTS; part++) {
            float *at = scores + p + part * KERNEL_VEC_LANES;
            const vf weight = vf_exp(vf_load(at) - vf_set(largest));
            vf_store(at, weight);
            total.part[part] += weight;
        }
    for (int part = 0; part < VEC_PARTS; part++) vf_store(partial + part * KERNEL_VEC_LANES, total.part[part]);
    for (; p < n_pos; p++) {
        scores[p] = bp_expf(scores[p] - largest);
        partial[p % 16] += scores[p];
    }
    for (int part = 0; part < VEC_PARTS; part++) total.part[part] = vf_load(partial + part * KERNEL_VEC_LANES);
    return vec_sum_tree(total);
}

/* out [vectors * KERNEL_VEC_LANES] = (sum_p weights[p] v_p) / total; vectors <= 8, a constant where it is inlined */
static inline void attention_values(float *out, const float *weights, const uint16_t *v, size_t stride, size_t n_pos,
                                    float total, int vectors) {
    vf sums[8];
    for (int i = 0; i < vectors; i++) sums[i] = vf_set(0.0f);
    for (size_t p = 0; p < n_pos; p++, v += stride) {
        const vf weight = vf_set(weights[p]);
        for (int i = 0; i < vectors; i++) sums[i] += weight * vf_halves(v + i * KERNEL_VEC_LANES);
    }
    for (int i = 0; i < vectors; i++) vf_store(out + i * KERNEL_VEC_LANES, sums[i] / vf_set(total));
}

static void attention_vec(float *out, const float *q, const uint16_t *k, const uint16_t *v, size_t stride, size_t n_pos,
                          size_t head_dim, float scale, float *scores) {
    float query[VEC_HEAD_MAX + 16] = {0};
    memcpy(query, q, head_dim * sizeof *q);
    for (size_t p = 0; p < n_pos; p += 4) {
        const size_t count = bp_min(4, n_pos - p);
        const uint16_t *rows[4];
        for (size_t i = 0; i < 4; i++) rows[i] = k + (p + bp_min(i, count - 1)) * stride;
        vec_sum s[4];
        for (int i = 0; i < 4; i += VEC_ROWS) attention_scores(s + i, query, rows + i, head_dim);
        const v4f scaled = (v4f){scale, scale, scale, scale} * vec_sum_tree4(s);
        memcpy(scores + p, &scaled, count * sizeof *scores);
    }
    const float total = attention_softmax(scores, n_pos);
    size_t d = 0;
    for (; d + VEC_DIMS <= head_dim; d += VEC_DIMS) attention_values(out + d, scores, v + d, stride, n_pos, total, 8);
    for (; d + KERNEL_VEC_LANES <= head_dim; d += KERNEL_VEC_LANES)
        attention_values(out + d, scores, v + d, stride, n_pos, total, 1);
    for (; d < head_dim; d++) {
        float sum = 0.0f;
        for (size_t p = 0; p < n_pos; p++) sum += scores[p] * bp_half_to_float(v[p * stride + d]);
        out[d] = sum / total;
    }
}

#endif
