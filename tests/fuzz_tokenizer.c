/* A vocabulary and a text: the input says which tokens, types, scores and merges a file has, and the rest of it is
 * encoded and decoded. */
#include "fuzz.h"

#include "io/gguf_write.h"
#include "tokenizer_internal.h"

enum { TOKENS = 24, MERGES = 16, TEXT_MOST = 512 };

typedef struct {
    gguf_text tokens[256 + TOKENS], merges[MERGES];
    int32_t types[256 + TOKENS];
    float scores[256 + TOKENS];
    char bytes[256][4], joined[MERGES][80];
    size_t n, n_merges;
} vocabulary;

/* One token for each byte, as byte-level vocabularies have them; SentencePiece's are <0x00> and so on. */
static void add_bytes(vocabulary *v, bool spm) {
    static char names[256][8];
    for (unsigned b = 0; b < 256; b++, v->n++) {
        snprintf(names[b], sizeof names[b], "<0x%02X>", b);
        size_t n = utf8_put(v->bytes[b], byte_to_char((uint8_t)b));
        v->tokens[v->n] = spm ? (gguf_text){names[b], 6} : (gguf_text){v->bytes[b], n};
        v->types[v->n] = spm ? TOKEN_BYTE : TOKEN_NORMAL;
        v->scores[v->n] = 0;
    }
}

static void add_tokens(vocabulary *v, fuzz_input *in) {
    uint8_t count = fuzz_u8(in) % (TOKENS + 1);
    for (uint8_t i = 0; i < count; i++, v->n++) {
        uint8_t head = fuzz_u8(in);
        size_t n;
        const uint8_t *text = fuzz_bytes(in, head % 16, &n);
        v->tokens[v->n] = (gguf_text){(const char *)text, n};
        v->types[v->n] = head >> 4 < 8 ? TOKEN_NORMAL : head >> 4 < 15 ? (head >> 4) - 8 : (int32_t)fuzz_u32(in);
        v->scores[v->n] = head & 0x10 ? (float)(int8_t)fuzz_u8(in) : fuzz_f32(in);
    }
}

/* "left right" of two tokens whose joined text is mostly a token too, or of any bytes */
static void add_merges(vocabulary *v, fuzz_input *in) {
    uint8_t count = fuzz_u8(in) % (MERGES + 1);
    for (uint8_t i = 0; i < count && v->n; i++) {
        gguf_text a = v->tokens[(uint16_t)fuzz_take(in, 2) % v->n], b = v->tokens[(uint16_t)fuzz_take(in, 2) % v->n];
        char *to = v->joined[v->n_merges];
        memcpy(to, a.text, a.size);
        to[a.size] = ' ';
        memcpy(to + a.size + 1, b.text, b.size);
        v->merges[v->n_merges++] = (gguf_text){to, a.size + 1 + b.size};
    }
}

static void put_text(gguf_writer *w, const char *key, const char *text) { gguf_put_string(w, key, text, strlen(text)); }

static gguf_writer *take_keys(fuzz_input *in, vocabulary *v) {
    static const char *const pres[] = {"gpt-2",   "smollm",    "qwen2", "llama-bpe", "deepseek-r1-qwen",
                                       "default", "stablelm2", "other"};
    static const char *const prefixes[] = {"each", "always", "first", ""};
    uint8_t how = fuzz_u8(in), more = fuzz_u8(in);
    bool spm = how & 1;
    gguf_writer *w = gguf_writer_new();
    put_text(w, "tokenizer.ggml.model", spm ? "llama" : "gpt2");
    put_text(w, "tokenizer.ggml.pre", pres[how >> 1 & 7]);
    put_text(w, "bitpair.tokenizer.prefix", prefixes[more & 3]);
    if (how & 16) gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", more & 4);
    if (how & 32) gguf_put_bool(w, "tokenizer.ggml.add_bos_token", more & 8);
    if (!(how & 64)) add_bytes(v, spm);
    add_tokens(v, in);
    add_merges(v, in);
    gguf_put_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n);
    if (!(more & 16)) gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, v->types, v->n);
    if (!(more & 32)) gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, v->scores, v->n);
    if (!(more & 64)) gguf_put_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    if (how & 128) {
        int32_t list[3] = {(int16_t)fuzz_take(in, 2), fuzz_u8(in), 256};
        gguf_put_array(w, "bitpair.tokenizer.normalized", GGUF_I32, list, 3);
    }
    if (more & 128) {
        gguf_put_u32(w, "tokenizer.ggml.bos_token_id", fuzz_u8(in));
        gguf_put_u32(w, "tokenizer.ggml.eos_token_id", (uint32_t)fuzz_take(in, 2) % 300);
        gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", fuzz_u8(in));
    }
    return w;
}

