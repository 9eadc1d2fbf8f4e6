#include "linear.h"

#include "mathf.h"

void linear_share(const team *t, size_t n, size_t *first, size_t *end) {
    team_share(t, bp_ceil_div(n, KERNEL_TILE), first, end);
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

/* out[t][row], t < n <= KERNEL_LANES <- products of tokens token.. */
static void product_run(const product *p, float *out, size_t out_stride, size_t token, size_t n) {
    const kernel_arith *arith = p->work->arith;
    size_t bytes = arith->input_bytes(p->w->groups);
    if (p->first >= p->end) return;
    profile_mark(p->work->profile, PROFILE_LOOKUPS);
    if (arith->ahead && n < arith->batch_from) arith->ahead(p->w, p->first, p->end);
    for (size_t t = 0; t < n; t++)
        arith->prepare(p->work->inputs + t * bytes, p->x + (token + t) * p->x_stride, p->scale, p->cols, p->w->groups);
    profile_mark(p->work->profile, PROFILE_TABLES);
    if (n >= arith->batch_from) {
        arith->batch(out, out_stride, p->w, p->work->inputs, n, p->first, p->end, p->work->batch);
        return;
    }
    for (size_t t = 0; t < n; t++)
        arith->product(out + t * out_stride, p->w, p->work->inputs + t * bytes, p->first, p->end);
}

/* The tokens of a call, and the layers that share their input */
typedef struct {
    const team *team;
    const linear_work *work;
    const linear *const *layers;
    size_t n_layers;
    const float *x;
    size_t x_stride, n_tokens;
    size_t mid_width; /* sum of the middle dimensions: row stride of work->mid */
} call;

/* mid[t][0..k) <- B (b . x[t]) for tiles [first, end); k is a multiple of the tile, so rows go to their place at once */
static void stage_inner(const call *c, float *mid, const linear_stage *s, size_t m, size_t first, size_t end) {
    const product p = {c->work, &s->B, s->b, c->x, c->x_stride, m, first, end};
    for (size_t token = 0; token < c->n_tokens; token += KERNEL_LANES)
        product_run(&p, mid + token * c->mid_width, c->mid_width, token, bp_min(c->n_tokens - token, KERNEL_LANES));
}

/* Where outputs of rows [first, end) of a layer go: y points at row `first` of the first token. */
typedef struct {
    float *y;
    size_t first, end, stride;
} target;

/* The outputs [first, end) that lie in array i of those of a layer; ys points at its arrays. */
static target target_of(const linear *w, float *const *ys, int i, size_t first, size_t end) {
    size_t start = i ? w->split[i - 1] : 0, stop = i < 2 && w->split[i] ? w->split[i] : w->n;
    target t = {
        .first = bp_max(first, start), .end = bp_min(end, stop), .stride = bp_round_up(stop - start, KERNEL_TILE)};
    t.y = t.first < t.end ? ys[i] + (t.first - start) : NULL;
    return t;
}

/* Arrays that the outputs of a layer go to */
static int targets(const linear *w) { return 1 + (w->split[0] > 0) + (w->split[1] > 0); }

static void scale_rows(float *restrict y, const float *restrict a, const float *restrict x, size_t n, bool accumulate) {
    if (accumulate)
        for (size_t r = 0; r < n; r++) y[r] += a[r] * x[r];
    else
        for (size_t r = 0; r < n; r++) y[r] = a[r] * x[r];
}

/* ys[..][t] (+)= a . (A (c . mid[t])), this thread's share of the n rows */
static void stage_outer(const call *c, float *const *ys, const linear *w, const linear_stage *s, const float *mid,
                        bool accumulate) {
    product p = {c->work, &s->A, s->c, mid, c->mid_width, s->k, 0, 0};
    team_share(c->team, s->A.tiles, &p.first, &p.end);
    size_t rows = (size_t)s->A.tiles * KERNEL_TILE, from = p.first * KERNEL_TILE,
           to = bp_min(p.end * KERNEL_TILE, w->n);
    for (size_t token = 0; from < to && token < c->n_tokens; token += KERNEL_LANES) {
        size_t n = bp_min(c->n_tokens - token, KERNEL_LANES);
        product_run(&p, c->work->row, rows, token, n);
        for (int piece = 0; piece < targets(w); piece++) {
            const target t = target_of(w, ys, piece, from, to);
            for (size_t i = 0; t.first < t.end && i < n; i++)
                scale_rows(t.y + (token + i) * t.stride, s->a + t.first, c->work->row + i * rows + t.first,
                           t.end - t.first, accumulate);
        }
    }
}

/* Bit planes (the head): rows are integers times row scales, no second factor and nothing to add, so they go straight
 * out. */
static void planes_forward(const team *t, const linear_work *work, float *y, const linear *w, const float *x,
                           size_t x_stride, size_t n_tokens) {
    product p = {work, &w->planes, NULL, x, x_stride, w->m, 0, 0};
    team_share(t, w->planes.tiles, &p.first, &p.end);
    for (size_t token = 0; token < n_tokens; token += KERNEL_LANES)
        product_run(&p, y + token * linear_rows(w), linear_rows(w), token, bp_min(n_tokens - token, KERNEL_LANES));
}

/* Rows [r, r + n) of a dense layer, one after the other, as floats */
static const float *dense_rows(const linear_work *work, const linear *w, size_t r, size_t n) {
    if (w->type == QUANT_F32) return (const float *)(const void *)(w->rows + r * w->row_bytes);
    for (size_t i = 0; i < n; i++)
        quant_dequantize(w->type, w->rows + (r + i) * w->row_bytes, work->row + i * w->m, w->m);
    return work->row;
}

/* A few rows stay in the nearest cache while all tokens pass. */
static void dense_forward(const team *t, const linear_work *work, float *y, const linear *w, const float *x,
                          size_t x_stride, size_t n_tokens, bool accumulate) {
    size_t first, end, stride = linear_rows(w);
    linear_share(t, w->n, &first, &end);
    for (size_t r = first; r < end; r += LINEAR_ROWS) {
        size_t n = bp_min(LINEAR_ROWS, end - r);
        const float *rows = dense_rows(work, w, r, n);
        for (size_t token = 0; token < n_tokens; token++) {
            float dots[LINEAR_ROWS], *out = y + token * stride + r;
            work->kernels->dots(dots, x + token * x_stride, rows, w->m, w->m, n);
            for (size_t i = 0; i < n; i++) out[i] = accumulate ? out[i] + dots[i] : dots[i];
        }
    }
}

static void add_bias(const team *t, float *const *ys, const linear *w, size_t n_tokens) {
    size_t first, end;
    if (!w->bias) return;
    linear_share(t, w->n, &first, &end);
    for (int piece = 0; piece < targets(w); piece++) {
        const target to = target_of(w, ys, piece, first, end);
        for (size_t i = 0; i < n_tokens; i++)
            for (size_t r = to.first; r < to.end; r++) to.y[i * to.stride + r - to.first] += w->bias[r];
    }
}

static size_t mid_width(const linear *const *ws, size_t n) {
    size_t width = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t s = 0; s < ws[i]->n_stages; s++) width += ws[i]->stages[s].k;
    return width;
}

