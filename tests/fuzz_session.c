/* Saved states as an attacker's: the input replaces bytes of a good one (or all of them), and the checksum and the
 * model's fingerprint are made to agree. What is refused changes nothing; what is accepted is what is saved again, and
 * the session goes on. */
#include "fuzz.h"
#include "small_file.h"

enum { N_CTX = 24, TOKENS = 9, DIGEST = 32, CHANGES = 5 };

typedef struct {
    bp_model *model;
    bp_session *session;
    uint8_t *good;
    size_t size;
} world;

static const world *make(void) {
    static world w;
    if (w.session) return &w;
    bp_err e = {0};
    small_file f = small_file_make();
    w.model = bp_model_open(bp_engine_open(NULL, NULL), f.bytes, f.size, &e);
    w.session = w.model ? bp_session_open(w.model, &(bp_session_options){.n_ctx = N_CTX}, &e) : NULL;
    LAW(w.session);
    sampler_bias bias[] = {{3, 1.5f}, {5, -1.0f}};
    sampler_options o = sampler_defaults();
    o.bias = bias;
    o.n_bias = 2;
    int32_t ids[TOKENS] = {1, 2, 3, 4, 5, 6, 7, 8, 9};
    LAW(bp_session_sampling(w.session, &o, &e) && bp_session_feed(w.session, ids, TOKENS, &e));
    w.size = bp_session_save_bytes(w.session);
    w.good = malloc(w.size);
    LAW(bp_session_save(w.session, w.good, w.size, &e));
    return &w;
}

/* The state after the changes that `in` lists; *size bytes. */
static uint8_t *changed(const world *w, fuzz_input *in, size_t *size) {
    uint8_t *state = malloc(w->size);
    memcpy(state, w->good, w->size);
    *size = w->size;
    uint8_t how = fuzz_u8(in);
    for (int i = 0; i < how % CHANGES; i++) {
        uint16_t at = (uint16_t)fuzz_take(in, 2);
        uint64_t value = fuzz_take(in, 8);
        size_t width = 1u << (at >> 14), field = at & 0x2000 ? at % w->size : at % 160; /* mostly in the header */
        if (field + width <= w->size) memcpy(state + field, &value, width);
    }
    if (how & 0x20) *size = (uint16_t)fuzz_take(in, 2) % (w->size + 1);
    if (how & 0x40 && *size >= 24) memcpy(state + 16, &(uint64_t){*size}, 8);
    uint8_t *exact = malloc(*size ? *size : 1);
    memcpy(exact, state, *size);
    free(state);
    return exact;
}

static void check_taken(bp_session *s, const uint8_t *state, size_t size) {
    bp_err e = {0};
    LAW(bp_session_save_bytes(s) == size);
    uint8_t *again = malloc(size);
    LAW(bp_session_save(s, again, size, &e));
    /* `exact` above the position says the same as the position */
    memcpy(again + 80, state + 80, 4);
    LAW(memcmp(again, state, size - DIGEST) == 0);
    free(again);
    LAW(bp_session_position(s) <= N_CTX);
    for (uint32_t i = 0; i < bp_session_position(s); i++)
        LAW(bp_session_tokens(s)[i] >= 0 && bp_session_tokens(s)[i] < SMALL_VOCAB);
    int32_t id = bp_session_sample(s, &e);
    if (id < 0)
        fuzz_check_error(&e);
    else
        LAW(id < SMALL_VOCAB);
    if (id >= 0 && !bp_session_feed(s, &id, 1, &e)) LAW(e.code == BP_ERR_CONTEXT);
    if (bp_session_position(s) > 3) LAW(bp_session_shift(s, 1, 1, &e));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    const world *w = make();
    fuzz_input in = {data, size};
    bp_err e = {0};
    size_t n;
    uint8_t *state = changed(w, &in, &n);
    if (n > DIGEST) sha256_digest(state, n - DIGEST, state + n - DIGEST);
    if (bp_session_restore(w->session, state, n, &e)) {
        check_taken(w->session, state, n);
        LAW(bp_session_restore(w->session, w->good, w->size, &e));
    } else {
        fuzz_check_error(&e);
    }
    uint8_t *now = malloc(w->size); /* refused or taken back: the good state is there */
    LAW(bp_session_save_bytes(w->session) == w->size && bp_session_save(w->session, now, w->size, &e));
    LAW(memcmp(now, w->good, w->size) == 0);
    free(now);
    free(state);
    return 0;
}
