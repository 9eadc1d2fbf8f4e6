/* A model that grows while it is open: bytes of later tiers are not read before they are said to be there; from then on
 * it is the model that opens with them, also for sessions that were open before. */
#include "check.h"

#include <unistd.h>

#include "compress/block.h"
#include "compress/container.h"
#include "engine.h"
#include "io/source.h"
#include "mathf.h"
#include "tune/student.h"

enum { N = 40, VOCAB = 2048, CONTEXT = 64 };

typedef struct {
    uint8_t *bytes; /* [size] of the file, those after the tiers at hand are garbage */
    size_t size;
    bp_header header;
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
} growing;

static const int32_t *text(void) {
    static int32_t ids[N];
    uint32_t x = 7;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(((x = x * 1664525u + 1013904223u) >> 8) % VOCAB);
    return ids;
}

static bool growing_open(growing *g, const source *src, uint32_t threads, uint32_t room) {
    bp_err e = {0};
    *g = (growing){0};
    if (!bp_header_read(src->bytes, (size_t)src->size, &g->header, &e)) return false;
    g->size = (size_t)g->header.tier_end[room - 1];
    g->bytes = aligned_alloc(64, bp_round_up(g->size, 64));
    memset(g->bytes, 0xff, g->size); /* as scales: not a number */
    memcpy(g->bytes, src->bytes, (size_t)g->header.tier_end[0]);
    g->engine = bp_engine_open(&(bp_engine_options){.threads = threads}, &e);
    g->model = bp_model_open_tiers(g->engine, g->bytes, g->size, 1, &e);
    g->session = g->model ? bp_session_open(g->model, &(bp_session_options){CONTEXT, 0, 0}, &e) : NULL;
    CHECK(g->session, "%s", e.text);
    return g->session;
}

static void growing_close(growing *g) {
    bp_session_close(g->session);
    bp_model_close(g->model);
    bp_engine_close(g->engine);
    free(g->bytes);
}

static bool arrive(growing *g, const source *src, uint32_t tier, bp_err *e) {
    size_t from = (size_t)g->header.tier_end[tier - 2], to = (size_t)g->header.tier_end[tier - 1];
    memcpy(g->bytes + from, (const uint8_t *)src->bytes + from, to - from);
    return bp_model_raise_tier(g->model, tier, e);
}

/* Logits of the text, and the state of the session after it, of a model that was opened with so many tiers. */
typedef struct {
    float logits[VOCAB];
    uint8_t *state;
    size_t bytes;
    double bits;
} truth;

static truth truth_of(const source *src, const growing *g, uint32_t tier) {
    bp_err e = {0};
    truth t = {0};
    bp_model_info info;
    bp_model *m = bp_model_open(g->engine, src->bytes, (size_t)g->header.tier_end[tier - 1], &e);
    bp_session *s = m ? bp_session_open(m, &(bp_session_options){CONTEXT, 0, 0}, &e) : NULL;
    CHECK(s && bp_session_feed(s, text(), N, &e), "%s", e.text);
    if (s) {
        bp_model_describe(m, &info);
        t.bits = info.bits_per_weight;
        memcpy(t.logits, bp_session_logits(s), sizeof t.logits);
        t.bytes = bp_session_save_bytes(s);
        t.state = malloc(t.bytes);
        CHECK(bp_session_save(s, t.state, t.bytes, &e), "%s", e.text);
    }
    bp_session_close(s);
    bp_model_close(m);
    return t;
}

/* The open model is what opens with `tier` tiers: sizes, logits, states. */
static void check_same(growing *g, const truth *t, uint32_t tier) {
    bp_err e = {0};
    bp_model_info info;
    bp_model_describe(g->model, &info);
    CHECK(info.tier == tier && info.bits_per_weight == t->bits, "tier %u: %u, %f bits", tier, info.tier,
          info.bits_per_weight);
    CHECK(bp_session_rewind(g->session, 0, &e) && bp_session_feed(g->session, text(), N, &e), "%s", e.text);
    CHECK(memcmp(bp_session_logits(g->session), t->logits, sizeof t->logits) == 0, "logits at tier %u", tier);
    CHECK(bp_session_restore(g->session, t->state, t->bytes, &e), "a state of tier %u: %s", tier, e.text);
    CHECK(memcmp(bp_session_logits(g->session), t->logits, sizeof t->logits) == 0, "restored logits at tier %u", tier);
}