/* Signs (in groups of a tile) of all inner factors of a call */
static size_t inner_work(const call *c) {
    size_t sum = 0;
    for (size_t i = 0; i < c->n_layers; i++)
        for (uint32_t s = 0; s < c->layers[i]->n_stages; s++)
            sum += (size_t)c->layers[i]->stages[s].B.tiles * c->layers[i]->stages[s].B.groups;
    return sum;
}

/* First tile of w that lies past `work`, counted from the tile where w begins, `before` */
static size_t tile_at(const kernel_signs *w, size_t work, size_t before) {
    return work <= before ? 0 : bp_min((work - before + w->groups / 2) / w->groups, w->tiles);
}

/* All inner products of all layers and stages. Threads share them as one row of tiles, so that each prepares few
 * inputs: a whole number of matrices, and the part of one that its border cuts. */
static void forward_inner(const call *c) {
    float *mid = c->work->mid;
    size_t first, end, before = 0;
    team_share(c->team, inner_work(c), &first, &end);
    for (size_t i = 0; i < c->n_layers; i++)
        for (uint32_t s = 0; s < c->layers[i]->n_stages; s++) {
            const linear_stage *stage = &c->layers[i]->stages[s];
            stage_inner(c, mid, stage, c->layers[i]->m, tile_at(&stage->B, first, before),
                        tile_at(&stage->B, end, before));
            before += (size_t)stage->B.tiles * stage->B.groups;
            mid += stage->k;
        }
}

