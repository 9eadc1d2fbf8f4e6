#include "plan.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "admm.h"
#include "allocate.h"
#include "block_tune.h"
#include "chain.h"
#include "container.h"
#include "linalg/gemm_bf16.h"
#include "load.h"
#include "offline.h"
#include "statistics.h"
#include "table_round.h"
#include "tune/output_weights.h"

/* Operations per second of a whole run beside those of product_speed; with AMX many products are coarser and faster. */
static double share_of_product(void) { return gemm_bf16_amx() ? 0.9 : 0.45; }

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

static double middles_bits(const linear *l) {
    double sum = 0;
    for (uint32_t s = 0; s < l->n_stages; s++) sum += l->stages[s].k;
    return sum * ((double)l->n + l->m);
}

static bool check_base(const compress_options *o, const model *m, const model *base, bp_err *e) {
    if (!base->factorized) return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: the file is not compressed");
    if (!offline_same_shape(m, base))
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: the file is a model of another shape");
    if (base->tier != base->n_tiers)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: the file ends after tier %u of %u", (unsigned)base->tier,
                       (unsigned)base->n_tiers);
    if (base->n_tiers + o->n_stages > MODEL_STAGES)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: %u stages and %u more are above %d", (unsigned)base->n_tiers,
                       (unsigned)o->n_stages, MODEL_STAGES);
    for (uint32_t i = 0; i < base->config.n_layers * PARTS; i++) {
        const linear *w = part_linear(&base->layers[i / PARTS], i % PARTS);
        if (w->n && w->n_stages != base->n_tiers)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: not every layer of the file has %u stages",
                           (unsigned)base->n_tiers);
        if (!(i % PARTS == PART_O || i % PARTS == PART_DOWN) &&
            stack_fused(&base->layers[i / PARTS], i % PARTS) != stack_fused(&base->layers[0], PART_Q))
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--extend: only some layers of the file are fused");
    }
    return true;
}

bool plan_extend(compress_options *o, const model *m, const model *base, bp_err *e) {
    double used = 0;
    if (!check_base(o, m, base, e)) return false;
    for (uint32_t i = 0; i < base->config.n_layers * PARTS; i++)
        used += middles_bits(part_linear(&base->layers[i / PARTS], i % PARTS));
    o->base = base;
    o->fused = stack_fused(&base->layers[0], PART_Q);
    o->embedding_bits = base->embedding.planes.bytes ? base->embedding.planes.planes : 0;
    o->kept = base->n_tiers;
    o->base_bits = used / (double)m->linear_weights;
    memmove(o->stage_bits + o->kept, o->stage_bits, o->n_stages * sizeof *o->stage_bits);
    for (uint32_t s = 0; s < o->kept; s++) o->stage_bits[s] = o->base_bits / o->kept;
    o->n_stages += o->kept;
    return true;
}

/* Those of the base as it has them. */
static void kept_shapes(const compress_options *o, size_t index, stage_shape *shapes) {
    const model_layer *layer = &o->base->layers[index / PARTS];
    stack w = stack_of(layer, index % PARTS, o->fused);
    char name[64];
    stack_name(name, sizeof name, (uint32_t)(index / PARTS), index % PARTS, w.parts);
    for (uint32_t s = 0; s < o->kept; s++)
        shapes[s] = factors_shape(o->base->file, name, s, part_linear(layer, index % PARTS)->stages[s].k);
}

void plan_shapes(const compress_options *o, size_t index, size_t n, size_t m, stage_shape shapes[MODEL_STAGES]) {
    double factor = o->factors ? o->factors[index] : 1;
    if (o->base) {
        const linear *l = part_linear(&o->base->layers[index / PARTS], index % PARTS);
        factor = middles_bits(l) / ((double)n * (double)m) / o->base_bits;
        kept_shapes(o, index, shapes);
    }
    for (uint32_t s = o->kept; s < o->n_stages; s++)
        shapes[s] = (stage_shape){factors_middle(factor * o->stage_bits[s], n, m), 1, o->scale_bits == 8};
}

uint64_t plan_factor_bytes(const compress_options *o, const model *m) {
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, o->fused);
        stage_shape shapes[MODEL_STAGES];
        if (!w.n) continue;
        plan_shapes(o, i, w.n, w.m, shapes);
        for (uint32_t s = 0; s < o->n_stages; s++) bytes += factors_stage_bytes(w.n, w.m, shapes[s]);
    }
    return bytes;
}

/* Bytes of a stage with a middle of `k`, whatever it is: between those of the multiples of 32 around it. */
static double nominal_stage_bytes(size_t n, size_t m, double k, bool eight) {
    uint32_t below = 32 * (uint32_t)(k / 32);
    double low = (double)factors_stage_bytes(n, m, (stage_shape){below, 1, eight});
    double high = (double)factors_stage_bytes(n, m, (stage_shape){below + 32, 1, eight});
    return low + (high - low) * (k - below) / 32;
}

