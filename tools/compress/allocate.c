#include "allocate.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "chain.h"
#include "cli.h"
#include "factors.h"
#include "io/file.h"
#include "io/json.h"
#include "score.h"

/* Tokens of a sequence, of the statistics, of the probes; every STRIDE-th of the probes is scored. */
enum { CTX = 256, FIT_TOKENS = 8192, PROBE_TOKENS = 1024, STRIDE = 2, ITERATIONS = 8, NAME = 64 };

static const double RATE = 1.5;    /* halvings of a layer's error by one bit per weight */
static const double LEAST = 0.5;   /* smallest factor */
static const double SILENT = 1e-9; /* least divergence that counts, nats */

typedef struct {
    const compress_options *o;
    const model *m;
    workers *w;
    layer_loss *losses;
    int32_t *ids;                      /* [fits + n_probes, ctx] of walk, then [PARTS, n_probes, ctx] of probes */
    size_t n_fits, n_probes, ctx;      /* sequences */
    size_t n_scored;                   /* tokens */
    chain walk;                        /* the dense model: statistics, and the streams where probes begin */
    chain probes;                      /* one group of n_probes sequences for each part of a block, student's side */
    block_weights dense, coarse, next; /* of the probed block, its quick factorization, of a block after it */
    float *entry;                      /* [n_probes * ctx, d_model] streams at the probed block's entry */
    float *reference;                  /* [n_scored, d_model] the dense model's streams after the last block */
    float *result;                     /* [PARTS, n_scored, d_model] the same of the probes */
    cli_progress progress;
    uint32_t layer;
} job;

static bool goes_on(void *context) {
    (void)context;
    return !cli_interrupted();
}

/* ---- a quick factorization of one block ------------------------------------------------------------------------ */

static bool make_layer(job *j, part p, const statistics *s, const metric *t, bp_err *e) {
    stack w = stack_of(&j->m->layers[j->layer], p, j->o->fused);
    output_metric outputs;
    factor_options options = {.seed = j->o->seed,
                              .iterations = ITERATIONS,
                              .damping = (float)j->o->damping,
                              .outputs = &outputs,
                              .tick = goes_on};
    layer_loss *loss = &j->losses[j->layer * PARTS + p];
    stage_shape shapes[MODEL_STAGES];
    char name[NAME];
    factors f;
    plan_shapes(j->o, j->layer * PARTS + p, w.n, w.m, shapes);
    stack_name(name, sizeof name, j->layer, p, w.parts);
    if (!factors_open(&f, w.n, w.m, shapes, j->o->n_stages, e)) return false;
    bool ok = output_metric_open(&outputs, NULL, w.n, e) &&
              factors_make(j->w, &f, name, j->dense.W[p], s, t, false, &options, e) &&
              factors_dense(j->w, &f, j->coarse.W[p], e);
    memcpy(loss->error, f.report.validation, sizeof loss->error);
    output_metric_close(&outputs);
    factors_close(&f);
    return ok;
}

/* Layers that share the input at hand. */
static bool make_group(job *j, const part *parts, size_t n, bp_err *e) {
    size_t m = part_linear(&j->m->layers[j->layer], parts[0])->m;
    statistics s;
    metric t;
    if (!statistics_take(&s, &j->walk, CHAIN_DENSE, m, false, (float)j->o->clip, NULL, e)) return false;
    bool ok = metric_open(&t, s.train.H, m, !j->o->diagonal, e);
    if (ok) {
        for (size_t i = 0; ok && i < n; i++) ok = make_layer(j, parts[i], &s, &t, e);
        metric_close(&t);
    }
    statistics_close(&s);
    return ok;
}

