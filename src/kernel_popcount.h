/* kernel_popcount.h - how activations become bit planes and how the product walks the matrix, shared by the ISA files.
 * Before including it an ISA file defines what kernel_lut8.h wants, and
 *
 *     popcount_mask            what the product keeps of one group and bit, or of more than one
 *     POPCOUNT_MASKS           so many of a block
 *     popcount_masks(popcount_mask *masks, const uint8_t *bits, size_t groups)
 *                              from the bit planes [groups][8] of a block
 *     popcount_tile(const uint8_t *bytes, const popcount_mask *masks, size_t groups)
 *                              -> the sum of q over the set bits of each row, as popcount_rows takes it
 *     popcount_rows(rows_i32 sum, <that> set, int32_t total, int shift)
 *                              -> sum + ((2 * set - total) << shift)
 *
 * and for popcount_prepare_planes, which one may do without,
 *
 *     POPCOUNT_STEP            activations that popcount_bits takes
 *     popcount_sums            a vector of int32, 0 as {0}
 *     largest_magnitude(const float *p, size_t n)         -> max |p|, not NaN
 *     popcount_bits(uint8_t *bits, const float *p, float inverse, popcount_sums *sums)
 *                              bits <- bit planes of the rounded activations, by groups; *sums += these, in any lane
 *     popcount_total(popcount_sums sums)                  -> int32, all lanes */
#ifndef BP_KERNEL_POPCOUNT_H
#define BP_KERNEL_POPCOUNT_H

#ifdef POPCOUNT_STEP
static void popcount_prepare_planes(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    const size_t blocks = kernel_blocks(groups), offset = popcount_bits_offset(groups);
    const size_t used = offset + groups * 8, size = bp_round_up(used, BP_ALIGN);
    float *scales = input;
    int32_t *totals = (int32_t *)input + blocks;
    uint8_t *bits = (uint8_t *)input + offset;
    memset(input, 0, offset);
    memset((uint8_t *)input + used, 0, size - used);
    for (size_t block = 0; block < blocks; block++) {
        const size_t n = kernel_block_groups(groups, block) * 8, first = block * KERNEL_BLOCK;
        float p[KERNEL_BLOCK];
        popcount_sums sums = {0};
        scale_block(p, x, b, first, cols, n);
        const float s = largest_magnitude(p, n), inverse = kernel_inverse(s);
        for (size_t i = 0; i < n; i += POPCOUNT_STEP) popcount_bits(bits + first + i, p + i, inverse, &sums);
        scales[block] = kernel_scale(s);
        totals[block] = popcount_total(sums);
    }
}
#endif

static void popcount_product_tiles(float *y, const kernel_signs *w, const void *input, size_t first, size_t end) {
    const size_t groups = w->groups, blocks = kernel_blocks(groups);
    const float *scales = input;
    const int32_t *totals = (const int32_t *)input + blocks;
    const uint8_t *bits = (const uint8_t *)input + popcount_bits_offset(groups);
    for (size_t block = 0; block < blocks; block++) {
        const size_t g = block * KERNEL_BLOCK_GROUPS, n = kernel_block_groups(groups, block);
        popcount_mask masks[POPCOUNT_MASKS];
        popcount_masks(masks, bits + 8 * g, n);
        for (size_t t = first; t < end; t++) {
            const size_t row = t * KERNEL_TILE;
            rows_i32 sums = {0};
            for (size_t p = 0; p < w->planes; p++) {
                const uint8_t *bytes = w->bytes + ((t * w->planes + p) * groups + g) * KERNEL_TILE;
                sums = popcount_rows(sums, popcount_tile(bytes, masks, n), totals[block], (int)p);
            }
            rows_flush(y + row, sums, scales[block], w->row_scales ? w->row_scales + row * blocks + block : NULL,
                       blocks, block == 0);
        }
    }
}

#endif
