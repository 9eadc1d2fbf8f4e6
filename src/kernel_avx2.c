/* kernel_avx2.c - kernels for x86-64 with AVX2 and F16C. */
#include "kernel_impl.h"
#include "mathf.h"

#include <immintrin.h>

/* The order of the operands of min and max makes NaN 65504 first; the mask clears it afterwards. */
static void to_half_avx2(uint16_t *y, const float *x, size_t n) {
    const __m256 largest = _mm256_set1_ps(65504.0f), smallest = _mm256_set1_ps(-65504.0f);
    size_t i = 0;
    for (; i + 8 <= n; i += 8) {
        __m256 v = _mm256_loadu_ps(x + i);
        const __m256 ordered = _mm256_cmp_ps(v, v, _CMP_ORD_Q);
        v = _mm256_and_ps(_mm256_max_ps(_mm256_min_ps(v, largest), smallest), ordered);
        _mm_storeu_si128((__m128i *)(void *)(y + i), _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
    }
    for (; i < n; i++) y[i] = bp_half_from_float(x[i]);
}

void kernel_fill_avx2(kernel_table *table) { table->to_half = to_half_avx2; }
