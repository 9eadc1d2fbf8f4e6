/* Grammars on real models: the tokens allowed are those that a test of every token allows, all that is sampled is of
 * the grammar, and a session can be rewound and used again. */
#include "check.h"

#include "engine.h"
#include "grammar.h"
#include "io/source.h"

static const char JSON[] =
    "root ::= value\n"
    "value ::= object | array | string | number | \"true\" | \"false\" | \"null\"\n"
    "object ::= \"{\" ws (pair (\",\" ws pair)*)? \"}\"\n"
    "pair ::= string \":\" ws value\n"
    "array ::= \"[\" ws (value (\",\" ws value)*)? \"]\"\n"
    "string ::= \"\\\"\" ([^\"\\\\\\x00-\\x1f] | \"\\\\\" ([\"\\\\/bfnrt] | \"u\" [0-9a-fA-F]{4}))* \"\\\"\"\n"
    "number ::= \"-\"? (\"0\" | [1-9] [0-9]*) (\".\" [0-9]+)? ([eE] [-+]? [0-9]+)?\n"
    "ws ::= | \" \" | \"\\n\" [ \\t]{0,20}\n";

/* Sentences of the small model's own letters. */
static const char STORY[] = "root ::= sentence{2,3}\n"
                            "sentence ::= \" \"? [A-Z] word (\" \" word){1,9} [.!?]\n"
                            "word ::= [a-z]{1,8}\n";

static bool is_story(const char *text) {
    int sentences = 0, words = 0;
    for (; *text; sentences++, text++) {
        text += *text == ' ';
        if (*text < 'A' || *text++ > 'Z') return false;
        for (words = 0;; words++, text++) {
            size_t letters = strspn(text, "abcdefghijklmnopqrstuvwxyz");
            text += letters;
            if (letters < 1 || letters > 8) return false;
            if (*text != ' ') break;
        }
        if (words < 1 || words > 9 || !*text || !strchr(".!?", *text)) return false;
    }
    return sentences >= 2 && sentences <= 3;
}

typedef struct {
    source source;
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
    bp_model_info info;
} opened;

static opened open_model(const char *path, uint32_t threads) {
    opened o = {0};
    bp_err e = {0};
    if (source_open(&o.source, path, &e)) o.engine = bp_engine_open(&(bp_engine_options){.threads = threads}, &e);
    if (o.engine) o.model = bp_model_open(o.engine, o.source.bytes, o.source.size, &e);
    if (o.model) o.session = bp_session_open(o.model, &(bp_session_options){.n_ctx = 256}, &e);
    CHECK(o.session, "%s", e.text);
    if (!o.session) exit(check_end());
    bp_model_describe(o.model, &o.info);
    return o;
}

static void close_model(opened *o) {
    bp_session_close(o->session);
    bp_model_close(o->model);
    bp_engine_close(o->engine);
    source_close(&o->source);
}

static size_t token_text(const void *context, int32_t id, char *out, size_t capacity) {
    return bp_token_text(context, id, false, out, capacity);
}

static bool token_is_end(const void *context, int32_t id) { return bp_model_is_end(context, id); }

/* ---- allowed tokens ---------------------------------------------------------------------------------------------- */

static bool accept_text(grammar *g, const grammar_vocabulary *v, const opened *o, const char *text) {
    int32_t ids[300];
    (void)v;
    grammar_restart(g);
    ptrdiff_t n = bp_tokenize(o->model, text, strlen(text), 0, ids, 300, NULL);
    bool ok = n >= 0;
    for (ptrdiff_t i = 0; ok && i < n; i++) ok = grammar_accept(g, ids[i], NULL);
    return ok;
}

