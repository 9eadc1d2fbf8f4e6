/* tokenizer.ggml.* keys that are wrong or absurd: a clear error, or a tokenizer that does no harm. */
#include "tokenizer_build.h"

/* ---- hostile files ---------------------------------------------------------------------------------------------- */

/* One way to spoil the keys of a good file. code: the error that must come, or BP_OK where the file is harmless. */
typedef struct {
    const char *name;
    void (*spoil)(gguf_writer *w);
    bp_err_code code;
} spoilt;

static void no_model(gguf_writer *w) { gguf_put_u32(w, "tokenizer.ggml.model", 7); }
static void other_model(gguf_writer *w) { put(w, "tokenizer.ggml.model", "t5"); }
static void other_pre(gguf_writer *w) { put(w, "tokenizer.ggml.pre", "xyz\x1b[31m"); }
static void tokens_text(gguf_writer *w) { put(w, "tokenizer.ggml.tokens", "abc"); }
static void tokens_numbers(gguf_writer *w) { gguf_put_array(w, "tokenizer.ggml.tokens", GGUF_I32, W.types, W.n); }
static void tokens_empty(gguf_writer *w) { gguf_put_strings(w, "tokenizer.ggml.tokens", W.tokens, 0); }
static void types_short(gguf_writer *w) { gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, W.types, 3); }
static void types_floats(gguf_writer *w) { gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_F32, W.scores, W.n); }
static void scores_short(gguf_writer *w) { gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, 3); }
static void bos_far(gguf_writer *w) { gguf_put_u32(w, "tokenizer.ggml.bos_token_id", 100000); }
static void eos_far(gguf_writer *w) { gguf_put_u64(w, "tokenizer.ggml.eos_token_id", UINT64_MAX); }
static void merges_scalar(gguf_writer *w) { gguf_put_u32(w, "tokenizer.ggml.merges", 1); }

static void put_merge_text(gguf_writer *w, const char *text, size_t n) {
    gguf_text t = {text, n};
    gguf_put_strings(w, "tokenizer.ggml.merges", &t, 1);
}
static void merge_whole(gguf_writer *w) { put_merge_text(w, "ab", 2); }
static void merge_empty(gguf_writer *w) { put_merge_text(w, "", 0); }
static void merge_half(gguf_writer *w) { put_merge_text(w, "a ", 2); }
static void merge_front(gguf_writer *w) { put_merge_text(w, " a", 2); }
static void merge_unknown(gguf_writer *w) { put_merge_text(w, "a qq", 4); }
static void merge_nothing(gguf_writer *w) { put_merge_text(w, "a c", 3); }
static void merges_none(gguf_writer *w) { gguf_put_strings(w, "tokenizer.ggml.merges", W.merges, 0); }

static void types_wild(gguf_writer *w) {
    int32_t types[2048];
    for (size_t i = 0; i < W.n; i++) types[i] = (int32_t)(i * 2654435761u);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, W.n);
}
static void types_added(gguf_writer *w) { /* every token is matched in the text */
    int32_t types[2048];
    for (size_t i = 0; i < W.n; i++) types[i] = i & 1 ? TOKEN_USER : TOKEN_CONTROL;
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, W.n);
}
static void types_bytes(gguf_writer *w) {
    int32_t types[2048];
    for (size_t i = 0; i < W.n; i++) types[i] = TOKEN_BYTE;
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, W.n);
}
static void tokens_same(gguf_writer *w) { /* duplicates, empty ones, and no UTF-8 */
    gguf_text texts[2048];
    for (size_t i = 0; i < W.n; i++)
        texts[i] = i % 3 == 0 ? (gguf_text){"a", 1} : i % 3 == 1 ? (gguf_text){"", 0} : (gguf_text){"\xe2\x96", 2};
    gguf_put_strings(w, "tokenizer.ggml.tokens", texts, W.n);
    gguf_put_strings(w, "tokenizer.ggml.merges", W.merges, 0);
    types_added(w);
}
static void normalized_wild(gguf_writer *w) {
    int32_t list[] = {-1, 5, 5, 1 << 30, 0};
    gguf_put_array(w, "bitpair.tokenizer.normalized", GGUF_I32, list, 5);
    types_added(w);
}
static void scores_nan(gguf_writer *w) {
    float scores[2048];
    for (size_t i = 0; i < W.n; i++) scores[i] = i & 1 ? 0.0f / 0.0f : -1.0f / 0.0f;
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, scores, W.n);
}

