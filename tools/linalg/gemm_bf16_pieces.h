/* gemm_bf16_pieces.h - what the two kernels of gemm_bf16 for AVX-512 share: rounding, pairing and transposing factors,
 * writing sums. For files compiled with AVX-512 F, BW, VL and BF16; nothing in others. */
#ifndef BITPAIR_GEMM_BF16_PIECES_H
#define BITPAIR_GEMM_BF16_PIECES_H

#include "avx512.h"

#ifdef __AVX512BF16__

/* ---- packing ---- */

/* [16 bfloat16 of low | 16 of high], nearest even */
INLINE __m512i to_bf16(__m512 high, __m512 low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* The same, or with `rest` what this rounding leaves over, rounded in turn. */
INLINE __m512i to_bf16_part(__m512 high, __m512 low, bool rest) {
    const __m512i rounded = to_bf16(high, low);
    if (!rest) return rounded;
    const __m512i low_bits = _mm512_cvtepu16_epi32(_mm512_castsi512_si256(rounded)),
                  high_bits = _mm512_cvtepu16_epi32(_mm512_extracti64x4_epi64(rounded, 1));
    return to_bf16(_mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_slli_epi32(high_bits, 16))),
                   _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_slli_epi32(low_bits, 16))));
}

/* Up to 16 vectors along k (rows of `stride`), at most 32 elements of each: a row is 16 pairs once it is rounded, so
 * that transposing words makes the panel's order. Writes at most 16 of `pairs` rows of out. */
INLINE void pack_square(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k,
                        size_t pairs, __mmask16 lanes, bool rest) {
    const __mmask16 first = first_lanes(k), second = k > LANES ? first_lanes(k - LANES) : 0;
    const size_t next = second ? LANES : 0;
    __m512i r[LANES];
    for (size_t i = 0; i < LANES; i++) {
        const float *row = i < count ? x + i * stride : x; /* a vector that is not there loads no lanes */
        const __mmask16 there = i < count ? 0xffff : 0;
        r[i] = to_bf16_part(_mm512_maskz_loadu_ps(second & there, row + next),
                            _mm512_maskz_loadu_ps(first & there, row), rest);
    }
    transpose(r);
    for (size_t i = 0; i < LANES; i++)
        if (i < pairs) _mm512_mask_storeu_epi32(out + i * width, lanes, r[i]);
}

/* `count` columns of two rows of the matrix as pairs; `left` rows are left, and the last has no partner. Asks for the
 * rows `ahead`, which come next: a block is a narrow window of a wide matrix, which the processor does not foresee. */
INLINE __m512i interleave_rows(const float *x, size_t stride, size_t count, size_t left, size_t ahead, bool rest) {
    static const uint16_t order[2 * LANES] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                              8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __mmask16 lanes = first_lanes(count);
    const bool second = left > 1;
    if (left > ahead + 1) {
        _mm_prefetch((const char *)(x + ahead * stride), _MM_HINT_T0);
        _mm_prefetch((const char *)(x + (ahead + 1) * stride), _MM_HINT_T0);
    }
    const __m512i halves = to_bf16_part(_mm512_maskz_loadu_ps(second ? lanes : 0, second ? x + stride : x),
                                        _mm512_maskz_loadu_ps(lanes, x), rest);
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), halves);
}

/* to [lanes] = alpha * s + beta * to */
INLINE void update(float *to, __mmask16 lanes, __m512 s, __m512 alpha, __m512 beta, bool read) {
    __m512 v = _mm512_mul_ps(alpha, s);
    if (read) v = _mm512_add_ps(v, _mm512_mul_ps(beta, _mm512_maskz_loadu_ps(lanes, to)));
    _mm512_mask_storeu_ps(to, lanes, v);
}

#endif
#endif
