#include "eval/perplexity.h"

#include <math.h>
#include <stdlib.h>

#include "eval/logits.h"

/* What one position contributes. */
typedef struct {
    double nll, kl;
    bool agree;
} row_score;

/* The teacher's distribution at one position. */
typedef struct {
    double log_sum, nll;
    size_t best;
} row_lesson;

typedef struct {
    const perplexity_options *options;
    size_t vocab, batch;                   /* rows of logits at a time */
    bp_session *models[PERPLEXITY_MODELS]; /* NULL where the model is the teacher */
    bp_session *teacher;                   /* NULL: none */
    float *logits, *taught;                /* [batch][vocab] */
    const float *scored;                   /* one of the two: rows of the model at hand */
    row_score *scores;                     /* [batch] */
    row_lesson *lessons;                   /* [batch] */
    const int32_t *next;                   /* [rows at hand]: the token that follows each */
    uint64_t done, total;                  /* tokens */
} scorer;

/* ---- one row ---------------------------------------------------------------------------------------------------- */

static void learn_row(void *context, size_t row, uint32_t worker) {
    (void)worker;
    scorer *s = context;
    const float *x = s->taught + row * s->vocab;
    double log_sum = logits_log_sum(x, s->vocab);
    s->lessons[row] = (row_lesson){log_sum, log_sum - (double)x[s->next[row]], logits_best(x, s->vocab)};
}

static void score_row(void *context, size_t row, uint32_t worker) {
    (void)worker;
    scorer *s = context;
    const float *x = s->scored + row * s->vocab;
    double log_sum = logits_log_sum(x, s->vocab);
    s->scores[row] = (row_score){.nll = log_sum - (double)x[s->next[row]]};
    if (!s->teacher) return;
    const row_lesson *lesson = &s->lessons[row];
    s->scores[row].agree = logits_best(x, s->vocab) == lesson->best;
    s->scores[row].kl = logits_divergence(s->taught + row * s->vocab, lesson->log_sum, x, log_sum, s->vocab);
}

/* ---- windows ---------------------------------------------------------------------------------------------------- */

static void add_rows(const scorer *s, perplexity *p, size_t rows) {
    for (size_t i = 0; i < rows; i++) {
        char piece[256];
        p->nll += s->scores[i].nll;
        p->kl += s->scores[i].kl;
        p->top1 += s->scores[i].agree;
        p->bytes += bp_token_text(s->options->models[0], s->next[i], true, piece, sizeof piece);
        if (s->teacher) p->teacher_ppl += s->lessons[i].nll;
    }
    p->scored += rows;
}

static bool score_batch(scorer *s, perplexity *p, const int32_t *ids, size_t n, bool last, bp_err *e) {
    const perplexity_options *o = s->options;
    size_t rows = n - last; /* nothing follows the last token of a window */
    s->next = ids + 1;
    if (s->teacher && !bp_session_feed_all(s->teacher, ids, n, s->taught, e)) return false;
    if (s->teacher) workers_for(o->workers, rows, learn_row, s);
    for (size_t m = 0; m < o->n_models; m++) {
        s->scored = s->models[m] ? s->logits : s->taught;
        if (s->models[m] && !bp_session_feed_all(s->models[m], ids, n, s->logits, e)) return false;
        workers_for(o->workers, rows, score_row, s);
        add_rows(s, &p[m], rows);
        p[m].tokens += n;
    }
    s->done += n;
    if (o->progress && !o->progress(o->context, s->done, s->total, p->scored ? p->nll / (double)p->scored : 0))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
    return true;
}

static bool score_window(scorer *s, perplexity *p, const int32_t *ids, size_t n, bp_err *e) {
    if (s->teacher && !bp_session_rewind(s->teacher, 0, e)) return false;
    for (size_t m = 0; m < s->options->n_models; m++)
        if (s->models[m] && !bp_session_rewind(s->models[m], 0, e)) return false;
    for (size_t i = 0; i < n; i += s->batch) {
        size_t rows = bp_min(s->batch, n - i);
        if (!score_batch(s, p, ids + i, rows, i + rows == n, e)) return false;
    }
    return true;
}

