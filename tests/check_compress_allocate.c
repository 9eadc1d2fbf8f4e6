/* Bits by layer: the spread of planted losses, and the measurement inside bitpair compress. */
#include "compress_run.h"

#include <math.h>

#include "compress/allocate.h"
#include "compress/factors.h"
#include "compress/score.h"
#include "io/source.h"
#include "linalg/linalg.h"
#include "random.h"
#include "load.h"
#include "offline.h"
#include "tune/output_weights.h"

enum { MOST_LAYERS = 64 };

/* ---- the spread ------------------------------------------------------------------------------------------------ */

static uint64_t bytes_of(const compress_options *o, const model *m, const double *factor) {
    compress_options with = *o;
    with.factors = factor;
    return plan_factor_bytes(&with, m);
}

/* Bytes grow with the middle in equal steps of 32; nominal ones take the part of a step that the nominal bits ask for. */
static void check_nominal(const model *m) {
    compress_options o = {.n_stages = 2, .stage_bits = {1.9, 0.7}, .scale_bits = 8};
    double expected = 0;
    for (uint32_t i = 0; i < m->config.n_layers * PARTS; i++) {
        const linear *w = part_linear(&m->layers[i / PARTS], i % PARTS);
        double first = (double)factors_stage_bytes(w->n, w->m, (stage_shape){32, 1, true});
        double step = (double)factors_stage_bytes(w->n, w->m, (stage_shape){64, 1, true}) - first;
        for (uint32_t s = 0; s < o.n_stages; s++) {
            double k = o.stage_bits[s] * w->n * w->m / (w->n + w->m);
            expected += first + (fmax(k, 32) - 32) / 32 * step;
        }
    }
    uint64_t nominal = plan_nominal_bytes(&o, m);
    CHECK(fabs((double)nominal - expected) < 2, "%llu nominal bytes, not %.1f", (unsigned long long)nominal, expected);
}

/* Where no bound is met, all layers have the same marginal loss; a layer that the model does not need gets half, one that
 * it needs most the double; and the file is as large as the nominal bits ask for, or hardly smaller. */
static void check_spread(const model *m) {
    compress_options o = {.n_stages = 2, .stage_bits = {2, 2}, .embedding_bits = 6, .ctx = 64, .threads = 1};
    layer_loss losses[MOST_LAYERS] = {0};
    double factor[MOST_LAYERS], rate = 1.5 * 4, level = 0;
    size_t n = (size_t)m->config.n_layers * PARTS;
    CHECK(n <= MOST_LAYERS && n > PARTS, "%zu layers", n);
    for (size_t i = 0; i < n; i++) {
        const linear *w = part_linear(&m->layers[i / PARTS], i % PARTS);
        losses[i].kl = 1e-6 * w->n * w->m * exp2(0.4 * (double)(i % 5));
    }
    losses[0].kl = 0;
    losses[1].kl *= 1e4;
    allocate_spread(factor, &o, m, losses);
    CHECK(factor[0] == 0.5 && factor[1] == 2, "bounds: %g, %g", factor[0], factor[1]);
    for (size_t i = 2; i < n; i++) {
        const linear *w = part_linear(&m->layers[i / PARTS], i % PARTS);
        double marginal = losses[i].kl / ((double)w->n * w->m) * exp2(-rate * (factor[i] - 1));
        CHECK(factor[i] > 0.5 && factor[i] < 2, "layer %zu: %g", i, factor[i]);
        if (i > 2) CHECK(fabs(marginal / level - 1) < 1e-6, "layer %zu: %g, the one before %g", i, marginal, level);
        level = marginal;
    }
    uint64_t nominal = plan_nominal_bytes(&o, m), spread = bytes_of(&o, m, factor);
    CHECK(spread <= nominal && (double)spread > 0.95 * (double)nominal, "%llu bytes, nominal %llu",
          (unsigned long long)spread, (unsigned long long)nominal);
}

/* ---- divergence ------------------------------------------------------------------------------------------------ */

/* out [vocab] = log softmax(head norm(stream)), in double precision */
static void log_probabilities(double *out, const model *m, const float *stream) {
    size_t d = m->config.d_model;
    double square = 0, sum = 0;
    float *row = malloc(d * sizeof *row);
    for (size_t i = 0; i < d; i++) square += (double)stream[i] * stream[i];
    for (size_t v = 0; v < m->config.vocab; v++) {
        double logit = 0;
        linear_row(&m->head, v, row);
        for (size_t i = 0; i < d; i++) logit += (double)row[i] * stream[i] * m->out_norm[i];
        out[v] = logit / sqrt(square / (double)d + (double)m->config.norm_eps);
        sum += exp(out[v]);
    }
    for (size_t v = 0; v < m->config.vocab; v++) out[v] -= log(sum);
    free(row);
}

