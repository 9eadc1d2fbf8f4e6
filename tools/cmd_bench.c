/* bitpair bench: tokens per second of prompts and of generation at several depths, and where the time goes. */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

enum { MOST_REPETITIONS = 100, MOST_CASES = 16 };

typedef struct {
    machine_options machine;
    const char *prompts, *depths; /* lists, as given */
    uint64_t generate, repetitions;
    bool profile, json, quiet;
} bench_options;

/* Prompts are cases that generate nothing; depths generate after so many tokens. */
typedef struct {
    bp_session *session;
    uint32_t tokens; /* of the prompt, or in the cache before the first generated one */
    bool decode;
    double tps[MOST_REPETITIONS + 1], median;
    profile *profiles; /* [threads] */
    double seconds;    /* of the round that was profiled, for each token */
} bench_case;

typedef struct {
    const bench_options *o;
    bp_engine *engine;
    bp_model_info info;
    bench_case cases[2 * MOST_CASES];
    size_t n_cases;
    int32_t *prompt; /* as many as the longest case wants */
} bench_run;

/* ---- measuring -------------------------------------------------------------------------------------------------- */

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static double median(double *x, size_t n) {
    qsort(x, n, sizeof *x, ascending);
    return n % 2 ? x[n / 2] : 0.5 * (x[n / 2 - 1] + x[n / 2]);
}

/* End tokens are like any other. The cache is filled once; each round goes back to the same depth. */
static bool run_decode(const bench_run *b, bench_case *c, double *seconds, bp_err *e) {
    if (bp_session_position(c->session) < c->tokens) {
        if (!bp_session_feed(c->session, b->prompt, c->tokens, e)) return false;
    } else if (!bp_session_rewind(c->session, c->tokens - 1, e) ||
               !bp_session_feed(c->session, b->prompt + c->tokens - 1, 1, e)) {
        return false;
    }
    bp_session_profile(c->session, c->profiles);
    double started = clock_seconds();
    for (uint64_t i = 0; i < b->o->generate; i++) {
        int32_t id = bp_session_sample(c->session, e);
        if (id < 0 || !bp_session_feed(c->session, &id, 1, e)) return false;
        if (cli_interrupted()) return bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
    }
    *seconds = (clock_seconds() - started) / (double)b->o->generate;
    bp_session_profile(c->session, NULL);
    return true;
}

static bool run_prompt(const bench_run *b, bench_case *c, double *seconds, bp_err *e) {
    if (!bp_session_rewind(c->session, 0, e)) return false;
    bp_session_profile(c->session, c->profiles);
    double started = clock_seconds();
    if (!bp_session_feed(c->session, b->prompt, c->tokens, e)) return false;
    *seconds = (clock_seconds() - started) / c->tokens;
    bp_session_profile(c->session, NULL);
    return !cli_interrupted() || bp_fail(e, BP_ERR_ARGUMENT, 0, "interrupted");
}

static bool run_case(const bench_run *b, bench_case *c, double *seconds, bp_err *e) {
    return c->decode ? run_decode(b, c, seconds, e) : run_prompt(b, c, seconds, e);
}

/* Cases take turns, so that a busy machine slows all of them down. The first round warms up and does not count. */
static bool run_rounds(bench_run *b, bp_err *e) {
    size_t n = (size_t)b->o->repetitions;
    for (size_t round = 0; round <= n; round++)
        for (size_t i = 0; i < b->n_cases; i++) {
            bench_case *c = &b->cases[i];
            double seconds;
            if (!run_case(b, c, &seconds, e)) return false;
            c->tps[round] = 1 / seconds;
            if (round && !b->o->quiet)
                fprintf(stderr, "%zu/%zu: %s %u: %.1f tok/s\n", round, n, c->decode ? "decode at" : "prompt of",
                        (unsigned)c->tokens, c->tps[round]);
        }
    for (size_t i = 0; i < b->n_cases; i++) b->cases[i].median = median(b->cases[i].tps + 1, n);
    return true;
}

