/* A Hugging Face folder of hostile files. The first byte says which parser meets the rest: config.json, the safetensors
 * (one file, or an index and a shard), tokenizer.json, vocab.json with merges.txt, tokenizer.model. */
#include "fuzz_folder.h"

#include "gguf.h"
#include "io/hf_config.h"
#include "io/hf_tokenizer.h"
#include "io/safetensors.h"
#include "tokenizer.h"

static void check_config(fuzz_input *in) {
    hf_config c;
    bp_err e = {0};
    fuzz_put_file("config.json", in->at, in->left);
    if (!hf_config_read(&c, fuzz_make_folder(), &e)) {
        fuzz_check_error(&e);
        return;
    }
    LAW(c.n_layers && c.d_model && c.n_heads && c.n_kv_heads && c.head_dim && c.vocab && c.n_ctx);
    gguf_writer *w = gguf_writer_new();
    hf_config_put(&c, w);
    gguf_writer_free(w);
    float *divisors = malloc(c.head_dim / 2 * sizeof *divisors + 1);
    if (c.rope_scaled) hf_config_rope_divisors(&c, divisors);
    free(divisors);
}

/* header JSON | 0xff | data: the length in front is the right one, or what the input says */
static void check_safetensors(fuzz_input *in, bool sharded) {
    size_t n;
    const uint8_t *json = fuzz_part(in, &n);
    uint64_t length = n;
    bool lie = in->left > 8 && in->at[0] == 'L';
    if (lie) memcpy(&length, in->at + 1, 8);
    uint8_t *file = malloc(8 + n + in->left);
    memcpy(file, &length, 8);
    memcpy(file + 8, json, n);
    memcpy(file + 8 + n, in->at, in->left);
    if (sharded) {
        fuzz_put_file("model.safetensors", NULL, 0);
        fuzz_put_file("a.safetensors", file, 8 + n + in->left);
        fuzz_put_file("model.safetensors.index.json", in->at, in->left);
    } else {
        fuzz_put_file("model.safetensors", file, 8 + n + in->left);
    }
    free(file);
    safetensors s;
    bp_err e = {0};
    if (!safetensors_open(&s, fuzz_make_folder(), &e)) {
        fuzz_check_error(&e);
        return;
    }
    volatile unsigned sum = 0;
    for (size_t i = 0; i < s.n_tensors; i++) {
        const safetensors_tensor *t = &s.tensors[i];
        if (t->bytes) sum += t->data[0] + t->data[t->bytes - 1];
        LAW(safetensors_find(&s, t->name) && safetensors_path(&s, t));
        if (i) LAW(strcmp(s.tensors[i - 1].name, t->name) < 0);
    }
    safetensors_close(&s);
}

static void use_keys(gguf_writer *w) {
    uint8_t *image = NULL;
    uint64_t size, full;
    bp_err e = {0};
    if (!gguf_writer_finish(w, 64, &image, &size, &full, &e)) {
        fuzz_check_error(&e);
        return;
    }
    gguf g;
    arena a = arena_measure();
    if (gguf_open(&g, &a, image, size, &e)) {
        size_t used = a.used;
        void *memory = NULL, *tables = NULL;
        if (posix_memalign(&memory, 64, used)) abort();
        a = arena_over(memory, used);
        tokenizer *t = NULL;
        if (gguf_open(&g, &a, image, size, &e)) {
            a = arena_measure();
            if (tokenizer_open(&t, &a, &g, &e)) {
                if (posix_memalign(&tables, 64, a.used)) abort();
                a = arena_over(tables, a.used);
                if (!tokenizer_open(&t, &a, &g, &e)) fuzz_check_error(&e);
            }
        }
        free(tables);
        free(memory);
    }
    free(image);
}

static void check_tokenizer(const char *folder) {
    bp_err e = {0};
    gguf_writer *w = gguf_writer_new();
    if (hf_tokenizer_put(w, folder, &e))
        use_keys(w);
    else
        fuzz_check_error(&e);
    gguf_writer_free(w);
}

static void check_tokenizer_json(fuzz_input *in) {
    size_t n;
    const uint8_t *json = fuzz_part(in, &n);
    fuzz_put_file("tokenizer.json", json, n);
    fuzz_put_file("tokenizer_config.json", in->left ? in->at : NULL, in->left);
    check_tokenizer(fuzz_make_folder());
    fuzz_put_file("tokenizer.json", NULL, 0);
    fuzz_put_file("tokenizer_config.json", NULL, 0);
}

static void check_vocab_json(fuzz_input *in) {
    size_t n;
    const uint8_t *part = fuzz_part(in, &n);
    fuzz_put_file("vocab.json", part, n);
    part = fuzz_part(in, &n);
    fuzz_put_file("merges.txt", part, n);
    fuzz_put_file("tokenizer_config.json", in->left ? in->at : NULL, in->left);
    check_tokenizer(fuzz_make_folder());
    fuzz_put_file("vocab.json", NULL, 0);
    fuzz_put_file("merges.txt", NULL, 0);
    fuzz_put_file("tokenizer_config.json", NULL, 0);
}

static void check_sentencepiece(fuzz_input *in) {
    char path[256];
    fuzz_put_file("tokenizer.model", in->at, in->left);
    snprintf(path, sizeof path, "%s/tokenizer.model", fuzz_make_folder());
    check_tokenizer(path);
    fuzz_put_file("tokenizer.model", NULL, 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    switch (fuzz_u8(&in)) {
    case 'c':
        check_config(&in);
        break;
    case 's':
        check_safetensors(&in, false);
        break;
    case 'i':
        check_safetensors(&in, true);
        break;
    case 't':
        check_tokenizer_json(&in);
        break;
    case 'v':
        check_vocab_json(&in);
        break;
    case 'm':
        check_sentencepiece(&in);
        break;
    default:
        return -1; /* not kept */
    }
    return 0;
}
