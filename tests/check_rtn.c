/* Round to nearest: the encoders against their definition, and whole files on a small real model. */
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "compress/rtn.h"
#include "linalg/rng.h"
#include "load.h"
#include "mathf.h"

static char folder[] = "/tmp/bitpair-check-rtn-XXXXXX";

enum { M = 160 /* two groups and a half */ };

static void random_row(float *row, rng *r) {
    for (size_t i = 0; i < M; i++) row[i] = (float)rng_normal(r) * (i < 64 ? 0.02f : 3.0f);
}

static double squared_error(const float *a, const float *b, size_t n) {
    double sum = 0;
    for (size_t i = 0; i < n; i++) sum += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
    return sum;
}

/* ---- encoders --------------------------------------------------------------------------------------------------- */

/* Least error of a group over the 32 scales of the header comment, straight from it. */
static double least_error(const float *w, size_t n, uint32_t bits) {
    double levels = ldexp(1, (int)bits - 1), top = 0, least = INFINITY;
    for (size_t i = 0; i < n; i++) top = fmax(top, fabs((double)w[i]));
    for (int i = 0; i < 16; i++)
        for (int sign = -1; sign < 2; sign += 2) {
            double d = (double)bp_half_to_float(bp_half_from_float((float)(sign * top / levels * (1 - 0.04 * i)))),
                   sum = 0;
            for (size_t j = 0; j < n; j++) {
                double q = fmin(fmax(rint((double)w[j] / d), -levels), levels - 1);
                sum += ((double)w[j] - d * q) * ((double)w[j] - d * q);
            }
            least = fmin(least, sum);
        }
    return least;
}

static void check_groups(uint32_t bits) {
    float row[M], back[M];
    uint8_t out[M / 32 * RTN_BLOCK_BYTES];
    rng r = rng_named(bits, "rtn");
    int low = -(1 << (bits - 1)), high = -low - 1, seen_low = 0, seen_high = 0;
    for (int round = 0; round < 20; round++) {
        random_row(row, &r);
        rtn_encode_row(out, row, M, bits);
        quant_dequantize(QUANT_Q8_0, out, back, M);
        for (size_t g = 0; g < M; g += RTN_GROUP) {
            size_t n = bp_min(RTN_GROUP, M - g);
            double found = squared_error(row + g, back + g, n), wanted = least_error(row + g, n, bits);
            CHECK(fabs(found - wanted) <= 1e-4 * wanted, "%u bits, group at %zu: error %g, wanted %g", bits, g, found,
                  wanted);
            const uint8_t *block = out + g / 32 * RTN_BLOCK_BYTES;
            if (n == RTN_GROUP) CHECK(memcmp(block, block + RTN_BLOCK_BYTES, 2) == 0, "two scales in a group");
        }
        for (size_t i = 0; i < sizeof out; i++) {
            int q = (int8_t)out[i];
            if (i % RTN_BLOCK_BYTES < 2) continue;
            CHECK(q >= low && q <= high, "%d does not fit into %u bits", q, bits);
            seen_low += q == low;
            seen_high += q == high;
        }
    }
    CHECK(seen_low > 0 && seen_high > 0, "levels of %u bits that are never used", bits);
    memset(row, 0, sizeof row);
    rtn_encode_row(out, row, M, bits);
    quant_dequantize(QUANT_Q8_0, out, back, M);
    CHECK(squared_error(row, back, M) == 0, "zeros stay zeros");
    CHECK(rtn_packed_bytes(3, M, bits) == 3 * (M * bits / 8 + 3 * 2), "packed bytes");
}

