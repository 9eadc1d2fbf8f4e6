#include "sampler.h"

#include "mathf.h"

enum { BLOCK = 64, LANES = 16, BINS = 256 };

#define MINUS_INFINITY (-__builtin_inff())

/* rank orders a step: higher first, then lower id. p is the weight, relative to the best token's. */
typedef struct {
    float rank, p;
    int32_t id;
} candidate;

struct sampler {
    sampler_options options;
    uint64_t random; /* state of splitmix64 */
    size_t vocab;
    candidate *candidates; /* [vocab] */
    float *best;           /* [blocks] best logit of each BLOCK tokens */
    uint16_t *counts;      /* [vocab] occurrences in the window; zero between two picks */
    sampler_bias *bias;    /* [SAMPLER_BIASES] */
};

/* ---- options ---- */

sampler_options sampler_defaults(void) {
    return (sampler_options){.temperature = 0.7f,
                             .top_k = 40,
                             .typical_p = 1.0f,
                             .top_p = 0.95f,
                             .min_p = 0.05f,
                             .repeat_penalty = 1.0f,
                             .repeat_last = 64};
}

static bool check_bias(const sampler_options *o, size_t vocab, bp_err *e) {
    if (o->n_bias > SAMPLER_BIASES)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "logit_bias may name at most %d tokens, not %u", SAMPLER_BIASES,
                       (unsigned)o->n_bias);
    for (uint32_t i = 0; i < o->n_bias; i++) {
        if (o->bias[i].id < 0 || (size_t)o->bias[i].id >= vocab)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "logit_bias: token id %d is outside the vocabulary of %zu",
                           (int)o->bias[i].id, vocab);
        if (!(o->bias[i].bias < -MINUS_INFINITY))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "logit_bias of token %d must be finite, or -infinity to ban it",
                           (int)o->bias[i].id);
    }
    return true;
}

bool sampler_check(const sampler_options *o, size_t vocab, bp_err *e) {
    if (!(o->temperature >= 0 && o->temperature <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "temperature must be between 0 and 100");
    if (!(o->typical_p > 0 && o->typical_p <= 1))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "typical_p must be above 0 and at most 1");
    if (!(o->top_p > 0 && o->top_p <= 1)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "top_p must be above 0 and at most 1");
    if (!(o->min_p >= 0 && o->min_p <= 1)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "min_p must be between 0 and 1");
    if (!(o->repeat_penalty > 0 && o->repeat_penalty <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "repeat_penalty must be above 0 and at most 100");
    if (!(o->frequency_penalty >= -100 && o->frequency_penalty <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "frequency_penalty must be between -100 and 100");
    if (!(o->presence_penalty >= -100 && o->presence_penalty <= 100))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "presence_penalty must be between -100 and 100");
    if (o->repeat_last > SAMPLER_WINDOW)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "repeat_last must be at most %d", SAMPLER_WINDOW);
    return check_bias(o, vocab, e);
}

/* ---- state ---- */

sampler *sampler_layout(arena *a, size_t vocab) {
    sampler *s = ARENA_NEW(a, sampler, 1);
    candidate *candidates = ARENA_NEW(a, candidate, vocab);
    float *best = ARENA_NEW(a, float, bp_ceil_div(vocab, BLOCK));
    uint16_t *counts = ARENA_NEW(a, uint16_t, vocab);
    sampler_bias *bias = ARENA_NEW(a, sampler_bias, SAMPLER_BIASES);
    if (!s || !candidates || !best || !counts || !bias) return NULL;
    memset(counts, 0, vocab * sizeof *counts); /* they are zero between two picks */
    *s = (sampler){.vocab = vocab, .candidates = candidates, .best = best, .counts = counts, .bias = bias};
    sampler_options defaults = sampler_defaults();
    sampler_reset(s, &defaults);
    return s;
}

void sampler_resume(sampler *s, const sampler_options *o, uint64_t random) {
    if (o->n_bias) memmove(s->bias, o->bias, o->n_bias * sizeof *s->bias);
    s->options = *o;
    s->options.bias = s->bias;
    s->random = random;
}

void sampler_reset(sampler *s, const sampler_options *o) { sampler_resume(s, o, o->seed); }

const sampler_options *sampler_current(const sampler *s, uint64_t *random) {
    *random = s->random;
    return &s->options;
}

