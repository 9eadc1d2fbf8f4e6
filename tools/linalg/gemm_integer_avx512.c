/* gemm_integer_avx512.c - the products of gemm_int16 and gemm_int8 for x86-64 with AVX-512 F and VNNI, which
 * multiplies, adds two or four products and sums up at once. Those of gemm_int16 are the same bits as with AVX2. */
#include "gemm_integer_tile.h"

#if defined(__x86_64__)
#include "avx512.h"

enum { A_WIDTH = GEMM_INTEGER_A_WIDTH_AVX512 };

typedef struct {
    float *C;
    size_t ldc, rows, cols;
    __m512 alpha, beta;
    bool read; /* beta is not 0 */
} target;

/* to [16] = alpha * sums * scales + beta * to, or those of `lanes` */
INLINE void update(const target *t, float *to, __mmask16 lanes, __m512i sums, __m512 row, __m512 columns) {
    __m512 v = _mm512_mul_ps(_mm512_mul_ps(_mm512_cvtepi32_ps(sums), row), columns);
    v = _mm512_mul_ps(t->alpha, v);
    if (t->read) v = _mm512_add_ps(v, _mm512_mul_ps(t->beta, _mm512_maskz_loadu_ps(lanes, to)));
    _mm512_mask_storeu_ps(to, lanes, v);
}

/* The sums of a tile are 24 variables, not an array, so that every compiler keeps them in registers. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5) DO(6) DO(7) DO(8) DO(9) DO(10) DO(11)
#define ROW_ZERO(i) __m512i left##i = _mm512_setzero_si512(), right##i = _mm512_setzero_si512();
#define ROW_ADD(i)                                                                                                     \
    ai = _mm512_set1_epi32((int)a[i]);                                                                                 \
    left##i = bytes ? _mm512_dpbusd_epi32(left##i, ai, b0) : _mm512_dpwssd_epi32(left##i, ai, b0);                     \
    right##i = bytes ? _mm512_dpbusd_epi32(right##i, ai, b1) : _mm512_dpwssd_epi32(right##i, ai, b1);
#define ROW_UPDATE(i)                                                                                                  \
    if (i == t->rows) return;                                                                                          \
    row = _mm512_set1_ps(((const float *)a)[i]);                                                                       \
    update(t, t->C + i * t->ldc, left_lanes, _mm512_sub_epi32(left##i, left_more), row, left_scales);                  \
    update(t, t->C + i * t->ldc + LANES, right_lanes, _mm512_sub_epi32(right##i, right_more), row, right_scales);

/* C [rows, cols] = alpha * A panel B panel + beta * C: each word of A is spread over a register and meets the two
 * registers of B's. `bytes` is a constant where this is inlined. */
INLINE void tile(const target *t, const uint32_t *a, const uint32_t *b, size_t words, bool bytes) {
    for (size_t i = 0; i < t->rows; i++) /* up to three lines each: C is of any alignment */
        for (size_t j = 0; j < t->cols + LANES - 1; j += LANES)
            _mm_prefetch((const char *)(t->C + i * t->ldc + bp_min(j, t->cols - 1)), _MM_HINT_T0);
    EACH_ROW(ROW_ZERO)
    for (size_t p = 0; p < words; p++, a += A_WIDTH, b += GEMM_INTEGER_COLS_AVX512) {
        const __m512i b0 = _mm512_load_si512(b), b1 = _mm512_load_si512(b + LANES);
        __m512i ai;
        EACH_ROW(ROW_ADD)
    }
    const uint32_t *more = b + GEMM_INTEGER_COLS_AVX512; /* what the 128 added to bytes of A have brought */
    const __m512i left_more = bytes ? _mm512_load_si512(more) : _mm512_setzero_si512(),
                  right_more = bytes ? _mm512_load_si512(more + LANES) : _mm512_setzero_si512();
    const __m512 left_scales = _mm512_load_ps(b), right_scales = _mm512_load_ps(b + LANES);
    const __mmask16 left_lanes = first_lanes(t->cols), right_lanes = t->cols > LANES ? first_lanes(t->cols - LANES) : 0;
    __m512 row;
    EACH_ROW(ROW_UPDATE)
}

static void int16_tile(const target *t, const uint32_t *a, const uint32_t *b, size_t words) {
    tile(t, a, b, words, false);
}

static void int8_tile(const target *t, const uint32_t *a, const uint32_t *b, size_t words) {
    tile(t, a, b, words, true);
}

/* rows: of a panel, the words and what follows them */
INLINE void product(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t words,
                    size_t rows, float alpha, float beta,
                    void (*one)(const target *, const uint32_t *, const uint32_t *, size_t)) {
    for (size_t j = 0; j < n; j += GEMM_INTEGER_COLS_AVX512, B += rows * GEMM_INTEGER_COLS_AVX512)
        for (size_t i = 0; i < m; i += GEMM_INTEGER_ROWS_AVX512) {
            const target t = {C + i * ldc + j,
                              ldc,
                              bp_min(GEMM_INTEGER_ROWS_AVX512, m - i),
                              bp_min(GEMM_INTEGER_COLS_AVX512, n - j),
                              _mm512_set1_ps(alpha),
                              _mm512_set1_ps(beta),
                              beta != 0};
            one(&t, A + i / GEMM_INTEGER_ROWS_AVX512 * rows * A_WIDTH, B, words);
        }
}

void gemm_int16_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                               float alpha, float beta) {
    const size_t pairs = bp_ceil_div(k, 2);
    product(C, ldc, A, B, m, n, pairs, pairs + 1, alpha, beta, int16_tile);
}

void gemm_int8_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                              float alpha, float beta) {
    const size_t quads = bp_ceil_div(k, 4);
    product(C, ldc, A, B, m, n, quads, quads + 2, alpha, beta, int8_tile);
}

#endif
