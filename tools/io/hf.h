/* hf.h - a Hugging Face model folder as the image of a GGUF file.
 * Reads config.json, the safetensors, tokenizer.json and the chat template of Llama, Qwen2 and Qwen3 models. */
#ifndef BITPAIR_HF_H
#define BITPAIR_HF_H

#include "err.h"

/* *image [*size]: a GGUF v3 file in memory, 64-byte aligned, to be freed by the caller. Matrices keep their type (F32,
 * F16, BF16), vectors become F32, rows of Llama's q and k are permuted to the interleaved order of GGUF. BP_ERR_IO,
 * BP_ERR_FORMAT, BP_ERR_UNSUPPORTED (architecture, option or tensor: named), BP_ERR_MEMORY. */
bool hf_read(const char *folder, uint8_t **image, uint64_t *size, bp_err *e);

#endif
