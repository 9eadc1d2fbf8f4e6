/* gguf_write.h - builds the header of a GGUF v3 file: keys and the tensor table, in the order they are put.
 * Tensor data is the caller's: it goes to the offsets that the laid-out header gives. Out of memory is remembered and
 * reported by gguf_writer_finish. */
#ifndef BITPAIR_GGUF_WRITE_H
#define BITPAIR_GGUF_WRITE_H

#include "gguf.h"

typedef struct gguf_writer gguf_writer;

gguf_writer *gguf_writer_new(void);
void gguf_writer_free(gguf_writer *w);

/* Keys. A key put twice replaces its first value, in place (so digests can be filled in after the layout is known). */
void gguf_put_u32(gguf_writer *w, const char *key, uint32_t value);
void gguf_put_u64(gguf_writer *w, const char *key, uint64_t value);
void gguf_put_f32(gguf_writer *w, const char *key, float value);
void gguf_put_bool(gguf_writer *w, const char *key, bool value);
void gguf_put_string(gguf_writer *w, const char *key, const char *text, size_t size);
void gguf_put_strings(gguf_writer *w, const char *key, const gguf_text *items, size_t count);
/* kind: a scalar kind; items: count packed values in native order */
void gguf_put_array(gguf_writer *w, const char *key, gguf_kind kind, const void *items, size_t count);
/* Copies a key of another file as it is. */
void gguf_put_key(gguf_writer *w, const gguf_key *key);

/* Declares a tensor; dims[0] is the fastest. Returns its index. */
size_t gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims);

/* Lays the file out: *header (malloc, the caller frees) [*header_size], padded to the alignment, so that tensor data
 * begins at header_size; *full_size is the length of the whole file. May be called again after keys were replaced by
 * values of the same size. */
bool gguf_writer_finish(gguf_writer *w, uint32_t alignment, uint8_t **header, uint64_t *header_size,
                        uint64_t *full_size, bp_err *e);

/* After finish: where tensor i begins in the file, and its bytes (without padding). */
uint64_t gguf_writer_offset(const gguf_writer *w, size_t i);
uint64_t gguf_writer_bytes(const gguf_writer *w, size_t i);

#endif
