/* kernel_vec_simd128.h - kernel_vec.h over WebAssembly SIMD128. */
#ifndef BP_KERNEL_VEC_SIMD128_H
#define BP_KERNEL_VEC_SIMD128_H

#include <wasm_simd128.h>

#include "kernel_impl.h"

#define KERNEL_VEC_LANES 4
typedef float vf __attribute__((vector_size(16)));
static inline vf vf_set(float x) { return (vf)wasm_f32x4_splat(x); }

static inline vf vf_max(vf x, vf y) { return (vf)wasm_f32x4_pmax((v128_t)x, (v128_t)y); }
static inline vf vf_min(vf x, vf y) { return (vf)wasm_f32x4_pmin((v128_t)x, (v128_t)y); }

/* The sign-extended half, moved up by 13 bits, has four copies of the sign on top: three are cleared. The exponent is
 * moved by a multiplication with 2^112, as in bp_half_to_float; infinities and NaN do not occur in a cache. */
static inline vf vf_halves(const uint16_t *h) {
    const v128_t bits = wasm_i32x4_shl(wasm_i32x4_load16x4(h), 13);
    const v128_t scaled = wasm_v128_and(bits, wasm_i32x4_const_splat((int32_t)0x8fffffff));
    return (vf)wasm_f32x4_mul(scaled, wasm_f32x4_const_splat(5.192296858534828e33f));
}
#include "kernel_vec.h"

#endif
