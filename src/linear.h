/* linear.h - y = W x (+ bias) for each kind of weight: dense GGUF types, or a stack of double binary factorizations
 *     y = sum_s  a_s . (A_s (c_s . (B_s (b_s . x))))            docs/DBF.md (1)
 * Runs on a team: every thread calls with the same arguments and computes a part of the rows. */
#ifndef BP_LINEAR_H
#define BP_LINEAR_H

#include "kernel.h"
#include "pool.h"
#include "profile.h"
#include "quant.h"

typedef struct {
    kernel_signs A; /* [n, k] */
    kernel_signs B; /* [k, m] */
    const float *a; /* [n] */
    const float *c; /* [k] */
    const float *b; /* [m] */
    uint32_t k;     /* a multiple of 32 */
} linear_stage;

typedef struct {
    uint32_t n, m;     /* outputs, inputs */
    const float *bias; /* [n] or NULL */
    uint32_t split[2]; /* fused layers: rows from which on outputs belong to the next of them; 0: there is none */
    /* dense: rows of `type`, row_bytes apart */
    const uint8_t *rows; /* NULL for a factorized or plane layer */
    uint32_t type;       /* quant_type */
    size_t row_bytes;
    /* bit planes (embedding and head): planes.bytes != NULL */
    kernel_signs planes;
    /* factorized: n_stages > 0 */
    const linear_stage *stages;
    uint32_t n_stages;
    uint32_t n_laid; /* stages [n_laid] that there is room for: those past n_stages may come while the model is open */
} linear;

enum { LINEAR_ROWS = 4 }; /* dense rows that are multiplied together */

/* Scratch memory and the choices of a run. One per thread; `mid` is shared by the team. */
typedef struct {
    const kernel_table *kernels;
    const kernel_arith *arith;
    float *mid;       /* shared: [n_tokens][sum of k over the layers and stages of one call] */
    uint8_t *inputs;  /* own: prepared inputs, linear_inputs_bytes */
    float *row;       /* own: products [KERNEL_LANES][most padded rows of a factor], or
                       LINEAR_ROWS dense or plane rows [most inputs] */
    void *batch;      /* own: scratch of kernel_arith.batch */
    profile *profile; /* own: NULL unless time is measured */
} linear_work;

/* Floats of one output row in memory: n padded to whole tiles. Not of fused layers. */
static inline size_t linear_rows(const linear *w) { return bp_round_up(w->n, KERNEL_TILE); }

/* ys[i][t] = (accumulate ? ys[i][t] : 0) + W_i x[t] for n layers that share the input x [n_tokens][x_stride];
 * ys[i] is [n_tokens][linear_rows(ws[i])]; rows past n are undefined. Outputs of fused layers go to an array for each,
 * [n_tokens][its rows padded to whole tiles], one after the other in ys. A plane layer does not accumulate. Thread
 * t->index writes its share of rows (linear_share) of each; the caller places the barrier after it. Inside there is one
 * barrier if any layer is factorized. */
void linear_forward(const team *t, const linear_work *work, float *const *ys, const linear *const *ws, size_t n,
                    const float *x, size_t x_stride, size_t n_tokens, bool accumulate);

/* Rows [*first, *end) of an n-row layer, alone or fused with others, that thread t->index computes: whole tiles of 16. */
void linear_share(const team *t, size_t n, size_t *first, size_t *end);

/* out [m] <- row i of a dense or plane matrix (embedding lookup). */
void linear_row(const linear *w, size_t i, float *out);

/* Row i of a plane matrix times x [m], whose input is not rounded: what linear_forward comes near to. */
float linear_dot(const linear_work *work, const linear *w, size_t i, const float *x);

#endif
