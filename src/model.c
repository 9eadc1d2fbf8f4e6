#include "model.h"

/* What every step of opening needs. While measuring, views stay NULL and only sizes are taken. */
typedef struct {
    model *m;
    arena *a;
    const gguf *g;
    bp_err *e;
    bool later; /* what is laid out now belongs to a tier that is not at hand: it is not read */
} builder;

enum { NAME = 96 }; /* longest tensor or key name that we look up, with room */

static const struct {
    const char *name;
    model_arch arch;
} archs[] = {{"llama", MODEL_LLAMA}, {"qwen2", MODEL_QWEN2}, {"qwen3", MODEL_QWEN3}};

/* ---- configuration ---- */

/* <arch>.<key> as a count in [low, high]; `missing` is used where there is no such key (0: it is required) */
static bool config_count(builder *b, const char *arch, const char *key, uint64_t low, uint64_t high, uint64_t missing,
                         uint32_t *out) {
    char name[NAME];
    bp_format(name, sizeof name, "%s.%s", arch, key);
    uint64_t v = missing;
    bool found = gguf_u64(b->g, name, &v);
    if (!found && gguf_find(b->g, name)) return bp_fail(b->e, BP_ERR_FORMAT, 0, "key '%s' is not a count", name);
    if (!found && !missing) return bp_fail(b->e, BP_ERR_FORMAT, 0, "key '%s' is missing", name);
    if (v < low || v > high)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key '%s' is %llu, outside %llu..%llu", name, (unsigned long long)v,
                       (unsigned long long)low, (unsigned long long)high);
    *out = (uint32_t)v;
    return true;
}

static bool config_real(builder *b, const char *arch, const char *key, double missing, float *out) {
    char name[NAME];
    bp_format(name, sizeof name, "%s.%s", arch, key);
    double v = missing;
    bool found = gguf_f64(b->g, name, &v);
    if ((!found && gguf_find(b->g, name)) || !(v > 0 && v < 1e12))
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key '%s' is not a positive number", name);
    *out = (float)v;
    return true;
}

static bool config_arch(builder *b, const char **arch) {
    gguf_text text;
    if (!gguf_string(b->g, "general.architecture", &text))
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key 'general.architecture' is missing: not a language model");
    for (size_t i = 0; i < sizeof archs / sizeof *archs; i++) {
        if (!gguf_text_is(text, archs[i].name)) continue;
        b->m->config.arch = archs[i].arch;
        *arch = archs[i].name;
        return true;
    }
    return bp_fail(b->e, BP_ERR_UNSUPPORTED, 0, "architecture '%.*s': this build runs llama, qwen2 and qwen3",
                   (int)text.size, text.text);
}

/* Llama 3's scaling comes as the tensor rope_freqs.weight; every other kind would need other angles. */
static bool config_rope_scaling(builder *b, const char *arch) {
    char name[NAME];
    gguf_text kind;
    bp_format(name, sizeof name, "%s.rope.scaling.type", arch);
    if (gguf_string(b->g, name, &kind) && !gguf_text_is(kind, "none") && !gguf_text_is(kind, "llama3"))
        return bp_fail(b->e, BP_ERR_UNSUPPORTED, 0, "rope scaling '%.*s': this build knows Llama 3's", (int)kind.size,
                       kind.text);
    double factor = 1;
    bp_format(name, sizeof name, "%s.rope.scale_linear", arch);
    if (gguf_f64(b->g, name, &factor) && factor != 1)
        return bp_fail(b->e, BP_ERR_UNSUPPORTED, 0, "key '%s': linear rope scaling", name);
    return true;
}

static bool config_vocab(builder *b, const char *arch) {
    const gguf_tensor *embedding = gguf_tensor_find(b->g, "token_embd.weight");
    const gguf_key *tokens = gguf_find(b->g, "tokenizer.ggml.tokens");
    uint64_t missing = embedding ? embedding->dims[1] : tokens ? tokens->count : 0;
    return config_count(b, arch, "vocab_size", 1, 1 << 24, missing, &b->m->config.vocab);
}

