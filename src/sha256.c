#include "sha256.h"

/* First 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2). */
static const uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static uint32_t rotate(uint32_t x, unsigned n) { return x >> n | x << (32 - n); }

/* Round j of eight. The eight variables change their roles from round to round instead of their places, so that they stay
 * in registers once the loop over j is unrolled: variable `a` of the standard is v[-j mod 8]. */
static inline void step(uint32_t v[8], unsigned j, uint32_t wk) {
    uint32_t a = v[(0 - j) % 8], b = v[(1 - j) % 8], c = v[(2 - j) % 8], *d = &v[(3 - j) % 8];
    uint32_t e = v[(4 - j) % 8], f = v[(5 - j) % 8], g = v[(6 - j) % 8], *h = &v[(7 - j) % 8];
    uint32_t t1 = *h + (rotate(e, 6) ^ rotate(e, 11) ^ rotate(e, 25)) + (g ^ (e & (f ^ g))) + wk;
    *d += t1;
    *h = t1 + (rotate(a, 2) ^ rotate(a, 13) ^ rotate(a, 22)) + ((a & b) | (c & (a | b)));
}

static void compress(uint32_t state[8], const uint8_t block[64]) {
    uint32_t w[64];
    for (size_t i = 0; i < 16; i++)
        w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 | (uint32_t)block[4 * i + 2] << 8 |
               block[4 * i + 3];
    for (size_t i = 16; i < 64; i++) {
        uint32_t s0 = rotate(w[i - 15], 7) ^ rotate(w[i - 15], 18) ^ w[i - 15] >> 3;
        uint32_t s1 = rotate(w[i - 2], 17) ^ rotate(w[i - 2], 19) ^ w[i - 2] >> 10;
        w[i] = w[i - 16] + s0 + w[i - 7] + s1;
    }
    uint32_t v[8];
    memcpy(v, state, sizeof v);
    for (size_t i = 0; i < 64; i += 8) {
        for (unsigned j = 0; j < 8; j++) step(v, j, round_constants[i + j] + w[i + j]);
    }
    for (size_t i = 0; i < 8; i++) state[i] += v[i];
}

void sha256_init(sha256 *h) {
    static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                      0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    memcpy(h->state, start, sizeof start);
    h->length = 0;
}

void sha256_update(sha256 *h, const void *bytes, size_t n) {
    const uint8_t *p = bytes;
    while (n) {
        size_t used = (size_t)(h->length % 64);
        if (used == 0 && n >= 64) {
            compress(h->state, p);
            h->length += 64, p += 64, n -= 64;
            continue;
        }
        size_t step = bp_min(n, 64 - used);
        memcpy(h->block + used, p, step);
        h->length += step, p += step, n -= step;
        if (h->length % 64 == 0) compress(h->state, h->block);
    }
}

void sha256_final(sha256 *h, uint8_t digest[32]) {
    uint64_t bits = h->length * 8;
    uint8_t tail[72] = {0x80};
    size_t used = (size_t)(h->length % 64);
    size_t pad = used < 56 ? 56 - used : 120 - used;
    for (size_t i = 0; i < 8; i++) tail[pad + i] = (uint8_t)(bits >> (56 - 8 * i));
    sha256_update(h, tail, pad + 8);
    for (size_t i = 0; i < 32; i++) digest[i] = (uint8_t)(h->state[i / 4] >> (24 - 8 * (i % 4)));
}

void sha256_digest(const void *bytes, size_t n, uint8_t digest[32]) {
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, bytes, n);
    sha256_final(&h, digest);
}
