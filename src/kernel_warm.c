#include "kernel.h"

enum {
    TOKENS = KERNEL_LANES,
    COLS = KERNEL_BLOCK,
    GROUPS = COLS / 8,
    TILES = 96, /* rows enough for batches of 8 and of 16 to pay */
    ROWS = TILES * KERNEL_TILE,
    DIM = 64,
    QUERIES = 3, /* heads that share keys and values, in most small models */
    REPEAT = 4   /* measured with V8: often enough to have each compiled, early enough to be worth it */
};

/* Where everything lies: offsets from one block of memory, and its size */
typedef struct {
    size_t signs, inputs, scratch, y, x, rows, query, parts, size;
} places;

static size_t put(places *p, size_t bytes) {
    const size_t at = p->size;
    p->size += bp_round_up(bytes, BP_ALIGN);
    return at;
}

static kernel_signs signs_at(const uint8_t *bytes) {
    return (kernel_signs){.bytes = bytes, .tiles = TILES, .groups = GROUPS, .planes = 1};
}

static places place(const kernel_table *k) {
    const kernel_signs w = signs_at(NULL);
    places p = {0};
    p.signs = put(&p, (size_t)TILES * GROUPS * KERNEL_TILE);
    p.inputs = put(&p, TOKENS * k->lut8.input_bytes(GROUPS));
    p.scratch = put(&p, k->lut8.batch_scratch(&w));
    p.y = put(&p, (size_t)TOKENS * ROWS * sizeof(float));
    p.x = put(&p, COLS * sizeof(float));
    p.rows = put(&p, (size_t)KERNEL_TILE * (DIM + sizeof(float)));
    p.query = put(&p, QUERIES * kernel_query_bytes(DIM));
    p.parts = put(&p, QUERIES * kernel_part_floats(DIM) * sizeof(float));
    return p;
}

size_t kernel_warm_bytes(const kernel_table *k) { return place(k).size; }

static void warm_products(const kernel_arith *arith, const places *p, uint8_t *memory) {
    const kernel_signs w = signs_at(memory + p->signs);
    const size_t bytes = arith->input_bytes(GROUPS);
    const float *x = (const float *)(memory + p->x);
    float *y = (float *)(memory + p->y);
    for (size_t t = 0; t < TOKENS; t++) arith->prepare(memory + p->inputs + t * bytes, x, x, COLS, GROUPS);
    arith->product(y, &w, memory + p->inputs, 0, TILES);
    for (size_t tokens = TOKENS / 2; tokens <= TOKENS; tokens += TOKENS / 2)
        arith->batch(y, ROWS, &w, memory + p->inputs, tokens, 0, TILES, memory + p->scratch);
}

static void warm_attention(const kernel_table *k, const kernel_cache *cache, const places *p, uint8_t *memory) {
    float *x = (float *)(memory + p->x), *scales = (float *)(memory + p->rows + (size_t)KERNEL_TILE * DIM);
    float *parts = (float *)(memory + p->parts);
    const kernel_span span = {.k = memory + p->rows, .v = memory + p->rows, .k_scales = scales, .v_scales = scales};
    for (size_t i = 0; i < KERNEL_TILE; i++) cache->store(memory + p->rows + i * DIM, scales + i, x, DIM);
    for (size_t i = 0; i < QUERIES; i++) cache->prepare(memory + p->query + i * kernel_query_bytes(DIM), x, DIM, 1.0f);
    cache->attend(parts, memory + p->query, QUERIES, &span, KERNEL_TILE, DIM);
    k->merge(parts, parts, DIM);
}

void kernel_warm(const kernel_table *k, void *memory) {
    const places p = place(k);
    float *x = (float *)((uint8_t *)memory + p.x), *y = (float *)((uint8_t *)memory + p.y);
    for (size_t i = 0; i < REPEAT; i++) {
        warm_products(&k->lut8, &p, memory);
        warm_attention(k, &k->cache8, &p, memory);
        k->rmsnorm(y, x, x, COLS, 1e-5f);
        k->swiglu(y, x, x, COLS);
    }
}
