/* kernel_avx2.c - kernels for x86-64 with AVX2 and F16C. */
#include <immintrin.h>

#include "kernel_impl.h"
#include "kernel_vec_avx2.h"

#include "kernel_rows.h"

#define INLINE static inline __attribute__((always_inline))

static inline __m256i load256(const void *p) { return _mm256_loadu_si256(p); }

/* ---- lut8: tables ---- */

/* p [n] = b . x from column `first` on, zeros past cols */
static void scale_block(float *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    const size_t have = first < cols ? bp_min(n, cols - first) : 0;
    size_t i = 0;
    for (; i + 8 <= have; i += 8) {
        const __m256 v = _mm256_loadu_ps(x + first + i);
        _mm256_storeu_ps(p + i, b ? _mm256_mul_ps(_mm256_loadu_ps(b + first + i), v) : v);
    }
    for (; i < have; i++) p[i] = b ? b[first + i] * x[first + i] : x[first + i];
    for (; i < n; i++) p[i] = 0.0f;
}

/* The largest lane, not NaN */
static inline float largest_lane(__m256 v) {
    float lanes[8], s = 0.0f;
    _mm256_storeu_ps(lanes, v);
    for (int i = 0; i < 8; i++) s = lanes[i] > s ? lanes[i] : s;
    return s;
}

/* kernel_round(v * inverse) for |v * inverse| <= 127 and NaN; min_ps(t, 127) returns 127 where t is NaN */
static inline __m256i round_entries(__m256 v, __m256 inverse) {
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 t = _mm256_min_ps(_mm256_mul_ps(v, inverse), _mm256_set1_ps(127.0f));
    return _mm256_cvttps_epi32(_mm256_add_ps(t, _mm256_or_ps(_mm256_and_ps(t, sign), _mm256_set1_ps(0.5f))));
}

/* Eight tables, one per lane: the even ones (low nibbles) in the low half, the odd ones in the high half; column[i] is
 * b . x of the tables' i-th columns */
typedef struct {
    __m256 column[4];
} eight_tables;

static inline eight_tables load_columns(const float *x, const float *b) {
    __m256 r[4];
    for (int i = 0; i < 4; i++) {
        const __m256 v = _mm256_loadu_ps(x + 8 * i);
        r[i] = b ? _mm256_mul_ps(_mm256_loadu_ps(b + 8 * i), v) : v;
    }
    const __m256d low0 = _mm256_castps_pd(_mm256_unpacklo_ps(r[0], r[1]));
    const __m256d low1 = _mm256_castps_pd(_mm256_unpacklo_ps(r[2], r[3]));
    const __m256d high0 = _mm256_castps_pd(_mm256_unpackhi_ps(r[0], r[1]));
    const __m256d high1 = _mm256_castps_pd(_mm256_unpackhi_ps(r[2], r[3]));
    return (eight_tables){
        {_mm256_castpd_ps(_mm256_unpacklo_pd(low0, low1)), _mm256_castpd_ps(_mm256_unpackhi_pd(low0, low1)),
         _mm256_castpd_ps(_mm256_unpacklo_pd(high0, high1)), _mm256_castpd_ps(_mm256_unpackhi_pd(high0, high1))}};
}

/* (|p0| + |p1|) + (|p2| + |p3|), the largest entry of each table */
static inline __m256 largest_entries(const eight_tables *p) {
    const __m256 m = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    return _mm256_add_ps(_mm256_add_ps(_mm256_and_ps(p->column[0], m), _mm256_and_ps(p->column[1], m)),
                         _mm256_add_ps(_mm256_and_ps(p->column[2], m), _mm256_and_ps(p->column[3], m)));
}

