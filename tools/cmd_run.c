/* bitpair run: continues a raw prompt. */
#include <stdio.h>
#include <stdlib.h>

#include "generate.h"

typedef struct {
    machine_options machine;
    generate_options generate;
    const char *prompt, *file, *grammar;
} run_options;

/* Errors name the file. */
static bool set_grammar(bp_session *session, const char *path, bp_err *e) {
    file_view file = {0};
    bp_err inner = {0};
    if (!path) return true;
    if (!file_map(&file, path, e)) return false;
    bool ok = bp_session_grammar(session, (const char *)file.bytes, (size_t)file.size, &inner);
    file_unmap(&file);
    return ok || bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
}

static bool run_prompt(bp_model *model, const run_options *o, const char *bytes, size_t size, generate_stats *stats,
                       bp_err *e) {
    size_t n;
    int32_t *ids = generate_tokenize(model, bytes, size, BP_TOKENIZE_BOS | BP_TOKENIZE_SPECIAL, &n, e);
    if (!ids) return false;
    bool ok = n > 0 || bp_fail(e, BP_ERR_ARGUMENT, 0, "the prompt is empty");
    bp_session *session = ok ? generate_open(model, &o->generate, o->machine.kv_bits, e) : NULL;
    ok = session && set_grammar(session, o->grammar, e) && generate_feed(session, ids, n, NULL, stats, e) &&
         generate_answer(session, model, &o->generate, false, NULL, NULL, stats, e);
    bp_session_close(session);
    free(ids);
    return ok;
}

static bool run_model(const run_options *o, const char *path, const char *bytes, size_t size, generate_stats *stats,
                      bp_err *e) {
    loaded l = {0};
    bp_engine *engine = machine_engine(&o->machine, e);
    bool ok =
        engine && loaded_open(&l, engine, path, o->machine.tier, e) && run_prompt(l.model, o, bytes, size, stats, e);
    loaded_close(&l);
    bp_engine_close(engine);
    return ok;
}

int cmd_run(int argc, char **argv) {
    run_options o = {.machine = machine_defaults(), .generate = generate_defaults(256)};
    const cli_option options[] = {
        {"prompt", 'p', CLI_TEXT, &o.prompt, 0, 0, "TEXT", "the text to continue, special tokens included"},
        {"file", 'f', CLI_TEXT, &o.file, 0, 0, "FILE", "read the prompt from a file; - is standard input"},
        {"grammar", 0, CLI_TEXT, &o.grammar, 0, 0, "FILE", "only texts of this grammar (GBNF, as in llama.cpp)"},
        GENERATE_OPTIONS(o.generate),
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {
        .name = "run",
        .usage = "MODEL --prompt TEXT [options]",
        .summary = "continue a raw prompt; the text goes to stdout",
        .examples = "  bitpair run model.gguf --prompt 'Once upon a time' --max-tokens 100\n"
                    "  bitpair run model.gguf --file story.txt --greedy --quiet\n"
                    "  echo 'Q: What is DNA? A:' | bitpair run model.gguf --file - --temperature 0.5 --seed 7\n"
                    "  bitpair run model.gguf --prompt 'As JSON: ' --grammar json.gbnf\n",
        .options = options,
        .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if ((rc = machine_check(&o.machine, spec.name)) != CLI_OK ||
        (rc = generate_check(&o.generate, spec.name)) != CLI_OK)
        return rc;
    if (!o.prompt == !o.file) return cli_wrong(spec.name, "give either --prompt TEXT or --file FILE");
    bp_err e = {0};
    generate_stats stats = {0};
    file_view file = {0};
    cli_catch_interrupt();
    if (o.file && !file_map(&file, o.file, &e)) return cli_fail(&e);
    const char *bytes = o.prompt ? o.prompt : (const char *)file.bytes;
    bool ok = run_model(&o, path, bytes, o.prompt ? strlen(o.prompt) : (size_t)file.size, &stats, &e);
    file_unmap(&file);
    if (stats.tokens) puts("");
    if (!ok) return cli_fail(&e);
    if (!o.generate.quiet) generate_report(&stats);
    return stats.interrupted ? CLI_INTERRUPTED : CLI_OK;
}
