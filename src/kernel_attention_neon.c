/* kernel_attention_neon.c - attention for AArch64 with NEON. */
#include "kernel_vec_neon.h"

typedef int16_t vs __attribute__((vector_size(16)));

static inline vs vs_widen(const int8_t *x) { return (vs)vmovl_s8(vld1_s8(x)); }

static inline vi vs_dot_add(vi sum, vs x, vs y) {
    const int16x8_t a = (int16x8_t)x, b = (int16x8_t)y;
    const int32x4_t low = vmlal_s16((int32x4_t)sum, vget_low_s16(a), vget_low_s16(b));
    return (vi)vmlal_high_s16(low, a, b);
}

/* The two rows one after the other: multiplying by one number and adding is one instruction, as adding pairs would be. */
static inline void vs_pairs(vs *pairs, const int8_t *x, const int8_t *y) {
    pairs[0] = vs_widen(x);
    pairs[1] = vs_widen(y);
}

static inline void vs_pairs_add(vi *sums, const vs *pairs, const int16_t *w) {
    for (int i = 0; i < 2; i++) {
        const int16x8_t row = (int16x8_t)pairs[i];
        sums[0] = (vi)vmlal_n_s16((int32x4_t)sums[0], vget_low_s16(row), w[i]);
        sums[1] = (vi)vmlal_high_n_s16((int32x4_t)sums[1], row, w[i]);
    }
}

static inline vi vf_round(vf x) { return (vi)round_away((float32x4_t)x); }

static inline void vi_store16(int16_t *y, vi x) { vst1_s16(y, vqmovn_s32((int32x4_t)x)); }

static inline void vi_store8(int8_t *y, vi x, vi x2) {
    vst1_s8(y, vqmovn_s16(vcombine_s16(vqmovn_s32((int32x4_t)x), vqmovn_s32((int32x4_t)x2))));
}

static inline void vec_prefetch(const void *x, size_t bytes) { (void)x, (void)bytes; }
static inline void vec_hint(const void *x, size_t bytes) { (void)x, (void)bytes; }

#include "kernel_attention.h"

/* bp_half_from_float: clamped, NaN cleared, rounded to nearest even by the processor */
static void store16_neon(void *row, float *scale, const float *x, size_t dim) {
    const float32x4_t largest = vdupq_n_f32(65504.0f), smallest = vdupq_n_f32(-65504.0f);
    uint16_t *y = row;
    (void)scale;
    for (size_t d = 0; d < dim; d += 4) {
        const float32x4_t v = vld1q_f32(x + d), clamped = vmaxq_f32(vminq_f32(v, largest), smallest);
        const uint32x4_t number = vandq_u32(vreinterpretq_u32_f32(clamped), vceqq_f32(v, v));
        vst1_u16(y + d, vreinterpret_u16_f16(vcvt_f16_f32(vreinterpretq_f32_u32(number))));
    }
}

void kernel_fill_attention_neon(kernel_table *table) {
    fill_attention_vec(table);
    table->cache16.store = store16_neon;
}
