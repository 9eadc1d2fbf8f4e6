#include "unicode.h"

#include "unicode_data.h"

unicode unicode_reserve(arena *a, bool nfc) {
    unicode u = {.classes = ARENA_NEW(a, uint8_t, UNICODE_LIMIT / 2)};
    if (!nfc) return u;
    u.n_pairs = UNICODE_PAIRS;
    u.n_compositions = UNICODE_COMPOSITIONS;
    u.n_combining = UNICODE_COMBINING;
    u.pairs = ARENA_NEW(a, uint64_t, UNICODE_PAIRS);
    u.compositions = ARENA_NEW(a, uint16_t, UNICODE_COMPOSITIONS);
    u.combining = ARENA_NEW(a, uint32_t, UNICODE_COMBINING);
    return u;
}

/* An integer in groups of 7 bits, the lowest first, bit 7: more follow */
static uint32_t next_value(const uint8_t **at) {
    uint32_t value = 0;
    for (unsigned shift = 0;; shift += 7) {
        uint8_t byte = *(*at)++;
        value |= (uint32_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
}

/* previous + a difference of either sign: 0, -1, 1, -2, .. */
static uint32_t next_near(const uint8_t **at, uint32_t previous) {
    uint32_t v = next_value(at);
    return previous + (v >> 1 ^ (0 - (v & 1)));
}

/* runs of characters of a kind: (length - 1) << 3 | nibble */
static void unpack_classes(const unicode *u) {
    const uint8_t *at = class_runs;
    for (uint32_t code = 0; code < UNICODE_LIMIT;) {
        uint32_t run = next_value(&at);
        for (uint32_t end = code + (run >> 3) + 1; code < end; code++) {
            uint8_t *two = &u->classes[code >> 1];
            uint32_t kind = run & 7;
            *two = (uint8_t)(code & 1 ? *two | kind << 4 : kind);
        }
    }
}

static uint64_t parts_of(const unicode *u, size_t i) { return u->pairs[i] & (((uint64_t)1 << 42) - 1); }

/* code (its distance from the last one << 2 | composes << 1 | has a second part), first, second */
static void unpack_pairs(unicode *u) {
    const uint8_t *at = pair_bytes;
    uint32_t code = 0, first = 0, second = 0;
    size_t n = 0;
    for (size_t i = 0; i < u->n_pairs; i++) {
        uint32_t step = next_value(&at);
        code += step >> 2;
        first = next_near(&at, first);
        if (step & 1) second = next_near(&at, second);
        u->pairs[i] = (uint64_t)code << 42 | (uint64_t)first << 21 | (step & 1 ? second : 0);
        if (!(step & 2)) continue;
        size_t place = n++;
        for (; place > 0 && parts_of(u, u->compositions[place - 1]) > parts_of(u, i); place--)
            u->compositions[place] = u->compositions[place - 1];
        u->compositions[place] = (uint16_t)i;
    }
}

/* where a class begins (its distance from the last), the class */
static void unpack_combining(const unicode *u) {
    const uint8_t *at = combining_bytes;
    uint32_t code = 0;
    for (size_t i = 0; i < u->n_combining; i++) {
        code += next_value(&at);
        u->combining[i] = code << 8 | *at++;
    }
}

void unicode_unpack(unicode *u) {
    unpack_classes(u);
    if (!u->n_pairs) return;
    unpack_pairs(u);
    unpack_combining(u);
}
