/* States of sessions: saved and restored, forked, shifted; scores and embeddings. */
#include <math.h>
#include <unistd.h>

#include "check.h"
#include "engine.h"
#include "io/source.h"
#include "sha256.h"
#include "tiny_model.h"

enum { N = 60, GOES_ON = 40, MOST_VOCAB = 4096 };

static uint32_t kv_bits = 8; /* of the caches that the tests open */

typedef struct {
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
    bp_model_info info;
} runner;

static runner runner_open(const source *src, uint32_t threads, uint32_t n_ctx, uint32_t chunk) {
    bp_err e = {0};
    runner r = {0};
    r.engine = bp_engine_open(&(bp_engine_options){.threads = threads}, &e);
    if (r.engine) r.model = bp_model_open(r.engine, src->bytes, src->size, &e);
    if (r.model) r.session = bp_session_open(r.model, &(bp_session_options){n_ctx, chunk, kv_bits}, &e);
    CHECK(r.session, "%s", e.text);
    if (!r.session) exit(check_end());
    bp_model_describe(r.model, &r.info);
    return r;
}

static void runner_close(runner *r) {
    bp_session_close(r->session);
    bp_model_close(r->model);
    bp_engine_close(r->engine);
}

static void make_ids(int32_t *ids, size_t n, uint32_t vocab) {
    uint32_t x = 5;
    for (size_t i = 0; i < n; i++) ids[i] = (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % (int32_t)vocab;
}

/* out [n] <- what the session says next */
static void go_on(bp_session *s, int32_t *out, size_t n) {
    bp_err e;
    for (size_t i = 0; i < n; i++) {
        out[i] = bp_session_sample(s, &e);
        if (out[i] < 0 || !bp_session_feed(s, &out[i], 1, &e)) CHECK(false, "%s", e.text);
    }
}

static const sampler_bias BIAS[] = {{3, 2.5f}, {7, -INFINITY}};

static sampler_options lively(void) {
    sampler_options o = sampler_defaults();
    o.temperature = 1.3f;
    o.top_k = 0;
    o.frequency_penalty = 0.3f;
    o.seed = 11;
    o.bias = BIAS;
    o.n_bias = 2;
    return o;
}

typedef struct {
    uint8_t *bytes;
    size_t size;
} state;

static state save(const bp_session *s) {
    bp_err e = {0};
    state st = {.size = bp_session_save_bytes(s)};
    st.bytes = malloc(st.size);
    CHECK(!bp_session_save(s, st.bytes, st.size - 1, &e) && e.code == BP_ERR_ARGUMENT, "too small: %s", e.text);
    CHECK(bp_session_save(s, st.bytes, st.size, &e), "%s", e.text);
    return st;
}

/* ---- save, restore, fork ---------------------------------------------------------------------------------------- */

static void check_saved(const source *src) {
    int32_t ids[N], expected[GOES_ON], found[GOES_ON];
    bp_err e = {0};
    runner r = runner_open(src, 1, 256, 0);
    sampler_options o = lively();
    make_ids(ids, N, r.info.vocab);
    bp_session_sampling(r.session, &o, &e);
    bp_session_feed(r.session, ids, N, &e);
    go_on(r.session, expected, 7); /* the random numbers have moved on */
    state st = save(r.session);
    go_on(r.session, expected, GOES_ON);
    static const uint32_t shapes[][3] = {{1, 256, 0}, {2, 128, 5}, {3, 120, 64}};
    for (size_t i = 0; i < 3; i++) {
        runner other = runner_open(src, shapes[i][0], shapes[i][1], shapes[i][2]);
        bp_session_feed(other.session, ids + i, 20, &e);
        CHECK(bp_session_restore(other.session, st.bytes, st.size, &e), "%s", e.text);
        CHECK(bp_session_position(other.session) == N + 7, "position");
        state again = save(other.session);
        CHECK(again.size == st.size && memcmp(again.bytes, st.bytes, st.size) == 0, "saved again, the same bytes");
        go_on(other.session, found, GOES_ON);
        CHECK(memcmp(found, expected, sizeof found) == 0, "restored on %u threads it says something else",
              shapes[i][0]);
        free(again.bytes);
        runner_close(&other);
    }
    free(st.bytes);
    runner_close(&r);
}

/* A rewound session has no logits, an empty one nothing: both are states too. */
static void check_saved_without_logits(const source *src) {
    int32_t ids[N];
    bp_err e = {0};
    runner r = runner_open(src, 1, 128, 0);
    state empty = save(r.session);
    make_ids(ids, N, r.info.vocab);
    bp_session_feed(r.session, ids, N, &e);
    float *expected = malloc(r.info.vocab * sizeof *expected);
    memcpy(expected, bp_session_logits(r.session), r.info.vocab * sizeof *expected);
    bp_session_rewind(r.session, N - 1, &e);
    state rewound = save(r.session);
    CHECK(bp_session_restore(r.session, empty.bytes, empty.size, &e) && bp_session_position(r.session) == 0, "%s",
          e.text);
    CHECK(bp_session_restore(r.session, rewound.bytes, rewound.size, &e) && !bp_session_logits(r.session), "%s",
          e.text);
    bp_session_feed(r.session, ids + N - 1, 1, &e);
    CHECK(memcmp(expected, bp_session_logits(r.session), r.info.vocab * sizeof *expected) == 0, "other logits");
    free(expected);
    free(rewound.bytes);
    free(empty.bytes);
    runner_close(&r);
}

static void check_fork(const source *src) {
    int32_t ids[N], expected[GOES_ON], found[GOES_ON];
    bp_err e = {0};
    runner r = runner_open(src, 2, 128, 0);
    sampler_options o = lively();
    make_ids(ids, N, r.info.vocab);
    bp_session_sampling(r.session, &o, &e);
    bp_session_feed(r.session, ids, N, &e);
    bp_session *twin = bp_session_fork(r.session, &e), *wild = bp_session_fork(r.session, &e);
    CHECK(twin && wild, "%s", e.text);
    bp_session_rewind(wild, 3, &e);
    bp_session_feed(wild, ids, N, &e);
    o.seed++, o.n_bias = 0, bp_session_sampling(wild, &o, &e);
    go_on(twin, expected, GOES_ON);
    go_on(wild, found, GOES_ON);
    CHECK(memcmp(found, expected, sizeof found) != 0, "another text goes on in another way");
    bp_session_close(wild);
    go_on(r.session, found, GOES_ON);
    CHECK(memcmp(found, expected, sizeof found) == 0, "a fork and its origin differ");
    bp_session_close(twin);
    runner_close(&r);
}

/* ---- hostile states --------------------------------------------------------------------------------------------- */

static void refuse(bp_session *s, const state *before, const uint8_t *bytes, size_t size, unsigned *wrong) {
    bp_err e = {0};
    uint8_t *now = malloc(before->size);
    bool good = !bp_session_restore(s, bytes, size, &e) && e.text[0] && bp_session_save_bytes(s) == before->size &&
                bp_session_save(s, now, before->size, &e) && memcmp(now, before->bytes, before->size) == 0;
    *wrong += !good;
    free(now);
}

/* Fields of the header set to what they cannot be, with a checksum that agrees. */
static void check_forged(bp_session *s, const state *before, const state *st) {
    static const struct {
        size_t at;
        uint32_t value;
        const char *what;
    } forged[] = {{0, 0, "magic"},
                  {8, 3, "version"},
                  {12, 8, "header size"},
                  {16, 100, "size"},
                  {24, 0, "model"},
                  {56, 1, "layers"},
                  {60, 1, "kv width"},
                  {72, UINT32_MAX, "position"},
                  {72, 0, "no position"},
                  {76, 2, "last"},
                  {84, 16, "kind of cache"},
                  {76, 0, "no last"},
                  {104, 0x7fc00000, "temperature"},
                  {108, 0, "typical"},
                  {136, 5000, "window"},
                  {140, 0xffffffff, "bias"},
                  {140, 0, "no bias"},
                  {144, 1u << 30, "bias id"},
                  {160, 1u << 30, "id"},
                  {160, 0xffffffff, "negative id"}};
    uint8_t *copy = malloc(st->size);
    for (size_t i = 0; i < sizeof forged / sizeof *forged; i++) {
        unsigned wrong = 0;
        memcpy(copy, st->bytes, st->size);
        memcpy(copy + forged[i].at, &forged[i].value, 4);
        sha256_digest(copy, st->size - 32, copy + st->size - 32);
        refuse(s, before, copy, st->size, &wrong);
        CHECK(wrong == 0, "a forged %s is taken", forged[i].what);
    }
    unsigned wrong = 0;
    memcpy(copy, st->bytes, st->size);
    memcpy(copy + st->size - 36, (uint8_t[]){0xc0, 0x7f, 0xc0, 0x7f}, 4); /* the last scale, or two halves: NaN */
    sha256_digest(copy, st->size - 32, copy + st->size - 32);
    refuse(s, before, copy, st->size, &wrong);
    CHECK(wrong == 0, "a value that is no number is taken");
    free(copy);
}

static void check_hostile(const source *src, const source *other_model) {
    int32_t ids[N];
    bp_err e = {0};
    unsigned wrong = 0;
    runner r = runner_open(src, 1, 128, 0), other = runner_open(other_model, 1, 128, 0);
    sampler_options o = lively();
    make_ids(ids, N, r.info.vocab);
    bp_session_sampling(r.session, &o, &e);
    bp_session_feed(r.session, ids, 5, &e);
    state st = save(r.session);
    bp_session_rewind(r.session, 0, &e);
    bp_session_feed(r.session, ids + 5, 3, &e);
    state before = save(r.session);
    for (size_t at = 0; at < st.size; at += 1 + at / 16) {
        st.bytes[at] ^= (uint8_t)(1u << at % 8);
        refuse(r.session, &before, st.bytes, st.size, &wrong);
        st.bytes[at] ^= (uint8_t)(1u << at % 8);
        refuse(r.session, &before, st.bytes, at, &wrong);
    }
    CHECK(wrong == 0, "%u damaged states were taken, or changed the session", wrong);
    check_forged(r.session, &before, &st);
    CHECK(!bp_session_restore(other.session, st.bytes, st.size, &e) && e.code == BP_ERR_ARGUMENT,
          "of another model: %s", e.text);
    runner small = runner_open(src, 1, 4, 0);
    CHECK(!bp_session_restore(small.session, st.bytes, st.size, &e) && e.code == BP_ERR_CONTEXT, "too long: %s",
          e.text);
    kv_bits = 16;
    runner wide = runner_open(src, 1, 128, 0);
    CHECK(!bp_session_restore(wide.session, st.bytes, st.size, &e) && e.code == BP_ERR_ARGUMENT, "another cache: %s",
          e.text);
    kv_bits = 8;
    runner_close(&wide);
    CHECK(bp_session_restore(r.session, st.bytes, st.size, &e), "and the undamaged one is still good: %s", e.text);
    runner_close(&small);
    free(before.bytes);
    free(st.bytes);
    runner_close(&other);
    runner_close(&r);
}

/* ---- shift ------------------------------------------------------------------------------------------------------ */

/* In a model of one layer keys and values do not depend on the tokens before them: shifting is forgetting. */
static void check_shift_exact(const source *src) {
    enum { KEEP = 3, DROP = 25 };
    int32_t ids[N], left[N - DROP];
    bp_err e = {0};
    runner r = runner_open(src, 2, 128, 0), fresh = runner_open(src, 1, 128, 0);
    uint32_t vocab = r.info.vocab;
    make_ids(ids, N, vocab);
    memcpy(left, ids, KEEP * sizeof *ids);
    memcpy(left + KEEP, ids + KEEP + DROP, (N - KEEP - DROP) * sizeof *ids);
    bp_session_feed(r.session, ids, N, &e);
    CHECK(bp_session_shift(r.session, KEEP, DROP, &e) && bp_session_position(r.session) == N - DROP, "%s", e.text);
    bp_session_feed(fresh.session, left, N - DROP, &e);
    float *found = malloc(N * vocab * sizeof *found), *expected = malloc(N * vocab * sizeof *expected);
    bp_session_feed_all(r.session, ids, 20, found, &e);
    bp_session_feed_all(fresh.session, ids, 20, expected, &e);
    double worst = 0, top = 0;
    for (size_t i = 0; i < 20 * vocab; i++) {
        top = fmax(top, fabs((double)expected[i]));
        worst = fmax(worst, fabs((double)found[i] - (double)expected[i]));
    }
    CHECK(worst < (kv_bits == 8 ? 2e-2 : 2e-3) * top, "after a shift logits are off by %.1e of the largest",
          worst / top);
    CHECK(worst > 0, "keys were rounded once more"); /* else this compared a thing with itself */
    free(found);
    free(expected);
    runner_close(&fresh);
    runner_close(&r);
}

static void check_shift(const source *src) {
    int32_t ids[N], first[GOES_ON], second[GOES_ON];
    bp_err e = {0};
    make_ids(ids, N, 2000);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        runner r = runner_open(src, threads, N, 0);
        sampler_options o = lively();
        bp_session_sampling(r.session, &o, &e);
        bp_session_feed(r.session, ids, N, &e);
        CHECK(!bp_session_feed(r.session, ids, 1, &e) && e.code == BP_ERR_CONTEXT, "full");
        CHECK(!bp_session_shift(r.session, 4, N - 4, &e) && e.code == BP_ERR_ARGUMENT, "all of it: %s", e.text);
        CHECK(!bp_session_shift(r.session, UINT32_MAX, 2, &e) && !bp_session_shift(r.session, 2, UINT32_MAX, &e),
              "huge");
        sampler_alternative before, after;
        bp_session_alternatives(r.session, 1, &before, &e);
        CHECK(bp_session_shift(r.session, 4, 0, &e) && bp_session_position(r.session) == N, "nothing dropped");
        CHECK(bp_session_shift(r.session, 4, GOES_ON, &e) && bp_session_position(r.session) == N - GOES_ON, "%s",
              e.text);
        CHECK(bp_session_exact(r.session) == 4, "what came after the kept ones has seen the dropped ones");
        CHECK(memcmp(bp_session_tokens(r.session), ids, 4 * sizeof *ids) == 0 &&
                  memcmp(bp_session_tokens(r.session) + 4, ids + 4 + GOES_ON, (N - 4 - GOES_ON) * sizeof *ids) == 0,
              "the tokens that are left");
        bp_session_alternatives(r.session, 1, &after, &e);
        CHECK(before.id == after.id && before.logprob == after.logprob, "the logits are those of the last token still");
        go_on(r.session, threads == 1 ? first : second, GOES_ON);
        state st = save(r.session);
        bp_session_rewind(r.session, 4, &e);
        CHECK(bp_session_exact(r.session) == 4 && bp_session_feed(r.session, ids, 3, &e) &&
                  bp_session_exact(r.session) == 7,
              "rewound to the kept ones it is as ever");
        CHECK(bp_session_restore(r.session, st.bytes, st.size, &e) && bp_session_exact(r.session) == 4,
              "a state knows it");
        free(st.bytes);
        if (threads > 1) CHECK(memcmp(first, second, sizeof first) == 0, "%u threads say something else", threads);
        runner_close(&r);
    }
}

