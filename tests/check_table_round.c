/* Tables rounded in a metric: never worse in it than entry by entry, much better where columns are coupled or unequal,
 * the error that is reported is the error that is there, the same bytes at any number of threads. */
#include "check.h"

#include <math.h>

#include "compress/table_round.h"
#include "linalg/linalg.h"
#include "random.h"

enum { ROWS = 150, COLUMNS = 300, PLANES = 5 };

static float W[ROWS * COLUMNS];

static linear dense(void) {
    linear w = {.n = ROWS, .m = COLUMNS};
    w.rows = (const uint8_t *)W;
    w.type = QUANT_F32;
    w.row_bytes = COLUMNS * sizeof(float);
    return w;
}

/* Moments of inputs that few directions and single loud columns dominate, as hidden states are. */
static void coupled(float *H) {
    enum { SAMPLES = 2 * COLUMNS, DIRECTIONS = 40 };
    static float X[SAMPLES * COLUMNS], Z[SAMPLES * DIRECTIONS], mix[DIRECTIONS * COLUMNS];
    rng r = rng_named(3, "moments");
    rng_fill_normal(&r, X, SAMPLES * COLUMNS);
    rng_fill_normal(&r, Z, SAMPLES * DIRECTIONS);
    rng_fill_normal(&r, mix, DIRECTIONS * COLUMNS);
    linalg_gemm(false, false, SAMPLES, COLUMNS, DIRECTIONS, 1, Z, DIRECTIONS, mix, COLUMNS, 0.3f, X, COLUMNS);
    for (size_t i = 0; i < SAMPLES; i++)
        for (size_t j = 0; j < COLUMNS; j += 37) X[i * COLUMNS + j] *= 10;
    linalg_gemm(true, false, COLUMNS, COLUMNS, SAMPLES, 1, X, COLUMNS, X, COLUMNS, 0, H, COLUMNS);
    linalg_mirror(H, COLUMNS);
}

/* sum (x - y)' H (x - y) / sum x' H x, H damped as the rounding does it */
static double error_in(const float *H, const packed_table *p) {
    linear view = packed_table_view(p);
    double error = 0, size = 0, mean = 0;
    static float row[COLUMNS];
    for (size_t j = 0; j < COLUMNS; j++) mean += (double)H[j * COLUMNS + j] / (double)COLUMNS;
    for (size_t i = 0; i < ROWS; i++) {
        linear_row(&view, i, row);
        const float *x = W + i * COLUMNS;
        for (size_t j = 0; j < COLUMNS; j++)
            for (size_t k = 0; k < COLUMNS; k++) {
                double h = (double)H[j * COLUMNS + k] / mean + (j == k ? 0.01 : 0);
                error += ((double)x[j] - (double)row[j]) * h * ((double)x[k] - (double)row[k]);
                size += (double)x[j] * h * (double)x[k];
            }
    }
    return error / size;
}

static bool round_in(const float *H, packed_table *p, workers *w, const linear *source, bp_err *e) {
    table_metric metric;
    if (!table_metric_open(&metric, H, COLUMNS, e)) return false;
    bool ok = table_round(p, w, source, PLANES, &metric, e);
    table_metric_close(&metric);
    return ok;
}

/* error of table_round as a share of that of packed_table_make */
static double gain(const float *H, const char *which) {
    packed_table plain, p;
    bp_err e;
    linear source = dense();
    CHECK(packed_table_make(&plain, NULL, &source, PLANES, &e), "%s", e.text);
    CHECK(round_in(H, &p, NULL, &source, &e), "%s", e.text);
    double before = error_in(H, &plain), after = error_in(H, &p);
    CHECK(fabs(p.error - after) < 0.01 * after, "%s: error %g is reported as %g", which, after, p.error);
    packed_table_free(&plain);
    packed_table_free(&p);
    return after / before;
}

static void check_gain(const float *H) {
    static float alone[COLUMNS * COLUMNS], diagonal[COLUMNS * COLUMNS];
    for (size_t j = 0; j < COLUMNS; j++) {
        alone[j * COLUMNS + j] = 3;
        diagonal[j * COLUMNS + j] = H[j * COLUMNS + j];
    }
    double same = gain(alone, "columns alike"), loud = gain(diagonal, "loud columns"), full = gain(H, "coupled");
    CHECK(same < 1.005, "columns alike: %.4f of the error of plain rounding", same);
    CHECK(loud < 1.005, "loud columns: %.4f", loud);
    CHECK(full < 0.5, "coupled columns: %.4f", full);
}

static void check_threads(const float *H) {
    packed_table one, three;
    bp_err e;
    linear source = dense();
    workers *w = workers_open(3, &e);
    CHECK(round_in(H, &one, NULL, &source, &e) && round_in(H, &three, w, &source, &e), "%s", e.text);
    CHECK(memcmp(one.bytes, three.bytes, one.n_bytes) == 0 &&
              memcmp(one.scales, three.scales, one.n_scales * sizeof *one.scales) == 0,
          "three threads round differently");
    workers_close(w);
    packed_table_free(&one);
    packed_table_free(&three);
}