/* Every weight is within half a step of its block; the largest of a Q4_0 block is exact up to fp16. */
static void check_ggml(void) {
    float row[M], back[M];
    uint8_t out[M / 32 * RTN_BLOCK_BYTES];
    rng r = rng_named(9, "rtn");
    for (int round = 0; round < 20; round++) {
        random_row(row, &r);
        for (int four = 0; four < 2; four++) {
            if (four)
                rtn_encode_q4_0(out, row, M);
            else
                rtn_encode_q8_0(out, row, M);
            quant_dequantize(four ? QUANT_Q4_0 : QUANT_Q8_0, out, back, M);
            for (size_t i = 0; i < M; i++) {
                float top = 0;
                for (size_t j = i / 32 * 32; j < i / 32 * 32 + 32; j++) top = fmaxf(top, fabsf(row[j]));
                /* in Q4_0 the end opposite to the largest weight is a whole step short */
                float most = four ? top / 8 * 1.01f : top / 127 * 0.51f + top * 0.0006f;
                CHECK(fabsf(back[i] - row[i]) <= most, "%s: %g becomes %g", four ? "q4_0" : "q8_0", (double)row[i],
                      (double)back[i]);
                if (four && fabsf(row[i]) == top)
                    CHECK(fabsf(back[i] - row[i]) <= 0.001f * top, "%g becomes %g", (double)row[i], (double)back[i]);
            }
        }
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

typedef struct {
    loaded model;
    gguf header;
    void *memory;
} opened;

static bool open_file(opened *f, bp_engine *engine, const char *path) {
    bp_err e = {0};
    bool ok = loaded_open(&f->model, engine, path, 0, &e) && header_open(&f->header, &f->memory, &f->model.source, &e);
    CHECK(ok, "%s", e.text);
    return ok;
}

static void close_file(opened *f) {
    loaded_close(&f->model);
    free(f->memory);
}

/* Largest difference of the logits after a few tokens. */
static double distance(bp_model *a, bp_model *b) {
    static const int32_t IDS[] = {1, 80, 147, 201, 282};
    bp_model_info info;
    bp_model_describe(a, &info);
    bp_session *s = bp_session_open(a, NULL, NULL), *t = bp_session_open(b, NULL, NULL);
    bool ok = bp_session_feed(s, IDS, 5, NULL) && bp_session_feed(t, IDS, 5, NULL);
    const float *x = ok ? bp_session_logits(s) : NULL, *y = ok ? bp_session_logits(t) : NULL;
    double most = ok ? 0 : INFINITY;
    for (uint32_t i = 0; ok && i < info.vocab; i++) most = fmax(most, fabs((double)x[i] - (double)y[i]));
    bp_session_close(s);
    bp_session_close(t);
    return most;
}

/* Sizes as stated and as stored; returns the distance to the source. */
static double check_file(const opened *from, bp_engine *engine, rtn_options *o) {
    char path[128];
    rtn_summary s;
    bp_err e = {0};
    opened f = {0};
    uint64_t packed = 0;
    struct stat st;
    snprintf(path, sizeof path, "%s/out.gguf", folder);
    o->out_path = path;
    o->source = "test";
    model *m = model_load(from->model.source.bytes, from->model.source.size, &e);
    CHECK(m && rtn_write(o, m, &s, &e), "%s", e.text);
    model_unload(m);
    CHECK(stat(path, &st) == 0 && (uint64_t)st.st_size == s.bytes, "the file has %lld bytes", (long long)st.st_size);
    double far = INFINITY;
    if (open_file(&f, engine, path)) {
        far = distance(from->model.model, f.model.model);
        CHECK(gguf_u64(&f.header, "bitpair.packed_bytes", &packed) == (o->method == RTN_GROUPS), "packed_bytes");
        if (o->method == RTN_GROUPS) CHECK(packed == s.packed_bytes && packed < s.bytes, "packed_bytes");
        CHECK(gguf_find(&f.header, "tokenizer.ggml.tokens"), "the tokenizer");
        const gguf_tensor *t = gguf_tensor_find(&f.header, "blk.1.ffn_down.weight");
        CHECK(t && t->type == (o->method == RTN_Q4_0 ? QUANT_Q4_0 : QUANT_Q8_0), "the type of a layer");
        t = gguf_tensor_find(&f.header, "blk.1.ffn_norm.weight");
        CHECK(t && t->type == QUANT_F32, "norms are kept");
    }
    close_file(&f);
    return far;
}

static void check_files(bp_engine *engine, workers *crew) {
    opened from = {0};
    if (!open_file(&from, engine, check_data("models/tinystories-656k"))) return;
    rtn_options o = {.method = RTN_GROUPS, .workers = crew, .force = true, .embedding_bits = 6};
    double far[5];
    for (o.bits = 2; o.bits <= 4; o.bits++) far[o.bits - 2] = check_file(&from, engine, &o);
    o.method = RTN_Q4_0;
    far[3] = check_file(&from, engine, &o);
    o.method = RTN_Q8_0;
    far[4] = check_file(&from, engine, &o);
    CHECK(far[0] > far[1] && far[1] > far[2] && far[2] > far[4] && far[3] > far[4] && far[4] < 0.5 && far[4] > 0,
          "logits differ by %g %g %g, q4_0 %g, q8_0 %g", far[0], far[1], far[2], far[3], far[4]);
    close_file(&from);
}

/* A rounded file rounded again has sizes of its own. */
static void check_again(const char *from, const char *to) {
    bp_err e = {0};
    rtn_summary s;
    source in = {0}, out = {0};
    const rtn_options o = {.method = RTN_Q8_0, .out_path = to, .force = true, .source = "test"};
    model *m = source_open(&in, from, &e) ? model_load(in.bytes, in.size, &e) : NULL;
    CHECK(m && gguf_find(m->file, "bitpair.packed_bytes"), "%s", e.text);
    CHECK(m && rtn_write(&o, m, &s, &e) && source_open(&out, to, &e), "%s", e.text);
    model_unload(m);
    m = out.bytes ? model_load(out.bytes, out.size, &e) : NULL;
    CHECK(m && !gguf_find(m->file, "bitpair.packed_bytes") && !gguf_find(m->file, "bitpair.packed_bits"), "%s", e.text);
    model_unload(m);
    source_close(&in);
    source_close(&out);
}

/* The same bytes with one thread; an output that is there; a compressed source. */
static void check_rules(workers *crew) {
    static char path[2][128];
    bp_err e = {0};
    rtn_summary s[2];
    source in = {0}, made[2] = {0};
    model *m = source_open(&in, check_data("models/tinystories-656k"), &e) ? model_load(in.bytes, in.size, &e) : NULL;
    CHECK(m, "%s", e.text);
    for (int i = 0; m && i < 2; i++) {
        snprintf(path[i], sizeof path[i], "%s/threads%d.gguf", folder, i);
        rtn_options o = {.bits = 3, .workers = i ? crew : NULL, .out_path = path[i], .source = "test"};
        CHECK(rtn_write(&o, m, &s[i], &e) && source_open(&made[i], path[i], &e), "%s", e.text);
        CHECK(!rtn_write(&o, m, &s[i], &e) && e.code == BP_ERR_IO, "an existing file is overwritten: %s", e.text);
    }
    CHECK(made[0].size > 0 && made[0].size == made[1].size && memcmp(made[0].bytes, made[1].bytes, made[0].size) == 0,
          "threads change the file");
    for (int i = 0; i < 2; i++) source_close(&made[i]);
    model_unload(m);
    source_close(&in);
    check_again(path[0], path[1]);
    CHECK(source_open(&in, BITPAIR_ROOT "/models/tinystories-656k.gguf", &e), "%s", e.text);
    m = model_load(in.bytes, in.size, &e);
    rtn_options o = {.bits = 3, .out_path = path[0], .force = true, .source = "test"};
    CHECK(m && !rtn_write(&o, m, s, &e) && e.code == BP_ERR_ARGUMENT, "%s", e.text);
    model_unload(m);
    source_close(&in);
}

int main(void) {
    bp_err e = {0};
    bp_engine *engine = bp_engine_open(NULL, &e);
    workers *crew = workers_open(3, &e);
    CHECK(mkdtemp(folder) && engine && crew, "%s", e.text);
    for (uint32_t bits = 2; bits <= 4; bits++) check_groups(bits);
    check_ggml();
    check_files(engine, crew);
    check_rules(crew);
    workers_close(crew);
    bp_engine_close(engine);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "cannot remove %s", folder);
    return check_end();
}
