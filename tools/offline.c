#include "offline.h"

#include <stdio.h>
#include <stdlib.h>

#include "sha256.h"

static bool open_tokenizer(offline_model *in, bp_err *e) {
    arena a = arena_measure();
    if (!tokenizer_open(&in->tokenizer, &a, in->model->file, e)) return false;
    size_t size = bp_round_up(bp_max(a.used, 1), BP_ALIGN);
    in->tokenizer_memory = aligned_alloc(BP_ALIGN, size);
    if (!in->tokenizer_memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokenizer");
    memset(in->tokenizer_memory, 0, size);
    a = arena_over(in->tokenizer_memory, size);
    return tokenizer_open(&in->tokenizer, &a, in->model->file, e);
}

const file_view *offline_mapping(const offline_model *in) { return in->source.image ? NULL : &in->source.view; }

/* Pages are given back once hashed: a file may be larger than memory. */
static void describe(offline_model *in) {
    enum { PIECE = 16 << 20 };
    uint8_t digest[32];
    sha256 hash;
    sha256_init(&hash);
    for (uint64_t at = 0; at < in->source.size; at += PIECE) {
        size_t n = (size_t)bp_min(PIECE, in->source.size - at);
        sha256_update(&hash, in->source.bytes + at, n);
        file_release(offline_mapping(in), in->source.bytes + at, n);
    }
    sha256_final(&hash, digest);
    int used = snprintf(in->description, sizeof in->description, "%s sha256:", in->source.name);
    for (size_t i = 0; i < 32; i++)
        used += snprintf(in->description + used, sizeof in->description - (size_t)used, "%02x", digest[i]);
}

bool offline_open(offline_model *in, const char *path, bp_err *e) {
    bp_err inner = {0};
    *in = (offline_model){0};
    if (!source_open(&in->source, path, e)) return false;
    in->model = model_load(in->source.bytes, in->source.size, &inner);
    if (in->model && open_tokenizer(in, &inner)) {
        describe(in);
        return true;
    }
    offline_close(in);
    return bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
}

void offline_close(offline_model *in) {
    free(in->tokenizer_memory);
    model_unload(in->model);
    source_close(&in->source);
    *in = (offline_model){0};
}

bool offline_same_shape(const model *a, const model *b) {
    const model_config *x = &a->config, *y = &b->config;
    return x->arch == y->arch && x->n_layers == y->n_layers && x->d_model == y->d_model && x->d_ff == y->d_ff &&
           x->n_heads == y->n_heads && x->n_kv_heads == y->n_kv_heads && x->head_dim == y->head_dim &&
           x->vocab == y->vocab;
}

bool offline_check_text(const offline_model *in, uint64_t ctx, bp_err *e) {
    const model_config *c = &in->model->config;
    if (ctx > c->n_ctx)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--ctx %llu is beyond the model's context of %u", (unsigned long long)ctx,
                       (unsigned)c->n_ctx);
    if (tokenizer_size(in->tokenizer) > c->vocab)
        return bp_fail(e, BP_ERR_FORMAT, 0, "the tokenizer knows %u tokens, the model %u",
                       (unsigned)tokenizer_size(in->tokenizer), (unsigned)c->vocab);
    return true;
}

bool offline_key(const model *m, const char *key, char *out, size_t capacity) {
    gguf_text text;
    out[0] = 0;
    if (!gguf_string(m->file, key, &text)) return true;
    int n = snprintf(out, capacity, "%.*s", (int)text.size, text.text);
    return n >= 0 && (size_t)n < capacity;
}
