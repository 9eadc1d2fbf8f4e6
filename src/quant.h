/* quant.h - the tensor types of GGUF: their sizes, and dequantization to float32. */
#ifndef BP_QUANT_H
#define BP_QUANT_H

#include "base.h"

/* Numbers as stored in GGUF files. */
typedef enum {
    QUANT_F32 = 0,
    QUANT_F16 = 1,
    QUANT_Q4_0 = 2,
    QUANT_Q4_1 = 3,
    QUANT_Q8_0 = 8,
    QUANT_Q4_K = 12,
    QUANT_Q6_K = 14,
    QUANT_I8 = 24,
    QUANT_BF16 = 30
} quant_type;

/* Elements per block and bytes per block; false (and zeros) for a type that this build does not read.
 * F32 1/4, F16 1/2, BF16 1/2, I8 1/1, Q4_0 32/18, Q4_1 32/20, Q8_0 32/34, Q4_K 256/144, Q6_K 256/210. */
bool quant_block(uint32_t type, uint32_t *elements, uint32_t *bytes);

/* "F32", "Q4_K", ...; "?" for an unknown type. */
const char *quant_name(uint32_t type);

/* out [n] float32 <- n elements of `type` at src (n a multiple of the block; src need not be aligned). I8 is taken as
 * plain integers. The formulas are ggml's: e.g. Q4_1: d * q + m, low nibbles are elements 0..15 of the block. */
void quant_dequantize(uint32_t type, const void *src, float *out, size_t n);

#endif
