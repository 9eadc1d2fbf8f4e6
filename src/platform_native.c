/* platform_native.c - POSIX threads, the C library's memory, and the only file of the engine that knows them. */
#define _GNU_SOURCE
#include "platform.h"

#include <pthread.h>
#include <stdlib.h>
#include <time.h>

#if defined(__linux__)
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

void *platform_alloc(size_t size) {
    if (size > SIZE_MAX - 2 * BP_ALIGN) return NULL;
    size_t rounded = bp_round_up(bp_max(size, 1), BP_ALIGN);
    void *memory = NULL;
    if (posix_memalign(&memory, BP_ALIGN, rounded)) return NULL;
    return memset(memory, 0, rounded);
}

void platform_free(void *memory) { free(memory); }

typedef struct {
    void (*fn)(void *argument);
    void *argument;
} start_record;

static void *start(void *record) {
    start_record r = *(start_record *)record;
    free(record);
    r.fn(r.argument);
    return NULL;
}

bool platform_thread_start(void (*fn)(void *argument), void *argument) {
    start_record *r = malloc(sizeof *r);
    if (!r) return false;
    *r = (start_record){fn, argument};
    pthread_t thread;
    if (pthread_create(&thread, NULL, start, r)) {
        free(r);
        return false;
    }
    pthread_detach(thread);
    return true;
}

#if defined(__linux__)

void platform_wait(const uint32_t *address, uint32_t expected) {
    syscall(SYS_futex, address, FUTEX_WAIT_PRIVATE, expected, NULL, NULL, 0);
}

void platform_wake(const uint32_t *address) {
    syscall(SYS_futex, address, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

#else /* one lock for all addresses: sleeping is the slow path */

static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t wait_changed = PTHREAD_COND_INITIALIZER;

void platform_wait(const uint32_t *address, uint32_t expected) {
    pthread_mutex_lock(&wait_lock);
    if (__atomic_load_n(address, __ATOMIC_ACQUIRE) == expected) pthread_cond_wait(&wait_changed, &wait_lock);
    pthread_mutex_unlock(&wait_lock);
}

void platform_wake(const uint32_t *address) {
    (void)address;
    pthread_mutex_lock(&wait_lock);
    pthread_cond_broadcast(&wait_changed);
    pthread_mutex_unlock(&wait_lock);
}

#endif

void platform_pause(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("isb"); /* yield does nothing on most processors; this takes about as long as pause */
#endif
}

double platform_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

uint32_t platform_cpu(void) {
    uint32_t cpu = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (__builtin_cpu_supports("avx2")) cpu |= PLATFORM_CPU_AVX2;
    if (__builtin_cpu_supports("avx2")) cpu |= PLATFORM_CPU_F16C; /* every processor with AVX2 has F16C */
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
        __builtin_cpu_supports("avx512vbmi") && __builtin_cpu_supports("avx512vnni") &&
        __builtin_cpu_supports("avx512bitalg"))
        cpu |= PLATFORM_CPU_AVX512;
#endif
    return cpu;
}
