/* The GGUF reader on a small file built here: what is in it, every truncation, every flipped byte, hostile counts. */
#include "check.h"

#include "gguf.h"

typedef struct {
    uint8_t bytes[2048];
    size_t size;
} image;

static void put(image *f, const void *data, size_t n) {
    memcpy(f->bytes + f->size, data, n);
    f->size += n;
}

static void put_u32(image *f, uint32_t v) { put(f, &v, 4); }

static void put_u64(image *f, uint64_t v) { put(f, &v, 8); }

static void put_text(image *f, const char *s) {
    put_u64(f, strlen(s));
    put(f, s, strlen(s));
}

static void put_tensor(image *f, const char *name, uint32_t type, uint64_t rows, uint64_t cols, uint64_t offset) {
    put_text(f, name);
    put_u32(f, 2);
    put_u64(f, cols);
    put_u64(f, rows);
    put_u32(f, type);
    put_u64(f, offset);
}

enum { KEYS = 6, TENSORS = 2 };

/* Six keys (one of each way to be stored) and two tensors: f32 [2, 4] and q8_0 [1, 32]. */
static image make(void) {
    image f = {.size = 0};
    put(&f, "GGUF", 4);
    put_u32(&f, 3);
    put_u64(&f, TENSORS);
    put_u64(&f, KEYS);
    put_text(&f, "general.architecture"), put_u32(&f, GGUF_STRING), put_text(&f, "llama");
    put_text(&f, "general.alignment"), put_u32(&f, GGUF_U32), put_u32(&f, 64);
    put_text(&f, "a.real"), put_u32(&f, GGUF_F32), put(&f, &(float){0.5f}, 4);
    put_text(&f, "a.negative"), put_u32(&f, GGUF_I16), put(&f, &(int16_t){-2}, 2);
    put_text(&f, "a.names"), put_u32(&f, GGUF_ARRAY), put_u32(&f, GGUF_STRING), put_u64(&f, 2), put_text(&f, "x"),
        put_text(&f, "yz");
    put_text(&f, "a.numbers"), put_u32(&f, GGUF_ARRAY), put_u32(&f, GGUF_I32), put_u64(&f, 3);
    for (int32_t i = -1; i < 2; i++) put(&f, &i, 4);
    put_tensor(&f, "first", QUANT_F32, 2, 4, 0);
    put_tensor(&f, "second", QUANT_Q8_0, 1, 32, 64);
    while (f.size % 64) put(&f, "", 1);
    for (int i = 0; i < 8; i++) put(&f, &(float){(float)i}, 4);
    while (f.size % 64) put(&f, "", 1);
    for (int i = 0; i < 34; i++) put(&f, &(uint8_t){(uint8_t)i}, 1);
    return f;
}

/* Opens a copy of exactly n bytes on the heap, so that the sanitizer sees every byte read outside. */
static bool open_copy(const uint8_t *bytes, size_t n, gguf *g, bp_err *e, void **file, void **memory) {
    *file = malloc(n ? n : 1);
    memcpy(*file, bytes, n);
    *memory = NULL;
    arena a = arena_measure();
    if (!gguf_open(g, &a, *file, n, e)) return false;
    *memory = aligned_alloc(64, bp_max(a.used, 64));
    a = arena_over(*memory, a.used);
    return gguf_open(g, &a, *file, n, e);
}

/* Touches everything that a parsed header claims. */
static uint64_t walk(const gguf *g) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->n_keys; i++) {
        const gguf_key *k = &g->keys[i];
        const uint8_t *cursor = k->data;
        for (uint64_t j = 0; j < k->count; j++) {
            if (k->item == GGUF_STRING) {
                gguf_text t = gguf_item_string(&cursor);
                for (size_t c = 0; c < t.size; c++) sum += (uint8_t)t.text[c];
            } else {
                sum += gguf_item_u64(k, j);
            }
        }
    }
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const uint8_t *data = gguf_data(g, &g->tensors[i]);
        for (uint64_t j = 0; data && j < g->tensors[i].bytes; j++) sum += data[j];
    }
    return sum;
}

