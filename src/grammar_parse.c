/* GBNF text -> tree. The dialect is llama.cpp's: rules `name ::= alternatives`, which end with their line unless a
 * group is open or `|` or `::=` stands last. */
#include "grammar_internal.h"

#include "arena.h"
#include "platform.h"

enum { NAME_SLOTS = 2 * GRAMMAR_RULES_MOST, REPEAT_MOST = 100000, CHARACTER_MOST = 0x10ffff, SIGNS_MOST = 4 };

typedef struct {
    grammar_tree *t;
    const char *text;
    size_t n, at;
    unsigned depth;
    bp_err *e;
} parser;

bool grammar_wrong(const char *text, size_t at, bp_err *e, const char *what, const char *name, size_t name_bytes) {
    unsigned line = 1, column = 1;
    for (size_t i = 0; i < at; i++) {
        bool begins = ((uint8_t)text[i] & 0xc0) != 0x80; /* columns count characters */
        column = text[i] == '\n' ? 1 : column + begins;
        line += text[i] == '\n';
    }
    return name ? bp_fail(e, BP_ERR_ARGUMENT, at, "grammar, line %u, column %u: %s '%.*s'", line, column, what,
                          (int)bp_min(name_bytes, 80), name)
                : bp_fail(e, BP_ERR_ARGUMENT, at, "grammar, line %u, column %u: %s", line, column, what);
}

static bool wrong(const parser *p, size_t at, const char *what) {
    return grammar_wrong(p->text, at, p->e, what, NULL, 0);
}

static char peek(const parser *p) { return p->at < p->n ? p->text[p->at] : 0; }

static bool take(parser *p, char c) {
    if (p->at >= p->n || p->text[p->at] != c) return false;
    p->at++;
    return true;
}

/* Spaces and comments; line ends too where the text may go on behind them. */
static void skip_space(parser *p, bool lines) {
    for (; p->at < p->n; p->at++) {
        char c = p->text[p->at];
        if (c == '#') {
            while (p->at < p->n && p->text[p->at] != '\n' && p->text[p->at] != '\r') p->at++;
            if (p->at == p->n) return;
            c = p->text[p->at];
        }
        if (c != ' ' && c != '\t' && !(lines && (c == '\n' || c == '\r'))) return;
    }
}

/* ---- characters ---- */

/* The UTF-8 character at p->at; the same strictness as the tokenizer's. */
static bool take_utf8(parser *p, uint32_t *code) {
    const uint8_t *s = (const uint8_t *)p->text + p->at;
    size_t n = s[0] < 0x80 ? 1 : s[0] < 0xc2 ? 0 : s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : s[0] < 0xf5 ? 4 : 0;
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    if (n == 0 || n > p->n - p->at) return wrong(p, p->at, "the grammar is not UTF-8");
    *code = n == 1 ? s[0] : s[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((s[i] & 0xc0) != 0x80) return wrong(p, p->at, "the grammar is not UTF-8");
        *code = *code << 6 | (s[i] & 0x3fu);
    }
    if (*code < least[n] || *code > CHARACTER_MOST || (*code >= 0xd800 && *code < 0xe000))
        return wrong(p, p->at, "the grammar is not UTF-8");
    p->at += n;
    return true;
}

