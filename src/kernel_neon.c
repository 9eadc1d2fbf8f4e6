/* kernel_neon.c - kernels for AArch64 with NEON. Their bits are tested under emulation; their speed has not been measured
 * on a processor, what is said of it comes from counting instructions and from models of processors (llvm-mca 19). */
#include "kernel_vec_neon.h"

#include "kernel_rows.h"

#define INLINE static inline __attribute__((always_inline))

/* ---- lut8: tables ---- */

/* p [n] = b . x from column `first` on, zeros past cols */
static void scale_block(float *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    const size_t have = first < cols ? bp_min(n, cols - first) : 0;
    size_t i = 0;
    for (; i + 4 <= have; i += 4) {
        const float32x4_t v = vld1q_f32(x + first + i);
        vst1q_f32(p + i, b ? vmulq_f32(vld1q_f32(b + first + i), v) : v);
    }
    for (; i < have; i++) p[i] = b ? b[first + i] * x[first + i] : x[first + i];
    for (; i < n; i++) p[i] = 0.0f;
}

/* kernel_round(v * inverse) for |v * inverse| <= 127 and NaN, which gives 127 */
static inline int32x4_t round_entries(float32x4_t v, float32x4_t inverse) {
    return round_away(smaller(vdupq_n_f32(127.0f), vmulq_f32(v, inverse)));
}

/* The low byte of each lane of q[0..3] */
static inline uint8x16_t narrow_bytes(const int32x4_t *q) {
    const int16x8_t low = vuzp1q_s16(vreinterpretq_s16_s32(q[0]), vreinterpretq_s16_s32(q[1]));
    const int16x8_t high = vuzp1q_s16(vreinterpretq_s16_s32(q[2]), vreinterpretq_s16_s32(q[3]));
    return vuzp1q_u8(vreinterpretq_u8_s16(low), vreinterpretq_u8_s16(high));
}

/* Four tables, one per lane: val[i] is b . x of the tables' i-th columns */
static inline float32x4x4_t load_columns(const float *x, const float *b) {
    float32x4x4_t p = vld4q_f32(x);
    if (b) {
        const float32x4x4_t factors = vld4q_f32(b);
        for (int i = 0; i < 4; i++) p.val[i] = vmulq_f32(factors.val[i], p.val[i]);
    }
    return p;
}

/* (|p0| + |p1|) + (|p2| + |p3|), the largest entry of each table */
static inline float32x4_t largest_entries(float32x4x4_t p) {
    return vaddq_f32(vaddq_f32(vabsq_f32(p.val[0]), vabsq_f32(p.val[1])),
                     vaddq_f32(vabsq_f32(p.val[2]), vabsq_f32(p.val[3])));
}

/* Loads the tables of one block and returns the bits of its largest entry: as whole numbers, where NaN is the largest */
static uint32_t load_block(float32x4x4_t *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    uint32x4_t s = vdupq_n_u32(0);
    for (size_t i = 0; i < n; i += 16, p++) {
        if (first + i + 16 <= cols) {
            *p = load_columns(x + first + i, b ? b + first + i : NULL);
        } else {
            float padded[16];
            scale_block(padded, x, b, first + i, cols, 16);
            *p = load_columns(padded, NULL);
        }
        s = vmaxq_u32(s, vreinterpretq_u32_f32(largest_entries(*p)));
    }
    return vmaxvq_u32(s);
}

/* Bits of v + KERNEL_ENTRY */
static inline uint32x4_t entry_bits(float32x4_t v) {
    return vreinterpretq_u32_f32(vaddq_f32(v, vdupq_n_f32(KERNEL_ENTRY)));
}

/* Entries of v[0..3] of four tables, four bytes of each */
static inline uint8x16_t pack_entries(const float32x4_t *v) {
    const uint32x4_t two = vsliq_n_u32(entry_bits(v[0]), entry_bits(v[1]), 8);
    return vreinterpretq_u8_u32(vsliq_n_u32(vsliq_n_u32(two, entry_bits(v[2]), 16), entry_bits(v[3]), 24));
}

