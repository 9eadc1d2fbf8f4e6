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
    KERNEL_PLANES = 8,  /* most bit planes of a matrix */
    KERNEL_SPAN = 128,  /* cached positions of one attention call */
    KERNEL_HEAD = 256   /* widest head of attention */
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
     * cols <= 8 * groups; columns past cols count as 0. Non-finite x gives NaN or finite nonsense, never a stray access.
     */
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

    /* Asks memory for the first bytes that product() will read of these tiles, to be called before the input is
     * prepared. NULL where nothing is gained. */
    void (*ahead)(const kernel_signs *w, size_t first, size_t end);
} kernel_arith;

/* ---- attention ----
 *
 * Positions are taken in spans of KERNEL_SPAN, counted from position 0, whatever the threads and the cutting of a text.
 * Of each span and query comes a *part*: a softmax over the span alone, not yet divided by its sum. Parts are merged in
 * the order of the spans (online softmax: Milakov and Gimelshein 2018), then out = values / sum.
 *
 * Heads are padded with zeros to `dim` values, a multiple of 16, at most KERNEL_HEAD; row p of a cache is `dim` values of
 * one KV head at one position. Memory of rows and scales must reach to the next multiple of 16 positions; what is there
 * past n_pos has no influence, except that scales must be finite. */

/* A prepared query: its scale, from byte 64 on its values. 64-byte aligned. */
static inline size_t kernel_query_bytes(size_t dim) { return 64 + dim * sizeof(float); }

/* A part: values [dim], the largest score, the sum of weights */
enum { KERNEL_PART_MAX = 0, KERNEL_PART_SUM = 1 }; /* behind the values */
static inline size_t kernel_part_floats(size_t dim) { return dim + 16; }

/* One KV head's cache from the first position of a span on */
typedef struct {
    const void *k, *v;                /* rows, 16-byte aligned */
    const float *k_scales, *v_scales; /* [positions]; of 8-bit rows */
    const void *next; /* rows of keys, KERNEL_SPAN of them, that memory may be asked for meanwhile; or NULL */
} kernel_span;

/* A way to keep keys and values. Sums of floats: 8 partial sums over values i = j mod 8 in order, then p[j] += p[j + 4],
 * += p[j + 2], += p[j + 1].
 *   16  half precision. s_p = scale * <q, k_p>; values = sum_p in order w_p v_p
 *   8   int8 with one scale (largest / 127) per row, rounded as kernel_round does; queries as int16, largest / 32767.
 *       s_p = (float)<q, k_p> * (k_scale_p * scale); u_p = w_p * v_scale_p, rounded to int16 against the largest u of the
 *       span; values = (float)(sum_p u_p v_p) * (largest u / 32767). All sums are integers, hence exact.
 * Both: w_p = e^(s_p - max s), summed by 16 partial sums as elsewhere. */
typedef struct {
    uint32_t bits; /* 16 or 8 */

    /* row, *scale <- x [dim]; 16: as bp_half_from_float; 8: values past 1e15 and NaN become some finite value */
    void (*store)(void *row, float *scale, const float *x, size_t dim);

    /* x [dim] <- row: exact for 16 bits, value * scale for 8 */
    void (*restore)(float *x, const void *row, float scale, size_t dim);

    /* query [kernel_query_bytes(dim)] <- q [dim]; scores are multiplied by `factor` */
    void (*prepare)(void *query, const float *q, size_t dim, float factor);

    /* parts [n] <- n queries, one after another, on n_pos positions of a span, 1 <= n_pos <= KERNEL_SPAN */
    void (*attend)(float *parts, const void *queries, size_t n, const kernel_span *span, size_t n_pos, size_t dim);
} kernel_cache;

typedef struct {
    const char *isa; /* "ref", "simd128", "relaxed", "avx2", "avx512", "neon" */
    kernel_arith lut8, popcount;

    /* Sums use 16 partial sums p[j] over elements i = j mod 16 in order, then p[j] += p[j+8], += p[j+4], += p[j+2],
     * += p[j+1]; products and additions rounded separately. All float arrays any alignment. */

    /* y[r] = sum_i w[r][i] x[i], w [n_rows][w_stride]: one token against several dense rows */
    void (*dots)(float *y, const float *x, const float *w, size_t w_stride, size_t n, size_t n_rows);

    /* y[i] = x[i] * (1 / sqrt(mean(x^2) + eps)) * w[i]; y may be x */
    void (*rmsnorm)(float *y, const float *x, const float *w, size_t n, float eps);

    /* y[i] = silu(gate[i]) * up[i]; y may be either */
    void (*swiglu)(float *y, const float *gate, const float *up, size_t n);

    kernel_cache cache16, cache8;

    /* into <- the part of its positions and those of `part`, which come after them: with c = e^(smaller max - larger max)
     * the side of the smaller maximum is multiplied by c, then both are added */
    void (*merge)(float *into, const float *part, size_t dim);
} kernel_table;

/* The table for an ISA name ("ref", "simd128", "relaxed", "avx2", "avx512", "neon"), or for the best ISA of this machine when name is NULL.
 * NULL when this build or this machine has no such ISA. Entries an ISA does not override are those of the next lower
 * one. The pointer is to static storage; the first call of a process must not race with another. */
const kernel_table *kernel_table_for(const char *name);

/* Runs what tokens need most, on zeros, often enough that a WebAssembly engine finds it hot and compiles it well, beside
 * whatever happens next: the first prompt then does not run on its first, slow code. memory [kernel_warm_bytes], zeroed,
 * 64-byte aligned. */
size_t kernel_warm_bytes(const kernel_table *k);
void kernel_warm(const kernel_table *k, void *memory);

/* Names of the ISAs that kernel_table_for finds here, best last; NULL-terminated static array. */
const char *const *kernel_isas(void);

#endif