static bool read_config(builder *b) {
    model_config *c = &b->m->config;
    const char *arch = "";
    uint32_t rope_dims;
    if (!config_arch(b, &arch) || !config_count(b, arch, "block_count", 1, 1024, 0, &c->n_layers) ||
        !config_count(b, arch, "embedding_length", 1, 65536, 0, &c->d_model) ||
        !config_count(b, arch, "feed_forward_length", 1, 1 << 20, 0, &c->d_ff) ||
        !config_count(b, arch, "attention.head_count", 1, 1024, 0, &c->n_heads) ||
        !config_count(b, arch, "attention.head_count_kv", 1, c->n_heads, c->n_heads, &c->n_kv_heads) ||
        !config_count(b, arch, "attention.key_length", 2, 256, c->d_model / c->n_heads, &c->head_dim) ||
        !config_count(b, arch, "context_length", 1, 1 << 24, 2048, &c->n_ctx) ||
        !config_count(b, arch, "rope.dimension_count", 1, 256, c->head_dim, &rope_dims) ||
        !config_real(b, arch, "rope.freq_base", 10000, &c->rope_theta) ||
        !config_real(b, arch, "attention.layer_norm_rms_epsilon", 1e-5, &c->norm_eps) ||
        !config_rope_scaling(b, arch) || !config_vocab(b, arch))
        return false;
    if (c->n_heads % c->n_kv_heads)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "%u heads are not a multiple of %u key-value heads",
                       (unsigned)c->n_heads, (unsigned)c->n_kv_heads);
    if (c->head_dim % 2 || rope_dims != c->head_dim)
        return bp_fail(b->e, BP_ERR_UNSUPPORTED, 0, "rotary dimension %u with heads of %u", (unsigned)rope_dims,
                       (unsigned)c->head_dim);
    c->rope_interleaved = c->arch == MODEL_LLAMA;
    return true;
}

/* ---- tensors ---- */

/* The named tensor with its exact element count, wholly at hand; NULL after filling the error. */
static const void *tensor_data(builder *b, const char *name, uint64_t count, uint32_t *type) {
    const gguf_tensor *t = gguf_tensor_find(b->g, name);
    if (!t) {
        bp_fail(b->e, BP_ERR_FORMAT, 0, "tensor '%s' is missing", name);
        return NULL;
    }
    uint64_t elements = t->dims[0] * t->dims[1] * t->dims[2] * t->dims[3]; /* gguf.c bounded the product */
    if (elements != count) {
        bp_fail(b->e, BP_ERR_FORMAT, t->offset, "tensor '%s' has %llu elements, not %llu", name,
                (unsigned long long)elements, (unsigned long long)count);
        return NULL;
    }
    const void *data = b->later ? gguf_place(b->g, t) : gguf_data(b->g, t);
    if (!data)
        bp_fail(b->e, BP_ERR_FORMAT, t->offset, "file is truncated: tensor '%s' ends at byte %llu, the file at %llu",
                name, (unsigned long long)(t->offset + t->bytes), (unsigned long long)b->g->size);
    *type = t->type;
    return data;
}

static bool is_float(uint32_t type) { return type == QUANT_F32 || type == QUANT_F16 || type == QUANT_BF16; }

bool model_scale_type(uint32_t type) { return is_float(type) || type == QUANT_Q8_0; }

/* A vector or table of one of the types that `allowed` knows, widened into the arena. */
static bool widen_some(builder *b, const char *name, uint64_t count, bool (*allowed)(uint32_t), const float **out) {
    uint32_t type;
    const void *data = tensor_data(b, name, count, &type);
    if (!data) return false;
    if (!allowed(type))
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "tensor '%s' is %s, not a float type", name, quant_name(type));
    float *values = ARENA_NEW(b->a, float, (size_t)count);
    if (b->a->overflow) return bp_fail(b->e, BP_ERR_MEMORY, 0, "no memory for tensor '%s'", name);
    if (values && !b->g->header_only && !b->later) quant_dequantize(type, data, values, (size_t)count);
    *out = values;
    return true;
}

