/* output_weights.h - how much the loss depends on each output of each linear layer of the dense model:
 *     w_i = mean over tokens of (dL/dy_i)^2,   L = negative log-likelihood of the next token
 * then brought to mean 1 over the outputs of the layer (of the stack, where layers are fused), clipped at the 99.9th percentile and shrunk,
 *     w <- 0.8 w + 0.2                                                                              docs/DBF.md (21)
 * ADMM and the re-fit of scales weigh their squared errors with it. And how much it depends on the tables: in which
 * metric their rows should be rounded (compress/table_round.h). */
#ifndef BITPAIR_OUTPUT_WEIGHTS_H
#define BITPAIR_OUTPUT_WEIGHTS_H

#include "compress/calib.h"
#include "compress/block.h"

typedef struct {
    float *w[PARTS]; /* of one block: [n] each */
} block_output_weights;

typedef struct {
    block_output_weights *blocks; /* [n_layers] */
    float *embedding;             /* [d_model, d_model] mean of g g', g the gradient of L at the embedding's output */
    float *head;    /* [d_model, d_model] mean of y y' / 2, y the input of the head         docs/DBF.md (25) */
    float *streams; /* [n_layers, d_model, d_model] mean of g g', g the gradient of L at the output of a block */
    float *memory;
} output_weights;

/* Bytes that the measurement takes, and its floating-point operations. */
uint64_t output_weights_bytes(const model *m, size_t ctx, uint32_t threads);
double output_weights_work(const model *m, size_t n_tokens);

/* Forward and backward over the first training sequences of the text, at most n_tokens. mapped: as in block_release. tick (NULL: none) is called
 * after each batch with the share that is done; false stops. BP_ERR_MEMORY; BP_OK in e->code when tick said stop. */
bool output_weights_measure(output_weights *o, workers *w, const model *m, const file_view *mapped,
                            const calibration *text, size_t n_tokens, bool fused,
                            bool (*tick)(void *context, double share), void *context, bp_err *e);
void output_weights_close(output_weights *o);

#endif
