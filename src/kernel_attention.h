/* kernel_attention.h - attention over cached keys and values, written once for every ISA over kernel_vec.h. An ISA file
 * defines, before it includes this file:
 *
 *     vs                                             vector of 2 * KERNEL_VEC_LANES int16
 *     static inline vs vs_widen(const int8_t *x)     so many int8
 *     static inline vi vs_dot_add(vi sum, vs x, vs y)    lanes that add up to those of sum and all x[i] y[i]
 *     static inline void vs_pairs(vs *pairs, const int8_t *x, const int8_t *y)
 *                                                    2 * KERNEL_VEC_LANES values of each, as vs_pairs_add wants them
 *     static inline void vs_pairs_add(vi *sums, const vs *pairs, const int16_t *w)
 *                                                    sums [2] += w[0] x[i] + w[1] y[i], lane by lane
 *     static inline vi vf_round(vf x)                cache8_round(x) where |x| <= 32767.5 or so, lane by lane
 *     static inline void vi_store16(int16_t *y, vi x)    lanes that fit 16 bits
 *     static inline void vi_store8(int8_t *y, vi x, vi x2)   2 * KERNEL_VEC_LANES values that fit 8 bits
 *     static inline void vec_prefetch(const void *x, size_t bytes)   asks memory for them, or does nothing
 *     static inline void vec_hint(const void *x, size_t bytes)       the same, but nothing where asking is loading
 *
 * Queries go in threes: a row of keys or values is converted once for all of them. */
#ifndef BP_KERNEL_ATTENTION_H
#define BP_KERNEL_ATTENTION_H

#include "kernel_attention_impl.h"
#include "kernel_vec.h"

enum { ATTEND_QUERIES = 3, ATTEND_ROWS = 4 };

#define ATTEND_INLINE static inline __attribute__((always_inline))

/* Scores or weights of up to ATTEND_QUERIES queries over a span */
typedef float attend_scores[ATTEND_QUERIES][KERNEL_SPAN];

/* While values are summed up from d on, 2 * KERNEL_VEC_LANES of them, the same share of the next span's keys comes nearer */
ATTEND_INLINE void attend_hint(const void *next, size_t d, size_t value_bytes) {
    const size_t share = KERNEL_SPAN * value_bytes;
    if (next) vec_hint((const uint8_t *)next + d * share, 2 * KERNEL_VEC_LANES * share);
}

/* ---- softmax of a span ---- */

/* scores [n_pos], up to the next multiple of 16, <- e^(s_p - max s) times factors [n_pos] (or 1 if NULL), 0 past n_pos;
 * part <- maximum and sum of the powers. Returns the largest product (NaN passed over). */
ATTEND_INLINE float attend_weigh(float *part, float *scores, const float *factors, size_t n_pos, size_t dim) {
    const size_t end = bp_round_up(n_pos, 16);
    float largest = -__builtin_inff(), most = 0.0f;
    vf top = vf_set(largest), products = vf_set(most);
    vec_sum total = vec_sum_zero();
    for (size_t p = n_pos; p < end; p++) scores[p] = largest;
    for (size_t p = 0; p < end; p += KERNEL_VEC_LANES) top = vf_max(top, vf_load(scores + p));
    for (int i = 0; i < KERNEL_VEC_LANES; i++) largest = top[i] > largest ? top[i] : largest;
    for (size_t p = 0; p < end; p += 16)
        for (int i = 0; i < VEC_PARTS; i++) {
            const size_t at = p + (size_t)i * KERNEL_VEC_LANES;
            const vf weight = vf_exp_down(vf_load(scores + at) - vf_set(largest));
            vf product = weight;
            if (factors) {
                product *= vf_load(factors + at);
                products = vf_max(products, product);
            }
            vf_store(scores + at, product);
            total.part[i] += weight;
        }
    for (int i = 0; i < KERNEL_VEC_LANES; i++) most = products[i] > most ? products[i] : most;
    part[dim + KERNEL_PART_MAX] = largest + 0.0f;
    part[dim + KERNEL_PART_SUM] = vec_sum_tree(total);
    return most;
}

static KERNEL_NOINLINE void attend16_weigh(float *part, float *scores, size_t n_pos, size_t dim) {
    attend_weigh(part, scores, NULL, n_pos, dim);
}

static KERNEL_NOINLINE float attend8_weigh(float *part, float *scores, const float *factors, size_t n_pos, size_t dim) {
    return attend_weigh(part, scores, factors, n_pos, dim);
}

