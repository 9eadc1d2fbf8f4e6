/* arena.h - one block of memory, handed out front to back, never freed piece by piece.
 * A layout function runs twice: once over an arena without memory, which measures, and once over one with it, so that
 * size and layout cannot disagree:
 *
 *     arena a = arena_measure();   layout(&a, s);   memory = platform_alloc(a.used);
 *     a = arena_over(memory, a.used);               layout(&a, s);
 */
#ifndef BP_ARENA_H
#define BP_ARENA_H

#include "base.h"

typedef struct {
    uint8_t *base; /* NULL while measuring */
    size_t size;   /* SIZE_MAX while measuring */
    size_t used;
    bool overflow; /* a request did not fit or its size overflowed: everything after it is NULL too */
} arena;

arena arena_measure(void);
arena arena_over(void *memory, size_t size);

/* count * item bytes, BP_ALIGN-aligned, or NULL while measuring or after an overflow. The memory is as the caller gave
 * it (platform_alloc zeroes). */
void *arena_take(arena *a, uint64_t count, size_t item);

#define ARENA_NEW(a, type, count) ((type *)arena_take((a), (count), sizeof(type)))

#endif
