/* What the loss depends on: words drawn from a distribution and the Fisher information of their gradients; weights of
 * tokens and outputs, measured at once, bit by bit, or after an interruption. */
#include "command_run.h"

#include <math.h>

#include "random.h"
#include "tiny_model.h"
#include "tune/distill.h"
#include "tune/output_weights.h"
#include "tune/vector.h"

/* ---- drawn words ------------------------------------------------------------------------------------------------- */

static void check_draw(void) {
    enum { WORDS = 7, DRAWS = 100000 };
    const float q[WORDS] = {0.5f, -1, 2, -INFINITY, 0, 1.25f, -3};
    double counts[WORDS] = {0}, sum = 0;
    for (size_t i = 0; i < DRAWS; i++) counts[vector_draw(q, ((double)i + 0.5) / DRAWS, WORDS)]++;
    for (size_t i = 0; i < WORDS; i++) sum += exp((double)q[i]);
    for (size_t i = 0; i < WORDS; i++) {
        double p = exp((double)q[i]) / sum;
        CHECK(fabs(counts[i] / DRAWS - p) < 2e-5, "word %zu is drawn %g of the time, not %g", i, counts[i] / DRAWS, p);
    }
    CHECK(vector_draw(q, 1 - 1e-16, WORDS) == WORDS - 1, "no word for the last u");
}

static void check_argmax(void) {
    enum { MOST = 100 };
    float x[MOST];
    rng r = rng_named(4, "argmax");
    for (size_t n = 1; n <= MOST; n++) {
        size_t wanted = 0;
        for (size_t i = 0; i < n; i++) x[i] = (float)(rng_next(&r) % 8) - 9; /* equal ones among them, none above 0 */
        for (size_t i = 1; i < n; i++) wanted = x[i] > x[wanted] ? i : wanted;
        CHECK(vector_argmax(x, n) == wanted, "of %zu: %zu, not %zu", n, vector_argmax(x, n), wanted);
    }
}

/* The same input at every position: gradients have mean 0 and the covariance E' (diag p - p p') E. */
static void check_fisher(void) {
    enum { WORDS = 40, WIDTH = 6, POSITIONS = 40000 };
    float E[WORDS * WIDTH], *x = malloc(2 * POSITIONS * WIDTH * sizeof *x), *dx = x + POSITIONS * WIDTH;
    double p[WORDS], total = 0, mean[WIDTH] = {0};
    distiller s;
    distill_score score = {0};
    bp_err e = {0};
    rng r = rng_named(1, "fisher");
    rng_fill_normal(&r, E, WORDS * WIDTH);
    rng_fill_normal(&r, x, WIDTH);
    for (size_t t = 1; t < POSITIONS; t++) memcpy(x + t * WIDTH, x, WIDTH * sizeof *x);
    workers *w = workers_open(2, &e);
    CHECK(distiller_open(&s, w, PRODUCT_F32, WIDTH, WORDS, NULL, E, NULL, POSITIONS, &e), "%s", e.text);
    distiller_run_drawn(&s, dx, x, 5, POSITIONS, &score);
    distiller_close(&s);
    workers_close(w);
    double entropy = 0;
    for (size_t v = 0; v < WORDS; v++) total += (p[v] = exp((double)vector_dot(E + v * WIDTH, x, WIDTH)));
    for (size_t v = 0; v < WORDS; v++) {
        p[v] /= total;
        entropy -= p[v] * log(p[v]);
    }
    CHECK(score.scored == POSITIONS && fabs(score.nll / POSITIONS - entropy) < 0.02 * entropy,
          "nll of drawn words %.4f, entropy %.4f", score.nll / POSITIONS, entropy);
    for (size_t i = 0; i < WIDTH; i++)
        for (size_t v = 0; v < WORDS; v++) mean[i] += p[v] * (double)E[v * WIDTH + i];
    double largest = 0, worst = 0;
    for (size_t i = 0; i < WIDTH; i++)
        for (size_t j = 0; j < WIDTH; j++) {
            double wanted = -mean[i] * mean[j], found = 0;
            for (size_t v = 0; v < WORDS; v++) wanted += p[v] * (double)E[v * WIDTH + i] * (double)E[v * WIDTH + j];
            for (size_t t = 0; t < POSITIONS; t++) found += (double)dx[t * WIDTH + i] * (double)dx[t * WIDTH + j];
            found *= POSITIONS; /* dx is of the mean over them */
            largest = fmax(largest, fabs(wanted));
            worst = fmax(worst, fabs(found - wanted));
        }
    CHECK(worst < 0.04 * largest, "Fisher information differs by %g of %g", worst, largest);
    free(x);
}

