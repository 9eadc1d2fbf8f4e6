#include "tune.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "linalg/linalg.h"
#include "linalg/rng.h"
#include "compress/table_round.h"
#include "offline.h"
#include "output_weights.h"
#include "platform.h"
#include "sha256.h"
#include "tuner.h"

enum { GRADIENT_TOKENS = 16384 }; /* of the metric in which tables are rounded */

/* ---- opening --------------------------------------------------------------------------------------------------- */

/* Is the head the embedding? */
static bool is_tied(const model *m) {
    return m->embedding.rows == m->head.rows && m->embedding.planes.bytes == m->head.planes.bytes;
}

static bool check(const tune_options *o, const model *teacher, const model *file, const calibration *text, bp_err *e) {
    if (teacher->factorized) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the teacher is compressed itself");
    if (!file->factorized) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the student is not a bitpair file");
    if (!offline_same_shape(teacher, file))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "teacher and student are models of different shape");
    if (file->tier != file->n_tiers)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the student's file ends after tier %u of %u", (unsigned)file->tier,
                       (unsigned)file->n_tiers);
    if ((o->rate_tables > 0 || o->embedding_bits) && is_tied(teacher) != is_tied(file))
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "the head of one of teacher and student is its embedding, the other's is not: only with "
                       "--embedding-rate 0 and without --embedding-bits");
    for (uint32_t i = file->n_tiers; i < MODEL_TIERS; i++)
        if (o->tier_weights[i] > 0)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "the student has %u tiers, not %u", (unsigned)file->n_tiers,
                           (unsigned)i + 1);
    for (uint32_t i = 0; i + 1 < o->first_tier; i++)
        if (o->tier_weights[i] > 0)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "tier %u is to be trained, but only those from %u on may change",
                           (unsigned)i + 1, (unsigned)o->first_tier);
    if (text->n_seqs - text->n_val < o->sequences)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the text has %zu training sequences, a step takes %llu",
                       text->n_seqs - text->n_val, (unsigned long long)o->sequences);
    return true;
}

typedef struct {
    const linear *table;
    float *out;
} widening;

static void widen_rows(void *context, size_t item, uint32_t worker) {
    enum { ROWS = 256 };
    const widening *t = context;
    (void)worker;
    for (size_t i = item * ROWS; i < bp_min(t->table->n, (item + 1) * ROWS); i++)
        linear_row(t->table, i, t->out + i * t->table->m);
}

static float *widened(workers *w, const linear *table) {
    widening t = {table, malloc((size_t)table->n * table->m * sizeof(float))};
    if (t.out) workers_for(w, bp_ceil_div(table->n, 256), widen_rows, &t);
    return t.out;
}

static bool open_tables(tuner *t) {
    const model *models[] = {t->file, t->teacher};
    for (int i = 0; i < 2; i++) {
        t->embedding[i] = widened(t->w, &models[i]->embedding);
        t->table[i] = is_tied(models[i]) ? t->embedding[i] : widened(t->w, &models[i]->head);
        if (!t->embedding[i] || !t->table[i]) return false;
    }
    return true;
}

static bool show_metric(void *context, double share) {
    char detail[48];
    snprintf(detail, sizeof detail, "gradients for the embedding %.0f %%", 100 * share);
    cli_progress_update(context, 0, 1, detail);
    return !cli_interrupted();
}

static const linear *table_of(const model *m, uint32_t i) { return i ? &m->head : &m->embedding; }

/* Table i starts from the student's, or where --embedding-bits asks for that from the teacher's rounded anew. */
static bool begin_table(tuner *t, uint32_t i, table_metric *own, bp_err *e) {
    const float *teacher = i ? t->table[1] : t->embedding[1];
    packed_table anew = {0};
    linear stored = *table_of(t->file, i);
    bool ok = true;
    if (t->o->embedding_bits) {
        ok = table_round(&anew, t->w, table_of(t->teacher, i), t->tables[i].planes, own, e);
        stored = packed_table_view(&anew);
    }
    ok = ok && table_begin(&t->tables[i], &stored, teacher, own, e);
    packed_table_free(&anew);
    return ok;
}