static const spoilt SPOILT[] = {{"no model", no_model, BP_ERR_FORMAT},
                                {"model t5", other_model, BP_ERR_UNSUPPORTED},
                                {"tokens as a string", tokens_text, BP_ERR_FORMAT},
                                {"tokens as numbers", tokens_numbers, BP_ERR_FORMAT},
                                {"no tokens", tokens_empty, BP_ERR_FORMAT},
                                {"few types", types_short, BP_ERR_FORMAT},
                                {"types as floats", types_floats, BP_ERR_FORMAT},
                                {"few scores", scores_short, BP_ERR_FORMAT},
                                {"far BOS", bos_far, BP_ERR_FORMAT},
                                {"far EOS", eos_far, BP_ERR_FORMAT},
                                {"merges as a number", merges_scalar, BP_ERR_FORMAT},
                                {"merge without a space", merge_whole, BP_ERR_FORMAT},
                                {"empty merge", merge_empty, BP_ERR_FORMAT},
                                {"half a merge", merge_half, BP_ERR_FORMAT},
                                {"merge of nothing", merge_front, BP_ERR_FORMAT},
                                {"merge of no token", merge_unknown, BP_ERR_FORMAT},
                                {"merge into no token", merge_nothing, BP_ERR_FORMAT},
                                {"no merges", merges_none, BP_OK},
                                {"wild types", types_wild, BP_OK},
                                {"all added", types_added, BP_OK},
                                {"all bytes", types_bytes, BP_OK},
                                {"same tokens", tokens_same, BP_OK},
                                {"wild normalized", normalized_wild, BP_OK},
                                {"wild scores", scores_nan, BP_OK}};

/* What opens must encode and decode anything without harm. */
static void use(const tokenizer *t) {
    char text[256], out[64];
    bp_err e;
    for (int turn = 0; turn < 100; turn++) {
        size_t n = random_text(text, sizeof text);
        encode(t, text, n, turn & 3, &e);
        token_stream s;
        token_stream_begin(t, &s);
        for (int i = 0; i < 20; i++)
            token_stream_push(t, &s, (int32_t)random_below(400) - 10, turn & 1, out, random_below(64));
        tokenizer_piece(t, (int32_t)random_below(400), true, out, random_below(64));
    }
}

static void check_hostile(void) {
    for (int spm = 0; spm < 2; spm++) {
        for (size_t i = 0; i < sizeof SPOILT / sizeof *SPOILT; i++) {
            if (spm)
                begin_spm(true);
            else
                begin_bytes();
            add("ab", TOKEN_NORMAL, -1);
            add_merge("a b");
            gguf_writer *w = begin_keys(spm ? "llama" : "gpt2", "gpt-2");
            gguf_put_strings(w, "tokenizer.ggml.merges", W.merges, W.n_merges);
            gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
            SPOILT[i].spoil(w);
            opened o;
            bp_err e = {0};
            bool ok = open_keys(&o, w, &e);
            CHECK(ok ? SPOILT[i].code == BP_OK : e.code == SPOILT[i].code, "%s: %s", SPOILT[i].name,
                  ok ? "opened" : e.text);
            if (ok) use(o.t);
            close_keys(&o);
        }
    }
    begin_bytes();
    gguf_writer *w = bytes_keys("gpt-2");
    other_pre(w);
    opened o;
    bp_err e = {0};
    CHECK(!open_keys(&o, w, &e) && e.code == BP_ERR_UNSUPPORTED && strstr(e.text, "'xyz?[31m'"), "%s", e.text);
    close_keys(&o);
}

/* A vocabulary that gives more tokens than text: refused, not overrun */
static void check_overfull(void) {
    begin_spm(true);
    add("x", TOKEN_USER, 0);
    gguf_writer *w = begin_keys("llama", "default");
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
    opened o;
    bp_err e = {0};
    CHECK(open_keys(&o, w, &e), "%s", e.text);
    char text[200];
    for (size_t i = 0; i < sizeof text; i++) text[i] = i & 1 ? 'x' : 'a';
    CHECK(!encode(o.t, text, sizeof text, 0, &e) && e.code == BP_ERR_UNSUPPORTED, "%s", e.text);
    CHECK(tokenizer_scratch(o.t, SIZE_MAX / 2) == SIZE_MAX, "a size that overflows");
    close_keys(&o);
}

/* Texts of MATCH_MOST bytes are found; longer ones are not looked for: with those in the vocabulary 100,000 bytes would take minutes. */
static void check_long(int32_t type) {
    enum { LONG = 40000, TEXT = 100000 };
    static char piece[LONG + 1], text[TEXT];
    memset(piece, 'a', LONG);
    memset(text, 'a', TEXT);
    for (int too_long = 0; too_long < 2; too_long++) {
        begin_spm(true);
        size_t steps = too_long ? 200 : MATCH_MOST,
               step = too_long ? LONG / 200 : 1; /* by score each prefix is a step to the next */
        int32_t last = 0;
        for (size_t i = 1; i <= steps; i++) {
            last = add("", i == steps ? type : TOKEN_NORMAL, -(float)i);
            W.tokens[last] = (gguf_text){piece, i * step};
        }
        gguf_writer *w = begin_keys("llama", "default");
        gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
        opened o;
        bp_err e = {0};
        CHECK(open_keys(&o, w, &e), "%s", e.text);
        CHECK(encode(o.t, text, too_long ? TEXT : MATCH_MOST, 0, &e), "%s", e.text);
        bool found = false;
        for (size_t i = 0; i < n_ids; i++) found |= ids[i] == last;
        CHECK(found == !too_long, "type %d, %zu bytes: %s", type, (size_t)W.tokens[last].size,
              found ? "found" : "not found");
        close_keys(&o);
    }
}

int main(void) {
    check_hostile();
    check_long(TOKEN_USER);
    check_long(TOKEN_NORMAL);
    check_overfull();
    return check_end();
}
