/* kernel.h - the table of compute kernels. kernel_ref.c (scalar C) defines what each one computes; an ISA file
 * overrides what it does faster, with the same bits. Kernels are pure functions: no state, no threads, no allocation.
 *
 * tile16, the layout of every sign matrix, in the file and in memory (rows padded to 16, columns to 32):
 *
 *     tile t = rows 16t..16t+15          group g = columns 8g..8g+7
 *     byte ((t * planes + p) * groups + g) * 16 + j  holds  row 16t + (j >> 1) + 8 * (j & 1),
 *     bit i of it = column 8g + i, 1 means +1 and 0 means -1.  p = 0 for a plain sign matrix.
 *
 * A matrix of P > 1 bit planes has entries sum_p 2^p s_p, s_p = +-1: the odd integers of (-2^P, 2^P).
 *
 * A product is y = W x with W [rows, cols]. Its input is *prepared* once per token (the only rounding), after that all
 * is integer up to the flush, once per block of 256 columns, in this order and without fused multiply-add:
 *
 *     y[row] = 0;  for each block B in order:  v = (float)I[row][B] * scale[B];  if row_scales: v *= row_scales[row][B];
 *     y[row] += v
 *
 * Two arithmetic classes prepare differently; each has its own exact integers I and its own golden hash:
 *   lut8      tables of 16 one-byte entries per 4 columns (decode), 256-entry tables built from them (batch)
 *   popcount  activations rounded to int8, as 8 bit planes; I = 2 * sum over set bits - sum over all
 * Prepared inputs are opaque outside the class. */
#ifndef BP_KERNEL_H
#define BP_KERNEL_H

#include "base.h"

enum {
    KERNEL_TILE = 16,   /* rows of a tile */
    KERNEL_PAD = 32,    /* columns are padded to a multiple of this, with zero activations */
    KERNEL_BLOCK = 256, /* columns that share one input scale */
    KERNEL_LANES = 16,  /* most tokens of one batch call */
    KERNEL_PLANES = 8   /* most bit planes of a matrix */
};

typedef struct {
    const uint8_t *bytes;    /* [tiles][planes][groups][16], tile16, 16-byte aligned */
    const float *row_scales; /* [tiles * 16][blocks], or NULL for 1 */
    uint32_t tiles;          /* padded rows / 16 */
    uint32_t groups;         /* padded columns / 8, a multiple of 4 */
    uint32_t planes;         /* 1..KERNEL_PLANES */
} kernel_signs;

/* blocks of 256 columns in `groups` groups; the last one may be shorter */
static inline size_t kernel_blocks(size_t groups) { return bp_ceil_div(groups * 8, KERNEL_BLOCK); }

/* One arithmetic class of sign-matrix products. */
typedef struct {
    const char *name; /* "lut8", "popcount" */

    /* Bytes of one prepared input, a multiple of 64. */
    size_t (*input_bytes)(size_t groups);

    /* Prepares b . x (or x where b is NULL). input [input_bytes(groups)], 64-byte aligned; x, b [cols] any alignment,
     * cols <= 8 * groups; columns past cols count as 0. Non-finite x gives unspecified finite-size nonsense, never a
     * stray access. */
    void (*prepare)(void *input, const float *x, const float *b, size_t cols, size_t groups);

    /* Decode: y[16 t + r] for tiles first <= t < end, one token. y is indexed from row 0, is [16 * w->tiles] and must
     * not alias the input. */
    void (*product)(float *y, const kernel_signs *w, const void *input, size_t first, size_t end);

    /* Prefill: the same integers for n_tokens <= KERNEL_LANES tokens at once. Prepared inputs lie
     * input_bytes(w->groups) apart; y [n_tokens][y_stride]. scratch [batch_scratch(w)] 64-byte aligned. */
    size_t (*batch_scratch)(const kernel_signs *w);
    void (*batch)(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens, size_t first,
                  size_t end, void *scratch);

    /* From this many tokens on, batch is faster than product once per token (measured; results are equal). */
    uint32_t batch_from;
} kernel_arith;

typedef struct {
    const char *isa; /* "ref", "simd128", "avx2", "avx512" */
    kernel_arith lut8, popcount;

    /* Sums use 16 partial sums p[j] over elements i = j mod 16 in order, then p[j] += p[j+8], += p[j+4], += p[j+2],
     * += p[j+1]; products and additions rounded separately. All float arrays any alignment. */

    /* y[t] = sum_i w[i] x[t][i], x [n_tokens][x_stride]: one dense row against several tokens */
    void (*dots)(float *y, const float *w, const float *x, size_t x_stride, size_t n, size_t n_tokens);

    /* y[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * w[i]; y may be x */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);

    /* y[i] = silu(gate[i]) * up[i]; y may be either */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);

    /* y[i] = half(x[i]), as bp_half_from_float */
    void (*to_half)(uint16_t *y, const float *x, size_t n);

    /* One query against n_pos cached positions: s_p = scale * <q, k_p>, w = softmax(s) (maximum subtracted, sum by 16
     * partial sums), out = (sum_p in order w_p v_p) / (sum of weights). q, out [head_dim] (head_dim a multiple of 2, at
     * most 256); k, v half precision, position p at p * stride; scores [n_pos] scratch, any alignment. */
    void (*attention)(float *out, const float *q, const uint16_t *k, const uint16_t *v, size_t stride, size_t n_pos,
                      size_t head_dim, float scale, float *scores);
} kernel_table;

/* The table for an ISA name ("ref", "simd128", "avx2", ...), or for the best ISA of this machine when name is NULL.
 * NULL when this build or this machine has no such ISA. Entries an ISA does not override are those of the next lower
 * one. The pointer is to static storage; the first call of a process must not race with another. */
const kernel_table *kernel_table_for(const char *name);

/* Names of the ISAs that kernel_table_for finds here, best last; NULL-terminated static array. */
const char *const *kernel_isas(void);

#endif
