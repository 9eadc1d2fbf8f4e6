/* block_tune.h - the layers of a block, once all are factorized, fitted together: scales take steps of Adam down the
 * error of the block's output,
 *
 *     mean over tokens of w_t (r_d - r_q)' (G + damping diag G) (r_d - r_q)                          docs/DBF.md (27)
 *
 * r_d the dense stream after the block, r_q what the student's block makes of the student's stream, G the second moments
 * of the gradient of the loss there (tune/output_weights.h), w_t the cap on tokens of huge activations. Steps draw how many
 * tiers take part, so that prefixes stay models. What is not better on validation tokens is not kept. */
#ifndef BITPAIR_BLOCK_TUNE_H
#define BITPAIR_BLOCK_TUNE_H

#include "chain.h"
#include "factors.h"

typedef struct {
    uint64_t steps, seed;
    double rate;                 /* first step of a scale, relative to its vector's mean size */
    float clip;                  /* tokens count at most so many times the median energy of the stream; 0: no limit */
    uint32_t first_tier;         /* stages before it (0..) stay */
    bool (*tick)(void *context); /* once per step; false: stop */
    void *context;
} block_tune_options;

/* Error on validation tokens, relative to that of the block left out, by the number of tiers (from 0); 0 where it was not
 * trained. */
typedef struct {
    double before[MODEL_TIERS], after[MODEL_TIERS];
    bool kept;
} block_tune_report;

/* Operations of all steps on one block whose stages have so many bits per weight together, and the bytes that they take. */
double block_tune_work(const model *m, size_t ctx, double bits, uint64_t steps);
uint64_t block_tune_bytes(const model *m, size_t ctx, double bits, uint32_t threads);

/* Fits layers [PARTS] of block `layer`: c->entry is the student's stream before it, c->stream[CHAIN_DENSE] the dense one
 * after it. G [d_model, d_model]. BP_ERR_MEMORY; BP_OK in e->code when tick said stop. */
bool block_tune(const chain *c, uint32_t layer, factors *layers, const float *G, const block_tune_options *o,
                block_tune_report *r, bp_err *e);

#endif
