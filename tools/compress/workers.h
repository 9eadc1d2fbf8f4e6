/* workers.h - a loop whose items run on several threads, and the matrix product built on it.
 * Results are the same bytes at any number of threads: each item is computed by one thread in a fixed order, and items
 * are cut by the size of the problem, unless no cut leaves a trace. */
#ifndef BITPAIR_WORKERS_H
#define BITPAIR_WORKERS_H

#include "err.h"
#include "linalg/linalg.h"

typedef struct workers workers;

/* threads 1..64. NULL with BP_ERR_MEMORY. */
workers *workers_open(uint32_t threads, bp_err *e);
void workers_close(workers *w);           /* NULL is ignored */
uint32_t workers_count(const workers *w); /* 1 for NULL */

/* fn(context, i, worker) for every i < n, the next item to whoever is free; `worker` < workers_count, no two at once
 * the same: an index for scratch memory. w may be NULL (all on this thread), and must be NULL inside an item. */
void workers_for(workers *w, size_t n, void (*fn)(void *context, size_t i, uint32_t worker), void *context);

enum { WORKERS_BLOCK_MOST = 768 };

/* Into blocks of how many n rows or columns should be cut for that product: `fixed` where the cut changes how it rounds,
 * else equal shares for all threads, at most WORKERS_BLOCK_MOST and a multiple of 32: the larger they are, the less
 * often is the other factor packed. */
size_t workers_block(const workers *w, linalg_product *product, size_t n, size_t fixed);

/* C [m, n] (row stride ldc) = alpha op(A) op(B) + beta C as linalg_gemm, in blocks of rows or columns, whichever is
 * longer. */
void workers_gemm(workers *w, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A,
                  size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);

/* The same by another product than linalg_gemm, such as that of linalg/gemm_int16.h. */
void workers_gemm_by(workers *w, linalg_product *product, bool trans_a, bool trans_b, size_t m, size_t n, size_t k,
                     float alpha, const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C,
                     size_t ldc);

#endif
