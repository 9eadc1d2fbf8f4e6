/* source.h - MODEL on the command line: a GGUF file, or a Hugging Face folder turned into the image of a GGUF file, so
 * that everything after it knows one format. */
#ifndef BITPAIR_SOURCE_H
#define BITPAIR_SOURCE_H

#include "file.h"

typedef struct {
    const uint8_t *bytes; /* a GGUF v3 image, 64-byte aligned */
    uint64_t size;
    char name[256]; /* last component of the path */
    file_view view; /* private: the mapping of a GGUF file */
    void *image;    /* private: the image made from a folder */
} source;

/* Hugging Face folders: config.json, model.safetensors or model.safetensors.index.json with its shards (F32, F16,
 * BF16), tokenizer.json, and the chat template of tokenizer_config.json or chat_template.jinja. Llama, Qwen2, Qwen3.
 * Rows of Llama's q and k are permuted to GGUF's interleaved order. Errors name file, tensor and offset. */
bool source_open(source *s, const char *path, bp_err *e);
void source_close(source *s);

#endif