static void merge_vec(float *into, const float *part, size_t dim) {
    const float gap = part[dim + KERNEL_PART_MAX] - into[dim + KERNEL_PART_MAX], c = bp_expf(gap > 0.0f ? -gap : gap);
    const float old = gap > 0.0f ? c : 1.0f, new = gap > 0.0f ? 1.0f : c;
    for (size_t d = 0; d < dim; d += KERNEL_VEC_LANES)
        vf_store(into + d, vf_load(into + d) * vf_set(old) + vf_load(part + d) * vf_set(new));
    into[dim + KERNEL_PART_SUM] = into[dim + KERNEL_PART_SUM] * old + part[dim + KERNEL_PART_SUM] * new;
    if (gap > 0.0f) into[dim + KERNEL_PART_MAX] = part[dim + KERNEL_PART_MAX];
}

/* ---- half precision ---- */

enum { SUM8_PARTS = 8 / KERNEL_VEC_LANES, ROWS16 = KERNEL_VEC_LANES / 2 };

/* The 8 partial sums of each of four rows -> their sums */
ATTEND_INLINE v4f attend_tree8(const vf (*s)[SUM8_PARTS]) {
    v4f four[4];
    for (int i = 0; i < 4; i++) {
#if KERNEL_VEC_LANES == 8
        four[i] = __builtin_shufflevector(s[i][0], s[i][0], 0, 1, 2, 3) +
                  __builtin_shufflevector(s[i][0], s[i][0], 4, 5, 6, 7);
#else
        four[i] = s[i][0] + s[i][1];
#endif
    }
    return vec_tree4(four);
}

/* scores of `count` queries on four rows; ROWS16 rows at a time, so that the sums stay in registers */
ATTEND_INLINE void attend16_rows(attend_scores scores, const float *const *q, const uint16_t *k, size_t p, size_t dim,
                                 int count) {
    vf sums[ATTEND_QUERIES][ATTEND_ROWS][SUM8_PARTS];
    for (int row = 0; row < ATTEND_ROWS; row += ROWS16) {
        for (int i = 0; i < count; i++)
            for (int r = 0; r < ROWS16; r++)
                for (int j = 0; j < SUM8_PARTS; j++) sums[i][row + r][j] = vf_set(0.0f);
        for (size_t d = 0; d < dim; d += 8)
            for (int r = 0; r < ROWS16; r++)
                for (int j = 0; j < SUM8_PARTS; j++) {
                    const size_t at = d + (size_t)j * KERNEL_VEC_LANES;
                    const vf key = vf_halves(k + (p + (size_t)(row + r)) * dim + at);
                    for (int i = 0; i < count; i++) sums[i][row + r][j] += vf_load(q[i] + at) * key;
                }
    }
    for (int i = 0; i < count; i++) {
        const float scale = *query_scale((const uint8_t *)q[i] - 64);
        const v4f four = (v4f){scale, scale, scale, scale} * attend_tree8(sums[i]);
        memcpy(scores[i] + p, &four, sizeof four);
    }
}

/* values of `count` queries, KERNEL_VEC_LANES * 2 of them from d on */
ATTEND_INLINE void attend16_values(float *parts, attend_scores weights, const uint16_t *v, size_t n_pos, size_t dim,
                                   size_t d, int count) {
    vf sums[ATTEND_QUERIES][2];
    for (int i = 0; i < count; i++) sums[i][0] = sums[i][1] = vf_set(0.0f);
    for (size_t p = 0; p < n_pos; p++) {
        const vf low = vf_halves(v + p * dim + d), high = vf_halves(v + p * dim + d + KERNEL_VEC_LANES);
        for (int i = 0; i < count; i++) {
            const vf weight = vf_set(weights[i][p]);
            sums[i][0] += weight * low;
            sums[i][1] += weight * high;
        }
    }
    for (int i = 0; i < count; i++) {
        float *to = parts + (size_t)i * kernel_part_floats(dim) + d;
        vf_store(to, sums[i][0]);
        vf_store(to + KERNEL_VEC_LANES, sums[i][1]);
    }
}

