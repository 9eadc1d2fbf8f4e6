/* gemm_int16_avx2.c - packing and product for x86-64 with AVX2. */
#include "gemm_integer_tile.h"

#if defined(__x86_64__)
#include <immintrin.h>
#include <math.h>

#define INLINE static inline __attribute__((always_inline))

enum { LANES = GEMM_INT16_LANES };

INLINE __m256i first_lanes(size_t n) {
    const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)bp_min(n, LANES)), lane);
}

/* ---- scales ---- */

/* Largest integer of which `k` products always add up to less than 2^31. */
static float levels_of(size_t k) { return fminf(32767, (float)floor(sqrt(INT32_MAX / (double)k))); }

/* |x| as ordered integers: infinity above every number, NaN above infinity. */
INLINE __m256i magnitude(__m256 x) { return _mm256_and_si256(_mm256_castps_si256(x), _mm256_set1_epi32(INT32_MAX)); }

/* Eight scales from the largest magnitudes, NaN where those are not finite, and what values are multiplied by. */
INLINE __m256 set_scales(uint32_t *scales, __m256i most, float levels) {
    const __m256 m = _mm256_castsi256_ps(most), top = _mm256_set1_ps(levels);
    const __m256 counts = _mm256_cmp_ps(m, _mm256_set1_ps(0x1p-100f), _CMP_GE_OQ);
    const __m256 special = _mm256_castsi256_ps(_mm256_cmpgt_epi32(most, _mm256_set1_epi32(0x7f7fffff)));
    const __m256 scale = _mm256_and_ps(counts, _mm256_div_ps(m, top));
    _mm256_store_ps((float *)scales, _mm256_blendv_ps(scale, _mm256_set1_ps(NAN), special));
    return _mm256_and_ps(counts, _mm256_div_ps(top, m));
}

/* Largest magnitude of k values beside each other. Asks for those at `next`, which come later: a block is a narrow
 * window of a wide matrix, which the processor does not foresee. */
static uint32_t most_along_k(const float *x, const float *next, size_t k) {
    enum { AT_ONCE = 4 };
    __m256i most[AT_ONCE] = {_mm256_setzero_si256(), _mm256_setzero_si256(), _mm256_setzero_si256(),
                             _mm256_setzero_si256()};
    size_t p = 0;
    for (; p + AT_ONCE * LANES <= k; p += AT_ONCE * LANES) {
        _mm_prefetch((const char *)(next + p), _MM_HINT_T0);
        _mm_prefetch((const char *)(next + p + 2 * LANES), _MM_HINT_T0);
        for (size_t i = 0; i < AT_ONCE; i++)
            most[i] = _mm256_max_epi32(most[i], magnitude(_mm256_loadu_ps(x + p + i * LANES)));
    }
    for (; p < k; p += LANES)
        most[0] = _mm256_max_epi32(most[0], magnitude(_mm256_maskload_ps(x + p, first_lanes(k - p))));
    most[0] = _mm256_max_epi32(_mm256_max_epi32(most[0], most[1]), _mm256_max_epi32(most[2], most[3]));
    __m128i four = _mm_max_epi32(_mm256_castsi256_si128(most[0]), _mm256_extracti128_si256(most[0], 1));
    four = _mm_max_epi32(four, _mm_shuffle_epi32(four, 0x4e));
    return (uint32_t)_mm_cvtsi128_si32(_mm_max_epi32(four, _mm_shuffle_epi32(four, 0xb1)));
}

/* ---- packing ---- */

INLINE __m256i to_int32(__m256 x, __m256 inverse) { return _mm256_cvtps_epi32(_mm256_mul_ps(x, inverse)); }

