#include "session.h"

static size_t most_mid(const linear *const *ws, size_t n) {
    size_t width = 0;
    for (size_t i = 0; i < n; i++)
        for (uint32_t s = 0; s < ws[i]->n_laid; s++) width += ws[i]->stages[s].k;
    return width;
}

/* Largest needs over all layers: what one thread's scratch must hold. */
typedef struct {
    size_t mid;    /* floats: middle dimensions of one group of layers that share an input */
    size_t inputs; /* bytes of one prepared input */
    size_t rows;   /* padded rows of a sign matrix whose product is scattered */
    size_t batch;  /* bytes of batch scratch */
    size_t cols;   /* floats of a row of a dense or plane matrix */
} needs;

static void need_signs(needs *n, const kernel_arith *arith, const kernel_signs *w) {
    n->inputs = bp_max(n->inputs, arith->input_bytes(w->groups));
    n->batch = bp_max(n->batch, arith->batch_scratch(w));
}

static void need_linear(needs *n, const kernel_arith *arith, const linear *w) {
    if (w->rows || w->planes.bytes) n->cols = bp_max(n->cols, w->m);
    if (w->planes.bytes) need_signs(n, arith, &w->planes);
    for (uint32_t s = 0; s < w->n_laid; s++) {
        const linear_stage *stage = &w->stages[s];
        need_signs(n, arith, &stage->A);
        need_signs(n, arith, &stage->B);
        n->rows = bp_max(n->rows, (size_t)stage->A.tiles * KERNEL_TILE);
    }
}

static needs measure(const model *m, const kernel_arith *arith) {
    needs n = {0};
    need_linear(&n, arith, &m->head);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const model_layer *l = &m->layers[i];
        const linear *all[] = {&l->q, &l->k, &l->v, &l->gate, &l->up, &l->o, &l->down};
        for (size_t j = 0; j < 7; j++) need_linear(&n, arith, all[j]);
        n.mid = bp_max(n.mid, bp_max(most_mid(all, 3), most_mid(all + 3, 2)));
        n.mid = bp_max(n.mid, bp_max(most_mid(all + 5, 1), most_mid(all + 6, 1)));
    }
    return n;
}

static void layout_thread(session_thread *t, arena *a, const session *s, const needs *n) {
    session_thread own = {.work = {.kernels = s->kernels, .arith = s->arith, .mid = s->mid}};
    size_t width = bp_round_up(s->model->config.d_model, KERNEL_TILE);
    own.work.inputs = ARENA_NEW(a, uint8_t, (uint64_t)KERNEL_LANES * n->inputs);
    own.work.row = ARENA_NEW(a, float, bp_max(KERNEL_LANES * n->rows, LINEAR_ROWS * n->cols));
    own.work.batch = ARENA_NEW(a, uint8_t, n->batch);
    own.x = ARENA_NEW(a, float, (uint64_t)width * s->chunk);
    const model_config *c = &s->model->config;
    uint64_t queries = (uint64_t)SESSION_TILE * (c->n_heads / c->n_kv_heads);
    own.queries = ARENA_NEW(a, uint8_t, queries *kernel_query_bytes(s->dim));
    own.parts = ARENA_NEW(a, float, 2 * queries * kernel_part_floats(s->dim));
    own.attended = ARENA_NEW(a, float, (uint64_t)c->n_heads * c->head_dim);
    if (t) *t = own;
}

/* 64 bits: the products may not fit a 32-bit size_t, and arena_take must see that */
static void layout_cache(session *s, arena *a, uint32_t kv_bits) {
    const model_config *c = &s->model->config;
    s->cache = kv_bits == 8 ? &s->kernels->cache8 : &s->kernels->cache16;
    s->positions = (uint32_t)bp_round_up(s->n_ctx, 16);
    s->dim = bp_round_up(c->head_dim, 16);
    s->row_bytes = s->dim * kv_bits / 8;
    uint64_t rows = (uint64_t)c->n_layers * c->n_kv_heads * s->positions;
    uint64_t spans = bp_ceil_div(s->n_ctx, KERNEL_SPAN);
    s->k = ARENA_NEW(a, uint8_t, rows * s->row_bytes);
    s->v = ARENA_NEW(a, uint8_t, rows * s->row_bytes);
    if (kv_bits == 8) {
        s->k_scales = ARENA_NEW(a, float, rows);
        s->v_scales = ARENA_NEW(a, float, rows);
    }
    s->parts = ARENA_NEW(a, float, spans * c->n_heads * kernel_part_floats(s->dim));
}

void session_layout(session *s, arena *a, const model *m, pool *p, const kernel_table *kernels,
                    const kernel_arith *arith, const session_options *options) {
    const model_config *c = &m->config;
    *s = (session){.model = m,
                   .pool = p,
                   .kernels = kernels,
                   .arith = arith,
                   .n_ctx = options->n_ctx,
                   .chunk = options->chunk,
                   .last = UINT32_MAX,
                   .exact = UINT32_MAX};
    needs n = measure(m, arith);
    uint64_t kv = (uint64_t)c->n_kv_heads * c->head_dim, q = (uint64_t)c->n_heads * c->head_dim, chunk = s->chunk;
    s->ids = ARENA_NEW(a, int32_t, s->n_ctx);
    layout_cache(s, a, options->kv_bits);
    s->rope = ARENA_NEW(a, float, c->head_dim *chunk);
    s->stream = ARENA_NEW(a, float, bp_round_up(c->d_model, KERNEL_TILE) * chunk);
    s->q = ARENA_NEW(a, float, bp_round_up((size_t)q, KERNEL_TILE) * chunk);
    s->key = ARENA_NEW(a, float, bp_round_up((size_t)kv, KERNEL_TILE) * chunk);
    s->value = ARENA_NEW(a, float, bp_round_up((size_t)kv, KERNEL_TILE) * chunk);
    s->attended = ARENA_NEW(a, float, q *chunk);
    s->gate = ARENA_NEW(a, float, bp_round_up(c->d_ff, KERNEL_TILE) * chunk);
    s->up = ARENA_NEW(a, float, bp_round_up(c->d_ff, KERNEL_TILE) * chunk);
    s->mid_width = n.mid;
    s->mid = ARENA_NEW(a, float, (uint64_t)n.mid *chunk);
    s->logits = ARENA_NEW(a, float, (uint64_t)bp_round_up(c->vocab, KERNEL_TILE) * KERNEL_LANES);
    s->threads = ARENA_NEW(a, session_thread, pool_threads(p));
    for (uint32_t i = 0; i < pool_threads(p); i++) layout_thread(s->threads ? &s->threads[i] : NULL, a, s, &n);
}

void session_profile(session *s, profile *profiles) {
    for (uint32_t i = 0; i < pool_threads(s->pool); i++) s->threads[i].work.profile = profiles ? &profiles[i] : NULL;
}

void session_rewind(session *s, uint32_t position) {
    s->position = position;
    s->last = UINT32_MAX;
    s->begun = 0;
    if (position <= s->exact) s->exact = UINT32_MAX;
    s->has_logits = false;
}
