/* kernel_batch.h - the lut8 product of several tokens, over vector types of the compiler. An ISA file includes it
 * twice, with BATCH_LANES 8 and 16.
 *
 * The tokens lie in the lanes ("Four Russians"): per group of 8 columns a table of 256 entries, one per sign byte, each
 * BATCH_LANES u16, is the outer sum of the two 16-entry tables of every token:
 *
 *     table[b][token] = low nibble entry [b & 15] + high nibble entry [b >> 4]            (at most 508)
 *
 * A row then costs one load and one vector addition per 8 columns of all tokens. BATCH_GROUPS tables (32 KB) are built
 * at a time; the sums of a chunk of rows stay in the scratch until their block of 256 columns (at most 64 * 254 <
 * 65536) is complete, then the rows as floats, still by token, until their last block. Planes of a tile lie one after
 * the other, so that plane p of tile t is "unit" t * planes + p. */
#define BATCH_JOIN_(a, b) a##b
#define BATCH_JOIN(a, b) BATCH_JOIN_(a, b)
#define BATCH(name) BATCH_JOIN(name, BATCH_LANES)

#ifndef BP_KERNEL_BATCH_H
#define BP_KERNEL_BATCH_H

typedef uint8_t batch_u8x16 __attribute__((vector_size(16)));
typedef uint16_t batch_u16x8 __attribute__((vector_size(16)));
typedef float batch_f4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    BATCH_GROUPS = 4,  /* groups of a pass; columns are padded to as many */
    BATCH_UNITS = 256, /* most units of a chunk: 128 KB of sums */
    BATCH_TABLE_BYTES = BATCH_GROUPS * 256 * 16 * sizeof(uint16_t)
};

/* Where an address is computed and then read at constant distances, WebAssembly has them in its instructions, but only
 * for an address that the compiler takes as given. */
#if defined(__wasm__)
#define BATCH_GIVEN(pointer) __asm__("" : "+r"(pointer))
#else
#define BATCH_GIVEN(pointer) (void)(pointer)
#endif

/* Tiles of a chunk */
static inline size_t batch_chunk(const kernel_signs *w) { return bp_min(w->tiles, BATCH_UNITS / w->planes); }

/* Tiles whose rows wait for the next block */
static inline size_t batch_waiting(const kernel_signs *w) { return kernel_blocks(w->groups) > 1 ? batch_chunk(w) : 1; }

/* The tables of one pass, the sums of a chunk and rows that wait */
static size_t lut8_batch_scratch(const kernel_signs *w) {
    const size_t lanes = KERNEL_TILE * KERNEL_LANES, sums = batch_chunk(w) * w->planes * lanes * sizeof(uint16_t);
    return BATCH_TABLE_BYTES + sums + batch_waiting(w) * lanes * sizeof(float);
}

/* entries[e] = entry e of the 16-entry table of 8 tokens (fewer at the end: zeros); token t's table is at tables +
 * t * token_bytes. Interleaving the rows three times transposes them. */
