/* Packing: tile16 against the engine's own product, rows that do not fill a tile, tables as bit planes. */
#include "check.h"

#include <math.h>

#include "compress/factors.h"
#include "compress/pack.h"
#include "linalg/linalg.h"
#include "random.h"

static void check_signs(size_t rows, size_t columns) {
    float *S = malloc(rows * columns * sizeof *S), *back = malloc(rows * columns * sizeof *back),
          *x = malloc(columns * sizeof *x);
    size_t bytes = pack_bytes(rows, columns, 1), groups = bp_round_up(columns, KERNEL_PAD) / 8,
           tiles = bp_ceil_div(rows, KERNEL_TILE);
    uint8_t *packed = aligned_alloc(BP_ALIGN, bp_round_up(bytes, BP_ALIGN));
    rng r = rng_named(rows, "signs");
    rng_fill_signs(&r, S, rows * columns);
    rng_fill_normal(&r, x, columns);
    pack_signs(packed, S, rows, columns);
    pack_unpack_signs(back, packed, rows, columns);
    CHECK(memcmp(S, back, rows * columns * sizeof *S) == 0, "%zu x %zu: signs change", rows, columns);
    size_t ones = 0, wanted = 0;
    for (size_t i = 0; i < bytes; i++)
        for (int b = 0; b < 8; b++) ones += packed[i] >> b & 1;
    for (size_t i = 0; i < rows * columns; i++) wanted += S[i] > 0;
    CHECK(ones == wanted, "%zu x %zu: padding bits are set", rows, columns);

    const kernel_arith *arith = &kernel_table_for("ref")->lut8;
    kernel_signs w = {packed, NULL, (uint32_t)tiles, (uint32_t)groups, 1};
    void *input = aligned_alloc(BP_ALIGN, arith->input_bytes(groups));
    float *y = calloc(tiles * KERNEL_TILE, sizeof *y);
    arith->prepare(input, x, NULL, columns, groups);
    arith->product(y, &w, input, 0, tiles);
    double wrong = 0, size = 0;
    for (size_t i = 0; i < rows; i++) {
        double sum = 0;
        for (size_t j = 0; j < columns; j++) sum += (double)(S[i * columns + j] * x[j]);
        wrong += (sum - (double)y[i]) * (sum - (double)y[i]);
        size += sum * sum;
    }
    CHECK(wrong < 0.03 * 0.03 * size, "%zu x %zu: the kernel's product differs by %g", rows, columns,
          sqrt(wrong / size));
    free(S);
    free(back);
    free(x);
    free(packed);
    free(input);
    free(y);
}

/* A dense layer over float rows. */
static linear dense(const float *W, size_t n, size_t m) {
    linear w = {.n = (uint32_t)n, .m = (uint32_t)m};
    w.rows = (const uint8_t *)W;
    w.type = QUANT_F32;
    w.row_bytes = m * sizeof(float);
    return w;
}

static double table_error(const packed_table *p, const float *W) {
    linear view = packed_table_view(p);
    double error = 0, size = 0;
    float *row = malloc(p->columns * sizeof *row);
    for (size_t i = 0; i < p->rows; i++) {
        linear_row(&view, i, row);
        for (size_t j = 0; j < p->columns; j++) {
            double d = (double)row[j] - (double)W[i * p->columns + j];
            error += d * d;
            size += (double)W[i * p->columns + j] * (double)W[i * p->columns + j];
        }
    }
    free(row);
    return error / size;
}

static void check_table(void) {
    enum { ROWS = 37, COLUMNS = 300 };
    static float W[ROWS * COLUMNS];
    /* relative error of uniform rounding of normals at the best range, with room */
    static const double bound[9] = {[4] = 0.011, [5] = 0.0033, [6] = 0.001, [7] = 0.0003, [8] = 0.00009};
    rng r = rng_named(1, "table");
    rng_fill_normal(&r, W, ROWS * COLUMNS);
    memset(W + 5 * COLUMNS, 0, COLUMNS * sizeof *W);
    linear source = dense(W, ROWS, COLUMNS);
    for (uint32_t planes = 4; planes <= 8; planes++) {
        packed_table p;
        bp_err e;
        CHECK(packed_table_make(&p, NULL, &source, planes, &e), "%s", e.text);
        double error = table_error(&p, W);
        CHECK(error < bound[planes], "%u planes: error %g", planes, error);
        CHECK(fabs(error - p.error) < 1e-6 + 0.01 * error, "%u planes: error %g is reported as %g", planes, error,
              p.error);
        packed_table_free(&p);
    }
}

