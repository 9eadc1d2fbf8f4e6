/* bitpair eval: perplexity of texts, the distance to a teacher, and multiple-choice questions; models side by side. */
#include <stdio.h>
#include <stdlib.h>

#include "eval/report.h"
#include "generate.h"

typedef struct {
    machine_options machine;
    const char *paths[PERPLEXITY_MODELS]; /* the rest is NULL */
    const char *text, *teacher, *tasks;
    uint64_t ctx, tokens, limit;
    bool json, quiet;
} eval_options;

/* What is open during a run. */
typedef struct {
    const eval_options *o;
    bp_engine *engine;
    workers *team;
    loaded teacher, models[PERPLEXITY_MODELS]; /* a model that is the teacher is opened once, as the teacher */
    bp_model *views[PERPLEXITY_MODELS];
    cli_progress progress;
    char *texts;                /* the list, cut at its commas */
    int32_t *ids[REPORT_TEXTS]; /* [n_ids[i]] of each text */
    size_t n_ids[REPORT_TEXTS];
    report report;
} evaluation;

/* ---- texts ------------------------------------------------------------------------------------------------------ */

static bool show_nll(void *context, uint64_t done, uint64_t total, double nll) {
    char detail[48];
    snprintf(detail, sizeof detail, "nll %.4f", nll);
    cli_progress_update(context, (double)done, (double)total, detail);
    return !cli_interrupted();
}

/* The tokens of a text as `model` cuts it; words for control tokens are those tokens, as when calibrating. */
static int32_t *cut(const bp_model *model, const file_view *f, size_t *n, bp_err *e) {
    return generate_tokenize(model, (const char *)f->bytes, (size_t)f->size, BP_TOKENIZE_SPECIAL, n, e);
}

/* An error where `model` cuts the text into other tokens than the n ids of the first model. */
static void check_cut(const evaluation *v, const bp_model *model, const char *name, const file_view *f,
                      const int32_t *ids, size_t n, bp_err *e) {
    size_t count = 0;
    if (model == v->views[0] || e->code != BP_OK) return;
    int32_t *own = cut(model, f, &count, e);
    if (own && (count != n || memcmp(own, ids, n * sizeof *ids) != 0))
        bp_fail(e, BP_ERR_ARGUMENT, 0, "%s cuts the text into other tokens than %s: evaluate them apart", name,
                v->o->paths[0]);
    free(own);
}

/* v->ids[index]: the first tokens of the text, at most o->tokens; every model must cut it into the same. */
static bool read_tokens(evaluation *v, size_t index, bp_err *e) {
    const char *path = v->report.texts[index];
    size_t n = 0;
    file_view f;
    bp_err inner = {0};
    if (!file_map(&f, path, e)) return false;
    int32_t *ids = v->ids[index] = cut(v->views[0], &f, &n, &inner);
    for (size_t m = 1; m < v->report.n_models; m++) check_cut(v, v->views[m], v->o->paths[m], &f, ids, n, &inner);
    if (v->teacher.model) check_cut(v, v->teacher.model, v->o->teacher, &f, ids, n, &inner);
    file_unmap(&f);
    if (inner.code != BP_OK) return bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
    v->n_ids[index] = v->o->tokens ? bp_min(n, (size_t)v->o->tokens) : n;
    return true;
}

static bool measure_text(evaluation *v, size_t index, bp_err *e) {
    perplexity scores[PERPLEXITY_MODELS];
    perplexity_options options = {.models = v->views,
                                  .n_models = v->report.n_models,
                                  .teacher = v->teacher.model,
                                  .ctx = (uint32_t)v->o->ctx,
                                  .kv_bits = (uint32_t)v->o->machine.kv_bits,
                                  .teacher_kv_bits = v->o->machine.kv_bits ? 16 : 0,
                                  .workers = v->team,
                                  .progress = show_nll,
                                  .context = &v->progress};
    cli_progress_begin(&v->progress, v->report.texts[index], v->o->quiet);
    bool ok = perplexity_measure(scores, &options, v->ids[index], v->n_ids[index], e);
    cli_progress_end(&v->progress);
    for (size_t m = 0; ok && m < v->report.n_models; m++) v->report.models[m].texts[index] = scores[m];
    return ok;
}