INLINE void batch_transpose8(batch_u16x8 *entries, const uint8_t *tables, size_t token_bytes, size_t n_tokens) {
    batch_u8x16 v[8], next[8];
    const batch_u8x16 zero = {0};
    UNROLL for (size_t t = 0; t < 8; t++) {
        v[t] = zero;
        if (t < n_tokens) memcpy(&v[t], tables + t * token_bytes, sizeof v[t]);
    }
    UNROLL for (size_t stage = 0; stage < 3; stage++) {
        UNROLL for (size_t i = 0; i < 4; i++) {
            next[2 * i] =
                __builtin_shufflevector(v[i], v[i + 4], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 4], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        UNROLL for (size_t i = 0; i < 8; i++) v[i] = next[i];
    }
    UNROLL for (size_t i = 0; i < 8; i++) {
        entries[2 * i] =
            __builtin_convertvector(__builtin_shufflevector(v[i], v[i], 0, 1, 2, 3, 4, 5, 6, 7), batch_u16x8);
        entries[2 * i + 1] =
            __builtin_convertvector(__builtin_shufflevector(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15), batch_u16x8);
    }
}

/* Reads one word of every cache line in order. The passes below read 64 bytes of every unit, a pattern that memory
 * answers several times as slowly. */
static KERNEL_NOINLINE void batch_touch(const uint8_t *bytes, size_t size) {
    for (size_t i = 0; i < size; i += 64) {
        uint32_t word;
        memcpy(&word, bytes + i, sizeof word);
        __asm__ volatile("" : : "r"(word));
    }
}

/* y[t][row] = v[row][t] for a square of 4 tokens and 4 rows (v: `lanes` floats per row), n <= 4 tokens of it */
INLINE void batch_store4(float *y, size_t y_stride, const float *v, size_t lanes, size_t n) {
    batch_f4 r[4], t[4];
    for (size_t i = 0; i < 4; i++) memcpy(&r[i], v + i * lanes, sizeof r[i]);
    const batch_f4 a = __builtin_shufflevector(r[0], r[1], 0, 4, 1, 5),
                   b = __builtin_shufflevector(r[0], r[1], 2, 6, 3, 7);
    const batch_f4 c = __builtin_shufflevector(r[2], r[3], 0, 4, 1, 5),
                   d = __builtin_shufflevector(r[2], r[3], 2, 6, 3, 7);
    t[0] = __builtin_shufflevector(a, c, 0, 1, 4, 5);
    t[1] = __builtin_shufflevector(a, c, 2, 3, 6, 7);
    t[2] = __builtin_shufflevector(b, d, 0, 1, 4, 5);
    t[3] = __builtin_shufflevector(b, d, 2, 3, 6, 7);
    for (size_t i = 0; i < n; i++) memcpy(y + i * y_stride, &t[i], sizeof t[i]);
}

typedef struct {
    batch_f4 part[2];
} batch_row; /* one row of 8 tokens */

/* sums - middle: behind 0x4b00 a number of 16 bits is the float 2^23 + number */
INLINE batch_row batch_integers(const uint16_t *sums, float middle) {
    const batch_u16x8 above = {0x4b00, 0x4b00, 0x4b00, 0x4b00, 0x4b00, 0x4b00, 0x4b00, 0x4b00};
    batch_u16x8 v;
    memcpy(&v, sums, sizeof v);
    return (batch_row){
        {(batch_f4)__builtin_shufflevector(v, above, 0, 8, 1, 9, 2, 10, 3, 11) - (8388608.0f + middle),
         (batch_f4)__builtin_shufflevector(v, above, 4, 12, 5, 13, 6, 14, 7, 15) - (8388608.0f + middle)}};
}

/* rows [16][lanes] (first ? = : +=) I scale row_scale of one tile for all lanes; sums [planes][16][lanes]. The sum of
 * the planes, below 2^24, is exact in floats. */
INLINE void batch_rows(float *rows, const uint16_t *sums, size_t planes, const float *scale, const float *row_scales,
                       size_t row_stride, float middle, size_t lanes, bool first) {
    for (size_t r = 0; r < KERNEL_TILE; r++) {
        const uint16_t *row = sums + (r < 8 ? 2 * r : 2 * r - 15) * lanes;
        for (size_t l = 0; l < lanes; l += 8) {
            batch_row v = batch_integers(row + l, middle);
            for (size_t p = 1; p < planes; p++) {
                const batch_row plane = batch_integers(row + l + p * KERNEL_TILE * lanes, middle);
                for (size_t i = 0; i < 2; i++) v.part[i] += plane.part[i] * (float)(1 << p);
            }
            for (size_t i = 0; i < 2; i++) {
                float *to = rows + r * lanes + l + 4 * i;
                batch_f4 factor, sum = {0};
                memcpy(&factor, scale + l + 4 * i, sizeof factor);
                v.part[i] *= factor;
                if (row_scales) v.part[i] *= row_scales[r * row_stride];
                if (!first) memcpy(&sum, to, sizeof sum);
                if (!first || row_scales)
                    v.part[i] = sum + v.part[i]; /* 0 + v, as in the decode product, is never -0 */
                memcpy(to, &v.part[i], sizeof sum);
            }
        }
    }
}

/* The rows of a tile by what block `block` adds to them */
INLINE void batch_tile(float *rows, const kernel_signs *w, const uint16_t *sums, const float *scale, size_t lanes,
                       size_t tile, size_t block) {
    const size_t blocks = kernel_blocks(w->groups);
    const float middle = (float)(127 * 2 * kernel_block_groups(w->groups, block));
    if (w->row_scales)
        batch_rows(rows, sums, w->planes, scale, w->row_scales + KERNEL_TILE * tile * blocks + block, blocks, middle,
                   lanes, block == 0);
    else if (w->planes > 1)
        batch_rows(rows, sums, w->planes, scale, NULL, 0, middle, lanes, block == 0);
    else if (block == 0)
        batch_rows(rows, sums, 1, scale, NULL, 0, middle, lanes, true);
    else
        batch_rows(rows, sums, 1, scale, NULL, 0, middle, lanes, false);
}

/* y [t][row] = rows [16][lanes] of one tile; y points at its first row */
INLINE void batch_store(float *y, size_t y_stride, const float *rows, size_t lanes, size_t n_tokens) {
    for (size_t t = 0; t < n_tokens; t += 4)
        for (size_t r = 0; r < KERNEL_TILE; r += 4)
            batch_store4(y + t * y_stride + r, y_stride, rows + r * lanes + t, lanes, bp_min(4, n_tokens - t));
}

#endif

typedef uint16_t BATCH(batch_u16x) __attribute__((vector_size(2 * BATCH_LANES)));

/* The 256-entry tables of the BATCH_GROUPS groups of a pass; input points at the first token's tables of the first
 * group, which is even. Eight tokens and eight entries at a time, so that these stay in registers. */
static KERNEL_NOINLINE void BATCH(batch_tables)(uint16_t *table, const uint8_t *input, size_t token_bytes,
                                                size_t n_tokens) {
    for (size_t g = 0; g < BATCH_GROUPS; g++, table += 256 * BATCH_LANES)
        for (size_t first = 0; first < BATCH_LANES; first += 8) {
            const size_t left = n_tokens > first ? n_tokens - first : 0;
            const uint8_t *tokens = input + first * token_bytes;
            batch_u16x8 low[16], high[16];
            batch_transpose8(low, tokens + lut8_table(g, 0), token_bytes, left);
            batch_transpose8(high, tokens + lut8_table(g, 1), token_bytes, left);
            for (size_t l = 0; l < 16; l += 8)
                for (size_t h = 0; h < 16; h++) {
                    uint16_t *to = table + (16 * h + l) * BATCH_LANES + first;
                    BATCH_GIVEN(to);
                    UNROLL for (size_t i = 0; i < 8; i++) * (batch_u16x8 *)(void *)(to + i * BATCH_LANES) =
                        low[l + i] + high[h];
                }
        }
}

/* sums [16][lanes] of one unit (+)= the entries of BATCH_GROUPS groups */
INLINE void BATCH(batch_unit)(BATCH(batch_u16x) * sums, const uint16_t *table, const uint8_t *bytes, bool first) {
    BATCH_GIVEN(sums);
    UNROLL for (size_t j = 0; j < KERNEL_TILE; j++) {
        BATCH(batch_u16x) sum = first ? (BATCH(batch_u16x)){0} : sums[j];
        UNROLL for (size_t g = 0; g < BATCH_GROUPS; g++) {
            const uint16_t *entry = table + bytes[KERNEL_TILE * g + j] * BATCH_LANES;
            BATCH_GIVEN(entry);
            sum += *(const BATCH(batch_u16x) *)(const void *)(entry + 256 * BATCH_LANES * g);
        }
        sums[j] = sum;
    }
}

static KERNEL_NOINLINE void BATCH(batch_begin)(BATCH(batch_u16x) * sums, const uint16_t *table, const uint8_t *bytes,
                                               size_t unit_bytes, size_t units) {
    for (size_t u = 0; u < units; u++, bytes += unit_bytes, sums += KERNEL_TILE)
        BATCH(batch_unit)(sums, table, bytes, true);
}

static KERNEL_NOINLINE void BATCH(batch_add)(BATCH(batch_u16x) * sums, const uint16_t *table, const uint8_t *bytes,
                                             size_t unit_bytes, size_t units) {
    for (size_t u = 0; u < units; u++, bytes += unit_bytes, sums += KERNEL_TILE)
        BATCH(batch_unit)(sums, table, bytes, false);
}

/* rows of the `tiles` tiles from `tile` on from the sums of a block; those of the last block go to y */
static KERNEL_NOINLINE void BATCH(batch_flush)(float *y, size_t y_stride, const kernel_signs *w, float *rows,
                                               const uint16_t *sums, const float *scale, size_t n_tokens, size_t tile,
                                               size_t tiles, size_t block) {
    for (size_t i = 0; i < tiles; i++, sums += w->planes * KERNEL_TILE * BATCH_LANES) {
        float *place = rows + (kernel_blocks(w->groups) > 1 ? i * KERNEL_TILE * BATCH_LANES : 0);
        batch_tile(place, w, sums, scale, BATCH_LANES, tile + i, block);
        if (block + 1 == kernel_blocks(w->groups))
            batch_store(y + KERNEL_TILE * (tile + i), y_stride, place, BATCH_LANES, n_tokens);
    }
}

static KERNEL_NOINLINE void BATCH(lut8_batch)(float *y, size_t y_stride, const kernel_signs *w, const void *inputs,
                                              size_t n_tokens, size_t first, size_t end, void *scratch) {
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32;
    const size_t chunk = batch_chunk(w), unit_bytes = (size_t)w->groups * KERNEL_TILE;
    const uint8_t *tables = (const uint8_t *)inputs + lut8_tables_offset(w->groups);
    uint16_t *table = scratch;
    BATCH(batch_u16x) *sums = (void *)((uint8_t *)scratch + BATCH_TABLE_BYTES);
    float *rows = (void *)(sums + chunk * w->planes * KERNEL_TILE);
    for (size_t t = first; t < end; t += chunk) {
        const size_t tiles = bp_min(chunk, end - t), units = tiles * w->planes;
        const uint8_t *bytes = w->bytes + t * w->planes * unit_bytes;
        batch_touch(bytes, units * unit_bytes);
        for (size_t block = 0; block < kernel_blocks(w->groups); block++) {
            const size_t begin = block * KERNEL_BLOCK_GROUPS, stop = begin + kernel_block_groups(w->groups, block);
            float scale[BATCH_LANES] = {0};
            for (size_t i = 0; i < n_tokens; i++)
                scale[i] = ((const float *)(const void *)((const uint8_t *)inputs + i * token_bytes))[block];
            for (size_t g = begin; g < stop; g += BATCH_GROUPS) {
                BATCH(batch_tables)(table, tables + 32 * g, token_bytes, n_tokens);
                if (g == begin)
                    BATCH(batch_begin)(sums, table, bytes + KERNEL_TILE * g, unit_bytes, units);
                else
                    BATCH(batch_add)(sums, table, bytes + KERNEL_TILE * g, unit_bytes, units);
            }
            BATCH(batch_flush)(y, y_stride, w, rows, (const uint16_t *)sums, scale, n_tokens, t, tiles, block);
        }
    }
}

#undef BATCH_LANES
