/* Every error that engine.h documents, function by function: its code, a text, and nothing changed. The end reads engine.h:
 * a function that is not called here, or a documented code that was not seen here, fails. (BP_ERR_MEMORY: check_faults.) */
#include <ctype.h>
#include <math.h>

#include "check.h"
#include "small_file.h"

typedef struct {
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
    bp_err e;
} world;

/* What was refused: the function, as its call is written, and the code. */
static struct {
    char function[64];
    bp_err_code code;
} seen[128];
static unsigned kinds;

static void note(const char *call, bp_err_code code) {
    size_t n = strcspn(call, "(");
    CHECK(kinds < sizeof seen / sizeof *seen && n < sizeof seen->function, "no room for '%s'", call);
    if (kinds == sizeof seen / sizeof *seen || n >= sizeof seen->function) return;
    memcpy(seen[kinds].function, call, n);
    seen[kinds++].code = code;
}

/* The call fails with this code and a text that says `says`. */
#define REFUSED(w, call, wanted, says)                                                                                 \
    do {                                                                                                               \
        (w)->e = (bp_err){BP_OK, 0, ""};                                                                               \
        bool refused = !(call);                                                                                        \
        CHECK(refused && (w)->e.code == (wanted) && strstr((w)->e.text, says), "%s: %s", bp_err_name((w)->e.code),     \
              (w)->e.text);                                                                                            \
        note(#call, wanted);                                                                                           \
    } while (0)

static void check_engine(world *w) {
    REFUSED(w, bp_engine_open(&(bp_engine_options){.isa = "z80"}, &w->e), BP_ERR_ARGUMENT, "z80");
    REFUSED(w, bp_engine_open(&(bp_engine_options){.arith = "lut99"}, &w->e), BP_ERR_ARGUMENT, "lut99");
    REFUSED(w, bp_engine_open(&(bp_engine_options){.threads = 65}, &w->e), BP_ERR_ARGUMENT, "65");
    CHECK(!bp_engine_open(&(bp_engine_options){.threads = 65}, NULL), "an error without a place for it");
    CHECK(bp_engine_threads(w->engine) == 1 && bp_engine_isa(w->engine) && !strcmp(bp_engine_arith(w->engine), "lut8"),
          "what NULL chooses");
    bp_engine_close(NULL);
    bp_warm();
}

static void check_file(world *w, const small_file *f) {
    uint64_t size, offset;
    bp_header h;
    uint8_t *copy = NULL;
    if (posix_memalign((void **)&copy, BP_ALIGN, f->size)) exit(1);
    memcpy(copy, f->bytes, f->size);
    REFUSED(w, bp_probe("<html>", 6, &size, &offset, &w->e) >= 0, BP_ERR_FORMAT, "not a GGUF");
    CHECK(bp_probe(f->bytes, 100, &size, &offset, &w->e) == 0, "more of the header is needed");
    CHECK(bp_probe(f->bytes, f->size, &size, &offset, &w->e) == 1 && size == f->size, "the probe");
    REFUSED(w, bp_header_read(f->bytes, (size_t)offset - 1, &h, &w->e), BP_ERR_FORMAT, "truncated");
    REFUSED(w, bp_header_parse(f->bytes, (size_t)offset - 1, &h, &w->e), BP_ERR_FORMAT, "truncated");
    copy[4] = 2;
    REFUSED(w, bp_header_read(copy, f->size, &h, &w->e), BP_ERR_UNSUPPORTED, "version 2");
    REFUSED(w, bp_header_parse(copy, f->size, &h, &w->e), BP_ERR_UNSUPPORTED, "version 2");
    copy[4] = 3;
    copy[offset - 1] ^= 1; /* padding */
    REFUSED(w, bp_header_read(copy, f->size, &h, &w->e), BP_ERR_CHECKSUM, "header");
    CHECK(bp_header_parse(copy, f->size, &h, &w->e) && h.digest, "its digest is the caller's to check");
    REFUSED(w, bp_verify(copy, f->size, &w->e), BP_ERR_CHECKSUM, "header");
    copy[offset - 1] ^= 1;
    copy[f->size - 1] ^= 1;
    REFUSED(w, bp_verify(copy, f->size, &w->e), BP_ERR_CHECKSUM, "piece 0");
    CHECK(w->e.offset == offset, "the place of the damage: %llu", (unsigned long long)w->e.offset);
    copy[f->size - 1] ^= 1;
    CHECK(bp_header_read(copy, f->size, &h, &w->e) && !bp_piece_good(copy, f->size, h.digest), "another digest");
    CHECK(bp_piece_good(copy + offset, f->size - (size_t)offset, h.pieces), "a good piece");
    REFUSED(w, bp_model_open(w->engine, copy, f->size - 1, &w->e), BP_ERR_FORMAT, "truncated");
    REFUSED(w, bp_model_preview(w->engine, copy, (size_t)offset, (size_t)offset + 1, &w->e), BP_ERR_FORMAT,
            "truncated");
    memcpy(memmem(copy, f->size, "llama", 5), "mamba", 5);
    REFUSED(w, bp_model_open(w->engine, copy, f->size, &w->e), BP_ERR_UNSUPPORTED, "mamba");
    REFUSED(w, bp_model_preview(w->engine, copy, (size_t)offset, f->size, &w->e), BP_ERR_UNSUPPORTED, "mamba");
    memcpy(memmem(copy, f->size, "bitpair.header_sha256", 21), "bitpair.header_sha255", 21);
    REFUSED(w, bp_verify(copy, f->size, &w->e), BP_ERR_FORMAT, "only one is there");
    REFUSED(w, bp_header_read(copy, f->size, &h, &w->e), BP_ERR_FORMAT, "only one is there");
    memcpy(memmem(copy, f->size, "bitpair.piece_sha256", 20), "bitpair.piece_sha255", 20);
    REFUSED(w, bp_verify(copy, f->size, &w->e), BP_ERR_UNSUPPORTED, "no checksums");
    bp_model_close(NULL);
    free(copy);
}

/* Tiers: what opens with fewer, and what is refused later. */
static void check_raising(world *w, const small_file *f) {
    bp_model *m = bp_model_open_tiers(w->engine, f->bytes, f->size, 1, &w->e);
    CHECK(m, "%s", w->e.text);
    if (!m) return;
    bp_model_info info;
    REFUSED(w, bp_model_raise_tier(m, 0, &w->e), BP_ERR_ARGUMENT, "cannot go back");
    REFUSED(w, bp_model_raise_tier(m, 3, &w->e), BP_ERR_ARGUMENT, "");
    bp_model_describe(m, &info);
    CHECK(info.tier == 1 && info.n_tiers == 2, "what is refused changes nothing: tier %u", (unsigned)info.tier);
    CHECK(bp_model_raise_tier(m, 2, &w->e), "%s", w->e.text);
    bp_model_close(m);
    REFUSED(w, bp_model_open_tiers(w->engine, f->bytes, f->size, 0, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_open_tiers(w->engine, f->bytes, f->size, 3, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_open_tiers(w->engine, f->bytes, f->size - 1, 1, &w->e), BP_ERR_FORMAT, "");
    REFUSED(w, bp_model_open_tiers(w->engine, "GGUF\2", 5, 1, &w->e), BP_ERR_FORMAT, "");
}

static void check_inside(world *w) {
    const float *a, *c, *b;
    uint8_t out[512];
    bp_layer layer;
    uint32_t n = bp_model_layers(w->model);
    CHECK(n == 6 && bp_model_layer(w->model, n - 1, &layer) && !bp_model_layer(w->model, n, &layer), "%u layers",
          (unsigned)n);
    CHECK(bp_model_scales(w->model, 1, 0, &a, &c, &b, &w->e), "%s", w->e.text);
    REFUSED(w, bp_model_scales(w->model, n, 0, &a, &c, &b, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_scales(w->model, 1, SMALL_STAGES, &a, &c, &b, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_scales(w->model, 0, 0, &a, &c, &b, &w->e), BP_ERR_ARGUMENT, "");
    CHECK(bp_model_signs(w->model, 1, 0, 'A', out, sizeof out, &w->e), "%s", w->e.text);
    REFUSED(w, bp_model_signs(w->model, 1, SMALL_STAGES, 'A', out, sizeof out, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_signs(w->model, 1, 0, 'C', out, sizeof out, &w->e), BP_ERR_ARGUMENT, "");
    REFUSED(w, bp_model_signs(w->model, 1, 0, 'B', out, 127, &w->e), BP_ERR_ARGUMENT, "");
}

static void check_model(world *w) {
    uint64_t end;
    double bits;
    size_t size;
    int32_t ids[32];
    char out[8];
    CHECK(!bp_model_string(w->model, "no.such.key", &size) && !bp_model_string(w->model, "llama.block_count", &size),
          "no strings");
    CHECK(bp_model_tier(w->model, 1, &end, &bits) && !bp_model_tier(w->model, 2, &end, &bits), "two tiers");
    REFUSED(w, bp_tokenize(w->model, "ab\xff", 3, 0, ids, 32, &w->e) >= 0, BP_ERR_FORMAT, "UTF-8");
    REFUSED(w, bp_tokenize(w->model, "abc", 3, 0, ids, 10, &w->e) >= 0, BP_ERR_ARGUMENT, "11 ids");
    CHECK(bp_token_text(w->model, -1, true, out, 8) == 0 && bp_token_text(w->model, 1 << 30, true, out, 8) == 0,
          "no such token");
    CHECK(bp_token_text(w->model, SMALL_VOCAB - 1, true, out, 8) == 8, "cut to the capacity");
    CHECK(!bp_model_is_end(w->model, -1) && bp_model_is_end(w->model, SMALL_VOCAB - 1), "the end of a turn");
}

static void check_opening(world *w) {
    CHECK(bp_session_bytes(w->model, &(bp_session_options){.n_ctx = 65}) == 0, "longer than the model's");
    CHECK(bp_session_bytes(w->model, &(bp_session_options){.n_ctx = 64}) > 0, "as long as the model's");
    REFUSED(w, bp_session_open(w->model, &(bp_session_options){.n_ctx = 65}, &w->e), BP_ERR_ARGUMENT, "65");
    bp_session_options o = {.n_ctx = 16, .chunk = 4, .kv_bits = 16};
    bp_session *s = bp_session_open(w->model, &o, &w->e), *twin = s ? bp_session_fork(s, &w->e) : NULL;
    CHECK(twin && bp_session_capacity(twin) == 16 && bp_session_chunk(twin) == 4 && bp_session_kv_bits(twin) == 16,
          "%s", w->e.text);
    CHECK(bp_session_exact(s) == 0, "nothing is fed");
    bp_session_profile(s, NULL);
    bp_session_close(twin);
    bp_session_close(s);
    o.kv_bits = 9;
    CHECK(bp_session_bytes(w->model, &o) == 0, "no such cache");
    REFUSED(w, bp_session_open(w->model, &o, &w->e), BP_ERR_ARGUMENT, "9");
    bp_session_close(NULL);
}

/* On an empty session, and on one of 64 tokens that is full. */
static void check_feeding(world *w) {
    bp_session *s = w->session;
    int32_t ids[80] = {0}, bad[2] = {1, SMALL_VOCAB}, negative = -1;
    float logits[2 * SMALL_VOCAB], scores[80], hidden[SMALL_D];
    sampler_alternative best[SMALL_VOCAB + 1];
    REFUSED(w, bp_session_sample(s, &w->e) >= 0, BP_ERR_ARGUMENT, "no logits");
    REFUSED(w, bp_session_logprob(s, 0, scores, &w->e), BP_ERR_ARGUMENT, "no logits");
    REFUSED(w, bp_session_alternatives(s, 1, best, &w->e), BP_ERR_ARGUMENT, "no logits");
    CHECK(!bp_session_logits(s), "no logits yet");
    REFUSED(w, bp_session_feed(s, bad, 2, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_feed(s, &negative, 1, &w->e), BP_ERR_ARGUMENT, "-1");
    REFUSED(w, bp_session_feed_all(s, bad, 2, logits, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_feed_begin(s, bad, 2, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_feed_begin(s, ids, 0, &w->e), BP_ERR_ARGUMENT, "0");
    CHECK(bp_session_feed_layers(s, 1) == 0, "nothing was begun");
    REFUSED(w, bp_session_score(s, bad, 2, scores, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_embed(s, bad, 2, BP_POOL_MEAN, hidden, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_embed(s, ids, 0, BP_POOL_LAST, hidden, &w->e), BP_ERR_ARGUMENT, "at least one");
    REFUSED(w, bp_session_feed(s, ids, 65, &w->e), BP_ERR_CONTEXT, "65");
    REFUSED(w, bp_session_rewind(s, 1, &w->e), BP_ERR_ARGUMENT, "1");
    REFUSED(w, bp_session_shift(s, 0, 0, &w->e), BP_ERR_ARGUMENT, "remain");
    CHECK(bp_session_position(s) == 0, "what is refused changes nothing");
    CHECK(bp_session_feed(s, ids, 64, &w->e), "%s", w->e.text);
    REFUSED(w, bp_session_feed(s, ids, 1, &w->e), BP_ERR_CONTEXT, "64");
    REFUSED(w, bp_session_feed_all(s, ids, 1, logits, &w->e), BP_ERR_CONTEXT, "64");
    REFUSED(w, bp_session_feed_begin(s, ids, 1, &w->e), BP_ERR_CONTEXT, "64");
    REFUSED(w, bp_session_score(s, ids, 1, scores, &w->e), BP_ERR_CONTEXT, "64");
    REFUSED(w, bp_session_embed(s, ids, 1, BP_POOL_MEAN, hidden, &w->e), BP_ERR_CONTEXT, "64");
    REFUSED(w, bp_session_logprob(s, SMALL_VOCAB, scores, &w->e), BP_ERR_ARGUMENT, "20");
    REFUSED(w, bp_session_logprob(s, -1, scores, &w->e), BP_ERR_ARGUMENT, "-1");
    REFUSED(w, bp_session_alternatives(s, SMALL_VOCAB + 1, best, &w->e), BP_ERR_ARGUMENT, "21");
    REFUSED(w, bp_session_shift(s, 32, 32, &w->e), BP_ERR_ARGUMENT, "remain");
    CHECK(bp_session_position(s) == 64 && bp_session_logits(s), "what is refused changes nothing");
    CHECK(bp_session_exact(s) == 64 && bp_session_tokens(s)[63] == 0, "the tokens that were fed");
}

static void check_sampling(world *w) {
    sampler_options o = sampler_defaults();
    static const char unknown[] = "root ::= b", latin[] = "root ::= \"\xc3\xa9\"";
    int32_t a = 0;
    o.temperature = NAN;
    REFUSED(w, bp_session_sampling(w->session, &o, &w->e), BP_ERR_ARGUMENT, "temperature");
    REFUSED(w, bp_session_grammar(w->session, unknown, sizeof unknown - 1, &w->e), BP_ERR_ARGUMENT,
            "line 1, column 10");
    static char many[40000] = "root ::= \"a\"";
    for (size_t i = 0, at = strlen(many); i < 3000; i++) at += (size_t)snprintf(many + at, 16, "|\"%zu\"", i);
    REFUSED(w, bp_session_grammar(w->session, many, strlen(many), &w->e), BP_ERR_UNSUPPORTED, "begins in more ways");
    CHECK(bp_session_grammar(w->session, latin, sizeof latin - 1, &w->e), "%s", w->e.text);
    REFUSED(w, bp_session_sample(w->session, &w->e) >= 0, BP_ERR_UNSUPPORTED, "");
    CHECK(bp_session_grammar(w->session, "root ::= \"b\"", 12, &w->e), "%s", w->e.text);
    bp_session_rewind(w->session, 10, &w->e);
    CHECK(bp_session_feed(w->session, &a, 1, &w->e) && bp_session_sample(w->session, &w->e) == 1, "only b: %s",
          w->e.text);
    bp_session_feed(w->session, &a, 1, &w->e);
    REFUSED(w, bp_session_sample(w->session, &w->e) >= 0, BP_ERR_ARGUMENT, "");
    CHECK(bp_session_grammar(w->session, NULL, 0, &w->e) && bp_session_sample(w->session, &w->e) >= 0,
          "any text again: %s", w->e.text);
}

static void check_states(world *w, const small_file *f) {
    size_t size = bp_session_save_bytes(w->session);
    uint8_t *state = malloc(size);
    bp_err e = {0};
    REFUSED(w, bp_session_save(w->session, state, size - 1, &w->e), BP_ERR_ARGUMENT, "bytes");
    CHECK(bp_session_save(w->session, state, size, &e), "%s", e.text);
    REFUSED(w, bp_session_restore(w->session, "abc", 3, &w->e), BP_ERR_FORMAT, "not a saved session");
    REFUSED(w, bp_session_restore(w->session, state, size - 1, &w->e), BP_ERR_FORMAT, "bytes");
    const uint8_t version = state[8];
    state[8] = 9;
    REFUSED(w, bp_session_restore(w->session, state, size, &w->e), BP_ERR_UNSUPPORTED, "version 9");
    state[8] = version;
    state[size / 2] ^= 1;
    REFUSED(w, bp_session_restore(w->session, state, size, &w->e), BP_ERR_CHECKSUM, "damaged");
    state[size / 2] ^= 1;
    bp_session *narrow = bp_session_open(w->model, &(bp_session_options){.n_ctx = 4}, &e);
    REFUSED(w, bp_session_restore(narrow, state, size, &w->e), BP_ERR_CONTEXT, "room for 4");
    bp_session_close(narrow);
    bp_engine *other = bp_engine_open(&(bp_engine_options){.arith = "popcount"}, &e);
    bp_model *m = bp_model_open(other, f->bytes, f->size, &e);
    bp_session *s = bp_session_open(m, NULL, &e);
    REFUSED(w, bp_session_restore(s, state, size, &w->e), BP_ERR_ARGUMENT, "arithmetic");
    bp_session_close(s);
    bp_model_close(m);
    bp_engine_close(other);
    free(state);
}

/* ---- is engine.h covered? ---- */

static char *read_text(const char *path) {
    FILE *f = fopen(path, "r");
    char *text = calloc(1, 1 << 20);
    CHECK(f && fread(text, 1, (1 << 20) - 1, f) > 1000, "%s cannot be read", path);
    if (f) fclose(f);
    return text;
}

static bool was_seen(const char *function, bp_err_code code) {
    for (unsigned i = 0; i < kinds; i++)
        if (seen[i].code == code && strcmp(seen[i].function, function) == 0) return true;
    return false;
}

/* The codes that a function documents by reference: "errors as ..." */
static const struct {
    const char *function;
    bp_err_code codes[3];
} AS_OTHERS[] = {{"bp_probe", {BP_ERR_FORMAT}},
                 {"bp_tokenize", {BP_ERR_FORMAT, BP_ERR_ARGUMENT}},
                 {"bp_model_open_tiers", {BP_ERR_FORMAT}},
                 {"bp_model_preview", {BP_ERR_FORMAT, BP_ERR_UNSUPPORTED}},
                 {"bp_session_open", {BP_ERR_ARGUMENT}},
                 {"bp_session_feed_all", {BP_ERR_CONTEXT, BP_ERR_ARGUMENT}},
                 {"bp_session_feed_begin", {BP_ERR_CONTEXT, BP_ERR_ARGUMENT}},
                 {"bp_session_rewind", {BP_ERR_ARGUMENT}},
                 {"bp_session_alternatives", {BP_ERR_ARGUMENT}},
                 {"bp_session_score", {BP_ERR_CONTEXT, BP_ERR_ARGUMENT}},
                 {"bp_session_embed", {BP_ERR_CONTEXT, BP_ERR_ARGUMENT}}};

/* What cannot come: the bytes may not change, and those of all tiers were checked when the model was opened. */
static bool is_unreachable(const char *function, bp_err_code code) {
    return code == BP_ERR_FORMAT && strcmp(function, "bp_model_raise_tier") == 0;
}

/* Each code that the comment [from, to) before a declaration names, but for memory. Returns their number. */
static unsigned check_documented(const char *function, const char *from, const char *to) {
    static const bp_err_code codes[] = {BP_ERR_ARGUMENT, BP_ERR_FORMAT,  BP_ERR_UNSUPPORTED,
                                        BP_ERR_CHECKSUM, BP_ERR_CONTEXT, BP_ERR_IO};
    static const char *const names[] = {"BP_ERR_ARGUMENT", "BP_ERR_FORMAT",  "BP_ERR_UNSUPPORTED",
                                        "BP_ERR_CHECKSUM", "BP_ERR_CONTEXT", "BP_ERR_IO"};
    unsigned found = 0;
    for (size_t i = 0; i < sizeof codes / sizeof *codes; i++) {
        const char *at = strstr(from, names[i]);
        if (!at || at >= to) continue;
        found++;
        CHECK(was_seen(function, codes[i]) || is_unreachable(function, codes[i]), "%s: %s is not tested", function,
              names[i]);
    }
    for (size_t i = 0; i < sizeof AS_OTHERS / sizeof *AS_OTHERS; i++)
        for (int k = 0; strcmp(AS_OTHERS[i].function, function) == 0 && k < 3 && AS_OTHERS[i].codes[k]; k++, found++)
            CHECK(was_seen(function, AS_OTHERS[i].codes[k]), "%s: %s is not tested", function,
                  bp_err_name(AS_OTHERS[i].codes[k]));
    return found;
}

/* Declarations are what begins at the start of a line and has "bp_name(". */
static void check_header(void) {
    char *header = read_text(BITPAIR_ROOT "/src/engine.h"), *tests = read_text(__FILE__);
    const char *comment = header;
    unsigned functions = 0, fallible = 0;
    for (char *line = header; line && *line; line = strchr(line, '\n') ? strchr(line, '\n') + 1 : NULL) {
        if (strncmp(line, "/*", 2) == 0) comment = line;
        size_t length = strcspn(line, "(\n");
        const char *name = line + length;
        while (name > line && (isalnum((unsigned char)name[-1]) || name[-1] == '_')) name--;
        if (line[length] != '(' || !isalpha((unsigned char)line[0]) || strncmp(name, "bp_", 3) != 0) continue;
        char function[64], called[80];
        snprintf(function, sizeof function, "%.*s", (int)(line + length - name), name);
        snprintf(called, sizeof called, "%s(", function);
        functions++;
        CHECK(strstr(tests, called) || strcmp(function, "bp_engine_thread") == 0 /* WASM only */,
              "%s is not called here", function);
        const char *end = strchr(line, ';'), *error = strstr(line, "bp_err *e)");
        if (!error || error > end) continue;
        fallible++;
        bool memory_only = strcmp(function, "bp_session_fork") == 0;
        CHECK(check_documented(function, comment, line) > 0 || memory_only, "%s: no error of it is documented",
              function);
    }
    CHECK(functions > 45 && fallible > 20, "%u functions, %u that can fail", functions, fallible);
    printf("engine.h has %u functions, %u can fail\n", functions, fallible);
    free(header);
    free(tests);
}

int main(void) {
    world w = {0};
    small_file f = small_file_make();
    w.engine = bp_engine_open(NULL, &w.e);
    w.model = bp_model_open(w.engine, f.bytes, f.size, &w.e);
    w.session = w.model ? bp_session_open(w.model, NULL, &w.e) : NULL;
    CHECK(w.session, "%s", w.e.text);
    if (w.session) {
        check_engine(&w);
        check_file(&w, &f);
        check_raising(&w, &f);
        check_inside(&w);
        check_model(&w);
        check_opening(&w);
        check_feeding(&w);
        check_sampling(&w);
        check_states(&w, &f);
    }
    check_header();
    printf("%u documented errors\n", kinds);
    bp_session_close(w.session);
    bp_model_close(w.model);
    bp_engine_close(w.engine);
    free(f.bytes);
    return check_end();
}
