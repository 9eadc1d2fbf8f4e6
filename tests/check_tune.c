/* `bitpair tune` from end to end: it comes nearer to the teacher, leaves fixed tiers alone, gives the same bytes at any
 * number of threads and after an interruption, and refuses what it cannot use. */
#include "command_run.h"

#include <signal.h>
#include <time.h>

#include "compress/plan.h"
#include "engine.h"
#include "io/json.h"
#include "offline.h"
#include "tiny_model.h"

static pid_t start(const char *teacher, const char *file, const char *out, const char *calib, const char *const *more) {
    return call_apart(cmd_tune,
                      OPTIONS("tune", teacher, file, "-o", out, "--calib", calib, "--calib-tokens", "4096", "--ctx",
                              "64", "--batch", "4"),
                      more, in_folder("log"), in_folder("out"));
}

/* "name": [before, after] of the tier that stands at `index` in the line of JSON */
static bool read_scores(const char *name, int index, double scores[2]) {
    char text[2048], key[16];
    FILE *f = fopen(in_folder("out"), "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    const char *at = text;
    snprintf(key, sizeof key, "\"%s\": [", name);
    for (int i = 0; at && i <= index; i++) at = strstr(at + (i > 0), key);
    return at && sscanf(at + strlen(key), "%lf, %lf", &scores[0], &scores[1]) == 2;
}

static bool read_kl(int index, double kl[2]) { return read_scores("kl", index, kl); }

/* fixed [2][2] <- KL of one and two tiers with the table as it is, before and after */
static void check_nearer(const char *teacher, const char *file, const char *calib, double fixed[2][2]) {
    char out[PATH];
    double kl[2] = {0, 0};
    bp_err e = {0};
    file_view f;
    snprintf(out, sizeof out, "%s", in_folder("near.gguf"));
    CHECK(wait_for(start(
              teacher, file, out, calib,
              OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--rate", "0.01", "--json"))) == 0,
          "tune failed");
    CHECK(read_kl(0, kl) && kl[1] < 0.96 * kl[0], "the whole file: KL %.4f -> %.4f", kl[0], kl[1]);
    CHECK(file_map(&f, out, &e), "%s", e.text);
    CHECK(bp_verify(f.bytes, (size_t)f.size, &e), "%s", e.text);
    file_unmap(&f);
    CHECK(wait_for(start(teacher, file, in_folder("fixed.gguf"), calib,
                         OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--tiers", "1,1", "--rate",
                                 "0.01", "--embedding-rate", "0", "--json"))) == 0,
          "tune failed");
    CHECK(read_kl(0, fixed[0]) && read_kl(1, fixed[1]), "no result");
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--tiers", "1,1", "--rate",
                                 "0.01", "--json", "--force"))) == 0,
          "tune failed");
    for (int i = 0; i < 2; i++)
        CHECK(read_kl(i, kl) && kl[1] < 0.96 * kl[0], "%d tiers: KL %.4f -> %.4f", i + 1, kl[0], kl[1]);
    CHECK(kl[1] < 0.98 * fixed[1][1], "with the embedding %.4f, without %.4f", kl[1], fixed[1][1]);
}

/* The last tier alone: those before it are the same model afterwards. */
static void check_frozen(const char *teacher, const char *file, const char *calib) {
    char out[PATH];
    double kl[2] = {0, 0};
    snprintf(out, sizeof out, "%s", in_folder("frozen.gguf"));
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--rate", "0.01",
                                 "--from-tier", "3", "--json"))) == 0,
          "tune failed");
    CHECK(read_kl(0, kl) && kl[1] < 0.99 * kl[0], "the last tier: KL %.4f -> %.4f", kl[0], kl[1]);
    CHECK(same_tiers(file, out, 2) && !same_tiers(file, out, 3), "earlier tiers changed, or the last did not");
    CHECK(wait_for(start(teacher, file, in_folder("no.gguf"), calib,
                         OPTIONS("--steps", "1", "--from-tier", "3", "--tiers", "0,1,1"))) == CLI_FAILED,
          "a fixed tier is trained");
}

static double seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Interrupts a run while it makes steps: at half of the time that the whole took, later if it leaves no state then. Its
 * exit code. */