static int hex_value(char c) {
    if (c >= '0' && c <= '9') return c - '0';
    if (c >= 'a' && c <= 'f') return c - 'a' + 10;
    return c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

static bool take_hex(parser *p, size_t digits, uint32_t *code) {
    size_t start = p->at - 2;
    *code = 0;
    for (size_t i = 0; i < digits; i++, p->at++) {
        int value = hex_value(peek(p));
        if (value < 0)
            return wrong(p, p->at,
                         digits == 2   ? "expected 2 hexadecimal digits after \\x"
                         : digits == 4 ? "expected 4 hexadecimal digits after \\u"
                                       : "expected 8 hexadecimal digits after \\U");
        *code = *code << 4 | (uint32_t)value;
    }
    if (*code <= CHARACTER_MOST && (*code < 0xd800 || *code >= 0xe000)) return true;
    return wrong(p, start, "expected a character, at most U+10FFFF and no surrogate");
}

/* A character of a literal or class, escaped or not. */
static bool take_character(parser *p, uint32_t *code) {
    static const char plain[] = "\\\"[]-^/'", named[] = "ntrbf0", values[] = "\n\t\r\b\f";
    if (!take(p, '\\')) return take_utf8(p, code);
    char c = peek(p);
    p->at++;
    if (c == 'x') return take_hex(p, 2, code);
    if (c == 'u') return take_hex(p, 4, code);
    if (c == 'U') return take_hex(p, 8, code);
    for (size_t i = 0; c && plain[i]; i++)
        if (plain[i] == c) return *code = (uint8_t)c, true;
    for (size_t i = 0; c && named[i]; i++)
        if (named[i] == c) return *code = (uint8_t)values[i], true;
    return wrong(p, p->at - 2,
                 "expected one of the escapes \\n \\t \\r \\b \\f \\0 \\\\ \\\" \\[ \\] \\x12 \\u1234 \\U00012345");
}

/* ---- elements ---- */

/* Each node stands for at least one byte of the text (rules and groups have two for theirs), so there is room. */
static uint32_t new_node(parser *p, grammar_node node) {
    p->t->nodes[p->t->n_nodes] = node;
    return p->t->n_nodes++;
}

static bool new_rule(parser *p, grammar_rule rule, uint32_t *index) {
    grammar_tree *t = p->t;
    if (t->n_rules == GRAMMAR_RULES_MOST)
        return bp_fail(p->e, BP_ERR_ARGUMENT, p->at, "the grammar has more than %d rules, classes and repeated groups",
                       GRAMMAR_RULES_MOST);
    *index = t->n_rules;
    t->rules[t->n_rules++] = rule;
    return true;
}

static void put_utf8(grammar_tree *t, uint32_t code) {
    uint8_t *out = t->bytes + t->n_bytes;
    uint32_t n = code < 0x80 ? 1 : code < 0x800 ? 2 : code < 0x10000 ? 3 : 4;
    t->n_bytes += n;
    if (n == 1) {
        out[0] = (uint8_t)code;
        return;
    }
    for (uint32_t i = n; --i; code >>= 6) out[i] = (uint8_t)(0x80 | (code & 0x3f));
    out[0] = (uint8_t)(code | (0xf00u >> n & 0xf0));
}

static bool parse_literal(parser *p, uint32_t *node) {
    uint32_t first = p->t->n_bytes, code = 0;
    size_t start = p->at++;
    while (!take(p, '"')) {
        if (p->at >= p->n || peek(p) == '\n') return wrong(p, start, "expected a closing \" on the same line");
        if (!take_character(p, &code)) return false;
        put_utf8(p->t, code);
    }
    *node = new_node(p, (grammar_node){.kind = NODE_LITERAL, .a = first, .b = p->t->n_bytes - first});
    return true;
}

static void sift_ranges(grammar_range *r, uint32_t root, uint32_t n) {
    grammar_range moved = r[root];
    for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && r[child].low < r[child + 1].low) child++;
        if (moved.low >= r[child].low) break;
        r[root] = r[child];
    }
    r[root] = moved;
}

/* Ascending by `low`. Heapsort: no class is slow. */
static void sort_ranges(grammar_range *r, uint32_t n) {
    for (uint32_t i = n / 2; i--;) sift_ranges(r, i, n);
    while (n > 1) {
        grammar_range last = r[0];
        r[0] = r[--n];
        r[n] = last;
        sift_ranges(r, 0, n);
    }
}

/* Ranges from `first` on: ascending, apart, and for a negated class what lies between them. */
static void tidy_ranges(grammar_tree *t, uint32_t first, bool negated) {
    grammar_range *r = t->ranges + first;
    uint32_t n = t->n_ranges - first, kept = 0;
    sort_ranges(r, n);
    for (uint32_t i = 0; i < n; i++) {
        if (kept && r[i].low <= r[kept - 1].high + 1)
            r[kept - 1].high = (uint32_t)bp_max(r[kept - 1].high, r[i].high);
        else
            r[kept++] = r[i];
    }
    if (negated) {
        uint32_t from = 0, gaps = 0;
        for (uint32_t i = 0; i < kept; i++) {
            grammar_range taken = r[i];
            if (taken.low > from) r[gaps++] = (grammar_range){from, taken.low - 1};
            from = taken.high + 1;
        }
        if (from <= CHARACTER_MOST) r[gaps++] = (grammar_range){from, CHARACTER_MOST};
        kept = gaps;
    }
    t->n_ranges = first + kept;
}

/* A class of more than ASCII is a program of several bytes: a rule of its own. */
static bool new_class(parser *p, uint32_t first, size_t start, uint32_t *node) {
    grammar_tree *t = p->t;
    grammar_node class = {.kind = NODE_CLASS, .a = first, .b = t->n_ranges - first, .rule = NO_RULE};
    if (class.b == 0) return wrong(p, start, "this class holds no character, so nothing could follow");
    *node = t->n_nodes;
    if (t->ranges[t->n_ranges - 1].high >= 0x80 && !new_rule(p, (grammar_rule){.body = *node}, &class.rule))
        return false;
    new_node(p, class);
    return true;
}