static void check_divergence(const model *m) {
    enum { ROWS = 3, GROUPS = 2 };
    size_t d = m->config.d_model, vocab = m->config.vocab;
    float *dense = malloc((1 + GROUPS) * ROWS * d * sizeof *dense), *student = dense + ROWS * d;
    double *p = malloc(2 * vocab * sizeof *p), *q = p + vocab, kl[GROUPS];
    bp_err e = {0};
    rng r = rng_named(3, "divergence");
    rng_fill_normal(&r, dense, (1 + GROUPS) * ROWS * d);
    memcpy(student, dense, ROWS * d * sizeof *dense);
    CHECK(score_kl(kl, NULL, m, &m->head, dense, student, GROUPS, ROWS, &e), "%s", e.text);
    double wanted = 0;
    for (size_t t = 0; t < ROWS; t++) {
        log_probabilities(p, m, dense + t * d);
        log_probabilities(q, m, student + (ROWS + t) * d);
        for (size_t v = 0; v < vocab; v++) wanted += exp(p[v]) * (p[v] - q[v]) / (double)ROWS;
    }
    CHECK(fabs(kl[0]) < 1e-6, "divergence from itself: %g", kl[0]);
    CHECK(wanted > 0.01 && fabs(kl[1] - wanted) < 1e-4 * wanted, "divergence %g, by definition %g", kl[1], wanted);
    free(dense);
    free(p);
}

/* ---- the file of a measurement --------------------------------------------------------------------------------- */

static void check_file(const model *m) {
    char path[PATH];
    layer_loss losses[MOST_LAYERS] = {0}, back[MOST_LAYERS] = {0};
    bp_err e = {0};
    size_t n = (size_t)m->config.n_layers * PARTS;
    snprintf(path, sizeof path, "%s", in_folder("losses.json"));
    for (size_t i = 0; i < n; i++) losses[i] = (layer_loss){1e-3 / (double)(i + 3), {0.1, 0.01 * (double)i}};
    CHECK(allocate_write(path, "this model", m, losses, 2, false, &e), "%s", e.text);
    CHECK(allocate_read(back, path, "this model", m, false, &e), "%s", e.text);
    CHECK(memcmp(losses, back, sizeof losses) == 0, "a measurement is read back changed");
    CHECK(!allocate_read(back, path, "that model", m, false, &e) && strstr(e.text, "another model"), "%s", e.text);
    FILE *f = fopen(path, "w");
    fputs("{\"source\": \"this model\", \"layers\": [{\"name\": \"blk.7.attn_q\", \"kl\": 1}]}", f);
    fclose(f);
    CHECK(!allocate_read(back, path, "this model", m, false, &e) && strstr(e.text, "blk.0.attn_q"), "%s", e.text);
}

/* ---- the command ----------------------------------------------------------------------------------------------- */

static long size_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? (long)st.st_size : -1;
}

/* The middle dimensions of one layer in a file; the number of them. */
static size_t middles(const char *path, const char *layer, uint32_t *k) {
    file_view f;
    bp_err e = {0};
    char key[80];
    size_t n = 0;
    CHECK(file_map(&f, path, &e), "%s", e.text);
    model *m = model_load(f.bytes, f.size, &e);
    CHECK(m, "%s", e.text);
    snprintf(key, sizeof key, "blk.%s", layer);
    for (uint32_t i = 0; m && i < m->config.n_layers * PARTS; i++) {
        char name[64];
        stack_name(name, sizeof name, i / PARTS, i % PARTS, 1);
        const linear *w = part_linear(&m->layers[i / PARTS], i % PARTS);
        for (uint32_t s = 0; strcmp(name, key) == 0 && s < w->n_stages; s++) k[n++] = w->stages[s].k;
    }
    model_unload(m);
    file_unmap(&f);
    return n;
}

/* Gradients that another run left: the same bytes, nothing measured, also for other stages; not those of other text. */
static void check_gradients_file(const char *dense, const char *calib) {
    char own[PATH], first[PATH], again[PATH], other[PATH], kept[PATH];
    struct stat before, after;
    snprintf(own, sizeof own, "%s", in_folder("own.gguf"));
    snprintf(first, sizeof first, "%s", in_folder("first.gguf"));
    snprintf(again, sizeof again, "%s", in_folder("again.gguf"));
    snprintf(other, sizeof other, "%s", in_folder("other.gguf"));
    snprintf(kept, sizeof kept, "%s", in_folder("kept.gradients"));
    CHECK(run(dense, own, calib, OPTIONS("--threads", "2")) == 0, "compress failed");
    CHECK(run(dense, first, calib, OPTIONS("--gradients-file", kept)) == 0, "compress that keeps gradients failed");
    CHECK(same_files(own, first), "gradients that are kept give other bytes");
    CHECK(stat(kept, &before) == 0, "--gradients-file keeps nothing");
    CHECK(output_weights_kept_tokens(kept) > 0 && output_weights_kept_tokens(own) == 0 &&
              output_weights_kept_tokens(other) == 0 && output_weights_kept_tokens(NULL) == 0,
          "%zu tokens kept", output_weights_kept_tokens(kept));
    CHECK(run(dense, again, calib, OPTIONS("--gradients-file", kept, "--force")) == 0, "reuse failed");
    CHECK(same_files(own, again), "kept gradients give other bytes");
    CHECK(run(dense, other, calib, OPTIONS("--gradients-file", kept, "--force", "--calib-tokens", "1024")) != 0,
          "gradients of other text are taken");
    CHECK(run(dense, other, calib, OPTIONS("--gradients-file", kept, "--force", "--bits", "1")) == 0, "reuse failed");
    CHECK(stat(kept, &after) == 0 && after.st_ino == before.st_ino && after.st_size == before.st_size,
          "kept gradients were written again");
    CHECK(run(dense, other, calib, OPTIONS("--gradients-file", kept, "--force", "--gradients", "none")) == 2,
          "--gradients-file without gradients is no error");
}

