#include "linalg.h"

#include <cblas.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* LAPACK's Fortran entry points, which OpenBLAS carries; matrices are column-major there, which for the symmetric ones
 * used here only exchanges the names of the triangles. */
void ssyevd_(const char *job, const char *uplo, const int *n, float *A, const int *lda, float *w, float *work,
             const int *lwork, int *iwork, const int *liwork, int *info);
void spotrf_(const char *uplo, const int *n, float *A, const int *lda, int *info);
void spotri_(const char *uplo, const int *n, float *A, const int *lda, int *info);

void linalg_init(void) { openblas_set_num_threads(1); }

#ifdef __x86_64__
static bool one_of(const char *name, const char *const *names) {
    while (*names && strcmp(name, *names) != 0) names++;
    return *names != NULL;
}
#endif

void linalg_restart_with_best(char **argv) {
#ifdef __x86_64__
    static const char *const with_avx512[] = {"SkylakeX", "Cooperlake", "SapphireRapids", NULL};
    static const char *const with_avx2[] = {"SkylakeX", "Cooperlake", "SapphireRapids", "Haswell", "Zen", NULL};
    const char *core = openblas_get_corename(), *better = NULL;
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl")) {
        if (!one_of(core, with_avx512)) better = "SKYLAKEX";
    } else if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && !one_of(core, with_avx2)) {
        better = "HASWELL";
    }
    if (!better || getenv("OPENBLAS_CORETYPE")) return; /* also what ends the second start */
    if (setenv("OPENBLAS_CORETYPE", better, 0) == 0) execv("/proc/self/exe", argv);
#else
    (void)argv;
#endif
}

void linalg_gemm(bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha, const float *A, size_t lda,
                 const float *B, size_t ldb, float beta, float *C, size_t ldc) {
    if (m == 0 || n == 0) return;
    cblas_sgemm(CblasRowMajor, trans_a ? CblasTrans : CblasNoTrans, trans_b ? CblasTrans : CblasNoTrans, (int)m, (int)n,
                (int)k, alpha, A, (int)lda, B, (int)ldb, beta, C, (int)ldc);
}

void linalg_mirror(float *H, size_t n) {
    enum { TILE = 32 }; /* both triangles of a tile pair stay in the first-level cache */
    for (size_t i0 = 0; i0 < n; i0 += TILE)
        for (size_t j0 = i0; j0 < n; j0 += TILE)
            for (size_t i = i0; i < bp_min(i0 + TILE, n); i++)
                for (size_t j = bp_max(j0, i + 1); j < bp_min(j0 + TILE, n); j++) H[j * n + i] = H[i * n + j];
}

static void transpose_in_place(float *S, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = i + 1; j < n; j++) {
            float t = S[i * n + j];
            S[i * n + j] = S[j * n + i];
            S[j * n + i] = t;
        }
}

bool linalg_eigh(float *S, float *mu, size_t n) {
    int order = (int)n, info = 0;
    int lwork = (int)(1 + 6 * n + 2 * n * n), liwork = (int)(3 + 5 * n);
    for (size_t i = 0; i < n * n; i++)
        if (!(S[i] - S[i] == 0)) return false; /* LAPACK may loop on NaN */
    float *work = malloc((size_t)lwork * sizeof *work);
    int *iwork = malloc((size_t)liwork * sizeof *iwork);
    if (work && iwork) ssyevd_("V", "L", &order, S, &order, mu, work, &lwork, iwork, &liwork, &info);
    bool ok = work && iwork && info == 0;
    free(work);
    free(iwork);
    if (ok) transpose_in_place(S, n); /* LAPACK's columns are rows here */
    return ok;
}

bool linalg_cholesky(float *S, size_t n) {
    int order = (int)n, info = 0;
    spotrf_("U", &order, S, &order, &info); /* column-major upper = row-major lower */
    return info == 0;
}

bool linalg_solve_spd(float *S, float *X, size_t n, size_t r) {
    int order = (int)n;
    if (!linalg_cholesky(S, n)) return false;
    cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasNoTrans, CblasNonUnit, order, (int)r, 1.0f, S, order, X,
                (int)r);
    cblas_strsm(CblasRowMajor, CblasLeft, CblasLower, CblasTrans, CblasNonUnit, order, (int)r, 1.0f, S, order, X,
                (int)r);
    return true;
}

bool linalg_invert_spd(float *S, size_t n) {
    int order = (int)n, info = 0;
    spotrf_("L", &order, S, &order, &info); /* column-major lower = row-major upper */
    if (info == 0) spotri_("L", &order, S, &order, &info);
    if (info != 0) return false;
    linalg_mirror(S, n);
    return true;
}
