/* linalg and rng: against definitions, on matrices whose answers are known. */
#include "check.h"

#include <math.h>

#include "linalg/linalg.h"
#include "random.h"
#include "linalg/tridiagonal.h"

enum { N = 61, M = 37 };

static void check_gemm(void) {
    static float A[N * M], B[M * N], C[N * N];
    rng r = rng_named(1, "gemm");
    rng_fill_normal(&r, A, N * M);
    rng_fill_normal(&r, B, M * N);
    linalg_gemm(false, false, N, N, M, 2, A, M, B, N, 0, C, N);
    linalg_gemm(true, true, N, N, M, -1, B, N, A, M, 1, C, N); /* (AB)' is B'A': C = 2 AB - (AB)' */
    double worst = 0;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            double ab = 0, ba = 0;
            for (size_t k = 0; k < M; k++) {
                ab += (double)A[i * M + k] * B[k * N + j];
                ba += (double)A[j * M + k] * B[k * N + i];
            }
            worst = fmax(worst, fabs((double)C[i * N + j] - 2 * ab + ba));
        }
    CHECK(worst < 1e-4, "gemm differs by %g", worst);
}

/* A well-conditioned symmetric positive definite matrix. */
static void make_spd(float *S, size_t n, const char *name) {
    static float X[3 * N * N];
    rng r = rng_named(2, name);
    rng_fill_normal(&r, X, 3 * n * n);
    linalg_gemm(true, false, n, n, 3 * n, 1, X, n, X, n, 0, S, n);
    linalg_mirror(S, n);
}

static void check_eigh(void) {
    static float S[N * N], Q[N * N], mu[N];
    make_spd(S, N, "eigh");
    memcpy(Q, S, sizeof S);
    CHECK(linalg_eigh(Q, mu, N), "failed");
    double worst = 0, orthogonal = 0, order = 0;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            double s = 0, o = 0;
            for (size_t k = 0; k < N; k++) {
                s += (double)Q[i * N + k] * mu[k] * Q[j * N + k];
                o += (double)Q[k * N + i] * Q[k * N + j];
            }
            worst = fmax(worst, fabs(s - (double)S[i * N + j]));
            orthogonal = fmax(orthogonal, fabs(o - (i == j)));
        }
    for (size_t i = 1; i < N; i++) order = fmax(order, (double)(mu[i - 1] - mu[i]));
    CHECK(worst < 1e-3 * (double)mu[N - 1], "Q diag(mu) Q' differs by %g", worst);
    CHECK(orthogonal < 1e-4, "Q'Q differs by %g", orthogonal);
    CHECK(order <= 0, "eigenvalues do not ascend");
    S[3] = NAN;
    CHECK(!linalg_eigh(S, mu, N), "accepts NaN");
}

/* S = P' T P, and systems of scale T + shift I as many as there are, each the same alone. */
static void check_tridiagonal(void) {
    enum { W = 35, WIDE = 40 };
    static float S[N * N], P[N * N], d[N], e[N], X[N * WIDE], right[N * WIDE], alone[N], inverse[N * W], scale[W];
    make_spd(S, N, "tridiagonal");
    memcpy(P, S, sizeof S);
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < i; j++) P[i * N + j] = -9; /* the lower triangle is not read */
    CHECK(tridiagonal_reduce(P, d, e, N), "failed");
    double worst = 0, orthogonal = 0;
    for (size_t i = 0; i < N; i++)
        for (size_t j = 0; j < N; j++) {
            double s = 0, o = 0;
            for (size_t k = 0; k < N; k++) {
                double right_of = k + 1 < N ? (double)e[k] * P[(k + 1) * N + j] : 0,
                       left_of = k > 0 ? (double)e[k - 1] * P[(k - 1) * N + j] : 0;
                s += (double)P[k * N + i] * ((double)d[k] * P[k * N + j] + right_of + left_of);
                o += (double)P[i * N + k] * P[j * N + k];
            }
            worst = fmax(worst, fabs(s - (double)S[i * N + j]));
            orthogonal = fmax(orthogonal, fabs(o - (i == j)));
        }
    CHECK(worst < 1e-3 * (double)S[0], "P'TP differs by %g", worst);
    CHECK(orthogonal < 1e-4, "PP' differs by %g", orthogonal);

    rng r = rng_named(4, "right");
    rng_fill_normal(&r, right, N * WIDE);
    memcpy(X, right, sizeof X);
    for (size_t j = 0; j < W; j++) scale[j] = 0.1f * (float)(j + 1);
    tridiagonal_solve(d, e, N, scale, 0.5f, X, WIDE, W, inverse);
    worst = 0;
    uint32_t others = 0, untouched = 0;
    for (size_t j = 0; j < W; j++) {
        for (size_t i = 0; i < N; i++) {
            double s = ((double)scale[j] * d[i] + 0.5) * X[i * WIDE + j];
            if (i + 1 < N) s += (double)scale[j] * e[i] * X[(i + 1) * WIDE + j];
            if (i > 0) s += (double)scale[j] * e[i - 1] * X[(i - 1) * WIDE + j];
            worst = fmax(worst, fabs(s - (double)right[i * WIDE + j]));
            alone[i] = right[i * WIDE + j];
        }
        tridiagonal_solve(d, e, N, scale + j, 0.5f, alone, 1, 1, inverse);
        for (size_t i = 0; i < N; i++) others += alone[i] != X[i * WIDE + j];
    }
    for (size_t i = 0; i < N; i++)
        for (size_t j = W; j < WIDE; j++) untouched += X[i * WIDE + j] == right[i * WIDE + j];
    CHECK(worst < 1e-3, "the systems differ from their right-hand sides by %g", worst);
    CHECK(others == 0, "%u values depend on other columns", others);
    CHECK(untouched == N * (WIDE - W), "columns past the last are written");
    S[3] = NAN;
    CHECK(!tridiagonal_reduce(S, d, e, N), "accepts NaN");
}

