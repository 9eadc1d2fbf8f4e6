#include "gemm_bf16.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "gemm_bf16_tile.h"
#include "linalg.h"

/* Most of a block: A's (rows x depth) stays in the second-level cache while B's panels pass, B's in the third. */
enum { DEPTH = 768, ROWS = 264, COLS = 3072 };

static atomic_bool fallback_forced;

void gemm_bf16_force_fallback(bool fallback) { atomic_store(&fallback_forced, fallback); }

#if defined(__x86_64__)

bool gemm_bf16_available(void) {
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

/* ---- scratch of a thread: packed B, then packed A ---- */

enum { B_PAIRS = COLS * DEPTH / 2, A_PAIRS = ROWS * DEPTH / 2 };

static _Thread_local uint32_t *scratch;
static pthread_key_t scratch_key; /* only frees: its destructor runs when a thread ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_has_key;

static void make_key(void) { scratch_has_key = pthread_key_create(&scratch_key, free) == 0; }

static uint32_t *thread_scratch(void) {
    if (scratch) return scratch;
    pthread_once(&scratch_once, make_key);
    if (!scratch_has_key) return NULL;
    uint32_t *memory = aligned_alloc(BP_ALIGN, (B_PAIRS + A_PAIRS) * sizeof *memory);
    if (pthread_setspecific(scratch_key, memory) != 0) {
        free(memory);
        return NULL;
    }
    return scratch = memory;
}

/* ---- blocks ---- */

/* Size of equal blocks, at most `most`, that cover n: a multiple of `unit`, which divides `most`. */
static size_t block_size(size_t n, size_t most, size_t unit) {
    return bp_round_up(bp_ceil_div(n, bp_ceil_div(n, most)), unit);
}

static gemm_bf16_factor factor_from(gemm_bf16_factor x, size_t vector, size_t p) {
    x.data += x.along_k ? vector * x.stride + p : p * x.stride + vector;
    return x;
}

/* C += for one block of k and columns: B is packed once, A block by block. */
static void multiply_slab(uint32_t *memory, gemm_bf16_factor a, gemm_bf16_factor b, size_t m, size_t n, size_t k,
                          float alpha, float beta, float *C, size_t ldc) {
    uint32_t *packed_b = memory, *packed_a = memory + B_PAIRS;
    const size_t rows = block_size(m, ROWS, GEMM_BF16_ROWS);
    gemm_bf16_pack_avx512(packed_b, GEMM_BF16_COLS, b, n, k);
    for (size_t i = 0; i < m; i += rows) {
        const size_t count = bp_min(rows, m - i);
        gemm_bf16_pack_avx512(packed_a, GEMM_BF16_ROWS, factor_from(a, i, 0), count, k);
        gemm_bf16_product_avx512(C + i * ldc, ldc, packed_a, packed_b, count, n, bp_ceil_div(k, 2), alpha, beta);
    }
}

/* Blocks of k depend on k alone, and each element adds them in order: the split over m and n leaves no trace. */
static void multiply(uint32_t *memory, gemm_bf16_factor a, gemm_bf16_factor b, size_t m, size_t n, size_t k,
                     float alpha, float beta, float *C, size_t ldc) {
    const size_t depth = block_size(k, DEPTH, 2), cols = block_size(n, COLS, GEMM_BF16_COLS);
    for (size_t j = 0; j < n; j += cols)
        for (size_t p = 0; p < k; p += depth)
            multiply_slab(memory, factor_from(a, 0, p), factor_from(b, j, p), m, bp_min(cols, n - j),
                          bp_min(depth, k - p), alpha, p == 0 ? beta : 1.0f, C + j, ldc);
}

void gemm_bf16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    if (m == 0 || n == 0) return;
    const bool fast = gemm_bf16_available() && !atomic_load_explicit(&fallback_forced, memory_order_relaxed);
    uint32_t *memory = fast && k > 0 && alpha != 0 ? thread_scratch() : NULL;
    if (memory)
        multiply(memory, (gemm_bf16_factor){A, lda, !trans_a}, (gemm_bf16_factor){B, ldb, trans_b}, m, n, k, alpha,
                 beta, C, ldc);
    else
        linalg_gemm(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

#else

bool gemm_bf16_available(void) { return false; }

void gemm_bf16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    linalg_gemm(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}

#endif
