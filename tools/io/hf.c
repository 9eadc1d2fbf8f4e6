#include "io/hf.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/hf_config.h"
#include "io/hf_tokenizer.h"
#include "io/safetensors.h"

/* ---- which tensors, and their shapes ---------------------------------------------------------------------------- */

typedef enum { SIZE_ONE, SIZE_MODEL, SIZE_FF, SIZE_QUERY, SIZE_KV, SIZE_HEAD, SIZE_VOCAB } size_name;
enum { IN_LLAMA = 1, IN_QWEN2 = 2, IN_QWEN3 = 4, IN_ALL = 7 };

typedef struct {
    const char *hf, *gguf;
    size_name rows, columns; /* W [rows, columns]; a vector has SIZE_ONE rows */
    int archs;
} tensor_rule;

static const tensor_rule LAYER_RULES[] = {
    {"input_layernorm.weight", "attn_norm.weight", SIZE_ONE, SIZE_MODEL, IN_ALL},
    {"post_attention_layernorm.weight", "ffn_norm.weight", SIZE_ONE, SIZE_MODEL, IN_ALL},
    {"self_attn.q_norm.weight", "attn_q_norm.weight", SIZE_ONE, SIZE_HEAD, IN_QWEN3},
    {"self_attn.k_norm.weight", "attn_k_norm.weight", SIZE_ONE, SIZE_HEAD, IN_QWEN3},
    {"self_attn.q_proj.bias", "attn_q.bias", SIZE_ONE, SIZE_QUERY, IN_QWEN2},
    {"self_attn.k_proj.bias", "attn_k.bias", SIZE_ONE, SIZE_KV, IN_QWEN2},
    {"self_attn.v_proj.bias", "attn_v.bias", SIZE_ONE, SIZE_KV, IN_QWEN2},
    {"self_attn.q_proj.weight", "attn_q.weight", SIZE_QUERY, SIZE_MODEL, IN_ALL},
    {"self_attn.k_proj.weight", "attn_k.weight", SIZE_KV, SIZE_MODEL, IN_ALL},
    {"self_attn.v_proj.weight", "attn_v.weight", SIZE_KV, SIZE_MODEL, IN_ALL},
    {"self_attn.o_proj.weight", "attn_output.weight", SIZE_MODEL, SIZE_QUERY, IN_ALL},
    {"mlp.gate_proj.weight", "ffn_gate.weight", SIZE_FF, SIZE_MODEL, IN_ALL},
    {"mlp.up_proj.weight", "ffn_up.weight", SIZE_FF, SIZE_MODEL, IN_ALL},
    {"mlp.down_proj.weight", "ffn_down.weight", SIZE_MODEL, SIZE_FF, IN_ALL},
};
enum { N_LAYER_RULES = sizeof LAYER_RULES / sizeof LAYER_RULES[0] };

static uint64_t size_of(const hf_config *c, size_name size) {
    switch (size) {
    case SIZE_ONE:
        return 1;
    case SIZE_MODEL:
        return c->d_model;
    case SIZE_FF:
        return c->d_ff;
    case SIZE_QUERY:
        return (uint64_t)c->n_heads * c->head_dim;
    case SIZE_KV:
        return (uint64_t)c->n_kv_heads * c->head_dim;
    case SIZE_HEAD:
        return c->head_dim;
    case SIZE_VOCAB:
        return c->vocab;
    }
    return 0;
}

static int arch_bit(const hf_config *c) {
    return strcmp(c->arch, "llama") == 0 ? IN_LLAMA : strcmp(c->arch, "qwen2") == 0 ? IN_QWEN2 : IN_QWEN3;
}

/* ---- the plan --------------------------------------------------------------------------------------------------- */

typedef struct {
    const safetensors_tensor *from;
    uint64_t rows, columns;
    bool vector;     /* stored as F32 */
    bool interleave; /* permute the rows of each head */
} planned;

typedef struct {
    hf_config config;
    safetensors weights;
    gguf_writer *writer;
    planned *items; /* item i is tensor i of the writer; rope_freqs comes after them */
    size_t n_items;
    bool *used; /* per tensor of `weights` */
} reader;

