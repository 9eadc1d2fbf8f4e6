/* A grammar in GBNF, then random walks over what it allows: the mask and the acceptance of tokens agree, restarts are
 * repeatable, and texts leave nothing behind. */
#include "fuzz.h"

#include "grammar.h"

static const char *const WORDS[] = {"a", "b", "ab",  "0",   "1",    "12",   "\"",       "{",    "}",
                                    "[", "]", ":",   ",",   " ",    "\n",   "\\",       "true", "null",
                                    "-", ".", "e",   "xyz", "\xc3", "\xa9", "\xe2\x82", "\xac", "\xf0\x9f\x98\x80",
                                    "",  "",  "</s>"};
enum { N_WORDS = sizeof WORDS / sizeof *WORDS, STEPS = 24 };

static size_t word_text(const void *context, int32_t id, char *out, size_t capacity) {
    (void)context;
    size_t n = strlen(WORDS[id]);
    memcpy(out, WORDS[id], n < capacity ? n : capacity);
    return n < capacity ? n : capacity;
}

static bool word_ends(const void *context, int32_t id) {
    (void)context;
    return id == N_WORDS - 1;
}

static bool allows(const uint64_t *mask, int32_t id) { return mask && mask[id / 64] >> (id % 64) & 1; }

static void walk(grammar *g, fuzz_input *in) {
    for (int step = 0; step < STEPS; step++) {
        bp_err e = {0};
        const uint64_t *mask = grammar_allowed(g, &e);
        if (!mask) fuzz_check_error(&e);
        bool ends = grammar_can_end(g);
        if (mask) LAW(allows(mask, N_WORDS - 1) == ends);
        int32_t id = fuzz_u8(in) % N_WORDS;
        bool wanted = allows(mask, id), too_ambiguous = !mask && e.code == BP_ERR_UNSUPPORTED;
        e.code = BP_OK;
        bool taken = grammar_accept(g, id, &e);
        if (taken) LAW(wanted || too_ambiguous);
        if (!taken) fuzz_check_error(&e);
        if (!taken && wanted) LAW(e.code == BP_ERR_UNSUPPORTED);
        if (!taken) return;
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static grammar_vocabulary *vocabulary;
    static const grammar_tokens tokens = {NULL, N_WORDS, word_text, word_ends};
    bp_err e = {0};
    if (!vocabulary) vocabulary = grammar_vocabulary_open(&tokens, &e);
    LAW(vocabulary);
    /* the grammar up to the first zero byte, the walk behind it */
    const uint8_t *end = size ? memchr(data, 0, size) : NULL;
    size_t n = end ? (size_t)(end - data) : size;
    char *gbnf = (char *)fuzz_copy(data, n);
    grammar *g = grammar_open(vocabulary, gbnf, n, &e);
    free(gbnf);
    if (!g) {
        fuzz_check_error(&e);
        return 0;
    }
    for (int turn = 0; turn < 2; turn++) {
        fuzz_input in = {data + n, size - n};
        fuzz_u8(&in);
        walk(g, &in);
        grammar_restart(g);
    }
    grammar_close(g);
    return 0;
}
