#include "compress.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "allocate.h"
#include "block_tune.h"
#include "checkpoint.h"
#include "cli.h"
#include "linalg/gemm_bf16.h"
#include "platform.h"
#include "sha256.h"
#include "statistics.h"
#include "table_round.h"
#include "tune/output_weights.h"

enum { NAME = 64 };

typedef struct {
    const compress_options *o;
    const model *m;
    model result; /* m, with the output norm of o->base */
    workers *w;
    chain chain;
    checkpoint work_folder;
    block_weights dense, student; /* of the current block */
    factors *layers;              /* [n_layers * PARTS] */
    packed_table embedding, head; /* where they are rounded */
    output_weights weights;       /* with o->gradient_tokens; else blocks is NULL */
    float *before;                /* [validation tokens, d_model] dense stream at the block's entry */
    cli_progress progress;
    uint64_t done; /* work, in units of 2^20 operations; shared by threads */
    double total;
    uint32_t layer;      /* current block */
    layer_loss *losses;  /* [n_layers * PARTS] with o->equal_loss */
    double *factors;     /* [n_layers * PARTS] o->factors */
    double stream_error; /* after the last block, as compress_result has it */
} job;

/* ---- progress -------------------------------------------------------------------------------------------------- */

static uint64_t units(double work) { return (uint64_t)(work / (1 << 20)); }

static void advance(job *j, double work) {
    char detail[48];
    __atomic_fetch_add(&j->done, units(work), __ATOMIC_RELAXED);
    snprintf(detail, sizeof detail, "block %u of %u", (unsigned)j->layer + 1, (unsigned)j->m->config.n_layers);
    cli_progress_update(&j->progress, (double)j->done, j->total, detail);
}

static bool interrupted(bp_err *e) { return cli_interrupted() && !bp_fail(e, BP_OK, 0, "interrupted"); }

/* One layer in the making; `main`: on the thread that may print. */
typedef struct {
    job *j;
    double iteration_work;
    bool main;
} ticker;

static bool tick(void *context) {
    ticker *t = context;
    if (t->main) advance(t->j, t->iteration_work);
    if (!t->main) __atomic_fetch_add(&t->j->done, units(t->iteration_work), __ATOMIC_RELAXED);
    return !cli_interrupted();
}

/* ---- a group of layers that share their input ------------------------------------------------------------------ */

typedef struct {
    job *j;
    const part *parts;
    size_t n_parts;
    bool residual;       /* outputs go to the residual stream */
    bool missing[PARTS]; /* not in the work folder: to be made */
    const statistics *s;
    const metric *t;
    workers *inner; /* threads of one layer; NULL when the layers run side by side */
    bp_err errors[PARTS];
    bool failed[PARTS];
} group;

static stack layer_stack(const job *j, part p) { return stack_of(&j->m->layers[j->layer], p, j->o->fused); }

static factors *layer_factors(const group *g, size_t i) { return &g->j->layers[g->j->layer * PARTS + g->parts[i]]; }

static void make_layer(void *context, size_t i, uint32_t worker) {
    group *g = context;
    job *j = g->j;
    const compress_options *o = j->o;
    if (!g->missing[i]) return;
    char name[NAME];
    factors *f = layer_factors(g, i);
    stack_name(name, sizeof name, j->layer, g->parts[i], layer_stack(j, g->parts[i]).parts);
    ticker t = {j,
                plan_layer_work(o, j->layer * PARTS + g->parts[i], f->n, f->m) /
                    ((double)o->iterations * (f->n_stages - o->kept)),
                worker == 0};
    output_metric outputs;
    g->failed[i] = !output_weights_metric(&outputs, &j->weights, j->m, j->layer, g->parts[i], f->n, &g->errors[i]);
    if (g->failed[i]) return;
    factor_options options = {o->seed, o->kept, (unsigned)o->iterations, (float)o->damping, (float)o->lambda, &outputs,
                              tick,    &t};
    g->failed[i] =
        !factors_make(g->inner, f, name, j->dense.W[g->parts[i]], g->s, g->t, !o->diagonal, &options, &g->errors[i]) ||
        !checkpoint_save(&j->work_folder, name, f, &g->errors[i]);
    output_metric_close(&outputs);
}