/* ---- scores and embeddings -------------------------------------------------------------------------------------- */

static double log_softmax(const float *logits, size_t n, int32_t id) {
    double most = -INFINITY, total = 0;
    for (size_t i = 0; i < n; i++) most = fmax(most, (double)logits[i]);
    for (size_t i = 0; i < n; i++) total += exp((double)logits[i] - most);
    return (double)logits[id] - most - log(total);
}

static void check_score(const source *src) {
    int32_t ids[N];
    float first[N], scores[N], one;
    bp_err e = {0};
    runner r = runner_open(src, 1, 128, 0);
    uint32_t vocab = r.info.vocab;
    float *logits = malloc(N * vocab * sizeof *logits);
    make_ids(ids, N, vocab);
    bp_session_feed_all(r.session, ids, N, logits, &e);
    for (uint32_t threads = 1; threads <= 3; threads++) {
        runner other = runner_open(src, threads, 128, threads == 2 ? 7 : 64);
        CHECK(bp_session_score(other.session, ids, N, scores, &e), "%s", e.text);
        unsigned wrong = scores[0] != 0;
        for (size_t i = 1; i < N; i++)
            wrong += fabs((double)scores[i] - log_softmax(logits + (i - 1) * vocab, vocab, ids[i])) > 2e-5;
        CHECK(wrong == 0, "%u of %d scores are wrong", wrong, N);
        if (threads == 1) memcpy(first, scores, sizeof first);
        CHECK(memcmp(first, scores, sizeof first) == 0, "%u threads score otherwise", threads);
        bp_session_rewind(other.session, 0, &e);
        bp_session_feed(other.session, ids, 20, &e);
        CHECK(bp_session_logprob(other.session, ids[20], &one, &e) && one == first[20], "one log probability: %s",
              e.text);
        CHECK(bp_session_score(other.session, ids + 20, N - 20, scores, &e) &&
                  memcmp(scores, first + 20, (N - 20) * sizeof *first) == 0,
              "the second part alone");
        sampler_alternative best[5];
        CHECK(bp_session_alternatives(other.session, 5, best, &e) &&
                  bp_session_logprob(other.session, best[0].id, &one, &e) && one == best[0].logprob &&
                  best[0].logprob >= best[4].logprob,
              "alternatives");
        runner_close(&other);
    }
    bp_session_rewind(r.session, 0, &e);
    CHECK(!bp_session_logprob(r.session, 0, &one, &e) && e.code == BP_ERR_ARGUMENT, "no logits");
    free(logits);
    runner_close(&r);
}

