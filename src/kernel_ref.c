/* kernel_ref.c - the scalar kernels. They define the numbers; the other ISAs must return the same bits. */
#include "kernel_impl.h"
#include "mathf.h"

/* Row of byte j inside its tile */
static size_t tile_row(size_t j) { return (j >> 1) + 8 * (j & 1); }

static float scaled_at(const float *x, const float *b, size_t cols, size_t i) {
    if (i >= cols) return 0.0f;
    return b ? b[i] * x[i] : x[i];
}

/* y += I scale row_scale for the 16 rows of tile t, in the order that kernel.h prescribes */
static void flush_ref(float *y, const kernel_signs *w, size_t t, size_t block, const int32_t *sums, float scale) {
    const size_t blocks = kernel_blocks(w->groups);
    for (size_t r = 0; r < KERNEL_TILE; r++) {
        const size_t row = KERNEL_TILE * t + r;
        float v = (float)sums[r] * scale;
        if (w->row_scales) v *= w->row_scales[row * blocks + block];
        y[row] += v;
    }
}

/* ---- lut8 ---- */

static size_t lut8_input_bytes_ref(size_t groups) { return lut8_tables_offset(groups) + groups * 32; }

static uint32_t bits_of(float v) {
    uint32_t bits;
    memcpy(&bits, &v, sizeof bits);
    return bits;
}

static void lut8_entries_ref(uint8_t *table, const float *p) {
    for (unsigned e = 0; e < 8; e++) {
        const float p0 = e & 1 ? p[0] : -p[0], p1 = e & 2 ? p[1] : -p[1], p2 = e & 4 ? p[2] : -p[2];
        table[e] = (uint8_t)bits_of(((p0 + p1) + (p2 - p[3])) + KERNEL_ENTRY);
        table[15 - e] = (uint8_t)(254 - table[e]);
    }
}

/* Bits of the largest entry of n columns, none of them smaller than those of an infinity where there is one or NaN */
static uint32_t lut8_largest_ref(const float *p, size_t n) {
    uint32_t s = 0;
    for (size_t i = 0; i < n; i += 4) {
        const float a = kernel_abs(p[i]) + kernel_abs(p[i + 1]), b = kernel_abs(p[i + 2]) + kernel_abs(p[i + 3]);
        const uint32_t v = bits_of(a + b) & 0x7fffffff; /* not -0 */
        s = v > s ? v : s;
    }
    return s;
}

static void lut8_prepare_ref(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    float *scales = input;
    uint8_t *tables = (uint8_t *)input + lut8_tables_offset(groups);
    memset(input, 0, lut8_tables_offset(groups));
    for (size_t block = 0; block < kernel_blocks(groups); block++) {
        const size_t n = kernel_block_groups(groups, block) * 8, first = block * KERNEL_BLOCK;
        float p[KERNEL_BLOCK] = {0};
        for (size_t i = 0; i < n; i++) p[i] = scaled_at(x, b, cols, first + i);
        const uint32_t s = lut8_largest_ref(p, n);
        scales[block] = lut8_scale(tables + 4 * first, n, s);
        for (size_t i = 0; i < n; i++) p[i] *= kernel_inverse(kernel_from_bits(s));
        for (size_t i = 0; kernel_finite(s) && i < n; i += 4)
            lut8_entries_ref(tables + lut8_table((first + i) / 8, i / 4 & 1), p + i);
    }
}

/* Integers of one block of tile t: sums[16] */
static void lut8_sums_ref(int32_t *sums, const kernel_signs *w, const uint8_t *tables, size_t t, size_t block) {
    const size_t first = block * KERNEL_BLOCK_GROUPS, end = first + kernel_block_groups(w->groups, block);
    memset(sums, 0, KERNEL_TILE * sizeof *sums);
    for (size_t p = 0; p < w->planes; p++) {
        const uint8_t *bytes = w->bytes + (t * w->planes + p) * w->groups * KERNEL_TILE;
        for (size_t g = first; g < end; g++)
            for (size_t j = 0; j < KERNEL_TILE; j++) {
                const uint8_t byte = bytes[g * KERNEL_TILE + j];
                const int entries = tables[lut8_table(g, 0) + (byte & 15)] + tables[lut8_table(g, 1) + (byte >> 4)];
                sums[tile_row(j)] += (entries - 254) * (1 << p);
            }
    }
}

static void lut8_product_ref(float *y, const kernel_signs *w, const void *input, size_t first, size_t end) {
    const float *scales = input;
    const uint8_t *tables = (const uint8_t *)input + lut8_tables_offset(w->groups);
    for (size_t t = first; t < end; t++) {
        for (size_t r = 0; r < KERNEL_TILE; r++) y[KERNEL_TILE * t + r] = 0.0f;
        for (size_t block = 0; block < kernel_blocks(w->groups); block++) {
            int32_t sums[KERNEL_TILE];
            lut8_sums_ref(sums, w, tables, t, block);
            flush_ref(y, w, t, block, sums, scales[block]);
        }
    }
}

static size_t batch_scratch_ref(const kernel_signs *w) {
    (void)w;
    return 0;
}

static void lut8_batch_ref(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens,
                           size_t first, size_t end, void *scratch) {
    (void)scratch;
    const size_t bytes = lut8_input_bytes_ref(w->groups);
    for (size_t i = 0; i < n_tokens; i++)
        lut8_product_ref(y + i * y_stride, w, (const uint8_t *)inputs + i * bytes, first, end);
}

