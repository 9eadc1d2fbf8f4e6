#include "arena.h"

arena arena_measure(void) { return (arena){NULL, SIZE_MAX, 0, false}; }

arena arena_over(void *memory, size_t size) { return (arena){memory, size, 0, false}; }

void *arena_take(arena *a, uint64_t count, size_t item) {
    if (item && count > (SIZE_MAX - BP_ALIGN) / item) a->overflow = true;
    if (a->overflow) return NULL;
    size_t bytes = bp_round_up((size_t)count * item, BP_ALIGN);
    if (bytes > a->size - a->used) {
        a->overflow = true;
        return NULL;
    }
    void *block = a->base ? a->base + a->used : NULL;
    a->used += bytes;
    return block;
}
