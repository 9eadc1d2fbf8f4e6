#include "table.h"

#include <math.h>
#include <stdlib.h>

#include "mathf.h"
#include "vector.h"

enum { ROWS = 16 }; /* of one item of work: they are rounded together */
static const float FLOOR = 0.1f;

static size_t scratch_floats(size_t columns) { return 2 * ROWS * columns; }

uint64_t table_bytes(size_t rows, size_t columns, uint32_t threads) {
    uint64_t entries = (uint64_t)rows * columns, square = (uint64_t)columns * columns;
    return entries * (3 * sizeof(float) + sizeof(int16_t)) +
           rows * sizeof(float) * (1 + bp_ceil_div(columns, KERNEL_BLOCK)) +
           sizeof(float) * (3 * square + threads * scratch_floats(columns));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

bool table_open(tuned_table *t, workers *w, size_t rows, size_t columns, uint32_t planes, float *rounded, bp_err *e) {
    size_t entries = rows * columns;
    *t = (tuned_table){.w = w, .rows = rows, .columns = columns, .planes = planes, .rounded = rounded};
    t->blocks = bp_ceil_div(columns, KERNEL_BLOCK);
    t->scales = calloc(rows * t->blocks, sizeof *t->scales);
    t->latent = malloc(entries * sizeof *t->latent);
    t->mean = calloc(entries, sizeof *t->mean);
    t->square = calloc(rows, sizeof *t->square);
    t->gradient = malloc(entries * sizeof *t->gradient);
    t->best = malloc(entries * sizeof *t->best);
    t->scratch = malloc(workers_count(w) * scratch_floats(columns) * sizeof *t->scratch);
    bool ok = t->scales && t->latent && t->mean && t->square && t->gradient && t->best && t->scratch;
    return ok || bp_fail(e, BP_ERR_MEMORY, 0, "no memory to tune a table of %zu x %zu", rows, columns);
}

void table_close(tuned_table *t) {
    void *arrays[] = {t->scales, t->latent, t->mean, t->square, t->gradient, t->best, t->scratch};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    table_metric_close(&t->metric);
    *t = (tuned_table){0};
}

static size_t items_of(const tuned_table *t) { return bp_ceil_div(t->rows, ROWS); }

static float scale_at(const tuned_table *t, size_t row, size_t column) {
    return t->scales[row * t->blocks + column / KERNEL_BLOCK];
}

typedef struct {
    tuned_table *t;
    const linear *stored;
    const float *teacher;
    double *sizes; /* one per item */
} beginning;

static void begin_rows(void *context, size_t item, uint32_t worker) {
    const beginning *o = context;
    const tuned_table *t = o->t;
    size_t m = t->columns, first = item * ROWS, count = bp_min(ROWS, t->rows - first);
    float *wrong = t->scratch + worker * scratch_floats(m), *levels = wrong + ROWS * m;
    for (size_t i = 0; i < count; i++) {
        float *row = t->rounded + (first + i) * m;
        linear_row(o->stored, first + i, row);
        for (size_t j = 0; j < m; j++) {
            float scale = scale_at(t, first + i, j);
            levels[i * m + j] = scale > 0 ? rintf(row[j] / scale) : 1;
        }
    }
    float *latent = t->latent + first * m;
    memcpy(latent, o->teacher + first * m, count * m * sizeof *latent);
    table_metric_place(&t->metric, count, t->planes, latent, t->scales + first * t->blocks, levels, wrong);
    o->sizes[item] = 0;
    for (size_t i = 0; i < count * m; i++) o->sizes[item] += fabs((double)latent[i]);
}

bool table_begin(tuned_table *t, const linear *stored, const float *teacher, table_metric *metric, bp_err *e) {
    double *sizes = malloc(items_of(t) * sizeof *sizes), size = 0;
    if (!sizes) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to tune a table of %zu x %zu", t->rows, t->columns);
    beginning o = {t, stored, teacher, sizes};
    t->metric = *metric;
    *metric = (table_metric){0};
    memcpy(t->scales, stored->planes.row_scales, t->rows * t->blocks * sizeof *t->scales);
    workers_for(t->w, items_of(t), begin_rows, &o);
    for (size_t i = 0; i < items_of(t); i++) size += sizes[i];
    t->size = (float)(size / ((double)t->rows * (double)t->columns));
    free(sizes);
    return true;
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

typedef struct {
    tuned_table *t;
    float beta1, beta2, rate, floor, correct2;
} stepping;

static void square_rows(void *context, size_t item, uint32_t worker) {
    const stepping *s = context;
    tuned_table *t = s->t;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->rows, (item + 1) * ROWS); i++) {
        const float *g = t->gradient + i * t->columns;
        t->square[i] += (1 - s->beta2) * (vector_dot(g, g, t->columns) / (float)t->columns - t->square[i]);
    }
}

static void step_rows(void *context, size_t item, uint32_t worker) {
    const stepping *s = context;
    tuned_table *t = s->t;
    size_t m = t->columns, first = item * ROWS, count = bp_min(ROWS, t->rows - first);
    for (size_t i = first; i < first + count; i++) {
        float rate = s->rate / (sqrtf(t->square[i] * s->correct2) + s->floor);
        vector_momentum(t->latent + i * m, t->mean + i * m, t->gradient + i * m, m, rate, s->beta1);
    }
    float *rounded = t->rounded + first * m;
    table_metric_round(&t->metric, count, t->planes, t->latent + first * m, t->scales + first * t->blocks, rounded,
                       t->scratch + worker * scratch_floats(m));
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < m; j++) rounded[i * m + j] *= scale_at(t, first + i, j);
}

void table_step(tuned_table *t, float rate, float beta1, float beta2) {
    double sum = 0;
    t->steps++;
    stepping s = {.t = t, .beta1 = beta1, .beta2 = beta2, .correct2 = 1 / (1 - powf(beta2, (float)t->steps))};
    workers_for(t->w, items_of(t), square_rows, &s);
    for (size_t i = 0; i < t->rows; i++) sum += (double)t->square[i];
    s.floor = FLOOR * sqrtf((float)(sum / (double)t->rows) * s.correct2) + 1e-20f;
    s.rate = rate * t->size / (1 - powf(beta1, (float)t->steps));
    workers_for(t->w, items_of(t), step_rows, &s);
}

/* ---- the stored form -------------------------------------------------------------------------------------------- */

static void keep_rows(void *context, size_t item, uint32_t worker) {
    const tuned_table *t = context;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->rows, (item + 1) * ROWS); i++)
        for (size_t j = 0; j < t->columns; j++) {
            float scale = scale_at(t, i, j);
            size_t at = i * t->columns + j;
            t->best[at] = scale > 0 ? (int16_t)lrintf(t->rounded[at] / scale) : 1;
        }
}

void table_keep(tuned_table *t) { workers_for(t->w, items_of(t), keep_rows, t); }

bool table_pack(const tuned_table *t, packed_table *p, bp_err *e) {
    return packed_table_from_levels(p, t->best, t->scales, t->rows, t->columns, t->planes, e);
}
