/* bitpair inspect: what is in a model file. */
#include <stdio.h>
#include <stdlib.h>

#include "io/json.h"
#include "load.h"
#include "quant.h"

typedef struct {
    const source *source;
    const bp_model *model;
    bp_model_info info;
    gguf file;
    uint64_t embedding_bytes; /* token_embd.* */
    char embedding_type[32];
} inspection;

/* ---- what both views need --------------------------------------------------------------------------------------- */

static bool begins_with(gguf_text t, const char *s) { return t.size >= strlen(s) && memcmp(t.text, s, strlen(s)) == 0; }

static void measure_embedding(inspection *v) {
    uint64_t planes;
    for (uint32_t i = 0; i < v->file.n_tensors; i++) {
        const gguf_tensor *t = &v->file.tensors[i];
        if (!begins_with(t->name, "token_embd.")) continue;
        v->embedding_bytes += t->bytes;
        snprintf(v->embedding_type, sizeof v->embedding_type, "%s", quant_name(t->type));
    }
    if (gguf_u64(&v->file, "bitpair.embedding.planes", &planes))
        snprintf(v->embedding_type, sizeof v->embedding_type, "%llu bit planes", (unsigned long long)planes);
}

/* A text of the file as a C string, cut to capacity. Control characters, which a terminal would obey, become '?'. */
static const char *clean_text(const char *bytes, size_t size, char *out, size_t capacity) {
    size_t n = bp_min(size, capacity - 1);
    for (size_t i = 0; i < n; i++) out[i] = (uint8_t)bytes[i] < 0x20 || bytes[i] == 0x7F ? '?' : bytes[i];
    out[n] = 0;
    return out;
}

/* A string key; "" where there is none. */
static const char *key_text(const inspection *v, const char *key, char *out, size_t capacity) {
    size_t size = 0;
    const char *bytes = bp_model_string(v->model, key, &size);
    return clean_text(bytes, size, out, capacity);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static void add_key_text(cJSON *to, const inspection *v, const char *name, const char *key) {
    size_t size = 0;
    const char *bytes = bp_model_string(v->model, key, &size);
    char *value = size ? malloc(size + 1) : NULL;
    if (value) cJSON_AddStringToObject(to, name, clean_text(bytes, size, value, size + 1));
    free(value);
}

static void add_hyper_parameters(cJSON *root, const bp_model_info *m) {
    cJSON *to = cJSON_AddObjectToObject(root, "hyper_parameters");
    cJSON_AddNumberToObject(to, "layers", m->n_layers);
    cJSON_AddNumberToObject(to, "d_model", m->d_model);
    cJSON_AddNumberToObject(to, "d_ff", m->d_ff);
    cJSON_AddNumberToObject(to, "heads", m->n_heads);
    cJSON_AddNumberToObject(to, "kv_heads", m->n_kv_heads);
    cJSON_AddNumberToObject(to, "head_dim", m->head_dim);
    cJSON_AddNumberToObject(to, "vocab", m->vocab);
    cJSON_AddNumberToObject(to, "context", m->n_ctx);
}

static void add_tiers(cJSON *root, const inspection *v) {
    cJSON *tiers = cJSON_AddArrayToObject(root, "tiers");
    uint64_t end;
    double bits;
    for (uint32_t i = 0; bp_model_tier(v->model, i, &end, &bits); i++) {
        cJSON *tier = cJSON_CreateObject();
        cJSON_AddNumberToObject(tier, "end", (double)end);
        cJSON_AddNumberToObject(tier, "bits_per_weight", bits);
        cJSON_AddItemToArray(tiers, tier);
    }
    cJSON_AddNumberToObject(root, "tiers_at_hand", v->info.tier);
}

static void add_tokenizer(cJSON *root, const inspection *v) {
    cJSON *to = cJSON_AddObjectToObject(root, "tokenizer");
    size_t size;
    add_key_text(to, v, "model", "tokenizer.ggml.model");
    add_key_text(to, v, "pre", "tokenizer.ggml.pre");
    cJSON_AddNumberToObject(to, "bos", v->info.bos);
    cJSON_AddNumberToObject(to, "eos", v->info.eos);
    cJSON_AddBoolToObject(to, "chat_template", bp_model_string(v->model, "tokenizer.chat_template", &size) != NULL);
}

/* Shapes as the network writes them: [outputs, inputs]. */
static void add_tensors(cJSON *root, const gguf *g) {
    cJSON *tensors = cJSON_AddArrayToObject(root, "tensors");
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        char name[256];
        cJSON *entry = cJSON_CreateObject();
        cJSON_AddStringToObject(entry, "name", clean_text(t->name.text, t->name.size, name, sizeof name));
        cJSON_AddStringToObject(entry, "type", quant_name(t->type));
        cJSON *shape = cJSON_AddArrayToObject(entry, "shape");
        for (uint32_t d = t->n_dims; d-- > 0;) cJSON_AddItemToArray(shape, cJSON_CreateNumber((double)t->dims[d]));
        cJSON_AddNumberToObject(entry, "bytes", (double)t->bytes);
        cJSON_AddNumberToObject(entry, "offset", (double)t->offset);
        cJSON_AddItemToArray(tensors, entry);
    }
}

