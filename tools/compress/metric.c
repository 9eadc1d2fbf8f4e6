#include "metric.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/linalg.h"

/* Channels below this share of the mean second moment are treated as if they had it: their weights hardly act, and 1/S
 * stays finite. */
static const double CHANNEL_FLOOR = 1e-8;

static bool take_scales(metric *t, const float *H) {
    double sum = 0;
    for (size_t j = 0; j < t->m; j++) sum += H[j * t->m + j];
    double mean = sum / (double)t->m;
    if (!(mean - mean == 0)) return false;
    t->mean = mean > 0 ? (float)mean : 1;
    for (size_t j = 0; j < t->m; j++) {
        double share = H[j * t->m + j] / (double)t->mean;
        t->scale[j] = (float)sqrt(share > CHANNEL_FLOOR ? share : CHANNEL_FLOOR);
        t->mu[j] = 1;
    }
    return true;
}

static bool take_apart(metric *t, const float *H) {
    size_t m = t->m;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++) t->M0[i * m + j] = H[i * m + j] / (t->scale[i] * t->scale[j] * t->mean);
    memcpy(t->Q, t->M0, m * m * sizeof *t->Q);
    if (!linalg_eigh(t->Q, t->mu, m)) return false;
    for (size_t j = 0; j < m; j++) t->mu[j] = t->mu[j] > 0 ? t->mu[j] : 0; /* rounding */
    return true;
}

bool metric_open(metric *t, const float *H, size_t m, bool full, bp_err *e) {
    *t = (metric){.m = m};
    t->scale = malloc(m * sizeof *t->scale);
    t->mu = malloc(m * sizeof *t->mu);
    if (full) {
        t->M0 = malloc(m * m * sizeof *t->M0);
        t->Q = malloc(m * m * sizeof *t->Q);
    }
    bool memory = t->scale && t->mu && (!full || (t->M0 && t->Q));
    if (memory && take_scales(t, H) && (!full || take_apart(t, H))) return true;
    metric_close(t);
    return memory
               ? bp_fail(e, BP_ERR_ARGUMENT, 0, "the second moments of the inputs are not finite, or memory is short")
               : bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of %zu channels", m);
}

void metric_close(metric *t) {
    free(t->scale);
    free(t->M0);
    free(t->Q);
    free(t->mu);
    *t = (metric){0};
}

void metric_scale(const metric *t, float *out, const float *V, size_t n) {
    for (size_t i = 0; i < n; i++)
        for (size_t j = 0; j < t->m; j++) out[i * t->m + j] = V[i * t->m + j] * t->scale[j];
}

void metric_apply(workers *w, const metric *t, float damping, float *out, const float *X, size_t n) {
    float kept = t->M0 ? damping : 1 + damping;
    for (size_t i = 0; i < n * t->m; i++) out[i] = kept * X[i];
    if (t->M0) workers_gemm(w, false, false, n, t->m, t->m, 1, X, t->m, t->M0, t->m, 1, out, t->m);
}

void metric_rotate(workers *w, linalg_product *product, const metric *t, float *out, const float *X, size_t n) {
    if (t->Q)
        workers_gemm_by(w, product, false, false, n, t->m, t->m, 1, X, t->m, t->Q, t->m, 0, out, t->m);
    else
        memcpy(out, X, n * t->m * sizeof *out);
}