static int interrupted_run(const char *teacher, const char *file, const char *out, const char *calib,
                           const char *const *more, double whole) {
    char state[PATH + 8];
    struct stat info;
    int rc = CLI_INTERRUPTED;
    snprintf(state, sizeof state, "%s.tune", out);
    for (double at = 0.5; rc == CLI_INTERRUPTED && stat(state, &info) != 0; at += 0.1) {
        pid_t pid = start(teacher, file, out, calib, more);
        usleep((useconds_t)(at * whole * 1e6));
        kill(pid, SIGINT);
        rc = wait_for(pid);
    }
    CHECK(rc == CLI_INTERRUPTED || rc == CLI_OK, "exit %d after an interruption", rc);
    return rc;
}

static void check_same_bytes(const char *teacher, const char *file, const char *calib) {
    char one[PATH], two[PATH], lean[PATH], resumed[PATH], state[PATH + 8];
    struct stat info;
    snprintf(one, sizeof one, "%s", in_folder("one.gguf"));
    snprintf(two, sizeof two, "%s", in_folder("two.gguf"));
    snprintf(lean, sizeof lean, "%s", in_folder("lean.gguf"));
    snprintf(resumed, sizeof resumed, "%s", in_folder("resumed.gguf"));
    snprintf(state, sizeof state, "%s.tune", resumed);
    CHECK(wait_for(start(teacher, file, one, calib, OPTIONS("--steps", "24", "--threads", "1"))) == 0, "1 thread");
    double began = seconds();
    CHECK(wait_for(start(teacher, file, two, calib, OPTIONS("--steps", "24", "--threads", "2"))) == 0, "2 threads");
    double whole = seconds() - began;
    CHECK(same_files(one, two), "2 threads give other bytes than 1");
    CHECK(wait_for(start(teacher, file, lean, calib, OPTIONS("--steps", "24", "--max-memory", "1"))) == 0, "lean");
    CHECK(same_files(one, lean), "recomputed activations give other bytes");
    if (interrupted_run(teacher, file, resumed, calib, OPTIONS("--steps", "24", "--threads", "2"), whole) ==
        CLI_INTERRUPTED) {
        CHECK(stat(resumed, &info) != 0 && stat(state, &info) == 0, "an interrupted run leaves a state, no result");
        CHECK(wait_for(start(teacher, file, resumed, calib, OPTIONS("--steps", "24"))) == CLI_FAILED &&
                  stat(state, &info) == 0,
              "begins anew over the state of an interrupted run");
        CHECK(wait_for(start(teacher, file, resumed, calib, OPTIONS("--steps", "25", "--resume"))) == CLI_FAILED,
              "resumed with other options");
        CHECK(wait_for(start(teacher, file, resumed, calib, OPTIONS("--steps", "24", "--ctx", "32", "--resume"))) ==
                  CLI_FAILED,
              "resumed with shorter sequences");
        CHECK(wait_for(start(teacher, two, resumed, calib, OPTIONS("--steps", "24", "--resume"))) == CLI_FAILED,
              "resumed with another student");
        CHECK(wait_for(start(teacher, file, resumed, calib, OPTIONS("--steps", "24", "--resume"))) == 0, "resume");
        CHECK(stat(state, &info) != 0, "the state stays behind");
    }
    CHECK(same_files(one, resumed), "an interrupted run gives other bytes");
}