/* head * embedding of the last token = its logits; the mean is that of the embeddings of all beginnings. */
static void check_embed(const source *src, const tiny_model *m) {
    enum { TOKENS = 20 };
    int32_t ids[TOKENS];
    float last[512], mean[512];
    double sum[512] = {0}, worst = 0;
    bp_err e = {0};
    runner r = runner_open(src, 2, 64, 6);
    make_ids(ids, TOKENS, m->vocab);
    for (size_t n = 1; n <= TOKENS; n++) {
        bp_session_rewind(r.session, 0, &e);
        CHECK(bp_session_embed(r.session, ids, n, BP_POOL_LAST, last, &e), "%s", e.text);
        for (uint32_t i = 0; i < m->d; i++) sum[i] += (double)last[i];
    }
    const float *head = tiny_find(m, TINY_NO_LAYER, "lm_head.weight"), *logits = bp_session_logits(r.session);
    for (uint32_t i = 0; i < m->vocab; i++) {
        double logit = 0;
        for (uint32_t j = 0; j < m->d; j++) logit += (double)head[i * m->d + j] * (double)last[j];
        worst = fmax(worst, fabs(logit - (double)logits[i]));
    }
    CHECK(worst < 1e-4, "head times embedding is off by %.1e", worst);
    bp_session_rewind(r.session, 0, &e);
    CHECK(bp_session_embed(r.session, ids, TOKENS, BP_POOL_MEAN, mean, &e), "%s", e.text);
    worst = 0;
    for (uint32_t i = 0; i < m->d; i++) worst = fmax(worst, fabs((double)mean[i] - sum[i] / (double)TOKENS));
    CHECK(worst < 1e-5, "the mean is off by %.1e", worst);
    CHECK(!bp_session_embed(r.session, ids, 0, BP_POOL_MEAN, mean, &e) && e.code == BP_ERR_ARGUMENT, "of nothing");
    runner_close(&r);
}

