/* The tables of a tokenizer from its tokenizer.ggml.* keys. */
#include "tokenizer_internal.h"

/* The arrays, checked against each other */
typedef struct {
    const gguf *g;
    const gguf_key *tokens, *types, *scores, *merges, *normalized;
    bool spm;
    bp_err *e;
} sources;

static uint64_t key_offset(const sources *s, const gguf_key *key) { return (uint64_t)(key->data - s->g->bytes); }

static bool is_integer(gguf_kind kind) { return kind <= GGUF_I32 || kind == GGUF_U64 || kind == GGUF_I64; }

static bool is_real(gguf_kind kind) { return kind == GGUF_F32 || kind == GGUF_F64; }

static bool is_string(gguf_kind kind) { return kind == GGUF_STRING; }

/* *key <- array `name`, NULL where there is none; its items must be of a kind, and `count` of them unless that is 0 */
static bool find_array(const sources *s, const gguf_key **key, const char *name, bool (*fits)(gguf_kind),
                       uint64_t count) {
    *key = gguf_find(s->g, name);
    if (!*key) return true;
    if ((*key)->kind != GGUF_ARRAY || !fits((*key)->item))
        return bp_fail(s->e, BP_ERR_FORMAT, key_offset(s, *key), "key '%s' is not an array of the right kind", name);
    if (count && (*key)->count != count)
        return bp_fail(s->e, BP_ERR_FORMAT, key_offset(s, *key), "key '%s' has %llu items for %llu tokens", name,
                       (unsigned long long)(*key)->count, (unsigned long long)count);
    return true;
}

static bool find_sources(sources *s) {
    gguf_text model;
    if (!gguf_string(s->g, "tokenizer.ggml.model", &model))
        return bp_fail(s->e, BP_ERR_FORMAT, 0, "the file has no tokenizer (key 'tokenizer.ggml.model')");
    s->spm = gguf_text_is(model, "llama");
    if (!s->spm && !gguf_text_is(model, "gpt2"))
        return bp_fail(s->e, BP_ERR_UNSUPPORTED, 0, "tokenizer model '%.*s'; this build has 'gpt2' and 'llama'",
                       (int)bp_min(model.size, 40), model.text);
    if (!find_array(s, &s->tokens, "tokenizer.ggml.tokens", is_string, 0)) return false;
    uint64_t n = s->tokens ? s->tokens->count : 0;
    if (n == 0 || n > INT32_MAX / 4)
        return bp_fail(s->e, BP_ERR_FORMAT, 0, "the tokenizer has %llu tokens", (unsigned long long)n);
    if (!find_array(s, &s->types, "tokenizer.ggml.token_type", is_integer, n) ||
        !find_array(s, &s->scores, "tokenizer.ggml.scores", is_real, n) ||
        !find_array(s, &s->merges, "tokenizer.ggml.merges", is_string, 0) ||
        !find_array(s, &s->normalized, "bitpair.tokenizer.normalized", is_integer, 0))
        return false;
    if (s->merges && s->merges->count > INT32_MAX / 4)
        return bp_fail(s->e, BP_ERR_FORMAT, key_offset(s, s->merges), "the tokenizer has too many merges");
    if (!s->merges && !(s->spm && s->scores))
        return bp_fail(s->e, BP_ERR_FORMAT, 0, "the tokenizer has no merges%s", s->spm ? " and no scores" : "");
    return true;
}

static uint32_t type_of(const sources *s, uint64_t i) {
    uint64_t type = s->types ? gguf_item_u64(s->types, i) : TOKEN_NORMAL;
    return type <= TOKEN_BYTE ? (uint32_t)type : TOKEN_NORMAL;
}

static bool is_matched(uint32_t type) { return type == TOKEN_UNKNOWN || type == TOKEN_CONTROL || type == TOKEN_USER; }

/* Of two tokens with the same text the first one counts. By score, SentencePiece merges into ordinary pieces only. */
static void put_texts(tokenizer *t) {
    for (uint32_t id = 0; id < t->size; id++)
        if (t->merges ||
            ((t->type[id] == TOKEN_NORMAL || t->type[id] == TOKEN_USER) && token_bytes(t, id) <= MATCH_MOST))
            table_add_text(t, id);
    table_sort_texts(t);
}

static bool begins_with_space(const char *text, size_t n) {
    return n >= SPACE_BYTES && memcmp(text, SPACE_MARK, SPACE_BYTES) == 0;
}

