#include "pool.h"

#include "platform.h"

/* A number that threads wait for to change, on cache lines of its own. All access is by __atomic builtins. A sleeper
 * announces itself before it looks again, and who changes the number looks for sleepers after it: one of the two sees
 * the other, and nobody is woken who did not sleep (a call of the system or of the host, at every barrier). */
typedef struct {
    uint32_t value, sleepers;
    uint8_t pad[2 * BP_ALIGN - 2 * sizeof(uint32_t)];
} signal_word;

/* Life of a job: thread 0 stores fn and context, raises `epoch` and wakes; every thread runs and adds itself to
 * `done`; thread 0 leaves when all have. */
struct pool {
    uint32_t threads; /* of the team, also of one that could not be gathered */
    uint32_t running; /* threads that must leave before the pool is freed, thread 0 counted */
    void (*fn)(void *context, const team *t);
    void *context;
    double slept;      /* seconds that thread 0 slept during the current job */
    double alone_till; /* until then thread 0 works alone ... */
    double alone_for;  /* ... having given the others up for so long */
    uint32_t closing;
    uint8_t pad[BP_ALIGN];
    signal_word epoch;   /* number of jobs given out; a change is the signal to start */
    signal_word done;    /* threads 1.. that finished the current job */
    signal_word arrived; /* barrier: threads that wait */
    signal_word phase;   /* barrier: number of times it has opened */
    uint32_t ended;      /* threads that have left pool_thread */
};

/* Long enough to bridge the few microseconds between two products, short enough not to burn a core while the host
 * sleeps. */
enum { SPIN = 4000 };

/* Where another program holds a core, a team waits at every barrier for the thread that does not run, and all together
 * are slower than one. A job that made thread 0 sleep for so long, and for most of its time, sends it on alone for a
 * while, twice as long each time in a row. */
static const double LOST_LEAST = 1e-3, ALONE_FIRST = 0.02, ALONE_MOST = 0.64;

static uint32_t load(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

/* Returns when the value is no longer `old`: the seconds slept. */
static double signal_wait(signal_word *s, uint32_t old) {
    for (unsigned i = 0; i < SPIN; i++) {
        if (load(&s->value) != old) return 0.0;
        platform_pause();
    }
    const double start = platform_seconds();
    __atomic_fetch_add(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    while (load(&s->value) == old) platform_wait(&s->value, old);
    __atomic_fetch_sub(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    return platform_seconds() - start;
}

static void signal_raise(signal_word *s) {
    __atomic_fetch_add(&s->value, 1, __ATOMIC_SEQ_CST);
    if (load(&s->sleepers)) platform_wake(&s->value);
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
        signal_wait(&p->epoch, seen);
        seen++; /* jobs are given out one by one, and none before all have done the last */
        if (load(&p->closing)) break;
        p->fn(p->context, &t);
        signal_raise(&p->done);
    }
    __atomic_fetch_add(&p->ended, 1, __ATOMIC_SEQ_CST); /* from here on the pool may be gone: only its address is used */
    platform_wake(&p->ended);
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
    signal_raise(&p->epoch);
    for (uint32_t ended; (ended = load(&p->ended)) < p->running - 1;) platform_wait(&p->ended, ended);
    platform_free(p);
}

uint32_t pool_threads(const pool *p) { return p->threads; }

/* Whether the next jobs are for thread 0 alone, after one that took `seconds`. */
static void judge_job(pool *p, double seconds, double now) {
    if (p->slept > LOST_LEAST && 2.0 * p->slept > seconds) {
        p->alone_for = p->alone_for * 2.0 < ALONE_FIRST ? ALONE_FIRST : p->alone_for * 2.0;
        if (p->alone_for > ALONE_MOST) p->alone_for = ALONE_MOST;
        p->alone_till = now + p->alone_for;
    } else {
        p->alone_for = 0.0;
    }
}

void pool_run(pool *p, void (*fn)(void *context, const team *t), void *context) {
    const double start = p->threads > 1 ? platform_seconds() : 0.0;
    const team t = {p, 0, start < p->alone_till ? 1 : p->threads};
    if (t.count == 1) {
        fn(context, &t);
        return;
    }
    p->fn = fn;
    p->context = context;
    p->slept = 0.0;
    __atomic_store_n(&p->done.value, 0, __ATOMIC_SEQ_CST);
    signal_raise(&p->epoch);
    fn(context, &t);
    for (uint32_t done; (done = load(&p->done.value)) < p->threads - 1;) p->slept += signal_wait(&p->done, done);
    const double now = platform_seconds();
    judge_job(p, now - start, now);
}

void team_barrier(const team *t) {
    if (t->count == 1) return;
    pool *p = t->pool;
    uint32_t phase = load(&p->phase.value);
    if (__atomic_add_fetch(&p->arrived.value, 1, __ATOMIC_SEQ_CST) == t->count) {
        __atomic_store_n(&p->arrived.value, 0, __ATOMIC_SEQ_CST);
        signal_raise(&p->phase);
        return;
    }
    const double slept = signal_wait(&p->phase, phase);
    if (t->index == 0) p->slept += slept;
}
