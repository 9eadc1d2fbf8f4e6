/* random.h - random matrices of tests. */
#ifndef BP_RANDOM_H
#define BP_RANDOM_H

#include "linalg/rng.h"

/* out [n]: normals of mean 0 and variance 1. */
static inline void rng_fill_normal(rng *r, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = (float)rng_normal(r);
}

#endif
