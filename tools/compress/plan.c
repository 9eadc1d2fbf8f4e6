#include "plan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "chain.h"
#include "container.h"
#include "statistics.h"

static const double CORE_SPEED = 40e9; /* float32 operations per second that a core reaches in this mix */

bool plan_parse_stages(compress_options *o, const char *text, bp_err *e) {
    const char *p = text;
    for (o->n_stages = 0; *p; o->n_stages++) {
        char *end;
        double bits = strtod(p, &end);
        if (end == p || (*end && *end != ',') || !(bits >= 0.05 && bits <= 8) || o->n_stages == MODEL_STAGES)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--stages '%s': up to %d numbers from 0.05 to 8, separated by commas",
                           text, MODEL_STAGES);
        o->stage_bits[o->n_stages] = bits;
        p = *end ? end + 1 : end;
    }
    return o->n_stages > 0 || bp_fail(e, BP_ERR_ARGUMENT, 0, "--stages is empty");
}

bool plan_split_bits(compress_options *o, double bits, bp_err *e) {
    if (!(bits >= 0.05 && bits <= (double)MODEL_STAGES))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--bits must be from 0.05 to %d", MODEL_STAGES);
    o->n_stages = (uint32_t)ceil(bits);
    for (uint32_t s = 0; s < o->n_stages; s++) o->stage_bits[s] = bits / o->n_stages;
    return true;
}

void plan_middles(const compress_options *o, size_t n, size_t m, uint32_t k[MODEL_STAGES]) {
    for (uint32_t s = 0; s < o->n_stages; s++) k[s] = factors_middle(o->stage_bits[s], n, m);
}

double plan_layer_work(const compress_options *o, size_t n, size_t m) {
    uint32_t k[MODEL_STAGES];
    double work = 0;
    plan_middles(o, n, m, k);
    for (uint32_t s = 0; s < o->n_stages; s++) work += admm_work(n, m, k[s], (unsigned)o->iterations, !o->diagonal);
    return work;
}

double plan_block_work(const compress_options *o, const model *m, size_t n_tokens) {
    const model_config *c = &m->config;
    size_t d = c->d_model, q = (size_t)c->n_heads * c->head_dim, train = n_tokens - n_tokens / 16;
    double weights = (double)m->linear_weights / c->n_layers, tokens = (double)n_tokens;
    double forward = (double)CHAINS * tokens * (2 * weights + 4 * (double)o->ctx * (double)q);
    return forward + 2 * statistics_work(n_tokens, train, d, d, false) + statistics_work(n_tokens, train, q, d, true) +
           statistics_work(n_tokens, train, c->d_ff, d, true);
}

compress_plan plan_make(const compress_options *o, const model *m, size_t n_tokens) {
    const model_config *c = &m->config;
    compress_plan plan = {.work = c->n_layers * plan_block_work(o, m, n_tokens)};
    uint64_t factor_bytes = 0;
    size_t widest = 0, largest = 0;
    for (part p = 0; p < PARTS; p++) {
        const linear *w = part_linear(&m->layers[0], p);
        uint32_t k[MODEL_STAGES];
        plan_middles(o, w->n, w->m, k);
        for (uint32_t s = 0; s < o->n_stages; s++) factor_bytes += c->n_layers * factors_stage_bytes(w->n, w->m, k[s]);
        plan.work += c->n_layers * plan_layer_work(o, w->n, w->m);
        widest = bp_max(widest, w->m);
        largest = bp_max(largest, (size_t)w->n * w->m);
    }
    plan.bits_per_weight = 8 * (double)factor_bytes / (double)m->linear_weights;
    plan.file_bytes = factor_bytes + container_fixed_bytes(m, (uint32_t)o->embedding_bits);
    plan.memory =
        chain_bytes(m, n_tokens / o->ctx, o->ctx, (uint32_t)o->threads) + plan.file_bytes + n_tokens * 12 +
        sizeof(float) * (11 * (uint64_t)widest * widest + 30 * (uint64_t)largest + 2 * m->linear_weights / c->n_layers);
    plan.seconds = plan.work / (CORE_SPEED * (double)o->threads);
    return plan;
}

void plan_recipe(const compress_options *o, char *out, size_t capacity) {
    char stages[160], lambda[32] = "\"validation\"";
    size_t used = 0;
    for (uint32_t s = 0; s < o->n_stages; s++)
        used += (size_t)snprintf(stages + used, sizeof stages - used, "%s%.6g", s ? ", " : "", o->stage_bits[s]);
    if (o->lambda >= 0) snprintf(lambda, sizeof lambda, "%.6g", o->lambda);
    snprintf(out, capacity,
             "{\"stages\": [%s], \"method\": \"%s\", \"iterations\": %llu, \"calib_tokens\": %llu, \"ctx\": %llu, "
             "\"embedding_bits\": %llu, "
             "\"damping\": %.6g, \"lambda\": %s, \"clip\": %.6g, \"seed\": %llu}",
             stages, o->diagonal ? "diagonal" : "full", (unsigned long long)o->iterations,
             (unsigned long long)o->calib_tokens, (unsigned long long)o->ctx, (unsigned long long)o->embedding_bits,
             o->damping, lambda, o->clip, (unsigned long long)o->seed);
}