/* Loads the tables of one block and returns the bits of its largest entry: as whole numbers, where NaN is the largest */
static uint32_t load_block(eight_tables *p, const float *x, const float *b, size_t first, size_t cols, size_t n) {
    __m256i s = _mm256_setzero_si256();
    for (size_t i = 0; i < n; i += 32, p++) {
        if (first + i + 32 <= cols) {
            *p = load_columns(x + first + i, b ? b + first + i : NULL);
        } else {
            float padded[32];
            scale_block(padded, x, b, first + i, cols, 32);
            *p = load_columns(padded, NULL);
        }
        s = _mm256_max_epu32(_mm256_castps_si256(largest_entries(p)), s);
    }
    uint32_t lanes[8], most = 0;
    _mm256_storeu_si256((void *)lanes, s);
    for (int i = 0; i < 8; i++) most = lanes[i] > most ? lanes[i] : most;
    return most;
}

/* Bits of v + KERNEL_ENTRY, `by` bits further up */
#define ENTRY_BITS(v, by) _mm256_slli_epi32(_mm256_castps_si256(_mm256_add_ps(v, _mm256_set1_ps(KERNEL_ENTRY))), by)

/* Entries of v[0..3] of eight tables, four bytes of each */
static inline __m256i pack_entries(const __m256 *v) {
    const __m256i low = _mm256_add_epi32(ENTRY_BITS(v[0], 0), ENTRY_BITS(v[1], 8));
    const __m256i high = _mm256_add_epi32(ENTRY_BITS(v[2], 16), ENTRY_BITS(v[3], 24));
    return _mm256_sub_epi32(_mm256_add_epi32(low, high), _mm256_set1_epi32((int)KERNEL_ENTRIES_BITS));
}

/* Four tables (64 bytes) from their entries 0..7; the others mirror them: 254 - e = ~e - 1 */
static inline void store_tables(uint8_t *tables, __m256i halves) {
    const __m256i mirror = _mm256_setr_epi8(0, 1, 2, 3, 4, 5, 6, 7, 7, 6, 5, 4, 3, 2, 1, 0, 0, 1, 2, 3, 4, 5, 6, 7, 7,
                                            6, 5, 4, 3, 2, 1, 0);
    const __m256i second = _mm256_set_epi64x(-1, 0, -1, 0), behind = _mm256_add_epi8(mirror, _mm256_set1_epi8(8));
    const __m256i a = _mm256_add_epi8(_mm256_xor_si256(_mm256_shuffle_epi8(halves, mirror), second), second);
    const __m256i b = _mm256_add_epi8(_mm256_xor_si256(_mm256_shuffle_epi8(halves, behind), second), second);
    _mm256_storeu_si256((void *)tables, _mm256_permute2x128_si256(a, b, 0x20));
    _mm256_storeu_si256((void *)(tables + 32), _mm256_permute2x128_si256(a, b, 0x31));
}

/* Eight tables (128 bytes). Negating a sum is exact, so sums and differences of pairs give all entries. */
static inline void build_tables(uint8_t *tables, const eight_tables *p, __m256 inverse) {
    __m256 c[4];
    for (int i = 0; i < 4; i++) c[i] = _mm256_mul_ps(p->column[i], inverse);
    const __m256 sum01 = _mm256_add_ps(c[0], c[1]), diff01 = _mm256_sub_ps(c[0], c[1]);
    const __m256 sum23 = _mm256_add_ps(c[2], c[3]), diff23 = _mm256_sub_ps(c[2], c[3]);
    const __m256 sign = _mm256_set1_ps(-0.0f);
    const __m256 v[8] = {_mm256_xor_ps(_mm256_add_ps(sum01, sum23), sign),
                         _mm256_sub_ps(diff01, sum23),
                         _mm256_xor_ps(_mm256_add_ps(diff01, sum23), sign),
                         _mm256_sub_ps(sum01, sum23),
                         _mm256_sub_ps(diff23, sum01),
                         _mm256_add_ps(diff01, diff23),
                         _mm256_sub_ps(diff23, diff01),
                         _mm256_add_ps(sum01, diff23)};
    const __m256i low = pack_entries(v), high = pack_entries(v + 4);
    store_tables(tables, _mm256_unpacklo_epi32(low, high));
    store_tables(tables + 64, _mm256_unpackhi_epi32(low, high));
}

