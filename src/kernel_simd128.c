/* kernel_simd128.c - kernels for WebAssembly SIMD128. */
#include <wasm_simd128.h>

#include "kernel_impl.h"
#include "kernel_vec_simd128.h"

#include "kernel_rows.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- lut8: tables ---- */

/* p [n] = b . x from column `first` on, zeros past cols */
static void scale_block(float *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    const size_t have = first < cols ? bp_min(n, cols - first) : 0;
    size_t i = 0;
    for (; i + 4 <= have; i += 4) {
        const v128_t v = wasm_v128_load(x + first + i);
        wasm_v128_store(p + i, b ? wasm_f32x4_mul(wasm_v128_load(b + first + i), v) : v);
    }
    for (; i < have; i++) p[i] = b ? b[first + i] * x[first + i] : x[first + i];
    for (; i < n; i++) p[i] = 0.0f;
}

/* The largest lane; lanes are not NaN */
static inline float largest_lane(v128_t v) {
    float lanes[4], s = 0.0f;
    wasm_v128_store(lanes, v);
    for (int i = 0; i < 4; i++) s = lanes[i] > s ? lanes[i] : s;
    return s;
}

/* max over groups of 4 of (|p0| + |p1|) + (|p2| + |p3|); pmax(a, b) is a < b ? b : a, which passes over NaN in b */
static float largest_entry(const float *p, size_t n) {
    v128_t s = wasm_f32x4_const_splat(0.0f);
    for (size_t i = 0; i < n; i += 8) {
        const v128_t a = wasm_f32x4_abs(wasm_v128_load(p + i)), b = wasm_f32x4_abs(wasm_v128_load(p + i + 4));
        const v128_t pairs = wasm_f32x4_add(wasm_i32x4_shuffle(a, b, 0, 2, 4, 6), wasm_i32x4_shuffle(a, b, 1, 3, 5, 7));
        const v128_t sums = wasm_f32x4_add(pairs, wasm_i32x4_shuffle(pairs, pairs, 1, 0, 3, 2));
        s = wasm_f32x4_pmax(s, sums);
    }
    return largest_lane(s);
}

/* kernel_round(v * inverse) in the low 16 bits of each lane: truncated as float, then read off the sum with 1.5 * 2^23.
 * pmin(127, t) is t < 127 ? t : 127, so that NaN gives 127. */
static inline v128_t round_entries(v128_t v, v128_t inverse) {
    v128_t t = wasm_f32x4_pmin(wasm_f32x4_const_splat(127.0f), wasm_f32x4_mul(v, inverse));
    t = wasm_f32x4_pmax(wasm_f32x4_const_splat(-127.0f), t);
    const v128_t sign = wasm_v128_and(t, wasm_f32x4_const_splat(-0.0f));
    t = wasm_f32x4_trunc(wasm_f32x4_add(t, wasm_v128_or(sign, wasm_f32x4_const_splat(0.5f))));
    return wasm_i32x4_sub(wasm_f32x4_add(t, wasm_f32x4_const_splat(12582912.0f)), wasm_i32x4_const_splat(0x4b400000));
}

/* Entries 0..7 of the table of p[0..3] as i16 */
static inline v128_t half_table(const float *p, v128_t inverse) {
    const v128_t s0 = wasm_f32x4_const(-0.0f, 0.0f, -0.0f, 0.0f), s1 = wasm_f32x4_const(-0.0f, -0.0f, 0.0f, 0.0f);
    const v128_t p01 =
        wasm_f32x4_add(wasm_v128_xor(wasm_v128_load32_splat(p), s0), wasm_v128_xor(wasm_v128_load32_splat(p + 1), s1));
    const v128_t p2 = wasm_v128_load32_splat(p + 2), p3 = wasm_v128_load32_splat(p + 3);
    const v128_t low = wasm_f32x4_add(p01, wasm_f32x4_sub(wasm_f32x4_neg(p2), p3));
    const v128_t high = wasm_f32x4_add(p01, wasm_f32x4_sub(p2, p3));
    return wasm_i16x8_narrow_i32x4(round_entries(low, inverse), round_entries(high, inverse));
}

