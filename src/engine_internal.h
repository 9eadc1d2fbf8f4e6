/* engine_internal.h - what the handles of engine.h hold. */
#ifndef BP_ENGINE_INTERNAL_H
#define BP_ENGINE_INTERNAL_H

#include "engine.h"
#include "engine_grammar.h"
#include "gguf.h"
#include "session.h"
#include "tokenizer.h"

struct bp_engine {
    pool *pool;
    const kernel_table *kernels;
    const kernel_arith *arith;
};

struct bp_model {
    bp_engine *engine;
    model *model;
    tokenizer *tokenizer;
    void *memory;                   /* of the tokenizer */
    grammar_vocabulary *vocabulary; /* made with the first grammar */
};

struct bp_session {
    bp_model *model;
    session session;
    engine_grammar grammar;
    sampler *sampler;
    float *scratch; /* [vocab] logits that sampling may change */
};

/* Can ids [n] be fed? BP_ERR_CONTEXT, BP_ERR_ARGUMENT. */
bool engine_check_feed(const session *s, const int32_t *ids, size_t n, bp_err *e);

#endif
