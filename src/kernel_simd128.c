/* kernel_simd128.c - kernels for WebAssembly SIMD128, and for relaxed SIMD when compiled with it: two of its
 * instructions where their results are the same everywhere, since indices are below 16 and floats in range. */
#include <wasm_simd128.h>

#include "kernel_impl.h"
#include "kernel_vec_simd128.h"

#include "kernel_rows.h"

#define INLINE static inline __attribute__((always_inline))

/* table[index[i]], index[i] < 16 */
INLINE v128_t look_up(v128_t table, v128_t index) {
#if defined(__wasm_relaxed_simd__)
    return wasm_i8x16_relaxed_swizzle(table, index);
#else
    return wasm_i8x16_swizzle(table, index); /* V8 on x86: one instruction more, to clear what is out of range */
#endif
}

/* (int)t in the low 16 bits of each lane, |t| < 2^15, not NaN */
INLINE v128_t truncate(v128_t t) {
#if defined(__wasm_relaxed_simd__)
    return wasm_i32x4_relaxed_trunc_f32x4(t);
#else
    const v128_t sum = wasm_f32x4_add(wasm_f32x4_trunc(t), wasm_f32x4_const_splat(12582912.0f)); /* 1.5 * 2^23 */
    return wasm_i32x4_sub(sum, wasm_i32x4_const_splat(0x4b400000));
#endif
}

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

/* kernel_round(v * inverse) for |v * inverse| <= 127 and NaN; pmin(127, t) is t < 127 ? t : 127, so that NaN gives 127
 */
static inline v128_t round_entries(v128_t v, v128_t inverse) {
    const v128_t t = wasm_f32x4_pmin(wasm_f32x4_const_splat(127.0f), wasm_f32x4_mul(v, inverse));
    const v128_t sign = wasm_v128_and(t, wasm_f32x4_const_splat(-0.0f));
    return truncate(wasm_f32x4_add(t, wasm_v128_or(sign, wasm_f32x4_const_splat(0.5f))));
}

/* Four tables, one per lane: column[i] is b . x of the tables' i-th columns */
typedef struct {
    v128_t column[4];
} four_tables;

static inline four_tables load_columns(const float *x, const float *b) {
    v128_t r[4];
    for (int i = 0; i < 4; i++) {
        const v128_t v = wasm_v128_load(x + 4 * i);
        r[i] = b ? wasm_f32x4_mul(wasm_v128_load(b + 4 * i), v) : v;
    }
    const v128_t low0 = wasm_i32x4_shuffle(r[0], r[1], 0, 4, 1, 5), low1 = wasm_i32x4_shuffle(r[2], r[3], 0, 4, 1, 5);
    const v128_t high0 = wasm_i32x4_shuffle(r[0], r[1], 2, 6, 3, 7), high1 = wasm_i32x4_shuffle(r[2], r[3], 2, 6, 3, 7);
    return (four_tables){{wasm_i64x2_shuffle(low0, low1, 0, 2), wasm_i64x2_shuffle(low0, low1, 1, 3),
                          wasm_i64x2_shuffle(high0, high1, 0, 2), wasm_i64x2_shuffle(high0, high1, 1, 3)}};
}

/* (|p0| + |p1|) + (|p2| + |p3|), the largest entry of each table */
static inline v128_t largest_entries(const four_tables *p) {
    return wasm_f32x4_add(wasm_f32x4_add(wasm_f32x4_abs(p->column[0]), wasm_f32x4_abs(p->column[1])),
                          wasm_f32x4_add(wasm_f32x4_abs(p->column[2]), wasm_f32x4_abs(p->column[3])));
}

