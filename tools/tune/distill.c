#include "distill.h"

#include <stdlib.h>

#include "linalg/rng.h"
#include "vector.h"

enum { CHUNK = 128, GROUP = 4 }; /* positions whose logits are at hand at once; chunks that share a gradient product */

uint64_t distiller_bytes(size_t vocab, bool gradient, uint32_t threads) {
    return sizeof(float) * CHUNK * (uint64_t)vocab * (2 * threads + (gradient ? GROUP : 0));
}

bool distiller_open(distiller *s, workers *w, product_kind kind, size_t d_model, size_t vocab, const float *teacher,
                    const float *student, float *gradient, size_t most, bp_err *e) {
    *s = (distiller){.w = w,
                     .kind = kind,
                     .d_model = d_model,
                     .vocab = vocab,
                     .teacher = teacher,
                     .student = student,
                     .gradient = gradient};
    s->logits = malloc((size_t)distiller_bytes(vocab, gradient != NULL, workers_count(w)));
    if (gradient) s->group = s->logits + 2 * CHUNK * vocab * workers_count(w);
    s->parts = malloc(bp_ceil_div(most, CHUNK) * sizeof *s->parts);
    return (s->logits && s->parts) || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for logits of %zu tokens", vocab);
}

void distiller_close(distiller *s) {
    free(s->logits);
    free(s->parts);
    *s = (distiller){0};
}

typedef struct {
    distiller *s;
    float *dx;
    const float *x, *y;
    const int32_t *ids; /* with a teacher */
    uint64_t seed;      /* without */
    size_t ctx, tokens;
    size_t first;        /* chunk of the current group */
    float scale;         /* of the gradient of one position */
    const float *labels; /* share of the words that follow in it, of each sequence; or NULL */
} pass;

static void score_position(const pass *p, distill_score *score, float *q, const float *taught, size_t t) {
    size_t vocab = p->s->vocab;
    bool followed = (t + 1) % p->ctx != 0 && t + 1 < p->tokens;
    float labels = followed && p->labels ? p->labels[t / p->ctx] : 0;
    double nll = 0;
    score->positions++;
    score->agree += vector_argmax(q, vocab) == vector_argmax(taught, vocab);
    if (followed) {
        score->scored++;
        nll = (double)(vector_log_sum_exp(q, vocab) - q[p->ids[t + 1]]);
    }
    double kl = (double)vector_distill(q, taught, 1 - labels, p->scale, vocab);
    score->kl += kl;
    score->nll += nll;
    score->loss += (1 - (double)labels) * kl + (double)labels * nll;
    if (followed) q[p->ids[t + 1]] -= p->scale * labels;
}

static void score_drawn(const pass *p, distill_score *score, float *q, size_t t) {
    size_t vocab = p->s->vocab;
    rng r = rng_named(p->seed + t, "word");
    score->positions++;
    score->scored++;
    score->nll += (double)vector_cross_entropy(q, vector_draw(q, rng_uniform(&r), vocab), p->scale, vocab);
}

/* q [count, vocab] <- the gradient of the logits of one chunk */
static void score_chunk(const pass *p, size_t item, float *q, float *taught) {
    const distiller *s = p->s;
    size_t first = item * CHUNK, count = bp_min(CHUNK, p->tokens - first), d = s->d_model, vocab = s->vocab;
    product_one(s->kind, false, true, count, vocab, d, p->x + first * d, d, s->student, d, 0, q, vocab);
    if (p->y) product_one(s->kind, false, true, count, vocab, d, p->y + first * d, d, s->teacher, d, 0, taught, vocab);
    for (size_t i = 0; i < count; i++)
        if (p->y)
            score_position(p, &s->parts[item], q + i * vocab, taught + i * vocab, first + i);
        else
            score_drawn(p, &s->parts[item], q + i * vocab, first + i);
}

/* The gradient of logits is probabilities, mostly far smaller than an integer's share of the largest beside them: each
 * alone is nothing, all of them are what pulls the other way. Floating point keeps them. */
static product_kind kind_of_gradient(const distiller *s) { return s->kind == PRODUCT_INT16 ? PRODUCT_F32 : s->kind; }

static void back_chunk(const pass *p, size_t item, const float *q) {
    const distiller *s = p->s;
    size_t first = item * CHUNK, count = bp_min(CHUNK, p->tokens - first), d = s->d_model, vocab = s->vocab;
    product_one(kind_of_gradient(s), false, false, count, d, vocab, q, vocab, s->student, d, 0, p->dx + first * d, d);
}

static void run_chunk(void *context, size_t item, uint32_t worker) {
    const pass *p = context;
    float *q = p->s->logits + 2 * CHUNK * p->s->vocab * worker;
    score_chunk(p, item, q, q + CHUNK * p->s->vocab);
    if (p->dx) back_chunk(p, item, q);
}

static void score_in_group(void *context, size_t i, uint32_t worker) {
    const pass *p = context;
    size_t logits = CHUNK * p->s->vocab;
    score_chunk(p, p->first + i, p->s->group + i * logits, p->s->logits + 2 * logits * worker);
}

static void back_in_group(void *context, size_t i, uint32_t worker) {
    const pass *p = context;
    (void)worker;
    back_chunk(p, p->first + i, p->s->group + i * CHUNK * p->s->vocab);
}

/* Chunks in groups: all logits of a group, the head's gradient from them, the way back. */
static void run_groups(pass *p, size_t chunks) {
    const distiller *s = p->s;
    size_t d = s->d_model, vocab = s->vocab;
    for (p->first = 0; p->first < chunks; p->first += GROUP) {
        size_t count = bp_min(GROUP, chunks - p->first), at = p->first * CHUNK,
               positions = bp_min(count * CHUNK, p->tokens - at);
        workers_for(s->w, count, score_in_group, p);
        product_run(s->w, kind_of_gradient(s), true, false, vocab, d, positions, s->group, vocab, p->x + at * d, d,
                    p->first > 0, s->gradient, d);
        workers_for(s->w, count, back_in_group, p);
    }
}

static void run(pass *p, distill_score *score) {
    distiller *s = p->s;
    size_t chunks = bp_ceil_div(p->tokens, CHUNK);
    memset(s->parts, 0, chunks * sizeof *s->parts);
    if (s->gradient && p->dx)
        run_groups(p, chunks);
    else
        workers_for(s->w, chunks, run_chunk, p);
    for (size_t i = 0; i < chunks; i++) {
        score->kl += s->parts[i].kl;
        score->nll += s->parts[i].nll;
        score->loss += s->parts[i].loss;
        score->positions += s->parts[i].positions;
        score->scored += s->parts[i].scored;
        score->agree += s->parts[i].agree;
    }
}

void distiller_run(distiller *s, float *dx, const float *x, const float *y, const int32_t *ids, size_t ctx,
                   size_t tokens, float weight, const float *labels, distill_score *score) {
    pass p = {.s = s,
              .dx = dx,
              .x = x,
              .y = y,
              .ids = ids,
              .ctx = ctx,
              .tokens = tokens,
              .scale = weight / (float)tokens,
              .labels = labels};
    run(&p, score);
}

void distiller_run_drawn(distiller *s, float *dx, const float *x, uint64_t seed, size_t tokens, distill_score *score) {
    pass p = {.s = s, .dx = dx, .x = x, .seed = seed, .tokens = tokens, .scale = 1 / (float)tokens};
    run(&p, score);
}
