/* The sampler: the frequencies of many draws against the definition of each step; --bench: what a pick costs. */
#include "check.h"

#include <math.h>

#include "platform.h"
#include "sampler.h"

enum { VOCAB = 1000, DRAWS = 20000, TRIES = 4000 };

static sampler *sampler_new(size_t vocab) {
    arena a = arena_measure();
    sampler_layout(&a, vocab);
    a = arena_over(platform_alloc(a.used), a.used);
    return sampler_layout(&a, vocab);
}

/* logits ln(p): token i < 4 has probability .4 .3 .2 .1, the others next to nothing */
static void fill(float *logits) {
    for (size_t i = 0; i < VOCAB; i++) logits[i] = i < 4 ? logf(0.1f * (float)(4 - i)) : -100.0f;
}

static void draw(sampler *s, const sampler_options *o, unsigned *counts) {
    float logits[VOCAB];
    memset(counts, 0, VOCAB * sizeof *counts);
    sampler_reset(s, o);
    for (int i = 0; i < DRAWS; i++) {
        fill(logits);
        counts[sampler_pick(s, logits, NULL, 0)]++;
    }
}

static const sampler_options plain = {.temperature = 1, .typical_p = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};

/* ---- the definition, in double precision and with full sorts ------------------------------------------------------ */

typedef struct {
    double logit, p, key;
    size_t id;
} token;

static int by_key(const void *a, const void *b) {
    const token *x = a, *y = b;
    if (x->key != y->key) return x->key > y->key ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static double softmax(token *t, size_t n, double temperature) {
    double most = -INFINITY, total = 0, entropy = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, t[i].logit);
    for (size_t i = 0; i < n; i++) total += t[i].p = exp((t[i].logit - most) / temperature);
    for (size_t i = 0; i < n; i++) {
        t[i].p /= total;
        if (t[i].p > 0) entropy -= t[i].p * log(t[i].p);
    }
    return entropy;
}

/* The first of t [n] by key whose probabilities reach `share`. */
static size_t reach(token *t, size_t n, double share) {
    double sum = 0;
    size_t kept = 0;
    qsort(t, n, sizeof *t, by_key);
    while (kept < n && sum < share) sum += t[kept++].p;
    return kept;
}

/* p [VOCAB] <- the probability of each token to be drawn */
static void define(const sampler_options *o, const float *logits, double *p) {
    static token t[VOCAB];
    size_t n = VOCAB;
    for (size_t i = 0; i < n; i++) t[i] = (token){(double)logits[i], 0, (double)logits[i], i};
    qsort(t, n, sizeof *t, by_key);
    if (o->top_k && o->top_k < n) n = o->top_k;
    double entropy = softmax(t, n, 1);
    for (size_t i = 0; i < n; i++) t[i].key = -fabs(-log(t[i].p) - entropy);
    if (o->typical_p < 1) n = reach(t, n, (double)o->typical_p);
    softmax(t, n, 1);
    for (size_t i = 0; i < n; i++) t[i].key = t[i].logit;
    if (o->top_p < 1) n = reach(t, n, (double)o->top_p);
    double most = 0;
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, t[i].p);
    for (size_t i = 0; i < n; i++)
        if (t[i].p >= (double)o->min_p * most) t[kept++] = t[i];
    softmax(t, kept, (double)o->temperature);
    memset(p, 0, VOCAB * sizeof *p);
    for (size_t i = 0; i < kept; i++) p[t[i].id] = t[i].p;
}

/* Pearson's statistic over tokens expected at least 5 times, the rest together, as (x - df) / sqrt(2 df). */
static double surprise(const unsigned *counts, const double *p, unsigned *impossible) {
    double x = 0, rest = 0, rest_seen = 0;
    unsigned cells = 0;
    *impossible = 0;
    for (size_t i = 0; i < VOCAB; i++) {
        double expected = p[i] * (double)TRIES;
        if (p[i] == 0) *impossible += counts[i];
        if (expected < 5) {
            rest += expected;
            rest_seen += counts[i];
            continue;
        }
        x += (counts[i] - expected) * (counts[i] - expected) / expected;
        cells++;
    }
    if (rest >= 5) {
        x += (rest_seen - rest) * (rest_seen - rest) / rest;
        cells++;
    }
    return cells < 2 ? 0 : (x - (cells - 1)) / sqrt(2.0 * (cells - 1));
}

