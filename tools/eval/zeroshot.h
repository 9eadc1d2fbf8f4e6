/* zeroshot.h - which continuation does a model find most likely?
 *     L(c)     = sum over the tokens of choice c of ln p(token | everything before it)
 *     acc      = share of rows where the right choice has the highest L(c)
 *     acc_norm = the same with L(c) / bytes of the choice (the space in front not counted)
 *     se       = sqrt(acc (1 - acc) / rows)
 * Context, space and choice are tokenized as one text, with BOS where the model asks for it. Scored are the tokens
 * after those that the context alone begins with, as in lm-evaluation-harness; where a token of one choice crosses the
 * border, all choices after that context are scored from there on. What choices have in common is read once. */
#ifndef BITPAIR_ZEROSHOT_H
#define BITPAIR_ZEROSHOT_H

#include "compress/workers.h"
#include "engine.h"
#include "eval/tasks.h"

enum { ZEROSHOT_CTX = 2048 };

typedef struct {
    uint64_t rows;
    uint64_t cut;    /* rows whose contexts lost their beginning, because a choice did not fit */
    uint64_t tokens; /* read by the model */
    double acc, acc_se, acc_norm, acc_norm_se;
} zeroshot;

typedef struct {
    bp_model *model;
    uint32_t ctx;     /* 2..; 0: the model's context, at most ZEROSHOT_CTX */
    uint32_t kv_bits; /* of the cache, as in bp_session_options */
    workers *workers; /* scores rows of logits in parallel; results do not depend on their number */
    bool (*progress)(void *context, uint64_t done, uint64_t total, double acc); /* rows; false stops: BP_ERR_ARGUMENT */
    void *context;
} zeroshot_options;

/* All rows of a set. BP_ERR_CONTEXT: a choice alone does not fit; BP_ERR_MEMORY; errors of the engine. */
bool zeroshot_measure(zeroshot *z, const zeroshot_options *o, const task_set *set, bp_err *e);

/* L(c) of every choice of a row; out [row->n]. Opens a session for it: for tests and single questions. */
bool zeroshot_likelihoods(double *out, const zeroshot_options *o, const task_row *row, bp_err *e);

/* The figure that a set is known by, and its standard error. */
double zeroshot_figure(const zeroshot *z, const task_set *set, double *se);

#endif
