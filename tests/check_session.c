/* Properties of the forward pass on real models: how a text is cut, how many threads run, and which instruction set
 * they use change no bit; the cache can be rewound; errors leave the session as it was. */
#include "check.h"

#include "engine.h"
#include "io/source.h"
#include "kernel.h"

enum { N = 150, MOST_VOCAB = 4096 };

typedef struct {
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
    uint32_t vocab;
} runner;

static runner runner_open(const source *src, uint32_t threads, const char *isa, const char *arith, uint32_t chunk,
                          uint32_t kv_bits) {
    bp_err e = {0};
    runner r = {0};
    r.engine = bp_engine_open(&(bp_engine_options){threads, isa, arith}, &e);
    if (r.engine) r.model = bp_model_open(r.engine, src->bytes, src->size, &e);
    if (r.model) r.session = bp_session_open(r.model, &(bp_session_options){256, chunk, kv_bits}, &e);
    CHECK(r.session, "%s", e.text);
    if (!r.session) exit(check_end());
    bp_model_info info;
    bp_model_describe(r.model, &info);
    r.vocab = info.vocab;
    return r;
}

static void runner_close(runner *r) {
    bp_session_close(r->session);
    bp_model_close(r->model);
    bp_engine_close(r->engine);
}

static void make_ids(int32_t *ids, uint32_t vocab) {
    uint32_t x = 1;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)((x = x * 1664525u + 1013904223u) >> 8) % (int32_t)vocab;
}

static float *reference_logits(const source *src, const char *arith, uint32_t kv_bits, const int32_t *ids) {
    runner r = runner_open(src, 1, "ref", arith, 256, kv_bits);
    float *logits = malloc((size_t)N * r.vocab * sizeof *logits);
    bp_err e;
    CHECK(bp_session_feed_all(r.session, ids, N, logits, &e), "%s", e.text);
    runner_close(&r);
    return logits;
}

typedef bool (*feeding)(bp_session *s, const int32_t *ids, size_t n, bp_err *e);

/* Layer by layer, after a pass of other tokens that was given up */
static bool feed_parts(bp_session *s, const int32_t *ids, size_t n, bp_err *e) {
    int32_t others[N];
    const uint32_t at = bp_session_position(s);
    for (size_t i = 0; i < n; i++) others[i] = ids[n - 1 - i] ^ 1;
    bool good = bp_session_feed_begin(s, others, n, e) && bp_session_feed_layers(s, 1) > 0 && !bp_session_logits(s);
    good = bp_session_feed_begin(s, ids, n, e) && good;
    while (bp_session_feed_layers(s, 1) > 0) good = good && bp_session_position(s) == at;
    return good && bp_session_position(s) == at + n;
}

/* Feeds in steps of `step` and compares the last logits of each step with the reference. */
static void check_steps(runner *r, const int32_t *ids, const float *expected, size_t step, feeding feed,
                        const char *what) {
    bp_err e = {0};
    unsigned wrong = 0;
    CHECK(bp_session_rewind(r->session, 0, &e), "%s", e.text);
    for (size_t at = 0; at < N; at += step) {
        size_t n = at + step <= N ? step : N - at;
        if (!feed(r->session, ids + at, n, &e)) CHECK(false, "%s, steps of %zu: %s", what, step, e.text);
        wrong +=
            memcmp(bp_session_logits(r->session), expected + (at + n - 1) * r->vocab, r->vocab * sizeof(float)) != 0;
    }
    CHECK(wrong == 0, "%s, steps of %zu: %u of the logits differ from the reference", what, step, wrong);
}

static void check_parts_errors(const source *src) {
    runner r = runner_open(src, 2, NULL, NULL, 16, 0);
    int32_t ids[N], outside = (int32_t)r.vocab;
    bp_err e = {0};
    make_ids(ids, r.vocab);
    CHECK(bp_session_feed_layers(r.session, 1) == 0 && bp_session_position(r.session) == 0, "nothing was begun");
    CHECK(!bp_session_feed_begin(r.session, ids, 0, &e) && e.code == BP_ERR_ARGUMENT, "no tokens: %s", e.text);
    CHECK(!bp_session_feed_begin(r.session, ids, 17, &e) && e.code == BP_ERR_ARGUMENT, "17 tokens: %s", e.text);
    CHECK(!bp_session_feed_begin(r.session, &outside, 1, &e) && e.code == BP_ERR_ARGUMENT, "id: %s", e.text);
    CHECK(bp_session_feed(r.session, ids, 8, &e) && bp_session_feed_begin(r.session, ids, 16, &e), "%s", e.text);
    CHECK(bp_session_feed_layers(r.session, 1) > 0, "the first layer");
    CHECK(bp_session_rewind(r.session, 4, &e) && bp_session_feed_layers(r.session, 99) == 0 &&
              bp_session_position(r.session) == 4,
          "a rewind ends it");
    CHECK(bp_session_feed_begin(r.session, ids, 16, &e) && bp_session_feed_layers(r.session, 1) > 0 &&
              bp_session_feed_layers(r.session, UINT32_MAX) == 0 && bp_session_position(r.session) == 20 &&
              bp_session_logits(r.session),
          "all that are left at once");
    runner_close(&r);
}

