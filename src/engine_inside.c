/* engine_inside.c - what a model is made of: its layers, their stages, scales and signs. */
#include "engine_internal.h"

_Static_assert((int)BP_STAGES == (int)MODEL_STAGES, "a layer lists every stage that it can have");

/* Embedding and head: 1 where they are the same matrix. */
static uint32_t tables(const model *m) {
    return m->head.planes.bytes == m->embedding.planes.bytes && m->head.rows == m->embedding.rows ? 1 : 2;
}

uint32_t bp_model_layers(const bp_model *m) {
    const linear *all[MODEL_LINEARS];
    const char *names[MODEL_LINEARS];
    uint32_t n = tables(m->model);
    for (uint32_t i = 0; i < m->model->config.n_layers; i++) n += model_linears(&m->model->layers[i], all, names);
    return n;
}

/* The layer and its name; NULL past the last. */
static const linear *find(const model *m, uint32_t layer, char *name) {
    const linear *all[MODEL_LINEARS];
    const char *names[MODEL_LINEARS];
    uint32_t at = tables(m);
    if (layer < at) {
        bp_format(name, BP_NAME, layer ? "output" : "token_embd");
        return layer ? &m->head : &m->embedding;
    }
    for (uint32_t i = 0, n; i < m->config.n_layers; i++, at += n) {
        n = model_linears(&m->layers[i], all, names);
        if (layer - at >= n) continue;
        bp_format(name, BP_NAME, "blk.%u.%s", (unsigned)i, names[layer - at]);
        return all[layer - at];
    }
    return NULL;
}

/* Bits of the middle scales with which tiers at hand replace those of an earlier stage. */
static uint64_t renewed_bits(const model *m, const char *layer, uint32_t stage) {
    uint64_t bits = 0;
    for (uint32_t t = stage + 1; t < m->tier; t++) bits += model_middle_bits(m->file, layer, stage, t);
    return bits;
}

static void describe_stack(const model *m, const linear *w, bp_layer *out) {
    char key[BP_NAME + 16];
    bp_format(key, sizeof key, "bitpair.linear.%s", out->name);
    const gguf_key *shape = gguf_find(m->file, key);
    out->type = "signs";
    out->loaded = w->n_stages;
    out->n_stages = (uint32_t)shape->count - 2;
    for (uint32_t s = 0; s < out->n_stages; s++) {
        out->middle[s] = (uint32_t)gguf_item_u64(shape, 2 + s);
        out->stage_bits[s] = model_stage_bits(m->file, out->name, s, w->n, w->m, out->middle[s]);
        if (s < w->n_stages) out->bits += out->stage_bits[s] + renewed_bits(m, out->name, s);
    }
}

bool bp_model_layer(const bp_model *m, uint32_t layer, bp_layer *out) {
    *out = (bp_layer){.type = ""};
    const linear *w = find(m->model, layer, out->name);
    if (!w) return false;
    out->rows = w->n;
    out->columns = w->m;
    if (w->n_stages) {
        describe_stack(m->model, w, out);
    } else if (w->planes.bytes) {
        const kernel_signs *p = &w->planes;
        uint64_t rows = (uint64_t)p->tiles * KERNEL_TILE;
        out->type = "planes";
        out->planes = p->planes;
        out->bits = rows * (8 * (uint64_t)p->groups * p->planes + 16 * kernel_blocks(p->groups));
    } else {
        out->type = quant_name(w->type);
        out->bits = 8 * (uint64_t)w->n * w->row_bytes;
    }
    return true;
}

/* The stage if it is at hand. */
static const linear_stage *find_stage(const bp_model *m, uint32_t layer, uint32_t stage, const linear **w, bp_err *e) {
    char name[BP_NAME];
    *w = find(m->model, layer, name);
    if (*w && stage < (*w)->n_stages && !m->model->file->header_only) return &(*w)->stages[stage];
    if (*w)
        bp_fail(e, BP_ERR_ARGUMENT, 0, "layer '%s' has %u stages at hand: there is no stage %u", name,
                m->model->file->header_only ? 0 : (unsigned)(*w)->n_stages, (unsigned)stage);
    else
        bp_fail(e, BP_ERR_ARGUMENT, 0, "the model has %u layers: there is no layer %u", (unsigned)bp_model_layers(m),
                (unsigned)layer);
    return NULL;
}

bool bp_model_scales(const bp_model *m, uint32_t layer, uint32_t stage, const float **a, const float **c,
                     const float **b, bp_err *e) {
    const linear *w;
    const linear_stage *s = find_stage(m, layer, stage, &w, e);
    if (!s) return false;
    *a = s->a;
    *c = s->c;
    *b = s->b;
    return true;
}

bool bp_model_signs(const bp_model *m, uint32_t layer, uint32_t stage, char factor, uint8_t *out, size_t capacity,
                    bp_err *e) {
    const linear *w;
    const linear_stage *s = find_stage(m, layer, stage, &w, e);
    if (!s) return false;
    if (factor != 'A' && factor != 'B') return bp_fail(e, BP_ERR_ARGUMENT, 0, "a stage has the factors 'A' and 'B'");
    const kernel_signs *signs = factor == 'A' ? &s->A : &s->B;
    size_t rows = factor == 'A' ? w->n : s->k, columns = factor == 'A' ? s->k : w->m, bytes = bp_ceil_div(columns, 8);
    if (capacity / bytes < rows)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the signs take %zu bytes, not %zu", rows * bytes, capacity);
    for (size_t r = 0; r < rows; r++) {
        size_t row = r % KERNEL_TILE, lane = row < 8 ? 2 * row : 2 * (row - 8) + 1; /* tile16's order of rows */
        const uint8_t *in = signs->bytes + r / KERNEL_TILE * signs->groups * KERNEL_TILE + lane;
        for (size_t j = 0; j < bytes; j++) out[r * bytes + j] = in[j * KERNEL_TILE];
        if (columns % 8) out[r * bytes + bytes - 1] &= (uint8_t)((1u << columns % 8) - 1);
    }
    return true;
}
