/* gguf.h - a bounds-checked reader of GGUF v3 over memory that the caller keeps alive. The bytes are hostile: every
 * count, length and offset is checked before it is used, and errors name the offset. */
#ifndef BP_GGUF_H
#define BP_GGUF_H

#include "arena.h"
#include "err.h"
#include "quant.h"

typedef enum {
    GGUF_U8,
    GGUF_I8,
    GGUF_U16,
    GGUF_I16,
    GGUF_U32,
    GGUF_I32,
    GGUF_F32,
    GGUF_BOOL,
    GGUF_STRING,
    GGUF_ARRAY,
    GGUF_U64,
    GGUF_I64,
    GGUF_F64
} gguf_kind;

/* A byte string in the file: not NUL-terminated. */
typedef struct {
    const char *text;
    size_t size;
} gguf_text;

typedef struct {
    gguf_text name;
    gguf_kind kind;
    gguf_kind item;      /* arrays: kind of the items */
    uint64_t count;      /* arrays: number of items, else 1 */
    const uint8_t *data; /* the value (arrays: the first item), unaligned little endian, fully inside the header */
} gguf_key;

typedef struct {
    gguf_text name;
    uint32_t type; /* quant_type */
    uint32_t n_dims;
    uint64_t dims[4]; /* dims[0] is the fastest: a matrix W [out, in] has dims {in, out}; unused ones are 1 */
    uint64_t offset;  /* from the start of the file */
    uint64_t bytes;
} gguf_tensor;

typedef struct {
    const uint8_t *bytes;
    uint64_t size;        /* bytes at hand */
    uint64_t room;        /* bytes that are, or will be, at these addresses; gguf_open: size */
    uint64_t full_size;   /* bytes of the complete file: the end of its last tensor */
    uint64_t data_offset; /* start of tensor data */
    uint64_t alignment;
    bool header_only; /* `size` is what will be at hand: addresses of tensors are right, their bytes must not be read */
    uint32_t n_keys, n_tensors;
    gguf_key *keys;       /* [n_keys] */
    gguf_tensor *tensors; /* [n_tensors], in file order, none overlaps another */
    uint32_t *key_order;  /* [n_keys] indices in the order of names, for searching: an attacker cannot make it slow, */
    uint32_t *tensor_order; /* [n_tensors] as names with equal hashes would */
} gguf;

typedef enum { GGUF_MORE, GGUF_READY, GGUF_BAD } gguf_status;

/* Looks at the first `size` bytes of a file. GGUF_READY: *full_size and *data_offset are known. GGUF_MORE: the header
 * goes on past `size`. GGUF_BAD: *e says why it is not a GGUF v3 file. Rejects headers above 256 MiB. */
gguf_status gguf_probe(const void *bytes, uint64_t size, uint64_t *full_size, uint64_t *data_offset, bp_err *e);

/* Parses header and tensor table into arena memory (with a measuring arena: only counts). Accepts files that are
 * shorter than full_size: see gguf_data. Fails with BP_ERR_FORMAT (also where a name occurs twice, or tensors overlap or
 * are not in the order of their data), BP_ERR_UNSUPPORTED (tensor type), BP_ERR_MEMORY. */
bool gguf_open(gguf *g, arena *a, const void *bytes, uint64_t size, bp_err *e);

const gguf_key *gguf_find(const gguf *g, const char *name);
const gguf_tensor *gguf_tensor_find(const gguf *g, const char *name);

/* The bytes of a tensor, or NULL where the file at hand ends before the tensor does. */
const void *gguf_data(const gguf *g, const gguf_tensor *t);

/* Where they are or will be; NULL where there is no room for them. */
const void *gguf_place(const gguf *g, const gguf_tensor *t);

/* Scalars: true and *out when the key exists and its kind converts without loss (integers of any width, bool; floats).
 * */
bool gguf_u64(const gguf *g, const char *name, uint64_t *out);
bool gguf_f64(const gguf *g, const char *name, double *out);
bool gguf_bool(const gguf *g, const char *name, bool *out);
bool gguf_string(const gguf *g, const char *name, gguf_text *out);

/* Item i of an integer or float array (i < key->count). */
uint64_t gguf_item_u64(const gguf_key *key, uint64_t i);
double gguf_item_f64(const gguf_key *key, uint64_t i);

/* Walks a string array: *cursor starts at key->data; call at most key->count times. */
gguf_text gguf_item_string(const uint8_t **cursor);

/* Is a text this C string, or does it begin with one? */
bool gguf_text_is(gguf_text t, const char *s);
bool gguf_text_begins(gguf_text t, const char *prefix);

#endif