static void check_growth(const source *src, uint32_t threads) {
    growing g;
    bp_err e = {0};
    if (!growing_open(&g, src, threads, 3)) return;
    truth t[3];
    for (uint32_t i = 0; i < 3; i++) t[i] = truth_of(src, &g, i + 1);
    check_same(&g, &t[0], 1);
    for (uint32_t tier = 2; tier <= 3; tier++) {
        CHECK(bp_session_rewind(g.session, 0, &e) && bp_session_feed(g.session, text(), N / 2, &e), "%s", e.text);
        float before[VOCAB];
        memcpy(before, bp_session_logits(g.session), sizeof before);
        CHECK(arrive(&g, src, tier, &e), "%s", e.text);
        CHECK(memcmp(bp_session_logits(g.session), before, sizeof before) == 0, "logits at hand stay");
        CHECK(bp_session_feed(g.session, text() + N / 2, N / 2, &e), "%s", e.text);
        const float *mixed = bp_session_logits(g.session);
        CHECK(memcmp(mixed, t[tier - 2].logits, sizeof before) && memcmp(mixed, t[tier - 1].logits, sizeof before),
              "earlier keys and values stay, later ones are of tier %u", tier);
        CHECK(!bp_session_restore(g.session, t[tier - 2].state, t[tier - 2].bytes, &e) && e.code == BP_ERR_ARGUMENT,
              "a state of the old tier");
        check_same(&g, &t[tier - 1], tier);
    }
    for (uint32_t i = 0; i < 3; i++) free(t[i].state);
    growing_close(&g);
}

