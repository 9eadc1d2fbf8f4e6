/* The state of a tuning run on disk: everything that the next step reads. */
#include <stdlib.h>

#include "io/file.h"
#include "tuner.h"

enum { VERSION = 5 };

typedef struct {
    uint8_t magic[8];
    uint8_t fingerprint[32];
    uint64_t version, step, best_step, tokens;
    double elapsed, best_score, distance[MODEL_TIERS];
    tune_score before[MODEL_TIERS], after[MODEL_TIERS];
} state_header;

static const uint8_t MAGIC[8] = "bp-tune";

static student_stage *stage_at(const tuner *t, uint32_t layer, uint32_t stage) {
    return &t->model.layers[layer].stages[stage];
}

static bool append_best(const tuner *t, file_out *f, bp_err *e) {
    for (uint32_t i = 0; i < t->model.n_layers * PARTS; i++)
        if (!file_append(f, t->best[i].memory, t->best[i].n_bytes, e)) return false;
    return file_append(f, t->best_norm, t->file->config.d_model * sizeof *t->best_norm, e);
}

static bool append_parameters(const tuner *t, file_out *f, bp_err *e) {
    for (uint32_t i = 0; i < t->model.n_layers * PARTS; i++)
        for (uint32_t j = 0; j < t->model.layers[i].n_stages; j++) {
            const student_stage *s = stage_at(t, i, j);
            if (!file_append(f, &s->steps, sizeof s->steps, e) || !file_append(f, s->c_steps, sizeof s->c_steps, e) ||
                !file_append(f, s->memory, (s->count + 2 * s->kept) * sizeof *s->memory, e))
                return false;
        }
    return file_append(f, t->norm, 3 * t->file->config.d_model * sizeof *t->norm, e);
}

/* What a table's next step reads, in the order of the file. */
typedef struct {
    void *at;
    size_t size;
} run_of_bytes;

enum { TABLE_RUNS = 6 };

static void table_runs(const tuned_table *s, run_of_bytes out[TABLE_RUNS]) {
    size_t entries = s->rows * s->columns;
    const run_of_bytes runs[TABLE_RUNS] = {{s->scales, s->rows * s->blocks * sizeof *s->scales},
                                           {s->latent, entries * sizeof *s->latent},
                                           {s->rounded, entries * sizeof *s->rounded},
                                           {s->mean, entries * sizeof *s->mean},
                                           {s->square, s->rows * sizeof *s->square},
                                           {s->best, entries * sizeof *s->best}};
    memcpy(out, runs, sizeof runs);
}

static bool append_tables(const tuner *t, file_out *f, bp_err *e) {
    for (uint32_t i = 0; i < t->n_tables; i++) {
        const tuned_table *s = &t->tables[i];
        run_of_bytes runs[TABLE_RUNS];
        table_runs(s, runs);
        if (!file_append(f, &s->steps, sizeof s->steps, e) || !file_append(f, &s->size, sizeof s->size, e) ||
            !file_append(f, s->metric.H, s->columns * s->columns * sizeof *s->metric.H, e))
            return false;
        for (size_t j = 0; j < TABLE_RUNS; j++)
            if (!file_append(f, runs[j].at, runs[j].size, e)) return false;
    }
    return true;
}

/* At most so much is written. */
static uint64_t state_bytes(const tuner *t) {
    const model_config *c = &t->file->config;
    return student_bytes(t->file, t->model.train_signs) + t->file->file->size +
           t->n_tables * (table_bytes(c->vocab, c->d_model, 1) + sizeof(float) * (uint64_t)c->vocab * c->d_model);
}

