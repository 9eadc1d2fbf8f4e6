#include "workers.h"

#include <stdlib.h>

#include "linalg/gemm_bf16.h"
#include "linalg/gemm_int16.h"
#include "linalg/gemm_int8.h"
#include "pool.h"

struct workers {
    pool *pool;
};

typedef struct {
    void (*fn)(void *context, size_t i, uint32_t worker);
    void *context;
    size_t n, next; /* next: taken by atomic addition */
} loop;

workers *workers_open(uint32_t threads, bp_err *e) {
    workers *w = malloc(sizeof *w);
    if (w && (w->pool = pool_open(threads))) {
        pool_never_alone(w->pool);
        return w;
    }
    free(w);
    bp_fail(e, BP_ERR_MEMORY, 0, "cannot start %u threads", threads);
    return NULL;
}

void workers_close(workers *w) {
    if (!w) return;
    pool_close(w->pool);
    free(w);
}

uint32_t workers_count(const workers *w) { return w ? pool_threads(w->pool) : 1; }

static void loop_run(void *context, const team *t) {
    loop *l = context;
    for (size_t i; (i = __atomic_fetch_add(&l->next, 1, __ATOMIC_RELAXED)) < l->n;) l->fn(l->context, i, t->index);
}

void workers_for(workers *w, size_t n, void (*fn)(void *context, size_t i, uint32_t worker), void *context) {
    loop l = {fn, context, n, 0};
    if (!w || n < 2) {
        for (size_t i = 0; i < n; i++) fn(context, i, 0);
    } else {
        pool_run(w->pool, loop_run, &l);
    }
}

/* Any split over rows and columns gives the same bits. */
static bool splits_freely(linalg_product *product) {
    if (product == gemm_int16) return gemm_int16_available();
    if (product == gemm_int8) return gemm_int8_available();
    if (product == gemm_bf16) return gemm_bf16_available();
    return product == gemm_bf16_split && gemm_bf16_amx();
}

size_t workers_block(const workers *w, linalg_product *product, size_t n, size_t fixed) {
    enum { UNIT = 32 };
    if (!splits_freely(product)) return fixed;
    const size_t threads = workers_count(w), blocks = threads * bp_ceil_div(n, threads * WORKERS_BLOCK_MOST);
    return bp_max(bp_round_up(bp_ceil_div(n, blocks), UNIT), UNIT);
}

typedef struct {
    bool trans_a, trans_b, by_rows;
    size_t m, n, k, lda, ldb, ldc, block;
    float alpha, beta;
    const float *A, *B;
    float *C;
    linalg_product *product;
} gemm_task;

static void gemm_block(void *context, size_t i, uint32_t worker) {
    const gemm_task *g = context;
    size_t first = i * g->block;
    (void)worker;
    if (g->by_rows) {
        const float *A = g->A + (g->trans_a ? first : first * g->lda);
        g->product(g->trans_a, g->trans_b, bp_min(g->block, g->m - first), g->n, g->k, g->alpha, A, g->lda, g->B,
                   g->ldb, g->beta, g->C + first * g->ldc, g->ldc);
    } else {
        const float *B = g->B + (g->trans_b ? first * g->ldb : first);
        g->product(g->trans_a, g->trans_b, g->m, bp_min(g->block, g->n - first), g->k, g->alpha, g->A, g->lda, B,
                   g->ldb, g->beta, g->C + first, g->ldc);
    }
}

void workers_gemm_by(workers *w, linalg_product *product, bool trans_a, bool trans_b, size_t m, size_t n, size_t k,
                     float alpha, const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C,
                     size_t ldc) {
    enum { BLOCK = 192 }; /* long enough for BLAS to reach its speed, short enough to share among a few threads */
    const size_t length = bp_max(m, n), block = workers_block(w, product, length, BLOCK);
    gemm_task g = {trans_a, trans_b, m >= n, m, n, k, lda, ldb, ldc, block, alpha, beta, A, B, C, product};
    workers_for(w, bp_ceil_div(length, block), gemm_block, &g);
}

void workers_gemm(workers *w, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A,
                  size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    workers_gemm_by(w, linalg_gemm, trans_a, trans_b, m, n, k, alpha, A, lda, B, ldb, beta, C, ldc);
}
