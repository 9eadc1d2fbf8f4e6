/* output_weights.h - how much the loss of the dense model depends on what its linear layers give:
 *     w_i = mean over tokens of (dL/dy_i)^2,   L = sum of -ln p of words drawn from the model's own distribution
 * for each output, then brought to mean 1 over the outputs of the layer (of the stack, where layers are fused), clipped
 * at the 99.9th percentile and shrunk,
 *     w <- 0.8 w + 0.2                                                                              docs/DBF.md (21)
 * and, where it is wanted, on each token,
 *     v_t = sqrt(sum over outputs of (dL/dy_ti)^2), clipped at the 99th percentile, mean 1          docs/DBF.md (28)
 * over the outputs of all layers that share an input, and on the outputs of a layer together,
 *     G = sum over tokens of g g' / |g|,   g = dL/dy_t                                              docs/DBF.md (29)
 * ADMM and the re-fit of scales weigh their squared errors with them. And how much it depends on the tables: in which
 * metric their rows should be rounded (compress/table_round.h). */
#ifndef BITPAIR_OUTPUT_WEIGHTS_H
#define BITPAIR_OUTPUT_WEIGHTS_H

#include "compress/calib.h"
#include "compress/block.h"
#include "compress/output_metric.h"

typedef struct {
    float *w[PARTS]; /* of one block: [n] each */
    float *G[PARTS]; /* [n (n + 1) / 2] each, or NULL: sum of g g' / |g|, the upper triangle row after row */
} block_output_weights;

typedef struct {
    block_output_weights *blocks; /* [n_layers] */
    float *embedding;             /* [d_model, d_model] mean of g g', g the gradient of L at the embedding's output */
    float *head;    /* [d_model, d_model] mean of y y' / 2, y the input of the head         docs/DBF.md (25) */
    float *streams; /* [n_layers, d_model, d_model] mean of g g', g that at the output of a block; or NULL */
    float *tokens;  /* [n_layers, INPUTS, n_tokens] in the order of the text, or NULL */
    size_t n_tokens;
    float *memory;
} output_weights;

/* Does p get a G? Those of gate and up would take a multiple of all the others' memory. */
bool output_weights_whole(part p);

/* Of the tokens that read the input of p in a block; NULL: all weigh the same. */
const float *output_weights_tokens(const output_weights *o, uint32_t layer, part p);

/* out <- how errors of the n outputs of the stack at p weigh: by w, and by the correlations of G where it was measured.
 * `o` may be empty: all weigh the same. BP_ERR_MEMORY, BP_ERR_ARGUMENT: not finite. */
bool output_weights_metric(output_metric *out, const output_weights *o, const model *m, uint32_t layer, part p,
                           size_t n, bp_err *e);

typedef struct {
    size_t n_tokens;         /* at most, of training sequences, spread over the text */
    bool tokens;             /* weights of tokens too: then from all sequences, and the rest from all for training */
    bool moments;            /* G too */
    bool streams;            /* moments of gradients between blocks too */
    bool fused;              /* q, k, v and gate, up are one stack each */
    const file_view *mapped; /* as in block_release */
    const char *kept;        /* file in which what is measured is kept every minute, and gone on from; or NULL */
    uint8_t source[32];      /* digest of the model and the text, which a file that is gone on from must have */
    bool (*tick)(void *context, double share); /* after each batch, with the share that is done; false stops; or NULL */
    void *context;
} output_weights_options;

/* Bytes of what is measured in a text of n_tokens, and of measuring it as well; and its floating-point operations, of
 * the tokens whose gradients are taken. */
uint64_t output_weights_kept_bytes(const model *m, size_t n_tokens, const output_weights_options *options);
uint64_t output_weights_bytes(const model *m, size_t ctx, size_t n_tokens, const output_weights_options *options,
                              uint32_t threads);
double output_weights_work(const model *m, size_t n_tokens);

/* Tokens whose gradients the file `kept` has, be it of this model and text or not; 0 where there is none. */
size_t output_weights_kept_tokens(const char *kept);

/* Forward and backward over the text. BP_ERR_MEMORY, BP_ERR_IO (of what is kept), BP_ERR_ARGUMENT (`kept` is of another
 * source, or no such file); BP_OK in e->code when tick said stop. A file that is damaged is measured anew. */
bool output_weights_measure(output_weights *o, workers *w, const model *m, const calibration *text,
                            const output_weights_options *options, bp_err *e);
void output_weights_close(output_weights *o);

#endif