/* The teacher's table rounded anew: nearer with more planes, that many in the file, the same after an interruption. */
static void check_new_table(const char *teacher, const char *file, const char *calib) {
    char out[PATH], again[PATH];
    double coarse[2] = {0, 0}, fine[2] = {0, 0};
    bp_err e = {0};
    file_view before, after;
    snprintf(out, sizeof out, "%s", in_folder("table.gguf"));
    snprintf(again, sizeof again, "%s", in_folder("again.gguf"));
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "2", "--embedding-rate", "0", "--embedding-bits", "4", "--json"))) == 0,
          "4 planes");
    CHECK(read_kl(0, coarse), "no result");
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "2", "--embedding-bits", "8", "--threads", "1", "--json", "--force"))) == 0,
          "8 planes");
    CHECK(read_kl(0, fine) && fine[0] < coarse[0], "KL %.4f with 8 planes, %.4f with 4", fine[0], coarse[0]);
    CHECK(file_map(&before, file, &e) && file_map(&after, out, &e), "%s", e.text);
    CHECK(bp_verify(after.bytes, (size_t)after.size, &e), "%s", e.text);
    const int64_t planes = 2048 * 128 / 8, more = (int64_t)after.size - (int64_t)before.size; /* 8 instead of 6 */
    CHECK(more >= 2 * planes && more < 2 * planes + 4096, "two planes more take %lld bytes", (long long)more);
    file_unmap(&before);
    file_unmap(&after);
    CHECK(wait_for(start(teacher, file, again, calib,
                         OPTIONS("--steps", "2", "--embedding-bits", "8", "--threads", "2", "--quiet"))) == 0,
          "2 threads");
    CHECK(same_files(out, again), "2 threads give other bytes than 1");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--steps", "1", "--embedding-bits", "3"))) == CLI_USAGE,
          "3 planes");
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "1", "--embedding-bits", "5", "--from-tier", "2"))) == CLI_USAGE,
          "a new table under tiers that stay");
    CHECK(wait_for(start(file, file, in_folder("no.gguf"), calib, OPTIONS("--steps", "1", "--embedding-bits", "5"))) ==
              CLI_FAILED,
          "a compressed teacher gives a table");
    pid_t pid = start(teacher, file, again, calib, OPTIONS("--steps", "2", "--embedding-bits", "8", "--force"));
    usleep(100000);
    kill(pid, SIGINT);
    int rc = wait_for(pid);
    CHECK(rc == CLI_INTERRUPTED || rc == CLI_OK, "exit %d after an interruption", rc);
    CHECK(same_files(out, again), "an early interruption touched the earlier result");
    double began = seconds();
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "24", "--embedding-bits", "8", "--threads", "2", "--force"))) == 0,
          "8 planes, 24 steps");
    double whole = seconds() - began;
    snprintf(again, sizeof again, "%s", in_folder("resumed-table.gguf"));
    if (interrupted_run(teacher, file, again, calib,
                        OPTIONS("--steps", "24", "--embedding-bits", "8", "--threads", "2"), whole) == CLI_INTERRUPTED)
        CHECK(wait_for(start(teacher, file, again, calib,
                             OPTIONS("--steps", "24", "--embedding-bits", "8", "--resume"))) == 0,
              "resume");
    CHECK(same_files(out, again), "an interrupted run gives other bytes");
}

/* Tiers with middle scales of their own come nearer than with shared ones in as many steps, for 16 k bits each; then the
 * first two are trained further and the third is the same model. */
static void check_tier_scales(const char *teacher, const char *file, const char *calib, double shared[2][2]) {
    char out[PATH], more[PATH];
    double kl[2] = {0, 0};
    struct stat sizes[2];
    snprintf(out, sizeof out, "%s", in_folder("own.gguf"));
    snprintf(more, sizeof more, "%s", in_folder("more.gguf"));
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--tiers", "1,1", "--rate",
                                 "0.01", "--embedding-rate", "0", "--tier-scales", "--json"))) == 0,
          "tune failed");
    for (int t = 0; t < 2; t++)
        CHECK(read_kl(t, kl) && kl[1] < shared[t][1], "%d tiers: %.4f, shared %.4f", t + 1, kl[1], shared[t][1]);
    CHECK(stat(file, &sizes[0]) == 0 && stat(out, &sizes[1]) == 0, "no file");
    CHECK(sizes[1].st_size > sizes[0].st_size && (double)sizes[1].st_size < 1.03 * (double)sizes[0].st_size,
          "%lld bytes, shared %lld", (long long)sizes[1].st_size, (long long)sizes[0].st_size);
    CHECK(wait_for(start(teacher, out, more, calib,
                         OPTIONS("--steps", "20", "--batch", "8", "--calib-tokens", "65536", "--tiers", "1,1,0",
                                 "--fix-shared", "--rate", "0.01", "--json"))) == 0,
          "tune failed");
    for (int t = 0; t < 2; t++)
        CHECK(read_kl(t, kl) && kl[1] < kl[0], "%d tiers alone: %.4f -> %.4f", t + 1, kl[0], kl[1]);
    CHECK(same_tiers(out, more, 3), "the third tier changed");
    CHECK(wait_for(start(teacher, file, more, calib,
                         OPTIONS("--steps", "1", "--embedding-bits", "5", "--fix-shared"))) == CLI_USAGE,
          "a new table under tiers that stay");
}

