#include "table.h"

#include <math.h>
#include <stdlib.h>

#include "mathf.h"
#include "vector.h"

enum { ROWS = 64 }; /* of one item of work */
static const float FLOOR = 0.1f;

uint64_t table_bytes(size_t rows, size_t columns) {
    uint64_t entries = (uint64_t)rows * columns;
    return entries * (3 * sizeof(float) + sizeof(int16_t)) +
           rows * sizeof(float) * (1 + kernel_blocks(columns / 8 + 1));
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

typedef struct {
    tuned_table *t;
    const float *teacher;
    double *sizes; /* one per item */
} opening;

/* The value of `taught` that lies nearest to the teacher's and is rounded to `rounded`. */
static float into_cell(float taught, float rounded, float scale) {
    float low = rounded - 0.99f * scale, high = rounded + 0.99f * scale;
    return taught < low ? low : taught > high ? high : taught;
}

static void open_rows(void *context, size_t item, uint32_t worker) {
    const opening *o = context;
    const tuned_table *t = o->t;
    double sum = 0;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->rows, (item + 1) * ROWS); i++)
        for (size_t j = 0; j < t->columns; j++) {
            size_t at = i * t->columns + j;
            float x = into_cell(o->teacher[at], t->rounded[at], t->scales[i * t->blocks + j / KERNEL_BLOCK]);
            t->latent[at] = x;
            sum += fabs((double)x);
        }
    o->sizes[item] = sum;
}

bool table_open(tuned_table *t, workers *w, const linear *stored, const float *teacher, float *rounded, bp_err *e) {
    const kernel_signs *planes = &stored->planes;
    size_t rows = stored->n, columns = stored->m, entries = rows * columns, items = bp_ceil_div(rows, ROWS);
    *t = (tuned_table){.w = w, .rows = rows, .columns = columns, .planes = planes->planes, .rounded = rounded};
    if (!planes->bytes)
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "the student's embedding is not stored in bit planes: it cannot be tuned");
    t->blocks = kernel_blocks(planes->groups);
    t->scales = malloc(rows * t->blocks * sizeof *t->scales);
    t->latent = malloc(entries * sizeof *t->latent);
    t->mean = calloc(entries, sizeof *t->mean);
    t->square = calloc(rows, sizeof *t->square);
    t->gradient = malloc(entries * sizeof *t->gradient);
    t->best = malloc(entries * sizeof *t->best);
    double *sizes = malloc(items * sizeof *sizes), size = 0;
    bool ok = t->scales && t->latent && t->mean && t->square && t->gradient && t->best && sizes;
    if (ok) {
        opening o = {t, teacher, sizes};
        memcpy(t->scales, planes->row_scales, rows * t->blocks * sizeof *t->scales);
        workers_for(w, items, open_rows, &o);
        for (size_t i = 0; i < items; i++) size += sizes[i];
        t->size = (float)(size / (double)entries);
    }
    free(sizes);
    return ok || bp_fail(e, BP_ERR_MEMORY, 0, "no memory to tune a table of %zu x %zu", rows, columns);
}

void table_close(tuned_table *t) {
    void *arrays[] = {t->scales, t->latent, t->mean, t->square, t->gradient, t->best};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    *t = (tuned_table){0};
}

/* ---- a step ----------------------------------------------------------------------------------------------------- */

typedef struct {
    tuned_table *t;
    float beta2;
    table_row_step row;
    float floor, correct2;
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
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->rows, (item + 1) * ROWS); i++) {
        table_row_step row = s->row;
        row.rate /= sqrtf(t->square[i] * s->correct2) + s->floor;
        for (size_t b = 0; b < t->blocks; b++) {
            size_t first = b * KERNEL_BLOCK, at = i * t->columns + first;
            row.scale = t->scales[i * t->blocks + b];
            vector_table_row(t->latent + at, t->mean + at, t->rounded + at, t->gradient + at,
                             bp_min(KERNEL_BLOCK, t->columns - first), row);
        }
    }
}

void table_step(tuned_table *t, float rate, float beta1, float beta2) {
    size_t items = bp_ceil_div(t->rows, ROWS);
    double sum = 0;
    t->steps++;
    stepping s = {.t = t, .beta2 = beta2, .correct2 = 1 / (1 - powf(beta2, (float)t->steps))};
    workers_for(t->w, items, square_rows, &s);
    for (size_t i = 0; i < t->rows; i++) sum += (double)t->square[i];
    s.floor = FLOOR * sqrtf((float)(sum / (double)t->rows) * s.correct2) + 1e-20f;
    s.row = (table_row_step){.beta = beta1,
                             .rate = rate * t->size / (1 - powf(beta1, (float)t->steps)),
                             .top = (float)((1u << t->planes) - 1)};
    workers_for(t->w, items, step_rows, &s);
}

/* ---- the stored form -------------------------------------------------------------------------------------------- */

static void keep_rows(void *context, size_t item, uint32_t worker) {
    const tuned_table *t = context;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->rows, (item + 1) * ROWS); i++)
        for (size_t j = 0; j < t->columns; j++) {
            float scale = t->scales[i * t->blocks + j / KERNEL_BLOCK];
            size_t at = i * t->columns + j;
            t->best[at] = scale > 0 ? (int16_t)lrintf(t->rounded[at] / scale) : 1;
        }
}

void table_keep(tuned_table *t) { workers_for(t->w, bp_ceil_div(t->rows, ROWS), keep_rows, t); }

bool table_pack(const tuned_table *t, packed_table *p, bp_err *e) {
    return packed_table_from_levels(p, t->best, t->scales, t->rows, t->columns, t->planes, e);
}
