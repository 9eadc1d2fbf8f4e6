/* spm.h - SentencePiece models (tokenizer.model). */
#ifndef BITPAIR_SPM_H
#define BITPAIR_SPM_H

#include "vocab.h"

/* Fills v (begun) from the protobuf [size]; token texts point into it. BP_ERR_FORMAT with the offset, or
 * BP_ERR_UNSUPPORTED: the model is not BPE, or normalizes its text. `name` stands in messages. */
bool spm_read(vocab *v, const uint8_t *bytes, size_t size, const char *name, bp_err *e);

#endif
