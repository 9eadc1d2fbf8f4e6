/* gemm_bf16_amx.c - packing and product for x86-64 with AMX BF16: one instruction multiplies tiles of 16 x 32 and
 * 32 x 16 bfloat16. */
#include "gemm_bf16_tile.h"

#if defined(__x86_64__)
#if defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

#include "gemm_bf16_pieces.h"

/* A tile: 16 rows of 16 pairs. TILE_K elements of k make a step, for which a panel holds two tiles. */
enum { TILE_ROWS = 16, TILE_WORDS = TILE_ROWS * LANES, TILE_K = 2 * LANES, STEP_WORDS = 2 * TILE_WORDS };
enum { TILE_BYTES = 64 }; /* of a row */

/* ---- the processor ---- */

bool gemm_bf16_amx_available(void) {
#if defined(__linux__)
    enum { REQUEST_PERMISSION = 0x1023, TILE_DATA = 18 }; /* arch_prctl of Linux 5.16 */
    const unsigned bf16 = 1u << 22, tile = 1u << 24;
    unsigned a, b, c, d;
    return __get_cpuid_count(7, 0, &a, &b, &c, &d) && (d & bf16) && (d & tile) &&
           syscall(SYS_arch_prctl, REQUEST_PERMISSION, TILE_DATA) == 0;
#else
    return false;
#endif
}

/* All eight tiles whole. */
static void configure(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t bytes[16];
        uint8_t rows[16];
    } shape = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        shape.bytes[i] = TILE_BYTES;
        shape.rows[i] = TILE_ROWS;
    }
    _tile_loadconfig(&shape);
}

/* ---- packing ---- */

/* 16 columns of row p + 2 i of the matrix and the one below, as pairs; zero from k on. */
INLINE __m512i across(gemm_factor x, size_t vector, size_t have, size_t p, size_t k, size_t i, bool rest) {
    if (have == 0 || 2 * i >= k) return _mm512_setzero_si512();
    return interleave_rows(x.data + (p + 2 * i) * x.stride + vector, x.stride, have, k - 2 * i, TILE_K, rest);
}

/* What lies in one step, k elements from p on, of up to 16 vectors, as a tile of A: a vector in a row. */
INLINE void pack_a_tile(uint32_t *out, gemm_factor x, size_t vector, size_t have, size_t p, size_t k, bool rest) {
    const __mmask16 low = first_lanes(k), high = k > LANES ? first_lanes(k - LANES) : 0;
    __m512i r[LANES];
    for (size_t i = 0; i < LANES; i++) {
        const float *row = x.data + (i < have ? vector + i : 0) * x.stride + p;
        const __mmask16 there = i < have ? 0xffff : 0;
        r[i] = x.along_k ? to_bf16_part(_mm512_maskz_loadu_ps(high & there, row + (high ? LANES : 0)),
                                        _mm512_maskz_loadu_ps(low & there, row), rest)
                         : across(x, vector, have, p, k, i, rest);
    }
    if (!x.along_k) transpose(r);
    for (size_t i = 0; i < LANES; i++) _mm512_store_si512(out + i * LANES, r[i]);
}

/* The same as a tile of B: a vector in a column. */
INLINE void pack_b_tile(uint32_t *out, gemm_factor x, size_t vector, size_t have, size_t p, size_t k, bool rest) {
    if (x.along_k)
        pack_square(out, LANES, x.data + (have ? vector : 0) * x.stride + p, x.stride, have, k, LANES, 0xffff, rest);
    else
        for (size_t i = 0; i < LANES; i++) _mm512_store_si512(out + i * LANES, across(x, vector, have, p, k, i, rest));
}

/* Along k a few vectors' rows are read to their ends, across k a few rows of the matrix from side to side. */
INLINE void pack(uint32_t *out, gemm_factor x, size_t count, size_t k, size_t parts, bool of_b) {
    const size_t steps = bp_ceil_div(k, TILE_K), tiles = 2 * bp_ceil_div(count, 2 * TILE_ROWS);
    for (size_t i = 0; i < tiles * steps; i++) {
        const size_t tile = x.along_k ? i / steps : i % tiles, step = x.along_k ? i % steps : i / tiles;
        const size_t vector = tile * TILE_ROWS, have = vector < count ? bp_min(TILE_ROWS, count - vector) : 0;
        uint32_t *to = out + (tile / 2 * steps + step) * parts * STEP_WORDS + tile % 2 * TILE_WORDS;
        for (size_t part = 0; part < parts; part++)
            (of_b ? pack_b_tile : pack_a_tile)(to + part * STEP_WORDS, x, vector, have, step * TILE_K,
                                               k - step * TILE_K, part > 0);
    }
}

