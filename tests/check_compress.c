/* bitpair compress from end to end on a small trained model: a file that opens and answers, the same bytes at any
 * number of threads and after an interruption, every tier a model, and clear refusals. */
#include "compress_run.h"

#include <math.h>
#include <signal.h>

#include "engine.h"
#include "io/gguf_write.h"
#include "quant.h"
#include "load.h"

static size_t count_files(const char *path) {
    DIR *dir = opendir(path);
    size_t n = 0;
    while (dir && readdir(dir)) n++;
    if (dir) closedir(dir);
    return n;
}

/* Mean negative log-likelihood of a run of tokens under a file cut to `size` bytes (0: whole). */
static double file_nll(const char *path, uint64_t size, const int32_t *ids, size_t n) {
    bp_err e = {0};
    file_view f;
    if (!file_map(&f, path, &e)) return NAN;
    bp_engine *engine = bp_engine_open(NULL, &e);
    bp_model *m = bp_model_open(engine, f.bytes, size ? (size_t)size : (size_t)f.size, &e);
    CHECK(m, "%s: %s", path, e.text);
    bp_session *s = m ? bp_session_open(m, NULL, &e) : NULL;
    bp_model_info info = {0};
    if (m) bp_model_describe(m, &info);
    float *logits = malloc((n * info.vocab + 1) * sizeof *logits);
    double total = NAN;
    if (s && bp_session_feed_all(s, ids, n, logits, &e)) {
        total = 0;
        for (size_t i = 0; i + 1 < n; i++) {
            double sum = 0;
            for (uint32_t j = 0; j < info.vocab; j++) sum += exp((double)logits[i * info.vocab + j]);
            total += log(sum) - (double)logits[i * info.vocab + (size_t)ids[i + 1]];
        }
    }
    free(logits);
    bp_session_close(s);
    bp_model_close(m);
    bp_engine_close(engine);
    file_unmap(&f);
    return total / (double)(n - 1);
}

/* Tokens of a story, by the dense model's tokenizer, and their likelihood under it. */
static double dense_nll(const char *path, int32_t *ids, size_t n) {
    bp_err e = {0};
    loaded l = {0};
    static const char story[] =
        "Once upon a time there was a little girl named Lily. She loved to play outside in the park with her friends. "
        "One day, she saw a big dog. The dog was sad because he could not find his ball. Lily helped him to look for "
        "it.";
    bp_engine *engine = bp_engine_open(NULL, &e);
    CHECK(loaded_open(&l, engine, path, 0, &e), "%s", e.text);
    double total = 0;
    int32_t all[sizeof story + 8];
    CHECK(l.model && bp_tokenize(l.model, story, sizeof story - 1, 0, all, sizeof story + 8, &e) >= (ptrdiff_t)n, "%s",
          e.text);
    memcpy(ids, all, n * sizeof *ids);
    bp_session *s = bp_session_open(l.model, NULL, &e);
    for (size_t i = 0; i + 1 < n; i++) {
        bp_session_feed(s, ids + i, 1, &e);
        const float *logits = bp_session_logits(s);
        bp_model_info info;
        bp_model_describe(l.model, &info);
        double sum = 0;
        for (uint32_t j = 0; j < info.vocab; j++) sum += exp((double)logits[j]);
        total += log(sum) - (double)logits[ids[i + 1]];
    }
    bp_session_close(s);
    loaded_close(&l);
    bp_engine_close(engine);
    return total / (double)(n - 1);
}

/* Four stages come near the dense model, and each tier nearer than the one before. */
static void check_quality(const char *original, const char *calib) {
    enum { TOKENS = 24 };
    int32_t ids[TOKENS];
    char out[PATH];
    snprintf(out, sizeof out, "%s", in_folder("quality.gguf"));
    double dense = dense_nll(original, ids, TOKENS);
    CHECK(run(original, out, calib,
              OPTIONS("--stages", "1,1,1,1", "--embedding-bits", "8", "--calib-tokens", "4096")) == 0,
          "compress failed");
    bp_err e = {0};
    file_view f;
    CHECK(file_map(&f, out, &e), "%s", e.text);
    CHECK(bp_verify(f.bytes, (size_t)f.size, &e), "%s", e.text);
    bp_engine *engine = bp_engine_open(NULL, &e);
    bp_model *m = bp_model_open(engine, f.bytes, (size_t)f.size, &e);
    CHECK(m, "%s", e.text);
    uint64_t ends[4] = {0};
    double bits[4] = {0};
    for (uint32_t t = 0; m && t < 4; t++) CHECK(bp_model_tier(m, t, &ends[t], &bits[t]), "tier %u is missing", t);
    CHECK(ends[3] == f.size && bits[0] > 1 && bits[0] < 1.5 && bits[3] > 3.9 * bits[0],
          "tiers: end %llu of %llu, %g to %g bits", (unsigned long long)ends[3], (unsigned long long)f.size, bits[0],
          bits[3]);
    bp_model_close(m);
    bp_engine_close(engine);
    file_unmap(&f);
    double last = INFINITY;
    for (uint32_t t = 1; t < 4; t++) {
        double nll = file_nll(out, ends[t], ids, TOKENS);
        CHECK(nll < last + 0.05, "tier %u: nll %.3f after %.3f", t, nll, last);
        last = nll;
    }
    CHECK(last < dense + 0.6, "four stages: nll %.3f, dense %.3f", last, dense);
}

