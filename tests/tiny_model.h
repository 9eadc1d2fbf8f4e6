/* tiny_model.h - small random models as Hugging Face folders, and their forward pass in double precision, straight from
 * the definition (half-split rotary embedding, weights as in the folder): what reader and engine are held to. */
#ifndef TINY_MODEL_H
#define TINY_MODEL_H

#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "mathf.h"

enum { TINY_TENSORS = 64, TINY_POSITIONS = 64 };
#define TINY_NO_LAYER UINT32_MAX

typedef struct {
    char name[80];
    uint32_t rows, columns; /* a vector has 0 rows */
    float *data;            /* rounded to the dtype */
} tiny_tensor;

typedef struct {
    const char *class_name; /* "LlamaForCausalLM" */
    uint32_t layers, d, ff, heads, kv, hd, vocab;
    bool tied, biases, qk_norms, scaled;
    const char *dtype; /* "F32", "F16", "BF16" */
    tiny_tensor tensors[TINY_TENSORS];
    size_t n;
} tiny_model;

/* ---- weights ---------------------------------------------------------------------------------------------------- */

static uint32_t tiny_state;

/* uniform in [-1, 1) */
static inline double tiny_random(void) {
    tiny_state = tiny_state * 1664525u + 1013904223u;
    return (double)(tiny_state >> 8) / 8388608.0 - 1.0;
}

static inline size_t tiny_element(const tiny_model *m) { return m->dtype[0] == 'F' && m->dtype[1] == '3' ? 4 : 2; }

/* The bits that the file holds for a value, and the value they mean. */
static inline uint32_t tiny_encode(const tiny_model *m, float x, float *rounded) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    if (m->dtype[0] == 'B') {
        bits &= 0xFFFF0000;
        memcpy(rounded, &bits, 4);
        bits >>= 16;
    } else if (tiny_element(m) == 2) {
        bits = bp_half_from_float(x);
        *rounded = bp_half_to_float((uint16_t)bits);
    } else {
        *rounded = x;
    }
    return bits;
}

static inline void tiny_add(tiny_model *m, uint32_t rows, uint32_t columns, double middle, double spread,
                            const char *name) {
    tiny_tensor *t = &m->tensors[m->n++];
    size_t count = (size_t)(rows ? rows : 1) * columns;
    snprintf(t->name, sizeof t->name, "%s", name);
    t->rows = rows;
    t->columns = columns;
    t->data = malloc(count * sizeof *t->data);
    for (size_t i = 0; i < count; i++) tiny_encode(m, (float)(middle + spread * tiny_random()), &t->data[i]);
}

static inline void tiny_make(tiny_model *m, uint32_t seed) {
    tiny_state = seed;
    m->n = 0;
    tiny_add(m, m->vocab, m->d, 0, 1, "model.embed_tokens.weight");
    tiny_add(m, 0, m->d, 1, 0.3, "model.norm.weight");
    if (!m->tied) tiny_add(m, m->vocab, m->d, 0, 0.3, "lm_head.weight");
    for (uint32_t layer = 0; layer < m->layers; layer++) {
        char name[80];
#define TINY_NAME(suffix) (snprintf(name, sizeof name, "model.layers.%u.%s", layer, suffix), name)
        uint32_t q = m->heads * m->hd, kv = m->kv * m->hd;
        tiny_add(m, 0, m->d, 1, 0.3, TINY_NAME("input_layernorm.weight"));
        tiny_add(m, 0, m->d, 1, 0.3, TINY_NAME("post_attention_layernorm.weight"));
        tiny_add(m, q, m->d, 0, 0.2, TINY_NAME("self_attn.q_proj.weight"));
        tiny_add(m, kv, m->d, 0, 0.2, TINY_NAME("self_attn.k_proj.weight"));
        tiny_add(m, kv, m->d, 0, 0.3, TINY_NAME("self_attn.v_proj.weight"));
        tiny_add(m, m->d, q, 0, 0.3, TINY_NAME("self_attn.o_proj.weight"));
        tiny_add(m, m->ff, m->d, 0, 0.3, TINY_NAME("mlp.gate_proj.weight"));
        tiny_add(m, m->ff, m->d, 0, 0.3, TINY_NAME("mlp.up_proj.weight"));
        tiny_add(m, m->d, m->ff, 0, 0.3, TINY_NAME("mlp.down_proj.weight"));
        if (m->biases) {
            tiny_add(m, 0, q, 0, 1, TINY_NAME("self_attn.q_proj.bias"));
            tiny_add(m, 0, kv, 0, 1, TINY_NAME("self_attn.k_proj.bias"));
            tiny_add(m, 0, kv, 0, 1, TINY_NAME("self_attn.v_proj.bias"));
        }
        if (m->qk_norms) {
            tiny_add(m, 0, m->hd, 1, 0.3, TINY_NAME("self_attn.q_norm.weight"));
            tiny_add(m, 0, m->hd, 1, 0.3, TINY_NAME("self_attn.k_norm.weight"));
        }
#undef TINY_NAME
    }
}

