#include "table_round.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/linalg.h"
#include "mathf.h"
#include "tune/vector.h"

enum { ROWS = 64, ROUNDS = 2 }; /* rows of an item of work */

typedef struct {
    const linear *source;
    const table_metric *metric;
    size_t rows, m, blocks; /* blocks of 256 columns */
    uint32_t planes;
    int16_t *levels;          /* [rows, m] result */
    float *scales;            /* [rows, blocks] result */
    double *errors, *squares; /* one per item */
    bool failed;              /* set by any item, read after all */
} rounding;

/* What an item works in; one allocation. */
typedef struct {
    float *x, *xh; /* [ROWS, m] the rows, the rows times H */
    float *q, *qh; /* [ROWS, m] levels; levels of one block of columns times H */
    float *spare;  /* [ROWS, m] */
    float *scales; /* [ROWS, blocks] */
    float *weight; /* [m] diagonal of H */
    float *A, *b;  /* [ROWS, blocks, blocks], [ROWS, blocks] normal equations of the scales */
    float *memory;
} room;

static size_t room_floats(size_t m, size_t blocks) { return 5 * ROWS * m + m + ROWS * blocks * (blocks + 2); }

static bool room_open(room *r, size_t m, size_t blocks) {
    float *p = r->memory = malloc(room_floats(m, blocks) * sizeof *p);
    if (!p) return false;
    float **parts[] = {&r->x, &r->xh, &r->q, &r->qh, &r->spare};
    for (size_t i = 0; i < 5; i++, p += ROWS * m) *parts[i] = p;
    r->weight = p;
    r->scales = r->weight + m;
    r->b = r->scales + ROWS * blocks;
    r->A = r->b + ROWS * blocks;
    return true;
}

static size_t block_end(const rounding *r, size_t block) { return bp_min(r->m, (block + 1) * KERNEL_BLOCK); }

/* scales <- their least-squares fits to the levels in H, (26), where these are usable */
static void fit_scales(const rounding *r, room *t, size_t count) {
    size_t m = r->m, n = r->blocks;
    for (size_t c = 0; c < n; c++) {
        size_t first = c * KERNEL_BLOCK, width = block_end(r, c) - first;
        linalg_gemm(false, false, count, m, width, 1, t->q + first, m, r->metric->H + first * m, m, 0, t->qh, m);
        for (size_t i = 0; i < count; i++) {
            t->b[i * n + c] = vector_dot(t->xh + i * m + first, t->q + i * m + first, width);
            for (size_t d = 0; d < n; d++) {
                size_t at = d * KERNEL_BLOCK;
                t->A[(i * n + d) * n + c] = vector_dot(t->qh + i * m + at, t->q + i * m + at, block_end(r, d) - at);
            }
        }
    }
    for (size_t i = 0; i < count; i++) {
        float *s = t->b + i * n;
        bool usable = linalg_solve_spd(t->A + i * n * n, s, n, 1);
        for (size_t c = 0; usable && c < n; c++) usable = (s[c] = bp_half_to_float(bp_half_from_float(s[c]))) > 0;
        if (usable) memcpy(t->scales + i * n, s, n * sizeof *s);
    }
}

/* sum of (x - y)' H (x - y) over the rows of an item; overwrites qh and spare */
static double error_of(const rounding *r, const room *t, size_t count) {
    size_t m = r->m;
    double sum = 0;
    float *wrong = t->qh, *wrong_h = t->spare;
    for (size_t i = 0; i < count; i++)
        for (size_t j = 0; j < m; j++)
            wrong[i * m + j] = t->x[i * m + j] - t->scales[i * r->blocks + j / KERNEL_BLOCK] * t->q[i * m + j];
    linalg_gemm(false, false, count, m, m, 1, wrong, m, r->metric->H, m, 0, wrong_h, m);
    for (size_t i = 0; i < count; i++) sum += (double)vector_dot(wrong + i * m, wrong_h + i * m, m);
    return sum;
}

static void keep(const rounding *r, const room *t, size_t first, size_t count) {
    for (size_t i = 0; i < count * r->m; i++) r->levels[first * r->m + i] = (int16_t)t->q[i];
    memcpy(r->scales + first * r->blocks, t->scales, count * r->blocks * sizeof *t->scales);
}

