#include "rng.h"

#include <math.h>

static uint64_t splitmix(uint64_t *x) {
    uint64_t z = (*x += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

rng rng_named(uint64_t seed, const char *name) {
    uint64_t x = seed;
    for (const char *p = name; *p; p++) {
        x ^= (uint64_t)(unsigned char)*p;
        x = splitmix(&x);
    }
    rng r = {{0}, 0, false};
    for (int i = 0; i < 4; i++) r.state[i] = splitmix(&x);
    return r;
}

static uint64_t rotate(uint64_t x, int k) { return (x << k) | (x >> (64 - k)); }

uint64_t rng_next(rng *r) {
    uint64_t *s = r->state, result = rotate(s[1] * 5, 7) * 9, t = s[1] << 17;
    s[2] ^= s[0];
    s[3] ^= s[1];
    s[1] ^= s[2];
    s[0] ^= s[3];
    s[2] ^= t;
    s[3] = rotate(s[3], 45);
    return result;
}

double rng_uniform(rng *r) { return (double)(rng_next(r) >> 11) * 0x1p-53; }

double rng_normal(rng *r) {
    if (r->has_spare) {
        r->has_spare = false;
        return r->spare;
    }
    double x, y, s;
    do {
        x = 2 * rng_uniform(r) - 1;
        y = 2 * rng_uniform(r) - 1;
        s = x * x + y * y;
    } while (s >= 1 || s == 0);
    double f = sqrt(-2 * log(s) / s);
    r->spare = y * f;
    r->has_spare = true;
    return x * f;
}

void rng_fill_signs(rng *r, float *out, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] = rng_next(r) >> 63 ? 1.0f : -1.0f;
}

void rng_permutation(rng *r, size_t *order, size_t n) {
    for (size_t i = 0; i < n; i++) order[i] = i;
    for (size_t i = n; i-- > 1;) {
        size_t j = (size_t)(rng_uniform(r) * (double)(i + 1)), kept = order[i];
        order[i] = order[j];
        order[j] = kept;
    }
}
