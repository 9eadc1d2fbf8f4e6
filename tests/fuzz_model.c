/* A whole file from the network: the input is a list of changes to a good one (numbers of its header, bytes anywhere, a
 * piece moved, its end cut off), after which its checksums are made to agree. What opens must also run. */
#include "fuzz.h"
#include "small_file.h"

enum { CHANGES = 6, SESSION_MOST = 1 << 26 };

static const uint64_t NUMBERS[] = {
    0,          1,          2,          3,          4,          5,         7,          8,
    9,          10,         16,         19,         20,         21,        31,         32,
    33,         63,         64,         65,         128,        255,       256,        1024,
    4096,       65535,      65536,      1u << 20,   1u << 24,   1u << 28,  1u << 31,   UINT32_MAX,
    1ull << 32, 1ull << 34, 1ull << 40, 1ull << 62, 1ull << 63, INT64_MAX, UINT64_MAX, UINT64_MAX - 63};

static void change(small_file *f, const small_map *map, fuzz_input *in) {
    uint8_t how = fuzz_u8(in);
    uint64_t value = fuzz_u8(in) & 1 ? fuzz_take(in, 8) : NUMBERS[fuzz_u8(in) % (sizeof NUMBERS / sizeof *NUMBERS)];
    uint16_t where = (uint16_t)fuzz_take(in, 2), to = (uint16_t)fuzz_take(in, 2);
    const small_field *field = &map->fields[where % map->n], *other = &map->fields[to % map->n];
    if (how % 8 < 4) {
        if (field->at + field->bytes <= f->size) memcpy(f->bytes + field->at, &value, field->bytes);
    } else if (how % 8 == 4) { /* two numbers of the same size change places, or one is copied */
        uint8_t n = field->bytes < other->bytes ? field->bytes : other->bytes;
        if (field->at + n <= f->size && other->at + n <= f->size)
            memmove(f->bytes + field->at, f->bytes + other->at, n);
    } else if (how % 8 == 5 && f->size) {
        f->bytes[where % f->size] = (uint8_t)value;
    } else if (how % 8 == 6) {
        f->size = value < f->size ? (size_t)value : where < f->size ? where : f->size;
    } else if (f->size > 64) { /* a piece is moved: names, keys and tensors become others */
        size_t from = where % f->size, target = to % f->size, n = value % 64;
        if (from + n <= f->size && target + n <= f->size) memmove(f->bytes + target, f->bytes + from, n);
    }
}

static void use_text(const bp_model *m) {
    static const char text[] = "abc ab qqq <|im_end|> z\xc3\xa9";
    int32_t ids[sizeof text + 8];
    char out[64];
    bp_err e = {0};
    bp_model_info info;
    bp_model_describe(m, &info);
    ptrdiff_t n =
        bp_tokenize(m, text, sizeof text - 1, BP_TOKENIZE_BOS | BP_TOKENIZE_SPECIAL, ids, sizeof ids / sizeof *ids, &e);
    if (n < 0) fuzz_check_error(&e);
    LAW(n <= (ptrdiff_t)(sizeof text + 7));
    for (ptrdiff_t i = 0; i < n; i++) {
        LAW(ids[i] >= 0 && (uint32_t)ids[i] < info.vocab);
        LAW(bp_token_text(m, ids[i], true, out, sizeof out) <= sizeof out);
        bp_model_is_end(m, ids[i]);
    }
    size_t size;
    bp_model_string(m, "tokenizer.ggml.model", &size);
    bp_model_string(m, "general.name", &size);
}

static void use_session(bp_model *m) {
    static const char grammar[] = "root ::= [a-z]* \"b\"";
    bp_session_options o = {.n_ctx = 16, .chunk = 4};
    bp_model_info info;
    bp_err e = {0};
    bp_model_describe(m, &info);
    if (o.n_ctx > info.n_ctx) o.n_ctx = info.n_ctx;
    if (bp_session_bytes(m, &o) > SESSION_MOST) return;
    bp_session *s = bp_session_open(m, &o, &e);
    LAW(s); /* its size was told before */
    int32_t ids[6];
    for (int i = 0; i < 6; i++) ids[i] = (int32_t)((uint32_t)(i * 7) % info.vocab);
    bool fed = bp_session_feed(s, ids, 6, &e);
    LAW(fed || (e.code == BP_ERR_CONTEXT && o.n_ctx < 6));
    for (int i = 0; fed && i < 3; i++) {
        int32_t id = bp_session_sample(s, &e);
        LAW(id >= 0 && (uint32_t)id < info.vocab);
        if (!bp_session_feed(s, &id, 1, &e)) LAW(e.code == BP_ERR_CONTEXT);
    }
    if (fed && info.vocab < 64 && bp_session_grammar(s, grammar, sizeof grammar - 1, &e) &&
        bp_session_sample(s, &e) < 0)
        fuzz_check_error(&e);
    bp_session_close(s);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bp_engine *engine;
    static small_file good;
    static small_map map;
    if (!engine) {
        engine = bp_engine_open(NULL, NULL);
        good = small_file_make();
        small_map_make(&map, good.bytes);
    }
    fuzz_input in = {data, size};
    small_file f = {fuzz_copy(good.bytes, good.size), good.size};
    uint8_t changes = fuzz_u8(&in);
    for (int i = 0; i < changes % CHANGES; i++) change(&f, &map, &in);
    uint8_t *exact = fuzz_copy(f.bytes, f.size);
    free(f.bytes);
    small_seal(exact, f.size);
    bp_err e = {0};
    if (!bp_verify(exact, f.size, &e)) fuzz_check_error(&e);
    bp_model *m = bp_model_open(engine, exact, f.size, &e);
    if (m) {
        use_text(m);
        use_session(m);
    } else {
        fuzz_check_error(&e);
        LAW(changes % CHANGES); /* the good one opens */
    }
    bp_model_close(m);
    free(exact);
    return 0;
}