/* The dense chain through one block, its layers factorized as their inputs come by. */
static bool make_block(job *j, bp_err *e) {
    static const part inputs[] = {PART_Q, PART_K, PART_V}, out[] = {PART_O}, feed[] = {PART_GATE, PART_UP},
                      down[] = {PART_DOWN};
    const model_layer *l = &j->m->layers[j->layer];
    chain *c = &j->walk;
    size_t d = j->m->config.d_model;
    block_dequantize(j->w, &j->dense, l);
    block_release(j->o->mapped, l);
    memcpy(j->entry, c->stream[CHAIN_DENSE] + c->n_train * d, (c->n_tokens - c->n_train) * d * sizeof *j->entry);
    chain_normalise(c, l->attn_norm);
    if (!make_group(j, inputs, j->o->fused ? 1 : 3, e)) return false;
    chain_attend(c, CHAIN_DENSE, l, &j->dense);
    if (!make_group(j, out, 1, e)) return false;
    chain_add(c, CHAIN_DENSE, j->dense.W[PART_O], l->o.m);
    chain_normalise(c, l->ffn_norm);
    if (!make_group(j, feed, j->o->fused ? 1 : 2, e)) return false;
    chain_feed(c, CHAIN_DENSE, &j->dense);
    if (!make_group(j, down, 1, e)) return false;
    chain_add(c, CHAIN_DENSE, j->dense.W[PART_DOWN], l->down.m);
    return true;
}

/* ---- probes ---------------------------------------------------------------------------------------------------- */

/* The scored rows of `groups` groups of probes, the same positions of each */
static void gather(const job *j, float *out, size_t groups) {
    size_t d = j->m->config.d_model, tokens = j->n_probes * j->ctx;
    for (size_t g = 0; g < groups; g++)
        for (size_t t = STRIDE - 1; t < tokens; t += STRIDE, out += d)
            memcpy(out, j->probes.stream[CHAIN_STUDENT] + (g * tokens + t) * d, d * sizeof *out);
}

/* The chain of the first `groups` groups of probes through the blocks from `layer` on, dense. */
static void run_rest(job *j, uint32_t layer, size_t groups) {
    chain c = chain_slice(&j->probes, 0, groups * j->n_probes);
    for (; layer < j->m->config.n_layers; layer++) {
        block_dequantize(j->w, &j->next, &j->m->layers[layer]);
        block_release(j->o->mapped, &j->m->layers[layer]);
        chain_forward(&c, CHAIN_STUDENT, &j->m->layers[layer], &j->next);
    }
}

static void take_reference(job *j) {
    chain c = chain_slice(&j->probes, 0, j->n_probes);
    chain_embed(&c, CHAIN_STUDENT, &j->m->embedding);
    run_rest(j, 0, 1);
    gather(j, j->reference, 1);
}

/* Each stack of the block in turn takes the place of the dense layers; the rest of the model is dense. */
static bool probe_block(job *j, bp_err *e) {
    double kl[PARTS];
    size_t d = j->m->config.d_model, groups = 0;
    part at[PARTS];
    for (part p = 0; p < PARTS; p++) {
        stack s = stack_of(&j->m->layers[j->layer], p, j->o->fused);
        if (!s.n) continue;
        at[groups] = p;
        chain c = chain_slice(&j->probes, groups++ * j->n_probes, j->n_probes);
        block_weights mixed = j->dense;
        for (uint32_t i = 0; i < s.parts; i++) mixed.W[p + i] = j->coarse.W[p + i];
        memcpy(c.stream[CHAIN_STUDENT], j->entry, c.n_tokens * d * sizeof *j->entry);
        chain_forward(&c, CHAIN_STUDENT, &j->m->layers[j->layer], &mixed);
    }
    run_rest(j, j->layer + 1, groups);
    gather(j, j->result, groups);
    if (!score_kl(kl, j->w, j->m, &j->m->head, j->reference, j->result, groups, j->n_scored, e)) return false;
    for (size_t i = 0; i < groups; i++) j->losses[j->layer * PARTS + at[i]].kl = kl[i];
    return true;
}

/* ---- the measurement ------------------------------------------------------------------------------------------- */

