/* The grammar by itself: errors of the notation, random grammars against a tiny recursive matcher over all short
 * strings, allowed tokens against a test of every token, and grammars that mean harm. */
#include "check.h"

#include "grammar.h"

/* ---- vocabularies ------------------------------------------------------------------------------------------------ */

enum { ALPHABET = 5, BYTES = 256, END = 256, TOKENS = 700 };
static const char *const CHARACTERS[ALPHABET] = {"a", "b", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80"};

typedef struct {
    char text[TOKENS][32];
    uint8_t size[TOKENS];
} texts;

static size_t token_text(const void *context, int32_t id, char *out, size_t capacity) {
    const texts *t = context;
    memcpy(out, t->text[id], t->size[id] < capacity ? t->size[id] : capacity);
    return t->size[id];
}

static bool token_is_end(const void *context, int32_t id) {
    (void)context;
    return id == END;
}

static uint32_t random_state = 1;
static uint32_t random_below(uint32_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (random_state >> 8) % n;
}

/* All bytes, an end, one without text, and random runs of characters with a piece cut off, some of them twice. */
static void fill_texts(texts *t) {
    memset(t, 0, sizeof *t);
    for (uint32_t i = 0; i < BYTES; i++) t->text[i][0] = (char)i, t->size[i] = 1;
    for (uint32_t i = END + 2; i < TOKENS; i++) {
        char run[32] = "";
        for (uint32_t k = 1 + random_below(4); k; k--) strcat(run, CHARACTERS[random_below(ALPHABET)]);
        size_t n = strlen(run), from = random_below(3) ? 0 : random_below(4) % (uint32_t)n;
        size_t cut = random_below(2) ? 0 : random_below(3) % (uint32_t)(n - from);
        t->size[i] = (uint8_t)(n - from - cut);
        memcpy(t->text[i], run + from, t->size[i]);
    }
}

static texts all_texts;
static grammar_vocabulary *vocabulary;

static grammar *open_text(const char *gbnf) {
    bp_err e = {0};
    grammar *g = grammar_open(vocabulary, gbnf, strlen(gbnf), &e);
    CHECK(g, "%s: %s", gbnf, e.text);
    return g;
}

/* Is every byte of the text allowed, one after the other? */
static bool accepts(grammar *g, const char *text, size_t n) {
    grammar_restart(g);
    for (size_t i = 0; i < n; i++)
        if (!grammar_accept(g, (uint8_t)text[i], NULL)) return false;
    return true;
}

/* ---- notation ---------------------------------------------------------------------------------------------------- */

static void check_errors(void) {
    static const struct {
        const char *gbnf, *where, *what;
    } bad[] = {
        {"", "line 1, column 1", "root"},
        {"rot ::= \"a\"", "line 1, column 12", "root"},
        {"root ::= \"a", "line 1, column 10", "closing \""},
        {"root ::= \"a\n\"", "line 1, column 10", "closing \""},
        {"root ::= [a", "line 1, column 10", "closing ]"},
        {"root ::= [z-a]", "line 1, column 11", "first character"},
        {"root ::= []", "line 1, column 10", "no character"},
        {"root ::= [^\\x00-\\U0010FFFF]", "line 1, column 10", "no character"},
        {"root ::= x\n", "line 1, column 10", "no rule 'x'"},
        {"root ::= \"a\"\nroot ::= \"b\"", "line 2, column 1", "already"},
        {"root = \"a\"", "line 1, column 6", "::="},
        {"# \xc3\xa9\n\n  root ::= (\"\xc3\xa9\" | )\n!", "line 4, column 1", "name of a rule"},
        {"root ::= \"\xc3\xa9\" )", "line 1, column 14", "end of the line"},
        {"root ::= (\"a\"", "line 1, column 14", "expected )"},
        {"root ::= (\"a\" ]", "line 1, column 15", "or )"},
        {"root ::= *", "line 1, column 10", "to repeat"},
        {"root ::= \"a\" | {2}", "line 1, column 16", "to repeat"},
        {"root ::= \"a\"{}", "line 1, column 14", "number"},
        {"root ::= \"a\"{3,2}", "line 1, column 14", "at most n"},
        {"root ::= \"a\"{100001}", "line 1, column 14", "100000"},
        {"root ::= \"a\"{2;", "line 1, column 15", ", or }"},
        {"root ::= \"a\"?????", "line 1, column 17", "in a row"},
        {"root ::= \"\\q\"", "line 1, column 11", "escapes"},
        {"root ::= \"\\x1g\"", "line 1, column 14", "2 hexadecimal"},
        {"root ::= \"\\u12\"", "line 1, column 15", "4 hexadecimal"},
        {"root ::= \"\\ud800\"", "line 1, column 11", "surrogate"},
        {"root ::= \"\\U00110000\"", "line 1, column 11", "U+10FFFF"},
        {"root ::= \"\xff\"", "line 1, column 11", "UTF-8"},
        {"root ::= \"\xed\xa0\x80\"", "line 1, column 11", "UTF-8"},
        {"root ::= root \"a\" | \"b\"", "line 1, column 1", "'root'"},
        {"root ::= x\nx ::= \"\"* y? x", "line 2, column 11", "no rule 'y'"},
        {"root ::= \"a\"\nx ::= y \"a\"\ny ::= \"b\"? z\nz ::= (x \"c\"){2}", "line 2, column", "left recursion"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        bp_err e = {0};
        grammar *g = grammar_open(vocabulary, bad[i].gbnf, strlen(bad[i].gbnf), &e);
        CHECK(!g && e.code == BP_ERR_ARGUMENT && strstr(e.text, bad[i].where) && strstr(e.text, bad[i].what), "%s: %s",
              bad[i].gbnf, e.text);
        grammar_close(g);
    }
}

static void check_notation(void) {
    static const struct {
        const char *gbnf, *yes, *no;
    } cases[] = {{"root ::= \"a\\\"\\\\\\x41\\u00e9\\U0001F600\\n\"", "a\"\\A\xc3\xa9\xf0\x9f\x98\x80\n", "a\"A"},
                 {"root ::= [^\"\\\\\\x00-\\x1f]+", "ab \xc3\xa9\xef\xbf\xbf\x7f", "a\"b"},
                 {"root ::= [a-c\\]-]{2,3} # two or three\n", "]-", "d-"},
                 {"root ::= [\\u00e0-\\u20ff]*", "\xc3\xa0\xdf\xbf\xe0\xa0\x80\xe2\x83\xbf", "\xe2\x84\x80"},
                 {"root ::= .{3}", "\n\xf4\x8f\xbf\xbf\xed\x9f\xbf", "\xed\xa0\x80"},
                 {"root ::= # what\n  one |\n  two # and\n\none ::= \"1\"\r\ntwo ::= (\n\"2\"\n | \"3\")", "3", "4"},
                 {"root ::= a-b_C9{0} \"x\"{1} \"y\"{2,} \"z\"{0,1}\na-b_C9 ::= \"q\"", "xyyyz", "q"},
                 {"root ::= (\"ab\" | \"c\")? \"d\"+ (\"e\"{3})*", "abddeeeeee", "dee\xc3"},
                 {"root ::= list\nlist ::= \"a\" (\",\" list)?", "a,a,a,a", "a,,"},
                 {"root ::= ((((\"a\"*)*)?)+ | \"\")* \"b\"", "aaab", "aac"},
                 {"root ::= | \"a\"", "", "b"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        grammar *g = open_text(cases[i].gbnf);
        if (!g) continue;
        CHECK(accepts(g, cases[i].yes, strlen(cases[i].yes)) && grammar_can_end(g), "%s: not %s", cases[i].gbnf,
              cases[i].yes);
        CHECK(!accepts(g, cases[i].no, strlen(cases[i].no)), "%s: %s", cases[i].gbnf, cases[i].no);
        grammar_close(g);
    }
}

/* ---- random grammars --------------------------------------------------------------------------------------------- */

typedef enum { SYMBOLS, CALL, ALTERNATIVES, SEQUENCE, REPEAT } kind;

typedef struct {
    kind kind;
    unsigned set;         /* SYMBOLS: of the alphabet */
    int part[3], n_parts; /* ALTERNATIVES, SEQUENCE, REPEAT (one); CALL: the rule */
    int low, high;        /* REPEAT; high -1: endless */
} node;

enum { RULES = 4, NODES = 400, LONGEST = 5 };
static node nodes[NODES];
static int n_nodes, roots[RULES];

static int add(node n) {
    nodes[n_nodes] = n;
    return n_nodes++;
}

/* consumed: a character stands before it, so any rule may be called; else only those below. */
static int make(int rule, int depth, bool consumed) {
    uint32_t pick = depth <= 0 || n_nodes > NODES - 60 ? 0 : random_below(8);
    node n = {.kind = SYMBOLS, .set = 1 + random_below((1u << ALPHABET) - 1)};
    if (pick == 1 && (consumed || rule + 1 < RULES))
        n = (node){.kind = CALL, .part = {consumed ? (int)random_below(RULES) : rule + 1}};
    if (pick == 2 || pick == 3) {
        n = (node){.kind = ALTERNATIVES, .n_parts = 2};
        for (int i = 0; i < 2; i++) n.part[i] = make(rule, depth - 1, consumed);
    }
    if (pick == 4 || pick == 5) {
        n = (node){.kind = SEQUENCE, .n_parts = 1 + (int)random_below(3)};
        for (int i = 0; i < n.n_parts; i++)
            n.part[i] = make(rule, depth - 1, consumed || (i > 0 && nodes[n.part[0]].kind == SYMBOLS));
    }
    if (pick >= 6) {
        n = (node){.kind = REPEAT, .n_parts = 1, .low = (int)random_below(3)};
        n.high = random_below(2) ? -1 : n.low + (int)random_below(3);
        n.part[0] = make(rule, depth - 1, consumed);
    }
    return add(n);
}

static void write_node(char *out, int index) {
    const node *n = &nodes[index];
    if (n->kind == SYMBOLS) {
        strcat(out, "[");
        for (int i = 0; i < ALPHABET; i++)
            if (n->set >> i & 1) strcat(out, CHARACTERS[i]);
        strcat(out, "]");
    } else if (n->kind == CALL) {
        sprintf(out + strlen(out), "r%d", n->part[0]);
    } else {
        strcat(out, "(");
        for (int i = 0; i < n->n_parts; i++) {
            if (i) strcat(out, n->kind == ALTERNATIVES ? " | " : " ");
            write_node(out, n->part[i]);
        }
        strcat(out, ")");
        if (n->kind == REPEAT && n->high < 0)
            sprintf(out + strlen(out), "{%d,}", n->low);
        else if (n->kind == REPEAT)
            sprintf(out + strlen(out), "{%d,%d}", n->low, n->high);
    }
}

/* Every rule has a way without calls, so that each beginning can be completed. */
static void write_grammar(char *out) {
    n_nodes = 0;
    strcpy(out, "root ::= r0\n");
    for (int r = 0; r < RULES; r++) {
        int ways = make(r, 4, false);
        int simple = add((node){.kind = SYMBOLS, .set = 1u << random_below(ALPHABET)});
        roots[r] = add((node){.kind = ALTERNATIVES, .n_parts = 2, .part = {ways, simple}});
        sprintf(out + strlen(out), "r%d ::= ", r);
        write_node(out, roots[r]);
        strcat(out, "\n");
    }
}

/* A bit for each place where a match of the node can end, given a bit for each where it can begin. *more: a character
 * behind the text would go on. */
static unsigned ends(int index, const int *text, int n, unsigned begins, bool *more) {
    const node *x = &nodes[index];
    unsigned result = 0, now = begins;
    if (begins == 0) return 0;
    switch (x->kind) {
    case SYMBOLS:
        for (int i = 0; i < n; i++)
            if (begins >> i & 1 && x->set >> text[i] & 1) result |= 1u << (i + 1);
        *more = *more || begins >> n & 1;
        return result;
    case CALL:
        return ends(roots[x->part[0]], text, n, begins, more);
    case ALTERNATIVES:
        for (int i = 0; i < x->n_parts; i++) result |= ends(x->part[i], text, n, begins, more);
        return result;
    case SEQUENCE:
        for (int i = 0; i < x->n_parts; i++) now = ends(x->part[i], text, n, now, more);
        return now;
    case REPEAT:
        if (x->low == 0) result |= now;
        for (int i = 1; now && i <= (x->high < 0 ? x->low + n + 1 : x->high); i++) {
            now = ends(x->part[0], text, n, now, more);
            if (i >= x->low) result |= now;
        }
        return result;
    }
    return 0;
}

static size_t spell(const int *text, int n, char *out) {
    out[0] = 0;
    for (int i = 0; i < n; i++) strcat(out, CHARACTERS[text[i]]);
    return strlen(out);
}

static unsigned accepted, refused;

/* All strings that begin with text [n]. A beginning that is refused is not gone into: so is the matcher's. */
static void check_strings(grammar *g, const char *gbnf, int *text, int n) {
    char bytes[64];
    size_t size = spell(text, n, bytes);
    bool more = false, whole = ends(roots[0], text, n, 1, &more) >> n & 1;
    bool found = accepts(g, bytes, size), ending = found && grammar_can_end(g);
    accepted += found, refused += !found;
    if (found != (more || whole) || ending != whole) {
        CHECK(false, "'%s' is %d %d, not %d %d, in\n%s", bytes, found, ending, more || whole, whole, gbnf);
        return;
    }
    for (int i = 0; found && n < LONGEST && i < ALPHABET; i++) {
        text[n] = i;
        check_strings(g, gbnf, text, n + 1);
    }
}

/* The allowed tokens are those that are accepted, and of whole characters those that the matcher takes. */
static void check_allowed(grammar *g, const char *gbnf, const int *text, int n) {
    char bytes[64];
    size_t size = spell(text, n, bytes);
    uint64_t allowed[(TOKENS + 63) / 64];
    bp_err e = {0};
    if (!accepts(g, bytes, size)) return;
    const uint64_t *mask = grammar_allowed(g, &e);
    CHECK(mask, "'%s': %s in\n%s", bytes, e.text, gbnf);
    if (!mask) return;
    memcpy(allowed, mask, sizeof allowed);
    unsigned wrong = 0;
    for (int32_t id = 0; id < TOKENS; id++) {
        accepts(g, bytes, size);
        wrong += grammar_accept(g, id, NULL) != (allowed[id / 64] >> id % 64 & 1);
    }
    CHECK(wrong == 0, "after '%s' %u tokens are not as allowed in\n%s", bytes, wrong, gbnf);
}

static void check_random(void) {
    static char gbnf[1 << 16];
    unsigned before = check_failed, left_recursive = 0;
    for (int i = 0; i < 120 && check_failed < before + 3; i++) {
        bp_err e = {0};
        int text[LONGEST + 1];
        write_grammar(gbnf);
        grammar *g = grammar_open(vocabulary, gbnf, strlen(gbnf), &e);
        left_recursive += !g;
        CHECK(g || strstr(e.text, "left recursion"), "%s in\n%s", e.text, gbnf);
        if (!g) continue;
        check_strings(g, gbnf, text, 0);
        for (int k = 0; k < 4; k++) {
            for (int n = 0; n < k; n++) text[n] = (int)random_below(ALPHABET);
            check_allowed(g, gbnf, text, k);
        }
        grammar_close(g);
    }
    CHECK(accepted > 5000 && refused > 5000, "%u accepted, %u refused", accepted, refused);
    CHECK(left_recursive < 60, "%u of 120 left recursive", left_recursive);
}

/* ---- grammars that mean harm ------------------------------------------------------------------------------------- */

static void check_refused(const char *gbnf, const char *what) {
    bp_err e = {0};
    grammar *g = grammar_open(vocabulary, gbnf, strlen(gbnf), &e);
    CHECK(!g && e.code == BP_ERR_ARGUMENT && strstr(e.text, what), "%s: %s", what, e.text);
    grammar_close(g);
}

static void check_limits(void) {
    static char big[400000];
    memset(big, ' ', sizeof big - 1);
    check_refused(big, "longer than");
    strcpy(big, "root ::= ");
    for (int i = 0; i < 70; i++) strcat(big, "(");
    check_refused(big, "within each other");
    check_refused("root ::= ((\"ab\"{1000}){1000}){1000} x\nx ::= \"a\"{100000} \"b\"{100000} \"c\"{100000}",
                  "too large");
    char *at = big + sprintf(big, "root ::= \"a\"");
    for (int i = 0; i < 9000; i++) at += sprintf(at, "|[^a]");
    check_refused(big, "more than 8192");
    at = big + sprintf(big, "root ::=");
    for (char a = 'a'; a < 'z'; a++)
        for (char b = (char)(a + 1); b <= 'z'; b++) at += sprintf(at, " [%c%c] [%c%c]", a, b, a, b - 'a' + 'A');
    check_refused(big, "different sets");
}

/* A class whose ranges come in the worst order for sorting by halving gaps: 4 10^9 steps then. */
static void check_large_class(void) {
    enum { HALF = 65536 };
    static char text[3 * HALF + 32];
    char *at = text + sprintf(text, "root ::= [");
    for (uint32_t i = 0; i < HALF; i++) {
        uint32_t code = 0x80 + i % 0x780;
        *at++ = (char)(0xc0 | code >> 6);
        *at++ = (char)(0x80 | (code & 63));
        *at++ = (char)('A' + i % 26);
    }
    strcpy(at, "]");
    grammar *g = open_text(text);
    CHECK(g && accepts(g, "Q", 1) && accepts(g, "\xc2\x80", 2) && accepts(g, "\xdf\xbf", 2), "its characters");
    CHECK(g && !accepts(g, "a", 1) && !accepts(g, "\xe0\xa0\x80", 3), "and no others");
    grammar_close(g);
}

/* Stacks of their own would be 2^n after n letters; a right recursion must not grow at all. */
static void check_ambiguous(void) {
    grammar *g =
        open_text("root ::= s\ns ::= \"a\" s \"b\" | \"a\" s \"c\" | \"a\" t | \"d\"\nt ::= s \"b\" | s \"c\"");
    char text[2 * 60 + 1];
    for (int i = 0; i < 60; i++) text[i] = 'a', text[61 + i] = i % 3 ? 'b' : 'c';
    text[60] = 'd';
    CHECK(g && accepts(g, text, 121) && grammar_can_end(g), "60 deep");
    CHECK(g && accepts(g, text, 120) && !grammar_can_end(g), "one is open");
    grammar_close(g);
    g = open_text("root ::= x\nx ::= \"a\" x | \"b\" x | (\"a\"? \"a\"?){500} \"b\"?");
    grammar_restart(g);
    for (int i = 0; i < 20000; i++) CHECK(grammar_accept(g, 'a', NULL), "letter %d", i);
    grammar_close(g);
}

/* More states than the tables hold: what is forgotten is found again. */
static void check_clearing(void) {
    grammar *g = open_text("root ::= \"a\"{20000} \"b\" x{0,300} \"c\"\nx ::= [a-z]{0,99} \",\"");
    unsigned wrong = 0;
    grammar_restart(g);
    for (int i = 0; i < 20000; i++) {
        if (i % 997 == 0) wrong += !grammar_allowed(g, NULL);
        wrong += grammar_accept(g, 'b', NULL) || !grammar_accept(g, 'a', NULL);
    }
    CHECK(!wrong && !grammar_accept(g, 'a', NULL) && grammar_accept(g, 'b', NULL), "%u are wrong", wrong);
    for (int i = 0; i < 300; i++) wrong += !grammar_accept(g, i % 2 ? ',' : 'z', NULL);
    CHECK(!wrong && grammar_accept(g, 'c', NULL) && grammar_can_end(g), "%u are wrong", wrong);
    grammar_restart(g);
    CHECK(grammar_accept(g, 'a', NULL) && !grammar_accept(g, 'c', NULL), "from the beginning");
    grammar_close(g);
}

/* Damaged grammars: refused with a line, or a grammar that can be used. */
static void check_damaged(void) {
    static const char good[] =
        "root ::= object # JSON\nobject ::= \"{\" (pair (\",\" pair)*)? \"}\"\npair ::= string \":\" "
        "(string | object)\nstring ::= \"\\\"\" [^\"\\\\\\x00-\\x1f]{0,9} \"\\\"\"\n";
    unsigned good_ones = 0;
    for (int i = 0; i < 4000; i++) {
        char gbnf[sizeof good];
        bp_err e = {0};
        memcpy(gbnf, good, sizeof good);
        for (uint32_t k = 1 + random_below(3); k; k--)
            gbnf[random_below(sizeof good - 1)] =
                random_below(4) ? "(){}[]|*+?\"\\:=# \nax-,^."[random_below(24)] : (char)random_below(256);
        grammar *g = grammar_open(vocabulary, gbnf, sizeof good - 1 - random_below(9), &e);
        good_ones += g != NULL;
        if (!g && !strstr(e.text, "grammar")) CHECK(false, "no reason: %s", gbnf);
        if (g && i % 8 == 0) grammar_allowed(g, NULL);
        grammar_close(g);
    }
    CHECK(good_ones > 100, "%u of 4000 are good", good_ones);
}

static void check_ends(void) {
    bp_err e = {0};
    grammar *g = open_text("root ::= \"a\" \"b\"?");
    const uint64_t *mask = grammar_allowed(g, &e);
    CHECK(mask && !(mask[END / 64] >> END % 64 & 1) && !grammar_accept(g, END, &e), "no end yet");
    CHECK(!grammar_accept(g, -1, &e) && !grammar_accept(g, TOKENS, &e) && !grammar_accept(g, END + 1, &e), "no token");
    CHECK(grammar_accept(g, 'a', &e) && grammar_accept(g, END, &e), "%s", e.text);
    mask = grammar_allowed(g, &e);
    unsigned allowed = 0;
    for (int i = 0; mask && i < TOKENS; i++) allowed += (unsigned)(mask[i / 64] >> i % 64 & 1);
    CHECK(mask && allowed == 1 && !grammar_accept(g, 'b', &e) && grammar_accept(g, END, &e), "only ends: %u", allowed);
    grammar_close(g);

    grammar_tokens none = {&all_texts, 'c', token_text, token_is_end}; /* neither an end nor a c */
    grammar_vocabulary *small = grammar_vocabulary_open(&none, &e);
    g = grammar_open(small, "root ::= \"b\" \"c\"?", 17, &e);
    CHECK(grammar_allowed(g, &e) && grammar_accept(g, 'b', &e), "%s", e.text);
    CHECK(!grammar_allowed(g, &e) && e.code == BP_ERR_UNSUPPORTED && strstr(e.text, "complete"), "%s", e.text);
    grammar_close(g);
    g = grammar_open(small, "root ::= \"b\" \"c\"", 16, &e);
    CHECK(grammar_allowed(g, &e) && grammar_accept(g, 'b', &e), "%s", e.text);
    CHECK(!grammar_allowed(g, &e) && e.code == BP_ERR_UNSUPPORTED && strstr(e.text, "continues"), "%s", e.text);
    grammar_close(g);
    grammar_vocabulary_close(small);
}

int main(void) {
    bp_err e = {0};
    fill_texts(&all_texts);
    grammar_tokens tokens = {&all_texts, TOKENS, token_text, token_is_end};
    vocabulary = grammar_vocabulary_open(&tokens, &e);
    CHECK(vocabulary, "%s", e.text);
    check_errors();
    check_notation();
    check_random();
    check_limits();
    check_large_class();
    check_ambiguous();
    check_clearing();
    check_damaged();
    check_ends();
    grammar_vocabulary_close(vocabulary);
    return check_end();
}
