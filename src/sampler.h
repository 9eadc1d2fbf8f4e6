/* sampler.h - logits -> the next token. Deterministic: the same options, seed and logits give the same token on every
 * machine (own exp, own random numbers).
 *
 * The steps, in the order of llama.cpp's default chain:
 *
 *     logit bias -> repeat, frequency and presence penalties -> top-k -> typical-p -> top-p -> min-p -> temperature -> draw
 *
 * So what is cut off does not depend on the temperature, and each step renormalises over what the one before has left.
 * Temperature 0 takes the most likely token after bias and penalties, and nothing is drawn. */
#ifndef BP_SAMPLER_H
#define BP_SAMPLER_H

#include "arena.h"
#include "base.h"
#include "err.h"

/* Added to the logit of one token: finite, or -infinity, which bans it. */
typedef struct {
    int32_t id;
    float bias;
} sampler_bias;

typedef struct {
    float temperature;    /* logits are divided by it; 0: greedy (lowest id among equal logits); 0..100 */
    uint32_t top_k;       /* keep the k most likely; 0: all */
    float typical_p;      /* keep the smallest set of tokens whose information -ln p is nearest to the entropy and whose
                                probability reaches p (Meister et al. 2022); 1: all; (0, 1] */
    float top_p;          /* keep the smallest set of the most likely whose probability reaches p; 1: all; (0, 1] */
    float min_p;          /* drop tokens below min_p times the most likely one's probability; 0: none; [0, 1] */
    float repeat_penalty; /* > 0; logits of recent tokens are divided (if positive) or multiplied by it; 1: off */
    float frequency_penalty;  /* times the number of a token's recent occurrences is subtracted; -100..100, 0: off */
    float presence_penalty;   /* is subtracted from each recent token's logit; -100..100, 0: off */
    uint32_t repeat_last;     /* how many tokens are recent to the three penalties, at most SAMPLER_WINDOW */
    uint32_t n_bias;          /* at most SAMPLER_BIASES */
    const sampler_bias *bias; /* [n_bias], copied by whoever keeps the options; a token named twice gets both */
    uint64_t seed;
} sampler_options;

enum { SAMPLER_WINDOW = 1024, SAMPLER_BIASES = 1024 };

typedef struct sampler sampler;

/* temperature 0.7, top_k 40, typical_p 1, top_p 0.95, min_p 0.05, no penalties (repeat_penalty 1, the others 0),
 * repeat_last 64, no bias, seed 0 */
sampler_options sampler_defaults(void);

/* BP_ERR_ARGUMENT names the first option that is out of range, not a number, or a token outside the vocabulary. */
bool sampler_check(const sampler_options *o, size_t vocab, bp_err *e);

sampler *sampler_layout(arena *a, size_t vocab);

/* Takes options that were checked and restarts the random numbers at their seed. */
void sampler_reset(sampler *s, const sampler_options *o);

/* The options in use (their bias is the sampler's own copy), and the state of the random numbers; sampler_resume goes
 * on from such a pair. */
const sampler_options *sampler_current(const sampler *s, uint64_t *random);
void sampler_resume(sampler *s, const sampler_options *o, uint64_t random);

/* Picks from logits [vocab]; they are changed in place. recent [n_recent]: the tokens so far, of which the last
 * repeat_last are penalised. NaN counts as -inf; all -inf gives token 0. Tokens e^-30 less likely than the best one are
 * never drawn: together they are below any probability that a vocabulary can show. */
int32_t sampler_pick(sampler *s, float *logits, const int32_t *recent, size_t n_recent);

/* The largest of x [n]; NaN is none, -inf where nothing is left. */
float sampler_best(const float *x, size_t n);

/* ln softmax(logits)[id] of logits [vocab], at temperature 1; NaN counts as -inf; infinite ones share all probability. Absolute error below 1e-5 plus one
 * float32 rounding. */
float sampler_logprob(const float *logits, size_t vocab, int32_t id);

typedef struct {
    int32_t id;
    float logprob;
} sampler_alternative;

/* out [n] <- the n most likely tokens of logits [vocab], best first, lower id first among equals; n <= vocab. NaN has
 * no place: where fewer than n are numbers, the rest has id -1 and logprob -inf. */
void sampler_alternatives(sampler *s, const float *logits, size_t n, sampler_alternative *out);

#endif