static void check_contents(const image *f) {
    gguf g;
    bp_err e;
    void *file, *memory;
    CHECK(open_copy(f->bytes, f->size, &g, &e, &file, &memory), "%s", e.text);
    gguf_text text;
    uint64_t u = 0;
    double d = 0;
    CHECK(gguf_string(&g, "general.architecture", &text) && gguf_text_is(text, "llama"), "string key");
    CHECK(gguf_u64(&g, "general.alignment", &u) && u == 64, "u32 key");
    CHECK(gguf_f64(&g, "a.real", &d) && d == 0.5, "f32 key");
    CHECK(!gguf_u64(&g, "a.negative", &u), "a negative number is not unsigned");
    CHECK(gguf_f64(&g, "a.negative", &d) && d == -2, "i16 key");
    CHECK(!gguf_u64(&g, "missing", &u), "a missing key");
    const gguf_key *numbers = gguf_find(&g, "a.numbers");
    CHECK(numbers && numbers->count == 3 && gguf_item_f64(numbers, 0) == -1 && gguf_item_u64(numbers, 2) == 1,
          "i32 array");
    const gguf_tensor *second = gguf_tensor_find(&g, "second");
    CHECK(second && second->bytes == 34 && second->dims[0] == 32, "tensor table");
    const uint8_t *data = second ? gguf_data(&g, second) : NULL;
    CHECK(data && data[33] == 33, "tensor data");
    CHECK(!gguf_tensor_find(&g, "third"), "a missing tensor");
    CHECK(g.full_size == f->size, "full size %llu", (unsigned long long)g.full_size);
    free(file), free(memory);
}

static void check_truncation(const image *f) {
    uint64_t full = 0, data = 0;
    CHECK(gguf_probe(f->bytes, f->size, &full, &data, NULL) == GGUF_READY && full == f->size, "probe of the whole");
    for (size_t n = 0; n < f->size; n++) {
        gguf g;
        bp_err e = {0};
        void *file, *memory;
        bool opened = open_copy(f->bytes, n, &g, &e, &file, &memory);
        uint64_t full_size, at;
        gguf_status status = gguf_probe(file, n, &full_size, &at, NULL);
        CHECK(status == (opened ? GGUF_READY : GGUF_MORE), "probe and open differ at %zu", n);
        CHECK(opened || e.code == BP_ERR_FORMAT, "error at %zu", n);
        if (opened) CHECK(!gguf_data(&g, gguf_tensor_find(&g, "second")), "data past the end at %zu", n);
        free(file), free(memory);
    }
}

static void check_flips(const image *f) {
    unsigned errors = 0;
    for (size_t at = 0; at < f->size; at++) {
        static const uint8_t values[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
        for (size_t v = 0; v < sizeof values; v++) {
            image damaged = *f;
            damaged.bytes[at] = values[v];
            gguf g;
            bp_err e = {0};
            void *file, *memory;
            bool opened = open_copy(damaged.bytes, damaged.size, &g, &e, &file, &memory);
            if (opened) walk(&g);
            errors += !opened;
            CHECK(opened || (e.code != BP_OK && e.text[0]), "an error without a text at %zu", at);
            free(file), free(memory);
        }
    }
    CHECK(errors > 100, "only %u of the damaged headers were refused", errors);
}

static void check_claims(const image *f) {
    static const uint64_t huge[] = {1ULL << 20, 1ULL << 31, 1ULL << 32, 1ULL << 40, 1ULL << 63, UINT64_MAX};
    for (size_t at = 8; at + 8 <= 512 && at + 8 <= f->size; at++) {
        for (size_t h = 0; h < sizeof huge / sizeof *huge; h++) {
            image damaged = *f;
            memcpy(damaged.bytes + at, &huge[h], 8);
            gguf g;
            bp_err e = {0};
            void *file, *memory;
            if (open_copy(damaged.bytes, damaged.size, &g, &e, &file, &memory)) walk(&g);
            free(file), free(memory);
        }
    }
    bp_err e = {0};
    uint64_t a, b;
    CHECK(gguf_probe("<!DOCTYPE html>", 15, &a, &b, &e) == GGUF_BAD && strstr(e.text, "not a GGUF"), "%s", e.text);
    CHECK(gguf_probe("<", 1, &a, &b, &e) == GGUF_BAD, "one wrong byte is enough");
    CHECK(gguf_probe("GG", 2, &a, &b, &e) == GGUF_MORE, "the beginning of the magic");
}

int main(void) {
    image f = make();
    check_contents(&f);
    check_truncation(&f);
    check_flips(&f);
    check_claims(&f);
    return check_end();
}
