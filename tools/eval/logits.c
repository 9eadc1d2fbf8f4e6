#include "eval/logits.h"

#include "mathf.h"

enum { LANES = 16 /* partial sums: a fixed order that vector units like */ };

size_t logits_batch(size_t chunk, size_t vocab) { return bp_max(1, bp_min(chunk, LOGITS_MOST / vocab)); }

size_t logits_best(const float *x, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

static double add_up(const double sums[LANES]) {
    double sum = 0;
    for (size_t i = 0; i < LANES; i++) sum += sums[i];
    return sum;
}

double logits_log_sum(const float *x, size_t n) {
    double sums[LANES] = {0}, top = (double)x[logits_best(x, n)];
    for (size_t i = 0; i < n; i++) sums[i % LANES] += bp_exp((double)x[i] - top);
    return bp_log(add_up(sums)) + top;
}

double logits_divergence(const float *p, double log_p, const float *q, double log_q, size_t n) {
    double sums[LANES] = {0};
    for (size_t i = 0; i < n; i++) {
        double ln_p = (double)p[i] - log_p, ln_q = (double)q[i] - log_q;
        sums[i % LANES] += bp_exp(ln_p) * (ln_p - ln_q);
    }
    return add_up(sums);
}
