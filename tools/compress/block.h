/* block.h - the seven linear layers of a transformer block, by number: names, shapes, dense weights. */
#ifndef BITPAIR_BLOCK_H
#define BITPAIR_BLOCK_H

#include "io/file.h"
#include "model.h"
#include "workers.h"

/* In the order of the file and of the data. */
typedef enum { PART_Q, PART_K, PART_V, PART_O, PART_GATE, PART_UP, PART_DOWN, PARTS } part;

const char *part_name(part p); /* "attn_q", ... */
const linear *part_linear(const model_layer *layer, part p);

/* "blk.3.attn_q" */
void part_full_name(char *out, size_t capacity, uint32_t layer, part p);

/* Float weights of one block, W[p] [n, m] row-major; one allocation. */
typedef struct {
    float *W[PARTS];
    void *memory;
} block_weights;

bool block_open(block_weights *b, const model_layer *layer, bp_err *e);
void block_close(block_weights *b);

/* Fills b with the dequantized weights of a dense layer. */
void block_dequantize(workers *w, block_weights *b, const model_layer *layer);

/* Lets the matrices of a dense layer leave memory; `mapped`: the file they are mapped from, NULL where there is none. */
void block_release(const file_view *mapped, const model_layer *layer);

#endif
