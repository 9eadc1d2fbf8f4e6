#include "statistics.h"

#include <math.h>
#include <stdlib.h>

#include "linalg/gemm_bf16.h"

enum { TILE = 384, SLICE = 512 }; /* entries of a moment per item; tokens per product */

/* One side of an outer product: rows x - minus of [tokens, columns]. */
typedef struct {
    const float *x, *minus; /* minus: NULL for 0 */
    size_t stride, columns;
} operand;

/* out [left.columns, right.columns] += sum over tokens [first, end) of weight left right' */
typedef struct {
    float *out;
    operand left, right;
    bool symmetric; /* left = right: only tiles on and above the diagonal */
    const float *weight;
    size_t first, end;
    float *own; /* scratch: 2 * SLICE * TILE floats for each worker */
} product;

static void copy_slice(float *to, const operand *o, size_t column, size_t columns, size_t token, size_t tokens,
                       const float *weight) {
    for (size_t t = 0; t < tokens; t++, to += columns) {
        const float *x = o->x + (token + t) * o->stride + column;
        const float w = weight ? weight[token + t] : 1;
        if (o->minus) {
            const float *minus = o->minus + (token + t) * o->stride + column;
            for (size_t j = 0; j < columns; j++) to[j] = w * (x[j] - minus[j]);
        } else {
            for (size_t j = 0; j < columns; j++) to[j] = w * x[j];
        }
    }
}

static void product_tile(void *context, size_t item, uint32_t worker) {
    const product *p = context;
    size_t across = bp_ceil_div(p->right.columns, TILE), i = item / across * TILE, j = item % across * TILE;
    if (p->symmetric && i > j) return;
    size_t rows = bp_min(TILE, p->left.columns - i), columns = bp_min(TILE, p->right.columns - j);
    float *left = p->own + worker * 2 * SLICE * TILE, *right = left + SLICE * TILE;
    for (size_t t = p->first; t < p->end; t += SLICE) {
        size_t tokens = bp_min(SLICE, p->end - t);
        if (p->left.minus) copy_slice(left, &p->left, i, rows, t, tokens, NULL);
        copy_slice(right, &p->right, j, columns, t, tokens, p->weight);
        gemm_bf16(true, false, rows, columns, tokens, 1, p->left.minus ? left : p->left.x + t * p->left.stride + i,
                  p->left.minus ? rows : p->left.stride, right, columns, 1, p->out + i * p->right.columns + j,
                  p->right.columns);
    }
}

/* out = mean over tokens of weight left right' */
typedef struct {
    float *out;
    operand left, right;
} moment;

static bool is_symmetric(const moment *m) { return m->left.x == m->right.x && !m->left.minus; }

/* `n` means over tokens [first, end), chunk by chunk so that all tiles of all means read a chunk while it is in the
 * cache */
static void take_means(const chain *c, const moment *list, size_t n, const float *weight, size_t first, size_t end,
                       float *own) {
    double total = 0;
    for (size_t t = first; t < end; t++) total += (double)weight[t];
    float scale = (float)(1 / total);
    for (size_t i = 0; i < n; i++) memset(list[i].out, 0, list[i].left.columns * list[i].right.columns * sizeof(float));
    for (size_t t = first; t < end; t += CHAIN_CHUNK) {
        size_t last = bp_min(t + CHAIN_CHUNK, end);
        for (size_t i = 0; i < n; i++) {
            const moment *m = &list[i];
            product p = {m->out, m->left, m->right, is_symmetric(m), weight, t, last, own};
            workers_for(c->w, bp_ceil_div(m->left.columns, TILE) * bp_ceil_div(m->right.columns, TILE), product_tile,
                        &p);
        }
        chain_release(c, t, last - t);
    }
    for (size_t i = 0; i < n; i++) {
        if (is_symmetric(&list[i])) linalg_mirror(list[i].out, list[i].left.columns);
        for (size_t j = 0; j < list[i].left.columns * list[i].right.columns; j++) list[i].out[j] *= scale;
    }
}

