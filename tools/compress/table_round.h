/* table_round.h - embedding and head rounded to bit planes so that the words change least: not the error of each entry
 * counts, but that of what the network makes of it (docs/DBF.md (25), (26)).
 *
 *     minimise (x - y)' H (x - y) for every row x,   y = scale[column / 256] * q,   q odd, |q| < 2^planes
 *
 * H [m, m] holds the second moments of what the table is multiplied with: for a head the normalised last stream, for an
 * embedding the gradient of the loss at its output, for a tied table both. */
#ifndef BITPAIR_TABLE_ROUND_H
#define BITPAIR_TABLE_ROUND_H

#include "model.h"
#include "pack.h"

/* Rounds column after column; every column takes up the errors of those before it as far as H couples them (LDLQ), those
 * of large H first. Scales are then least-squares fits in H, and the rounding is repeated with them.
 * H: symmetric [m, m], positive semidefinite. p->error is relative to sum x' H x. The same bytes at any number of
 * threads. BP_ERR_MEMORY; BP_ERR_ARGUMENT where H is not finite. */
uint64_t table_round_bytes(size_t rows, size_t columns, uint32_t threads); /* beside the result */
bool table_round(packed_table *p, workers *w, const linear *source, uint32_t planes, const float *H, bp_err *e);

/* Embedding and head of a dense model, a tied one once (*head stays empty): H_embedding, H_head [d_model, d_model] as
 * above. NULL for both: packed_table_make, every entry counts the same. The tables must be empty before. */
bool table_round_model(packed_table *embedding, packed_table *head, workers *w, const model *m, uint32_t planes,
                       const float *H_embedding, const float *H_head, bp_err *e);

#endif
