/* The chains of the compressor: the block against its definition in double precision, moments against plain sums,
 * targets that must be exact. */
#include "check.h"

#include <unistd.h>

#include "compress/calib.h"
#include "compress/target.h"
#include "io/source.h"
#include "linalg/gemm_bf16.h"
#include "linalg/linalg.h"
#include "random.h"
#include "tiny_model.h"

static char folder[] = "/tmp/bitpair-check-chain-XXXXXX";

static void remove_files(void) {
    static const char *const names[] = {"config.json", "tokenizer.json", "model.safetensors"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char path[256];
        snprintf(path, sizeof path, "%s/%s", folder, names[i]);
        unlink(path);
    }
}

/* ---- the block ------------------------------------------------------------------------------------------------- */

/* Both sides through all blocks with the dense weights. */
static void walk(chain *c, const model *m) {
    block_weights b;
    bp_err e;
    CHECK(block_open(&b, &m->layers[0], &e), "%s", e.text);
    for (chain_side side = 0; side < CHAINS; side++) chain_embed(c, side, &m->embedding);
    for (uint32_t i = 0; i < m->config.n_layers; i++) {
        const model_layer *l = &m->layers[i];
        block_dequantize(c->w, &b, l);
        chain_normalise(c, l->attn_norm);
        for (chain_side side = 0; side < CHAINS; side++) {
            chain_attend(c, side, l, &b);
            chain_add(c, side, b.W[PART_O], l->o.m);
        }
        chain_normalise(c, l->ffn_norm);
        for (chain_side side = 0; side < CHAINS; side++) {
            chain_feed(c, side, &b);
            chain_add(c, side, b.W[PART_DOWN], l->down.m);
        }
    }
    block_close(&b);
}

static double definition_nll(const tiny_model *t, const int32_t *ids, size_t n) {
    double *logits = malloc(n * t->vocab * sizeof *logits), total = 0;
    tiny_forward(t, ids, (uint32_t)n, logits);
    for (size_t i = 0; i + 1 < n; i++) {
        const double *row = logits + i * t->vocab;
        double top = row[0], sum = 0;
        for (size_t j = 1; j < t->vocab; j++) top = fmax(top, row[j]);
        for (size_t j = 0; j < t->vocab; j++) sum += exp(row[j] - top);
        total += log(sum) + top - row[ids[i + 1]];
    }
    free(logits);
    return total / (double)(n - 1);
}

static void check_block(const char *class_name, uint32_t head, bool tied, bool scaled) {
    enum { CTX = 64, SEQS = 3 };
    tiny_model t = {.class_name = class_name,
                    .layers = 2,
                    .d = 64,
                    .ff = 96,
                    .heads = 4,
                    .kv = 2,
                    .hd = head,
                    .vocab = 64,
                    .dtype = "F32",
                    .tied = tied,
                    .scaled = scaled,
                    .biases = strcmp(class_name, "Qwen2ForCausalLM") == 0,
                    .qk_norms = strcmp(class_name, "Qwen3ForCausalLM") == 0};
    int32_t ids[CTX * SEQS];
    source s = {0};
    bp_err e = {0};
    chain c = {0};
    for (uint32_t i = 0; i < CTX * SEQS; i++) ids[i] = (int32_t)((i * i * 7 + i * 3) % t.vocab);
    tiny_make(&t, 7);
    tiny_write(&t, folder, false);
    CHECK(source_open(&s, folder, &e), "%s", e.text);
    model *m = s.bytes ? model_load(s.bytes, s.size, &e) : NULL;
    workers *w = workers_open(2, &e);
    CHECK(m && chain_open(&c, w, m, ids, SEQS, 1, CTX, false, NULL, &e), "%s: %s", class_name, e.text);
    if (m) {
        walk(&c, m);
        double wanted = definition_nll(&t, ids + CTX * (SEQS - 1), CTX), dense = chain_nll(&c, CHAIN_DENSE, &m->head);
        CHECK(fabs(dense - wanted) < 2e-5 * wanted, "%s: nll %.7f, by definition %.7f", class_name, dense, wanted);
        CHECK(memcmp(c.stream[CHAIN_DENSE], c.stream[CHAIN_STUDENT], c.n_tokens * t.d * sizeof(float)) == 0,
              "the two sides differ");
    }
    chain_close(&c);
    workers_close(w);
    model_unload(m);
    source_close(&s);
    tiny_free(&t);
    remove_files();
}

