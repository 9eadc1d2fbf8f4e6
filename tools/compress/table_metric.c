#include "table_metric.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/linalg.h"
#include "mathf.h"
#include "pack.h"
#include "tune/vector.h"

static const float DAMPING = 0.01f; /* of the mean of H's diagonal */
static const float CELL = 0.99f;    /* how far from a level, in scales, a value is still surely rounded to it */

/* ---- the metric ------------------------------------------------------------------------------------------------- */

/* t->order <- the columns by falling diagonal of t->H */
static void find_order(table_metric *t) {
    size_t m = t->m;
    for (size_t j = 0, at; j < m; j++) {
        for (at = j; at > 0 && t->H[t->order[at - 1] * (m + 1)] < t->H[j * m + j]; at--)
            t->order[at] = t->order[at - 1];
        t->order[at] = j;
    }
}

/* In that order H = U D U', U upper triangular with unit diagonal; row k of coupling is column k of U. Cholesky finds it
 * from the last column on: L L' = H with the order turned round, U_ak = L_(a' k') / L_(k' k'), a' = m - 1 - a. */
static bool find_coupling(table_metric *t, float *L, bp_err *e) {
    size_t m = t->m;
    for (size_t i = 0; i < m; i++)
        for (size_t j = 0; j < m; j++) L[i * m + j] = t->H[t->order[m - 1 - i] * m + t->order[m - 1 - j]];
    if (!linalg_cholesky(L, m)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the metric of a table is not positive definite");
    for (size_t k = 0; k < m; k++) {
        const float *column = L + (m - 1 - k);
        for (size_t a = 0; a < k; a++) t->coupling[k * m + a] = column[(m - 1 - a) * m] / column[(m - 1 - k) * m];
    }
    return true;
}

bool table_metric_restore(table_metric *t, const float *H, size_t m, bp_err *e) {
    float *L = malloc(m * m * sizeof *L);
    *t = (table_metric){.m = m};
    t->H = malloc(m * m * sizeof *t->H);
    t->coupling = calloc(m * m, sizeof *t->coupling);
    t->order = malloc(m * sizeof *t->order);
    bool ok = L && t->H && t->coupling && t->order;
    if (ok) {
        memcpy(t->H, H, m * m * sizeof *t->H);
        find_order(t);
        ok = find_coupling(t, L, e);
    } else
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of a table of %zu columns", m);
    free(L);
    if (!ok) table_metric_close(t);
    return ok;
}

bool table_metric_open(table_metric *t, const float *H, size_t m, bp_err *e) {
    double mean = 0;
    *t = (table_metric){0};
    for (size_t j = 0; j < m; j++) mean += (double)H[j * m + j] / (double)m;
    if (!(mean - mean == 0)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the metric of a table is not finite");
    float unit = mean > 0 ? (float)(1 / mean) : 0, *damped = malloc(m * m * sizeof *damped);
    if (!damped) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of a table of %zu columns", m);
    for (size_t i = 0; i < m * m; i++) damped[i] = unit * H[i] + (i % (m + 1) == 0 ? DAMPING : 0);
    bool ok = table_metric_restore(t, damped, m, e);
    free(damped);
    return ok;
}

void table_metric_close(table_metric *t) {
    free(t->H);
    free(t->coupling);
    free(t->order);
    *t = (table_metric){0};
}

static bool open_tied(table_metric *t, const model *m, const float *H_embedding, const float *H_head, bp_err *e) {
    size_t d = m->config.d_model;
    float *both = malloc(d * d * sizeof *both);
    if (!both) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the metric of the embedding");
    for (size_t i = 0; i < d * d; i++) both[i] = H_embedding[i] + H_head[i];
    bool ok = table_metric_open(t, both, d, e);
    free(both);
    return ok;
}

bool table_metrics_open(table_metric metrics[2], const model *m, const float *H_embedding, const float *H_head,
                        bp_err *e) {
    size_t d = m->config.d_model;
    metrics[0] = metrics[1] = (table_metric){0};
    if (m->head.rows == m->embedding.rows) return open_tied(&metrics[0], m, H_embedding, H_head, e);
    if (table_metric_open(&metrics[0], H_embedding, d, e) && table_metric_open(&metrics[1], H_head, d, e)) return true;
    table_metric_close(&metrics[0]);
    return false;
}

/* ---- rounding --------------------------------------------------------------------------------------------------- */

/* Row k of the coupling serves all rows of the call while it is near. (26) */
void table_metric_round(const table_metric *t, size_t count, uint32_t planes, const float *x, const float *scales,
                        float *q, float *wrong) {
    size_t m = t->m, blocks = bp_ceil_div(m, KERNEL_BLOCK);
    int top = (1 << planes) - 1;
    for (size_t k = 0; k < m; k++) {
        size_t column = t->order[k];
        for (size_t i = 0; i < count; i++) {
            float scale = scales[i * blocks + column / KERNEL_BLOCK], value = x[i * m + column];
            float aim = value + vector_dot(wrong + i * m, t->coupling + k * m, k);
            float level = scale > 0 ? (float)pack_nearest_odd(aim / scale, top) : 1;
            q[i * m + column] = level;
            wrong[i * m + k] = value - scale * level;
        }
    }
}

/* The value nearest to x that is rounded to level; what is rounded to the outermost ones has no bound. */
static float into_cell(float x, float level, float scale, float top) {
    float low = (level - CELL) * scale, high = (level + CELL) * scale;
    return x < low && level > -top ? low : x > high && level < top ? high : x;
}

void table_metric_place(const table_metric *t, size_t count, uint32_t planes, float *x, const float *scales,
                        const float *q, float *wrong) {
    size_t m = t->m, blocks = bp_ceil_div(m, KERNEL_BLOCK);
    float top = (float)((1u << planes) - 1);
    for (size_t k = 0; k < m; k++) {
        size_t column = t->order[k];
        for (size_t i = 0; i < count; i++) {
            float scale = scales[i * blocks + column / KERNEL_BLOCK], level = q[i * m + column];
            float taken = vector_dot(wrong + i * m, t->coupling + k * m, k);
            float value =
                scale > 0 ? into_cell(x[i * m + column] + taken, level, scale, top) - taken : x[i * m + column];
            x[i * m + column] = value;
            wrong[i * m + k] = value - scale * level;
        }
    }
}
