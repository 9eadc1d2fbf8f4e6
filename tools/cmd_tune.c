/* bitpair tune: distillation of a compressed model from its dense original. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "cli.h"
#include "compress/plan.h"
#include "io/file.h"
#include "load.h"
#include "offline.h"
#include "tune/tune.h"

typedef struct {
    tune_options tune;
    const char *teacher, *student, *out, *calib, *tiers, *labels;
    uint64_t calib_tokens, ctx, threads, max_memory;
    uint32_t n_weights, n_labels; /* that --tiers and --labels give */
    bool force, json;
} options;

/* ---- what the file says about itself ---------------------------------------------------------------------------- */

/* bitpair.recipe of the result: that of the student, and the tuning. */
static void describe(const options *o, const model *compressed, char *out, size_t capacity) {
    char before[PLAN_RECIPE], labels[16 * CALIB_FILES] = "";
    const tune_options *t = &o->tune;
    if (!offline_key(compressed, "bitpair.recipe", before, sizeof before)) before[0] = 0;
    for (uint32_t i = 0; i < o->n_labels; i++)
        snprintf(labels + strlen(labels), sizeof labels - strlen(labels), "%s%g", i ? ", " : "", t->labels[i]);
    int n =
        snprintf(out, capacity,
                 "{\"compress\": %s, \"tune\": {\"minutes\": %g, \"steps\": %llu, \"sequences\": %llu, \"ctx\": "
                 "%llu, \"rate\": %g, \"embedding_rate\": %g, \"from_tier\": %u, \"tier_scales\": %s, "
                 "\"fix_shared\": %s, \"signs\": %s, \"seed\": %llu, \"calib_tokens\": %llu, \"sign_curvature\": %g, "
                 "\"sign_noise\": %g, \"labels\": [%s], \"validate_every\": %g, \"exact\": %s, \"tiers\": [",
                 before[0] ? before : "null", t->minutes, (unsigned long long)t->steps,
                 (unsigned long long)t->sequences, (unsigned long long)o->ctx, t->rate_scales, t->rate_tables,
                 (unsigned)t->first_tier, t->tier_scales ? "true" : "false", t->apart ? "true" : "false",
                 t->signs ? "true" : "false", (unsigned long long)t->seed, (unsigned long long)o->calib_tokens,
                 t->curvature, t->noise, labels, t->validate_every, t->exact ? "true" : "false");
    for (uint32_t i = 0; i < compressed->n_tiers && n > 0 && (size_t)n < capacity; i++)
        n += snprintf(out + n, capacity - (size_t)n, "%s%g", i ? ", " : "", t->tier_weights[i]);
    if (n > 0 && (size_t)n < capacity) n += snprintf(out + n, capacity - (size_t)n, "]");
    if (n > 0 && (size_t)n < capacity && o->tune.embedding_bits)
        n += snprintf(out + n, capacity - (size_t)n, ", \"embedding_bits\": %llu",
                      (unsigned long long)o->tune.embedding_bits);
    if (n > 0 && (size_t)n < capacity && t->scale_bits)
        n += snprintf(out + n, capacity - (size_t)n, ", \"scale_bits\": %llu", (unsigned long long)t->scale_bits);
    if (n > 0 && (size_t)n < capacity) snprintf(out + n, capacity - (size_t)n, "}}");
}

/* ---- options ---------------------------------------------------------------------------------------------------- */

/* --tiers "0.2,0.3,0.5": how often each number of tiers is trained, normalised. */
static bool read_tiers(options *o, bp_err *e) {
    double sum = 0, *weights = o->tune.tier_weights;
    const char *at = o->tiers;
    uint32_t i = 0;
    if (!at) return true;
    for (;; i++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || !(value >= 0) || !isfinite(value) || (*end && *end != ','))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--tiers '%s': numbers separated by commas are needed", o->tiers);
        if (i >= MODEL_TIERS)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--tiers '%s': a file has at most %d tiers", o->tiers, MODEL_TIERS);
        weights[i] = value;
        sum += value;
        if (!*end) break;
        at = end + 1;
    }
    if (!(sum > 0)) return bp_fail(e, BP_ERR_ARGUMENT, 0, "--tiers '%s': nothing to train", o->tiers);
    o->n_weights = i + 1;
    for (i = 0; i < o->n_weights; i++) weights[i] /= sum;
    return true;
}