static void check_tiny(void) {
    char folder[] = "/tmp/bitpair-check-state-XXXXXX";
    static const char *const files[] = {"config.json", "tokenizer.json", "model.safetensors"};
    tiny_model m = {.class_name = "LlamaForCausalLM",
                    .layers = 1,
                    .d = 64,
                    .ff = 96,
                    .heads = 4,
                    .kv = 2,
                    .hd = 16,
                    .vocab = 64,
                    .dtype = "F32"};
    source src;
    bp_err e = {0};
    CHECK(mkdtemp(folder), "no temporary folder");
    for (int qwen = 0; qwen < 2; qwen++) { /* Llama's pairs are neighbours, Qwen's half a head apart */
        if (qwen) m.class_name = "Qwen3ForCausalLM", m.qk_norms = true;
        tiny_make(&m, 3);
        tiny_write(&m, folder, false);
        CHECK(source_open(&src, folder, &e), "%s", e.text);
        check_shift_exact(&src);
        check_embed(&src, &m);
        source_close(&src);
        tiny_free(&m);
    }
    for (size_t i = 0; i < 3; i++) {
        char path[512];
        snprintf(path, sizeof path, "%s/%s", folder, files[i]);
        unlink(path);
    }
    rmdir(folder);
}

int main(void) {
    source dense, small;
    bp_err e = {0};
    if (!source_open(&dense, check_data("models/tinystories-656k"), &e) ||
        !source_open(&small, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e)) {
        printf("%s\n", e.text);
        CHECK(false, "a model of this test is missing");
        return check_end();
    }
    check_hostile(&small, &dense);
    for (kv_bits = 8; kv_bits <= 16; kv_bits += 8) {
        check_saved(&small);
        check_saved_without_logits(&small);
        check_fork(&small);
        check_shift(&small);
        check_score(&small);
        check_tiny();
    }
    source_close(&dense);
    source_close(&small);
    return check_end();
}
