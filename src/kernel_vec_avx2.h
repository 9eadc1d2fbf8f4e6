/* kernel_vec_avx2.h - kernel_vec.h over AVX2 and F16C. */
#ifndef BP_KERNEL_VEC_AVX2_H
#define BP_KERNEL_VEC_AVX2_H

#include <immintrin.h>

#include "kernel_impl.h"

#define KERNEL_VEC_LANES 8
typedef __m256 vf;
static inline vf vf_set(float x) { return _mm256_set1_ps(x); }
static inline vf vf_max(vf x, vf y) { return _mm256_max_ps(y, x); }
static inline vf vf_min(vf x, vf y) { return _mm256_min_ps(y, x); }
static inline vf vf_halves(const uint16_t *h) { return _mm256_cvtph_ps(_mm_loadu_si128((const void *)h)); }
#include "kernel_vec.h"

#endif
