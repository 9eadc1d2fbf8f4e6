/* The tables of a tokenizer: what is put is found, the first of equals, and a vocabulary that was chosen to collide does not make
 * anything slow. Time is counted in comparisons. */
static unsigned long steps;
#define TABLE_STEP() ((void)steps++)
#include "tokenizer_table.c" /* in the place of the engine's */

#include "tokenizer_build.h"

enum { TOKENS = 2000, PAIRS = 1 << 17, STRINGS = 400000 };

static double log_of(double n) {
    double bits = 0;
    for (; n > 1; n /= 2) bits++;
    return bits;
}

/* Tokens 256.. are texts whose hashes begin with the same `bits` bits. */
static void add_colliding(unsigned bits) {
    char text[16];
    uint32_t place = hash_text("0", 1, "", 0) >> (32 - bits);
    for (unsigned i = 0; W.n < TOKENS; i++) {
        int n = snprintf(text, sizeof text, "t%x", i);
        if (hash_text(text, (size_t)n, "", 0) >> (32 - bits) == place) add(text, TOKEN_NORMAL, 0);
    }
}

static void add_ordinary(void) {
    char text[16];
    while (W.n < TOKENS) {
        snprintf(text, sizeof text, "t%zx", 16 * W.n);
        add(text, TOKEN_NORMAL, 0);
    }
}

/* Every token is found, the texts between them are not; steps of one lookup at most `each`, of opening at most `all`. */
static void check_vocabulary(const char *name, double all, double each) {
    opened o;
    bp_err e = {0};
    W.n_merges = 0;
    steps = 0;
    bool ok = open_keys(&o, bytes_keys("gpt-2"), &e);
    CHECK(ok, "%s: %s", name, e.text);
    CHECK((double)steps <= all, "%s: opening took %lu steps, %.0f allowed", name, steps, all);
    printf("%s: %lu steps to open %zu tokens", name, steps, W.n);
    unsigned long most = 0, missed = 0, wrong = 0;
    for (size_t i = 0; ok && i < W.n; i++) {
        const char *text = W.tokens[i].text;
        size_t n = W.tokens[i].size, cut = n / 2;
        steps = 0;
        missed += tokenizer_find(o.t, text, cut, text + cut, n - cut) != (int32_t)i;
        most = bp_max(most, steps);
        steps = 0;
        wrong += tokenizer_find(o.t, text, n, "!?", 2) >= 0;
        most = bp_max(most, steps);
    }
    CHECK(missed == 0 && wrong == 0, "%s: %lu tokens are not found, %lu are that are none", name, missed, wrong);
    CHECK((double)most <= each, "%s: a lookup took %lu steps, %.0f allowed", name, most, each);
    printf(", at most %lu to find one\n", most);
    close_keys(&o);
}

static void check_texts(void) {
    double n = TOKENS;
    begin_bytes();
    add_ordinary();
    check_vocabulary("ordinary", 10 * n, 12);
    begin_bytes();
    add_colliding(table_bits(TOKENS));
    check_vocabulary("colliding", 4 * n * log_of(n), log_of(n) + (double)NEAR);
    W.n = 0;
    while (W.n < TOKENS) add("same", TOKEN_NORMAL, 0);
    opened o;
    bp_err e = {0};
    steps = 0;
    CHECK(open_keys(&o, bytes_keys("gpt-2"), &e), "%s", e.text);
    CHECK((double)steps <= 4 * n * log_of(n), "the same again and again: %lu steps", steps);
    CHECK(tokenizer_find(o.t, "sa", 2, "me", 2) == 0, "the first of equal tokens counts");
    close_keys(&o);
}

static int compare_words(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

/* Texts whose hashes are equal to the last bit are told apart. */
static void check_equal_hashes(void) {
    static uint64_t all[STRINGS];
    char text[16];
    unsigned pairs = 0;
    for (uint32_t i = 0; i < STRINGS; i++) {
        int n = snprintf(text, sizeof text, "t%x", i);
        all[i] = (uint64_t)hash_text(text, (size_t)n, "", 0) << 32 | i;
    }
    qsort(all, STRINGS, sizeof *all, compare_words);
    begin_bytes();
    for (size_t i = 1; i < STRINGS; i++) {
        if (all[i - 1] >> 32 != all[i] >> 32) continue;
        for (int side = 0; side < 2; side++) {
            snprintf(text, sizeof text, "t%x", (uint32_t)all[i - (size_t)side]);
            add(text, TOKEN_NORMAL, 0);
        }
        pairs++;
    }
    CHECK(pairs > 3, "%u pairs with equal hashes", pairs);
    check_vocabulary("equal hashes", 1e5, 12);
}

/* x with x * 0x9e3779b97f4a7c15 = 1 modulo 2^64, by Newton's method */
static uint64_t inverse(void) {
    uint64_t a = 0x9e3779b97f4a7c15u, x = a;
    for (int i = 0; i < 6; i++) x *= 2 - a * x;
    return x;
}

/* PAIRS merges, each told twice, in any order; the pairs are any, or all of one hash. */
static void check_merges(bool colliding) {
    tokenizer t = {.merge_places.bits = table_bits(2 * PAIRS)};
    uint64_t factor = colliding ? inverse() : 0x2545f4914f6cdd1du;
    t.merges = malloc(2 * PAIRS * sizeof *t.merges);
    t.merge_places.start = malloc((((size_t)1 << t.merge_places.bits) + 1) * sizeof(uint32_t));
    for (uint32_t i = 0; i < 2 * PAIRS; i++) t.merges[i] = (merge){factor * (i % PAIRS), 2 * PAIRS - i, (int32_t)i};
    steps = 0;
    table_sort_merges(&t, 2 * PAIRS);
    double n = 2 * PAIRS;
    CHECK((double)steps <= 4 * n * log_of(n), "merges, colliding %d: %lu steps", colliding, steps);
    printf("%d merges, colliding %d: %lu steps", 2 * PAIRS, colliding, steps);
    unsigned long most = 0, wrong = 0;
    for (uint32_t i = 0; i < 2 * PAIRS; i++) {
        steps = 0;
        const merge *m = table_find_merge(&t, factor * i);
        wrong += i < PAIRS ? !m || m->id != (int32_t)(i + PAIRS) : m != NULL; /* the later one has the lower rank */
        most = bp_max(most, steps);
    }
    CHECK(wrong == 0, "merges, colliding %d: %lu are wrong", colliding, wrong);
    CHECK((double)most <= log_of(n) + (double)NEAR, "merges, colliding %d: a lookup took %lu steps", colliding, most);
    printf(", at most %lu to find one\n", most);
    free(t.merges);
    free(t.merge_places.start);
}

int main(void) {
    check_texts();
    check_equal_hashes();
    check_merges(false);
    check_merges(true);
    return check_end();
}