static bool list_texts(evaluation *v, bp_err *e) {
    v->texts = v->o->text ? strdup(v->o->text) : NULL;
    if (!v->o->text) return true;
    if (!v->texts) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the list of texts");
    for (char *at = v->texts, *end; at; at = end) {
        end = strchr(at, ',');
        if (end) *end++ = 0;
        if (v->report.n_texts == REPORT_TEXTS)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "more than %d texts", REPORT_TEXTS);
        v->report.texts[v->report.n_texts++] = at;
    }
    return true;
}

/* ---- tasks ------------------------------------------------------------------------------------------------------ */

static bool show_accuracy(void *context, uint64_t done, uint64_t total, double accuracy) {
    char detail[48];
    snprintf(detail, sizeof detail, "%.1f %% right", 100 * accuracy);
    cli_progress_update(context, (double)done, (double)total, detail);
    return !cli_interrupted();
}

static bool measure_tasks(evaluation *v, size_t model, bp_err *e) {
    zeroshot_options options = {.model = v->views[model],
                                .kv_bits = (uint32_t)v->o->machine.kv_bits,
                                .workers = v->team,
                                .progress = show_accuracy,
                                .context = &v->progress};
    bool ok = true;
    for (size_t i = 0; ok && i < v->report.tasks.n; i++) {
        const task_set *set = &v->report.tasks.sets[i];
        char what[128];
        snprintf(what, sizeof what, "%s (model %zu)", set->name, model + 1);
        cli_progress_begin(&v->progress, what, v->o->quiet);
        ok = zeroshot_measure(&v->report.models[model].tasks[i], &options, set, e);
        cli_progress_end(&v->progress);
    }
    return ok;
}

/* ---- models ----------------------------------------------------------------------------------------------------- */

/* Bytes and bits of the model; of a baseline whose file is wider than what it stands for, those that it states. */
static bool describe(report_model *m, const loaded *l, bp_err *e) {
    gguf header;
    void *memory;
    bp_model_info info;
    bp_model_describe(l->model, &info);
    m->bytes = l->size;
    m->bits_per_weight = info.bits_per_weight;
    bool ok = header_open(&header, &memory, &l->source, e);
    m->packed = ok && gguf_u64(&header, "bitpair.packed_bytes", &m->bytes) &&
                gguf_f64(&header, "bitpair.packed_bits", &m->bits_per_weight);
    free(memory);
    return ok;
}

static bool open_models(evaluation *v, bp_err *e) {
    const eval_options *o = v->o;
    v->engine = machine_engine(&o->machine, e);
    if (!v->engine || (o->teacher && !loaded_open(&v->teacher, v->engine, o->teacher, 0, e))) return false;
    for (size_t i = 0; i < PERPLEXITY_MODELS && o->paths[i]; i++) {
        bool taught = o->teacher && !o->machine.tier && strcmp(o->paths[i], o->teacher) == 0;
        if (!taught && !loaded_open(&v->models[i], v->engine, o->paths[i], o->machine.tier, e)) return false;
        const loaded *l = taught ? &v->teacher : &v->models[i];
        v->views[i] = l->model;
        v->report.models[i].path = o->paths[i];
        v->report.n_models = i + 1;
        if (!describe(&v->report.models[i], l, e)) return false;
    }
    return true;
}

static bool evaluate(evaluation *v, bp_err *e) {
    const eval_options *o = v->o;
    double started = clock_seconds();
    v->report.teacher = o->teacher;
    v->report.ctx = o->ctx;
    bool ok = list_texts(v, e) && (!o->tasks || tasks_read(&v->report.tasks, o->tasks, (size_t)o->limit, e)) &&
              open_models(v, e) && (v->team = workers_open((uint32_t)o->machine.threads, e));
    for (size_t i = 0; ok && i < v->report.n_texts; i++) ok = read_tokens(v, i, e);
    for (size_t i = 0; ok && i < v->report.n_texts; i++) ok = measure_text(v, i, e);
    for (size_t i = 0; ok && o->tasks && i < v->report.n_models; i++) ok = measure_tasks(v, i, e);
    v->report.seconds = clock_seconds() - started;
    return ok;
}

static void close_all(evaluation *v) {
    for (size_t i = 0; i < PERPLEXITY_MODELS; i++) loaded_close(&v->models[i]);
    loaded_close(&v->teacher);
    bp_engine_close(v->engine);
    workers_close(v->team);
    tasks_free(&v->report.tasks);
    for (size_t i = 0; i < REPORT_TEXTS; i++) free(v->ids[i]);
    free(v->texts);
    free(v);
}

