/* kernel_avx512.c - products for x86-64 with AVX-512 (VBMI, VNNI, BITALG: Ice Lake and Zen 4 on); the rest is AVX2's. */
#include <immintrin.h>

#include "kernel_impl.h"

#define INLINE static inline __attribute__((always_inline))

/* Groups that a register holds, 16 bytes of signs each; how far ahead of a stream memory is asked; tokens whose sums stay
 * in registers; a & b | c for _mm512_ternarylogic */
enum { REGISTER_GROUPS = 4, PREFETCH_BYTES = 512, BATCH_TOKENS = 8, AND_OR = 0xea };

/* From a byte per group and row, [group][byte of the tile], to the four bytes of a row side by side: [row][group] */
INLINE __m512i by_rows(__m512i v) {
    return _mm512_permutexvar_epi8(_mm512_set_epi32(0x3f2f1f0f, 0x3d2d1d0d, 0x3b2b1b0b, 0x39291909, 0x37271707,
                                                    0x35251505, 0x33231303, 0x31211101, 0x3e2e1e0e, 0x3c2c1c0c,
                                                    0x3a2a1a0a, 0x38281808, 0x36261606, 0x34241404, 0x32221202,
                                                    0x30201000),
                                   v);
}

/* ---- lut8 ---- */

/* Rows 0..15 of a tile; no sum of a block needs more than 32 bits, with planes or without */
typedef struct {
    __m512i rows;
} rows_i16, rows_i32;

INLINE rows_i32 rows_widen(rows_i16 rows) { return rows; }

INLINE rows_i32 rows_add(rows_i32 sum, rows_i16 rows, int shift) {
    return (rows_i32){_mm512_add_epi32(sum.rows, _mm512_sll_epi32(rows.rows, _mm_cvtsi32_si128(shift)))};
}

INLINE void rows_flush(float *y, rows_i32 rows, float scale, const float *row_scales, size_t stride, bool first) {
    __m512 v = _mm512_mul_ps(_mm512_cvtepi32_ps(rows.rows), _mm512_set1_ps(scale));
    if (row_scales) {
        float strided[KERNEL_TILE];
        for (size_t r = 0; r < KERNEL_TILE; r++) strided[r] = row_scales[r * stride];
        v = _mm512_mul_ps(v, _mm512_loadu_ps(strided));
    }
    _mm512_storeu_ps(y, _mm512_add_ps(first ? _mm512_setzero_ps() : _mm512_loadu_ps(y), v));
}

/* The 64 entries of four tables, looked up by group and nibble at once; then the four entries of each row are added */
INLINE void lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables,
                         size_t groups) {
    const __m512i nibble = _mm512_set1_epi8(15), group = _mm512_set1_epi32(0x30201000), ones = _mm512_set1_epi8(1);
    for (int i = 0; i < count; i++) sums[i].rows = _mm512_set1_epi32(-127 * 2 * (int)groups);
    for (size_t g = 0; g < groups; g += REGISTER_GROUPS, tables += 32 * REGISTER_GROUPS) {
        const __m512i first = _mm512_loadu_si512(tables), second = _mm512_loadu_si512(tables + 64);
        const __m512i low = _mm512_shuffle_i64x2(first, second, 0x44), high = _mm512_shuffle_i64x2(first, second, 0xee);
        for (int i = 0; i < count; i++) {
            const uint8_t *at = streams[i] + KERNEL_TILE * g;
            _mm_prefetch((const void *)((uintptr_t)at + PREFETCH_BYTES), _MM_HINT_T0);
            const __m512i v = by_rows(_mm512_loadu_si512(at));
            const __m512i e = _mm512_ternarylogic_epi32(v, nibble, group, AND_OR);
            const __m512i f = _mm512_ternarylogic_epi32(_mm512_srli_epi16(v, 4), nibble, group, AND_OR);
            sums[i].rows = _mm512_dpbusd_epi32(sums[i].rows, _mm512_permutexvar_epi8(e, low), ones);
            sums[i].rows = _mm512_dpbusd_epi32(sums[i].rows, _mm512_permutexvar_epi8(f, high), ones);
        }
    }
}

#include "kernel_lut8.h"

/* Four groups of a tile as indices for many tokens: of each pair of groups into its 64 entries, low nibbles of both and
 * high nibbles of both (lut8_table) */
typedef struct {
    __m512i pair[2];
} batch_indices;