static void report_layer(const group *g, size_t i) {
    char name[NAME];
    const factors *f = layer_factors(g, i);
    const factor_report *r = &f->report;
    if (g->j->o->quiet) return;
    stack_name(name, sizeof name, g->j->layer, g->parts[i], layer_stack(g->j, g->parts[i]).parts);
    fprintf(stderr, "%-20s %4u x %-4u  %-10s lambda %-6.3g  target %.4f  fit %.4f  validation", name, (unsigned)f->n,
            (unsigned)f->m, target_kind_name(r->target.kind), (double)r->target.lambda, r->target.error, r->fit);
    for (uint32_t s = 0; s < f->n_stages; s++) fprintf(stderr, " %.4f", r->validation[s]);
    fprintf(stderr, "%s\n", g->missing[i] ? "" : "  (kept)");
}

/* Statistics, metric, and the missing layers: two threads take a layer each, more share one after the other. */
static bool make_missing(group *g, bp_err *e) {
    job *j = g->j;
    const compress_options *o = j->o;
    size_t m = part_linear(&j->m->layers[j->layer], g->parts[0])->m;
    statistics s;
    metric t;
    bool side_by_side = workers_count(j->w) <= 2 && g->n_parts > 1;
    if (!statistics_take(&s, &j->chain, o->diagonal ? CHAIN_DENSE : CHAIN_STUDENT, m, g->residual && !o->diagonal,
                         (float)o->clip, output_weights_tokens(&j->weights, j->layer, g->parts[0]), e))
        return false;
    bool ok = metric_open(&t, s.train.H, m, !o->diagonal, e);
    if (ok) {
        g->s = &s;
        g->t = &t;
        g->inner = side_by_side ? NULL : j->w;
        workers_for(side_by_side ? j->w : NULL, g->n_parts, make_layer, g);
        metric_close(&t);
    }
    for (size_t i = 0; ok && i < g->n_parts; i++)
        if (g->failed[i]) {
            if (e) *e = g->errors[i];
            ok = false;
        }
    statistics_close(&s);
    return ok;
}

/* The factors of a layer of the current block, empty but for what --extend keeps. */
static bool open_layer(job *j, part p, bp_err *e) {
    size_t index = j->layer * PARTS + p;
    stack w = layer_stack(j, p);
    stage_shape shapes[MODEL_STAGES];
    const model *base = j->o->base;
    factors *f = &j->layers[index];
    char name[NAME];
    if (!w.n) return true;
    stack_name(name, sizeof name, j->layer, p, w.parts);
    plan_shapes(j->o, index, w.n, w.m, shapes);
    factors_close(f);
    return factors_open(f, w.n, w.m, shapes, j->o->n_stages, e) &&
           (!base || factors_take(f, base, name, part_linear(&base->layers[j->layer], p), j->o->kept, e));
}

/* Makes or recalls the layers of a group; the student's weights are ready after it. */
static bool make_group(job *j, const part *parts, size_t n_parts, bool residual, bp_err *e) {
    group g = {.j = j, .parts = parts, .n_parts = n_parts, .residual = residual};
    bool any = false;
    for (size_t i = 0; i < n_parts; i++) {
        stack w = layer_stack(j, parts[i]);
        char name[NAME];
        stack_name(name, sizeof name, j->layer, parts[i], w.parts);
        if (!open_layer(j, parts[i], e)) return false;
        g.missing[i] = !checkpoint_load(&j->work_folder, name, layer_factors(&g, i));
        if (!g.missing[i]) j->total -= (double)units(plan_layer_work(j->o, j->layer * PARTS + parts[i], w.n, w.m));
        any |= g.missing[i];
    }
    if (interrupted(e) || (any && !make_missing(&g, e))) return false;
    cli_progress_end(&j->progress);
    for (size_t i = 0; i < n_parts; i++) {
        report_layer(&g, i);
        if (!factors_dense(j->w, layer_factors(&g, i), j->student.W[parts[i]], e)) return false;
    }
    return true;
}

