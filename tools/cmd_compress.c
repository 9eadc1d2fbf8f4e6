/* bitpair compress: a dense model -> stacks of double binary factorizations in one file. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "cli.h"
#include "cmd_compress_rtn.h"
#include "compress/compress.h"
#include "io/file.h"
#include "load.h"
#include "offline.h"

static bool open_input(offline_model *in, const char *path, bp_err *e) {
    if (!offline_open(in, path, e)) return false;
    return !in->model->factorized ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "%s is compressed already: give the dense model", path);
}

/* ---- checks before the work ------------------------------------------------------------------------------------ */

static bool check_model(const offline_model *in, const compress_options *o, bp_err *e) {
    const model_config *c = &in->model->config;
    size_t kv = (size_t)c->n_kv_heads * c->head_dim;
    if (kv < 32 || c->d_model < 32 || c->d_ff < 32)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0,
                       "layers with fewer than 32 rows or columns cannot be factorized (hidden size %u, keys %zu)",
                       (unsigned)c->d_model, kv);
    for (uint32_t i = 0; i < c->n_layers; i++)
        for (part p = PART_O; p < PARTS; p++)
            if (part_linear(&in->model->layers[i], p)->bias)
                return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "blk.%u.%s.bias: layers with a bias, other than q, k and v",
                               (unsigned)i, part_name(p));
    return offline_check_text(in, o->ctx, e);
}

/* The output can be written, and nothing is overwritten unasked. */
static bool check_output(const compress_options *o, const compress_plan *plan, bp_err *e) {
    file_out *probe = file_create(o->out_path, o->force, 2 * plan->file_bytes + plan->scratch, e);
    if (!probe) return false;
    file_discard(probe);
    return true;
}

static bool check_memory(const compress_options *o, const compress_plan *plan, bp_err *e) {
    if (o->max_memory == 0 || plan->memory <= o->max_memory * 1000000) return true;
    return bp_fail(e, BP_ERR_ARGUMENT, 0,
                   "--max-memory %llu: this model takes %llu MB, with the activations on disk (fewer --threads, "
                   "shorter --ctx and fewer bits in a stage take less)",
                   (unsigned long long)o->max_memory, (unsigned long long)(plan->memory / 1000000 + 1));
}

/* ---- output ---------------------------------------------------------------------------------------------------- */

static void print_plan(const compress_options *o, const offline_model *in, const compress_plan *plan, size_t n_tokens) {
    char recipe[PLAN_RECIPE];
    plan_recipe(o, recipe, sizeof recipe);
    if (o->json) {
        printf("{\"bytes\": %llu, \"bits_per_weight\": %.6g, \"memory\": %llu, \"scratch\": %llu, \"seconds\": %.0f, "
               "\"calib_tokens\": "
               "%zu, \"recipe\": %s}\n",
               (unsigned long long)plan->file_bytes, plan->bits_per_weight, (unsigned long long)plan->memory,
               (unsigned long long)plan->scratch, plan->seconds, n_tokens, recipe);
        return;
    }
    printf("source      %s, %.1f MB\n", in->source.name, (double)in->source.size / 1e6);
    printf("result      %s, about %.1f MB, %.3f bits per weight in the linear layers, scales counted\n", o->out_path,
           (double)plan->file_bytes / 1e6, plan->bits_per_weight);
    printf("calibration %zu tokens in sequences of %llu\n", n_tokens, (unsigned long long)o->ctx);
    printf("memory      %.0f MB\n", (double)plan->memory / 1e6);
    if (plan->scratch)
        printf("scratch     %.0f MB on disk, in %s.work while it runs\n", (double)plan->scratch / 1e6, o->out_path);
    printf("time        about %.0f minutes on %llu threads (%.0f Tflop)\n", plan->seconds / 60,
           (unsigned long long)o->threads, plan->work / 1e12);
    printf("recipe      %s\n", recipe);
}

