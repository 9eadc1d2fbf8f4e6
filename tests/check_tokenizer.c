/* The tokenizer on constructed vocabularies: pre-tokenizers, merges, added tokens, streams, normalization.
 * Equality with the reference implementation on real vocabularies and texts: tests/web/tokenizer.test.js. */
#include "tokenizer_build.h"

/* ---- pre-tokenizers --------------------------------------------------------------------------------------------- */

/* The tables of Unicode in memory of their own. */
static unicode open_unicode(void **memory) {
    arena a = arena_measure();
    unicode_reserve(&a, true);
    *memory = aligned_alloc(BP_ALIGN, bp_round_up(a.used, BP_ALIGN));
    a = arena_over(*memory, a.used);
    unicode u = unicode_reserve(&a, true);
    unicode_unpack(&u);
    return u;
}

static unicode tables; /* of the tests below */

/* wanted: the pre-tokens with | between them */
static void check_split(pre_kind kind, const char *wanted) {
    char text[256], got[256];
    size_t n = 0, m = 0;
    for (const char *c = wanted; *c; c++)
        if (*c != '|') text[n++] = *c;
    char *exact = malloc(n);
    memcpy(exact, text, n);
    for (pre_cursor c = pre_begin(&tables, kind, exact, n); c.at < c.end;) {
        size_t start = c.at;
        pre_next(&c);
        if (m) got[m++] = '|';
        memcpy(got + m, exact + start, c.at - start);
        m += c.at - start;
    }
    got[m] = 0;
    free(exact);
    CHECK(strcmp(got, wanted) == 0, "pre-tokenizer %d: got '%s', wanted '%s'", (int)kind, got, wanted);
}

static void check_pre_tokenizers(void) {
    /* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+ */
    check_split(PRE_GPT2, "Hello| world|!| It|'s| 2024|  | a|\n|b");
    check_split(PRE_GPT2, "we|'re| we|'ve| I|'m| I|'ll| he|'d| don|'t| '| ''");
    check_split(PRE_GPT2, "I|'|M| x|'|rx");
    check_split(PRE_GPT2, "  | a|\t|b|\n\n|\n|c|  ");
    check_split(PRE_GPT2, "caf\xc3\xa9| e|\xcc\x81| \xe4\xbd\xa0\xe5\xa5\xbd|\xef\xbc\x81|\xd9\xa1\xd9\xa2|x");
    check_split(PRE_GPT2, "a|\xe3\x80\x80|b|\xc2\xa0\xc2\xa0|\xc2\xa0|c");
    check_split(PRE_GPT2, "a|<=| b|$$| 12|.|5");
    /* Digits, then the same */
    check_split(PRE_DIGITS, "in| |2|0|2|4|,| x|1|y|  |3|  | z");
    check_split(PRE_DIGITS, "a| '|1|s|'|2|'s| \xc2\xbd");
    /* Llama 3 and Qwen2 */
    check_split(PRE_LLAMA3, "Hello| world|!!\n\n|123|456|7| |89|.x");
    check_split(PRE_LLAMA3, "I|'M| we|'RE| it|'s|(foo|)\n|  \n|  | bar|\tbaz");
    check_split(PRE_LLAMA3, "a|\r\n\r\n|b| \n \n| | c");
    check_split(PRE_QWEN2, "x|1|2|3| y|_a| -_|b|\n|c");
    check_split(PRE_QWEN2, "a|   \n\n|  | b|.|  \t");
    check_split(PRE_QWEN2, "'''|s|'\xc5\xbf"); /* only ASCII letters lose their case */
}

static void check_bytes(void) {
    for (unsigned b = 0; b < 256; b++) CHECK(char_to_byte(byte_to_char((uint8_t)b)) == (int32_t)b, "byte %u", b);
    CHECK(char_to_byte(0x144) == -1 && char_to_byte(' ') == -1 && char_to_byte(0xad) == -1, "not stand-ins");
    CHECK(utf8_check("\xc0\x80", 2) == 0 && utf8_check("a\xed\xa0\x80", 4) == 1 &&
              utf8_check("\xf4\x90\x80\x80", 4) == 0 && utf8_check("ab\xe2\x82", 4) == 2 &&
              utf8_check("\xf0\x9f\x98\x80\xef\xbf\xbf", 7) == 7,
          "UTF-8 is checked");
}