/* ---- moments and targets --------------------------------------------------------------------------------------- */

enum { TOKENS = 1600, TRAIN = 1400, WIDTH = 48, OUT = 32 };

/* A chain made by hand: x_q = mix x_d, r_q = r_d - wrong. */
typedef struct {
    chain c;
    model m;
    float *memory;
} made;

static void make_chain(made *k, bool residual) {
    float *p = k->memory = calloc(2 * TOKENS * (WIDTH + OUT) + WIDTH * WIDTH, sizeof *p),
          *mix = p + 2 * TOKENS * (WIDTH + OUT);
    rng r = rng_named(1, "chain");
    k->m = (model){0};
    k->m.config.d_model = OUT;
    k->c = (chain){.model = &k->m, .n_tokens = TOKENS, .n_train = TRAIN, .width = WIDTH};
    for (chain_side side = 0; side < CHAINS; side++) {
        k->c.x[side] = p + (size_t)side * TOKENS * WIDTH;
        k->c.stream[side] = p + 2 * TOKENS * WIDTH + (size_t)side * TOKENS * OUT;
    }
    rng_fill_normal(&r, k->c.x[0], TOKENS * WIDTH);
    rng_fill_normal(&r, k->c.stream[0], TOKENS * OUT);
    rng_fill_normal(&r, mix, WIDTH * WIDTH);
    for (size_t i = 0; i < WIDTH * WIDTH; i++) mix[i] = 0.3f * mix[i] / 7 + (i % (WIDTH + 1) == 0);
    linalg_gemm(false, true, TOKENS, WIDTH, WIDTH, 1, k->c.x[0], WIDTH, mix, WIDTH, 0, k->c.x[1], WIDTH);
    memcpy(k->c.stream[1], k->c.stream[0], TOKENS * OUT * sizeof(float));
    for (size_t t = 0; residual && t < TOKENS; t++) /* a part of the upstream error that the layer's input knows of */
        for (size_t j = 0; j < OUT; j++) k->c.stream[1][t * OUT + j] -= 0.5f * k->c.x[1][t * WIDTH + j];
}

