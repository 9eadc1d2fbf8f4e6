/* model_load.c - a model in memory of its own, and how it grows by tiers. */
#include "model.h"
#include "platform.h"

/* The block of a loaded model: this header, then the model's arena; the file's tables are a block of their own because
 * the model's size is known only after they are read. */
typedef struct {
    model model;
    gguf file;
    void *tables, *memory;
    size_t memory_bytes;
} loaded;

static bool load_file(loaded *l, const void *bytes, uint64_t size, bp_err *e) {
    arena a = arena_measure();
    if (!gguf_open(&l->file, &a, bytes, size, e)) return false;
    l->tables = platform_alloc(a.used);
    if (!l->tables) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tensor table (%zu bytes)", a.used);
    a = arena_over(l->tables, a.used);
    return gguf_open(&l->file, &a, bytes, size, e);
}

static bool load_model(loaded *l, bp_err *e) {
    arena a = arena_measure();
    if (!model_open(&l->model, &a, &l->file, e)) return false;
    l->memory_bytes = a.used;
    l->memory = platform_alloc(l->memory_bytes);
    if (!l->memory)
        return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the model's tables (%zu bytes)", l->memory_bytes);
    a = arena_over(l->memory, l->memory_bytes);
    return model_open(&l->model, &a, &l->file, e);
}

/* The file ends, for now, where its first `tier` tiers do. */
static bool end_at(gguf *file, uint32_t tier, bp_err *e) {
    uint64_t ends[MODEL_TIERS];
    uint32_t n;
    if (!model_tiers(file, ends, &n, e)) return false;
    if (tier < 1 || tier > n || ends[tier - 1] > file->room)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "there are no %u tiers in %llu bytes of this file", (unsigned)tier,
                       (unsigned long long)file->room);
    file->size = ends[tier - 1];
    return true;
}

/* file_size: bytes of the file that are, or will be, at hand; tier: those at hand, 0 for all */
static model *open_loaded(const void *bytes, uint64_t size, uint64_t file_size, uint32_t tier, bp_err *e) {
    loaded *l = platform_alloc(sizeof *l);
    if (!l) {
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a model");
        return NULL;
    }
    bool good = load_file(l, bytes, size, e);
    if (good && file_size != size) {
        l->file.size = l->file.room = file_size;
        l->file.header_only = file_size > size;
    }
    if (good && (!tier || end_at(&l->file, tier, e)) && load_model(l, e)) return &l->model;
    model_unload(&l->model);
    return NULL;
}

model *model_load(const void *bytes, uint64_t size, bp_err *e) { return open_loaded(bytes, size, size, 0, e); }

model *model_load_tiers(const void *bytes, uint64_t size, uint32_t tier, bp_err *e) {
    if (tier) return open_loaded(bytes, size, size, tier, e);
    bp_fail(e, BP_ERR_ARGUMENT, 0, "a model needs its first tier");
    return NULL;
}

model *model_preview(const void *bytes, uint64_t size, uint64_t file_size, bp_err *e) {
    return open_loaded(bytes, size, file_size, 0, e);
}

bool model_raise(model *m, uint32_t tier, bp_err *e) {
    loaded *l = (loaded *)(void *)m; /* the model is its first member */
    if (!l->file.header_only && tier < m->tier)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the model uses %u tiers: it cannot go back to %u", (unsigned)m->tier,
                       (unsigned)tier);
    gguf before = l->file;
    model opened;
    l->file.header_only = false;
    arena a = arena_measure();
    if (!end_at(&l->file, tier, e) || !model_open(&opened, &a, &l->file, e)) {
        l->file = before;
        return false;
    }
    /* The layout depends on the room alone: opened again over the same memory everything has its old address. */
    a = arena_over(l->memory, l->memory_bytes);
    return model_open(m, &a, &l->file, e);
}

void model_unload(model *m) {
    if (!m) return;
    loaded *l = (loaded *)(void *)m; /* the model is its first member */
    platform_free(l->memory);
    platform_free(l->tables);
    platform_free(l);
}
