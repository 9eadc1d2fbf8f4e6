#include "rtn.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"
#include "io/gguf_write.h"
#include "mathf.h"

/* ---- groups ----------------------------------------------------------------------------------------------------- */

static float highest_magnitude(const float *x, size_t n) {
    float top = 0;
    for (size_t i = 0; i < n; i++) top = fmaxf(top, fabsf(x[i]));
    return top;
}

/* The nearest level, ties to even; adding and subtracting 1.5 2^23 drops the fraction, and vector units like it. */
static float level(float w, float inverse, float low, float high) {
    float x = w * inverse;
    x = x < low ? low : x > high ? high : x;
    return (x + 12582912.0f) - 12582912.0f;
}

static double group_error(const float *w, size_t n, float d, float low, float high) {
    float inverse = d != 0 ? 1 / d : 0;
    double sum = 0;
    for (size_t i = 0; i < n; i++) {
        float miss = w[i] - d * level(w[i], inverse, low, high);
        sum += (double)(miss * miss);
    }
    return sum;
}

/* The scale, as fp16 bits, that misses least. */
static uint16_t choose_scale(const float *w, size_t n, float low, float high) {
    float base = highest_magnitude(w, n) / -low;
    uint16_t best = 0;
    double least = INFINITY;
    for (int i = 0; i < RTN_CANDIDATES; i++) {
        int smaller = i / 2;
        float f = 1.0f - 0.04f * (float)smaller;
        uint16_t half = bp_half_from_float(i % 2 ? -base * f : base * f);
        double error = group_error(w, n, bp_half_to_float(half), low, high);
        if (error < least) {
            least = error;
            best = half;
        }
    }
    return best;
}

static void put_block(uint8_t *out, const float *w, uint16_t half, float low, float high) {
    float d = bp_half_to_float(half), inverse = d != 0 ? 1 / d : 0;
    memcpy(out, &half, 2);
    for (size_t i = 0; i < RTN_BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)level(w[i], inverse, low, high);
}

void rtn_encode_row(uint8_t *out, const float *row, size_t m, uint32_t bits) {
    float low = -(float)(1u << (bits - 1)), high = -low - 1;
    for (size_t at = 0; at < m; at += RTN_GROUP) {
        size_t n = bp_min(RTN_GROUP, m - at);
        uint16_t half = choose_scale(row + at, n, low, high);
        for (size_t i = 0; i < n; i += RTN_BLOCK) {
            put_block(out, row + at + i, half, low, high);
            out += RTN_BLOCK_BYTES;
        }
    }
}

uint64_t rtn_packed_bytes(uint64_t n, uint64_t m, uint32_t bits) {
    return n * ((m * bits + 7) / 8 + 2 * ((m + RTN_GROUP - 1) / RTN_GROUP));
}

/* ---- ggml's blocks ---------------------------------------------------------------------------------------------- */

void rtn_encode_q8_0(uint8_t *out, const float *row, size_t m) {
    for (size_t at = 0; at < m; at += RTN_BLOCK, out += RTN_BLOCK_BYTES) {
        float d = highest_magnitude(row + at, RTN_BLOCK) / 127, inverse = d != 0 ? 1 / d : 0;
        uint16_t half = bp_half_from_float(d);
        memcpy(out, &half, 2);
        for (size_t i = 0; i < RTN_BLOCK; i++) out[2 + i] = (uint8_t)(int8_t)roundf(row[at + i] * inverse);
    }
}

/* d = (the weight of the largest magnitude) / -8; element i in the low nibble of byte i, i + 16 in the high one. */
void rtn_encode_q4_0(uint8_t *out, const float *row, size_t m) {
    for (size_t at = 0; at < m; at += RTN_BLOCK, out += 18) {
        const float *w = row + at;
        float top = 0;
        for (size_t i = 0; i < RTN_BLOCK; i++)
            if (fabsf(w[i]) > fabsf(top)) top = w[i];
        float d = top / -8, inverse = d != 0 ? 1 / d : 0;
        uint16_t half = bp_half_from_float(d);
        memcpy(out, &half, 2);
        for (size_t i = 0; i < RTN_BLOCK / 2; i++) {
            uint32_t low = (uint32_t)fminf(15, w[i] * inverse + 8.5f);
            uint32_t high = (uint32_t)fminf(15, w[i + RTN_BLOCK / 2] * inverse + 8.5f);
            out[2 + i] = (uint8_t)(low | high << 4);
        }
    }
}

/* ---- what becomes of a tensor ----------------------------------------------------------------------------------- */

typedef enum { KEEP, HALF, GROUPS, Q8_0, Q4_0 } form;

static bool ends(gguf_text t, const char *with) {
    size_t n = strlen(with);
    return t.size >= n && memcmp(t.text + t.size - n, with, n) == 0;
}