static bool check_tensor(const reader *r, const planned *p, bp_err *e) {
    const safetensors_tensor *t = p->from;
    const char *path = safetensors_path(&r->weights, t);
    uint64_t offset = (uint64_t)(t->data - r->weights.files[t->file].view.bytes);
    if (t->type == UINT32_MAX)
        return bp_fail(e, BP_ERR_UNSUPPORTED, offset, "%s: tensor '%s' has dtype %s; F32, F16 and BF16 are read", path,
                       t->name, t->dtype);
    if (p->vector ? t->n_dims == 1 && t->dims[0] == p->columns
                  : t->n_dims == 2 && t->dims[0] == p->rows && t->dims[1] == p->columns)
        return true;
    return bp_fail(e, BP_ERR_FORMAT, offset, "%s: tensor '%s' is [%llu, %llu], config.json asks for [%llu, %llu]", path,
                   t->name, (unsigned long long)(t->n_dims == 1 ? 1 : t->dims[0]),
                   (unsigned long long)(t->n_dims == 1 ? t->dims[0] : t->dims[1]), (unsigned long long)p->rows,
                   (unsigned long long)p->columns);
}

/* Plans tensor `to` of the image as tensor `from` of the folder. */
static bool plan_tensor(reader *r, const char *from, const char *to, size_name rows, size_name columns, bool interleave,
                        bp_err *e) {
    const safetensors_tensor *t = safetensors_find(&r->weights, from);
    planned p = {t, size_of(&r->config, rows), size_of(&r->config, columns), rows == SIZE_ONE, interleave};
    if (!t)
        return bp_fail(e, BP_ERR_FORMAT, 0, "%s: tensor '%s' is missing",
                       r->weights.n_files ? r->weights.files[0].path : "", from);
    if (!check_tensor(r, &p, e)) return false;
    uint64_t dims[2] = {p.columns, p.rows};
    gguf_put_tensor(r->writer, to, p.vector ? QUANT_F32 : t->type, p.vector ? 1 : 2, dims);
    r->used[t - r->weights.tensors] = true;
    r->items[r->n_items++] = p;
    return true;
}

/* The embedding; some files of tied models store it under the name of the head, or under both. */
static bool plan_ends(reader *r, bp_err *e) {
    const char *embedding = "model.embed_tokens.weight", *head = "lm_head.weight";
    const safetensors_tensor *stored_head = safetensors_find(&r->weights, head);
    if (r->config.tied && stored_head) {
        r->used[stored_head - r->weights.tensors] = true;
        if (!safetensors_find(&r->weights, embedding)) embedding = head;
    }
    if (!plan_tensor(r, embedding, "token_embd.weight", SIZE_VOCAB, SIZE_MODEL, false, e) ||
        !plan_tensor(r, "model.norm.weight", "output_norm.weight", SIZE_ONE, SIZE_MODEL, false, e))
        return false;
    return r->config.tied || plan_tensor(r, head, "output.weight", SIZE_VOCAB, SIZE_MODEL, false, e);
}

static bool plan_layer(reader *r, uint32_t layer, bp_err *e) {
    char from[96], to[96];
    bool llama = arch_bit(&r->config) == IN_LLAMA;
    for (size_t i = 0; i < N_LAYER_RULES; i++) {
        const tensor_rule *rule = &LAYER_RULES[i];
        if (!(rule->archs & arch_bit(&r->config))) continue;
        bool q_or_k = strcmp(rule->gguf, "attn_q.weight") == 0 || strcmp(rule->gguf, "attn_k.weight") == 0;
        snprintf(from, sizeof from, "model.layers.%u.%s", layer, rule->hf);
        snprintf(to, sizeof to, "blk.%u.%s", layer, rule->gguf);
        if (!plan_tensor(r, from, to, rule->rows, rule->columns, llama && q_or_k, e)) return false;
    }
    return true;
}

static bool ends_with(const char *text, const char *end) {
    size_t n = strlen(text), m = strlen(end);
    return n >= m && strcmp(text + n - m, end) == 0;
}

/* A tensor that nothing asked for would be silently lost: only those that carry no weights may stay. */
static bool check_unused(const reader *r, bp_err *e) {
    for (size_t i = 0; i < r->weights.n_tensors; i++) {
        const safetensors_tensor *t = &r->weights.tensors[i];
        if (r->used[i] || ends_with(t->name, ".rotary_emb.inv_freq")) continue;
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "%s: tensor '%s' is not part of a %s model%s",
                       safetensors_path(&r->weights, t), t->name, r->config.arch,
                       ends_with(t->name, ".bias") ? " here: this build has no such bias" : "");
    }
    return true;
}