/* ---- a block --------------------------------------------------------------------------------------------------- */

static void keep_before(job *j) {
    size_t d = j->m->config.d_model;
    memcpy(j->before, j->chain.stream[CHAIN_DENSE] + j->chain.n_train * d,
           (j->chain.n_tokens - j->chain.n_train) * d * sizeof *j->before);
    chain_release(&j->chain, j->chain.n_train, j->chain.n_tokens - j->chain.n_train);
}

/* On validation tokens: error of the student's stream relative to the dense one, mean over tokens; and over all,
 * relative to the block's own contribution. */
static void report_block(job *j) {
    size_t d = j->m->config.d_model, first = j->chain.n_train, n = j->chain.n_tokens - first;
    double relative = 0, error = 0, update = 0;
    for (size_t t = 0; t < n; t++) {
        const float *r = j->chain.stream[CHAIN_DENSE] + (first + t) * d,
                    *q = j->chain.stream[CHAIN_STUDENT] + (first + t) * d;
        double wrong = 0, size = 1e-30;
        for (size_t i = 0; i < d; i++) {
            double difference = (double)r[i] - (double)q[i], step = (double)r[i] - (double)j->before[t * d + i];
            wrong += difference * difference;
            size += (double)r[i] * r[i];
            update += step * step;
        }
        error += wrong;
        relative += wrong / size;
    }
    chain_release(&j->chain, first, n);
    j->stream_error = relative / (double)n;
    if (!j->o->quiet)
        fprintf(stderr, "block %u: stream error %.4f per token, %.4f of the block's update\n", (unsigned)j->layer,
                j->stream_error, error / update);
}

static void add_both(job *j, part p) {
    size_t m = part_linear(&j->m->layers[j->layer], p)->m;
    chain_add(&j->chain, CHAIN_DENSE, j->dense.W[p], m);
    chain_add(&j->chain, CHAIN_STUDENT, j->student.W[p], m);
}

/* ---- the layers of a block, fitted together ---------------------------------------------------------------------- */

static void fitted_name(const job *j, part p, char name[NAME]) {
    stack_name(name, NAME - 8, j->layer, p, layer_stack(j, p).parts);
    strcat(name, ".fitted");
}

/* All layers of the block as an earlier run left them, the student's weights with them. */
static bool recall_fitted(job *j, bp_err *e) {
    char name[NAME];
    for (part p = 0; p < PARTS; p++) {
        if (!layer_stack(j, p).n) continue;
        fitted_name(j, p, name);
        if (!open_layer(j, p, e) || !checkpoint_load(&j->work_folder, name, &j->layers[j->layer * PARTS + p]))
            return false;
    }
    for (part p = 0; p < PARTS; p++)
        if (layer_stack(j, p).n && !factors_dense(j->w, &j->layers[j->layer * PARTS + p], j->student.W[p], e))
            return false;
    return true;
}

static bool tick_fit(void *context) {
    job *j = context;
    advance(j, plan_fit_work(j->o, j->m) / (double)j->o->block_steps);
    return !cli_interrupted();
}

static void report_fit(const job *j, const block_tune_report *r) {
    if (j->o->quiet) return;
    fprintf(stderr, "block %u: fitted together%s, error by tier", (unsigned)j->layer, r->kept ? "" : ": no gain");
    for (uint32_t i = 0; i < j->o->n_stages; i++)
        if (r->before[i] > 0) fprintf(stderr, "  %u: %.4f -> %.4f", (unsigned)i + 1, r->before[i], r->after[i]);
    fputc('\n', stderr);
}

