/* What engine.h tells of a model's layers, against the file itself as docs/FORMAT.md describes it. */
#include "check.h"

#include "engine.h"
#include "gguf.h"
#include "io/source.h"
#include "mathf.h"
#include "platform.h"

typedef struct {
    bp_engine *engine;
    bp_model *model;
    const uint8_t *bytes;
    gguf file;
    void *tables;
} opened;

static bool open_bytes(opened *o, const void *bytes, size_t size) {
    bp_err e = {0};
    arena a = arena_measure();
    o->bytes = bytes;
    o->engine = bp_engine_open(NULL, &e);
    o->model = o->engine ? bp_model_open(o->engine, bytes, size, &e) : NULL;
    bool good = o->model && gguf_open(&o->file, &a, bytes, size, &e);
    o->tables = platform_alloc(a.used);
    a = arena_over(o->tables, a.used);
    good = good && gguf_open(&o->file, &a, bytes, size, &e);
    CHECK(good, "%s", e.text);
    return good;
}

static void close_all(opened *o) {
    bp_model_close(o->model);
    bp_engine_close(o->engine);
    platform_free(o->tables);
}

static const uint8_t *tensor(const opened *o, const bp_layer *l, unsigned stage, char part) {
    char name[64];
    snprintf(name, sizeof name, "%s.%u.%c", l->name, stage, part);
    const gguf_tensor *t = gguf_tensor_find(&o->file, name);
    CHECK(t, "no tensor %s", name);
    return t ? o->bytes + t->offset : NULL;
}

/* Is every sign of a [rows, columns] factor where tile16 has it? */
static bool signs_match(const uint8_t *tile16, const uint8_t *out, size_t rows, size_t columns) {
    size_t groups = (columns + 31) / 32 * 4, stride = (columns + 7) / 8;
    for (size_t byte = 0; byte < (rows + 15) / 16 * groups * 16; byte++) {
        size_t j = byte % 16, g = byte / 16 % groups, t = byte / 16 / groups, row = 16 * t + (j >> 1) + 8 * (j & 1);
        for (size_t i = 0; i < 8; i++) {
            size_t column = 8 * g + i;
            if (row < rows && column < columns &&
                (tile16[byte] >> i & 1) != (out[row * stride + column / 8] >> column % 8 & 1))
                return false;
        }
    }
    return true;
}

static bool halves_match(const uint8_t *file, const float *scales, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (bp_half_to_float((uint16_t)(file[2 * i] | file[2 * i + 1] << 8)) != scales[i]) return false;
    return true;
}

static void check_stage(const opened *o, uint32_t layer, const bp_layer *l, uint32_t stage) {
    bp_err e = {0};
    size_t k = l->middle[stage], size_a = l->rows * ((k + 7) / 8), size_b = k * ((l->columns + 7) / 8);
    uint8_t *a = malloc(size_a), *b = malloc(size_b);
    CHECK(bp_model_signs(o->model, layer, stage, 'A', a, size_a, &e), "%s", e.text);
    CHECK(bp_model_signs(o->model, layer, stage, 'B', b, size_b, &e), "%s", e.text);
    CHECK(signs_match(tensor(o, l, stage, 'A'), a, l->rows, k), "%s stage %u: A", l->name, (unsigned)stage);
    CHECK(signs_match(tensor(o, l, stage, 'B'), b, k, l->columns), "%s stage %u: B", l->name, (unsigned)stage);
    CHECK(!bp_model_signs(o->model, layer, stage, 'A', a, size_a - 1, &e) && e.code == BP_ERR_ARGUMENT, "too small");
    const float *scale_a, *scale_c, *scale_b;
    CHECK(bp_model_scales(o->model, layer, stage, &scale_a, &scale_c, &scale_b, &e), "%s", e.text);
    CHECK(halves_match(tensor(o, l, stage, 'a'), scale_a, l->rows) &&
              halves_match(tensor(o, l, stage, 'c'), scale_c, k) &&
              halves_match(tensor(o, l, stage, 'b'), scale_b, l->columns),
          "%s stage %u: scales", l->name, (unsigned)stage);
    free(a);
    free(b);
}