static int ascending(const void *a, const void *b) {
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

/* weight [tokens] <- so much less that weight |x|^2 is at most clip times the median of importance |x|^2 (NULL: 1), x
 * [tokens] vectors of `width`; squares, sorted: scratch [tokens] */
static void cap_energy(float *weight, const float *importance, float *squares, float *sorted, const chain *c,
                       const float *x, size_t stride, size_t width, float clip) {
    for (size_t t = 0; t < c->n_tokens; t++) {
        double sum = 0;
        for (size_t j = 0; j < width; j++) sum += (double)x[t * stride + j] * x[t * stride + j];
        squares[t] = (float)sum;
        sorted[t] = (importance ? importance[t] : 1) * squares[t];
        if ((t + 1) % CHAIN_CHUNK == 0) chain_release(c, t + 1 - CHAIN_CHUNK, CHAIN_CHUNK);
    }
    qsort(sorted, c->n_tokens, sizeof *sorted, ascending);
    const float cap = clip * sorted[c->n_tokens / 2];
    for (size_t t = 0; t < c->n_tokens; t++)
        if (weight[t] * squares[t] > cap && cap > 0) weight[t] = cap / squares[t];
}

/* Weights [tokens] of the squared errors of a layer's outputs: their importance, but a massive input counts only so
 * much, and so does a massive stream that the output is added to: what is wrong there is large, but next to the stream
 * it is not, and the norm that reads it sees no more than that. scratch [2 * tokens] */
static void token_weights(float *weight, const float *importance, float *scratch, const chain *c, chain_side side,
                          const statistics *s, float clip) {
    float *squares = scratch, *sorted = scratch + c->n_tokens;
    for (size_t t = 0; t < c->n_tokens; t++) weight[t] = importance ? importance[t] : 1;
    if (clip <= 0) return;
    cap_energy(weight, importance, squares, sorted, c, c->x[side], c->width, s->m, clip);
    if (s->E) cap_energy(weight, importance, squares, sorted, c, c->stream[CHAIN_DENSE], s->d, s->d, clip);
}

static double mean_difference(const chain *c, const float *weight, size_t d) {
    const float *r = c->stream[CHAIN_DENSE], *q = c->stream[CHAIN_STUDENT];
    double sum = 0, total = 0;
    for (size_t t = c->n_train; t < c->n_tokens; t++) {
        double square = 0;
        for (size_t j = 0; j < d; j++) {
            double difference = (double)r[t * d + j] - (double)q[t * d + j];
            square += difference * difference;
        }
        sum += (double)weight[t] * square;
        total += (double)weight[t];
        if ((t + 1) % CHAIN_CHUNK == 0) chain_release(c, t + 1 - CHAIN_CHUNK, CHAIN_CHUNK);
    }
    return sum / total;
}

static void fill(statistics *s, const chain *c, chain_side side, const float *weight, float *own) {
    size_t n = c->n_tokens;
    operand xd = {c->x[CHAIN_DENSE], NULL, c->width, s->m}, xq = {c->x[side], NULL, c->width, s->m};
    operand difference = {c->stream[CHAIN_DENSE], c->stream[CHAIN_STUDENT], s->d, s->d};
    const moment train[] = {{s->train.H, xq, xq}, {s->train.C, xd, xq}, {s->train.R, difference, xq}},
                 val[] = {{s->val.H, xq, xq},
                          {s->val.C, xd, xq},
                          {s->D, xd, xd},
                          {s->val.R, difference, xq},
                          {s->E, difference, xd}};
    take_means(c, train, s->E ? 3 : 2, weight, 0, c->n_train, own);
    take_means(c, val, s->E ? 5 : 3, weight, c->n_train, n, own);
    if (!s->E) return;
    s->delta = mean_difference(c, weight, s->d);
}

bool statistics_take(statistics *s, const chain *c, chain_side side, size_t m, bool residual, float clip,
                     const float *importance, bp_err *e) {
    size_t d = c->model->config.d_model;
    *s = (statistics){.m = m, .d = d};
    float *p = s->memory = malloc((5 * m * m + (residual ? 3 * d * m : 0)) * sizeof *p);
    float *weight = malloc((size_t)statistics_scratch(c->n_tokens, workers_count(c->w)));
    if (!p || !weight) {
        free(p);
        free(weight);
        return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the statistics of %zu channels", m);
    }
    float **square[] = {&s->train.H, &s->train.C, &s->val.H, &s->val.C, &s->D},
          **cross[] = {&s->train.R, &s->val.R, &s->E};
    for (size_t i = 0; i < 5; i++, p += m * m) *square[i] = p;
    for (size_t i = 0; residual && i < 3; i++, p += d * m) *cross[i] = p;
    token_weights(weight, importance, weight + c->n_tokens, c, side, s, clip);
    fill(s, c, side, weight, weight + 3 * c->n_tokens);
    free(weight);
    return true;
}

void statistics_close(statistics *s) {
    free(s->memory);
    *s = (statistics){0};
}

uint64_t statistics_scratch(size_t n_tokens, uint32_t threads) {
    return sizeof(float) * ((uint64_t)threads * 2 * SLICE * TILE + 3 * (uint64_t)n_tokens);
}

double statistics_work(size_t n_tokens, size_t n_train, size_t m, size_t d, bool residual) {
    double T = (double)n_tokens, val = (double)(n_tokens - n_train), dm = (double)m;
    return 3 * T * dm * dm + val * dm * dm + (residual ? 2 * (T + val) * (double)d * dm : 0);
}
