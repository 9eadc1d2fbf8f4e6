/* Whole files as an attacker sends them: cut off anywhere, damaged anywhere, with numbers that lie and checksums that
 * agree with them. Always an error that says what is wrong, or a model that runs, soon and in little memory.
 * With --full every byte of the fixture's header is flipped, else every 61st, and every third of the small file's. */
#include "check.h"

#include <sys/resource.h>

#include "io/source.h"
#include "platform.h"
#include "small_file.h"

enum { RANDOM_CUTS = 1000, SESSION_MOST = 1 << 26 };

static bp_engine *engine;
static double slowest;
static unsigned opened, refused;

/* Opens and runs a copy of exactly `size` bytes; the error is BP_OK when it ran. */
static bp_err_code try_file(const uint8_t *bytes, size_t size, bp_err *e) {
    uint8_t *copy = NULL;
    if (posix_memalign((void **)&copy, BP_ALIGN, bp_max(size, 1))) exit(1);
    if (size) memcpy(copy, bytes, size);
    *e = (bp_err){BP_OK, 0, ""};
    double begun = platform_seconds();
    bp_session_options o = {.n_ctx = 8, .chunk = 4};
    int32_t ids[4] = {0};
    bp_model *m = bp_model_open(engine, copy, size, e);
    size_t need = m ? bp_session_bytes(m, &o) : 0;
    bp_session *s = need && need < SESSION_MOST ? bp_session_open(m, &o, e) : NULL;
    if (s && bp_session_feed(s, ids, 4, e)) ids[0] = bp_session_sample(s, e);
    double seconds = platform_seconds() - begun;
    if (seconds > slowest) slowest = seconds;
    opened += m != NULL;
    refused += !m;
    if (!m && !e->text[0]) CHECK(false, "an error without a text");
    bp_session_close(s);
    bp_model_close(m);
    free(copy);
    return e->code;
}

static uint32_t random_state = 1;

static uint32_t random_below(size_t n) {
    random_state = random_state * 1664525u + 1013904223u;
    return (uint32_t)(((uint64_t)random_state * n) >> 32);
}

static bool ends_a_tier(const uint8_t *bytes, size_t size, size_t n) {
    bp_header h;
    if (!bp_header_read(bytes, size, &h, NULL)) return n == size;
    for (uint32_t i = 0; i < h.n_tiers; i++)
        if (h.tier_end[i] == n) return true;
    return n == size;
}

/* ---- cut off ---- */

static void check_cut(const uint8_t *bytes, size_t size, size_t n) {
    bp_err e;
    bp_err_code code = try_file(bytes, n, &e);
    if (ends_a_tier(bytes, size, n))
        CHECK(code == BP_OK, "a tier ends at %zu: %s", n, e.text);
    else
        CHECK(code == BP_ERR_FORMAT, "cut at %zu of %zu: %s", n, size, e.text);
    if (n < size) CHECK(!bp_verify(bytes, n, &e) || ends_a_tier(bytes, size, n) || n > 4096, "verified at %zu", n);
}

static void check_cuts(const uint8_t *bytes, size_t size) {
    static small_map map;
    small_map_make(&map, bytes);
    for (size_t i = 0; i < map.n; i++) check_cut(bytes, size, map.fields[i].at);
    gguf g;
    arena a = arena_measure();
    CHECK(gguf_open(&g, &a, bytes, size, NULL), "opens");
    void *memory = NULL;
    if (posix_memalign(&memory, BP_ALIGN, a.used)) exit(1);
    a = arena_over(memory, a.used);
    CHECK(gguf_open(&g, &a, bytes, size, NULL), "opens");
    for (uint32_t i = 0; i < g.n_tensors; i++) {
        check_cut(bytes, size, (size_t)g.tensors[i].offset);
        check_cut(bytes, size, (size_t)(g.tensors[i].offset + g.tensors[i].bytes));
    }
    free(memory);
    for (size_t i = 0; i < RANDOM_CUTS; i++) check_cut(bytes, size, random_below(size));
}

/* ---- damaged ---- */

/* A damaged header is never taken for a good one. */
static void check_flips(const uint8_t *bytes, size_t size, size_t step) {
    bp_header h;
    bp_err e = {0};
    CHECK(bp_header_read(bytes, size, &h, &e), "%s", e.text);
    uint8_t *copy = malloc(size);
    unsigned taken = 0, tried = 0;
    memcpy(copy, bytes, size);
    for (size_t at = 0; at < h.data_offset; at += step, tried++) {
        copy[at] ^= (uint8_t)(1u << at % 8);
        taken += bp_verify(copy, size, NULL);
        copy[at] = bytes[at];
    }
    CHECK(taken == 0, "%u of %u damaged headers are taken for good ones", taken, tried);
    free(copy);
}

