/* Unicode normalization form C (UAX 15): decompose, order the marks by combining class, compose. */
#include "tokenizer_internal.h"

/* Hangul syllables decompose by arithmetic: S = S0 + (L * 21 + V) * 28 + T */
enum { S0 = 0xac00, L0 = 0x1100, V0 = 0x1161, T0 = 0x11a7, L_COUNT = 19, V_COUNT = 21, T_COUNT = 28 };
enum { PART = 0x1fffff };

bool nfc_is_stable(const unicode *u, const char *text, size_t n) {
    for (size_t at = 0; at < n;) {
        if ((uint8_t)text[at] < 0xcc)
            at += (uint8_t)text[at] < 0x80 ? 1 : 2; /* all before U+0300 is stable */
        else if (unicode_is_unstable(u, utf8_next(text, &at)))
            return false;
    }
    return true;
}

static unsigned combining_class(const unicode *u, uint32_t code) {
    size_t low = 0, high = u->n_combining;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (u->combining[middle] >> 8 <= code)
            low = middle;
        else
            high = middle;
    }
    return u->combining[low] & 0xff;
}

/* out <- full canonical decomposition (at most 4); returns how many */
static size_t decompose(const unicode *u, uint32_t *out, uint32_t code) {
    uint32_t s = code - S0;
    if (s < L_COUNT * V_COUNT * T_COUNT) {
        out[0] = L0 + s / (V_COUNT * T_COUNT);
        out[1] = V0 + s / T_COUNT % V_COUNT;
        out[2] = T0 + s % T_COUNT;
        return s % T_COUNT ? 3 : 2;
    }
    size_t low = 0, high = u->n_pairs;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (u->pairs[middle] >> 42 < code)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == u->n_pairs || u->pairs[low] >> 42 != code) return out[0] = code, 1;
    size_t n = decompose(u, out, (uint32_t)(u->pairs[low] >> 21) & PART);
    uint32_t second = (uint32_t)u->pairs[low] & PART;
    return second ? n + decompose(u, out + n, second) : n;
}

/* The character that the two make; 0: none */
static uint32_t compose(const unicode *u, uint32_t first, uint32_t second) {
    if (first - L0 < L_COUNT && second - V0 < V_COUNT) return S0 + ((first - L0) * V_COUNT + (second - V0)) * T_COUNT;
    if (first - S0 < L_COUNT * V_COUNT * T_COUNT && (first - S0) % T_COUNT == 0 && second - T0 - 1 < T_COUNT - 1)
        return first + (second - T0);
    uint64_t wanted = (uint64_t)first << 21 | second, parts = ((uint64_t)1 << 42) - 1;
    size_t low = 0, high = u->n_compositions;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if ((u->pairs[u->compositions[middle]] & parts) < wanted)
            low = middle + 1;
        else
            high = middle;
    }
    if (low == u->n_compositions || (u->pairs[u->compositions[low]] & parts) != wanted) return 0;
    return (uint32_t)(u->pairs[u->compositions[low]] >> 42);
}

/* Stable sort of marks [n] by class, by counting: linear even for a text that is one long run of marks. sorted [n] */
static void sort_marks(const unicode *u, uint32_t *marks, size_t n, uint32_t *sorted) {
    size_t start[256] = {0}, at = 0;
    for (size_t i = 0; i < n; i++) start[combining_class(u, marks[i])]++;
    for (size_t k = 0; k < 256; k++) {
        size_t count = start[k];
        start[k] = at;
        at += count;
    }
    for (size_t i = 0; i < n; i++) sorted[start[combining_class(u, marks[i])]++] = marks[i];
    memcpy(marks, sorted, n * sizeof *marks);
}

static void order_marks(const unicode *u, uint32_t *codes, size_t n, uint32_t *sorted) {
    for (size_t i = 0; i < n;) {
        size_t first = i;
        while (i < n && combining_class(u, codes[i])) i++;
        if (i - first > 1) sort_marks(u, codes + first, i - first, sorted);
        if (i == first) i++;
    }
}

/* Composes codes [n] in place: each one with the last starter, unless a mark of the same or a higher class stands
 * between. */
static size_t compose_all(const unicode *u, uint32_t *codes, size_t n) {
    size_t count = 0, starter = SIZE_MAX;
    unsigned blocked = 0; /* class of the last mark that stayed */
    for (size_t i = 0; i < n; i++) {
        unsigned class = combining_class(u, codes[i]);
        bool near = starter != SIZE_MAX && (starter + 1 == count || (blocked && blocked < class));
        uint32_t whole = near ? compose(u, codes[starter], codes[i]) : 0;
        if (whole) {
            codes[starter] = whole;
            continue;
        }
        if (class == 0) starter = count;
        blocked = class;
        codes[count++] = codes[i];
    }
    return count;
}

/* Only stretches that may change are taken apart: a stable character, and the unstable ones that follow it. */
size_t nfc_normalize(const unicode *u, char *out, const char *text, size_t n, uint32_t *work) {
    size_t bytes = 0;
    for (size_t at = 0; at < n;) {
        size_t start = at, next, count;
        utf8_next(text, &at);
        while (next = at, at < n && unicode_is_unstable(u, utf8_next(text, &next))) at = next;
        size_t one = start;
        uint32_t code = utf8_next(text, &one);
        if (one == at && !unicode_is_unstable(u, code)) {
            memcpy(out + bytes, text + start, at - start);
            bytes += at - start;
            continue;
        }
        count = 0;
        for (size_t i = start; i < at;) count += decompose(u, work + count, utf8_next(text, &i));
        order_marks(u, work, count, work + 2 * n);
        count = compose_all(u, work, count);
        for (size_t i = 0; i < count; i++) bytes += utf8_put(out + bytes, work[i]);
    }
    return bytes;
}