/* ---- weights ----------------------------------------------------------------------------------------------------- */

enum { CTX = 16, SEQS = 22, VAL = 3, LAYERS = 2, D = 64, N_TOKENS = CTX * SEQS };

typedef struct {
    model *m;
    workers *w;
    calibration text;
} rig;

static output_weights measure(const rig *k, const output_weights_options *options) {
    output_weights o = {0};
    bp_err e = {0};
    CHECK(output_weights_measure(&o, k->w, k->m, &k->text, options, &e), "%s", e.text);
    return o;
}

static size_t floats(const output_weights *o, const model *m) {
    return (size_t)(o->tokens - o->memory) + (size_t)m->config.n_layers * INPUTS * o->n_tokens;
}

/* Mean 1, none larger than the clip leaves, and not all the same; those of outputs are what they are without. */
static void check_tokens(const rig *k, const output_weights *o) {
    for (uint32_t i = 0; i < LAYERS; i++)
        for (part p = 0; p < PARTS; p++) {
            const float *v = output_weights_tokens(o, i, p);
            double sum = 0, square = 0;
            size_t zeros = 0;
            for (size_t t = 0; t < N_TOKENS; t++) {
                sum += (double)v[t];
                square += (double)v[t] * (double)v[t];
                zeros += !(v[t] > 0);
            }
            CHECK(fabs(sum / N_TOKENS - 1) < 1e-4 && square > 1.01 * N_TOKENS && zeros == 0,
                  "layer %u, %s: mean %g, mean square %g, %zu zeros", (unsigned)i, part_name(p), sum / N_TOKENS,
                  square / N_TOKENS, zeros);
            CHECK(v == output_weights_tokens(o, i, stack_first(p, true)), "%s has weights of its own", part_name(p));
        }
    output_weights plain = measure(k, &(output_weights_options){.n_tokens = N_TOKENS, .fused = true});
    size_t n = (size_t)(plain.embedding - plain.memory), rest = (size_t)2 * D * D;
    CHECK(!output_weights_tokens(&plain, 0, PART_Q), "weights of tokens that nobody wants");
    CHECK(memcmp(plain.memory, o->memory, n * sizeof(float)) == 0 &&
              memcmp(plain.embedding, o->embedding, rest * sizeof(float)) == 0 && !plain.blocks[0].G[PART_Q] &&
              !plain.streams && !o->streams,
          "weights of tokens or moments change those of outputs");
    output_weights_close(&plain);
}

/* As moments must be, of the layers that are to have them; and of one token: where a layer's output is the stream's,
 * g g' / |g| beside g g' of the stream. */
static void check_moments(const rig *k, const output_weights *o) {
    for (uint32_t i = 0; i < LAYERS; i++)
        for (part p = 0; p < PARTS; p++) {
            const float *G = o->blocks[i].G[p];
            size_t n = part_linear(&k->m->layers[i], p)->n, wrong = 0;
            CHECK(!G == (p == PART_GATE || p == PART_UP), "%s: moments or none", part_name(p));
            for (size_t r = 0; G && r < n; r++)
                for (size_t c = r; c < n; c++) {
                    const float *row = G + output_metric_row(r, n), *other = G + output_metric_row(c, n);
                    wrong +=
                        !(row[0] > 0 && fabs((double)row[c - r]) <= 1.001 * sqrt((double)row[0] * (double)other[0]));
                }
            CHECK(wrong == 0, "layer %u, %s: %zu moments cannot be", (unsigned)i, part_name(p), wrong);
        }
    rig one = *k;
    one.text.n_seqs = 2;
    one.text.n_val = one.text.ctx = 1;
    output_weights token =
        measure(&one, &(output_weights_options){.n_tokens = 1, .moments = true, .streams = true, .fused = true});
    for (uint32_t i = 0; i < LAYERS; i++) {
        const float *G = token.blocks[i].G[PART_DOWN], *stream = token.streams + i * D * D;
        double square = 0, worst = 0;
        for (size_t r = 0; r < D; r++) square += (double)stream[r * D + r];
        for (size_t r = 0; r < D; r++)
            for (size_t c = r; c < D; c++)
                worst = fmax(
                    worst, fabs((double)G[output_metric_row(r, D) + c - r] - (double)stream[r * D + c] / sqrt(square)));
        CHECK(square > 0 && worst < 0.02 * sqrt(square), "layer %u: moments differ by %g of %g", (unsigned)i, worst,
              sqrt(square));
    }
    output_weights_close(&token);
}

