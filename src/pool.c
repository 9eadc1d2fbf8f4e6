#include "pool.h"

#include "platform.h"

/* A number that threads wait for to change, on cache lines of its own. All access is by __atomic builtins. A sleeper
 * announces itself before it looks again, and who changes the number looks for sleepers after it: one of the two sees
 * the other, and nobody is woken who did not sleep (a call of the system or of the host, at every barrier). */
typedef struct {
    uint32_t value, sleepers;
    uint8_t pad[2 * BP_ALIGN - 2 * sizeof(uint32_t)];
} signal_word;

/* What a thread waited for others during the current job. Thread 0 reads it once all have done that job, and nobody writes
 * it before the next. */
typedef struct {
    double slept; /* seconds */
    uint64_t spins;
    uint8_t pad[2 * BP_ALIGN - sizeof(double) - sizeof(uint64_t)];
} waiting;

/* Life of a job: thread 0 stores fn and context, raises `epoch` and wakes; every thread runs and adds itself to
 * `done`; thread 0 leaves when all have. */
struct pool {
    uint32_t threads; /* of the team, also of one that could not be gathered */
    uint32_t running; /* threads that must leave before the pool is freed, thread 0 counted */
    void (*fn)(void *context, const team *t);
    void *context;
    double alone_till;                 /* until then thread 0 works alone ... */
    double alone_for;                  /* ... having given the others up for so long */
    double spin;                       /* seconds of a turn of signal_wait */
    uint32_t bounds[POOL_THREADS + 1]; /* thread i's share of all items is [bounds[i], bounds[i + 1]) / WHOLE */
    uint32_t closing;
    bool never_alone;
    uint8_t pad[BP_ALIGN];
    signal_word epoch;   /* number of jobs given out; a change is the signal to start */
    signal_word done;    /* threads 1.. that finished the current job */
    signal_word arrived; /* barrier: threads that wait */
    signal_word phase;   /* barrier: number of times it has opened */
    uint32_t ended;      /* threads that have left pool_thread */
    waiting waited[POOL_THREADS];
};

enum { WHOLE = 1 << 16 };

/* Long enough to bridge the few microseconds between two products, short enough not to burn a core while the host
 * sleeps. */
enum { SPIN = 4000 };

/* Where another program holds a core, a team waits at every barrier for the thread that does not run, and all together
 * are slower than one. A job that made thread 0 sleep for so long, and for most of its time, sends it on alone for a
 * while, twice as long each time in a row. */
static const double LOST_LEAST = 1e-3, ALONE_FIRST = 0.02, ALONE_MOST = 0.64;

static uint32_t load(const uint32_t *p) { return __atomic_load_n(p, __ATOMIC_SEQ_CST); }