uint64_t plan_nominal_bytes(const compress_options *o, const model *m) {
    double bytes = 0;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, o->fused);
        if (!w.n) continue;
        double one_bit = (double)w.n * (double)w.m / (double)(w.n + w.m); /* the middle of one bit per weight */
        for (uint32_t s = 0; s < o->n_stages; s++)
            bytes += nominal_stage_bytes(w.n, w.m, fmax(32, o->stage_bits[s] * one_bit), o->scale_bits == 8);
    }
    return (uint64_t)bytes;
}

double plan_layer_work(const compress_options *o, size_t index, size_t n, size_t m) {
    stage_shape shapes[MODEL_STAGES];
    double work = 0;
    if (!n) return 0;
    plan_shapes(o, index, n, m, shapes);
    for (uint32_t s = o->kept; s < o->n_stages; s++)
        work += admm_work(n, m, shapes[s].k, (unsigned)o->iterations, !o->diagonal,
                          o->correlated && output_weights_whole(index % PARTS));
    return work;
}

bool plan_fits_blocks(const compress_options *o) { return o->block_steps && plan_wants_gradients(o); }

static double bits_of(const compress_options *o) {
    double bits = 0;
    for (uint32_t s = 0; s < o->n_stages; s++) bits += o->stage_bits[s];
    return bits;
}

double plan_block_work(const compress_options *o, const model *m, size_t n_tokens) {
    const model_config *c = &m->config;
    size_t d = c->d_model, q = (size_t)c->n_heads * c->head_dim, train = n_tokens - n_tokens / 16;
    double weights = (double)m->linear_weights / c->n_layers, tokens = (double)n_tokens;
    double forward = (double)CHAINS * tokens * (2 * weights + 4 * (double)o->ctx * (double)q);
    if (plan_fits_blocks(o)) forward += forward / 2;
    return forward + 2 * statistics_work(n_tokens, train, d, d, false) + statistics_work(n_tokens, train, q, d, true) +
           statistics_work(n_tokens, train, c->d_ff, d, true);
}

double plan_fit_work(const compress_options *o, const model *m) {
    return plan_fits_blocks(o) ? block_tune_work(m, o->ctx, bits_of(o), o->block_steps) : 0;
}

double plan_made_work(const compress_options *o, const model *m, uint32_t layer) {
    double work = plan_fit_work(o, m);
    for (part p = 0; p < PARTS; p++) {
        stack w = stack_of(&m->layers[layer], p, o->fused);
        work += plan_layer_work(o, layer * PARTS + p, w.n, w.m);
    }
    return work;
}

/* ---- memory: what is alive together, in bytes ------------------------------------------------------------------ */

/* The program, BLAS and other products on their threads, the tokenizer, small things. */
static uint64_t base_bytes(const compress_options *o) { return (64 + 14 * o->threads) << 20; }

/* While a layer [n, m] is made: factors.c with target.c, admm.c and refit.c. */
static uint64_t layer_bytes(const compress_options *o, size_t n, size_t m, bool correlated) {
    uint64_t k = 32, nm = (uint64_t)n * m;
    for (uint32_t s = 0; s < o->n_stages; s++)
        k = bp_max(k, factors_middle(o->stage_bits[s] * (o->equal_loss || o->base ? ALLOCATE_MOST : 1), n, m));
    uint64_t nk = n * k, km = k * m, wide = bp_max(m, k), tall = bp_max(n, k),
             whole = correlated ? bp_max(wide, n) : wide;
    uint64_t admm = nk + 4 * km + 2 * nm + 2 * bp_max(nk, km) + 3 * k * k + 2 * WORKERS_BLOCK_MOST * k * o->threads;
    uint64_t refit = 2 * nm + 2 * tall * m + 2 * nk + 2 * whole * whole, outputs = correlated ? 2 * (uint64_t)n * n : 0;
    if (correlated) admm += 2 * nk;
    return sizeof(float) * (outputs + 6 * nm + km + bp_max(6 * nm, nk + km + bp_max(admm, refit)));
}

