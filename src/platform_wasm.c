/* platform_wasm.c - the engine's world inside a WebAssembly instance: a heap over linear memory, waiting by the wait
 * and notify instructions, the host's clock, and the four functions of the C library that compilers call on their own.
 * Only the thread that owns the engine allocates and frees; the heap takes no lock. */
#include "platform.h"

/* ---- heap: address-ordered free list, first fit, neighbours merged ---- */

/* In front of every block, as large as the alignment so that what follows is aligned. */
typedef struct block {
    size_t size;        /* header included, a multiple of BP_ALIGN */
    struct block *next; /* free blocks only: the next one in address order */
    uint8_t pad[BP_ALIGN - sizeof(size_t) - sizeof(void *)];
} block;

extern uint8_t __heap_base; /* by the linker: first byte after stack and data */

enum { PAGE = 65536 };

static block *free_blocks;
static size_t top;   /* end of the last block in use or 0 before the first; no free block touches it */
static size_t dirty; /* bytes from here on have never been handed out, so they are still zero */

/* Makes memory reach `end` (up to 2^32, hence 64 bits). */
static bool reserve(uint64_t end) {
    size_t have = __builtin_wasm_memory_size(0), need = (size_t)((end + PAGE - 1) / PAGE);
    return need <= have || (need <= 65536 && __builtin_wasm_memory_grow(0, need - have) != SIZE_MAX);
}

/* Unlinks the first free block of at least `size` bytes; what is left over stays free in its place. */
static block *take_free(size_t size) {
    for (block **link = &free_blocks; *link; link = &(*link)->next) {
        block *b = *link;
        if (b->size < size) continue;
        if (b->size == size) {
            *link = b->next;
        } else {
            block *rest = (block *)((uint8_t *)b + size);
            rest->size = b->size - size;
            rest->next = b->next;
            *link = rest;
            b->size = size;
        }
        return b;
    }
    return NULL;
}

static block *take_top(size_t size) {
    if (!top) top = dirty = bp_round_up((size_t)&__heap_base, BP_ALIGN);
    /* the last byte of a 4 GiB memory stays unused: its end would not fit a size_t */
    if ((uint64_t)top + size > UINT32_MAX || !reserve((uint64_t)top + size)) return NULL;
    block *b = (block *)top;
    top += size;
    b->size = size;
    return b;
}

void *platform_alloc(size_t size) {
    if (size > SIZE_MAX - 3 * BP_ALIGN) return NULL;
    size_t whole = bp_round_up(bp_max(size, 1), BP_ALIGN) + sizeof(block);
    block *b = take_free(whole);
    if (!b) b = take_top(whole);
    if (!b) return NULL;
    size_t memory = (size_t)(b + 1), end = (size_t)b + whole, used = bp_min(end, dirty);
    if (memory < used) memset((void *)memory, 0, used - memory);
    dirty = bp_max(dirty, end);
    return (void *)memory;
}

static bool touches(const block *b, const void *p) { return (const uint8_t *)b + b->size == (const uint8_t *)p; }

void platform_free(void *memory) {
    if (!memory) return;
    block *b = (block *)memory - 1, *before = NULL, **link = &free_blocks;
    while (*link && *link < b) {
        before = *link;
        link = &before->next;
    }
    b->next = *link;
    *link = b;
    if (b->next && touches(b, b->next)) {
        b->size += b->next->size;
        b->next = b->next->next;
    }
    if (before && touches(before, b)) {
        before->size += b->size;
        before->next = b->next;
        b = before;
    }
    if (!touches(b, (void *)top)) return;
    top = (size_t)b;
    for (link = &free_blocks; *link != b;) link = &(*link)->next;
    *link = NULL;
}

/* ---- threads: the page's workers call bp_engine_thread; nothing is started from here ---- */

bool platform_thread_start(void (*fn)(void *argument), void *argument) {
    (void)fn;
    (void)argument;
    return false;
}

#if defined(__wasm_atomics__)

void platform_wait(const uint32_t *address, uint32_t expected) {
    __builtin_wasm_memory_atomic_wait32((int *)(uintptr_t)address, (int)expected, -1);
}

void platform_wake(const uint32_t *address) {
    __builtin_wasm_memory_atomic_notify((int *)(uintptr_t)address, UINT32_MAX);
}

#else /* a team of one never waits */

void platform_wait(const uint32_t *address, uint32_t expected) {
    (void)address;
    (void)expected;
}

void platform_wake(const uint32_t *address) { (void)address; }

#endif

/* There is no pause instruction: this takes about as long as the one of x86, so that a spin of the same count bridges
 * the same time. */
void platform_pause(void) {
    for (volatile int i = 0; i < 16; i++) {
    }
}

__attribute__((import_module("env"), import_name("seconds"))) double host_seconds(void);

double platform_seconds(void) { return host_seconds(); }

uint32_t platform_cpu(void) { return 0; }

/* ---- the C library's part: the builtins become memory.copy and memory.fill ---- */

void *memcpy(void *restrict to, const void *restrict from, size_t n) { return __builtin_memcpy(to, from, n); }

void *memmove(void *to, const void *from, size_t n) { return __builtin_memmove(to, from, n); }

void *memset(void *to, int byte, size_t n) { return __builtin_memset(to, byte, n); }

int memcmp(const void *a, const void *b, size_t n) {
    const uint8_t *x = a, *y = b;
    for (size_t i = 0; i < n; i++)
        if (x[i] != y[i]) return x[i] - y[i];
    return 0;
}

size_t strlen(const char *s) {
    size_t n = 0;
    while (s[n]) n++;
    return n;
}
