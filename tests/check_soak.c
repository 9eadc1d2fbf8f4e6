/* Sessions come and go while tokens are written: memory stays flat, the later half of the way has no more than the earlier.
 * `check_soak N` writes N tokens (default 1500). */
#include "check.h"

#include <unistd.h>

#include "engine.h"
#include "io/source.h"

#if defined(__SANITIZE_ADDRESS__)
#define GROWTH_MOST (400L << 20) /* freed memory is kept for a while; what is lost LeakSanitizer says */
#else
#define GROWTH_MOST (32L << 20)
#endif

enum { ANSWER = 24, N_CTX = 64, LOOKS = 10 };

/* Resident bytes of this process. */
static long resident(void) {
    long size = 0, pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f || fscanf(f, "%ld %ld", &size, &pages) != 2) pages = 0;
    if (f) fclose(f);
    return pages * sysconf(_SC_PAGESIZE);
}

/* One conversation: text, a grammar now and then, a fork, a state saved and restored. Returns the tokens written. */
static long talk(bp_model *m, unsigned turn) {
    static const char grammar[] = "root ::= [a-zA-Z ,.']+";
    static const char text[] = "Once upon a time there was a little girl who";
    int32_t ids[sizeof text + 8];
    bp_err e = {0};
    bp_session *s = bp_session_open(m, &(bp_session_options){.n_ctx = N_CTX}, &e), *twin = NULL;
    ptrdiff_t n = s ? bp_tokenize(m, text, sizeof text - 1, 0, ids, sizeof ids / sizeof *ids, &e) : -1;
    sampler_options o = sampler_defaults();
    long written = 0;
    o.seed = turn;
    bool good = n > 0 && bp_session_sampling(s, &o, &e) && bp_session_feed(s, ids, (size_t)n, &e) &&
                (turn % 4 || bp_session_grammar(s, grammar, sizeof grammar - 1, &e));
    for (; good && written < ANSWER; written++) {
        int32_t id = bp_session_sample(s, &e);
        good = id >= 0 && bp_session_feed(s, &id, 1, &e);
    }
    size_t size = good ? bp_session_save_bytes(s) : 0;
    void *state = malloc(size + 1);
    good = good && (twin = bp_session_fork(s, &e)) && bp_session_save(s, state, size, &e) &&
           bp_session_shift(twin, 2, 5, &e) && bp_session_restore(twin, state, size, &e);
    if (!good) CHECK(false, "turn %u: %s", turn, e.text);
    free(state);
    bp_session_close(twin);
    bp_session_close(s);
    return written;
}

static long most(const long *bytes, int from, int to) {
    long most = 0;
    for (int i = from; i < to; i++) most = bytes[i] > most ? bytes[i] : most;
    return most;
}

int main(int argc, char **argv) {
    long wanted = argc > 1 ? atol(argv[1]) : 1500, written = 0, models = 0, bytes[LOOKS] = {0};
    int looks = 0;
    source fixture;
    bp_err e = {0};
    CHECK(source_open(&fixture, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    bp_engine *engine = bp_engine_open(&(bp_engine_options){.threads = 2}, &e);
    for (unsigned turn = 0; written < wanted; turn++, models++) {
        bp_model *m = bp_model_open(engine, fixture.bytes, (size_t)fixture.size, &e);
        CHECK(m, "%s", e.text);
        if (!m) break;
        written += talk(m, turn);
        bp_model_close(m);
        while (looks < LOOKS && looks < LOOKS * written / wanted) bytes[looks++] = resident();
    }
    long growth = most(bytes, LOOKS / 2, LOOKS) - most(bytes, 0, LOOKS / 2);
    CHECK(written >= wanted && looks == LOOKS, "%ld of %ld tokens", written, wanted);
    CHECK(growth < GROWTH_MOST, "%ld bytes more in the later half of %ld tokens", growth, written);
    printf("%ld tokens, %ld models opened and closed; MB resident at each tenth:", written, models);
    for (int i = 0; i < LOOKS; i++) printf(" %.1f", (double)bytes[i] / 1e6);
    printf("\n");
    bp_engine_close(engine);
    source_close(&fixture);
    return check_end();
}