static void check_same_bytes(const char *original, const char *calib) {
    char one[PATH], two[PATH], other[PATH], resumed[PATH], work[PATH + 8], log[PATH];
    snprintf(one, sizeof one, "%s", in_folder("one.gguf"));
    snprintf(two, sizeof two, "%s", in_folder("two.gguf"));
    snprintf(other, sizeof other, "%s", in_folder("other.gguf"));
    snprintf(resumed, sizeof resumed, "%s", in_folder("resumed.gguf"));
    snprintf(work, sizeof work, "%s.work", resumed);
    snprintf(log, sizeof log, "%s", in_folder("log"));
    CHECK(run(original, one, calib, OPTIONS("--threads", "1")) == 0, "1 thread failed");
    CHECK(run(original, two, calib, OPTIONS("--threads", "2")) == 0, "2 threads failed");
    CHECK(run(original, other, calib, OPTIONS("--seed", "1")) == 0, "another seed failed");
    CHECK(same_files(one, two), "2 threads give other bytes than 1");
    CHECK(!same_files(one, other), "another seed gives the same bytes");

    pid_t pid = start(original, resumed, calib, OPTIONS("--iterations", "20"), log);
    for (int i = 0; i < 20000 && count_files(work) < 2 + 1 + 4; i++)
        usleep(500); /* . and .., fingerprint, some layers */
    kill(pid, SIGINT);
    int rc = wait_for(pid);
    CHECK(rc == 130, "interrupted: exit code %d", rc);
    struct stat st;
    CHECK(stat(resumed, &st) != 0 && count_files(work) > 3, "an interrupted run leaves the wrong files");
    CHECK(run(original, resumed, calib, OPTIONS("--iterations", "20")) == 1, "begins anew without being asked");
    CHECK(run(original, resumed, calib, OPTIONS("--iterations", "21", "--resume")) == 1, "resumes with other options");
    CHECK(run(original, resumed, calib, OPTIONS("--iterations", "20", "--resume")) == 0, "resume failed");
    CHECK(run(original, one, calib, OPTIONS("--iterations", "20", "--force")) == 0, "--force failed");
    CHECK(same_files(one, resumed), "a resumed run gives other bytes");
    CHECK(stat(work, &st) != 0, "the work folder is left behind");
}

/* Stages on top of a file: its tiers stay, what is new helps, and the files that cannot be extended are refused. */
static void check_extended(const char *original, const char *calib) {
    enum { TOKENS = 24 };
    int32_t ids[TOKENS];
    char base[PATH], out[PATH], again[PATH], other[PATH];
    snprintf(base, sizeof base, "%s", in_folder("base.gguf"));
    snprintf(out, sizeof out, "%s", in_folder("extended.gguf"));
    snprintf(again, sizeof again, "%s", in_folder("again.gguf"));
    snprintf(other, sizeof other, "%s", in_folder("other.gguf"));
    dense_nll(original, ids, TOKENS);
    CHECK(run(original, base, calib, OPTIONS("--stages", "1,1", "--seed", "5")) == 0, "compress failed");
    CHECK(run(original, out, calib, OPTIONS("--extend", base, "--stages", "1,1", "--threads", "1")) == 0,
          "extend failed");
    CHECK(run(original, again, calib, OPTIONS("--extend", base, "--stages", "1,1", "--threads", "2")) == 0,
          "extend failed");
    CHECK(same_tiers(base, out, 2), "the tiers of the base changed");
    CHECK(same_files(out, again), "2 threads give other bytes than 1");
    double before = file_nll(base, 0, ids, TOKENS), after = file_nll(out, 0, ids, TOKENS);
    CHECK(after < before - 0.1, "nll %.3f before, %.3f after two more stages", before, after);
    CHECK(run(original, other, calib, OPTIONS("--extend", original, "--force")) == 1, "a dense base");
    CHECK(run(original, other, calib, OPTIONS("--extend", out, "--stages", "1,1,1,1,1,1,1", "--force")) == 1,
          "too many stages");
    CHECK(run(original, other, calib, OPTIONS("--extend", base, "--allocate", "equal-loss", "--force")) == 2,
          "bits spread anew");
}

