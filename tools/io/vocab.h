/* vocab.h - a vocabulary on its way into tokenizer.ggml.* keys: what the readers of tokenizer.json, vocab.json with
 * merges.txt, and tokenizer.model fill. */
#ifndef BITPAIR_VOCAB_H
#define BITPAIR_VOCAB_H

#include "gguf_write.h"

/* tokenizer.ggml.token_type */
enum { VOCAB_NORMAL = 1, VOCAB_UNKNOWN = 2, VOCAB_CONTROL = 3, VOCAB_USER = 4, VOCAB_UNUSED = 5, VOCAB_BYTE = 6 };

enum { VOCAB_MOST = 1 << 24 }; /* ids are below this */

/* Texts are the caller's, alive until vocab_put (vocab_keep copies). Zeroed with vocab_begin. */
typedef struct {
    gguf_text *tokens; /* [n]; text NULL: a hole */
    int32_t *types;    /* [n] */
    float *scores;     /* [n] */
    size_t n, room;
    gguf_text *merges; /* [n_merges] "left right" */
    size_t n_merges, merge_room;
    uint32_t *normalized; /* [n_normalized] added tokens that are matched after spaces were put and replaced */
    size_t n_normalized, normalized_room;
    void *kept;
    bool lost;          /* out of memory */
    bool spm;           /* tokenizer.ggml.model "llama", else "gpt2" */
    const char *pre;    /* tokenizer.ggml.pre */
    const char *prefix; /* SentencePiece: when a space is put before a text: "each", "always", "first"; NULL: never */
    bool add_bos, add_eos;
    int64_t bos, eos, unknown, padding; /* ids, -1: none */
} vocab;

void vocab_begin(vocab *v);
void vocab_free(vocab *v);

/* Token `id` < VOCAB_MOST; replaces what was there. */
void vocab_set(vocab *v, size_t id, gguf_text text, int32_t type, float score);
void vocab_add_merge(vocab *v, gguf_text text);
void vocab_add_normalized(vocab *v, uint32_t id);

/* A copy of two texts, one behind the other, that lives as long as the vocabulary. */
gguf_text vocab_keep(vocab *v, gguf_text a, gguf_text b);

/* The token with this text, the last one of them (added tokens come last); -1: none */
int64_t vocab_find(const vocab *v, const char *text);

/* Writes the keys. Ids without a token become unused tokens "[PADn]". Fails with BP_ERR_MEMORY, BP_ERR_FORMAT (nothing
 * in it). */
bool vocab_put(gguf_writer *w, vocab *v, bp_err *e);

#endif
