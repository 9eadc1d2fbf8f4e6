/* A file whose tiers have middle scales of their own: with each number of tiers the scales are those of that tier, also in
 * a model that grows, and what was counted is what was written. */
#include "growing.h"

#include <unistd.h>

#include "compress/block.h"
#include "compress/container.h"
#include "tune/student.h"

/* Middle scales c [k] of a stage with `more` stages after it, as a file holds them. */
static void renew(float *c, uint32_t k, uint32_t more, bool eight) {
    pack_round_scales(c, more ? 0.75 + 0.125 * more : 1, eight, k);
}

/* Rows of middle scales of a stage are made different. */
static void renew_rows(factor_stage *f) {
    const uint32_t k = f->shape.k;
    const size_t row = (size_t)factors_middle_bytes(f->shape);
    float *c = malloc(k * sizeof *c);
    for (uint32_t i = 0; i < f->shape.n_c; i++) {
        quant_dequantize(f->type_c, f->c + i * row, c, k);
        renew(c, k, i, f->shape.eight);
        pack_scales(f->c + i * row, f->type_c, c, k);
    }
    free(c);
}

static bool write_renewed(const source *src, const char *path, bool eight, container_summary *summary) {
    bp_err e = {0};
    student s = {0};
    model *m = model_load(src->bytes, src->size, &e);
    bool ok = m && student_open(&s, m, false, true, &e);
    size_t n = m ? (size_t)m->config.n_layers * PARTS : 0;
    if (ok) student_set_eight(&s, eight);
    factors *layers = calloc(n + 1, sizeof *layers);
    for (size_t i = 0; ok && i < n; i++) {
        ok = student_factors(&s.layers[i], &layers[i], &e);
        for (uint32_t j = 0; ok && j < layers[i].n_stages; j++) {
            factor_stage *f = &layers[i].stages[j];
            CHECK(f->shape.n_c == m->n_tiers - j, "rows of middle scales: %u", (unsigned)f->shape.n_c);
            renew_rows(f);
        }
    }
    const container c = {
        .model = m, .layers = layers, .n_tiers = m ? m->n_tiers : 0, .source = "fixture", .recipe = "{}"};
    ok = ok && container_write(&c, path, true, summary, &e);
    CHECK(ok, "%s", e.text);
    for (size_t i = 0; i < n; i++) factors_close(&layers[i]);
    free(layers);
    student_close(&s);
    model_unload(m);
    return ok;
}

/* Does y have the scales of x, those of the middle renewed? */
static bool same_scales(const linear_stage *x, const linear_stage *y, const linear *w, uint32_t more, bool eight) {
    float *a = malloc((w->n + x->k) * sizeof *a), *c = a + w->n;
    memcpy(a, x->a, w->n * sizeof *a);
    memcpy(c, x->c, x->k * sizeof *c);
    pack_round_scales(a, 1, eight, w->n);
    pack_round_scales(c, 1, eight, x->k);
    renew(c, x->k, more, eight);
    bool same = y->k == x->k && memcmp(a, y->a, w->n * sizeof *a) == 0 && memcmp(c, y->c, x->k * sizeof *c) == 0 &&
                memcmp(x->b, y->b, w->m * sizeof *a) == 0;
    free(a);
    return same;
}

/* With each number of tiers the scales are those of that tier, and what was counted is what was written. */
static void check_renewed(const source *old, const source *new, bool eight, const container_summary *summary) {
    bp_err e = {0};
    for (uint32_t tiers = 1; tiers <= 3; tiers++) {
        model *was = model_load_tiers(old->bytes, old->size, 3, &e);
        model *is = model_load_tiers(new->bytes, new->size, tiers, &e);
        CHECK(was && is, "%s", e.text);
        for (uint32_t i = 0; was && is && i < is->config.n_layers * PARTS; i++) {
            const linear *x = part_linear(&was->layers[i / PARTS], i % PARTS),
                         *y = part_linear(&is->layers[i / PARTS], i % PARTS);
            bool same = y->n_stages == tiers;
            for (uint32_t s = 0; same && s < tiers; s++)
                same = same_scales(&x->stages[s], &y->stages[s], x, tiers - 1 - s, eight);
            CHECK(same, "layer %u with %u tiers", (unsigned)i, (unsigned)tiers);
        }
        if (is) {
            double bits = (double)is->tier_bits[tiers - 1] / (double)is->linear_weights;
            CHECK(bits == summary->bits_per_weight[tiers - 1] &&
                      is->tier_end[tiers - 1] == summary->tier_end[tiers - 1],
                  "%u tiers: %f bits, %f written", (unsigned)tiers, bits, summary->bits_per_weight[tiers - 1]);
        }
        model_unload(was);
        model_unload(is);
    }
    student again = {0};
    model *m = model_load(new->bytes, new->size, &e);
    CHECK(m && student_open(&again, m, false, false, &e), "%s", e.text);
    for (uint32_t s = 0; m && s < 3; s++)
        CHECK(again.layers[0].stages[s].n_c == 3 - s && again.layers[0].stages[s].eight == eight, "rows read back: %u",
              (unsigned)again.layers[0].stages[s].n_c);
    student_close(&again);
    model_unload(m);
}

static void check_file(const source *src, bool eight) {
    char path[] = "/tmp/bitpair-tiers-XXXXXX";
    container_summary summary;
    source own = {0};
    bp_err e = {0};
    int fd = mkstemp(path);
    if (fd >= 0) close(fd);
    if (write_renewed(src, path, eight, &summary) && source_open(&own, path, &e)) {
        CHECK(bp_verify(own.bytes, (size_t)own.size, &e), "%s", e.text);
        check_renewed(src, &own, eight, &summary);
        check_growth(&own, 1);
        check_growth(&own, 3);
    }
    CHECK(e.code == BP_OK, "%s", e.text);
    source_close(&own);
    unlink(path);
}

int main(void) {
    source small;
    bp_err e = {0};
    CHECK(source_open(&small, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    for (int eight = 0; e.code == BP_OK && eight < 2; eight++) check_file(&small, eight);
    source_close(&small);
    return check_end();
}