/* Error of the student's residual stream after the last block, which fitting of blocks is to lower, as the run with
 * these options reports it. (The perplexity of so few tokens moves by several percent anyhow.) */
static double stream_error(const char *original, const char *out, const char *calib, const char *const *more) {
    char text[2048] = "";
    pid_t pid = call_apart(cmd_compress,
                           OPTIONS("compress", original, "-o", out, "--calib", calib, "--calib-tokens", "16384",
                                   "--ctx", "64", "--iterations", "6", "--json"),
                           more, in_folder("log"), in_folder("out"));
    CHECK(wait_for(pid) == 0, "compress failed");
    FILE *f = fopen(in_folder("out"), "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *at = strstr(text, "\"stream_error\": ");
    return at ? atof(at + 16) : NAN;
}

/* Blocks whose layers are fitted together: nearer, the same bytes however it runs, earlier tiers stay where they must. */
static void check_fitted(const char *original, const char *calib) {
    char plain[PATH], fitted[PATH], one[PATH], resumed[PATH], work[PATH + 8], log[PATH], last[PATH + 64];
    snprintf(plain, sizeof plain, "%s", in_folder("plain.gguf"));
    snprintf(fitted, sizeof fitted, "%s", in_folder("fitted.gguf"));
    snprintf(one, sizeof one, "%s", in_folder("fitted-1.gguf"));
    snprintf(resumed, sizeof resumed, "%s", in_folder("fitted-resumed.gguf"));
    snprintf(work, sizeof work, "%s.work", resumed);
    snprintf(last, sizeof last, "%s/blk.0.ffn_down.fitted", work);
    snprintf(log, sizeof log, "%s", in_folder("log"));
    double before = 0, after = 0; /* what fitting gains is 1.5 to 4 %, as the start is drawn */
    for (int seed = 0; seed < 3; seed++) {
        const char number[] = {(char)('0' + seed), 0};
        before += stream_error(original, plain, calib, OPTIONS("--stages", "1,1", "--seed", number, "--force")) / 3;
        after += stream_error(original, fitted, calib,
                              OPTIONS("--stages", "1,1", "--block-steps", "40", "--seed", number, "--force")) /
                 3;
    }
    CHECK(after < 0.99 * before, "error of the stream %.4f, fitted %.4f", before, after);
    CHECK(run(original, one, calib, OPTIONS("--block-steps", "8", "--threads", "1")) == 0, "1 thread failed");
    CHECK(run(original, fitted, calib, OPTIONS("--block-steps", "8", "--threads", "2", "--force")) == 0,
          "2 threads failed");
    CHECK(same_files(one, fitted), "2 threads give other bytes than 1");
    struct stat st;
    pid_t pid = start(original, resumed, calib, OPTIONS("--block-steps", "8"), log);
    for (int i = 0; i < 20000 && stat(last, &st) != 0; i++) usleep(500); /* the first block is done */
    kill(pid, SIGINT);
    int rc = wait_for(pid);
    CHECK(rc == 130 || rc == 0, "interrupted: exit code %d", rc);
    if (rc) CHECK(run(original, resumed, calib, OPTIONS("--block-steps", "8", "--resume")) == 0, "resume failed");
    CHECK(same_files(one, resumed), "a resumed run gives other bytes");
    CHECK(run(original, fitted, calib, OPTIONS("--extend", plain, "--stages", "1", "--block-steps", "8", "--force")) ==
              0,
          "extend failed");
    CHECK(same_tiers(plain, fitted, 2), "the tiers of the base changed");
}

static double bits_of(const char *path) {
    bp_err e = {0};
    file_view f;
    CHECK(file_map(&f, path, &e), "%s", e.text);
    model *m = model_load(f.bytes, (size_t)f.size, &e);
    CHECK(m, "%s", e.text);
    double bits = m ? (double)m->tier_bits[m->n_tiers - 1] / (double)m->linear_weights : NAN;
    model_unload(m);
    file_unmap(&f);
    return bits;
}