/* Transposes 8 x 8 words: first within the 128-bit halves, then the halves. */
INLINE void transpose(__m256i r[LANES]) {
    __m256i t[LANES];
    for (int i = 0; i < LANES; i += 2) {
        t[i] = _mm256_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm256_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < LANES; i += 4) {
        r[i] = _mm256_unpacklo_epi64(t[i], t[i + 2]);
        r[i + 1] = _mm256_unpackhi_epi64(t[i], t[i + 2]);
        r[i + 2] = _mm256_unpacklo_epi64(t[i + 1], t[i + 3]);
        r[i + 3] = _mm256_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int i = 0; i < LANES / 2; i++) {
        t[i] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x20);
        t[i + 4] = _mm256_permute2x128_si256(r[i], r[i + 4], 0x31);
    }
    for (int i = 0; i < LANES; i++) r[i] = t[i];
}

/* Eight vectors along k (rows), at most 16 elements of each: a row is 8 pairs once it is rounded, so that transposing
 * words makes the panel's order. Writes at most 8 of `pairs` rows of out. */
INLINE void pack_square(uint32_t *out, size_t width, const float *const rows[LANES], const float inverse[LANES],
                        size_t p, size_t k, size_t pairs) {
    static const unsigned place[LANES] = {0, 1, 4, 5, 2, 3, 6, 7}; /* of each pair: packing works within halves */
    const __m256i low = first_lanes(k), high = first_lanes(k > LANES ? k - LANES : 0);
    const size_t next = k > LANES ? LANES : 0;
    __m256i r[LANES];
    for (size_t i = 0; i < LANES; i++) {
        const __m256 by = _mm256_broadcast_ss(&inverse[i]);
        r[i] = _mm256_packs_epi32(to_int32(_mm256_maskload_ps(rows[i] + p, low), by),
                                  to_int32(_mm256_maskload_ps(rows[i] + p + next, high), by));
    }
    transpose(r);
    for (size_t i = 0; i < LANES; i++)
        if (i < pairs) _mm256_store_si256((__m256i *)(void *)(out + i * width), r[place[i]]);
}

/* `have` vectors of up to eight; the others repeat the first, and nothing comes of them. */
static void pack_group_along_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t have, size_t left,
                               size_t k) {
    const size_t pairs = bp_ceil_div(k, 2);
    const float *rows[LANES];
    _Alignas(32) uint32_t most[LANES];
    _Alignas(32) float inverse[LANES];
    for (size_t i = 0; i < LANES; i++) {
        rows[i] = x + (i < have ? i * stride : 0);
        most[i] = i < have ? most_along_k(rows[i], rows[i] + (have + i < left ? have * stride : 0), k) : 0;
    }
    _mm256_store_ps(inverse, set_scales(out + pairs * width, _mm256_load_si256((__m256i *)(void *)most), levels_of(k)));
    for (size_t p = 0; p < pairs; p += LANES)
        pack_square(out + p * width, width, rows, inverse, 2 * p, k - 2 * p, pairs - p);
}

static void pack_along_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k) {
    const size_t room = bp_round_up(width, LANES);
    for (size_t v = 0; v < count; v += width, out += (bp_ceil_div(k, 2) + 1) * room)
        for (size_t g = 0; g < width; g += LANES) {
            const size_t have = v + g < count ? bp_min(LANES, bp_min(width - g, count - v - g)) : 0;
            pack_group_along_k(out + g, room, x + (have ? v + g : v) * stride, stride, have, count - v - g, k);
        }
}

/* Eight columns of two rows of the matrix as pairs; the last of an odd number of rows has no partner. */
INLINE __m256i interleave_rows(const float *x, size_t stride, __m256i lanes, bool second, __m256 inverse) {
    const __m256i even = to_int32(_mm256_maskload_ps(x, lanes), inverse);
    if (!second) return _mm256_and_si256(even, _mm256_set1_epi32(0xffff));
    const __m256i odd = to_int32(_mm256_maskload_ps(x + stride, lanes), inverse);
    return _mm256_blend_epi16(even, _mm256_slli_epi32(odd, 16), 0xaa);
}

enum { STRIP = 16, STRIP_ROWS = 8 };