/* Their metric comes from gradients of the teacher on the text. */
static bool begin_tables(tuner *t, bp_err *e) {
    output_weights weights = {0};
    table_metric metrics[2] = {{0}, {0}};
    if (!t->n_tables) return true;
    const output_weights_options options = {.n_tokens = GRADIENT_TOKENS, .tick = show_metric, .context = &t->progress};
    bool ok = output_weights_measure(&weights, t->w, t->teacher, t->text, &options, e) &&
              table_metrics_open(metrics, t->teacher, weights.embedding, weights.head, e);
    for (uint32_t i = 0; ok && i < t->n_tables; i++) ok = begin_table(t, i, &metrics[i], e);
    for (uint32_t i = 0; i < 2; i++) table_metric_close(&metrics[i]);
    output_weights_close(&weights);
    return ok;
}

static bool open_trained_tables(tuner *t, bp_err *e) {
    if (!(t->o->rate_tables > 0) && !t->o->embedding_bits) return true;
    t->n_tables = t->table[0] == t->embedding[0] ? 1 : 2;
    for (uint32_t i = 0; i < t->n_tables; i++) {
        const linear *stored = table_of(t->file, i);
        uint32_t planes = t->o->embedding_bits ? (uint32_t)t->o->embedding_bits : stored->planes.planes;
        if (!t->o->embedding_bits && !stored->planes.bytes)
            return bp_fail(e, BP_ERR_ARGUMENT, 0,
                           "the student's embedding is not stored in bit planes: it cannot be tuned");
        if (!table_open(&t->tables[i], t->w, stored->n, stored->m, planes, i ? t->table[0] : t->embedding[0], e))
            return false;
    }
    return true;
}

/* Floats of the largest matrix of a file; its blocks may be fused differently. */
static size_t largest_stack(const model *m) {
    size_t most = 0;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        const linear *l = part_linear(&m->layers[i / PARTS], i % PARTS);
        most = bp_max(most, (size_t)l->n * l->m);
    }
    return most;
}

/* The file's blocks, norms and biases, with the linear layers of the teacher where those of the file may be fused. */
static void open_shapes(tuner *t) {
    for (uint32_t i = 0; i < t->file->config.n_layers; i++) {
        const model_layer *dense = &t->teacher->layers[i], *own = &t->file->layers[i];
        model_layer *shape = &t->shapes[i];
        const bool fused = own->q.split[0] != 0;
        const float *bias = own->q.bias; /* of fused layers, those of all of them */
        *shape = *own;
        shape->q = dense->q;
        shape->k = dense->k;
        shape->v = dense->v;
        shape->gate = dense->gate;
        shape->up = dense->up;
        shape->q.bias = bias;
        shape->k.bias = !fused ? own->k.bias : bias ? bias + dense->q.n : NULL;
        shape->v.bias = !fused ? own->v.bias : bias ? bias + dense->q.n + dense->k.n : NULL;
    }
}

/* One trace per block where memory allows, else the inputs of blocks, and blocks run again on the way back. */
static bool open_traces(tuner *t, uint64_t spent, bp_err *e) {
    uint32_t layers = t->file->config.n_layers;
    size_t tokens = t->net.most;
    bool all = t->o->max_memory == 0 || spent + layers * block_trace_bytes(t->file, tokens) <= t->o->max_memory;
    t->n_traces = all ? layers : 1;
    t->traces = calloc(t->n_traces, sizeof *t->traces);
    if (!all) t->inputs = malloc((size_t)layers * tokens * t->file->config.d_model * sizeof *t->inputs);
    bool ok = t->traces && (all || t->inputs);
    if (!ok) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the activations of %zu tokens", tokens);
    for (uint32_t i = 0; ok && i < t->n_traces; i++) ok = block_trace_open(&t->traces[i], t->file, tokens, e);
    return ok;
}

