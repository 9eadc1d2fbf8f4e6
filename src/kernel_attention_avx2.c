/* kernel_attention_avx2.c - attention for x86-64 with AVX2 and F16C. */
#include "kernel_vec_avx2.h"

typedef int16_t vs __attribute__((vector_size(32)));

static inline vi vs_dot_add(vi sum, vs x, vs y) { return sum + (vi)_mm256_madd_epi16((__m256i)x, (__m256i)y); }

#include "kernel_attention_avx.h"

void kernel_fill_attention_avx2(kernel_table *table) { fill_attention_avx(table); }