/* What the text says brings its perplexity down further than the teacher does, and leads away from the teacher. */
static void check_labels(const char *teacher, const char *file, const char *calib) {
    double kl[2][2] = {{0}}, ppl[2][2] = {{0}};
    for (int i = 0; i < 2; i++) {
        CHECK(wait_for(start(teacher, file, in_folder("labels.gguf"), calib,
                             OPTIONS("--steps", "60", "--batch", "8", "--calib-tokens", "65536", "--rate", "0.01",
                                     "--labels", i ? "0.1" : "0", "--json", "--force"))) == 0,
              "tune failed");
        CHECK(read_kl(0, kl[i]) && read_scores("ppl", 0, ppl[i]), "no result");
    }
    CHECK(ppl[1][1] < 0.99 * ppl[0][1] && kl[1][1] > kl[0][1] && kl[1][1] < kl[1][0],
          "perplexity %.4f, KL %.4f with the teacher alone, %.4f, %.4f with the text", ppl[0][1], kl[0][1], ppl[1][1],
          kl[1][1]);
    CHECK(wait_for(start(teacher, file, in_folder("no.gguf"), calib, OPTIONS("--steps", "1", "--labels", "1.5"))) ==
              CLI_USAGE,
          "more than all of the loss");
    CHECK(wait_for(start(teacher, file, in_folder("no.gguf"), calib, OPTIONS("--steps", "1", "--labels", "0.1,0"))) ==
              CLI_USAGE,
          "more shares than files");
    char both[2 * PATH], a[PATH], b[PATH];
    snprintf(both, sizeof both, "%s,%s", calib, calib);
    snprintf(a, sizeof a, "%s", in_folder("labels-1.gguf"));
    snprintf(b, sizeof b, "%s", in_folder("labels-2.gguf"));
    CHECK(wait_for(start(teacher, file, a, both, OPTIONS("--steps", "2", "--labels", "0.5,0", "--quiet"))) == 0 &&
              wait_for(start(teacher, file, b, both, OPTIONS("--steps", "2", "--labels", "0,0.5", "--quiet"))) == 0,
          "two files");
    CHECK(!same_files(a, b), "shares of two files are not told apart");
}

/* A file in which q, k, v and gate, up are fused. */
static void check_fused(const char *teacher, const char *calib) {
    char fused[PATH];
    double kl[2] = {0, 0};
    snprintf(fused, sizeof fused, "%s", in_folder("stacks.gguf"));
    pid_t pid =
        call_apart(cmd_compress,
                   OPTIONS("compress", teacher, "-o", fused, "--calib", calib, "--calib-tokens", "4096", "--ctx", "64"),
                   OPTIONS("--stages", "1,1", "--iterations", "8", "--quiet"), in_folder("log"), in_folder("out"));
    CHECK(wait_for(pid) == 0, "compress failed");
    CHECK(wait_for(start(teacher, fused, in_folder("tuned-stacks.gguf"), calib,
                         OPTIONS("--steps", "20", "--batch", "8", "--calib-tokens", "65536", "--rate", "0.01",
                                 "--embedding-rate", "0", "--json"))) == 0,
          "tune failed");
    CHECK(read_kl(0, kl) && kl[1] < 0.97 * kl[0], "fused stacks: KL %.4f -> %.4f", kl[0], kl[1]);
}