static void check_every_token(const opened *o, const char *gbnf, const char *const *texts) {
    bp_err e = {0};
    grammar_tokens tokens = {o->model, o->info.vocab, token_text, token_is_end};
    grammar_vocabulary *v = grammar_vocabulary_open(&tokens, &e);
    grammar *g = v ? grammar_open(v, gbnf, strlen(gbnf), &e) : NULL;
    CHECK(g, "%s", e.text);
    uint64_t *allowed = calloc(o->info.vocab / 64 + 1, sizeof *allowed);
    for (; g && *texts; texts++) {
        CHECK(accept_text(g, v, o, *texts), "'%s' is of the grammar", *texts);
        const uint64_t *mask = grammar_allowed(g, &e);
        CHECK(mask, "'%s': %s", *texts, e.text);
        if (!mask) continue;
        memcpy(allowed, mask, (o->info.vocab + 63) / 64 * sizeof *allowed);
        unsigned wrong = 0, some = 0;
        for (int32_t id = 0; id < (int32_t)o->info.vocab; id++) {
            accept_text(g, v, o, *texts);
            bool naive = grammar_accept(g, id, NULL);
            some += naive;
            wrong += naive != (allowed[id / 64] >> id % 64 & 1);
        }
        CHECK(wrong == 0 && some > 0, "after '%s' %u tokens are wrong, %u allowed", *texts, wrong, some);
    }
    free(allowed);
    grammar_close(g);
    grammar_vocabulary_close(v);
}

/* ---- sampling ---------------------------------------------------------------------------------------------------- */

static const sampler_options sampling = {
    .temperature = 1.2f, .top_k = 40, .typical_p = 1, .top_p = 0.95f, .repeat_penalty = 1.1f, .repeat_last = 64};

static void feed_text(bp_session *s, const bp_model *m, const char *text) {
    int32_t ids[300];
    bp_err e = {0};
    ptrdiff_t n = bp_tokenize(m, text, strlen(text), BP_TOKENIZE_BOS, ids, 300, &e);
    CHECK(n > 0 && bp_session_feed(s, ids, (size_t)n, &e), "%s", e.text);
}

/* Samples and feeds until an end token or `most` tokens; the text in out. Returns the number of tokens, -1 on error. */
static int sample_text(const opened *o, int most, char *out, bp_err *e) {
    for (int i = 0; i < most; i++) {
        int32_t id = bp_session_sample(o->session, e);
        if (id < 0) return -1;
        if (bp_model_is_end(o->model, id)) return i;
        out += bp_token_text(o->model, id, false, out, 100);
        *out = 0;
        if (!bp_session_feed(o->session, &id, 1, e)) return -1;
    }
    return most;
}

static void check_samples(const opened *one, const opened *two) {
    char first[2000], second[2000];
    unsigned whole = 0;
    for (uint64_t seed = 0; seed < 30; seed++) {
        sampler_options options = sampling;
        options.seed = seed;
        if (seed % 3 == 1) options.temperature = 0;
        if (seed % 3 == 2) options.top_k = 0, options.top_p = 1;
        bp_err e = {0};
        int n[2];
        for (int k = 0; k < 2; k++) {
            const opened *o = k ? two : one;
            *(k ? second : first) = 0;
            CHECK(bp_session_rewind(o->session, 0, &e) && bp_session_sampling(o->session, &options, &e) &&
                      bp_session_grammar(o->session, STORY, sizeof STORY - 1, &e),
                  "%s", e.text);
            feed_text(o->session, o->model, seed % 2 ? "Once upon a time" : "1 + 1 = 2! {");
            n[k] = sample_text(o, 200, k ? second : first, &e);
        }
        CHECK(n[0] >= 0 && n[0] == n[1] && strcmp(first, second) == 0, "seed %u: %s / %s / %s", (unsigned)seed, first,
              second, e.text);
        CHECK(is_story(first), "seed %u: %s", (unsigned)seed, first);
        whole += n[0] > 5;
    }
    CHECK(whole > 20, "only %u texts are longer than five tokens", whole);
}

