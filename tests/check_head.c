/* The logits of a head of bit planes: those of the likeliest tokens are exact, whatever the head rounds, so the first of
 * all is the first of the exact ones. */
#include "check.h"

#include "engine_internal.h"
#include "io/source.h"

#include <math.h>

enum { NEAR_MOST = 64 };

/* Nobody knows what follows its last words. */
static const char TEXT[] =
    "The sky is blue because air scatters short waves. A list of words: xyl, Omsk, 77, flute, mauve, \"";

/* exact [vocab] <- logits of the state that the session's last ones are of */
static void exact_logits(double *exact, bp_session *s) {
    const linear *head = &s->session.model->head;
    float *row = malloc(head->m * sizeof *row);
    const float *x = session_hidden(&s->session, s->session.last);
    for (size_t i = 0; i < head->n; i++) {
        linear_row(head, i, row);
        exact[i] = 0;
        for (size_t j = 0; j < head->m; j++) exact[i] += (double)row[j] * (double)x[j];
    }
    free(row);
}

static size_t first_of(const double *exact, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (exact[i] > exact[best]) best = i;
    return best;
}

/* What was seen over all positions */
typedef struct {
    size_t many;         /* positions of more tokens near the first than are computed again */
    double far, n_far;   /* squared errors of tokens that are not */
    double largest_near; /* error of those that are */
} seen;

static void check_position(seen *all, const float *logits, const double *exact, size_t vocab) {
    const size_t first = first_of(exact, vocab);
    size_t near = 0, best = 0;
    for (size_t i = 0; i < vocab; i++) {
        near += exact[i] >= exact[first] - 3.5; /* roundings move a token by less than half */
        if (logits[i] > logits[best]) best = i;
    }
    CHECK(best == first, "token %zu of logit %f, not %zu", best, exact[best], first);
    all->many += near > NEAR_MOST;
    for (size_t i = 0; i < vocab; i++) {
        const double error = fabs((double)logits[i] - exact[i]);
        if (exact[i] < exact[first] - 4.5) {
            all->far += error * error;
            all->n_far++;
        } else if (near <= NEAR_MOST / 2 && exact[i] >= exact[first] - 3.5) {
            all->largest_near = fmax(all->largest_near, error);
        }
    }
}

int main(void) {
    source src;
    bp_err e = {0};
    CHECK(source_open(&src, BITPAIR_ROOT "/models/smollm2-135m-instruct.gguf", &e), "%s", e.text);
    bp_engine *engine = bp_engine_open(&(bp_engine_options){.threads = 1}, &e);
    bp_model *opened = bp_model_open(engine, src.bytes, src.size, &e);
    bp_session *s = opened ? bp_session_open(opened, &(bp_session_options){64, 16, 8}, &e) : NULL;
    CHECK(s, "%s", e.text);
    if (!s) return check_end();
    const size_t vocab = s->session.model->config.vocab;
    int32_t ids[128];
    const ptrdiff_t n = bp_tokenize(opened, TEXT, sizeof TEXT - 1, 0, ids, 128, &e);
    double *exact = malloc(vocab * sizeof *exact);
    seen all = {0};
    for (ptrdiff_t i = 0; i < n; i++) {
        CHECK(bp_session_feed(s, ids + i, 1, &e), "%s", e.text);
        const float *logits = bp_session_logits(s);
        exact_logits(exact, s);
        check_position(&all, logits, exact, vocab);
    }
    CHECK(n > 15 && all.many > 0 && all.many < (size_t)n, "%zu of %d positions are undecided", all.many, (int)n);
    CHECK(all.largest_near < 1e-4, "near tokens are off by %g", all.largest_near);
    const double far = sqrt(all.far / all.n_far);
    CHECK(far > 0.01 && far < 0.5, "others are off by %g, root mean square", far);
    free(exact);
    bp_session_close(s);
    bp_model_close(opened);
    bp_engine_close(engine);
    source_close(&src);
    return check_end();
}
