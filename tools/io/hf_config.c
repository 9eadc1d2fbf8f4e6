#include "io/hf_config.h"

#include <math.h>
#include <stdio.h>

#include "io/json.h"

static const cJSON *member(const cJSON *object, const char *name) {
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(object, name);
    return cJSON_IsNull(item) ? NULL : item;
}

/* *out <- a whole number 1..most; absent: `otherwise`, or an error when that is 0. */
static bool read_count(const cJSON *config, const char *name, uint32_t most, uint32_t otherwise, uint32_t *out,
                       bp_err *e) {
    const cJSON *item = member(config, name);
    uint64_t n = otherwise;
    if ((item && !json_u64(item, &n)) || n < 1 || n > most)
        return bp_fail(e, BP_ERR_FORMAT, 0, "config.json: '%s' must be a whole number from 1 to %u", name, most);
    *out = (uint32_t)n;
    return true;
}

/* *out <- a positive number; absent: `otherwise`, or an error when that is 0. */
static bool read_real(const cJSON *object, const char *name, double otherwise, double *out, bp_err *e) {
    const cJSON *item = member(object, name);
    *out = item ? cJSON_GetNumberValue(item) : otherwise;
    if (*out > 0 && *out < 1e30) return true;
    return bp_fail(e, BP_ERR_FORMAT, 0, "config.json: '%s' must be a positive number", name);
}

static bool read_architecture(hf_config *c, const cJSON *config, bp_err *e) {
    static const struct {
        const char *name, *type, *arch;
    } KNOWN[] = {{"LlamaForCausalLM", "llama", "llama"},
                 {"Qwen2ForCausalLM", "qwen2", "qwen2"},
                 {"Qwen3ForCausalLM", "qwen3", "qwen3"}};
    const char *name = cJSON_GetStringValue(cJSON_GetArrayItem(member(config, "architectures"), 0));
    const char *type = json_text(config, "model_type");
    for (size_t i = 0; i < sizeof KNOWN / sizeof KNOWN[0]; i++) {
        if (name ? strcmp(name, KNOWN[i].name) != 0 : !type || strcmp(type, KNOWN[i].type) != 0) continue;
        c->arch = KNOWN[i].arch;
        return true;
    }
    return bp_fail(e, BP_ERR_UNSUPPORTED, 0,
                   "config.json: architecture '%s'; this build reads Llama, Qwen2 and Qwen3 models",
                   name   ? name
                   : type ? type
                          : "(none)");
}

/* Options that would change the computation in ways that the engine does not know. */
static bool check_options(const cJSON *config, bp_err *e) {
    const char *act = json_text(config, "hidden_act");
    if (act && strcmp(act, "silu") != 0) return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "config.json: hidden_act '%s'", act);
    if (json_flag(config, "use_sliding_window", false))
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "config.json: use_sliding_window");
    if (member(config, "quantization_config"))
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "config.json: quantization_config; take the unquantized model");
    const cJSON *partial = member(config, "partial_rotary_factor");
    if (partial && cJSON_GetNumberValue(partial) != 1.0)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "config.json: partial_rotary_factor");
    return true;
}

static bool read_sizes(hf_config *c, const cJSON *config, bp_err *e) {
    if (!read_count(config, "num_hidden_layers", 1 << 12, 0, &c->n_layers, e) ||
        !read_count(config, "hidden_size", 1 << 20, 0, &c->d_model, e) ||
        !read_count(config, "intermediate_size", 1 << 20, 0, &c->d_ff, e) ||
        !read_count(config, "num_attention_heads", 1 << 12, 0, &c->n_heads, e) ||
        !read_count(config, "num_key_value_heads", 1 << 12, c->n_heads, &c->n_kv_heads, e) ||
        !read_count(config, "head_dim", 1 << 12, c->d_model / c->n_heads, &c->head_dim, e) ||
        !read_count(config, "vocab_size", 1 << 24, 0, &c->vocab, e) ||
        !read_count(config, "max_position_embeddings", 1 << 28, 2048, &c->n_ctx, e))
        return false;
    if (!member(config, "head_dim") && c->d_model % c->n_heads != 0)
        return bp_fail(e, BP_ERR_FORMAT, 0, "config.json: hidden_size %u is no multiple of num_attention_heads %u",
                       c->d_model, c->n_heads);
    if (c->n_heads % c->n_kv_heads != 0)
        return bp_fail(e, BP_ERR_FORMAT, 0,
                       "config.json: num_attention_heads %u is no multiple of num_key_value_heads %u", c->n_heads,
                       c->n_kv_heads);
    if (c->head_dim % 2 != 0) return bp_fail(e, BP_ERR_FORMAT, 0, "config.json: head_dim %u is odd", c->head_dim);
    return true;
}