/* splitmix64 (Steele, Lea, Flood 2014) -> [0, 1) */
static double random_unit(sampler *s) {
    uint64_t z = s->random += 0x9e3779b97f4a7c15u;
    z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
    z = (z ^ z >> 27) * 0x94d049bb133111ebu;
    return (double)((z ^ z >> 31) >> 11) * 0x1p-53;
}

/* ---- bias and penalties ---- */

static void add_bias(const sampler *s, float *logits) {
    for (uint32_t i = 0; i < s->options.n_bias; i++) logits[s->bias[i].id] += s->bias[i].bias;
}

/* repeat_penalty counts a token once, however often it occurs (Keskar et al. 2019, "CTRL"). */
static void penalise(const sampler *s, float *logits, const int32_t *recent, size_t n) {
    const sampler_options *o = &s->options;
    if (o->repeat_penalty == 1.0f && o->frequency_penalty == 0.0f && o->presence_penalty == 0.0f) return;
    for (size_t i = 0; i < n; i++)
        if (recent[i] >= 0 && (size_t)recent[i] < s->vocab) s->counts[recent[i]]++;
    for (size_t i = 0; i < n; i++) {
        int32_t id = recent[i];
        if (id < 0 || (size_t)id >= s->vocab || !s->counts[id]) continue;
        float x = logits[id] > 0 ? logits[id] / o->repeat_penalty : logits[id] * o->repeat_penalty;
        logits[id] = x - (float)s->counts[id] * o->frequency_penalty - o->presence_penalty;
        s->counts[id] = 0;
    }
}

/* ---- order ---- */

static bool before(candidate a, candidate b) { return a.rank > b.rank || (a.rank == b.rank && a.id < b.id); }

/* Restores a heap whose root is the *last* in order, after entry i was replaced. */
static void sift(candidate *heap, size_t n, size_t i) {
    candidate moved = heap[i];
    for (size_t child; (child = 2 * i + 1) < n; i = child) {
        if (child + 1 < n && before(heap[child], heap[child + 1])) child++;
        if (!before(moved, heap[child])) break;
        heap[i] = heap[child];
    }
    heap[i] = moved;
}

static void make_heap(candidate *c, size_t n) {
    for (size_t i = n / 2; i-- > 0;) sift(c, n, i);
}

static void sort(candidate *c, size_t n) {
    make_heap(c, n);
    for (size_t end = n; end-- > 1;) {
        candidate last = c[0];
        c[0] = c[end];
        c[end] = last;
        sift(c, end, 0);
    }
}

/* Adds c to the at most `keep` first in order; they are a heap once there are `keep`. Returns their number. */
static size_t offer(candidate *heap, size_t n, size_t keep, candidate c) {
    if (n < keep) {
        heap[n++] = c;
        if (n == keep) make_heap(heap, n);
    } else if (before(c, heap[0])) {
        heap[0] = c;
        sift(heap, n, 0);
    }
    return n;
}

/* ---- from logits to candidates ---- */

float sampler_best(const float *x, size_t n) {
    float lane[LANES], best = MINUS_INFINITY;
    size_t i = 0;
    for (size_t j = 0; j < LANES; j++) lane[j] = MINUS_INFINITY;
    for (; i + LANES <= n; i += LANES)
        for (size_t j = 0; j < LANES; j++) lane[j] = x[i + j] > lane[j] ? x[i + j] : lane[j];
    for (; i < n; i++) best = x[i] > best ? x[i] : best;
    for (size_t j = 0; j < LANES; j++) best = lane[j] > best ? lane[j] : best;
    return best;
}

/* s->best of every block; returns the best of all. */
static float survey(sampler *s, const float *logits) {
    float best = MINUS_INFINITY;
    for (size_t b = 0; b * BLOCK < s->vocab; b++) {
        s->best[b] = sampler_best(logits + b * BLOCK, bp_min(BLOCK, s->vocab - b * BLOCK));
        best = s->best[b] > best ? s->best[b] : best;
    }
    return best;
}

static int32_t first_equal(const sampler *s, const float *logits, float best) {
    for (size_t b = 0; b * BLOCK < s->vocab; b++) {
        if (s->best[b] != best) continue;
        for (size_t i = b * BLOCK;; i++)
            if (logits[i] == best) return (int32_t)i;
    }
    return 0;
}