static void decode(const tokenizer *t, const int32_t *ids, size_t n) {
    size_t cap = tokenizer_longest(t) + 8;
    char *out = malloc(cap), last[8];
    token_stream s;
    token_stream_begin(t, &s);
    for (size_t i = 0; i < n; i++) {
        size_t bytes = token_stream_push(t, &s, ids[i], i & 1, out, cap);
        LAW(bytes <= cap && utf8_check(out, bytes) == bytes);
    }
    size_t bytes = token_stream_end(&s, last, sizeof last);
    LAW(bytes <= sizeof last && utf8_check(last, bytes) == bytes);
    free(out);
}

/* Byte-level vocabularies with all bytes lose nothing, but for what normalization form C changes. */
static void check_round_trip(const tokenizer *t, const char *text, size_t n, const int32_t *ids, size_t n_ids) {
    if (t->spm || t->nfc || t->add_bos) return;
    for (int b = 0; b < 256; b++)
        if (t->byte_id[b] < 0) return;
    char *back = malloc(n + 1);
    size_t at = 0;
    for (size_t i = 0; i < n_ids && at <= n; i++) {
        char piece[256];
        size_t bytes = tokenizer_piece(t, ids[i], true, piece, sizeof piece);
        LAW(at + bytes <= n);
        memcpy(back + at, piece, bytes);
        at += bytes;
    }
    LAW(at == n && memcmp(back, text, n) == 0);
    free(back);
}

static void encode(const tokenizer *t, const char *text, size_t n, uint32_t flags) {
    size_t scratch_bytes = tokenizer_scratch(t, n), n_ids = 0;
    void *scratch = NULL;
    if (posix_memalign(&scratch, 64, scratch_bytes)) abort();
    char *exact = (char *)fuzz_copy(text, n);
    int32_t *ids = malloc((n + 8) * sizeof *ids);
    bp_err e = {0};
    if (tokenizer_encode(t, exact, n, flags, scratch, ids, &n_ids, &e)) {
        LAW(n_ids <= n + 8 && utf8_check(exact, n) == n);
        for (size_t i = 0; i < n_ids; i++) LAW(ids[i] >= 0 && (uint32_t)ids[i] < tokenizer_size(t));
        decode(t, ids, n_ids);
        if (!(flags & TOKENIZE_BOS)) check_round_trip(t, exact, n, ids, n_ids);
    } else {
        fuzz_check_error(&e);
    }
    free(ids);
    free(exact);
    free(scratch);
}

static void use(const gguf *g, const uint8_t *text, size_t n) {
    bp_err e = {0};
    arena a = arena_measure();
    tokenizer *t;
    if (!tokenizer_open(&t, &a, g, &e)) {
        fuzz_check_error(&e);
        return;
    }
    void *memory = NULL;
    if (posix_memalign(&memory, 64, a.used)) abort();
    size_t used = a.used;
    a = arena_over(memory, used);
    if (tokenizer_open(&t, &a, g, &e)) {
        LAW(a.used == used);
        for (uint32_t flags = 0; flags < 4; flags++) encode(t, (const char *)text, n, flags);
        for (int32_t id = -2; id < (int32_t)tokenizer_size(t) + 2; id += 7) {
            char piece[8];
            tokenizer_piece(t, id, true, piece, sizeof piece);
            tokenizer_is_end(t, id);
            tokenizer_is_control(t, id);
        }
    } else {
        fuzz_check_error(&e);
    }
    free(memory);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static vocabulary v;
    v.n = v.n_merges = 0;
    fuzz_input in = {data, size};
    gguf_writer *w = take_keys(&in, &v);
    uint8_t *image = NULL;
    uint64_t image_size, full;
    bp_err e = {0};
    bool good = gguf_writer_finish(w, 64, &image, &image_size, &full, &e);
    gguf_writer_free(w);
    gguf g;
    arena a = arena_measure();
    good = good && gguf_open(&g, &a, image, image_size, &e);
    LAW(good);
    void *memory = NULL;
    if (posix_memalign(&memory, 64, a.used)) abort();
    a = arena_over(memory, a.used);
    LAW(gguf_open(&g, &a, image, image_size, &e));
    use(&g, in.at, in.left < TEXT_MOST ? in.left : TEXT_MOST);
    free(memory);
    free(image);
    return 0;
}
