/* sampler.h - logits -> the next token. Deterministic: the same options, seed and logits give the same token on every
 * machine (own exp, own random numbers). */
#ifndef BP_SAMPLER_H
#define BP_SAMPLER_H

#include "arena.h"
#include "base.h"
#include "err.h"

typedef struct {
    float temperature;    /* 0: greedy (lowest id among equal logits); 0..100 */
    uint32_t top_k;       /* keep the k most likely; 0: all */
    float top_p;          /* keep the smallest set whose probability reaches p; 1: all; (0, 1] */
    float min_p;          /* drop tokens below min_p times the most likely one's probability; 0: none; [0, 1] */
    float repeat_penalty; /* > 0; logits of recent tokens are divided (if positive) or multiplied by it; 1: off */
    uint32_t repeat_last; /* how many recent tokens count, at most SAMPLER_WINDOW */
    uint64_t seed;
} sampler_options;

enum { SAMPLER_WINDOW = 1024 };

typedef struct sampler sampler;

/* temperature 0.7, top_k 40, top_p 0.95, min_p 0.05, repeat_penalty 1, repeat_last 64, seed 0 */
sampler_options sampler_defaults(void);

/* BP_ERR_ARGUMENT names the first option that is out of range or not a number. */
bool sampler_check(const sampler_options *o, bp_err *e);

sampler *sampler_layout(arena *a, size_t vocab);
void sampler_reset(sampler *s, const sampler_options *o);

/* Picks from logits [vocab]; they are changed in place. recent [n_recent]: the tokens so far, of which the last
 * repeat_last are penalised. NaN counts as -inf; all -inf gives token 0. */
int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n_recent);

#endif