/* Loads the tables of one block and returns the bits of its largest entry: as whole numbers, where NaN is the largest */
static uint32_t load_block(four_tables *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    v128_t s = wasm_i32x4_const_splat(0);
    for (size_t i = 0; i < n; i += 16, p++) {
        if (first + i + 16 <= cols) {
            *p = load_columns(x + first + i, b ? b + first + i : NULL);
        } else {
            float padded[16];
            scale_block(padded, x, b, first + i, cols, 16);
            *p = load_columns(padded, NULL);
        }
        s = wasm_u32x4_max(s, largest_entries(p));
    }
    uint32_t lanes[4], most = 0;
    wasm_v128_store(lanes, s);
    for (int i = 0; i < 4; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* Entries of v[0..3] of four tables, four bytes of each */
static inline v128_t pack_entries(const v128_t *v) {
    v128_t e[4];
    for (uint32_t i = 0; i < 4; i++)
        e[i] = wasm_i32x4_shl(wasm_f32x4_add(v[i], wasm_f32x4_const_splat(KERNEL_ENTRY)), 8 * i);
    return wasm_i32x4_sub(wasm_i32x4_add(wasm_i32x4_add(e[0], e[1]), wasm_i32x4_add(e[2], e[3])),
                          wasm_u32x4_const_splat(KERNEL_ENTRIES_BITS));
}

/* Two tables, 32 bytes apart, from their entries 0..7; the others mirror them: 254 - e = ~e - 1 */
static inline void store_tables(uint8_t *tables, v128_t halves) {
    const v128_t second = wasm_i64x2_const(0, -1);
    const v128_t a = wasm_i8x16_shuffle(halves, halves, 0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0);
    const v128_t b = wasm_i8x16_shuffle(halves, halves, 8, 9, 10, 11, 12, 13, 14, 15, 15, 14, 13, 12, 11, 10, 9, 8);
    wasm_v128_store(tables, wasm_i8x16_add(wasm_v128_xor(a, second), second));
    wasm_v128_store(tables + 32, wasm_i8x16_add(wasm_v128_xor(b, second), second));
}

/* Four tables (64 bytes). Negating a sum is exact, so sums and differences of pairs give all entries. */
static inline void build_tables(uint8_t *tables, const four_tables *p, v128_t inverse) {
    v128_t c[4];
    for (int i = 0; i < 4; i++) c[i] = wasm_f32x4_mul(p->column[i], inverse);
    const v128_t sum01 = wasm_f32x4_add(c[0], c[1]), diff01 = wasm_f32x4_sub(c[0], c[1]);
    const v128_t sum23 = wasm_f32x4_add(c[2], c[3]), diff23 = wasm_f32x4_sub(c[2], c[3]);
    const v128_t v[8] = {wasm_f32x4_neg(wasm_f32x4_add(sum01, sum23)),
                         wasm_f32x4_sub(diff01, sum23),
                         wasm_f32x4_neg(wasm_f32x4_add(diff01, sum23)),
                         wasm_f32x4_sub(sum01, sum23),
                         wasm_f32x4_sub(diff23, sum01),
                         wasm_f32x4_add(diff01, diff23),
                         wasm_f32x4_sub(diff23, diff01),
                         wasm_f32x4_add(sum01, diff23)};
    const v128_t low = pack_entries(v), high = pack_entries(v + 4);
    store_tables(tables, wasm_i32x4_shuffle(low, high, 0, 4, 1, 5));
    store_tables(tables + 16, wasm_i32x4_shuffle(low, high, 2, 6, 3, 7));
}

static void lut8_prepare_simd128(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    float *scales = input;
    uint8_t *tables = (uint8_t *)input + lut8_tables_offset(groups);
    memset(input, 0, lut8_tables_offset(groups));
    for (size_t block = 0; block < kernel_blocks(groups); block++) {
        const size_t n = kernel_block_groups(groups, block) * 8;
        four_tables p[KERNEL_BLOCK / 16];
        const uint32_t s = load_block(p, x, b, block * KERNEL_BLOCK, cols, n);
        const v128_t inverse = wasm_f32x4_splat(kernel_inverse(kernel_from_bits(s)));
        scales[block] = lut8_scale(tables, n, s);
        for (size_t i = 0; kernel_finite(s) && i < n / 16; i++) build_tables(tables + 64 * i, &p[i], inverse);
        tables += 4 * n;
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

/* all += e adds both bytes of a lane at once, odd += e >> 8 the odd ones alone; all - (odd << 8) are the even ones.
 * A shift of bytes would cost V8 five instructions on x86. */
INLINE void lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables,
                         size_t groups) {
    const v128_t nibble = wasm_i8x16_const_splat(15);
    v128_t all[4], odd[4];
    for (int i = 0; i < count; i++) all[i] = odd[i] = wasm_i64x2_const(0, 0);
    for (size_t g = 0; g < groups; g++) {
        const uint8_t *at = tables + lut8_table(g, 0);
        const v128_t low_table = wasm_v128_load(at), high_table = wasm_v128_load(at + 32);
        for (int i = 0; i < count; i++) {
            const v128_t v = wasm_v128_load(streams[i] + KERNEL_TILE * g);
            const v128_t e = look_up(low_table, wasm_v128_and(v, nibble));
            const v128_t f = look_up(high_table, wasm_v128_and(wasm_u16x8_shr(v, 4), nibble));
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

/* Measured, x86-64 with V8 */
#if defined(__wasm_relaxed_simd__)
enum { ROW8 = 5, TABLES8 = 600, ROW16 = 7, TABLES16 = 1950 };
#else
enum { ROW8 = 4, TABLES8 = 620, ROW16 = 6, TABLES16 = 1700 };
#endif

#include "kernel_batch_choice.h"

/* ---- popcount ---- */

/* max |p|, not NaN */
static float largest_magnitude(const float *p, size_t n) {
    v128_t s = wasm_f32x4_const_splat(0.0f);
    for (size_t i = 0; i < n; i += 4) s = wasm_f32x4_pmax(s, wasm_f32x4_abs(wasm_v128_load(p + i)));
    return largest_lane(s);
}

#define POPCOUNT_STEP 16

typedef v128_t popcount_sums;

/* Bit plane b of two groups from one bitmask. */
static inline void popcount_bits(uint8_t *bits, const float *p, float inverse, popcount_sums *sums) {
    v128_t q[4];
    for (int i = 0; i < 4; i++) q[i] = round_entries(wasm_v128_load(p + 4 * i), wasm_f32x4_splat(inverse));
    const v128_t bytes =
        wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(q[0], q[1]), wasm_i16x8_narrow_i32x4(q[2], q[3]));
    for (int bit = 0; bit < 8; bit++) {
        const uint32_t plane = wasm_i8x16_bitmask(wasm_i8x16_shl(bytes, (uint32_t)(7 - bit)));
        bits[bit] = (uint8_t)plane;
        bits[8 + bit] = (uint8_t)(plane >> 8);
    }
    for (int i = 0; i < 4; i++) *sums = wasm_i32x4_add(*sums, q[i]);
}

static inline int32_t popcount_total(popcount_sums sums) {
    return wasm_i32x4_extract_lane(sums, 0) + wasm_i32x4_extract_lane(sums, 1) + wasm_i32x4_extract_lane(sums, 2) +
           wasm_i32x4_extract_lane(sums, 3);
}

typedef uint8_t popcount_mask;

enum { POPCOUNT_MASKS = KERNEL_BLOCK_GROUPS * 8 };

/* The bytes themselves: a load puts one into all lanes. */
static void popcount_masks(popcount_mask *masks, const uint8_t *bits, size_t groups) {
    memcpy(masks, bits, 8 * groups);
}

/* Sum of q over the set bits of one tile in `groups` groups of one block. Counts of 16 groups fit a byte;
 * weighted by 2^bit they fit 16 bits, since |sum of q| <= 127 * 256. */
INLINE rows_i16 popcount_tile(const uint8_t *bytes, const popcount_mask *masks, size_t groups) {
    v128_t even = wasm_i64x2_const(0, 0), odd = even;
    for (size_t half = 0; half < groups; half += 16)
        for (int bit = 0; bit < 8; bit++) {
            v128_t count = wasm_i64x2_const(0, 0);
            for (size_t g = half; g < groups && g < half + 16; g++) {
                const v128_t v =
                    wasm_v128_and(wasm_v128_load(bytes + KERNEL_TILE * g), wasm_v128_load8_splat(masks + 8 * g + bit));
                count = wasm_i8x16_add(count, wasm_i8x16_popcnt(v));
            }
            const v128_t low = wasm_i16x8_shl(wasm_v128_and(count, wasm_i16x8_const_splat(0xff)), (uint32_t)bit);
            const v128_t high = wasm_i16x8_shl(wasm_u16x8_shr(count, 8), (uint32_t)bit);
            even = bit < 7 ? wasm_i16x8_add(even, low) : wasm_i16x8_sub(even, low);
            odd = bit < 7 ? wasm_i16x8_add(odd, high) : wasm_i16x8_sub(odd, high);
        }
    return (rows_i16){even, odd};
}

INLINE rows_i32 popcount_rows(rows_i32 sum, rows_i16 set, int32_t total, int shift) {
    const rows_i32 rows = rows_widen(set);
    for (int i = 0; i < 4; i++) {
        const v128_t v = wasm_i32x4_sub(wasm_i32x4_shl(rows.part[i], 1), wasm_i32x4_splat(total));
        sum.part[i] = wasm_i32x4_add(sum.part[i], wasm_i32x4_shl(v, (uint32_t)shift));
    }
    return sum;
}

#include "kernel_popcount.h"

void kernel_fill_simd128(kernel_table *table) {
    table->lut8.prepare = lut8_prepare_simd128;
    table->lut8.product = lut8_product_streams;
    table->lut8.batch_scratch = lut8_batch_scratch;
    table->lut8.batch = lut8_batch_choice;
    table->lut8.batch_from = 2;
    table->popcount.prepare = popcount_prepare_planes;
    table->popcount.product = popcount_product_tiles;
    table->dots = dots_vec;
    table->rmsnorm = rmsnorm_vec;
    table->swiglu = swiglu_vec;
    kernel_fill_attention_simd128(table);
}
