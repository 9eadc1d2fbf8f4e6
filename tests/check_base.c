/* The lowest floors: error texts, the arena, SHA-256 test vectors, and the thread pool under load. */
#include "check.h"

#include "arena.h"
#include "err.h"
#include "platform.h"
#include "pool.h"
#include "sha256.h"

#include <time.h>

static void check_errors(void) {
    bp_err e;
    CHECK(!bp_fail(&e, BP_ERR_FORMAT, 7, "tensor '%.*s' %s %d %u %zu %llu %%", 3, "abcdef", "x\ny", -5, 6u, (size_t)7,
                   8ULL),
          "false");
    CHECK(strcmp(e.text, "tensor 'abc' x?y -5 6 7 8 %") == 0, "%s", e.text);
    CHECK(e.code == BP_ERR_FORMAT && e.offset == 7, "code and offset");
    char small[8];
    CHECK(bp_format(small, sizeof small, "%s", "longer than eight") == 7 && strcmp(small, "longer ") == 0, "%s", small);
    CHECK(!bp_fail(NULL, BP_ERR_IO, 0, "nobody listens"), "NULL error");
    CHECK(strcmp(bp_err_name(BP_ERR_CHECKSUM), "checksum") == 0, "name");
    CHECK(strcmp(bp_err_name((bp_err_code)99), "unknown") == 0, "name of an unknown code");
}

static void check_arena(void) {
    arena a = arena_measure();
    CHECK(!arena_take(&a, 3, 5) && a.used == 64, "measuring");
    CHECK(!arena_take(&a, SIZE_MAX / 2, 4) && a.overflow, "overflow of a product");
    static _Alignas(64) uint8_t memory[256];
    a = arena_over(memory, sizeof memory);
    CHECK(arena_take(&a, 1, 1) == memory && arena_take(&a, 1, 65) == memory + 64, "layout");
    CHECK(arena_take(&a, 1, 64) == memory + 192 && !a.overflow, "the last block fits exactly");
    CHECK(!arena_take(&a, 1, 1) && a.overflow && !arena_take(&a, 0, 1), "full, and it stays so");
}

static void check_digest(const char *text, size_t n, size_t repeat, const char *expected) {
    sha256 h;
    uint8_t digest[32];
    char hex[65];
    sha256_init(&h);
    for (size_t i = 0; i < repeat; i++) sha256_update(&h, text, n);
    sha256_final(&h, digest);
    for (int i = 0; i < 32; i++) snprintf(hex + 2 * i, 3, "%02x", digest[i]);
    CHECK(strcmp(hex, expected) == 0, "sha256 of %zu x %zu bytes is %s", repeat, n, hex);
}