static uint32_t lcg = 1;

static float uniform(void) { return (float)((lcg = lcg * 1664525u + 1013904223u) >> 8) / 16777216.0f; }

/* Bell-shaped logits with a few that stand out, as a model gives. */
static void make_logits(float *logits, size_t n, float spread) {
    for (size_t i = 0; i < n; i++) {
        logits[i] = -3 * spread;
        for (int j = 0; j < 6; j++) logits[i] += spread * uniform();
    }
    for (size_t i = 0; i < 5; i++) logits[(size_t)(uniform() * (float)n)] += 2 * spread;
}

static void check_definition(sampler *s) {
    static const sampler_options cases[] = {
        {.temperature = 1, .typical_p = 1, .top_p = 1},
        {.temperature = 2.5f, .typical_p = 1, .top_p = 1},
        {.temperature = 0.5f, .typical_p = 1, .top_p = 0.9f},
        {.temperature = 0.7f, .top_k = 40, .typical_p = 1, .top_p = 0.95f, .min_p = 0.05f},
        {.temperature = 1, .top_k = 7, .typical_p = 1, .top_p = 1},
        {.temperature = 1, .typical_p = 0.6f, .top_p = 1},
        {.temperature = 1.5f, .top_k = 100, .typical_p = 0.3f, .top_p = 0.8f, .min_p = 0.2f},
        {.temperature = 1, .typical_p = 0.95f, .top_p = 0.5f},
        {.temperature = 1, .typical_p = 1, .top_p = 1, .min_p = 0.1f},
        {.temperature = 1, .typical_p = 1, .top_p = 1e-6f},
    };
    float logits[VOCAB], work[VOCAB];
    double p[VOCAB];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        for (float spread = 0.3f; spread < 4; spread *= 3) {
            sampler_options o = cases[c];
            unsigned counts[VOCAB] = {0}, impossible;
            o.repeat_penalty = 1;
            o.seed = c;
            make_logits(logits, VOCAB, spread);
            define(&o, logits, p);
            sampler_reset(s, &o);
            for (int i = 0; i < TRIES; i++) {
                memcpy(work, logits, sizeof work);
                counts[sampler_pick(s, work, NULL, 0)]++;
            }
            double z = surprise(counts, p, &impossible);
            CHECK(fabs(z) < 5, "case %zu, spread %g: %.1f standard deviations off", c, (double)spread, z);
            CHECK(impossible == 0, "case %zu, spread %g: %u draws of tokens that were cut", c, (double)spread,
                  impossible);
        }
    }
}

/* Typical sampling leaves out the best token here; what is left is drawn by its own differences, however cold. */
static void check_cold_typical(sampler *s) {
    enum { HALF = (VOCAB - 1) / 2 };
    float logits[VOCAB];
    bool seen[VOCAB] = {false};
    unsigned different = 0;
    sampler_options o = plain;
    o.temperature = 0.03f;
    o.typical_p = 0.5f;
    for (o.seed = 0; o.seed < 200; o.seed++) {
        logits[0] = 0;
        for (size_t i = 1; i < VOCAB; i++) logits[i] = logf(2.333f / (1.368f * HALF)) - (i > HALF ? 1.0f : 0.0f);
        sampler_reset(s, &o);
        int32_t id = sampler_pick(s, logits, NULL, 0);
        CHECK(id >= 1 && id <= HALF, "token %d of the unlikelier half", (int)id);
        different += !seen[id];
        seen[id] = true;
    }
    CHECK(different > 20, "%u tokens of %d that are equally likely", different, HALF);
}

