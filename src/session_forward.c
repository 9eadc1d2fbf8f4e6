/* The transformer (docs/MODEL.md). One function per box of the diagram, in the order of the data:
 *
 *   ids -> embedding -> [ norm -> q k v -> rope -> cache -> attention -> o  +-> norm -> gate up -> swiglu -> down  + ] -> norm -> head
 *                         '------------------------------------------------'  '-----------------------------------'
 *
 * All threads of the team walk through it together. A pass of few tokens splits the *rows* of each layer and meets at
 * a barrier after each step; a pass of many tokens splits the *tokens*, each thread being a team of one for its own,
 * and meets only where attention needs everybody's keys. Both give the same bits: no sum ever crosses the split. */
#include "mathf.h"
#include "sampler.h"
#include "session_internal.h"

typedef struct {
    session *s;
    const int32_t *ids;
    size_t n;            /* tokens of this pass */
    uint32_t from, to;   /* layers of this part of it */
    size_t rows;         /* so many of them, from the first, are wanted by `all` or `scores` */
    float *all;          /* [rows][vocab] logits, or NULL */
    const int32_t *next; /* [rows] the token after each ... */
    float *scores;       /* [rows] ... and where its log probability goes */
} pass;

/* Tokens of each thread from which on a pass is split by tokens: a thread then prepares the inputs of its own tokens
 * only and waits for nobody, but reads all weights, which so many tokens hide. */
enum { SPLIT_TOKENS = 4, LEAST_TOKENS = 2 }; /* a thread with one token would attend as if it were the only one */

static span span_make(const pass *p, const team *t) {
    session *s = p->s;
    const model_config *c = &s->model->config;
    span sp = {.s = s, .c = c, .everyone = t, .rows = *t, .own = &s->threads[t->index], .n = p->n};
    if (p->n >= (size_t)t->count * SPLIT_TOKENS && t->count > 1) {
        size_t end;
        team_share(t, p->n - LEAST_TOKENS * t->count, &sp.first, &end);
        sp.n = end - sp.first + LEAST_TOKENS;
        sp.first += LEAST_TOKENS * t->index;
        sp.rows = team_solo();
    }
    sp.d = padded(c->d_model);
    sp.kv = padded((size_t)c->n_kv_heads * c->head_dim);
    sp.q = padded((size_t)c->n_heads * c->head_dim);
    sp.ff = padded(c->d_ff);
    sp.work = sp.own->work;
    sp.work.mid +=
        sp.first * s->mid_width; /* threads run different layers at one time: shares must not depend on the layer */
    return sp;
}

static void linears(const span *sp, float *const *ys, const linear *const *ws, size_t n, const float *x, size_t stride,
                    bool accumulate) {
    linear_forward(&sp->rows, &sp->work, ys, ws, n, x, stride, sp->n, accumulate);
}

static void embed(const span *sp, const int32_t *ids) {
    size_t first, end;
    own_items(sp, sp->n, &first, &end);
    for (size_t i = sp->first + first; i < sp->first + end; i++)
        linear_row(&sp->s->model->embedding, (size_t)ids[i], sp->s->stream + i * sp->d);
}

void session_angles(const model_config *c, double position, float *table) {
    double step = bp_log((double)c->rope_theta) * 2.0 / (double)c->head_dim;
    for (size_t j = 0; j < c->head_dim / 2; j++) {
        double angle = position * bp_exp(-step * (double)j), sine, cosine;
        if (c->rope_freqs) angle /= (double)c->rope_freqs[j];
        bp_sincos(angle, &sine, &cosine);
        table[2 * j] = (float)cosine;
        table[2 * j + 1] = (float)sine;
    }
}

/* Once per pass, for all layers and heads. */
static void rope_table(const span *sp) {
    size_t first, end;
    own_items(sp, sp->n, &first, &end);
    for (size_t i = sp->first + first; i < sp->first + end; i++)
        session_angles(sp->c, (double)(sp->s->position + i), sp->s->rope + i * sp->c->head_dim);
}

/* own->x[i] = norm(stream) for my tokens; every member of a row team computes all of them, which is cheaper than to
 * meet */
static const float *normalise(const span *sp, const float *weight) {
    for (size_t i = 0; i < sp->n; i++)
        sp->s->kernels->rmsnorm(sp->own->x + i * sp->d, sp->s->stream + (sp->first + i) * sp->d, weight, sp->c->d_model,
                                sp->c->norm_eps);
    profile_mark(sp->work.profile, PROFILE_NORMS);
    return sp->own->x;
}

static void project_qkv(const span *sp, const model_layer *l) {
    session *s = sp->s;
    const linear *ws[] = {&l->q, &l->k, &l->v};
    float *ys[] = {s->q + sp->first * sp->q, s->key + sp->first * sp->kv, s->value + sp->first * sp->kv};
    linears(sp, ys, ws, l->q.split[0] ? 1 : 3, normalise(sp, l->attn_norm), sp->d, false);
    meet(sp, &sp->rows);
}