/* A strip: registers beside each other in a narrow window of the matrix, which stays in the second-level cache from
 * the search for the largest magnitudes to the packing. A few rows at a time over the whole strip: their lines are used
 * up while they are in the first-level cache, even where the stride maps all rows to one of its sets. */
typedef struct {
    const float *x;
    size_t stride, k, groups;
    struct {
        size_t column; /* of its first lane */
        uint32_t *out;
        __m256i lanes, most;
        __m256 inverse;
    } group[STRIP];
} strip;

/* Both steps for `rows` rows of one register: inlined for STRIP_ROWS, which is then unrolled, and for what is left. */
INLINE __m256i most_of_rows(__m256i most, const float *x, size_t stride, __m256i lanes, size_t rows, bool more) {
    for (size_t i = 0; i < rows; i++) {
        const float *row = x + i * stride;
        if (more) _mm_prefetch((const char *)(row + STRIP_ROWS * stride), _MM_HINT_T0);
        most = _mm256_max_epi32(most, magnitude(_mm256_maskload_ps(row, lanes)));
    }
    return most;
}

INLINE void pack_rows(uint32_t *out, size_t width, const float *x, size_t stride, __m256i lanes, __m256 inverse,
                      size_t rows) {
    for (size_t i = 0; i < rows; i += 2)
        _mm256_store_si256((__m256i *)(void *)(out + i / 2 * width),
                           interleave_rows(x + i * stride, stride, lanes, i + 1 < rows, inverse));
}

static void strip_find_most(strip *s) {
    for (size_t first = 0; first < s->k; first += STRIP_ROWS)
        for (size_t g = 0; g < s->groups; g++) {
            const float *x = s->x + s->group[g].column + first * s->stride;
            const __m256i lanes = s->group[g].lanes, most = s->group[g].most;
            const size_t left = s->k - first;
            s->group[g].most = left >= 2 * (size_t)STRIP_ROWS
                                   ? most_of_rows(most, x, s->stride, lanes, STRIP_ROWS, true)
                               : left >= STRIP_ROWS ? most_of_rows(most, x, s->stride, lanes, STRIP_ROWS, false)
                                                    : most_of_rows(most, x, s->stride, lanes, left, false);
        }
}

static void strip_pack(const strip *s, size_t width) {
    for (size_t first = 0; first < s->k; first += STRIP_ROWS)
        for (size_t g = 0; g < s->groups; g++) {
            const float *x = s->x + s->group[g].column + first * s->stride;
            uint32_t *out = s->group[g].out + first / 2 * width;
            const size_t left = s->k - first;
            if (left >= STRIP_ROWS)
                pack_rows(out, width, x, s->stride, s->group[g].lanes, s->group[g].inverse, STRIP_ROWS);
            else
                pack_rows(out, width, x, s->stride, s->group[g].lanes, s->group[g].inverse, left);
        }
}

static void pack_across_k(uint32_t *out, size_t width, const float *x, size_t stride, size_t count, size_t k) {
    const size_t room = bp_round_up(width, LANES), pairs = bp_ceil_div(k, 2);
    const float levels = levels_of(k);
    for (size_t v = 0; v < count;) {
        strip s = {x, stride, k, 0, {{0}}};
        for (; v < count && s.groups + room / LANES <= STRIP; v += width, out += (pairs + 1) * room)
            for (size_t g = 0; g < width; g += LANES) {
                const size_t have = v + g < count ? bp_min(LANES, bp_min(width - g, count - v - g)) : 0;
                s.group[s.groups].column = have ? v + g : v;
                s.group[s.groups].out = out + g;
                s.group[s.groups++].lanes = first_lanes(have);
            }
        strip_find_most(&s);
        for (size_t g = 0; g < s.groups; g++)
            s.group[g].inverse = set_scales(s.group[g].out + pairs * room, s.group[g].most, levels);
        strip_pack(&s, room);
    }
}

void gemm_int16_pack_avx2(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (x.along_k ? pack_along_k : pack_across_k)(out, width, x.data, x.stride, count, k);
}

/* ---- product ---- */