bool tuner_save(const tuner *t, const char *path, const uint8_t fingerprint[32], bp_err *e) {
    state_header h = {.version = VERSION,
                      .step = t->step,
                      .best_step = t->best_step,
                      .tokens = t->tokens,
                      .elapsed = t->elapsed,
                      .best_score = t->best_score};
    memcpy(h.magic, MAGIC, sizeof h.magic);
    memcpy(h.fingerprint, fingerprint, sizeof h.fingerprint);
    memcpy(h.distance, t->distance, sizeof h.distance);
    memcpy(h.before, t->before, sizeof h.before);
    memcpy(h.after, t->after, sizeof h.after);
    file_out *f = file_create(path, true, state_bytes(t), e);
    if (!f) return false;
    if (file_append(f, &h, sizeof h, e) && append_best(t, f, e) && append_parameters(t, f, e) && append_tables(t, f, e))
        return file_commit(f, e);
    file_discard(f);
    return false;
}

typedef struct {
    const uint8_t *at;
    uint64_t left;
} reader;

static bool take(reader *r, void *out, size_t n) {
    if (n > r->left) return false;
    memcpy(out, r->at, n);
    r->at += n;
    r->left -= n;
    return true;
}

static bool read_metric(tuned_table *s, reader *r) {
    size_t bytes = s->columns * s->columns * sizeof(float);
    float *H = malloc(bytes);
    bp_err inner;
    bool ok = H && take(r, H, bytes) && table_metric_restore(&s->metric, H, s->columns, &inner);
    free(H);
    return ok;
}

static bool read_table(tuned_table *s, reader *r) {
    run_of_bytes runs[TABLE_RUNS];
    table_runs(s, runs);
    if (!take(r, &s->steps, sizeof s->steps) || !take(r, &s->size, sizeof s->size) || !read_metric(s, r)) return false;
    for (size_t j = 0; j < TABLE_RUNS; j++)
        if (!take(r, runs[j].at, runs[j].size)) return false;
    return true;
}

static bool read_state(tuner *t, reader *r) {
    size_t d = t->file->config.d_model;
    for (uint32_t i = 0; i < t->model.n_layers * PARTS; i++)
        if (!take(r, t->best[i].memory, t->best[i].n_bytes)) return false;
    if (!take(r, t->best_norm, d * sizeof *t->best_norm)) return false;
    for (uint32_t i = 0; i < t->model.n_layers * PARTS; i++)
        for (uint32_t j = 0; j < t->model.layers[i].n_stages; j++) {
            student_stage *s = stage_at(t, i, j);
            if (!take(r, &s->steps, sizeof s->steps) || !take(r, s->c_steps, sizeof s->c_steps) ||
                !take(r, s->memory, (s->count + 2 * s->kept) * sizeof *s->memory))
                return false;
        }
    if (!take(r, t->norm, 3 * d * sizeof *t->norm)) return false;
    for (uint32_t i = 0; i < t->n_tables; i++)
        if (!read_table(&t->tables[i], r)) return false;
    return r->left == 0;
}

bool tuner_load(tuner *t, const char *path, const uint8_t fingerprint[32], bp_err *e) {
    file_view f;
    state_header h;
    if (!file_map(&f, path, e)) return false;
    reader r = {f.bytes, f.size};
    bool ok = take(&r, &h, sizeof h) && memcmp(h.magic, MAGIC, sizeof h.magic) == 0 && h.version == VERSION;
    if (!ok)
        bp_fail(e, BP_ERR_FORMAT, 0, "%s is not the state of a tuning run", path);
    else if (memcmp(h.fingerprint, fingerprint, sizeof h.fingerprint) != 0)
        ok = bp_fail(e, BP_ERR_ARGUMENT, 0, "%s belongs to a run with other options, texts or models", path);
    else if (!(ok = read_state(t, &r)))
        bp_fail(e, BP_ERR_FORMAT, f.size - r.left, "%s is damaged", path);
    if (ok) {
        t->step = h.step;
        t->best_step = h.best_step;
        t->tokens = h.tokens;
        t->elapsed = h.elapsed;
        t->best_score = h.best_score;
        memcpy(t->distance, h.distance, sizeof h.distance);
        memcpy(t->before, h.before, sizeof h.before);
        memcpy(t->after, h.after, sizeof h.after);
    }
    file_unmap(&f);
    return ok;
}