static int ascending(const void *a, const void *b) {
    const double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* weight |x|^2 at most 4 times the median of importance |x|^2 */
static void cap(double *weight, const double *importance, const float *x, size_t width) {
    static double squares[TOKENS], sorted[TOKENS];
    for (size_t t = 0; t < TOKENS; t++) {
        squares[t] = 0;
        for (size_t j = 0; j < width; j++) squares[t] += pow((double)x[t * width + j], 2);
        sorted[t] = importance[t] * squares[t];
    }
    qsort(sorted, TOKENS, sizeof *sorted, ascending);
    for (size_t t = 0; t < TOKENS; t++) weight[t] = fmin(weight[t], 4 * sorted[TOKENS / 2] / squares[t]);
}

static void check_moments(void) {
    static float importance[TOKENS];
    static double weight[TOKENS], counted[TOKENS];
    made k;
    statistics s;
    bp_err e;
    make_chain(&k, true);
    for (size_t t = 3; t < TOKENS; t += 400)
        for (size_t j = 0; j < WIDTH; j++) k.c.x[1][t * WIDTH + j] *= 100;
    for (size_t t = 203; t < TOKENS; t += 400)
        for (size_t j = 0; j < OUT; j++) k.c.stream[0][t * OUT + j] *= 1000;
    for (size_t t = 0; t < TOKENS; t++) importance[t] = (float)(t % 3) + 0.25f;
    for (int i = 0; i < 8; i++) {
        const bool clipped = i & 1, weighed = i >> 1 & 1, residual = i >> 2;
        CHECK(
            statistics_take(&s, &k.c, CHAIN_STUDENT, WIDTH, residual, clipped ? 4 : 0, weighed ? importance : NULL, &e),
            "%s", e.text);
        double h = 0, c = 0, r = 0, total = 0, worst = 0;
        for (size_t t = 0; t < TOKENS; t++) weight[t] = counted[t] = weighed ? (double)importance[t] : 1;
        if (clipped) cap(weight, counted, k.c.x[1], WIDTH);
        if (clipped && residual) cap(weight, counted, k.c.stream[0], OUT);
        for (size_t t = 0; t < TRAIN; t++) {
            const float *q = k.c.x[1] + t * WIDTH, *d = k.c.x[0] + t * WIDTH;
            h += weight[t] * (double)q[3] * q[40];
            c += weight[t] * (double)d[3] * q[40];
            r += weight[t] * ((double)k.c.stream[0][t * OUT + 3] - (double)k.c.stream[1][t * OUT + 3]) * q[40];
            total += weight[t];
        }
        /* of values that are rounded to bfloat16, the outliers count most */
        const double tolerance = gemm_bf16_available() ? 1e-3 * (1 + (double)s.train.H[3 * WIDTH + 3]) : 1e-3;
        worst = fmax(fabs((double)s.train.H[3 * WIDTH + 40] - h / total),
                     fabs((double)s.train.H[40 * WIDTH + 3] - h / total));
        worst = fmax(worst, fabs((double)s.train.C[3 * WIDTH + 40] - c / total));
        if (residual) worst = fmax(worst, fabs((double)s.train.R[3 * WIDTH + 40] - r / total));
        CHECK(worst < tolerance, "moments differ by %g%s%s", worst, clipped ? " (clipped)" : "",
              residual ? " (with streams)" : "");
        statistics_close(&s);
    }
    free(k.memory);
}

/* The student's input is an invertible map of the dense one, so the best layer is exact; with the residual terms, W*
 * also carries the repair. */
static void check_targets(void) {
    static float W[OUT * WIDTH], best[OUT * WIDTH];
    rng r = rng_named(2, "target");
    rng_fill_normal(&r, W, OUT * WIDTH);
    for (int residual = 0; residual < 2; residual++) {
        made k;
        statistics s;
        metric t;
        validation v;
        target_choice choice;
        bp_err e;
        make_chain(&k, residual);
        CHECK(statistics_take(&s, &k.c, CHAIN_STUDENT, WIDTH, residual, 0, NULL, &e) &&
                  metric_open(&t, s.train.H, WIDTH, true, &e) && validation_open(&v, NULL, W, OUT, &s, &e),
              "%s", e.text);
        double plain = validation_error(&v, W);
        CHECK(target_choose(NULL, best, &choice, W, OUT, &s, &t, &v, -1, &e), "%s", e.text);
        double chosen = validation_error(&v, best);
        CHECK(plain > 0.02 && chosen < 1e-4, "validation error %g, of W itself %g", chosen, plain);
        CHECK(choice.kind == (residual ? TARGET_RESIDUAL : TARGET_ASYMMETRIC), "chose %s",
              target_kind_name(choice.kind));
        CHECK(fabs(choice.error - chosen) < 1e-5, "reports %g for %g", choice.error, chosen);
        best[5] = NAN;
        CHECK(isinf(validation_error(&v, best)), "what is no number is no error of 0");
        validation_close(&v);
        metric_close(&t);
        statistics_close(&s);
        free(k.memory);
    }
}

int main(void) {
    CHECK(mkdtemp(folder), "no temporary folder");
    linalg_init();
    check_block("LlamaForCausalLM", 16, true, false);
    check_block("LlamaForCausalLM", 16, false, true);
    check_block("Qwen2ForCausalLM", 16, false, false);
    check_block("Qwen3ForCausalLM", 32, true, false);
    check_moments();
    check_targets();
    rmdir(folder);
    return check_end();
}