static inline void tiny_free(tiny_model *m) {
    for (size_t i = 0; i < m->n; i++) free(m->tensors[i].data);
    m->n = 0;
}

static inline const float *tiny_find(const tiny_model *m, uint32_t layer, const char *suffix) {
    char name[80];
    if (layer == TINY_NO_LAYER)
        snprintf(name, sizeof name, "%s", suffix);
    else
        snprintf(name, sizeof name, "model.layers.%u.%s", layer, suffix);
    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->tensors[i].name, name) == 0) return m->tensors[i].data;
    return NULL;
}

/* ---- the folder ------------------------------------------------------------------------------------------------- */

static inline FILE *tiny_file(const char *folder, const char *name) {
    char path[512];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    if (!f) {
        printf("cannot write %s\n", path);
        exit(1);
    }
    return f;
}

/* One safetensors file of the tensors [first, end). */
static inline void tiny_write_shard(const tiny_model *m, const char *folder, const char *name, size_t first,
                                    size_t end) {
    static char header[1 << 16];
    size_t used = (size_t)snprintf(header, sizeof header, "{\"__metadata__\": {\"format\": \"pt\"}"), at = 0;
    for (size_t i = first; i < end; i++) {
        const tiny_tensor *t = &m->tensors[i];
        size_t bytes = tiny_element(m) * (t->rows ? t->rows : 1) * t->columns;
        char shape[64];
        if (t->rows)
            snprintf(shape, sizeof shape, "%u, %u", t->rows, t->columns);
        else
            snprintf(shape, sizeof shape, "%u", t->columns);
        used += (size_t)snprintf(header + used, sizeof header - used,
                                 ", \"%s\": {\"dtype\": \"%s\", \"shape\": [%s], \"data_offsets\": [%zu, %zu]}",
                                 t->name, m->dtype, shape, at, at + bytes);
        at += bytes;
    }
    used += (size_t)snprintf(header + used, sizeof header - used, "}");
    FILE *f = tiny_file(folder, name);
    uint64_t length = used;
    fwrite(&length, 8, 1, f);
    fwrite(header, 1, used, f);
    for (size_t i = first; i < end; i++) {
        const tiny_tensor *t = &m->tensors[i];
        for (size_t j = 0; j < (size_t)(t->rows ? t->rows : 1) * t->columns; j++) {
            float rounded;
            uint32_t bits = tiny_encode(m, t->data[j], &rounded);
            fwrite(&bits, tiny_element(m), 1, f);
        }
    }
    fclose(f);
}

static inline void tiny_write_index(const tiny_model *m, const char *folder, size_t half) {
    FILE *f = tiny_file(folder, "model.safetensors.index.json");
    fputs("{\"metadata\": {\"total_size\": 1}, \"weight_map\": {", f);
    for (size_t i = 0; i < m->n; i++)
        fprintf(f, "%s\"%s\": \"model-%d.safetensors\"", i ? ", " : "", m->tensors[i].name, i < half ? 1 : 2);
    fputs("}}", f);
    fclose(f);
}

/* config.json; `extra` is put at its end: ", \"name\": value" */
static inline void tiny_write_config(const tiny_model *m, const char *folder, const char *extra) {
    FILE *f = tiny_file(folder, "config.json");
    fprintf(f,
            "{\"architectures\": [\"%s\"], \"hidden_act\": \"silu\", \"hidden_size\": %u, \"intermediate_size\": %u, ",
            m->class_name, m->d, m->ff);
    fprintf(f, "\"num_hidden_layers\": %u, \"num_attention_heads\": %u, \"num_key_value_heads\": %u, ", m->layers,
            m->heads, m->kv);
    fprintf(f,
            "\"vocab_size\": %u, \"max_position_embeddings\": 512, \"rms_norm_eps\": 1e-05, \"rope_theta\": 10000.0, ",
            m->vocab);
    if (m->hd * m->heads != m->d) fprintf(f, "\"head_dim\": %u, ", m->hd);
    if (m->scaled)
        fputs("\"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "
              "\"high_freq_factor\": 4.0, \"original_max_position_embeddings\": 64}, ",
              f);
    fprintf(f, "\"tie_word_embeddings\": %s%s}", m->tied ? "true" : "false", extra);
    fclose(f);
}

