/* metric.h - the metric in which a layer is factorized: the second moments of its inputs, scaled to unit diagonal and
 * taken apart (docs/DBF.md (2)-(4)).
 *
 *     H [m, m] = mean of x x'        S = diag(sqrt(diag H / mean diag H))       M0 = S^-1 H S^-1 / mean diag H = Q diag(mu) Q'
 *
 * The error of an approximation V of W is tr((W-V) H (W-V)') = mean diag H * |(W-V) S Q diag(sqrt mu)|^2. */
#ifndef BITPAIR_METRIC_H
#define BITPAIR_METRIC_H

#include "workers.h"

typedef struct {
    size_t m;
    float mean;   /* mean diag H */
    float *scale; /* S [m], > 0 */
    float *M0;    /* [m, m]; NULL: the identity (only the diagonal of H counts) */
    float *Q;     /* [m, m], eigenvectors in columns; NULL with M0 */
    float *mu;    /* [m], eigenvalues of M0, >= 0, ascending */
} metric;

/* Builds the metric of H [m, m] (both triangles); full = false keeps its diagonal alone. Channels that never speak get
 * a floor. Fails with BP_ERR_MEMORY, or BP_ERR_ARGUMENT where H is not finite. */
bool metric_open(metric *t, const float *H, size_t m, bool full, bp_err *e);
void metric_close(metric *t);

/* out [n, m] = V S: columns scaled. out may be V. */
void metric_scale(const metric *t, float *out, const float *V, size_t n);

/* out [n, m] = X (M0 + damping I). out must not be X. */
void metric_apply(workers *w, const metric *t, float damping, float *out, const float *X, size_t n);

/* out [n, m] = X Q by `product` (a copy where Q is NULL). out must not be X. */
void metric_rotate(workers *w, linalg_product *product, const metric *t, float *out, const float *X, size_t n);

#endif