static bool ends_with_space(const char *text, size_t n) {
    return n >= SPACE_BYTES && begins_with_space(text + n - SPACE_BYTES, SPACE_BYTES);
}

/* "left right" -> ids. Merges usually come in the order of the tokens they make, so the token after the last result is
 * looked at first. One that would make a control token of text is left out. */
static bool put_merges(tokenizer *t, const sources *s) {
    const uint8_t *cursor = s->merges->data;
    int32_t expected = 0;
    uint32_t kept = 0;
    for (uint32_t rank = 0; rank < s->merges->count; rank++) {
        gguf_text m = gguf_item_string(&cursor);
        size_t cut = 1;
        while (cut < m.size && m.text[cut] != ' ') cut++;
        if (cut + 1 >= m.size)
            return bp_fail(s->e, BP_ERR_FORMAT, key_offset(s, s->merges), "merge %u '%.*s' is not two parts", rank,
                           (int)bp_min(m.size, 40), m.text);
        const char *right = m.text + cut + 1;
        size_t n = m.size - cut - 1;
        int32_t a = tokenizer_find(t, m.text, cut, "", 0), b = tokenizer_find(t, right, n, "", 0), id = expected;
        if ((uint32_t)id >= t->size || token_bytes(t, (uint32_t)id) != cut + n ||
            memcmp(token_text(t, (uint32_t)id), m.text, cut) != 0 ||
            memcmp(token_text(t, (uint32_t)id) + cut, right, n) != 0)
            id = tokenizer_find(t, m.text, cut, right, n);
        if (a < 0 || b < 0 || id < 0)
            return bp_fail(s->e, BP_ERR_FORMAT, key_offset(s, s->merges),
                           "merge %u '%.*s': a part or the whole is not a token", rank, (int)bp_min(m.size, 40),
                           m.text);
        if (begins_with_space(right, n) && !ends_with_space(m.text, cut)) t->cuts = false;
        if (!tokenizer_is_control(t, id)) t->merges[kept++] = (merge){(uint64_t)a << 32 | (uint32_t)b, rank, id};
        expected = id + 1;
    }
    table_sort_merges(t, kept);
    return true;
}

/* By score any two neighbours may merge: is there a piece with a space behind something else? */
static bool pieces_cross_spaces(const tokenizer *t) {
    for (uint32_t id = 0; id < t->size; id++) {
        const char *text = token_text(t, id);
        size_t n = token_bytes(t, id);
        for (size_t i = 1; i + SPACE_BYTES <= n; i++)
            if (begins_with_space(text + i, n - i) && !ends_with_space(text, i)) return true;
    }
    return false;
}

static void sort_set(const tokenizer *t, added_set *set) {
    table_sort_added(t, set);
    for (uint32_t i = 0; i < set->n; i++) set->first[(uint8_t)token_text(t, set->ids[i])[0]] = true;
}

/* A token that is not UTF-8 could match inside a character, and an empty one anywhere: they are left out, and very long ones. */
static void add_to_set(const tokenizer *t, added_set *set, uint32_t id) {
    size_t n = token_bytes(t, id);
    if (n && n <= MATCH_MOST && utf8_check(token_text(t, id), n) == n) set->ids[set->n++] = id;
}

static void put_added(tokenizer *t, const sources *s) {
    memset(&t->added.first, 0, sizeof t->added.first);
    memset(&t->normalized.first, 0, sizeof t->normalized.first);
    for (uint64_t i = 0; t->spm && s->normalized && i < s->normalized->count; i++) {
        uint64_t id = gguf_item_u64(s->normalized, i);
        if (id >= t->size || !is_matched(t->type[id])) continue;
        add_to_set(t, &t->normalized, (uint32_t)id);
        t->type[id] |= 0x80; /* not in the other set, nor here twice */
    }
    for (uint32_t id = 0; id < t->size; id++) {
        if (is_matched(t->type[id])) add_to_set(t, &t->added, id);
        t->type[id] &= 0x7f;
    }
    sort_set(t, &t->added);
    sort_set(t, &t->normalized);
}

static int hex_digit(char c) { return c >= '0' && c <= '9' ? c - '0' : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1; }