/* A table that is not in bit planes stays the student's, whatever the teacher's file has; also under further stages. */
static void check_plain_table(const char *teacher, const char *calib) {
    char rounded[PATH], plain[PATH], tuned[PATH], extended[PATH];
    struct stat before, after;
    snprintf(extended, sizeof extended, "%s", in_folder("extended-plain.gguf"));
    snprintf(rounded, sizeof rounded, "%s", in_folder("rounded.gguf"));
    snprintf(plain, sizeof plain, "%s", in_folder("plain.gguf"));
    snprintf(tuned, sizeof tuned, "%s", in_folder("tuned-plain.gguf"));
    CHECK(wait_for(call_apart(cmd_compress, OPTIONS("compress", teacher, "-o", rounded, "--method", "q8_0"),
                              OPTIONS("--quiet"), in_folder("log"), in_folder("out"))) == 0,
          "q8_0");
    CHECK(wait_for(call_apart(
              cmd_compress,
              OPTIONS("compress", rounded, "-o", plain, "--calib", calib, "--calib-tokens", "4096", "--ctx", "64"),
              OPTIONS("--bits", "1", "--iterations", "4", "--embedding-bits", "0", "--quiet"), in_folder("log"),
              in_folder("out"))) == 0,
          "compress failed");
    CHECK(wait_for(start(teacher, plain, tuned, calib, OPTIONS("--steps", "1", "--embedding-rate", "0"))) == 0,
          "tune failed");
    CHECK(stat(plain, &before) == 0 && stat(tuned, &after) == 0 && labs((long)(after.st_size - before.st_size)) < 1024,
          "%lld bytes, the student %lld", (long long)after.st_size, (long long)before.st_size);
    CHECK(wait_for(call_apart(cmd_compress,
                              OPTIONS("compress", teacher, "-o", extended, "--extend", plain, "--calib", calib,
                                      "--calib-tokens", "4096", "--ctx", "64"),
                              OPTIONS("--bits", "1", "--iterations", "4", "--quiet"), in_folder("log"),
                              in_folder("out"))) == 0,
          "extend failed");
    CHECK(stat(extended, &after) == 0 && after.st_size - before.st_size < 100000, /* the teacher's is 240 kB larger */
          "%lld bytes, before %lld", (long long)after.st_size, (long long)before.st_size);
}

/* A small random model with biases of q, k and v, as a GGUF file. */
static void write_dense(const char *path, uint32_t seed) {
    tiny_model t = {.class_name = "Qwen2ForCausalLM",
                    .layers = 2,
                    .d = 64,
                    .ff = 64,
                    .heads = 4,
                    .kv = 2,
                    .hd = 16,
                    .vocab = 64,
                    .dtype = "F32",
                    .biases = true};
    tiny_make(&t, seed);
    tiny_write(&t, own_folder, false);
    tiny_free(&t);
    CHECK(wait_for(call_apart(cmd_compress, OPTIONS("compress", own_folder, "-o", path, "--method", "q8_0"),
                              OPTIONS("--quiet"), in_folder("log"), in_folder("out"))) == 0,
          "q8_0");
}

/* How many vectors of a block are those of another: two norms and a bias. */
static int same_vectors(const model_layer *x, const model_layer *y, size_t d) {
    return (memcmp(x->attn_norm, y->attn_norm, d * sizeof(float)) == 0) +
           (memcmp(x->ffn_norm, y->ffn_norm, d * sizeof(float)) == 0) +
           (memcmp(x->q.bias, y->q.bias, x->q.n * sizeof(float)) == 0);
}

/* A teacher of the same shape and other weights, fused and not: the file keeps the norms and biases of the student, with
 * which it was tuned. */
