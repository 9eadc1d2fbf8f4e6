/* gemm_bf16.h - the matrix product of training: float32 in and out, factors rounded to bfloat16, sums in float32.
 * On a processor with AMX BF16 an instruction multiplies tiles of 16 x 32 and 32 x 16, with AVX-512 BF16 it does two
 * multiply-adds per lane; elsewhere it is linalg_gemm. */
#ifndef BITPAIR_GEMM_BF16_H
#define BITPAIR_GEMM_BF16_H

#include "linalg.h"

/* This processor has what the fast path needs: AVX-512 F, BW, VL and BF16. */
bool gemm_bf16_available(void);

/* It also has AMX BF16, and the system lets this process use it: several times as fast. */
bool gemm_bf16_amx(void);

/* C [m, n] (ldc) = alpha * op(A) op(B) + beta * C; op transposes when the flag is set. lda, ldb, ldc are row strides.
 * A, B, C are float32 of any alignment; C overlaps neither A nor B. With beta 0, C is not read.
 * Fast path: each element of A and B is rounded to bfloat16 (nearest even, subnormal numbers are zero), products are
 * exact, sums are float32: |error| <= (2^-7 + (k + 2) 2^-23) (|alpha| sum |a b| + |beta C|). An element depends on its
 * row of op(A), its column of op(B), k, alpha, beta and its old value alone: any split over m and n gives the same
 * bits. Otherwise, or if the first call of a thread finds no memory: linalg_gemm, bit for bit.
 * Runs on the calling thread; any number of threads may call at once. Each keeps 4.9 MiB of scratch until it ends. */
linalg_product gemm_bf16;

/* The same with each factor as the sum of two bfloat16, for AMX, which is faster than float32 even so; elsewhere it is
 * linalg_gemm:
 *     |error| <= (2^-16 + (3 k + 2) 2^-23) (|alpha| sum |a b| + |beta C|).
 * Magnitudes below 2^-100 lose their second part; what is, or rounds to, infinity makes its row or column of C NaN. */
linalg_product gemm_bf16_split;

/* For tests: the path of every later call of the process; one that the processor lacks is the next below. */
typedef enum { GEMM_BF16_BEST, GEMM_BF16_AVX512, GEMM_BF16_FLOAT } gemm_bf16_path;
void gemm_bf16_force(gemm_bf16_path path);

#endif
