/* err.h - the error object: what went wrong, where in the file, and what to do about it.
 * Every function that can fail is `bool f(..., bp_err *e)` (or returns NULL): on failure *e is filled, nothing is
 * printed and nothing exits. `e` may be NULL where the caller does not want the text. */
#ifndef BP_ERR_H
#define BP_ERR_H

#include "base.h"

typedef enum {
    BP_OK = 0,
    BP_ERR_ARGUMENT,    /* the caller broke a documented requirement: "threads must be 1..64, not 900" */
    BP_ERR_FORMAT,      /* malformed or truncated file: "tensor 'blk.0.attn_q.0.A' ends at 9000, file at 8192" */
    BP_ERR_UNSUPPORTED, /* well-formed, but not something this build runs: "architecture 'mamba'" */
    BP_ERR_MEMORY,      /* an allocation failed */
    BP_ERR_CHECKSUM,    /* stored digest and bytes differ */
    BP_ERR_CONTEXT,     /* the session's context is full */
    BP_ERR_IO           /* the operating system refused (tools and platform only) */
} bp_err_code;

enum { BP_ERR_TEXT = 256 };

typedef struct {
    bp_err_code code;
    uint64_t offset;        /* byte offset in the file the error is about, 0 where none applies */
    char text[BP_ERR_TEXT]; /* one line, NUL-terminated, no newline */
} bp_err;

/* Fills *e (if not NULL) and returns false, so that callers write `return bp_fail(e, ...)`.
 * fmt knows %s (NULL prints "(null)"), %.*s (int, const char*), %d (int), %u (unsigned), %llu (unsigned long long),
 * %zu (size_t) and %%. Control characters of arguments become '?', and long texts are cut. */
bool bp_fail(bp_err *e, bp_err_code code, uint64_t offset, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 4, 5)))
#endif
    ;

#if defined(__clang_analyzer__) /* does not look into functions with "...", and would not know that it is false */
static inline bool bp_failed(bool failed) { return (void)failed, false; }
#define bp_fail(...) bp_failed(bp_fail(__VA_ARGS__))
#endif

/* The stable name of a code: "ok", "argument", "format", "unsupported", "memory", "checksum", "context", "io". */
const char *bp_err_name(bp_err_code code);

/* Writes fmt to out [cap], NUL-terminated, cut where it does not fit; the conversions of bp_fail. Returns the length.
 * */
size_t bp_format(char *out, size_t cap, const char *fmt, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

#endif
