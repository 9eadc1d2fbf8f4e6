/* kernel_cases.h - pseudo-random inputs and golden computations shared by check_kernels.c (native) and wasm_kernels.c
 * (WASM, no libc): the same numbers must come out of every compiler and ISA. The hashes are in golden/kernel_hashes.h.
 */
#ifndef BP_KERNEL_CASES_H
#define BP_KERNEL_CASES_H

#include "kernel.h"
#include "mathf.h"
#include "quant.h"

enum {
    CASE_TILES = 100,
    CASE_GROUPS = 200,
    CASE_COLS = CASE_GROUPS * 8,
    CASE_ROWS = CASE_TILES * KERNEL_TILE,
    CASE_BLOCKS = (CASE_COLS + KERNEL_BLOCK - 1) / KERNEL_BLOCK,
    CASE_INPUT = 32 * CASE_GROUPS + 128,
    CASE_SCRATCH = 1 << 20
};

/* Buffers of one case; large, hence static in the programs. */
typedef struct {
    _Alignas(64) uint8_t bytes[CASE_TILES * KERNEL_PLANES * CASE_GROUPS * KERNEL_TILE];
    _Alignas(64) uint8_t inputs[KERNEL_LANES * CASE_INPUT];
    _Alignas(64) uint8_t scratch[CASE_SCRATCH];
    float row_scales[CASE_ROWS * CASE_BLOCKS];
    float x[KERNEL_LANES * CASE_COLS], b[CASE_COLS];
    float y[KERNEL_LANES * CASE_ROWS];
} case_buffers;

typedef struct {
    uint64_t state;
} case_rng;

/* splitmix64 */
static inline uint64_t case_next(case_rng *r) {
    uint64_t z = (r->state += 0x9e3779b97f4a7c15u);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
    return z ^ (z >> 31);
}

static inline size_t case_below(case_rng *r, size_t n) { return (size_t)((case_next(r) >> 32) * n >> 32); }

/* uniform in [-1, 1), exact */
static inline float case_uniform(case_rng *r) { return (float)(int32_t)(case_next(r) >> 40) * 0x1p-23f - 1.0f; }

/* Activations: roughly normal, one in 61 an outlier of 20 sigma */
static inline void case_activations(case_rng *r, float *x, size_t n) {
    for (size_t i = 0; i < n; i++) {
        x[i] = (case_uniform(r) + case_uniform(r)) + case_uniform(r);
        if (case_below(r, 61) == 0) x[i] *= 20.0f;
    }
}

static inline void case_bytes(case_rng *r, uint8_t *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) bytes[i] = (uint8_t)(case_next(r) >> 56);
}

/* FNV-1a over bytes, continued from hash */
static inline uint64_t case_hash(uint64_t hash, const void *data, size_t n) {
    const uint8_t *p = data;
    for (size_t i = 0; i < n; i++) hash = (hash ^ p[i]) * 0x100000001b3u;
    return hash;
}

enum { CASE_HASH_SEED = 0x811c9dc5 };

/* Products of a class over eight shapes: one token, then a batch; plain and with planes and row scales. */
static inline uint64_t golden_arith(const kernel_arith *arith, case_buffers *c) {
    static const struct {
        uint32_t tiles, groups, planes, tokens;
    } shapes[] = {{1, 4, 1, 1},   {7, 36, 1, 3},  {36, 72, 1, 16}, {9, 188, 1, 8},
                  {5, 72, 4, 11}, {3, 40, 6, 16}, {2, 100, 8, 2},  {17, 64, 1, 5}};
    case_rng rng = {20240229};
    uint64_t hash = CASE_HASH_SEED;
    for (size_t s = 0; s < sizeof shapes / sizeof shapes[0]; s++) {
        const kernel_signs plain = {c->bytes, NULL, shapes[s].tiles, shapes[s].groups, shapes[s].planes};
        kernel_signs w = plain;
        if (s & 1) w.row_scales = c->row_scales;
        const size_t rows = (size_t)w.tiles * KERNEL_TILE, cols = (size_t)w.groups * 8,
                     size = arith->input_bytes(w.groups);
        case_bytes(&rng, c->bytes, rows * w.planes * w.groups);
        case_activations(&rng, c->row_scales, rows * kernel_blocks(w.groups));
        case_activations(&rng, c->b, cols);
        case_activations(&rng, c->x, shapes[s].tokens * cols);
        for (size_t t = 0; t < shapes[s].tokens; t++)
            arith->prepare(c->inputs + t * size, c->x + t * cols, s & 2 ? c->b : NULL, cols - s % 3, w.groups);
        arith->product(c->y, &w, c->inputs, 0, w.tiles);
        hash = case_hash(hash, c->y, rows * sizeof(float));
        arith->batch(c->y, rows, &w, c->inputs, shapes[s].tokens, 0, w.tiles, c->scratch);
        hash = case_hash(hash, c->y, shapes[s].tokens * rows * sizeof(float));
    }
    return hash;
}

/* dots, rmsnorm and swiglu over several sizes */
static inline uint64_t golden_float(const kernel_table *table, case_buffers *c) {
    static const uint16_t sizes[] = {2, 16, 30, 64, 65, 576, 1001, 1536};
    case_rng rng = {19700101};
    uint64_t hash = CASE_HASH_SEED;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        const size_t n = sizes[i], rows = 1 + i;
        case_activations(&rng, c->b, n);
        case_activations(&rng, c->x, rows * n);
        table->dots(c->y, c->b, c->x, n, n, rows);
        hash = case_hash(hash, c->y, rows * sizeof(float));
        table->rmsnorm(c->y, c->x, c->b, n, 1e-5f);
        hash = case_hash(hash, c->y, n * sizeof(float));
        table->swiglu(c->y, c->x, c->b, n);
        hash = case_hash(hash, c->y, n * sizeof(float));
    }
    return hash;
}

