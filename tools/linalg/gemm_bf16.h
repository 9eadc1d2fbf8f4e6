/* gemm_bf16.h - the matrix product of training: float32 in and out, factors rounded to bfloat16, sums in float32.
 * On a processor with AVX-512 BF16 it does two multiply-adds per lane and instruction; elsewhere it is linalg_gemm. */
#ifndef BITPAIR_GEMM_BF16_H
#define BITPAIR_GEMM_BF16_H

#include "base.h"

/* This processor has what the fast path needs: AVX-512 F, BW, VL and BF16. */
bool gemm_bf16_available(void);

/* C [m, n] (ldc) = alpha * op(A) op(B) + beta * C; op transposes when the flag is set. lda, ldb, ldc are row strides.
 * A, B, C are float32 of any alignment; C overlaps neither A nor B. With beta 0, C is not read.
 * Fast path: each element of A and B is rounded to bfloat16 (nearest even, subnormal numbers are zero), products are
 * exact, sums are float32: |error| <= (2^-7 + (k + 2) 2^-23) (|alpha| sum |a b| + |beta C|). An element depends on its
 * row of op(A), its column of op(B), k, alpha, beta and its old value alone: any split over m and n gives the same
 * bits. Otherwise, or if the first call of a thread finds no memory: linalg_gemm, bit for bit.
 * Runs on the calling thread; any number of threads may call at once. Each keeps 4.9 MiB of scratch until it ends. */
void gemm_bf16(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
               const float *B, size_t ldb, float beta, float *C, size_t ldc);

/* For tests: true sends every later call of the process to linalg_gemm, false back to the processor's best. */
void gemm_bf16_force_fallback(bool fallback);

#endif
