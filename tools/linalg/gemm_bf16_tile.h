/* gemm_bf16_tile.h - the two inner steps of gemm_bf16, one file per instruction set: packing and the product of packed
 * panels, for gemm_blocks.h. */
#ifndef BITPAIR_GEMM_BF16_TILE_H
#define BITPAIR_GEMM_BF16_TILE_H

#include "gemm_blocks.h"

/* A tile of C lives in registers: 24 of 32 hold sums, which covers the latency of the dot product twice over. */
enum { GEMM_BF16_ROWS = 12, GEMM_BF16_COLS = 32 };

/* Panels of `width` vectors, in pairs along k, as the dot product takes them:
 *     out [ceil(count / width)][ceil(k / 2)][width], each a pair of bfloat16 (even k in the low half),
 * zero where a vector or an odd k has no partner. width is GEMM_BF16_ROWS or GEMM_BF16_COLS; out is 64-aligned. */
void gemm_bf16_pack_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* C [m, n] (ldc) = alpha * A B + beta * C for packed A (panels of GEMM_BF16_ROWS) and B (of GEMM_BF16_COLS) over k;
 * C is not read when beta is 0. */
void gemm_bf16_product_avx512(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                              float alpha, float beta);

#endif
