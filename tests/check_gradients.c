/* Gradients: the block and the factors against finite differences, the distance to a teacher against its definition, the
 * head, and a table that learns. */
#include "command_run.h"

#include <math.h>

#include "linalg/linalg.h"
#include "random.h"
#include "tiny_model.h"
#include "tune/distill.h"
#include "tune/network.h"
#include "tune/student.h"
#include "tune/table.h"
#include "tune/vector.h"

/* ---- the block ------------------------------------------------------------------------------------------------- */

enum { CTX = 24, SEQS = 3, TOKENS = CTX * SEQS, LAYERS = 2 };

typedef struct {
    model *m;
    workers *w;
    product_kind kind;
    network net;
    block_weights W[LAYERS];
    block_trace traces[LAYERS];
    float *E, *stream, *x, *r, *logits;
    float *dW[LAYERS][PARTS];
    int32_t ids[TOKENS];
    uint32_t layer; /* of the sink */
} rig;

static void keep_gradient(void *context, part p, const float *dY, const float *X, size_t tokens) {
    rig *k = context;
    const linear *l = part_linear(&k->m->layers[k->layer], p);
    product_run(k->w, k->kind, true, false, l->n, l->m, tokens, dY, l->n, X, l->m, 0, k->dW[k->layer][p], l->m);
}

/* Mean negative log-likelihood of the next tokens; with `back` also its gradients. */
static double loss(rig *k, bool back) {
    const model_config *c = &k->m->config;
    size_t d = c->d_model, vocab = c->vocab, scored = SEQS * (CTX - 1);
    double total = 0;
    network_embed(&k->net, k->E, k->ids, k->stream, TOKENS);
    for (uint32_t i = 0; i < LAYERS; i++)
        network_forward(&k->net, &k->m->layers[i], &k->W[i], k->stream, TOKENS, &k->traces[i]);
    network_normalise(&k->net, k->x, k->r, k->stream, k->m->out_norm, TOKENS);
    product_run(k->w, PRODUCT_F32, false, true, TOKENS, vocab, d, k->x, d, k->E, d, 0, k->logits, vocab);
    for (size_t t = 0; t < TOKENS; t++) {
        float *row = k->logits + t * vocab;
        if ((t + 1) % CTX)
            total += (double)vector_cross_entropy(row, (size_t)k->ids[t + 1], 1 / (float)scored, vocab);
        else
            memset(row, 0, vocab * sizeof *row);
    }
    if (back) {
        product_run(k->w, PRODUCT_F32, false, false, TOKENS, d, vocab, k->logits, vocab, k->E, d, 0, k->x, d);
        network_normalise_backward(&k->net, k->x, k->stream, k->m->out_norm, k->r, TOKENS);
        for (uint32_t i = LAYERS; i-- > 0;) {
            gradient_sink sink = {keep_gradient, k};
            k->layer = i;
            network_backward(&k->net, &k->m->layers[i], &k->W[i], k->x, TOKENS, &k->traces[i], &sink);
        }
    }
    return total / (double)scored;
}

/* Along a random direction D of one matrix: [L(W + h D) - L(W - h D)] / 2h = <dW, D> */
static void check_matrix(rig *k, uint32_t layer, part p, const char *class_name) {
    const linear *l = part_linear(&k->m->layers[layer], p);
    size_t count = (size_t)l->n * l->m;
    float *W = k->W[layer].W[p], *kept = malloc(count * sizeof *kept), *D = malloc(count * sizeof *D);
    double size = 0, wanted = 0, sides[2];
    rng r = rng_named(layer, part_name(p));
    memcpy(kept, W, count * sizeof *W);
    for (size_t i = 0; i < count; i++) size += (double)W[i] * W[i];
    float h = 0.02f * (float)sqrt(size / (double)count);
    rng_fill_normal(&r, D, count);
    for (size_t i = 0; i < count; i++) wanted += (double)D[i] * k->dW[layer][p][i];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < count; i++) W[i] = kept[i] + (side ? -h : h) * D[i];
        sides[side] = loss(k, false);
    }
    memcpy(W, kept, count * sizeof *W);
    double found = (sides[0] - sides[1]) / (2 * (double)h), scale = 0;
    for (size_t i = 0; i < count; i++) scale += (double)k->dW[layer][p][i] * k->dW[layer][p][i];
    CHECK(fabs(found - wanted) < 0.02 * sqrt(scale) + 2e-6 / (double)h && scale > 0,
          "%s blk.%u.%s: difference %.6g, gradient %.6g of size %.3g", class_name, (unsigned)layer, part_name(p), found,
          wanted, sqrt(scale));
    free(D);
    free(kept);
}