/* n sequences, spread evenly over [first, first + all) of the calibration, cut to ctx tokens. */
static int32_t *copy_sequences(int32_t *out, const calibration *calib, size_t first, size_t all, size_t n, size_t ctx) {
    for (size_t i = 0; i < n; i++, out += ctx)
        memcpy(out, calib->ids + (first + i * all / n) * calib->ctx, ctx * sizeof *out);
    return out;
}

static bool choose_sequences(job *j, const calibration *calib, bp_err *e) {
    size_t train = calib->n_seqs - calib->n_val;
    j->ctx = bp_min(CTX, calib->ctx);
    j->n_fits = bp_min(train, FIT_TOKENS / j->ctx);
    j->n_probes = bp_min(calib->n_val, PROBE_TOKENS / j->ctx);
    j->n_scored = j->n_probes * j->ctx / STRIDE;
    j->ids = malloc((j->n_fits + (1 + PARTS) * j->n_probes) * j->ctx * sizeof *j->ids);
    if (!j->ids) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokens of the allocation");
    int32_t *at = copy_sequences(j->ids, calib, 0, train, j->n_fits, j->ctx);
    for (size_t i = 0; i < 1 + PARTS; i++) at = copy_sequences(at, calib, train, calib->n_val, j->n_probes, j->ctx);
    return true;
}

static bool job_open(job *j, const calibration *calib, const char *folder, bp_err *e) {
    const model_layer *l = &j->m->layers[0];
    size_t d = j->m->config.d_model;
    if (!choose_sequences(j, calib, e)) return false;
    size_t walked = j->n_fits + j->n_probes, probe_floats = j->n_probes * j->ctx * d;
    j->entry = malloc((probe_floats + (1 + PARTS) * j->n_scored * d) * sizeof *j->entry);
    if (!j->entry) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the probes of the allocation");
    j->reference = j->entry + probe_floats;
    j->result = j->reference + j->n_scored * d;
    return chain_open(&j->walk, j->w, j->m, j->ids, walked, j->n_probes, j->ctx, false, folder, e) &&
           chain_open(&j->probes, j->w, j->m, j->ids + walked * j->ctx, PARTS * j->n_probes, 0, j->ctx, false, folder,
                      e) &&
           block_open(&j->dense, l, e) && block_open(&j->coarse, l, e) && block_open(&j->next, l, e);
}

static void job_close(job *j) {
    block_close(&j->dense);
    block_close(&j->coarse);
    block_close(&j->next);
    chain_close(&j->walk);
    chain_close(&j->probes);
    free(j->entry);
    free(j->ids);
}

/* Work of the probes of one block and of its factorization */
static double block_work(const compress_options *o, const model *m, uint32_t layer, size_t probe_tokens,
                         size_t scored) {
    const model_config *c = &m->config;
    double work = 0, weights = (double)m->linear_weights / c->n_layers, probes = (double)PARTS * (double)probe_tokens;
    for (part p = 0; p < PARTS; p++) {
        stack w = stack_of(&m->layers[layer], p, o->fused);
        work += plan_layer_work(o, layer * PARTS + p, w.n, w.m) * (double)ITERATIONS / (double)o->iterations;
    }
    return work + 2 * weights * (double)FIT_TOKENS + probes * 2 * weights * (c->n_layers - layer) +
           2 * (double)(1 + PARTS) * (double)scored * c->vocab * c->d_model;
}

uint64_t allocate_bytes(const compress_options *o, const model *m) {
    size_t ctx = bp_min(CTX, o->ctx), walked = (FIT_TOKENS + PROBE_TOKENS) / ctx, probes = PARTS * PROBE_TOKENS / ctx;
    uint32_t threads = (uint32_t)o->threads;
    uint64_t weights = m->linear_weights / m->config.n_layers, d = m->config.d_model;
    uint64_t chains = o->streamed ? chain_front_bytes(m, walked, ctx, false, threads) +
                                        chain_front_bytes(m, probes, ctx, false, threads)
                                  : chain_activation_bytes(m, walked + probes, ctx, false);
    uint64_t streams = PROBE_TOKENS * d * (1 + (1 + PARTS) / STRIDE);
    return chains + 2 * chain_own_bytes(m, ctx, threads) + sizeof(float) * (3 * weights + streams);
}