/* Table t of four from their entries 0..7 (0..3 of all in one register, 4..7 in the next); the others mirror them: 254 -
 * e = ~e - 1 */
static inline void store_table(uint8_t *table, uint8x16x2_t entries, uint8_t t) {
    static const uint8_t order[16] = {0, 1, 2, 3, 16, 17, 18, 19, 19, 18, 17, 16, 3, 2, 1, 0};
    const uint8x16_t second = vcombine_u8(vdup_n_u8(0), vdup_n_u8(0xff));
    const uint8x16_t e = vqtbl2q_u8(entries, vaddq_u8(vld1q_u8(order), vdupq_n_u8((uint8_t)(4 * t))));
    vst1q_u8(table, vaddq_u8(veorq_u8(e, second), second));
}

/* Four tables (64 bytes). Negating a sum is exact, so sums and differences of pairs give all entries. */
static inline void build_tables(uint8_t *tables, float32x4x4_t p, float32x4_t inverse) {
    for (int i = 0; i < 4; i++) p.val[i] = vmulq_f32(p.val[i], inverse);
    const float32x4_t sum01 = vaddq_f32(p.val[0], p.val[1]), diff01 = vsubq_f32(p.val[0], p.val[1]);
    const float32x4_t sum23 = vaddq_f32(p.val[2], p.val[3]), diff23 = vsubq_f32(p.val[2], p.val[3]);
    const float32x4_t v[8] = {vnegq_f32(vaddq_f32(sum01, sum23)),
                              vsubq_f32(diff01, sum23),
                              vnegq_f32(vaddq_f32(diff01, sum23)),
                              vsubq_f32(sum01, sum23),
                              vsubq_f32(diff23, sum01),
                              vaddq_f32(diff01, diff23),
                              vsubq_f32(diff23, diff01),
                              vaddq_f32(sum01, diff23)};
    const uint8x16x2_t entries = {{pack_entries(v), pack_entries(v + 4)}};
    for (uint8_t t = 0; t < 4; t++) store_table(tables + lut8_table(t / 2, t & 1), entries, t);
}

static void lut8_prepare_neon(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    float *scales = input;
    uint8_t *tables = (uint8_t *)input + lut8_tables_offset(groups);
    memset(input, 0, lut8_tables_offset(groups));
    for (size_t block = 0; block < kernel_blocks(groups); block++) {
        const size_t n = kernel_block_groups(groups, block) * 8;
        float32x4x4_t p[KERNEL_BLOCK / 16];
        const uint32_t s = load_block(p, x, b, block * KERNEL_BLOCK, cols, n);
        const float32x4_t inverse = vdupq_n_f32(kernel_inverse(kernel_from_bits(s)));
        scales[block] = lut8_scale(tables, n, s);
        for (size_t i = 0; kernel_finite(s) && i < n / 16; i++) build_tables(tables + 64 * i, p[i], inverse);
        tables += 4 * n;
    }
}

/* ---- lut8: products ---- */

/* Rows 0..7 and rows 8..15 of a tile */
typedef struct {
    int16x8_t low, high;
} rows_i16;

typedef struct {
    int32x4_t part[4];
} rows_i32;

INLINE rows_i32 rows_widen(rows_i16 rows) {
    return (rows_i32){{vmovl_s16(vget_low_s16(rows.low)), vmovl_high_s16(rows.low), vmovl_s16(vget_low_s16(rows.high)),
                       vmovl_high_s16(rows.high)}};
}

INLINE rows_i32 rows_add(rows_i32 sum, rows_i16 rows, int shift) {
    const rows_i32 wide = rows_widen(rows);
    for (int i = 0; i < 4; i++) sum.part[i] = vaddq_s32(sum.part[i], vshlq_s32(wide.part[i], vdupq_n_s32(shift)));
    return sum;
}

