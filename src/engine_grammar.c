#include "engine_grammar.h"

static size_t token_text(const void *context, int32_t id, char *out, size_t capacity) {
    return tokenizer_piece(context, id, false, out, capacity);
}

static bool token_is_end(const void *context, int32_t id) { return tokenizer_is_end(context, id); }

static bool open_vocabulary(grammar_vocabulary **v, const tokenizer *t, bp_err *e) {
    grammar_tokens tokens = {t, tokenizer_size(t), token_text, token_is_end};
    if (!*v) *v = grammar_vocabulary_open(&tokens, e);
    return *v != NULL;
}

bool engine_grammar_set(engine_grammar *c, grammar_vocabulary **vocabulary, const tokenizer *t, const char *gbnf,
                        size_t n, bp_err *e) {
    engine_grammar next = {.from = GRAMMAR_NOT_BEGUN, .n_tokens = tokenizer_size(t)};
    if (gbnf) {
        sha256_digest(gbnf, n, next.digest);
        if (c->grammar && memcmp(c->digest, next.digest, sizeof next.digest) == 0) {
            c->from = GRAMMAR_NOT_BEGUN;
            return true;
        }
        if (!open_vocabulary(vocabulary, t, e)) return false;
        next.grammar = grammar_open(*vocabulary, gbnf, n, e);
        if (!next.grammar) return false;
    }
    grammar_close(c->grammar);
    *c = next;
    return true;
}

void engine_grammar_rewind(engine_grammar *c, uint32_t position) {
    if (!c->grammar || c->from == GRAMMAR_NOT_BEGUN) return;
    if (position <= c->from || (c->torn && position < c->at)) {
        c->from = GRAMMAR_NOT_BEGUN;
    } else if (position < c->at) { /* what is left of the text is read anew with the next sample */
        grammar_restart(c->grammar);
        c->at = c->from;
    }
}

static bool catch_up(engine_grammar *c, const int32_t *ids, uint32_t position, bp_err *e) {
    if (c->from == GRAMMAR_NOT_BEGUN) {
        grammar_restart(c->grammar);
        c->from = c->at = position;
        c->torn = false;
    }
    for (; c->at < position; c->at++)
        if (!grammar_accept(c->grammar, ids[c->at], e)) return false;
    return true;
}

bool engine_grammar_shift(engine_grammar *c, const int32_t *ids, uint32_t position, uint32_t keep, uint32_t drop,
                          bp_err *e) {
    if (!c->grammar || c->from == GRAMMAR_NOT_BEGUN) return true;
    if (!catch_up(c, ids, position, e)) return false;
    c->torn |= c->from < keep + drop; /* after the kept tokens some of the text is gone */
    c->at = position - drop;
    if (c->from >= keep) c->from = c->from < keep + drop ? keep : c->from - drop;
    return true;
}

static void forbid(float *logits, size_t from, size_t to) {
    for (size_t i = from; i < to; i++) logits[i] = -__builtin_inff();
}

bool engine_grammar_mask(engine_grammar *c, float *logits, size_t vocab, const int32_t *ids, uint32_t position,
                         bp_err *e) {
    if (!c->grammar) return true;
    c->allowed = NULL;
    if (!catch_up(c, ids, position, e)) return false;
    c->allowed = grammar_allowed(c->grammar, e);
    if (!c->allowed) return false;
    for (size_t first = 0; first < c->n_tokens; first += 64) {
        uint64_t bits = c->allowed[first / 64];
        if (bits == UINT64_MAX) continue;
        size_t end = bp_min(first + 64, c->n_tokens);
        for (size_t i = first; bits && i < end; i++)
            if (!(bits >> (i - first) & 1)) logits[i] = -__builtin_inff();
        if (!bits) forbid(logits, first, end);
    }
    forbid(logits, c->n_tokens, vocab); /* rows of the head that are no tokens */
    return true;
}

int32_t engine_grammar_choice(const engine_grammar *c, int32_t id) {
    if (!c->grammar) return id;
    uint32_t i = (uint32_t)id;
    if (i < c->n_tokens && c->allowed[i / 64] >> i % 64 & 1) return id;
    for (i = 0; !(c->allowed[i / 64] >> i % 64 & 1);) i++;
    return (int32_t)i;
}
