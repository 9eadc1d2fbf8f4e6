#include "eval/zeroshot.h"

#include <math.h>
#include <stdlib.h>

#include "eval/logits.h"
#include "generate.h"

/* Context and choice as tokens. */
typedef struct {
    int32_t *ids;
    size_t n;
    size_t split; /* tokens before the first scored one: 1..n-1 */
} sequence;

typedef struct {
    bp_model *model;
    bp_session *session;
    workers *workers;
    size_t vocab, batch, ctx;
    float *logits; /* [batch][vocab] */
    double *log_p; /* [batch] of the token that follows each row */
    const int32_t *next;
    uint64_t tokens, cut;
} scorer;

/* ---- tokens ----------------------------------------------------------------------------------------------------- */

static size_t common(const sequence *a, const sequence *b) {
    size_t n = 0, most = bp_min(a->n, b->n);
    while (n < most && a->ids[n] == b->ids[n]) n++;
    return n;
}

static bool tokenize(sequence *q, const bp_model *model, const char *context, const char *choice, bp_err *e) {
    sequence alone = {0};
    text whole = {0};
    text_append_string(&whole, context);
    text_append_string(&whole, " ");
    text_append_string(&whole, choice);
    if (whole.lost) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for a question");
    q->ids = generate_tokenize(model, whole.bytes, whole.size, BP_TOKENIZE_BOS, &q->n, e);
    if (q->ids) alone.ids = generate_tokenize(model, context, strlen(context), BP_TOKENIZE_BOS, &alone.n, e);
    text_free(&whole);
    if (!alone.ids) return false;
    q->split = common(&alone, q);
    free(alone.ids);
    if (q->n < 2) return bp_fail(e, BP_ERR_ARGUMENT, 0, "a question of %zu tokens: at least 2 are needed", q->n);
    q->split = bp_max(1, bp_min(q->split, q->n - 1));
    return true;
}

/* All choices after one context are scored from the same token on. */
static void align_splits(sequence *q, const task_row *row) {
    for (size_t c = 0; c < row->n; c++)
        for (size_t d = 0; d < row->n; d++)
            if (strcmp(row->context[c], row->context[d]) == 0) q[c].split = bp_min(q[c].split, q[d].split);
}

/* Drops tokens from the left of all choices alike until the longest fits (its last token is never fed). */
static bool cut_to_fit(scorer *s, sequence *q, size_t n, bp_err *e) {
    size_t longest = 0, shortest = SIZE_MAX;
    for (size_t c = 0; c < n; c++) {
        longest = bp_max(longest, q[c].n - 1);
        shortest = bp_min(shortest, q[c].split);
    }
    if (longest <= s->ctx) return true;
    size_t drop = longest - s->ctx;
    if (drop >= shortest)
        return bp_fail(e, BP_ERR_CONTEXT, 0, "a choice does not fit into a context of %zu tokens", s->ctx);
    for (size_t c = 0; c < n; c++) {
        q[c].n -= drop;
        q[c].split -= drop;
        memmove(q[c].ids, q[c].ids + drop, q[c].n * sizeof *q[c].ids);
    }
    s->cut++;
    return true;
}

/* ---- one row ---------------------------------------------------------------------------------------------------- */

static void score_position(void *context, size_t row, uint32_t worker) {
    (void)worker;
    scorer *s = context;
    const float *x = s->logits + row * s->vocab;
    s->log_p[row] = (double)x[s->next[row]] - logits_log_sum(x, s->vocab);
}

/* Feeds tokens [from, n - 1) of a choice and adds ln p of those that follow positions from split - 1 on. */
static bool score_rest(scorer *s, const sequence *q, size_t from, double *sum, bp_err *e) {
    size_t first = bp_max(from, q->split - 1);
    if (!bp_session_rewind(s->session, (uint32_t)from, e)) return false;
    if (first > from && !bp_session_feed(s->session, q->ids + from, first - from, e)) return false;
    for (size_t i = first; i + 1 < q->n; i += s->batch) {
        size_t rows = bp_min(s->batch, q->n - 1 - i);
        if (!bp_session_feed_all(s->session, q->ids + i, rows, s->logits, e)) return false;
        s->next = q->ids + i + 1;
        workers_for(s->workers, rows, score_position, s);
        for (size_t r = 0; r < rows; r++) *sum += s->log_p[r];
    }
    s->tokens += q->n - 1 - from;
    return true;
}