static void print_json(const compress_options *o, const compress_result *r) {
    const container_summary *f = &r->file;
    printf("{\"bytes\": %llu, \"bits_per_weight\": %.6g, \"tiers\": [", (unsigned long long)f->bytes,
           f->bits_per_weight[f->n_tiers - 1]);
    for (uint32_t t = 0; t < f->n_tiers; t++)
        printf("%s{\"end\": %llu, \"bits_per_weight\": %.6g}", t ? ", " : "", (unsigned long long)f->tier_end[t],
               f->bits_per_weight[t]);
    printf("], \"dense_ppl\": %.6g, \"ppl\": %.6g, \"embedding_error\": %.6g, \"stream_error\": %.6g, "
           "\"calib_tokens\": %zu, "
           "\"seconds\": %.1f, \"seed\": %llu}\n",
           r->dense_ppl, r->student_ppl, r->embedding_error, r->stream_error, r->calib_tokens, r->seconds,
           (unsigned long long)o->seed);
}

static void print_result(const compress_options *o, const compress_result *r) {
    const container_summary *f = &r->file;
    if (o->json) {
        print_json(o, r);
        return;
    }
    for (uint32_t t = 0; t < f->n_tiers; t++)
        printf("tier %u      ends at %.2f MB, %.3f bits per weight\n", (unsigned)t, (double)f->tier_end[t] / 1e6,
               f->bits_per_weight[t]);
    printf("perplexity  %.3f, dense %.3f (validation sequences of the calibration text)\n", r->student_ppl,
           r->dense_ppl);
    printf("%s  %.2f MB, %.3f bits per weight, %.0f s, seed %llu\n", o->out_path, (double)f->bytes / 1e6,
           f->bits_per_weight[f->n_tiers - 1], r->seconds, (unsigned long long)o->seed);
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static int finish(const compress_options *o, bool ok, const compress_result *r, const bp_err *e) {
    if (ok) {
        print_result(o, r);
        return CLI_OK;
    }
    if (e->code != BP_OK) return cli_fail(e);
    char work[1100];
    snprintf(work, sizeof work, "%s.work", o->out_path);
    if (access(work, F_OK) == 0)
        fprintf(stderr, "bitpair: interrupted; finished layers are in %s: the same command with --resume goes on\n",
                work);
    else
        fputs("bitpair: interrupted before the first layer; nothing was written\n", stderr);
    return CLI_INTERRUPTED;
}

/* --extend FILE: the file, its recipe, and the stages before the new ones. */
static bool open_base(offline_model *base, compress_options *o, const offline_model *in, const char *path, char *recipe,
                      bp_err *e) {
    if (!path) return true;
    if (!offline_open(base, path, e) || !plan_extend(o, in->model, base->model, e)) return false;
    if (!offline_key(base->model, "bitpair.recipe", recipe, PLAN_RECIPE / 2)) recipe[0] = 0;
    o->base_recipe = recipe[0] ? recipe : NULL;
    o->base_description = base->description;
    return true;
}

static int compress(compress_options *o, const char *base_path) {
    char recipe[PLAN_RECIPE / 2];
    offline_model in = {0}, base = {0};
    calibration calib = {0};
    compress_result result = {0};
    bp_err e = {0};
    int rc = -1;
    bool ok = open_input(&in, o->model_path, &e) && check_model(&in, o, &e) &&
              open_base(&base, o, &in, base_path, recipe, &e) &&
              calibration_load(&calib, in.tokenizer, o->calib, bp_max((size_t)(o->calib_tokens / o->ctx), CALIB_LEAST),
                               (size_t)o->ctx, &e);
    if (ok) {
        size_t n_tokens = calib.n_seqs * calib.ctx;
        o->mapped = offline_mapping(&in);
        compress_plan plan = plan_make(o, in.model, n_tokens);
        o->streamed = plan.scratch > 0;
        ok = check_memory(o, &plan, &e);
        if (ok && o->dry_run) {
            print_plan(o, &in, &plan, n_tokens);
            rc = CLI_OK;
        }
        ok = ok && rc < 0 && check_output(o, &plan, &e);
        if (ok && n_tokens + o->ctx <= o->calib_tokens && !o->quiet)
            fprintf(stderr, "bitpair: the calibration text gives %zu tokens, %llu were asked for\n", n_tokens,
                    (unsigned long long)o->calib_tokens);
    }
    ok = ok && compress_run(o, in.model, &calib, in.description, &result, &e);
    if (rc < 0) rc = finish(o, ok, &result, &e);
    calibration_free(&calib);
    o->base_recipe = o->base_description = NULL; /* they were of `recipe` and `base` */
    offline_close(&base);
    offline_close(&in);
    return rc;
}

/* What the table of options cannot express. */
static int check_usage(compress_options *o, double bits, const char *stages, const char *method, const char *gradients,
                       const char *allocate, const char *extend) {
    bp_err e = {0};
    if (!o->out_path)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "-o OUT.gguf is missing");
    else if (!o->calib)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--calib FILE is missing: a text like those the model will read");
    else if (strcmp(method, "full") != 0 && strcmp(method, "diagonal") != 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--method is full, diagonal, rtn, q8_0 or q4_0, not '%s'", method);
    else if (strcmp(allocate, "uniform") != 0 && strcmp(allocate, "equal-loss") != 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--allocate is uniform or equal-loss, not '%s'", allocate);
    else if (extend && strcmp(allocate, "uniform") != 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--allocate goes without --extend: bits are spread as in that file");
    else if (strcmp(gradients, "full") != 0 && strcmp(gradients, "diagonal") != 0 && strcmp(gradients, "none") != 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--gradients is full, diagonal or none, not '%s'", gradients);
    else if (o->gradients_file && (strcmp(gradients, "none") == 0 || strcmp(method, "diagonal") == 0))
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--gradients-file goes with --gradients full or diagonal and --method full");
    else if (o->block_steps && (strcmp(gradients, "none") == 0 || strcmp(method, "diagonal") == 0))
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--block-steps goes with --gradients full or diagonal and --method full");
    else if (o->allocation && strcmp(allocate, "equal-loss") != 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--allocation goes with --allocate equal-loss");
    else if (extend && !o->fused)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--separate goes without --extend: layers are fused as in that file");
    else if (o->scale_bits != 8 && o->scale_bits != 16)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--scale-bits is 8 or 16");
    else if (o->embedding_bits != 0 && o->embedding_bits < 4)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--embedding-bits is 4 to 8, or 0 to keep the source's");
    else if (stages && bits > 0)
        bp_fail(&e, BP_ERR_ARGUMENT, 0, "--bits goes without --stages, which says the bits of each");
    else if (stages)
        plan_parse_stages(o, stages, &e);
    else
        plan_split_bits(o, bits > 0 ? bits : 2, &e);
    return e.code == BP_OK ? CLI_OK : cli_wrong("compress", e.text);
}

/* An option that would be ignored beside the others, as a sentence; NULL: none. */
static const char *ignored(const cli_spec *spec, int argc, char **argv, bool diagonal, const char *gradients,
                           const char *extend) {
    static const char *const FULL[] = {"lambda", "damping", "gradient-tokens"};
    static char sentence[128];
    const bool none = strcmp(gradients, "none") == 0, all = strcmp(gradients, "full") == 0;
    for (size_t i = 0; diagonal && i < sizeof FULL / sizeof *FULL; i++) {
        snprintf(sentence, sizeof sentence, "--%s goes with --method full", FULL[i]);
        if (cli_given(spec, argc, argv, FULL[i])) return sentence;
    }
    if (diagonal && !none && cli_given(spec, argc, argv, "gradients"))
        return "--gradients full and diagonal go with --method full";
    if ((none || all) && cli_given(spec, argc, argv, "gradient-tokens"))
        return "--gradient-tokens goes with --gradients diagonal";
    if (!cli_given(spec, argc, argv, "block-steps") && cli_given(spec, argc, argv, "block-rate"))
        return "--block-rate goes with --block-steps";
    if (extend && cli_given(spec, argc, argv, "embedding-bits"))
        return "--embedding-bits goes without --extend, which keeps the embedding of that file";
    return NULL;
}

int cmd_compress(int argc, char **argv) {
    compress_options o = {.calib_tokens = 65536,
                          .ctx = 512,
                          .iterations = 40,
                          .gradient_tokens = 32768,
                          .block_rate = 0.005,
                          .embedding_bits = 6,
                          .scale_bits = 8,
                          .threads = machine_defaults().threads,
                          .damping = 0.3,
                          .lambda = -1,
                          .clip = 10};
    double bits = 0; /* not given */
    bool separate = false;
    const char *stages = NULL, *extend = NULL, *method = "full", *gradients = "full", *allocate = "uniform";
    const cli_option options[] = {
        {"output", 'o', CLI_TEXT, &o.out_path, 0, 0, "OUT.gguf", "the file to write"},
        {"bits", 'b', CLI_REAL, &bits, 0.05, 8, "B",
         "bits per weight, in ceil(B) equal stages: 2 is 1,1; 1.5 is 0.75,0.75 (default 2)"},
        {"stages", 0, CLI_TEXT, &stages, 0, 0, "LIST",
         "bits of each stage instead, e.g. 1,1,0.5; each stage is a tier of the file"},
        {"extend", 0, CLI_TEXT, &extend, 0, 0, "FILE.gguf",
         "keep the stages and the embedding of this compressed form of the model, tuned or not, as the first tiers, "
         "and "
         "add those of --stages or --bits for what they leave over"},
        {"calib", 0, CLI_TEXT, &o.calib, 0, 0, "FILES",
         "calibration text, UTF-8; several files separated by commas share evenly"},
        {"calib-tokens", 0, CLI_COUNT, &o.calib_tokens, 256, 1e9, "N", "tokens to calibrate on (default 65536)"},
        {"ctx", 'c', CLI_COUNT, &o.ctx, 8, 65536, "N", "tokens of a calibration sequence (default 512)"},
        {"iterations", 0, CLI_COUNT, &o.iterations, 4, 100000, "N",
         "ADMM iterations of a stage (default 40); twice as many take twice as long and lower the KL by 4 to 9 %"},
        {"gradients", 0, CLI_TEXT, &gradients, 0, 0, "NAME",
         "what a backward pass says of the effect of errors: full: tokens weigh by it, and the outputs of a layer "
         "together; "
         "diagonal: each output by itself; none: all weigh the same (default full)"},
        {"gradient-tokens", 0, CLI_COUNT, &o.gradient_tokens, 1, 1e9, "N",
         "tokens of that pass where it is diagonal; a full one takes all (default 32768)"},
        {"gradients-file", 0, CLI_TEXT, &o.gradients_file, 0, 0, "FILE",
         "keep what that pass measured in FILE; where it is there, measure no more: for files of other bits"},
        {"block-steps", 0, CLI_COUNT, &o.block_steps, 0, 1e6, "N",
         "steps of fitting the scales of a block together, 8 sequences each; 0: none (default 0)"},
        {"block-rate", 0, CLI_REAL, &o.block_rate, 0, 1, "R",
         "first step of a scale in it, relative to its vector's size (default 0.005)"},
        {"embedding-bits", 0, CLI_COUNT, &o.embedding_bits, 0, 8, "P",
         "bit planes of embedding and head, 4 to 8; 0 keeps the source's (default 6)"},
        {"scale-bits", 0, CLI_COUNT, &o.scale_bits, 8, 16, "S",
         "bits of the scales of rows and middles: 8 (in blocks of 32, 8.5 all in all) or 16 (default 8)"},
        {"method", 0, CLI_TEXT, &method, 0, 0, "NAME",
         "full: input covariances, corrected targets; diagonal: the paper's baseline; plain rounding as baselines: "
         "rtn (--bits 2, 3 or 4 in groups of 64; embedding and head have --embedding-bits), q8_0, q4_0 (which round "
         "embedding and head as well; default full)"},
        {"separate", 0, CLI_FLAG, &separate, 0, 0, NULL,
         "q, k, v and gate, up of a block are factorized one by one, not together to one stack each"},
        {"allocate", 0, CLI_TEXT, &allocate, 0, 0, "NAME",
         "uniform, or equal-loss: more bits for layers that the model suffers from most (default uniform)"},
        {"allocation", 0, CLI_TEXT, &o.allocation, 0, 0, "FILE",
         "keep what equal-loss measured in FILE; where it is there, measure no more"},
        {"lambda", 0, CLI_REAL, &o.lambda, 0, 1000, "L",
         "damping of the corrected targets (default: chosen by validation)"},
        {"damping", 0, CLI_REAL, &o.damping, 0.0001, 100, "D", "damping of the input metric (default 0.3)"},
        {"clip", 0, CLI_REAL, &o.clip, 0, 1e9, "X",
         "tokens count at most X times the median energy of a layer's inputs, or of the stream that its output is "
         "added to; 0: no limit (default 10)"},
        {"seed", 's', CLI_COUNT, &o.seed, 0, 0, "N", "of the random starts (default 0)"},
        {"threads", 't', CLI_COUNT, &o.threads, 1, 64, "N",
         "threads; the result does not depend on them (default: all processors)"},
        {"max-memory", 0, CLI_COUNT, &o.max_memory, 0, 0, "MB",
         "use no more; activations go to a scratch file beside the output if need be (default: no limit)"},
        {"resume", 0, CLI_FLAG, &o.resume, 0, 0, NULL, "go on where an interrupted run stopped"},
        {"force", 'f', CLI_FLAG, &o.force, 0, 0, NULL, "overwrite the output and the work folder"},
        {"dry-run", 0, CLI_FLAG, &o.dry_run, 0, 0, NULL, "print sizes, memory and time, and stop"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "the result as one line of JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no progress and no report on stderr"},
        {0}};
    const cli_spec spec = {.name = "compress",
                           .usage = "MODEL -o OUT.gguf --calib FILE [options]",
                           .summary =
                               "factorize a dense model (a GGUF file or a Hugging Face folder) into binary matrices",
                           .examples = "  bitpair compress model.gguf -o small.gguf --bits 2 --calib text.txt\n"
                                       "  bitpair compress hf-folder/ -o small.gguf --stages 1,1,1 --calib "
                                       "books.txt,web.txt --calib-tokens 262144\n",
                           .options = options,
                           .n_positional = 1};
    int rc = cli_parse(&spec, argc, argv, &o.model_path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if (compress_rtn_knows(method))
        return compress_rtn(&o, method, bits > 0 ? bits : 2,
                            cli_given_besides(&spec, argc, argv, compress_rtn_options(method)));
    o.fused = !separate;
    const char *wrong = ignored(&spec, argc, argv, strcmp(method, "diagonal") == 0, gradients, extend);
    if (wrong) return cli_wrong("compress", wrong);
    if ((rc = check_usage(&o, bits, stages, method, gradients, allocate, extend)) != CLI_OK) return rc;
    o.diagonal = strcmp(method, "diagonal") == 0;
    o.correlated = o.token_weights = strcmp(gradients, "full") == 0 && !o.diagonal;
    if (strcmp(gradients, "none") == 0) o.gradient_tokens = 0;
    o.fused = o.fused && !o.diagonal;
    o.equal_loss = strcmp(allocate, "equal-loss") == 0;
    cli_catch_interrupt();
    return compress(&o, extend);
}