static void lut8_prepare_avx2(void *input, const float *x, const float *b, size_t cols, size_t groups) {
    float *scales = input;
    uint8_t *tables = (uint8_t *)input + lut8_tables_offset(groups);
    memset(input, 0, lut8_tables_offset(groups));
    for (size_t block = 0; block < kernel_blocks(groups); block++) {
        const size_t n = kernel_block_groups(groups, block) * 8;
        eight_tables p[KERNEL_BLOCK / 32];
        const uint32_t s = load_block(p, x, b, block * KERNEL_BLOCK, cols, n);
        const __m256 inverse = _mm256_set1_ps(kernel_inverse(kernel_from_bits(s)));
        scales[block] = lut8_scale(tables, n, s);
        for (size_t i = 0; kernel_finite(s) && i < n / 32; i++) build_tables(tables + 128 * i, &p[i], inverse);
        tables += 4 * n;
    }
}

/* ---- lut8: decode ---- */

/* How far ahead of a stream memory is asked, and for how much of it before the product begins */
enum { PREFETCH_BYTES = 512, BEGINNING_BYTES = 1024 };

/* Rows 0..7 and rows 8..15 of a tile */
typedef struct {
    __m128i low, high;
} rows_i16;

typedef struct {
    __m256i low, high;
} rows_i32;

INLINE rows_i32 rows_widen(rows_i16 rows) {
    return (rows_i32){_mm256_cvtepi16_epi32(rows.low), _mm256_cvtepi16_epi32(rows.high)};
}

INLINE rows_i32 rows_add(rows_i32 sum, rows_i16 rows, int shift) {
    const rows_i32 wide = rows_widen(rows);
    const __m128i count = _mm_cvtsi32_si128(shift);
    return (rows_i32){_mm256_add_epi32(sum.low, _mm256_sll_epi32(wide.low, count)),
                      _mm256_add_epi32(sum.high, _mm256_sll_epi32(wide.high, count))};
}

/* r[0], r[stride], ... */
INLINE __m256 load_strided(const float *r, size_t stride) {
    return _mm256_setr_ps(r[0], r[stride], r[2 * stride], r[3 * stride], r[4 * stride], r[5 * stride], r[6 * stride],
                          r[7 * stride]);
}

INLINE void rows_flush(float *y, rows_i32 rows, float scale, const float *row_scales, size_t stride, bool first) {
    __m256 low = _mm256_mul_ps(_mm256_cvtepi32_ps(rows.low), _mm256_set1_ps(scale));
    __m256 high = _mm256_mul_ps(_mm256_cvtepi32_ps(rows.high), _mm256_set1_ps(scale));
    if (row_scales) {
        low = _mm256_mul_ps(low, load_strided(row_scales, stride));
        high = _mm256_mul_ps(high, load_strided(row_scales + 8 * stride, stride));
    }
    const __m256 zero = _mm256_setzero_ps();
    _mm256_storeu_ps(y, _mm256_add_ps(first ? zero : _mm256_loadu_ps(y), low));
    _mm256_storeu_ps(y + 8, _mm256_add_ps(first ? zero : _mm256_loadu_ps(y + 8), high));
}

/* Four groups of a stream. A register holds two: 16 rows by 16 columns. all += e adds both bytes of a lane at once,
 * odd += e >> 8 the odd ones alone; all - (odd << 8) are the even ones. */
INLINE void lut8_step(__m256i *all, __m256i *odd, const uint8_t *bytes, const uint8_t *tables) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (int i = 0; i < 2; i++, bytes += 32, tables += 64) {
        const __m256i v = load256(bytes);
        const __m256i e = _mm256_shuffle_epi8(load256(tables), _mm256_and_si256(v, nibble));
        const __m256i f = _mm256_shuffle_epi8(load256(tables + 32), _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble));
        *all = _mm256_add_epi16(*all, _mm256_add_epi16(e, f));
        *odd = _mm256_add_epi16(*odd, _mm256_add_epi16(_mm256_srli_epi16(e, 8), _mm256_srli_epi16(f, 8)));
    }
}