static bool in_block(const gguf_tensor *t) { return t->name.size > 4 && memcmp(t->name.text, "blk.", 4) == 0; }

static bool is_table(const gguf_tensor *t) {
    return gguf_text_is(t->name, "token_embd.weight") || gguf_text_is(t->name, "output.weight");
}

static bool is_float(const gguf_tensor *t) {
    return t->type == QUANT_F32 || t->type == QUANT_F16 || t->type == QUANT_BF16;
}

/* *bits: of GROUPS. */
static form form_of(const rtn_options *o, const gguf_tensor *t, uint32_t *bits) {
    bool layer = in_block(t) && ends(t->name, ".weight");
    *bits = layer ? o->bits : o->embedding_bits;
    if (t->n_dims != 2 || (!layer && !is_table(t))) return KEEP;
    bool rounds = o->method == RTN_GROUPS && *bits > 0;
    if (!layer && !rounds && !is_float(t)) return KEEP;
    if (t->dims[0] % RTN_BLOCK != 0) return HALF;
    if (rounds) return GROUPS;
    return layer && o->method == RTN_Q4_0 ? Q4_0 : Q8_0;
}

static uint32_t type_of(form f, const gguf_tensor *t) {
    return f == KEEP ? t->type : f == HALF ? QUANT_F16 : f == Q4_0 ? QUANT_Q4_0 : QUANT_Q8_0;
}

/* ---- the file --------------------------------------------------------------------------------------------------- */

typedef struct {
    const rtn_options *o;
    const gguf *g;
    gguf_writer *w;
    const gguf_tensor *tensor; /* at hand */
    form form;
    uint32_t bits;
    size_t row_in, row_out; /* bytes */
    uint8_t *out;           /* the tensor's rows */
    float *rows;            /* [workers][longest row] */
    size_t longest;
} writer;

static void encode_half(uint8_t *out, const float *row, size_t m) {
    for (size_t i = 0; i < m; i++) {
        uint16_t half = bp_half_from_float(row[i]);
        memcpy(out + 2 * i, &half, 2);
    }
}

static void encode_row(void *context, size_t i, uint32_t worker) {
    writer *w = context;
    const gguf_tensor *t = w->tensor;
    size_t m = (size_t)t->dims[0];
    float *row = w->rows + worker * w->longest;
    uint8_t *out = w->out + i * w->row_out;
    quant_dequantize(t->type, (const uint8_t *)gguf_data(w->g, t) + i * w->row_in, row, m);
    if (w->form == GROUPS) rtn_encode_row(out, row, m, w->bits);
    if (w->form == Q8_0) rtn_encode_q8_0(out, row, m);
    if (w->form == Q4_0) rtn_encode_q4_0(out, row, m);
    if (w->form == HALF) encode_half(out, row, m);
}

static bool write_tensor(writer *w, file_out *file, size_t i, bp_err *e) {
    const gguf_tensor *t = &w->g->tensors[i];
    uint64_t bytes = gguf_writer_bytes(w->w, i);
    w->tensor = t;
    w->form = form_of(w->o, t, &w->bits);
    if (w->form == KEEP) return file_append(file, gguf_data(w->g, t), (size_t)bytes, e);
    w->row_in = (size_t)(t->bytes / t->dims[1]);
    w->row_out = (size_t)(bytes / t->dims[1]);
    w->out = malloc((size_t)bytes);
    if (!w->out) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a tensor of %llu bytes", (unsigned long long)bytes);
    workers_for(w->o->workers, (size_t)t->dims[1], encode_row, w);
    bool ok = file_append(file, w->out, (size_t)bytes, e);
    free(w->out);
    return ok;
}

static bool write_tensors(writer *w, file_out *file, uint64_t position, uint64_t total, bp_err *e) {
    static const uint8_t zeros[BP_ALIGN];
    for (size_t i = 0; i < w->g->n_tensors; i++) {
        uint64_t offset = gguf_writer_offset(w->w, i);
        if (!file_append(file, zeros, (size_t)(offset - position), e) || !write_tensor(w, file, i, e)) return false;
        position = offset + gguf_writer_bytes(w->w, i);
        if (w->o->progress && !w->o->progress(w->o->context, position, total)) return false;
    }
    return true;
}

/* Sizes as they would be with B bits a weight: tensors at the alignment, as in the file. */
static void count(writer *w, uint64_t header, rtn_summary *s) {
    uint64_t weights = 0, stored = 0;
    s->packed_bytes = header;
    for (size_t i = 0; i < w->g->n_tensors; i++) {
        const gguf_tensor *t = &w->g->tensors[i];
        uint32_t bits;
        uint64_t bytes = gguf_writer_bytes(w->w, i);
        if (form_of(w->o, t, &bits) == GROUPS) bytes = rtn_packed_bytes(t->dims[1], t->dims[0], bits);
        s->packed_bytes = bp_round_up(s->packed_bytes, BP_ALIGN) + bytes;
        if (!in_block(t) || t->n_dims != 2) continue;
        weights += t->dims[0] * t->dims[1];
        stored += bytes;
    }
    s->packed_bits = weights ? 8 * (double)stored / (double)weights : 0;
}

