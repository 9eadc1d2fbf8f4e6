/* gemm_bf16_avx512.c - packing and product for x86-64 with AVX-512 F, BW, VL and BF16. */
#include "gemm_bf16_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = 16, VECTORS = GEMM_BF16_COLS / LANES };

static inline __mmask16 first_lanes(size_t n) { return (__mmask16)((1u << bp_min(n, LANES)) - 1); }

/* ---- packing ---- */

/* [16 bfloat16 of low | 16 of high], nearest even */
INLINE __m512i to_bf16(__m512 high, __m512 low) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

/* Transposes 16 x 16 words: first within the four 128-bit quarters, then the quarters. */
INLINE void transpose(__m512i r[LANES]) {
    __m512i t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < 4; i++) {
        t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
        t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
        t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
        t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
    }
    for (int i = 0; i < 8; i++) {
        r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
        r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
    }
}

/* Up to 16 vectors along k (rows of `stride`), at most 32 elements of each: a row is 16 pairs once it is rounded, so
 * that transposing words makes the panel's order. Writes at most 16 of `pairs` rows of out. */
INLINE void pack_square(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k,
                        size_t pairs, __mmask16 lanes) {
    const __mmask16 first = first_lanes(k), second = k > LANES ? first_lanes(k - LANES) : 0;
    const size_t next = second ? LANES : 0;
    __m512i r[LANES];
    for (size_t i = 0; i < LANES; i++) {
        const float *row = i < count ? x + i * stride : x; /* a vector that is not there loads no lanes */
        const __mmask16 there = i < count ? 0xffff : 0;
        r[i] = to_bf16(_mm512_maskz_loadu_ps(second & there, row + next), _mm512_maskz_loadu_ps(first & there, row));
    }
    transpose(r);
    for (size_t i = 0; i < LANES; i++)
        if (i < pairs) _mm512_mask_storeu_epi32(out + i * width, lanes, r[i]);
}

static void pack_along_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k) {
    const size_t pairs = bp_ceil_div(k, 2);
    for (size_t v = 0; v < count; v += width, out += pairs * width)
        for (size_t g = 0; g < width; g += LANES) {
            const size_t have = v + g < count ? bp_min(LANES, bp_min(width - g, count - v - g)) : 0;
            const float *rows = x + (have ? v + g : 0) * stride;
            for (size_t p = 0; p < pairs; p += LANES)
                pack_square(out + p * width + g, width, rows + 2 * p, stride, have, k - 2 * p, pairs - p,
                            first_lanes(width - g));
        }
}

/* `count` columns of two rows of the matrix as pairs; `left` rows are left, and the last has no partner. Asks for the
 * rows `ahead`, which come next: a block is a narrow window of a wide matrix, which the processor does not foresee. */
INLINE __m512i interleave_rows(const float *x, size_t stride, size_t count, size_t left, size_t ahead) {
    static const uint16_t order[2 * LANES] = {0, 16, 1, 17, 2,  18, 3,  19, 4,  20, 5,  21, 6,  22, 7,  23,
                                              8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31};
    const __mmask16 lanes = first_lanes(count);
    const bool second = left > 1;
    if (left > ahead + 1) {
        _mm_prefetch((const char *)(x + ahead * stride), _MM_HINT_T0);
        _mm_prefetch((const char *)(x + (ahead + 1) * stride), _MM_HINT_T0);
    }
    const __m512i halves =
        to_bf16(_mm512_maskz_loadu_ps(second ? lanes : 0, second ? x + stride : x), _mm512_maskz_loadu_ps(lanes, x));
    return _mm512_permutexvar_epi16(_mm512_loadu_si512(order), halves);
}

/* A few rows of the matrix at a time over all panels: their lines are used up while they are in the first-level cache,
 * even where the stride maps all rows to one of its sets. */
