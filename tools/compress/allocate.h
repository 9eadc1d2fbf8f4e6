/* allocate.h - bits for each layer by equal marginal loss (docs/DBF.md (22), (23)): what a layer costs the model is
 * measured, not guessed. One layer at a time is factorized quickly, put into the dense model, and the divergence of the
 * model's words from the dense model's is taken on a few sequences.
 *
 *     loss_l(f) = kl_l 2^(-RATE bits (f - 1))      f_l = 1 + log2(kl_l / (weights_l mu)) / (RATE bits), within [0.5, 2]
 *
 * f: multiple of the nominal bits of every stage of the layer; mu: chosen so that the file is as long as with f = 1. */
#ifndef BITPAIR_ALLOCATE_H
#define BITPAIR_ALLOCATE_H

#include "calib.h"
#include "plan.h"
#include "workers.h"

#define ALLOCATE_MOST 2.0 /* largest factor */

typedef struct {
    double kl;                  /* nats per token, this layer alone factorized as the stages say */
    double error[MODEL_STAGES]; /* relative error of its output after each stage, as factor_report has it */
} layer_loss;

/* Fills losses [n_layers * PARTS]. The same for the same seed, options and text at any number of threads. `folder`: as
 * in chain_open. BP_ERR_MEMORY, BP_ERR_IO; BP_OK in e->code after an interruption. */
bool allocate_measure(layer_loss *losses, const compress_options *o, workers *w, const model *m,
                      const calibration *calib, const char *folder, bp_err *e);

/* factor [n_layers * PARTS] <- multiples of the nominal bits; stored bytes at most plan_nominal_bytes. */
void allocate_spread(double *factor, const compress_options *o, const model *m, const layer_loss *losses);

/* The measurement as JSON; `source` (bitpair.source) tells whose it is. allocate_read refuses another model's. */
bool allocate_write(const char *path, const char *source, const model *m, const layer_loss *losses, uint32_t n_stages,
                    bool fused, bp_err *e);
bool allocate_read(layer_loss *losses, const char *path, const char *source, const model *m, bool fused, bp_err *e);

/* Bytes that allocate_measure uses besides those of the layers it makes, and its floating-point operations. */
uint64_t allocate_bytes(const compress_options *o, const model *m);
double allocate_work(const compress_options *o, const model *m);

#endif
