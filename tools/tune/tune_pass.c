/* The passes of a tuning step: teacher, student, and the way back. */
#include <math.h>

#include "mathf.h"
#include "tuner.h"
#include "vector.h"

enum { VALIDATION_TOKENS = 16384 }; /* at most, but for a batch */

static size_t width(const tuner *t) { return t->file->config.d_model; }

/* ---- forward --------------------------------------------------------------------------------------------------- */

void tuner_materialise(tuner *t, uint32_t tiers) {
    t->tiers = tiers;
    for (uint32_t i = 0; i < t->model.n_layers; i++)
        for (part p = 0; p < PARTS; p++)
            student_dense(t->w, t->kind, &t->model.layers[i * PARTS + p], tiers, t->W[i].W[p], t->scratch);
}

void tuner_forward(tuner *t, size_t n_seqs) {
    size_t tokens = n_seqs * t->text->ctx, d = width(t);
    network_embed(&t->net, t->embedding[0], t->ids, t->stream, tokens);
    for (uint32_t i = 0; i < t->model.n_layers; i++) {
        if (t->inputs) memcpy(t->inputs + i * t->net.most * d, t->stream, tokens * d * sizeof *t->stream);
        network_forward(&t->net, &t->shapes[i], &t->W[i], t->stream, tokens, &t->traces[i % t->n_traces]);
    }
    network_normalise(&t->net, t->x, t->r, t->stream, t->norm, tokens);
}

static bool all_known(const tuner *t, size_t n_seqs) {
    for (size_t i = 0; i < n_seqs; i++)
        if (!t->known[t->rows[i]]) return false;
    return true;
}

static void run_teacher(tuner *t, size_t n_seqs) {
    size_t tokens = n_seqs * t->text->ctx;
    network_embed(&t->net, t->embedding[1], t->ids, t->stream, tokens);
    for (uint32_t i = 0; i < t->model.n_layers; i++) {
        block_dequantize(t->w, &t->dense, &t->teacher->layers[i]);
        network_forward(&t->net, &t->teacher->layers[i], &t->dense, t->stream, tokens, &t->traces[0]);
    }
    network_normalise(&t->net, t->y, t->r, t->stream, t->teacher->out_norm, tokens);
}

void tuner_teach(tuner *t, size_t n_seqs) {
    size_t row = t->text->ctx * width(t);
    bool known = all_known(t, n_seqs);
    if (!known) run_teacher(t, n_seqs);
    for (size_t i = 0; i < n_seqs; i++) {
        uint16_t *kept = t->taught + t->rows[i] * row;
        float *y = t->y + i * row;
        for (size_t j = 0; !known && j < row; j++) kept[j] = bp_half_from_float(y[j]);
        for (size_t j = 0; j < row; j++) y[j] = bp_half_to_float(kept[j]);
        t->known[t->rows[i]] = 1;
    }
}

static void gather(tuner *t, size_t n_seqs) {
    for (size_t i = 0; i < n_seqs; i++) {
        memcpy(t->ids + i * t->text->ctx, t->text->ids + t->rows[i] * t->text->ctx, t->text->ctx * sizeof *t->ids);
        t->labels[i] = (float)t->o->labels[t->text->file[t->rows[i]]];
    }
}

/* ---- backward -------------------------------------------------------------------------------------------------- */

typedef struct {
    tuner *t;
    uint32_t layer;
} place;

static void use_gradient(void *context, part p, const float *dY, const float *X, size_t tokens) {
    const place *at = context;
    tuner *t = at->t;
    const model_layer *block = &t->shapes[at->layer];
    bool fused = stack_fused(&t->file->layers[at->layer], p);
    student_layer *l = &t->model.layers[at->layer * PARTS + stack_first(p, fused)];
    size_t n = part_linear(block, p)->n;
    product_run(t->w, t->kind, true, false, n, l->m, tokens, dY, n, X, l->m, 0,
                t->dW + stack_row(block, p, fused) * l->m, l->m);
    if (!stack_complete(p, fused)) return;
    const student_turn turn = {t->tiers, t->o->first_tier - 1, t->file->n_tiers, t->o->apart};
    student_update(t->w, t->kind, l, turn, t->dW, &t->rates, t->scratch);
}

