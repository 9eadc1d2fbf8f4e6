#include "io/safetensors.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "quant.h"

enum { MOST_SHARDS = 4096 };

/* ---- one tensor ------------------------------------------------------------------------------------------------- */

/* Bytes of one element, and the engine's type of it. 0: no dtype of the format. */
static uint64_t dtype_size(const char *name, uint32_t *type) {
    static const struct {
        const char *name;
        uint32_t size, type;
    } DTYPES[] = {{"F32", 4, QUANT_F32},      {"F16", 2, QUANT_F16},      {"BF16", 2, QUANT_BF16},
                  {"F64", 8, UINT32_MAX},     {"I64", 8, UINT32_MAX},     {"U64", 8, UINT32_MAX},
                  {"I32", 4, UINT32_MAX},     {"U32", 4, UINT32_MAX},     {"I16", 2, UINT32_MAX},
                  {"U16", 2, UINT32_MAX},     {"I8", 1, UINT32_MAX},      {"U8", 1, UINT32_MAX},
                  {"BOOL", 1, UINT32_MAX},    {"F8_E4M3", 1, UINT32_MAX}, {"F8_E5M2", 1, UINT32_MAX},
                  {"F8_E8M0", 1, UINT32_MAX}, {"C64", 8, UINT32_MAX}};
    for (size_t i = 0; i < sizeof DTYPES / sizeof DTYPES[0]; i++) {
        if (strcmp(name, DTYPES[i].name) != 0) continue;
        *type = DTYPES[i].type;
        return DTYPES[i].size;
    }
    return 0;
}

/* dims <- "shape"; *bytes <- their product times `size`. */
static bool read_shape(safetensors_tensor *t, const cJSON *shape, uint64_t size, uint64_t *bytes) {
    *bytes = size;
    if (!cJSON_IsArray(shape)) return false;
    for (const cJSON *dim = shape->child; dim; dim = dim->next) {
        uint64_t n;
        if (t->n_dims == SAFETENSORS_DIMS || !json_u64(dim, &n) || __builtin_mul_overflow(*bytes, n, bytes))
            return false;
        t->dims[t->n_dims++] = n;
    }
    return true;
}

static bool read_offsets(const cJSON *offsets, uint64_t *begin, uint64_t *end) {
    return cJSON_IsArray(offsets) && cJSON_GetArraySize(offsets) == 2 && json_u64(offsets->child, begin) &&
           json_u64(offsets->child->next, end) && *begin <= *end;
}

/* Fills t from its entry in the header; the tensor data of the file is data [size], at offset `at`. */
static bool read_tensor(safetensors_tensor *t, const cJSON *entry, const uint8_t *data, uint64_t size, uint64_t at,
                        const char *path, bp_err *e) {
    t->name = entry->string;
    t->dtype = json_text(entry, "dtype");
    uint64_t element = t->dtype ? dtype_size(t->dtype, &t->type) : 0, bytes, begin, end;
    if (!element)
        return bp_fail(e, BP_ERR_FORMAT, 8, "%s: tensor '%s' has no dtype, or one that is unknown", path, t->name);
    if (!read_shape(t, cJSON_GetObjectItemCaseSensitive(entry, "shape"), element, &bytes))
        return bp_fail(e, BP_ERR_FORMAT, 8, "%s: tensor '%s' has a bad shape", path, t->name);
    if (!read_offsets(cJSON_GetObjectItemCaseSensitive(entry, "data_offsets"), &begin, &end))
        return bp_fail(e, BP_ERR_FORMAT, 8, "%s: tensor '%s' has bad data_offsets", path, t->name);
    if (end > size)
        return bp_fail(e, BP_ERR_FORMAT, at + begin, "%s: tensor '%s' ends at %llu, the file at %llu: is it truncated?",
                       path, t->name, (unsigned long long)(at + end), (unsigned long long)(at + size));
    if (end - begin != bytes)
        return bp_fail(e, BP_ERR_FORMAT, at + begin, "%s: tensor '%s' has %llu bytes, its shape needs %llu", path,
                       t->name, (unsigned long long)(end - begin), (unsigned long long)bytes);
    t->data = data + begin;
    t->bytes = bytes;
    return true;
}

/* ---- one file --------------------------------------------------------------------------------------------------- */