/* Gradients by rounded products point where those by float32 do. */
static void check_rounded(rig *k, product_kind kind, const char *name, double least) {
    static float exact[LAYERS][PARTS][128 * 96];
    for (uint32_t i = 0; i < LAYERS; i++)
        for (part p = 0; p < PARTS; p++) {
            const linear *l = part_linear(&k->m->layers[i], p);
            memcpy(exact[i][p], k->dW[i][p], sizeof(float) * l->n * l->m);
        }
    k->kind = k->net.kind = kind;
    loss(k, true);
    for (uint32_t i = 0; i < LAYERS; i++)
        for (part p = 0; p < PARTS; p++) {
            const linear *l = part_linear(&k->m->layers[i], p);
            double ab = 0, aa = 0, bb = 0;
            for (size_t j = 0; j < (size_t)l->n * l->m; j++) {
                const double a = (double)exact[i][p][j], b = (double)k->dW[i][p][j];
                ab += a * b, aa += a * a, bb += b * b;
            }
            CHECK(ab > least * sqrt(aa * bb), "blk.%u.%s: cosine %.6f of gradients by %s", (unsigned)i, part_name(p),
                  ab / sqrt(aa * bb), name);
        }
    k->kind = k->net.kind = PRODUCT_F32;
}

static void open_rig(rig *k, bp_err *e) {
    const model_config *c = &k->m->config;
    k->w = workers_open(2, e);
    CHECK(network_open(&k->net, k->w, k->m, CTX, SEQS, PRODUCT_F32, e), "%s", e->text);
    for (uint32_t i = 0; i < LAYERS; i++) {
        CHECK(block_open(&k->W[i], &k->m->layers[i], e) && block_trace_open(&k->traces[i], k->m, TOKENS, e), "%s",
              e->text);
        block_dequantize(k->w, &k->W[i], &k->m->layers[i]);
        for (part p = 0; p < PARTS; p++) {
            const linear *l = part_linear(&k->m->layers[i], p);
            k->dW[i][p] = malloc((size_t)l->n * l->m * sizeof(float));
        }
    }
    k->E = malloc((size_t)c->vocab * c->d_model * sizeof(float));
    for (uint32_t i = 0; i < c->vocab; i++) linear_row(&k->m->embedding, i, k->E + i * c->d_model);
    k->stream = malloc(TOKENS * c->d_model * sizeof(float));
    k->x = malloc(TOKENS * c->d_model * sizeof(float));
    k->r = malloc(TOKENS * sizeof(float));
    k->logits = malloc((size_t)TOKENS * c->vocab * sizeof(float));
    for (uint32_t i = 0; i < TOKENS; i++) k->ids[i] = (int32_t)((i * i * 7 + i * 3) % c->vocab);
}

static void close_rig(rig *k) {
    for (uint32_t i = 0; i < LAYERS; i++) {
        for (part p = 0; p < PARTS; p++) free(k->dW[i][p]);
        block_trace_close(&k->traces[i]);
        block_close(&k->W[i]);
    }
    float *arrays[] = {k->E, k->stream, k->x, k->r, k->logits};
    for (size_t i = 0; i < sizeof arrays / sizeof *arrays; i++) free(arrays[i]);
    network_close(&k->net);
    workers_close(k->w);
}

