/* kernel_attention_simd128.c - attention for WebAssembly SIMD128. The dot product of bytes of relaxed SIMD (queries and
 * weights as two digits of 7 bits, the cache in tiles of 4 positions x 4 values) was measured: a seventh less time in
 * Chromium 156 with AVX-VNNI, twice the time where V8 makes five instructions of it; Node 20 even swaps its operands. */
#include "kernel_vec_simd128.h"

typedef int16_t vs __attribute__((vector_size(16)));

static inline vs vs_widen(const int8_t *x) { return (vs)wasm_i16x8_load8x8(x); }

static inline vi vs_dot_add(vi sum, vs x, vs y) { return sum + (vi)wasm_i32x4_dot_i16x8((v128_t)x, (v128_t)y); }

static inline void vs_pairs(vs *pairs, const int8_t *x, const int8_t *y) {
    const v128_t a = wasm_v128_load64_zero(x), b = wasm_v128_load64_zero(y);
    const v128_t both = wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    pairs[0] = (vs)wasm_i16x8_extend_low_i8x16(both);
    pairs[1] = (vs)wasm_i16x8_extend_high_i8x16(both);
}

static inline void vs_pairs_add(vi *sums, const vs *pairs, const int16_t *w) {
    const vs weights = (vs)wasm_v128_load32_splat(w);
    for (int i = 0; i < 2; i++) sums[i] = vs_dot_add(sums[i], pairs[i], weights);
}

/* By way of 1.5 * 2^23: a conversion that saturates is many instructions on x86. */
static inline vi vf_round(vf x) {
    const v128_t sign = wasm_v128_and((v128_t)x, wasm_f32x4_const_splat(-0.0f));
    const v128_t whole = wasm_f32x4_trunc(wasm_f32x4_add((v128_t)x, wasm_v128_or(sign, wasm_f32x4_const_splat(0.5f))));
    const v128_t sum = wasm_f32x4_add(whole, wasm_f32x4_const_splat(12582912.0f));
    return (vi)wasm_i32x4_sub(sum, wasm_i32x4_const_splat(0x4b400000));
}

static inline void vi_store16(int16_t *y, vi x) {
    const v128_t v = wasm_i16x8_narrow_i32x4((v128_t)x, (v128_t)x);
    wasm_v128_store64_lane(y, v, 0);
}

static inline void vi_store8(int8_t *y, vi x, vi x2) {
    const v128_t v = wasm_i16x8_narrow_i32x4((v128_t)x, (v128_t)x2);
    wasm_v128_store64_lane(y, wasm_i8x16_narrow_i16x8(v, v), 0);
}

static inline void vec_prefetch(const void *x, size_t bytes) {
    for (size_t i = 0; i < bytes; i += 64) {
        uint32_t word;
        memcpy(&word, (const uint8_t *)x + i, sizeof word);
        __asm__ volatile("" : : "r"(word));
    }
}

/* Loads of the keys of the next span held up the sums of values: a tenth more time (Node 20). */
static inline void vec_hint(const void *x, size_t bytes) { (void)x, (void)bytes; }

#include "kernel_attention.h"

/* bp_half_from_float, lane by lane, as u32 */
static inline v128_t to_half4(const float *x) {
    const v128_t bits = wasm_v128_load(x);
    const v128_t sign = wasm_v128_and(wasm_u32x4_shr(bits, 16), wasm_i32x4_const_splat(0x8000));
    const v128_t raw = wasm_v128_and(bits, wasm_i32x4_const_splat(0x7fffffff));
    const v128_t a = wasm_i32x4_min(raw, wasm_i32x4_const_splat(0x477fe000));
    const v128_t tiny =
        wasm_i32x4_sub(wasm_f32x4_add(a, wasm_f32x4_const_splat(0.5f)), wasm_i32x4_const_splat(0x3f000000));
    const v128_t even = wasm_v128_and(wasm_u32x4_shr(a, 13), wasm_i32x4_const_splat(1));
    const v128_t rounded = wasm_i32x4_add(wasm_i32x4_add(a, even), wasm_i32x4_const_splat(0xfff - 0x38000000));
    const v128_t is_tiny = wasm_i32x4_lt(a, wasm_i32x4_const_splat(0x38800000));
    const v128_t h = wasm_v128_bitselect(tiny, wasm_u32x4_shr(rounded, 13), is_tiny);
    return wasm_v128_andnot(wasm_v128_or(h, sign), wasm_i32x4_gt(raw, wasm_i32x4_const_splat(0x7f800000)));
}

static void store16_simd128(void *row, float *scale, const float *x, size_t dim) {
    uint16_t *y = row;
    (void)scale;
    for (size_t d = 0; d < dim; d += 8)
        wasm_v128_store(y + d, wasm_u16x8_narrow_i32x4(to_half4(x + d), to_half4(x + d + 4)));
}

void kernel_fill_attention_simd128(kernel_table *table) {
    fill_attention_vec(table);
    table->cache16.store = store16_simd128;
}