/* "<0xAB>" -> 0xAB, else -1 */
static int byte_token(const char *s, size_t n) {
    if (n != 6 || memcmp(s, "<0x", 3) != 0 || s[5] != '>' || hex_digit(s[3]) < 0 || hex_digit(s[4]) < 0) return -1;
    return hex_digit(s[3]) * 16 + hex_digit(s[4]);
}

static void put_bytes(tokenizer *t, bool typed) {
    for (unsigned b = 0; b < 256; b++) {
        char text[4];
        t->byte_id[b] = t->spm ? -1 : tokenizer_find(t, text, utf8_put(text, byte_to_char((uint8_t)b)), "", 0);
    }
    if (!t->spm) return;
    for (uint32_t id = 0; id < t->size; id++) {
        if (typed && t->type[id] != TOKEN_BYTE) continue;
        int byte = byte_token(token_text(t, id), token_bytes(t, id));
        if (byte >= 0)
            t->type[id] = TOKEN_BYTE;
        else if (t->type[id] == TOKEN_BYTE)
            t->type[id] = TOKEN_UNUSED;
        if (byte >= 0 && t->byte_id[byte] < 0) t->byte_id[byte] = (int32_t)id;
    }
    t->byte_fallback = true;
    for (unsigned b = 0; b < 256; b++) t->byte_fallback &= t->byte_id[b] >= 0;
    for (unsigned c = 0; c < 128; c++) {
        char text = (char)c;
        t->ascii_id[c] =
            c == ' ' ? tokenizer_find(t, SPACE_MARK, SPACE_BYTES, "", 0) : tokenizer_find(t, &text, 1, "", 0);
    }
}

/* *id <- key `name`, or -1 where there is none */
static bool get_id(const tokenizer *t, const sources *s, const char *name, int32_t *id) {
    uint64_t value;
    *id = -1;
    if (!gguf_u64(s->g, name, &value)) return true;
    if (value >= t->size)
        return bp_fail(s->e, BP_ERR_FORMAT, 0, "key '%s' is %llu in a vocabulary of %u", name,
                       (unsigned long long)value, t->size);
    *id = (int32_t)value;
    return true;
}

static void add_end(tokenizer *t, int32_t id) {
    if (id >= 0 && t->n_ends < END_MOST && !tokenizer_is_end(t, id)) t->ends[t->n_ends++] = id;
}

static bool put_ids(tokenizer *t, const sources *s) {
    static const char *const names[] = {"<|im_end|>", "<|eot_id|>", "<|end_of_text|>", "<|endoftext|>", "<|eom_id|>",
                                        "</s>",       "<|end|>",    "<end_of_turn>",   "<EOT>"};
    int32_t eot, eom;
    if (!get_id(t, s, "tokenizer.ggml.bos_token_id", &t->bos) ||
        !get_id(t, s, "tokenizer.ggml.eos_token_id", &t->eos) ||
        !get_id(t, s, "tokenizer.ggml.unknown_token_id", &t->unknown) ||
        !get_id(t, s, "tokenizer.ggml.eot_token_id", &eot) || !get_id(t, s, "tokenizer.ggml.eom_token_id", &eom))
        return false;
    t->n_ends = 0;
    add_end(t, t->eos);
    add_end(t, eot);
    add_end(t, eom);
    for (uint32_t i = 0; i < t->added.n + t->normalized.n; i++) {
        uint32_t id = i < t->added.n ? t->added.ids[i] : t->normalized.ids[i - t->added.n];
        gguf_text text = {token_text(t, id), token_bytes(t, id)};
        for (size_t k = 0; k < sizeof names / sizeof *names; k++)
            if (gguf_text_is(text, names[k])) add_end(t, (int32_t)id);
        if (t->unknown < 0 && t->spm && t->type[id] == TOKEN_UNKNOWN) t->unknown = (int32_t)id;
    }
    return true;
}