ATTEND_INLINE void attend16_some(float *parts, const void *queries, const kernel_span *span, size_t n_pos, size_t dim,
                                 int count) {
    attend_scores scores;
    const float *q[ATTEND_QUERIES];
    for (int i = 0; i < count; i++) q[i] = query_values((const uint8_t *)queries + (size_t)i * kernel_query_bytes(dim));
    for (size_t p = 0; p < n_pos; p += ATTEND_ROWS) {
        vec_prefetch((const uint16_t *)span->v + p * dim, ATTEND_ROWS * dim * sizeof(uint16_t));
        attend16_rows(scores, q, span->k, p, dim, count);
    }
    for (int i = 0; i < count; i++) attend16_weigh(parts + (size_t)i * kernel_part_floats(dim), scores[i], n_pos, dim);
    for (size_t d = 0; d < dim; d += 2 * KERNEL_VEC_LANES) {
        attend_hint(span->next, d, sizeof(uint16_t));
        attend16_values(parts, scores, span->v, n_pos, dim, d, count);
    }
}

/* ---- 8 bits ---- */

static inline float attend_largest(const float *x, size_t n) {
    const vf zero = vf_set(0.0f);
    vf s = zero;
    float largest = 0.0f;
    for (size_t i = 0; i < n; i += KERNEL_VEC_LANES) {
        const vf v = vf_load(x + i);
        s = vf_max(s, vf_max(v, -v));
    }
    for (int i = 0; i < KERNEL_VEC_LANES; i++) largest = s[i] > largest ? s[i] : largest;
    return largest;
}

/* x * inverse, clamped so that NaN gives `limit` */
static inline vf attend_clamp(vf x, float inverse, float limit) {
    const vf t = x * vf_set(inverse), low = vf_set(-limit);
    const vf below = vf_min(vf_set(limit), t);
    return vf_max(low, below);
}

static void store8_vec(void *row, float *scale, const float *x, size_t dim) {
    const float s = cache8_largest(attend_largest(x, dim)), inverse = kernel_inverse(s);
    int8_t *y = row;
    for (size_t d = 0; d < dim; d += 2 * KERNEL_VEC_LANES)
        vi_store8(y + d, vf_round(attend_clamp(vf_load(x + d), inverse, 127.0f)),
                  vf_round(attend_clamp(vf_load(x + d + KERNEL_VEC_LANES), inverse, 127.0f)));
    *scale = kernel_scale(s);
}

static void prepare8_vec(void *query, const float *q, size_t dim, float factor) {
    const float s = cache8_largest(attend_largest(q, dim)), inverse = cache8_inverse(s);
    int16_t *y = query_values(query);
    for (size_t d = 0; d < dim; d += KERNEL_VEC_LANES)
        vi_store16(y + d, vf_round(attend_clamp(vf_load(q + d), inverse, 32767.0f)));
    *query_scale(query) = cache8_scale(s) * factor;
}

ATTEND_INLINE void attend8_rows(attend_scores scores, const int16_t *const *q, const float *scales,
                                const kernel_span *span, size_t p, size_t dim, int count) {
    const int8_t *k = (const int8_t *)span->k + p * dim;
    vec_prefetch((const int8_t *)span->v + p * dim, ATTEND_ROWS * dim);
    vi sums[ATTEND_QUERIES][ATTEND_ROWS];
    for (int i = 0; i < count; i++)
        for (int r = 0; r < ATTEND_ROWS; r++) sums[i][r] = (vi){0};
    for (size_t d = 0; d < dim; d += 2 * KERNEL_VEC_LANES)
        for (int r = 0; r < ATTEND_ROWS; r++) {
            const vs key = vs_widen(k + (size_t)r * dim + d);
            for (int i = 0; i < count; i++) {
                vs query;
                memcpy(&query, q[i] + d, sizeof query);
                sums[i][r] = vs_dot_add(sums[i][r], key, query);
            }
        }
    v4f key_scales;
    memcpy(&key_scales, span->k_scales + p, sizeof key_scales);
    for (int i = 0; i < count; i++) {
        const v4f scale = key_scales * (v4f){scales[i], scales[i], scales[i], scales[i]};
        const v4f four = __builtin_convertvector(vi_sum4(sums[i]), v4f) * scale;
        memcpy(scores[i] + p, &four, sizeof four);
    }
}

/* weights [n_pos], up to the next multiple of 16, <- int16 of the products, of which none is larger than `most`; returns
 * what one unit is worth */
static KERNEL_NOINLINE float attend8_round(int16_t *weights, const float *products, float most, size_t n_pos) {
    const float s = cache8_largest(most);
    const vf inverse = vf_set(cache8_inverse(s));
    for (size_t p = 0; p < bp_round_up(n_pos, 16); p += KERNEL_VEC_LANES)
        vi_store16(weights + p, vf_round(vf_load(products + p) * inverse));
    return cache8_scale(s);
}