static bool open_arrays(tuner *t, bp_err *e) {
    const model_config *c = &t->file->config;
    size_t d = c->d_model, tokens = t->net.most, n_seqs = t->text->n_seqs, ctx = t->text->ctx;
    t->stream = malloc(tokens * d * sizeof(float));
    t->x = malloc(tokens * d * sizeof(float));
    t->y = malloc(tokens * d * sizeof(float));
    t->r = malloc(tokens * sizeof(float));
    t->dW = malloc(largest_stack(t->file) * sizeof(float));
    t->scratch = malloc(student_scratch(t->file) * sizeof(float));
    t->norm = calloc(3 * d, sizeof(float));
    t->d_norm = malloc(d * sizeof(float));
    t->best_norm = malloc(d * sizeof(float));
    t->taught = malloc(n_seqs * ctx * d * sizeof *t->taught);
    t->known = calloc(n_seqs, 1);
    t->order = malloc(n_seqs * sizeof *t->order);
    t->ids = malloc(tokens * sizeof *t->ids);
    t->rows = malloc((size_t)t->o->sequences * sizeof *t->rows);
    t->labels = malloc((size_t)t->o->sequences * sizeof *t->labels);
    t->best = calloc((size_t)c->n_layers * PARTS, sizeof *t->best);
    t->W = calloc(c->n_layers, sizeof *t->W);
    t->shapes = malloc(c->n_layers * sizeof *t->shapes);
    if (!t->stream || !t->x || !t->y || !t->r || !t->dW || !t->scratch || !t->norm || !t->d_norm || !t->best_norm ||
        !t->taught || !t->known || !t->order || !t->ids || !t->rows || !t->labels || !t->best || !t->W || !t->shapes)
        return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for tuning");
    memcpy(t->norm, t->file->out_norm, d * sizeof *t->norm);
    open_shapes(t);
    for (uint32_t i = 0; i < c->n_layers; i++)
        if (!block_open(&t->W[i], &t->teacher->layers[0], e)) return false;
    return block_open(&t->dense, &t->teacher->layers[0], e);
}

static bool tuner_open(tuner *t, bp_err *e) {
    const model_config *c = &t->file->config;
    size_t n_seqs = (size_t)t->o->sequences;
    linalg_init();
    t->kind = t->o->exact ? PRODUCT_F32 : product_fastest();
    t->best_score = INFINITY;
    if (!(t->w = workers_open(t->o->threads, e)) ||
        !student_open(&t->model, t->file, t->o->signs, t->o->tier_scales, e) ||
        !network_open(&t->net, t->w, t->file, t->text->ctx, n_seqs, t->kind, e) || !open_arrays(t, e))
        return false;
    if (t->o->scale_bits) student_set_eight(&t->model, t->o->scale_bits == 8);
    if (!open_tables(t)) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the embedding");
    if (!open_trained_tables(t, e)) return false;
    uint64_t spent = t->n_tables * table_bytes(c->vocab, c->d_model, t->o->threads) +
                     student_bytes(t->file, t->o->signs) + 4 * t->file->linear_weights +
                     16 * (uint64_t)c->vocab * c->d_model + 2 * (uint64_t)t->text->n_seqs * t->text->ctx * c->d_model;
    float *gradient = t->o->rate_tables > 0 ? t->tables[t->n_tables - 1].gradient : NULL;
    return distiller_open(&t->head, t->w, t->kind, c->d_model, c->vocab, t->table[1], t->table[0], gradient,
                          t->net.most, e) &&
           open_traces(t, spent, e);
}

static void tuner_close(tuner *t) {
    uint32_t layers = t->file->config.n_layers;
    for (uint32_t i = 0; t->traces && i < t->n_traces; i++) block_trace_close(&t->traces[i]);
    for (uint32_t i = 0; t->W && i < layers; i++) block_close(&t->W[i]);
    for (uint32_t i = 0; t->best && i < layers * PARTS; i++) factors_close(&t->best[i]);
    for (int i = 0; i < 2; i++) {
        if (t->table[i] != t->embedding[i]) free(t->table[i]);
        free(t->embedding[i]);
    }
    void *arrays[] = {t->traces, t->W,   t->best,    t->inputs,    t->stream, t->x,      t->y,
                      t->r,      t->dW,  t->scratch, t->norm,      t->d_norm, t->taught, t->known,
                      t->order,  t->ids, t->rows,    t->best_norm, t->shapes, t->labels};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    for (uint32_t i = 0; i < t->n_tables; i++) table_close(&t->tables[i]);
    block_close(&t->dense);
    distiller_close(&t->head);
    network_close(&t->net);
    student_close(&t->model);
    workers_close(t->w);
}

