#include "container.h"

#include <stdio.h>
#include <stdlib.h>

#include "block.h"
#include "io/file.h"
#include "io/gguf_write.h"
#include "sha256.h"

enum { NAME = 128, PIECE = 1 << 20 };

/* The data of one tensor. */
typedef struct {
    const void *bytes;
    size_t size;
} content;

typedef struct {
    const container *c;
    gguf_writer *w;
    content *contents; /* one per tensor, in file order */
    size_t n, room;
    size_t tier_last[MODEL_TIERS]; /* last tensor of each tier */
    uint64_t data_bytes;           /* of all tensors, padding between them counted */
    bool lost;                     /* out of memory */
} builder;

/* ---- tensors --------------------------------------------------------------------------------------------------- */

static void put(builder *b, const char *name, uint32_t type, uint32_t n_dims, const uint64_t *dims, const void *bytes,
                size_t size) {
    if (b->n == b->room) {
        size_t room = b->room ? 2 * b->room : 256;
        content *bigger = realloc(b->contents, room * sizeof *bigger);
        if (!bigger) {
            b->lost = true;
            return;
        }
        b->contents = bigger;
        b->room = room;
    }
    gguf_put_tensor(b->w, name, type, n_dims, dims);
    b->contents[b->n++] = (content){bytes, size};
    b->data_bytes = bp_round_up(b->data_bytes, BP_ALIGN) + size;
}

static void put_vector(builder *b, const char *name, uint32_t type, const void *bytes, size_t count, size_t item) {
    uint64_t dims[] = {count};
    put(b, name, type, 1, dims, bytes, count * item);
}

static void put_floats(builder *b, const char *name, const float *values, size_t n) {
    if (values) put_vector(b, name, QUANT_F32, values, n, sizeof *values);
}

/* The model in whose file the tables are that are stored as they are */
static const model *tables_of(const container *c) { return c->tables ? c->tables : c->model; }

/* PREFIX.planes and .scales; of a table that is stored as it is also PREFIX.weight */
static void put_table(builder *b, const char *prefix, const packed_table *p) {
    static const char *const SUFFIXES[] = {"planes", "scales", "weight"};
    const gguf *file = tables_of(b->c)->file;
    char name[NAME];
    if (p) {
        uint64_t blocks = kernel_blocks(bp_round_up(p->columns, KERNEL_PAD) / 8),
                 dims[] = {blocks, p->n_scales / blocks};
        snprintf(name, sizeof name, "%s.planes", prefix);
        put_vector(b, name, QUANT_I8, p->bytes, p->n_bytes, 1);
        snprintf(name, sizeof name, "%s.scales", prefix);
        put(b, name, QUANT_F16, 2, dims, p->scales, p->n_scales * sizeof *p->scales);
        return;
    }
    for (size_t i = 0; i < sizeof SUFFIXES / sizeof *SUFFIXES; i++) {
        snprintf(name, sizeof name, "%s.%s", prefix, SUFFIXES[i]);
        const gguf_tensor *t = gguf_tensor_find(file, name);
        if (t) put(b, name, t->type, t->n_dims, t->dims, gguf_data(file, t), (size_t)t->bytes);
    }
}

static void put_layer_vectors(builder *b, uint32_t i) {
    const model_config *config = &b->c->model->config;
    const model_layer *l = &b->c->model->layers[i];
    char name[NAME];
    const struct {
        const char *suffix;
        const float *values;
        size_t n;
    } vectors[] = {{"attn_norm.weight", l->attn_norm, config->d_model},
                   {"ffn_norm.weight", l->ffn_norm, config->d_model},
                   {"attn_q_norm.weight", l->q_norm, config->head_dim},
                   {"attn_k_norm.weight", l->k_norm, config->head_dim}};
    for (size_t j = 0; j < sizeof vectors / sizeof *vectors; j++) {
        snprintf(name, sizeof name, "blk.%u.%s", (unsigned)i, vectors[j].suffix);
        put_floats(b, name, vectors[j].values, vectors[j].n);
    }
    for (part p = 0; p < PARTS; p++) {
        snprintf(name, sizeof name, "blk.%u.%s.bias", (unsigned)i, part_name(p));
        put_floats(b, name, part_linear(l, p)->bias, part_linear(l, p)->n);
    }
}

