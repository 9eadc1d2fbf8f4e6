#include "sampler.h"

#include "mathf.h"

typedef struct {
    float logit;
    int32_t id;
} candidate;

struct sampler {
    sampler_options options;
    uint64_t random; /* state of splitmix64 */
    size_t vocab;
    candidate *candidates; /* [vocab] */
};

sampler_options sampler_defaults(void) {
    return (sampler_options){
        .temperature = 0.7f, .top_k = 40, .top_p = 0.95f, .min_p = 0.05f, .repeat_penalty = 1.0f, .repeat_last = 64};
}

bool sampler_check(const sampler_options *o, bp_err *e) {
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "temperature must be between 0 and 100");
    if (!(o->top_p > 0 && o->top_p <= 1)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "top_p must be above 0 and at most 1");
    if (!(o->min_p >= 0 && o->min_p <= 1)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "min_p must be between 0 and 1");
    if (!(o->repeat_penalty > 0 && o->repeat_penalty <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "repeat_penalty must be above 0 and at most 100");
    if (o->repeat_last > SAMPLER_WINDOW)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "repeat_last must be at most %d", SAMPLER_WINDOW);
    return true;
}

sampler *sampler_layout(arena *a, size_t vocab) {
    sampler *s = ARENA_NEW(a, sampler, 1);
    candidate *candidates = ARENA_NEW(a, candidate, vocab);
    if (!s || !candidates) return NULL;
    s->vocab = vocab;
    s->candidates = candidates;
    sampler_options defaults = sampler_defaults();
    sampler_reset(s, &defaults);
    return s;
}

void sampler_reset(sampler *s, const sampler_options *o) {
    s->options = *o;
    s->random = o->seed;
}

/* splitmix64 (Steele, Lea, Flood 2014) -> [0, 1) */
static double random_unit(sampler *s) {
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* Each distinct token of the window once (Keskar et al. 2019, "CTRL"). */
static void penalise(const sampler *s, float *logits, const int32_t *recent, size_t n) {
    if (s->options.repeat_penalty == 1.0f) return;
    for (size_t i = 0; i < n; i++) {
        int32_t id = recent[i];
        bool seen = id < 0 || (size_t)id >= s->vocab;
        for (size_t j = 0; j < i && !seen; j++) seen = recent[j] == id;
        if (!seen)
            logits[id] =
                logits[id] > 0 ? logits[id] / s->options.repeat_penalty : logits[id] * s->options.repeat_penalty;
    }
}

static int32_t most_likely(const float *logits, size_t n) {
    size_t best = 0;
    for (size_t i = 1; i < n; i++)
        if (logits[i] > logits[best] || (logits[best] != logits[best])) best = i; /* NaN never stays best */
    return logits[best] == logits[best] ? (int32_t)best : 0;
}

/* Total order: higher logit first, then lower id. */
static bool before(candidate a, candidate b) { return a.logit > b.logit || (a.logit == b.logit && a.id < b.id); }

/* Restores a heap whose root is the *last* in order, after the root was replaced. */
static void sift(candidate *heap, size_t n, size_t i) {
    candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(moved, heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void sort(candidate *c, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift(c, n, i);
    for (size_t end = n; end-- > 1;) {
        candidate last = c[0];
        c[0] = c[end];
        c[end] = last;
        sift(c, end, 0);
    }
}

/* The at most `keep` best tokens, sorted. Tokens e^-30 less likely than the best one are left out: together they are
 * below any probability that a 49k vocabulary can show. */
static size_t gather(sampler *s, const float *logits, size_t keep) {
    float best = logits[most_likely(logits, s->vocab)], least = best - 30.0f * s->options.temperature;
    size_t n = 0;
    for (size_t i = 0; i < s->vocab; i++) {
        candidate c = {logits[i], (int32_t)i};
        if (!(c.logit >= least)) continue; /* NaN and -inf as well */
        if (n < keep) {
            s->candidates[n++] = c;
            if (n == keep)
                for (size_t j = n / 2; j-- > 0;) sift(s->candidates, n, j);
        } else if (before(c, s->candidates[0])) {
            s->candidates[0] = c;
            sift(s->candidates, n, 0);
        }
    }
    sort(s->candidates, n);
    return n;
}

static double weight(const sampler *s, size_t i) {
    return bp_exp(((double)s->candidates[i].logit - (double)s->candidates[0].logit) / (double)s->options.temperature);
}

/* How many of n sorted candidates top_p and min_p leave; *total is their weight. */
static size_t truncate(const sampler *s, size_t n, double *total) {
    double all = 0, kept = 0;
    for (size_t i = 0; i < n; i++) all += weight(s, i);
    size_t keep = 0;
    while (keep < n &&
           (keep == 0 || (kept < (double)s->options.top_p * all && weight(s, keep) >= (double)s->options.min_p)))
        kept += weight(s, keep++);
    *total = kept;
    return keep;
}

int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n_recent) {
    size_t window = bp_min(s->options.repeat_last, n_recent);
    if (window) penalise(s, logits, recent + (n_recent - window), window);
    if (s->options.temperature == 0) return most_likely(logits, s->vocab);
    size_t keep = s->options.top_k ? bp_min(s->options.top_k, s->vocab) : s->vocab;
    size_t n = gather(s, logits, keep);
    if (n == 0) return 0;
    double total;
    n = truncate(s, n, &total);
    double rest = random_unit(s) * total;
    for (size_t i = 0; i + 1 < n; i++)
        if ((rest -= weight(s, i)) < 0) return s->candidates[i].id;
    return s->candidates[n - 1].id;
}