/* Returns when the value is no longer `old`. */
static void signal_wait(signal_word *s, uint32_t old, waiting *w) {
    unsigned turns = 0;
    while (load(&s->value) == old && turns < SPIN) {
        platform_pause();
        turns++;
    }
    w->spins += turns;
    if (turns < SPIN) return;
    const double start = platform_seconds();
    __atomic_fetch_add(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    while (load(&s->value) == old) platform_wait(&s->value, old);
    __atomic_fetch_sub(&s->sleepers, 1, __ATOMIC_SEQ_CST);
    w->slept += platform_seconds() - start;
}

static void signal_raise(signal_word *s) {
    __atomic_fetch_add(&s->value, 1, __ATOMIC_SEQ_CST);
    if (load(&s->sleepers)) platform_wake(&s->value);
}

/* ---- shares ---- */

/* A job shorter than LEAST_JOB says little; WEIGHT of what one says about a thread goes into its share, of which at
 * least LEAST_SHARE of an equal one is left. */
static const double LEAST_JOB = 5e-4, WEIGHT = 0.25, LEAST_SHARE = 0.125;

static void share_equally(pool *p) {
    for (uint32_t i = 0; i <= p->threads; i++) p->bounds[i] = (uint32_t)((uint64_t)WHOLE * i / p->threads);
}

static double spin_seconds(void) {
    enum { TURNS = 2000 };
    signal_word none = {0};
    const double start = platform_seconds();
    for (int i = 0; i < TURNS && load(&none.value) == 0; i++) platform_pause();
    return (platform_seconds() - start) / (double)TURNS;
}

/* A thread that waited longer than the others could have done more in that time. */
static void judge_shares(pool *p, double seconds) {
    double waited[POOL_THREADS], share[POOL_THREADS], mean = 0.0, sum = 0.0, end = 0.0;
    const double equal = 1.0 / p->threads;
    if (seconds < LEAST_JOB) return;
    for (uint32_t i = 0; i < p->threads; i++) {
        waited[i] = p->waited[i].slept + (double)p->waited[i].spins * p->spin;
        mean += waited[i] * equal;
    }
    for (uint32_t i = 0; i < p->threads; i++) {
        share[i] =
            (double)(p->bounds[i + 1] - p->bounds[i]) / (double)WHOLE * (1.0 + WEIGHT * (waited[i] - mean) / seconds);
        if (share[i] < LEAST_SHARE * equal) share[i] = LEAST_SHARE * equal;
        sum += share[i];
    }
    for (uint32_t i = 0; i + 1 < p->threads; i++) {
        end += share[i] / sum;
        p->bounds[i + 1] = (uint32_t)(end * (double)WHOLE);
    }
}

void team_share(const team *t, size_t n, size_t *first, size_t *end) {
    *first = 0;
    *end = n;
    if (t->count == 1) return;
    const uint32_t *bounds = t->pool->bounds + t->index;
    *first = (size_t)(((uint64_t)n * bounds[0] + WHOLE / 2) / WHOLE);
    *end = (size_t)(((uint64_t)n * bounds[1] + WHOLE / 2) / WHOLE);
}

/* ---- threads ---- */

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
        waiting idle = {0};
        signal_wait(&p->epoch, seen, &idle);
        p->waited[index] = (waiting){0};
        seen++; /* jobs are given out one by one, and none before all have done the last */
        if (load(&p->closing)) break;
        p->fn(p->context, &t);
        signal_raise(&p->done);
    }
    /* from here on the pool may be gone: only its address is used */
    __atomic_fetch_add(&p->ended, 1, __ATOMIC_SEQ_CST);
    platform_wake(&p->ended);
}

pool *pool_open(uint32_t threads) {
    if (threads < 1 || threads > POOL_THREADS) return NULL;
    pool *p = platform_alloc(sizeof *p);
    if (!p) return NULL;
    p->threads = p->running = threads;
    share_equally(p);
    p->spin = threads > 1 ? spin_seconds() : 0.0;
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

void pool_never_alone(pool *p) { p->never_alone = true; }

/* ---- jobs ---- */

/* Whether the next jobs are for thread 0 alone, after one that took `seconds`; if not, who gets which share of them. */
static void judge_job(pool *p, double seconds, double now) {
    const double slept = p->waited[0].slept;
    if (slept > LOST_LEAST && 2.0 * slept > seconds && !p->never_alone) {
        p->alone_for = p->alone_for * 2.0 < ALONE_FIRST ? ALONE_FIRST : p->alone_for * 2.0;
        if (p->alone_for > ALONE_MOST) p->alone_for = ALONE_MOST;
        p->alone_till = now + p->alone_for;
        share_equally(p); /* what was learned led here */
    } else {
        p->alone_for = 0.0;
        judge_shares(p, seconds);
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
    p->waited[0] = (waiting){0};
    __atomic_store_n(&p->done.value, 0, __ATOMIC_SEQ_CST);
    signal_raise(&p->epoch);
    fn(context, &t);
    for (uint32_t done; (done = load(&p->done.value)) < p->threads - 1;) signal_wait(&p->done, done, &p->waited[0]);
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
    signal_wait(&p->phase, phase, &p->waited[t->index]);
}
