/* safetensors.h - a bounds-checked reader of the safetensors of a Hugging Face folder: model.safetensors, or the shards
 * that model.safetensors.index.json lists. A file is: u64 header length, a JSON header, the tensor data. */
#ifndef BITPAIR_SAFETENSORS_H
#define BITPAIR_SAFETENSORS_H

#include "io/file.h"
#include "io/json.h"

enum { SAFETENSORS_DIMS = 4 };

typedef struct {
    const char *name;  /* NUL-terminated */
    const char *dtype; /* "F32", "BF16", ... */
    uint32_t type;     /* quant_type; UINT32_MAX for a dtype that the engine does not read */
    uint32_t n_dims;
    uint64_t dims[SAFETENSORS_DIMS]; /* as in the file: the last is the fastest */
    const uint8_t *data;             /* unaligned, little endian, fully inside its file */
    uint64_t bytes;
    uint32_t file; /* index into files */
} safetensors_tensor;

typedef struct {
    char *path;
    file_view view;
    cJSON *header; /* owns the names */
} safetensors_file;

typedef struct {
    safetensors_file *files;
    size_t n_files;
    safetensors_tensor *tensors; /* sorted by name */
    size_t n_tensors;
} safetensors;

/* Maps and checks all files. BP_ERR_IO, BP_ERR_FORMAT (names file, tensor and offset), BP_ERR_MEMORY. On failure
 * nothing needs to be closed. */
bool safetensors_open(safetensors *s, const char *folder, bp_err *e);
void safetensors_close(safetensors *s);

/* NULL where there is none. */
const safetensors_tensor *safetensors_find(const safetensors *s, const char *name);

/* Path of the file that holds the tensor, for messages. */
const char *safetensors_path(const safetensors *s, const safetensors_tensor *t);

#endif