/* The attacker repairs the checksums: what opens must run. */
static void check_sealed_flips(const small_file *f, size_t step) {
    uint8_t *copy = malloc(f->size);
    bp_err e;
    for (size_t at = 0; at < f->size; at += step) {
        memcpy(copy, f->bytes, f->size);
        copy[at] ^= (uint8_t)(at & 1 ? 1u << at % 8 : 0xff);
        small_seal(copy, f->size);
        try_file(copy, f->size, &e);
    }
    free(copy);
    CHECK(refused > 1000 && opened > 1000, "%u refused, %u opened", refused, opened);
}

static void check_numbers(const small_file *f) {
    static const uint64_t numbers[] = {0, 1, 1ull << 31, 1ull << 32, 1ull << 63, UINT64_MAX, 64};
    static small_map map;
    uint8_t *copy = malloc(f->size);
    bp_err e;
    small_map_make(&map, f->bytes);
    for (size_t i = 0; i < map.n; i++) {
        for (size_t k = 0; k < sizeof numbers / sizeof *numbers; k++) {
            memcpy(copy, f->bytes, f->size);
            memcpy(copy + map.fields[i].at, &numbers[k], map.fields[i].bytes);
            small_seal(copy, f->size);
            try_file(copy, f->size, &e);
        }
    }
    free(copy);
    CHECK(map.n > 400, "only %zu numbers were found", map.n);
}

/* ---- contradictions ---- */

static void put_counts(gguf_writer *w) {
    static const char *const names[] = {"block_count", "embedding_length", "feed_forward_length",
                                        "attention.head_count", "context_length"};
    static const uint32_t values[] = {1, 32, 32, 2, 64};
    gguf_put_string(w, "general.architecture", "llama", 5);
    for (size_t i = 0; i < 5; i++) {
        char key[64];
        snprintf(key, sizeof key, "llama.%s", names[i]);
        gguf_put_u32(w, key, values[i]);
    }
}

/* Finds `from` in the header and puts `to` there, of the same length. */
static void replace(uint8_t *bytes, size_t size, const char *from, const char *to) {
    uint8_t *at = memmem(bytes, size, from, strlen(from));
    CHECK(at, "'%s' is in the file", from);
    if (at) memcpy(at, to, strlen(to));
}

static void check_contradictions(const small_file *f) {
    uint8_t *copy = malloc(f->size);
    bp_err e;
    memcpy(copy, f->bytes, f->size);
    replace(copy, f->size, "blk.0.ffn_down.0.a", "blk.0.ffn_gate.0.a");
    CHECK(try_file(copy, f->size, &e) == BP_ERR_FORMAT && strstr(e.text, "two tensors are named 'blk.0.ffn_gate.0.a'"),
          "%s", e.text);
    memcpy(copy, f->bytes, f->size);
    replace(copy, f->size, "tokenizer.ggml.merges", "tokenizer.ggml.tokens");
    CHECK(try_file(copy, f->size, &e) == BP_ERR_FORMAT && strstr(e.text, "two keys are named 'tokenizer.ggml.tokens'"),
          "%s", e.text);
    free(copy);
}

/* One piece of data that many tensors claim would be widened once for each: memory out of nothing. */
static void check_overlap(const small_file *f) {
    static const char name[] = "blk.0.attn_norm.weight";
    uint8_t *copy = malloc(f->size), *entry;
    bp_err e;
    memcpy(copy, f->bytes, f->size);
    entry = memmem(copy, f->size, name, strlen(name));
    memcpy(entry + strlen(name) + 4 + 8 + 4, &(uint64_t){0}, 8); /* behind dimensions and type */
    small_seal(copy, f->size);
    CHECK(try_file(copy, f->size, &e) == BP_ERR_FORMAT && strstr(e.text, "overlaps") && strstr(e.text, name), "%s",
          e.text);
    free(copy);
}

/* ---- bounds ---- */