/* What all choices begin with is read once; the logits after it serve the first token of each choice. */
static bool score_sequences(scorer *s, const sequence *q, size_t n, double *sums, bp_err *e) {
    size_t shared = q[0].split;
    for (size_t c = 0; c < n; c++) shared = bp_min(shared, bp_min(common(&q[0], &q[c]), q[c].split));
    if (!bp_session_rewind(s->session, 0, e)) return false;
    if (shared && !bp_session_feed(s->session, q[0].ids, shared, e)) return false;
    s->tokens += shared;
    const float *x = shared ? bp_session_logits(s->session) : NULL;
    double log_sum = x ? logits_log_sum(x, s->vocab) : 0;
    for (size_t c = 0; c < n; c++) sums[c] = x && q[c].split == shared ? (double)x[q[c].ids[shared]] - log_sum : 0;
    for (size_t c = 0; c < n; c++)
        if (q[c].n - 1 > shared && !score_rest(s, &q[c], shared, &sums[c], e)) return false;
    return true;
}

static bool score_row(scorer *s, const task_row *row, double *sums, bp_err *e) {
    sequence q[TASKS_CHOICES] = {0};
    bool ok = true;
    for (size_t c = 0; ok && c < row->n; c++) ok = tokenize(&q[c], s->model, row->context[c], row->choice[c], e);
    if (ok) align_splits(q, row);
    ok = ok && cut_to_fit(s, q, row->n, e) && score_sequences(s, q, row->n, sums, e);
    for (size_t c = 0; c < row->n; c++) free(q[c].ids);
    return ok;
}

/* ---- a set ------------------------------------------------------------------------------------------------------ */

static bool open_scorer(scorer *s, const zeroshot_options *o, bp_err *e) {
    bp_model_info info;
    bp_model_describe(o->model, &info);
    s->ctx = o->ctx ? o->ctx : bp_min(info.n_ctx, ZEROSHOT_CTX);
    bp_session_options session = {.n_ctx = (uint32_t)s->ctx, .kv_bits = o->kv_bits};
    s->session = bp_session_open(o->model, &session, e);
    if (!s->session) return false;
    s->vocab = info.vocab;
    s->batch = logits_batch(bp_session_chunk(s->session), s->vocab);
    s->logits = malloc(s->batch * s->vocab * sizeof *s->logits);
    s->log_p = malloc(s->batch * sizeof *s->log_p);
    return (s->logits && s->log_p) || bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the logits");
}

static void close_scorer(scorer *s) {
    bp_session_close(s->session);
    free(s->logits);
    free(s->log_p);
}

/* The first of the highest: of L(c), or of L(c) per byte. */
static size_t pick(const task_row *row, const double *sums, bool per_byte) {
    size_t best = 0;
    double top = -INFINITY;
    for (size_t c = 0; c < row->n; c++) {
        double x = per_byte ? sums[c] / (double)strlen(row->choice[c]) : sums[c];
        if (x > top) {
            top = x;
            best = c;
        }
    }
    return best;
}

static bool measure_rows(scorer *s, zeroshot *z, const zeroshot_options *o, const task_set *set, bp_err *e) {
    uint64_t right = 0, right_norm = 0;
    for (size_t i = 0; i < set->n; i++) {
        double sums[TASKS_CHOICES];
        const task_row *row = &set->rows[i];
        if (!score_row(s, row, sums, e)) return false;
        right += pick(row, sums, false) == row->gold;
        right_norm += pick(row, sums, true) == row->gold;
        double acc = (double)(set->normalised ? right_norm : right) / (double)(i + 1);
        if (o->progress && !o->progress(o->context, i + 1, set->n, acc))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
    }
    double rows = (double)set->n;
    *z = (zeroshot){.rows = set->n, .cut = s->cut, .tokens = s->tokens};
    z->acc = (double)right / rows;
    z->acc_norm = (double)right_norm / rows;
    z->acc_se = sqrt(z->acc * (1 - z->acc) / rows);
    z->acc_norm_se = sqrt(z->acc_norm * (1 - z->acc_norm) / rows);
    return true;
}

bool zeroshot_measure(zeroshot *z, const zeroshot_options *o, const task_set *set, bp_err *e) {
    scorer s = {.model = o->model, .workers = o->workers};
    *z = (zeroshot){0};
    bool ok = open_scorer(&s, o, e) && measure_rows(&s, z, o, set, e);
    close_scorer(&s);
    return ok;
}

bool zeroshot_likelihoods(double *out, const zeroshot_options *o, const task_row *row, bp_err *e) {
    scorer s = {.model = o->model, .workers = o->workers};
    bool ok = open_scorer(&s, o, e) && score_row(&s, row, out, e);
    close_scorer(&s);
    return ok;
}

double zeroshot_figure(const zeroshot *z, const task_set *set, double *se) {
    *se = set->normalised ? z->acc_norm_se : z->acc_se;
    return set->normalised ? z->acc_norm : z->acc;
}
