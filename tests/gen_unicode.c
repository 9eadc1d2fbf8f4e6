/* gen_unicode.c - writes src/unicode_data.h to standard output, from the Unicode data inside libutf8proc. Not part of any
 * build:
 *
 *     gcc tests/gen_unicode.c -lutf8proc -o gen && ./gen > src/unicode_data.h
 */
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

enum { LIMIT = 0x32400, LAST = 0x110000, HANGUL = 0xAC00, HANGUL_END = 0xD7A4 };

typedef struct {
    uint32_t code, first, second; /* code = first second; second 0: code is another name of first */
    bool composes;
} pair;

static pair pairs[4096];
static size_t n_pairs;
static bool is_second[LAST];

static unsigned combining(uint32_t code) {
    return (unsigned)utf8proc_get_property((utf8proc_int32_t)code)->combining_class;
}

/* NFC of one or two code points */
static size_t compose(const uint32_t *in, size_t n, uint32_t *out) {
    utf8proc_uint8_t text[16];
    utf8proc_ssize_t size = 0;
    for (size_t i = 0; i < n; i++) size += utf8proc_encode_char((utf8proc_int32_t)in[i], text + size);
    text[size] = 0;
    utf8proc_uint8_t *result = utf8proc_NFC(text);
    size_t count = 0;
    for (utf8proc_ssize_t at = 0; result[at];) {
        utf8proc_int32_t code;
        at += utf8proc_iterate(result + at, -1, &code);
        out[count++] = (uint32_t)code;
    }
    free(result);
    return count;
}

/* The character whose full decomposition is parts [n]; 0: none */
static uint32_t whole(const utf8proc_int32_t *parts, utf8proc_ssize_t n) {
    for (uint32_t code = 0xA0; code < LIMIT; code++) {
        utf8proc_int32_t full[8];
        int class = 0;
        utf8proc_ssize_t m = utf8proc_decompose_char((utf8proc_int32_t)code, full, 8, UTF8PROC_DECOMPOSE, &class);
        if (m == n && memcmp(full, parts, (size_t)n * sizeof *parts) == 0) return code;
    }
    return 0;
}

/* utf8proc only tells full decompositions, so the one-step pair of a character is found as: the last code point of the
 * full one, after the character that the others make. */
static void find_pairs(void) {
    for (uint32_t code = 0xA0; code < LIMIT; code++) {
        utf8proc_int32_t full[8];
        int class = 0;
        if (code >= HANGUL && code < HANGUL_END) continue;
        utf8proc_ssize_t n = utf8proc_decompose_char((utf8proc_int32_t)code, full, 8, UTF8PROC_DECOMPOSE, &class);
        if (n < 1 || (n == 1 && full[0] == (utf8proc_int32_t)code)) continue;
        pair p = {code, (uint32_t)full[0], n > 1 ? (uint32_t)full[n - 1] : 0, false};
        if (n > 2 && !(p.first = whole(full, n - 1))) fprintf(stderr, "U+%04X: no first part\n", code), exit(1);
        if (p.second) {
            uint32_t two[2] = {p.first, p.second}, joined[8];
            p.composes = compose(two, 2, joined) == 1 && joined[0] == code;
            if (p.composes) is_second[p.second] = true;
        }
        pairs[n_pairs++] = p;
    }
    for (uint32_t code = 0x1161; code < 0x1176; code++) is_second[code] = true; /* Hangul vowels and finals */
    for (uint32_t code = 0x11A8; code < 0x11C3; code++) is_second[code] = true;
}

static unsigned class_of(uint32_t code) {
    utf8proc_category_t category = utf8proc_category((utf8proc_int32_t)code);
    if (category >= UTF8PROC_CATEGORY_LU && category <= UTF8PROC_CATEGORY_LO) return 1;
    if (category >= UTF8PROC_CATEGORY_ND && category <= UTF8PROC_CATEGORY_NO) return 2;
    bool space = category >= UTF8PROC_CATEGORY_ZS && category <= UTF8PROC_CATEGORY_ZP;
    return space || (code >= 9 && code <= 13) || code == 0x85 ? 3 : 0;
}

