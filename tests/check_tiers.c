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
    source_close(&small);
    return check_end();
}
