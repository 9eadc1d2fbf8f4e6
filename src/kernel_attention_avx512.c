/* kernel_attention_avx512.c - attention for x86-64 with AVX-512 VL and VNNI: that of AVX2, but one instruction multiplies
 * and adds up, and there are registers for all sums. */
#include "kernel_vec_avx2.h"

typedef int16_t vs __attribute__((vector_size(32)));

static inline vi vs_dot_add(vi sum, vs x, vs y) {
    return (vi)_mm256_dpwssd_epi32((__m256i)sum, (__m256i)x, (__m256i)y);
}

#include "kernel_attention_avx.h"

void kernel_fill_attention_avx512(kernel_table *table) { fill_attention_avx(table); }