static bool run_profiles(bench_run *b, bp_err *e) {
    uint32_t threads = bp_engine_threads(b->engine);
    for (size_t i = 0; i < b->n_cases; i++) {
        bench_case *c = &b->cases[i];
        c->profiles = calloc(threads, sizeof *c->profiles);
        if (!c->profiles) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory");
        for (uint32_t t = 0; t < threads; t++) c->profiles[t].clock = clock_seconds;
        if (!run_case(b, c, &c->seconds, e)) return false;
    }
    return true;
}

/* ---- cases ------------------------------------------------------------------------------------------------------ */

/* "N,N,..." -> one case each */
static bool add_cases(bench_run *b, const char *list, bool decode, bp_err *e) {
    for (size_t n = 0; *list; n++) {
        char *end;
        unsigned long tokens = strtoul(list, &end, 10);
        bool good = n < MOST_CASES && *list >= '0' && *list <= '9' && tokens >= 1 && (*end == ',' || !*end);
        uint64_t after = decode ? b->o->generate : 0;
        if (!good || after > b->info.n_ctx || tokens > b->info.n_ctx - after)
            return bp_fail(e, BP_ERR_ARGUMENT, 0,
                           "%s takes at most %d numbers, each so that it fits the model's context of %u: not '%s'",
                           decode ? "--depth" : "--prompt-tokens", MOST_CASES, (unsigned)b->info.n_ctx, list);
        b->cases[b->n_cases++] = (bench_case){.tokens = (uint32_t)tokens, .decode = decode};
        list = *end ? end + 1 : end;
    }
    return true;
}

/* The same tokens on every machine. */
static bool make_prompt(bench_run *b, bp_err *e) {
    uint32_t state = 1, n = 0;
    for (size_t i = 0; i < b->n_cases; i++) n = b->cases[i].tokens > n ? b->cases[i].tokens : n;
    b->prompt = malloc((n + 1) * sizeof *b->prompt); /* n may be 0 */
    if (!b->prompt) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory");
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        b->prompt[i] = (int32_t)((state >> 8) % b->info.vocab);
    }
    return true;
}

static bool open_sessions(bench_run *b, bp_model *model, bp_err *e) {
    sampler_options greedy = sampler_defaults();
    greedy.temperature = 0;
    for (size_t i = 0; i < b->n_cases; i++) {
        bench_case *c = &b->cases[i];
        bp_session_options options = {.n_ctx = c->tokens + (c->decode ? (uint32_t)b->o->generate : 0),
                                      .kv_bits = (uint32_t)b->o->machine.kv_bits};
        c->session = bp_session_open(model, &options, e);
        if (!c->session || !bp_session_sampling(c->session, &greedy, e)) return false;
    }
    return true;
}

/* Without --depth, generation is measured after the first prompt. */
static bool list_cases(bench_run *b, bp_err *e) {
    const bench_options *o = b->o;
    char first[32];
    snprintf(first, sizeof first, "%.*s", (int)strcspn(o->prompts, ","), o->prompts);
    return add_cases(b, o->prompts, false, e) && add_cases(b, o->depths ? o->depths : first, true, e);
}

/* ---- results ---------------------------------------------------------------------------------------------------- */

static const char *const PARTS[PROFILE_PARTS] = {"embedding", "norms", "tables",   "lookups",
                                                 "attention", "head",  "barriers", "sampling"};

/* Sum of a thread's parts, in seconds for each token */
static double sum_of(const profile *p, double tokens) {
    double sum = 0;
    for (size_t i = 0; i < PROFILE_PARTS; i++) sum += p->seconds[i];
    return sum / tokens;
}

static double tokens_of(const bench_run *b, const bench_case *c) {
    return c->decode ? (double)b->o->generate : (double)c->tokens;
}

