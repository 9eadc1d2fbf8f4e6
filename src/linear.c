#include "linear.h"

#include "mathf.h"

void linear_share(const team *t, size_t n, size_t *first, size_t *end) {
    bp_share(bp_ceil_div(n, KERNEL_TILE), t->index, t->count, first, end);
    *first = bp_min(*first * KERNEL_TILE, n);
    *end = bp_min(*end * KERNEL_TILE, n);
}

/* out[t][row] for rows of tiles [first, end) and all tokens: prepare each token's input, then multiply. */
typedef struct {
    const linear_work *work;
    const kernel_signs *w;
    const float *scale; /* multiplies the input while it is prepared: b or c; NULL for 1 */
    const float *x;
    size_t x_stride, cols;
    size_t first, end; /* tiles */
} product;

/* out[t][row], t < n <= KERNEL_LANES, stride 16 * tiles <- products of tokens token.. */
static void product_run(const product *p, float *out, size_t token, size_t n) {
    const kernel_arith *arith = p->work->arith;
    size_t bytes = arith->input_bytes(p->w->groups), rows = (size_t)p->w->tiles * KERNEL_TILE;
    profile_mark(p->work->profile, PROFILE_LOOKUPS);
    for (size_t t = 0; t < n; t++)
        arith->prepare(p->work->inputs + t * bytes, p->x + (token + t) * p->x_stride, p->scale, p->cols, p->w->groups);
    profile_mark(p->work->profile, PROFILE_TABLES);
    if (n >= arith->batch_from) {
        arith->batch(out, rows, p->w, p->work->inputs, n, p->first, p->end, p->work->batch);
        return;
    }
    for (size_t t = 0; t < n; t++) arith->product(out + t * rows, p->w, p->work->inputs + t * bytes, p->first, p->end);
}

/* mid[t][0..k) <- B (b . x[t]), this thread's share of the k rows */
static void stage_inner(const team *t, const linear_work *work, float *mid, size_t mid_stride, const linear_stage *s,
                        size_t m, const float *x, size_t x_stride, size_t n_tokens) {
    product p = {work, &s->B, s->b, x, x_stride, m, 0, 0};
    bp_share(s->B.tiles, t->index, t->count, &p.first, &p.end);
    size_t rows = (size_t)s->B.tiles * KERNEL_TILE, from = p.first * KERNEL_TILE,
           to = bp_min(p.end * KERNEL_TILE, s->k);
    for (size_t token = 0; token < n_tokens; token += KERNEL_LANES) {
        size_t n = bp_min(n_tokens - token, KERNEL_LANES);
        product_run(&p, work->row, token, n);
        for (size_t i = 0; i < n; i++)
            memcpy(mid + (token + i) * mid_stride + from, work->row + i * rows + from, (to - from) * sizeof *mid);
    }
}

/* y[t] (+)= a . (A (c . mid[t])), this thread's share of the n rows */
static void stage_outer(const team *t, const linear_work *work, float *y, const linear *w, const linear_stage *s,
                        const float *mid, size_t mid_stride, size_t n_tokens, bool accumulate) {
    product p = {work, &s->A, s->c, mid, mid_stride, s->k, 0, 0};
    bp_share(s->A.tiles, t->index, t->count, &p.first, &p.end);
    size_t rows = (size_t)s->A.tiles * KERNEL_TILE, from = p.first * KERNEL_TILE,
           to = bp_min(p.end * KERNEL_TILE, w->n);
    for (size_t token = 0; token < n_tokens; token += KERNEL_LANES) {
        size_t n = bp_min(n_tokens - token, KERNEL_LANES);
        product_run(&p, work->row, token, n);
        for (size_t i = 0; i < n; i++) {
            float *out = y + (token + i) * linear_rows(w);
            const float *in = work->row + i * rows;
            if (accumulate)
                for (size_t r = from; r < to; r++) out[r] += s->a[r] * in[r];
            else
                for (size_t r = from; r < to; r++) out[r] = s->a[r] * in[r];
        }
    }
}

/* Bit planes (the head): rows are integers times row scales, no second factor and nothing to add, so they go straight
 * out. */
static void planes_forward(const team *t, const linear_work *work, float *y, const linear *w, const float *x,
                           size_t x_stride, size_t n_tokens) {
    product p = {work, &w->planes, NULL, x, x_stride, w->m, 0, 0};
    bp_share(w->planes.tiles, t->index, t->count, &p.first, &p.end);
    for (size_t token = 0; token < n_tokens; token += KERNEL_LANES)
        product_run(&p, y + token * w->planes.tiles * KERNEL_TILE, token, bp_min(n_tokens - token, KERNEL_LANES));
}