/* Two tables from p[0..7]: half tables, mirrored with the opposite sign */
static inline void two_tables(uint8_t *tables, const float *p, v128_t inverse) {
    const v128_t halves = wasm_i8x16_narrow_i16x8(half_table(p, inverse), half_table(p + 4, inverse));
    const v128_t opposite = wasm_i64x2_const(0, -1), middle = wasm_i8x16_const_splat(127);
    const v128_t first = wasm_i8x16_shuffle(halves, halves, 0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0);
    const v128_t second =
        wasm_i8x16_shuffle(halves, halves, 8, 9, 10, 11, 12, 13, 14, 15, 15, 14, 13, 12, 11, 10, 9, 8);
    const v128_t a = wasm_i8x16_sub(wasm_v128_xor(first, opposite), opposite);
    const v128_t b = wasm_i8x16_sub(wasm_v128_xor(second, opposite), opposite);
    wasm_v128_store(tables, wasm_i8x16_add(a, middle));
    wasm_v128_store(tables + 16, wasm_i8x16_add(b, middle));
}

static void lut8_prepare_simd128(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    float *scales = input;
    uint8_t *tables = (uint8_t *)input + lut8_tables_offset(groups);
    memset(input, 0, lut8_tables_offset(groups));
    for (size_t block = 0; block < kernel_blocks(groups); block++) {
        const size_t n = kernel_block_groups(groups, block) * 8, first = block * KERNEL_BLOCK;
        float p[KERNEL_BLOCK];
        scale_block(p, x, b, first, cols, n);
        const float s = largest_entry(p, n);
        const v128_t inverse = wasm_f32x4_splat(kernel_inverse(s));
        scales[block] = kernel_scale(s);
        for (size_t i = 0; i < n; i += 8) two_tables(tables + (first + i) * 4, p + i, inverse);
    }
}

/* ---- lut8: products ---- */

/* Rows 0..7 and rows 8..15 of a tile */
typedef struct {
    v128_t low, high;
} rows_i16;

typedef struct {
    v128_t part[4];
} rows_i32;

INLINE rows_i32 rows_widen(rows_i16 rows) {
    return (rows_i32){{wasm_i32x4_extend_low_i16x8(rows.low), wasm_i32x4_extend_high_i16x8(rows.low),
                       wasm_i32x4_extend_low_i16x8(rows.high), wasm_i32x4_extend_high_i16x8(rows.high)}};
}

INLINE rows_i32 rows_add(rows_i32 sum, rows_i16 rows, int shift) {
    const rows_i32 wide = rows_widen(rows);
    for (int i = 0; i < 4; i++)
        sum.part[i] = wasm_i32x4_add(sum.part[i], wasm_i32x4_shl(wide.part[i], (uint32_t)shift));
    return sum;
}

INLINE void rows_flush(float *y, rows_i32 rows, float scale, const float *row_scales, size_t stride, bool first) {
    for (size_t i = 0; i < 4; i++) {
        v128_t v = wasm_f32x4_mul(wasm_f32x4_convert_i32x4(rows.part[i]), wasm_f32x4_splat(scale));
        if (row_scales) {
            const float *r = row_scales + 4 * i * stride;
            v = wasm_f32x4_mul(v, wasm_f32x4_make(r[0], r[stride], r[2 * stride], r[3 * stride]));
        }
        const v128_t sum = first ? wasm_f32x4_const_splat(0.0f) : wasm_v128_load(y + 4 * i);
        wasm_v128_store(y + 4 * i, wasm_f32x4_add(sum, v));
    }
}

/* all += e adds both bytes of a lane at once, odd += e >> 8 the odd ones alone; all - (odd << 8) are the even ones. */
INLINE void lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables,
                         size_t groups) {
    const v128_t nibble = wasm_i8x16_const_splat(15);
    v128_t all[4], odd[4];
    for (int i = 0; i < count; i++) all[i] = odd[i] = wasm_i64x2_const(0, 0);
    for (size_t g = 0; g < groups; g++) {
        const v128_t low_table = wasm_v128_load(tables + 32 * g), high_table = wasm_v128_load(tables + 32 * g + 16);
        for (int i = 0; i < count; i++) {
            const v128_t v = wasm_v128_load(streams[i] + KERNEL_TILE * g);
            const v128_t e = wasm_i8x16_swizzle(low_table, wasm_v128_and(v, nibble));
            const v128_t f = wasm_i8x16_swizzle(high_table, wasm_u8x16_shr(v, 4));
            all[i] = wasm_i16x8_add(wasm_i16x8_add(all[i], e), f);
            odd[i] = wasm_i16x8_add(wasm_i16x8_add(odd[i], wasm_u16x8_shr(e, 8)), wasm_u16x8_shr(f, 8));
        }
    }
    const v128_t middle = wasm_i16x8_splat((int16_t)(127 * 2 * groups));
    for (int i = 0; i < count; i++) {
        sums[i].low = wasm_i16x8_sub(wasm_i16x8_sub(all[i], wasm_i16x8_shl(odd[i], 8)), middle);
        sums[i].high = wasm_i16x8_sub(odd[i], middle);
    }
}

