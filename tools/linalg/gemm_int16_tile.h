/* gemm_int16_tile.h - the two inner steps of gemm_int16, one file per instruction set: packing and the product of
 * packed panels, for gemm_blocks.h. */
#ifndef BITPAIR_GEMM_INT16_TILE_H
#define BITPAIR_GEMM_INT16_TILE_H

#include "gemm_blocks.h"

/* A tile of C lives in registers: 12 of 16 hold sums. */
enum { GEMM_INT16_ROWS = 6, GEMM_INT16_COLS = 16 };

/* A panel has room for whole registers: 8 words beside each other for 6 rows. */
enum { GEMM_INT16_LANES = 8 };

/* Most of a block of k (gemm_int16.h). */
enum { GEMM_INT16_DEPTH = 576 };

/* Words of a packed block of `count` vectors, a multiple of `width`. */
#define GEMM_INT16_WORDS(count, width)                                                                                 \
    ((count) / (width) * ((width) + GEMM_INT16_LANES - 1) / GEMM_INT16_LANES * GEMM_INT16_LANES *                      \
     (GEMM_INT16_DEPTH / 2 + 1))

/* Panels of `width` vectors, in pairs along k, as the multiplication takes them, followed by their scales:
 *     out [ceil(count / width)][ceil(k / 2) + 1][width rounded up to 8],
 * each word a pair of integers (even k in the low half; zero where an odd k has no partner), in the last row of a panel
 * the float that they are multiples of. width is GEMM_INT16_ROWS or GEMM_INT16_COLS; out is 64-aligned. */
void gemm_int16_pack_avx2(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* C [m, n] (ldc) = alpha * A B + beta * C for packed A (panels of GEMM_INT16_ROWS) and B (of GEMM_INT16_COLS) over k;
 * C is not read when beta is 0. */
void gemm_int16_product_avx2(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                             float alpha, float beta);

#endif