static bool parse_class(parser *p, uint32_t *node) {
    uint32_t first = p->t->n_ranges;
    size_t start = p->at++;
    bool negated = take(p, '^');
    while (!take(p, ']')) {
        grammar_range r = {0};
        size_t at = p->at;
        if (p->at >= p->n || peek(p) == '\n') return wrong(p, start, "expected a closing ] on the same line");
        if (!take_character(p, &r.low)) return false;
        r.high = r.low;
        if (peek(p) == '-' && p->at + 1 < p->n && p->text[p->at + 1] != ']') {
            p->at++;
            if (!take_character(p, &r.high)) return false;
            if (r.high < r.low) return wrong(p, at, "expected the range's first character before its last");
        }
        p->t->ranges[p->t->n_ranges++] = r;
    }
    tidy_ranges(p->t, first, negated);
    return new_class(p, first, start, node);
}

static bool parse_any(parser *p, uint32_t *node) {
    size_t start = p->at++;
    uint32_t first = p->t->n_ranges;
    p->t->ranges[p->t->n_ranges++] = (grammar_range){0, CHARACTER_MOST};
    return new_class(p, first, start, node);
}

/* ---- names ---- */

static bool in_name(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' || c == '_';
}

/* The rule named text[at .. at + n), made if there is none. */
static bool find_rule(parser *p, size_t at, size_t n, uint32_t *rule) {
    grammar_tree *t = p->t;
    uint32_t slot = 2166136261u; /* FNV-1a */
    for (size_t i = 0; i < n; i++) slot = (slot ^ (uint8_t)p->text[at + i]) * 16777619u;
    for (slot %= NAME_SLOTS; t->names[slot]; slot = (slot + 1) % NAME_SLOTS) {
        const grammar_rule *r = &t->rules[ *rule = t->names[slot] - 1];
        if (r->name_bytes == n && memcmp(p->text + r->name, p->text + at, n) == 0) return true;
    }
    if (!new_rule(p, (grammar_rule){.name = (uint32_t)at, .name_bytes = (uint32_t)n, .named = true}, rule))
        return false;
    t->names[slot] = *rule + 1;
    return true;
}

static size_t take_name(parser *p) {
    size_t start = p->at;
    while (p->at < p->n && in_name(p->text[p->at])) p->at++;
    return p->at - start;
}

static bool parse_call(parser *p, uint32_t *node) {
    size_t start = p->at, n = take_name(p);
    grammar_node call = {.kind = NODE_CALL};
    if (!find_rule(p, start, n, &call.a)) return false;
    *node = new_node(p, call);
    return true;
}

/* ---- sequences ---- */

static bool parse_alternatives(parser *p, uint32_t *first);

static bool parse_group(parser *p, uint32_t *node) {
    size_t start = p->at++;
    grammar_node group = {.kind = NODE_GROUP};
    if (++p->depth > GRAMMAR_DEPTH_MOST) return wrong(p, start, "expected at most 64 groups within each other");
    skip_space(p, true);
    if (!parse_alternatives(p, &group.a)) return false;
    if (!take(p, ')'))
        return wrong(p, p->at, p->at < p->n ? "expected an element, | or )" : "expected ) before the end");
    p->depth--;
    *node = new_node(p, group);
    return true;
}

static bool take_count(parser *p, uint32_t *count) {
    size_t start = p->at;
    *count = 0;
    for (; peek(p) >= '0' && peek(p) <= '9'; p->at++) {
        *count = 10 * *count + (uint32_t)(peek(p) - '0');
        if (*count > REPEAT_MOST) return wrong(p, start, "expected at most 100000 repetitions");
    }
    return p->at > start || wrong(p, start, "expected a number of repetitions");
}

/* {m}, {m,} or {m,n} */
static bool parse_counts(parser *p, grammar_node *repeat) {
    size_t start = p->at;
    skip_space(p, false);
    if (!take_count(p, &repeat->low)) return false;
    repeat->high = repeat->low;
    skip_space(p, false);
    if (take(p, ',')) {
        skip_space(p, false);
        repeat->high = REPEAT_ENDLESS;
        if (peek(p) != '}' && !take_count(p, &repeat->high)) return false;
        skip_space(p, false);
    }
    if (!take(p, '}')) return wrong(p, p->at, "expected , or } after the number of repetitions");
    return repeat->low <= repeat->high || wrong(p, start, "expected {m,n} with m at most n");
}

/* The signs behind an element, which becomes what they repeat. */
static bool parse_repeats(parser *p, uint32_t *node) {
    for (unsigned signs = 0;; signs++) {
        size_t start = p->at;
        grammar_node repeat = {.kind = NODE_REPEAT, .a = *node, .high = REPEAT_ENDLESS, .rule = NO_RULE};
        if (take(p, '?'))
            repeat.high = 1;
        else if (take(p, '+'))
            repeat.low = 1;
        else if (take(p, '{')) {
            if (!parse_counts(p, &repeat)) return false;
        } else if (!take(p, '*'))
            return true;
        if (signs == SIGNS_MOST) return wrong(p, start, "expected at most 4 signs of repetition in a row");
        /* what stands there more than once is written once and called */
        bool copied = repeat.low > 1 || (repeat.high > 1 && repeat.high != REPEAT_ENDLESS);
        if (copied && !new_rule(p, (grammar_rule){.body = *node}, &repeat.rule)) return false;
        *node = new_node(p, repeat);
        skip_space(p, p->depth > 0);
    }
}

