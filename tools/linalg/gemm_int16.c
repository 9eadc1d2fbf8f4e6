#include "gemm_int16.h"

#include <stdatomic.h>

#include "gemm_integer_tile.h"

static atomic_uint forced; /* a gemm_int16_path */

void gemm_int16_force(gemm_int16_path path) { atomic_store(&forced, path); }

#if defined(__x86_64__)

bool gemm_int16_available(void) { return __builtin_cpu_supports("avx2"); }

bool gemm_int16_vnni(void) {
    return gemm_int16_available() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vnni");
}

/* One multiplication per cycle is what float32 does too, and so are two beside the two of AVX-512. */
bool gemm_int16_faster(void) {
    if (__builtin_cpu_supports("avx512f")) return gemm_int16_vnni();
    return gemm_int16_available() && !__builtin_cpu_is("haswell") && !__builtin_cpu_is("broadwell") &&
           !__builtin_cpu_is("znver1") && !__builtin_cpu_is("znver2");
}

enum { ROWS = 240, COLS = 3072, PANEL_ROWS = GEMM_INTEGER_DEPTH / 2 + 1 }; /* pairs and scales */

static const gemm_kernel *kernel_of(unsigned path) {
    static const gemm_kernel avx2 = {.depth = GEMM_INTEGER_DEPTH,
                                     .rows = ROWS,
                                     .cols = COLS,
                                     .tile_rows = GEMM_INT16_ROWS,
                                     .tile_cols = GEMM_INT16_COLS,
                                     .a_words = ROWS / GEMM_INT16_ROWS * GEMM_INT16_A_WIDTH * PANEL_ROWS,
                                     .b_words = COLS * PANEL_ROWS,
                                     .pack_a = gemm_int16_pack_avx2,
                                     .pack_b = gemm_int16_pack_avx2,
                                     .product = gemm_int16_product_avx2};
    static const gemm_kernel avx512 = {.depth = GEMM_INTEGER_DEPTH,
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .tile_rows = GEMM_INTEGER_ROWS_AVX512,
                                       .tile_cols = GEMM_INTEGER_COLS_AVX512,
                                       .a_words =
                                           ROWS / GEMM_INTEGER_ROWS_AVX512 * GEMM_INTEGER_A_WIDTH_AVX512 * PANEL_ROWS,
                                       .b_words = COLS * PANEL_ROWS,
                                       .pack_a = gemm_int16_pack_avx2,
                                       .pack_b = gemm_int16_pack_avx2,
                                       .product = gemm_int16_product_avx512};
    if (path == GEMM_INT16_BEST && gemm_int16_vnni()) return &avx512;
    return path != GEMM_INT16_FLOAT && gemm_int16_available() ? &avx2 : NULL;
}

#else

bool gemm_int16_available(void) { return false; }

bool gemm_int16_vnni(void) { return false; }

bool gemm_int16_faster(void) { return false; }

static const gemm_kernel *kernel_of(unsigned path) { return (void)path, NULL; }

#endif

void gemm_int16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
                const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    gemm_by_blocks(kernel_of(atomic_load_explicit(&forced, memory_order_relaxed)), trans_a, trans_b, m, n, k, alpha, A,
                   lda, B, ldb, beta, C, ldc);
}

linalg_product *gemm_int16_or_float(void) { return gemm_int16_faster() ? gemm_int16 : linalg_gemm; }
