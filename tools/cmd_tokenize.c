/* bitpair tokenize: a text as token ids, and back. Needs no weights: any file or folder with a tokenizer will do. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "cli.h"
#include "io/file.h"
#include "io/hf_tokenizer.h"
#include "tokenizer.h"

typedef struct {
    const char *file;
    bool special, bos, lines, json, decode;
} options;

typedef struct {
    file_view view;  /* a GGUF file */
    uint8_t *image;  /* or the header made from a folder */
    void *memory[2]; /* the arenas of file and tokenizer */
    gguf file;
    tokenizer *t;
} vocabulary;

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static bool ends_with(const char *s, const char *end) {
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_hf(const char *path) {
    struct stat st;
    return ends_with(path, ".json") || ends_with(path, ".model") || (stat(path, &st) == 0 && S_ISDIR(st.st_mode));
}

/* The keys of a Hugging Face tokenizer as a GGUF file without tensors */
static bool read_hf(vocabulary *v, const char *path, uint64_t *size, bp_err *e) {
    uint64_t full_size;
    gguf_writer *w = gguf_writer_new();
    if (!w) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokenizer");
    bool ok = hf_tokenizer_put(w, path, e) && gguf_writer_finish(w, 64, &v->image, size, &full_size, e);
    gguf_writer_free(w);
    return ok;
}

static bool take_memory(void **memory, arena *a, bp_err *e) {
    size_t size = bp_round_up(bp_max(a->used, 1), BP_ALIGN);
    *memory = aligned_alloc(BP_ALIGN, size);
    if (!*memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokenizer (%zu bytes)", size);
    *a = arena_over(*memory, size);
    return true;
}

static bool read_header(vocabulary *v, const uint8_t *bytes, uint64_t size, bp_err *e) {
    arena a = arena_measure();
    if (!gguf_open(&v->file, &a, bytes, size, e) || !take_memory(&v->memory[0], &a, e) ||
        !gguf_open(&v->file, &a, bytes, size, e))
        return false;
    a = arena_measure();
    return tokenizer_open(&v->t, &a, &v->file, e) && take_memory(&v->memory[1], &a, e) &&
           tokenizer_open(&v->t, &a, &v->file, e);
}

/* Errors name the file. */
static bool vocabulary_open(vocabulary *v, const char *path, bp_err *e) {
    bp_err inner = {0};
    uint64_t size = 0;
    *v = (vocabulary){0};
    if (is_hf(path) ? !read_hf(v, path, &size, e) : !file_map(&v->view, path, e)) return false;
    if (read_header(v, v->image ? v->image : v->view.bytes, v->image ? size : v->view.size, &inner)) return true;
    return bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
}

static void vocabulary_close(vocabulary *v) {
    free(v->memory[0]);
    free(v->memory[1]);
    free(v->image);
    file_unmap(&v->view);
}

/* ---- text to ids ------------------------------------------------------------------------------------------------ */

static void print_ids(const int32_t *ids, size_t n, bool json, bool last) {
    if (json) putchar('[');
    for (size_t i = 0; i < n; i++) {
        char digits[16], *first = digits + sizeof digits;
        uint32_t value = (uint32_t)ids[i];
        do *--first = (char)('0' + value % 10);
        while (value /= 10);
        if (i) putchar(json ? ',' : ' ');
        fwrite(first, 1, (size_t)(digits + sizeof digits - first), stdout);
    }
    if (json) fputs(last ? "]" : "],", stdout);
    putchar('\n');
}

static bool print_encoded(const tokenizer *t, const options *o, const char *text, size_t n, void *scratch, int32_t *ids,
                          bp_err *e) {
    uint32_t flags = (o->special ? TOKENIZE_SPECIAL : 0u) | (o->bos ? TOKENIZE_BOS : 0u);
    bool several = o->lines && o->json;
    if (several) puts("[");
    for (size_t at = 0; at < n || at == 0;) {
        size_t end = n, n_ids;
        const char *newline = o->lines && n ? memchr(text + at, '\n', n - at) : NULL;
        if (newline) end = (size_t)(newline - text) + 1;
        if (!tokenizer_encode(t, text + at, end - at, flags, scratch, ids, &n_ids, e)) {
            if (e->code == BP_ERR_FORMAT) e->offset += at;
            return false;
        }
        print_ids(ids, n_ids, o->json, end == n);
        if (end == n) break;
        at = end;
    }
    if (several) puts("]");
    return true;
}

static bool encode(const vocabulary *v, const options *o, const file_view *f, bp_err *e) {
    size_t n = (size_t)f->size, room = tokenizer_scratch(v->t, n);
    void *scratch = room < SIZE_MAX - BP_ALIGN ? aligned_alloc(BP_ALIGN, bp_round_up(room, BP_ALIGN)) : NULL;
    int32_t *ids = n < SIZE_MAX / 8 ? malloc((n + 8) * sizeof *ids) : NULL;
    bool ok = scratch && ids ? print_encoded(v->t, o, f->size ? (const char *)f->bytes : "", n, scratch, ids, e)
                             : bp_fail(e, BP_ERR_MEMORY, 0, "no memory to tokenize %zu bytes", n);
    free(scratch);
    free(ids);
    return ok;
}

/* ---- ids to text ------------------------------------------------------------------------------------------------ */

static bool is_between(uint8_t c) {
    return c == ' ' || c == '\n' || c == '\r' || c == '\t' || c == ',' || c == '[' || c == ']';
}

/* The next number of a list, at *at; false at the end of the text and where something else stands (then *at < size). */
static bool next_id(const file_view *f, uint64_t *at, uint32_t size, int32_t *id) {
    uint64_t value = 0, start;
    while (*at < f->size && is_between(f->bytes[*at])) ++*at;
    for (start = *at; *at < f->size && (uint8_t)(f->bytes[*at] - '0') <= 9 && value < size; ++*at)
        value = value * 10 + (uint64_t)(f->bytes[*at] - '0');
    if (*at == start || value >= size || (*at < f->size && !is_between(f->bytes[*at]))) return false;
    *id = (int32_t)value;
    return true;
}

static bool decode(const vocabulary *v, const options *o, const file_view *f, bp_err *e) {
    size_t cap = tokenizer_longest(v->t) + 8;
    char *out = malloc(cap);
    if (!out) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a token of %zu bytes", cap);
    token_stream s;
    token_stream_begin(v->t, &s);
    uint64_t at = 0;
    for (int32_t id; next_id(f, &at, tokenizer_size(v->t), &id);)
        fwrite(out, 1, token_stream_push(v->t, &s, id, o->special, out, cap), stdout);
    fwrite(out, 1, token_stream_end(&s, out, cap), stdout);
    free(out);
    return at == f->size || bp_fail(e, BP_ERR_FORMAT, at, "not a token id below %u", tokenizer_size(v->t));
}

int cmd_tokenize(int argc, char **argv) {
    options o = {.file = "-"};
    const cli_option table[] = {
        {"file", 'f', CLI_TEXT, &o.file, 0, 0, "FILE", "text, or ids with --decode (default: standard input)"},
        {"special", 's', CLI_FLAG, &o.special, 0, 0, NULL, "read and write control tokens by their names"},
        {"bos", 'b', CLI_FLAG, &o.bos, 0, 0, NULL, "begin with BOS where the model asks for it"},
        {"lines", 'l', CLI_FLAG, &o.lines, 0, 0, NULL, "every line by itself, one line of ids for each"},
        {"decode", 'd', CLI_FLAG, &o.decode, 0, 0, NULL, "ids to text"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "a JSON array (with --lines an array of arrays)"},
        {0}};
    const cli_spec spec = {.name = "tokenize",
                           .usage = "MODEL [--file FILE] [options]",
                           .summary =
                               "Turn a text into token ids. MODEL is a GGUF file, or a folder with tokenizer.json, "
                               "vocab.json and merges.txt, or tokenizer.model.",
                           .examples = "  bitpair tokenize model.gguf --file text.txt\n"
                                       "  echo 504 2365 | bitpair tokenize model.gguf --decode\n",
                           .options = table,
                           .n_positional = 1};
    const char *path;
    int status = cli_parse(&spec, argc, argv, &path);
    if (status != CLI_OK) return status < 0 ? CLI_OK : status;
    bp_err e = {0};
    vocabulary v;
    file_view f = {0};
    bool ok = vocabulary_open(&v, path, &e) && file_map(&f, o.file, &e);
    ok = ok && (o.decode ? decode(&v, &o, &f, &e) : encode(&v, &o, &f, &e));
    file_unmap(&f);
    vocabulary_close(&v);
    return ok ? CLI_OK : cli_fail(&e);
}