static bool print_json(const inspection *v, bp_err *e) {
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "file", v->source->name);
    add_key_text(root, v, "name", "general.name");
    cJSON_AddNumberToObject(root, "bytes", (double)v->source->size);
    cJSON_AddStringToObject(root, "architecture", v->info.arch);
    cJSON_AddNumberToObject(root, "bits_per_weight", v->info.bits_per_weight);
    add_tiers(root, v);
    add_hyper_parameters(root, &v->info);
    add_tokenizer(root, v);
    cJSON *embedding = cJSON_AddObjectToObject(root, "embedding");
    cJSON_AddStringToObject(embedding, "type", v->embedding_type);
    cJSON_AddNumberToObject(embedding, "bytes", (double)v->embedding_bytes);
    add_key_text(root, v, "license", "general.license");
    add_key_text(root, v, "source", "bitpair.source");
    add_key_text(root, v, "recipe", "bitpair.recipe");
    add_tensors(root, &v->file);
    char *out = cJSON_PrintUnformatted(root);
    cJSON_Delete(root);
    if (!out) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the description");
    puts(out);
    cJSON_free(out);
    return true;
}

/* ---- for people ------------------------------------------------------------------------------------------------- */

static void print_line(const char *what, const char *value) {
    if (value[0]) printf("%-14s %s\n", what, value);
}

static void print_model(const inspection *v) {
    const bp_model_info *m = &v->info;
    char value[200];
    print_line("file", v->source->name);
    print_line("name", key_text(v, "general.name", value, sizeof value));
    printf("%-14s %s, %u layers, width %u, feed-forward %u\n", "model", m->arch, m->n_layers, m->d_model, m->d_ff);
    printf("%-14s %u heads, %u of keys and values, size %u\n", "attention", m->n_heads, m->n_kv_heads, m->head_dim);
    printf("%-14s %u tokens\n%-14s %u tokens\n", "vocabulary", m->vocab, "context", m->n_ctx);
    print_line("license", key_text(v, "general.license", value, sizeof value));
    print_line("made from", key_text(v, "bitpair.source", value, sizeof value));
}

static void print_sizes(const inspection *v) {
    uint64_t end;
    double bits;
    printf("%-14s %.2f MB (%llu bytes)\n", "size", (double)v->source->size / 1e6, (unsigned long long)v->source->size);
    printf("%-14s %.2f MB, %s\n", "embedding", (double)v->embedding_bytes / 1e6, v->embedding_type);
    printf("%-14s %.4f in the linear layers of the blocks, scales counted\n", "bits/weight", v->info.bits_per_weight);
    for (uint32_t i = 0; bp_model_tier(v->model, i, &end, &bits); i++)
        printf("%-14s %u: to byte %llu (%.2f MB), %.4f bits per weight%s\n", i ? "" : "tiers", i + 1,
               (unsigned long long)end, (double)end / 1e6, bits, i < v->info.tier ? "" : " (not in this file)");
}

static void print_tensors(const gguf *g) {
    printf("\n%12s %12s  %-6s %-20s %s\n", "offset", "bytes", "type", "shape", "tensor");
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        char shape[96], name[256];
        size_t used = 0;
        for (uint32_t d = t->n_dims; d-- > 0;)
            used += (size_t)snprintf(shape + used, sizeof shape - used, "%s%llu", used ? " x " : "",
                                     (unsigned long long)t->dims[d]);
        printf("%12llu %12llu  %-6s %-20s %s\n", (unsigned long long)t->offset, (unsigned long long)t->bytes,
               quant_name(t->type), shape, clean_text(t->name.text, t->name.size, name, sizeof name));
    }
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static bool inspect(const char *path, bool json, bool tensors, bp_err *e) {
    loaded l = {0};
    void *memory = NULL;
    inspection v = {0};
    bp_engine *engine = bp_engine_open(NULL, e);
    bool ok = engine && loaded_open(&l, engine, path, 0, e) && header_open(&v.file, &memory, &l.source, e);
    if (ok) {
        v.source = &l.source;
        v.model = l.model;
        bp_model_describe(l.model, &v.info);
        measure_embedding(&v);
        if (json) {
            ok = print_json(&v, e);
        } else {
            print_model(&v);
            print_sizes(&v);
            if (tensors) print_tensors(&v.file);
        }
    }
    free(memory);
    loaded_close(&l);
    bp_engine_close(engine);
    return ok;
}

int cmd_inspect(int argc, char **argv) {
    bool json = false, tensors = false;
    const cli_option options[] = {{"json", 0, CLI_FLAG, &json, 0, 0, NULL, "everything as one line of JSON on stdout"},
                                  {"tensors", 0, CLI_FLAG, &tensors, 0, 0, NULL, "list the tensors as well"},
                                  {0}};
    const cli_spec spec = {.name = "inspect",
                           .usage = "MODEL [options]",
                           .summary = "show what is in a model file",
                           .examples = "  bitpair inspect model.gguf\n"
                                       "  bitpair inspect model.gguf --json | jq .bits_per_weight\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    bp_err e = {0};
    return inspect(path, json, tensors, &e) ? CLI_OK : cli_fail(&e);
}