static void check_block(const char *class_name, uint32_t head) {
    tiny_model t = {.class_name = class_name,
                    .layers = LAYERS,
                    .d = 64,
                    .ff = 96,
                    .heads = 4,
                    .kv = 2,
                    .hd = head,
                    .vocab = 64,
                    .dtype = "F32",
                    .tied = true,
                    .biases = strcmp(class_name, "Qwen2ForCausalLM") == 0,
                    .qk_norms = strcmp(class_name, "Qwen3ForCausalLM") == 0};
    source s = {0};
    bp_err e = {0};
    rig *k = calloc(1, sizeof *k);
    tiny_make(&t, 11);
    tiny_write(&t, own_folder, false);
    CHECK(source_open(&s, own_folder, &e), "%s", e.text);
    k->m = s.bytes ? model_load(s.bytes, s.size, &e) : NULL;
    CHECK(k->m, "%s", e.text);
    if (k->m) {
        double *logits = malloc((size_t)CTX * t.vocab * sizeof *logits), wanted = 0;
        open_rig(k, &e);
        double found = loss(k, true);
        for (size_t seq = 0; seq < SEQS; seq++) {
            tiny_forward(&t, k->ids + seq * CTX, CTX, logits);
            for (size_t i = 0; i + 1 < CTX; i++) {
                double sum = 0;
                for (size_t j = 0; j < t.vocab; j++) sum += exp(logits[i * t.vocab + j]);
                wanted += (log(sum) - logits[i * t.vocab + (size_t)k->ids[seq * CTX + i + 1]]) / (SEQS * (CTX - 1));
            }
        }
        CHECK(fabs(found - wanted) < 2e-5 * wanted, "%s: nll %.7f, by definition %.7f", class_name, found, wanted);
        for (uint32_t i = 0; i < LAYERS; i++)
            for (part p = 0; p < PARTS; p++) check_matrix(k, i, p, class_name);
        loss(k, true);
        check_rounded(k, PRODUCT_INT16, "16-bit integers", 0.9999);
        loss(k, true);
        check_rounded(k, PRODUCT_BF16, "bfloat16", 0.999);
        close_rig(k);
        free(logits);
    }
    model_unload(k->m);
    source_close(&s);
    tiny_free(&t);
    free(k);
}

/* ---- the factors ------------------------------------------------------------------------------------------------ */

/* <G, W(parameters)> of the first `tiers` stages */
static double against(const student_layer *l, uint32_t tiers, const float *G, float *W, float *scratch) {
    double sum = 0;
    student_dense(NULL, PRODUCT_F32, l, tiers, W, scratch);
    for (size_t i = 0; i < (size_t)l->n * l->m; i++) sum += (double)G[i] * W[i];
    return sum;
}

/* W is linear in every single parameter, so one difference is its whole gradient; Adam's first moment after one step is
 * (1 - beta1) times the gradient. */
static void check_stage(student_layer *l, student_layer *moved, uint32_t stage, uint32_t tiers, const float *G,
                        float *W, float *scratch) {
    student_stage *s = &l->stages[stage], *after = &moved->stages[stage];
    const struct {
        const char *name;
        size_t at, count;
        bool sign;
    } vectors[] = {{"a", 0, s->n, false},
                   {"c", (size_t)(s->c - s->memory) + bp_min(tiers - 1 - stage, s->n_c - 1) * s->k, s->k, false},
                   {"b", (size_t)(s->b - s->memory), s->m, false},
                   {"A", (size_t)(s->A - s->memory), (size_t)s->n * s->k, true},
                   {"B", (size_t)(s->B - s->memory), (size_t)s->k * s->m, true}};
    double here = against(l, tiers, G, W, scratch);
    for (size_t v = 0; v < 5; v++)
        for (size_t i = 0; i < vectors[v].count; i += vectors[v].count / 7) {
            float *p = s->memory + vectors[v].at + i, kept = *p;
            double step = vectors[v].sign ? -2 * (double)(kept >= 0 ? 1 : -1) : (double)kept;
            *p = vectors[v].sign ? -kept : 2 * kept;
            double wanted = (against(l, tiers, G, W, scratch) - here) / step;
            *p = kept;
            double found = (double)after->memory[after->count + vectors[v].at + i] / (1 - (double)0.9f);
            CHECK(fabs(found - wanted) < 1e-4 * fabs(wanted) + 2e-6 * fabs(here / step),
                  "stage %u %s[%zu]: gradient %.6g, difference %.6g", (unsigned)stage, vectors[v].name, i, found,
                  wanted);
        }
}

static void check_layer(student_layer *l, student_layer *moved, student_turn turn, float *scratch) {
    size_t count = (size_t)l->n * l->m;
    float *G = malloc(count * sizeof *G), *W = malloc(count * sizeof *W);
    rng r = rng_named(3, "gradient");
    student_rates rates = {0.001f, 0, 0.9f, 0.99f, 0.9f, 1e30f, 0};
    rng_fill_normal(&r, G, count);
    student_update(NULL, PRODUCT_F32, moved, turn, G, &rates, scratch);
    for (uint32_t i = 0; i < turn.tiers; i++) check_stage(l, moved, i, turn.tiers, G, W, scratch);
    free(W);
    free(G);
}

