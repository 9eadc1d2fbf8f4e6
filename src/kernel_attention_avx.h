/* kernel_attention_avx.h - what attention for x86-64 needs besides vs_dot_add, in vectors of 256 bits. */
#ifndef BP_KERNEL_ATTENTION_AVX_H
#define BP_KERNEL_ATTENTION_AVX_H

static inline vs vs_widen(const int8_t *x) { return (vs)_mm256_cvtepi8_epi16(_mm_loadu_si128((const void *)x)); }

static inline void vs_pairs(vs *pairs, const int8_t *x, const int8_t *y) {
    const __m128i a = _mm_loadu_si128((const void *)x), b = _mm_loadu_si128((const void *)y);
    pairs[0] = (vs)_mm256_cvtepi8_epi16(_mm_unpacklo_epi8(a, b));
    pairs[1] = (vs)_mm256_cvtepi8_epi16(_mm_unpackhi_epi8(a, b));
}

static inline void vs_pairs_add(vi *sums, const vs *pairs, const int16_t *w) {
    int32_t both;
    memcpy(&both, w, sizeof both);
    const vs weights = (vs)_mm256_set1_epi32(both);
    for (int i = 0; i < 2; i++) sums[i] = vs_dot_add(sums[i], pairs[i], weights);
}

static inline vi vf_round(vf x) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    return (vi)_mm256_cvttps_epi32(_mm256_add_ps(x, _mm256_or_ps(_mm256_and_ps(x, sign), _mm256_set1_ps(0.5f))));
}

static inline __m128i narrow16(vi x) {
    const __m256i v = (__m256i)x;
    return _mm_packs_epi32(_mm256_castsi256_si128(v), _mm256_extracti128_si256(v, 1));
}

static inline void vi_store16(int16_t *y, vi x) { _mm_storeu_si128((void *)y, narrow16(x)); }

static inline void vi_store8(int8_t *y, vi x, vi x2) {
    _mm_storeu_si128((void *)y, _mm_packs_epi16(narrow16(x), narrow16(x2)));
}

static inline void vec_prefetch(const void *x, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) _mm_prefetch((const void *)((uintptr_t)x + i), _MM_HINT_T0);
}

static inline void vec_hint(const void *x, size_t bytes) { vec_prefetch(x, bytes); }

#include "kernel_attention.h"

/* bp_half_from_float. The order of the operands of min and max makes NaN 65504 first; the mask clears it afterwards. */
static void store16_avx(void *row, float *scale, const float *x, size_t dim) {
    const __m256 largest = _mm256_set1_ps(65504.0f), smallest = _mm256_set1_ps(-65504.0f);
    uint16_t *y = row;
    (void)scale;
    for (size_t d = 0; d < dim; d += 8) {
        const __m256 v = _mm256_loadu_ps(x + d);
        const __m256 clamped = _mm256_max_ps(_mm256_min_ps(v, largest), smallest);
        const __m256 h = _mm256_and_ps(clamped, _mm256_cmp_ps(v, v, _CMP_ORD_Q));
        _mm_storeu_si128((void *)(y + d), _mm256_cvtps_ph(h, _MM_FROUND_TO_NEAREST_INT));
    }
}

static void fill_attention_avx(kernel_table *table) {
    fill_attention_vec(table);
    table->cache16.store = store16_avx;
}

#endif
