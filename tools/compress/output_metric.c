#include "output_metric.h"

#include <math.h>
#include <stdlib.h>

/* Outputs whose gradient is below this share of the mean are treated as if they had it. */
static const double SILENT = 1e-8;

bool output_metric_open(output_metric *o, const float *weights, size_t n, bp_err *e) {
    *o = (output_metric){.n = n};
    o->root = malloc(2 * n * sizeof *o->root);
    if (!o->root) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of %zu outputs", n);
    o->mu = o->root + n;
    for (size_t i = 0; i < n; i++) {
        o->root[i] = weights ? sqrtf(weights[i]) : 1;
        o->mu[i] = 1;
    }
    return true;
}

static bool take_correlations(output_block *b, const float *G, float damping) {
    size_t n = b->n;
    double mean = 0;
    for (size_t i = 0; i < n; i++) mean += (double)G[output_metric_row(i, n)] / (double)n;
    if (!(mean - mean == 0)) return false;
    double floor = mean > 0 ? SILENT * mean : 1;
    for (size_t i = 0; i < n; i++) {
        const float *row = G + output_metric_row(i, n);
        double own = fmax((double)row[0], floor);
        b->R[i * n + i] = 1;
        for (size_t j = i + 1; j < n; j++) {
            double scale = sqrt(own * fmax((double)G[output_metric_row(j, n)], floor)) * (1 + (double)damping);
            b->R[i * n + j] = b->R[j * n + i] = (float)((double)row[j - i] / scale);
        }
    }
    return true;
}

bool output_metric_add(output_metric *o, size_t first, size_t n, const float *G, float damping, bp_err *e) {
    float *memory = malloc(2 * n * n * sizeof *memory);
    if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of %zu outputs", n);
    output_block *b = &o->blocks[o->n_blocks++];
    *b = (output_block){first, n, memory, memory + n * n};
    if (take_correlations(b, G, damping)) {
        memcpy(b->Q, b->R, n * n * sizeof *b->Q);
        if (linalg_eigh(b->Q, o->mu + first, n)) return true;
    }
    return bp_fail(e, BP_ERR_ARGUMENT, 0, "the second moments of the gradients are not finite, or memory is short");
}

void output_metric_close(output_metric *o) {
    for (size_t i = 0; i < o->n_blocks; i++) free(o->blocks[i].R);
    free(o->root);
    *o = (output_metric){0};
}

/* R or Q of each block, transposed or not, times its rows of X; other rows are copied. */
static void by_blocks(workers *w, linalg_product *product, const output_metric *o, bool basis, bool transposed,
                      float *out, const float *X, size_t columns) {
    size_t at = 0;
    for (size_t i = 0; i < o->n_blocks; i++) {
        const output_block *b = &o->blocks[i];
        size_t from = b->first * columns;
        memcpy(out + at, X + at, (from - at) * sizeof *out);
        workers_gemm_by(w, product, transposed, false, b->n, columns, b->n, 1, basis ? b->Q : b->R, b->n, X + from,
                        columns, 0, out + from, columns);
        at = from + b->n * columns;
    }
    memcpy(out + at, X + at, (o->n * columns - at) * sizeof *out);
}

void output_metric_apply(workers *w, linalg_product *product, const output_metric *o, float *out, const float *X,
                         size_t columns) {
    by_blocks(w, product, o, false, false, out, X, columns);
}

void output_metric_turn(workers *w, linalg_product *product, const output_metric *o, output_turn turn, float *out,
                        const float *X, size_t columns) {
    by_blocks(w, product, o, true, turn == OUTPUT_INTO_BASIS, out, X, columns);
}