/* The tokens not below `least`, by id. */
static size_t gather_all(sampler *s, const float *logits, float least) {
    size_t n = 0;
    for (size_t i = 0; i < s->vocab; i++) {
        s->candidates[n] = (candidate){.rank = logits[i], .id = (int32_t)i}; /* n <= i: overwritten unless kept */
        n += logits[i] >= least;
    }
    return n;
}

/* The `keep` best tokens not below `least`, best first. The keep-th best block bounds the keep-th best token from
 * below, so only blocks that reach it are looked into. */
static size_t gather_best(sampler *s, const float *logits, size_t keep, float least) {
    size_t n = 0, blocks = bp_ceil_div(s->vocab, BLOCK);
    for (size_t b = 0; b < blocks; b++)
        n = offer(s->candidates, n, keep, (candidate){.rank = s->best[b], .id = (int32_t)b});
    if (n == keep && s->candidates[0].rank > least) least = s->candidates[0].rank;
    n = 0;
    for (size_t b = 0; b < blocks; b++) {
        if (!(s->best[b] >= least)) continue;
        for (size_t i = b * BLOCK; i < bp_min(s->vocab, (b + 1) * BLOCK); i++)
            if (logits[i] >= least) n = offer(s->candidates, n, keep, (candidate){.rank = logits[i], .id = (int32_t)i});
    }
    sort(s->candidates, n);
    return n;
}

/* p = e^((rank - best) / temperature) */
static void weigh(candidate *c, size_t n, float best, float temperature) {
    float x[BLOCK];
    for (size_t at = 0; at < n; at += BLOCK) {
        size_t m = bp_min(BLOCK, n - at);
        for (size_t j = 0; j < m; j++) x[j] = (c[at + j].rank - best) / temperature;
        bp_expf_each(x, m);
        for (size_t j = 0; j < m; j++) c[at + j].p = x[j];
    }
}

/* ---- truncation ---- */

static double total_of(const candidate *c, size_t n) {
    double total = 0;
    for (size_t i = 0; i < n; i++) total += (double)c[i].p;
    return total;
}

/* Moves the candidates of c [n] whose bin is `bin` (or below it) to the front; returns their number. */
static size_t partition(candidate *c, size_t n, float top, float scale, size_t bin, bool below) {
    size_t front = 0;
    for (size_t i = 0; i < n; i++) {
        size_t at = bp_min((size_t)((top - c[i].rank) * scale), BINS - 1);
        if (below ? at >= bin : at != bin) continue;
        candidate moved = c[front];
        c[front++] = c[i];
        c[i] = moved;
    }
    return front;
}

/* Keeps the first in order of c [n] whose weights reach `target`; returns their number. The candidates are counted into
 * bins of equal width in rank, and only the bin in which the target is met is sorted. */
static size_t reach(candidate *c, size_t n, double target) {
    double mass[BINS] = {0}, sum = 0;
    float top = c[0].rank, low = c[0].rank;
    for (size_t i = 1; i < n; i++) {
        top = c[i].rank > top ? c[i].rank : top;
        low = c[i].rank < low ? c[i].rank : low;
    }
    float scale = top - low > 1e-6f ? (float)BINS / (top - low) : 0.0f;
    for (size_t i = 0; i < n; i++) mass[bp_min((size_t)((top - c[i].rank) * scale), BINS - 1)] += (double)c[i].p;
    size_t bin = 0;
    while (bin + 1 < BINS && sum + mass[bin] < target) sum += mass[bin++];
    size_t kept = partition(c, n, top, scale, bin, true);
    size_t last = kept + partition(c + kept, n - kept, top, scale, bin, false);
    sort(c + kept, last - kept);
    while (kept < last && sum < target) sum += (double)c[kept++].p;
    return bp_max(kept, 1);
}

/* -ln p = ln total - (logit - best), and the entropy is the mean of that. */
static size_t keep_typical(candidate *c, size_t n, const float *logits, float best, float typical_p) {
    double total = total_of(c, n), mean = 0;
    for (size_t i = 0; i < n; i++) mean += (double)c[i].p / total * (double)(best - c[i].rank);
    for (size_t i = 0; i < n; i++) {
        double distance = (double)(best - c[i].rank) - mean;
        c[i].rank = (float)(distance < 0 ? distance : -distance);
    }
    n = reach(c, n, (double)typical_p * total);
    for (size_t i = 0; i < n; i++) c[i].rank = logits[c[i].id];
    return n;
}

