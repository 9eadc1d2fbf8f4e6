/* engine_state.c - saved states, forks, shifts, embeddings and scores.
 *
 * A saved state, little endian: state_header | bias [n_bias] | ids, residual stream of the last token (if there is one),
 * per layer and head keys, values and their scales of the used positions | SHA-256 of all before it. */
#include "engine_internal.h"
#include "sha256.h"

enum { STATE_VERSION = 2, DIGEST = 32, SAMPLE = 256 };

static const char STATE_MAGIC[8] = {'b', 'p', 's', 't', 'a', 't', 'e', 0};

typedef struct {
    char magic[8];
    uint32_t version;
    uint32_t header_bytes; /* of this struct */
    uint64_t bytes;        /* of the whole state */
    uint8_t model[DIGEST]; /* fingerprint of the file, its tier and the arithmetic */
    uint32_t n_layers, kv_width, d_model, vocab;
    uint32_t position;
    uint32_t last;     /* 1: the last token's residual stream is there, and with it its logits */
    uint32_t exact;    /* as in session.h */
    uint32_t kv_bits;  /* of the cache */
    uint64_t seed, random;
    float temperature, typical_p, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    uint32_t top_k, repeat_last, n_bias;
} state_header;

_Static_assert(sizeof(state_header) == 144, "no padding: the struct is the format");

/* ---- save and restore ---- */

/* The header names every tensor, and in our files carries the digests of their bytes; of each tensor the first bytes
 * tell plain files of one shape apart. */
static void fingerprint(const bp_model *m, uint8_t digest[DIGEST]) {
    const gguf *file = m->model->file;
    const char *arith = m->engine->arith->name;
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, file->bytes, (size_t)file->data_offset);
    for (uint32_t i = 0; i < file->n_tensors; i++) {
        const void *data = gguf_data(file, &file->tensors[i]);
        if (data) sha256_update(&h, data, bp_min(SAMPLE, (size_t)file->tensors[i].bytes));
    }
    sha256_update(&h, &m->model->tier, sizeof m->model->tier);
    sha256_update(&h, arith, strlen(arith));
    sha256_final(&h, digest);
}

static state_header describe(const bp_session *s) {
    const model_config *c = &s->session.model->config;
    state_header h = {.version = STATE_VERSION,
                      .header_bytes = sizeof h,
                      .bytes = bp_session_save_bytes(s),
                      .n_layers = c->n_layers,
                      .kv_width = c->n_kv_heads * c->head_dim,
                      .d_model = c->d_model,
                      .vocab = c->vocab,
                      .position = s->session.position,
                      .last = s->session.last != UINT32_MAX,
                      .exact = s->session.exact,
                      .kv_bits = s->session.cache->bits};
    const sampler_options *o = sampler_current(s->sampler, &h.random);
    memcpy(h.magic, STATE_MAGIC, sizeof h.magic);
    h.seed = o->seed;
    h.temperature = o->temperature;
    h.typical_p = o->typical_p;
    h.top_p = o->top_p;
    h.min_p = o->min_p;
    h.repeat_penalty = o->repeat_penalty;
    h.frequency_penalty = o->frequency_penalty;
    h.presence_penalty = o->presence_penalty;
    h.top_k = o->top_k;
    h.repeat_last = o->repeat_last;
    h.n_bias = o->n_bias;
    fingerprint(s->model, h.model);
    return h;
}

static sampler_options sampling_of(const state_header *h, const sampler_bias *bias) {
    return (sampler_options){.temperature = h->temperature,
                             .top_k = h->top_k,
                             .typical_p = h->typical_p,
                             .top_p = h->top_p,
                             .min_p = h->min_p,
                             .repeat_penalty = h->repeat_penalty,
                             .frequency_penalty = h->frequency_penalty,
                             .presence_penalty = h->presence_penalty,
                             .repeat_last = h->repeat_last,
                             .n_bias = h->n_bias,
                             .bias = bias,
                             .seed = h->seed};
}

size_t bp_session_save_bytes(const bp_session *s) {
    uint64_t random;
    return sizeof(state_header) + sampler_current(s->sampler, &random)->n_bias * sizeof(sampler_bias) +
           session_state_bytes(&s->session, s->session.position, s->session.last != UINT32_MAX) + DIGEST;
}