double allocate_work(const compress_options *o, const model *m) {
    double work = 0;
    for (uint32_t i = 0; i < m->config.n_layers; i++) work += block_work(o, m, i, PROBE_TOKENS, PROBE_TOKENS / STRIDE);
    return work;
}

static bool measure(job *j, bp_err *e) {
    char detail[48];
    double done = 0, total = allocate_work(j->o, j->m);
    chain_embed(&j->walk, CHAIN_DENSE, &j->m->embedding);
    chain_embed(&j->walk, CHAIN_STUDENT, &j->m->embedding);
    take_reference(j);
    for (j->layer = 0; j->layer < j->m->config.n_layers; j->layer++) {
        if (cli_interrupted()) return bp_fail(e, BP_OK, 0, "interrupted");
        if (!make_block(j, e) || !probe_block(j, e)) return false;
        done += block_work(j->o, j->m, j->layer, PROBE_TOKENS, PROBE_TOKENS / STRIDE);
        snprintf(detail, sizeof detail, "block %u of %u", (unsigned)j->layer + 1, (unsigned)j->m->config.n_layers);
        cli_progress_update(&j->progress, done, total, detail);
    }
    return true;
}

bool allocate_measure(layer_loss *losses, const compress_options *o, workers *w, const model *m,
                      const calibration *calib, const char *folder, bp_err *e) {
    job j = {.o = o, .m = m, .w = w, .losses = losses};
    cli_progress_begin(&j.progress, "measure layers", o->quiet);
    bool ok = job_open(&j, calib, folder, e) && measure(&j, e);
    cli_progress_end(&j.progress);
    job_close(&j);
    return ok;
}

/* ---- from losses to bits --------------------------------------------------------------------------------------- */

static double total_bits(const compress_options *o) {
    double bits = 0;
    for (uint32_t s = 0; s < o->n_stages; s++) bits += o->stage_bits[s];
    return bits;
}

/* Factors at a marginal loss of 2^level nats per weight and halving; the stored bytes. */
static uint64_t spread_at(double *factor, double level, const compress_options *o, const model *m,
                          const layer_loss *losses) {
    compress_options tried = *o;
    uint64_t bytes = 0;
    tried.factors = factor;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, o->fused);
        stage_shape shapes[MODEL_STAGES];
        factor[i] = 1;
        if (!w.n) continue;
        double per_weight = fmax(losses[i].kl, SILENT) / ((double)w.n * (double)w.m);
        factor[i] = fmin(ALLOCATE_MOST, fmax(LEAST, 1 + (log2(per_weight) - level) / (RATE * total_bits(o))));
        plan_shapes(&tried, i, w.n, w.m, shapes);
        for (uint32_t s = 0; s < o->n_stages; s++) bytes += factors_stage_bytes(w.n, w.m, shapes[s]);
    }
    return bytes;
}

void allocate_spread(double *factor, const compress_options *o, const model *m, const layer_loss *losses) {
    uint64_t allowed = plan_nominal_bytes(o, m);
    double low = -200, high = 200; /* log2 of nats per weight */
    for (int i = 0; i < 60; i++) {
        double middle = (low + high) / 2;
        if (spread_at(factor, middle, o, m, losses) > allowed)
            low = middle;
        else
            high = middle;
    }
    spread_at(factor, high, o, m, losses);
}

/* ---- the file of a measurement --------------------------------------------------------------------------------- */