/* The next element of a sequence; 0 in *node: there is none. */
static bool parse_element(parser *p, uint32_t *node) {
    char c = peek(p);
    *node = 0;
    bool ok = c == '"'     ? parse_literal(p, node)
              : c == '['   ? parse_class(p, node)
              : c == '.'   ? parse_any(p, node)
              : c == '('   ? parse_group(p, node)
              : in_name(c) ? parse_call(p, node)
                           : true;
    if (!ok || *node == 0) {
        if (ok && (c == '*' || c == '+' || c == '?' || c == '{'))
            return wrong(p, p->at, "expected something to repeat before this sign");
        return ok;
    }
    skip_space(p, p->depth > 0);
    return parse_repeats(p, node);
}

static bool parse_sequence(parser *p, uint32_t *alternative) {
    uint32_t node, last = 0;
    *alternative = new_node(p, (grammar_node){.kind = NODE_ALTERNATIVE});
    for (;;) {
        if (!parse_element(p, &node)) return false;
        if (!node) return true;
        if (last)
            p->t->nodes[last].next = node;
        else
            p->t->nodes[*alternative].a = node;
        last = node;
    }
}

static bool parse_alternatives(parser *p, uint32_t *first) {
    uint32_t last, next;
    if (!parse_sequence(p, first)) return false;
    for (last = *first; take(p, '|'); last = next) {
        skip_space(p, true);
        if (!parse_sequence(p, &next)) return false;
        p->t->nodes[last].next = next;
    }
    return true;
}

static bool parse_rule(parser *p) {
    uint32_t rule, body;
    size_t start = p->at, n = take_name(p);
    if (n == 0) return wrong(p, start, "expected the name of a rule");
    if (!find_rule(p, start, n, &rule)) return false;
    if (p->t->rules[rule].body)
        return grammar_wrong(p->text, start, p->e, "there already is a rule", p->text + start, n);
    skip_space(p, false);
    if (p->n - p->at < 3 || memcmp(p->text + p->at, "::=", 3) != 0)
        return wrong(p, p->at, "expected ::= after the name of a rule");
    p->at += 3;
    skip_space(p, true);
    if (!parse_alternatives(p, &body)) return false;
    p->t->rules[rule].body = body;
    if (p->at < p->n && peek(p) != '\n' && peek(p) != '\r')
        return wrong(p, p->at, "expected an element, | or the end of the line");
    skip_space(p, true);
    return true;
}

static bool parse_all(parser *p) {
    grammar_tree *t = p->t;
    for (skip_space(p, true); p->at < p->n;)
        if (!parse_rule(p)) return false;
    for (uint32_t i = 0; i < t->n_rules; i++) {
        const grammar_rule *r = &t->rules[i];
        if (!r->body)
            return grammar_wrong(p->text, r->name, p->e, "there is no rule", p->text + r->name, r->name_bytes);
    }
    for (t->root = 0; t->root < t->n_rules; t->root++) {
        const grammar_rule *r = &t->rules[t->root];
        if (r->named && r->name_bytes == 4 && memcmp(p->text + r->name, "root", 4) == 0) return true;
    }
    return wrong(p, p->at, "expected a rule named root, which the text begins with");
}

static void tree_layout(grammar_tree *t, arena *a) {
    uint64_t n = t->n;
    t->nodes = ARENA_NEW(a, grammar_node, 2 * n + 2);
    t->ranges = ARENA_NEW(a, grammar_range, n + 2);
    t->bytes = ARENA_NEW(a, uint8_t, n + 2);
    t->rules = ARENA_NEW(a, grammar_rule, GRAMMAR_RULES_MOST);
    t->names = ARENA_NEW(a, uint32_t, NAME_SLOTS);
}

bool grammar_parse(grammar_tree *t, const char *text, size_t n, bp_err *e) {
    *t = (grammar_tree){.text = text, .n = (uint32_t)n, .n_nodes = 1}; /* node 0 stands for none */
    if (n > GRAMMAR_TEXT_MOST)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "a grammar of %zu bytes is longer than %d", n, GRAMMAR_TEXT_MOST);
    arena a = arena_measure();
    tree_layout(t, &a);
    t->memory = platform_alloc(a.used);
    if (!t->memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to read a grammar of %zu bytes", n);
    a = arena_over(t->memory, a.used);
    tree_layout(t, &a);
    parser p = {.t = t, .text = text, .n = n, .e = e};
    return parse_all(&p);
}