static void check_greedy(sampler *s) {
    float logits[VOCAB];
    sampler_options o = plain;
    o.temperature = 0;
    sampler_reset(s, &o);
    fill(logits);
    CHECK(sampler_pick(s, logits, NULL, 0) == 0, "greedy");
    fill(logits), logits[5] = logits[0];
    CHECK(sampler_pick(s, logits, NULL, 0) == 0, "lowest id among equals");
    fill(logits), logits[0] = NAN, logits[1] = -INFINITY;
    CHECK(sampler_pick(s, logits, NULL, 0) == 2, "NaN is never picked");
    o = plain, sampler_reset(s, &o);
    for (size_t i = 0; i < VOCAB; i++) logits[i] = -INFINITY;
    CHECK(sampler_pick(s, logits, NULL, 0) == 0, "nothing possible");
    fill(logits), logits[0] = NAN;
    CHECK(sampler_pick(s, logits, NULL, 0) != 0, "NaN is never drawn");
}

static void check_penalty(sampler *s) {
    float logits[VOCAB];
    sampler_options o = plain;
    o.temperature = 0, o.repeat_penalty = 3, o.repeat_last = 2;
    sampler_reset(s, &o);
    const int32_t recent[] = {2, 1, 0, 0, 3, 2, -1, VOCAB};
    fill(logits);
    CHECK(sampler_pick(s, logits, recent, 3) == 2, "the last two tokens are penalised");
    fill(logits);
    float once = logf(0.4f) * 3;
    CHECK(sampler_pick(s, logits, recent, 4) == 1 && logits[0] == once, "a token that comes twice once only: %f",
          (double)logits[0]);
    fill(logits);
    CHECK(sampler_pick(s, logits, recent, 6) == 0, "until it is out of the window");
    fill(logits);
    CHECK(sampler_pick(s, logits, recent, 8) == 0, "ids outside the vocabulary are ignored");
    fill(logits), logits[0] = 2;
    o.repeat_penalty = 8, sampler_reset(s, &o);
    CHECK(sampler_pick(s, logits, recent, 3) == 0 && logits[0] == 0.25f, "positive logits are divided");
}

static void check_counts(sampler *s) {
    float logits[VOCAB], before[VOCAB];
    const int32_t recent[] = {3, 5, 3, 9, 3, -1, VOCAB};
    sampler_options o = plain;
    o.repeat_penalty = 2, o.frequency_penalty = 0.5f, o.presence_penalty = 0.25f, o.repeat_last = 6;
    sampler_reset(s, &o);
    for (int round = 0; round < 2; round++) { /* nothing is left over from the first */
        for (size_t i = 0; i < VOCAB; i++) before[i] = logits[i] = i % 2 ? 4 : -4;
        sampler_pick(s, logits, recent, 7);
        unsigned changed = 0;
        for (size_t i = 0; i < VOCAB; i++) changed += logits[i] != before[i];
        CHECK(changed == 3, "%u tokens changed", changed);
        CHECK(logits[3] == 2 - 2 * 0.5f - 0.25f, "two occurrences in the window: %f", (double)logits[3]);
        CHECK(logits[5] == 2 - 0.5f - 0.25f && logits[9] == 2 - 0.5f - 0.25f, "one occurrence");
    }
}

static void check_bias(sampler *s) {
    float logits[VOCAB];
    unsigned counts[VOCAB];
    const sampler_bias bias[] = {{0, -INFINITY}, {1, 1}, {1, 0.5f}, {3, 100}};
    sampler_options o = plain;
    o.bias = bias, o.n_bias = 1;
    draw(s, &o, counts);
    CHECK(counts[0] == 0 && fabs(counts[1] - 0.5 * (double)DRAWS) < 400, "a ban leaves the others as they were: %u %u",
          counts[0], counts[1]);
    o.n_bias = 3, sampler_reset(s, &o);
    fill(logits);
    sampler_pick(s, logits, NULL, 0);
    CHECK(logits[1] == logf(0.3f) + 1.5f, "twice named, both added: %f", (double)logits[1]);
    o.n_bias = 4, o.temperature = 0, sampler_reset(s, &o);
    fill(logits);
    CHECK(sampler_pick(s, logits, NULL, 0) == 3, "100 makes a token certain");
}

