#include "err.h"

#include <stdarg.h>

/* A bounded writer: text beyond `cap - 1` is counted away. */
typedef struct {
    char *out;
    size_t cap, used;
} sink;

static void sink_char(sink *s, char c) {
    if (s->used + 1 < s->cap) s->out[s->used++] = c;
}

/* Arguments may come from a hostile file: control characters must not reach a terminal or split a line. */
static void sink_text(sink *s, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)text[i];
        sink_char(s, c < 0x20 || c == 0x7f ? '?' : text[i]);
    }
}

static void sink_unsigned(sink *s, unsigned long long value) {
    char digits[24];
    size_t n = 0;
    do digits[n++] = (char)('0' + value % 10);
    while (value /= 10);
    while (n) sink_char(s, digits[--n]);
}

static void sink_signed(sink *s, long long value) {
    if (value < 0) sink_char(s, '-');
    sink_unsigned(s, value < 0 ? 0ULL - (unsigned long long)value : (unsigned long long)value);
}

static bool begins(const char *text, const char *prefix) {
    while (*prefix && *text == *prefix) text++, prefix++;
    return *prefix == 0;
}

static size_t format(char *out, size_t cap, const char *fmt, va_list args) {
    sink s = {out, cap, 0};
    for (; *fmt; fmt++) {
        if (*fmt != '%') {
            sink_char(&s, *fmt);
        } else if (fmt[1] == 's') {
            const char *text = va_arg(args, const char *);
            if (!text) text = "(null)";
            sink_text(&s, text, strlen(text));
            fmt += 1;
        } else if (begins(fmt, "%.*s")) {
            int n = va_arg(args, int);
            const char *text = va_arg(args, const char *);
            sink_text(&s, text, n > 0 ? (size_t)n : 0);
            fmt += 3;
        } else if (fmt[1] == 'd') {
            sink_signed(&s, va_arg(args, int));
            fmt += 1;
        } else if (fmt[1] == 'u') {
            sink_unsigned(&s, va_arg(args, unsigned));
            fmt += 1;
        } else if (begins(fmt, "%zu")) {
            sink_unsigned(&s, va_arg(args, size_t));
            fmt += 2;
        } else if (begins(fmt, "%llu")) {
            sink_unsigned(&s, va_arg(args, unsigned long long));
            fmt += 3;
        } else {
            sink_char(&s, '%');
            fmt += fmt[1] == '%';
        }
    }
    if (cap) out[s.used] = 0;
    return s.used;
}

size_t bp_format(char *out, size_t cap, const char *fmt, ...) {
    va_list args;
    va_start(args, fmt);
    size_t n = format(out, cap, fmt, args);
    va_end(args);
    return n;
}

bool(bp_fail)(bp_err *e, bp_err_code code, uint64_t offset, const char *fmt, ...) {
    if (!e) return false;
    e->code = code;
    e->offset = offset;
    va_list args;
    va_start(args, fmt);
    format(e->text, sizeof e->text, fmt, args);
    va_end(args);
    return false;
}

const char *bp_err_name(bp_err_code code) {
    static const char *const names[] = {"ok",     "argument", "format",  "unsupported",
                                        "memory", "checksum", "context", "io"};
    return (size_t)code < sizeof names / sizeof *names ? names[code] : "unknown";
}