static bool widen(builder *b, const char *name, uint64_t count, const float **out) {
    return widen_some(b, name, count, is_float, out);
}

static bool widen_scales(builder *b, const char *name, uint64_t count, const float **out) {
    return widen_some(b, name, count, model_scale_type, out);
}

static bool widen_optional(builder *b, const char *name, uint64_t count, const float **out) {
    *out = NULL;
    return !gguf_tensor_find(b->g, name) || widen(b, name, count, out);
}

/* tile16 signs of a [rows, cols] matrix */
static bool signs_view(builder *b, const char *name, size_t rows, size_t cols, uint32_t planes, kernel_signs *out) {
    *out = (kernel_signs){NULL, NULL, (uint32_t)bp_ceil_div(rows, KERNEL_TILE),
                          (uint32_t)(bp_round_up(cols, KERNEL_PAD) / 8), planes};
    uint32_t type;
    uint64_t bytes = (uint64_t)out->tiles * planes * out->groups * KERNEL_TILE;
    out->bytes = tensor_data(b, name, bytes, &type);
    if (!out->bytes) return false;
    if (type != QUANT_I8) return bp_fail(b->e, BP_ERR_FORMAT, 0, "tensor '%s' is %s, not I8", name, quant_name(type));
    if ((uintptr_t)out->bytes % 16)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "tensor '%s' is not aligned to 16 bytes", name);
    return true;
}

static bool dense_view(builder *b, const char *name, uint64_t n, uint64_t m, linear *w) {
    const gguf_tensor *t = gguf_tensor_find(b->g, name);
    uint32_t elements, bytes;
    if (t && (t->dims[0] != m || t->dims[1] != n))
        return bp_fail(b->e, BP_ERR_FORMAT, t->offset, "tensor '%s' is [%llu, %llu], not [%llu, %llu]", name,
                       (unsigned long long)t->dims[1], (unsigned long long)t->dims[0], (unsigned long long)n,
                       (unsigned long long)m);
    w->n = (uint32_t)n;
    w->m = (uint32_t)m;
    w->rows = tensor_data(b, name, n * m, &w->type);
    if (!w->rows) return false;
    if (t && w->type == QUANT_F32 && (uintptr_t)w->rows % sizeof(float))
        return bp_fail(b->e, BP_ERR_FORMAT, t->offset, "tensor '%s' is not aligned to 4 bytes", name);
    quant_block(w->type, &elements, &bytes);
    w->row_bytes = (size_t)(m / elements * bytes);
    return true;
}

/* ---- linear layers ---- */

static uint64_t tensor_bits(const gguf *file, const char *name) {
    const gguf_tensor *t = gguf_tensor_find(file, name);
    return t ? 8 * t->bytes : 0;
}

bool model_middle_renewed(const gguf *file, const char *layer, uint32_t stage, uint32_t tier) {
    return model_middle_bits(file, layer, stage, tier) > 0;
}

uint64_t model_middle_bits(const gguf *file, const char *layer, uint32_t stage, uint32_t tier) {
    char name[NAME];
    bp_format(name, sizeof name, "%s.%u.c.%u", layer, (unsigned)stage, (unsigned)tier);
    return tier > stage ? tensor_bits(file, name) : 0;
}

