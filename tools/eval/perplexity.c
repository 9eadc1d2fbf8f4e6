#include "eval/perplexity.h"

#include <math.h>
#include <stdlib.h>

#include "mathf.h"

enum { LANES = 16, MOST_LOGITS = 1 << 24 /* floats of one batch of rows */ };

/* What one position contributes. */
typedef struct {
    double nll, kl;
    bool agree;
} row_score;

typedef struct {
    const perplexity_options *options;
    size_t vocab, batch; /* rows of logits at a time */
    bp_session *model, *teacher;
    float *logits, *taught; /* [batch][vocab] */
    row_score *scores;      /* [batch] */
    const int32_t *next;    /* [rows at hand]: the token that follows each */
} scorer;

/* ---- one row ---------------------------------------------------------------------------------------------------- */

static float highest(const float *x, size_t n, size_t *where) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (x[i] > x[best]) best = i;
    *where = best;
    return x[best];
}

/* ln sum exp(x), about the highest. 16 partial sums: a fixed order that vector units like. */
static double log_sum_exp(const float *x, size_t n, float top) {
    double sums[LANES] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) sums[i % LANES] += bp_exp((double)x[i] - (double)top);
    for (size_t i = 0; i < LANES; i++) sum += sums[i];
    return bp_log(sum) + (double)top;
}

/* sum_v p(v) (ln p(v) - ln q(v)), p from the teacher's logits, q from the model's. */
static double divergence(const float *p, double log_p, const float *q, double log_q, size_t n) {
    double sums[LANES] = {0}, sum = 0;
    for (size_t i = 0; i < n; i++) {
        double ln_p = (double)p[i] - log_p, ln_q = (double)q[i] - log_q;
        sums[i % LANES] += bp_exp(ln_p) * (ln_p - ln_q);
    }
    for (size_t i = 0; i < LANES; i++) sum += sums[i];
    return sum;
}

static void score_row(void *context, size_t row, uint32_t worker) {
    (void)worker;
    scorer *s = context;
    size_t best, taught_best;
    const float *x = s->logits + row * s->vocab;
    float top = highest(x, s->vocab, &best);
    double log_sum = log_sum_exp(x, s->vocab, top);
    s->scores[row] = (row_score){.nll = log_sum - (double)x[s->next[row]]};
    if (!s->teacher) return;
    const float *y = s->taught + row * s->vocab;
    float taught_top = highest(y, s->vocab, &taught_best);
    s->scores[row].agree = best == taught_best;
    s->scores[row].kl = divergence(y, log_sum_exp(y, s->vocab, taught_top), x, log_sum, s->vocab);
}

/* ---- windows ---------------------------------------------------------------------------------------------------- */

static bool score_batch(scorer *s, perplexity *p, const int32_t *ids, size_t n, bool last, bp_err *e) {
    if (!bp_session_feed_all(s->model, ids, n, s->logits, e)) return false;
    if (s->teacher && !bp_session_feed_all(s->teacher, ids, n, s->taught, e)) return false;
    size_t rows = n - last; /* nothing follows the last token of a window */
    s->next = ids + 1;
    workers_for(s->options->workers, rows, score_row, s);
    for (size_t i = 0; i < rows; i++) {
        char piece[256];
        p->nll += s->scores[i].nll;
        p->kl += s->scores[i].kl;
        p->top1 += s->scores[i].agree;
        p->bytes += bp_token_text(s->options->model, s->next[i], false, piece, sizeof piece);
    }
    p->scored += rows;
    p->tokens += n;
    return true;
}

static bool score_window(scorer *s, perplexity *p, const int32_t *ids, size_t n, uint64_t total, bp_err *e) {
    const perplexity_options *o = s->options;
    if (!bp_session_rewind(s->model, 0, e) || (s->teacher && !bp_session_rewind(s->teacher, 0, e))) return false;
    for (size_t i = 0; i < n; i += s->batch) {
        size_t rows = bp_min(s->batch, n - i);
        if (!score_batch(s, p, ids + i, rows, i + rows == n, e)) return false;
        if (o->progress && !o->progress(o->context, p->tokens, total, p->scored ? p->nll / (double)p->scored : 0))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
    }
    return true;
}

static bool measure_windows(scorer *s, perplexity *p, const int32_t *ids, size_t n, bp_err *e) {
    size_t window = bp_min(s->options->ctx, n), count = n / window;
    for (size_t i = 0; i < count; i++)
        if (!score_window(s, p, ids + i * window, window, count * window, e)) return false;
    double scored = (double)p->scored;
    p->bits_per_byte = p->bytes ? p->nll / 0.6931471805599453 / (double)p->bytes : 0;
    p->nll /= scored;
    p->ppl = exp(p->nll);
    p->kl /= scored;
    p->top1 /= scored;
    return true;
}

static bool open_scorer(scorer *s, const perplexity_options *o, bp_err *e) {
    bp_model_info info, teacher;
    bp_model_describe(o->model, &info);
    if (o->teacher) bp_model_describe(o->teacher, &teacher);
    if (o->teacher && teacher.vocab != info.vocab)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the teacher's vocabulary has %u tokens, the model's %u", teacher.vocab,
                       info.vocab);
    bp_session_options session = {.n_ctx = o->ctx};
    s->model = bp_session_open(o->model, &session, e);
    if (s->model && o->teacher) s->teacher = bp_session_open(o->teacher, &session, e);
    if (!s->model || (o->teacher && !s->teacher)) return false;
    s->vocab = info.vocab;
    s->batch = bp_max(1, bp_min(bp_session_chunk(s->model), MOST_LOGITS / s->vocab));
    s->logits = malloc(s->batch * s->vocab * sizeof *s->logits);
    s->taught = malloc(o->teacher ? s->batch * s->vocab * sizeof *s->taught : 1);
    s->scores = malloc(s->batch * sizeof *s->scores);
    return (s->logits && s->taught && s->scores) || bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the logits");
}

bool perplexity_measure(perplexity *p, const perplexity_options *o, const int32_t *ids, size_t n, bp_err *e) {
    scorer s = {.options = o};
    *p = (perplexity){0};
    bool ok = n >= 2 && o->ctx >= 2;
    if (!ok) bp_fail(e, BP_ERR_ARGUMENT, 0, "the text has %zu tokens; at least 2 are needed", n);
    ok = ok && open_scorer(&s, o, e) && measure_windows(&s, p, ids, n, e);
    bp_session_close(s.model);
    bp_session_close(s.teacher);
    free(s.logits);
    free(s.taught);
    free(s.scores);
    return ok;
}