/* --labels "0.1,0": a share for each file of --calib, or one for all. */
static bool read_labels(options *o, bp_err *e) {
    uint32_t n = 0, files = 1;
    for (const char *s = o->calib; *s; s++) files += *s == ',';
    for (const char *at = o->labels;; at++) {
        char *end;
        double value = strtod(at, &end);
        if (end == at || !(value >= 0 && value <= 1) || (*end && *end != ','))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--labels '%s': numbers from 0 to 1, separated by commas", o->labels);
        if (n == CALIB_FILES)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--labels '%s': at most %d", o->labels, CALIB_FILES);
        o->tune.labels[n++] = value;
        at = end;
        if (!*end) break;
    }
    for (size_t i = 1; n == 1 && i < CALIB_FILES; i++) o->tune.labels[i] = o->tune.labels[0];
    o->n_labels = n;
    return n == 1 || n == files ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "--labels '%s': one number, or one for each of the %u files of --calib",
                   o->labels, (unsigned)files);
}

/* Without --tiers the whole file is trained, always. */
static bool check_tiers(options *o, uint32_t n_tiers, bp_err *e) {
    if (!o->tiers) o->tune.tier_weights[n_tiers - 1] = 1;
    return o->n_weights <= n_tiers ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "--tiers '%s': the student has %u tiers", o->tiers, (unsigned)n_tiers);
}

