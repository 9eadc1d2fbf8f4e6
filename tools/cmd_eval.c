/* bitpair eval: perplexity of a text, and the distance to a teacher. */
#include <stdio.h>
#include <stdlib.h>

#include "eval/perplexity.h"
#include "generate.h"

typedef struct {
    machine_options machine;
    const char *text, *teacher;
    uint64_t ctx, tokens;
    bool json, quiet;
} eval_options;

typedef struct {
    perplexity score;
    double seconds, bits_per_weight;
    uint64_t bytes;
} eval_result;

static bool show_progress(void *context, uint64_t done, uint64_t total, double nll) {
    char detail[48];
    snprintf(detail, sizeof detail, "nll %.4f", nll);
    cli_progress_update(context, (double)done, (double)total, detail);
    return !cli_interrupted();
}

/* The first tokens of the text, at most o->tokens. */
static int32_t *read_tokens(const eval_options *o, const bp_model *model, size_t *n, bp_err *e) {
    file_view f;
    bp_err inner = {0};
    if (!file_map(&f, o->text, e)) return NULL;
    int32_t *ids = generate_tokenize(model, (const char *)f.bytes, (size_t)f.size, 0, n, &inner);
    file_unmap(&f);
    if (!ids) bp_fail(e, inner.code, inner.offset, "%s: %s", o->text, inner.text);
    if (ids && o->tokens) *n = bp_min(*n, (size_t)o->tokens);
    return ids;
}

static bool measure(const eval_options *o, const loaded *model, const loaded *teacher, eval_result *r, bp_err *e) {
    size_t n = 0;
    cli_progress progress;
    bp_model_info info;
    bp_model_describe(model->model, &info);
    int32_t *ids = read_tokens(o, model->model, &n, e);
    workers *team = ids ? workers_open((uint32_t)o->machine.threads, e) : NULL;
    cli_progress_begin(&progress, "eval", o->quiet);
    perplexity_options options = {model->model, teacher->model, (uint32_t)o->ctx, team, show_progress, &progress};
    double started = clock_seconds();
    bool ok = team && perplexity_measure(&r->score, &options, ids, n, e);
    r->seconds = clock_seconds() - started;
    r->bytes = model->source.size;
    r->bits_per_weight = info.bits_per_weight;
    cli_progress_end(&progress);
    workers_close(team);
    free(ids);
    return ok;
}

static bool evaluate(const eval_options *o, const char *path, eval_result *r, bp_err *e) {
    loaded model = {0}, teacher = {0};
    bp_engine *engine = machine_engine(&o->machine, e);
    bool ok = engine && loaded_open(&model, engine, path, e) &&
              (!o->teacher || loaded_open(&teacher, engine, o->teacher, e)) && measure(o, &model, &teacher, r, e);
    loaded_close(&teacher);
    loaded_close(&model);
    bp_engine_close(engine);
    return ok;
}

static void print_json(const eval_options *o, const eval_result *r) {
    const perplexity *p = &r->score;
    printf("{\"tokens\": %llu, \"scored\": %llu, \"nll\": %.9g, \"ppl\": %.9g, \"bits_per_byte\": %.9g, ",
           (unsigned long long)p->tokens, (unsigned long long)p->scored, p->nll, p->ppl, p->bits_per_byte);
    if (o->teacher) printf("\"kl\": %.9g, \"top1\": %.9g, ", p->kl, p->top1);
    printf("\"seconds\": %.3f, \"ctx\": %llu, \"bytes\": %llu, \"bits_per_weight\": %.6g}\n", r->seconds,
           (unsigned long long)o->ctx, (unsigned long long)r->bytes, r->bits_per_weight);
}

static void print_table(const eval_options *o, const eval_result *r) {
    const perplexity *p = &r->score;
    printf("perplexity       %.4f\n", p->ppl);
    printf("nll              %.5f nats per token\n", p->nll);
    printf("bits per byte    %.5f\n", p->bits_per_byte);
    if (o->teacher) printf("KL to teacher    %.5f nats\ntop-1 agreement  %.2f %%\n", p->kl, 100 * p->top1);
    printf("tokens           %llu (%llu scored, context %llu)\n", (unsigned long long)p->tokens,
           (unsigned long long)p->scored, (unsigned long long)o->ctx);
    printf("model            %.1f MB, %.3f bits per weight\n", (double)r->bytes / 1e6, r->bits_per_weight);
    printf("time             %.1f s, %.1f tok/s\n", r->seconds, (double)p->tokens / r->seconds);
}

int cmd_eval(int argc, char **argv) {
    eval_options o = {.machine = machine_defaults(), .ctx = 512};
    const cli_option options[] = {
        {"text", 0, CLI_TEXT, &o.text, 0, 0, "FILE", "the text to predict, UTF-8; - is standard input"},
        {"ctx", 'c', CLI_COUNT, &o.ctx, 2, 1048576, "N", "tokens of a window (default 512)"},
        {"tokens", 'n', CLI_COUNT, &o.tokens, 0, 0, "N", "only the first N tokens of the text; 0: all (default)"},
        {"teacher", 0, CLI_TEXT, &o.teacher, 0, 0, "MODEL", "also KL divergence and top-1 agreement with this model"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "one line of JSON on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no progress on stderr"},
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {.name = "eval",
                           .usage = "MODEL --text FILE [options]",
                           .summary = "measure the perplexity of a model on a text",
                           .examples = "  bitpair eval model.gguf --text heldout.txt --ctx 512 --tokens 20480 --json\n"
                                       "  bitpair eval small.gguf --text heldout.txt --teacher large.gguf\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if (!o.text) {
        fputs("bitpair eval: --text FILE is missing\nSee: bitpair eval --help\n", stderr);
        return CLI_USAGE;
    }
    bp_err e = {0};
    eval_result result = {0};
    cli_catch_interrupt();
    if (!evaluate(&o, path, &result, &e)) {
        rc = cli_fail(&e);
        return cli_interrupted() ? CLI_INTERRUPTED : rc;
    }
    if (o.json)
        print_json(&o, &result);
    else
        print_table(&o, &result);
    return CLI_OK;
}
