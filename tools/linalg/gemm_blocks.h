/* gemm_blocks.h - the outer loops of the matrix products of training: the matrices are cut into blocks for the caches,
 * packed into panels for the registers, and multiplied. What a panel holds is the kernel's matter. */
#ifndef BITPAIR_GEMM_BLOCKS_H
#define BITPAIR_GEMM_BLOCKS_H

#include "base.h"

/* One factor of the product as `count` vectors over k (rows of op(A), columns of op(B)): element p of vector v is
 * data[v * stride + p] where k runs along the rows of the matrix, else data[p * stride + v]. */
typedef struct {
    const float *data;
    size_t stride;
    bool along_k;
} gemm_factor;

typedef struct {
    /* Most of a block: A's (rows x depth) stays in the second-level cache while B's panels pass, B's in the third. */
    size_t depth, rows, cols;
    size_t tile_rows, tile_cols; /* of C, in registers: they divide rows and cols */
    size_t a_words, b_words;     /* room for a packed block; multiples of 16 */
    /* Pack `count` vectors of k elements in panels of `width` vectors (tile_rows or tile_cols); out is 64-aligned. */
    void (*pack_a)(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);
    void (*pack_b)(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k);
    /* C [m, n] (ldc) = alpha * A B + beta * C for packed A and B; C is not read when beta is 0. */
    void (*product)(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                    float alpha, float beta);
} gemm_kernel;

/* C = alpha * op(A) op(B) + beta * C (linalg_gemm) in blocks. k is cut into ceil(k / depth) blocks of equal size,
 * rounded up to even (the last may be shorter): they depend on k alone, and each element of C adds them in order, so
 * that a split over m and n leaves no trace. linalg_gemm itself without a kernel (NULL), for an empty sum (k or alpha
 * is 0) and where the thread finds no memory for its scratch, which it keeps until it ends. */
void gemm_by_blocks(const gemm_kernel *kernel, bool trans_a, bool trans_b, size_t m, size_t n, size_t k, float alpha,
                    const float *A, size_t lda, const float *B, size_t ldb, float beta, float *C, size_t ldc);

#endif