/* The same token as masking the logits of all that a test of every token refuses. */
static void check_same_choice(const opened *o, const sampler_options *options) {
    bp_err e = {0};
    grammar_tokens tokens = {o->model, o->info.vocab, token_text, token_is_end};
    grammar_vocabulary *v = grammar_vocabulary_open(&tokens, &e);
    grammar *g = grammar_open(v, STORY, sizeof STORY - 1, &e);
    arena a = arena_measure();
    sampler_layout(&a, o->info.vocab);
    void *memory = aligned_alloc(BP_ALIGN, a.used);
    a = arena_over(memory, a.used);
    sampler *s = sampler_layout(&a, o->info.vocab);
    sampler_reset(s, options);
    float *logits = malloc(o->info.vocab * sizeof *logits);
    int32_t ids[256], n = 0;
    bp_session_rewind(o->session, 0, &e);
    bp_session_sampling(o->session, options, &e);
    bp_session_grammar(o->session, STORY, sizeof STORY - 1, &e);
    for (ids[n++] = o->info.bos; n < 60; n++) {
        CHECK(bp_session_feed(o->session, ids + n - 1, 1, &e), "%s", e.text);
        memcpy(logits, bp_session_logits(o->session), o->info.vocab * sizeof *logits);
        for (int32_t id = 0; id < (int32_t)o->info.vocab; id++) {
            grammar_restart(g);
            for (int32_t i = 1; i < n; i++) grammar_accept(g, ids[i], NULL);
            if (!grammar_accept(g, id, NULL)) logits[id] = -__builtin_inff();
        }
        ids[n] = bp_session_sample(o->session, &e);
        int32_t expected = sampler_pick(s, logits, ids, (size_t)n);
        CHECK(ids[n] == expected, "token %d is %d, not %d", n, (int)ids[n], (int)expected);
        if (ids[n] < 0 || ids[n] != expected || bp_model_is_end(o->model, ids[n])) break;
    }
    CHECK(n > 4, "%d tokens", (int)n);
    free(logits);
    free(memory);
    grammar_close(g);
    grammar_vocabulary_close(v);
}

static bool set(const opened *o, const char *gbnf, bp_err *e) {
    return bp_session_grammar(o->session, gbnf, gbnf ? strlen(gbnf) : 0, e);
}

static void check_rewind(const opened *o) {
    char text[2000] = "", again[2000] = "";
    bp_err e = {0};
    sampler_options greedy = sampler_defaults();
    greedy.temperature = 0;
    bp_session_rewind(o->session, 0, &e);
    CHECK(bp_session_sampling(o->session, &greedy, &e) &&
              set(o, "root ::= \"one two\" (\" three\" | \" four\") \".\"", &e),
          "%s", e.text);
    feed_text(o->session, o->model, "The");
    uint32_t begin = bp_session_position(o->session);
    CHECK(sample_text(o, 50, text, &e) > 0 && strncmp(text, "one two ", 8) == 0, "%s: %s", text, e.text);
    CHECK(bp_model_is_end(o->model, bp_session_sample(o->session, &e)), "a text that is complete stays so");

    int32_t wrong = 0;
    uint32_t end = bp_session_position(o->session);
    bp_tokenize(o->model, "q", 1, 0, (int32_t[9]){0}, 9, &e);
    while (bp_token_text(o->model, wrong, false, again, 9) != 1 || again[0] != 'q') wrong++;
    again[0] = 0;
    CHECK(bp_session_rewind(o->session, end - 1, &e) && bp_session_feed(o->session, &wrong, 1, &e), "%s", e.text);
    CHECK(bp_session_sample(o->session, &e) == -1 && e.code == BP_ERR_ARGUMENT && strstr(e.text, "grammar"), "%s",
          e.text);

    CHECK(bp_session_rewind(o->session, begin, &e), "%s", e.text);
    feed_text(o->session, o->model, "qqq 5");
    CHECK(sample_text(o, 50, again, &e) > 0 && strncmp(again, "one two ", 8) == 0, "anew: %s: %s", again, e.text);

    CHECK(set(o, NULL, &e) && bp_session_rewind(o->session, begin - 1, &e), "%s", e.text);
    feed_text(o->session, o->model, "Once upon a time");
    *again = 0;
    CHECK(sample_text(o, 8, again, &e) > 0 && strncmp(again, "one", 3) != 0, "free again: %s", again);
}