/* FIPS 180-4 examples; the last feeds a million letters in pieces that do not divide the block. */
static void check_sha256(void) {
    check_digest("", 0, 1, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    check_digest("abc", 3, 1, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    check_digest("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq", 56, 1,
                 "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    check_digest("aaaaaaaaaa", 10, 100000, "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

enum { ROUNDS = 100 };

typedef struct {
    uint32_t values[POOL_THREADS];
    uint32_t wrong[POOL_THREADS];
    uint32_t count; /* of the team */
} work;

/* Each round every thread writes its slot and, after the barrier, must see everybody's. */
static void count_rounds(void *context, const team *t) {
    work *w = context;
    if (t->index == 0) w->count = t->count;
    for (uint32_t round = 1; round <= ROUNDS; round++) {
        w->values[t->index] = round;
        team_barrier(t);
        for (uint32_t i = 0; i < t->count; i++) w->wrong[t->index] += w->values[i] != round;
        team_barrier(t);
    }
}

static void check_pool(uint32_t threads) {
    pool *p = pool_open(threads);
    CHECK(p != NULL, "pool of %u", threads);
    for (int job = 0; p && job < 20; job++) {
        work w = {0};
        pool_run(p, count_rounds, &w);
        uint32_t wrong = 0, ran = 0;
        for (uint32_t i = 0; i < threads; i++) wrong += w.wrong[i], ran += w.values[i] == ROUNDS;
        CHECK(w.count == threads || w.count == 1, "%u threads: a team of %u", threads, w.count);
        CHECK(wrong == 0 && ran == w.count, "%u threads: %u saw old values, %u ran", threads, wrong, ran);
    }
    pool_close(p);
}

/* A job in which thread 1 is late; counts the team. */
static void late_thread(void *context, const team *t) {
    if (t->index == 1) nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    team_barrier(t);
    if (t->index == 0) *(uint32_t *)context = t->count;
}

static void count_team(void *context, const team *t) {
    if (t->index == 0) *(uint32_t *)context = t->count;
}

/* Thread 0 goes on alone when the others keep it waiting, and calls them again later. */
static void check_pool_alone(void) {
    pool *p = pool_open(2);
    uint32_t count = 2, tries = 0;
    for (; count == 2 && tries < 20; tries++) {
        pool_run(p, late_thread, &count);
        pool_run(p, count_team, &count); /* a busy machine may take so long to come here that the time is over */
    }
    CHECK(count == 1, "a late thread is waited for again");
    double start = platform_seconds();
    while (count == 1 && platform_seconds() < start + 20.0) {
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
        pool_run(p, count_team, &count);
    }
    CHECK(count == 2, "a late thread is never called again");
    pool_never_alone(p);
    uint32_t teams = 0;
    for (tries = 0; tries < 5; tries++) {
        pool_run(p, late_thread, &count);
        teams += count;
        pool_run(p, count_team, &count);
        teams += count;
    }
    CHECK(teams == 20, "a team that is to stay together does not");
    pool_close(p);
}

typedef struct {
    size_t first[POOL_THREADS], end[POOL_THREADS];
    uint32_t count;
} shares;

static void wait_seconds(double seconds) {
    double start = platform_seconds();
    while (platform_seconds() < start + seconds) {
    }
}

/* Every item costs thread 1 four times what it costs thread 0. */
static void share_items(void *context, const team *t) {
    shares *s = context;
    team_share(t, 40, &s->first[t->index], &s->end[t->index]);
    for (size_t i = s->first[t->index]; i < s->end[t->index]; i++) wait_seconds(t->index == 1 ? 4e-5 : 1e-5);
    team_barrier(t);
    if (t->index == 0) s->count = t->count;
}

/* A slow thread gets fewer items, and however they are shared nobody gets one twice. */
static void check_pool_shares(void) {
    pool *p = pool_open(2);
    shares s = {0};
    double start = platform_seconds();
    uint32_t wrong = 0, jobs = 0;
    do {
        pool_run(p, share_items, &s);
        if (s.count == 2) wrong += s.first[0] != 0 || s.end[0] != s.first[1] || s.end[1] != 40;
        if (jobs++ == 0) CHECK(s.count == 2 && s.end[0] == 20, "not equal at first: %zu of 40", s.end[0]);
    } while ((s.count == 1 || s.end[0] < 28) && platform_seconds() < start + 20.0);
    CHECK(wrong == 0, "%u of %u jobs were not shared out", wrong, jobs);
    CHECK(s.end[0] >= 28 && s.end[0] <= 40, "a fast thread is left with %zu of 40 after %u jobs", s.end[0], jobs);
    pool_close(p);
}

int main(void) {
    check_errors();
    check_arena();
    check_sha256();
    for (uint32_t threads = 1; threads <= 5; threads++) check_pool(threads);
    check_pool_alone();
    check_pool_shares();
    CHECK(!pool_open(0) && !pool_open(POOL_THREADS + 1), "sizes out of range");
    double start = platform_seconds();
    CHECK(platform_seconds() >= start, "time goes on");
    CHECK(!platform_alloc(SIZE_MAX), "an impossible allocation");
    return check_end();
}
