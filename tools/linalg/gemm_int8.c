#include "gemm_int8.h"

#include <stdatomic.h>

#include "gemm_int16.h"
#include "gemm_integer_tile.h"

static atomic_bool forced_float;

void gemm_int8_force(bool is_float) { atomic_store(&forced_float, is_float); }

#if defined(__x86_64__)

bool gemm_int8_available(void) { return gemm_int16_vnni(); }

static const gemm_kernel *kernel_of(bool is_float) {
    enum { ROWS = 240, COLS = 3072, PANEL_ROWS = GEMM_INTEGER_DEPTH / 4 + 2 }; /* words, scales, sums */
    static const gemm_kernel avx512 = {.depth = GEMM_INTEGER_DEPTH,
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .tile_rows = GEMM_INTEGER_ROWS_AVX512,
                                       .tile_cols = GEMM_INTEGER_COLS_AVX512,
                                       .a_words =
                                           ROWS / GEMM_INTEGER_ROWS_AVX512 * GEMM_INTEGER_A_WIDTH_AVX512 * PANEL_ROWS,
                                       .b_words = COLS * PANEL_ROWS,
                                       .pack_a = gemm_int8_pack_a_avx512,
                                       .pack_b = gemm_int8_pack_b_avx512,
                                       .product = gemm_int8_product_avx512};
    return !is_float && gemm_int8_available() ? &avx512 : NULL;
}

#else

bool gemm_int8_available(void) { return false; }

static const gemm_kernel *kernel_of(bool is_float) { return (void)is_float, NULL; }

#endif

void gemm_int8(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    gemm_by_blocks(kernel_of(atomic_load_explicit(&forced_float, memory_order_relaxed)), trans_a, trans_b, m, n, k,
                   alpha, A, lda, B, ldb, beta, C, ldc);
}
