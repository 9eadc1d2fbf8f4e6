/* table.h - a trainable embedding or head: a latent value for every entry, which the network sees rounded to the bit
 * planes of the file (scales stay as they are) and to which the gradient of the rounded value is passed on.
 *
 *     m = beta1 m + (1 - beta1) g,   v_r = beta2 v_r + (1 - beta2) mean_j g_rj^2        (one v for a row)
 *     latent -= rate size m^ / (sqrt(v^_r) + FLOOR sqrt(mean_r v^_r))                                docs/DBF.md (24)
 *
 * Rows of rare words have small and noisy gradients; the floor keeps their steps small too. Rounding is that of
 * compress/table_metric.h: the network sees the latent row but for an error that is small in what it makes of it. */
#ifndef BITPAIR_TABLE_H
#define BITPAIR_TABLE_H

#include "compress/pack.h"
#include "compress/table_metric.h"

typedef struct {
    workers *w;
    size_t rows, columns, blocks; /* blocks of scales in a row */
    uint32_t planes;
    table_metric metric; /* of the rounding; the table's own */
    float *scales;       /* [rows, blocks] */
    float *latent;       /* [rows, columns] */
    float *mean;         /* [rows, columns] m */
    float *square;       /* [rows] v */
    float *gradient;     /* [rows, columns] of the current step: the caller fills it */
    float *rounded;      /* [rows, columns] the caller's: what the network sees */
    float *scratch;      /* of each worker */
    int16_t *best;       /* [rows, columns] roundings that were kept, in units of the scale */
    float size;          /* mean magnitude of the latent values at the start */
    uint32_t steps;
} tuned_table;

/* Bytes that table_open and the metric take. */
uint64_t table_bytes(size_t rows, size_t columns, uint32_t threads);

/* Memory for a table of planes; scales, latent and rounded values and the metric come from table_begin or from the state
 * of an earlier run. BP_ERR_MEMORY. */
bool table_open(tuned_table *t, workers *w, size_t rows, size_t columns, uint32_t planes, float *rounded, bp_err *e);
void table_close(tuned_table *t);

/* Scales and rounded values: those of `stored`, a table of so many planes. Latent values: near those of the teacher's table
 * [rows, columns], what is rounded to `stored` in the metric, which passes to t. BP_ERR_MEMORY. */
bool table_begin(tuned_table *t, const linear *stored, const float *teacher, table_metric *metric, bp_err *e);

/* One step from t->gradient. */
void table_step(tuned_table *t, float rate, float beta1, float beta2);

/* best <- the present roundings. */
void table_keep(tuned_table *t);

/* p (closed before) <- the kept roundings as they are stored. BP_ERR_MEMORY. */
bool table_pack(const tuned_table *t, packed_table *p, bp_err *e);

#endif