#include "kernel_lut8.h"

#define BATCH_LANES 8
#include "kernel_batch.h"
#define BATCH_LANES 16
#include "kernel_batch.h"

/* Whichever way is fastest. In units of one row of the decode product (measured, x86-64 with V8), a pass with 8 lanes
 * costs 5.5 a row and 1000 for its tables, one with 16 lanes 9 and 2100, whatever the number of tokens. */
static void lut8_batch_simd128(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens,
                               size_t first, size_t end, void *scratch) {
    const size_t rows = (end - first) * KERNEL_TILE * w->planes, eight = bp_min(n_tokens, 8), rest = n_tokens - eight;
    const size_t cost8 = 5 * rows + rows / 2 + 1000, cost16 = 9 * rows + 2100;
    if (n_tokens * rows > cost16 && cost8 + rest * rows > cost16) {
        lut8_batch16(y, y_stride, w, inputs, n_tokens, first, end, scratch);
        return;
    }
    size_t done = 0;
    if (eight * rows > cost8) {
        lut8_batch8(y, y_stride, w, inputs, eight, first, end, scratch);
        done = eight;
    }
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32;
    lut8_batch_streams(y + done * y_stride, y_stride, w, (const uint8_t *)inputs + done * token_bytes, n_tokens - done,
                       first, end, scratch);
}

/* ---- popcount ---- */

/* max |p|, not NaN */
static float largest_magnitude(const float *p, size_t n) {
    v128_t s = wasm_f32x4_const_splat(0.0f);
    for (size_t i = 0; i < n; i += 4) s = wasm_f32x4_pmax(s, wasm_f32x4_abs(wasm_v128_load(p + i)));
    return largest_lane(s);
}

/* Bits of 16 activations: bit plane b of two groups from one bitmask. Returns the sum of q by 4 lanes. */
static inline v128_t popcount_bits(uint8_t *bits, const float *p, v128_t inverse) {
    v128_t q[4];
    for (int i = 0; i < 4; i++) q[i] = round_entries(wasm_v128_load(p + 4 * i), inverse);
    const v128_t bytes =
        wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(q[0], q[1]), wasm_i16x8_narrow_i32x4(q[2], q[3]));
    for (int bit = 0; bit < 8; bit++) {
        const uint32_t plane = wasm_i8x16_bitmask(wasm_i8x16_shl(bytes, (uint32_t)(7 - bit)));
        bits[bit] = (uint8_t)plane;
        bits[8 + bit] = (uint8_t)(plane >> 8);
    }
    return wasm_i32x4_add(wasm_i32x4_add(q[0], q[1]), wasm_i32x4_add(q[2], q[3]));
}

static void popcount_prepare_simd128(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    const size_t blocks = kernel_blocks(groups), offset = popcount_bits_offset(groups);
    const size_t used = offset + groups * 8, size = bp_round_up(used, BP_ALIGN);
    float *scales = input;
    int32_t *sums = (int32_t *)input + blocks;
    uint8_t *bits = (uint8_t *)input + offset;
    memset(input, 0, offset);
    memset((uint8_t *)input + used, 0, size - used);
    for (size_t block = 0; block < blocks; block++) {
        const size_t n = kernel_block_groups(groups, block) * 8, first = block * KERNEL_BLOCK;
        float p[KERNEL_BLOCK];
        int32_t lanes[4];
        scale_block(p, x, b, first, cols, n);
        const float s = largest_magnitude(p, n);
        const v128_t inverse = wasm_f32x4_splat(kernel_inverse(s));
        v128_t sum = wasm_i64x2_const(0, 0);
        for (size_t i = 0; i < n; i += 16) sum = wasm_i32x4_add(sum, popcount_bits(bits + first + i, p + i, inverse));
        wasm_v128_store(lanes, sum);
        scales[block] = kernel_scale(s);
        for (int i = 0; i < 4; i++) sums[block] += lanes[i];
    }
}

