#include "score.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/linalg.h"
#include "mathf.h"

enum { VOCAB = 512, ROWS = 512 }; /* tokens of the vocabulary in a block, rows of one sweep over it */

/* What one row adds over one block of the vocabulary, z its logits, p the reference's where there is one. */
typedef struct {
    double top, sum; /* largest z; sum of exp(z - top) */
    double cross;    /* sum of exp(p - top of p) (p - z) */
} share;

/* One sweep: x [groups, rows, d_model] normalised; group 0 is the reference of all. */
typedef struct {
    const model *m;
    const linear *head;
    float *x;
    size_t rows, groups;
    share *shares; /* [blocks, groups, rows] */
    float *own;    /* scratch of each worker: a block of the head, and its logits */
    size_t own_size;
} sweep;

void score_rmsnorm(float *y, const float *x, const float *weight, size_t n, float eps) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += (double)x[i] * x[i];
    float scale = (float)(1 / sqrt(sum / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++) y[i] = x[i] * scale * weight[i];
}

static share take_share(const float *z, const float *p, double p_top, size_t n) {
    float top = z[0];
    double sum = 0, cross = 0;
    for (size_t i = 1; i < n; i++) top = z[i] > top ? z[i] : top;
    for (size_t i = 0; i < n; i++) sum += (double)bp_expf(z[i] - top);
    for (size_t i = 0; z != p && i < n; i++)
        cross += (double)bp_expf(p[i] - (float)p_top) * ((double)p[i] - (double)z[i]);
    return (share){(double)top, sum, cross};
}

static void sweep_block(void *context, size_t block, uint32_t worker) {
    const sweep *s = context;
    size_t d = s->m->config.d_model, first = block * VOCAB, n = bp_min(VOCAB, s->m->config.vocab - first);
    float *W = s->own + worker * s->own_size, *logits = W + VOCAB * d;
    share *shares = s->shares + block * s->groups * s->rows;
    for (size_t i = 0; i < n; i++) linear_row(s->head, first + i, W + i * d);
    linalg_gemm(false, true, s->groups * s->rows, n, d, 1, s->x, d, W, d, 0, logits, n);
    for (size_t i = 0; i < s->groups * s->rows; i++) {
        size_t reference = i % s->rows;
        double top = i == reference ? 0 : shares[reference].top;
        shares[i] = take_share(logits + i * n, logits + reference * n, top, n);
    }
}

static size_t blocks_of(const model *m) { return bp_ceil_div(m->config.vocab, VOCAB); }

static bool sweep_open(sweep *s, workers *w, const model *m, const linear *head, size_t groups, size_t rows,
                       bp_err *e) {
    size_t d = m->config.d_model;
    *s = (sweep){.m = m, .head = head, .rows = rows, .groups = groups, .own_size = VOCAB * (d + groups * rows)};
    s->x = malloc(groups * rows * d * sizeof *s->x);
    s->shares = malloc(blocks_of(m) * groups * rows * sizeof *s->shares);
    s->own = malloc(workers_count(w) * s->own_size * sizeof *s->own);
    return (s->x && s->shares && s->own) || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for logits");
}

static void sweep_close(sweep *s) {
    free(s->x);
    free(s->shares);
    free(s->own);
}

static void normalise(sweep *s, size_t group, const float *stream, size_t rows) {
    size_t d = s->m->config.d_model;
    for (size_t t = 0; t < rows; t++)
        score_rmsnorm(s->x + (group * s->rows + t) * d, stream + t * d, s->m->out_norm, d, s->m->config.norm_eps);
}

/* log of the sum of exp(z) of row i of the sweep, from its shares. */
static double log_sum(const sweep *s, size_t i) {
    size_t stride = s->groups * s->rows, blocks = blocks_of(s->m);
    double top = -INFINITY, sum = 0;
    for (size_t b = 0; b < blocks; b++) top = fmax(top, s->shares[b * stride + i].top);
    for (size_t b = 0; b < blocks; b++) sum += s->shares[b * stride + i].sum * exp(s->shares[b * stride + i].top - top);
    return top + log(sum);
}

/* ---- likelihood ------------------------------------------------------------------------------------------------ */

static double sweep_nll(sweep *s, workers *w, const int32_t *targets) {
    size_t d = s->m->config.d_model;
    double total = 0;
    float *row = s->own;
    workers_for(w, blocks_of(s->m), sweep_block, s);
    for (size_t t = 0; t < s->rows; t++) {
        double logit = 0;
        linear_row(s->head, (size_t)targets[t], row);
        for (size_t i = 0; i < d; i++) logit += (double)s->x[t * d + i] * (double)row[i];
        total += log_sum(s, t) - logit;
    }
    return total;
}

bool score_nll(double *sum, workers *w, const model *m, const linear *head, const float *stream, const int32_t *targets,
               size_t rows, bp_err *e) {
    sweep s;
    bool ok = sweep_open(&s, w, m, head, 1, bp_min(rows, ROWS), e);
    *sum = 0;
    for (size_t t = 0; ok && t < rows; t += ROWS) {
        s.rows = bp_min(ROWS, rows - t);
        normalise(&s, 0, stream + t * m->config.d_model, s.rows);
        *sum += sweep_nll(&s, w, targets + t);
    }
    sweep_close(&s);
    return ok;
}

/* ---- divergence ------------------------------------------------------------------------------------------------ */

/* With P and Q the logs of the sums: KL = sum_v exp(p_v - P) (p_v - q_v) - P + Q */
static double row_kl(const sweep *s, size_t group, size_t row) {
    size_t stride = s->groups * s->rows, blocks = blocks_of(s->m), i = group * s->rows + row;
    double P = log_sum(s, row), cross = 0;
    for (size_t b = 0; b < blocks; b++)
        cross += s->shares[b * stride + i].cross * exp(s->shares[b * stride + row].top - P);
    return cross - P + log_sum(s, i);
}

static void sweep_kl(sweep *s, workers *w, double *sums, const float *dense, const float *student, size_t all_rows) {
    size_t d = s->m->config.d_model;
    normalise(s, 0, dense, s->rows);
    for (size_t g = 1; g < s->groups; g++) normalise(s, g, student + (g - 1) * all_rows * d, s->rows);
    workers_for(w, blocks_of(s->m), sweep_block, s);
    for (size_t g = 1; g < s->groups; g++)
        for (size_t t = 0; t < s->rows; t++) sums[g - 1] += row_kl(s, g, t);
}

bool score_kl(double *kl, workers *w, const model *m, const linear *head, const float *dense, const float *student,
              size_t groups, size_t rows, bp_err *e) {
    sweep s;
    size_t d = m->config.d_model, at_once = bp_max(1, bp_min(rows, 4 * ROWS / (groups + 1)));
    bool ok = sweep_open(&s, w, m, head, groups + 1, at_once, e);
    for (size_t g = 0; g < groups; g++) kl[g] = 0;
    for (size_t t = 0; ok && t < rows; t += at_once) {
        s.rows = bp_min(at_once, rows - t);
        sweep_kl(&s, w, kl, dense + t * d, student + t * d, rows);
    }
    for (size_t g = 0; g < groups; g++) kl[g] /= (double)rows;
    sweep_close(&s);
    return ok;
}