/* The newest that the tiers at hand have; whichever it is, its place in the arena is the same. */
static bool widen_middle(builder *b, const char *layer, uint32_t stage, uint64_t k, const float **out) {
    char name[NAME];
    uint32_t tier = b->later ? stage : b->m->tier - 1;
    while (tier > stage && !model_middle_renewed(b->g, layer, stage, tier)) tier--;
    if (tier > stage)
        bp_format(name, sizeof name, "%s.%u.c.%u", layer, (unsigned)stage, (unsigned)tier);
    else
        bp_format(name, sizeof name, "%s.%u.c", layer, (unsigned)stage);
    return widen_scales(b, name, k, out);
}

static bool stage_view(builder *b, const char *name, uint32_t index, const linear *w, linear_stage *s) {
    char part[NAME];
    bp_format(part, sizeof part, "%s.%u.a", name, (unsigned)index);
    if (!widen_scales(b, part, w->n, &s->a)) return false;
    bp_format(part, sizeof part, "%s.%u.A", name, (unsigned)index);
    if (!signs_view(b, part, w->n, s->k, 1, &s->A)) return false;
    if (!widen_middle(b, name, index, s->k, &s->c)) return false;
    bp_format(part, sizeof part, "%s.%u.B", name, (unsigned)index);
    if (!signs_view(b, part, s->k, w->m, 1, &s->B)) return false;
    bp_format(part, sizeof part, "%s.%u.b", name, (unsigned)index);
    return widen_scales(b, part, w->m, &s->b);
}

/* Bits of tile16 signs of a [rows, cols] matrix. */
static uint64_t signs_bits(uint64_t rows, uint64_t cols) {
    uint64_t tiles = (rows + KERNEL_TILE - 1) / KERNEL_TILE, blocks = (cols + KERNEL_PAD - 1) / KERNEL_PAD;
    return tiles * KERNEL_TILE * blocks * KERNEL_PAD;
}

uint64_t model_stage_bits(const gguf *file, const char *layer, uint32_t stage, uint64_t n, uint64_t m, uint64_t k) {
    static const char *const vectors[] = {"a", "c", "b"};
    char name[NAME];
    uint64_t bits = signs_bits(n, k) + signs_bits(k, m);
    for (size_t i = 0; i < 3; i++) {
        bp_format(name, sizeof name, "%s.%u.%s", layer, (unsigned)stage, vectors[i]);
        bits += tensor_bits(file, name);
    }
    return bits;
}

/* A stage counts from its tier on, middle scales that replace others from theirs. */
static void count_stage(builder *b, const char *layer, uint32_t stage, uint64_t bits) {
    for (uint32_t t = stage; t < b->m->n_tiers; t++) {
        bits += model_middle_bits(b->g, layer, stage, t);
        b->m->tier_bits[t] += bits;
    }
}

static bool factorized_view(builder *b, const char *name, const gguf_key *shape, linear *w) {
    uint64_t stages = shape->count - 2;
    uint32_t laid = (uint32_t)bp_min((size_t)stages, b->m->laid);
    if (stages > b->m->n_tiers)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "layer '%s' has %llu stages in a file of %u tiers", name,
                       (unsigned long long)stages, (unsigned)b->m->n_tiers);
    linear_stage *out = ARENA_NEW(b->a, linear_stage, laid);
    for (uint32_t s = 0; s < stages; s++) {
        uint64_t k = gguf_item_u64(shape, 2 + s);
        if (k < KERNEL_PAD || k > 1 << 20 || k % KERNEL_PAD)
            return bp_fail(b->e, BP_ERR_FORMAT, 0, "layer '%s': middle dimension %llu is not a multiple of 32", name,
                           (unsigned long long)k);
        count_stage(b, name, s, model_stage_bits(b->g, name, s, w->n, w->m, k));
        if (s >= laid) continue; /* of a tier that is not wanted */
        linear_stage stage = {.k = (uint32_t)k};
        b->later = s >= b->m->tier;
        if (!stage_view(b, name, s, w, &stage)) return false;
        if (out) out[s] = stage;
    }
    b->later = false;
    w->stages = out;
    w->n_stages = (uint32_t)bp_min(laid, b->m->tier);
    w->n_laid = laid;
    return true;
}

