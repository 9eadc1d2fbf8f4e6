/* pack.h - matrices as a file stores them: signs and bit planes in tile16 (docs/FORMAT.md), and tables (embedding,
 * head) rounded to bit planes. */
#ifndef BITPAIR_PACK_H
#define BITPAIR_PACK_H

#include "linear.h"
#include "workers.h"

/* Bytes of a [rows, columns] matrix of `planes` bit planes in tile16. */
size_t pack_bytes(size_t rows, size_t columns, uint32_t planes);

/* tile16 [pack_bytes(rows, columns, 1)] <- signs S [rows, columns]: bit 1 where S >= 0. Padding bits are 0. */
void pack_signs(uint8_t *out, const float *S, size_t rows, size_t columns);

/* The inverse: S = +1 or -1. */
void pack_unpack_signs(float *S, const uint8_t *bytes, size_t rows, size_t columns);

/* How a file stores n scales: in half precision, or, with `eight`, in 8.5 bits each (Q8_0) where n is a multiple of 32. */
uint32_t pack_scales_type(bool eight, size_t n);
size_t pack_scales_bytes(uint32_t type, size_t n);

/* out [pack_scales_bytes] <- x [n], rounded; what quant_dequantize makes of them is rounded to the same bytes again. */
void pack_scales(uint8_t *out, uint32_t type, const float *x, size_t n);

/* x [n] <- what a file holds of factor x. */
void pack_round_scales(float *x, double factor, bool eight, size_t n);

/* The odd integer nearest to x in [-top, top]; top is odd. */
int pack_nearest_odd(float x, int top);

/* The best scale in half precision for x [n] as odd multiples below 2^planes of it: sum weight (x - scale q)^2 is least
 * of what several starts find. weight NULL: 1. 0 where x is 0. */
float pack_scale(const float *x, const float *weight, size_t n, uint32_t planes);

/* A table W [rows, columns] as bit planes: W ~ scale[row][column / 256] * q, q odd, |q| < 2^planes. */
typedef struct {
    uint32_t planes;
    size_t rows, columns;
    uint8_t *bytes; /* [n_bytes] tile16, 64-byte aligned */
    size_t n_bytes;
    uint16_t *scales; /* half [n_scales] = [rows padded to 16][blocks of 256 columns] */
    size_t n_scales;
    float *widened; /* [n_scales] the same in float, for table_view */
    double error;   /* sum of squared errors / sum of squares, in the metric of the rounding */
} packed_table;

/* Rounds every row of `source` (any kind that linear_row reads). Scales are least-squares fits to the rounded values,
 * from the best of several starts. BP_ERR_MEMORY. */
bool packed_table_make(packed_table *p, workers *w, const linear *source, uint32_t planes, bp_err *e);
void packed_table_free(packed_table *p);

/* From levels [rows, columns], odd and below 2^planes in magnitude, and scales [rows, blocks of 256 columns] that half
 * precision holds. BP_ERR_MEMORY. */
bool packed_table_from_levels(packed_table *p, const int16_t *levels, const float *scales, size_t rows, size_t columns,
                              uint32_t planes, bp_err *e);

/* The table as a layer that linear_row can read; p must outlive it. */
linear packed_table_view(const packed_table *p);

#endif
