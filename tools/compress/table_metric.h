/* table_metric.h - rounding rows of a table column after column, so that errors stay small in a metric H:
 *
 *     minimise (x - y)' H (x - y) for every row x,   y = scale[column / 256] * q,   q odd, |q| < 2^planes
 *
 * Columns of large H come first; every column takes up the errors of those before it as far as H couples them (LDLQ,
 * docs/DBF.md (26)). */
#ifndef BITPAIR_TABLE_METRIC_H
#define BITPAIR_TABLE_METRIC_H

#include <stddef.h>

#include "model.h"

typedef struct {
    size_t m;
    float *H;        /* [m, m] at mean diagonal 1, damped by 0.01 of it */
    float *coupling; /* [m, m] row k: how much of the error of the first k columns (in order) column k takes up */
    size_t *order;   /* [m] columns by falling H */
} table_metric;

/* H: symmetric [m, m], positive semidefinite. BP_ERR_MEMORY; BP_ERR_ARGUMENT where it is not finite or not definite. */
bool table_metric_open(table_metric *t, const float *H, size_t m, bp_err *e);
void table_metric_close(table_metric *t);

/* The metric whose t->H this was; errors as above. */
bool table_metric_restore(table_metric *t, const float *H, size_t m, bp_err *e);

/* Metrics of embedding and head of a dense model; of a tied one the first alone, the second stays empty. H_embedding, H_head
 * [d_model, d_model]: second moments of the gradient at the embedding's output, of the head's input / 2 (25). */
bool table_metrics_open(table_metric metrics[2], const model *m, const float *H_embedding, const float *H_head,
                        bp_err *e);

/* q <- levels of rows x. x, q, wrong [count, m] (wrong is scratch); scales [count, blocks of 256 columns], where one is 0 q is 1. */
void table_metric_round(const table_metric *t, size_t count, uint32_t planes, const float *x, const float *scales,
                        float *q, float *wrong);

/* The inverse: x <- near x (column after column the nearest) what is rounded to q. */
void table_metric_place(const table_metric *t, size_t count, uint32_t planes, float *x, const float *scales,
                        const float *q, float *wrong);

#endif