static bool plan_tensors(reader *r, bp_err *e) {
    size_t most = 3 + (size_t)r->config.n_layers * N_LAYER_RULES;
    r->items = malloc(most * sizeof *r->items);
    r->used = calloc(r->weights.n_tensors + 1, sizeof *r->used);
    if (!r->items || !r->used) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the tensor list");
    if (!plan_ends(r, e)) return false;
    for (uint32_t layer = 0; layer < r->config.n_layers; layer++)
        if (!plan_layer(r, layer, e)) return false;
    if (!check_unused(r, e)) return false;
    uint64_t half = r->config.head_dim / 2;
    if (r->config.rope_scaled) gguf_put_tensor(r->writer, "rope_freqs.weight", QUANT_F32, 1, &half);
    return true;
}

/* ---- the image -------------------------------------------------------------------------------------------------- */

/* Hugging Face rotates (i, i + d/2) of a head, GGUF's Llama (2i, 2i + 1): row j d/2 + i goes to row 2i + j. */
static void copy_interleaved(uint8_t *to, const uint8_t *from, uint64_t rows, uint64_t row_bytes, uint64_t head_dim) {
    for (uint64_t row = 0; row < rows; row++) {
        uint64_t in_head = row % head_dim, half = head_dim / 2;
        uint64_t target = row - in_head + 2 * (in_head % half) + in_head / half;
        memcpy(to + target * row_bytes, from + row * row_bytes, (size_t)row_bytes);
    }
}

static void fill_tensor(const reader *r, const planned *p, uint8_t *to) {
    const safetensors_tensor *t = p->from;
    if (p->vector)
        quant_dequantize(t->type, t->data, (float *)(void *)to, (size_t)p->columns);
    else if (p->interleave)
        copy_interleaved(to, t->data, p->rows, t->bytes / p->rows, r->config.head_dim);
    else
        memcpy(to, t->data, (size_t)t->bytes);
    file_release(&r->weights.files[t->file].view, t->data, (size_t)t->bytes); /* else the model is in memory twice */
}

static bool make_image(reader *r, uint8_t **image, uint64_t *size, bp_err *e) {
    uint8_t *header;
    uint64_t header_size;
    if (!gguf_writer_finish(r->writer, BP_ALIGN, &header, &header_size, size, e)) return false;
    size_t room = *size < SIZE_MAX - BP_ALIGN ? bp_round_up((size_t)*size, BP_ALIGN) : 0;
    uint8_t *bytes = room ? aligned_alloc(BP_ALIGN, room) : NULL;
    if (!bytes) {
        free(header);
        return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for a model of %llu bytes", (unsigned long long)*size);
    }
    memcpy(bytes, header, (size_t)header_size);
    free(header);
    uint64_t end = header_size;
    for (size_t i = 0; i < r->n_items + r->config.rope_scaled; i++) {
        uint64_t at = gguf_writer_offset(r->writer, i);
        memset(bytes + end, 0, (size_t)(at - end));
        end = at + gguf_writer_bytes(r->writer, i);
        if (i < r->n_items)
            fill_tensor(r, &r->items[i], bytes + at);
        else
            hf_config_rope_divisors(&r->config, (float *)(void *)(bytes + at));
    }
    *image = bytes;
    return true;
}

/* The last component of the folder's path, without trailing slashes. */
static void put_name(gguf_writer *w, const char *folder) {
    size_t end = strlen(folder);
    while (end > 1 && folder[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && folder[begin - 1] != '/') begin--;
    gguf_put_string(w, "general.name", folder + begin, end - begin);
}

bool hf_read(const char *folder, uint8_t **image, uint64_t *size, bp_err *e) {
    reader r = {0};
    if (!hf_config_read(&r.config, folder, e)) return false;
    if (!safetensors_open(&r.weights, folder, e)) return false;
    r.writer = gguf_writer_new();
    bool ok = r.writer || bp_fail(e, BP_ERR_MEMORY, 0, "out of memory");
    if (ok) {
        hf_config_put(&r.config, r.writer);
        put_name(r.writer, folder);
        ok = hf_tokenizer_put(r.writer, folder, e) && plan_tensors(&r, e) && make_image(&r, image, size, e);
    }
    gguf_writer_free(r.writer);
    safetensors_close(&r.weights);
    free(r.items);
    free(r.used);
    return ok;
}
