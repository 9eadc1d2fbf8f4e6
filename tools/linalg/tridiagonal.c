#include "tridiagonal.h"

#include <stdlib.h>

/* LAPACK's Fortran entry points. Its columns are rows here: "L" reads the upper triangle, and the Q of S = Q T Q' that
 * it leaves by columns is P = Q' by rows. */
void ssytrd_(const char *uplo, const int *n, float *A, const int *lda, float *d, float *e, float *tau, float *work,
             const int *lwork, int *info);
void sorgtr_(const char *uplo, const int *n, float *A, const int *lda, const float *tau, float *work, const int *lwork,
             int *info);

bool tridiagonal_reduce(float *S, float *d, float *e, size_t n) {
    enum { BLOCK = 64 }; /* room for the widest blocks that LAPACK works by */
    for (size_t i = 0; i < n * n; i++)
        if (!(S[i] - S[i] == 0)) return false;
    int order = (int)n, info = 0, lwork = (int)n * BLOCK;
    float *tau = malloc(n * (1 + BLOCK) * sizeof *tau);
    if (!tau) return false;
    ssytrd_("L", &order, S, &order, d, e, tau, tau + n, &lwork, &info);
    if (info == 0) sorgtr_("L", &order, S, &order, tau, tau + n, &lwork, &info);
    free(tau);
    return info == 0;
}

/* L D L' of every system: D's inverses are kept, L follows from them. */
void tridiagonal_solve(const float *d, const float *e, size_t n, const float *scale, float shift, float *X, size_t ldx,
                       size_t w, float *inverse) {
    for (size_t j = 0; j < w; j++) inverse[j] = 1 / (scale[j] * d[0] + shift);
    for (size_t i = 1; i < n; i++) {
        const float *before = inverse + (i - 1) * w, *above = X + (i - 1) * ldx, di = d[i], ei = e[i - 1];
        float *now = inverse + i * w, *x = X + i * ldx;
        for (size_t j = 0; j < w; j++) {
            const float beside = scale[j] * ei, l = beside * before[j];
            now[j] = 1 / (scale[j] * di + shift - l * beside);
            x[j] -= l * above[j];
        }
    }
    for (size_t j = 0; j < w; j++) X[(n - 1) * ldx + j] *= inverse[(n - 1) * w + j];
    for (size_t i = n - 1; i-- > 0;) {
        const float *now = inverse + i * w, *below = X + (i + 1) * ldx, ei = e[i];
        float *x = X + i * ldx;
        for (size_t j = 0; j < w; j++) x[j] = now[j] * (x[j] - scale[j] * ei * below[j]);
    }
}