/* ---- byte-level BPE --------------------------------------------------------------------------------------------- */

static void check_byte_level(void) {
    begin_bytes();
    int32_t he = add("he", TOKEN_NORMAL, 0), ll = add("ll", TOKEN_NORMAL, 0), hell = add("hell", TOKEN_NORMAL, 0);
    int32_t ello = add("ello", TOKEN_NORMAL, 0), aa = add("aa", TOKEN_NORMAL, 0),
            sp = add("\xc4\xa0h", TOKEN_NORMAL, 0);
    int32_t end = add("<|end|>", TOKEN_CONTROL, 0), user = add("<|e", TOKEN_USER, 0),
            bos = add("<s>", TOKEN_CONTROL, 0);
    const char *const merges[] = {"l l", "h e", "he ll", "a a", "\xc4\xa0 h"};
    for (size_t i = 0; i < 5; i++) add_merge(merges[i]);
    opened o;
    bp_err e = {0};
    gguf_writer *w = bytes_keys("gpt-2");
    gguf_put_u32(w, "tokenizer.ggml.bos_token_id", (uint32_t)bos);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", true);
    bool ok = open_keys(&o, w, &e);
    CHECK(ok, "%s", e.text);
    if (!ok) return;
    ENCODES(o.t, "hello", 0, hell, 'o');
    ENCODES(o.t, "aaaaa", 0, aa, aa, 'a');
    ENCODES(o.t, "ll h", TOKENIZE_BOS, bos, ll, sp);
    ENCODES(o.t, "<|end|>he", TOKENIZE_SPECIAL, end, he);
    ENCODES(o.t, "<|end|>he", 0, user, 'n', 'd', '|', '>', he);
    ENCODES(o.t, "<|<|e", TOKENIZE_SPECIAL, '<', '|', user);
    CHECK(encodes(o.t, "", 0, 0, ids), "nothing gives nothing");
    CHECK(tokenizer_is_end(o.t, end) && !tokenizer_is_end(o.t, user) && tokenizer_is_control(o.t, end) &&
              tokenizer_bos(o.t) == bos && tokenizer_eos(o.t) == -1 && tokenizer_size(o.t) == W.n &&
              tokenizer_adds_bos(o.t),
          "properties");
    CHECK(!encode(o.t, "ab\xff", 3, 0, &e) && e.code == BP_ERR_FORMAT && e.offset == 2, "broken UTF-8: %s", e.text);
    char out[16] = {0};
    CHECK(tokenizer_piece(o.t, sp, false, out, sizeof out) == 2 && memcmp(out, " h", 2) == 0, "piece");
    CHECK(tokenizer_piece(o.t, end, false, out, sizeof out) == 0 && tokenizer_piece(o.t, end, true, out, 3) == 7,
          "control piece");
    CHECK(tokenizer_piece(o.t, -1, true, out, 9) == 0 && tokenizer_piece(o.t, 1 << 30, true, out, 9) == 0,
          "unknown ids");
    close_keys(&o);

    w = bytes_keys("llama-bpe"); /* takes "ello", which no merge makes, as a whole */
    CHECK(open_keys(&o, w, &e), "%s", e.text);
    ENCODES(o.t, "ello", 0, ello);
    ENCODES(o.t, "ello h", 0, ello, sp);
    close_keys(&o);
}

/* Control tokens come from text on request only: not as a whole, and not by merges. */
static void check_no_control(void) {
    begin_bytes();
    int32_t stop = add("STOP", TOKEN_CONTROL, 0), st = add("ST", TOKEN_NORMAL, 0), op = add("OP", TOKEN_NORMAL, 0);
    const char *const merges[] = {"S T", "O P", "ST OP"};
    for (size_t i = 0; i < 3; i++) add_merge(merges[i]);
    for (size_t i = 0; i < 2; i++) {
        opened o;
        bp_err e = {0};
        CHECK(open_keys(&o, bytes_keys(i ? "llama-bpe" : "gpt-2"), &e), "%s", e.text);
        ENCODES(o.t, "STOP", 0, st, op);
        ENCODES(o.t, "STOP", TOKENIZE_SPECIAL, stop);
        close_keys(&o);
    }
}