INLINE batch_indices batch_index(const uint8_t *bytes) {
    const __m512i nibble = _mm512_set1_epi8(15), table = _mm512_set1_epi32(0x30201000);
    const __m512i rows = by_rows(_mm512_loadu_si512(bytes)), high = _mm512_srli_epi16(rows, 4);
    const __m512i first = _mm512_mask_blend_epi16(0xaaaaaaaa, rows, _mm512_slli_epi32(high, 16));
    const __m512i second = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(rows, 16), high);
    return (batch_indices){{_mm512_ternarylogic_epi32(first, nibble, table, AND_OR),
                            _mm512_ternarylogic_epi32(second, nibble, table, AND_OR)}};
}

/* sums [count] <- one block of one plane of a tile; tables: the first token's */
INLINE void batch_sums(__m512i *sums, const uint8_t *bytes, const uint8_t *tables, size_t token_bytes, size_t groups,
                       size_t count) {
    const __m512i ones = _mm512_set1_epi8(1);
    for (size_t t = 0; t < count; t++) sums[t] = _mm512_set1_epi32(-127 * 2 * (int)groups);
    for (size_t g = 0; g < groups; g += REGISTER_GROUPS, bytes += 64, tables += 128) {
        const batch_indices index = batch_index(bytes);
        for (size_t t = 0; t < count; t++)
            for (int i = 0; i < 2; i++) {
                const __m512i entries = _mm512_loadu_si512(tables + t * token_bytes + 64 * i);
                sums[t] = _mm512_dpbusd_epi32(sums[t], _mm512_permutexvar_epi8(index.pair[i], entries), ones);
            }
    }
}

/* y[t][row] for `count` tokens, a constant, and the tiles first..end */
INLINE void batch_tiles(float *y, size_t y_stride, const kernel_signs *w, const uint8_t *inputs, size_t count,
                        size_t first, size_t end) {
    const size_t blocks = kernel_blocks(w->groups), offset = lut8_tables_offset(w->groups);
    const size_t token_bytes = offset + (size_t)w->groups * 32;
    for (size_t tile = first; tile < end; tile++)
        for (size_t block = 0; block < blocks; block++) {
            const size_t g = block * KERNEL_BLOCK_GROUPS, row = tile * KERNEL_TILE;
            const float *row_scales = w->row_scales ? w->row_scales + row * blocks + block : NULL;
            rows_i32 rows[BATCH_TOKENS];
            for (size_t p = 0; p < w->planes; p++) {
                __m512i sums[BATCH_TOKENS];
                batch_sums(sums, w->bytes + ((tile * w->planes + p) * w->groups + g) * KERNEL_TILE,
                           inputs + offset + 32 * g, token_bytes, kernel_block_groups(w->groups, block), count);
                for (size_t t = 0; t < count; t++)
                    rows[t] = p ? rows_add(rows[t], (rows_i16){sums[t]}, (int)p) : (rows_i32){sums[t]};
            }
            for (size_t t = 0; t < count; t++)
                rows_flush(y + t * y_stride + row, rows[t],
                           ((const float *)(const void *)(inputs + t * token_bytes))[block], row_scales, blocks,
                           block == 0);
        }
}

static KERNEL_NOINLINE void batch_eight(float *y, size_t y_stride, const kernel_signs *w, const uint8_t *inputs,
                                        size_t first, size_t end) {
    batch_tiles(y, y_stride, w, inputs, BATCH_TOKENS, first, end);
}

static KERNEL_NOINLINE void batch_four(float *y, size_t y_stride, const kernel_signs *w, const uint8_t *inputs,
                                       size_t first, size_t end) {
    batch_tiles(y, y_stride, w, inputs, BATCH_TOKENS / 2, first, end);
}

/* Chunk by chunk, so that signs come from memory once for all tokens */
static void lut8_batch_avx512(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens,
                              size_t first, size_t end, void *scratch) {
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32;
    const size_t chunk = bp_max(4, BATCH_CHUNK_BYTES / ((size_t)w->planes * w->groups * KERNEL_TILE) / 4 * 4);
    for (size_t tile = first; tile < end; tile += chunk) {
        const size_t stop = bp_min(tile + chunk, end);
        size_t t = 0;
        for (; t + BATCH_TOKENS <= n_tokens; t += BATCH_TOKENS)
            batch_eight(y + t * y_stride, y_stride, w, (const uint8_t *)inputs + t * token_bytes, tile, stop);
        for (; t + BATCH_TOKENS / 2 <= n_tokens; t += BATCH_TOKENS / 2)
            batch_four(y + t * y_stride, y_stride, w, (const uint8_t *)inputs + t * token_bytes, tile, stop);
        lut8_batch_streams(y + t * y_stride, y_stride, w, (const uint8_t *)inputs + t * token_bytes, n_tokens - t, tile,
                           stop, scratch);
    }
}

/* ---- popcount ---- */

typedef __m512i popcount_mask;

