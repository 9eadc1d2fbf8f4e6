/* gemm_integer_tile.h - the two inner steps of gemm_int16 and gemm_int8, per instruction set: packing and the product
 * of packed panels, for gemm_blocks.h. */
#ifndef BITPAIR_GEMM_INTEGER_TILE_H
#define BITPAIR_GEMM_INTEGER_TILE_H

#include "gemm_blocks.h"

/* A tile of C lives in registers: 12 of 16 hold sums, with AVX-512 24 of 32. */
enum { GEMM_INT16_ROWS = 6, GEMM_INT16_COLS = 16, GEMM_INTEGER_ROWS_AVX512 = 12, GEMM_INTEGER_COLS_AVX512 = 32 };

/* A panel has room for whole registers of AVX2, so that rows have more words beside each other than a tile has rows. */
enum { GEMM_INT16_LANES = 8, GEMM_INT16_A_WIDTH = 8, GEMM_INTEGER_A_WIDTH_AVX512 = 16 };

/* Most of a block of k (gemm_int16.h). */
enum { GEMM_INTEGER_DEPTH = 576 };

/* Panels of `width` vectors, in pairs along k, as the multiplication takes them, followed by their scales:
 *     out [ceil(count / width)][ceil(k / 2) + 1][width, rounded up to GEMM_INT16_LANES],
 * each word a pair of integers (even k in the low half; zero where an odd k has no partner), in the last row of a panel
 * the float that they are multiples of. width is that of a tile's rows or columns; out is 64-aligned. */
void gemm_int16_pack_avx2(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* C [m, n] (ldc) = alpha * A B + beta * C for packed A (panels of GEMM_INT16_ROWS) and B (of GEMM_INT16_COLS) over k;
 * C is not read when beta is 0. */
void gemm_int16_product_avx2(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                             float alpha, float beta);

/* As gemm_int16_product_avx2, for panels of the widths of AVX-512. */
void gemm_int16_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                               float alpha, float beta);

/* Panels of gemm_int8, as the multiplication takes them, words of four bytes along k:
 *     out [ceil(count / width)][ceil(k / 4) + 2][width, rounded up to 16],
 * in the last rows the scale and, of B, 128 times the sum of the integers. Those of A have 128 added. */
void gemm_int8_pack_a_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);
void gemm_int8_pack_b_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* As gemm_int16_product_avx512, for panels of gemm_int8. */
void gemm_int8_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                              float alpha, float beta);

#endif
