/* bitpair generate-calib: the dense model writes chats to calibrate and tune on. */
#include <stdio.h>

#include "compress/generate_calib.h"
#include "load.h"

static int finish(const generate_calib_options *o, const generate_calib_result *r) {
    if (r->interrupted && r->chats == 0) {
        fputs("bitpair: interrupted before a conversation was complete; nothing is written\n", stderr);
        return CLI_INTERRUPTED;
    }
    if (!o->quiet && (r->skipped || r->dropped))
        fprintf(stderr,
                "bitpair: left out %llu prompts (too long, or with control tokens) and %llu conversations (an empty "
                "answer, or one with control tokens)\n",
                (unsigned long long)r->skipped, (unsigned long long)r->dropped);
    printf("%s  %llu conversations, %llu tokens, %.2f MB, %llu answers cut, %.0f s (%.0f tok/s), seed %llu\n",
           o->out_path, (unsigned long long)r->chats, (unsigned long long)r->tokens, (double)r->bytes / 1e6,
           (unsigned long long)r->cut, r->seconds, r->seconds > 0 ? (double)r->tokens / r->seconds : 0,
           (unsigned long long)o->seed);
    if (!r->interrupted) return CLI_OK;
    fprintf(stderr, "bitpair: interrupted; %s has the conversations that were complete\n", o->out_path);
    return CLI_INTERRUPTED;
}

static int generate(const generate_calib_options *o, const char *path) {
    bp_err e = {0}, inner = {0};
    loaded l = {0};
    model *weights = NULL;
    generate_calib_result result;
    int rc;
    bp_engine *engine = bp_engine_open(NULL, &e); /* reads tokens and template only */
    bool ok = engine && loaded_open(&l, engine, path, 0, &e);
    if (ok && !(weights = model_load(l.source.bytes, l.source.size, &inner)))
        ok = bp_fail(&e, inner.code, inner.offset, "%s: %s", path, inner.text);
    ok = ok && generate_calib_run(o, l.model, weights, &result, &e);
    rc = ok ? finish(o, &result) : cli_fail(&e);
    model_unload(weights);
    loaded_close(&l);
    bp_engine_close(engine);
    return rc;
}

/* What the table of options cannot express. */
static int check_usage(const generate_calib_options *o) {
    const char *wrong = NULL;
    if (!o->out_path)
        wrong = "-o FILE is missing";
    else if (!o->prompts)
        wrong = "--prompts FILES is missing: questions for the model";
    else if (o->top_p <= 0)
        wrong = "--top-p must be above 0";
    else if (o->held_out && !o->hold_out)
        wrong = "--held-out needs --hold-out N";
    return wrong ? cli_wrong("generate-calib", wrong) : CLI_OK;
}

int cmd_generate_calib(int argc, char **argv) {
    generate_calib_options o = {.tokens = 200000,
                                .max_answer = 512,
                                .batch = 128,
                                .threads = machine_defaults().threads,
                                .temperature = 0.8,
                                .top_p = 0.95,
                                .follow_ups = 0.25};
    const char *path;
    const cli_option options[] = {
        {"output", 'o', CLI_TEXT, &o.out_path, 0, 0, "FILE", "the text to write"},
        {"prompts", 'p', CLI_TEXT, &o.prompts, 0, 0, "FILES",
         "questions: lines of text, JSON lines or CSV; several files separated by commas share evenly"},
        {"tokens", 'n', CLI_COUNT, &o.tokens, 1, 1e12, "N", "tokens to write, questions counted (default 200000)"},
        {"temperature", 0, CLI_REAL, &o.temperature, 0, 100, "T", "of the answers; 0 is greedy (default 0.8)"},
        {"top-p", 0, CLI_REAL, &o.top_p, 0, 1, "P",
         "only the most likely tokens that reach P together, 1000 at most (default 0.95)"},
        {"max-answer", 0, CLI_COUNT, &o.max_answer, 1, 65536, "N", "tokens of an answer (default 512)"},
        {"follow-ups", 0, CLI_REAL, &o.follow_ups, 0, 1, "S",
         "share of the prompts of one question that get a second, generic one (default 0.25)"},
        {"hold-out", 0, CLI_COUNT, &o.hold_out, 2, 1e9, "N", "leave out every Nth prompt of a file"},
        {"held-out", 0, CLI_FLAG, &o.held_out, 0, 0, NULL, "use only the prompts that --hold-out leaves out"},
        {"ctx", 'c', CLI_COUNT, &o.ctx, 0, 65536, "N", "most tokens of a conversation (default: 1024, or the model's)"},
        {"batch", 0, CLI_COUNT, &o.batch, 1, 1024, "N",
         "conversations at once, a matter of memory and speed (default 128)"},
        {"seed", 's', CLI_COUNT, &o.seed, 0, 0, "N", "of prompts and samples (default 0)"},
        {"threads", 't', CLI_COUNT, &o.threads, 1, 64, "N",
         "threads; the result does not depend on them (default: all processors)"},
        {"force", 'f', CLI_FLAG, &o.force, 0, 0, NULL, "overwrite the output"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no progress on stderr"},
        {0}};
    const cli_spec spec = {
        .name = "generate-calib",
        .usage = "MODEL -o FILE --prompts FILES [options]",
        .summary = "let the dense model write chats to calibrate and tune on: prompts from files, its own answers",
        .examples = "  bitpair generate-calib model.gguf -o chats.txt --prompts questions.txt,tasks.jsonl\n"
                    "  bitpair generate-calib model.gguf -o test.txt --prompts tasks.jsonl --hold-out 8 --held-out\n"
                    "  bitpair compress model.gguf -o small.gguf --calib chats.txt\n",
        .options = options,
        .n_positional = 1};
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if ((rc = check_usage(&o)) != CLI_OK) return rc;
    cli_catch_interrupt();
    return generate(&o, path);
}
