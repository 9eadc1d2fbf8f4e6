#include "pool.h"

#include "platform.h"

/* Life of a job: thread 0 stores fn and context, raises `epoch` and wakes; every thread runs and adds itself to
 * `done`; thread 0 leaves when all have. All fields that threads share are accessed by __atomic builtins, waiting is a
 * short spin, then sleep. */
struct pool {
    uint32_t threads; /* of the team, also of one that could not be gathered */
    uint32_t running; /* threads that must leave before the pool is freed, thread 0 counted */
    void (*fn)(void *context, const team *t);
    void *context;
    uint8_t pad0[BP_ALIGN];
    uint32_t epoch; /* number of jobs given out; a change is the signal to start */
    uint32_t closing;
    uint8_t pad1[BP_ALIGN];
    uint32_t done; /* threads 1.. that finished the current job */
    uint8_t pad2[BP_ALIGN];
    uint32_t arrived; /* barrier: threads that wait */
    uint8_t pad3[BP_ALIGN];
    uint32_t phase; /* barrier: number of times it has opened */
    uint32_t ended; /* threads that have left pool_thread */
};

/* Long enough to bridge the few microseconds between two products, short enough not to burn a core while the host
 * sleeps. */
enum { SPIN = 4000 };

static uint32_t load(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_ACQUIRE); }

/* Returns when *address is no longer `old`. */
static void wait_change(const uint32_t *address, uint32_t old) {
    for (unsigned i = 0; i < SPIN; i++) {
        if (load(address) != old) return;
        platform_pause();
    }
    while (load(address) == old) platform_wait(address, old);
}

static void raise_by_one(uint32_t *address) {
    __atomic_fetch_add(address, 1, __ATOMIC_ACQ_REL);
    platform_wake(address);
}

typedef struct {
    pool *pool;
    uint32_t index;
} thread_start;

static void thread_main(void *argument) {
    thread_start start = *(thread_start *)argument;
    platform_free(argument);
    pool_thread(start.pool, start.index);
}

void pool_thread(pool *p, uint32_t index) {
    team t = {p, index, p->threads};
    uint32_t seen = 0;
    for (;;) {
        wait_change(&p->epoch, seen);
        seen++; /* jobs are given out one by one, and none before all have done the last */
        if (load(&p->closing)) break;
        p->fn(p->context, &t);
        raise_by_one(&p->done);
    }
    raise_by_one(&p->ended);
}

pool *pool_open(uint32_t threads) {
    if (threads < 1 || threads > POOL_THREADS) return NULL;
    pool *p = platform_alloc(sizeof *p);
    if (!p) return NULL;
    p->threads = p->running = threads;
    for (uint32_t i = 1; i < threads; i++) {
        thread_start *start = platform_alloc(sizeof *start);
        if (start) *start = (thread_start){p, i};
#if !defined(__wasm__)
        if (start && platform_thread_start(thread_main, start)) continue;
        platform_free(start);
        p->running = i; /* those that run leave again */
        pool_close(p);
        return NULL;
#else
        if (start && !platform_thread_start(thread_main, start)) platform_free(start);
#endif
    }
    return p;
}

void pool_close(pool *p) {
    if (!p) return;
    __atomic_store_n(&p->closing, 1, __ATOMIC_RELEASE);
    raise_by_one(&p->epoch);
    for (uint32_t ended; (ended = load(&p->ended)) < p->running - 1;) wait_change(&p->ended, ended);
    platform_free(p);
}

uint32_t pool_threads(const pool *p) { return p->threads; }

void pool_run(pool *p, void (*fn)(void *context, const team *t), void *context) {
    team t = {p, 0, p->threads};
    if (p->threads == 1) {
        fn(context, &t);
        return;
    }
    p->fn = fn;
    p->context = context;
    __atomic_store_n(&p->done, 0, __ATOMIC_RELEASE);
    raise_by_one(&p->epoch);
    fn(context, &t);
    for (uint32_t done; (done = load(&p->done)) < p->threads - 1;) wait_change(&p->done, done);
}

void team_barrier(const team *t) {
    if (t->count == 1) return;
    pool *p = t->pool;
    uint32_t phase = load(&p->phase);
    if (__atomic_add_fetch(&p->arrived, 1, __ATOMIC_ACQ_REL) == t->count) {
        __atomic_store_n(&p->arrived, 0, __ATOMIC_RELEASE);
        raise_by_one(&p->phase);
    } else {
        wait_change(&p->phase, phase);
    }
}