/* All outer products; every thread has the same rows of all layers. */
static void forward_outer(const call *c, float *const *ys, bool accumulate) {
    const float *mid = c->work->mid;
    for (size_t i = 0; i < c->n_layers; ys += targets(c->layers[i++]))
        for (uint32_t s = 0; s < c->layers[i]->n_stages; mid += c->layers[i]->stages[s++].k)
            stage_outer(c, ys, c->layers[i], &c->layers[i]->stages[s], mid, accumulate || s > 0);
}

void linear_forward(const team *t, const linear_work *work, float *const *ys, const linear *const *ws, size_t n,
                    const float *x, size_t x_stride, size_t n_tokens, bool accumulate) {
    const call c = {t, work, ws, n, x, x_stride, n_tokens, mid_width(ws, n)};
    if (c.mid_width) {
        forward_inner(&c);
        profile_mark(work->profile, PROFILE_LOOKUPS);
        team_barrier(t);
        profile_mark(work->profile, PROFILE_BARRIERS);
        forward_outer(&c, ys, accumulate);
    }
    for (size_t i = 0; i < n; ys += targets(ws[i++])) {
        if (ws[i]->planes.bytes)
            planes_forward(t, work, *ys, ws[i], x, x_stride, n_tokens);
        else if (ws[i]->rows)
            dense_forward(t, work, *ys, ws[i], x, x_stride, n_tokens, accumulate);
        add_bias(t, ys, ws[i], n_tokens);
    }
    profile_mark(work->profile, PROFILE_LOOKUPS);
}

/* Bit i of a byte -> byte i, 0 or 1 */
static uint64_t bytes_of_bits(uint8_t bits) {
    uint64_t each = bits * 0x0101010101010101ull & 0x8040201008040201ull;
    return (each + 0x7f7f7f7f7f7f7f7full) >> 7 & 0x0101010101010101ull;
}

static void planes_row(const kernel_signs *w, size_t i, size_t m, float *out) {
    size_t row = i % KERNEL_TILE, lane = row < 8 ? 2 * row : 2 * (row - 8) + 1; /* inverse of tile16's row order */
    size_t blocks = kernel_blocks(w->groups);
    const uint8_t *tile = w->bytes + i / KERNEL_TILE * w->planes * w->groups * KERNEL_TILE + lane;
    for (size_t g = 0; g * 8 < m; g++) {
        uint64_t sums = 0; /* of eight columns: sum over planes of 2^p where the sign is +1 */
        for (uint32_t p = 0; p < w->planes; p++)
            sums += bytes_of_bits(tile[((size_t)p * w->groups + g) * KERNEL_TILE]) << p;
        const float scale = w->row_scales[i * blocks + g * 8 / KERNEL_BLOCK];
        for (size_t c = g * 8; c < bp_min(g * 8 + 8, m); c++, sums >>= 8)
            out[c] = (float)(2 * (int32_t)(sums & 255) - ((1 << w->planes) - 1)) * scale;
    }
}

float linear_dot(const linear_work *work, const linear *w, size_t i, const float *x) {
    float y;
    planes_row(&w->planes, i, w->m, work->row);
    work->kernels->dots(&y, x, work->row, w->m, w->m, 1);
    return y;
}

void linear_row(const linear *w, size_t i, float *out) {
    if (w->planes.bytes)
        planes_row(&w->planes, i, w->m, out);
    else
        quant_dequantize(w->type, w->rows + i * w->row_bytes, out, w->m);
}
