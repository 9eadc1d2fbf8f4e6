/* sha256.h - SHA-256 (FIPS 180-4), streaming: the checksum of headers and pieces in our files. */
#ifndef BP_SHA256_H
#define BP_SHA256_H

#include "base.h"

typedef struct {
    uint32_t state[8];
    uint64_t length;   /* bytes fed so far */
    uint8_t block[64]; /* the unfinished block: length % 64 bytes of it are filled */
} sha256;

void sha256_init(sha256 *h);
void sha256_update(sha256 *h, const void *bytes, size_t n);
void sha256_final(sha256 *h, uint8_t digest[32]);

/* All three in one. */
void sha256_digest(const void *bytes, size_t n, uint8_t digest[32]);

#endif
