/* grammar.h - which tokens may come next, so that the text is one of a grammar's (GBNF, as llama.cpp writes it).
 *
 * The grammar is compiled to a program over bytes (characters become their UTF-8), with calls and returns. A *state* is
 * the set of all places in it that the text so far may have led to, each with the set of places to return to. Equal
 * sets are stored once, so states can be compared and transitions remembered: what grows as the text goes on is a
 * deterministic automaton. A trie over the bytes of all tokens is walked once with it, each branch left at the first
 * byte that cannot follow, and the result is remembered per state as well.
 *
 * All memory is taken when vocabulary and grammar are opened. When the tables are full they are emptied but for the
 * state at hand; that costs time and changes no result. */
#ifndef BP_GRAMMAR_H
#define BP_GRAMMAR_H

#include "base.h"
#include "err.h"

/* Where the texts of tokens come from. */
typedef struct {
    const void *context;
    uint32_t size; /* ids are 0..size-1 */
    /* the bytes of a token, cut to capacity (may be a part of a character; none: the grammar never allows it);
     * returns how many there are */
    size_t (*text)(const void *context, int32_t id, char *out, size_t capacity);
    bool (*is_end)(const void *context, int32_t id); /* ends a turn: allowed exactly where the text may end */
} grammar_tokens;

enum { GRAMMAR_TOKEN_MOST = 512 }; /* bytes; the grammar never allows a longer token */

typedef struct grammar_vocabulary grammar_vocabulary;
typedef struct grammar grammar;

/* The trie of a vocabulary; tokens->context must outlive it. NULL with BP_ERR_MEMORY. */
grammar_vocabulary *grammar_vocabulary_open(const grammar_tokens *tokens, bp_err *e);
void grammar_vocabulary_close(grammar_vocabulary *v);

/* Compiles gbnf [n]; it stands at the beginning of the text then. The vocabulary must outlive it, gbnf need not.
 * NULL with BP_ERR_ARGUMENT ("line 3, column 7: ...", offset: the byte there) for a text that is no grammar, is left
 * recursive or beyond the limits of grammar_internal.h, BP_ERR_UNSUPPORTED when it begins in more ways than the tables
 * hold, or BP_ERR_MEMORY. */
grammar *grammar_open(const grammar_vocabulary *v, const char *gbnf, size_t n, bp_err *e);
void grammar_close(grammar *g);

/* Back to the beginning of the text; what has been learnt about states stays. */
void grammar_restart(grammar *g);

/* Appends a token to the text. BP_ERR_ARGUMENT when the grammar does not allow it, BP_ERR_UNSUPPORTED when the grammar
 * is too ambiguous here for the tables; then nothing is changed. After a token that ends a turn only such tokens may
 * follow. */
bool grammar_accept(grammar *g, int32_t id, bp_err *e);

/* May the text end here? */
bool grammar_can_end(const grammar *g);

/* The tokens that may come next: bit i % 64 of word i / 64 of the result [(size + 63) / 64]; valid until the next call
 * with this grammar. NULL with BP_ERR_UNSUPPORTED when there are none (a vocabulary without the bytes that are needed,
 * or without an end), or when the grammar is too ambiguous here for the tables. */
const uint64_t *grammar_allowed(grammar *g, bp_err *e);

#endif
