#include "io/gguf_write.h"

#include <stdlib.h>

/* One key: `value` holds its encoding as it goes into the file, behind the kind. */
typedef struct {
    char *name;
    size_t name_size;
    uint32_t kind;
    uint8_t *value;
    size_t value_size;
} written_key;

typedef struct {
    char *name;
    size_t name_size;
    uint32_t type, n_dims;
    uint64_t dims[4];
    uint64_t bytes, offset; /* offset from the start of the file, set by finish */
} written_tensor;

struct gguf_writer {
    written_key *keys;
    size_t n_keys, room_keys;
    written_tensor *tensors;
    size_t n_tensors, room_tensors;
    bp_err broken; /* the first thing that went wrong while putting */
};

gguf_writer *gguf_writer_new(void) { return calloc(1, sizeof(gguf_writer)); }

void gguf_writer_free(gguf_writer *w) {
    if (!w) return;
    for (size_t i = 0; i < w->n_keys; i++) {
        free(w->keys[i].name);
        free(w->keys[i].value);
    }
    for (size_t i = 0; i < w->n_tensors; i++) free(w->tensors[i].name);
    free(w->keys);
    free(w->tensors);
    free(w);
}

static void *break_writer(gguf_writer *w) {
    if (w->broken.code == BP_OK) bp_fail(&w->broken, BP_ERR_MEMORY, 0, "out of memory while building a GGUF header");
    return NULL;
}

static void *copy_bytes(gguf_writer *w, const void *bytes, size_t size) {
    void *copy = malloc(size + 1);
    if (!copy) return break_writer(w);
    if (size) memcpy(copy, bytes, size);
    return copy;
}

/* Makes room for one more item of `size` bytes; NULL when there is none. */
static void *grow(gguf_writer *w, void *items, size_t count, size_t *room, size_t size) {
    if (count < *room) return items;
    size_t wanted = *room ? 2 * *room : 64;
    void *bigger = realloc(items, wanted * size);
    if (!bigger) return break_writer(w);
    *room = wanted;
    return bigger;
}

/* The key of this name: the one that is there already, emptied, or a new one. */
static written_key *claim_key(gguf_writer *w, const char *name, size_t size) {
    for (size_t i = 0; i < w->n_keys; i++) {
        written_key *key = &w->keys[i];
        if (key->name_size != size || memcmp(key->name, name, size) != 0) continue;
        free(key->value);
        key->value = NULL;
        return key;
    }
    written_key *keys = grow(w, w->keys, w->n_keys, &w->room_keys, sizeof *keys);
    if (!keys) return NULL;
    w->keys = keys;
    char *copy = copy_bytes(w, name, size);
    if (!copy) return NULL;
    keys[w->n_keys] = (written_key){.name = copy, .name_size = size};
    return &keys[w->n_keys++];
}

/* Sets a key to [size] bytes, copied from `bytes` unless NULL. Returns where the value is, for the caller to fill. */
static uint8_t *set_key(gguf_writer *w, const char *name, size_t name_size, uint32_t kind, const void *bytes,
                        size_t size) {
    written_key *key = claim_key(w, name, name_size);
    if (!key) return NULL;
    key->kind = kind;
    key->value_size = 0;
    key->value = malloc(size + 1);
    if (!key->value) return break_writer(w);
    if (bytes && size) memcpy(key->value, bytes, size);
    key->value_size = size;
    return key->value;
}

void gguf_put_u32(gguf_writer *w, const char *key, uint32_t value) {
    set_key(w, key, strlen(key), GGUF_U32, &value, sizeof value);
}

void gguf_put_u64(gguf_writer *w, const char *key, uint64_t value) {
    set_key(w, key, strlen(key), GGUF_U64, &value, sizeof value);
}

void gguf_put_f32(gguf_writer *w, const char *key, float value) {
    set_key(w, key, strlen(key), GGUF_F32, &value, sizeof value);
}

void gguf_put_bool(gguf_writer *w, const char *key, bool value) {
    uint8_t byte = value;
    set_key(w, key, strlen(key), GGUF_BOOL, &byte, 1);
}

/* The header is built by appending: to nothing while measuring (base NULL), then to memory of the measured size. */
typedef struct {
    uint8_t *base;
    uint64_t used;
} output;

static void append(output *out, const void *bytes, size_t n) {
    if (out->base && n) memcpy(out->base + out->used, bytes, n);
    out->used += n;
}

static void append_u32(output *out, uint32_t value) { append(out, &value, sizeof value); }
static void append_u64(output *out, uint64_t value) { append(out, &value, sizeof value); }

static void append_text(output *out, const char *text, size_t size) {
    append_u64(out, size);
    append(out, text, size);
}

void gguf_put_string(gguf_writer *w, const char *key, const char *text, size_t size) {
    output out = {set_key(w, key, strlen(key), GGUF_STRING, NULL, 8 + size), 0};
    if (out.base) append_text(&out, text, size);
}

void gguf_put_strings(gguf_writer *w, const char *key, const gguf_text *items, size_t count) {
    size_t size = 12;
    for (size_t i = 0; i < count; i++) size += 8 + items[i].size;
    output out = {set_key(w, key, strlen(key), GGUF_ARRAY, NULL, size), 0};
    if (!out.base) return;
    append_u32(&out, GGUF_STRING);
    append_u64(&out, count);
    for (size_t i = 0; i < count; i++) append_text(&out, items[i].text, items[i].size);
}

