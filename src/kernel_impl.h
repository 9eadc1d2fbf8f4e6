/* kernel_impl.h - what the kernel files share: the layout of prepared inputs, the arithmetic of one table entry, and
 * one fill function per ISA. Nothing outside kernel*.c includes it.
 *
 * lut8      scale f32[blocks], padded to 64 bytes, then tables of 16 bytes, four per pair of groups g, g + 1: low
 *           nibble of g, low of g + 1, high of g, high of g + 1 (lut8_table), so that 32 bytes are the tables of one
 *           nibble of both. The low nibble of group g selects by columns 8g..8g+3, the high one by 8g+4..8g+7: entry e
 *           of columns c..c+3 is 127 + round(v_e), v_e = (s0 p0 + s1 p1) + (s2 p2 + s3 p3), s_i = bit i of e set ? +1 :
 *           -1, p_i = b . x of column c + i, times 127 / s (kernel_inverse); s = max |v_e| over the block's 256 columns,
 *           scale = s / 127. A block with infinities or NaN has scale NaN and entries 127.
 * popcount  scale f32[blocks], sum of q i32[blocks], padded to 64 bytes, then u8[groups][8]: bit i of byte p of group g
 *           is bit p of q[8g + i], q = round(p_i / scale) in [-127, 127] as two's complement, scale = max |p_i| / 127. */
#ifndef BP_KERNEL_IMPL_H
#define BP_KERNEL_IMPL_H

#include "kernel.h"

/* For the large loops of a kernel: V8 allocates registers much better in several functions than in one very large one.
 */
#define KERNEL_NOINLINE __attribute__((noinline))

enum { KERNEL_BLOCK_GROUPS = KERNEL_BLOCK / 8 };

static inline size_t lut8_tables_offset(size_t groups) {
    return bp_round_up(kernel_blocks(groups) * sizeof(float), BP_ALIGN);
}

/* Offset of the table of the low (high = 0) or high nibble of group g */
static inline size_t lut8_table(size_t g, size_t high) { return 64 * (g / 2) + 16 * (g & 1) + 32 * high; }

static inline size_t popcount_bits_offset(size_t groups) {
    return bp_round_up(kernel_blocks(groups) * (sizeof(float) + sizeof(int32_t)), BP_ALIGN);
}

/* 127 / s, the factor before rounding; 0 where everything is (as good as) zero */
static inline float kernel_inverse(float s) { return s < 1e-30f ? 0.0f : 127.0f / s; }

static inline float kernel_scale(float s) { return s < 1e-30f ? 0.0f : s / 127.0f; }

/* An entry 127 + round(v) is the low byte of the bits of the float v + KERNEL_ENTRY, |v| < 127.5: the sum lies between
 * 2^23 and 2^24 and is rounded to a whole number. A half goes to the odd number next to it, so the rounding is
 * antisymmetric: a coherent bias of the entries would cost 3 to 4 times the error. KERNEL_ENTRY_BITS is what the bits
 * have above the entry. */
#define KERNEL_ENTRY 12583039.0f /* 1.5 * 2^23 + 127 */
#define KERNEL_ENTRY_BITS 0x4b400000u

/* Bits of four such floats a, b, c, d as (a + (b << 8)) + ((c << 16) + (d << 24)), less this, are their four entries */
#define KERNEL_ENTRIES_BITS (KERNEL_ENTRY_BITS + (KERNEL_ENTRY_BITS << 8))

/* Bits of the largest |v_e| of a block, none of which is negative: of an infinity or NaN where there is one */
static inline bool kernel_finite(uint32_t bits) { return bits < 0x7f800000; }

static inline float kernel_from_bits(uint32_t bits) {
    float v;
    memcpy(&v, &bits, sizeof v);
    return v;
}

/* Rounds half away from zero (trunc(t +- 1/2)) and clamps to +-127; NaN gives 127. Antisymmetric, as above. */
static inline int kernel_round(float t) {
    t = t < 127.0f ? t : 127.0f;
    t = t > -127.0f ? t : -127.0f;
    return (int)(t < 0.0f ? t - 0.5f : t + 0.5f);
}

/* Scale of a block of n columns with s the bits of its largest entry. Where that is not finite, its tables are made here
 * too, else by the caller. */
static inline float lut8_scale(uint8_t *tables, size_t n, uint32_t s) {
    if (kernel_finite(s)) return kernel_scale(kernel_from_bits(s));
    memset(tables, 127, 4 * n);
    return __builtin_nanf("");
}

static inline float kernel_abs(float x) { return x < 0.0f ? -x : x; }

/* Groups of block `block` in a matrix of `groups` groups */
static inline size_t kernel_block_groups(size_t groups, size_t block) {
    return bp_min(groups - block * KERNEL_BLOCK_GROUPS, KERNEL_BLOCK_GROUPS);
}

/* The sum of n partial sums, a power of two, as a tree; p is overwritten. */
static inline float kernel_tree_sum(float *p, size_t n) {
    for (size_t half = n / 2; half >= 1; half /= 2)
        for (size_t j = 0; j < half; j++) p[j] += p[j + half];
    return p[0];
}

/* Only the caches and the merging of parts; called by the fill functions below */
void kernel_fill_attention_ref(kernel_table *table);
void kernel_fill_attention_avx2(kernel_table *table);
void kernel_fill_attention_avx512(kernel_table *table);
void kernel_fill_attention_neon(kernel_table *table);
void kernel_fill_attention_simd128(kernel_table *table);

void kernel_fill_ref(kernel_table *table);
void kernel_fill_avx2(kernel_table *table);
void kernel_fill_avx512(kernel_table *table);
void kernel_fill_neon(kernel_table *table);
void kernel_fill_simd128(kernel_table *table);

#endif
