#include "gemm_bf16.h"

#include <stdatomic.h>

#include "gemm_bf16_tile.h"

static atomic_bool fallback_forced;

void gemm_bf16_force_fallback(bool fallback) { atomic_store(&fallback_forced, fallback); }

#if defined(__x86_64__)

bool gemm_bf16_available(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

static const gemm_kernel *best_kernel(void) {
    enum { DEPTH = 768, ROWS = 264, COLS = 3072 };
    static const gemm_kernel kernel = {.depth = DEPTH,
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .tile_rows = GEMM_BF16_ROWS,
                                       .tile_cols = GEMM_BF16_COLS,
                                       .a_words = ROWS * DEPTH / 2,
                                       .b_words = COLS * DEPTH / 2,
                                       .pack = gemm_bf16_pack_avx512,
                                       .product = gemm_bf16_product_avx512};
    return gemm_bf16_available() ? &kernel : NULL;
}

#else

bool gemm_bf16_available(void) { return false; }

static const gemm_kernel *best_kernel(void) { return NULL; }

#endif

void gemm_bf16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    const bool forced = atomic_load_explicit(&fallback_forced, memory_order_relaxed);
    gemm_by_blocks(forced ? NULL : best_kernel(), trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