/* The streams advance by a cache line in turn, so that memory answers all of them at a time. */
INLINE void lut8_streams(rows_i16 *sums, const uint8_t *const *streams, int count, const uint8_t *tables,
                         size_t groups) {
    __m256i all[4], odd[4];
    for (int i = 0; i < count; i++) all[i] = odd[i] = _mm256_setzero_si256();
    for (size_t g = 0; g < groups; g += 4)
        for (int i = 0; i < count; i++) {
            const uint8_t *at = streams[i] + KERNEL_TILE * g;
            _mm_prefetch((const void *)((uintptr_t)at + PREFETCH_BYTES), _MM_HINT_T0);
            lut8_step(&all[i], &odd[i], at, tables + 32 * g);
        }
    const __m128i middle = _mm_set1_epi16((short)(127 * 2 * groups));
    for (int i = 0; i < count; i++) {
        const __m128i a = _mm_add_epi16(_mm256_castsi256_si128(all[i]), _mm256_extracti128_si256(all[i], 1));
        const __m128i o = _mm_add_epi16(_mm256_castsi256_si128(odd[i]), _mm256_extracti128_si256(odd[i], 1));
        sums[i].low = _mm_sub_epi16(_mm_sub_epi16(a, _mm_slli_epi16(o, 8)), middle);
        sums[i].high = _mm_sub_epi16(o, middle);
    }
}

#include "kernel_lut8.h"

/* The beginnings of the four streams: by the time the tables are built they are there. */
static void lut8_ahead_avx2(const kernel_signs *w, size_t first, size_t end) {
    const size_t quarter = (end - first) / 4, tile_bytes = (size_t)w->planes * w->groups * KERNEL_TILE;
    for (size_t i = 0; i < 4; i++) {
        const uintptr_t at = (uintptr_t)w->bytes + (first + i * quarter) * tile_bytes;
        for (size_t j = 0; j < BEGINNING_BYTES; j += 64) _mm_prefetch((const void *)(at + j), _MM_HINT_T0);
    }
}

/* ---- popcount ---- */

/* max |p|, not NaN */
static float largest_magnitude(const float *p, size_t n) {
    const __m256 magnitude = _mm256_castsi256_ps(_mm256_set1_epi32(0x7fffffff));
    __m256 s = _mm256_setzero_ps();
    for (size_t i = 0; i < n; i += 8) s = _mm256_max_ps(_mm256_and_ps(_mm256_loadu_ps(p + i), magnitude), s);
    return largest_lane(s);
}

#define POPCOUNT_STEP 32

typedef __m256i popcount_sums;