/* Scales in 8 bits: fewer of them, about the same error; stages on top of others keep what is there. */
static void check_scale_bits(const char *original, const char *calib) {
    char eight[PATH], sixteen[PATH], out[PATH];
    snprintf(eight, sizeof eight, "%s", in_folder("eight.gguf"));
    snprintf(sixteen, sizeof sixteen, "%s", in_folder("sixteen.gguf"));
    snprintf(out, sizeof out, "%s", in_folder("both.gguf"));
    double error = stream_error(original, eight, calib, OPTIONS("--stages", "1,1")),
           other = stream_error(original, sixteen, calib, OPTIONS("--stages", "1,1", "--scale-bits", "16")),
           few = bits_of(eight), many = bits_of(sixteen);
    CHECK(few < many - 0.1, "%.4f bits with scales in 8 bits, %.4f in 16", few, many);
    CHECK(error < 1.15 * other, "error of the stream %.4f with scales in 8 bits, %.4f in 16", error, other);
    CHECK(run(original, out, calib, OPTIONS("--extend", sixteen, "--stages", "1")) == 0 && same_tiers(sixteen, out, 2),
          "a file with both kinds");
}

/* Tokens and outputs weighed by whole gradients: one file however it runs, also where the measurement is stopped. */
static void check_weighed(const char *original, const char *calib) {
    char plain[PATH], one[PATH], two[PATH], resumed[PATH], work[PATH + 8], kept[PATH + 24], log[PATH];
    snprintf(plain, sizeof plain, "%s", in_folder("unweighed.gguf"));
    snprintf(one, sizeof one, "%s", in_folder("weighed-1.gguf"));
    snprintf(two, sizeof two, "%s", in_folder("weighed-2.gguf"));
    snprintf(resumed, sizeof resumed, "%s", in_folder("weighed-resumed.gguf"));
    snprintf(work, sizeof work, "%s.work", resumed);
    snprintf(kept, sizeof kept, "%s/gradients", work);
    snprintf(log, sizeof log, "%s", in_folder("log"));
    CHECK(run(original, plain, calib, OPTIONS("--calib-tokens", "32768", "--gradients", "diagonal")) == 0,
          "compress failed");
    CHECK(run(original, one, calib, OPTIONS("--calib-tokens", "32768", "--threads", "1")) == 0, "1 thread failed");
    CHECK(run(original, two, calib, OPTIONS("--calib-tokens", "32768", "--threads", "2")) == 0, "2 threads failed");
    CHECK(same_files(one, two), "2 threads give other bytes than 1");
    CHECK(!same_files(one, plain), "weights change nothing");
    struct stat st;
    pid_t pid = start(original, resumed, calib, OPTIONS("--calib-tokens", "32768"), log);
    for (int i = 0; i < 20000 && count_files(work) < 2 + 1; i++) usleep(500); /* the fingerprint is there */
    kill(pid, SIGINT);
    int rc = wait_for(pid);
    CHECK(rc == 130 && stat(kept, &st) == 0 && count_files(work) == 2 + 2, "interrupted: exit code %d, %zu files", rc,
          count_files(work));
    CHECK(run(original, resumed, calib, OPTIONS("--calib-tokens", "32768", "--resume")) == 0, "resume failed");
    CHECK(same_files(one, resumed), "a resumed run gives other bytes");
}

/* out <- the GGUF file `from` with one more tensor, a vector of zeros. */
static void add_vector(const char *out, const char *from, const char *name, uint64_t n) {
    source s;
    gguf header;
    void *memory = NULL;
    uint8_t *bytes = NULL;
    uint64_t begin = 0, full = 0;
    bp_err e = {0};
    CHECK(source_open(&s, from, &e) && header_open(&header, &memory, &s, &e), "%s", e.text);
    gguf_writer *w = gguf_writer_new();
    for (uint32_t i = 0; i < header.n_keys; i++) gguf_put_key(w, &header.keys[i]);
    for (uint32_t i = 0; i < header.n_tensors; i++) {
        const gguf_tensor *t = &header.tensors[i];
        char copy[128];
        snprintf(copy, sizeof copy, "%.*s", (int)t->name.size, t->name.text);
        gguf_put_tensor(w, copy, t->type, t->n_dims, t->dims);
    }
    gguf_put_tensor(w, name, QUANT_F32, 1, &n);
    CHECK(gguf_writer_finish(w, (uint32_t)header.alignment, &bytes, &begin, &full, &e), "%s", e.text);
    uint8_t *file = calloc(1, full);
    memcpy(file, bytes, begin);
    for (uint32_t i = 0; i < header.n_tensors; i++)
        memcpy(file + gguf_writer_offset(w, i), s.bytes + header.tensors[i].offset, header.tensors[i].bytes);
    FILE *f = fopen(out, "wb");
    CHECK(f && fwrite(file, 1, full, f) == full && fclose(f) == 0, "%s", out);
    free(file);
    free(bytes);
    gguf_writer_free(w);
    free(memory);
    source_close(&s);
}