/* ---- the loop -------------------------------------------------------------------------------------------------- */

/* Share of the budget that is spent, in [0, 1]. */
static double spent(const tuner *t, double seconds) {
    double by_time = t->o->minutes > 0 ? seconds / (60 * t->o->minutes) : 0,
           by_steps = t->o->steps > 0 ? (double)t->step / (double)t->o->steps : 0;
    return fmin(1, fmax(by_time, by_steps));
}

/* Steps grow over the first 3 % of the budget, then shrink along a cosine to 2 %. */
static void set_rates(tuner *t, double share) {
    double warm = fmin(1, (share + 0.002) / 0.03),
           f = warm * (0.02 + 0.98 * (0.5 + 0.5 * cos(3.14159265358979 * share)));
    t->rates = (student_rates){.scales = (float)(f * t->o->rate_scales),
                               .tables = (float)(f * t->o->rate_tables),
                               .beta1 = 0.9f,
                               .beta2 = 0.99f,
                               .sign_beta = 0.98f,
                               .curvature = (float)(t->o->curvature * (double)t->net.most),
                               .noise = (float)t->o->noise};
}

/* A random order of the training sequences for every epoch. */
static void shuffle(tuner *t, uint64_t epoch) {
    char name[48];
    size_t n = t->text->n_seqs - t->text->n_val;
    snprintf(name, sizeof name, "epoch/%llu", (unsigned long long)epoch);
    rng random = rng_named(t->o->seed, name);
    t->shuffled = epoch + 1;
    rng_permutation(&random, t->order, n);
}

/* The sequences of a step and its tiers follow from the seed and the step's number alone. */
static uint32_t choose_batch(tuner *t) {
    size_t n = t->text->n_seqs - t->text->n_val, batch = (size_t)t->o->sequences, per_epoch = n / batch;
    char name[48];
    if (t->shuffled != t->step / per_epoch + 1) shuffle(t, t->step / per_epoch);
    for (size_t i = 0; i < batch; i++) t->rows[i] = t->order[t->step % per_epoch * batch + i];
    snprintf(name, sizeof name, "tier/%llu", (unsigned long long)t->step);
    rng random = rng_named(t->o->seed, name);
    double u = rng_uniform(&random);
    uint32_t last = t->file->n_tiers;
    for (uint32_t i = 0; i < t->file->n_tiers; i++) {
        if (t->o->tier_weights[i] > 0) last = i + 1;
        if ((u -= t->o->tier_weights[i]) < 0) return i + 1;
    }
    return last;
}

bool tuner_keep(tuner *t, double score, bp_err *e) {
    for (uint32_t i = 0; i < t->model.n_layers * PARTS; i++) {
        factors_close(&t->best[i]);
        if (!student_factors(&t->model.layers[i], &t->best[i], e)) return false;
    }
    for (uint32_t i = 0; i < t->n_tables; i++) table_keep(&t->tables[i]);
    memcpy(t->best_norm, t->norm, t->file->config.d_model * sizeof *t->norm);
    t->best_score = score;
    t->best_step = t->step;
    return true;
}

/* Scores every tier that is trained; keeps the parameters if the weighted mean of ln loss is the least so far. */
static bool validate(tuner *t, tune_score scores[MODEL_TIERS], bp_err *e) {
    double sum = 0;
    for (uint32_t i = 0; i < t->file->n_tiers; i++) {
        if (!(t->o->tier_weights[i] > 0)) continue;
        scores[i] = tuner_validate(t, i + 1);
        sum += t->o->tier_weights[i] * log(scores[i].loss);
        if (!(t->distance[i] > 0)) t->distance[i] = scores[i].kl;
        if (!t->o->quiet)
            fprintf(stderr, "\nstep %llu, %u tier%s: KL %.4f  perplexity %.3f  top-1 %.2f %%",
                    (unsigned long long)t->step, (unsigned)i + 1, i ? "s" : "", scores[i].kl, scores[i].ppl,
                    100 * scores[i].top1);
    }
    if (!t->o->quiet) fputs(sum < t->best_score ? "  best\n" : "\n", stderr);
    if (!(sum < t->best_score)) return true;
    memcpy(t->after, scores, sizeof t->after);
    return tuner_keep(t, sum, e);
}