static bool read_llama3_scaling(hf_config *c, const cJSON *scaling, bp_err *e) {
    c->rope_scaled = true;
    if (!read_real(scaling, "factor", 0, &c->rope_factor, e) ||
        !read_real(scaling, "low_freq_factor", 0, &c->rope_low, e) ||
        !read_real(scaling, "high_freq_factor", 0, &c->rope_high, e) ||
        !read_real(scaling, "original_max_position_embeddings", 0, &c->rope_original, e))
        return false;
    if (c->rope_high > c->rope_low) return true;
    return bp_fail(e, BP_ERR_FORMAT, 0, "config.json: high_freq_factor must be above low_freq_factor");
}

/* Base and scaling stand in config.json itself, in newer files in its member rope_parameters. */
static bool read_rope(hf_config *c, const cJSON *config, bp_err *e) {
    const cJSON *scaling = member(config, "rope_scaling");
    const cJSON *parameters = member(config, "rope_parameters");
    if (!scaling) scaling = parameters;
    if (!read_real(member(config, "rope_theta") ? config : parameters, "rope_theta", 10000, &c->rope_theta, e))
        return false;
    if (!scaling) return true;
    const char *type = json_text(scaling, "rope_type");
    if (!type) type = json_text(scaling, "type");
    if (!type || strcmp(type, "default") == 0) return true;
    if (strcmp(type, "llama3") == 0) return read_llama3_scaling(c, scaling, e);
    return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "config.json: rope scaling '%s'", type);
}

bool hf_config_read(hf_config *c, const char *folder, bp_err *e) {
    char path[4096];
    *c = (hf_config){0};
    snprintf(path, sizeof path, "%s/config.json", folder);
    cJSON *config = json_read(path, e);
    if (!config) return false;
    c->tied = json_flag(config, "tie_word_embeddings", false);
    bool ok = read_architecture(c, config, e) && check_options(config, e) && read_sizes(c, config, e) &&
              read_real(config, "rms_norm_eps", 1e-6, &c->norm_eps, e) && read_rope(c, config, e);
    cJSON_Delete(config);
    return ok;
}

static const char *arch_key(const hf_config *c, const char *name) {
    static _Thread_local char key[96];
    snprintf(key, sizeof key, "%s.%s", c->arch, name);
    return key;
}

void hf_config_put(const hf_config *c, gguf_writer *w) {
    gguf_put_string(w, "general.architecture", c->arch, strlen(c->arch));
    gguf_put_u32(w, arch_key(c, "block_count"), c->n_layers);
    gguf_put_u32(w, arch_key(c, "context_length"), c->n_ctx);
    gguf_put_u32(w, arch_key(c, "embedding_length"), c->d_model);
    gguf_put_u32(w, arch_key(c, "feed_forward_length"), c->d_ff);
    gguf_put_u32(w, arch_key(c, "attention.head_count"), c->n_heads);
    gguf_put_u32(w, arch_key(c, "attention.head_count_kv"), c->n_kv_heads);
    gguf_put_u32(w, arch_key(c, "attention.key_length"), c->head_dim);
    gguf_put_u32(w, arch_key(c, "attention.value_length"), c->head_dim);
    gguf_put_f32(w, arch_key(c, "attention.layer_norm_rms_epsilon"), (float)c->norm_eps);
    gguf_put_u32(w, arch_key(c, "rope.dimension_count"), c->head_dim);
    gguf_put_f32(w, arch_key(c, "rope.freq_base"), (float)c->rope_theta);
    gguf_put_u32(w, arch_key(c, "vocab_size"), c->vocab);
}

/* Long waves (over original / low) are stretched by `factor`, short ones (below original / high) stay, those between
 * are blended. */
void hf_config_rope_divisors(const hf_config *c, float *out) {
    const double two_pi = 6.283185307179586;
    for (uint32_t i = 0; i < c->head_dim / 2; i++) {
        double wavelength = two_pi * pow(c->rope_theta, 2.0 * i / c->head_dim), divisor = 1;
        double turns = c->rope_original / wavelength;
        if (turns < c->rope_low) {
            divisor = c->rope_factor;
        } else if (turns <= c->rope_high) {
            double smooth = (turns - c->rope_low) / (c->rope_high - c->rope_low);
            divisor = 1 / ((1 - smooth) / c->rope_factor + smooth);
        }
        out[i] = (float)divisor;
    }
}