INLINE void rows_flush(float *y, rows_i32 rows, float scale, const float *row_scales, size_t stride, bool first) {
    for (size_t i = 0; i < 4; i++) {
        float32x4_t v = vmulq_n_f32(vcvtq_f32_s32(rows.part[i]), scale);
        if (row_scales) {
            const float *r = row_scales + 4 * i * stride;
            const float strided[4] = {r[0], r[stride], r[2 * stride], r[3 * stride]};
            v = vmulq_f32(v, vld1q_f32(strided));
        }
        vst1q_f32(y + 4 * i, vaddq_f32(first ? vdupq_n_f32(0.0f) : vld1q_f32(y + 4 * i), v));
    }
}

/* Bytes 0..7 and bytes 8..15 of the entries are summed apart, widened as they are added. Eight vector instructions per 128
 * binary MACs, and nothing else limits it: 8 cycles per 512 MACs on four vector units (Neoverse V2), 16 on two (N1, N2).
 * The way of SIMD128, pairs of bytes and the odd ones again, compiles to an eighth more. */
INLINE void lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables,
                         size_t groups) {
    const uint8x16_t nibble = vdupq_n_u8(15);
    uint16x8_t first[4], last[4];
    for (int i = 0; i < count; i++) first[i] = last[i] = vdupq_n_u16(0);
    for (size_t g = 0; g < groups; g += 2, tables += 64)
        for (size_t half = 0; half < 2; half++) {
            const uint8x16_t low_table = vld1q_u8(tables + lut8_table(half, 0));
            const uint8x16_t high_table = vld1q_u8(tables + lut8_table(half, 1));
            for (int i = 0; i < count; i++) {
                const uint8x16_t v = vld1q_u8(streams[i] + KERNEL_TILE * (g + half));
                const uint8x16_t e = vqtbl1q_u8(low_table, vandq_u8(v, nibble));
                const uint8x16_t f = vqtbl1q_u8(high_table, vshrq_n_u8(v, 4));
                first[i] = vaddw_u8(vaddw_u8(first[i], vget_low_u8(e)), vget_low_u8(f));
                last[i] = vaddw_high_u8(vaddw_high_u8(last[i], e), f);
            }
        }
    const uint16x8_t middle = vdupq_n_u16((uint16_t)(127 * 2 * groups));
    for (int i = 0; i < count; i++) {
        sums[i].low = vreinterpretq_s16_u16(vsubq_u16(vuzp1q_u16(first[i], last[i]), middle));
        sums[i].high = vreinterpretq_s16_u16(vsubq_u16(vuzp2q_u16(first[i], last[i]), middle));
    }
}

#include "kernel_lut8.h"

/* Not measured. By llvm-mca a row costs 3 (Neoverse N2) to 7 (Cortex-A510) and 5 to 12: where the decode product waits for
 * two vector units the loads of a batch are cheap. */
enum { ROW8 = 6, TABLES8 = 1200, ROW16 = 10, TABLES16 = 2450 };

#include "kernel_batch_choice.h"

/* ---- popcount ---- */

/* max |p|, not NaN */
static float largest_magnitude(const float *p, size_t n) {
    float32x4_t s = vdupq_n_f32(0.0f);
    for (size_t i = 0; i < n; i += 4) s = larger(s, vabsq_f32(vld1q_f32(p + i)));
    return vmaxvq_f32(s);
}

#define POPCOUNT_STEP 16

typedef int32x4_t popcount_sums;