/* bitpair.linear.blk.N.PART, NULL where there is none */
static const gguf_key *stack_key(builder *b, uint32_t layer, const char *part) {
    char key[NAME];
    bp_format(key, sizeof key, "bitpair.linear.blk.%u.%s", (unsigned)layer, part);
    return gguf_find(b->g, key);
}

/* A stack of stages [n, m], of one layer or of several that are fused; its bias is the caller's. */
static bool stack_view(builder *b, uint32_t layer, const char *part, const gguf_key *shape, uint64_t n, uint64_t m,
                       linear *w) {
    char name[NAME];
    bp_format(name, sizeof name, "blk.%u.%s", (unsigned)layer, part);
    w->n = (uint32_t)n;
    w->m = (uint32_t)m;
    b->m->linear_weights += n * m;
    if (shape->kind != GGUF_ARRAY || shape->item != GGUF_U32 || shape->count < 3 || shape->count > 2 + MODEL_STAGES ||
        gguf_item_u64(shape, 0) != n || gguf_item_u64(shape, 1) != m)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key 'bitpair.linear.%s' does not describe a stack of [%llu, %llu]",
                       name, (unsigned long long)n, (unsigned long long)m);
    if (!b->m->factorized)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key 'bitpair.linear.%s' in a file without 'bitpair.version'", name);
    return factorized_view(b, name, shape, w);
}

/* Layer NAME [n, m]: factorized where bitpair.linear.NAME says so, dense otherwise. */
static bool linear_view(builder *b, uint32_t layer, const char *part, uint64_t n, uint64_t m, linear *w) {
    char name[NAME];
    *w = (linear){.n = (uint32_t)n, .m = (uint32_t)m};
    bp_format(name, sizeof name, "blk.%u.%s.bias", (unsigned)layer, part);
    if (!widen_optional(b, name, n, &w->bias)) return false;
    const gguf_key *shape = stack_key(b, layer, part);
    if (shape) return stack_view(b, layer, part, shape, n, m, w);
    bp_format(name, sizeof name, "blk.%u.%s.weight", (unsigned)layer, part);
    b->m->linear_weights += n * m;
    if (!dense_view(b, name, n, m, w)) return false;
    for (uint32_t t = 0; t < MODEL_TIERS; t++) b->m->tier_bits[t] += 8 * n * w->row_bytes;
    return true;
}

/* Layers that share their input, `rows` each: one stack called `fused` where the file has that, else one by one. */
typedef struct {
    const char *fused;
    size_t count;
    const char *names[3];
    uint64_t rows[3];
    linear *layers[3];
} joint;

/* The biases of fused layers one after the other, zeros where one has none. */
static bool fused_bias(builder *b, uint32_t layer, const joint *j, linear *w) {
    char name[NAME];
    const gguf_tensor *found[3] = {NULL};
    bool any = false;
    for (size_t i = 0; i < j->count; i++) {
        bp_format(name, sizeof name, "blk.%u.%s.bias", (unsigned)layer, j->names[i]);
        any |= (found[i] = gguf_tensor_find(b->g, name)) != NULL;
    }
    if (!any) return true;
    float *bias = ARENA_NEW(b->a, float, w->n);
    for (size_t i = 0, at = 0; i < j->count; at += j->rows[i++]) {
        const float *own = NULL;
        bp_format(name, sizeof name, "blk.%u.%s.bias", (unsigned)layer, j->names[i]);
        if (found[i] && !widen(b, name, j->rows[i], &own)) return false;
        for (size_t r = 0; bias && r < j->rows[i]; r++) bias[at + r] = own ? own[r] : 0;
    }
    w->bias = bias;
    return true;
}

