/* decoder.h - a dense model that writes many texts at once: sequences advance in lockstep, one token each, so that a
 * weight is read once for all of them. Arithmetic in float32 with dequantized weights and a float32 cache of keys and
 * values; docs/MODEL.md is the drawing, session_forward.c the same for one text. Equal bytes at any number of threads. */
#ifndef BITPAIR_DECODER_H
#define BITPAIR_DECODER_H

#include "block.h"

typedef struct decoder decoder;

/* One sequence's part of a step. */
typedef struct {
    size_t slot;
    int32_t id;    /* its next token */
    bool wanted;   /* are the logits after it wanted? */
    float *logits; /* result: [vocab], NULL unless wanted; valid, and the caller's to change, until the next step */
} decoder_row;

/* Room for `slots` sequences of at most ctx tokens, all empty. Memory of the cache is taken from the system as sequences
 * grow. m (dense) and w must outlive it. BP_ERR_ARGUMENT for a compressed model, BP_ERR_MEMORY. */
decoder *decoder_open(const model *m, workers *w, size_t slots, size_t ctx, bp_err *e);
void decoder_close(decoder *d); /* NULL is ignored */

/* Appends one token to each of n <= slots different sequences, all shorter than ctx. */
void decoder_step(decoder *d, decoder_row *rows, size_t n);

/* Forgets the tokens of a sequence from `length` on. */
void decoder_rewind(decoder *d, size_t slot, size_t length);

#endif
