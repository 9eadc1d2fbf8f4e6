#include "gemm_bf16.h"

#include <pthread.h>
#include <stdatomic.h>

#include "gemm_bf16_tile.h"

static atomic_uint forced; /* a gemm_bf16_path */

void gemm_bf16_force(gemm_bf16_path path) { atomic_store(&forced, path); }

#if defined(__x86_64__)

bool gemm_bf16_available(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

static pthread_once_t amx_once = PTHREAD_ONCE_INIT;
static bool amx_there;

static void find_amx(void) { amx_there = gemm_bf16_available() && gemm_bf16_amx_available(); }

bool gemm_bf16_amx(void) {
    pthread_once(&amx_once, find_amx);
    return amx_there;
}

/* A panel of B, 32 columns of AMX_PARTS bfloat16, stays in the first-level cache while A passes. */
enum { AMX_ROWS = 256, AMX_PARTS = 384 };

static const gemm_kernel *kernel_of(unsigned path) {
    enum { DEPTH = 768, ROWS = 264, COLS = 3072 };
    static const gemm_kernel avx512 = {.depth = DEPTH,
                                       .rows = ROWS,
                                       .cols = COLS,
                                       .tile_rows = GEMM_BF16_ROWS,
                                       .tile_cols = GEMM_BF16_COLS,
                                       .a_words = ROWS * DEPTH / 2,
                                       .b_words = COLS * DEPTH / 2,
                                       .pack_a = gemm_bf16_pack_avx512,
                                       .pack_b = gemm_bf16_pack_avx512,
                                       .product = gemm_bf16_product_avx512};
    static const gemm_kernel amx = {.depth = AMX_PARTS,
                                    .rows = AMX_ROWS,
                                    .cols = COLS,
                                    .tile_rows = GEMM_BF16_AMX_ROWS,
                                    .tile_cols = GEMM_BF16_AMX_COLS,
                                    .a_words = AMX_ROWS * AMX_PARTS / 2,
                                    .b_words = COLS * AMX_PARTS / 2,
                                    .pack_a = gemm_bf16_pack_a_amx,
                                    .pack_b = gemm_bf16_pack_b_amx,
                                    .product = gemm_bf16_product_amx};
    if (path == GEMM_BF16_BEST && gemm_bf16_amx()) return &amx;
    return path != GEMM_BF16_FLOAT && gemm_bf16_available() ? &avx512 : NULL;
}

static const gemm_kernel *split_kernel_of(unsigned path) {
    enum { DEPTH = AMX_PARTS / 2, COLS = 3072 };
    static const gemm_kernel amx = {.depth = DEPTH,
                                    .rows = AMX_ROWS,
                                    .cols = COLS,
                                    .tile_rows = GEMM_BF16_AMX_ROWS,
                                    .tile_cols = GEMM_BF16_AMX_COLS,
                                    .a_words = AMX_ROWS * DEPTH,
                                    .b_words = COLS * DEPTH,
                                    .pack_a = gemm_bf16_pack_a_amx_split,
                                    .pack_b = gemm_bf16_pack_b_amx_split,
                                    .product = gemm_bf16_product_amx_split};
    return path == GEMM_BF16_BEST && gemm_bf16_amx() ? &amx : NULL;
}

#else

bool gemm_bf16_available(void) { return false; }

bool gemm_bf16_amx(void) { return false; }

static const gemm_kernel *kernel_of(unsigned path) { return (void)path, NULL; }

static const gemm_kernel *split_kernel_of(unsigned path) { return (void)path, NULL; }

#endif

void gemm_bf16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    gemm_by_blocks(kernel_of(atomic_load_explicit(&forced, memory_order_relaxed)), trans_a, trans_b, m, n, k, alpha, A,
                   lda, B, ldb, beta, C, ldc);
}

void gemm_bf16_split(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
                     const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    gemm_by_blocks(split_kernel_of(atomic_load_explicit(&forced, memory_order_relaxed)), trans_a, trans_b, m, n, k,
                   alpha, A, lda, B, ldb, beta, C, ldc);
}
