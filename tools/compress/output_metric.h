/* output_metric.h - how errors of a layer's outputs weigh in its factorization: the second moments of the gradient of
 * the loss at them (docs/DBF.md (21)), as a diagonal and, for blocks of outputs, correlations.
 *
 *     G [n, n] = diag(root) R diag(root),   R = (correlations + damping I) / (1 + damping) = Q diag(mu) Q'
 *
 * R is the identity between blocks and outside of them. The error of an approximation V of W is
 * tr(G (W-V) H (W-V)'). */
#ifndef BITPAIR_OUTPUT_METRIC_H
#define BITPAIR_OUTPUT_METRIC_H

#include "workers.h"

enum { OUTPUT_BLOCKS = 3 };

typedef struct {
    size_t first, n;
    float *R; /* [n, n] */
    float *Q; /* [n, n], eigenvectors in columns */
} output_block;

typedef struct {
    size_t n;
    float *root; /* [n] sqrt of the weights */
    float *mu;   /* [n] eigenvalues of R, block by block; 1 outside of blocks */
    size_t n_blocks;
    output_block blocks[OUTPUT_BLOCKS];
} output_metric;

/* The diagonal alone: weights [n], NULL: all 1. BP_ERR_MEMORY. */
bool output_metric_open(output_metric *o, const float *weights, size_t n, bp_err *e);

/* Correlations of outputs first .. first + n, from a multiple of their second moments, G [n (n + 1) / 2]: the upper
 * triangle row after row. BP_ERR_MEMORY, or BP_ERR_ARGUMENT where G is not finite. */
bool output_metric_add(output_metric *o, size_t first, size_t n, const float *G, float damping, bp_err *e);
void output_metric_close(output_metric *o);

/* Where row i of such a triangle begins, with its diagonal. */
static inline size_t output_metric_row(size_t i, size_t n) { return i * n - i * (i - 1) / 2; }

/* out [n, columns] = R X by `product`; outside of blocks a copy. out must not be X. */
void output_metric_apply(workers *w, linalg_product *product, const output_metric *o, float *out, const float *X,
                         size_t columns);

/* The same with Q' X, into the eigenbasis of R, or Q X, from it. */
typedef enum { OUTPUT_INTO_BASIS, OUTPUT_FROM_BASIS } output_turn;
void output_metric_turn(workers *w, linalg_product *product, const output_metric *o, output_turn turn, float *out,
                        const float *X, size_t columns);

#endif
