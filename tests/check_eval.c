/* Perplexity: against a published figure of a real model, and against the definition on small random ones. */
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "eval/perplexity.h"
#include "generate.h"
#include "io/json.h"
#include "tiny_model.h"

/* ln p of every token [vocab], from logits */
static void log_softmax(double *out, const float *logits, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += exp((double)logits[i] - 50);
    for (size_t i = 0; i < n; i++) out[i] = (double)logits[i] - 50 - log(sum);
}

/* ---- a real model ----------------------------------------------------------------------------------------------- */

/* -ln p of a whole story after BOS. */
static double story_nll(bp_session *session, const bp_model *model, const char *story, size_t size) {
    bp_err e = {0};
    size_t n = 0;
    double nll = 0;
    bp_model_info info;
    bp_model_describe(model, &info);
    double *log_p = malloc(info.vocab * sizeof *log_p);
    int32_t *ids = generate_tokenize(model, story, size, BP_TOKENIZE_BOS, &n, &e);
    CHECK(ids && n > 1 && ids[0] == info.bos && bp_session_rewind(session, 0, &e), "%s", e.text);
    for (size_t i = 0; ids && i + 1 < n; i++) {
        if (!bp_session_feed(session, &ids[i], 1, &e)) break;
        log_softmax(log_p, bp_session_logits(session), info.vocab);
        nll -= log_p[ids[i + 1]];
    }
    free(ids);
    free(log_p);
    return nll;
}

/* Bits per byte of the first 40 stories. */
static double stories_score(const char *folder) {
    enum { STORIES = 40 };
    static const char END[] = "\n<|endoftext|>\n";
    bp_err e = {0};
    loaded l = {0};
    file_view f = {0};
    bp_engine *engine = bp_engine_open(NULL, &e);
    bool ok =
        loaded_open(&l, engine, folder, 0, &e) && file_map(&f, check_data("text/tinystories_sample_2MiB.txt"), &e);
    bp_session *session = ok ? bp_session_open(l.model, NULL, &e) : NULL;
    CHECK(session, "%s", e.text);
    const char *at = (const char *)f.bytes;
    double nll = 0, bytes = 0;
    for (int i = 0; session && i < STORIES; i++) {
        const char *end = memmem(at, (size_t)((const char *)f.bytes + f.size - at), END, strlen(END));
        CHECK(end, "story %d has no end", i);
        if (!end) break;
        nll += story_nll(session, l.model, at, (size_t)(end - at));
        bytes += (double)(end - at);
        at = end + strlen(END);
    }
    bp_session_close(session);
    file_unmap(&f);
    loaded_close(&l);
    bp_engine_close(engine);
    return nll / log(2) / bytes;
}

/* The folder again, with a tokenizer that puts no space before the text. */
static void copy_without_prefix(const char *from, const char *to) {
    static const char *const NAMES[] = {"config.json", "model.safetensors", "tokenizer_config.json"};
    char path[2048], target[2048];
    bp_err e = {0};
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", from, NAMES[i]);
        snprintf(target, sizeof target, "%s/%s", to, NAMES[i]);
        CHECK(symlink(path, target) == 0, "cannot link %s", path);
    }
    snprintf(path, sizeof path, "%s/tokenizer.json", from);
    cJSON *root = json_read(path, &e);
    CHECK(root, "%s", e.text);
    cJSON *rules = cJSON_GetObjectItem(cJSON_GetObjectItem(root, "normalizer"), "normalizers");
    CHECK(cJSON_GetArraySize(rules) == 2, "normalizers");
    cJSON_DeleteItemFromArray(rules, 0);
    char *printed = cJSON_PrintUnformatted(root);
    FILE *f = tiny_file(to, "tokenizer.json");
    fputs(printed, f);
    fclose(f);
    cJSON_free(printed);
    cJSON_Delete(root);
}

/* tinystories-656k: 0.871 bits per byte with the space that its tokenizer puts before a text, 0.823 without. */
static void check_stories(void) {
    char folder[] = "/tmp/bitpair-check-eval-XXXXXX", original[1024], command[128];
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    double with = stories_score(original);
    CHECK(fabs(with - 0.871) < 0.001, "%.4f bits per byte", with);
    CHECK(mkdtemp(folder), "no temporary folder");
    copy_without_prefix(original, folder);
    double without = stories_score(folder);
    CHECK(fabs(without - 0.823) < 0.001, "%.4f bits per byte", without);
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "cannot remove %s", folder);
}

/* ---- the definition --------------------------------------------------------------------------------------------- */

enum { VOCAB = 64, CTX = 20, N = 50 /* two whole windows and a rest */ };

static void open_tiny(loaded *l, bp_engine *engine, uint32_t seed) {
    static const char *const NAMES[] = {"config.json", "tokenizer.json", "model.safetensors"};
    char folder[] = "/tmp/bitpair-check-eval-XXXXXX", path[128];
    bp_err e = {0};
    tiny_model m = {.class_name = "LlamaForCausalLM",
                    .layers = 1,
                    .d = 32,
                    .ff = 64,
                    .heads = 2,
                    .kv = 1,
                    .hd = 16,
                    .vocab = VOCAB,
                    .dtype = "F32"};
    CHECK(mkdtemp(folder), "no temporary folder");
    tiny_make(&m, seed);
    tiny_write(&m, folder, false);
    CHECK(loaded_open(l, engine, folder, 0, &e), "%s", e.text);
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, NAMES[i]);
        unlink(path);
    }
    rmdir(folder);
    tiny_free(&m);
}