/* A byte-level tokenizer of single letters, as many as fit. */
static inline void tiny_write_tokenizer(const tiny_model *m, const char *folder) {
    FILE *f = tiny_file(folder, "tokenizer.json");
    fputs("{\"version\": \"1.0\", \"added_tokens\": [], \"normalizer\": null, \"pre_tokenizer\": {\"type\": "
          "\"ByteLevel\", "
          "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, \"post_processor\": null, "
          "\"decoder\": "
          "{\"type\": \"ByteLevel\", \"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true}, "
          "\"model\": "
          "{\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, \"continuing_subword_prefix\": null, "
          "\"end_of_word_suffix\": null, \"fuse_unk\": false, \"byte_fallback\": false, \"vocab\": {",
          f);
    for (uint32_t i = 0; i < m->vocab; i++) {
        if (i < 26)
            fprintf(f, "%s\"%c\": %u", i ? ", " : "", 'a' + (char)i, i);
        else
            fprintf(f, ", \"%c%c\": %u", 'a' + (char)(i % 26), 'a' + (char)(i / 26), i);
    }
    fputs("}, \"merges\": []}}", f);
    fclose(f);
}

static inline void tiny_write(const tiny_model *m, const char *folder, bool sharded) {
    tiny_write_config(m, folder, "");
    tiny_write_tokenizer(m, folder);
    if (!sharded) {
        tiny_write_shard(m, folder, "model.safetensors", 0, m->n);
        return;
    }
    tiny_write_shard(m, folder, "model-1.safetensors", 0, m->n / 2);
    tiny_write_shard(m, folder, "model-2.safetensors", m->n / 2, m->n);
    tiny_write_index(m, folder, m->n / 2);
}

/* ---- the forward pass ------------------------------------------------------------------------------------------- */

/* y [n] (+)= W [n, k] x (+ bias) */
static inline void tiny_matvec(double *y, const float *w, const float *bias, const double *x, uint32_t n, uint32_t k,
                               bool add) {
    for (uint32_t i = 0; i < n; i++) {
        double sum = bias ? (double)bias[i] : 0;
        for (uint32_t j = 0; j < k; j++) sum += (double)w[(size_t)i * k + j] * x[j];
        y[i] = add ? y[i] + sum : sum;
    }
}

static inline void tiny_norm(double *y, const double *x, const float *w, uint32_t n) {
    double sum = 0;
    for (uint32_t i = 0; i < n; i++) sum += x[i] * x[i];
    double scale = 1 / sqrt(sum / n + 1e-5);
    for (uint32_t i = 0; i < n; i++) y[i] = x[i] * scale * (double)w[i];
}

/* Rotation of one head, (i, i + hd/2) together, with the Llama 3 scaling as transformers computes it. */
static inline void tiny_rotate(const tiny_model *m, double *x, uint32_t position) {
    const double pi = 3.141592653589793;
    for (uint32_t i = 0; i < m->hd / 2; i++) {
        double frequency = pow(10000, -2.0 * i / m->hd), wavelength = 2 * pi / frequency;
        if (m->scaled && wavelength > 64 / 1.0)
            frequency /= 8;
        else if (m->scaled && wavelength >= 64 / 4.0) {
            double smooth = (64 / wavelength - 1) / (4 - 1);
            frequency = (1 - smooth) * frequency / 8 + smooth * frequency;
        }
        double c = cos(position * frequency), s = sin(position * frequency), a = x[i], b = x[i + m->hd / 2];
        x[i] = a * c - b * s;
        x[i + m->hd / 2] = b * c + a * s;
    }
}

typedef struct {
    double *k, *v; /* [layers][positions][kv * hd] */
} tiny_cache;