static void print_profile(const bench_run *b, const bench_case *c) {
    uint32_t threads = bp_engine_threads(b->engine);
    double n = tokens_of(b, c), sum = sum_of(&c->profiles[0], n);
    printf("\n%s %u, ms a token      thread 1   share", c->decode ? "decode at" : "prompt of", (unsigned)c->tokens);
    for (uint32_t t = 1; t < threads; t++) printf("  thread %u", (unsigned)t + 1);
    for (size_t i = 0; i < PROFILE_PARTS; i++) {
        double ms = c->profiles[0].seconds[i] / n * 1e3;
        printf("\n  %-26s %8.3f  %5.1f%%", PARTS[i], ms, 0.1 * ms / c->seconds);
        for (uint32_t t = 1; t < threads; t++) printf("  %8.3f", c->profiles[t].seconds[i] / n * 1e3);
    }
    printf("\n  %-26s %8.3f  %5.1f%%", "outside of these", (c->seconds - sum) * 1e3,
           100 * (c->seconds - sum) / c->seconds);
    for (uint32_t t = 1; t < threads; t++) printf("  %8.3f", (c->seconds - sum_of(&c->profiles[t], n)) * 1e3);
    printf("\n  %-26s %8.3f  100.0%%\n", "sum", c->seconds * 1e3);
}

static void print_text(const bench_run *b, const bench_options *o) {
    for (size_t i = 0; i < b->n_cases; i++) {
        const bench_case *c = &b->cases[i];
        if (c->decode)
            printf("decode   %8.1f tok/s  (%llu tokens after %u)\n", c->median, (unsigned long long)o->generate,
                   (unsigned)c->tokens);
        else
            printf("prefill  %8.1f tok/s  (%u tokens)\n", c->median, (unsigned)c->tokens);
    }
    printf("kernels  %s, %s, kv%u, %u threads, median of %llu\n", bp_engine_isa(b->engine), bp_engine_arith(b->engine),
           (unsigned)bp_session_kv_bits(b->cases[0].session), (unsigned)bp_engine_threads(b->engine),
           (unsigned long long)o->repetitions);
    for (size_t i = 0; o->profile && i < b->n_cases; i++) print_profile(b, &b->cases[i]);
}

static void print_json_profile(const bench_run *b, const bench_case *c) {
    printf(", \"token_ms\": %.4f, \"profile_ms\": [", c->seconds * 1e3);
    for (uint32_t t = 0; t < bp_engine_threads(b->engine); t++) {
        printf("%s{", t ? ", " : "");
        for (size_t i = 0; i < PROFILE_PARTS; i++)
            printf("\"%s\": %.4f, ", PARTS[i], c->profiles[t].seconds[i] / tokens_of(b, c) * 1e3);
        printf("\"outside\": %.4f}", (c->seconds - sum_of(&c->profiles[t], tokens_of(b, c))) * 1e3);
    }
    printf("]");
}

static void print_json_cases(const bench_run *b, bool decode) {
    bool first = true;
    printf("\"%s\": [", decode ? "decode" : "prefill");
    for (size_t i = 0; i < b->n_cases; i++) {
        const bench_case *c = &b->cases[i];
        if (c->decode != decode) continue;
        printf("%s{\"%s\": %u, \"tps\": %.2f", first ? "" : ", ", decode ? "depth" : "tokens", (unsigned)c->tokens,
               c->median);
        if (b->o->profile) print_json_profile(b, c);
        printf("}");
        first = false;
    }
    printf("]");
}

