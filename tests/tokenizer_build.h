/* tokenizer_build.h - tokenizers on constructed vocabularies, for the tests of the tokenizer. */
#ifndef BP_TOKENIZER_BUILD_H
#define BP_TOKENIZER_BUILD_H

#include "check.h"

#include "gguf.h"
#include "io/gguf_write.h"
#include "tokenizer_internal.h"

/* ---- building a tokenizer --------------------------------------------------------------------------------------- */

typedef struct {
    gguf_text tokens[2048], merges[512];
    int32_t types[2048];
    float scores[2048];
    char texts[2048][32];
    size_t n, n_merges;
} words;

static words W;

static inline int32_t add(const char *text, int32_t type, float score) {
    snprintf(W.texts[W.n], sizeof W.texts[0], "%s", text);
    W.tokens[W.n] = (gguf_text){W.texts[W.n], strlen(text)};
    W.types[W.n] = type;
    W.scores[W.n] = score;
    return (int32_t)W.n++;
}

static inline void add_merge(const char *text) { W.merges[W.n_merges++] = (gguf_text){text, strlen(text)}; }

static inline void put(gguf_writer *w, const char *key, const char *text) {
    gguf_put_string(w, key, text, strlen(text));
}

static inline gguf_writer *begin_keys(const char *model, const char *pre) {
    gguf_writer *w = gguf_writer_new();
    put(w, "tokenizer.ggml.model", model);
    put(w, "tokenizer.ggml.pre", pre);
    gguf_put_strings(w, "tokenizer.ggml.tokens", W.tokens, W.n);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, W.types, W.n);
    return w;
}

typedef struct {
    uint8_t *image;
    void *memory[2];
    gguf file;
    tokenizer *t;
} opened;

/* Lays the keys out, opens them, frees w. */
static inline bool open_keys(opened *o, gguf_writer *w, bp_err *e) {
    uint64_t size, full;
    *o = (opened){0};
    bool ok = gguf_writer_finish(w, 64, &o->image, &size, &full, e);
    gguf_writer_free(w);
    arena a = arena_measure();
    if (!ok || !gguf_open(&o->file, &a, o->image, size, e)) return false;
    a = arena_over(o->memory[0] = aligned_alloc(64, a.used), a.used);
    if (!gguf_open(&o->file, &a, o->image, size, e)) return false;
    a = arena_measure();
    if (!tokenizer_open(&o->t, &a, &o->file, e)) return false;
    CHECK(o->t == NULL, "measuring gives no tokenizer");
    size_t used = a.used;
    memset(o->memory[1] = aligned_alloc(64, used), 0xa5, used); /* whatever was in the memory */
    a = arena_over(o->memory[1], used);
    if (!tokenizer_open(&o->t, &a, &o->file, e)) return false;
    CHECK(a.used == used, "measured %zu, used %zu", used, a.used);
    return true;
}

static inline void close_keys(opened *o) {
    free(o->memory[0]);
    free(o->memory[1]);
    free(o->image);
}

static int32_t ids[1 << 17];
static size_t n_ids;

/* ids, n_ids <- tokens; scratch and output of exactly the promised size, so that the sanitizer sees a step too far */
static inline bool encode(const tokenizer *t, const char *text, size_t n, uint32_t flags, bp_err *e) {
    void *scratch = aligned_alloc(64, bp_round_up(tokenizer_scratch(t, n), 64));
    int32_t *out = malloc((n + 8) * sizeof *out);
    bool ok = tokenizer_encode(t, text, n, flags, scratch, out, &n_ids, e);
    memcpy(ids, out, n_ids * sizeof *out);
    free(scratch);
    free(out);
    return ok;
}

static inline bool encodes(const tokenizer *t, const char *text, uint32_t flags, size_t n, const int32_t *wanted) {
    bp_err e = {0};
    if (!encode(t, text, strlen(text), flags, &e)) return false;
    return n_ids == n && memcmp(ids, wanted, n * sizeof *ids) == 0;
}

#define ENCODES(t, text, flags, ...)                                                                                   \
    do {                                                                                                               \
        const int32_t wanted_[] = {__VA_ARGS__};                                                                       \
        bool same_ = encodes(t, text, flags, sizeof wanted_ / sizeof *wanted_, wanted_);                               \
        CHECK(same_, "'%s' gives %zu tokens: %d %d %d ...", text, n_ids, ids[0], ids[1], ids[2]);                      \
    } while (0)

/* The 256 bytes as tokens 0..255 */
static inline void begin_bytes(void) {
    W.n = W.n_merges = 0;
    for (unsigned b = 0; b < 256; b++) {
        char text[8] = {0};
        utf8_put(text, byte_to_char((uint8_t)b));
        add(text, TOKEN_NORMAL, 0);
    }
}

/* <unk> and the byte tokens as 0..256, then the space and a..e as 257..262 */
static inline void begin_spm(bool bytes) {
    W.n = W.n_merges = 0;
    add("<unk>", TOKEN_UNKNOWN, 0);
    for (unsigned b = 0; b < 256; b++) {
        char text[8];
        snprintf(text, sizeof text, "<0x%02X>", b);
        add(bytes ? text : "", bytes ? TOKEN_BYTE : TOKEN_UNUSED, 0);
    }
    add("\xe2\x96\x81", TOKEN_NORMAL, -100);
    for (const char *c = "a\0b\0c\0d\0e\0"; *c; c += 2) add(c, TOKEN_NORMAL, -100);
}

enum { SPACE_ID = 257, A, B, C, D, E };

static inline gguf_writer *bytes_keys(const char *pre) {
    gguf_writer *w = begin_keys("gpt2", pre);
    gguf_put_strings(w, "tokenizer.ggml.merges", W.merges, W.n_merges);
    return w;
}

static uint64_t seed = 88172645463325252u;

static inline uint32_t random_below(uint32_t n) {
    seed ^= seed << 13;
    seed ^= seed >> 7;
    seed ^= seed << 17;
    return (uint32_t)(seed >> 32) % n;
}

static inline size_t random_text(char *text, size_t cap) {
    static const uint32_t from[] = {0, 'a', ' ', 0x80, 0x300, 0x800, 0xe000, 0x2581, 0x10000, '\n'};
    static const uint32_t range[] = {128, 5, 1, 0x780, 0x70, 0x7000, 0x1fff, 1, 0x100000, 1};
    size_t n = 0, wanted = random_below(60);
    for (size_t i = 0; i < wanted && n + 4 <= cap; i++) {
        uint32_t k = random_below(10);
        n += utf8_put(text + n, from[k] + random_below(range[k]));
    }
    return n;
}

#endif
