/* Fused stacks: a file in which q, k, v and gate, up of each block are one stack computes bit for bit what a file computes
 * that stores the same stack's rows layer by layer, however a text is cut and on any number of threads; and the tools read
 * back what was written. */
#include "check.h"

#include <unistd.h>

#include "compress/container.h"
#include "engine.h"
#include "io/source.h"
#include "random.h"
#include "tune/student.h"

enum { N = 40, VOCAB = 2048, CONTEXT = 64, STAGES = 2, MIDDLE = 64 };

/* ---- two files of one model ------------------------------------------------------------------------------------- */

static void random_halves(rng *r, uint8_t *out, size_t n, float size) {
    for (size_t i = 0; i < n; i++) {
        const float x = size * (0.5f + (float)rng_uniform(r));
        pack_scales(out + 2 * i, QUANT_F16, &x, 1);
    }
}

static void random_signs(rng *r, uint8_t *out, size_t rows, size_t columns) {
    float *S = malloc(rows * columns * sizeof *S);
    rng_fill_normal(r, S, rows * columns);
    pack_signs(out, S, rows, columns);
    free(S);
}

static void random_factors(rng *r, factors *f, size_t n, size_t m) {
    const stage_shape shapes[STAGES] = {{MIDDLE, 1, false}, {MIDDLE + 32, 1, false}};
    bp_err e = {0};
    CHECK(factors_open(f, n, m, shapes, STAGES, &e), "%s", e.text);
    for (uint32_t i = 0; i < STAGES; i++) {
        factor_stage *s = &f->stages[i];
        random_halves(r, s->a, n, 0.1f);
        random_halves(r, s->c, s->shape.k, 0.1f);
        random_halves(r, s->b, m, 0.5f);
        random_signs(r, s->A, n, s->shape.k);
        random_signs(r, s->B, s->shape.k, m);
    }
}

/* out <- rows [first, first + n) of a stack */
static void take_rows(factors *out, const factors *f, size_t first, size_t n) {
    stage_shape shapes[STAGES];
    bp_err e = {0};
    for (uint32_t i = 0; i < STAGES; i++) shapes[i] = f->stages[i].shape;
    CHECK(factors_open(out, n, f->m, shapes, STAGES, &e), "%s", e.text);
    for (uint32_t i = 0; i < STAGES; i++) {
        const factor_stage *from = &f->stages[i];
        factor_stage *to = &out->stages[i];
        const size_t k = shapes[i].k;
        float *A = malloc(f->n * k * sizeof *A);
        pack_unpack_signs(A, from->A, f->n, k);
        pack_signs(to->A, A + first * k, n, k);
        free(A);
        memcpy(to->a, from->a + 2 * first, 2 * n);
        memcpy(to->c, from->c, 2 * k);
        memcpy(to->b, from->b, 2 * f->m);
        memcpy(to->B, from->B, pack_bytes(k, f->m, 1));
    }
}

typedef struct {
    char paths[2][48]; /* layer by layer, fused */
    factors *layers[2];
    size_t n;
    source files[2];
} pair;

static bool write_one(pair *p, int which, const model *m) {
    container_summary summary;
    bp_err e = {0};
    const container c = {.model = m, .layers = p->layers[which], .n_tiers = STAGES, .source = "test", .recipe = "{}"};
    snprintf(p->paths[which], sizeof p->paths[which], "/tmp/bitpair-fused-%d-XXXXXX", which);
    int fd = mkstemp(p->paths[which]);
    if (fd >= 0) close(fd);
    bool ok = container_write(&c, p->paths[which], true, &summary, &e) &&
              source_open(&p->files[which], p->paths[which], &e) &&
              bp_verify(p->files[which].bytes, (size_t)p->files[which].size, &e);
    CHECK(ok, "%s", e.text);
    return ok;
}