static void put_scales(builder *b, const char *name, uint32_t type, const uint8_t *bytes, size_t n) {
    uint64_t dims[] = {n};
    put(b, name, type, 1, dims, bytes, pack_scales_bytes(type, n));
}

/* Middle scales with which a tier renews those of an earlier stage. */
static void put_renewed(builder *b, const char *layer, uint32_t index, uint32_t tier, const factors *f) {
    const factor_stage *s = &f->stages[index];
    char name[NAME];
    if (tier - index >= s->shape.n_c) return;
    snprintf(name, sizeof name, "%s.%u.c.%u", layer, (unsigned)index, (unsigned)tier);
    put_scales(b, name, s->type_c, s->c + (tier - index) * factors_middle_bytes(s->shape), s->shape.k);
}

static void put_stage(builder *b, const char *layer, uint32_t index, const factors *f) {
    const factor_stage *s = &f->stages[index];
    char name[NAME];
    const struct {
        char letter;
        uint32_t type;
        const uint8_t *bytes;
        size_t count;
    } tensors[] = {{'a', s->type_a, s->a, f->n},
                   {'A', QUANT_I8, s->A, pack_bytes(f->n, s->shape.k, 1)},
                   {'c', s->type_c, s->c, s->shape.k},
                   {'B', QUANT_I8, s->B, pack_bytes(s->shape.k, f->m, 1)},
                   {'b', s->type_b, s->b, f->m}};
    for (size_t i = 0; i < sizeof tensors / sizeof *tensors; i++) {
        snprintf(name, sizeof name, "%s.%u.%c", layer, (unsigned)index, tensors[i].letter);
        if (tensors[i].type == QUANT_I8)
            put_vector(b, name, QUANT_I8, tensors[i].bytes, tensors[i].count, 1);
        else
            put_scales(b, name, tensors[i].type, tensors[i].bytes, tensors[i].count);
    }
}

/* Is this the stack of several layers? */
static bool is_fused(const container *c, size_t layer, part p) {
    const linear *w = part_linear(&c->model->layers[layer], p);
    return w->split[0] || c->layers[layer * PARTS + p].n > w->n;
}

static void layer_name(const container *c, uint32_t layer, part p, char *name, size_t capacity) {
    stack_name(name, capacity, layer, p, is_fused(c, layer, p) ? 2 : 1);
}

