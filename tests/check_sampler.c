/* The sampler: each option against what it promises, over many draws. */
#include "check.h"

#include <math.h>

#include "platform.h"
#include "sampler.h"

enum { VOCAB = 1000, DRAWS = 20000 };

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

static const sampler_options plain = {.temperature = 1, .top_p = 1, .repeat_penalty = 1, .seed = 7};

static void check_distribution(sampler *s) {
    unsigned counts[VOCAB];
    sampler_options o = plain;
    draw(s, &o, counts);
    for (size_t i = 0; i < 4; i++) {
        double p = 0.1 * (double)(4 - i), sigma = sqrt(DRAWS * p * (1 - p));
        CHECK(fabs(counts[i] - DRAWS * p) < 5 * sigma, "token %zu drawn %u times", i, counts[i]);
    }
    o.temperature = 0.5f; /* squares the probabilities: .16 / .30 */
    draw(s, &o, counts);
    CHECK(fabs(counts[0] - DRAWS * 0.16 / 0.30) < 400, "temperature 0.5: %u", counts[0]);
    o = plain, o.top_k = 2;
    draw(s, &o, counts);
    CHECK(counts[0] + counts[1] == DRAWS && fabs(counts[0] - DRAWS * 4.0 / 7) < 400, "top_k 2: %u %u", counts[0],
          counts[1]);
    o = plain, o.top_p = 0.65f;
    draw(s, &o, counts);
    CHECK(counts[0] + counts[1] == DRAWS && counts[1] > 0, "top_p .65 keeps .4 + .3: %u %u", counts[0], counts[1]);
    o = plain, o.min_p = 0.6f;
    draw(s, &o, counts);
    CHECK(counts[0] + counts[1] == DRAWS && counts[1] > 0, "min_p .6 keeps .4 and .3: %u %u", counts[0], counts[1]);
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
    CHECK(sampler_check(&good, &e), "defaults");
    struct {
        sampler_options o;
        const char *named;
    } bad[] = {{{.temperature = -1, .top_p = 1, .repeat_penalty = 1}, "temperature"},
               {{.temperature = NAN, .top_p = 1, .repeat_penalty = 1}, "temperature"},
               {{.top_p = 0, .repeat_penalty = 1}, "top_p"},
               {{.top_p = 1, .min_p = 2, .repeat_penalty = 1}, "min_p"},
               {{.top_p = 1, .repeat_penalty = 0}, "repeat_penalty"},
               {{.top_p = 1, .repeat_penalty = 1, .repeat_last = 5000}, "repeat_last"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(!sampler_check(&bad[i].o, &e) && strstr(e.text, bad[i].named), "%s: %s", bad[i].named, e.text);
}

int main(void) {
    sampler *s = sampler_new(VOCAB);
    check_distribution(s);
    check_greedy(s);
    check_penalty(s);
    check_seed(s);
    check_options();
    platform_free(s);
    return check_end();
}