/* May NFC change the text at this character? (its combining class is not 0, or NFC_Quick_Check is not Yes) */
static bool is_unstable(uint32_t code) {
    if (combining(code) || is_second[code]) return true;
    for (size_t i = 0; i < n_pairs; i++)
        if (pairs[i].code == code) return !pairs[i].composes;
    return false;
}

/* ---- packing: the inverse of src/unicode.c ---------------------------------------------------------------------- */

static uint8_t bytes[1 << 16];
static size_t n_bytes;

static void put_value(uint32_t value) {
    for (; value >= 0x80; value >>= 7) bytes[n_bytes++] = (uint8_t)(value | 0x80);
    bytes[n_bytes++] = (uint8_t)value;
}

static void put_near(uint32_t value, uint32_t previous) {
    int32_t d = (int32_t)(value - previous);
    put_value(d < 0 ? (uint32_t)-d * 2 - 1 : (uint32_t)d * 2);
}

static void print_bytes(const char *name, const char *what) {
    printf("\n/* %s */\nstatic const uint8_t %s[%zu] = {", what, name, n_bytes);
    for (size_t i = 0; i < n_bytes; i++) printf("%s%u,", i % 32 ? "" : "\n", bytes[i]);
    printf("\n};\n");
    n_bytes = 0;
}

static unsigned nibble_of(uint32_t code) { return class_of(code) | (is_unstable(code) ? 4u : 0); }

static void pack_classes(void) {
    for (uint32_t code = LIMIT; code < LAST; code++)
        if (class_of(code) || combining(code)) fprintf(stderr, "U+%04X is outside the table\n", code), exit(1);
    for (uint32_t code = 0, end; code < LIMIT; code = end) {
        unsigned kind = nibble_of(code);
        for (end = code + 1; end < LIMIT && nibble_of(end) == kind;) end++;
        put_value((end - code - 1) << 3 | kind);
    }
}

static size_t pack_pairs(void) {
    size_t composing = 0;
    pair last = {0, 0, 0, false};
    for (size_t i = 0; i < n_pairs; i++) {
        pair p = pairs[i];
        put_value((p.code - last.code) << 2 | (p.composes ? 2u : 0) | (p.second ? 1u : 0));
        put_near(p.first, last.first);
        if (p.second) put_near(p.second, last.second);
        composing += p.composes;
        if (!p.second) p.second = last.second;
        last = p;
    }
    return composing;
}

static size_t pack_combining(void) {
    size_t n = 1;
    uint32_t last = 0;
    put_value(0);
    bytes[n_bytes++] = 0;
    for (uint32_t code = 1; code < LIMIT; code++) {
        if (combining(code) == combining(code - 1)) continue;
        put_value(code - last);
        bytes[n_bytes++] = (uint8_t)combining(code);
        last = code;
        n++;
    }
    return n;
}

int main(void) {
    find_pairs();
    printf("/* unicode_data.h - the tables of unicode.c, of Unicode %s. Generated by tests/gen_unicode.c. */\n"
           "#ifndef BP_UNICODE_DATA_H\n#define BP_UNICODE_DATA_H\n\n#include <stdint.h>\n\n/* clang-format off */\n",
           utf8proc_unicode_version());
    pack_classes();
    print_bytes("class_runs", "classes of characters");
    size_t composing = pack_pairs();
    print_bytes("pair_bytes", "canonical decompositions");
    size_t runs = pack_combining();
    print_bytes("combining_bytes", "canonical combining classes");
    printf("/* clang-format on */\n\nenum { UNICODE_PAIRS = %zu, UNICODE_COMPOSITIONS = %zu, UNICODE_COMBINING = %zu "
           "};\n\n"
           "#endif\n",
           n_pairs, composing, runs);
    return 0;
}