void session_rotate(float *x, const float *table, size_t head_dim, bool interleaved) {
    size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j++) {
        float *a = interleaved ? x + 2 * j : x + j, *b = interleaved ? a + 1 : a + half;
        float cosine = table[2 * j], sine = table[2 * j + 1], even = *a, odd = *b;
        *a = even * cosine - odd * sine;
        *b = even * sine + odd * cosine;
    }
}

static void project_out(const span *sp, const model_layer *l, const float *attended) {
    size_t width = (size_t)sp->c->n_heads * sp->c->head_dim;
    const linear *ws[] = {&l->o};
    float *ys[] = {sp->s->stream + sp->first * sp->d};
    linears(sp, ys, ws, 1, attended, width, true);
    meet(sp, &sp->rows);
}

static void feed_forward(const span *sp, const model_layer *l) {
    session *s = sp->s;
    const linear *in[] = {&l->gate, &l->up}, *out[] = {&l->down};
    float *hidden[] = {s->gate + sp->first * sp->ff, s->up + sp->first * sp->ff};
    bool fused = l->gate.split[0] > 0;
    linears(sp, hidden, in, fused ? 1 : 2, normalise(sp, l->ffn_norm), sp->d, false);
    if (fused) meet(sp, &sp->rows);
    size_t first, end;
    linear_share(&sp->rows, sp->c->d_ff, &first, &end); /* not fused: the rows that I have just computed */
    for (size_t i = 0; i < sp->n; i++) {
        float *gate = hidden[0] + i * sp->ff, *up = hidden[1] + i * sp->ff;
        s->kernels->swiglu(gate + first, gate + first, up + first, end - first);
    }
    profile_mark(sp->work.profile, PROFILE_NORMS);
    meet(sp, &sp->rows);
    float *ys[] = {s->stream + sp->first * sp->d};
    linears(sp, ys, out, 1, hidden[0], sp->ff, true);
    meet(sp, &sp->rows);
}

/* Logits of tokens [from, from + n), n <= KERNEL_LANES, by everyone: the head has rows enough for all. */
static void head_rows(const span *sp, size_t from, size_t n) {
    const model *m = sp->s->model;
    profile *time = sp->work.profile;
    if (time) time->head = true;
    for (size_t i = 0; i < n; i++)
        sp->s->kernels->rmsnorm(sp->own->x + i * sp->d, sp->s->stream + (from + i) * sp->d, m->out_norm, sp->c->d_model,
                                sp->c->norm_eps);
    const linear *ws[] = {&m->head};
    float *ys[] = {sp->s->logits};
    linear_forward(sp->everyone, &sp->own->work, ys, ws, 1, sp->own->x, sp->d, n, false);
    if (time) time->head = false;
    meet(sp, sp->everyone);
}

/* ---- the likeliest tokens, again ----
 *
 * A head of bit planes rounds its input; in the embedded model that moves logits by .08 (root mean square) and changes
 * the first of them at one position in thirty. So the logits of all tokens at least e^-NEAR as likely as the first are
 * computed again from the input itself. Where these are too many, because a model tells little, the distance is halved. */
#define NEAR 4.0f
enum { MOST_NEAR = 64, HALVINGS = 6, SCAN = 16 };

static bool any_above(const float *x, float limit) {
    int32_t any = 0;
    for (int j = 0; j < SCAN; j++) any |= x[j] >= limit;
    return any;
}

/* ids <- where x >= limit; returns how many, or MOST_NEAR + 1 where they are more than MOST_NEAR */
static size_t find_above(uint32_t *ids, const float *x, size_t n, float limit) {
    size_t found = 0;
    for (size_t i = 0; i < n; i += SCAN) {
        if (i + SCAN <= n && !any_above(x + i, limit)) continue;
        for (size_t j = i; j < bp_min(i + SCAN, n); j++) {
            if (!(x[j] >= limit)) continue;
            if (found == MOST_NEAR) return MOST_NEAR + 1;
            ids[found++] = (uint32_t)j;
        }
    }
    return found;
}

/* logits [vocab] of the normed state x [d_model] */
static void rescore(const session *s, const linear_work *work, const float *x, float *logits) {
    const linear *head = &s->model->head;
    uint32_t ids[MOST_NEAR];
    if (!head->planes.bytes) return;
    const float top = sampler_best(logits, head->n);
    if (!(top < __builtin_inff())) return;
    size_t n = MOST_NEAR + 1;
    float near = NEAR;
    for (int i = 0; i < HALVINGS && n > MOST_NEAR; i++, near *= 0.5f) n = find_above(ids, logits, head->n, top - near);
    for (size_t i = 0; n <= MOST_NEAR && i < n; i++) logits[ids[i]] = linear_dot(work, head, ids[i], x);
}

