/* gemm_bf16_avx512.c - packing and product for x86-64 with AVX-512 F, BW, VL and BF16. */
#include "gemm_bf16_tile.h"

#if defined(__x86_64__)
#include "gemm_bf16_pieces.h"

/* ---- packing ---- */

static void pack_along_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k) {
    const size_t pairs = bp_ceil_div(k, 2);
    for (size_t v = 0; v < count; v += width, out += pairs * width)
        for (size_t g = 0; g < width; g += LANES) {
            const size_t have = v + g < count ? bp_min(LANES, bp_min(width - g, count - v - g)) : 0;
            const float *rows = x + (have ? v + g : 0) * stride;
            for (size_t p = 0; p < pairs; p += LANES)
                pack_square(out + p * width + g, width, rows + 2 * p, stride, have, k - 2 * p, pairs - p,
                            first_lanes(width - g), false);
        }
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
                        interleave_rows(rows + 2 * p * stride, stride, have, k - 2 * p, 2 * (size_t)PAIRS, false));
            }
}

void gemm_bf16_pack_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (x.along_k ? pack_along_k : pack_across_k)(out, width, x.data, x.stride, count, k);
}

/* ---- product ---- */

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
