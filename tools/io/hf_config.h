/* hf_config.h - config.json of a Hugging Face folder: the hyper-parameters of a Llama, Qwen2 or Qwen3 model. */
#ifndef BITPAIR_HF_CONFIG_H
#define BITPAIR_HF_CONFIG_H

#include "io/gguf_write.h"

typedef struct {
    const char *arch; /* "llama", "qwen2", "qwen3" */
    uint32_t n_layers, d_model, d_ff, n_heads, n_kv_heads, head_dim, vocab, n_ctx;
    double rope_theta, norm_eps;
    bool tied;        /* the head is the embedding */
    bool rope_scaled; /* Llama 3: frequencies below the original context are stretched */
    double rope_factor, rope_low, rope_high, rope_original;
} hf_config;

/* BP_ERR_IO, BP_ERR_FORMAT (a number is missing or out of range: named), BP_ERR_UNSUPPORTED (architecture, activation,
 * rope scaling, sliding windows, quantization: named). */
bool hf_config_read(hf_config *c, const char *folder, bp_err *e);

/* general.architecture, <arch>.block_count, ... */
void hf_config_put(const hf_config *c, gguf_writer *w);

/* out [head_dim / 2]: what the Llama 3 scaling divides each rotary frequency by (tensor rope_freqs.weight). */
void hf_config_rope_divisors(const hf_config *c, float *out);

#endif
