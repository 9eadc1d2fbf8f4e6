/* rtn.h - round to nearest: the baselines that a factorization is compared with. No data, no training.
 *
 *     rtn   groups of 64 along the input share one fp16 scale d:  w ~ d q,  q in [-2^(B-1), 2^(B-1) - 1].
 *           d is the best of 32: +-(max |w| / 2^(B-1)) f with f = 0.40, 0.44 ... 1.00, by sum (w - d q)^2; the sign is
 *           free because the levels are not symmetric. The last group of a row may have 32.
 *     q8_0, q4_0   the blocks of 32 of ggml, by its reference formulas.
 *
 * An rtn file is a plain GGUF: Q8_0 whose two neighbouring blocks have the same d and integers of B bits, so it says
 * exactly d q. It is wider than what it stands for: `bitpair.packed_bytes` is the size of a file with B bits per weight
 * and 16 per group, `bitpair.packed_bits` the bits per weight of its linear layers. */
#ifndef BITPAIR_RTN_H
#define BITPAIR_RTN_H

#include "model.h"
#include "workers.h"

enum { RTN_GROUP = 64, RTN_BLOCK = 32, RTN_BLOCK_BYTES = 34 /* of Q8_0 */, RTN_CANDIDATES = 32 };

/* out [m / 32 blocks of Q8_0] <- row [m] at `bits` (2..8) per weight; m a multiple of 32. */
void rtn_encode_row(uint8_t *out, const float *row, size_t m, uint32_t bits);

/* The same in ggml's Q8_0 (34 bytes a block) and Q4_0 (18 bytes a block). */
void rtn_encode_q8_0(uint8_t *out, const float *row, size_t m);
void rtn_encode_q4_0(uint8_t *out, const float *row, size_t m);

/* Bytes of n rows of m weights at `bits` each, with 2 bytes per group; rows begin at whole bytes. */
uint64_t rtn_packed_bytes(uint64_t n, uint64_t m, uint32_t bits);

typedef enum { RTN_GROUPS, RTN_Q8_0, RTN_Q4_0 } rtn_method;

typedef struct {
    rtn_method method;
    uint32_t bits;           /* of RTN_GROUPS: 2..8 */
    uint32_t embedding_bits; /* of RTN_GROUPS: 2..8 for embedding and head; 0 keeps them as the other methods do */
    const char *out_path;
    bool force;
    const char *source; /* bitpair.source */
    workers *workers;   /* rows in parallel; the file does not depend on their number */
    bool (*progress)(void *context, uint64_t done, uint64_t total); /* bytes; false stops: BP_OK in e->code */
    void *context;
} rtn_options;

typedef struct {
    uint64_t bytes, packed_bytes; /* the same for RTN_Q8_0 and RTN_Q4_0 */
    double packed_bits;           /* per weight of the linear layers of the blocks, scales counted */
} rtn_summary;

/* Writes m with its linear layers rounded: complete and synced, or not at all. Matrices whose rows are no multiple of
 * 32 become F16, as in llama.cpp. Embedding and head, where they are not rounded to embedding_bits, stay as in a
 * quantized source and become Q8_0 from a float one. Vectors are copied. BP_ERR_ARGUMENT: m is factorized already;
 * errors of file.h; BP_ERR_MEMORY. */
bool rtn_write(const rtn_options *o, const model *m, rtn_summary *s, bp_err *e);

#endif