static bool fail_memory(bp_err *e) { return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for safetensors"); }

static bool add_tensors(safetensors *s, size_t file, uint64_t data_at, bp_err *e) {
    const safetensors_file *f = &s->files[file];
    size_t count = (size_t)cJSON_GetArraySize(f->header);
    safetensors_tensor *tensors = realloc(s->tensors, (s->n_tensors + count + 1) * sizeof *tensors);
    if (!tensors) return fail_memory(e);
    s->tensors = tensors;
    for (const cJSON *entry = f->header->child; entry; entry = entry->next) {
        if (strcmp(entry->string, "__metadata__") == 0) continue;
        safetensors_tensor *t = &tensors[s->n_tensors];
        *t = (safetensors_tensor){.file = (uint32_t)file, .dims = {1, 1, 1, 1}};
        if (!read_tensor(t, entry, f->view.bytes + data_at, f->view.size - data_at, data_at, f->path, e)) return false;
        s->n_tensors++;
    }
    return true;
}

/* Maps the file, whose path becomes the property of *s, and adds its tensors. */
static bool add_file(safetensors *s, char *path, bp_err *e) {
    safetensors_file *files = realloc(s->files, (s->n_files + 1) * sizeof *files);
    if (!files) {
        free(path);
        return fail_memory(e);
    }
    s->files = files;
    safetensors_file *f = &files[s->n_files];
    *f = (safetensors_file){.path = path};
    s->n_files++;
    if (!file_map(&f->view, path, e)) return false;
    uint64_t header;
    if (f->view.size < 8) return bp_fail(e, BP_ERR_FORMAT, 0, "%s: too short for a safetensors file", path);
    memcpy(&header, f->view.bytes, 8);
    if (header > f->view.size - 8)
        return bp_fail(e, BP_ERR_FORMAT, 0,
                       "%s: a header of %llu bytes does not fit into the file: truncated, or not safetensors", path,
                       (unsigned long long)header);
    f->header = json_parse((const char *)f->view.bytes + 8, (size_t)header, path, 8, e);
    if (!f->header) return false;
    if (!cJSON_IsObject(f->header)) return bp_fail(e, BP_ERR_FORMAT, 8, "%s: the header is no JSON object", path);
    return add_tensors(s, s->n_files - 1, 8 + header, e);
}

static char *join(const char *folder, const char *name) {
    size_t size = strlen(folder) + strlen(name) + 2;
    char *path = malloc(size);
    if (path) snprintf(path, size, "%s/%s", folder, name);
    return path;
}

/* ---- shards ----------------------------------------------------------------------------------------------------- */

static bool have_file(const safetensors *s, const char *path) {
    for (size_t i = 0; i < s->n_files; i++)
        if (strcmp(s->files[i].path, path) == 0) return true;
    return false;
}

/* Opens every shard that the index names. A name leads to a file of the folder, never out of it. */
static bool add_shards(safetensors *s, const char *folder, const char *index_path, const cJSON *map, bp_err *e) {
    for (const cJSON *item = map->child; item; item = item->next) {
        const char *name = cJSON_GetStringValue(item);
        if (!name || !name[0] || strchr(name, '/') || s->n_files == MOST_SHARDS)
            return bp_fail(e, BP_ERR_FORMAT, 0, "%s: '%s' has a bad shard name", index_path, item->string);
        char *path = join(folder, name);
        if (!path) return fail_memory(e);
        if (have_file(s, path))
            free(path);
        else if (!add_file(s, path, e))
            return false;
    }
    return true;
}

/* Every tensor of the index is in the shard that the index says. */
static bool check_index(const safetensors *s, const char *folder, const char *index_path, const cJSON *map, bp_err *e) {
    for (const cJSON *item = map->child; item; item = item->next) {
        const safetensors_tensor *t = safetensors_find(s, item->string);
        size_t skip = strlen(folder) + 1;
        if (!t || strcmp(safetensors_path(s, t) + skip, item->valuestring) != 0)
            return bp_fail(e, BP_ERR_FORMAT, 0, "%s: tensor '%s' is not in %s", index_path, item->string,
                           item->valuestring);
    }
    return true;
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const safetensors_tensor *)a)->name, ((const safetensors_tensor *)b)->name);
}

static bool sort_tensors(safetensors *s, bp_err *e) {
    if (s->n_tensors) qsort(s->tensors, s->n_tensors, sizeof *s->tensors, by_name);
    for (size_t i = 1; i < s->n_tensors; i++)
        if (by_name(&s->tensors[i - 1], &s->tensors[i]) == 0)
            return bp_fail(e, BP_ERR_FORMAT, 8, "%s: tensor '%s' is there twice", safetensors_path(s, &s->tensors[i]),
                           s->tensors[i].name);
    return true;
}

static bool open_index(safetensors *s, const char *folder, const char *index_path, bp_err *e) {
    cJSON *index = json_read(index_path, e);
    if (!index) return false;
    const cJSON *map = cJSON_GetObjectItemCaseSensitive(index, "weight_map");
    bool ok = cJSON_IsObject(map) ? add_shards(s, folder, index_path, map, e) && sort_tensors(s, e) &&
                                        check_index(s, folder, index_path, map, e)
                                  : bp_fail(e, BP_ERR_FORMAT, 0, "%s: there is no weight_map", index_path);
    cJSON_Delete(index);
    return ok;
}

bool safetensors_open(safetensors *s, const char *folder, bp_err *e) {
    *s = (safetensors){0};
    char *whole = join(folder, "model.safetensors"), *index = join(folder, "model.safetensors.index.json");
    bool ok = false;
    if (!whole || !index)
        fail_memory(e);
    else if (access(whole, F_OK) != 0 && access(index, F_OK) == 0)
        ok = open_index(s, folder, index, e);
    else if (access(whole, F_OK) != 0)
        bp_fail(e, BP_ERR_IO, 0, "'%s' has neither model.safetensors nor model.safetensors.index.json", folder);
    else {
        ok = add_file(s, whole, e) && sort_tensors(s, e);
        whole = NULL;
    }
    free(whole);
    free(index);
    if (!ok) safetensors_close(s);
    return ok;
}

void safetensors_close(safetensors *s) {
    for (size_t i = 0; i < s->n_files; i++) {
        cJSON_Delete(s->files[i].header);
        file_unmap(&s->files[i].view);
        free(s->files[i].path);
    }
    free(s->files);
    free(s->tensors);
    *s = (safetensors){0};
}

const safetensors_tensor *safetensors_find(const safetensors *s, const char *name) {
    safetensors_tensor wanted = {.name = name};
    return s->n_tensors ? bsearch(&wanted, s->tensors, s->n_tensors, sizeof wanted, by_name) : NULL;
}

const char *safetensors_path(const safetensors *s, const safetensors_tensor *t) { return s->files[t->file].path; }