/* Fits them, keeps them in the work folder, and sends the student's stream through the block again. */
static bool fit_block(job *j, bp_err *e) {
    size_t d = j->m->config.d_model;
    factors *layers = j->layers + (size_t)j->layer * PARTS;
    block_tune_report report;
    block_tune_options options = {.steps = j->o->block_steps,
                                  .seed = j->o->seed,
                                  .rate = j->o->block_rate,
                                  .clip = (float)j->o->clip,
                                  .first_tier = j->o->kept,
                                  .tick = tick_fit,
                                  .context = j};
    if (!block_tune(&j->chain, j->layer, layers, j->weights.streams + j->layer * d * d, &options, &report, e))
        return false;
    cli_progress_end(&j->progress);
    report_fit(j, &report);
    for (part p = 0; p < PARTS; p++) {
        char name[NAME];
        if (!layer_stack(j, p).n) continue;
        fitted_name(j, p, name);
        if (!checkpoint_save(&j->work_folder, name, &layers[p], e)) return false;
        if (report.kept && !factors_dense(j->w, &layers[p], j->student.W[p], e)) return false;
    }
    if (!report.kept) return true;
    chain_return_to_entry(&j->chain);
    chain_forward(&j->chain, CHAIN_STUDENT, &j->m->layers[j->layer], &j->student);
    return true;
}

static bool make_layers(job *j, bp_err *e) {
    static const part inputs[] = {PART_Q, PART_K, PART_V}, out[] = {PART_O}, feed[] = {PART_GATE, PART_UP},
                      down[] = {PART_DOWN};
    const model_layer *l = &j->m->layers[j->layer];
    double work = plan_block_work(j->o, j->m, j->chain.n_tokens) / 4;
    chain_normalise(&j->chain, l->attn_norm);
    if (!make_group(j, inputs, j->o->fused ? 1 : 3, false, e)) return false;
    advance(j, work);
    chain_attend(&j->chain, CHAIN_DENSE, l, &j->dense);
    chain_attend(&j->chain, CHAIN_STUDENT, l, &j->student);
    if (!make_group(j, out, 1, true, e)) return false;
    add_both(j, PART_O);
    advance(j, work);
    chain_normalise(&j->chain, l->ffn_norm);
    if (!make_group(j, feed, j->o->fused ? 1 : 2, false, e)) return false;
    advance(j, work);
    chain_feed(&j->chain, CHAIN_DENSE, &j->dense);
    chain_feed(&j->chain, CHAIN_STUDENT, &j->student);
    if (!make_group(j, down, 1, true, e)) return false;
    add_both(j, PART_DOWN);
    advance(j, work);
    return true;
}

