/* engine_grammar.h - the grammar of a session: which of its tokens are the text, and what may come next. */
#ifndef BP_ENGINE_GRAMMAR_H
#define BP_ENGINE_GRAMMAR_H

#include "grammar.h"
#include "sha256.h"
#include "tokenizer.h"

#define GRAMMAR_NOT_BEGUN UINT32_MAX

typedef struct {
    grammar *grammar;        /* NULL: none */
    uint8_t digest[32];      /* of its text, to know it again */
    uint32_t from, at;       /* the text begins at this position, and is accepted up to that one */
    bool torn;               /* a shift has dropped part of the text: it cannot be read anew */
    const uint64_t *allowed; /* tokens, as bits: of the last mask */
    uint32_t n_tokens;
} engine_grammar;

/* As bp_session_grammar. *vocabulary: that of the tokenizer, made here when it is NULL; the model's to close. */
bool engine_grammar_set(engine_grammar *c, grammar_vocabulary **vocabulary, const tokenizer *t, const char *gbnf,
                        size_t n, bp_err *e);

/* The session was rewound to a position. */
void engine_grammar_rewind(engine_grammar *c, uint32_t position);

/* `drop` tokens after the first `keep` are about to leave ids [position]. The text goes on as if they were still there;
 * a later rewind into it begins a new one. Errors as bp_session_sample. */
bool engine_grammar_shift(engine_grammar *c, const int32_t *ids, uint32_t position, uint32_t keep, uint32_t drop,
                          bp_err *e);

/* logits [vocab] of tokens that cannot follow ids [position] <- -inf. Errors as bp_session_sample; without a grammar
 * nothing is done. */
bool engine_grammar_mask(engine_grammar *c, float *logits, size_t vocab, const int32_t *ids, uint32_t position,
                         bp_err *e);

/* id, or the first allowed token if all of them had logits that no sampler takes (NaN, -inf). */
int32_t engine_grammar_choice(const engine_grammar *c, int32_t id);

#endif