/* A context that shifts under a text of a grammar, whether what goes is before the text, or part of it. */
static void check_shift(const opened *o) {
    static const char wanted[] = "one two three four five six seven.";
    for (uint32_t left = 1; left <= 8; left++) {
        char text[200] = "";
        bp_err e = {0};
        bp_session_rewind(o->session, 0, &e);
        CHECK(set(o, "root ::= \"one two three four five six seven.\"", &e), "%s", e.text);
        feed_text(o->session, o->model, "The cat sat on the mat");
        for (int i = 0; i < 5; i++) sample_text(o, 1, text + strlen(text), &e);
        uint32_t position = bp_session_position(o->session);
        CHECK(bp_session_shift(o->session, 2, position - 2 - left, &e), "%s", e.text);
        CHECK(sample_text(o, 60, text + strlen(text), &e) > 0 && strcmp(text, wanted) == 0, "%u left: '%s' %s",
              (unsigned)left, text, e.text);
        CHECK(bp_session_rewind(o->session, left < 5 ? 3 : 2, &e), "%s", e.text);
        feed_text(o->session, o->model, " dog");
        *text = 0;
        CHECK(sample_text(o, 60, text, &e) > 0 && strcmp(text, wanted) == 0, "anew: '%s' %s", text, e.text);
    }
}

static void check_refusals(const opened *o) {
    bp_err e = {0};
    char text[200] = "";
    bp_session_rewind(o->session, 0, &e);
    feed_text(o->session, o->model, "The");
    CHECK(set(o, "root ::= \"a\"", &e), "%s", e.text);
    CHECK(!set(o, "root ::= \"a", &e) && e.code == BP_ERR_ARGUMENT && strstr(e.text, "column 10"), "%s", e.text);
    CHECK(sample_text(o, 9, text, &e) == 1 && strcmp(text, "a") == 0, "the grammar before is kept: %s", text);
    CHECK(set(o, "root ::= \"\\xe2\\x82\\xac\"", &e) && bp_session_sample(o->session, &e) == -1, "no such character");
    CHECK(e.code == BP_ERR_UNSUPPORTED && strstr(e.text, "no token"), "%s", e.text);
    CHECK(set(o, NULL, &e) && bp_session_sample(o->session, &e) >= 0, "%s", e.text);
}

int main(void) {
    static const char *const json[] = {
        "",      "{",    "{\"a", "{\"name\": \"J\xc3\xb8rgen\", \"age\": 3", "[[[1, {\"x\":\n  ", "\"\\",
        "-1.5e", "true", NULL};
    static const char *const story[] = {"", "The cat", "The cat sat.", "Ab c! Cd e? Ef g", NULL};
    opened large = open_model(BITPAIR_ROOT "/models/smollm2-135m-instruct.gguf", 1);
    check_every_token(&large, JSON, json);
    close_model(&large);
    opened one = open_model(BITPAIR_ROOT "/models/tinystories-656k.gguf", 1);
    opened two = open_model(BITPAIR_ROOT "/models/tinystories-656k.gguf", 2);
    check_every_token(&one, STORY, story);
    check_samples(&one, &two);
    sampler_options options = sampling;
    for (options.seed = 0; options.seed < 3; options.seed++) check_same_choice(&one, &options);
    options.temperature = 0;
    check_same_choice(&one, &options);
    check_rewind(&one);
    check_shift(&one);
    check_refusals(&one);
    close_model(&one);
    close_model(&two);
    return check_end();
}
