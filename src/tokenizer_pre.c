/* The pre-tokenizers' regular expressions as scanners over character classes. Where they differ by implementation, this
 * follows @huggingface/tokenizers: in ByteLevel's own expression (GPT-2, SmolLM2) \s is ECMAScript's, with U+FEFF and
 * without U+0085, and Digits splits at 0-9 only; in the expressions of Split (Qwen2, Llama 3) \s is the property
 * White_Space. */
#include "tokenizer_internal.h"

static unicode_class class_at(const pre_cursor *c, size_t at, size_t *next) {
    *next = at;
    uint32_t code = utf8_next(c->text, next);
    if (c->kind <= PRE_DIGITS && (code == 0xfeff || code == 0x85))
        return code == 0xfeff ? UNICODE_SPACE : UNICODE_OTHER;
    return unicode_class_of(c->unicode, code);
}

/* End of the run of one class that begins at `at` */
static size_t run_end(const pre_cursor *c, size_t at, unicode_class wanted) {
    for (size_t next; at < c->end && class_at(c, at, &next) == wanted; at = next) {
    }
    return at;
}

static bool is_newline(char c) { return c == '\n' || c == '\r'; }

/* 's|'t|'re|'ve|'m|'ll|'d at c->at, which is an apostrophe: end of the match, or 0 */
static size_t match_contraction(const pre_cursor *c, bool any_case) {
    char s[2] = {0, 0};
    for (size_t i = 0; i < 2 && i + 1 < c->end - c->at; i++) {
        s[i] = c->text[c->at + 1 + i];
        if (any_case && s[i] >= 'A' && s[i] <= 'Z') s[i] = (char)(s[i] + 'a' - 'A');
    }
    if (s[0] == 's' || s[0] == 't' || s[0] == 'm' || s[0] == 'd') return c->at + 2;
    bool two = (s[0] == 'r' && s[1] == 'e') || (s[0] == 'v' && s[1] == 'e') || (s[0] == 'l' && s[1] == 'l');
    return two ? c->at + 3 : 0;
}

/* \s+(?!\S)|\s+ : a run of white space leaves its last character to the word that follows, unless it is its only one */
static size_t match_space(const pre_cursor *c) {
    size_t at = c->at, last = c->at;
    for (size_t next; at < c->end && class_at(c, at, &next) == UNICODE_SPACE; at = next) last = at;
    return at == c->end || last == c->at ? at : last;
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
static size_t match_gpt2(const pre_cursor *c) {
    size_t end, next;
    if (c->text[c->at] == '\'' && (end = match_contraction(c, false))) return end;
    size_t at = c->at + (c->text[c->at] == ' ' && c->at + 1 < c->end);
    unicode_class k = class_at(c, at, &next);
    return k == UNICODE_SPACE ? match_space(c) : run_end(c, next, k);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,digits}|
 * ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static size_t match_split(const pre_cursor *c, unsigned digits) {
    size_t end, next, after = 0;
    if (c->text[c->at] == '\'' && (end = match_contraction(c, true))) return end;
    unicode_class k = class_at(c, c->at, &next), k2 = UNICODE_SPACE;
    if (k == UNICODE_LETTER) return run_end(c, next, UNICODE_LETTER);
    if (k == UNICODE_NUMBER) {
        for (size_t at = next; --digits && at < c->end && class_at(c, at, &after) == UNICODE_NUMBER; at = after)
            next = after;
        return next;
    }
    if (next < c->end) k2 = class_at(c, next, &after);
    if (k2 == UNICODE_LETTER && !is_newline(c->text[c->at])) return run_end(c, after, UNICODE_LETTER);
    if (k == UNICODE_OTHER || (c->text[c->at] == ' ' && k2 == UNICODE_OTHER && next < c->end)) {
        end = run_end(c, next, UNICODE_OTHER);
        while (end < c->end && is_newline(c->text[end])) end++;
        return end;
    }
    end = 0;
    for (size_t at = c->at; at < c->end && class_at(c, at, &next) == UNICODE_SPACE; at = next)
        if (is_newline(c->text[at])) end = next;
    return end ? end : match_space(c);
}

pre_cursor pre_begin(const unicode *u, pre_kind kind, const char *text, size_t n) {
    return (pre_cursor){u, kind, text, 0, n, 0};
}

/* Digits(individual_digits), then GPT-2's expression in what lies between them */
static size_t match_digits(pre_cursor *c) {
    if (c->at >= c->limit)
        for (c->limit = c->at; c->limit < c->end && (uint8_t)(c->text[c->limit] - '0') > 9;) c->limit++;
    if (c->limit == c->at) return c->at + 1;
    pre_cursor between = {c->unicode, PRE_DIGITS, c->text, c->at, c->limit, 0};
    return match_gpt2(&between);
}

void pre_next(pre_cursor *c) {
    switch (c->kind) {
    case PRE_GPT2:
        c->at = match_gpt2(c);
        break;
    case PRE_DIGITS:
        c->at = match_digits(c);
        break;
    case PRE_QWEN2:
        c->at = match_split(c, 1);
        break;
    case PRE_LLAMA3:
        c->at = match_split(c, 3);
        break;
    }
}