static void check_command(const char *dense, const char *calib) {
    char even[PATH], one[PATH], two[PATH], again[PATH], kept[PATH];
    snprintf(even, sizeof even, "%s", in_folder("even.gguf"));
    snprintf(one, sizeof one, "%s", in_folder("one.gguf"));
    snprintf(two, sizeof two, "%s", in_folder("two.gguf"));
    snprintf(again, sizeof again, "%s", in_folder("again.gguf"));
    snprintf(kept, sizeof kept, "%s", in_folder("kept.json"));
    CHECK(run(dense, even, calib, OPTIONS("--seed", "0", "--separate")) == 0, "uniform failed");
    CHECK(run(dense, one, calib,
              OPTIONS("--separate", "--allocate", "equal-loss", "--threads", "1", "--allocation", kept)) == 0,
          "equal-loss failed");
    CHECK(run(dense, two, calib,
              OPTIONS("--separate", "--allocate", "equal-loss", "--threads", "2", "--max-memory", "142")) == 0,
          "equal-loss with 2 threads failed");
    CHECK(size_of(kept) > 0, "--allocation keeps nothing");
    CHECK(run(dense, again, calib, OPTIONS("--separate", "--allocate", "equal-loss", "--allocation", kept)) == 0,
          "reuse failed");
    CHECK(same_files(one, two), "2 threads give other bytes than 1");
    CHECK(same_files(one, again), "a kept measurement gives other bytes");
    const long padding = 32 * 5 * 2 * 7 * 2; /* of tensors, which allocation does not count: half of 64 bytes each */
    CHECK(size_of(one) <= size_of(even) + padding && (double)size_of(one) > 0.95 * (double)size_of(even),
          "%ld bytes, uniform %ld", size_of(one), size_of(even));
    uint32_t k[2][MODEL_STAGES] = {{0}};
    size_t stages = middles(one, "0.attn_v", k[0]), different = 0;
    CHECK(stages == 2 && middles(even, "0.attn_v", k[1]) == 2, "%zu stages", stages);
    for (size_t s = 0; s < 2; s++) different += k[0][s] > k[1][s];
    CHECK(different == 2, "the value projection of the first block keeps %u and %u of %u and %u", (unsigned)k[0][0],
          (unsigned)k[0][1], (unsigned)k[1][0], (unsigned)k[1][1]);
}

/* Sequences of an odd number of tokens, and of these an odd number: each group of probes is compared at the positions of
 * the dense one, where errors of layers differ by what the texts are, not by orders. */
static void check_odd(const char *dense, const char *calib) {
    static const char *const LENGTHS[] = {"128", "129"};
    layer_loss losses[2][MOST_LAYERS] = {{{0}}};
    char kept[PATH], out[PATH];
    offline_model in = {0};
    bp_err e = {0};
    snprintf(out, sizeof out, "%s", in_folder("odd.gguf"));
    CHECK(offline_open(&in, dense, &e), "%s", e.text);
    const model *m = in.model;
    for (size_t i = 0; m && i < 2; i++) {
        snprintf(kept, sizeof kept, "%s", in_folder(i ? "odd.json" : "even.json"));
        CHECK(run(dense, out, calib,
                  OPTIONS("--separate", "--allocate", "equal-loss", "--allocation", kept, "--ctx", LENGTHS[i],
                          "--calib-tokens", "20640", "--force")) == 0,
              "equal-loss failed");
        CHECK(allocate_read(losses[i], kept, in.description, m, false, &e), "%s", e.text);
    }
    for (size_t i = 0; m && i < m->config.n_layers * PARTS; i++)
        CHECK(losses[1][i].kl < 2 * losses[0][i].kl + 1e-3, "layer %zu: %g, with 128 tokens %g", i, losses[1][i].kl,
              losses[0][i].kl);
    offline_close(&in);
}

int main(void) {
    char path[1024], calib[1024];
    source s;
    bp_err e = {0};
    snprintf(path, sizeof path, "%s", check_data("models/tinystories-656k"));
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    linalg_init();
    CHECK(mkdtemp(own_folder), "no temporary folder");
    if (!source_open(&s, path, &e)) {
        CHECK(false, "%s: set BITPAIR_SHARED_DATA", e.text);
    } else {
        model *m = model_load(s.bytes, s.size, &e);
        CHECK(m, "%s", e.text);
        if (m) {
            check_nominal(m);
            check_spread(m);
        }
        if (m) check_divergence(m);
        if (m) check_file(m);
        model_unload(m);
        source_close(&s);
        check_command(path, calib);
        check_odd(path, calib);
        check_gradients_file(path, calib);
    }
    remove_all();
    return check_end();
}
