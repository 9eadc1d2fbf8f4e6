/* base.h - the C subset that every file of the engine stands on: fixed-width types, bounds, alignment.
 * The engine is freestanding: no stdio, no malloc, no POSIX. memcpy and friends come from the compiler or from
 * platform_wasm.c. */
#ifndef BP_BASE_H
#define BP_BASE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#if defined(__wasm__)
void *memcpy(void *restrict to, const void *restrict from, size_t n);
void *memmove(void *to, const void *from, size_t n);
void *memset(void *to, int byte, size_t n);
int memcmp(const void *a, const void *b, size_t n);
size_t strlen(const char *s);
#else
#include <string.h>
#endif

enum { BP_ALIGN = 64 }; /* one cache line: alignment of every arena block and of tensor data in our files */

static inline size_t bp_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t bp_max(size_t a, size_t b) { return a > b ? a : b; }

/* ceil(a / b), without overflow for a near SIZE_MAX */
static inline size_t bp_ceil_div(size_t a, size_t b) { return a / b + (a % b != 0); }

/* a rounded up to a multiple of b (the caller knows that it fits) */
static inline size_t bp_round_up(size_t a, size_t b) { return bp_ceil_div(a, b) * b; }

/* Share [*first, *end) of n items for part `index` of `count`: contiguous, sizes differ by at most one. */
static inline void bp_share(size_t n, size_t index, size_t count, size_t *first, size_t *end) {
    *first = (size_t)((uint64_t)n * index / count);
    *end = (size_t)((uint64_t)n * (index + 1) / count);
}

#endif