/* Values on the grid come back exactly. */
static void check_exact_table(void) {
    enum { ROWS = 16, COLUMNS = 256, TOP = 63 };
    static float W[ROWS * COLUMNS];
    rng r = rng_named(2, "grid");
    for (size_t i = 0; i < ROWS * COLUMNS; i++) W[i] = 0.125f * (float)(2 * (int)(rng_uniform(&r) * 64) - TOP);
    for (size_t i = 0; i < ROWS; i++) W[i * COLUMNS] = 0.125f * (float)TOP;
    linear source = dense(W, ROWS, COLUMNS);
    packed_table p;
    bp_err e;
    CHECK(packed_table_make(&p, NULL, &source, 6, &e), "%s", e.text);
    CHECK(table_error(&p, W) == 0, "values on the grid change: %g", table_error(&p, W));
    packed_table_free(&p);
}

static void check_middles(void) {
    CHECK(factors_middle(1, 576, 576) == 288 && factors_middle(1, 1536, 576) == 416 &&
              factors_middle(1, 192, 576) == 160,
          "middle dimensions %u %u %u", factors_middle(1, 576, 576), factors_middle(1, 1536, 576),
          factors_middle(1, 192, 576));
    CHECK(factors_middle(0.01, 64, 64) == 32, "the least middle dimension is %u", factors_middle(0.01, 64, 64));
    const size_t signs = (576 * 416 + 416 * 1536) / 8;
    CHECK(factors_stage_bytes(576, 1536, (stage_shape){416, 1, false}) == signs + 2 * (576 + 1536 + 416),
          "stage bytes");
    CHECK(factors_stage_bytes(576, 1536, (stage_shape){416, 1, true}) == signs + (576 + 416) / 32 * 34 + 2 * 1536,
          "stage bytes with scales in 8 bits");
}

/* Scales: as near as their type says, zeros stay, and what is read is stored as the same bytes again. */
static void check_scales(bool eight, size_t n) {
    enum { MOST = 100 };
    float x[MOST], y[MOST], z[MOST];
    uint8_t bytes[2 * MOST], again[2 * MOST];
    rng r = rng_named(n, "scales");
    const uint32_t type = pack_scales_type(eight, n);
    const size_t size = pack_scales_bytes(type, n);
    CHECK(type == (eight && n % 32 == 0 ? QUANT_Q8_0 : QUANT_F16), "type %u of %zu scales", (unsigned)type, n);
    CHECK(size == (type == QUANT_Q8_0 ? n / 32 * 34 : 2 * n), "%zu bytes of %zu scales", size, n);
    for (size_t i = 0; i < n; i++) x[i] = i < 32 ? 0 : (float)(rng_uniform(&r) - 0.3) * (i < 64 ? 0.02f : 40);
    pack_scales(bytes, type, x, n);
    quant_dequantize(type, bytes, y, n);
    for (size_t i = 0; i < n; i++) {
        float largest = fabsf(x[i]);
        for (size_t j = i / 32 * 32; type == QUANT_Q8_0 && j < i / 32 * 32 + 32; j++)
            largest = fmaxf(largest, fabsf(x[j]));
        const float limit = largest * (type == QUANT_Q8_0 ? 0.502f / 127 : 0.0005f);
        CHECK(fabsf(y[i] - x[i]) <= limit, "scale %zu: %g is stored as %g", i, (double)x[i], (double)y[i]);
    }
    pack_scales(again, type, y, n);
    CHECK(memcmp(bytes, again, size) == 0, "%zu scales change when they are stored again", n);
    memcpy(z, x, n * sizeof *z);
    pack_round_scales(z, 1, eight, n);
    CHECK(memcmp(z, y, n * sizeof *z) == 0, "rounding is not what is stored");
}

int main(void) {
    linalg_init();
    static const size_t sizes[][2] = {{16, 32}, {1, 1}, {17, 33}, {50, 300}, {192, 576}, {33, 1000}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) check_signs(sizes[i][0], sizes[i][1]);
    check_table();
    check_exact_table();
    check_middles();
    check_scales(true, 96);
    check_scales(true, 97);
    check_scales(false, 96);
    return check_end();
}
