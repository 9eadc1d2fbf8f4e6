/* linalg.h - the dense algebra of the tool, one narrow header: row-major float32 matrices, BLAS and LAPACK behind it.
 * Every call runs on the calling thread alone (one-thread BLAS), so results do not depend on how many threads call at
 * once. */
#ifndef BITPAIR_LINALG_H
#define BITPAIR_LINALG_H

#include "base.h"

/* Once per process, before any other call: BLAS uses one thread per call. */
void linalg_init(void);

/* OpenBLAS chooses its kernels while it is loaded, and takes older ones on processors younger than itself: AVX2 on
 * Zen 5, SSE3 on the fifth generation of Xeons (0.3.21; a half and a fifth of the speed). Where this processor has
 * AVX-512 or AVX2 and BLAS does not use it, starts the program anew with OPENBLAS_CORETYPE set; returns otherwise, or if
 * that fails. Call it first in main. */
void linalg_restart_with_best(char **argv);

/* C [m, n] (ldc) = alpha * op(A) op(B) + beta * C; op transposes when the flag is set. lda, ldb, ldc are row strides.
 * */
typedef void linalg_product(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A,
                            size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);
linalg_product linalg_gemm;

/* Copies the upper triangle of a [n, n] to the lower. */
void linalg_mirror(float *H, size_t n);

/* Eigen decomposition of symmetric S [n, n]: S = Q diag(mu) Q', columns of Q are the vectors; S is overwritten by Q
 * (row-major: Q[i*n+j] = i-th component of vector j), mu ascending. false if LAPACK fails (non-finite input). */
bool linalg_eigh(float *S, float *mu, size_t n);

/* S = L L' for symmetric positive definite S [n, n]: its lower triangle is replaced by that of L, the upper one stays.
 * false if S is not positive definite. */
bool linalg_cholesky(float *S, size_t n);

/* Cholesky solve: X [n, r] <- S^-1 X for symmetric positive definite S [n, n] (overwritten by its factor). false if S
 * is not positive definite. */
bool linalg_solve_spd(float *S, float *X, size_t n, size_t r);

/* S [n, n] <- S^-1 for symmetric positive definite S, both triangles read and written. false if S is not positive
 * definite. */
bool linalg_invert_spd(float *S, size_t n);

#endif
