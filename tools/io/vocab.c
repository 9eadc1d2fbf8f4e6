#include "io/vocab.h"

#include <stdio.h>
#include <stdlib.h>

/* Copied texts, in a list of blocks */
typedef struct block {
    struct block *next;
    size_t used, room;
    char text[];
} block;

enum { BLOCK_BYTES = 1 << 16 };

void vocab_begin(vocab *v) { *v = (vocab){.bos = -1, .eos = -1, .unknown = -1, .padding = -1, .pre = "default"}; }

void vocab_free(vocab *v) {
    for (block *b = v->kept, *next; b; b = next) {
        next = b->next;
        free(b);
    }
    free(v->tokens);
    free(v->types);
    free(v->scores);
    free(v->merges);
    free(v->normalized);
}

/* *array [*room] of `item` bytes each -> at least `needed`, new ones zeroed; false: out of memory, nothing changed */
static bool grow(vocab *v, void *array, size_t *room, size_t needed, size_t item) {
    if (needed <= *room) return true;
    size_t more = bp_max(needed, *room + *room / 2 + 1024);
    void *old, *bigger;
    memcpy(&old, array, sizeof old);
    bigger = realloc(old, more * item);
    if (!bigger) {
        v->lost = true;
        return false;
    }
    memset((char *)bigger + *room * item, 0, (more - *room) * item);
    memcpy(array, &bigger, sizeof bigger);
    *room = more;
    return true;
}

void vocab_set(vocab *v, size_t id, gguf_text text, int32_t type, float score) {
    size_t room = v->room;
    if (!grow(v, &v->types, &room, id + 1, sizeof *v->types) ||
        !(room = v->room, grow(v, &v->scores, &room, id + 1, sizeof *v->scores)) ||
        !grow(v, &v->tokens, &v->room, id + 1, sizeof *v->tokens))
        return;
    v->tokens[id] = text;
    v->types[id] = type;
    v->scores[id] = score;
    v->n = bp_max(v->n, id + 1);
}

void vocab_add_merge(vocab *v, gguf_text text) {
    if (grow(v, &v->merges, &v->merge_room, v->n_merges + 1, sizeof *v->merges)) v->merges[v->n_merges++] = text;
}

void vocab_add_normalized(vocab *v, uint32_t id) {
    if (grow(v, &v->normalized, &v->normalized_room, v->n_normalized + 1, sizeof *v->normalized))
        v->normalized[v->n_normalized++] = id;
}

gguf_text vocab_keep(vocab *v, gguf_text a, gguf_text b) {
    block *to = v->kept;
    size_t n = a.size + b.size;
    if (!to || n > to->room - to->used) {
        size_t room = bp_max(n, BLOCK_BYTES);
        to = malloc(sizeof *to + room);
        if (!to) {
            v->lost = true;
            return (gguf_text){"", 0};
        }
        *to = (block){.next = v->kept, .room = room};
        v->kept = to;
    }
    char *text = to->text + to->used;
    memcpy(text, a.text, a.size);
    memcpy(text + a.size, b.text, b.size);
    to->used += n;
    return (gguf_text){text, n};
}

int64_t vocab_find(const vocab *v, const char *text) {
    for (size_t i = v->n; i--;)
        if (v->tokens[i].text && gguf_text_is(v->tokens[i], text)) return (int64_t)i;
    return -1;
}

static void fill_holes(vocab *v) {
    for (size_t i = 0; i < v->n; i++) {
        if (v->tokens[i].text) continue;
        char name[32];
        int n = snprintf(name, sizeof name, "[PAD%zu]", i);
        v->tokens[i] = vocab_keep(v, (gguf_text){name, (size_t)n}, (gguf_text){"", 0});
        v->types[i] = VOCAB_UNUSED;
    }
}

static void put_id(gguf_writer *w, const char *key, int64_t id) {
    if (id >= 0) gguf_put_u32(w, key, (uint32_t)id);
}

static void put_text(gguf_writer *w, const char *key, const char *text) { gguf_put_string(w, key, text, strlen(text)); }

bool vocab_put(gguf_writer *w, vocab *v, bp_err *e) {
    if (!v->lost) fill_holes(v);
    if (v->lost) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the vocabulary");
    if (v->n == 0) return bp_fail(e, BP_ERR_FORMAT, 0, "the tokenizer has no tokens");
    put_text(w, "tokenizer.ggml.model", v->spm ? "llama" : "gpt2");
    put_text(w, "tokenizer.ggml.pre", v->pre);
    gguf_put_strings(w, "tokenizer.ggml.tokens", v->tokens, v->n);
    if (v->spm) gguf_put_array(w, "tokenizer.ggml.scores", GGUF_F32, v->scores, v->n);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, v->types, v->n);
    if (v->merges || !v->spm) gguf_put_strings(w, "tokenizer.ggml.merges", v->merges, v->n_merges);
    put_id(w, "tokenizer.ggml.bos_token_id", v->bos);
    put_id(w, "tokenizer.ggml.eos_token_id", v->eos);
    put_id(w, "tokenizer.ggml.unknown_token_id", v->unknown);
    put_id(w, "tokenizer.ggml.padding_token_id", v->padding);
    gguf_put_bool(w, "tokenizer.ggml.add_bos_token", v->add_bos);
    gguf_put_bool(w, "tokenizer.ggml.add_eos_token", v->add_eos);
    gguf_put_bool(w, "tokenizer.ggml.add_space_prefix", v->prefix != NULL);
    if (v->prefix && strcmp(v->prefix, "each") != 0) put_text(w, "bitpair.tokenizer.prefix", v->prefix);
    if (v->n_normalized) gguf_put_array(w, "bitpair.tokenizer.normalized", GGUF_U32, v->normalized, v->n_normalized);
    return true;
}