/* prefill_tps and decode_tps: of the first of each */
static void print_json(const bench_run *b, const bench_options *o) {
    size_t decode = 0;
    while (!b->cases[decode].decode) decode++;
    printf("{\"prefill_tps\": %.2f, \"decode_tps\": %.2f, \"isa\": \"%s\", \"arith\": \"%s\", \"kv_bits\": %u, "
           "\"threads\": %u, \"prompt\": %u, \"generated\": %llu, \"repetitions\": %llu, ",
           b->cases[0].median, b->cases[decode].median, bp_engine_isa(b->engine), bp_engine_arith(b->engine),
           (unsigned)bp_session_kv_bits(b->cases[0].session), (unsigned)bp_engine_threads(b->engine),
           (unsigned)b->cases[0].tokens, (unsigned long long)o->generate, (unsigned long long)o->repetitions);
    print_json_cases(b, false);
    printf(", ");
    print_json_cases(b, true);
    printf("}\n");
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

/* "N,N,...", whatever the model's context */
static bool is_list(const char *list) {
    size_t n = 1;
    for (const char *at = list; *at; at++) n += *at == ',';
    for (const char *at = list; n <= MOST_CASES; at++) {
        const size_t digits = strspn(at, "0123456789");
        if (digits == 0 || strspn(at, "0") == digits || (at[digits] && at[digits] != ',')) return false;
        at += digits;
        if (!*at) return true;
    }
    return false;
}

static int check_lists(const bench_options *o) {
    char wrong[160];
    const bool prompts = is_list(o->prompts);
    if (prompts && (!o->depths || is_list(o->depths))) return CLI_OK;
    bp_format(wrong, sizeof wrong, "--%s takes at most %d numbers from 1 on, separated by commas, not '%s'",
              prompts ? "depth" : "prompt-tokens", MOST_CASES, prompts ? o->depths : o->prompts);
    return cli_wrong("bench", wrong);
}

static bool bench(bench_run *b, bp_model *model, bp_err *e) {
    bp_model_describe(model, &b->info);
    if (!list_cases(b, e) || !make_prompt(b, e) || !open_sessions(b, model, e) || !run_rounds(b, e)) return false;
    if (b->o->profile && !run_profiles(b, e)) return false;
    if (b->o->json)
        print_json(b, b->o);
    else
        print_text(b, b->o);
    return true;
}

static void close_cases(bench_run *b) {
    for (size_t i = 0; i < b->n_cases; i++) {
        bp_session_close(b->cases[i].session);
        free(b->cases[i].profiles);
    }
    free(b->prompt);
}

int cmd_bench(int argc, char **argv) {
    bench_options o = {.machine = machine_defaults(), .prompts = "128", .generate = 64, .repetitions = 5};
    const cli_option options[] = {
        {"prompt-tokens", 'p', CLI_TEXT, &o.prompts, 0, 0, "N,...", "tokens of the prompts (default 128)"},
        {"tokens", 'n', CLI_COUNT, &o.generate, 1, 65536, "N", "tokens generated (default 64)"},
        {"depth", 'd', CLI_TEXT, &o.depths, 0, 0, "N,...",
         "tokens in the context before those (default: the first prompt's)"},
        {"repetitions", 'r', CLI_COUNT, &o.repetitions, 1, MOST_REPETITIONS, "N",
         "rounds; the median counts (default 5)"},
        {"profile", 0, CLI_FLAG, &o.profile, 0, 0, NULL, "one more round: where the time of a token goes, by part"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "one line of JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no rounds on stderr"},
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {.name = "bench",
                           .usage = "MODEL [options]",
                           .summary = "measure the speed of prompt and generation",
                           .examples = "  bitpair bench model.gguf --threads 2\n"
                                       "  bitpair bench model.gguf -p 16,128,1000 --depth 128,512,1900 --profile\n"
                                       "  bitpair bench model.gguf --threads 1 --isa ref --repetitions 1 --json\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if ((rc = machine_check(&o.machine, spec.name)) != CLI_OK || (rc = check_lists(&o)) != CLI_OK) return rc;
    bp_err e = {0};
    loaded l = {0};
    bench_run *b = calloc(1, sizeof *b);
    cli_catch_interrupt();
    bool ok = b || bp_fail(&e, BP_ERR_MEMORY, 0, "out of memory");
    if (ok) *b = (bench_run){.o = &o, .engine = machine_engine(&o.machine, &e)};
    ok = ok && b->engine && loaded_open(&l, b->engine, path, o.machine.tier, &e) && bench(b, l.model, &e);
    rc = ok ? CLI_OK : cli_fail(&e);
    if (!ok && cli_interrupted()) rc = CLI_INTERRUPTED;
    if (b) close_cases(b);
    loaded_close(&l);
    if (b) bp_engine_close(b->engine);
    free(b);
    return rc;
}
