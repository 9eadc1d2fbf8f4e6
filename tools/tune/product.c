#include "product.h"

#include "linalg/gemm_bf16.h"
#include "linalg/gemm_int16.h"
#include "linalg/linalg.h"

typedef struct {
    product_kind kind;
    bool trans_a, trans_b, by_rows;
    size_t m, n, k, lda, ldb, ldc, block;
    float beta;
    const float *A, *B;
    float *C;
} task;

product_kind product_fastest(void) {
    return gemm_bf16_available() ? PRODUCT_BF16 : gemm_int16_faster() ? PRODUCT_INT16 : PRODUCT_F32;
}

void product_one(product_kind kind, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, const float *A,
                 size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    static void (*const gemm[])(bool, bool, size_t, size_t, size_t, float, const float *, size_t, const float *, size_t,
                                float, float *, size_t) = {
        [PRODUCT_F32] = linalg_gemm, [PRODUCT_BF16] = gemm_bf16, [PRODUCT_INT16] = gemm_int16};
    gemm[kind](trans_a, trans_b, m, n, k, 1, A, lda, B, ldb, beta, C, ldc);
}

static void run_block(void *context, size_t i, uint32_t worker) {
    const task *g = context;
    size_t first = i * g->block;
    (void)worker;
    if (g->by_rows) {
        const float *A = g->A + (g->trans_a ? first : first * g->lda);
        product_one(g->kind, g->trans_a, g->trans_b, bp_min(g->block, g->m - first), g->n, g->k, A, g->lda, g->B,
                    g->ldb, g->beta, g->C + first * g->ldc, g->ldc);
    } else {
        const float *B = g->B + (g->trans_b ? first * g->ldb : first);
        product_one(g->kind, g->trans_a, g->trans_b, g->m, bp_min(g->block, g->n - first), g->k, g->A, g->lda, B,
                    g->ldb, g->beta, g->C + first, g->ldc);
    }
}

void product_run(workers *w, product_kind kind, bool trans_a, bool trans_b, size_t m, size_t n, size_t k,
                 const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    /* few large blocks: each of them packs the other matrix anew; an even number, for two threads */
    size_t longest = bp_max(m, n), blocks = 2 * bp_ceil_div(longest, 1536);
    size_t block = bp_max(64, bp_round_up(bp_ceil_div(longest, blocks), 16));
    task g = {kind, trans_a, trans_b, m >= n, m, n, k, lda, ldb, ldc, block, beta, A, B, C};
    workers_for(w, bp_ceil_div(longest, block), run_block, &g);
}
