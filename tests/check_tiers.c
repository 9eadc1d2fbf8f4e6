/* A model that grows while it is open (growing.h), and what it refuses. */
#include "growing.h"

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

/* A model that was opened with its header alone, in its place, is the one that opens with so many tiers. */
static void check_ahead(const source *src, uint32_t tier) {
    growing g;
    bp_err e = {0};
    int32_t ids[17];
    if (!growing_open(&g, src, 1, 3)) return;
    truth whole = truth_of(src, &g, tier);
    const size_t end = (size_t)g.header.tier_end[tier - 1];
    bp_session_close(g.session);
    bp_model_close(g.model);
    memset(g.bytes + g.header.data_offset, 0xff, g.size - (size_t)g.header.data_offset);
    g.model = bp_model_preview(g.engine, g.bytes, (size_t)g.header.data_offset, g.size, &e);
    CHECK(g.model && bp_tokenize(g.model, "once upon", 9, 0, ids, 17, &e) > 0, "%s", e.text);
    CHECK(!bp_model_raise_tier(g.model, 9, &e) && e.code == BP_ERR_ARGUMENT, "no such tier: %s", e.text);
    CHECK(!bp_model_raise_tier(g.model, 0, &e) && e.code == BP_ERR_ARGUMENT, "no tier: %s", e.text);
    memcpy(g.bytes, src->bytes, end);
    CHECK(bp_model_raise_tier(g.model, tier, &e), "%s", e.text);
    g.session = bp_session_open(g.model, &(bp_session_options){CONTEXT, 0, 0}, &e);
    if (g.session) check_same(&g, &whole, tier);
    if (tier < 3) CHECK(arrive(&g, src, tier + 1, &e), "the next tier: %s", e.text);
    CHECK(g.session && !bp_model_raise_tier(g.model, tier - 1, &e), "no way back");
    free(whole.state);
    growing_close(&g);
}

/* A feed in parts during which a tier arrives is one of the higher tier. */
static void check_parts(const source *src) {
    static const int32_t IDS[] = {1, 80, 147, 201, 282};
    growing whole, parts;
    bp_err e = {0};
    if (!growing_open(&whole, src, 1, 2) || !growing_open(&parts, src, 1, 2)) return;
    CHECK(arrive(&whole, src, 2, &e) && bp_session_feed(whole.session, IDS, 5, &e), "%s", e.text);
    CHECK(bp_session_feed_begin(parts.session, IDS, 5, &e), "%s", e.text);
    const uint32_t left = bp_session_feed_layers(parts.session, 1);
    CHECK(left > 0 && arrive(&parts, src, 2, &e), "%s", e.text);
    CHECK(bp_session_feed_layers(parts.session, 1) == left, "it begins anew");
    CHECK(bp_session_feed_layers(parts.session, left) == 0, "the end");
    bp_model_info info;
    bp_model_describe(whole.model, &info);
    const float *a = bp_session_logits(whole.session), *b = bp_session_logits(parts.session);
    CHECK(a && b && memcmp(a, b, info.vocab * sizeof *a) == 0, "a feed of two tiers gives other logits");
    growing_close(&whole);
    growing_close(&parts);
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
    check_parts(&small);
    for (uint32_t tier = 1; tier <= 3; tier++) check_ahead(&small, tier);
    source_close(&small);
    return check_end();
}
