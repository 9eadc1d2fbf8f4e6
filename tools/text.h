/* text.h - a growing text, and whole UTF-8 characters out of a stream of bytes. */
#ifndef BITPAIR_TEXT_H
#define BITPAIR_TEXT_H

#include "base.h"

/* bytes [size], NUL-terminated once something was appended. Zeroed: empty. Out of memory: `lost`, and nothing more is
 * added. */
typedef struct {
    char *bytes;
    size_t size, room;
    bool lost;
} text;

void text_append(text *t, const char *bytes, size_t n);
void text_append_string(text *t, const char *string);
void text_clear(text *t); /* keeps the memory */
void text_free(text *t);

/* The beginning of a character that is not whole yet. Zeroed: none. */
typedef struct {
    uint8_t held[4];
    uint32_t n, needed;
} utf8_stream;

/* Appends the characters that `bytes` complete to `out`; bytes that can never become UTF-8 come out as U+FFFD. */
void utf8_push(utf8_stream *s, text *out, const char *bytes, size_t n);
void utf8_end(utf8_stream *s, text *out);

#endif