/* Of the first two tiers of three, each with middle scales of its own, what only two tiers use moves, and nothing else. */
static void check_apart(const student_layer *l, student_layer *moved, float *scratch) {
    size_t count = (size_t)l->n * l->m;
    float *G = malloc(count * sizeof *G);
    rng r = rng_named(4, "gradient");
    student_rates rates = {0.001f, 0, 0.9f, 0.99f, 0.9f, 1e30f, 0};
    rng_fill_normal(&r, G, count);
    student_update(NULL, PRODUCT_F32, moved, (student_turn){.tiers = 2, .n_tiers = 3, .apart = true}, G, &rates,
                   scratch);
    for (uint32_t i = 0; i < 3; i++) {
        const student_stage *s = &l->stages[i], *t = &moved->stages[i];
        size_t first = (size_t)(s->c - s->memory), changed = 0, own = i < 2 ? first + (1 - i) * s->k : 0;
        CHECK(s->n_c == 3 - i, "stage %u has %u rows of middle scales", (unsigned)i, (unsigned)s->n_c);
        for (size_t j = 0; j < s->count; j++) {
            bool may = i < 2 && j >= own && j < own + s->k;
            changed += may && s->memory[j] != t->memory[j];
            CHECK(may || s->memory[j] == t->memory[j], "stage %u: parameter %zu changed", (unsigned)i, j);
        }
        CHECK((changed > 0) == (i < 2), "stage %u: %zu scales changed", (unsigned)i, changed);
    }
    free(G);
}

/* None before a step; one whose latent is turned. */
static void check_flips(const model *m, bp_err *e) {
    student fresh = {0};
    uint64_t flipped = 1, all = 0;
    size_t n = m ? (size_t)m->config.n_layers * PARTS : 0;
    factors *f = calloc(n + 1, sizeof *f);
    CHECK(m && student_open(&fresh, m, true, false, e), "%s", e->text);
    for (size_t i = 0; i < n; i++) CHECK(student_factors(&fresh.layers[i], &f[i], e), "%s", e->text);
    student_flips(f, m, &flipped, &all);
    CHECK(flipped == 0 && all > 0, "%llu flips of %llu before any step", (unsigned long long)flipped,
          (unsigned long long)all);
    float *latent = &fresh.layers[0].stages[0].B[3];
    *latent = *latent >= 0 ? -1 : 1;
    factors_close(&f[0]);
    CHECK(student_factors(&fresh.layers[0], &f[0], e), "%s", e->text);
    student_flips(f, m, &flipped, &all);
    CHECK(flipped == 1, "%llu flips after one", (unsigned long long)flipped);
    for (size_t i = 0; i < n; i++) factors_close(&f[i]);
    free(f);
    student_close(&fresh);
}