/* The small model with random stacks, and with biases of q and v where `biased`. */
static bool pair_open(pair *p, const source *src, bool biased) {
    bp_err e = {0};
    rng r = rng_named(1, biased ? "biased" : "fused");
    model *m = model_load(src->bytes, src->size, &e);
    bool ok = m != NULL;
    CHECK(ok, "%s", e.text);
    if (!ok) return false;
    float *bias = malloc(m->layers[0].q.n * sizeof *bias);
    rng_fill_normal(&r, bias, m->layers[0].q.n);
    p->n = (size_t)m->config.n_layers * PARTS;
    for (int i = 0; i < 2; i++) p->layers[i] = calloc(p->n, sizeof *p->layers[i]);
    for (size_t i = 0; i < p->n; i++) {
        model_layer *l = &m->layers[i / PARTS];
        stack s = stack_of(l, i % PARTS, true);
        if (s.n) random_factors(&r, &p->layers[1][i], s.n, s.m);
        part first = stack_first(i % PARTS, true);
        take_rows(&p->layers[0][i], &p->layers[1][i / PARTS * PARTS + first], stack_row(l, i % PARTS, true),
                  part_linear(l, i % PARTS)->n);
        if (biased) l->q.bias = l->v.bias = bias;
    }
    for (int i = 0; ok && i < 2; i++) ok = write_one(p, i, m);
    free(bias);
    model_unload(m);
    return ok;
}

static void pair_close(pair *p) {
    for (int i = 0; i < 2; i++) {
        for (size_t j = 0; j < p->n; j++) factors_close(&p->layers[i][j]);
        free(p->layers[i]);
        source_close(&p->files[i]);
        if (p->paths[i][0]) unlink(p->paths[i]);
    }
}

/* ---- the engine ------------------------------------------------------------------------------------------------- */

static void run(const source *src, uint32_t threads, size_t step, float *logits, double *bits) {
    bp_err e = {0};
    bp_model_info info;
    int32_t ids[N];
    uint32_t x = 5;
    for (int i = 0; i < N; i++) ids[i] = (int32_t)(((x = x * 1664525u + 1013904223u) >> 8) % VOCAB);
    bp_engine *engine = bp_engine_open(&(bp_engine_options){.threads = threads}, &e);
    bp_model *m = engine ? bp_model_open(engine, src->bytes, (size_t)src->size, &e) : NULL;
    bp_session *s = m ? bp_session_open(m, &(bp_session_options){CONTEXT, 0, 0}, &e) : NULL;
    CHECK(s, "%s", e.text);
    for (size_t at = 0; s && at < N; at += step)
        CHECK(bp_session_feed(s, ids + at, bp_min(step, N - at), &e), "%s", e.text);
    if (s) {
        memcpy(logits, bp_session_logits(s), VOCAB * sizeof *logits);
        bp_model_describe(m, &info);
        *bits = info.bits_per_weight;
    }
    bp_session_close(s);
    bp_model_close(m);
    bp_engine_close(engine);
}

static void check_logits(const pair *p) {
    static float expected[VOCAB], found[VOCAB];
    double apart = 0, fused = 0;
    run(&p->files[0], 1, N, expected, &apart);
    float most = 0;
    for (size_t i = 0; i < VOCAB; i++) most = expected[i] > most ? expected[i] : most;
    CHECK(most > 0, "no logits");
    for (uint32_t threads = 1; threads <= 3; threads++)
        for (size_t step = 1; step <= N; step = step == 1 ? 7 : step == 7 ? N : N + 1) {
            run(&p->files[1], threads, step, found, &fused);
            CHECK(memcmp(expected, found, sizeof found) == 0,
                  "%u threads, steps of %zu: other logits than layer by layer", (unsigned)threads, step);
        }
    CHECK(fused < apart, "%f bits fused, %f layer by layer", fused, apart);
}

static void check_names(const pair *p) {
    static const char *const names[] = {"attn_qkv", "attn_output", "ffn_gate_up", "ffn_down"};
    bp_err e = {0};
    bp_layer layer;
    bp_engine *engine = bp_engine_open(NULL, &e);
    bp_model *m = bp_model_open(engine, p->files[1].bytes, (size_t)p->files[1].size, &e);
    CHECK(m && bp_model_layers(m) == 1 + 4 * p->n / PARTS, "layers of a fused model");
    for (uint32_t i = 1; m && bp_model_layer(m, i, &layer); i++) {
        char name[32];
        const factors *f =
            &p->layers[1][(i - 1) / 4 * PARTS + (const part[]){PART_Q, PART_O, PART_GATE, PART_DOWN}[(i - 1) % 4]];
        snprintf(name, sizeof name, "blk.%u.%s", (unsigned)(i - 1) / 4, names[(i - 1) % 4]);
        CHECK(strcmp(layer.name, name) == 0 && layer.rows == f->n && layer.columns == f->m && layer.loaded == STAGES,
              "layer %u is %s, %u x %u", (unsigned)i, layer.name, (unsigned)layer.rows, (unsigned)layer.columns);
    }
    bp_model_close(m);
    bp_engine_close(engine);
}