enum { CASE_QUERIES = 8 };

/* One span: keys and values in c->bytes, scales in c->row_scales, queries in c->inputs */
static inline kernel_span case_span(case_buffers *c) {
    return (kernel_span){.k = c->bytes,
                         .v = c->bytes + 2 * KERNEL_SPAN * KERNEL_HEAD,
                         .k_scales = c->row_scales,
                         .v_scales = c->row_scales + KERNEL_SPAN,
                         .next = c->bytes};
}

/* Row p <- x [dim] as key, x2 [dim] as value */
static inline void case_store(const kernel_cache *cache, case_buffers *c, size_t p, const float *x, const float *x2,
                              size_t dim) {
    const size_t at = p * dim * cache->bits / 8;
    cache->store(c->bytes + at, c->row_scales + p, x, dim);
    cache->store(c->bytes + 2 * KERNEL_SPAN * KERNEL_HEAD + at, c->row_scales + KERNEL_SPAN + p, x2, dim);
}

/* Rows and queries of one cache, and what attention and the merging of all parts make of them */
static inline uint64_t golden_cache(const kernel_table *table, const kernel_cache *cache, case_buffers *c) {
    static const uint16_t heads[] = {16, 32, 64, 80, 128, 256};
    case_rng rng = {19700101};
    uint64_t hash = CASE_HASH_SEED;
    for (size_t i = 0; i < sizeof heads / sizeof heads[0]; i++) {
        const size_t dim = heads[i], n_pos = 1 + 25 * i, n = 1 + i, row = dim * cache->bits / 8;
        const kernel_span span = case_span(c);
        memset(c->row_scales, 0, 2 * KERNEL_SPAN * sizeof *c->row_scales);
        for (size_t p = 0; p < n_pos; p++) {
            case_activations(&rng, c->x, 2 * dim);
            case_store(cache, c, p, c->x, c->x + dim, dim);
        }
        for (size_t q = 0; q < n; q++) {
            case_activations(&rng, c->b, dim);
            cache->prepare(c->inputs + q * kernel_query_bytes(dim), c->b, dim, 0.125f);
        }
        cache->attend(c->y, c->inputs, n, &span, n_pos, dim);
        for (size_t q = 1; q < n; q++) table->merge(c->y, c->y + q * kernel_part_floats(dim), dim);
        cache->restore(c->x, span.v, span.v_scales[0], dim);
        hash = case_hash(hash, span.k, n_pos * row);
        hash = case_hash(hash, span.v_scales, cache->bits == 8 ? n_pos * sizeof(float) : 0);
        hash = case_hash(hash, c->x, dim * sizeof(float));
        for (size_t q = 0; q < n; q++)
            hash = case_hash(hash, c->y + q * kernel_part_floats(dim), (dim + 2) * sizeof(float));
    }
    return hash;
}

/* The elementary functions on 20000 points each, and all 65536 halves that are numbers */
static inline uint64_t golden_mathf(void) {
    case_rng rng = {31415926};
    uint64_t hash = CASE_HASH_SEED;
    for (int i = 0; i < 20000; i++) {
        const float x = case_uniform(&rng) * (i & 1 ? 95.0f : 4.0f);
        const double d = (double)case_uniform(&rng) * (i & 1 ? 1e6 : 8.0);
        const float f[3] = {bp_expf(x), bp_siluf(x), bp_sqrtf(x < 0 ? -x : x)};
        double e[4] = {bp_exp(d * (i & 1 ? 7e-4 : 1.0)), bp_log(d * d + 1e-300), 0, 0};
        const uint16_t h = bp_half_from_float(x * x * x);
        bp_sincos(d, &e[2], &e[3]);
        hash = case_hash(hash, f, sizeof f);
        hash = case_hash(hash, e, sizeof e);
        hash = case_hash(hash, &h, sizeof h);
    }
    for (uint32_t h = 0; h < 65536; h++) {
        const float x = bp_half_to_float((uint16_t)h);
        if ((h & 0x7c00) != 0x7c00) hash = case_hash(hash, &x, sizeof x);
    }
    return hash;
}

/* Dequantization of random blocks; the half scales of a block are made finite by clearing a bit of each exponent. */
static inline uint64_t golden_quant(case_buffers *c) {
    static const struct {
        uint8_t type, halves[2];
    } types[] = {{QUANT_I8, {255, 255}}, {QUANT_Q4_0, {1, 255}}, {QUANT_Q4_1, {1, 3}},
                 {QUANT_Q8_0, {1, 255}}, {QUANT_Q4_K, {1, 3}},   {QUANT_Q6_K, {209, 255}}};
    case_rng rng = {27182818};
    uint64_t hash = CASE_HASH_SEED;
    for (size_t t = 0; t < sizeof types / sizeof types[0]; t++) {
        uint32_t elements, bytes;
        quant_block(types[t].type, &elements, &bytes);
        const size_t n = 4 * KERNEL_BLOCK;
        case_bytes(&rng, c->bytes, n / elements * bytes);
        for (size_t b = 0; b < n / elements; b++)
            for (int h = 0; h < 2; h++)
                if (types[t].halves[h] != 255) c->bytes[b * bytes + types[t].halves[h]] &= 0xbf;
        quant_dequantize(types[t].type, c->bytes, c->y, n);
        hash = case_hash(hash, c->y, n * sizeof(float));
    }
    return hash;
}

#endif