void gemm_bf16_pack_a_amx(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (void)width;
    pack(out, x, count, k, 1, false);
}

void gemm_bf16_pack_b_amx(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (void)width;
    pack(out, x, count, k, 1, true);
}

void gemm_bf16_pack_a_amx_split(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (void)width;
    pack(out, x, count, k, 2, false);
}

void gemm_bf16_pack_b_amx_split(uint32_t *out, size_t width, gemm_factor x, size_t count, size_t k) {
    (void)width;
    pack(out, x, count, k, 2, true);
}

/* ---- product ---- */

INLINE void load_a(const uint32_t *a) {
    _tile_loadd(4, a, TILE_BYTES);
    _tile_loadd(5, a + TILE_WORDS, TILE_BYTES);
}

INLINE void load_b(const uint32_t *b) {
    _tile_loadd(6, b, TILE_BYTES);
    _tile_loadd(7, b + TILE_WORDS, TILE_BYTES);
}

INLINE void multiply_step(void) {
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(3, 5, 7);
}

/* sums [32, 32] = A panel B panel; of split factors all products but that of the two rests */
INLINE void multiply(float *sums, const uint32_t *a, const uint32_t *b, size_t steps, size_t parts) {
    enum { ROW = GEMM_BF16_AMX_COLS * sizeof(float) };
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    for (size_t i = 0; i < steps; i++, a += parts * STEP_WORDS, b += parts * STEP_WORDS) {
        load_a(a);
        load_b(b);
        multiply_step();
        if (parts == 1) continue;
        load_b(b + STEP_WORDS);
        multiply_step();
        load_a(a + STEP_WORDS);
        load_b(b);
        multiply_step();
    }
    _tile_stored(0, sums, ROW);
    _tile_stored(1, sums + TILE_ROWS, ROW);
    _tile_stored(2, sums + TILE_ROWS * GEMM_BF16_AMX_COLS, ROW);
    _tile_stored(3, sums + TILE_ROWS * GEMM_BF16_AMX_COLS + TILE_ROWS, ROW);
}

INLINE void product(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                    float alpha, float beta, size_t parts) {
    _Alignas(BP_ALIGN) float sums[GEMM_BF16_AMX_ROWS * GEMM_BF16_AMX_COLS] = {0};
    const size_t panel = bp_ceil_div(k, TILE_K) * parts * STEP_WORDS;
    const __m512 by = _mm512_set1_ps(alpha), keep = _mm512_set1_ps(beta);
    configure();
    for (size_t j = 0; j < n; j += GEMM_BF16_AMX_COLS, B += panel) {
        const size_t cols = bp_min(GEMM_BF16_AMX_COLS, n - j);
        const __mmask16 left = first_lanes(cols), right = cols > LANES ? first_lanes(cols - LANES) : 0;
        const uint32_t *a = A;
        for (size_t i = 0; i < m; i += GEMM_BF16_AMX_ROWS, a += panel) {
            const size_t rows = bp_min(GEMM_BF16_AMX_ROWS, m - i);
            float *to = C + i * ldc + j;
            for (size_t r = 0; r < rows; r++) { /* up to three lines each: C is of any alignment */
                _mm_prefetch((const char *)(to + r * ldc), _MM_HINT_T0);
                _mm_prefetch((const char *)(to + r * ldc + bp_min(LANES, cols - 1)), _MM_HINT_T0);
                _mm_prefetch((const char *)(to + r * ldc + cols - 1), _MM_HINT_T0);
            }
            multiply(sums, a, B, bp_ceil_div(k, TILE_K), parts);
            for (size_t r = 0; r < rows; r++) {
                const float *sum = sums + r * GEMM_BF16_AMX_COLS;
                update(to + r * ldc, left, _mm512_load_ps(sum), by, keep, beta != 0);
                if (right) update(to + r * ldc + LANES, right, _mm512_load_ps(sum + LANES), by, keep, beta != 0);
            }
        }
    }
    _tile_release();
}

void gemm_bf16_product_amx(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n, size_t k,
                           float alpha, float beta) {
    product(C, ldc, A, B, m, n, k, alpha, beta, 1);
}

void gemm_bf16_product_amx_split(float *C, size_t ldc, const uint32_t *A, const uint32_t *B, size_t m, size_t n,
                                 size_t k, float alpha, float beta) {
    product(C, ldc, A, B, m, n, k, alpha, beta, 2);
}

#endif