static bool joint_view(builder *b, uint32_t layer, const joint *j, uint64_t m) {
    const gguf_key *shape = stack_key(b, layer, j->fused);
    uint64_t n = 0;
    for (size_t i = 0; i < j->count; n += j->rows[i++]) {
        if (!shape && !linear_view(b, layer, j->names[i], j->rows[i], m, j->layers[i])) return false;
        if (shape) *j->layers[i] = (linear){0};
        if (shape && i) j->layers[0]->split[i - 1] = (uint32_t)n;
    }
    return !shape ||
           (stack_view(b, layer, j->fused, shape, n, m, j->layers[0]) && fused_bias(b, layer, j, j->layers[0]));
}

uint32_t model_linears(const model_layer *l, const linear **ls, const char **names) {
    const linear *const all[MODEL_LINEARS] = {&l->q, &l->k, &l->v, &l->o, &l->gate, &l->up, &l->down};
    static const char *const own[MODEL_LINEARS] = {"attn_q",   "attn_k", "attn_v",  "attn_output",
                                                   "ffn_gate", "ffn_up", "ffn_down"};
    uint32_t n = 0;
    for (size_t i = 0; i < MODEL_LINEARS; i++) {
        if (!all[i]->n) continue;
        ls[n] = all[i];
        names[n++] = !all[i]->split[0] ? own[i] : i == 0 ? "attn_qkv" : "ffn_gate_up";
    }
    return n;
}

static bool layer_view(builder *b, uint32_t i, model_layer *l) {
    const model_config *c = &b->m->config;
    uint64_t d = c->d_model, q = (uint64_t)c->n_heads * c->head_dim, kv = (uint64_t)c->n_kv_heads * c->head_dim;
    char name[NAME];
    bp_format(name, sizeof name, "blk.%u.attn_norm.weight", (unsigned)i);
    if (!widen(b, name, d, &l->attn_norm)) return false;
    bp_format(name, sizeof name, "blk.%u.ffn_norm.weight", (unsigned)i);
    if (!widen(b, name, d, &l->ffn_norm)) return false;
    bp_format(name, sizeof name, "blk.%u.attn_q_norm.weight", (unsigned)i);
    bool needed = c->arch == MODEL_QWEN3;
    if (!(needed ? widen : widen_optional)(b, name, c->head_dim, &l->q_norm)) return false;
    bp_format(name, sizeof name, "blk.%u.attn_k_norm.weight", (unsigned)i);
    if (!(needed ? widen : widen_optional)(b, name, c->head_dim, &l->k_norm)) return false;
    const joint in = {"attn_qkv", 3, {"attn_q", "attn_k", "attn_v"}, {q, kv, kv}, {&l->q, &l->k, &l->v}},
                feed = {"ffn_gate_up", 2, {"ffn_gate", "ffn_up"}, {c->d_ff, c->d_ff}, {&l->gate, &l->up}};
    return joint_view(b, i, &in, d) && linear_view(b, i, "attn_output", d, q, &l->o) && joint_view(b, i, &feed, d) &&
           linear_view(b, i, "ffn_down", d, c->d_ff, &l->down);
}

/* Embedding or head: bit planes NAME.planes with NAME.scales, or a plain tensor NAME.weight. */
static bool table_view(builder *b, const char *prefix, linear *w) {
    const model_config *c = &b->m->config;
    char name[NAME];
    bp_format(name, sizeof name, "%s.planes", prefix);
    *w = (linear){.n = c->vocab, .m = c->d_model};
    if (!gguf_tensor_find(b->g, name)) {
        bp_format(name, sizeof name, "%s.weight", prefix);
        return dense_view(b, name, c->vocab, c->d_model, w);
    }
    uint64_t planes = 0;
    if (!gguf_u64(b->g, "bitpair.embedding.planes", &planes) || planes < 1 || planes > KERNEL_PLANES)
        return bp_fail(b->e, BP_ERR_FORMAT, 0, "key 'bitpair.embedding.planes' is missing or not 1..%d", KERNEL_PLANES);
    if (!signs_view(b, name, c->vocab, c->d_model, (uint32_t)planes, &w->planes)) return false;
    bp_format(name, sizeof name, "%s.scales", prefix);
    return widen(b, name, (uint64_t)w->planes.tiles * KERNEL_TILE * kernel_blocks(w->planes.groups),
                 &w->planes.row_scales);
}

