/* Options and logits of any bits: what is checked and accepted picks a token of the vocabulary that is not banned, the
 * same one for the same seed. */
#include "fuzz.h"

#include <math.h>

#include "sampler.h"

enum { VOCAB = 67, RECENT = 12, BIASES = 8, DRAWS = 1 };

static sampler *make(void) {
    static sampler *s;
    if (s) return s;
    arena a = arena_measure();
    sampler_layout(&a, VOCAB);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, a.used)) abort();
    memset(memory, 0, a.used);
    a = arena_over(memory, a.used);
    return s = sampler_layout(&a, VOCAB);
}

/* Half of the inputs begin with sensible options, of which some fields are then changed. */
static sampler_options take_options(fuzz_input *in, sampler_bias *bias) {
    sampler_options o = sampler_defaults();
    uint32_t wild = fuzz_u32(in);
    if (wild & 1) o.temperature = fuzz_f32(in);
    if (wild & 2) o.top_k = fuzz_u32(in);
    if (wild & 4) o.typical_p = fuzz_f32(in);
    if (wild & 8) o.top_p = fuzz_f32(in);
    if (wild & 16) o.min_p = fuzz_f32(in);
    if (wild & 32) o.repeat_penalty = fuzz_f32(in);
    if (wild & 64) o.frequency_penalty = fuzz_f32(in);
    if (wild & 128) o.presence_penalty = fuzz_f32(in);
    if (wild & 256) o.repeat_last = fuzz_u32(in);
    if (wild & 512) o.n_bias = fuzz_u8(in) % (BIASES + 1);
    for (uint32_t i = 0; i < o.n_bias; i++) {
        bias[i].id = wild & 1024 ? (int32_t)fuzz_u32(in) : fuzz_u8(in) % VOCAB;
        bias[i].bias = wild & 2048 ? fuzz_f32(in) : -INFINITY;
    }
    if (wild & 4096) o.n_bias = fuzz_u32(in) | SAMPLER_BIASES * 2; /* refused before any of them is read */
    o.bias = bias;
    o.seed = fuzz_take(in, 8);
    return o;
}

static bool banned(const sampler_options *o, int32_t id) {
    for (uint32_t i = 0; i < o->n_bias; i++)
        if (o->bias[i].id == id && o->bias[i].bias == -INFINITY) return true;
    return false;
}

static void take_logits(fuzz_input in, float *logits) {
    bool wild = fuzz_u8(&in) & 1;
    for (size_t i = 0; i < VOCAB; i++) logits[i] = wild ? fuzz_f32(&in) : (float)(int8_t)fuzz_u8(&in) / 8;
}

static void check_alternatives(sampler *s, const float *logits) {
    sampler_alternative best[5];
    sampler_alternatives(s, logits, 5, best);
    for (size_t i = 0; i < 5; i++) {
        LAW(best[i].id < VOCAB && !isnan(best[i].logprob) && (best[i].id >= 0 || best[i].logprob == -INFINITY));
        if (best[i].id < 0) continue;
        float logprob = sampler_logprob(logits, VOCAB, best[i].id);
        LAW(!isnan(logprob) && logprob <= 1e-4f);
        if (i) LAW(best[i].logprob <= best[i - 1].logprob);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    sampler_bias bias[BIASES];
    sampler *s = make();
    sampler_options o = take_options(&in, bias);
    bp_err e = {0};
    if (!sampler_check(&o, VOCAB, &e)) {
        fuzz_check_error(&e);
        return 0;
    }
    int32_t recent[RECENT], first[DRAWS];
    for (size_t i = 0; i < RECENT; i++) recent[i] = fuzz_u8(&in) % VOCAB;
    float logits[VOCAB];
    for (int turn = 0; turn < 2; turn++) {
        sampler_reset(s, &o);
        for (int i = 0; i < DRAWS; i++) {
            take_logits(in, logits);
            bool possible = false;
            for (int32_t id = 0; id < VOCAB; id++)
                possible |= logits[id] > -1e30f && logits[id] < 1e30f && !banned(&o, id);
            int32_t id = sampler_pick(s, logits, recent, RECENT);
            LAW(id >= 0 && id < VOCAB);
            if (possible) LAW(!banned(&o, id));
            if (turn) LAW(id == first[i]);
            first[i] = id;
        }
    }
    take_logits(in, logits);
    check_alternatives(s, logits);
    return 0;
}
