#include "text.h"

#include <stdlib.h>

void text_append(text *t, const char *bytes, size_t n) {
    if (t->lost) return;
    if (n >= t->room - t->size) {
        size_t room = bp_max(2 * t->room, t->size + n + 256);
        char *bigger = realloc(t->bytes, room);
        if (!bigger) {
            t->lost = true;
            return;
        }
        t->bytes = bigger;
        t->room = room;
    }
    if (n) memcpy(t->bytes + t->size, bytes, n);
    t->size += n;
    t->bytes[t->size] = 0;
}

void text_append_string(text *t, const char *string) { text_append(t, string, strlen(string)); }

void text_clear(text *t) { t->size = 0; }

void text_free(text *t) {
    free(t->bytes);
    *t = (text){0};
}

static const char REPLACEMENT[] = "\xEF\xBF\xBD";

/* Length of the character that a lead byte begins; 0: no character begins so. */
static uint32_t sequence_length(uint8_t lead) {
    return lead < 0x80 ? 1 : lead < 0xC2 ? 0 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : lead < 0xF5 ? 4 : 0;
}

/* May `byte` follow what is held? The second byte of some sequences is restricted: no overlong forms, no surrogates,
 * nothing above U+10FFFF. */
static bool continues(const utf8_stream *s, uint8_t byte) {
    if ((byte & 0xC0) != 0x80) return false;
    if (s->n != 1) return true;
    switch (s->held[0]) {
    case 0xE0:
        return byte >= 0xA0;
    case 0xED:
        return byte < 0xA0;
    case 0xF0:
        return byte >= 0x90;
    case 0xF4:
        return byte < 0x90;
    default:
        return true;
    }
}

void utf8_push(utf8_stream *s, text *out, const char *bytes, size_t n) {
    for (size_t i = 0; i < n; i++) {
        uint8_t byte = (uint8_t)bytes[i];
        if (s->n && !continues(s, byte)) utf8_end(s, out);
        if (!s->n) s->needed = sequence_length(byte);
        if (s->needed == 0) {
            text_append(out, REPLACEMENT, 3);
            continue;
        }
        s->held[s->n++] = byte;
        if (s->n < s->needed) continue;
        text_append(out, (const char *)s->held, s->n);
        s->n = 0;
    }
}

void utf8_end(utf8_stream *s, text *out) {
    if (s->n) text_append(out, REPLACEMENT, 3);
    s->n = 0;
}
