/* growing.h - a model that grows while it is open: bytes of later tiers are not read before they are said to be there; from
 * then on it is the model that opens with them, also for sessions that were open before. */
#ifndef BP_GROWING_H
#define BP_GROWING_H

#include "check.h"

#include "engine.h"
#include "io/source.h"

enum { N = 40, VOCAB = 2048, CONTEXT = 64 };

typedef struct {
    uint8_t *bytes; /* [size] of the file, those after the tiers at hand are garbage */
    size_t size;
    bp_header header;
    bp_engine *engine;
    bp_model *model;
    bp_session *session;
} growing;

static inline const int32_t *text(void) {
    static int32_t ids[N];
    uint32_t x = 7;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(((x = x * 1664525u + 1013904223u) >> 8) % VOCAB);
    return ids;
}

static inline bool growing_open(growing *g, const source *src, uint32_t threads, uint32_t room) {
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

static inline void growing_close(growing *g) {
    bp_session_close(g->session);
    bp_model_close(g->model);
    bp_engine_close(g->engine);
    free(g->bytes);
}

static inline bool arrive(growing *g, const source *src, uint32_t tier, bp_err *e) {
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

static inline truth truth_of(const source *src, const growing *g, uint32_t tier) {
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
static inline void check_same(growing *g, const truth *t, uint32_t tier) {
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

static inline void check_growth(const source *src, uint32_t threads) {
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

#endif
