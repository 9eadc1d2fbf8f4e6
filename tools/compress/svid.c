#include "svid.h"

#include <math.h>

enum { BLOCK = 64, LANES = 16 }; /* rows of one item; partial sums of a dot product */

typedef struct {
    float *u, *v, *partial; /* partial [blocks, k]: each block's share of |N|' u */
    const float *N;
    size_t n, k;
} projection;

static float dot_abs(const float *x, const float *v, size_t k) {
    float sum[LANES] = {0}, rest = 0;
    size_t j = 0;
    for (; j + LANES <= k; j += LANES)
        for (size_t l = 0; l < LANES; l++) sum[l] += fabsf(x[j + l]) * v[j + l];
    for (; j < k; j++) rest += fabsf(x[j]) * v[j];
    for (size_t l = 0; l < LANES; l++) rest += sum[l];
    return rest;
}

/* u = |N| v and the block's share of |N|' u, one pass over the rows while they are in the cache */
static void pass(void *context, size_t block, uint32_t worker) {
    const projection *p = context;
    float *share = p->partial + block * p->k;
    size_t end = bp_min((block + 1) * BLOCK, p->n);
    (void)worker;
    for (size_t j = 0; j < p->k; j++) share[j] = 0;
    for (size_t i = block * BLOCK; i < end; i++) {
        const float *row = p->N + i * p->k;
        float ui = dot_abs(row, p->v, p->k);
        p->u[i] = ui;
        for (size_t j = 0; j < p->k; j++) share[j] += ui * fabsf(row[j]);
    }
}

static void last_pass(void *context, size_t block, uint32_t worker) {
    const projection *p = context;
    (void)worker;
    for (size_t i = block * BLOCK; i < bp_min((block + 1) * BLOCK, p->n); i++)
        p->u[i] = dot_abs(p->N + i * p->k, p->v, p->k);
}

static void normalize(float *v, size_t k) {
    double sum = 0;
    for (size_t j = 0; j < k; j++) sum += (double)v[j] * v[j];
    float scale = sum > 0 ? (float)(1 / sqrt(sum)) : 0;
    for (size_t j = 0; j < k; j++) v[j] = sum > 0 ? v[j] * scale : (float)(1 / sqrt((double)k));
}

size_t svid_scratch(size_t n, size_t k) { return bp_ceil_div(n, BLOCK) * k; }

void svid_project(workers *w, float *u, float *v, const float *N, size_t n, size_t k, unsigned rounds, float *scratch) {
    size_t blocks = bp_ceil_div(n, BLOCK);
    projection p = {u, v, scratch, N, n, k};
    normalize(v, k);
    for (unsigned r = 0; r < rounds; r++) {
        workers_for(w, blocks, pass, &p);
        for (size_t j = 0; j < k; j++) v[j] = 0;
        for (size_t b = 0; b < blocks; b++)
            for (size_t j = 0; j < k; j++) v[j] += scratch[b * k + j];
        normalize(v, k);
    }
    workers_for(w, blocks, last_pass, &p);
}