/* ---- SentencePiece ---------------------------------------------------------------------------------------------- */

static void check_spm_scores(void) {
    begin_spm(true);
    int32_t sab = add("\xe2\x96\x81"
                      "ab",
                      TOKEN_NORMAL, -3),
            ab = add("ab", TOKEN_NORMAL, -2), bc = add("bc", TOKEN_NORMAL, -1);
    int32_t two = add("\xe2\x96\x81\xe2\x96\x81", TOKEN_NORMAL, -9), s = add("<s>", TOKEN_CONTROL, 0);
    opened o;
    bp_err e = {0};
    gguf_writer *w = begin_keys("llama", "default");
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
    bool ok = open_keys(&o, w, &e);
    CHECK(ok, "%s", e.text);
    if (!ok) return;
    CHECK(o.t->cuts, "no piece has a space behind something");
    ENCODES(o.t, "ab", 0, sab);
    ENCODES(o.t, "abc", 0, SPACE_ID, A, bc); /* bc has the best score */
    ENCODES(o.t, "c  abd  d", 0, SPACE_ID, C, SPACE_ID, sab, D, two, D);
    ENCODES(o.t, "\xe2\x82\xac", 0, SPACE_ID, 1 + 0xe2, 1 + 0x82, 1 + 0xac);
    ENCODES(o.t, "a<s>ab", TOKENIZE_SPECIAL, SPACE_ID, A, s, sab);
    CHECK(encodes(o.t, "", 0, 0, ids), "no space before nothing");
    close_keys(&o);

    w = begin_keys("llama", "default");
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", false);
    CHECK(open_keys(&o, w, &e), "%s", e.text);
    ENCODES(o.t, "ab ab", 0, ab, sab);
    close_keys(&o);
}

static void check_spm_merges(void) {
    begin_spm(false);
    int32_t es = add("e\xe2\x96\x81", TOKEN_NORMAL, 0), des = add("de\xe2\x96\x81", TOKEN_NORMAL, 0);
    int32_t start = add("<|start|>", TOKEN_CONTROL, 0);
    add_merge("e \xe2\x96\x81");
    add_merge("d e\xe2\x96\x81");
    for (int first = 0; first < 2; first++) {
        opened o;
        bp_err e = {0};
        gguf_writer *w = begin_keys("llama", "default");
        gguf_put_strings(w, "tokenizer.ggml.merges", W.merges, W.n_merges);
        gguf_put_u32(w, "tokenizer.ggml.unknown_token_id", 0);
        uint32_t normalized = (uint32_t)start;
        gguf_put_array(w, "bitpair.tokenizer.normalized", GGUF_U32, &normalized, 1);
        if (first) put(w, "bitpair.tokenizer.prefix", "first");
        bool ok = open_keys(&o, w, &e);
        CHECK(ok, "%s", e.text);
        if (!ok) return;
        CHECK(!o.t->cuts, "e_ joins a space to what is before it");
        ENCODES(o.t, "de a", 0, SPACE_ID, des, A);
        ENCODES(o.t, "e xyz e", 0, SPACE_ID, es, 0, SPACE_ID, E); /* one unknown token for xyz */
        if (first) {
            ENCODES(o.t, " a", 0, SPACE_ID, A);
        } else {
            ENCODES(o.t, " a", 0, SPACE_ID, SPACE_ID, A);
            ENCODES(o.t, "<|start|>a", TOKENIZE_SPECIAL, start, A); /* it takes the space with it */
            ENCODES(o.t, "a <|start|>b", TOKENIZE_SPECIAL, SPACE_ID, A, start, B);
            ENCODES(o.t, "a<|start|>", TOKENIZE_SPECIAL, SPACE_ID, A, 0, A, 0);
            ENCODES(o.t, "<|start|>a", 0, SPACE_ID, 0, A, 0, A);
        }
        close_keys(&o);
    }
}