bool bp_session_save(const bp_session *s, void *out, size_t capacity, bp_err *e) {
    state_header h = describe(s);
    uint8_t *at = out;
    uint64_t random;
    if (capacity < h.bytes)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the state needs %llu bytes, not %zu", (unsigned long long)h.bytes,
                       capacity);
    memcpy(at, &h, sizeof h);
    at += sizeof h;
    size_t biases = h.n_bias * sizeof(sampler_bias);
    if (biases) memcpy(at, sampler_current(s->sampler, &random)->bias, biases);
    session_state_save(&s->session, at + biases);
    sha256_digest(out, (size_t)h.bytes - DIGEST, (uint8_t *)out + h.bytes - DIGEST);
    return true;
}

/* Is it a whole, undamaged state? Fills *h. */
static bool check_bytes(const uint8_t *bytes, size_t size, state_header *h, bp_err *e) {
    uint8_t digest[DIGEST];
    if (size < sizeof *h + DIGEST || memcmp(bytes, STATE_MAGIC, sizeof STATE_MAGIC) != 0)
        return bp_fail(e, BP_ERR_FORMAT, 0, "these %zu bytes are not a saved session", size);
    memcpy(h, bytes, sizeof *h);
    if (h->version != STATE_VERSION || h->header_bytes != sizeof *h)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 8, "the saved session is of version %u, this build reads %d",
                       (unsigned)h->version, STATE_VERSION);
    if (h->bytes != size)
        return bp_fail(e, BP_ERR_FORMAT, 16, "the saved session has %llu bytes, %zu are here",
                       (unsigned long long)h->bytes, size);
    sha256_digest(bytes, size - DIGEST, digest);
    if (memcmp(digest, bytes + size - DIGEST, DIGEST) != 0)
        return bp_fail(e, BP_ERR_CHECKSUM, 0, "the saved session does not match its checksum: it is damaged");
    return true;
}

/* Does it belong to this model, and fit? Its size is computed only once the counts in it are known to be small. */
static bool check_model(const bp_session *s, const state_header *h, bp_err *e) {
    const model_config *c = &s->session.model->config;
    uint8_t digest[DIGEST];
    fingerprint(s->model, digest);
    if (memcmp(digest, h->model, DIGEST) != 0 || h->n_layers != c->n_layers ||
        h->kv_width != c->n_kv_heads * c->head_dim || h->d_model != c->d_model || h->vocab != c->vocab)
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "the saved session belongs to another model, tier or arithmetic (%u layers, width %u)",
                       (unsigned)h->n_layers, (unsigned)h->d_model);
    if (h->kv_bits != s->session.cache->bits)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the saved session has a cache of %u bits, this one has %u",
                       (unsigned)h->kv_bits, (unsigned)s->session.cache->bits);
    if (h->position > s->session.n_ctx)
        return bp_fail(e, BP_ERR_CONTEXT, 0, "the saved session has %u tokens, this one room for %u",
                       (unsigned)h->position, (unsigned)s->session.n_ctx);
    if (h->n_bias > SAMPLER_BIASES || h->last > 1 ||
        h->bytes != sizeof *h + h->n_bias * sizeof(sampler_bias) +
                        session_state_bytes(&s->session, h->position, h->last != 0) + DIGEST)
        return bp_fail(e, BP_ERR_FORMAT, 0, "the saved session contradicts itself");
    return true;
}

bool bp_session_restore(bp_session *s, const void *bytes, size_t size, bp_err *e) {
    state_header h;
    sampler_bias bias[SAMPLER_BIASES];
    if (!check_bytes(bytes, size, &h, e) || !check_model(s, &h, e)) return false;
    const uint8_t *at = (const uint8_t *)bytes + sizeof h;
    memcpy(bias, at, h.n_bias * sizeof *bias);
    at += h.n_bias * sizeof *bias;
    for (uint32_t i = 0; i < h.position; i++) {
        int32_t id;
        memcpy(&id, at + i * sizeof id, sizeof id);
        if (id < 0 || (uint32_t)id >= h.vocab)
            return bp_fail(e, BP_ERR_FORMAT, 0, "the saved session holds token id %d, outside the vocabulary", (int)id);
    }
    sampler_options o = sampling_of(&h, bias);
    if (!sampler_check(&o, h.vocab, e)) return false;
    if (!session_state_sound(&s->session, h.position, h.last != 0, at))
        return bp_fail(e, BP_ERR_FORMAT, 0, "the saved session holds keys or values that are no finite numbers");
    session_state_load(&s->session, h.position, h.last != 0, at);
    s->session.exact = h.exact;
    sampler_resume(s->sampler, &o, h.random);
    engine_grammar_rewind(&s->grammar, 0); /* another text: a grammar, if there is one, begins with the next sample */
    return true;
}