/* Bit b of each activation, gathered by adding up the weights of set bits: byte b of a group is bit plane b. */
static inline void popcount_bits(uint8_t *bits, const float *p, float inverse, popcount_sums *sums) {
    static const uint8_t place[16] = {1, 2, 4, 8, 16, 32, 64, 128, 1, 2, 4, 8, 16, 32, 64, 128};
    const uint8x16_t weights = vld1q_u8(place);
    int32x4_t q[4];
    for (int i = 0; i < 4; i++) q[i] = round_entries(vld1q_f32(p + 4 * i), vdupq_n_f32(inverse));
    const uint8x16_t bytes = narrow_bytes(q);
    for (int bit = 0; bit < 8; bit++) {
        const uint8x16_t set = vandq_u8(vtstq_u8(bytes, vdupq_n_u8((uint8_t)(1 << bit))), weights);
        bits[bit] = vaddv_u8(vget_low_u8(set));
        bits[8 + bit] = vaddv_u8(vget_high_u8(set));
    }
    for (int i = 0; i < 4; i++) *sums = vaddq_s32(*sums, q[i]);
}

static inline int32_t popcount_total(popcount_sums sums) { return vaddvq_s32(sums); }

typedef uint8x16_t popcount_mask;

enum { POPCOUNT_MASKS = KERNEL_BLOCK_GROUPS * 8 };

/* Each byte in all lanes: masks [groups][8] */
static void popcount_masks(popcount_mask *masks, const uint8_t *bits, size_t groups) {
    for (size_t i = 0; i < 8 * groups; i++) masks[i] = vdupq_n_u8(bits[i]);
}

/* Sum of q over the set bits of one tile: 24 vector instructions per 128 binary MACs, three times those of lut8, although
 * counting takes one only; so lut8 is the default here too. Counts of 16 groups fit a byte; weighted by 2^bit they fit 16 bits, since
 * |sum of q| <= 127 * 256. */
static inline rows_i16 popcount_tile(const uint8_t *bytes, const popcount_mask *masks, size_t groups) {
    uint16x8_t even = vdupq_n_u16(0), odd = even;
    for (size_t half = 0; half < groups; half += 16) {
        uint8x16_t counts[8];
        for (int bit = 0; bit < 8; bit++) counts[bit] = vdupq_n_u8(0);
        for (size_t g = half; g < groups && g < half + 16; g++) {
            const uint8x16_t v = vld1q_u8(bytes + KERNEL_TILE * g);
            for (int bit = 0; bit < 8; bit++)
                counts[bit] = vaddq_u8(counts[bit], vcntq_u8(vandq_u8(v, masks[8 * g + (size_t)bit])));
        }
        for (int bit = 0; bit < 8; bit++) {
            const uint16x8_t both = vreinterpretq_u16_u8(counts[bit]), weight = vdupq_n_u16((uint16_t)(1 << bit));
            const uint16x8_t low = vandq_u16(both, vdupq_n_u16(0xff)), high = vshrq_n_u16(both, 8);
            even = bit < 7 ? vmlaq_u16(even, low, weight) : vmlsq_u16(even, low, weight);
            odd = bit < 7 ? vmlaq_u16(odd, high, weight) : vmlsq_u16(odd, high, weight);
        }
    }
    return (rows_i16){vreinterpretq_s16_u16(even), vreinterpretq_s16_u16(odd)};
}

static inline rows_i32 popcount_rows(rows_i32 sum, rows_i16 set, int32_t total, int shift) {
    const rows_i32 rows = rows_widen(set);
    for (int i = 0; i < 4; i++) {
        const int32x4_t v = vsubq_s32(vaddq_s32(rows.part[i], rows.part[i]), vdupq_n_s32(total));
        sum.part[i] = vaddq_s32(sum.part[i], vshlq_s32(v, vdupq_n_s32(shift)));
    }
    return sum;
}

#include "kernel_popcount.h"

void kernel_fill_neon(kernel_table *table) {
    table->lut8.prepare = lut8_prepare_neon;
    table->lut8.product = lut8_product_streams;
    table->lut8.batch_scratch = lut8_batch_scratch;
    table->lut8.batch = lut8_batch_choice;
    table->lut8.batch_from = 2;
    table->popcount.prepare = popcount_prepare_planes;
    table->popcount.product = popcount_product_tiles;
    table->dots = dots_vec;
    table->rmsnorm = rmsnorm_vec;
    table->swiglu = swiglu_vec;
    kernel_fill_attention_neon(table);
}