/* ---- streams ---------------------------------------------------------------------------------------------------- */

/* Pushes tokens 0..255 = bytes; wanted: what each push gives, | between them, and what the end gives */
static void check_stream(const tokenizer *t, const char *bytes, const char *wanted) {
    char got[256];
    size_t n = 0, cap = tokenizer_longest(t) + 8;
    char *out = malloc(cap);
    token_stream s;
    token_stream_begin(t, &s);
    for (const char *b = bytes; *b; b++) {
        size_t m = token_stream_push(t, &s, (uint8_t)*b + (t->spm ? 1 : 0), false, out, cap);
        memcpy(got + n, out, m);
        got[n += m] = '|';
        n++;
    }
    size_t m = token_stream_end(&s, out, cap);
    memcpy(got + n, out, m);
    got[n + m] = 0;
    free(out);
    CHECK(strcmp(got, wanted) == 0, "stream gives '%s', wanted '%s'", got, wanted);
}

#define BAD "\xef\xbf\xbd"

static void check_streams(const tokenizer *t) {
    check_stream(t,
                 "a\xe2\x82\xac"
                 "b",
                 "a|||\xe2\x82\xac|b|");
    check_stream(t, "\xf0\x9f\x98\x80", "|||\xf0\x9f\x98\x80|");
    check_stream(t,
                 "\xe2\x82"
                 "a",
                 "||" BAD "a|"); /* the good character is not swallowed */
    check_stream(t, "\xe2\xe2\x82\xac", "|" BAD "||\xe2\x82\xac|");
    check_stream(t, "\x80\xff\xc0z", BAD "|" BAD "|" BAD "|z|");
    check_stream(t, "\xe0\x80\x80", "|" BAD BAD "|" BAD "|"); /* overlong */
    check_stream(t, "\xed\xa0\x80", "|" BAD BAD "|" BAD "|"); /* a surrogate */
    check_stream(t, "\xf4\x90", "|" BAD BAD "|");             /* above U+10FFFF */
    check_stream(t, "x\xe2\x82", "x|||" BAD);
}

/* SentencePiece: one leading space of the whole goes */
static void check_strip(const tokenizer *t) {
    char out[64];
    token_stream s;
    token_stream_begin(t, &s);
    CHECK(token_stream_push(t, &s, 0, false, out, sizeof out) == 0, "control tokens are silent");
    CHECK(token_stream_push(t, &s, SPACE_ID, false, out, sizeof out) == 0, "the first space goes");
    CHECK(token_stream_push(t, &s, SPACE_ID, false, out, sizeof out) == 1 && out[0] == ' ', "the second stays");
    token_stream_begin(t, &s);
    CHECK(token_stream_push(t, &s, A, false, out, sizeof out) == 1 &&
              token_stream_push(t, &s, SPACE_ID, false, out, sizeof out) == 1,
          "a space behind text stays");
}

/* decode(encode(text)) == text, where the tokenizer changes nothing but U+2581 */
static void check_roundtrip(const tokenizer *t, bool marks) {
    char text[256], back[1024];
    bp_err e = {0};
    for (int turn = 0; turn < 3000; turn++) {
        size_t n = random_text(text, sizeof text), m = 0;
        for (size_t i = 0; !marks && i + 3 <= n; i++)
            if (memcmp(text + i, "\xe2\x96\x81", 3) == 0) memcpy(text + i, "abc", 3);
        if (!encode(t, text, n, 0, &e)) {
            CHECK(false, "%s", e.text);
            return;
        }
        token_stream s;
        token_stream_begin(t, &s);
        for (size_t i = 0; i < n_ids; i++) m += token_stream_push(t, &s, ids[i], false, back + m, sizeof back - m);
        m += token_stream_end(&s, back + m, sizeof back - m);
        if (m != n || memcmp(text, back, n) != 0) {
            CHECK(false, "turn %d: %zu bytes came back as %zu", turn, n, m);
            return;
        }
    }
    CHECK(true, "3000 texts");
}

