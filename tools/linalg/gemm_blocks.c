#include "gemm_blocks.h"

#include <pthread.h>
#include <stdlib.h>

#include "linalg.h"

/* ---- scratch of a thread: packed B, then packed A ---- */

static _Thread_local uint32_t *scratch;
static _Thread_local size_t scratch_words;
static pthread_key_t scratch_key; /* only frees: its destructor runs when a thread ends */
static pthread_once_t scratch_once = PTHREAD_ONCE_INIT;
static bool scratch_has_key;

static void make_key(void) { scratch_has_key = pthread_key_create(&scratch_key, free) == 0; }

/* Room for at least `words`; what it held is lost. */
static uint32_t *thread_scratch(size_t words) {
    if (scratch_words >= words) return scratch;
    pthread_once(&scratch_once, make_key);
    if (!scratch_has_key) return NULL;
    uint32_t *memory = aligned_alloc(BP_ALIGN, words * sizeof *memory);
    if (!memory || pthread_setspecific(scratch_key, memory) != 0) {
        free(memory);
        return NULL;
    }
    free(scratch);
    scratch_words = words;
    return scratch = memory;
}

/* ---- blocks ---- */

/* Size of equal blocks, at most `most`, that cover n: a multiple of `unit`, which divides `most`. */
static size_t block_size(size_t n, size_t most, size_t unit) {
    return bp_round_up(bp_ceil_div(n, bp_ceil_div(n, most)), unit);
}

static gemm_factor factor_from(gemm_factor x, size_t vector, size_t p) {
    x.data += x.along_k ? vector * x.stride + p : p * x.stride + vector;
    return x;
}

/* C += for one block of k and columns: B is packed once, A block by block. */
static void multiply_slab(const gemm_kernel *g, uint32_t *memory, gemm_factor a, gemm_factor b, size_t m, size_t n,
                          size_t k, float alpha, float beta, float *C, size_t ldc) {
    uint32_t *packed_b = memory, *packed_a = memory + g->b_words;
    const size_t rows = block_size(m, g->rows, g->tile_rows);
    g->pack_b(packed_b, g->tile_cols, b, n, k);
    for (size_t i = 0; i < m; i += rows) {
        const size_t count = bp_min(rows, m - i);
        g->pack_a(packed_a, g->tile_rows, factor_from(a, i, 0), count, k);
        g->product(C + i * ldc, ldc, packed_a, packed_b, count, n, k, alpha, beta);
    }
}

void gemm_by_blocks(const gemm_kernel *kernel, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha,
                    const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    if (m == 0 || n == 0) return;
    const bool blocks = kernel && k > 0 && alpha != 0;
    uint32_t *memory = blocks ? thread_scratch(kernel->a_words + kernel->b_words) : NULL;
    if (!memory) {
        linalg_gemm(trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
        return;
    }
    const gemm_factor a = {A, lda, !trans_a}, b = {B, ldb, trans_b};
    const size_t depth = block_size(k, kernel->depth, 2), cols = block_size(n, kernel->cols, kernel->tile_cols);
    for (size_t j = 0; j < n; j += cols)
        for (size_t p = 0; p < k; p += depth)
            multiply_slab(kernel, memory, factor_from(a, 0, p), factor_from(b, j, p), m, bp_min(cols, n - j),
                          bp_min(depth, k - p), alpha, p == 0 ? beta : 1.0f, C + j, ldc);
}
