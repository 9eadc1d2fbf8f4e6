/* logits.h - one row of logits x [n] as a distribution: ln p(v) = x[v] - logits_log_sum(x, n). */
#ifndef BITPAIR_LOGITS_H
#define BITPAIR_LOGITS_H

#include "base.h"

enum { LOGITS_MOST = 1 << 24 /* floats of one batch of rows: 64 MiB */ };

/* Rows of `vocab` logits that a batch may have, 1..chunk. */
size_t logits_batch(size_t chunk, size_t vocab);

/* The index of the highest, the first of equals; n >= 1. */
size_t logits_best(const float *x, size_t n);

/* ln sum_v exp(x[v]), in double, about the highest; summed in a fixed order. */
double logits_log_sum(const float *x, size_t n);

/* sum_v p(v) (ln p(v) - ln q(v)) in nats: p, q [n] logits, log_p, log_q their logits_log_sum. */
double logits_divergence(const float *p, double log_p, const float *q, double log_q, size_t n);

#endif