/* All digits, so that a kept measurement gives the same file; cJSON's own printing may drop the last. */
static bool put_layer(cJSON *layers, const char *name, const layer_loss *loss, uint32_t n_stages) {
    char kl[32], errors[32 * MODEL_STAGES + 8] = "[";
    size_t used = 1;
    cJSON *layer = cJSON_CreateObject();
    snprintf(kl, sizeof kl, "%.17g", loss->kl);
    for (uint32_t s = 0; s < n_stages; s++)
        used += (size_t)snprintf(errors + used, sizeof errors - used, "%s%.17g", s ? ", " : "", loss->error[s]);
    snprintf(errors + used, sizeof errors - used, "]");
    return cJSON_AddItemToArray(layers, layer) && cJSON_AddStringToObject(layer, "name", name) &&
           cJSON_AddRawToObject(layer, "kl", kl) && cJSON_AddRawToObject(layer, "error", errors);
}

static cJSON *to_json(const char *source, const model *m, const layer_loss *losses, uint32_t n_stages, bool fused) {
    cJSON *root = cJSON_CreateObject();
    bool ok = cJSON_AddStringToObject(root, "source", source);
    cJSON *layers = cJSON_AddArrayToObject(root, "layers");
    for (uint32_t i = 0; ok && i < m->config.n_layers * PARTS; i++) {
        char name[NAME];
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, fused);
        stack_name(name, sizeof name, i / PARTS, i % PARTS, w.parts);
        ok = !w.n || put_layer(layers, name, &losses[i], n_stages);
    }
    if (ok) return root;
    cJSON_Delete(root);
    return NULL;
}

bool allocate_write(const char *path, const char *source, const model *m, const layer_loss *losses, uint32_t n_stages,
                    bool fused, bp_err *e) {
    cJSON *root = to_json(source, m, losses, n_stages, fused);
    char *text = root ? cJSON_Print(root) : NULL;
    cJSON_Delete(root);
    if (!text) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for '%s'", path);
    file_out *f = file_create(path, true, 0, e);
    bool ok = f && file_append(f, text, strlen(text), e) && file_append(f, "\n", 1, e);
    if (ok)
        ok = file_commit(f, e);
    else
        file_discard(f);
    cJSON_free(text);
    return ok;
}

static bool read_layer(layer_loss *loss, const cJSON *layer, const char *name) {
    const char *named = json_text(layer, "name");
    const cJSON *kl = cJSON_GetObjectItem(layer, "kl"), *errors = cJSON_GetObjectItem(layer, "error"), *error;
    size_t n = 0;
    if (!named || strcmp(named, name) != 0 || !cJSON_IsNumber(kl) || !isfinite(kl->valuedouble)) return false;
    *loss = (layer_loss){.kl = kl->valuedouble};
    cJSON_ArrayForEach(error, errors) if (n < MODEL_STAGES && cJSON_IsNumber(error)) loss->error[n++] =
        error->valuedouble;
    return true;
}

bool allocate_read(layer_loss *losses, const char *path, const char *source, const model *m, bool fused, bp_err *e) {
    cJSON *root = json_read(path, e);
    if (!root) return false;
    const char *of = json_text(root, "source");
    const cJSON *layer = cJSON_GetArrayItem(cJSON_GetObjectItem(root, "layers"), 0);
    bool ok = (of && strcmp(of, source) == 0) ||
              bp_fail(e, BP_ERR_ARGUMENT, 0, "'%s' was measured on another model (%.60s)", path, of ? of : "");
    for (uint32_t i = 0; ok && i < m->config.n_layers * PARTS; i++) {
        char name[NAME];
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, fused);
        if (!w.n) continue;
        stack_name(name, sizeof name, i / PARTS, i % PARTS, w.parts);
        ok = read_layer(&losses[i], layer, name) ||
             bp_fail(e, BP_ERR_FORMAT, 0, "'%s': no measurement of %s where it belongs", path, name);
        layer = layer ? layer->next : NULL;
    }
    cJSON_Delete(root);
    return ok;
}
