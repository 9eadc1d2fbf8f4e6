/* tokenizer.h - text <-> token ids, from the tokenizer.ggml.* keys of a GGUF file.
 * Two families: byte-level BPE (`tokenizer.ggml.model` = "gpt2"; pre-tokenizer by `tokenizer.ggml.pre`) and
 * SentencePiece-style BPE with byte fallback ("llama"; merges by `tokenizer.ggml.merges` where present, else by
 * score). */
#ifndef BP_TOKENIZER_H
#define BP_TOKENIZER_H

#include "arena.h"
#include "err.h"
#include "gguf.h"

typedef struct tokenizer tokenizer;

enum {
    TOKENIZE_BOS = 1,    /* put BOS first if the model asks for it (add_bos_token) */
    TOKENIZE_SPECIAL = 2 /* recognise control tokens such as <|im_start|> in the text; else they are plain text */
};

/* Builds the tables in arena memory; with a measuring arena it only measures and *t stays NULL. The gguf must outlive
 * it. Fails with BP_ERR_FORMAT or BP_ERR_UNSUPPORTED ("pre-tokenizer 'xyz'"). */
bool tokenizer_open(tokenizer **t, arena *a, const gguf *g, bp_err *e);

/* Bytes of scratch that encoding n bytes of text needs. */
size_t tokenizer_scratch(const tokenizer *t, size_t n);

/* ids [n + 8] <- tokens of text [n]; *n_ids of them. text must be UTF-8 (BP_ERR_FORMAT with the offset otherwise).
 * scratch [tokenizer_scratch(t, n)], 64-byte aligned. */
bool tokenizer_encode(const tokenizer *t, const char *text, size_t n, uint32_t flags, void *scratch, int32_t *ids,
                      size_t *n_ids, bp_err *e);

uint32_t tokenizer_size(const tokenizer *t); /* vocabulary */
int32_t tokenizer_bos(const tokenizer *t);   /* -1 where there is none */
int32_t tokenizer_eos(const tokenizer *t);
bool tokenizer_adds_bos(const tokenizer *t);
bool tokenizer_is_end(const tokenizer *t, int32_t id);     /* ends a turn: eos, eot, <|im_end|>, <|eot_id|>, ... */
bool tokenizer_is_control(const tokenizer *t, int32_t id); /* carries no text */

/* The text bytes of one token (may be a part of a UTF-8 character): copies at most cap bytes to out, returns how many
 * there are. Control tokens give their name when `special`, else nothing. Unknown ids give nothing. */
size_t tokenizer_piece(const tokenizer *t, int32_t id, bool special, char *out, size_t cap);

/* A stream of tokens -> whole UTF-8 characters. */
typedef struct {
    uint8_t held[4]; /* the beginning of a character that is not complete yet */
    uint8_t n_held;
    bool strip; /* SentencePiece: drop one leading space of the first token */
} token_stream;

void token_stream_begin(const tokenizer *t, token_stream *s);

/* Appends a token; writes the characters it completes to out [cap] (cap >= 8 + the longest piece: tokenizer_longest)
 * and returns their bytes. Bytes that can never become UTF-8 come out as U+FFFD. */
size_t token_stream_push(const tokenizer *t, token_stream *s, int32_t id, bool special, char *out, size_t cap);

/* Flushes what is held (U+FFFD for a broken character). */
size_t token_stream_end(token_stream *s, char *out, size_t cap);

size_t tokenizer_longest(const tokenizer *t); /* bytes of the longest piece */

#endif