/* A bias that calibration would leave out */
static void check_biased(const char *original, const char *calib) {
    char dense[PATH], biased[PATH], out[PATH], log[PATH], text[512] = "";
    snprintf(dense, sizeof dense, "%s", in_folder("q8.gguf"));
    snprintf(biased, sizeof biased, "%s", in_folder("biased.gguf"));
    snprintf(out, sizeof out, "%s", in_folder("no.gguf"));
    snprintf(log, sizeof log, "%s", in_folder("log"));
    CHECK(wait_for(call_apart(cmd_compress, OPTIONS("compress", original, "-o", dense, "--method", "q8_0"),
                              OPTIONS("--quiet"), log, "/dev/null")) == 0,
          "q8_0");
    add_vector(biased, dense, "blk.1.attn_output.bias", 128);
    CHECK(run(biased, out, calib, OPTIONS("--bits", "1")) == 1, "a bias of attn_output is left out");
    FILE *f = fopen(log, "r");
    text[f ? fread(text, 1, sizeof text - 1, f) : 0] = 0;
    if (f) fclose(f);
    CHECK(strstr(text, "blk.1.attn_output.bias"), "%s", text);
}

/* Each is refused with this exit code and one line that says this. */
static void check_refusals(const char *original, const char *calib) {
    char latin[PATH], tiny[PATH], done[PATH], fresh[PATH], log[PATH];
    snprintf(latin, sizeof latin, "%s", in_folder("latin.txt"));
    snprintf(tiny, sizeof tiny, "%s", in_folder("tiny.txt"));
    snprintf(done, sizeof done, "%s", in_folder("two.gguf"));
    snprintf(fresh, sizeof fresh, "%s", in_folder("fresh.gguf"));
    snprintf(log, sizeof log, "%s", in_folder("log"));
    FILE *f = fopen(latin, "w");
    for (int i = 0; i < 3000; i++) fputs("caf\xe9 au lait ", f);
    fclose(f);
    f = fopen(tiny, "w");
    fputs("Once upon a time.\n", f);
    fclose(f);
    const struct {
        const char *original, *out, *calib, *option, *value, *says;
        int rc;
    } cases[] = {{original, fresh, latin, "--seed", "0", "not UTF-8", 1},
                 {original, fresh, tiny, "--seed", "0", "too short", 1},
                 {original, fresh, "no-such-file", "--seed", "0", "no-such-file", 1},
                 {done, fresh, calib, "--seed", "0", "compressed already", 1},
                 {original, done, calib, "--seed", "0", "two.gguf", 1},
                 {original, "/no/such/folder/x.gguf", calib, "--seed", "0", "/no/such/folder", 1},
                 {original, fresh, calib, "--max-memory", "1", "--max-memory", 1},
                 {original, fresh, calib, "--ctx", "4096", "context", 1},
                 {original, fresh, calib, "--stages", "1,x", "--stages", 2},
                 {original, fresh, calib, "--embedding-bits", "3", "--embedding-bits", 2},
                 {original, fresh, calib, "--method", "magic", "--method", 2},
                 {original, fresh, calib, "--scale-bits", "12", "--scale-bits", 2},
                 {original, fresh, calib, "--gradients", "some", "--gradients", 2},
                 {calib, fresh, calib, "--seed", "0", "GGUF", 1}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int rc = wait_for(
            start(cases[i].original, cases[i].out, cases[i].calib, OPTIONS(cases[i].option, cases[i].value), log));
        char text[2048] = "";
        f = fopen(log, "r");
        size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
        if (f) fclose(f);
        text[n] = 0;
        CHECK(rc == cases[i].rc && strstr(text, cases[i].says), "case %zu: exit code %d, says '%s'", i, rc, text);
    }
    struct stat st;
    CHECK(stat(fresh, &st) != 0, "a refused run leaves a file");
}

int main(void) {
    char original[1024], calib[1024];
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    CHECK(mkdtemp(own_folder), "no temporary folder");
    if (access(original, R_OK) != 0 || access(calib, R_OK) != 0) {
        CHECK(false, "%s or %s is missing: set BITPAIR_SHARED_DATA", original, calib);
    } else {
        check_quality(original, calib);
        check_same_bytes(original, calib);
        check_extended(original, calib);
        check_fitted(original, calib);
        check_weighed(original, calib);
        check_scale_bits(original, calib);
        check_biased(original, calib);
        check_refusals(original, calib);
    }
    remove_all();
    return check_end();
}