/* Bytes of one value of a scalar kind; 0 for strings, arrays and unknown kinds. */
static size_t scalar_size(gguf_kind kind) {
    switch (kind) {
    case GGUF_U8:
    case GGUF_I8:
    case GGUF_BOOL:
        return 1;
    case GGUF_U16:
    case GGUF_I16:
        return 2;
    case GGUF_U32:
    case GGUF_I32:
    case GGUF_F32:
        return 4;
    case GGUF_U64:
    case GGUF_I64:
    case GGUF_F64:
        return 8;
    case GGUF_STRING:
    case GGUF_ARRAY:
        break;
    }
    return 0;
}

void gguf_put_array(gguf_writer *w, const char *key, gguf_kind kind, const void *items, size_t count) {
    size_t size = count * scalar_size(kind);
    output out = {set_key(w, key, strlen(key), GGUF_ARRAY, NULL, 12 + size), 0};
    if (!out.base) return;
    append_u32(&out, kind);
    append_u64(&out, count);
    append(&out, items, size);
}

/* Bytes of `count` values of a kind at data (strings are walked). */
static size_t values_size(const uint8_t *data, gguf_kind kind, uint64_t count) {
    if (kind != GGUF_STRING) return (size_t)count * scalar_size(kind);
    const uint8_t *end = data;
    for (uint64_t i = 0; i < count; i++) gguf_item_string(&end);
    return (size_t)(end - data);
}

void gguf_put_key(gguf_writer *w, const gguf_key *key) {
    bool array = key->kind == GGUF_ARRAY;
    size_t size = values_size(key->data, array ? key->item : key->kind, key->count);
    output out = {set_key(w, key->name.text, key->name.size, key->kind, NULL, size + (array ? 12 : 0)), 0};
    if (!out.base) return;
    if (array) {
        append_u32(&out, key->item);
        append_u64(&out, key->count);
    }
    append(&out, key->data, size);
}

/* *bytes of a tensor; false when its type is unknown, its rows are no whole blocks, or its size overflows. */
static bool tensor_bytes(const written_tensor *t, uint64_t *bytes) {
    uint32_t elements, block;
    if (!quant_block(t->type, &elements, &block) || t->dims[0] % elements != 0) return false;
    uint64_t n = t->dims[0] / elements;
    for (uint32_t i = 1; i < 4; i++)
        if (__builtin_mul_overflow(n, t->dims[i], &n)) return false;
    return !__builtin_mul_overflow(n, (uint64_t)block, bytes);
}

size_t gguf_put_tensor(gguf_writer *w, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims) {
    written_tensor *tensors = grow(w, w->tensors, w->n_tensors, &w->room_tensors, sizeof *tensors);
    if (!tensors) return 0;
    w->tensors = tensors;
    written_tensor t = {.name_size = strlen(name), .type = type, .n_dims = n_dims, .dims = {1, 1, 1, 1}};
    for (uint32_t i = 0; i < n_dims && i < 4; i++) t.dims[i] = dims[i];
    if (n_dims < 1 || n_dims > 4 || !tensor_bytes(&t, &t.bytes)) {
        bp_fail(&w->broken, BP_ERR_ARGUMENT, 0, "tensor '%s': bad type, shape or size", name);
        return 0;
    }
    t.name = copy_bytes(w, name, t.name_size);
    if (!t.name) return 0;
    tensors[w->n_tensors] = t;
    return w->n_tensors++;
}

/* `data` is where tensor data begins: the header is laid out twice, to measure it and to write it. */
static void append_header(output *out, gguf_writer *w, uint64_t data) {
    append(out, "GGUF", 4);
    append_u32(out, 3);
    append_u64(out, w->n_tensors);
    append_u64(out, w->n_keys);
    for (size_t i = 0; i < w->n_keys; i++) {
        append_text(out, w->keys[i].name, w->keys[i].name_size);
        append_u32(out, w->keys[i].kind);
        append(out, w->keys[i].value, w->keys[i].value_size);
    }
    for (size_t i = 0; i < w->n_tensors; i++) {
        const written_tensor *t = &w->tensors[i];
        append_text(out, t->name, t->name_size);
        append_u32(out, t->n_dims);
        for (uint32_t d = 0; d < t->n_dims; d++) append_u64(out, t->dims[d]);
        append_u32(out, t->type);
        append_u64(out, t->offset - data);
    }
}

static uint64_t align_up(uint64_t n, uint32_t alignment) { return (n + alignment - 1) / alignment * alignment; }

bool gguf_writer_finish(gguf_writer *w, uint32_t alignment, uint8_t **header, uint64_t *header_size,
                        uint64_t *full_size, bp_err *e) {
    gguf_put_u32(w, "general.alignment", alignment);
    if (w->broken.code != BP_OK) {
        if (e) *e = w->broken;
        return false;
    }
    output measure = {NULL, 0};
    append_header(&measure, w, 0);
    uint64_t data = align_up(measure.used, alignment), end = data;
    for (size_t i = 0; i < w->n_tensors; i++) {
        w->tensors[i].offset = align_up(end, alignment);
        if (__builtin_add_overflow(w->tensors[i].offset, w->tensors[i].bytes, &end) || end > UINT64_MAX / 2)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "tensor '%s': the file grows too large", w->tensors[i].name);
    }
    output out = {calloc(1, (size_t)data), 0};
    if (!out.base)
        return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for a GGUF header of %llu bytes", (unsigned long long)data);
    append_header(&out, w, data);
    *header = out.base;
    *header_size = data;
    *full_size = end;
    return true;
}

uint64_t gguf_writer_offset(const gguf_writer *w, size_t i) { return w->tensors[i].offset; }
uint64_t gguf_writer_bytes(const gguf_writer *w, size_t i) { return w->tensors[i].bytes; }
