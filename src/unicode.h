/* unicode.h - what pre-tokenizers and normalization form C need to know of Unicode. The tables are packed in the binary
 * (unicode_data.h, about a third of their size), since a page downloads it, and unpacked once per tokenizer. */
#ifndef BP_UNICODE_H
#define BP_UNICODE_H

#include "arena.h"
#include "base.h"

typedef enum { UNICODE_OTHER, UNICODE_LETTER, UNICODE_NUMBER, UNICODE_SPACE } unicode_class;

typedef struct {
    uint8_t *classes; /* [UNICODE_LIMIT / 2] nibble of a character: bits 0-1 its class, bit 2: NFC may change it */
    uint64_t *pairs;  /* characters that decompose, sorted: code << 42 | first << 21 | second, second 0: none */
    uint16_t *compositions; /* those that compose again, as indices of pairs, sorted by (first, second) */
    uint32_t *combining;    /* canonical combining classes as runs: from code on (code << 8 | class) until the next */
    size_t n_pairs, n_compositions, n_combining;
} unicode;

enum { UNICODE_LIMIT = 0x32400 }; /* characters from here on have class 0 and are stable */

/* Takes the memory for the tables (none of NFC's without `nfc`) from an arena, which may be one that only counts. */
unicode unicode_reserve(arena *a, bool nfc);
void unicode_unpack(unicode *u);

static inline unicode_class unicode_class_of(const unicode *u, uint32_t code) {
    return code < UNICODE_LIMIT ? (unicode_class)(u->classes[code >> 1] >> (code & 1) * 4 & 3) : UNICODE_OTHER;
}

/* May form C change the text at this character? */
static inline bool unicode_is_unstable(const unicode *u, uint32_t code) {
    return code < UNICODE_LIMIT && (u->classes[code >> 1] >> (code & 1) * 4 & 4);
}

#endif