static void show(tuner *t, double share, double kl) {
    char detail[64];
    snprintf(detail, sizeof detail, "step %llu, %u tiers, KL %.4f, %llu tokens", (unsigned long long)t->step,
             (unsigned)t->tiers, kl, (unsigned long long)t->tokens);
    cli_progress_update(&t->progress, share, 1, detail);
}

typedef struct {
    const char *path;
    uint8_t fingerprint[32];
    double written, cost; /* when, and how long it took */
} state_file;

static bool save(tuner *t, const state_file *s, double started, bp_err *e) {
    double before = t->elapsed;
    t->elapsed += platform_seconds() - started;
    bool ok = tuner_save(t, s->path, s->fingerprint, e);
    t->elapsed = before;
    return ok;
}

/* At most a minute of work is lost, unless writing itself takes more than one part in twenty. A full disk does not end
 * the run: the last state that was written stays. */
static void save_now_and_then(tuner *t, state_file *s, double started) {
    double at = platform_seconds();
    bp_err e = {0};
    if (at - s->written < fmax(60, 20 * s->cost)) return;
    if (!save(t, s, started, &e) && !t->o->quiet)
        fprintf(stderr, "\nbitpair: the state was not saved (%s); tuning goes on\n", e.text);
    s->written = platform_seconds();
    s->cost = s->written - at;
}

static bool run_steps(tuner *t, state_file *state, bp_err *e) {
    double started = platform_seconds(), validated = started;
    state->written = started;
    for (double share; (share = spent(t, t->elapsed + platform_seconds() - started)) < 1;) {
        if (cli_interrupted()) {
            return save(t, state, started, e) && bp_fail(e, BP_OK, 0, "interrupted");
        }
        set_rates(t, share);
        tuner_materialise(t, choose_batch(t));
        double kl = tuner_step(t, (size_t)t->o->sequences);
        t->step++;
        t->tokens += t->net.most;
        if (!isfinite(kl))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "tuning diverged: lower --rate, raise --sign-curvature");
        show(t, share, kl);
        if (platform_seconds() - validated > t->o->validate_every) {
            tune_score scores[MODEL_TIERS] = {0};
            if (!validate(t, scores, e)) return false;
            validated = platform_seconds();
        }
        save_now_and_then(t, state, started);
    }
    t->elapsed += platform_seconds() - started;
    return true;
}

/* ---- the whole ------------------------------------------------------------------------------------------------- */

enum { STATE_PATH = 1100 };

static void state_path(char path[STATE_PATH], const char *out_path) { snprintf(path, STATE_PATH, "%s.tune", out_path); }

static void fingerprint(const tuner *t, uint8_t digest[32]) {
    char line[512];
    const tune_options *o = t->o;
    sha256 h;
    sha256_init(&h);
    int n = snprintf(line, sizeof line, "tune 8 %g %llu %llu %g %g %llu %u %d %d %d %g %g %llu %llu %d %zu %zu",
                     o->minutes, (unsigned long long)o->steps, (unsigned long long)o->sequences, o->rate_scales,
                     o->rate_tables, (unsigned long long)o->embedding_bits, (unsigned)o->first_tier, o->tier_scales,
                     o->apart, o->signs, o->curvature, o->noise, (unsigned long long)o->seed,
                     (unsigned long long)o->scale_bits, o->exact, t->text->ctx, t->text->n_seqs);
    sha256_update(&h, line, bp_min((size_t)n, sizeof line - 1));
    sha256_update(&h, o->files, strlen(o->files));
    sha256_update(&h, o->tier_weights, sizeof o->tier_weights);
    sha256_update(&h, o->labels, sizeof o->labels);
    sha256_update(&h, t->text->digest, sizeof t->text->digest);
    sha256_final(&h, digest);
}