bp_session *bp_session_fork(const bp_session *s, bp_err *e) {
    bp_session_options o = {s->session.n_ctx, s->session.chunk, s->session.cache->bits};
    bp_session *copy = bp_session_open(s->model, &o, e);
    if (!copy) return NULL;
    uint64_t random;
    const sampler_options *sampling = sampler_current(s->sampler, &random);
    session_copy(&copy->session, &s->session);
    sampler_resume(copy->sampler, sampling, random);
    return copy;
}

const int32_t *bp_session_tokens(const bp_session *s) { return s->session.ids; }

/* ---- a full context ---- */

bool bp_session_shift(bp_session *s, uint32_t keep, uint32_t drop, bp_err *e) {
    uint32_t position = s->session.position;
    if (drop >= position || keep >= position - drop)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "cannot keep %u tokens and drop %u of %u: some must remain after them",
                       (unsigned)keep, (unsigned)drop, (unsigned)position);
    if (drop == 0) return true;
    if (!engine_grammar_shift(&s->grammar, s->session.ids, position, keep, drop, e)) return false;
    session_shift(&s->session, keep, drop);
    return true;
}

uint32_t bp_session_exact(const bp_session *s) { return (uint32_t)bp_min(s->session.exact, s->session.position); }

/* ---- scores and embeddings ---- */

bool bp_session_score(bp_session *s, const int32_t *ids, size_t n, float *logprobs, bp_err *e) {
    if (!engine_check_feed(&s->session, ids, n, e)) return false;
    if (n == 0) return true;
    const float *before = session_last_logits(&s->session);
    logprobs[0] = before ? sampler_logprob(before, s->session.model->config.vocab, ids[0]) : 0.0f;
    for (size_t at = 0, step; at < n; at += step) {
        step = bp_min(n - at, s->session.chunk);
        session_forward_scores(&s->session, ids + at, step, ids + at + 1, bp_min(step, n - at - 1), logprobs + at + 1);
    }
    return true;
}

bool bp_session_embed(bp_session *s, const int32_t *ids, size_t n, bp_pooling pooling, float *out, bp_err *e) {
    size_t width = s->session.model->config.d_model;
    if (n == 0) return bp_fail(e, BP_ERR_ARGUMENT, 0, "an embedding needs at least one token");
    if (!engine_check_feed(&s->session, ids, n, e)) return false;
    for (size_t i = 0; i < width; i++) out[i] = 0;
    for (size_t at = 0, step; at < n; at += step) {
        step = bp_min(n - at, s->session.chunk);
        session_forward(&s->session, ids + at, step, NULL);
        for (size_t row = 0; pooling == BP_POOL_MEAN && row < step; row++) {
            const float *hidden = session_hidden(&s->session, row);
            for (size_t i = 0; i < width; i++) out[i] += hidden[i];
        }
    }
    if (pooling == BP_POOL_MEAN)
        for (size_t i = 0; i < width; i++) out[i] /= (float)n;
    else
        memcpy(out, session_hidden(&s->session, s->session.last), width * sizeof *out);
    return true;
}

bool bp_session_logprob(bp_session *s, int32_t id, float *logprob, bp_err *e) {
    uint32_t vocab = s->session.model->config.vocab;
    const float *logits = session_last_logits(&s->session);
    if (!logits) return bp_fail(e, BP_ERR_ARGUMENT, 0, "there are no logits: feed a token first");
    if (id < 0 || (uint32_t)id >= vocab)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "token id %d is outside the vocabulary of %u", (int)id, (unsigned)vocab);
    *logprob = sampler_logprob(logits, vocab, id);
    return true;
}

bool bp_session_alternatives(bp_session *s, size_t n, sampler_alternative *out, bp_err *e) {
    uint32_t vocab = s->session.model->config.vocab;
    const float *logits = session_last_logits(&s->session);
    if (!logits) return bp_fail(e, BP_ERR_ARGUMENT, 0, "there are no logits: feed a token first");
    if (n > vocab)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "%zu alternatives are more than the vocabulary of %u", n,
                       (unsigned)vocab);
    sampler_alternatives(s->sampler, logits, n, out);
    return true;
}