enum { POPCOUNT_MASKS = KERNEL_BLOCK_GROUPS / REGISTER_GROUPS * 8 };

/* masks [four groups][bit], a group in a lane */
static void popcount_masks(popcount_mask *masks, const uint8_t *bits, size_t groups) {
    for (size_t g = 0; g < groups; g += REGISTER_GROUPS, bits += 8 * REGISTER_GROUPS)
        for (int bit = 0; bit < 8; bit++) {
            uint8_t mask[REGISTER_GROUPS][KERNEL_TILE];
            for (size_t i = 0; i < REGISTER_GROUPS; i++) memset(mask[i], bits[8 * i + (size_t)bit], KERNEL_TILE);
            *masks++ = _mm512_loadu_si512(mask);
        }
}

/* Sum of q over the set bits of one tile. A byte counts up to 8 registers * 8 bits; bit 7 of q weighs -128. */
INLINE __m512i popcount_tile(const uint8_t *bytes, const popcount_mask *masks, size_t groups) {
    __m512i counts[8], sum = _mm512_setzero_si512();
    for (int bit = 0; bit < 8; bit++) counts[bit] = _mm512_setzero_si512();
    for (size_t g = 0; g < groups; g += REGISTER_GROUPS, masks += 8) {
        const __m512i v = _mm512_loadu_si512(bytes + KERNEL_TILE * g);
        for (int bit = 0; bit < 8; bit++)
            counts[bit] =
                _mm512_add_epi8(counts[bit], _mm512_popcnt_epi8(_mm512_and_si512(v, _mm512_loadu_si512(masks + bit))));
    }
    for (int bit = 0; bit < 8; bit++)
        sum = _mm512_dpbusd_epi32(sum, by_rows(counts[bit]), _mm512_set1_epi8((char)(1 << bit)));
    return sum;
}

INLINE rows_i32 popcount_rows(rows_i32 sum, __m512i set, int32_t total, int shift) {
    return rows_add(sum, (rows_i16){_mm512_sub_epi32(_mm512_slli_epi32(set, 1), _mm512_set1_epi32(total))}, shift);
}

#include "kernel_popcount.h"

/* ---- rows of floats ---- */

/* A register is the 16 partial sums; the first two levels of their tree, then the last two for four sums at once */
INLINE __m128 dots_quarter(__m512 s) {
    const __m256 v =
        _mm256_add_ps(_mm512_castps512_ps256(s), _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(s), 1)));
    return _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
}

INLINE __m128 dots_tree(const __m512 *s) {
    const __m128 a = dots_quarter(s[0]), b = dots_quarter(s[1]), c = dots_quarter(s[2]), d = dots_quarter(s[3]);
    const __m128 ab = _mm_add_ps(_mm_unpacklo_ps(a, b), _mm_unpackhi_ps(a, b));
    const __m128 cd = _mm_add_ps(_mm_unpacklo_ps(c, d), _mm_unpackhi_ps(c, d));
    return _mm_add_ps(_mm_movelh_ps(ab, cd), _mm_movehl_ps(cd, ab));
}

/* Four rows at a time; those that are not there are the last one again */
static void dots_avx512(float *y, const float *x, const float *w, size_t w_stride, size_t n, size_t n_rows) {
    for (size_t r = 0; r < n_rows; r += 4) {
        const size_t count = bp_min(4, n_rows - r);
        const float *rows[4];
        __m512 s[4];
        size_t i = 0;
        for (size_t j = 0; j < 4; j++) rows[j] = w + (r + bp_min(j, count - 1)) * w_stride;
        for (int j = 0; j < 4; j++) s[j] = _mm512_setzero_ps();
        for (; i + 16 <= n; i += 16) {
            const __m512 value = _mm512_loadu_ps(x + i);
            for (int j = 0; j < 4; j++) s[j] = _mm512_add_ps(s[j], _mm512_mul_ps(value, _mm512_loadu_ps(rows[j] + i)));
        }
        if (i < n) {
            const __mmask16 some = (__mmask16)((1u << (n - i)) - 1);
            const __m512 value = _mm512_maskz_loadu_ps(some, x + i);
            for (int j = 0; j < 4; j++)
                s[j] = _mm512_add_ps(s[j], _mm512_mul_ps(value, _mm512_maskz_loadu_ps(some, rows[j] + i)));
        }
        const __m128 sums = dots_tree(s);
        memcpy(y + r, &sums, count * sizeof *y);
    }
}

void kernel_fill_avx512(kernel_table *table) {
    table->lut8.product = lut8_product_streams;
    table->lut8.batch = lut8_batch_avx512;
    table->popcount.product = popcount_product_tiles;
    table->dots = dots_avx512;
    kernel_fill_attention_avx512(table);
}