/* A file that fuses q, k, v alone: gate and up are stacks of their own. */
static void check_mixed(const pair *p) {
    bp_err e = {0};
    model *m = model_load(p->files[1].bytes, p->files[1].size, &e);
    CHECK(m, "%s", e.text);
    if (!m) return;
    model_layer *l = &m->layers[0];
    for (part q = 0; q < PARTS; q++)
        CHECK(stack_fused(l, q) == (q != PART_O && q != PART_DOWN), "%s fused: %d", part_name(q), stack_fused(l, q));
    l->gate.split[0] = 0;
    CHECK(stack_fused(l, PART_V) && !stack_fused(l, PART_GATE) && !stack_fused(l, PART_UP), "q, k, v alone");
    CHECK(stack_first(PART_UP, stack_fused(l, PART_UP)) == PART_UP &&
              stack_complete(PART_GATE, stack_fused(l, PART_GATE)),
          "gate and up are stacks of their own");
    model_unload(m);
}

/* ---- the tools -------------------------------------------------------------------------------------------------- */

/* The stack as tuning reads it is what was written, and its dense rows are those of the single layers. */
static void check_student(const pair *p) {
    bp_err e = {0};
    model *models[2] = {model_load(p->files[0].bytes, p->files[0].size, &e),
                        model_load(p->files[1].bytes, p->files[1].size, &e)};
    student students[2] = {{0}};
    for (int i = 0; i < 2; i++)
        CHECK(models[i] && student_open(&students[i], models[i], false, false, &e), "%s", e.text);
    float *scratch = malloc(student_scratch(models[1]) * sizeof *scratch);
    for (size_t i = 0; i < p->n; i++) {
        const student_layer *one = &students[0].layers[i], *fused = &students[1].layers[i];
        part first = stack_first(i % PARTS, true);
        const student_layer *whole = &students[1].layers[i / PARTS * PARTS + first];
        factors back = {0};
        CHECK(student_factors(fused, &back, &e), "%s", e.text);
        CHECK(back.n == p->layers[1][i].n && back.n_bytes == p->layers[1][i].n_bytes &&
                  (!back.n_bytes || memcmp(back.memory, p->layers[1][i].memory, back.n_bytes) == 0),
              "stack %zu is not what was written", i);
        factors_close(&back);
        float *W = malloc((size_t)one->n * one->m * sizeof *W), *V = malloc((size_t)whole->n * whole->m * sizeof *V);
        student_dense(NULL, PRODUCT_F32, one, STAGES, W, scratch);
        student_dense(NULL, PRODUCT_F32, whole, STAGES, V, scratch);
        const float *rows = V + stack_row(&models[0]->layers[0], i % PARTS, true) * one->m;
        double wrong = 0;
        for (size_t j = 0; j < (size_t)one->n * one->m; j++)
            wrong += ((double)W[j] - (double)rows[j]) * ((double)W[j] - (double)rows[j]);
        CHECK(wrong < 1e-8, "stack %zu: dense rows differ by %g", i, wrong);
        free(V);
        free(W);
    }
    free(scratch);
    for (int i = 0; i < 2; i++) {
        student_close(&students[i]);
        model_unload(models[i]);
    }
}

int main(void) {
    source small;
    bp_err e = {0};
    if (!source_open(&small, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e)) {
        CHECK(false, "the model of this test is missing: %s", e.text);
        return check_end();
    }
    for (int biased = 0; biased < 2; biased++) {
        pair p = {0};
        if (pair_open(&p, &small, biased)) {
            check_logits(&p);
            check_names(&p);
            if (!biased) check_student(&p);
            check_mixed(&p);
        }
        pair_close(&p);
    }
    source_close(&small);
    return check_end();
}
