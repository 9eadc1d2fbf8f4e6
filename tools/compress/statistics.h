/* statistics.h - second moments of the inputs of one group of linear layers, over both chains (docs/DBF.md (2), (13)):
 *
 *     H = mean w x_q x_q'     C = mean w x_d x_q'     R = mean w (r_d - r_q) x_q'
 *
 * x: input in the dense (d) and the student's (q) chain; r: residual stream that the layer's output is added to; w:
 * weight of a token, which caps the few with huge activations and may count more where the model minds. Taken over the
 * training tokens, and over the validation tokens, where also the energy of the target is needed: D = mean w x_d x_d',
 * E = mean w (r_d - r_q) x_d', delta = mean w |r_d - r_q|^2. */
#ifndef BITPAIR_STATISTICS_H
#define BITPAIR_STATISTICS_H

#include "chain.h"

typedef struct {
    float *H, *C; /* [m, m] */
    float *R;     /* [d_model, m], or NULL */
} moments;

typedef struct {
    size_t m, d;
    moments train, val;
    float *D;     /* [m, m] validation */
    float *E;     /* [d_model, m] validation, or NULL */
    double delta; /* validation */
    void *memory;
} statistics;

/* Inputs x [., m] of the chain as it stands, x_q from the given side (CHAIN_DENSE: the paper's statistics, blind to
 * what the student gets); `residual`: with R, E and delta. importance: [n_tokens] what the tokens weigh, or NULL: 1
 * each. clip > 0: tokens whose weight times |x_q|^2, or with `residual` |r_d|^2, exceeds clip times the median of that
 * weigh so much less. BP_ERR_MEMORY. */
bool statistics_take(statistics *s, const chain *c, chain_side side, size_t m, bool residual, float clip,
                     const float *importance, bp_err *e);
void statistics_close(statistics *s);

/* Bytes that statistics_take uses besides the moments, and its floating-point operations. */
uint64_t statistics_scratch(size_t n_tokens, uint32_t threads);
double statistics_work(size_t n_tokens, size_t n_train, size_t m, size_t d, bool residual);

#endif
