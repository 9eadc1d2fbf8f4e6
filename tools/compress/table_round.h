/* table_round.h - embedding and head rounded to bit planes so that the words change least: not the error of each entry
 * counts, but that of what the network makes of it (docs/DBF.md (25), (26)). */
#ifndef BITPAIR_TABLE_ROUND_H
#define BITPAIR_TABLE_ROUND_H

#include "model.h"
#include "pack.h"
#include "table_metric.h"

/* Rounds in the metric (table_metric.h), fits the scales to the levels in it by least squares, and rounds once more with
 * these. p->error is relative to sum x' H x. The same bytes at any number of threads. BP_ERR_MEMORY. */
uint64_t table_round_bytes(size_t rows, size_t columns, uint32_t threads); /* beside the result, metric included */
bool table_round(packed_table *p, workers *w, const linear *source, uint32_t planes, const table_metric *metric,
                 bp_err *e);

/* Embedding and head of a dense model, a tied one once (*head stays empty); H_embedding, H_head as table_metrics_open
 * takes them. NULL for both: packed_table_make, every entry counts the same. The tables must be empty before. */
bool table_round_model(packed_table *embedding, packed_table *head, workers *w, const model *m, uint32_t planes,
                       const float *H_embedding, const float *H_head, bp_err *e);

#endif