static void check_equal(const source *src, const char *arith, uint32_t kv_bits) {
    int32_t ids[N];
    runner probe = runner_open(src, 1, NULL, arith, 0, kv_bits);
    make_ids(ids, probe.vocab);
    runner_close(&probe);
    float *expected = reference_logits(src, arith, kv_bits, ids);
    for (const char *const *isa = kernel_isas(); *isa; isa++) {
        for (uint32_t threads = 1; threads <= 4; threads += threads == 2 ? 2 : 1) {
            runner r = runner_open(src, threads, *isa, arith, 64, kv_bits);
            char what[64];
            snprintf(what, sizeof what, "%s kv%u %s, %u threads", arith, (unsigned)kv_bits, *isa, threads);
            static const size_t steps[] = {1, 3, 7, 17, 64, N};
            for (size_t i = 0; i < sizeof steps / sizeof *steps; i++)
                check_steps(&r, ids, expected, steps[i], bp_session_feed, what);
            for (size_t step = 1; step <= 64; step = step * 4 + 3)
                check_steps(&r, ids, expected, step, feed_parts, what);
            runner_close(&r);
        }
    }
    free(expected);
}

static void check_rewind_and_errors(const source *src) {
    runner r = runner_open(src, 1, NULL, NULL, 0, 0);
    int32_t ids[N], outside = (int32_t)r.vocab;
    bp_err e = {0};
    make_ids(ids, r.vocab);
    CHECK(!bp_session_logits(r.session), "no logits yet");
    CHECK(bp_session_sample(r.session, &e) == -1 && e.code == BP_ERR_ARGUMENT, "nothing to sample");
    CHECK(bp_session_feed(r.session, ids, N, &e), "%s", e.text);
    float *before = malloc(r.vocab * sizeof *before);
    memcpy(before, bp_session_logits(r.session), r.vocab * sizeof *before);
    CHECK(bp_session_rewind(r.session, N - 30, &e) && bp_session_position(r.session) == N - 30, "rewind");
    CHECK(!bp_session_logits(r.session), "a rewound session has no logits");
    CHECK(bp_session_feed(r.session, ids + N - 30, 30, &e), "%s", e.text);
    CHECK(memcmp(before, bp_session_logits(r.session), r.vocab * sizeof *before) == 0, "the same after a rewind");
    CHECK(!bp_session_rewind(r.session, N + 1, &e) && e.code == BP_ERR_ARGUMENT, "rewind forwards");
    CHECK(!bp_session_feed(r.session, ids, 200, &e) && e.code == BP_ERR_CONTEXT && bp_session_position(r.session) == N,
          "full: %s", e.text);
    CHECK(!bp_session_feed(r.session, &outside, 1, &e) && e.code == BP_ERR_ARGUMENT &&
              bp_session_position(r.session) == N,
          "id: %s", e.text);
    outside = -1;
    CHECK(!bp_session_feed(r.session, &outside, 1, &e) && e.code == BP_ERR_ARGUMENT, "negative id");
    free(before);
    runner_close(&r);
}