/* 1 KB that claims 10 GB: an error, not memory. */
static void check_claim(void) {
    gguf_writer *w = gguf_writer_new();
    uint64_t dims[2] = {32, 80 << 20}, header_size, size;
    uint8_t *header = NULL;
    bp_err e = {0};
    put_counts(w);
    gguf_put_tensor(w, "token_embd.weight", QUANT_F32, 2, dims);
    CHECK(gguf_writer_finish(w, 64, &header, &header_size, &size, &e) && size > 10u << 30, "%s", e.text);
    CHECK(header_size < 1024, "%zu bytes", (size_t)header_size);
    CHECK(try_file(header, (size_t)header_size, &e) == BP_ERR_FORMAT, "%s", e.text);
    uint64_t file_size, data_offset;
    CHECK(bp_probe(header, (size_t)header_size, &file_size, &data_offset, &e) == 1 && file_size == size,
          "the probe tells what is claimed");
    free(header);
    gguf_writer_free(w);
}

/* A header of many keys or tensors takes time in proportion to its size, whatever their names. */
static void check_many(bool tensors) {
    enum { MANY = 60000 };
    gguf_writer *w = gguf_writer_new();
    uint64_t one = 1, header_size, size;
    uint8_t *header = NULL;
    bp_err e = {0};
    char name[32];
    put_counts(w);
    for (unsigned i = 0; tensors && i < MANY; i++) {
        snprintf(name, sizeof name, "t%u", i);
        gguf_put_tensor(w, name, QUANT_I8, 1, &one);
    }
    if (!gguf_writer_finish(w, 64, &header, &header_size, &size, &e)) CHECK(false, "%s", e.text);
    /* the writer looks for each key among all: they are put by hand */
    size_t room = (size_t)size + MANY * 32, used = 24;
    uint8_t *file = calloc(1, room + 64);
    memcpy(file, header, 24);
    uint64_t keys;
    memcpy(&keys, header + 16, 8);
    for (unsigned i = 0; !tensors && i < MANY; i++, keys++) {
        uint64_t length = (uint64_t)snprintf(name, sizeof name, "k%u", i);
        memcpy(file + used, &length, 8);
        memcpy(file + used + 8, name, length);
        file[used + 8 + length] = GGUF_U8;
        used += 8 + length + 4 + 1;
    }
    memcpy(file + 16, &keys, 8);
    memcpy(file + used, header + 24, (size_t)header_size - 24);
    double begun = platform_seconds();
    gguf g;
    arena a = arena_measure();
    bool good = gguf_open(&g, &a, file, room, &e);
    void *memory = NULL;
    if (posix_memalign(&memory, BP_ALIGN, a.used)) exit(1);
    a = arena_over(memory, a.used);
    good = good && gguf_open(&g, &a, file, room, &e);
    CHECK(good, "%s", e.text);
    unsigned found = 0;
    for (unsigned i = 0; good && i < MANY; i++) {
        snprintf(name, sizeof name, "%c%u", tensors ? 't' : 'k', i);
        found += tensors ? gguf_tensor_find(&g, name) != NULL : gguf_find(&g, name) != NULL;
    }
    double seconds = platform_seconds() - begun;
    CHECK(found == MANY, "%u of %d names are found", found, MANY);
    CHECK(seconds < 5, "%d names took %.1f s", MANY, seconds);
    free(memory);
    free(file);
    free(header);
    gguf_writer_free(w);
}

int main(int argc, char **argv) {
    bool full = argc > 1 && strcmp(argv[1], "--full") == 0;
    bp_err e;
    source fixture;
    engine = bp_engine_open(NULL, &e);
    small_file f = small_file_make();
    CHECK(try_file(f.bytes, f.size, &e) == BP_OK && bp_verify(f.bytes, f.size, &e), "the good file: %s", e.text);
    CHECK(source_open(&fixture, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    check_cuts(f.bytes, f.size);
    check_cuts(fixture.bytes, (size_t)fixture.size);
    check_flips(f.bytes, f.size, 1);
    check_flips(fixture.bytes, (size_t)fixture.size, full ? 1 : 61);
    check_sealed_flips(&f, full ? 1 : 3);
    check_numbers(&f);
    check_contradictions(&f);
    check_overlap(&f);
    check_claim();
    check_many(false);
    check_many(true);
    CHECK(slowest < 2, "one file took %.2f s", slowest);
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    printf("%u files opened, %u refused, the slowest in %.3f s, at most %ld MB\n", opened, refused, slowest,
           usage.ru_maxrss / 1024);
    source_close(&fixture);
    free(f.bytes);
    bp_engine_close(engine);
    return check_end();
}