static void check_other_teacher(bool fused) {
    static const char *const NAMES[] = {"one.dense", "other.dense", "student.gguf", "tuned-by-other.gguf"};
    char paths[4][PATH], calib[PATH];
    bp_err e = {0};
    offline_model before = {0}, after = {0};
    for (size_t i = 0; i < 4; i++) snprintf(paths[i], PATH, "%s", in_folder(NAMES[i]));
    snprintf(calib, sizeof calib, "%s", in_folder("letters.txt"));
    for (uint32_t i = 0; i < 2 && fused; i++) write_dense(paths[i], i + 1);
    FILE *f = fopen(calib, "w");
    for (uint32_t i = 0, x = 1; i < 8192; i++) fputc('a' + (int)((x = x * 1664525 + 1013904223) >> 24) % 26, f);
    fclose(f);
    const char *const words[] = {"--iterations", "4", "--bits", "1", "--force", fused ? NULL : "--separate", NULL};
    CHECK(wait_for(call_apart(
              cmd_compress,
              OPTIONS("compress", paths[0], "-o", paths[2], "--calib", calib, "--calib-tokens", "4096", "--ctx", "64"),
              words, in_folder("log"), in_folder("out"))) == 0,
          "compress failed");
    CHECK(wait_for(start(paths[1], paths[2], paths[3], calib,
                         OPTIONS("--steps", "1", "--scales-only", "--embedding-rate", "0", "--force"))) == 0,
          "tune failed");
    CHECK(offline_open(&before, paths[2], &e) && offline_open(&after, paths[3], &e), "%s", e.text);
    for (uint32_t i = 0; after.model && i < 2; i++)
        CHECK(same_vectors(&before.model->layers[i], &after.model->layers[i], 64) == 3, "block %u of the teacher",
              (unsigned)i);
    offline_close(&after);
    CHECK(offline_open(&after, paths[1], &e), "%s", e.text);
    if (after.model && !fused)
        CHECK(same_vectors(&before.model->layers[0], &after.model->layers[0], 64) == 0, "the same model twice");
    offline_close(&before);
    offline_close(&after);
}

/* Interrupted where there is room for the result and none for the state: what was best is not lost. */
static void check_no_room(const char *teacher, const char *file, const char *calib) {
    char out[PATH], log[PATH], text[1024];
    struct rlimit limit, before;
    bp_err e = {0};
    file_view f = {0};
    int rc = CLI_INTERRUPTED;
    snprintf(out, sizeof out, "%s", in_folder("no-room.gguf"));
    snprintf(log, sizeof log, "%s", in_folder("log"));
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 2000000; /* the state has 12 bytes for each of a million signs */
    for (unsigned wait = 2; wait < 100 && !f.bytes; wait *= 2) {
        setrlimit(RLIMIT_FSIZE, &limit);
        pid_t pid = start(teacher, file, out, calib,
                          OPTIONS("--minutes", "5", "--validate-every", "0", "--embedding-rate", "0"));
        setrlimit(RLIMIT_FSIZE, &before);
        sleep(wait);
        kill(pid, SIGINT);
        rc = wait_for(pid);
        if (access(out, R_OK) == 0) CHECK(file_map(&f, out, &e), "%s", e.text);
    }
    FILE *said = fopen(log, "r");
    text[said ? fread(text, 1, sizeof text - 1, said) : 0] = 0;
    if (said) fclose(said);
    CHECK(rc == CLI_FAILED && f.bytes && bp_verify(f.bytes, (size_t)f.size, &e), "exit %d: %s%s", rc, text, e.text);
    CHECK(strstr(text, "what was best until then is in"), "%s", text);
    if (f.bytes) file_unmap(&f);
}

static long tuned_size(const char *teacher, const char *file, const char *name, const char *calib, const char *bits) {
    struct stat st;
    const char *const stay[] = {"--steps", "1", "--scales-only", "--embedding-rate", "0", NULL},
                      *const change[] = {"--steps", "1", "--scales-only", "--embedding-rate", "0", "--scale-bits",
                                         bits,      NULL};
    CHECK(wait_for(start(teacher, file, in_folder(name), calib, bits ? change : stay)) == 0, "tune failed");
    return stat(in_folder(name), &st) == 0 ? (long)st.st_size : -1;
}

/* Scales are stored as they were, or as one wishes. */
static void check_scale_bits(const char *teacher, const char *file, const char *calib) {
    char small[PATH];
    snprintf(small, sizeof small, "%s", in_folder("small.gguf"));
    long as_was = tuned_size(teacher, file, "as-was.gguf", calib, NULL),
         eight = tuned_size(teacher, file, "small.gguf", calib, "8"),
         still = tuned_size(teacher, small, "still.gguf", calib, NULL),
         back = tuned_size(teacher, small, "back.gguf", calib, "16");
    CHECK(eight < as_was - 4000 && labs(still - eight) < 512 && labs(back - as_was) < 512,
          "%ld bytes, in 8 bits %ld, tuned again %ld, back in 16 %ld", as_was, eight, still, back);
    CHECK(wait_for(start(teacher, small, in_folder("never.gguf"), calib,
                         OPTIONS("--steps", "1", "--scale-bits", "16", "--fix-shared"))) == 2,
          "changes what is to stay");
}