/* The rows of a block are shared out: what is done with one needs only its own logits. */
static void wanted_rows(const span *sp, const pass *p) {
    size_t vocab = sp->c->vocab, stride = padded(vocab);
    for (size_t from = 0; from < p->rows; from += KERNEL_LANES) {
        size_t n = bp_min(p->rows - from, KERNEL_LANES);
        head_rows(sp, from, n);
        for (size_t i = sp->everyone->index; i < n; i += sp->everyone->count) {
            float *logits = sp->s->logits + i * stride;
            rescore(sp->s, &sp->work, sp->own->x + i * sp->d, logits);
            if (p->all) memcpy(p->all + (from + i) * vocab, logits, vocab * sizeof(float));
            if (p->scores) p->scores[from + i] = sampler_logprob(logits, vocab, p->next[from + i]);
        }
        profile_mark(sp->work.profile, PROFILE_SAMPLING);
        meet(sp, sp->everyone);
    }
}

static void run(void *context, const team *t) {
    const pass *p = context;
    span sp = span_make(p, t);
    if (t->index) profile_start(sp.work.profile);
    if (p->from == 0) {
        embed(&sp, p->ids);
        rope_table(&sp);
        profile_mark(sp.work.profile, PROFILE_EMBEDDING);
        meet(&sp, &sp.rows);
    }
    for (uint32_t i = p->from; i < p->to; i++) {
        const model_layer *l = &p->s->model->layers[i];
        project_qkv(&sp, l);
        project_out(&sp, l, session_attend(&sp, l, i));
        feed_forward(&sp, l);
    }
    if (!p->rows) return;
    if (sp.rows.count != t->count) meet(&sp, t); /* tokens were split, rows of the head are everybody's */
    wanted_rows(&sp, p);
}

static void run_head(void *context, const team *t) {
    const pass *p = context;
    span sp = span_make(p, t);
    if (t->index) profile_start(sp.work.profile);
    head_rows(&sp, p->s->last, 1);
    if (t->index) return;
    if (sp.work.profile) sp.work.profile->head = true;
    rescore(p->s, &sp.work, sp.own->x, p->s->logits);
    profile_mark(sp.work.profile, PROFILE_LOOKUPS);
    if (sp.work.profile) sp.work.profile->head = false;
}

/* What the caller's thread does beside its share is starting the others and waiting for them. */
static void run_team(pass *p, void (*fn)(void *context, const team *t)) {
    profile *time = p->s->threads[0].work.profile;
    profile_start(time);
    pool_run(p->s->pool, fn, p);
    profile_mark(time, PROFILE_BARRIERS);
}

static void append(session *s, size_t n) {
    s->position += (uint32_t)n;
    s->last = (uint32_t)n - 1;
    s->has_logits = false;
    s->begun = 0;
}

static void forward(pass *p) {
    session *s = p->s;
    p->to = s->model->config.n_layers;
    run_team(p, run);
    memcpy(s->ids + s->position, p->ids, p->n * sizeof *p->ids);
    append(s, p->n);
}

void session_forward_begin(session *s, const int32_t *ids, size_t n) {
    session_rewind(s, s->position); /* the last token's row of the residual stream goes */
    memcpy(s->ids + s->position, ids, n * sizeof *ids);
    s->begun = (uint32_t)n;
    s->begun_tier = s->model->tier;
    s->layer = 0;
}

uint32_t session_forward_on(session *s, uint32_t layers) {
    const uint32_t all = s->model->config.n_layers;
    if (!s->begun) return 0;
    if (s->begun_tier != s->model->tier) s->layer = 0; /* all layers of one tier */
    s->begun_tier = s->model->tier;
    pass p = {.s = s, .ids = s->ids + s->position, .n = s->begun, .from = s->layer};
    s->layer = p.to = p.from + (uint32_t)bp_min(layers, all - p.from);
    run_team(&p, run);
    if (s->layer == all) append(s, p.n);
    return all - s->layer;
}

void session_forward(session *s, const int32_t *ids, size_t n, float *all) {
    forward(&(pass){.s = s, .ids = ids, .n = n, .rows = all ? n : 0, .all = all});
}

void session_forward_scores(session *s, const int32_t *ids, size_t n, const int32_t *next, size_t n_next,
                            float *scores) {
    forward(&(pass){.s = s, .ids = ids, .n = n, .rows = n_next, .next = next, .scores = scores});
}

const float *session_hidden(session *s, size_t row) {
    const model *m = s->model;
    const float *stream = s->stream + row * padded(m->config.d_model);
    s->kernels->rmsnorm(s->threads[0].x, stream, m->out_norm, m->config.d_model, m->config.norm_eps);
    return s->threads[0].x;
}

const float *session_last_logits(session *s) {
    if (s->last == UINT32_MAX) return NULL;
    pass p = {.s = s, .n = 1};
    if (!s->has_logits) run_team(&p, run_head);
    s->has_logits = true;
    return s->logits;
}
