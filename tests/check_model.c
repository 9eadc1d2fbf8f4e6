/* What model_open accepts and refuses, on a minimal model written here: one change at a time. */
#include "check.h"

#include "io/gguf_write.h"
#include "model.h"

enum { D = 32, FF = 64, HEADS = 2, VOCAB = 16 };

typedef struct {
    const char *arch, *left_out; /* architecture; a tensor that is not written */
    void (*change)(gguf_writer *w, const char *arch);
} variant;

static void put(gguf_writer *w, const variant *v, const char *name, uint64_t cols, uint64_t rows) {
    uint64_t dims[] = {cols, rows};
    if (!v->left_out || strcmp(v->left_out, name)) gguf_put_tensor(w, name, QUANT_F32, rows > 1 ? 2 : 1, dims);
}

static void key(gguf_writer *w, const char *arch, const char *name, uint32_t value) {
    char full[64];
    snprintf(full, sizeof full, "%s.%s", arch, name);
    gguf_put_u32(w, full, value);
}

static void put_keys(gguf_writer *w, const char *arch) {
    gguf_put_string(w, "general.architecture", arch, strlen(arch));
    key(w, arch, "block_count", 1);
    key(w, arch, "embedding_length", D);
    key(w, arch, "feed_forward_length", FF);
    key(w, arch, "attention.head_count", HEADS);
    key(w, arch, "attention.head_count_kv", 1);
    key(w, arch, "context_length", 64);
}

static void put_tensors(gguf_writer *w, const variant *v) {
    put(w, v, "token_embd.weight", D, VOCAB);
    put(w, v, "output_norm.weight", D, 1);
    put(w, v, "blk.0.attn_norm.weight", D, 1);
    put(w, v, "blk.0.ffn_norm.weight", D, 1);
    put(w, v, "blk.0.attn_q_norm.weight", D / HEADS, 1);
    put(w, v, "blk.0.attn_k_norm.weight", D / HEADS, 1);
    put(w, v, "blk.0.attn_q.weight", D, D);
    put(w, v, "blk.0.attn_k.weight", D, D / HEADS);
    put(w, v, "blk.0.attn_v.weight", D, D / HEADS);
    put(w, v, "blk.0.attn_output.weight", D, D);
    put(w, v, "blk.0.ffn_gate.weight", D, FF);
    put(w, v, "blk.0.ffn_up.weight", D, FF);
    put(w, v, "blk.0.ffn_down.weight", FF, D);
}

/* Opens the variant; code and text of the error in *e, BP_OK when it opened. */
static void open_variant(const variant *v, bp_err *e) {
    gguf_writer *w = gguf_writer_new();
    uint8_t *header = NULL;
    uint64_t header_size = 0, size = 0;
    *e = (bp_err){BP_OK, 0, ""};
    put_keys(w, v->arch);
    if (v->change) v->change(w, v->arch);
    put_tensors(w, v);
    CHECK(gguf_writer_finish(w, 64, &header, &header_size, &size, e), "%s", e->text);
    uint8_t *file = aligned_alloc(64, bp_round_up((size_t)size, 64));
    memset(file, 0, (size_t)size);
    memcpy(file, header, (size_t)header_size);
    model *m = model_load(file, size, e);
    CHECK(!m == (e->code != BP_OK), "a result and an error exclude each other: %s", e->text);
    model_unload(m);
    free(file);
    free(header);
    gguf_writer_free(w);
}

static void theta_as_text(gguf_writer *w, const char *arch) {
    (void)arch;
    gguf_put_string(w, "llama.rope.freq_base", "500000", 6);
}

static void negative_heads(gguf_writer *w, const char *arch) {
    gguf_put_array(w, "llama.attention.head_count_kv", GGUF_I32, &(int32_t){-4}, 1);
    (void)arch;
}

static void three_kv_heads(gguf_writer *w, const char *arch) { key(w, arch, "attention.head_count_kv", 3); }

static void linear_scaling(gguf_writer *w, const char *arch) {
    (void)arch;
    gguf_put_string(w, "llama.rope.scaling.type", "linear", 6);
}

static void odd_head(gguf_writer *w, const char *arch) { key(w, arch, "attention.key_length", 15); }

static void other_arch(gguf_writer *w, const char *arch) {
    (void)arch;
    gguf_put_string(w, "general.architecture", "mamba", 5);
}

static void wide(gguf_writer *w, const char *arch) { key(w, arch, "embedding_length", 64); }

static void stray_stack(gguf_writer *w, const char *arch) {
    (void)arch;
    gguf_put_array(w, "bitpair.linear.blk.0.attn_q", GGUF_U32, (uint32_t[]){D, D, 32}, 3);
}

int main(void) {
    static const struct {
        variant v;
        bp_err_code code;
        const char *named;
    } cases[] = {
        {{"llama", NULL, NULL}, BP_OK, ""},
        {{"qwen3", NULL, NULL}, BP_OK, ""},
        {{"llama", "blk.0.attn_q_norm.weight", NULL}, BP_OK, ""},
        {{"qwen3", "blk.0.attn_q_norm.weight", NULL}, BP_ERR_FORMAT, "blk.0.attn_q_norm.weight"},
        {{"qwen3", "blk.0.attn_k_norm.weight", NULL}, BP_ERR_FORMAT, "blk.0.attn_k_norm.weight"},
        {{"llama", "blk.0.ffn_up.weight", NULL}, BP_ERR_FORMAT, "blk.0.ffn_up.weight"},
        {{"llama", "token_embd.weight", NULL}, BP_ERR_FORMAT, "vocab_size"},
        {{"llama", NULL, theta_as_text}, BP_ERR_FORMAT, "rope.freq_base"},
        {{"llama", NULL, negative_heads}, BP_ERR_FORMAT, "head_count_kv"},
        {{"llama", NULL, three_kv_heads}, BP_ERR_FORMAT, "head_count_kv"},
        {{"llama", NULL, linear_scaling}, BP_ERR_UNSUPPORTED, "linear"},
        {{"llama", NULL, odd_head}, BP_ERR_UNSUPPORTED, "15"},
        {{"llama", NULL, other_arch}, BP_ERR_UNSUPPORTED, "mamba"},
        {{"llama", NULL, wide}, BP_ERR_FORMAT, "token_embd.weight"},
        {{"llama", NULL, stray_stack}, BP_ERR_FORMAT, "bitpair.version"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bp_err e;
        open_variant(&cases[i].v, &e);
        CHECK(e.code == cases[i].code && strstr(e.text, cases[i].named), "case %zu: %s: %s", i, bp_err_name(e.code),
              e.text);
    }
    return check_end();
}
