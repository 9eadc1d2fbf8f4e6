/* score.h - what residual streams say about the next token, after the final norm and the head. The vocabulary is taken
 * in blocks whose rows are dequantized as they are needed, so that neither the head nor the logits of all rows are ever
 * in memory at once. */
#ifndef BITPAIR_SCORE_H
#define BITPAIR_SCORE_H

#include "model.h"
#include "workers.h"

/* *sum = sum over rows of -log softmax(head norm(stream_t))[target_t], in nats. stream [rows, d_model], targets [rows].
 * BP_ERR_MEMORY. */
bool score_nll(double *sum, workers *w, const model *m, const linear *head, const float *stream, const int32_t *targets,
               size_t rows, bp_err *e);

/* kl[g] = mean over rows of KL(p || q_g), in nats: p from dense [rows, d_model], q_g from student [groups, rows,
 * d_model]. BP_ERR_MEMORY. */
bool score_kl(double *kl, workers *w, const model *m, const linear *head, const float *dense, const float *student,
              size_t groups, size_t rows, bp_err *e);

/* y [n] = x / rms(x) . weight */
void score_rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps);

#endif
