/* offline.h - a model as the offline commands use it: weights, tokenizer, and where it came from. */
#ifndef BITPAIR_OFFLINE_H
#define BITPAIR_OFFLINE_H

#include "io/source.h"
#include "model.h"
#include "tokenizer.h"

typedef struct {
    source source;
    model *model;
    tokenizer *tokenizer;
    void *tokenizer_memory;
    char description[400]; /* "NAME sha256:HEX", what bitpair.source says */
} offline_model;

/* Opens a GGUF file or a Hugging Face folder. Errors name the path. On failure nothing needs to be closed;
 * offline_close takes a zeroed struct too. */
bool offline_open(offline_model *in, const char *path, bp_err *e);
void offline_close(offline_model *in);

/* The mapped file behind it, NULL where the model is in memory (a folder). */
const file_view *offline_mapping(const offline_model *in);

/* Both are of one architecture and every tensor of one has the shape of the other's. */
bool offline_same_shape(const model *a, const model *b);

/* Can the model read texts of its tokenizer in sequences of ctx tokens? BP_ERR_ARGUMENT, BP_ERR_FORMAT. */
bool offline_check_text(const offline_model *in, uint64_t ctx, bp_err *e);

/* out [capacity] <- the text of a key of the model's file, "" where there is none. false where it was cut. */
bool offline_key(const model *m, const char *key, char *out, size_t capacity);

#endif