/* All layers of a model whose file is at hand up to `tier`: their bits add up to what the model says. */
static void check_layers(const opened *o) {
    bp_model_info info;
    bp_layer l;
    bp_model_describe(o->model, &info);
    uint32_t n = bp_model_layers(o->model);
    double bits = 0, weights = 0;
    CHECK(n == 1 + 7 * info.n_layers, "%u layers", (unsigned)n);
    CHECK(bp_model_layer(o->model, 0, &l) && strcmp(l.name, "token_embd") == 0 && l.rows == info.vocab &&
              l.columns == info.d_model && l.n_stages == 0 && l.bits > 0,
          "the embedding comes first");
    for (uint32_t i = 1; i < n; i++) {
        CHECK(bp_model_layer(o->model, i, &l), "layer %u", (unsigned)i);
        CHECK(strcmp(l.type, "signs") == 0 && l.loaded <= l.n_stages && l.n_stages > 0, "%s", l.name);
        CHECK(l.loaded == (info.tier < l.n_stages ? info.tier : l.n_stages), "%s: %u at hand", l.name, (unsigned)l.loaded);
        bits += (double)l.bits;
        weights += (double)l.rows * l.columns;
        if (i < 9 || i == n - 1)
            for (uint32_t s = 0; s < l.loaded; s++) check_stage(o, i, &l, s);
    }
    CHECK(bits / weights == info.bits_per_weight, "%.9f, %.9f bits per weight", bits / weights, info.bits_per_weight);
    CHECK(!bp_model_layer(o->model, n, &l), "past the last");
}

static void check_refusals(const opened *o) {
    bp_err e = {0};
    uint8_t out[8];
    const float *a, *c, *b;
    bp_layer l;
    CHECK(bp_model_layer(o->model, 1, &l), "a layer");
    CHECK(!bp_model_signs(o->model, 1, l.loaded, 'A', out, sizeof out, &e) && e.code == BP_ERR_ARGUMENT, "no such stage");
    CHECK(!bp_model_signs(o->model, 1, 0, 'C', out, sizeof out, &e) && e.code == BP_ERR_ARGUMENT, "no such factor");
    CHECK(!bp_model_signs(o->model, 0, 0, 'A', out, sizeof out, &e) && e.code == BP_ERR_ARGUMENT, "not a stack");
    CHECK(!bp_model_scales(o->model, bp_model_layers(o->model), 0, &a, &c, &b, &e) && e.code == BP_ERR_ARGUMENT,
          "no such layer");
}

/* From the header alone: the layers are known, their weights are not. */
static void check_preview(const void *bytes, size_t size) {
    bp_err e = {0};
    uint64_t full, data_offset;
    bp_layer l;
    const float *a, *c, *b;
    CHECK(bp_probe(bytes, size, &full, &data_offset, &e) == 1, "%s", e.text);
    bp_engine *engine = bp_engine_open(NULL, &e);
    bp_model *m = bp_model_preview(engine, bytes, (size_t)data_offset, size, &e);
    CHECK(m && bp_model_layer(m, 1, &l) && l.bits > 0, "%s", e.text);
    CHECK(m && !bp_model_scales(m, 1, 0, &a, &c, &b, &e) && e.code == BP_ERR_ARGUMENT, "weights that are not there");
    bp_model_close(m);
    bp_engine_close(engine);
}

int main(void) {
    bp_err e = {0};
    source s;
    opened o = {0};
    if (source_open(&s, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e) && open_bytes(&o, s.bytes, (size_t)s.size)) {
        check_layers(&o);
        check_refusals(&o);
        check_preview(s.bytes, (size_t)s.size);
        uint64_t end;
        double bits;
        CHECK(bp_model_tier(o.model, 0, &end, &bits), "a first tier");
        close_all(&o);
        if (open_bytes(&o, s.bytes, (size_t)end)) check_layers(&o);
        close_all(&o);
    }
    CHECK(e.code == BP_OK, "%s", e.text);
    source_close(&s);
    return check_end();
}
