/* tridiagonal.h - symmetric tridiagonal systems, many at once: what is left of a Sylvester equation S F M + rho F = Y
 * once S is tridiagonal and M diagonal. */
#ifndef BITPAIR_TRIDIAGONAL_H
#define BITPAIR_TRIDIAGONAL_H

#include "base.h"

/* S = P' T P for symmetric S [n, n] (its upper triangle is read), T tridiagonal with the diagonal d [n] and e [n - 1]
 * beside it; S is overwritten by P, which has orthonormal rows. A fraction of the work of linalg_eigh. false where S is
 * not finite or memory is short. Runs on the calling thread. */
bool tridiagonal_reduce(float *S, float *d, float *e, size_t n);

/* X [n, w] (row stride ldx): column j <- (scale[j] T + shift I)^-1 of it, for systems that are positive definite.
 * inverse [n, w] is scratch. A column's result depends on that column alone. */
void tridiagonal_solve(const float *d, const float *e, size_t n, const float *scale, float shift, float *X, size_t ldx,
                       size_t w, float *inverse);

#endif
