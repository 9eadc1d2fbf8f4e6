#include "io/hf_tokenizer.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/file.h"
#include "io/json.h"
#include "io/spm.h"

/* A tokenizer being read: its files and what they say so far. Texts of the vocabulary point into them. */
typedef struct {
    vocab v;
    char folder[4096];
    char path[4096 + 64]; /* the file being read, for messages */
    cJSON *root;          /* tokenizer.json, or vocab.json */
    cJSON *config;        /* tokenizer_config.json, NULL: none */
    file_view file;       /* merges.txt or tokenizer.model */
    bool byte_fallback, nfc, replaces_spaces;
    const char *unknown; /* model.unk_token */
    bp_err *e;
} reader;

static bool unsupported(reader *r, const char *what, const char *value) {
    return bp_fail(r->e, BP_ERR_UNSUPPORTED, 0, "%s: %s '%s' is not supported", r->path, what, value ? value : "?");
}

static bool malformed(reader *r, const char *what) { return bp_fail(r->e, BP_ERR_FORMAT, 0, "%s: %s", r->path, what); }

static gguf_text text_of(const char *s) { return (gguf_text){s, strlen(s)}; }

static const cJSON *member(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

static bool is_text(const cJSON *object, const char *name, const char *wanted) {
    const char *text = json_text(object, name);
    return text && strcmp(text, wanted) == 0;
}

/* The folder's file `name`: r->path is its path. Is it there? */
static bool has_file(reader *r, const char *name) {
    struct stat st;
    snprintf(r->path, sizeof r->path, "%s/%s", r->folder, name);
    return stat(r->path, &st) == 0 && S_ISREG(st.st_mode);
}

/* ---- the steps before the model: normalizer and pre-tokenizer --------------------------------------------------- */

/* A node or, when it is a Sequence, its i-th part; NULL behind the last */
static const cJSON *step(const cJSON *node, const char *list, int i) {
    if (!node || !is_text(node, "type", "Sequence")) return i == 0 ? node : NULL;
    return cJSON_GetArrayItem(cJSON_GetObjectItemCaseSensitive(node, list), i);
}

static bool read_normalizer(reader *r) {
    const cJSON *node = member(r->root, "normalizer"), *s;
    for (int i = 0; (s = step(node, "normalizers", i)) != NULL; i++) {
        const cJSON *pattern = member(s, "pattern");
        if (is_text(s, "type", "NFC"))
            r->nfc = true;
        else if (is_text(s, "type", "Prepend") && is_text(s, "prepend", "\xe2\x96\x81"))
            r->v.prefix = "each";
        else if (is_text(s, "type", "Replace") && is_text(pattern, "String", " ") &&
                 is_text(s, "content", "\xe2\x96\x81"))
            r->replaces_spaces = true;
        else
            return unsupported(r, "normalizer", json_text(s, "type"));
    }
    return true;
}

#define WORDS "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|"
#define OTHERS "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"

/* Split by a known expression, then ByteLevel for its bytes only */
static bool name_split(reader *r, const cJSON *split) {
    const char *expression = json_text(member(split, "pattern"), "Regex");
    if (!is_text(split, "behavior", "Isolated") || json_flag(split, "invert", false) || !expression)
        return unsupported(r, "pre-tokenizer", "Split with these options");
    if (strcmp(expression, WORDS "\\p{N}" OTHERS) == 0)
        r->v.pre = r->nfc ? "qwen2" : "deepseek-r1-qwen";
    else if (strcmp(expression, WORDS "\\p{N}{1,3}" OTHERS) == 0)
        r->v.pre = "llama-bpe";
    else
        return unsupported(r, "pre-tokenizer expression", expression);
    return true;
}

static bool read_byte_level(reader *r, const cJSON *first, const cJSON *last, int count) {
    bool own_expression = json_flag(last, "use_regex", true);
    if (json_flag(last, "add_prefix_space", true)) return unsupported(r, "pre-tokenizer option", "add_prefix_space");
    if (r->v.prefix || r->replaces_spaces) return unsupported(r, "normalizer", "of spaces before ByteLevel");
    if (count == 1 && own_expression)
        r->v.pre = "gpt-2";
    else if (count == 2 && own_expression && is_text(first, "type", "Digits") &&
             json_flag(first, "individual_digits", false))
        r->v.pre = "smollm";
    else if (count == 2 && !own_expression && is_text(first, "type", "Split")) {
        if (!name_split(r, first)) return false;
    } else
        return unsupported(r, "pre-tokenizer", json_text(first, "type"));
    if (r->nfc && strcmp(r->v.pre, "qwen2") != 0) return unsupported(r, "normalizer NFC with pre-tokenizer", r->v.pre);
    return true;
}

/* Metaspace as newer exports of SentencePiece models have it, in place of a normalizer */
static bool read_metaspace(reader *r, const cJSON *node) {
    const char *scheme = json_text(node, "prepend_scheme");
    if (!scheme) scheme = json_flag(node, "add_prefix_space", true) ? "always" : "never";
    if (json_flag(node, "split", true) || !is_text(node, "replacement", "\xe2\x96\x81") || r->v.prefix ||
        r->replaces_spaces)
        return unsupported(r, "pre-tokenizer", "Metaspace with these options");
    if (strcmp(scheme, "always") == 0)
        r->v.prefix = "always";
    else if (strcmp(scheme, "first") == 0)
        r->v.prefix = "first";
    else if (strcmp(scheme, "never") != 0)
        return unsupported(r, "prepend_scheme", scheme);
    return true;
}

static bool read_pre_tokenizer(reader *r) {
    const cJSON *node = member(r->root, "pre_tokenizer"), *first = step(node, "pretokenizers", 0), *last = first;
    int count = 0;
    while (step(node, "pretokenizers", count)) last = step(node, "pretokenizers", count++);
    if (is_text(last, "type", "ByteLevel")) return read_byte_level(r, first, last, count);
    r->v.spm = true;
    if (r->nfc) return unsupported(r, "normalizer", "NFC without ByteLevel");
    if (count == 1 && is_text(first, "type", "Metaspace")) return read_metaspace(r, first);
    if (count) return unsupported(r, "pre-tokenizer", json_text(first, "type"));
    return r->replaces_spaces || unsupported(r, "tokenizer without", "ByteLevel, Metaspace or a normalizer of spaces");
}

/* ---- the model -------------------------------------------------------------------------------------------------- */

static bool read_model_options(reader *r, const cJSON *model) {
    const char *type = json_text(model, "type"), *prefix = json_text(model, "continuing_subword_prefix");
    const char *suffix = json_text(model, "end_of_word_suffix");
    bool by_whole = json_flag(model, "ignore_merges", false);
    if (!cJSON_IsObject(model) || (type && strcmp(type, "BPE") != 0)) return unsupported(r, "tokenizer model", type);
    if (member(model, "dropout") && member(model, "dropout")->valuedouble > 0)
        return unsupported(r, "model option", "dropout");
    if ((prefix && *prefix) || (suffix && *suffix))
        return unsupported(r, "model option", "continuing_subword_prefix or end_of_word_suffix");
    /* Llama 3 files from before the option existed mean it, too */
    if (by_whole && strcmp(r->v.pre, "llama-bpe") != 0) return unsupported(r, "model option", "ignore_merges");
    r->byte_fallback = json_flag(model, "byte_fallback", false);
    r->unknown = json_text(model, "unk_token");
    return true;
}

static bool is_byte_token(const char *s) {
    return strlen(s) == 6 && strncmp(s, "<0x", 3) == 0 && s[5] == '>' && strspn(s + 3, "0123456789ABCDEF") == 2;
}

/* {"text": id, ...}. Scores are there for other readers: ids of SentencePiece models follow the order of merging. */
static bool read_vocabulary(reader *r, const cJSON *vocabulary) {
    const cJSON *item;
    if (!cJSON_IsObject(vocabulary)) return malformed(r, "no vocabulary");
    cJSON_ArrayForEach(item, vocabulary) {
        uint64_t id;
        if (!json_u64(item, &id) || id >= VOCAB_MOST) return malformed(r, "a token id is not a number below 16777216");
        bool byte = r->v.spm && r->byte_fallback && is_byte_token(item->string);
        vocab_set(&r->v, (size_t)id, text_of(item->string), byte ? VOCAB_BYTE : VOCAB_NORMAL, -(float)id);
    }
    return true;
}

/* ["a b", ...] or [["a", "b"], ...] */
static bool read_merges(reader *r, const cJSON *merges) {
    const cJSON *item;
    if (!cJSON_IsArray(merges)) return malformed(r, "no merges");
    cJSON_ArrayForEach(item, merges) {
        const char *left = cJSON_GetStringValue(cJSON_GetArrayItem(item, 0)),
                   *right = cJSON_GetStringValue(cJSON_GetArrayItem(item, 1));
        if (cJSON_IsString(item)) {
            vocab_add_merge(&r->v, text_of(item->valuestring));
        } else if (left && right && !strchr(left, ' ') && !strchr(right, ' ')) {
            gguf_text start = vocab_keep(&r->v, text_of(left), text_of(" "));
            vocab_add_merge(&r->v, vocab_keep(&r->v, start, text_of(right)));
        } else
            return malformed(r, "a merge is not two texts without spaces");
    }
    return true;
}

/* merges.txt: a merge on each line; the first line may tell a version */
static bool read_merges_text(reader *r) {
    const char *at = (const char *)r->file.bytes, *end = at + r->file.size;
    for (const char *next; at < end; at = next) {
        const char *newline = memchr(at, '\n', (size_t)(end - at)), *stop = newline ? newline : end;
        next = newline ? newline + 1 : end;
        if (stop > at && stop[-1] == '\r') stop--;
        if (stop == at || (stop - at > 9 && memcmp(at, "#version:", 9) == 0)) continue;
        vocab_add_merge(&r->v, (gguf_text){at, (size_t)(stop - at)});
    }
    return true;
}

/* {content, special, normalized, lstrip, rstrip, single_word} with its id */
static bool read_added(reader *r, const cJSON *token, uint64_t id, bool normalizes) {
    const char *content = json_text(token, "content");
    if (!content || id >= VOCAB_MOST) return malformed(r, "an added token has no content or no good id");
    if (json_flag(token, "lstrip", false) || json_flag(token, "rstrip", false) ||
        json_flag(token, "single_word", false))
        return unsupported(r, "lstrip, rstrip or single_word of added token", content);
    bool special = json_flag(token, "special", false);
    bool unknown = r->unknown && strcmp(content, r->unknown) == 0;
    vocab_set(&r->v, (size_t)id, text_of(content), unknown ? VOCAB_UNKNOWN : special ? VOCAB_CONTROL : VOCAB_USER, 0);
    if (normalizes && r->v.spm && json_flag(token, "normalized", !special)) vocab_add_normalized(&r->v, (uint32_t)id);
    return true;
}

static bool read_added_list(reader *r) {
    const cJSON *token;
    bool normalizes = r->replaces_spaces || r->v.prefix != NULL;
    if (member(r->root, "normalizer") == NULL) normalizes = false;
    cJSON_ArrayForEach(token, member(r->root, "added_tokens")) {
        uint64_t id;
        if (!json_u64(member(token, "id"), &id)) return malformed(r, "an added token has no id");
        if (!read_added(r, token, id, normalizes)) return false;
    }
    return true;
}

/* tokenizer_config.json has {"id": token, ...}; only ids from `first` on are read. */
static bool read_added_decoder(reader *r, size_t first) {
    const cJSON *token;
    cJSON_ArrayForEach(token, member(r->config, "added_tokens_decoder")) {
        char *end;
        uint64_t id = strtoull(token->string, &end, 10);
        if (*end || end == token->string) return malformed(r, "added_tokens_decoder: an id is not a number");
        if (id >= first && !read_added(r, token, id, false)) return false;
    }
    return true;
}

/* Unknown characters become one token for each run of them, or bytes: other ways are not in the engine. */
static bool check_unknown(reader *r, const cJSON *model) {
    size_t n_bytes = 0;
    for (size_t i = 0; i < r->v.n; i++) n_bytes += r->v.types[i] == VOCAB_BYTE;
    if (r->unknown) r->v.unknown = vocab_find(&r->v, r->unknown);
    if (!r->v.spm || n_bytes == 256 || !r->unknown || json_flag(model, "fuse_unk", false)) return true;
    return unsupported(r, "model option", "fuse_unk: false without byte tokens");
}

/* ---- special ids and the chat template -------------------------------------------------------------------------- */

/* "bos_token": "text", or {"content": "text"} */
static void find_special(reader *r, const char *name, int64_t *id) {
    const cJSON *item = member(r->config, name);
    const char *text = cJSON_IsObject(item) ? json_text(item, "content") : cJSON_GetStringValue(item);
    int64_t found = text ? vocab_find(&r->v, text) : -1;
    if (found >= 0) *id = found;
}

/* config.json: "bos_token_id": id, or a list of them */
static void find_special_id(reader *r, const cJSON *config, const char *name, int64_t *id) {
    const cJSON *item = member(config, name);
    uint64_t value;
    if (cJSON_IsArray(item)) item = cJSON_GetArrayItem(item, 0);
    if (*id < 0 && json_u64(item, &value) && value < r->v.n) *id = (int64_t)value;
}

/* TemplateProcessing puts special tokens around a text: [{SpecialToken: {id}}, {Sequence}, ...] */
static bool read_template(reader *r) {
    const cJSON *node = member(r->root, "post_processor"), *s, *list = NULL;
    for (int i = 0; (s = step(node, "processors", i)) != NULL; i++)
        if (is_text(s, "type", "TemplateProcessing")) list = member(s, "single");
    if (!list) return false;
    const char *first = json_text(member(cJSON_GetArrayItem(list, 0), "SpecialToken"), "id");
    r->v.add_bos = first != NULL;
    r->v.add_eos = member(cJSON_GetArrayItem(list, cJSON_GetArraySize(list) - 1), "SpecialToken") != NULL;
    if (first && r->v.bos < 0) r->v.bos = vocab_find(&r->v, first);
    return true;
}

static bool read_specials(reader *r) {
    find_special(r, "bos_token", &r->v.bos);
    find_special(r, "eos_token", &r->v.eos);
    find_special(r, "unk_token", &r->v.unknown);
    find_special(r, "pad_token", &r->v.padding);
    if (has_file(r, "config.json")) {
        cJSON *config = json_read(r->path, r->e);
        if (!config) return false;
        find_special_id(r, config, "bos_token_id", &r->v.bos);
        find_special_id(r, config, "eos_token_id", &r->v.eos);
        find_special_id(r, config, "pad_token_id", &r->v.padding);
        cJSON_Delete(config);
    }
    if (!read_template(r)) {
        r->v.add_bos = json_flag(r->config, "add_bos_token", r->v.add_bos);
        r->v.add_eos = json_flag(r->config, "add_eos_token", false);
    }
    return true;
}

static bool put_template(reader *r, gguf_writer *w) {
    static const char key[] = "tokenizer.chat_template";
    if (has_file(r, "chat_template.jinja")) {
        file_view f;
        if (!file_map(&f, r->path, r->e)) return false;
        gguf_put_string(w, key, (const char *)f.bytes, (size_t)f.size);
        file_unmap(&f);
        return true;
    }
    const cJSON *item = member(r->config, "chat_template"), *one;
    const char *text = cJSON_GetStringValue(item);
    if (cJSON_IsArray(item)) {
        text = json_text(cJSON_GetArrayItem(item, 0), "template");
        cJSON_ArrayForEach(one, item) if (is_text(one, "name", "default")) text = json_text(one, "template");
    }
    if (text) gguf_put_string(w, key, text, strlen(text));
    return true;
}

/* ---- the three kinds of folders --------------------------------------------------------------------------------- */

static bool read_tokenizer_json(reader *r) {
    if (!(r->root = json_read(r->path, r->e))) return false;
    const cJSON *model = member(r->root, "model");
    return read_normalizer(r) && read_pre_tokenizer(r) && read_model_options(r, model) &&
           read_vocabulary(r, member(model, "vocab")) && read_merges(r, member(model, "merges")) &&
           read_added_list(r) && check_unknown(r, model);
}

/* vocab.json + merges.txt: the class of the tokenizer implies its pre-tokenizer */
static bool read_vocab_json(reader *r) {
    if (!(r->root = json_read(r->path, r->e)) || !read_vocabulary(r, r->root)) return false;
    if (!has_file(r, "merges.txt")) return bp_fail(r->e, BP_ERR_IO, 0, "%s: vocab.json without merges.txt", r->folder);
    if (!file_map(&r->file, r->path, r->e) || !read_merges_text(r)) return false;
    has_file(r, "tokenizer_config.json");
    const char *class = json_text(r->config, "tokenizer_class");
    if (class && strncmp(class, "Qwen2Tokenizer", 14) == 0)
        r->v.pre = "qwen2";
    else if (class && strncmp(class, "GPT2Tokenizer", 13) == 0)
        r->v.pre = "gpt-2";
    else
        return unsupported(r, "tokenizer_class", class ? class : "(none)");
    return read_added_decoder(r, 0);
}

static bool read_sentencepiece(reader *r) {
    if (!file_map(&r->file, r->path, r->e)) return false;
    if (!spm_read(&r->v, r->file.bytes, (size_t)r->file.size, r->path, r->e)) return false;
    return read_added_decoder(r, r->v.n);
}

static bool read_folder(reader *r) {
    if (has_file(r, "tokenizer_config.json") && !(r->config = json_read(r->path, r->e))) return false;
    if (has_file(r, "tokenizer.json")) return read_tokenizer_json(r);
    if (has_file(r, "vocab.json")) return read_vocab_json(r);
    if (has_file(r, "tokenizer.model")) return read_sentencepiece(r);
    return bp_fail(r->e, BP_ERR_IO, 0, "%s: no tokenizer.json, vocab.json or tokenizer.model", r->folder);
}

/* One file instead of a folder: the files beside it count, too. */
static bool read_any(reader *r, const char *path) {
    struct stat st;
    size_t n = strlen(path);
    if (n >= sizeof r->folder) return bp_fail(r->e, BP_ERR_IO, 0, "path of %zu bytes is too long", n);
    memcpy(r->folder, path, n + 1);
    if (stat(path, &st) != 0 || !S_ISREG(st.st_mode)) return read_folder(r);
    char *slash = strrchr(r->folder, '/');
    if (slash)
        *slash = 0;
    else
        memcpy(r->folder, ".", 2);
    if (has_file(r, "tokenizer_config.json") && !(r->config = json_read(r->path, r->e))) return false;
    snprintf(r->path, sizeof r->path, "%s", path);
    return n > 6 && strcmp(path + n - 6, ".model") == 0 ? read_sentencepiece(r) : read_tokenizer_json(r);
}

bool hf_tokenizer_put(gguf_writer *w, const char *folder, bp_err *e) {
    reader r = {.e = e};
    vocab_begin(&r.v);
    bool ok = read_any(&r, folder) && read_specials(&r) && vocab_put(w, &r.v, e) && put_template(&r, w);
    vocab_free(&r.v);
    cJSON_Delete(r.root);
    cJSON_Delete(r.config);
    file_unmap(&r.file);
    return ok;
}
