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
 * 65536) is complete. Planes of a tile lie one after the other, so that plane p of tile t is "unit" t * planes + p. */
#define BATCH_JOIN_(a, b) a##b
#define BATCH_JOIN(a, b) BATCH_JOIN_(a, b)
#define BATCH(name) BATCH_JOIN(name, BATCH_LANES)

#ifndef BP_KERNEL_BATCH_H
#define BP_KERNEL_BATCH_H

typedef uint8_t batch_u8x16 __attribute__((vector_size(16)));
typedef uint16_t batch_u16x8 __attribute__((vector_size(16)));
typedef int16_t batch_i16x8 __attribute__((vector_size(16)));
typedef int32_t batch_i32x8 __attribute__((vector_size(32)));
typedef float batch_f32x8 __attribute__((vector_size(32)));
typedef float batch_f4 __attribute__((vector_size(16)));

#if defined(__clang__)
#define UNROLL _Pragma("clang loop unroll(full)")
#else
#define UNROLL _Pragma("GCC unroll 16")
#endif

enum {
    BATCH_UNITS = 256,                   /* most units of a chunk: 128 KB of sums */
    BATCH_TABLE_BYTES = 4 * 256 * 16 * 2 /* the tables of one pass */
};

/* Tiles of a chunk */
static inline size_t batch_chunk(const kernel_signs *w) { return bp_min(w->tiles, BATCH_UNITS / w->planes); }