static void check_alternatives(void) {
    enum { LARGE = 5003 };
    static float logits[LARGE];
    static token t[LARGE];
    sampler_alternative best[LARGE];
    sampler *s = sampler_new(LARGE);
    for (float grain = 0; grain < 1; grain += 0.5f) { /* with a grain there are many ties */
        make_logits(logits, LARGE, 2);
        for (size_t i = 0; i < LARGE; i++) {
            if (grain > 0) logits[i] = grain * floorf(logits[i] / grain);
            t[i] = (token){(double)logits[i], 0, (double)logits[i], i};
        }
        softmax(t, LARGE, 1);
        qsort(t, LARGE, sizeof *t, by_key);
        for (size_t n = 1; n <= LARGE; n = n * 7 + 1) {
            unsigned wrong = 0;
            sampler_alternatives(s, logits, n, best);
            for (size_t i = 0; i < n; i++)
                wrong += best[i].id != (int32_t)t[i].id || fabs((double)best[i].logprob - log(t[i].p)) > 1e-5 ||
                         sampler_logprob(logits, LARGE, best[i].id) != best[i].logprob;
            CHECK(wrong == 0, "%u of the best %zu differ, grain %g", wrong, n, (double)grain);
        }
    }
    logits[7] = NAN, logits[8] = -INFINITY;
    CHECK(sampler_logprob(logits, LARGE, 7) == -INFINITY && sampler_logprob(logits, LARGE, 8) == -INFINITY,
          "impossible");
    CHECK(fabs((double)sampler_logprob(logits, LARGE, (int32_t)t[0].id) - log(t[0].p)) < 1e-3, "others are still well");
    platform_free(s);
}

static void check_resume(sampler *s) {
    float logits[VOCAB];
    int32_t picked[50];
    uint64_t random = 0;
    const sampler_bias bias = {2, 1};
    sampler_options o = plain, kept = plain;
    o.bias = &bias, o.n_bias = 1;
    sampler_bias copy = {0};
    sampler_reset(s, &o);
    for (int i = 0; i < 100; i++) {
        if (i == 50) {
            kept = *sampler_current(s, &random);
            copy = kept.bias[0];
            kept.bias = &copy;
        }
        fill(logits);
        int32_t id = sampler_pick(s, logits, NULL, 0);
        if (i >= 50) picked[i - 50] = id;
    }
    CHECK(copy.id == 2 && copy.bias == 1, "the options hold the bias");
    sampler_reset(s, &plain);
    sampler_resume(s, &kept, random);
    unsigned wrong = 0;
    for (int i = 0; i < 50; i++) {
        fill(logits);
        wrong += sampler_pick(s, logits, NULL, 0) != picked[i];
    }
    CHECK(wrong == 0, "%u of 50 draws differ after going on from a kept state", wrong);
}

static void check_seed(sampler *s) {
    unsigned first[VOCAB], second[VOCAB];
    sampler_options o = plain;
    draw(s, &o, first), draw(s, &o, second);
    CHECK(memcmp(first, second, sizeof first) == 0, "one seed, one sequence");
    o.seed++;
    draw(s, &o, second);
    CHECK(memcmp(first, second, sizeof first) != 0, "another seed, another sequence");
}