typedef struct {
    float *C;
    size_t ldc, rows, cols;
    __m256 alpha, beta;
    bool read; /* beta is not 0 */
} target;

/* to [8] = alpha * sums * scales + beta * to, or its first `count` */
INLINE void update(const target *t, float *to, size_t count, __m256i sums, __m256 row, __m256 columns) {
    const __m256i lanes = first_lanes(count);
    const bool whole = count >= LANES;
    __m256 v = _mm256_mul_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(sums), row), columns);
    v = _mm256_mul_ps(t->alpha, v);
    if (t->read)
        v = _mm256_add_ps(v, _mm256_mul_ps(t->beta, whole ? _mm256_loadu_ps(to) : _mm256_maskload_ps(to, lanes)));
    if (whole)
        _mm256_storeu_ps(to, v);
    else
        _mm256_maskstore_ps(to, lanes, v);
}

/* The sums of a tile are 12 variables, not an array, so that every compiler keeps them in registers. */
#define EACH_ROW(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define ROW_ZERO(i) __m256i left##i = _mm256_setzero_si256(), right##i = _mm256_setzero_si256();
#define ROW_ADD(i)                                                                                                     \
    ai = _mm256_set1_epi32((int)a[i]);                                                                                 \
    left##i = _mm256_add_epi32(left##i, _mm256_madd_epi16(ai, b0));                                                    \
    right##i = _mm256_add_epi32(right##i, _mm256_madd_epi16(ai, b1));
#define ROW_UPDATE(i)                                                                                                  \
    if (i == t->rows) return;                                                                                          \
    row = _mm256_broadcast_ss((const float *)a + i);                                                                   \
    update(t, t->C + i * t->ldc, t->cols, left##i, row, left_scales);                                                  \
    if (t->cols > LANES) update(t, t->C + i * t->ldc + LANES, t->cols - LANES, right##i, row, right_scales);

/* C [rows, cols] = alpha * A panel B panel + beta * C: each pair of A is spread over a register and meets the two
 * registers of B's pairs. */
static void tile(const target *t, const uint32_t *a, const uint32_t *b, size_t pairs) {
    for (size_t i = 0; i < t->rows; i++) { /* up to two lines each: C is of any alignment */
        _mm_prefetch((const char *)(t->C + i * t->ldc), _MM_HINT_T0);
        _mm_prefetch((const char *)(t->C + i * t->ldc + t->cols - 1), _MM_HINT_T0);
    }
    EACH_ROW(ROW_ZERO)
#pragma GCC unroll 4
    for (size_t p = 0; p < pairs; p++, a += LANES, b += GEMM_INT16_COLS) {
        const __m256i b0 = _mm256_load_si256((const __m256i *)(const void *)b);
        const __m256i b1 = _mm256_load_si256((const __m256i *)(const void *)(b + LANES));
        __m256i ai;
        EACH_ROW(ROW_ADD)
    }
    const __m256 left_scales = _mm256_load_ps((const float *)b),
                 right_scales = _mm256_load_ps((const float *)b + LANES);
    __m256 row;
    EACH_ROW(ROW_UPDATE)
}

void gemm_int16_product_avx2(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                             float alpha, float beta) {
    const size_t pairs = bp_ceil_div(k, 2), a_panel = (pairs + 1) * LANES, b_panel = (pairs + 1) * GEMM_INT16_COLS;
    for (size_t j = 0; j < n; j += GEMM_INT16_COLS, B += b_panel)
        for (size_t i = 0; i < m; i += GEMM_INT16_ROWS) {
            const target t = {C + i * ldc + j,
                              ldc,
                              bp_min(GEMM_INT16_ROWS, m - i),
                              bp_min(GEMM_INT16_COLS, n - j),
                              _mm256_set1_ps(alpha),
                              _mm256_set1_ps(beta),
                              beta != 0};
            tile(&t, A + i / GEMM_INT16_ROWS * a_panel, B, pairs);
        }
}

#endif
