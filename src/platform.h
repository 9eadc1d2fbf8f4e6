/* platform.h - everything the engine asks of the world, one page: memory, threads, waiting, time.
 * platform_native.c and platform_wasm.c implement it; nothing else in src/ knows where it runs. */
#ifndef BP_PLATFORM_H
#define BP_PLATFORM_H

#include "base.h"

/* size bytes, zeroed, BP_ALIGN-aligned; NULL when there are none. size 0 gives a valid pointer. */
void *platform_alloc(size_t size);

/* Releases what platform_alloc gave; NULL is ignored. */
void platform_free(void *memory);

/* Starts a thread that runs fn(argument) and ends. false where the host supplies the threads itself (WASM: the page's
 * workers call bp_engine_thread) or the system refuses one. */
bool platform_thread_start(void (*fn)(void *argument), void *argument);

/* Sleeps while *address == expected, until platform_wake(address); may return early. */
void platform_wait(const uint32_t *address, uint32_t expected);

/* Wakes every sleeper on address. */
void platform_wake(const uint32_t *address);

/* Tells the processor that this is a spin loop. */
void platform_pause(void);

/* Seconds from an arbitrary origin, monotonic. */
double platform_seconds(void);

/* The instruction-set extensions of this machine that kernels may use; 0 on WASM, where the binary decides. */
enum {
    PLATFORM_CPU_AVX2 = 1 << 0,
    PLATFORM_CPU_F16C = 1 << 1,
    PLATFORM_CPU_AVX512 = 1 << 2 /* F, BW, VL, VBMI, VNNI, BITALG */
};
uint32_t platform_cpu(void);

#endif