static size_t keep_min_p(candidate *c, size_t n, float min_p) {
    float most = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) most = c[i].p > most ? c[i].p : most;
    for (size_t i = 0; i < n; i++)
        if (c[i].p >= min_p * most) c[kept++] = c[i];
    return kept;
}

static float highest(const candidate *c, size_t n) {
    float best = c[0].rank;
    for (size_t i = 1; i < n; i++) best = c[i].rank > best ? c[i].rank : best;
    return best;
}

static int32_t draw(sampler *s, const candidate *c, size_t n) {
    double rest = random_unit(s) * total_of(c, n);
    for (size_t i = 0; i + 1 < n; i++)
        if ((rest -= (double)c[i].p) < 0) return c[i].id;
    return c[n - 1].id;
}

/* ---- the chain ---- */

int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n_recent) {
    const sampler_options *o = &s->options;
    candidate *c = s->candidates;
    size_t window = bp_min(o->repeat_last, n_recent);
    add_bias(s, logits);
    if (window) penalise(s, logits, recent + (n_recent - window), window);
    float best = survey(s, logits);
    if (best == MINUS_INFINITY) return 0;
    if (o->temperature == 0 || best == -MINUS_INFINITY) return first_equal(s, logits, best);
    float least = best - 30.0f * (o->temperature > 1 ? o->temperature : 1.0f);
    size_t n = o->top_k && o->top_k < s->vocab ? gather_best(s, logits, o->top_k, least) : gather_all(s, logits, least);
    weigh(c, n, best, 1.0f);
    if (o->typical_p < 1) n = keep_typical(c, n, logits, best, o->typical_p);
    if (o->top_p < 1) n = reach(c, n, (double)o->top_p * total_of(c, n));
    if (o->min_p > 0) n = keep_min_p(c, n, o->min_p);
    if (o->temperature != 1) weigh(c, n, highest(c, n), o->temperature); /* typical_p may have left out the best */
    return draw(s, c, n);
}

/* ---- probabilities ---- */

/* logit - best, also where both are infinite */
static float below(float logit, float best) { return logit == best ? 0.0f : logit - best; }

/* ln of the sum of e^(logits - best) */
static double log_total(const float *logits, size_t vocab, float best) {
    double part[LANES] = {0}, sum = 0;
    float x[BLOCK];
    for (size_t at = 0; at < vocab; at += BLOCK) {
        size_t m = bp_min(BLOCK, vocab - at);
        for (size_t j = 0; j < m; j++) x[j] = logits[at + j] <= best ? below(logits[at + j], best) : MINUS_INFINITY;
        for (size_t j = m; j < BLOCK; j++) x[j] = MINUS_INFINITY;
        bp_expf_each(x, BLOCK);
        for (size_t i = 0; i < BLOCK; i += LANES)
            for (size_t j = 0; j < LANES; j++) part[j] += (double)x[i + j];
    }
    for (size_t j = 0; j < LANES; j++) sum += part[j];
    return bp_log(sum);
}

static float best_logit(const float *logits, size_t vocab) {
    float best = MINUS_INFINITY;
    for (size_t at = 0; at < vocab; at += BLOCK) {
        float block = sampler_best(logits + at, bp_min(BLOCK, vocab - at));
        best = block > best ? block : best;
    }
    return best;
}

static float logprob_at(float logit, float best, double total) {
    return logit > MINUS_INFINITY ? (float)((double)below(logit, best) - total) : MINUS_INFINITY;
}

float sampler_logprob(const float *logits, size_t vocab, int32_t id) {
    float best = best_logit(logits, vocab);
    return logprob_at(logits[id], best, log_total(logits, vocab, best));
}

void sampler_alternatives(sampler *s, const float *logits, size_t n, sampler_alternative *out) {
    if (n == 0) return;
    float best = survey(s, logits);
    size_t found = gather_best(s, logits, n, MINUS_INFINITY);
    double total = log_total(logits, s->vocab, best);
    for (size_t i = 0; i < n; i++)
        out[i] = i < found ? (sampler_alternative){s->candidates[i].id, logprob_at(s->candidates[i].rank, best, total)}
                           : (sampler_alternative){-1, MINUS_INFINITY};
}
