/* perplexity.h - how well models predict a text, alone or against a teacher.
 *     nll  = mean over scored positions of -ln p(next token)
 *     KL   = mean of sum_v p_teacher(v) (ln p_teacher(v) - ln p(v)), in nats, over the full distribution
 *     top1 = share of positions where both have the same most likely token
 * The tokens are cut into windows of `ctx`, each read from an empty cache, nothing put before it; its first token is
 * not scored. Several models read each window in turn, so the teacher reads it once for all of them. */
#ifndef BITPAIR_PERPLEXITY_H
#define BITPAIR_PERPLEXITY_H

#include "compress/workers.h"
#include "engine.h"

enum { PERPLEXITY_MODELS = 32 /* most models of one measurement */ };

typedef struct {
    uint64_t tokens; /* in the windows */
    uint64_t scored; /* predicted: tokens less one per window */
    uint64_t bytes;  /* of the text of the scored tokens */
    double nll, ppl, bits_per_byte;
    double kl, top1, teacher_ppl; /* with a teacher, else 0 */
} perplexity;

typedef struct {
    bp_model *const *models; /* [n_models], all of one vocabulary */
    size_t n_models;         /* 1..PERPLEXITY_MODELS */
    bp_model *teacher;       /* NULL: none; it has the vocabulary of the models, and may be one of them (read once if
                              kv_bits is the same) */
    uint32_t ctx;            /* 2.. */
    uint32_t kv_bits;        /* of the models' caches, as in bp_session_options */
    uint32_t teacher_kv_bits;
    workers *workers;        /* scores rows in parallel; results do not depend on their number */
    /* nll: of the first model so far. false stops: BP_ERR_ARGUMENT "interrupted" */
    bool (*progress)(void *context, uint64_t done, uint64_t total, double nll);
    void *context;
} perplexity_options;

/* p [n_models] <- the scores, each as if the model were measured alone. ids [n]: whole windows are used; a text
 * shorter than one window is a window of its own. Sums are taken in double in the order of the text.
 * BP_ERR_ARGUMENT: fewer than 2 tokens, vocabularies that differ; BP_ERR_MEMORY; and the errors of the engine. */
bool perplexity_measure(perplexity *p, const perplexity_options *o, const int32_t *ids, size_t n, bp_err *e);

#endif