/* dL/dw_j of the output norm = sum_t dx_tj r_t stream_tj */
static void update_norm(tuner *t, const float *dx, size_t tokens) {
    size_t d = width(t);
    memset(t->d_norm, 0, d * sizeof *t->d_norm);
    for (size_t i = 0; i < tokens; i++)
        for (size_t j = 0; j < d; j++) t->d_norm[j] += dx[i * d + j] * t->r[i] * t->stream[i * d + j];
    double size = 0;
    for (size_t j = 0; j < d; j++) size += fabs((double)t->teacher->out_norm[j]) / (double)d;
    float steps = (float)t->step + 1;
    adam_step step = {.rate = t->rates.scales * (float)size,
                      .beta1 = t->rates.beta1,
                      .beta2 = t->rates.beta2,
                      .correct1 = 1 / (1 - powf(t->rates.beta1, steps)),
                      .correct2 = 1 / (1 - powf(t->rates.beta2, steps)),
                      .eps = 1e-14f};
    vector_adam(t->norm, t->norm + d, t->norm + 2 * d, t->d_norm, d, step);
}

/* What the embedding is told by the words it stands for: dx [tokens, d_model], the gradient of the first stream. A head of
 * its own has told its table already. */
static void update_tables(tuner *t, const float *dx, size_t tokens) {
    size_t d = width(t);
    if (!(t->o->rate_tables > 0)) return;
    if (t->n_tables == 2) memset(t->tables[0].gradient, 0, t->tables[0].rows * d * sizeof(float));
    for (size_t i = 0; i < tokens; i++) vector_add(t->tables[0].gradient + (size_t)t->ids[i] * d, dx + i * d, 1, d);
    for (uint32_t i = 0; i < t->n_tables; i++)
        table_step(&t->tables[i], t->rates.tables, t->rates.beta1, t->rates.beta2);
}

double tuner_step(tuner *t, size_t n_seqs) {
    size_t ctx = t->text->ctx, tokens = n_seqs * ctx, d = width(t);
    distill_score score = {0};
    gather(t, n_seqs);
    tuner_teach(t, n_seqs);
    tuner_forward(t, n_seqs);
    distiller_run(&t->head, t->x, t->x, t->y, t->ids, ctx, tokens, 1 / (float)t->distance[t->tiers - 1], t->labels,
                  &score);
    /* the norm's step comes after its weights were used */
    memcpy(t->y, t->x, tokens * d * sizeof *t->y);
    network_normalise_backward(&t->net, t->x, t->stream, t->norm, t->r, tokens);
    if (t->o->first_tier == 1 && !t->o->apart) update_norm(t, t->y, tokens);
    for (uint32_t i = t->model.n_layers; i-- > 0;) {
        place at = {t, i};
        gradient_sink sink = {use_gradient, &at};
        block_trace *trace = &t->traces[i % t->n_traces];
        if (t->inputs) {
            memcpy(t->stream, t->inputs + i * t->net.most * d, tokens * d * sizeof *t->stream);
            network_forward(&t->net, &t->shapes[i], &t->W[i], t->stream, tokens, trace);
        }
        network_backward(&t->net, &t->shapes[i], &t->W[i], t->x, tokens, trace, &sink);
    }
    update_tables(t, t->x, tokens);
    double kl = score.kl / (double)score.positions;
    t->distance[t->tiers - 1] += 0.05 * (kl - t->distance[t->tiers - 1]);
    return kl;
}

/* ---- validation ------------------------------------------------------------------------------------------------ */

/* Validation sequence i of n, spread over the text */
static size_t validation_row(const calibration *text, size_t i, size_t n) {
    return text->n_seqs - text->n_val + i * text->n_val / n;
}

tune_score tuner_validate(tuner *t, uint32_t tiers) {
    distill_score score = {0};
    const calibration *text = t->text;
    size_t batch = (size_t)t->o->sequences, n = bp_min(text->n_val, bp_max(batch, VALIDATION_TOKENS / text->ctx));
    tuner_materialise(t, tiers);
    for (size_t i = 0; i < n; i += batch) {
        size_t count = bp_min(batch, n - i);
        for (size_t j = 0; j < count; j++) t->rows[j] = validation_row(text, i + j, n);
        gather(t, count);
        tuner_teach(t, count);
        tuner_forward(t, count);
        distiller_run(&t->head, NULL, t->x, t->y, t->ids, text->ctx, count * text->ctx, 1, t->labels, &score);
    }
    return (tune_score){score.loss / (double)score.positions, score.kl / (double)score.positions,
                        exp(score.nll / (double)score.scored), (double)score.agree / (double)score.positions};
}
