/* rng.h - random numbers that depend on a seed and a name alone: xoshiro256** seeded by splitmix64, and normals by the
 * polar method. */
#ifndef BITPAIR_RNG_H
#define BITPAIR_RNG_H

#include "base.h"

typedef struct {
    uint64_t state[4];
    double spare; /* the second normal of a pair */
    bool has_spare;
} rng;

/* A stream for (seed, name), e.g. (0, "blk.3.attn_q/1"): independent of the order in which streams are used. */
rng rng_named(uint64_t seed, const char *name);

uint64_t rng_next(rng *r);  /* 64 uniform bits */
double rng_uniform(rng *r); /* [0, 1), 53 bits */
double rng_normal(rng *r);  /* mean 0, variance 1 */

/* out [n]: signs +1 and -1. */
void rng_fill_signs(rng *r, float *out, size_t n);

/* order [n]: 0 .. n - 1 in a random order. */
void rng_permutation(rng *r, size_t *order, size_t n);

#endif
