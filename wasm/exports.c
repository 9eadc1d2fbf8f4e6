/* exports.c - what JavaScript cannot do over engine.h by itself: fill and read its structs. What else a page
 * needs of engine.h is exported as it is; exports.txt lists both. */
#include "engine.h"

size_t wasm_err_bytes(void) { return sizeof(bp_err); }

uint32_t wasm_err_code(const bp_err *e) { return (uint32_t)e->code; }

double wasm_err_offset(const bp_err *e) { return (double)e->offset; }

const char *wasm_err_text(const bp_err *e) { return e->text; }

bp_engine *wasm_engine_open(uint32_t threads, const char *isa, const char *arith, bp_err *e) {
    bp_engine_options o = {threads, isa, arith};
    return bp_engine_open(&o, e);
}

/* out [7 + BP_TIERS] <- bytes of the whole file, of the header, address of the header's digest (0: no checksums), of the
 * pieces' digests, number of pieces, BP_PIECE, number of tiers, their ends */
bool wasm_header(const void *bytes, size_t size, double *out, bp_err *e) {
    bp_header h;
    if (!bp_header_read(bytes, size, &h, e)) return false;
    const double fields[] = {(double)h.file_size,
                             (double)h.data_offset,
                             (double)(size_t)h.digest,
                             (double)(size_t)h.pieces,
                             h.n_pieces,
                             BP_PIECE,
                             h.n_tiers};
    for (size_t i = 0; i < 7; i++) out[i] = fields[i];
    for (size_t i = 0; i < h.n_tiers; i++) out[7 + i] = (double)h.tier_end[i];
    return true;
}

const char *wasm_model_arch(const bp_model *model) {
    bp_model_info info;
    bp_model_describe(model, &info);
    return info.arch;
}

/* Field of bp_model_info by its place after `arch`; NaN past the last. */
double wasm_model_number(const bp_model *model, uint32_t field) {
    bp_model_info info;
    bp_model_describe(model, &info);
    const double fields[] = {info.n_layers,        info.d_model, info.d_ff,  info.n_heads, info.n_kv_heads,
                             info.head_dim,        info.vocab,   info.n_ctx, info.n_tiers, info.tier,
                             info.bits_per_weight, info.bos,     info.eos};
    return field < sizeof fields / sizeof fields[0] ? fields[field] : __builtin_nan("");
}

/* name [BP_NAME] <- its name; out [7 + 2 BP_STAGES] <- address of its type, rows, columns, planes, stages, stages at hand,
 * bits, then k and bits of each stage. False past the last. */
bool wasm_model_layer(const bp_model *model, uint32_t i, char *name, double *out) {
    bp_layer l;
    if (!bp_model_layer(model, i, &l)) return false;
    const double fields[] = {(double)(size_t)l.type, l.rows, l.columns, l.planes, l.n_stages, l.loaded, (double)l.bits};
    for (size_t j = 0; j < BP_NAME; j++) name[j] = l.name[j];
    for (size_t j = 0; j < 7; j++) out[j] = fields[j];
    for (size_t s = 0; s < BP_STAGES; s++) {
        out[7 + 2 * s] = l.middle[s];
        out[8 + 2 * s] = (double)l.stage_bits[s];
    }
    return true;
}

size_t wasm_session_bytes(const bp_model *model, uint32_t n_ctx, uint32_t chunk, uint32_t kv_bits) {
    bp_session_options o = {n_ctx, chunk, kv_bits};
    return bp_session_bytes(model, &o);
}

bp_session *wasm_session_open(bp_model *model, uint32_t n_ctx, uint32_t chunk, uint32_t kv_bits, bp_err *e) {
    bp_session_options o = {n_ctx, chunk, kv_bits};
    return bp_session_open(model, &o, e);
}

bool wasm_session_sampling(bp_session *session, float temperature, uint32_t top_k, float typical_p, float top_p,
                           float min_p, float repeat_penalty, float frequency_penalty, float presence_penalty,
                           uint32_t repeat_last, const sampler_bias *bias, uint32_t n_bias, uint64_t seed, bp_err *e) {
    sampler_options o = {.temperature = temperature,
                         .top_k = top_k,
                         .typical_p = typical_p,
                         .top_p = top_p,
                         .min_p = min_p,
                         .repeat_penalty = repeat_penalty,
                         .frequency_penalty = frequency_penalty,
                         .presence_penalty = presence_penalty,
                         .repeat_last = repeat_last,
                         .n_bias = n_bias,
                         .bias = bias,
                         .seed = seed};
    return bp_session_sampling(session, &o, e);
}
