/* gemm_int16.h - the matrix product of ADMM where there is no AMX, and of training where there is no AVX-512 BF16
 * either: float32 in and out, factors rounded to 16-bit integers with a scale per row of A and column of B, sums in
 * 32-bit integers. */
#ifndef BITPAIR_GEMM_INT16_H
#define BITPAIR_GEMM_INT16_H

#include "linalg.h"

/* This processor has what the fast path needs: AVX2. */
bool gemm_int16_available(void);

/* It also has AVX-512 VNNI: twice as many products per cycle as of float32. */
bool gemm_int16_vnni(void);

/* It is worth its rounding here: VNNI, or two integer products per cycle and no wider unit for float32. */
bool gemm_int16_faster(void);

/* C [m, n] (ldc) = alpha * op(A) op(B) + beta * C; op transposes when the flag is set. lda, ldb, ldc are row strides.
 * A, B, C are float32 of any alignment; C overlaps neither A nor B. With beta 0, C is not read.
 * Fast path: k is cut into ceil(k / 576) blocks of equal size, rounded up to even (the last may be shorter). In a block
 * of K, the row (of op(A)) or column (of op(B)) with largest magnitude M becomes integers round(x L / M), nearest even,
 * with L = min(32767, floor(sqrt((2^31 - 1) / K))): 1930 for 576, 2047 for 512. Their sums are exact. So every element
 * is off by at most M / (2 L) (1 + 2^-9), and a row is zero where M < 2^-100. With M_a, M_b of its block,
 *     |error| <= |alpha| sum (|a| M_b + |b| M_a + M_a M_b / (2 L)) / (2 L) (1 + 2^-8) +
 *                (blocks + 6) 2^-24 (|alpha| sum |a b| + |beta C|), twice the latter to be safe
 * An infinity or NaN makes its row or column of C NaN. Magnitudes above 2^107 may overflow where the sum does not.
 * An element depends on its row of op(A), its column of op(B), k, alpha, beta and its old value alone: any split over
 * m and n gives the same bits, and so do AVX2 and VNNI. Otherwise, or if the first call of a thread finds no memory:
 * linalg_gemm, bit for bit.
 * Runs on the calling thread; any number of threads may call at once. Each keeps 3.8 MiB of scratch until it ends. */
linalg_product gemm_int16;

/* gemm_int16 where it is faster, else linalg_gemm. */
linalg_product *gemm_int16_or_float(void);

/* For tests: the path of every later call of the process; one that the processor lacks is the next below. */
typedef enum { GEMM_INT16_BEST, GEMM_INT16_AVX2, GEMM_INT16_FLOAT } gemm_int16_path;
void gemm_int16_force(gemm_int16_path path);

#endif