/* The names that llama.cpp's converter gives to pre-tokenizers with these expressions */
static bool choose_pre(tokenizer *t, const sources *s) {
    static const struct {
        const char *name;
        pre_kind kind;
        bool nfc;
    } known[] = {
        {"gpt-2", PRE_GPT2, false},     {"default", PRE_GPT2, false},           {"olmo", PRE_GPT2, false},
        {"smollm", PRE_DIGITS, false},  {"starcoder", PRE_DIGITS, false},       {"qwen2", PRE_QWEN2, true},
        {"stablelm2", PRE_QWEN2, true}, {"deepseek-r1-qwen", PRE_QWEN2, false}, {"llama-bpe", PRE_LLAMA3, false},
        {"llama3", PRE_LLAMA3, false},  {"llama-v3", PRE_LLAMA3, false}};
    gguf_text name = {"default", 7};
    gguf_string(s->g, "tokenizer.ggml.pre", &name);
    if (t->spm) return true;
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        if (!gguf_text_is(name, known[i].name)) continue;
        t->pre = known[i].kind;
        t->nfc = known[i].nfc;
        t->whole_first = t->pre == PRE_LLAMA3;
        return true;
    }
    return bp_fail(s->e, BP_ERR_UNSUPPORTED, 0, "pre-tokenizer '%.*s'; this build has gpt-2, smollm, qwen2, llama-bpe",
                   (int)bp_min(name.size, 40), name.text);
}

static bool choose_prefix(tokenizer *t, const sources *s) {
    gguf_text when = {"each", 4};
    bool wanted = t->spm;
    if (t->spm) gguf_bool(s->g, "tokenizer.ggml.add_space_prefix", &wanted);
    gguf_string(s->g, "bitpair.tokenizer.prefix", &when);
    t->prefix = !wanted                        ? PREFIX_NONE
                : gguf_text_is(when, "always") ? PREFIX_ALWAYS
                : gguf_text_is(when, "first")  ? PREFIX_FIRST
                                               : PREFIX_EACH;
    t->add_bos = t->spm || t->pre == PRE_LLAMA3;
    gguf_bool(s->g, "tokenizer.ggml.add_bos_token", &t->add_bos);
    return true;
}

static void put_tokens(tokenizer *t, const sources *s) {
    const uint8_t *cursor = s->tokens->data;
    t->longest = 0;
    for (uint32_t id = 0; id < t->size; id++) {
        gguf_text text = gguf_item_string(&cursor);
        t->text[id] = (uint32_t)(text.text - t->base);
        t->type[id] = (uint8_t)type_of(s, id);
        t->longest = bp_max(t->longest, text.size);
    }
}

static bool fill(tokenizer *t, const sources *s) {
    put_tokens(t, s);
    put_texts(t);
    if (!choose_prefix(t, s)) return false;
    t->cuts = t->spm;
    if (t->merges && !put_merges(t, s)) return false;
    if (!t->merges) t->cuts = !pieces_cross_spaces(t);
    put_bytes(t, s->types != NULL);
    put_added(t, s);
    return put_ids(t, s);
}

bool tokenizer_open(tokenizer **out, arena *a, const gguf *g, bp_err *e) {
    sources s = {.g = g, .e = e};
    *out = NULL;
    if (!find_sources(&s)) return false;
    uint32_t size = (uint32_t)s.tokens->count, n_matched = 0;
    for (uint32_t i = 0; i < size; i++) n_matched += is_matched(type_of(&s, i));
    uint32_t n_normalized = 0;
    if (s.normalized) n_normalized = s.normalized->count < n_matched ? (uint32_t)s.normalized->count : n_matched;
    directory texts = {.bits = table_bits(size)}, merges = {.bits = s.merges ? table_bits(s.merges->count) : 0};

    tokenizer *t = ARENA_NEW(a, tokenizer, 1), zero = {.spm = s.spm};
    if (!choose_pre(&zero, &s)) return false;
    zero.text = ARENA_NEW(a, uint32_t, size);
    zero.type = ARENA_NEW(a, uint8_t, size);
    zero.texts = ARENA_NEW(a, uint64_t, size);
    texts.start = ARENA_NEW(a, uint32_t, ((size_t)1 << texts.bits) + 1);
    if (s.merges) {
        zero.merges = ARENA_NEW(a, merge, s.merges->count);
        merges.start = ARENA_NEW(a, uint32_t, ((size_t)1 << merges.bits) + 1);
    }
    zero.added.ids = ARENA_NEW(a, uint32_t, n_matched);
    zero.normalized.ids = ARENA_NEW(a, uint32_t, n_normalized);
    if (!s.spm) zero.unicode = unicode_reserve(a, zero.nfc);
    if (a->overflow) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokenizer");
    if (!a->base) return true;
    *t = zero;
    t->base = (const char *)g->bytes;
    t->size = size;
    t->text_places = texts;
    t->merge_places = merges;
    t->scores = s.scores;
    if (!s.spm) unicode_unpack(&t->unicode);
    if (!fill(t, &s)) return false;
    *out = t;
    return true;
}