static void put_tensors(builder *b) {
    const model *m = b->c->model;
    char name[NAME / 2];
    put_table(b, "token_embd", b->c->embedding);
    put_floats(b, "output_norm.weight", m->out_norm, m->config.d_model);
    put_floats(b, "rope_freqs.weight", m->config.rope_freqs, m->config.head_dim / 2);
    put_table(b, "output", b->c->head);
    for (uint32_t i = 0; i < m->config.n_layers; i++) put_layer_vectors(b, i);
    for (uint32_t s = 0; s < b->c->n_tiers; s++) {
        for (uint32_t i = 0; i < m->config.n_layers; i++)
            for (part p = 0; p < PARTS; p++) {
                const factors *f = &b->c->layers[i * PARTS + p];
                layer_name(b->c, i, p, name, sizeof name);
                for (uint32_t j = 0; j < bp_min(s, f->n_stages); j++) put_renewed(b, name, j, s, f);
                if (s < f->n_stages) put_stage(b, name, s, f);
            }
        b->tier_last[s] = b->n - 1;
    }
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

/* Keys that describe the source's own storage do not carry over. */
static bool carries_over(gguf_text name) {
    return !gguf_text_is(name, "general.alignment") && !gguf_text_is(name, "general.file_type") &&
           !gguf_text_is(name, "general.quantization_version") &&
           (!gguf_text_begins(name, "bitpair.") || gguf_text_begins(name, "bitpair.tokenizer.")) &&
           !gguf_text_begins(name, "split.");
}

static void put_linear_keys(builder *b) {
    char name[NAME / 2], key[NAME];
    for (uint32_t i = 0; i < b->c->model->config.n_layers; i++)
        for (part p = 0; p < PARTS; p++) {
            const factors *f = &b->c->layers[i * PARTS + p];
            uint32_t shape[2 + MODEL_STAGES] = {f->n, f->m};
            if (!f->n) continue;
            for (uint32_t s = 0; s < f->n_stages; s++) shape[2 + s] = f->stages[s].shape.k;
            layer_name(b->c, i, p, name, sizeof name);
            snprintf(key, sizeof key, "bitpair.linear.%s", name);
            gguf_put_array(b->w, key, GGUF_U32, shape, 2 + f->n_stages);
        }
}

/* Readers of version 1 do not know of fused stacks and renewed middle scales, those of version 2 of scales in 8 bits. */
static uint32_t version(const container *c) {
    uint32_t version = 1;
    for (uint32_t i = 0; i < c->model->config.n_layers * PARTS; i++) {
        const factors *f = &c->layers[i];
        if (f->n && is_fused(c, i / PARTS, i % PARTS) && version < 2) version = 2;
        for (uint32_t s = 0; s < f->n_stages; s++) {
            if (f->stages[s].shape.n_c > 1 && version < 2) version = 2;
            if (f->stages[s].type_a == QUANT_Q8_0 || f->stages[s].type_c == QUANT_Q8_0) version = 3;
        }
    }
    return version;
}

/* All keys; those that depend on the layout and the data with zeros of the right size. */
static bool put_keys(builder *b, size_t n_pieces) {
    const model *m = b->c->model;
    char key[NAME];
    gguf_text arch = {"", 0};
    uint64_t known;
    uint8_t *zeros = calloc(n_pieces + 8 * MODEL_TIERS, 32);
    if (!zeros) return false;
    for (uint32_t i = 0; i < m->file->n_keys; i++)
        if (carries_over(m->file->keys[i].name)) gguf_put_key(b->w, &m->file->keys[i]);
    gguf_string(m->file, "general.architecture", &arch);
    snprintf(key, sizeof key, "%.*s.vocab_size", (int)bp_min(arch.size, 32), arch.text);
    if (!gguf_u64(m->file, key, &known)) gguf_put_u32(b->w, key, m->config.vocab);
    gguf_put_u32(b->w, "bitpair.version", version(b->c));
    put_linear_keys(b);
    const kernel_signs *stored = &tables_of(b->c)->embedding.planes;
    const uint32_t planes = b->c->embedding ? b->c->embedding->planes : stored->bytes ? stored->planes : 0;
    if (planes) gguf_put_u32(b->w, "bitpair.embedding.planes", planes);
    gguf_put_string(b->w, "bitpair.source", b->c->source, strlen(b->c->source));
    gguf_put_string(b->w, "bitpair.recipe", b->c->recipe, strlen(b->c->recipe));
    gguf_put_array(b->w, "bitpair.tiers", GGUF_U64, zeros, b->c->n_tiers);
    gguf_put_array(b->w, "bitpair.piece_sha256", GGUF_U8, zeros, 32 * n_pieces);
    gguf_put_array(b->w, "bitpair.header_sha256", GGUF_U8, zeros, 32);
    free(zeros);
    return true;
}

/* ---- writing --------------------------------------------------------------------------------------------------- */

/* Appends to the file and to the digests of its pieces. */
typedef struct {
    file_out *file;
    sha256 hash;
    uint64_t position; /* in the tensor data */
    uint8_t *digests;
} piece_writer;

static bool append(piece_writer *p, const uint8_t *bytes, size_t n, bp_err *e) {
    if (!file_append(p->file, bytes, n, e)) return false;
    while (n > 0) {
        size_t part_size = bp_min(n, (size_t)(PIECE - p->position % PIECE));
        if (p->position % PIECE == 0) sha256_init(&p->hash);
        sha256_update(&p->hash, bytes, part_size);
        p->position += part_size;
        if (p->position % PIECE == 0) sha256_final(&p->hash, p->digests + (p->position / PIECE - 1) * 32);
        bytes += part_size;
        n -= part_size;
    }
    return true;
}

static bool write_data(const builder *b, piece_writer *p, uint64_t data_offset, bp_err *e) {
    static const uint8_t zeros[BP_ALIGN];
    for (size_t i = 0; i < b->n; i++) {
        uint64_t gap = gguf_writer_offset(b->w, i) - data_offset - p->position;
        if (!append(p, zeros, (size_t)gap, e) || !append(p, b->contents[i].bytes, b->contents[i].size, e)) return false;
    }
    if (p->position % PIECE) sha256_final(&p->hash, p->digests + p->position / PIECE * 32);
    return true;
}

/* The header again with one more key filled in; its size does not change. */
static bool lay_out(builder *b, uint8_t **header, uint64_t *header_size, uint64_t *full_size, bp_err *e) {
    free(*header);
    *header = NULL;
    return gguf_writer_finish(b->w, BP_ALIGN, header, header_size, full_size, e);
}

static bool write_file(builder *b, file_out *file, uint8_t **header, uint64_t header_size, uint64_t full_size,
                       uint8_t *digests, container_summary *s, bp_err *e) {
    piece_writer p = {.file = file, .digests = digests};
    size_t n_pieces = (size_t)((full_size - header_size + PIECE - 1) / PIECE);
    uint8_t digest[32];
    if (!file_append(file, *header, (size_t)header_size, e) || !write_data(b, &p, header_size, e)) return false;
    for (uint32_t t = 0; t < b->c->n_tiers; t++)
        s->tier_end[t] = gguf_writer_offset(b->w, b->tier_last[t]) + gguf_writer_bytes(b->w, b->tier_last[t]);
    gguf_put_array(b->w, "bitpair.tiers", GGUF_U64, s->tier_end, b->c->n_tiers);
    gguf_put_array(b->w, "bitpair.piece_sha256", GGUF_U8, digests, 32 * n_pieces);
    if (!lay_out(b, header, &header_size, &full_size, e)) return false;
    sha256_digest(*header, (size_t)header_size, digest);
    gguf_put_array(b->w, "bitpair.header_sha256", GGUF_U8, digest, sizeof digest);
    if (!lay_out(b, header, &header_size, &full_size, e)) return false;
    s->bytes = full_size;
    return file_write_at(file, 0, *header, (size_t)header_size, e);
}

static void count_bits(const container *c, container_summary *s) {
    uint64_t bytes = 0, weights = 0;
    s->n_tiers = c->n_tiers;
    for (uint32_t t = 0; t < c->n_tiers; t++) {
        for (size_t i = 0; i < (size_t)c->model->config.n_layers * PARTS; i++) {
            const factors *f = &c->layers[i];
            if (t == 0) weights += (uint64_t)f->n * f->m;
            for (uint32_t j = 0; j < bp_min(t, f->n_stages); j++)
                if (t - j < f->stages[j].shape.n_c) bytes += factors_middle_bytes(f->stages[j].shape);
            if (t < f->n_stages) bytes += factors_stage_bytes(f->n, f->m, f->stages[t].shape);
        }
        s->bits_per_weight[t] = 8 * (double)bytes / (double)weights;
    }
}

static bool build(builder *b, const char *path, bool force, container_summary *summary, bp_err *e) {
    uint8_t *header = NULL, *digests = NULL;
    uint64_t header_size = 0, full_size = 0;
    put_tensors(b);
    size_t n_pieces = (size_t)((b->data_bytes + PIECE - 1) / PIECE);
    bool ok = !b->lost && put_keys(b, n_pieces) && (digests = malloc(bp_max(32 * n_pieces, 1)));
    if (!ok) bp_fail(e, BP_ERR_MEMORY, 0, "no memory to lay out the file");
    ok = ok && lay_out(b, &header, &header_size, &full_size, e);
    file_out *file = ok ? file_create(path, force, full_size, e) : NULL;
    ok = file && write_file(b, file, &header, header_size, full_size, digests, summary, e);
    if (ok)
        ok = file_commit(file, e);
    else
        file_discard(file);
    free(header);
    free(digests);
    return ok;
}

bool container_write(const container *c, const char *path, bool force, container_summary *summary, bp_err *e) {
    builder b = {.c = c, .w = gguf_writer_new()};
    *summary = (container_summary){0};
    count_bits(c, summary);
    bool ok = b.w ? build(&b, path, force, summary, e) : bp_fail(e, BP_ERR_MEMORY, 0, "no memory to lay out the file");
    gguf_writer_free(b.w);
    free(b.contents);
    return ok;
}

uint64_t container_fixed_bytes(const model *m, uint32_t planes) {
    const model_config *c = &m->config;
    uint64_t tables = m->head.rows != m->embedding.rows ? 2 : 1;
    uint64_t table = planes ? pack_bytes(c->vocab, c->d_model, planes) +
                                  2 * (uint64_t)c->vocab * bp_ceil_div(c->d_model, KERNEL_BLOCK)
                            : (uint64_t)c->vocab * m->embedding.row_bytes;
    uint64_t keys = m->file->data_offset + 4096;
    return tables * table + keys + 4 * ((uint64_t)c->n_layers * 2 + 1) * c->d_model;
}
