/* Hugging Face folders: the reader and the engine against the definition, on real and on small random models; hostile
 * files. */
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/hf.h"
#include "io/safetensors.h"
#include "load.h"
#include "tiny_model.h"

static char folder[] = "/tmp/bitpair-check-hf-XXXXXX";

static void remove_files(void) {
    static const char *const NAMES[] = {"config.json",         "tokenizer.json",      "model.safetensors",
                                        "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"};
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
        unlink(path);
    }
}

static const tiny_model LLAMA = {.class_name = "LlamaForCausalLM",
                                 .layers = 2,
                                 .d = 64,
                                 .ff = 96,
                                 .heads = 4,
                                 .kv = 2,
                                 .hd = 16,
                                 .vocab = 64,
                                 .dtype = "F32"};

static tiny_model variant(const char *class_name, const char *dtype) {
    tiny_model m = LLAMA;
    m.class_name = class_name;
    m.dtype = dtype;
    m.biases = strcmp(class_name, "Qwen2ForCausalLM") == 0;
    m.qk_norms = strcmp(class_name, "Qwen3ForCausalLM") == 0;
    return m;
}

/* ---- against the definition ------------------------------------------------------------------------------------- */

/* Largest difference of logits, relative to the largest logit. The engine's cache is half precision. */
static double worst_difference(const float *found, const double *wanted, size_t n) {
    double top = 0, worst = 0;
    for (size_t i = 0; i < n; i++) {
        top = fmax(top, fabs(wanted[i]));
        worst = fmax(worst, fabs((double)found[i] - wanted[i]));
    }
    return worst / top;
}

static void check_forward(tiny_model m, const char *what, bool sharded) {
    enum { N = 48 };
    bp_err e = {0};
    loaded l = {0};
    int32_t ids[N];
    tiny_make(&m, 7);
    tiny_write(&m, folder, sharded);
    for (uint32_t i = 0; i < N; i++) ids[i] = (int32_t)((i * i * 7 + i * 3) % m.vocab);
    bp_engine *engine = bp_engine_open(NULL, &e);
    CHECK(loaded_open(&l, engine, folder, 0, &e), "%s: %s", what, e.text);
    bp_session *session = l.model ? bp_session_open(l.model, &(bp_session_options){.kv_bits = 16}, &e) : NULL;
    double *wanted = malloc(N * m.vocab * sizeof *wanted);
    float *found = calloc(N * m.vocab, sizeof *found);
    tiny_forward(&m, ids, N, wanted);
    CHECK(session && bp_session_feed_all(session, ids, N, found, &e), "%s: %s", what, e.text);
    double worst = worst_difference(found, wanted, N * m.vocab);
    CHECK(worst < 2e-3, "%s: logits differ by %.2e", what, worst);
    free(wanted);
    free(found);
    bp_session_close(session);
    loaded_close(&l);
    bp_engine_close(engine);
    tiny_free(&m);
    remove_files();
}

static void check_architectures(void) {
    tiny_model m = LLAMA;
    check_forward(m, "Llama", false);
    m.tied = true;
    check_forward(m, "Llama, tied", false);
    m = variant("Qwen2ForCausalLM", "F32");
    check_forward(m, "Qwen2 with biases", false);
    m = variant("Qwen3ForCausalLM", "F32");
    m.hd = 32;
    check_forward(m, "Qwen3, head size not width / heads", false);
    m = LLAMA;
    m.scaled = true;
    check_forward(m, "Llama 3 rope scaling", false);
    check_forward(LLAMA, "shards", true);
    check_forward(variant("LlamaForCausalLM", "BF16"), "BF16", false);
    check_forward(variant("Qwen2ForCausalLM", "F16"), "F16", true);
}

/* A tied model that stores only the head (as tinystories-656k does), and the real file itself. */
static void check_head_as_embedding(void) {
    bp_err e = {0};
    tiny_model m = LLAMA;
    uint8_t *image[2] = {NULL, NULL};
    uint64_t size[2];
    m.tied = true;
    tiny_make(&m, 3);
    tiny_write(&m, folder, false);
    CHECK(hf_read(folder, &image[0], &size[0], &e), "%s", e.text);
    snprintf(m.tensors[0].name, sizeof m.tensors[0].name, "lm_head.weight");
    tiny_write(&m, folder, false);
    CHECK(hf_read(folder, &image[1], &size[1], &e), "%s", e.text);
    CHECK(image[0] && image[1] && size[0] == size[1] && memcmp(image[0], image[1], (size_t)size[0]) == 0,
          "images differ");
    free(image[0]);
    free(image[1]);
    tiny_free(&m);
    remove_files();
}