/* ---- popcount ---- */

static size_t popcount_input_bytes_ref(size_t groups) {
    return bp_round_up(popcount_bits_offset(groups) + groups * 8, BP_ALIGN);
}

static void popcount_prepare_ref(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    const size_t blocks = kernel_blocks(groups);
    float *scales = input;
    int32_t *sums = (int32_t *)input + blocks;
    uint8_t *bits = (uint8_t *)input + popcount_bits_offset(groups);
    memset(input, 0, popcount_input_bytes_ref(groups));
    for (size_t block = 0; block < blocks; block++) {
        const size_t n = kernel_block_groups(groups, block) * 8, first = block * KERNEL_BLOCK;
        float p[KERNEL_BLOCK], s = 0.0f;
        for (size_t i = 0; i < n; i++) {
            p[i] = scaled_at(x, b, cols, first + i);
            s = kernel_abs(p[i]) > s ? kernel_abs(p[i]) : s;
        }
        scales[block] = kernel_scale(s);
        for (size_t i = 0; i < n; i++) {
            const int q = kernel_round(p[i] * kernel_inverse(s));
            uint8_t *group = bits + (first + i) / 8 * 8;
            sums[block] += q;
            for (unsigned bit = 0; bit < 8; bit++)
                group[bit] = (uint8_t)(group[bit] | ((unsigned)q >> bit & 1) << (i & 7));
        }
    }
}

/* 2 * (sum of q over the set bits) of one row in groups first..end; bytes at row's byte of group 0 */
static int32_t popcount_row_ref(const uint8_t *bytes, const uint8_t *bits, size_t first, size_t end) {
    int32_t sum = 0;
    for (size_t g = first; g < end; g++) {
        const unsigned signs = bytes[g * KERNEL_TILE];
        for (unsigned bit = 0; bit < 7; bit++) sum += __builtin_popcount(signs & bits[8 * g + bit]) << bit;
        sum -= __builtin_popcount(signs & bits[8 * g + 7]) * 128;
    }
    return 2 * sum;
}

static void popcount_product_ref(float *y, const kernel_signs *w, const void *input, size_t first, size_t end) {
    const size_t blocks = kernel_blocks(w->groups), tile_bytes = (size_t)w->groups * KERNEL_TILE;
    const float *scales = input;
    const int32_t *totals = (const int32_t *)input + blocks;
    const uint8_t *bits = (const uint8_t *)input + popcount_bits_offset(w->groups);
    for (size_t t = first; t < end; t++) {
        for (size_t r = 0; r < KERNEL_TILE; r++) y[KERNEL_TILE * t + r] = 0.0f;
        for (size_t block = 0; block < blocks; block++) {
            const size_t g0 = block * KERNEL_BLOCK_GROUPS, g1 = g0 + kernel_block_groups(w->groups, block);
            int32_t sums[KERNEL_TILE] = {0};
            for (size_t p = 0; p < w->planes; p++)
                for (size_t j = 0; j < KERNEL_TILE; j++) {
                    const uint8_t *row = w->bytes + (t * w->planes + p) * tile_bytes + j;
                    sums[tile_row(j)] += (popcount_row_ref(row, bits, g0, g1) - totals[block]) * (1 << p);
                }
            flush_ref(y, w, t, block, sums, scales[block]);
        }
    }
}

/* For every ISA: nothing is gained by several tokens at once, so the engine does not ask for it. */
static void popcount_batch_ref(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens,
                               size_t first, size_t end, void *scratch) {
    (void)scratch;
    const size_t bytes = popcount_input_bytes_ref(w->groups);
    for (size_t i = 0; i < n_tokens; i++)
        popcount_product_ref(y + i * y_stride, w, (const uint8_t *)inputs + i * bytes, first, end);
}

/* ---- float kernels ---- */

static void dots_ref(float *y, const float *x, const float *w, size_t w_stride, size_t n, size_t n_rows) {
    for (size_t r = 0; r < n_rows; r++, w += w_stride) {
        float p[16] = {0};
        for (size_t i = 0; i < n; i++) p[i % 16] += w[i] * x[i];
        y[r] = kernel_tree_sum(p, 16);
    }
}

static void rmsnorm_ref(float *y, const float *x, const float *w, size_t n, float eps) {
    float p[16] = {0};
    for (size_t i = 0; i < n; i++) p[i % 16] += x[i] * x[i];
    const float factor = 1.0f / bp_sqrtf(kernel_tree_sum(p, 16) / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * factor * w[i];
}

static void swiglu_ref(float *y, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] = bp_siluf(gate[i]) * up[i];
}

void kernel_fill_ref(kernel_table *table) {
    *table = (kernel_table){
        .lut8 = {"lut8", lut8_input_bytes_ref, lut8_prepare_ref, lut8_product_ref, batch_scratch_ref, lut8_batch_ref,
                 UINT32_MAX, NULL},
        .popcount = {"popcount", popcount_input_bytes_ref, popcount_prepare_ref, popcount_product_ref,
                     batch_scratch_ref, popcount_batch_ref, UINT32_MAX, NULL},
        .dots = dots_ref,
        .rmsnorm = rmsnorm_ref,
        .swiglu = swiglu_ref,
    };
    kernel_fill_attention_ref(table);
}