static bool tables_view(builder *b) {
    model *m = b->m;
    if (!table_view(b, "token_embd", &m->embedding)) return false;
    bool tied = !gguf_tensor_find(b->g, "output.weight") && !gguf_tensor_find(b->g, "output.planes");
    m->head = m->embedding;
    return tied || table_view(b, "output", &m->head);
}

/* ---- tiers ---- */

bool model_tiers(const gguf *file, uint64_t *ends, uint32_t *n, bp_err *e) {
    uint64_t version;
    *n = 0;
    if (!gguf_u64(file, "bitpair.version", &version)) return true;
    if (version < 1 || version > 3)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "bitpair file version %llu; this build reads versions 1 to 3",
                       (unsigned long long)version);
    const gguf_key *tiers = gguf_find(file, "bitpair.tiers");
    if (!tiers || tiers->kind != GGUF_ARRAY || tiers->item != GGUF_U64 || tiers->count < 1 ||
        tiers->count > MODEL_TIERS)
        return bp_fail(e, BP_ERR_FORMAT, 0, "key 'bitpair.tiers' is missing or malformed");
    for (uint32_t i = 0; i < tiers->count; i++) {
        ends[i] = gguf_item_u64(tiers, i);
        if (ends[i] <= (i ? ends[i - 1] : file->data_offset) || ends[i] > file->full_size)
            return bp_fail(e, BP_ERR_FORMAT, 0, "key 'bitpair.tiers' does not ascend within the file");
    }
    if (ends[tiers->count - 1] != file->full_size)
        return bp_fail(e, BP_ERR_FORMAT, 0, "key 'bitpair.tiers' does not end with the file");
    *n = (uint32_t)tiers->count;
    return true;
}

/* *tier <- tiers in the first `size` bytes; a length that is neither whole nor a tier's end is a truncated file. */
static bool prefix_tiers(builder *b, uint64_t size, uint32_t *tier) {
    const model *m = b->m;
    for (uint32_t i = 0; i < m->n_tiers; i++)
        if (m->tier_end[i] <= size) *tier = i + 1;
    if (*tier == 0 || (size < b->g->full_size && m->tier_end[*tier - 1] != size))
        return bp_fail(b->e, BP_ERR_FORMAT, size, "file is truncated: %llu of %llu bytes, and no tier ends there",
                       (unsigned long long)size, (unsigned long long)b->g->full_size);
    return true;
}

static bool read_tiers(builder *b) {
    model *m = b->m;
    if (!model_tiers(b->g, m->tier_end, &m->n_tiers, b->e)) return false;
    m->factorized = m->n_tiers > 0;
    return !m->factorized || (prefix_tiers(b, b->g->size, &m->tier) && prefix_tiers(b, b->g->room, &m->laid));
}

bool model_open(model *m, arena *a, const gguf *file, bp_err *e) {
    builder b = {m, a, file, e, false};
    *m = (model){.file = file};
    model_config *c = &m->config;
    if (!read_tiers(&b) || !read_config(&b) || !tables_view(&b) ||
        !widen(&b, "output_norm.weight", c->d_model, &m->out_norm) ||
        !widen_optional(&b, "rope_freqs.weight", c->head_dim / 2, &c->rope_freqs))
        return false;
    m->layers = ARENA_NEW(a, model_layer, c->n_layers);
    for (uint32_t i = 0; i < c->n_layers; i++) {
        model_layer layer = {0};
        if (!layer_view(&b, i, &layer)) return false;
        if (m->layers) m->layers[i] = layer;
    }
    return !a->overflow || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the model's tables");
}