static void check_real_folder(void) {
    bp_err e = {0};
    loaded l = {0};
    bp_model_info info = {0};
    bp_engine *engine = bp_engine_open(NULL, &e);
    CHECK(loaded_open(&l, engine, check_data("models/tinystories-656k"), 0, &e), "%s", e.text);
    if (l.model) bp_model_describe(l.model, &info);
    CHECK(info.n_layers == 2 && info.d_model == 128 && info.d_ff == 384 && info.n_heads == 8 && info.n_kv_heads == 4 &&
              info.head_dim == 16 && info.vocab == 2048 && info.n_ctx == 512 && info.bos == 1 && info.eos == 2,
          "hyper-parameters");
    loaded_close(&l);
    bp_engine_close(engine);
}

/* ---- what is refused, and how ----------------------------------------------------------------------------------- */

static void expect_error(const char *what, bp_err_code code, const char *part) {
    bp_err e = {0};
    uint8_t *image = NULL;
    uint64_t size;
    bool ok = hf_read(folder, &image, &size, &e);
    CHECK(!ok && e.code == code && strstr(e.text, part), "%s: %s", what, ok ? "was read" : e.text);
    if (ok) free(image);
}

static void check_configs(void) {
    static const struct {
        const char *extra, *part;
        bp_err_code code;
    } CASES[] = {
        {", \"quantization_config\": {}", "quantization_config", BP_ERR_UNSUPPORTED},
        {", \"use_sliding_window\": true", "use_sliding_window", BP_ERR_UNSUPPORTED},
        {", \"partial_rotary_factor\": 0.5", "partial_rotary_factor", BP_ERR_UNSUPPORTED},
        {", \"rope_scaling\": {\"type\": \"yarn\", \"factor\": 4}", "yarn", BP_ERR_UNSUPPORTED},
        {", \"rope_scaling\": {\"rope_type\": \"llama3\", \"factor\": 8}", "low_freq_factor", BP_ERR_FORMAT},
        {", \"head_dim\": 15", "head_dim", BP_ERR_FORMAT},
        {", \"head_dim\": -2", "head_dim", BP_ERR_FORMAT},
        {", \"head_dim\": 1e99", "head_dim", BP_ERR_FORMAT},
    };
    tiny_model m = LLAMA;
    tiny_make(&m, 1);
    tiny_write(&m, folder, false);
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        tiny_write_config(&m, folder, CASES[i].extra);
        expect_error(CASES[i].part, CASES[i].code, CASES[i].part);
    }
    tiny_model other = variant("GPT2LMHeadModel", "F32");
    tiny_write_config(&other, folder, "");
    expect_error("architecture", BP_ERR_UNSUPPORTED, "GPT2LMHeadModel");
    other = LLAMA;
    other.kv = 3;
    tiny_write_config(&other, folder, "");
    expect_error("key heads", BP_ERR_FORMAT, "num_key_value_heads");
    other.kv = 0;
    tiny_write_config(&other, folder, "");
    expect_error("no key heads", BP_ERR_FORMAT, "num_key_value_heads");
    fclose(tiny_file(folder, "config.json"));
    expect_error("empty config.json", BP_ERR_FORMAT, "config.json");
    remove_files();
    expect_error("empty folder", BP_ERR_IO, "config.json");
    tiny_write_config(&m, folder, "");
    expect_error("no weights", BP_ERR_IO, "model.safetensors");
    remove_files();
    tiny_free(&m);
}