/* While a group of layers that share their input is made: moments, metric, and as many layers as are made at once. */
static uint64_t group_bytes(const compress_options *o, const model *m, size_t n_tokens, const part *parts, size_t n) {
    const model_layer *l = &m->layers[0];
    uint64_t width = part_linear(l, parts[0])->m, square = width * width, layers = 0, largest = 0;
    bool residual = n == 1;
    for (size_t i = 0; i < n; i++) {
        stack w = stack_of(l, parts[i], o->fused);
        uint64_t bytes = w.n ? layer_bytes(o, w.n, width, o->correlated && output_weights_whole(parts[i])) : 0;
        layers += bytes;
        largest = bp_max(largest, bytes);
    }
    if (o->threads > 2 || o->threads == 1) layers = largest;
    uint64_t held = sizeof(float) * (5 * square + (residual ? 3 * m->config.d_model * width : 0)),
             factored = sizeof(float) * 2 * square, eigenvectors = factored;
    return held + bp_max(factored + bp_max(eigenvectors, layers), statistics_scratch(n_tokens, (uint32_t)o->threads));
}

static uint64_t largest_group(const compress_options *o, const model *m, size_t n_tokens) {
    static const part inputs[] = {PART_Q, PART_K, PART_V}, out[] = {PART_O}, feed[] = {PART_GATE, PART_UP},
                      down[] = {PART_DOWN};
    return bp_max(bp_max(group_bytes(o, m, n_tokens, inputs, 3), group_bytes(o, m, n_tokens, out, 1)),
                  bp_max(group_bytes(o, m, n_tokens, feed, 2), group_bytes(o, m, n_tokens, down, 1)));
}

bool plan_wants_gradients(const compress_options *o) { return o->gradient_tokens && !o->diagonal; }

output_weights_options plan_gradients(const compress_options *o) {
    return (output_weights_options){.n_tokens = o->gradient_tokens,
                                    .tokens = o->token_weights,
                                    .moments = o->correlated,
                                    .streams = plan_fits_blocks(o),
                                    .fused = o->fused,
                                    .mapped = o->mapped};
}

/* Bytes that the loop over blocks holds between groups. */
static uint64_t loop_bytes(const compress_options *o, const model *m, size_t n_tokens) {
    size_t n_seqs = n_tokens / o->ctx, n_val = calibration_n_val(n_seqs);
    uint32_t threads = (uint32_t)o->threads;
    uint64_t weights = m->linear_weights / m->config.n_layers,
             tables = container_fixed_bytes(m, (uint32_t)o->embedding_bits);
    uint64_t activations = o->streamed ? chain_front_bytes(m, n_seqs, o->ctx, plan_fits_blocks(o), threads)
                                       : chain_activation_bytes(m, n_seqs, o->ctx, plan_fits_blocks(o));
    const output_weights_options kept = plan_gradients(o);
    uint64_t gradients = plan_wants_gradients(o) ? output_weights_kept_bytes(m, n_tokens, &kept) : 0;
    return activations + gradients + chain_own_bytes(m, o->ctx, threads) +
           sizeof(float) * n_val * o->ctx * m->config.d_model + 2 * sizeof(float) * weights + plan_factor_bytes(o, m) +
           tables + tables / 16;
}

/* Bytes at the peak. A model in memory is all there; of a mapped one the block or the table at work. */
static uint64_t peak_bytes(const compress_options *o, const model *m, size_t n_tokens) {
    const linear *table = &m->embedding;
    const output_weights_options wanted = plan_gradients(o);
    uint64_t weights = m->linear_weights / m->config.n_layers, rows = (uint64_t)table->n * table->row_bytes;
    uint64_t group = largest_group(o, m, n_tokens) + (o->mapped ? sizeof(float) * weights : 0);
    uint64_t fit = plan_fits_blocks(o) ? block_tune_bytes(m, o->ctx, bits_of(o), (uint32_t)o->threads) : 0;
    uint64_t peak = loop_bytes(o, m, n_tokens) + bp_max(group, fit);
    uint64_t rounding = container_fixed_bytes(m, (uint32_t)o->embedding_bits) +
                        (plan_wants_gradients(o) ? table_round_bytes(table->n, table->m, (uint32_t)o->threads) : 0);
    peak = bp_max(peak, rounding + (o->mapped ? rows : 0));
    if (o->equal_loss) peak = bp_max(peak, allocate_bytes(o, m) + group);
    if (plan_wants_gradients(o))
        peak = bp_max(peak, output_weights_bytes(m, o->ctx, n_tokens, &wanted, (uint32_t)o->threads) +
                                (o->mapped ? rows : 0));
    return base_bytes(o) + sizeof(int32_t) * n_tokens + (o->mapped ? 0 : m->file->size) + peak;
}

/* Operations per second that this core reaches in the products of ADMM, taken over a few hundredths of a second; 40e9 if
 * memory is short. */