static void dense_forward(const team *t, const linear_work *work, float *y, const linear *w, const float *x,
                          size_t x_stride, size_t n_tokens, bool accumulate) {
    size_t first, end, stride = linear_rows(w);
    linear_share(t, w->n, &first, &end);
    for (size_t r = first; r < end; r++) {
        const float *row = work->row;
        if (w->type == QUANT_F32)
            row = (const float *)(const void *)(w->rows + r * w->row_bytes);
        else
            quant_dequantize(w->type, w->rows + r * w->row_bytes, work->row, w->m);
        for (size_t token = 0; token < n_tokens; token += KERNEL_LANES) {
            float dots[KERNEL_LANES];
            size_t n = bp_min(n_tokens - token, KERNEL_LANES);
            work->kernels->dots(dots, row, x + token * x_stride, x_stride, w->m, n);
            for (size_t i = 0; i < n; i++) {
                float *out = y + (token + i) * stride + r;
                *out = accumulate ? *out + dots[i] : dots[i];
            }
        }
    }
}

static void add_bias(const team *t, float *y, const linear *w, size_t n_tokens) {
    size_t first, end;
    if (!w->bias) return;
    linear_share(t, w->n, &first, &end);
    for (size_t i = 0; i < n_tokens; i++)
        for (size_t r = first; r < end; r++) y[i * linear_rows(w) + r] += w->bias[r];
}

static size_t mid_width(const linear *const *ws, size_t n) {
    size_t width = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t s = 0; s < ws[i]->n_stages; s++) width += ws[i]->stages[s].k;
    return width;
}

/* All inner products of all layers and stages first, then one barrier, then all outer ones. */
static void factorized_forward(const team *t, const linear_work *work, float *const *ys, const linear *const *ws,
                               size_t n, const float *x, size_t x_stride, size_t n_tokens, bool accumulate) {
    size_t width = mid_width(ws, n), column = 0;
    if (!width) return;
    for (size_t i = 0; i < n; i++)
        for (uint32_t s = 0; s < ws[i]->n_stages; column += ws[i]->stages[s++].k)
            stage_inner(t, work, work->mid + column, width, &ws[i]->stages[s], ws[i]->m, x, x_stride, n_tokens);
    profile_mark(work->profile, PROFILE_LOOKUPS);
    team_barrier(t);
    profile_mark(work->profile, PROFILE_BARRIERS);
    column = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t s = 0; s < ws[i]->n_stages; column += ws[i]->stages[s++].k)
            stage_outer(t, work, ys[i], ws[i], &ws[i]->stages[s], work->mid + column, width, n_tokens,
                        accumulate || s > 0);
}

void linear_forward(const team *t, const linear_work *work, float *const *ys, const linear *const *ws, size_t n,
                    const float *x, size_t x_stride, size_t n_tokens, bool accumulate) {
    factorized_forward(t, work, ys, ws, n, x, x_stride, n_tokens, accumulate);
    for (size_t i = 0; i < n; i++) {
        if (ws[i]->planes.bytes)
            planes_forward(t, work, ys[i], ws[i], x, x_stride, n_tokens);
        else if (ws[i]->rows)
            dense_forward(t, work, ys[i], ws[i], x, x_stride, n_tokens, accumulate);
        add_bias(t, ys[i], ws[i], n_tokens);
    }
    profile_mark(work->profile, PROFILE_LOOKUPS);
}

static void planes_row(const kernel_signs *w, size_t i, size_t m, float *out) {
    size_t row = i % KERNEL_TILE, lane = row < 8 ? 2 * row : 2 * (row - 8) + 1; /* inverse of tile16's row order */
    size_t blocks = kernel_blocks(w->groups);
    const uint8_t *tile = w->bytes + i / KERNEL_TILE * w->planes * w->groups * KERNEL_TILE + lane;
    for (size_t c = 0; c < m; c++) {
        int32_t q = 0;
        for (uint32_t p = 0; p < w->planes; p++) {
            uint32_t bit = (uint32_t)tile[((size_t)p * w->groups + c / 8) * KERNEL_TILE] >> c % 8 & 1;
            q += bit ? 1 << p : -(1 << p);
        }
        out[c] = (float)q * w->row_scales[i * blocks + c / KERNEL_BLOCK];
    }
}

void linear_row(const linear *w, size_t i, float *out) {
    if (w->planes.bytes)
        planes_row(&w->planes, i, w->m, out);
    else
        quant_dequantize(w->type, w->rows + i * w->row_bytes, out, w->m);
}
