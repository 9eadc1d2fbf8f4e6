#include "pack.h"

#include <math.h>
#include <stdlib.h>

#include "mathf.h"

enum { SCALE_ROUNDS = 4, STARTS = 8 };

static size_t groups_of(size_t columns) { return bp_round_up(columns, KERNEL_PAD) / 8; }

size_t pack_bytes(size_t rows, size_t columns, uint32_t planes) {
    return bp_ceil_div(rows, KERNEL_TILE) * planes * groups_of(columns) * KERNEL_TILE;
}

/* Where row `row` keeps its bits of columns 8g..8g+7 in plane p. */
static size_t byte_at(size_t row, size_t p, size_t planes, size_t g, size_t groups) {
    size_t tile = row / KERNEL_TILE, r = row % KERNEL_TILE, j = r < 8 ? 2 * r : 2 * (r - 8) + 1;
    return ((tile * planes + p) * groups + g) * KERNEL_TILE + j;
}

void pack_signs(uint8_t *out, const float *S, size_t rows, size_t columns) {
    size_t groups = groups_of(columns);
    memset(out, 0, pack_bytes(rows, columns, 1));
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            if (S[i * columns + j] >= 0) out[byte_at(i, 0, 1, j / 8, groups)] |= (uint8_t)(1u << (j % 8));
}

void pack_unpack_signs(float *S, const uint8_t *bytes, size_t rows, size_t columns) {
    size_t groups = groups_of(columns);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++)
            S[i * columns + j] = bytes[byte_at(i, 0, 1, j / 8, groups)] >> (j % 8) & 1 ? 1.0f : -1.0f;
}

/* ---- tables ---------------------------------------------------------------------------------------------------- */

int pack_nearest_odd(float x, int top) {
    float q = 2 * floorf(x * 0.5f) + 1;
    return q > (float)top ? top : q < (float)-top ? -top : (int)q;
}

enum { SCALES = 32 }; /* in a block of Q8_0 */

uint32_t pack_scales_type(bool eight, size_t n) { return eight && n % SCALES == 0 ? QUANT_Q8_0 : QUANT_F16; }

size_t pack_scales_bytes(uint32_t type, size_t n) { return type == QUANT_Q8_0 ? n / SCALES * (SCALES + 2) : 2 * n; }

/* A half and 32 integers; the largest is +-127 of them. */
static void pack_block(uint8_t *out, const float *x) {
    float largest = 0;
    for (size_t i = 0; i < SCALES; i++) largest = fmaxf(largest, fabsf(x[i]));
    uint16_t unit = bp_half_from_float(largest / 127);
    float d = bp_half_to_float(unit);
    memcpy(out, &unit, sizeof unit);
    for (size_t i = 0; i < SCALES; i++) {
        float q = d > 0 ? fminf(fmaxf(roundf(x[i] / d), -127), 127) : 0;
        out[2 + i] = (uint8_t)(int8_t)q;
    }
}

void pack_scales(uint8_t *out, uint32_t type, const float *x, size_t n) {
    for (size_t i = 0; i < n && type == QUANT_Q8_0; i += SCALES, out += SCALES + 2) pack_block(out, x + i);
    for (size_t i = 0; i < n && type != QUANT_Q8_0; i++) {
        uint16_t half = bp_half_from_float(x[i]);
        memcpy(out + 2 * i, &half, sizeof half);
    }
}

void pack_round_scales(float *x, double factor, bool eight, size_t n) {
    uint8_t bytes[2 * SCALES];
    uint32_t type = pack_scales_type(eight, n);
    for (size_t i = 0; i < n; i++) x[i] = (float)(x[i] * factor);
    for (size_t i = 0; i < n; i += SCALES) {
        size_t count = bp_min(SCALES, n - i);
        pack_scales(bytes, type, x + i, count);
        quant_dequantize(type, bytes, x + i, count);
    }
}

static float half(float x) { return bp_half_to_float(bp_half_from_float(x)); }

/* weighted squared error of x [n] with a scale, and the least-squares scale for its roundings */
static double try_scale(const float *x, const float *weight, size_t n, int top, float scale, float *better) {
    double error = 0, xq = 0, qq = 0;
    float inverse = 1 / scale;
    for (size_t i = 0; i < n; i++) {
        int q = pack_nearest_odd(x[i] * inverse, top);
        double difference = (double)x[i] - (double)scale * q, by = weight ? (double)weight[i] : 1;
        error += by * difference * difference;
        xq += by * (double)x[i] * q;
        qq += by * (double)q * q;
    }
    *better = qq > 0 ? (float)(xq / qq) : scale;
    return error;
}

/* Starts between a clipped and a full range, each improved by least squares. */
float pack_scale(const float *x, const float *weight, size_t n, uint32_t planes) {
    int top = (1 << planes) - 1;
    float largest = 0, best = 0;
    for (size_t i = 0; i < n; i++) largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    double least = INFINITY;
    for (int s = 0; s < STARTS && largest > 0; s++) {
        float scale = half(largest / (float)top * (1 - 0.07f * (float)s));
        for (int round = 0; round < SCALE_ROUNDS && scale > 0; round++) {
            float better;
            double error = try_scale(x, weight, n, top, scale, &better);
            if (error < least) {
                least = error;
                best = scale;
            }
            if (half(better) == scale) break;
            scale = half(better);
        }
    }
    return best;
}