static void check_options(const source *src) {
    bp_err e = {0};
    CHECK(!bp_engine_open(&(bp_engine_options){.threads = 900}, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    CHECK(!bp_engine_open(&(bp_engine_options){.isa = "sse9"}, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    CHECK(!bp_engine_open(&(bp_engine_options){.arith = "fp4"}, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    runner r = runner_open(src, 2, NULL, NULL, 0, 0);
    CHECK(!bp_session_open(r.model, &(bp_session_options){.n_ctx = 1 << 30}, &e) && e.code == BP_ERR_ARGUMENT, "%s",
          e.text);
    CHECK(bp_session_bytes(r.model, &(bp_session_options){.n_ctx = 1 << 30}) == 0, "bytes of an impossible session");
    CHECK(!bp_session_open(r.model, &(bp_session_options){.kv_bits = 12}, &e) && e.code == BP_ERR_ARGUMENT, "%s",
          e.text);
    CHECK(bp_session_kv_bits(r.session) == 8, "the default");
    /* of a cache of 2 layers and 4 heads of 16 values: a byte less each, and a scale more per head */
    CHECK(bp_session_bytes(r.model, &(bp_session_options){.n_ctx = 256, .kv_bits = 16}) -
                  bp_session_bytes(r.model, &(bp_session_options){.n_ctx = 256, .kv_bits = 8}) ==
              2 * 2 * 4 * 256 * (16 - 4),
          "what 8 bits save");
    CHECK(bp_session_bytes(r.model, NULL) > 0 && bp_session_capacity(r.session) == 256, "bytes and capacity");
    CHECK(!bp_session_sampling(r.session, &(sampler_options){.temperature = -1}, &e) && e.code == BP_ERR_ARGUMENT, "%s",
          e.text);
    int32_t few[4];
    CHECK(bp_tokenize(r.model, "too long", 8, 0, few, 4, &e) == -1 && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    runner_close(&r);
}

/* Every truncation to a structural boundary, and flips of header bytes: refused, or a model that can be run. */
static void check_damage(const source *src) {
    bp_engine *engine = bp_engine_open(NULL, NULL);
    uint8_t *copy = aligned_alloc(64, (size_t)(src->size + 63) / 64 * 64);
    unsigned refused = 0, tried = 0;
    uint64_t full = 0, data = 0;
    bp_probe(src->bytes, (size_t)src->size, &full, &data, NULL);
    for (uint64_t at = 0; at < data; at += 1 + at / 64, tried++) {
        bp_err e = {0};
        memcpy(copy, src->bytes, (size_t)src->size);
        copy[at] ^= (uint8_t)(1u << at % 8);
        bp_model *m = bp_model_open(engine, copy, (size_t)src->size, &e);
        bp_session *s = m ? bp_session_open(m, &(bp_session_options){.n_ctx = 16}, &e) : NULL;
        if (s) bp_session_feed(s, (int32_t[]){0, 1, 2}, 3, &e);
        refused += !s;
        bp_session_close(s);
        bp_model_close(m);
    }
    CHECK(refused > 0, "none of %u damaged headers was refused", tried);
    for (uint64_t cut = 1; cut < src->size; cut = cut * 5 / 4 + 1) {
        bp_err e = {0};
        bp_model *m = bp_model_open(engine, copy, (size_t)(src->size - cut), &e);
        CHECK(m || e.text[0], "an error without a text");
        bp_model_close(m);
    }
    free(copy);
    bp_engine_close(engine);
}

/* The header alone tells what the pieces hash to, and what each tier will take. */
static void check_header(const source *src) {
    bp_err e = {0};
    bp_header h;
    bp_engine *engine = bp_engine_open(NULL, NULL);
    CHECK(bp_header_read(src->bytes, (size_t)src->size, &h, &e), "%s", e.text);
    CHECK(h.file_size == src->size && h.n_pieces == 1 && h.n_tiers == 3 && h.digest, "what the header says");
    size_t head = (size_t)h.data_offset, data = (size_t)src->size - head;
    uint8_t *copy = aligned_alloc(64, bp_round_up(head, 64));
    memcpy(copy, src->bytes, head);
    CHECK(bp_piece_good((const uint8_t *)src->bytes + head, data, h.pieces), "the piece is good");
    CHECK(!bp_piece_good((const uint8_t *)src->bytes + head, data - 1, h.pieces), "a shorter one is not");
    for (uint32_t i = 0; i < h.n_tiers; i++) {
        bp_model *whole = bp_model_open(engine, src->bytes, (size_t)h.tier_end[i], &e);
        bp_model *preview = bp_model_preview(engine, copy, head, (size_t)h.tier_end[i], &e);
        bp_model_info a = {0}, b = {0};
        CHECK(whole && preview, "%s", e.text);
        if (whole && preview) {
            bp_model_describe(whole, &a);
            bp_model_describe(preview, &b);
            CHECK(b.tier == i + 1 && a.tier == b.tier && a.bits_per_weight == b.bits_per_weight, "tier %u", i);
            CHECK(bp_session_bytes(whole, NULL) == bp_session_bytes(preview, NULL), "session at tier %u", i);
        }
        bp_model_close(preview);
        bp_model_close(whole);
    }
    CHECK(!bp_model_preview(engine, copy, head, head + 1, &e) && e.code == BP_ERR_FORMAT, "no tier ends there");
    CHECK(!bp_header_read(copy, head - 1, &h, &e) && e.code == BP_ERR_FORMAT, "a header cut off");
    copy[head / 2] ^= 1;
    CHECK(!bp_header_read(copy, head, &h, &e), "a damaged header");
    free(copy);
    bp_engine_close(engine);
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
    check_equal(&dense, "lut8", 8);
    check_equal(&small, "lut8", 8);
    check_equal(&small, "lut8", 16);
    check_equal(&small, "popcount", 16);
    check_rewind_and_errors(&small);
    check_parts_errors(&small);
    check_options(&small);
    check_damage(&small);
    check_header(&small);
    source_close(&dense);
    source_close(&small);
    return check_end();
}