static void check_tensors(void) {
    tiny_model m = LLAMA;
    tiny_make(&m, 1);
    tiny_write(&m, folder, false);
    m.n--;
    tiny_write_shard(&m, folder, "model.safetensors", 0, m.n);
    m.n++;
    expect_error("missing", BP_ERR_FORMAT, "model.layers.1.mlp.down_proj.weight");
    tiny_add(&m, 0, 64, 0, 1, "model.layers.0.self_attn.q_proj.bias");
    tiny_write(&m, folder, false);
    expect_error("a bias of Llama", BP_ERR_UNSUPPORTED, "q_proj.bias");
    snprintf(m.tensors[m.n - 1].name, 80, "model.layers.0.self_attn.rotary_emb.inv_freq");
    tiny_write(&m, folder, false);
    bp_err e = {0};
    uint8_t *image;
    uint64_t size;
    bool ok = hf_read(folder, &image, &size, &e);
    CHECK(ok, "%s", e.text);
    if (ok) free(image);
    snprintf(m.tensors[m.n - 1].name, 80, "model.norm.weight");
    tiny_write(&m, folder, false);
    expect_error("a tensor twice", BP_ERR_FORMAT, "twice");
    free(m.tensors[--m.n].data);
    m.tensors[3].columns--; /* input_layernorm of layer 0 */
    tiny_write(&m, folder, false);
    expect_error("shape", BP_ERR_FORMAT, "input_layernorm");
    m.tensors[3].columns++;
    m.dtype = "I16";
    tiny_write(&m, folder, false);
    expect_error("dtype", BP_ERR_UNSUPPORTED, "I16");
    m.dtype = "F4";
    tiny_write(&m, folder, false);
    expect_error("unknown dtype", BP_ERR_FORMAT, "dtype");
    remove_files();
    tiny_free(&m);
}

static void write_index(const char *map) {
    FILE *f = tiny_file(folder, "model.safetensors.index.json");
    fprintf(f, "{\"weight_map\": %s}", map);
    fclose(f);
}

static void check_indexes(void) {
    tiny_model m = LLAMA;
    tiny_make(&m, 1);
    tiny_write(&m, folder, true);
    write_index("{\"model.norm.weight\": \"../x.safetensors\"}");
    expect_error("a path out of the folder", BP_ERR_FORMAT, "shard name");
    write_index("{\"model.norm.weight\": \"model-2.safetensors\"}");
    expect_error("the wrong shard", BP_ERR_FORMAT, "is not in model-2.safetensors");
    write_index("{\"model.norm.weight\": \"model-3.safetensors\"}");
    expect_error("a shard that is not there", BP_ERR_IO, "model-3.safetensors");
    write_index("[]");
    expect_error("no map", BP_ERR_FORMAT, "weight_map");
    remove_files();
    tiny_free(&m);
}

/* ---- hostile safetensors ---------------------------------------------------------------------------------------- */

static void write_bytes(const uint8_t *bytes, size_t n) {
    FILE *f = tiny_file(folder, "model.safetensors");
    if (n) fwrite(bytes, 1, n, f);
    fclose(f);
}

/* Opens the file, reads every tensor byte: true when it was accepted. */
static bool try_open(void) {
    safetensors s;
    bp_err e = {0};
    unsigned sum = 0;
    if (!safetensors_open(&s, folder, &e)) {
        CHECK(e.code != BP_OK && e.text[0], "an error without a text");
        return false;
    }
    for (size_t i = 0; i < s.n_tensors; i++)
        for (uint64_t j = 0; j < s.tensors[i].bytes; j++) sum += s.tensors[i].data[j];
    safetensors_close(&s);
    return sum != 1;
}

static void check_hostile(void) {
    static const uint8_t FLIPS[] = {0x01, 0x80, 0xFF};
    tiny_model m = LLAMA;
    m.layers = 1;
    m.d = m.ff = m.vocab = 4;
    m.heads = m.kv = 1;
    m.hd = 4;
    tiny_make(&m, 1);
    tiny_write_shard(&m, folder, "model.safetensors", 0, m.n);
    char path[256];
    file_view f;
    snprintf(path, sizeof path, "%s/model.safetensors", folder);
    CHECK(file_map(&f, path, NULL) && try_open(), "the whole file");
    size_t n = (size_t)f.size, header = 8, accepted = 0;
    uint8_t *bytes = malloc(n);
    memcpy(bytes, f.bytes, n);
    header += bytes[0] + 256u * bytes[1];
    file_unmap(&f);
    for (size_t i = 0; i < n; i++) {
        write_bytes(bytes, i);
        accepted += try_open();
    }
    CHECK(accepted == 0, "%zu truncated files were accepted", accepted);
    for (size_t i = 0; i < header; i++)
        for (size_t k = 0; k < sizeof FLIPS; k++) {
            bytes[i] ^= FLIPS[k];
            write_bytes(bytes, n);
            try_open();
            bytes[i] ^= FLIPS[k];
        }
    free(bytes);
    remove_files();
    tiny_free(&m);
}

int main(void) {
    CHECK(mkdtemp(folder), "no temporary folder");
    check_architectures();
    check_head_as_embedding();
    check_real_folder();
    check_configs();
    check_tensors();
    check_indexes();
    check_hostile();
    CHECK(rmdir(folder) == 0, "the folder is not empty");
    return check_end();
}