typedef struct {
    packed_table *p;
    const linear *source;
    double *errors, *squares; /* one per tile */
    bool failed;              /* set by any tile, read after all */
} rounding;

/* q = sum of 2^p (2 bit_p - 1) = 2 bits - (2^planes - 1) */
static void put_level(packed_table *p, size_t groups, size_t row, size_t column, int q) {
    unsigned bits = (unsigned)(q + (1 << p->planes) - 1) / 2;
    for (uint32_t plane = 0; plane < p->planes; plane++)
        if (bits >> plane & 1)
            p->bytes[byte_at(row, plane, p->planes, column / 8, groups)] |= (uint8_t)(1u << (column % 8));
}

static void round_row(const rounding *r, size_t row, size_t item, const float *x) {
    packed_table *p = r->p;
    size_t groups = groups_of(p->columns), blocks = kernel_blocks(groups);
    int top = (1 << p->planes) - 1;
    for (size_t b = 0; b < blocks; b++) {
        size_t first = b * KERNEL_BLOCK, n = bp_min(KERNEL_BLOCK, p->columns - first);
        float scale = pack_scale(x + first, NULL, n, p->planes), inverse = scale > 0 ? 1 / scale : 0;
        p->scales[row * blocks + b] = bp_half_from_float(scale);
        p->widened[row * blocks + b] = scale;
        for (size_t j = first; j < first + n; j++) {
            int q = pack_nearest_odd(x[j] * inverse, top);
            put_level(p, groups, row, j, q);
            double difference = (double)x[j] - (double)scale * q;
            r->errors[item] += difference * difference;
            r->squares[item] += (double)x[j] * x[j];
        }
    }
}

static void round_tile(void *context, size_t item, uint32_t worker) {
    rounding *r = context;
    size_t end = bp_min((item + 1) * KERNEL_TILE, r->p->rows);
    float *x = malloc(r->p->columns * sizeof *x);
    (void)worker;
    r->errors[item] = r->squares[item] = 0;
    for (size_t row = item * KERNEL_TILE; x && row < end; row++) {
        linear_row(r->source, row, x);
        round_row(r, row, item, x);
    }
    if (!x) __atomic_store_n(&r->failed, true, __ATOMIC_RELAXED);
    free(x);
}

/* Room for a table; all bits and scales 0. */
static bool table_room(packed_table *p, size_t rows, size_t columns, uint32_t planes, bp_err *e) {
    *p = (packed_table){
        .planes = planes, .rows = rows, .columns = columns, .n_bytes = pack_bytes(rows, columns, planes)};
    p->n_scales = bp_round_up(rows, KERNEL_TILE) * kernel_blocks(groups_of(columns));
    p->bytes = aligned_alloc(BP_ALIGN, bp_round_up(p->n_bytes, BP_ALIGN));
    p->scales = calloc(p->n_scales, sizeof *p->scales);
    p->widened = calloc(p->n_scales, sizeof *p->widened);
    if (p->bytes && p->scales && p->widened) {
        memset(p->bytes, 0, p->n_bytes);
        return true;
    }
    packed_table_free(p);
    return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a table of %zu x %zu", rows, columns);
}

bool packed_table_make(packed_table *p, workers *w, const linear *source, uint32_t planes, bp_err *e) {
    size_t tiles = bp_ceil_div(source->n, KERNEL_TILE);
    if (!table_room(p, source->n, source->m, planes, e)) return false;
    double *errors = malloc(2 * tiles * sizeof *errors), error = 0, square = 0;
    rounding r = {p, source, errors, errors + tiles, false};
    bool ok = errors != NULL;
    if (ok) {
        workers_for(w, tiles, round_tile, &r);
        for (size_t i = 0; i < tiles; i++) {
            error += r.errors[i];
            square += r.squares[i];
        }
        p->error = square > 0 ? error / square : 0;
    }
    free(errors);
    if (ok && !r.failed) return true;
    packed_table_free(p);
    return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to round a table of %zu x %zu", (size_t)source->n,
                   (size_t)source->m);
}

bool packed_table_from_levels(packed_table *p, const int16_t *levels, const float *scales, size_t rows, size_t columns,
                              uint32_t planes, bp_err *e) {
    size_t groups = groups_of(columns), blocks = kernel_blocks(groups);
    if (!table_room(p, rows, columns, planes, e)) return false;
    for (size_t i = 0; i < rows * blocks; i++) {
        p->scales[i] = bp_half_from_float(scales[i]);
        p->widened[i] = scales[i];
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < columns; j++) put_level(p, groups, i, j, levels[i * columns + j]);
    return true;
}

void packed_table_free(packed_table *p) {
    free(p->bytes);
    free(p->scales);
    free(p->widened);
    *p = (packed_table){0};
}

linear packed_table_view(const packed_table *p) {
    linear view = {.n = (uint32_t)p->rows, .m = (uint32_t)p->columns};
    view.planes = (kernel_signs){p->bytes, p->widened, (uint32_t)bp_ceil_div(p->rows, KERNEL_TILE),
                                 (uint32_t)groups_of(p->columns), p->planes};
    return view;
}