static bool check_output(const options *o, uint64_t size, bp_err *e) {
    file_out *probe = file_create(o->out, o->force, 2 * size, e);
    file_discard(probe);
    return probe != NULL;
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static void print_scores(const tune_result *r, const double weights[MODEL_TIERS]) {
    for (uint32_t i = 0; i < MODEL_TIERS; i++) {
        if (!(weights[i] > 0)) continue;
        printf("%u tier%s     KL %.4f -> %.4f, perplexity %.3f -> %.3f, top-1 %.2f -> %.2f %% (validation sequences)\n",
               (unsigned)i + 1, i ? "s" : " ", r->before[i].kl, r->after[i].kl, r->before[i].ppl, r->after[i].ppl,
               100 * r->before[i].top1, 100 * r->after[i].top1);
    }
}

static void print_json(const tune_result *r, const double weights[MODEL_TIERS]) {
    const char *comma = "";
    printf("{\"steps\": %llu, \"tokens\": %llu, \"best_step\": %llu, \"seconds\": %.1f, \"flipped\": %llu, \"signs\": "
           "%llu, \"tiers\": [",
           (unsigned long long)r->steps, (unsigned long long)r->tokens, (unsigned long long)r->best_step, r->seconds,
           (unsigned long long)r->flipped, (unsigned long long)r->signs);
    for (uint32_t i = 0; i < MODEL_TIERS; i++) {
        if (!(weights[i] > 0)) continue;
        printf("%s{\"tiers\": %u, \"kl\": [%.6g, %.6g], \"ppl\": [%.6g, %.6g], \"top1\": [%.6g, %.6g]}", comma,
               (unsigned)i + 1, r->before[i].kl, r->after[i].kl, r->before[i].ppl, r->after[i].ppl, r->before[i].top1,
               r->after[i].top1);
        comma = ", ";
    }
    puts("]}");
}

static void print_result(const options *o, const tune_result *r) {
    if (o->json) {
        print_json(r, o->tune.tier_weights);
        return;
    }
    print_scores(r, o->tune.tier_weights);
    printf("signs       %llu of %llu flipped\n", (unsigned long long)r->flipped, (unsigned long long)r->signs);
    printf("%s  %llu steps, %llu tokens, best at step %llu, %.0f s, seed %llu\n", o->out, (unsigned long long)r->steps,
           (unsigned long long)r->tokens, (unsigned long long)r->best_step, r->seconds,
           (unsigned long long)o->tune.seed);
}

static bool tune(options *o, const offline_model *teacher, const offline_model *compressed, tune_result *result,
                 bp_err *e) {
    char origin[512], recipe[PLAN_RECIPE + 1024], files[2 * sizeof teacher->description];
    calibration text = {0};
    const model *m = compressed->model;
    if (!m->factorized) return bp_fail(e, BP_ERR_ARGUMENT, 0, "%s is not a bitpair file", o->student);
    offline_key(m, "bitpair.source", origin, sizeof origin);
    snprintf(files, sizeof files, "%s\n%s", teacher->description, compressed->description);
    o->tune.files = files;
    bool ok =
        offline_check_text(teacher, o->ctx, e) && check_tiers(o, m->n_tiers, e) &&
        check_output(o, compressed->source.size, e) &&
        calibration_load(&text, teacher->tokenizer, o->calib, (size_t)(o->calib_tokens / o->ctx), (size_t)o->ctx, e);
    if (ok) {
        describe(o, m, recipe, sizeof recipe);
        container c = {.tables = m, .source = origin, .recipe = recipe};
        ok = tune_run(&o->tune, teacher->model, m, &text, &c, o->out, o->force, result, e);
    }
    o->tune.files = NULL;
    calibration_free(&text);
    return ok;
}

static int run(options *o) {
    offline_model teacher = {0}, compressed = {0};
    tune_result result = {0};
    bp_err e = {0};
    bool ok = offline_open(&teacher, o->teacher, &e) && offline_open(&compressed, o->student, &e) &&
              tune(o, &teacher, &compressed, &result, &e);
    offline_close(&compressed);
    offline_close(&teacher);
    if (ok) {
        print_result(o, &result);
        return CLI_OK;
    }
    if (e.code != BP_OK) return cli_fail(&e);
    char state[1100];
    snprintf(state, sizeof state, "%s.tune", o->out);
    if (access(state, R_OK) == 0)
        fprintf(stderr, "bitpair: interrupted; the same command with --resume goes on from %s\n", state);
    else
        fputs("bitpair: interrupted before the first step; nothing was written\n", stderr);
    return CLI_INTERRUPTED;
}

static int check_usage(options *o) {
    bp_err e = {0};
    const char *wrong = !o->out     ? "-o OUT.gguf is missing"
                        : !o->calib ? "--calib FILES is missing: texts like those the model will read"
                        : !(o->tune.minutes > 0) && !o->tune.steps ? "give a budget: --minutes M or --steps N"
                        : o->tune.embedding_bits && o->tune.embedding_bits < 4
                            ? "--embedding-bits is 4 to 8, or 0 to take the student's"
                        : o->tune.embedding_bits && (o->tune.first_tier > 1 || o->tune.apart)
                            ? "--embedding-bits changes what all tiers use: not with --from-tier or --fix-shared"
                        : o->tune.scale_bits && o->tune.scale_bits != 8 && o->tune.scale_bits != 16
                            ? "--scale-bits is 8 or 16, or 0 to store scales as the student does"
                        : o->tune.scale_bits && (o->tune.first_tier > 1 || o->tune.apart)
                            ? "--scale-bits changes what all tiers use: not with --from-tier or --fix-shared"
                        : !read_tiers(o, &e) || !read_labels(o, &e) ? e.text
                                                                    : NULL;
    return wrong ? cli_wrong("tune", wrong) : CLI_OK;
}

int cmd_tune(int argc, char **argv) {
    options o = {.tune = {.sequences = 8,
                          .rate_scales = 0.006,
                          .rate_tables = 0.002,
                          .curvature = 1,
                          .noise = 4,
                          .validate_every = 300},
                 .calib_tokens = 524288,
                 .ctx = 512,
                 .threads = machine_defaults().threads,
                 .labels = "0"};
    bool scales_only = false;
    uint64_t from_tier = 1;
    const cli_option table[] = {
        {"output", 'o', CLI_TEXT, &o.out, 0, 0, "OUT.gguf", "the file to write"},
        {"calib", 0, CLI_TEXT, &o.calib, 0, 0, "FILES",
         "texts to learn from, UTF-8; several, separated by commas, share evenly"},
        {"calib-tokens", 0, CLI_COUNT, &o.calib_tokens, 256, 1e10, "N",
         "tokens of them, 1 in 16 for validation (of which 16384 are scored); read again when all are used (default "
         "524288)"},
        {"ctx", 'c', CLI_COUNT, &o.ctx, 8, 65536, "N", "tokens of a sequence (default 512)"},
        {"minutes", 0, CLI_REAL, &o.tune.minutes, 0, 1e6, "M", "budget of wall time"},
        {"steps", 0, CLI_COUNT, &o.tune.steps, 0, 1e9, "N",
         "budget of steps; with it alone, and --validate-every 1e9, the result is reproducible"},
        {"batch", 0, CLI_COUNT, &o.tune.sequences, 1, 65536, "N", "sequences of a step (default 8)"},
        {"rate", 0, CLI_REAL, &o.tune.rate_scales, 0, 1, "R",
         "step of a scale, relative to its vector's size (default 0.006)"},
        {"embedding-rate", 0, CLI_REAL, &o.tune.rate_tables, 0, 1, "R",
         "step of an entry of embedding and head, relative to their mean size; 0: they stay (default 0.002)"},
        {"embedding-bits", 0, CLI_COUNT, &o.tune.embedding_bits, 0, 8, "P",
         "round the teacher's embedding and head anew to P bit planes, 4 to 8, before tuning; 0: take the student's "
         "(default)"},
        {"scale-bits", 0, CLI_COUNT, &o.tune.scale_bits, 0, 16, "S",
         "store the scales of rows and middles in 8 bits or 16; 0: as the student does (default)"},
        {"from-tier", 0, CLI_COUNT, &from_tier, 1, MODEL_TIERS, "N",
         "train tier N and those after it; everything that earlier tiers use stays (default 1)"},
        {"tier-scales", 0, CLI_FLAG, &o.tune.tier_scales, 0, 0, NULL,
         "every tier gets scales of its own in the middle of its products: tiers agree better"},
        {"fix-shared", 0, CLI_FLAG, &o.tune.apart, 0, 0, NULL,
         "train only what a single tier uses: its own middle scales, and the last tier's stage"},
        {"scales-only", 0, CLI_FLAG, &scales_only, 0, 0, NULL, "signs stay: half the time and a third of the memory"},
        {"sign-curvature", 0, CLI_REAL, &o.tune.curvature, 0, 1e9, "C",
         "a sign turns when it gains more than C times its estimated cost (default 1)"},
        {"sign-noise", 0, CLI_REAL, &o.tune.noise, 0, 1e9, "Z", "and the gain is Z deviations from chance (default 4)"},
        {"labels", 0, CLI_TEXT, &o.labels, 0, 0, "W1,W2,..",
         "share of the loss that is the text's own next word instead of the teacher's distribution, of each file of "
         "--calib or of all; 0 for what the teacher wrote (default 0)"},
        {"tiers", 0, CLI_TEXT, &o.tiers, 0, 0, "W1,W2,..",
         "how often the first 1, 2, ... tiers are trained (default: the whole file always)"},
        {"validate-every", 0, CLI_REAL, &o.tune.validate_every, 0, 1e9, "S",
         "seconds between validations (default 300)"},
        {"seed", 's', CLI_COUNT, &o.tune.seed, 0, 0, "N", "of the order of texts and tiers (default 0)"},
        {"threads", 't', CLI_COUNT, &o.threads, 1, 64, "N", "threads (default: all processors)"},
        {"max-memory", 0, CLI_COUNT, &o.max_memory, 0, 0, "MB",
         "above this, recompute activations; no limit: the rest takes what it takes (default: keep all of them)"},
        {"exact", 0, CLI_FLAG, &o.tune.exact, 0, 0, NULL,
         "products in float32 even where bfloat16 or 16-bit integers are faster"},
        {"resume", 0, CLI_FLAG, &o.tune.resume, 0, 0, NULL, "go on where an interrupted run stopped"},
        {"force", 'f', CLI_FLAG, &o.force, 0, 0, NULL, "overwrite the output and the state of an interrupted run"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "the result as one line of JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.tune.quiet, 0, 0, NULL, "no progress on stderr"},
        {0}};
    const cli_spec spec = {.name = "tune",
                           .usage = "TEACHER STUDENT.gguf -o OUT.gguf --calib FILES --minutes M [options]",
                           .summary = "distil a dense model into a compressed one: scales and signs, end to end",
                           .examples =
                               "  bitpair tune model.gguf small.gguf -o better.gguf --calib books.txt,chats.txt "
                               "--minutes 60 --tiers 1,2,4\n",
                           .options = table,
                           .n_positional = 2};
    const char *paths[2];
    int rc = cli_parse(&spec, argc, argv, paths);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    o.tune.first_tier = (uint32_t)from_tier;
    if ((from_tier > 1 || o.tune.apart) && o.tune.rate_tables > 0 && cli_given(&spec, argc, argv, "embedding-rate"))
        return cli_wrong("tune", "--embedding-rate trains what all tiers use: not with --from-tier or --fix-shared");
    if (scales_only && (cli_given(&spec, argc, argv, "sign-curvature") || cli_given(&spec, argc, argv, "sign-noise")))
        return cli_wrong("tune", "--sign-curvature and --sign-noise go without --scales-only, which turns no signs");
    if ((rc = check_usage(&o)) != CLI_OK) return rc;
    o.teacher = paths[0];
    o.student = paths[1];
    o.tune.signs = !scales_only;
    if (from_tier > 1 || o.tune.apart) o.tune.rate_tables = 0;
    o.tune.threads = (uint32_t)o.threads;
    o.tune.max_memory = o.max_memory * 1000000;
    cli_catch_interrupt();
    return run(&o);
}