static bool write_best(tuner *t, container *c, const char *out_path, bool force, bp_err *e) {
    model changed = *t->teacher;
    packed_table tables[2] = {0};
    container_summary summary;
    bool ok = true;
    for (uint32_t i = 0; ok && i < t->n_tables; i++) ok = table_pack(&t->tables[i], &tables[i], e);
    if (t->n_tables > 0) c->embedding = &tables[0];
    if (t->n_tables > 1) c->head = &tables[1];
    changed.out_norm = t->best_norm;
    changed.layers = t->shapes; /* the student's norms and biases, with which it was trained */
    changed.config.rope_freqs = t->file->config.rope_freqs;
    c->model = &changed;
    c->layers = t->best;
    c->n_tiers = t->file->n_tiers;
    ok = ok && container_write(c, out_path, force, &summary, e);
    for (uint32_t i = 0; i < t->n_tables; i++) packed_table_free(&tables[i]);
    return ok;
}

/* The start, or where an interrupted run stopped (tuner_keep makes room for the best, which the state then fills). */
static bool begin(tuner *t, const state_file *state, bp_err *e) {
    if (t->o->resume) return tuner_keep(t, INFINITY, e) && tuner_load(t, state->path, state->fingerprint, e);
    return begin_tables(t, e) && validate(t, t->before, e);
}

/* After an error: what was best until then is written, and e says so; nothing where nothing was better than the
 * start. */
static void salvage(tuner *t, container *c, const char *out_path, bool force, bp_err *e) {
    bp_err inner = {0}, reason = *e;
    if (t->best_step == 0) return;
    bool ok = write_best(t, c, out_path, force, &inner);
    bp_fail(e, reason.code, reason.offset, "%s; %s %s%s%s", reason.text,
            ok ? "what was best until then is in" : "what was best until then could not be written to", out_path,
            ok ? "" : ": ", ok ? "" : inner.text);
}

static bool run(tuner *t, container *c, const char *out_path, bool force, tune_result *result, bp_err *e) {
    char path[STATE_PATH];
    state_file state = {.path = path};
    tune_score scores[MODEL_TIERS] = {0};
    state_path(path, out_path);
    fingerprint(t, state.fingerprint);
    if (!begin(t, &state, e)) return false;
    if (!run_steps(t, &state, e) || !validate(t, scores, e)) {
        if (e->code != BP_OK) salvage(t, c, out_path, force, e);
        return false;
    }
    student_flips(t->best, t->file, &result->flipped, &result->signs);
    memcpy(result->before, t->before, sizeof result->before);
    memcpy(result->after, t->after, sizeof result->after);
    result->steps = t->step;
    result->tokens = t->tokens;
    result->best_step = t->best_step;
    result->seconds = t->elapsed;
    if (!write_best(t, c, out_path, force, e)) return false;
    remove(path);
    return true;
}

static bool check_state(const tune_options *o, const char *out_path, bool force, bp_err *e) {
    char path[STATE_PATH];
    struct stat st;
    state_path(path, out_path);
    if (o->resume || force || stat(path, &st) != 0) return true;
    return bp_fail(e, BP_ERR_ARGUMENT, 0,
                   "'%s' is left from an interrupted run: go on with --resume, or --force to start over", path);
}

bool tune_run(const tune_options *o, const model *teacher, const model *file, const calibration *text, container *c,
              const char *out_path, bool force, tune_result *result, bp_err *e) {
    tuner t = {.o = o, .teacher = teacher, .file = file, .text = text};
    *result = (tune_result){0};
    if (!check(o, teacher, file, text, e) || !check_state(o, out_path, force, e)) return false;
    cli_progress_begin(&t.progress, "tune", o->quiet);
    bool ok = tuner_open(&t, e) && run(&t, c, out_path, force, result, e);
    cli_progress_end(&t.progress);
    tuner_close(&t);
    return ok;
}
