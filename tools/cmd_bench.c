/* bitpair bench: tokens per second, prompt and generation. */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

enum { MOST_REPETITIONS = 100 };

typedef struct {
    machine_options machine;
    uint64_t prompt, generate, repetitions;
    bool json, quiet;
} bench_options;

typedef struct {
    double prefill_tps, decode_tps; /* medians */
    char isa[32], arith[32];
    uint32_t threads;
} bench_result;

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* One round: the prompt, then token by token; end tokens are like any other. */
static bool run_round(bp_session *session, const bench_options *o, const int32_t *prompt, double *prefill,
                      double *decode, bp_err *e) {
    if (!bp_session_rewind(session, 0, e)) return false;
    double started = clock_seconds();
    if (!bp_session_feed(session, prompt, (size_t)o->prompt, e)) return false;
    double prompted = clock_seconds();
    for (uint64_t i = 0; i < o->generate; i++) {
        int32_t id = bp_session_sample(session, e);
        if (id < 0 || !bp_session_feed(session, &id, 1, e)) return false;
        if (cli_interrupted()) return bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
    }
    *prefill = (double)o->prompt / (prompted - started);
    *decode = (double)o->generate / (clock_seconds() - prompted);
    return true;
}

/* The same tokens on every machine. */
static void fill_prompt(int32_t *ids, size_t n, uint32_t vocab) {
    uint32_t state = 1;
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        ids[i] = (int32_t)((state >> 8) % vocab);
    }
}

/* The first round warms caches and clocks up and does not count. */
static bool run_rounds(bp_session *session, const bench_options *o, uint32_t vocab, bench_result *r, bp_err *e) {
    double prefill[MOST_REPETITIONS + 1], decode[MOST_REPETITIONS + 1];
    int32_t *prompt = malloc((size_t)o->prompt * sizeof *prompt);
    if (!prompt) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory");
    fill_prompt(prompt, (size_t)o->prompt, vocab);
    bool ok = true;
    for (uint64_t i = 0; ok && i <= o->repetitions; i++) {
        ok = run_round(session, o, prompt, &prefill[i], &decode[i], e);
        if (ok && i && !o->quiet)
            fprintf(stderr, "%llu/%llu: prefill %.1f tok/s, decode %.1f tok/s\n", (unsigned long long)i,
                    (unsigned long long)o->repetitions, prefill[i], decode[i]);
    }
    free(prompt);
    if (!ok) return false;
    r->prefill_tps = median(prefill + 1, (size_t)o->repetitions);
    r->decode_tps = median(decode + 1, (size_t)o->repetitions);
    return true;
}

static bool bench_model(bp_model *model, const bench_options *o, bench_result *r, bp_err *e) {
    bp_model_info info;
    sampler_options greedy = sampler_defaults();
    bp_session_options options = {.n_ctx = (uint32_t)(o->prompt + o->generate)};
    greedy.temperature = 0;
    bp_model_describe(model, &info);
    bp_session *session = bp_session_open(model, &options, e);
    bool ok = session && bp_session_sampling(session, &greedy, e) && run_rounds(session, o, info.vocab, r, e);
    bp_session_close(session);
    return ok;
}

static bool bench(const char *path, const bench_options *o, bench_result *r, bp_err *e) {
    loaded l = {0};
    bp_engine *engine = machine_engine(&o->machine, e);
    bool ok = engine && loaded_open(&l, engine, path, e) && bench_model(l.model, o, r, e);
    if (ok) {
        snprintf(r->isa, sizeof r->isa, "%s", bp_engine_isa(engine));
        snprintf(r->arith, sizeof r->arith, "%s", bp_engine_arith(engine));
        r->threads = bp_engine_threads(engine);
    }
    loaded_close(&l);
    bp_engine_close(engine);
    return ok;
}

static void print_result(const bench_options *o, const bench_result *r) {
    if (o->json)
        printf("{\"prefill_tps\": %.2f, \"decode_tps\": %.2f, \"isa\": \"%s\", \"arith\": \"%s\", \"threads\": %u, "
               "\"prompt\": %llu, \"generated\": %llu, \"repetitions\": %llu}\n",
               r->prefill_tps, r->decode_tps, r->isa, r->arith, r->threads, (unsigned long long)o->prompt,
               (unsigned long long)o->generate, (unsigned long long)o->repetitions);
    else
        printf("prefill  %8.1f tok/s  (%llu tokens)\ndecode   %8.1f tok/s  (%llu tokens)\nkernels  %s, %s, %u threads, "
               "median of %llu\n",
               r->prefill_tps, (unsigned long long)o->prompt, r->decode_tps, (unsigned long long)o->generate, r->isa,
               r->arith, r->threads, (unsigned long long)o->repetitions);
}

int cmd_bench(int argc, char **argv) {
    bench_options o = {.machine = machine_defaults(), .prompt = 128, .generate = 64, .repetitions = 5};
    const cli_option options[] = {
        {"prompt-tokens", 'p', CLI_COUNT, &o.prompt, 1, 65536, "N", "tokens of the prompt (default 128)"},
        {"tokens", 'n', CLI_COUNT, &o.generate, 1, 65536, "N", "tokens generated after it (default 64)"},
        {"repetitions", 'r', CLI_COUNT, &o.repetitions, 1, MOST_REPETITIONS, "N",
         "rounds; the median counts (default 5)"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "one line of JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no rounds on stderr"},
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {.name = "bench",
                           .usage = "MODEL [options]",
                           .summary = "measure the speed of prompt and generation",
                           .examples = "  bitpair bench model.gguf --threads 2\n"
                                       "  bitpair bench model.gguf --threads 1 --isa ref --repetitions 1 --json\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    bp_err e = {0};
    bench_result result = {0};
    cli_catch_interrupt();
    if (!bench(path, &o, &result, &e)) {
        rc = cli_fail(&e);
        return cli_interrupted() ? CLI_INTERRUPTED : rc;
    }
    print_result(&o, &result);
    return CLI_OK;
}
