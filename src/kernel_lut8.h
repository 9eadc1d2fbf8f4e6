/* kernel_lut8.h - how the decode product walks the matrix, shared by the ISA files. Before including it an ISA file
 * defines
 *
 *     INLINE                   static inline, always
 *     rows_i16, rows_i32       the integers of the 16 rows of a tile
 *     lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables, size_t groups)
 *                              one block of `count` byte streams in lockstep; count is a constant after inlining
 *     rows_widen(rows_i16 rows)                           -> rows_i32
 *     rows_add(rows_i32 sum, rows_i16 rows, int shift)    -> sum + (rows << shift)
 *     rows_flush(float *y, rows_i32 rows, float scale, const float *row_scales, size_t stride, bool first)
 *                              y[r] = (first ? 0 : y[r]) + rows[r] * scale * row_scales[r * stride] (or 1 if NULL) */
#ifndef BP_KERNEL_LUT8_H
#define BP_KERNEL_LUT8_H

enum {
    PANEL_BLOCKS = 8,             /* blocks whose sums over planes are held at once */
    BATCH_CHUNK_BYTES = 128 << 10 /* signs that all tokens of a batch meet before the next ones are read */
};

INLINE void lut8_flush(float *y, const kernel_signs *w, const void *input, size_t tile, size_t block, rows_i32 rows) {
    const size_t blocks = kernel_blocks(w->groups), row = tile * KERNEL_TILE;
    const float *row_scales = w->row_scales ? w->row_scales + row * blocks + block : NULL;
    rows_flush(y + row, rows, ((const float *)input)[block], row_scales, blocks, block == 0);
}

/* One block of plane p of `count` tiles that lie `step` tiles apart */
INLINE void lut8_block(rows_i16 *sums, const kernel_signs *w, const void *input, size_t tile, size_t step, int count,
                       size_t p, size_t block) {
    const size_t groups = w->groups, g = block * KERNEL_BLOCK_GROUPS;
    const uint8_t *tables = (const uint8_t *)input + lut8_tables_offset(groups) + 32 * g;
    const uint8_t *streams[4];
    for (int i = 0; i < count; i++)
        streams[i] = w->bytes + (((tile + (size_t)i * step) * w->planes + p) * groups + g) * KERNEL_TILE;
    lut8_streams(sums, streams, count, tables, kernel_block_groups(groups, block));
}

INLINE void lut8_plain(float *y, const kernel_signs *w, const void *input, size_t tile, size_t step, int count) {
    for (size_t block = 0; block < kernel_blocks(w->groups); block++) {
        rows_i16 sums[4];
        lut8_block(sums, w, input, tile, step, count, 0, block);
        for (int i = 0; i < count; i++) lut8_flush(y, w, input, tile + (size_t)i * step, block, rows_widen(sums[i]));
    }
}

/* Blocks first..end (at most PANEL_BLOCKS) of a matrix of planes. Every plane is read in one run over the blocks, since
 * a stream that jumps comes from memory at a third of the speed. */
INLINE void lut8_panel(float *y, const kernel_signs *w, const void *input, size_t tile, size_t step, int count,
                       size_t first, size_t end) {
    rows_i32 sums[PANEL_BLOCKS][4];
    for (size_t p = 0; p < w->planes; p++)
        for (size_t block = first; block < end; block++) {
            rows_i16 added[4];
            rows_i32 *to = sums[block - first];
            lut8_block(added, w, input, tile, step, count, p, block);
            for (int i = 0; i < count; i++) to[i] = p ? rows_add(to[i], added[i], (int)p) : rows_widen(added[i]);
        }
    for (size_t block = first; block < end; block++)
        for (int i = 0; i < count; i++) lut8_flush(y, w, input, tile + (size_t)i * step, block, sums[block - first][i]);
}

INLINE void lut8_panels(float *y, const kernel_signs *w, const void *input, size_t tile, size_t step, int count) {
    const size_t blocks = kernel_blocks(w->groups);
    for (size_t block = 0; block < blocks; block += PANEL_BLOCKS)
        lut8_panel(y, w, input, tile, step, count, block, bp_min(block + PANEL_BLOCKS, blocks));
}

/* Four quarters, `step` tiles each, of a matrix of planes */
static KERNEL_NOINLINE void lut8_planes(float *y, const kernel_signs *w, const void *input, size_t first, size_t step) {
    for (size_t t = first; t < first + step; t++) lut8_panels(y, w, input, t, step, 4);
}

/* The last tiles of a range. A matrix of planes (the head) has so many that their order does not matter. */
static KERNEL_NOINLINE void lut8_rest(float *y, const kernel_signs *w, const void *input, size_t tile, size_t count) {
    if (w->planes > 1)
        for (size_t t = tile; t < tile + count; t++) lut8_panels(y, w, input, t, 1, 1);
    else if (count == 1)
        lut8_plain(y, w, input, tile, 1, 1);
    else if (count == 2)
        lut8_plain(y, w, input, tile, 1, 2);
    else if (count == 3)
        lut8_plain(y, w, input, tile, 1, 3);
}

/* Four quarters of the range walk in lockstep: four distant sequential streams come from memory several times as fast
 * as one, or as four neighbouring ones. */
static KERNEL_NOINLINE void lut8_product_streams(float *y, const kernel_signs *w, const void *input, size_t first,
                                                 size_t end) {
    const size_t quarter = (end - first) / 4, rest = first + 4 * quarter;
    if (w->planes > 1)
        lut8_planes(y, w, input, first, quarter);
    else
        for (size_t t = first; t < first + quarter; t++) lut8_plain(y, w, input, t, quarter, 4);
    lut8_rest(y, w, input, rest, end - rest);
}

/* A batch as one product per token: chunk by chunk, so that signs come from memory once for all tokens. */
static KERNEL_NOINLINE void lut8_batch_streams(float *y, size_t y_stride, const kernel_signs *w, const void *inputs,
                                               size_t n_tokens, size_t first, size_t end, void *scratch) {
    (void)scratch;
    const size_t tile_bytes = (size_t)w->planes * w->groups * KERNEL_TILE;
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32;
    const size_t chunk = bp_max(4, BATCH_CHUNK_BYTES / tile_bytes / 4 * 4);
    for (size_t t = first; t < end; t += chunk)
        for (size_t i = 0; i < n_tokens; i++) {
            const void *input = (const uint8_t *)inputs + i * token_bytes;
            lut8_product_streams(y + i * y_stride, w, input, t, bp_min(t + chunk, end));
        }
}

#endif