/* What lies on the grid stays, in any metric; rows of zeros stay zero. */
static void check_grid(const float *H) {
    static float kept[ROWS * COLUMNS];
    static float row[COLUMNS];
    enum { TOP = 31 };
    packed_table p;
    bp_err e;
    rng r = rng_named(4, "grid");
    memcpy(kept, W, sizeof W);
    for (size_t i = 0; i < ROWS * COLUMNS; i++) W[i] = 0.125f * (float)(2 * (int)(rng_uniform(&r) * 32) - TOP);
    for (size_t i = 0; i < ROWS; i++) W[i * COLUMNS] = W[i * COLUMNS + 256] = 0.125f * (float)TOP;
    memset(W + 7 * COLUMNS, 0, COLUMNS * sizeof *W);
    linear source = dense();
    CHECK(round_in(H, &p, NULL, &source, &e), "%s", e.text);
    linear view = packed_table_view(&p);
    size_t changed = 0;
    for (size_t i = 0; i < ROWS; i++) {
        linear_row(&view, i, row);
        for (size_t j = 0; j < COLUMNS; j++) changed += row[j] != W[i * COLUMNS + j];
    }
    CHECK(changed == 0, "%zu values on the grid change", changed);
    packed_table_free(&p);
    memcpy(W, kept, sizeof W);
}

/* What is placed near a row is rounded to the levels it was placed for; what is rounded to them already stays. */
static void check_placed(const float *H) {
    enum { COUNT = 24, BLOCKS = 2 };
    static float x[COUNT * COLUMNS], moved[COUNT * COLUMNS], q[COUNT * COLUMNS], again[COUNT * COLUMNS],
        wrong[COUNT * COLUMNS], scales[COUNT * BLOCKS];
    table_metric metric, same;
    bp_err e;
    rng r = rng_named(6, "placed");
    rng_fill_normal(&r, x, COUNT * COLUMNS);
    for (size_t i = 0; i < COUNT * BLOCKS; i++) scales[i] = i == 5 ? 0 : 0.08f;
    CHECK(table_metric_open(&metric, H, COLUMNS, &e), "%s", e.text);
    CHECK(table_metric_restore(&same, metric.H, COLUMNS, &e), "%s", e.text);
    table_metric_round(&metric, COUNT, PLANES, x, scales, q, wrong);
    memcpy(moved, x, sizeof x);
    table_metric_place(&same, COUNT, PLANES, moved, scales, q, wrong);
    double distance = 0;
    for (size_t i = 0; i < COUNT * COLUMNS; i++) distance += fabs((double)moved[i] - (double)x[i]);
    CHECK(distance < 0.01 * (double)COUNT * (double)COLUMNS * 0.08, "values that fit move by %g", distance);
    for (size_t i = 0; i < COUNT * COLUMNS; i++)
        q[i] = scales[i / COLUMNS * BLOCKS + i % COLUMNS / 256] > 0 ? (float)(2 * (int)(rng_uniform(&r) * 32) - 31) : 1;
    table_metric_place(&metric, COUNT, PLANES, x, scales, q, wrong);
    table_metric_round(&same, COUNT, PLANES, x, scales, again, wrong);
    size_t other = 0;
    for (size_t i = 0; i < COUNT * COLUMNS; i++) other += again[i] != q[i];
    CHECK(other == 0, "%zu values are not rounded to the levels they were placed for", other);
    table_metric_close(&metric);
    table_metric_close(&same);
}

static void check_refused(const float *H) {
    static float bad[COLUMNS * COLUMNS];
    packed_table p;
    bp_err e = {0};
    linear source = dense();
    CHECK(round_in(bad, &p, NULL, &source, &e), "no moments at all: %s", e.text);
    packed_table_free(&p);
    memcpy(bad, H, sizeof bad);
    bad[5 * COLUMNS + 5] = NAN;
    CHECK(!round_in(bad, &p, NULL, &source, &e) && e.code == BP_ERR_ARGUMENT, "NaN: %s", e.text);
    memcpy(bad, H, sizeof bad);
    bad[5 * COLUMNS + 6] = bad[6 * COLUMNS + 5] = 1e9f * H[0];
    CHECK(!round_in(bad, &p, NULL, &source, &e) && e.code == BP_ERR_ARGUMENT, "not definite: %s", e.text);
}

int main(void) {
    static float H[COLUMNS * COLUMNS];
    linalg_init();
    rng r = rng_named(1, "table");
    rng_fill_normal(&r, W, ROWS * COLUMNS);
    memset(W + 5 * COLUMNS, 0, COLUMNS * sizeof *W);
    coupled(H);
    check_gain(H);
    check_threads(H);
    check_grid(H);
    check_placed(H);
    check_refused(H);
    return check_end();
}