static void check_options(void) {
    bp_err e;
    sampler_options good = sampler_defaults();
    CHECK(sampler_check(&good, VOCAB, &e), "defaults");
    const sampler_bias outside = {VOCAB, 1}, negative = {-1, 1}, infinite = {3, INFINITY}, none = {3, NAN};
#define BAD(name, ...)                                                                                                 \
    do {                                                                                                               \
        sampler_options o = sampler_defaults();                                                                        \
        __VA_ARGS__;                                                                                                   \
        CHECK(!sampler_check(&o, VOCAB, &e) && strstr(e.text, name), "%s: %s", name, e.text);                          \
    } while (0)
    BAD("temperature", o.temperature = -1);
    BAD("temperature", o.temperature = NAN);
    BAD("typical_p", o.typical_p = 0);
    BAD("top_p", o.top_p = 0);
    BAD("min_p", o.min_p = 2);
    BAD("repeat_penalty", o.repeat_penalty = 0);
    BAD("frequency_penalty", o.frequency_penalty = NAN);
    BAD("presence_penalty", o.presence_penalty = 101);
    BAD("repeat_last", o.repeat_last = 5000);
    BAD("logit_bias", o.n_bias = SAMPLER_BIASES + 1);
    BAD("logit_bias", o.n_bias = 1; o.bias = &outside);
    BAD("logit_bias", o.n_bias = 1; o.bias = &negative);
    BAD("logit_bias", o.n_bias = 1; o.bias = &infinite);
    BAD("logit_bias", o.n_bias = 1; o.bias = &none);
#undef BAD
}

/* Microseconds of one pick from the logits of a vocabulary of 49152, best of 15. */
static void bench(void) {
    enum { LARGE = 49152 };
    static float logits[LARGE], work[LARGE];
    static int32_t recent[SAMPLER_WINDOW];
    const sampler_options defaults = sampler_defaults();
    sampler_options cases[6] = {defaults, defaults, plain, plain, plain, defaults};
    const char *const names[] = {"greedy", "defaults", "top_p alone", "typical_p alone", "nothing cut", "penalties"};
    cases[0].temperature = 0, cases[2].top_p = 0.95f, cases[3].typical_p = 0.95f;
    cases[5].repeat_penalty = 1.1f, cases[5].repeat_last = SAMPLER_WINDOW;
    sampler *s = sampler_new(LARGE);
    make_logits(logits, LARGE, 4);
    for (size_t i = 0; i < SAMPLER_WINDOW; i++) recent[i] = (int32_t)(uniform() * (float)LARGE);
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        double best = INFINITY;
        sampler_reset(s, &cases[c]);
        for (int i = 0; i < 15; i++) {
            memcpy(work, logits, sizeof work);
            double started = platform_seconds();
            sampler_pick(s, work, recent, SAMPLER_WINDOW);
            best = fmin(best, platform_seconds() - started);
        }
        printf("%-16s %8.1f us\n", names[c], 1e6 * best);
    }
    platform_free(s);
}

/* A file with infinite scales has infinite logits: they share all probability. */
static void check_infinite(void) {
    float logits[VOCAB];
    sampler_alternative best[4];
    sampler *s = sampler_new(VOCAB);
    make_logits(logits, VOCAB, 1);
    logits[9] = logits[3] = INFINITY;
    CHECK(fabs((double)sampler_logprob(logits, VOCAB, 3) + log(2)) < 1e-6, "%g",
          (double)sampler_logprob(logits, VOCAB, 3));
    CHECK(sampler_logprob(logits, VOCAB, 4) == -INFINITY, "%g", (double)sampler_logprob(logits, VOCAB, 4));
    sampler_alternatives(s, logits, 4, best);
    CHECK(best[0].id == 3 && best[1].id == 9 && best[0].logprob == best[1].logprob, "the infinite ones come first");
    CHECK(best[2].id >= 0 && best[2].logprob == -INFINITY, "nothing is left for the others");
    for (size_t i = 0; i < VOCAB; i++) logits[i] = i < VOCAB - 2 ? NAN : -INFINITY;
    sampler_alternatives(s, logits, 4, best);
    CHECK(best[1].id == VOCAB - 1 && best[2].id == -1 && best[3].logprob == -INFINITY,
          "what is no number has no place");
    platform_free(s);
}

int main(int argc, char **argv) {
    if (argc > 1 && strcmp(argv[1], "--bench") == 0) {
        bench();
        return 0;
    }
    sampler *s = sampler_new(VOCAB);
    check_definition(s);
    check_cold_typical(s);
    check_greedy(s);
    check_penalty(s);
    check_counts(s);
    check_bias(s);
    check_alternatives();
    check_infinite();
    check_seed(s);
    check_resume(s);
    check_options();
    platform_free(s);
    return check_end();
}