/* 2 * KERNEL_VEC_LANES values of `count` queries from d on. Two positions at a time: past the last there is a weight 0.
 */
ATTEND_INLINE void attend8_values(float *parts, int16_t (*weights)[KERNEL_SPAN], const float *units, const int8_t *v,
                                  size_t n_pos, size_t dim, size_t d, int count) {
    vi sums[ATTEND_QUERIES][2];
    for (int i = 0; i < count; i++) sums[i][0] = sums[i][1] = (vi){0};
    for (size_t p = 0; p < n_pos; p += 2) {
        vs pairs[2];
        vs_pairs(pairs, v + p * dim + d, v + (p + 1) * dim + d);
        for (int i = 0; i < count; i++) vs_pairs_add(sums[i], pairs, weights[i] + p);
    }
    for (int i = 0; i < count; i++)
        for (int j = 0; j < 2; j++)
            vf_store(parts + (size_t)i * kernel_part_floats(dim) + d + (size_t)j * KERNEL_VEC_LANES,
                     (vf) __builtin_convertvector(sums[i][j], vf) * vf_set(units[i]));
}

ATTEND_INLINE void attend8_some(float *parts, const void *queries, const kernel_span *span, size_t n_pos, size_t dim,
                                int count) {
    attend_scores scores;
    int16_t weights[ATTEND_QUERIES][KERNEL_SPAN];
    const int16_t *q[ATTEND_QUERIES];
    float scales[ATTEND_QUERIES], units[ATTEND_QUERIES];
    for (int i = 0; i < count; i++) {
        const void *query = (const uint8_t *)queries + (size_t)i * kernel_query_bytes(dim);
        q[i] = query_values(query);
        scales[i] = *query_scale(query);
    }
    for (size_t p = 0; p < n_pos; p += ATTEND_ROWS) attend8_rows(scores, q, scales, span, p, dim, count);
    for (int i = 0; i < count; i++) {
        float *part = parts + (size_t)i * kernel_part_floats(dim);
        const float most = attend8_weigh(part, scores[i], span->v_scales, n_pos, dim);
        units[i] = attend8_round(weights[i], scores[i], most, n_pos);
    }
    for (size_t d = 0; d < dim; d += 2 * KERNEL_VEC_LANES) {
        attend_hint(span->next, d, sizeof(int8_t));
        attend8_values(parts, weights, units, span->v, n_pos, dim, d, count);
    }
}

/* ---- one function per number of queries ---- */

#define ATTEND_COUNT(name, count)                                                                                      \
    static KERNEL_NOINLINE void name##_##count(float *parts, const void *queries, const kernel_span *span,             \
                                               size_t n_pos, size_t dim) {                                             \
        name##_some(parts, queries, span, n_pos, dim, count);                                                          \
    }

#define ATTEND_ALL(name)                                                                                               \
    ATTEND_COUNT(name, 1)                                                                                              \
    ATTEND_COUNT(name, 2)                                                                                              \
    ATTEND_COUNT(name, 3)                                                                                              \
    static void name##_vec(float *parts, const void *queries, size_t n, const kernel_span *span, size_t n_pos,         \
                           size_t dim) {                                                                               \
        for (size_t i = 0; i < n; i += ATTEND_QUERIES) {                                                               \
            float *to = parts + i * kernel_part_floats(dim);                                                           \
            const void *from = (const uint8_t *)queries + i * kernel_query_bytes(dim);                                 \
            if (n - i == 1)                                                                                            \
                name##_1(to, from, span, n_pos, dim);                                                                  \
            else if (n - i == 2)                                                                                       \
                name##_2(to, from, span, n_pos, dim);                                                                  \
            else                                                                                                       \
                name##_3(to, from, span, n_pos, dim);                                                                  \
        }                                                                                                              \
    }

ATTEND_ALL(attend16)
ATTEND_ALL(attend8)

/* All of attention but cache16.store, which is the ISA's own */
static void fill_attention_vec(kernel_table *table) {
    table->cache16.attend = attend16_vec;
    table->cache8.store = store8_vec;
    table->cache8.prepare = prepare8_vec;
    table->cache8.attend = attend8_vec;
    table->merge = merge_vec;
}

#endif