/* Sums to means. */
static void finish(perplexity *p, bool taught) {
    double scored = (double)p->scored;
    p->bits_per_byte = p->bytes ? p->nll / 0.6931471805599453 / (double)p->bytes : 0;
    p->nll /= scored;
    p->ppl = exp(p->nll);
    p->kl /= scored;
    p->top1 /= scored;
    p->teacher_ppl = taught ? exp(p->teacher_ppl / scored) : 0;
}

static bool measure_windows(scorer *s, perplexity *p, const int32_t *ids, size_t n, bp_err *e) {
    size_t window = bp_min(s->options->ctx, n), count = n / window;
    s->total = count * window;
    for (size_t i = 0; i < count; i++)
        if (!score_window(s, p, ids + i * window, window, e)) return false;
    for (size_t m = 0; m < s->options->n_models; m++) finish(&p[m], s->teacher);
    return true;
}

/* ---- sessions --------------------------------------------------------------------------------------------------- */

static bool same_vocabulary(const perplexity_options *o, size_t *vocab, bp_err *e) {
    bp_model_info first, info;
    bp_model_describe(o->models[0], &first);
    *vocab = first.vocab;
    for (size_t m = 1; m < o->n_models; m++) {
        bp_model_describe(o->models[m], &info);
        if (info.vocab != first.vocab)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "models of one run need one vocabulary: they have %u and %u tokens",
                           first.vocab, info.vocab);
    }
    if (!o->teacher) return true;
    bp_model_describe(o->teacher, &info);
    return info.vocab == first.vocab ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "the teacher's vocabulary has %u tokens, the model's %u", info.vocab,
                   first.vocab);
}

static bool open_scorer(scorer *s, const perplexity_options *o, bp_err *e) {
    bp_session_options session = {.n_ctx = o->ctx, .kv_bits = o->kv_bits};
    bp_session_options teacher = {.n_ctx = o->ctx, .kv_bits = o->teacher_kv_bits};
    size_t chunk = SIZE_MAX;
    if (!same_vocabulary(o, &s->vocab, e)) return false;
    if (o->teacher && !(s->teacher = bp_session_open(o->teacher, &teacher, e))) return false;
    for (size_t m = 0; m < o->n_models; m++)
        if ((o->models[m] != o->teacher || o->kv_bits != o->teacher_kv_bits) &&
            !(s->models[m] = bp_session_open(o->models[m], &session, e))) return false;
    if (s->teacher) chunk = bp_session_chunk(s->teacher);
    for (size_t m = 0; m < o->n_models; m++)
        if (s->models[m]) chunk = bp_min(chunk, bp_session_chunk(s->models[m]));
    s->batch = logits_batch(chunk, s->vocab);
    s->logits = malloc(s->batch * s->vocab * sizeof *s->logits);
    s->taught = malloc(o->teacher ? s->batch * s->vocab * sizeof *s->taught : 1);
    s->scores = malloc(s->batch * sizeof *s->scores);
    s->lessons = malloc(s->batch * sizeof *s->lessons);
    return (s->logits && s->taught && s->scores && s->lessons) ||
           bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the logits");
}

static void close_scorer(scorer *s) {
    for (size_t m = 0; m < PERPLEXITY_MODELS; m++) bp_session_close(s->models[m]);
    bp_session_close(s->teacher);
    free(s->logits);
    free(s->taught);
    free(s->scores);
    free(s->lessons);
}

bool perplexity_measure(perplexity *p, const perplexity_options *o, const int32_t *ids, size_t n, bp_err *e) {
    scorer s = {.options = o};
    memset(p, 0, o->n_models * sizeof *p);
    bool ok = n >= 2 && o->ctx >= 2;
    if (!ok) bp_fail(e, BP_ERR_ARGUMENT, 0, "the text has %zu tokens; at least 2 are needed", n);
    ok = ok && open_scorer(&s, o, e) && measure_windows(&s, p, ids, n, e);
    close_scorer(&s);
    return ok;
}