static bool carries_over(gguf_text name) {
    return !gguf_text_is(name, "general.alignment") && !gguf_text_is(name, "general.file_type") &&
           !gguf_text_begins(name, "split.") && !gguf_text_begins(name, "bitpair.packed_");
}

static void put_keys(writer *w) {
    static const char *const NAMES[] = {"rtn", "q8_0", "q4_0"};
    const rtn_options *o = w->o;
    char recipe[160];
    int used = snprintf(recipe, sizeof recipe, "{\"method\": \"%s\"", NAMES[o->method]);
    if (o->method == RTN_GROUPS)
        snprintf(recipe + used, sizeof recipe - (size_t)used, ", \"bits\": %u, \"group\": %d, \"embedding_bits\": %u}",
                 o->bits, RTN_GROUP, o->embedding_bits);
    else
        snprintf(recipe + used, sizeof recipe - (size_t)used, "}");
    for (uint32_t i = 0; i < w->g->n_keys; i++)
        if (carries_over(w->g->keys[i].name)) gguf_put_key(w->w, &w->g->keys[i]);
    gguf_put_u32(w->w, "general.file_type", o->method == RTN_Q4_0 ? 2 : 7); /* llama.cpp: mostly Q4_0, mostly Q8_0 */
    gguf_put_u32(w->w, "general.quantization_version", 2);
    gguf_put_string(w->w, "bitpair.source", o->source, strlen(o->source));
    gguf_put_string(w->w, "bitpair.recipe", recipe, strlen(recipe));
    if (o->method != RTN_GROUPS) return;
    gguf_put_u64(w->w, "bitpair.packed_bytes", 0);
    gguf_put_f32(w->w, "bitpair.packed_bits", 0);
}

static void put_tensors(writer *w) {
    char name[256];
    uint32_t bits;
    for (size_t i = 0; i < w->g->n_tensors; i++) {
        const gguf_tensor *t = &w->g->tensors[i];
        snprintf(name, sizeof name, "%.*s", (int)bp_min(t->name.size, sizeof name - 1), t->name.text);
        gguf_put_tensor(w->w, name, type_of(form_of(w->o, t, &bits), t), t->n_dims, t->dims);
        if (t->n_dims == 2) w->longest = bp_max(w->longest, (size_t)t->dims[0]);
    }
}

static bool lay_out(writer *w, uint8_t **header, uint64_t *header_size, rtn_summary *s, bp_err *e) {
    put_keys(w);
    put_tensors(w);
    if (!gguf_writer_finish(w->w, BP_ALIGN, header, header_size, &s->bytes, e)) return false;
    count(w, *header_size, s);
    if (w->o->method != RTN_GROUPS) return true;
    free(*header);
    *header = NULL;
    gguf_put_u64(w->w, "bitpair.packed_bytes", s->packed_bytes);
    gguf_put_f32(w->w, "bitpair.packed_bits", (float)s->packed_bits);
    return gguf_writer_finish(w->w, BP_ALIGN, header, header_size, &s->bytes, e);
}

static bool write_file(writer *w, const uint8_t *header, uint64_t header_size, uint64_t full_size, bp_err *e) {
    size_t rows = workers_count(w->o->workers);
    w->rows = malloc(bp_max(1, rows * w->longest) * sizeof *w->rows);
    if (!w->rows) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the rows");
    file_out *file = file_create(w->o->out_path, w->o->force, full_size, e);
    bool ok =
        file && file_append(file, header, (size_t)header_size, e) && write_tensors(w, file, header_size, full_size, e);
    if (ok)
        ok = file_commit(file, e);
    else
        file_discard(file);
    free(w->rows);
    return ok;
}

bool rtn_write(const rtn_options *o, const model *m, rtn_summary *s, bp_err *e) {
    writer w = {.o = o, .g = m->file, .w = gguf_writer_new()};
    uint8_t *header = NULL;
    uint64_t header_size = 0;
    *s = (rtn_summary){0};
    bool ok = w.w || bp_fail(e, BP_ERR_MEMORY, 0, "no memory to lay out the file");
    if (ok && m->factorized) ok = bp_fail(e, BP_ERR_ARGUMENT, 0, "the model is compressed already: give the dense one");
    ok = ok && lay_out(&w, &header, &header_size, s, e) && write_file(&w, header, header_size, s->bytes, e);
    free(header);
    gguf_writer_free(w.w);
    return ok;
}
