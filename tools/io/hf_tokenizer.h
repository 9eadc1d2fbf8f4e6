/* hf_tokenizer.h - the tokenizer of a Hugging Face folder -> tokenizer.ggml.* keys. */
#ifndef BITPAIR_HF_TOKENIZER_H
#define BITPAIR_HF_TOKENIZER_H

#include "err.h"
#include "gguf_write.h"

/* Puts tokenizer.ggml.{model, pre, tokens, scores, token_type, merges, *_token_id, add_*} and tokenizer.chat_template,
 * as the usual converters write them. The folder holds tokenizer.json, or vocab.json + merges.txt, or tokenizer.model
 * (SentencePiece), looked for in this order, and perhaps tokenizer_config.json and chat_template.jinja. `folder` may
 * also name one tokenizer.json or *.model file. Fails with BP_ERR_IO (none of them there, unreadable), BP_ERR_FORMAT
 * (broken JSON or protobuf, named), BP_ERR_UNSUPPORTED (a model, normalizer or pre-tokenizer that the engine lacks,
 * named), BP_ERR_MEMORY. On failure some keys may have been put. */
bool hf_tokenizer_put(gguf_writer *w, const char *folder, bp_err *e);

#endif