static void check_spd(void) {
    static float S[N * N], inverse[N * N], X[N * 3], kept[N * N], right[N * 3];
    make_spd(S, N, "spd");
    memcpy(kept, S, sizeof S);
    memcpy(inverse, S, sizeof S);
    rng r = rng_named(3, "right");
    rng_fill_normal(&r, right, N * 3);
    memcpy(X, right, sizeof X);
    CHECK(linalg_solve_spd(S, X, N, 3) && linalg_invert_spd(inverse, N), "failed");
    double worst = 0, identity = 0;
    for (size_t i = 0; i < N; i++) {
        for (size_t j = 0; j < 3; j++) {
            double s = 0;
            for (size_t k = 0; k < N; k++) s += (double)kept[i * N + k] * X[k * 3 + j];
            worst = fmax(worst, fabs(s - (double)right[i * 3 + j]));
        }
        for (size_t j = 0; j < N; j++) {
            double s = 0;
            for (size_t k = 0; k < N; k++) s += (double)kept[i * N + k] * inverse[k * N + j];
            identity = fmax(identity, fabs(s - (i == j)));
        }
    }
    CHECK(worst < 1e-3, "S X differs from the right-hand side by %g", worst);
    CHECK(identity < 1e-3, "S S^-1 differs from I by %g", identity);
    kept[5 * N + 5] = -1;
    memcpy(S, kept, sizeof S);
    CHECK(!linalg_solve_spd(S, X, N, 3), "solves an indefinite system");
    CHECK(!linalg_invert_spd(kept, N), "inverts an indefinite matrix");
}

static void check_rng(void) {
    rng a = rng_named(7, "x"), b = rng_named(7, "x"), c = rng_named(7, "y"), d = rng_named(8, "x");
    bool same = true;
    unsigned equal = 0;
    for (int i = 0; i < 100; i++) {
        uint64_t v = rng_next(&a);
        same &= v == rng_next(&b);
        equal += v == rng_next(&c);
        equal += v == rng_next(&d);
    }
    CHECK(same, "the same seed and name give different numbers");
    CHECK(equal == 0, "other seeds or names give the same numbers");
    double sum = 0, square = 0, signs = 0;
    enum { COUNT = 200000 };
    for (int i = 0; i < COUNT; i++) {
        double x = rng_normal(&a);
        float s;
        rng_fill_signs(&a, &s, 1);
        sum += x;
        square += x * x;
        signs += (double)s;
    }
    CHECK(fabs(sum / (double)COUNT) < 0.01 && fabs(square / (double)COUNT - 1) < 0.02, "normals: mean %g, variance %g",
          sum / (double)COUNT, square / (double)COUNT);
    CHECK(fabs(signs / (double)COUNT) < 0.01, "signs: mean %g", signs / (double)COUNT);
}

int main(void) {
    linalg_init();
    check_gemm();
    check_eigh();
    check_tridiagonal();
    check_spd();
    check_rng();
    return check_end();
}
