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

/* AMX: 2 x 2 tiles of C. */
enum { GEMM_BF16_AMX_ROWS = 32, GEMM_BF16_AMX_COLS = 32 };

/* The processor has AMX BF16, and the kernel gives the process its tiles (asks for them once). */
bool gemm_bf16_amx_available(void);

/* Panels of 32 vectors in steps of 32 along k, two tiles of 16 vectors each; a vector is a row of 16 pairs in a tile of
 * A, a column in one of B:
 *     out [ceil(count / 32)][ceil(k / 32)][2][16][16],
 * zero where there is no vector or element. width is 32; out is 64-aligned. */
void gemm_bf16_pack_a_amx(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);
void gemm_bf16_pack_b_amx(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* The same with every step twice: the factors as they are rounded, then what that leaves over, rounded in turn,
 *     out [ceil(count / 32)][ceil(k / 32)][2][2][16][16]. */
void gemm_bf16_pack_a_amx_split(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);
void gemm_bf16_pack_b_amx_split(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);

/* As gemm_bf16_product_avx512, for these panels. */
void gemm_bf16_product_amx(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                           float alpha, float beta);
void gemm_bf16_product_amx_split(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n,
                                 size_t k, float alpha, float beta);

#endif