static void check_refusals(const source *src) {
    growing g;
    bp_err e = {0};
    if (!growing_open(&g, src, 1, 2)) return;
    truth first = truth_of(src, &g, 1);
    CHECK(!bp_model_raise_tier(g.model, 0, &e) && e.code == BP_ERR_ARGUMENT, "back: %s", e.text);
    CHECK(!bp_model_raise_tier(g.model, 3, &e) && e.code == BP_ERR_ARGUMENT, "no room: %s", e.text);
    CHECK(!bp_model_raise_tier(g.model, 9, &e) && e.code == BP_ERR_ARGUMENT, "no such tier: %s", e.text);
    CHECK(bp_model_raise_tier(g.model, 1, &e), "the same: %s", e.text);
    check_same(&g, &first, 1);
    CHECK(!bp_model_open_tiers(g.engine, g.bytes, g.size, 0, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    CHECK(!bp_model_open_tiers(g.engine, g.bytes, g.size, 3, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    CHECK(!bp_model_open_tiers(g.engine, g.bytes, g.size - 1, 1, &e) && e.code == BP_ERR_FORMAT, "%s", e.text);
    free(first.state);
    growing_close(&g);
}

/* ---- a file whose tiers have middle scales of their own -------------------------------------------------------- */

/* Middle scale i of a stage with `more` stages after it, as half precision has it. */
static uint16_t renewed(uint16_t c, uint32_t more) {
    return bp_half_from_float(bp_half_to_float(c) * (more ? 0.75f + 0.125f * (float)more : 1));
}

static bool write_renewed(const source *src, const char *path, container_summary *summary) {
    bp_err e = {0};
    student s = {0};
    packed_table table = {0};
    model *m = model_load(src->bytes, src->size, &e);
    bool ok = m && student_open(&s, m, false, true, &e) && packed_table_copy(&table, &m->embedding, &e);
    size_t n = m ? (size_t)m->config.n_layers * PARTS : 0;
    factors *layers = calloc(n + 1, sizeof *layers);
    for (size_t i = 0; ok && i < n; i++) {
        ok = student_factors(&s.layers[i], &layers[i], &e);
        for (uint32_t j = 0; ok && j < layers[i].n_stages; j++) {
            factor_stage *f = &layers[i].stages[j];
            CHECK(f->n_c == m->n_tiers - j, "rows of middle scales: %u", (unsigned)f->n_c);
            for (uint32_t at = 0; at < f->n_c * f->k; at++) f->c[at] = renewed(f->c[at], at / f->k);
        }
    }
    const container c = {.model = m,
                         .embedding = &table,
                         .layers = layers,
                         .n_tiers = m ? m->n_tiers : 0,
                         .source = "fixture",
                         .recipe = "{}"};
    ok = ok && container_write(&c, path, true, summary, &e);
    CHECK(ok, "%s", e.text);
    for (size_t i = 0; i < n; i++) factors_close(&layers[i]);
    free(layers);
    packed_table_free(&table);
    student_close(&s);
    model_unload(m);
    return ok;
}

/* With each number of tiers the scales are those of that tier, and what was counted is what was written. */
static void check_renewed(const source *old, const source *new, const container_summary *summary) {
    bp_err e = {0};
    for (uint32_t tiers = 1; tiers <= 3; tiers++) {
        model *was = model_load_tiers(old->bytes, old->size, 3, &e);
        model *is = model_load_tiers(new->bytes, new->size, tiers, &e);
        CHECK(was && is, "%s", e.text);
        for (uint32_t i = 0; was && is && i < is->config.n_layers * PARTS; i++) {
            const linear *x = part_linear(&was->layers[i / PARTS], i % PARTS),
                         *y = part_linear(&is->layers[i / PARTS], i % PARTS);
            bool same = y->n_stages == tiers;
            for (uint32_t s = 0; same && s < tiers; s++)
                for (uint32_t j = 0; j < y->stages[s].k; j++)
                    same &= y->stages[s].c[j] ==
                            bp_half_to_float(renewed(bp_half_from_float(x->stages[s].c[j]), tiers - 1 - s));
            CHECK(same, "layer %u with %u tiers", (unsigned)i, (unsigned)tiers);
        }
        if (is) {
            double bits = (double)is->tier_bits[tiers - 1] / (double)is->linear_weights;
            CHECK(bits == summary->bits_per_weight[tiers - 1] &&
                      is->tier_end[tiers - 1] == summary->tier_end[tiers - 1],
                  "%u tiers: %f bits, %f written", (unsigned)tiers, bits, summary->bits_per_weight[tiers - 1]);
        }
        model_unload(was);
        model_unload(is);
    }
    student again = {0};
    model *m = model_load(new->bytes, new->size, &e);
    CHECK(m && student_open(&again, m, false, false, &e), "%s", e.text);
    for (uint32_t s = 0; m && s < 3; s++)
        CHECK(again.layers[0].stages[s].n_c == 3 - s, "rows read back: %u", (unsigned)again.layers[0].stages[s].n_c);
    student_close(&again);
    model_unload(m);
}

static void check_renewing(const source *src) {
    char path[] = "/tmp/bitpair-tiers-XXXXXX";
    container_summary summary;
    source own = {0};
    bp_err e = {0};
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    if (write_renewed(src, path, &summary) && source_open(&own, path, &e)) {
        CHECK(bp_verify(own.bytes, (size_t)own.size, &e), "%s", e.text);
        check_renewed(src, &own, &summary);
        check_growth(&own, 1);
        check_growth(&own, 3);
    }
    CHECK(e.code == BP_OK, "%s", e.text);
    source_close(&own);
    unlink(path);
}

int main(void) {
    source small;
    bp_err e = {0};
    if (!source_open(&small, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e)) {
        printf("%s\n", e.text);
        CHECK(false, "the model of this test is missing");
        return check_end();
    }
    check_growth(&small, 1);
    check_growth(&small, 3);
    check_refusals(&small);
    check_renewing(&small);
    source_close(&small);
    return check_end();
}
