/* gemm_int8.h - the matrix product of ADMM's rotations where there is AVX-512 VNNI and no AMX: float32 in and out,
 * factors rounded to 8-bit integers with a scale per row of A and column of B. */
#ifndef BITPAIR_GEMM_INT8_H
#define BITPAIR_GEMM_INT8_H

#include "linalg.h"

/* This processor has what the fast path needs: AVX-512 F and VNNI, four products per lane and instruction. */
bool gemm_int8_available(void);

/* C [m, n] (ldc) = alpha * op(A) op(B) + beta * C; op transposes when the flag is set. lda, ldb, ldc are row strides.
 * A, B, C are float32 of any alignment; C overlaps neither A nor B. With beta 0, C is not read.
 * Fast path: as gemm_int16 with L = 127 integers on each side of zero, whatever the length of a block: every element of
 * a row (of op(A)) or column (of op(B)) with largest magnitude M is off by at most M / 254 (1 + 2^-9). The same bound
 * with that L, and the same for what is not finite, next to nothing, and splits over m and n. Otherwise, or if the
 * first call of a thread finds no memory: linalg_gemm, bit for bit.
 * Runs on the calling thread; any number of threads may call at once. Shares the scratch of gemm_int16. */
linalg_product gemm_int8;

/* For tests: every later call of the process takes the fast path where there is one, or linalg_gemm. */
void gemm_int8_force(bool is_float);

#endif