static void check_student(bool tier_scales) {
    bp_err e = {0};
    source s = {0};
    student one = {0}, two = {0}, three = {0};
    CHECK(source_open(&s, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    model *m = model_load(s.bytes, s.size, &e);
    CHECK(m && student_open(&one, m, true, tier_scales, &e) && student_open(&two, m, true, tier_scales, &e) &&
              student_open(&three, m, true, tier_scales, &e),
          "%s", e.text);
    float *scratch = m ? malloc(student_scratch(m) * sizeof *scratch) : NULL;
    for (part p = 0; m && p < PARTS; p++) {
        const student_turn turn = {.tiers = tier_scales ? 2 : m->n_tiers, .n_tiers = m->n_tiers};
        check_layer(&one.layers[p], &two.layers[p], turn, scratch);
        if (tier_scales) check_apart(&one.layers[p], &three.layers[p], scratch);
    }
    check_flips(m, &e);
    free(scratch);
    student_close(&one);
    student_close(&two);
    student_close(&three);
    model_unload(m);
    source_close(&s);
}

/* ---- the distance to the teacher -------------------------------------------------------------------------------- */

static double definition_kl(const float *p, const float *q, size_t n) {
    double sums[2] = {0, 0}, kl = 0;
    for (size_t i = 0; i < n; i++) {
        sums[0] += exp((double)p[i]);
        sums[1] += exp((double)q[i]);
    }
    for (size_t i = 0; i < n; i++) {
        double ln_p = (double)p[i] - log(sums[0]), ln_q = (double)q[i] - log(sums[1]);
        kl += exp(ln_p) * (ln_p - ln_q);
    }
    return kl;
}

static void check_distance(void) {
    enum { N = 2999 };
    float p[N], q[N], d[N];
    rng r = rng_named(5, "distance");
    for (int round = 0; round < 20; round++) {
        rng_fill_normal(&r, p, N);
        rng_fill_normal(&r, q, N);
        for (size_t i = 0; i < N; i++) {
            p[i] *= (float)round;
            q[i] = p[i] + 0.3f * q[i];
        }
        double wanted = definition_kl(p, q, N);
        memcpy(d, q, sizeof d);
        double found = (double)vector_distill(d, p, 1, 1, N);
        CHECK(fabs(found - wanted) < 1e-3 * wanted + 1e-5, "KL %.7g, by definition %.7g", found, wanted);
        size_t at = (size_t)round * 101 % N;
        float h = 0.01f, kept = q[at];
        q[at] = kept + h;
        double above = definition_kl(p, q, N);
        q[at] = kept - h;
        double slope = (above - definition_kl(p, q, N)) / (2 * (double)h);
        q[at] = kept;
        CHECK(fabs((double)d[at] - slope) < 1e-3 * fabs(slope) + 1e-6, "slope %.6g, difference %.6g", (double)d[at],
              slope);
    }
    memcpy(d, p, sizeof d);
    CHECK(fabs((double)vector_distill(d, p, 1, 1, N)) < 1e-6, "a model is at a distance from itself");
}

/* ---- the head and its table -------------------------------------------------------------------------------------- */

enum { HEAD_ROWS = 301, HEAD_WIDTH = 48, HEAD_TOKENS = 700 }; /* several groups of chunks, the last one short */

/* (1 - labels) KL + labels nll; the last position, which no token follows, has its KL */
static double mean_loss(const float *E, const float *x, const float *y, float labels, float *gradient, float *dx,
                        bp_err *e) {
    distiller s;
    distill_score score = {0}, last = {0};
    int32_t ids[HEAD_TOKENS];
    for (int32_t i = 0; i < HEAD_TOKENS; i++) ids[i] = i * 17 % HEAD_ROWS;
    workers *w = workers_open(2, e);
    CHECK(distiller_open(&s, w, PRODUCT_F32, HEAD_WIDTH, HEAD_ROWS, E + HEAD_ROWS * HEAD_WIDTH, E, gradient,
                         HEAD_TOKENS, e),
          "%s", e->text);
    distiller_run(&s, dx, x, y, ids, HEAD_TOKENS, HEAD_TOKENS, 1, &labels, &score);
    const size_t at = (HEAD_TOKENS - 1) * HEAD_WIDTH;
    if (dx != x) distiller_run(&s, NULL, x + at, y + at, ids, 1, 1, 1, NULL, &last);
    distiller_close(&s);
    workers_close(w);
    return ((1 - (double)labels) * score.kl + (double)labels * (score.nll + last.kl)) / (double)score.positions;
}

static void check_head(float labels) {
    enum { ENTRIES = HEAD_ROWS * HEAD_WIDTH, STREAM = HEAD_TOKENS * HEAD_WIDTH };
    float *E = malloc((2 * ENTRIES + 2 * STREAM) * sizeof *E), *x = E + 2 * ENTRIES, *y = x + STREAM,
          *G = malloc(ENTRIES * sizeof *G), *D = malloc(ENTRIES * sizeof *D), *dx = malloc(2 * STREAM * sizeof *dx);
    bp_err e = {0};
    rng r = rng_named(1, "head");
    rng_fill_normal(&r, E, 2 * ENTRIES + 2 * STREAM);
    for (size_t i = 0; i < 2 * ENTRIES; i++) E[i] *= 0.2f;
    rng_fill_normal(&r, D, ENTRIES);
    mean_loss(E, x, y, labels, NULL, dx, &e);
    memcpy(dx + STREAM, x, STREAM * sizeof *dx);
    mean_loss(E, dx + STREAM, y, labels, G, dx + STREAM, &e); /* dx over x */
    CHECK(memcmp(dx, dx + STREAM, STREAM * sizeof *dx) == 0, "the way back depends on the gradient of the head");
    double slope = 0, sides[2], h = 1e-3;
    for (size_t i = 0; i < ENTRIES; i++) slope += (double)G[i] * D[i];
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < ENTRIES; i++) E[i] += (float)((side ? -2 : 1) * h) * D[i];
        sides[side] = mean_loss(E, x, y, labels, NULL, NULL, &e);
    }
    CHECK(fabs((sides[0] - sides[1]) / (2 * h) - slope) < 2e-3 * fabs(slope),
          "head, labels %g: gradient %.6g, difference %.6g", (double)labels, slope, (sides[0] - sides[1]) / (2 * h));
    free(E);
    free(G);
    free(D);
    free(dx);
}