static inline void tiny_attend(const tiny_model *m, const tiny_cache *cache, double *out, const double *q,
                               uint32_t layer, uint32_t position) {
    size_t width = (size_t)m->kv * m->hd;
    for (uint32_t h = 0; h < m->heads; h++) {
        double scores[TINY_POSITIONS], sum = 0, top = -1e300;
        size_t head = (size_t)(h / (m->heads / m->kv)) * m->hd;
        for (uint32_t t = 0; t <= position; t++) {
            const double *k = cache->k + ((size_t)layer * TINY_POSITIONS + t) * width + head;
            scores[t] = 0;
            for (uint32_t i = 0; i < m->hd; i++) scores[t] += q[h * m->hd + i] * k[i];
            scores[t] /= sqrt(m->hd);
            top = fmax(top, scores[t]);
        }
        for (uint32_t t = 0; t <= position; t++) sum += scores[t] = exp(scores[t] - top);
        for (uint32_t i = 0; i < m->hd; i++) {
            double x = 0;
            for (uint32_t t = 0; t <= position; t++)
                x += scores[t] / sum * cache->v[((size_t)layer * TINY_POSITIONS + t) * width + head + i];
            out[h * m->hd + i] = x;
        }
    }
}

static inline void tiny_layer(const tiny_model *m, const tiny_cache *cache, double *x, uint32_t layer,
                              uint32_t position) {
    double normed[512], q[512], attended[512], gate[512], up[512];
    uint32_t nq = m->heads * m->hd, nkv = m->kv * m->hd;
    double *k = cache->k + ((size_t)layer * TINY_POSITIONS + position) * nkv;
    double *v = cache->v + ((size_t)layer * TINY_POSITIONS + position) * nkv;
    tiny_norm(normed, x, tiny_find(m, layer, "input_layernorm.weight"), m->d);
    tiny_matvec(q, tiny_find(m, layer, "self_attn.q_proj.weight"), tiny_find(m, layer, "self_attn.q_proj.bias"), normed,
                nq, m->d, false);
    tiny_matvec(k, tiny_find(m, layer, "self_attn.k_proj.weight"), tiny_find(m, layer, "self_attn.k_proj.bias"), normed,
                nkv, m->d, false);
    tiny_matvec(v, tiny_find(m, layer, "self_attn.v_proj.weight"), tiny_find(m, layer, "self_attn.v_proj.bias"), normed,
                nkv, m->d, false);
    for (uint32_t h = 0; h < m->heads + m->kv; h++) {
        double *head = h < m->heads ? q + h * m->hd : k + (h - m->heads) * m->hd;
        if (m->qk_norms)
            tiny_norm(head, head,
                      tiny_find(m, layer, h < m->heads ? "self_attn.q_norm.weight" : "self_attn.k_norm.weight"), m->hd);
        tiny_rotate(m, head, position);
    }
    tiny_attend(m, cache, attended, q, layer, position);
    tiny_matvec(x, tiny_find(m, layer, "self_attn.o_proj.weight"), NULL, attended, m->d, nq, true);
    tiny_norm(normed, x, tiny_find(m, layer, "post_attention_layernorm.weight"), m->d);
    tiny_matvec(gate, tiny_find(m, layer, "mlp.gate_proj.weight"), NULL, normed, m->ff, m->d, false);
    tiny_matvec(up, tiny_find(m, layer, "mlp.up_proj.weight"), NULL, normed, m->ff, m->d, false);
    for (uint32_t i = 0; i < m->ff; i++) gate[i] = gate[i] / (1 + exp(-gate[i])) * up[i];
    tiny_matvec(x, tiny_find(m, layer, "mlp.down_proj.weight"), NULL, gate, m->d, m->ff, true);
}

/* logits [n][vocab] of ids [n], n <= TINY_POSITIONS; every width at most 512 */
static inline void tiny_forward(const tiny_model *m, const int32_t *ids, uint32_t n, double *logits) {
    size_t cached = (size_t)m->layers * TINY_POSITIONS * m->kv * m->hd;
    tiny_cache cache = {malloc(cached * sizeof(double)), malloc(cached * sizeof(double))};
    const float *embedding = tiny_find(m, TINY_NO_LAYER, "model.embed_tokens.weight");
    const float *head = m->tied ? embedding : tiny_find(m, TINY_NO_LAYER, "lm_head.weight");
    for (uint32_t t = 0; t < n; t++) {
        double x[512];
        for (uint32_t i = 0; i < m->d; i++) x[i] = (double)embedding[(size_t)ids[t] * m->d + i];
        for (uint32_t layer = 0; layer < m->layers; layer++) tiny_layer(m, &cache, x, layer, t);
        tiny_norm(x, x, tiny_find(m, TINY_NO_LAYER, "model.norm.weight"), m->d);
        tiny_matvec(logits + (size_t)t * m->vocab, head, NULL, x, m->vocab, m->d, false);
    }
    free(cache.k);
    free(cache.v);
}

#endif