/* Bit plane b of the four groups from one movemask. */
static inline void popcount_bits(uint8_t *bits, const float *p, float inverse, popcount_sums *sums) {
    __m256i q[4];
    for (int i = 0; i < 4; i++) q[i] = round_entries(_mm256_loadu_ps(p + 8 * i), _mm256_set1_ps(inverse));
    const __m256i packed = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
    const __m256i bytes = _mm256_permutevar8x32_epi32(packed, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    for (int bit = 0; bit < 8; bit++) {
        const uint32_t plane = (uint32_t)_mm256_movemask_epi8(_mm256_slli_epi16(bytes, 7 - bit));
        for (int g = 0; g < 4; g++) bits[8 * g + bit] = (uint8_t)(plane >> 8 * g);
    }
    for (int i = 0; i < 4; i++) *sums = _mm256_add_epi32(*sums, q[i]);
}

static inline int32_t popcount_total(popcount_sums sums) {
    int32_t lanes[8], total = 0;
    _mm256_storeu_si256((void *)lanes, sums);
    for (int i = 0; i < 8; i++) total += lanes[i];
    return total;
}

typedef __m256i popcount_mask;

enum { POPCOUNT_MASKS = KERNEL_BLOCK_GROUPS / 2 * 16 };

/* The bit planes of one block as masks for both nibbles: masks [pair of groups][bit][low, high], the first group of a
 * pair in the low lane */
static void popcount_masks(popcount_mask *masks, const uint8_t *bits, size_t groups) {
    const __m256i nibble = _mm256_set1_epi8(15);
    for (size_t g = 0; g < groups; g += 2)
        for (int bit = 0; bit < 8; bit++) {
            const __m128i first = _mm_set1_epi8((char)bits[8 * g + (size_t)bit]);
            const __m128i second = _mm_set1_epi8((char)bits[8 * g + 8 + (size_t)bit]);
            const __m256i mask = _mm256_set_m128i(second, first);
            *masks++ = _mm256_and_si256(mask, nibble);
            *masks++ = _mm256_and_si256(_mm256_srli_epi16(mask, 4), nibble);
        }
}

/* Sum of q over the set bits of one tile. A byte counts up to 16 pairs * 8 bits in each lane; weighted by 2^bit the
 * counts fit 16 bits, since |sum of q| <= 127 * 256. */
static inline rows_i16 popcount_tile(const uint8_t *bytes, const popcount_mask *masks, size_t groups) {
    const __m256i nibble = _mm256_set1_epi8(15), low_byte = _mm256_set1_epi16(0xff);
    const __m256i counts = _mm256_broadcastsi128_si256(_mm_setr_epi8(0, 1, 1, 2, 1, 2, 2, 3, 1, 2, 2, 3, 2, 3, 3, 4));
    __m256i sums[8], even = _mm256_setzero_si256(), odd = even;
    for (int bit = 0; bit < 8; bit++) sums[bit] = _mm256_setzero_si256();
    for (size_t g = 0; g < groups; g += 2, masks += 16) {
        const __m256i v = load256(bytes + KERNEL_TILE * g);
        const __m256i low = _mm256_and_si256(v, nibble), high = _mm256_and_si256(_mm256_srli_epi16(v, 4), nibble);
        for (int bit = 0; bit < 8; bit++) {
            const __m256i a = _mm256_shuffle_epi8(counts, _mm256_and_si256(low, masks[2 * bit]));
            const __m256i b = _mm256_shuffle_epi8(counts, _mm256_and_si256(high, masks[2 * bit + 1]));
            sums[bit] = _mm256_add_epi8(sums[bit], _mm256_add_epi8(a, b));
        }
    }
    for (int bit = 0; bit < 8; bit++) {
        const __m256i e = _mm256_slli_epi16(_mm256_and_si256(sums[bit], low_byte), bit);
        const __m256i o = _mm256_slli_epi16(_mm256_srli_epi16(sums[bit], 8), bit);
        even = bit < 7 ? _mm256_add_epi16(even, e) : _mm256_sub_epi16(even, e);
        odd = bit < 7 ? _mm256_add_epi16(odd, o) : _mm256_sub_epi16(odd, o);
    }
    return (rows_i16){_mm_add_epi16(_mm256_castsi256_si128(even), _mm256_extracti128_si256(even, 1)),
                      _mm_add_epi16(_mm256_castsi256_si128(odd), _mm256_extracti128_si256(odd, 1))};
}

static inline rows_i32 popcount_rows(rows_i32 sum, rows_i16 set, int32_t total, int shift) {
    const __m128i by = _mm_cvtsi32_si128(shift);
    const __m256i all = _mm256_set1_epi32(total);
    const rows_i32 rows = rows_widen(set);
    return (rows_i32){
        _mm256_add_epi32(sum.low, _mm256_sll_epi32(_mm256_sub_epi32(_mm256_slli_epi32(rows.low, 1), all), by)),
        _mm256_add_epi32(sum.high, _mm256_sll_epi32(_mm256_sub_epi32(_mm256_slli_epi32(rows.high, 1), all), by))};
}

#include "kernel_popcount.h"

void kernel_fill_avx2(kernel_table *table) {
    table->lut8.prepare = lut8_prepare_avx2;
    table->lut8.ahead = lut8_ahead_avx2;
    table->lut8.product = lut8_product_streams;
    table->lut8.batch = lut8_batch_streams;
    table->lut8.batch_from = 2;
    table->popcount.prepare = popcount_prepare_planes;
    table->popcount.product = popcount_product_tiles;
    table->dots = dots_vec;
    table->rmsnorm = rmsnorm_vec;
    table->swiglu = swiglu_vec;
    kernel_fill_attention_avx2(table);
}