/* Second moments: the identity, or such that columns are coupled. */
static void fill_moments(float *H, size_t m, bool coupled) {
    rng r = rng_named(5, "moments");
    float *X = malloc(2 * m * m * sizeof *X);
    rng_fill_normal(&r, X, 2 * m * m);
    memset(H, 0, m * m * sizeof *H);
    for (size_t i = 0; i < 2 * m; i++)
        for (size_t j = 1; j < m; j++) X[i * m + j] += 0.8f * X[i * m + j - 1];
    if (coupled) linalg_gemm(true, false, m, m, 2 * m, 1, X, m, X, m, 0, H, m);
    for (size_t j = 0; !coupled && j < m; j++) H[j * (m + 1)] = 1;
    linalg_mirror(H, m);
    free(X);
}

/* A table that follows a constant gradient: its values fall, lie on the grid of the stored scales, and are stored as
 * the network saw them. */
static void check_table(bool coupled) {
    source s = {0};
    bp_err e = {0};
    tuned_table t;
    table_metric own;
    packed_table p;
    CHECK(source_open(&s, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    model *m = model_load(s.bytes, s.size, &e);
    CHECK(m, "%s", e.text);
    const linear *stored = &m->embedding;
    size_t rows = stored->n, columns = stored->m, entries = rows * columns;
    float *rounded = malloc(3 * entries * sizeof *rounded), *taught = rounded + entries, *before = taught + entries;
    float *H = malloc(columns * columns * sizeof *H);
    for (size_t i = 0; i < rows; i++) linear_row(stored, i, before + i * columns);
    rng r = rng_named(2, "table");
    rng_fill_normal(&r, taught, entries);
    fill_moments(H, columns, coupled);
    CHECK(table_metric_open(&own, H, columns, &e), "%s", e.text);
    CHECK(table_open(&t, NULL, rows, columns, stored->planes.planes, rounded, &e), "%s", e.text);
    CHECK(table_begin(&t, stored, taught, &own, &e), "%s", e.text);
    CHECK(memcmp(rounded, before, entries * sizeof *rounded) == 0, "a table begins as something else than it is");
    for (size_t i = 0; i < entries; i++) t.gradient[i] = (float)(i / columns % 2);
    table_step(&t, 1e-7f, 0.9f, 0.99f);
    CHECK(memcmp(rounded, before, entries * sizeof *rounded) == 0, "a step too small to see changes roundings");
    for (int i = 0; i < 20; i++) table_step(&t, 0.05f, 0.9f, 0.99f);
    size_t moved = 0, risen = 0, odd_rows = 0;
    for (size_t i = 0; i < entries; i++) {
        moved += rounded[i] != before[i];
        risen += rounded[i] > before[i];
        odd_rows += i / columns % 2;
    }
    CHECK((coupled || risen == 0) && risen < moved / 4 && moved > odd_rows / 2 && moved <= odd_rows,
          "%zu of %zu moved, %zu up", moved, odd_rows, risen);
    table_keep(&t);
    CHECK(table_pack(&t, &p, &e), "%s", e.text);
    linear view = packed_table_view(&p);
    for (size_t i = 0; i < rows; i++) linear_row(&view, i, before + i * columns);
    CHECK(memcmp(rounded, before, entries * sizeof *rounded) == 0, "what is stored is not what the network saw");
    packed_table_free(&p);
    table_close(&t);
    table_metric_close(&own);
    free(rounded);
    free(H);
    model_unload(m);
    source_close(&s);
}

int main(void) {
    CHECK(mkdtemp(own_folder), "no temporary folder");
    check_block("LlamaForCausalLM", 16);
    check_block("Qwen2ForCausalLM", 16);
    check_block("Qwen3ForCausalLM", 32);
    check_student(false);
    check_student(true);
    check_distance();
    check_head(0);
    check_head(0.3f);
    check_head(1);
    check_table(false);
    check_table(true);
    remove_all();
    return check_end();
}
