/* block.h - the seven linear layers of a transformer block, by number: names, shapes, dense weights; and the stacks that
 * stand for them: one for each layer, or with q, k, v and gate, up fused to one each. Arrays by stack have PARTS entries,
 * too: a fused stack is at its first layer, the entries of the others are empty. */
#ifndef BITPAIR_BLOCK_H
#define BITPAIR_BLOCK_H

#include "io/file.h"
#include "model.h"
#include "workers.h"

/* In the order of the file and of the data. */
typedef enum { PART_Q, PART_K, PART_V, PART_O, PART_GATE, PART_UP, PART_DOWN, PARTS } part;

const char *part_name(part p); /* "attn_q", ... */
const linear *part_linear(const model_layer *layer, part p);

/* What the layers of a block read: q, k and v share an input, gate and up another. */
typedef enum { INPUT_QKV, INPUT_O, INPUT_FEED, INPUT_DOWN, INPUTS } block_input;

block_input part_input(part p);

typedef struct {
    uint32_t n, m;  /* rows of all its layers; 0, 0: they are in the stack before */
    uint32_t parts; /* layers in it */
} stack;

/* The stack at p: of a layer of a compressed model as its file has it, of a dense one fused or not. */
stack stack_of(const model_layer *layer, part p, bool fused);

/* The part whose stack p is in. */
part stack_first(part p, bool fused);

/* Where the rows of p begin in its stack; is p the last layer of it? */
size_t stack_row(const model_layer *dense, part p, bool fused);
bool stack_complete(part p, bool fused);

/* Does a block of a compressed model have p in a fused stack? A file may fuse q, k, v and not gate, up. */
bool stack_fused(const model_layer *layer, part p);

/* Name of a stack of so many layers: "blk.3.attn_q", "blk.3.attn_qkv" */
void stack_name(char *out, size_t capacity, uint32_t layer, part p, uint32_t parts);

/* Float weights of one block, W[p] [n, m] row-major; one allocation, so that those of a fused stack are one matrix. */
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