static void check_decoding(void) {
    static const char *const pres[] = {"gpt-2", "smollm", "deepseek-r1-qwen", "llama-bpe"};
    opened o;
    bp_err e = {0};
    for (size_t i = 0; i < 4; i++) {
        begin_bytes();
        add("ab", TOKEN_NORMAL, 0);
        add("\xc4\xa0\xc4\xa0", TOKEN_NORMAL, 0);
        add("\xc3\xa2\xc4\xb8", TOKEN_NORMAL, 0); /* two bytes of a character of three */
        add_merge("a b");
        add_merge("\xc4\xa0 \xc4\xa0");
        add_merge("\xc3\xa2 \xc4\xb8");
        bool ok = open_keys(&o, bytes_keys(pres[i]), &e);
        CHECK(ok, "%s", e.text);
        if (!ok) return;
        check_streams(o.t);
        check_roundtrip(o.t, true);
        close_keys(&o);
    }
    begin_spm(true);
    add("ab", TOKEN_NORMAL, -1);
    gguf_writer *w = begin_keys("llama", "default");
    gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, W.scores, W.n);
    CHECK(open_keys(&o, w, &e), "%s", e.text);
    check_streams(o.t);
    check_strip(o.t);
    check_roundtrip(o.t, false);
    close_keys(&o);
}

/* ---- normalization ---------------------------------------------------------------------------------------------- */

static void check_nfc_of(const char *text, const char *wanted) {
    size_t n = strlen(text);
    char *out = malloc(3 * n + 1);
    uint32_t *work = malloc(4 * n * sizeof *work);
    size_t m = nfc_normalize(&tables, out, text, n, work);
    out[m] = 0;
    CHECK(strcmp(out, wanted) == 0, "'%s' became '%s', not '%s'", text, out, wanted);
    free(out);
    free(work);
}

static void check_nfc(void) {
    CHECK(nfc_is_stable(&tables, "plain caf\xc3\xa9 \xe4\xbd\xa0", 14) && !nfc_is_stable(&tables, "e\xcc\x81", 3),
          "quick check");
    check_nfc_of("plain", "plain");
    check_nfc_of("xe\xcc\x81y", "x\xc3\xa9y");
    check_nfc_of("\xe2\x84\xab", "\xc3\x85");              /* Angstrom sign -> A with ring */
    check_nfc_of("a\xcc\xa3\xcc\x82", "\xe1\xba\xad");     /* two marks, composed one by one */
    check_nfc_of("a\xcc\x82\xcc\xa3", "\xe1\xba\xad");     /* in either order */
    check_nfc_of("a\xcc\x81\xcc\x81", "\xc3\xa1\xcc\x81"); /* the second is blocked by nothing: it stays */
    check_nfc_of("\xe1\x84\x92\xe1\x85\xa1\xe1\x86\xab", "\xed\x95\x9c"); /* Hangul */
    check_nfc_of("\xea\xb0\x80\xe1\x86\xa8", "\xea\xb0\x81");
    check_nfc_of("\xe0\xa5\x98", "\xe0\xa4\x95\xe0\xa4\xbc"); /* does not compose again */
    check_nfc_of("\xcc\x81"
                 "a",
                 "\xcc\x81"
                 "a");
    char marks[2 * 40000 + 1]; /* one long run of marks is sorted in linear time */
    for (size_t i = 0; i < 40000; i++) memcpy(marks + 2 * i, i & 1 ? "\xcc\xa3" : "\xcc\x81", 2);
    uint32_t *work = malloc(4 * sizeof marks * sizeof *work);
    char *out = malloc(3 * sizeof marks);
    size_t n = nfc_normalize(&tables, out, marks, sizeof marks - 1, work);
    CHECK(n == sizeof marks - 1 && memcmp(out, "\xcc\xa3\xcc\xa3", 4) == 0 &&
              memcmp(out + n - 4, "\xcc\x81\xcc\x81", 4) == 0,
          "%zu bytes", n);
    free(work);
    free(out);
}

int main(void) {
    void *memory;
    tables = open_unicode(&memory);
    check_bytes();
    check_pre_tokenizers();
    check_byte_level();
    check_no_control();
    check_spm_scores();
    check_spm_merges();
    check_decoding();
    check_nfc();
    free(memory);
    return check_end();
}