/* The file says how it was made: all that the result follows from. */
static void check_recipe(const char *teacher, const char *file, const char *calib) {
    static const struct {
        const char *name;
        double value;
    } wanted[] = {{"steps", 1},           {"sequences", 4},      {"ctx", 64},       {"seed", 7},
                  {"calib_tokens", 2048}, {"sign_curvature", 2}, {"sign_noise", 3}, {"validate_every", 1e9}};
    char text[PLAN_RECIPE + 1024], out[PATH];
    bp_err e = {0};
    offline_model m = {0};
    snprintf(out, sizeof out, "%s", in_folder("recipe.gguf"));
    CHECK(wait_for(start(teacher, file, out, calib,
                         OPTIONS("--steps", "1", "--seed", "7", "--calib-tokens", "2048", "--sign-curvature", "2",
                                 "--sign-noise", "3", "--validate-every", "1e9", "--labels", "0.25", "--exact"))) == 0,
          "tune failed");
    CHECK(offline_open(&m, out, &e) && offline_key(m.model, "bitpair.recipe", text, sizeof text), "%s", e.text);
    cJSON *root = m.model ? json_parse(text, strlen(text), "recipe", 0, &e) : NULL;
    const cJSON *tune = cJSON_GetObjectItem(root, "tune");
    CHECK(cJSON_GetObjectItem(root, "compress") && tune, "%s", e.text);
    for (size_t i = 0; i < sizeof wanted / sizeof *wanted; i++) {
        double value = cJSON_GetNumberValue(cJSON_GetObjectItem(tune, wanted[i].name));
        CHECK(value >= wanted[i].value && value <= wanted[i].value, "%s is %g", wanted[i].name, value);
    }
    CHECK(cJSON_IsTrue(cJSON_GetObjectItem(tune, "exact")), "not exact");
    const double labels = cJSON_GetNumberValue(cJSON_GetArrayItem(cJSON_GetObjectItem(tune, "labels"), 0));
    CHECK(labels >= 0.25 && labels <= 0.25, "labels are %g", labels);
    cJSON_Delete(root);
    offline_close(&m);
}

static void check_refusals(const char *teacher, const char *file, const char *calib) {
    char out[PATH];
    snprintf(out, sizeof out, "%s", in_folder("no.gguf"));
    CHECK(wait_for(start(teacher, teacher, out, calib, OPTIONS("--steps", "1"))) == CLI_FAILED, "a dense student");
    CHECK(wait_for(start(file, file, out, calib, OPTIONS("--steps", "1"))) == CLI_FAILED, "a compressed teacher");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--quiet"))) == CLI_USAGE, "no budget");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--steps", "1", "--tiers", "1,x"))) == CLI_USAGE, "tiers");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--steps", "1", "--tiers", "1,1,1,1"))) == CLI_FAILED,
          "more tiers than there are");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--steps", "1", "--resume"))) == CLI_FAILED,
          "nothing to resume");
    CHECK(wait_for(start(teacher, file, out, calib, OPTIONS("--steps", "1", "--ctx", "65536"))) == CLI_FAILED,
          "longer sequences than the model's context");
    CHECK(wait_for(start(teacher, file, out, "/nowhere.txt", OPTIONS("--steps", "1"))) == CLI_FAILED, "no text");
    CHECK(wait_for(start(teacher, file, file, calib, OPTIONS("--steps", "1"))) == CLI_FAILED, "an existing output");
}

int main(void) {
    char calib[PATH], teacher[PATH];
    if (!mkdtemp(own_folder)) return 1;
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    snprintf(teacher, sizeof teacher, "%s", check_data("models/tinystories-656k"));
    double fixed[2][2] = {{0}};
    check_nearer(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib, fixed);
    check_frozen(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_same_bytes(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_new_table(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_tier_scales(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib, fixed);
    check_labels(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_fused(teacher, calib);
    check_plain_table(teacher, calib);
    check_other_teacher(true);
    check_other_teacher(false);
    check_no_room(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_scale_bits(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_recipe(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    check_refusals(teacher, BITPAIR_ROOT "/models/tinystories-656k.gguf", calib);
    remove_all();
    return check_end();
}