/* ---- the command ------------------------------------------------------------------------------------------------ */

static int run(const eval_options *o) {
    bp_err e = {0};
    int rc = CLI_OK;
    evaluation *v = calloc(1, sizeof *v);
    if (!v) return bp_fail(&e, BP_ERR_MEMORY, 0, "out of memory"), cli_fail(&e);
    v->o = o;
    if (!evaluate(v, &e)) {
        rc = cli_fail(&e);
        if (cli_interrupted()) rc = CLI_INTERRUPTED;
    } else if (!o->json) {
        report_print_tables(&v->report);
    } else if (!report_print_json(&v->report)) {
        bp_fail(&e, BP_ERR_MEMORY, 0, "out of memory for the result");
        rc = cli_fail(&e);
    }
    close_all(v);
    return rc;
}

int cmd_eval(int argc, char **argv) {
    eval_options o = {.machine = machine_defaults(), .ctx = 512};
    const cli_option options[] = {
        {"text", 0, CLI_TEXT, &o.text, 0, 0, "FILES",
         "texts to predict, UTF-8, separated by commas; - is standard input"},
        {"ctx", 'c', CLI_COUNT, &o.ctx, 2, 1048576, "N", "tokens of a window of text (default 512)"},
        {"tokens", 'n', CLI_COUNT, &o.tokens, 0, 0, "N", "only the first N tokens of each text; 0: all (default)"},
        {"teacher", 0, CLI_TEXT, &o.teacher, 0, 0, "MODEL", "also KL divergence and top-1 agreement with this model"},
        {"tasks", 0, CLI_TEXT, &o.tasks, 0, 0, "DIR|FILES",
         "zero-shot sets: the *.jsonl of a folder, or files separated by commas"},
        {"limit", 0, CLI_COUNT, &o.limit, 0, 0, "N", "only the first N rows of each set; 0: all (default)"},
        {"json", 0, CLI_FLAG, &o.json, 0, 0, NULL, "one line of JSON per model on stdout"},
        {"quiet", 'q', CLI_FLAG, &o.quiet, 0, 0, NULL, "no progress on stderr"},
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {
        .name = "eval",
        .usage = "MODEL... --text FILES | --tasks DIR [options]",
        .summary = "measure models side by side: perplexity of texts, distance to a teacher, zero-shot accuracy",
        .examples =
            "  bitpair eval model.gguf --text heldout.txt --ctx 512 --tokens 20480 --json\n"
            "  bitpair eval large.gguf small.gguf --text books.txt,web.txt --teacher large.gguf\n"
            "  bitpair eval small.gguf --tasks evalsets/ --limit 100\n"
            "  bitpair eval model.gguf --teacher model.gguf --kv 8 --text books.txt     what an 8-bit cache costs\n"
            "  bitpair eval model.gguf --teacher model.gguf --tier 2 --text books.txt   what later tiers bring\n"
            "\n"
            "Texts are read as compress and tune read theirs: <|im_start|> and its like are control tokens.\n"
            "Zero-shot: rows {query, choices, gold} or {context_options, continuation, gold}. acc takes the choice\n"
            "of the highest likelihood, acc_norm the highest per byte of the choice. The mean over sets takes\n"
            "acc for boolq, copa and winograd, acc_norm for all others. A context that begins with \"Question: \"\n"
            "or \"Passage: \" gets \"\\nAnswer:\", then one space and the choice, as in lm-evaluation-harness.\n"
            "With --kv the teacher's cache has 16 bits; --tier is not of the teacher.\n"
            "Contexts beyond 2048 tokens (or the model's) are cut from the left and counted.\n",
        .options = options,
        .n_positional = 1,
        .n_more = PERPLEXITY_MODELS - 1};
    int rc = cli_parse(&spec, argc, argv, o.paths);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if ((rc = machine_check(&o.machine, spec.name)) != CLI_OK) return rc;
    if (!o.text && !o.tasks) return cli_wrong(spec.name, "--text FILES or --tasks DIR is missing");
    if (!o.text && (o.teacher || o.tokens)) return cli_wrong(spec.name, "--teacher and --tokens go with --text FILES");
    if (!o.tasks && o.limit) return cli_wrong(spec.name, "--limit goes with --tasks DIR");
    cli_catch_interrupt();
    return run(&o);
}