static void first_scales(const rounding *r, room *t, size_t count) {
    for (size_t j = 0; j < r->m; j++) t->weight[j] = r->metric->H[j * r->m + j];
    for (size_t i = 0; i < count; i++)
        for (size_t c = 0; c < r->blocks; c++) {
            size_t at = c * KERNEL_BLOCK;
            t->scales[i * r->blocks + c] =
                pack_scale(t->x + i * r->m + at, t->weight + at, block_end(r, c) - at, r->planes);
        }
}

static void round_item(void *context, size_t item, uint32_t worker) {
    rounding *r = context;
    size_t first = item * ROWS, count = bp_min(ROWS, r->rows - first), m = r->m;
    double least = INFINITY;
    room t;
    (void)worker;
    if (!room_open(&t, m, r->blocks)) {
        __atomic_store_n(&r->failed, true, __ATOMIC_RELAXED);
        return;
    }
    for (size_t i = 0; i < count; i++) linear_row(r->source, first + i, t.x + i * m);
    linalg_gemm(false, false, count, m, m, 1, t.x, m, r->metric->H, m, 0, t.xh, m);
    r->squares[item] = 0;
    for (size_t i = 0; i < count * m; i++) r->squares[item] += (double)t.x[i] * (double)t.xh[i];
    first_scales(r, &t, count);
    for (int round = 0; round < ROUNDS; round++) {
        table_metric_round(r->metric, count, r->planes, t.x, t.scales, t.q, t.spare);
        fit_scales(r, &t, count);
        double error = error_of(r, &t, count);
        if (error < least) keep(r, &t, first, count);
        least = fmin(least, error);
    }
    r->errors[item] = least;
    free(t.memory);
}

/* ---- the whole -------------------------------------------------------------------------------------------------- */

static bool open_rounding(rounding *r, size_t items, bp_err *e) {
    r->levels = malloc(r->rows * r->m * sizeof *r->levels);
    r->scales = malloc(r->rows * r->blocks * sizeof *r->scales);
    r->errors = malloc(2 * items * sizeof *r->errors);
    r->squares = r->errors + items;
    return (r->levels && r->scales && r->errors) ||
           bp_fail(e, BP_ERR_MEMORY, 0, "no memory to round a table of %zu x %zu", r->rows, r->m);
}

static void close_rounding(rounding *r) {
    free(r->levels);
    free(r->scales);
    free(r->errors);
}

uint64_t table_round_bytes(size_t rows, size_t columns, uint32_t threads) {
    uint64_t blocks = bp_ceil_div(columns, KERNEL_BLOCK);
    return sizeof(float) * (3 * (uint64_t)columns * columns + threads * room_floats(columns, blocks)) +
           rows * (columns * sizeof(int16_t) + blocks * sizeof(float));
}

bool table_round(packed_table *p, workers *w, const linear *source, uint32_t planes, const table_metric *metric,
                 bp_err *e) {
    size_t items = bp_ceil_div(source->n, ROWS);
    rounding r = {.source = source, .rows = source->n, .m = source->m, .planes = planes};
    r.metric = metric;
    double error = 0, square = 0;
    r.blocks = bp_ceil_div(r.m, KERNEL_BLOCK);
    *p = (packed_table){0};
    bool ok = open_rounding(&r, items, e);
    if (ok) workers_for(w, items, round_item, &r);
    if (ok && r.failed) ok = bp_fail(e, BP_ERR_MEMORY, 0, "no memory to round a table of %zu x %zu", r.rows, r.m);
    ok = ok && packed_table_from_levels(p, r.levels, r.scales, r.rows, r.m, planes, e);
    for (size_t i = 0; ok && i < items; i++) {
        error += r.errors[i];
        square += r.squares[i];
    }
    p->error = square > 0 ? error / square : 0;
    close_rounding(&r);
    return ok;
}

bool table_round_model(packed_table *embedding, packed_table *head, workers *w, const model *m, uint32_t planes,
                       const float *H_embedding, const float *H_head, bp_err *e) {
    bool tied = m->head.rows == m->embedding.rows;
    table_metric metrics[2];
    if (!H_embedding)
        return packed_table_make(embedding, w, &m->embedding, planes, e) &&
               (tied || packed_table_make(head, w, &m->head, planes, e));
    bool ok = table_metrics_open(metrics, m, H_embedding, H_head, e) &&
              table_round(embedding, w, &m->embedding, planes, &metrics[0], e) &&
              (tied || table_round(head, w, &m->head, planes, &metrics[1], e));
    for (size_t i = 0; i < 2; i++) table_metric_close(&metrics[i]);
    return ok;
}
