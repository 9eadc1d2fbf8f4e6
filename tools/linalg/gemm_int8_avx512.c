/* gemm_int8_avx512.c - packing for x86-64 with AVX-512 F and VNNI. */
#include "gemm_integer_tile.h"

#if defined(__x86_64__)
#include <math.h>

#include "avx512.h"

static const float LEVELS = 127;

/* What is added to bytes of A, in all four of a word: one operand of the instruction has no sign. */
static const uint32_t FLIP = 0x80808080;

/* ---- scales ---- */

/* |x| as ordered integers: infinity above every number, NaN above infinity. */
INLINE __m512i magnitude(__m512 x) { return _mm512_and_si512(_mm512_castps_si512(x), _mm512_set1_epi32(INT32_MAX)); }

/* Scales from the largest magnitudes, NaN where those are not finite, and what values are multiplied by. */
INLINE __m512 set_scales(uint32_t *scales, __m512i most) {
    const __m512 m = _mm512_castsi512_ps(most), top = _mm512_set1_ps(LEVELS);
    const __mmask16 counts = _mm512_cmp_ps_mask(m, _mm512_set1_ps(0x1p-100f), _CMP_GE_OQ),
                    special = _mm512_cmpgt_epi32_mask(most, _mm512_set1_epi32(0x7f7fffff));
    _mm512_store_ps(scales, _mm512_mask_blend_ps(special, _mm512_maskz_div_ps(counts, m, top), _mm512_set1_ps(NAN)));
    return _mm512_maskz_div_ps(counts, top, m);
}

/* ---- packing ---- */

/* A group: up to 16 vectors whose words lie beside each other in a panel. */
typedef struct {
    uint32_t *out;
    size_t width, quads;
    bool of_b;
    __m512i sum; /* 128 times the integers */
} group;

INLINE void put_words(group *g, size_t p, __m512i words) {
    _mm512_store_si512(g->out + p * g->width, g->of_b ? words : _mm512_xor_si512(words, _mm512_set1_epi32((int)FLIP)));
    if (g->of_b) g->sum = _mm512_dpbusd_epi32(g->sum, _mm512_set1_epi32((int)FLIP), words);
}

INLINE __m512i to_int32(__m512 x, __m512 inverse) { return _mm512_cvtps_epi32(_mm512_mul_ps(x, inverse)); }

static uint32_t most_along_k(const float *x, size_t k) {
    __m512i most = _mm512_setzero_si512();
    for (size_t p = 0; p < k; p += LANES)
        most = _mm512_max_epi32(most, magnitude(_mm512_maskz_loadu_ps(first_lanes(k - p), x + p)));
    return (uint32_t)_mm512_reduce_max_epi32(most);
}

/* 64 values beside each other, fewer where k ends, as 16 words */
INLINE __m512i quantize_row(const float *x, size_t k, __m512 inverse) {
    __m512i words = _mm512_setzero_si512();
    for (int q = 0; q < 4; q++) {
        const size_t at = (size_t)q * LANES;
        if (at >= k) break;
        const __m512 part = _mm512_maskz_loadu_ps(first_lanes(k - at), x + at);
        const __m512i bytes = _mm512_castsi128_si512(_mm512_cvtsepi32_epi8(to_int32(part, inverse)));
        words = _mm512_mask_permutexvar_epi32(words, (__mmask16)(0xf << 4 * q), _mm512_set4_epi32(3, 2, 1, 0), bytes);
    }
    return words;
}

static void pack_along_k(group *g, const float *x, size_t stride, size_t have, size_t k) {
    _Alignas(64) uint32_t most[LANES];
    _Alignas(64) float inverse[LANES];
    for (size_t i = 0; i < LANES; i++) most[i] = i < have ? most_along_k(x + i * stride, k) : 0;
    _mm512_store_ps(inverse, set_scales(g->out + g->quads * g->width, _mm512_load_si512(most)));
    for (size_t p = 0; p < g->quads; p += LANES) {
        __m512i r[LANES];
        for (size_t i = 0; i < LANES; i++)
            r[i] = i < have ? quantize_row(x + i * stride + 4 * p, k - 4 * p, _mm512_set1_ps(inverse[i]))
                            : _mm512_setzero_si512();
        transpose(r);
        for (size_t i = 0; i < bp_min(LANES, g->quads - p); i++) put_words(g, p + i, r[i]);
    }
}

static void pack_across_k(group *g, const float *x, size_t stride, size_t have, size_t k) {
    const __mmask16 lanes = first_lanes(have);
    __m512i most = _mm512_setzero_si512();
    for (size_t p = 0; p < k; p++)
        most = _mm512_max_epi32(most, magnitude(_mm512_maskz_loadu_ps(lanes, x + p * stride)));
    const __m512 inverse = set_scales(g->out + g->quads * g->width, most);
    for (size_t p = 0; p < g->quads; p++) {
        __m512i words = _mm512_setzero_si512();
        for (size_t q = 0; q < bp_min(4, k - 4 * p); q++) {
            const __m512 row = _mm512_maskz_loadu_ps(lanes, x + (4 * p + q) * stride);
            const __m512i byte = _mm512_and_si512(to_int32(row, inverse), _mm512_set1_epi32(0xff));
            words = _mm512_or_si512(words, _mm512_sllv_epi32(byte, _mm512_set1_epi32(8 * (int)q)));
        }
        put_words(g, p, words);
    }
}

static void pack(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k, bool of_b) {
    const size_t room = bp_round_up(width, LANES), quads = bp_ceil_div(k, 4);
    for (size_t v = 0; v < count; v += width, out += (quads + 2) * room)
        for (size_t at = 0; at < width; at += LANES) {
            const size_t have = v + at < count ? bp_min(LANES, bp_min(width - at, count - v - at)) : 0;
            const size_t first = have ? v + at : 0;
            group g = {out + at, room, quads, of_b, _mm512_setzero_si512()};
            if (x.along_k)
                pack_along_k(&g, x.data + first * x.stride, x.stride, have, k);
            else
                pack_across_k(&g, x.data + first, x.stride, have, k);
            _mm512_store_si512(out + (quads + 1) * room + at, g.sum);
        }
}

void gemm_int8_pack_a_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    pack(out, width, x, count, k, false);
}

void gemm_int8_pack_b_avx512(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    pack(out, width, x, count, k, true);
}

#endif
