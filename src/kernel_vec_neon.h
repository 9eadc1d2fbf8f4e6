/* kernel_vec_neon.h - kernel_vec.h over NEON of AArch64, the level that every such processor has. */
#ifndef BP_KERNEL_VEC_NEON_H
#define BP_KERNEL_VEC_NEON_H

#include <arm_neon.h>

#include "kernel_impl.h"

#define KERNEL_VEC_LANES 4
typedef float vf __attribute__((vector_size(16)));
static inline vf vf_set(float x) { return (vf)vdupq_n_f32(x); }

/* Not fmax and fmin, nor fmaxnm and fminnm: NaN and the zeros must come out as the comparison says. */
static inline float32x4_t larger(float32x4_t x, float32x4_t y) { return vbslq_f32(vcltq_f32(x, y), y, x); }
static inline float32x4_t smaller(float32x4_t x, float32x4_t y) { return vbslq_f32(vcgtq_f32(x, y), y, x); }

static inline vf vf_max(vf x, vf y) { return (vf)larger((float32x4_t)x, (float32x4_t)y); }
static inline vf vf_min(vf x, vf y) { return (vf)smaller((float32x4_t)x, (float32x4_t)y); }
static inline vf vf_halves(const uint16_t *h) { return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(h))); }

/* trunc(t +- 1/2), the rounding of kernel_round and cache8_round, where |t| is in range. fcvtas rounds the exact sum and
 * takes the float below 1/2 to 0 instead of 1. */
static inline int32x4_t round_away(float32x4_t t) {
    const float32x4_t half = vbslq_f32(vdupq_n_u32(0x80000000), t, vdupq_n_f32(0.5f));
    return vcvtq_s32_f32(vaddq_f32(t, half));
}

#include "kernel_vec.h"

#endif
