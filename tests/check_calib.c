/* Calibration text: the windows of ordinary sizes stay what they were, and asking for more than there is gives all. */
#include "check.h"

#include "compress/calib.h"
#include "offline.h"
#include "sha256.h"

enum { CTX = 64 };

/* Loads so many windows; their tokens, 0 where that fails. The first eight digits of their SHA-256 to `digits`. */
static size_t load(const tokenizer *t, const char *paths, size_t windows, char digits[9]) {
    calibration c;
    bp_err e = {0};
    sha256 hash;
    uint8_t digest[32];
    bool ok = calibration_load(&c, t, paths, windows, CTX, &e);
    CHECK(ok, "%zu windows: %s", windows, e.text);
    if (!ok) return 0;
    size_t tokens = c.n_seqs * CTX;
    sha256_init(&hash);
    sha256_update(&hash, c.ids, tokens * sizeof *c.ids);
    sha256_final(&hash, digest);
    for (size_t i = 0; i < 4; i++) snprintf(digits + 2 * i, 3, "%02x", digest[i]);
    calibration_free(&c);
    return tokens;
}

static void check_sizes(const tokenizer *t, const char *text) {
    static const struct {
        size_t windows, tokens;
        const char *digits;
    } known[] = {
        {16, 1024, "6d73b7c1"}, {1024, 65536, "e8ce0ee0"}, {8192, 446656, "7cb7f4d6"}, {16384, 508480, "028b0170"}};
    char digits[9], all[9], two[1300];
    for (size_t i = 0; i < sizeof known / sizeof *known; i++) {
        size_t tokens = load(t, text, known[i].windows, digits);
        CHECK(tokens == known[i].tokens && strcmp(digits, known[i].digits) == 0, "%zu windows: %zu tokens, %s",
              known[i].windows, tokens, digits);
    }
    /* 523,425 tokens in one piece; where a region begins anew, one token may be two */
    for (size_t asked = 2000000; asked <= 10000000000; asked *= 10) {
        size_t tokens = load(t, text, asked / CTX, digits);
        CHECK(tokens > 523425 - CTX - 64 && tokens < 523425 + 64, "%zu asked for: %zu tokens", asked, tokens);
        if (asked == 2000000) memcpy(all, digits, sizeof all);
        CHECK(strcmp(all, digits) == 0, "%zu asked for: other tokens", asked);
    }
    snprintf(two, sizeof two, "%s,%s", text, text);
    size_t tokens = load(t, two, SIZE_MAX / CTX, digits);
    CHECK(tokens > 2 * 523425 - 2 * (CTX + 64), "the same text twice: %zu tokens", tokens);
}

int main(void) {
    char original[600], text[600];
    offline_model m = {0};
    bp_err e = {0};
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    snprintf(text, sizeof text, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    bool ok = offline_open(&m, original, &e);
    CHECK(ok, "%s: set BITPAIR_SHARED_DATA", e.text);
    if (ok) check_sizes(m.tokenizer, text);
    offline_close(&m);
    return check_end();
}