/* Sum of q over the set bits of one tile in `groups` groups of one block. Counts of 16 groups fit a byte;
 * weighted by 2^bit they fit 16 bits, since |sum of q| <= 127 * 256. */
INLINE rows_i16 popcount_tile(const uint8_t *bytes, const uint8_t *bits, size_t groups) {
    v128_t even = wasm_i64x2_const(0, 0), odd = even;
    for (size_t half = 0; half < groups; half += 16)
        for (int bit = 0; bit < 8; bit++) {
            v128_t count = wasm_i64x2_const(0, 0);
            for (size_t g = half; g < groups && g < half + 16; g++) {
                const v128_t v =
                    wasm_v128_and(wasm_v128_load(bytes + KERNEL_TILE * g), wasm_v128_load8_splat(bits + 8 * g + bit));
                count = wasm_i8x16_add(count, wasm_i8x16_popcnt(v));
            }
            const v128_t low = wasm_i16x8_shl(wasm_v128_and(count, wasm_i16x8_const_splat(0xff)), (uint32_t)bit);
            const v128_t high = wasm_i16x8_shl(wasm_u16x8_shr(count, 8), (uint32_t)bit);
            even = bit < 7 ? wasm_i16x8_add(even, low) : wasm_i16x8_sub(even, low);
            odd = bit < 7 ? wasm_i16x8_add(odd, high) : wasm_i16x8_sub(odd, high);
        }
    return (rows_i16){even, odd};
}

static void popcount_product_simd128(float *y, const kernel_signs *w, const void *input, size_t first, size_t end) {
    const size_t groups = w->groups, blocks = kernel_blocks(groups);
    const float *scales = input;
    const int32_t *totals = (const int32_t *)input + blocks;
    const uint8_t *bits = (const uint8_t *)input + popcount_bits_offset(groups);
    for (size_t t = first; t < end; t++)
        for (size_t block = 0; block < blocks; block++) {
            const size_t g = block * KERNEL_BLOCK_GROUPS, row = t * KERNEL_TILE;
            const v128_t total = wasm_i32x4_splat(totals[block]);
            rows_i32 rows = {
                {wasm_i64x2_const(0, 0), wasm_i64x2_const(0, 0), wasm_i64x2_const(0, 0), wasm_i64x2_const(0, 0)}};
            for (size_t p = 0; p < w->planes; p++) {
                const uint8_t *bytes = w->bytes + ((t * w->planes + p) * groups + g) * KERNEL_TILE;
                const rows_i32 plane =
                    rows_widen(popcount_tile(bytes, bits + 8 * g, kernel_block_groups(groups, block)));
                for (int i = 0; i < 4; i++) {
                    const v128_t v = wasm_i32x4_sub(wasm_i32x4_shl(plane.part[i], 1), total);
                    rows.part[i] = wasm_i32x4_add(rows.part[i], wasm_i32x4_shl(v, (uint32_t)p));
                }
            }
            rows_flush(y + row, rows, scales[block], w->row_scales ? w->row_scales + row * blocks + block : NULL,
                       blocks, block == 0);
        }
}

static void popcount_batch_simd128(float *y, size_t y_stride, const kernel_signs *w, const void *inputs,
                                   size_t n_tokens, size_t first, size_t end, void *scratch) {
    (void)scratch;
    const size_t token_bytes = bp_round_up(popcount_bits_offset(w->groups) + (size_t)w->groups * 8, BP_ALIGN);
    for (size_t i = 0; i < n_tokens; i++)
        popcount_product_simd128(y + i * y_stride, w, (const uint8_t *)inputs + i * token_bytes, first, end);
}

void kernel_fill_simd128(kernel_table *table) {
    table->lut8.prepare = lut8_prepare_simd128;
    table->lut8.product = lut8_product_streams;
    table->lut8.batch_scratch = lut8_batch_scratch;
    table->lut8.batch = lut8_batch_simd128;
    table->lut8.batch_from = 2;
    table->popcount.prepare = popcount_prepare_simd128;
    table->popcount.product = popcount_product_simd128;
    table->popcount.batch = popcount_batch_simd128;
    table->dots = dots_vec;
    table->rmsnorm = rmsnorm_vec;
    table->swiglu = swiglu_vec;
    kernel_fill_attention_simd128(table);
}
