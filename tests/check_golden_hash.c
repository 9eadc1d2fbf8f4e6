/* The bits of the fixture's logits, for every ISA of this machine, all classes of arithmetic and cache, several thread counts and
 * ways to cut the text: one hash per class, the same that tests/web/golden.test.js finds in WASM.
 * `check_golden_hash ISA` is for one ISA alone; `--print` writes tests/golden/logits.json anew, for a change of the numbers that is
 * meant. */
#include "check.h"
#include "engine.h"
#include "io/file.h"
#include "kernel.h"
#include "sha256.h"

#define MODEL "models/tinystories-656k.gguf"
#define GOLDEN BITPAIR_ROOT "/tests/golden/logits.json"

enum { IDS = 48, HEX = 65 };

static int32_t ids[IDS];
static char ids_line[16 * IDS]; /* as the file has them */
static const char *only;        /* NULL: every ISA */
/* Arithmetic and bits of the cache; the name is its key in the file. */
static const struct {
    const char *name, *arith;
    uint32_t kv_bits;
} CLASSES[] = {{"lut8", "lut8", 8}, {"popcount", "popcount", 8}, {"lut8_kv16", "lut8", 16}};

enum { CLASS_COUNT = sizeof CLASSES / sizeof CLASSES[0] };

static void to_hex(const uint8_t digest[32], char hex[HEX]) {
    for (size_t i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
}

typedef enum { STAY, SAVED, FORKED } between; /* what happens to the session between two steps */

/* The session that goes on: the same, one that a saved state was restored to, or a fork. */
static bp_session *go_on(bp_model *model, const bp_session_options *o, bp_session *s, between how, bp_err *e) {
    if (how == STAY) return s;
    bp_session *next = how == FORKED ? bp_session_fork(s, e) : bp_session_open(model, o, e);
    size_t size = bp_session_save_bytes(s);
    void *state = malloc(size);
    if (next && how == SAVED && !(bp_session_save(s, state, size, e) && bp_session_restore(next, state, size, e))) {
        bp_session_close(next);
        next = NULL;
    }
    free(state);
    bp_session_close(s);
    return next;
}

/* SHA-256 of the float32 logits of every position, fed `step` tokens at a time. */
static bool hash_logits(const file_view *file, const bp_engine_options *options, const bp_session_options *kept,
                        size_t step, between how, char hex[HEX], bp_err *e) {
    uint8_t digest[32];
    bp_model_info info = {0};
    bp_engine *engine = bp_engine_open(options, e);
    bp_model *model = engine ? bp_model_open(engine, file->bytes, (size_t)file->size, e) : NULL;
    bp_session *session = model ? bp_session_open(model, kept, e) : NULL;
    if (model) bp_model_describe(model, &info);
    float *logits = malloc((size_t)IDS * info.vocab * sizeof *logits + 1);
    sha256 sum;
    sha256_init(&sum);
    bool ok = session != NULL;
    for (size_t at = 0; ok && at < IDS; at += step) {
        size_t n = at + step < IDS ? step : IDS - at;
        ok = bp_session_feed_all(session, ids + at, n, logits, e);
        sha256_update(&sum, logits, n * info.vocab * sizeof *logits);
        session = go_on(model, kept, session, how, e);
        ok = ok && session;
    }
    sha256_final(&sum, digest);
    to_hex(digest, hex);
    free(logits);
    bp_session_close(session);
    bp_model_close(model);
    bp_engine_close(engine);
    return ok;
}

static void check_class(const file_view *file, size_t c, const char *wanted) {
    const char *name = CLASSES[c].name;
    static const size_t steps[] = {IDS, 7, 1};
    char hex[HEX];
    for (const char *const *isa = kernel_isas(); *isa; isa++)
        for (uint32_t threads = 1; threads <= 3 && (!only || strcmp(only, *isa) == 0); threads++)
            for (size_t s = 0; s < sizeof steps / sizeof *steps; s++) {
                bp_err e = {0};
                bp_engine_options options = {threads, *isa, CLASSES[c].arith};
                bp_session_options kept = {.kv_bits = CLASSES[c].kv_bits};
                bool ok = hash_logits(file, &options, &kept, steps[s], STAY, hex, &e);
                CHECK(ok && strcmp(hex, wanted) == 0, "%s %s, %u threads, %zu at a time: %s, golden %s %s", name, *isa,
                      (unsigned)threads, steps[s], hex, wanted, e.text);
            }
}

/* More threads than processors, chunks of odd sizes, states that travel: the bits stay. */
static void check_ways(const file_view *file, size_t c, const char *wanted) {
    static const uint32_t chunks[] = {1, 2, 5, 16, 33, 47, 48, 0};
    char hex[HEX];
    for (uint32_t i = 0; i < 10; i++) {
        bp_err e = {0};
        between how = i < 8 ? STAY : i == 8 ? SAVED : FORKED;
        bp_engine_options options = {how == STAY ? i + 1 : i - 7, only, CLASSES[c].arith};
        bp_session_options kept = {.chunk = chunks[i % 8], .kv_bits = CLASSES[c].kv_bits};
        bool ok = hash_logits(file, &options, &kept, how == STAY ? IDS : 13, how, hex, &e);
        CHECK(ok && strcmp(hex, wanted) == 0, "%s, %u threads, chunks of %u, way %d: %s, golden %s %s", CLASSES[c].name,
              (unsigned)options.threads, (unsigned)chunks[i % 8], (int)how, hex, wanted, e.text);
    }
}

static bool print_golden(const file_view *file) {
    char hex[HEX];
    uint8_t digest[32];
    bp_err e = {0};
    sha256_digest(file->bytes, (size_t)file->size, digest);
    to_hex(digest, hex);
    printf("{\n  \"model\": \"" MODEL "\",\n  \"model_sha256\": \"%s\",\n  \"vocab\": 2048,\n  %s,\n", hex, ids_line);
    printf("  \"logits_sha256\": {");
    for (size_t c = 0; c < CLASS_COUNT; c++) {
        bp_engine_options options = {1, "ref", CLASSES[c].arith};
        bp_session_options kept = {.kv_bits = CLASSES[c].kv_bits};
        if (!hash_logits(file, &options, &kept, IDS, STAY, hex, &e)) return fprintf(stderr, "%s\n", e.text), false;
        printf("%s\n    \"%s\": \"%s\"", c ? "," : "", CLASSES[c].name, hex);
    }
    printf("\n  }\n}\n");
    return true;
}

/* hex <- the hash of a class in the text of the file, which is as print_golden writes it */
static bool golden_of(const char *text, const char *name, char hex[HEX]) {
    char key[32];
    snprintf(key, sizeof key, "\"%s\": \"", name);
    const char *at = strstr(text, key);
    snprintf(hex, HEX, "%s", at ? at + strlen(key) : "");
    return strspn(hex, "0123456789abcdef") == HEX - 1;
}

static void check_golden(const file_view *file) {
    bp_err e = {0};
    file_view golden;
    bool mapped = file_map(&golden, GOLDEN, &e);
    CHECK(mapped, "%s", e.text);
    if (!mapped) return;
    char *text = calloc(1, golden.size + 1), wanted[HEX];
    memcpy(text, golden.bytes, golden.size);
    file_unmap(&golden);
    CHECK(strstr(text, ids_line), "the ids of " GOLDEN " are not those of this test");
    for (size_t c = 0; c < CLASS_COUNT; c++) {
        bool found = golden_of(text, CLASSES[c].name, wanted);
        CHECK(found, "no hash for %s", CLASSES[c].name);
        if (found) check_class(file, c, wanted);
        if (found) check_ways(file, c, wanted);
    }
    free(text);
}

static void make_ids(void) {
    size_t n = (size_t)snprintf(ids_line, sizeof ids_line, "\"ids\": [");
    for (size_t i = 0; i < IDS; i++) {
        ids[i] = (int32_t)((i * 97 + 11) % 2048);
        n += (size_t)snprintf(ids_line + n, sizeof ids_line - n, "%d%s", (int)ids[i], i < IDS - 1 ? ", " : "]");
    }
}

int main(int argc, char **argv) {
    file_view file;
    bp_err e = {0};
    make_ids();
    bool mapped = file_map(&file, BITPAIR_ROOT "/" MODEL, &e);
    CHECK(mapped, "%s", e.text);
    if (!mapped) return check_end();
    if (argc > 1 && strcmp(argv[1], "--print") == 0) return print_golden(&file) ? 0 : 1;
    if (argc > 1) only = argv[1];
    check_golden(&file);
    file_unmap(&file);
    return check_end();
}
