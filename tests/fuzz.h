/* fuzz.h - what the libFuzzer programs share: taking an input apart, and laws whose breach is a crash.
 * A program is run as `build/fuzz/fuzz_NAME tests/fuzz/NAME`; `npm run fuzz` does it for all of them. */
#ifndef BP_FUZZ_H
#define BP_FUZZ_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "err.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
size_t LLVMFuzzerMutate(uint8_t *data, size_t size, size_t most);

/* A law that holds for every input. */
#define LAW(condition)                                                                                                 \
    do {                                                                                                               \
        if (!(condition)) {                                                                                            \
            fprintf(stderr, "%s:%d: broken law: %s\n", __FILE__, __LINE__, #condition);                                \
            abort();                                                                                                   \
        }                                                                                                              \
    } while (0)

/* An error is one line of text with a code. */
static inline void fuzz_check_error(const bp_err *e) {
    LAW(e->code > BP_OK && e->code <= BP_ERR_IO);
    LAW(memchr(e->text, 0, sizeof e->text) && e->text[0]);
    for (const char *c = e->text; *c; c++) LAW((unsigned char)*c >= 0x20 && *c != 0x7f);
}

/* The input as a sequence of fields; past its end everything is 0. */
typedef struct {
    const uint8_t *at;
    size_t left;
} fuzz_input;

static inline uint64_t fuzz_take(fuzz_input *in, size_t bytes) {
    uint64_t v = 0;
    size_t n = bytes < in->left ? bytes : in->left;
    memcpy(&v, in->at, n);
    in->at += n;
    in->left -= n;
    return v;
}

static inline uint8_t fuzz_u8(fuzz_input *in) { return (uint8_t)fuzz_take(in, 1); }

static inline uint32_t fuzz_u32(fuzz_input *in) { return (uint32_t)fuzz_take(in, 4); }

static inline float fuzz_f32(fuzz_input *in) {
    uint32_t bits = fuzz_u32(in);
    float x;
    memcpy(&x, &bits, 4);
    return x;
}

/* The next n bytes, or what is left; *taken of them. */
static inline const uint8_t *fuzz_bytes(fuzz_input *in, size_t n, size_t *taken) {
    const uint8_t *from = in->at;
    *taken = n < in->left ? n : in->left;
    in->at += *taken;
    in->left -= *taken;
    return from;
}

/* A copy of exactly n bytes, aligned as a model must be, so that ASan sees the first byte read outside. */
static inline uint8_t *fuzz_copy(const void *bytes, size_t n) {
    uint8_t *copy = NULL;
    if (posix_memalign((void **)&copy, 64, n ? n : 1)) abort();
    if (n) memcpy(copy, bytes, n);
    return copy;
}

#endif
