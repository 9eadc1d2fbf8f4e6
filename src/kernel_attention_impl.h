/* kernel_attention_impl.h - the layout of a prepared query and the roundings of the 8-bit cache, for every ISA. */
#ifndef BP_KERNEL_ATTENTION_IMPL_H
#define BP_KERNEL_ATTENTION_IMPL_H

#include "kernel_impl.h"

static inline float *query_scale(const void *query) { return (float *)(uintptr_t)query; }

/* float [dim], or int16 [dim] */
static inline void *query_values(const void *query) { return (uint8_t *)(uintptr_t)query + 64; }

/* Keeps every product of scales finite. */
static inline float cache8_largest(float s) { return s < 1e15f ? s : 1e15f; }

/* 32767 / s and s / 32767; 0 where everything is (as good as) zero */
static inline float cache8_inverse(float s) { return s < 1e-30f ? 0.0f : 32767.0f / s; }
static inline float cache8_scale(float s) { return s < 1e-30f ? 0.0f : s / 32767.0f; }

/* As kernel_round, to +-32767 */
static inline int16_t cache8_round(float t) {
    t = t < 32767.0f ? t : 32767.0f;
    t = t > -32767.0f ? t : -32767.0f;
    return (int16_t)(t < 0.0f ? t - 0.5f : t + 0.5f);
}

#endif