static bool stop_at_half(void *context, double share) {
    unsigned *calls = context;
    ++*calls;
    return share < 0.5;
}

static bool count_calls(void *context, double share) {
    unsigned *calls = context;
    (void)share;
    return ++*calls;
}

/* Of another source, or no such file at all: refused, and left as it is. */
static void check_foreign(const rig *k, output_weights_options options, const char *path) {
    output_weights o = {0};
    bp_err e = {0};
    char there[8] = {0};
    options.source[31] ^= 1;
    CHECK(!output_weights_measure(&o, k->w, k->m, &k->text, &options, &e) && e.code == BP_ERR_ARGUMENT &&
              strstr(e.text, path) && !o.memory,
          "gradients of another source: %s", e.text);
    options.kept = in_folder("notes.txt");
    FILE *f = fopen(options.kept, "w+");
    CHECK(f && fputs("mine", f) >= 0 && fflush(f) == 0, "cannot write %s", options.kept);
    CHECK(!output_weights_measure(&o, k->w, k->m, &k->text, &options, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    rewind(f);
    CHECK(f && fread(there, 1, sizeof there, f) == 4 && strcmp(there, "mine") == 0, "a foreign file is overwritten");
    if (f) fclose(f);
    remove(options.kept);
}

/* Stopped half way and gone on with: the same bits; a damaged or foreign file is not gone on with. */
static void check_kept(const rig *k, const output_weights *o) {
    char path[1024];
    bp_err e = {0};
    snprintf(path, sizeof path, "%s", in_folder("gradients"));
    unsigned calls = 0, rest = 0, whole = 0;
    output_weights_options options = {
        .tokens = true, .moments = true, .fused = true, .kept = path, .tick = stop_at_half, .context = &calls};
    memset(options.source, 7, sizeof options.source);
    output_weights stopped = {0};
    CHECK(!output_weights_measure(&stopped, k->w, k->m, &k->text, &options, &e) && e.code == BP_OK && !stopped.memory,
          "was not stopped");
    check_foreign(k, options, path);
    options.tick = count_calls;
    for (int damaged = 0; damaged < 2; damaged++) {
        options.context = damaged ? &whole : &rest;
        output_weights again = measure(k, &options);
        CHECK(memcmp(again.memory, o->memory, floats(o, k->m) * sizeof(float)) == 0, "goes on to other weights");
        output_weights_close(&again);
        if (damaged) break;
        FILE *f = fopen(path, "r+");
        CHECK(f && fseek(f, 1000, SEEK_SET) == 0 && fputc(77, f) == 77, "cannot damage %s", path);
        if (f) fclose(f);
    }
    CHECK(calls + rest == whole && calls > 1 && rest > 1, "%u batches and %u, of %u", calls, rest, whole);
    remove(path);
}

static void check_weights(void) {
    tiny_model t = {.class_name = "LlamaForCausalLM",
                    .layers = LAYERS,
                    .d = D,
                    .ff = 96,
                    .heads = 4,
                    .kv = 2,
                    .hd = 16,
                    .vocab = 64,
                    .dtype = "F32",
                    .tied = true};
    source s = {0};
    bp_err e = {0};
    int32_t ids[N_TOKENS];
    rng r = rng_named(3, "text");
    rig k = {.text = {.ids = ids, .n_seqs = SEQS, .n_val = VAL, .ctx = CTX}};
    for (size_t i = 0; i < N_TOKENS; i++) ids[i] = (int32_t)(rng_next(&r) % t.vocab);
    tiny_make(&t, 11);
    tiny_write(&t, own_folder, false);
    CHECK(source_open(&s, own_folder, &e), "%s", e.text);
    k.m = s.bytes ? model_load(s.bytes, s.size, &e) : NULL;
    k.w = workers_open(2, &e);
    CHECK(k.m && k.w, "%s", e.text);
    if (k.m && k.w) {
        output_weights o = measure(&k, &(output_weights_options){.tokens = true, .moments = true, .fused = true});
        check_tokens(&k, &o);
        check_moments(&k, &o);
        check_kept(&k, &o);
        output_weights_close(&o);
    }
    workers_close(k.w);
    model_unload(k.m);
    source_close(&s);
    tiny_free(&t);
}

int main(void) {
    CHECK(mkdtemp(own_folder), "no temporary folder");
    check_draw();
    check_argmax();
    check_fisher();
    check_weights();
    remove_all();
    return check_end();
}