static void pack_across_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k) {
    enum { PAIRS = 4 };
    const size_t pairs = bp_ceil_div(k, 2);
    for (size_t first = 0; first < pairs; first += PAIRS)
        for (size_t v = 0; v < count; v += width)
            for (size_t g = 0; g < width; g += LANES) {
                const size_t have = v + g < count ? bp_min(width - g, count - v - g) : 0;
                const float *rows = x + (have ? v + g : 0);
                uint32_t *panel = out + v * pairs + g;
                for (size_t p = first; p < bp_min(first + PAIRS, pairs); p++)
                    _mm512_mask_storeu_epi32(
                        panel + p * width, first_lanes(width - g),
                        interleave_rows(rows + 2 * p * stride, stride, have, k - 2 * p, 2 * (size_t)PAIRS));
            }
}

void gemm_bf16_pack_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (x.along_k ? pack_along_k : pack_across_k)(out, width, x.data, x.stride, count, k);
}

/* ---- product ---- */

/* to [lanes] = alpha * s + beta * to */
INLINE void update(float *to, __mmask16 lanes, __m512 s, __m512 alpha, __m512 beta, bool read) {
    __m512 v = _mm512_mul_ps(alpha, s);
    if (read) v = _mm512_add_ps(v, _mm512_mul_ps(beta, _mm512_maskz_loadu_ps(lanes, to)));
    _mm512_mask_storeu_ps(to, lanes, v);
}

/* The sums of a tile are 24 variables, not an array, so that every compiler keeps them in registers. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define ROW_ZERO(i) __m512 left##i = _mm512_setzero_ps(), right##i = _mm512_setzero_ps();
#define ROW_ADD(i)                                                                                                     \
    ai = (__m512bh)_mm512_set1_epi32((int)a[i]);                                                                       \
    left##i = _mm512_dpbf16_ps(left##i, ai, b0);                                                                       \
    right##i = _mm512_dpbf16_ps(right##i, ai, b1);
#define ROW_UPDATE(i)                                                                                                  \
    if (i == rows) return;                                                                                             \
    update(C + i * ldc, left_lanes, left##i, by, keep, read);                                                          \
    update(C + i * ldc + LANES, right_lanes, right##i, by, keep, read);

/* C [rows, cols] = alpha * A panel B panel + beta * C: each pair of A is spread over a register and meets the two
 * registers of B's pairs. */
static void tile(float *C, size_t ldc, const uint32_t *a, const uint32_t *b, size_t rows, size_t cols, size_t pairs,
                 float alpha, float beta) {
    for (size_t i = 0; i < rows; i++) /* up to three lines each: C is of any alignment */
        for (size_t j = 0; j < cols + LANES - 1; j += LANES)
            _mm_prefetch((const char *)(C + i * ldc + bp_min(j, cols - 1)), _MM_HINT_T0);
    EACH_ROW(ROW_ZERO)
    for (size_t p = 0; p < pairs; p++, a += GEMM_BF16_ROWS, b += GEMM_BF16_COLS) {
        const __m512bh b0 = (__m512bh)_mm512_load_si512(b), b1 = (__m512bh)_mm512_load_si512(b + LANES);
        __m512bh ai;
        EACH_ROW(ROW_ADD)
    }
    const __m512 by = _mm512_set1_ps(alpha), keep = _mm512_set1_ps(beta);
    const __mmask16 left_lanes = first_lanes(cols), right_lanes = cols > LANES ? first_lanes(cols - LANES) : 0;
    const bool read = beta != 0;
    EACH_ROW(ROW_UPDATE)
}

void gemm_bf16_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                              float alpha, float beta) {
    const size_t pairs = bp_ceil_div(k, 2);
    for (size_t j = 0; j < n; j += GEMM_BF16_COLS)
        for (size_t i = 0; i < m; i += GEMM_BF16_ROWS)
            tile(C + i * ldc + j, ldc, A + i * pairs, B + j * pairs, bp_min(GEMM_BF16_ROWS, m - i),
                 bp_min(GEMM_BF16_COLS, n - j), pairs, alpha, beta);
}

#endif