static size_t lut8_batch_scratch(const kernel_signs *w) {
    return BATCH_TABLE_BYTES + batch_chunk(w) * w->planes * KERNEL_TILE * KERNEL_LANES * sizeof(uint16_t);
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
    UNROLL for (int stage = 0; stage < 3; stage++) {
        UNROLL for (int i = 0; i < 4; i++) {
            next[2 * i] =
                __builtin_shufflevector(v[i], v[i + 4], 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
            next[2 * i + 1] =
                __builtin_shufflevector(v[i], v[i + 4], 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
        }
        UNROLL for (int i = 0; i < 8; i++) v[i] = next[i];
    }
    UNROLL for (int i = 0; i < 8; i++) {
        entries[2 * i] =
            __builtin_convertvector(__builtin_shufflevector(v[i], v[i], 0, 1, 2, 3, 4, 5, 6, 7), batch_u16x8);
        entries[2 * i + 1] =
            __builtin_convertvector(__builtin_shufflevector(v[i], v[i], 8, 9, 10, 11, 12, 13, 14, 15), batch_u16x8);
    }
}

/* The 256-entry tables of `groups` groups, `lanes` tokens each; input points at the first token's tables of the first
 * group, which is even. Eight tokens at a time, so that one half of the entries stays in registers. */
INLINE void batch_tables(batch_u16x8 *table, const uint8_t *input, size_t token_bytes, size_t n_tokens, size_t lanes,
                         size_t groups) {
    const size_t parts = lanes / 8;
    for (size_t g = 0; g < groups; g++, table += 256 * parts)
        for (size_t part = 0; part < parts; part++) {
            batch_u16x8 low[16], high[16];
            const uint8_t *tokens = input + 8 * part * token_bytes;
            batch_transpose8(low, tokens + lut8_table(g, 0), token_bytes, n_tokens - 8 * part);
            batch_transpose8(high, tokens + lut8_table(g, 1), token_bytes, n_tokens - 8 * part);
            for (size_t h = 0; h < 16; h++)
                UNROLL for (size_t l = 0; l < 16; l++) table[(16 * h + l) * parts + part] = low[l] + high[h];
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

/* y[t][row] += v[row][t] for a square of 4 tokens and 4 rows (v: `lanes` floats per row), n <= 4 tokens of it; set
 * where first */
INLINE void batch_store4(float *y, size_t y_stride, const float *v, size_t lanes, size_t n, bool first) {
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
    for (size_t i = 0; i < n; i++) {
        batch_f4 sum = {0};
        if (!first) memcpy(&sum, y + i * y_stride, sizeof sum);
        sum += t[i];
        memcpy(y + i * y_stride, &sum, sizeof sum);
    }
}

/* v [8] = I scale row_scale of one row for 8 tokens; sums of the planes lie plane_stride apart, middle = 127 * lookups
 */
INLINE void batch_row8(float *v, const uint16_t *sums, size_t plane_stride, size_t planes, size_t middle,
                       const float *scale, const float *row_scale) {
    batch_i32x8 rows = {0};
    batch_f32x8 scales;
    memcpy(&scales, scale, sizeof scales);
    for (size_t p = 0; p < planes; p++, sums += plane_stride) {
        batch_i16x8 plane;
        memcpy(&plane, sums, sizeof plane);
        rows += __builtin_convertvector(plane - (int16_t)middle, batch_i32x8) << (int32_t)p;
    }
    scales = __builtin_convertvector(rows, batch_f32x8) * scales;
    if (row_scale) scales *= *row_scale;
    memcpy(v, &scales, sizeof scales);
}

/* y += I scale row_scale for one tile and all tokens; sums [planes][16][lanes], scale [lanes] */
INLINE void batch_flush(float *y, size_t y_stride, const kernel_signs *w, const uint16_t *sums, const float *scale,
                        size_t lanes, size_t n_tokens, size_t tile, size_t block) {
    const size_t blocks = kernel_blocks(w->groups), middle = 127 * 2 * kernel_block_groups(w->groups, block);
    const float *row_scale = w->row_scales ? w->row_scales + KERNEL_TILE * tile * blocks + block : NULL;
    float v[KERNEL_TILE * KERNEL_LANES];
    for (size_t r = 0; r < KERNEL_TILE; r++)
        for (size_t l = 0; l < lanes; l += 8)
            batch_row8(v + r * lanes + l, sums + (r < 8 ? 2 * r : 2 * r - 15) * lanes + l, KERNEL_TILE * lanes,
                       w->planes, middle, scale + l, row_scale ? row_scale + r * blocks : NULL);
    y += KERNEL_TILE * tile;
    for (size_t t = 0; t < n_tokens; t += 4)
        for (size_t r = 0; r < KERNEL_TILE; r += 4)
            batch_store4(y + t * y_stride + r, y_stride, v + r * lanes + t, lanes, bp_min(4, n_tokens - t), block == 0);
}

#endif

typedef uint16_t BATCH(batch_u16x) __attribute__((vector_size(2 * BATCH_LANES)));

/* sums [units][16][lanes] += the entries of `groups` (a constant) groups; unit u's bytes are at bytes + u * unit_bytes
 */
INLINE void BATCH(batch_units)(BATCH(batch_u16x) * sums, const BATCH(batch_u16x) * table, const uint8_t *bytes,
                               size_t unit_bytes, size_t units, int groups, bool first) {
    for (size_t u = 0; u < units; u++, bytes += unit_bytes, sums += KERNEL_TILE)
        UNROLL for (int j = 0; j < KERNEL_TILE; j++) {
            BATCH(batch_u16x) sum = first ? (BATCH(batch_u16x)){0} : sums[j];
            for (int g = 0; g < groups; g++) sum += table[256 * g + bytes[KERNEL_TILE * g + j]];
            sums[j] = sum;
        }
}

/* Sums over one block of `units` units from w->bytes + first_unit on */
static void BATCH(batch_block)(BATCH(batch_u16x) * sums, BATCH(batch_u16x) * table, const kernel_signs *w,
                               const uint8_t *inputs, size_t token_bytes, size_t n_tokens, size_t first_unit,
                               size_t units, size_t block) {
    enum { GROUPS = 64 / BATCH_LANES };
    const size_t unit_bytes = (size_t)w->groups * KERNEL_TILE, first = block * KERNEL_BLOCK_GROUPS;
    const size_t end = first + kernel_block_groups(w->groups, block);
    const uint8_t *bytes = w->bytes + first_unit * unit_bytes;
    const uint8_t *tables = inputs + lut8_tables_offset(w->groups);
    size_t g = first;
    for (; g + GROUPS <= end; g += GROUPS) {
        batch_tables((batch_u16x8 *)table, tables + 32 * g, token_bytes, n_tokens, BATCH_LANES, GROUPS);
        BATCH(batch_units)(sums, table, bytes + KERNEL_TILE * g, unit_bytes, units, GROUPS, g == first);
    }
    if (g < end) {
        batch_tables((batch_u16x8 *)table, tables + 32 * g, token_bytes, n_tokens, BATCH_LANES, 4);
        BATCH(batch_units)(sums, table, bytes + KERNEL_TILE * g, unit_bytes, units, 4, g == first);
    }
}

static KERNEL_NOINLINE void BATCH(lut8_batch)(float *y, size_t y_stride, const kernel_signs *w, const void *inputs,
                                              size_t n_tokens, size_t first, size_t end, void *scratch) {
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32, planes = w->planes;
    BATCH(batch_u16x) *table = scratch;
    BATCH(batch_u16x) *sums = (void *)((uint8_t *)scratch + BATCH_TABLE_BYTES);
    const size_t chunk = batch_chunk(w);
    for (size_t t = first; t < end; t += chunk) {
        const size_t tiles = bp_min(chunk, end - t), tile_bytes = planes * w->groups * KERNEL_TILE;
        batch_touch(w->bytes + t * tile_bytes, tiles * tile_bytes);
        for (size_t block = 0; block < kernel_blocks(w->groups); block++) {
            float scale[BATCH_LANES] = {0};
            for (size_t i = 0; i < n_tokens; i++)
                scale[i] = ((const float *)(const void *)((const uint8_t *)inputs + i * token_bytes))[block];
            BATCH(batch_block)(sums, table, w, inputs, token_bytes, n_tokens, t * planes, tiles * planes, block);
            for (size_t i = 0; i < tiles; i++)
                batch_flush(y, y_stride, w, (const uint16_t *)(sums + i * planes * KERNEL_TILE), scale, BATCH_LANES,
                            n_tokens, t + i, block);
        }
    }
}

#undef BATCH_LANES
