/* pool.h - a fixed team of threads that run one function together, with a barrier, and shares of work that follow the
 * speed of their cores.
 * Thread 0 is the caller. On native the pool starts the others; where platform_thread_start refuses (WASM), the host
 * lets each of its workers call pool_thread(p, index), and pool_run waits until they have come. */
#ifndef BP_POOL_H
#define BP_POOL_H

#include "base.h"

enum { POOL_THREADS = 64 }; /* most threads of a pool */

typedef struct pool pool;

/* What a running function sees of its team. */
typedef struct {
    pool *pool; /* NULL for a team of one */
    uint32_t index, count;
} team;

static inline team team_solo(void) { return (team){0, 0, 1}; }

/* 1 <= threads <= POOL_THREADS; NULL when memory or threads cannot be had. */
pool *pool_open(uint32_t threads);

/* Ends all threads and frees the pool; NULL is ignored. */
void pool_close(pool *p);

uint32_t pool_threads(const pool *p);

/* Runs fn(context, team) on every thread and returns when all have returned; on the caller alone, as a team of one, for
 * a while after the others kept it waiting for most of a job (another program has their processor). Not reentrant. */
void pool_run(pool *p, void (*fn)(void *context, const team *t), void *context);

/* From now on every job runs on every thread: for jobs whose threads take item after item, where who waits at the end
 * says nothing about the cores. */
void pool_never_alone(pool *p);

/* Which of n items in a row are this thread's: [*first, *end). Shares are equal at first; between two jobs threads that
 * waited for others get larger ones (a slower core, or one that is lent out, holds nobody up for long). Within a job
 * they stay as they are. */
void team_share(const team *t, size_t n, size_t *first, size_t *end);

/* Waits until every thread of the team is here; what was written before is visible after. */
void team_barrier(const team *t);

/* Body of thread `index` (1..threads-1): serves until pool_close. Called by the pool itself, or by a WASM worker. */
void pool_thread(pool *p, uint32_t index);

#endif