static bool make_block(job *j, bp_err *e) {
    const model_layer *l = &j->m->layers[j->layer];
    bool fits = plan_fits_blocks(j->o);
    block_dequantize(j->w, &j->dense, l);
    block_release(j->o->mapped, l);
    keep_before(j);
    if (interrupted(e)) return false;
    if (fits && recall_fitted(j, e)) {
        for (chain_side side = 0; side < CHAINS; side++)
            chain_forward(&j->chain, side, l, side == CHAIN_DENSE ? &j->dense : &j->student);
        j->total -= (double)units(plan_made_work(j->o, j->m, j->layer));
    } else {
        if (fits) chain_keep_entry(&j->chain);
        if (!make_layers(j, e) || (fits && !fit_block(j, e))) return false;
    }
    report_block(j);
    return true;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

/* Where embedding and head are that are not rounded anew */
static const model *tables_of(const job *j) { return j->o->base ? j->o->base : j->m; }

static bool round_tables(job *j, bp_err *e) {
    return j->o->base || j->o->embedding_bits == 0 ||
           table_round_model(&j->embedding, &j->head, j->w, j->m, (uint32_t)j->o->embedding_bits, j->weights.embedding,
                             j->weights.head, e);
}

static void release_tables(const job *j) {
    const linear *tables[] = {&j->m->embedding, &j->m->head};
    for (size_t i = 0; i < 2; i++) file_release(j->o->mapped, tables[i]->rows, tables[i]->n * tables[i]->row_bytes);
}

static linear student_embedding(const job *j) {
    return j->embedding.bytes ? packed_table_view(&j->embedding) : tables_of(j)->embedding;
}

static linear student_head(const job *j) {
    if (j->head.bytes) return packed_table_view(&j->head);
    return j->m->head.rows == j->m->embedding.rows ? student_embedding(j) : tables_of(j)->head;
}

static bool write_result(const job *j, const char *source, compress_result *r, bp_err *e) {
    char recipe[PLAN_RECIPE];
    plan_recipe(j->o, recipe, sizeof recipe);
    container c = {.model = &j->result,
                   .embedding = j->embedding.bytes ? &j->embedding : NULL,
                   .head = j->head.bytes ? &j->head : NULL,
                   .tables = tables_of(j),
                   .layers = j->layers,
                   .n_tiers = j->o->n_stages,
                   .source = source,
                   .recipe = recipe};
    return container_write(&c, j->o->out_path, j->o->force, &r->file, e);
}

static bool run_blocks(job *j, const calibration *calib, compress_result *r, bp_err *e) {
    linear embedding, head;
    if (!round_tables(j, e) || !chain_open(&j->chain, j->w, j->m, calib->ids, calib->n_seqs, calib->n_val, calib->ctx,
                                           plan_fits_blocks(j->o), j->o->streamed ? j->work_folder.folder : NULL, e))
        return false;
    j->chain.product = gemm_bf16; /* its errors are noise in means over all tokens */
    j->before = malloc(calib->n_val * calib->ctx * j->m->config.d_model * sizeof *j->before);
    j->layers = calloc((size_t)j->m->config.n_layers * PARTS, sizeof *j->layers);
    if (!j->before || !j->layers) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the block loop");
    if (!block_open(&j->dense, &j->m->layers[0], e) || !block_open(&j->student, &j->m->layers[0], e)) return false;
    embedding = student_embedding(j);
    chain_embed(&j->chain, CHAIN_DENSE, &j->m->embedding);
    chain_embed(&j->chain, CHAIN_STUDENT, &embedding);
    release_tables(j);
    for (j->layer = 0; j->layer < j->m->config.n_layers; j->layer++)
        if (!make_block(j, e)) return false;
    head = student_head(j);
    r->dense_ppl = exp(chain_nll(&j->chain, CHAIN_DENSE, &j->m->head));
    j->chain.model = &j->result;
    r->student_ppl = exp(chain_nll(&j->chain, CHAIN_STUDENT, &head));
    r->embedding_error = j->embedding.error;
    r->stream_error = j->stream_error;
    release_tables(j);
    return true;
}

static void job_close(job *j) {
    for (size_t i = 0; j->layers && i < (size_t)j->m->config.n_layers * PARTS; i++) factors_close(&j->layers[i]);
    free(j->layers);
    output_weights_close(&j->weights);
    free(j->losses);
    free(j->factors);
    free(j->before);
    block_close(&j->dense);
    block_close(&j->student);
    packed_table_free(&j->embedding);
    packed_table_free(&j->head);
    chain_close(&j->chain);
    workers_close(j->w);
}

/* What a resumed run must share with the one that began the work folder. */
static void fingerprint(const compress_options *o, const calibration *calib, const char *source, char *out,
                        size_t capacity) {
    char recipe[PLAN_RECIPE], digest[65];
    plan_recipe(o, recipe, sizeof recipe);
    for (size_t i = 0; i < 32; i++) snprintf(digest + 2 * i, 3, "%02x", calib->digest[i]);
    snprintf(out, capacity, "source: %s\nbase: %s\noptions: %s\ncalibration: %s\n", source,
             o->base ? o->base_description : "none", recipe, digest);
}

static bool show_gradients(void *context, double share) {
    job *j = context;
    char detail[48];
    snprintf(detail, sizeof detail, "output gradients %.0f %%", 100 * share);
    cli_progress_update(&j->progress, 0, 1, detail);
    return !cli_interrupted();
}

static bool measure_gradients(job *j, const calibration *calib, const char *source, bp_err *e) {
    char kept[sizeof j->work_folder.folder + NAME], what[256];
    output_weights_options options = plan_gradients(j->o);
    snprintf(kept, sizeof kept, "%s/gradients", j->work_folder.folder);
    options.kept = j->o->gradients_file ? j->o->gradients_file : kept;
    options.tick = show_gradients;
    options.context = j;
    snprintf(what, sizeof what, "%zu sequences of %zu, %zu to validate; %zu", calib->n_seqs, calib->ctx, calib->n_val,
             options.tokens ? 0 : options.n_tokens);
    sha256 hash;
    sha256_init(&hash);
    sha256_update(&hash, source, strlen(source));
    sha256_update(&hash, calib->digest, sizeof calib->digest);
    sha256_update(&hash, what, strlen(what));
    sha256_final(&hash, options.source);
    return !plan_wants_gradients(j->o) || output_weights_measure(&j->weights, j->w, j->m, calib, &options, e);
}

/* Bits of each layer in `own`: from the work folder's measurement, the user's file, or a new one that both then keep */
static bool allocate_layers(job *j, compress_options *own, const calibration *calib, const char *source, bp_err *e) {
    size_t n = (size_t)j->m->config.n_layers * PARTS;
    char kept[sizeof j->work_folder.folder + NAME];
    if (!own->equal_loss) return true;
    const char *folder = own->streamed ? j->work_folder.folder : NULL;
    snprintf(kept, sizeof kept, "%s/allocation.json", j->work_folder.folder);
    j->losses = calloc(n, sizeof *j->losses);
    j->factors = calloc(n, sizeof *j->factors);
    if (!j->losses || !j->factors) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the allocation");
    bool resumed = access(kept, R_OK) == 0, given = own->allocation && access(own->allocation, R_OK) == 0;
    if (resumed ? !allocate_read(j->losses, kept, source, j->m, own->fused, e)
        : given ? !allocate_read(j->losses, own->allocation, source, j->m, own->fused, e)
                : !allocate_measure(j->losses, own, j->w, j->m, calib, folder, e))
        return false;
    if (!resumed && !allocate_write(kept, source, j->m, j->losses, own->n_stages, own->fused, e)) return false;
    if (own->allocation && !given &&
        !allocate_write(own->allocation, source, j->m, j->losses, own->n_stages, own->fused, e))
        return false;
    allocate_spread(j->factors, own, j->m, j->losses);
    own->factors = j->factors;
    return true;
}

bool compress_run(const compress_options *o, const model *m, const calibration *calib, const char *source,
                  compress_result *result, bp_err *e) {
    char print[PLAN_RECIPE + 2048];
    compress_options own = *o;
    size_t n_tokens = calib->n_seqs * calib->ctx;
    job j = {.o = &own, .m = m, .result = *m};
    double started = platform_seconds();
    *result = (compress_result){.calib_tokens = n_tokens};
    if (o->base) j.result.out_norm = o->base->out_norm;
    linalg_init();
    fingerprint(o, calib, source, print, sizeof print);
    bool ok = checkpoint_open(&j.work_folder, o->out_path, print, o->resume, o->force, e) &&
              (j.w = workers_open((uint32_t)o->threads, e)) && allocate_layers(&j, &own, calib, source, e);
    j.total = (double)units(plan_make(&own, m, n_tokens).block_work);
    cli_progress_begin(&j.progress, "compress", o->quiet);
    ok = ok && measure_gradients(&j, calib, source, e) && run_blocks(&j, calib, result, e);
    cli_progress_end(&j.progress);
    ok = ok && write_result(&j, source, result, e);
    checkpoint_close(&j.work_folder, ok);
    job_close(&j);
    result->seconds = platform_seconds() - started;
    return ok;
}
