/* workers.h - a loop whose items run on several threads, and the matrix product built on it.
 * Items are cut by the size of the problem, never by the number of threads, and each is computed by one thread in a
 * fixed order: so results are the same bytes at any number of threads. */
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

/* C [m, n] (row stride ldc) = alpha op(A) op(B) + beta C as linalg_gemm, in blocks of rows or columns, whichever is
 * longer. */
void workers_gemm(workers *w, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A,
                  size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);

/* The same by another product than linalg_gemm, such as that of linalg/gemm_int16.h. */
void workers_gemm_by(workers *w, linalg_product *product, bool trans_a, bool trans_b, size_t m, size_t n, size_t k,
                     float alpha, const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C,
                     size_t ldc);

#endif
