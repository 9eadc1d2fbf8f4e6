/* product.h - matrix products of training, shared among threads: float32, or rounded to bfloat16 (gemm_bf16.h) or to
 * 16-bit integers (gemm_int16.h) where the processor multiplies those faster. */
#ifndef BITPAIR_PRODUCT_H
#define BITPAIR_PRODUCT_H

#include "compress/workers.h"

typedef enum { PRODUCT_F32, PRODUCT_BF16, PRODUCT_INT16 } product_kind;

/* The kind that is fastest on this processor. */
product_kind product_fastest(void);

/* C [m, n] (row strides as in linalg_gemm) = op(A) op(B) + beta C, on one thread. */
void product_one(product_kind kind, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, const float *A,
                 size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);

/* The same in blocks of rows or columns, cut by the shape alone, on all threads. */
void product_run(workers *w, product_kind kind, bool trans_a, bool trans_b, size_t m, size_t n, size_t k,
                 const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);

#endif