static double product_speed(void) {
    const size_t n = 576;
    float *A = calloc(3 * n * n, sizeof *A);
    if (!A) return 40e9;
    double start = 0, seconds = 0;
    unsigned done = 0;
    for (; seconds < 0.03; done++) {
        admm_product()(false, false, n, n, n, 1, A, n, A + n * n, n, 0, A + 2 * n * n, n);
        if (done == 0) start = clock_seconds(); /* the first finds its scratch */
        seconds = clock_seconds() - start;
    }
    free(A);
    return 2.0 * (double)(n * n * n) * (done - 1) / seconds;
}

static double allocation_work(const compress_options *o, const model *m) {
    const bool kept = o->allocation && access(o->allocation, R_OK) == 0;
    return o->equal_loss && !kept ? allocate_work(o, m) : 0;
}

/* Of the gradients that the file of an earlier run does not have. */
static double gradients_work(const compress_options *o, const model *m, size_t n_tokens) {
    if (!plan_wants_gradients(o)) return 0;
    size_t n_seqs = n_tokens / o->ctx, training = (n_seqs - calibration_n_val(n_seqs)) * o->ctx;
    size_t wanted = o->token_weights ? training : bp_min(o->gradient_tokens, training);
    size_t kept = bp_min(output_weights_kept_tokens(o->gradients_file), wanted);
    double share = 1 - (double)kept / (double)bp_max(1, wanted);
    return share * output_weights_work(m, o->token_weights ? n_tokens : wanted);
}

compress_plan plan_make(const compress_options *o, const model *m, size_t n_tokens) {
    const model_config *c = &m->config;
    compress_options chosen = *o;
    compress_plan plan = {.block_work = c->n_layers * plan_block_work(o, m, n_tokens)};
    uint64_t factor_bytes = o->equal_loss ? plan_nominal_bytes(o, m) : plan_factor_bytes(o, m);
    for (uint32_t i = 0; i < c->n_layers * PARTS; i++) {
        stack w = stack_of(&m->layers[i / PARTS], i % PARTS, o->fused);
        plan.block_work += plan_layer_work(o, i, w.n, w.m);
    }
    plan.block_work += c->n_layers * plan_fit_work(o, m);
    plan.work = plan.block_work + allocation_work(o, m) + gradients_work(o, m, n_tokens);
    plan.bits_per_weight = 8 * (double)factor_bytes / (double)m->linear_weights;
    plan.file_bytes = factor_bytes + container_fixed_bytes(m, (uint32_t)o->embedding_bits);
    plan.memory = peak_bytes(&chosen, m, n_tokens);
    if (o->max_memory && plan.memory > o->max_memory * 1000000) chosen.streamed = true;
    if (chosen.streamed) {
        plan.memory = peak_bytes(&chosen, m, n_tokens);
        plan.scratch = chain_activation_bytes(m, n_tokens / o->ctx, o->ctx, plan_fits_blocks(o));
    }
    plan.seconds = plan.work / (share_of_product() * product_speed() * (double)o->threads);
    return plan;
}

void plan_recipe(const compress_options *o, char *out, size_t capacity) {
    char stages[160], lambda[32] = "\"validation\"";
    size_t used = 0;
    for (uint32_t s = o->kept; s < o->n_stages; s++)
        used +=
            (size_t)snprintf(stages + used, sizeof stages - used, "%s%.6g", s > o->kept ? ", " : "", o->stage_bits[s]);
    if (o->lambda >= 0) snprintf(lambda, sizeof lambda, "%.6g", o->lambda);
    snprintf(
        out, capacity,
        "{%s%s%s\"stages\": [%s], \"scale_bits\": %llu, \"fused\": %s, \"allocate\": \"%s\", \"method\": \"%s\", "
        "\"iterations\": %llu, "
        "\"calib_tokens\": "
        "%llu, \"ctx\": %llu, \"gradient_tokens\": %llu, \"output_correlations\": %s, \"token_weights\": %s, "
        "\"block_steps\": %llu, "
        "\"block_rate\": %.6g, "
        "\"embedding_bits\": %llu, "
        "\"damping\": %.6g, \"lambda\": %s, \"clip\": %.6g, \"seed\": %llu}",
        o->base_recipe ? "\"extends\": " : "", o->base_recipe ? o->base_recipe : "", o->base_recipe ? ", " : "", stages,
        (unsigned long long)o->scale_bits, o->fused ? "true" : "false", o->equal_loss ? "equal-loss" : "uniform",
        o->diagonal ? "diagonal" : "full", (unsigned long long)o->iterations, (unsigned long long)o->calib_tokens,
        (unsigned long long)o->ctx, (unsigned long long)o->gradient_tokens, o->correlated ? "true" : "false",
        o->token_weights ? "true" : "false", (unsigned long long)(plan_fits_blocks(o) ? o->block_steps : 0),
        o->block_rate, (unsigned long long)o->embedding_bits, o->damping, lambda, o->clip, (unsigned long long)o->seed);
}