static size_t best_of(const double *x) {
    size_t best = 0;
    for (size_t i = 1; i < VOCAB; i++)
        if (x[i] > x[best]) best = i;
    return best;
}

/* nll, kl and top1 as sums over the scored tokens of all whole windows. */
static void sum_by_definition(perplexity *p, bp_model *model, bp_model *teacher, const int32_t *ids) {
    bp_session *a = bp_session_open(model, NULL, NULL), *b = bp_session_open(teacher, NULL, NULL);
    *p = (perplexity){0};
    for (size_t window = 0; window < N / CTX; window++) {
        const int32_t *w = ids + window * CTX;
        bp_session_rewind(a, 0, NULL);
        bp_session_rewind(b, 0, NULL);
        for (size_t i = 0; i + 1 < CTX; i++) {
            double q[VOCAB], t[VOCAB];
            bp_session_feed(a, w + i, 1, NULL);
            bp_session_feed(b, w + i, 1, NULL);
            log_softmax(q, bp_session_logits(a), VOCAB);
            log_softmax(t, bp_session_logits(b), VOCAB);
            p->nll -= q[w[i + 1]];
            for (size_t v = 0; v < VOCAB; v++) p->kl += exp(t[v]) * (t[v] - q[v]);
            p->top1 += best_of(q) == best_of(t);
            p->bytes += w[i + 1] < 26 ? 1 : 2; /* the tokenizer of tiny_model.h */
        }
    }
    bp_session_close(a);
    bp_session_close(b);
}

/* Several models in one run, the teacher among them: each as if it were alone. */
static void check_side_by_side(const perplexity_options *alone, const int32_t *ids, const perplexity *wanted) {
    bp_err e = {0};
    perplexity found[3], teacher;
    bp_model *models[] = {alone->teacher, alone->models[0], alone->models[0]};
    perplexity_options o = *alone, single = *alone;
    o.models = models;
    o.n_models = 3;
    CHECK(perplexity_measure(found, &o, ids, N, &e), "%s", e.text);
    CHECK(memcmp(&found[1], wanted, sizeof *wanted) == 0 && memcmp(&found[2], wanted, sizeof *wanted) == 0,
          "another model in the run changes the result");
    CHECK(fabs(found[0].kl) < 1e-12 && found[0].top1 == 1, "the teacher differs from itself by %g", found[0].kl);
    single.models = &alone->teacher;
    single.teacher = NULL;
    CHECK(perplexity_measure(&teacher, &single, ids, N, &e) && teacher.kl == 0 && teacher.teacher_ppl == 0, "%s",
          e.text);
    CHECK(found[0].nll == teacher.nll && fabs(found[1].teacher_ppl - teacher.ppl) < 1e-9, "teacher %.12f, alone %.12f",
          found[1].teacher_ppl, teacher.ppl);
}

static void check_definition(void) {
    bp_err e = {0};
    loaded model = {0}, teacher = {0};
    perplexity found, again, wanted;
    int32_t ids[N];
    const double scored = N / CTX * (CTX - 1);
    bp_engine_options threads = {.threads = 3};
    bp_engine *engine = bp_engine_open(&threads, &e);
    open_tiny(&model, engine, 1);
    open_tiny(&teacher, engine, 2);
    for (int32_t i = 0; i < N; i++) ids[i] = (i * i * 5 + i) % VOCAB;
    workers *team = workers_open(3, &e);
    perplexity_options o = {
        .models = &model.model, .n_models = 1, .teacher = teacher.model, .ctx = CTX, .workers = team};
    CHECK(perplexity_measure(&found, &o, ids, N, &e), "%s", e.text);
    sum_by_definition(&wanted, model.model, teacher.model, ids);
    CHECK(found.tokens == 40 && (double)found.scored == scored && found.bytes == wanted.bytes, "counts");
    CHECK(fabs(found.nll - wanted.nll / scored) < 1e-9, "nll %.12f, wanted %.12f", found.nll, wanted.nll / scored);
    CHECK(fabs(found.ppl - exp(found.nll)) < 1e-9, "ppl %.9f", found.ppl);
    CHECK(fabs(found.kl - wanted.kl / scored) < 1e-9 && found.kl > 0.01, "kl %.12f, wanted %.12f", found.kl,
          wanted.kl / scored);
    CHECK(fabs(found.top1 - wanted.top1 / scored) < 1e-12, "top1 %.6f", found.top1);
    CHECK(fabs(found.bits_per_byte - wanted.nll / log(2) / (double)wanted.bytes) < 1e-9, "bits per byte %.9f",
          found.bits_per_byte);
    o.workers = NULL;
    CHECK(perplexity_measure(&again, &o, ids, N, &e) && memcmp(&again, &found, sizeof found) == 0,
          "the number of workers changes the result");
    CHECK(perplexity_measure(&again, &o, ids, 5, &e) && again.scored == 4, "a short text: %s", e.text);
    CHECK(!perplexity_measure(&again, &o, ids, 1, &e), "one token");
    check_side_by_side(&o, ids, &found);
    workers_close(team);
    loaded_close(&model);
    loaded_close(&teacher);
    bp_engine_close(engine);
}

int main(void) {
    check_stories();
    check_definition();
    return check_end();
}
