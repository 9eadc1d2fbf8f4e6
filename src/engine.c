#include "engine_internal.h"
#include "platform.h"
#include "sha256.h"

enum { CHUNK_PER_THREAD = 32, DEFAULT_CONTEXT = 2048, DEFAULT_KV_BITS = 8 };

_Static_assert((int)BP_TIERS == (int)MODEL_TIERS, "a header lists every tier that a model can have");

/* ---- engine ---- */

static bool is(const char *a, const char *b) { return strlen(a) == strlen(b) && memcmp(a, b, strlen(a)) == 0; }

static bool choose_arith(bp_engine *g, const char *name, bp_err *e) {
    if (!name || is(name, g->kernels->lut8.name))
        g->arith = &g->kernels->lut8;
    else if (is(name, g->kernels->popcount.name))
        g->arith = &g->kernels->popcount;
    else
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "unknown arithmetic '%s': lut8 or popcount", name);
    return true;
}

static bool engine_init(bp_engine *g, const bp_engine_options *o, bp_err *e) {
    uint32_t threads = o->threads ? o->threads : 1;
    if (threads > POOL_THREADS)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "threads must be 1..%d, not %u", POOL_THREADS, (unsigned)threads);
    g->kernels = kernel_table_for(o->isa);
    if (!g->kernels)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "no kernels for '%s' in this build or on this machine", o->isa);
    if (!choose_arith(g, o->arith, e)) return false;
    g->pool = pool_open(threads);
    return g->pool || bp_fail(e, BP_ERR_MEMORY, 0, "cannot start %u threads", (unsigned)threads);
}

bp_engine *bp_engine_open(const bp_engine_options *options, bp_err *e) {
    static const bp_engine_options defaults = {0};
    bp_engine *g = platform_alloc(sizeof *g);
    if (g && engine_init(g, options ? options : &defaults, e)) return g;
    if (!g) bp_fail(e, BP_ERR_MEMORY, 0, "no memory for an engine");
    platform_free(g);
    return NULL;
}

void bp_engine_close(bp_engine *engine) {
    if (!engine) return;
    pool_close(engine->pool);
    platform_free(engine);
}

void bp_engine_thread(bp_engine *engine, uint32_t index) { pool_thread(engine->pool, index); }

uint32_t bp_engine_threads(const bp_engine *engine) { return pool_threads(engine->pool); }

const char *bp_engine_isa(const bp_engine *engine) { return engine->kernels->isa; }

const char *bp_engine_arith(const bp_engine *engine) { return engine->arith->name; }

void bp_warm(void) {
    const kernel_table *kernels = kernel_table_for(NULL);
    void *memory = platform_alloc(kernel_warm_bytes(kernels));
    if (memory) kernel_warm(kernels, memory);
    platform_free(memory);
}

/* ---- model ---- */

int bp_probe(const void *bytes, size_t size, uint64_t *file_size, uint64_t *data_offset, bp_err *e) {
    switch (gguf_probe(bytes, size, file_size, data_offset, e)) {
    case GGUF_READY:
        return 1;
    case GGUF_MORE:
        return 0;
    default:
        return -1;
    }
}

static bool open_tokenizer(bp_model *m, bp_err *e) {
    arena a = arena_measure();
    if (!tokenizer_open(&m->tokenizer, &a, m->model->file, e)) return false;
    m->memory = platform_alloc(a.used);
    if (!m->memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tokenizer (%zu bytes)", a.used);
    a = arena_over(m->memory, a.used);
    if (!tokenizer_open(&m->tokenizer, &a, m->model->file, e)) return false;
    if (tokenizer_size(m->tokenizer) <= m->model->config.vocab) return true;
    return bp_fail(e, BP_ERR_FORMAT, 0, "tokenizer has %u tokens, the embedding %u rows",
                   (unsigned)tokenizer_size(m->tokenizer), (unsigned)m->model->config.vocab);
}

/* Takes `weights` over; NULL: they could not be opened. */
static bp_model *open_model(bp_engine *engine, model *weights, bp_err *e) {
    if (!weights) return NULL;
    bp_model *m = platform_alloc(sizeof *m);
    if (!m) {
        model_unload(weights);
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a model");
        return NULL;
    }
    m->engine = engine;
    m->model = weights;
    if (open_tokenizer(m, e)) return m;
    bp_model_close(m);
    return NULL;
}

bp_model *bp_model_open(bp_engine *engine, const void *bytes, size_t size, bp_err *e) {
    return open_model(engine, model_load(bytes, size, e), e);
}

bp_model *bp_model_open_tiers(bp_engine *engine, const void *bytes, size_t size, uint32_t tier, bp_err *e) {
    return open_model(engine, model_load_tiers(bytes, size, tier, e), e);
}

bp_model *bp_model_preview(bp_engine *engine, const void *bytes, size_t size, size_t file_size, bp_err *e) {
    return open_model(engine, model_preview(bytes, size, file_size, e), e);
}

bool bp_model_raise_tier(bp_model *m, uint32_t tier, bp_err *e) { return model_raise(m->model, tier, e); }

void bp_model_close(bp_model *m) {
    if (!m) return;
    grammar_vocabulary_close(m->vocabulary);
    model_unload(m->model);
    platform_free(m->memory);
    platform_free(m);
}

void bp_model_describe(const bp_model *m, bp_model_info *info) {
    static const char *const names[] = {"llama", "qwen2", "qwen3"};
    const model_config *c = &m->model->config;
    uint32_t last = m->model->tier ? m->model->tier - 1 : 0;
    *info = (bp_model_info){.arch = names[c->arch],
                            .n_layers = c->n_layers,
                            .d_model = c->d_model,
                            .d_ff = c->d_ff,
                            .n_heads = c->n_heads,
                            .n_kv_heads = c->n_kv_heads,
                            .head_dim = c->head_dim,
                            .vocab = c->vocab,
                            .n_ctx = c->n_ctx,
                            .n_tiers = m->model->n_tiers,
                            .tier = m->model->tier,
                            .bits_per_weight = (double)m->model->tier_bits[last] / (double)m->model->linear_weights,
                            .bos = tokenizer_bos(m->tokenizer),
                            .eos = tokenizer_eos(m->tokenizer)};
}

const char *bp_model_string(const bp_model *m, const char *key, size_t *size) {
    gguf_text text;
    if (!gguf_string(m->model->file, key, &text)) return NULL;
    *size = text.size;
    return text.text;
}

bool bp_model_tier(const bp_model *m, uint32_t i, uint64_t *end, double *bits_per_weight) {
    if (i >= m->model->n_tiers) return false;
    *end = m->model->tier_end[i];
    *bits_per_weight = (double)m->model->tier_bits[i] / (double)m->model->linear_weights;
    return true;
}

/* ---- checksums ---- */

static bool verify_header(const uint8_t *bytes, const bp_header *header, bp_err *e) {
    static const uint8_t zeros[32];
    uint8_t found[32];
    if (!header->digest) return true;
    size_t before = (size_t)(header->digest - bytes), size = (size_t)header->data_offset;
    sha256 h;
    sha256_init(&h);
    sha256_update(&h, bytes, before);
    sha256_update(&h, zeros, sizeof zeros);
    sha256_update(&h, bytes + before + 32, size - before - 32);
    sha256_final(&h, found);
    return memcmp(found, header->digest, 32) == 0 ||
           bp_fail(e, BP_ERR_CHECKSUM, 0, "the header does not match its checksum: the file is damaged");
}

static bool read_digests(const gguf *g, bp_header *h, bp_err *e) {
    const gguf_key *header = gguf_find(g, "bitpair.header_sha256"), *pieces = gguf_find(g, "bitpair.piece_sha256");
    uint64_t n = (g->full_size - g->data_offset + BP_PIECE - 1) / BP_PIECE;
    if (!header && !pieces) return true; /* a plain GGUF */
    if (!header || !pieces)
        return bp_fail(e, BP_ERR_FORMAT, 0,
                       "of 'bitpair.header_sha256' and 'bitpair.piece_sha256' only one is there: the file is damaged");
    if (header->kind != GGUF_ARRAY || header->item != GGUF_U8 || header->count != 32 || pieces->kind != GGUF_ARRAY ||
        pieces->item != GGUF_U8)
        return bp_fail(e, BP_ERR_FORMAT, 0, "malformed checksum keys");
    if (pieces->count != 32 * n)
        return bp_fail(e, BP_ERR_FORMAT, 0, "key 'bitpair.piece_sha256' does not cover the file");
    h->digest = header->data;
    h->pieces = pieces->data;
    h->n_pieces = (uint32_t)n;
    return true;
}

static bool read_header(const gguf *g, bp_header *h, bp_err *e) {
    *h = (bp_header){.file_size = g->full_size, .data_offset = g->data_offset};
    if (g->size < g->data_offset) return bp_fail(e, BP_ERR_FORMAT, g->size, "file is truncated inside its header");
    return read_digests(g, h, e) && model_tiers(g, h->tier_end, &h->n_tiers, e);
}

bool bp_header_parse(const void *bytes, size_t size, bp_header *header, bp_err *e) {
    gguf g;
    arena a = arena_measure();
    if (!gguf_open(&g, &a, bytes, size, e)) return false;
    void *memory = platform_alloc(a.used);
    if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tensor table");
    a = arena_over(memory, a.used);
    bool good = gguf_open(&g, &a, bytes, size, e) && read_header(&g, header, e);
    platform_free(memory);
    return good;
}

bool bp_header_read(const void *bytes, size_t size, bp_header *header, bp_err *e) {
    return bp_header_parse(bytes, size, header, e) && verify_header(bytes, header, e);
}

bool bp_piece_good(const void *bytes, size_t size, const uint8_t *digest) {
    uint8_t found[32];
    sha256_digest(bytes, size, found);
    return memcmp(found, digest, 32) == 0;
}

static bool verify_pieces(const uint8_t *bytes, size_t size, const bp_header *h, bp_err *e) {
    for (uint32_t i = 0; i < h->n_pieces; i++) {
        uint64_t start = h->data_offset + (uint64_t)i * BP_PIECE;
        uint64_t end = start + BP_PIECE < h->file_size ? start + BP_PIECE : h->file_size;
        if (end > size) break; /* a prefix: what is not at hand cannot be checked */
        if (!bp_piece_good(bytes + start, (size_t)(end - start), h->pieces + 32 * (size_t)i))
            return bp_fail(e, BP_ERR_CHECKSUM, start, "piece %u does not match its checksum: the file is damaged",
                           (unsigned)i);
    }
    return true;
}

bool bp_verify(const void *bytes, size_t size, bp_err *e) {
    bp_header h;
    if (!bp_header_read(bytes, size, &h, e)) return false;
    if (!h.digest) return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the file carries no checksums (a plain GGUF)");
    return verify_pieces(bytes, size, &h, e);
}

/* ---- text ---- */

ptrdiff_t bp_tokenize(const bp_model *m, const char *text, size_t n, uint32_t flags, int32_t *ids, size_t capacity,
                      bp_err *e) {
    size_t n_ids = 0;
    if (capacity < n || capacity - n < 8) {
        bp_fail(e, BP_ERR_ARGUMENT, 0, "capacity for %zu bytes of text must be %zu ids, not %zu", n, n + 8, capacity);
        return -1;
    }
    void *scratch = platform_alloc(tokenizer_scratch(m->tokenizer, n));
    if (!scratch) {
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory to tokenize %zu bytes", n);
        return -1;
    }
    bool good = tokenizer_encode(m->tokenizer, text, n, flags, scratch, ids, &n_ids, e);
    platform_free(scratch);
    return good ? (ptrdiff_t)n_ids : -1;
}

size_t bp_token_text(const bp_model *m, int32_t id, bool special, char *out, size_t capacity) {
    return bp_min(tokenizer_piece(m->tokenizer, id, special, out, capacity), capacity);
}

bool bp_model_is_end(const bp_model *m, int32_t id) { return tokenizer_is_end(m->tokenizer, id); }

/* ---- session ---- */

static session_options resolve(const bp_model *m, const bp_session_options *o) {
    uint32_t trained = m->model->config.n_ctx;
    session_options r = {o && o->n_ctx ? o->n_ctx : (uint32_t)bp_min(trained, DEFAULT_CONTEXT), o ? o->chunk : 0,
                         o && o->kv_bits ? o->kv_bits : DEFAULT_KV_BITS};
    if (!r.chunk) r.chunk = CHUNK_PER_THREAD * pool_threads(m->engine->pool);
    r.chunk = (uint32_t)bp_min(r.chunk, r.n_ctx);
    return r;
}

static bool resolved_ok(const bp_model *m, const session_options *r, bp_err *e) {
    uint32_t trained = m->model->config.n_ctx;
    if (r->n_ctx > trained)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "a context of %u is more than the model's %u", (unsigned)r->n_ctx,
                       (unsigned)trained);
    if (r->kv_bits != 8 && r->kv_bits != 16)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "a cache has 8 or 16 bits, not %u", (unsigned)r->kv_bits);
    return r->chunk <= 4096 ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "a chunk of %u tokens is more than 4096", (unsigned)r->chunk);
}

static void layout(bp_session **out, arena *a, const bp_model *m, const session_options *r) {
    bp_session *s = ARENA_NEW(a, bp_session, 1), measured;
    bp_session *at = s ? s : &measured;
    at->sampler = sampler_layout(a, m->model->config.vocab);
    at->scratch = ARENA_NEW(a, float, m->model->config.vocab);
    session_layout(&at->session, a, m->model, m->engine->pool, m->engine->kernels, m->engine->arith, r);
    *out = s;
}

size_t bp_session_bytes(const bp_model *m, const bp_session_options *options) {
    session_options r = resolve(m, options);
    bp_session *none;
    arena a = arena_measure();
    if (!resolved_ok(m, &r, NULL)) return 0;
    layout(&none, &a, m, &r);
    return a.overflow ? 0 : a.used;
}

bp_session *bp_session_open(bp_model *m, const bp_session_options *options, bp_err *e) {
    session_options r = resolve(m, options);
    if (!resolved_ok(m, &r, e)) return NULL;
    size_t bytes = bp_session_bytes(m, options);
    void *memory = bytes ? platform_alloc(bytes) : NULL;
    if (!memory) {
        bp_fail(e, BP_ERR_MEMORY, 0, "no memory for a session of %u positions (%zu bytes)", (unsigned)r.n_ctx, bytes);
        return NULL;
    }
    arena a = arena_over(memory, bytes);
    bp_session *s;
    layout(&s, &a, m, &r);
    s->model = m;
    return s;
}

void bp_session_close(bp_session *s) {
    if (!s) return;
    grammar_close(s->grammar.grammar);
    platform_free(s); /* the first block of its own arena */
}

bool engine_check_feed(const session *s, const int32_t *ids, size_t n, bp_err *e) {
    if (n > s->n_ctx - s->position)
        return bp_fail(e, BP_ERR_CONTEXT, 0, "%zu tokens do not fit: %u of %u positions are taken", n,
                       (unsigned)s->position, (unsigned)s->n_ctx);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= s->model->config.vocab)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "token id %d is outside the vocabulary of %u", (int)ids[i],
                           (unsigned)s->model->config.vocab);
    return true;
}

static bool feed(bp_session *s, const int32_t *ids, size_t n, float *logits, bp_err *e) {
    if (!engine_check_feed(&s->session, ids, n, e)) return false;
    size_t vocab = s->session.model->config.vocab;
    for (size_t at = 0, step; at < n; at += step) {
        step = bp_min(n - at, s->session.chunk);
        session_forward(&s->session, ids + at, step, logits ? logits + at * vocab : NULL);
    }
    return true;
}

bool bp_session_feed(bp_session *s, const int32_t *ids, size_t n, bp_err *e) { return feed(s, ids, n, NULL, e); }

bool bp_session_feed_begin(bp_session *s, const int32_t *ids, size_t n, bp_err *e) {
    if (n < 1 || n > s->session.chunk)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "%zu tokens in parts: between 1 and %u are possible", n,
                       (unsigned)s->session.chunk);
    if (!engine_check_feed(&s->session, ids, n, e)) return false;
    session_forward_begin(&s->session, ids, n);
    return true;
}

uint32_t bp_session_feed_layers(bp_session *s, uint32_t layers) { return session_forward_on(&s->session, layers); }

bool bp_session_feed_all(bp_session *s, const int32_t *ids, size_t n, float *logits, bp_err *e) {
    return feed(s, ids, n, logits, e);
}

uint32_t bp_session_position(const bp_session *s) { return s->session.position; }

uint32_t bp_session_capacity(const bp_session *s) { return s->session.n_ctx; }

uint32_t bp_session_chunk(const bp_session *s) { return s->session.chunk; }

uint32_t bp_session_kv_bits(const bp_session *s) { return s->session.cache->bits; }

void bp_session_profile(bp_session *s, profile *profiles) { session_profile(&s->session, profiles); }

bool bp_session_rewind(bp_session *s, uint32_t position, bp_err *e) {
    if (position > s->session.position)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "cannot rewind to %u: the session is at %u", (unsigned)position,
                       (unsigned)s->session.position);
    session_rewind(&s->session, position);
    engine_grammar_rewind(&s->grammar, position);
    return true;
}

const float *bp_session_logits(bp_session *s) { return session_last_logits(&s->session); }

bool bp_session_sampling(bp_session *s, const sampler_options *options, bp_err *e) {
    if (!sampler_check(options, s->session.model->config.vocab, e)) return false;
    sampler_reset(s->sampler, options);
    return true;
}

bool bp_session_grammar(bp_session *s, const char *gbnf, size_t n, bp_err *e) {
    return engine_grammar_set(&s->grammar, &s->model->vocabulary, s->model->tokenizer, gbnf, n, e);
}

int32_t bp_session_sample(bp_session *s, bp_err *e) {
    const float *logits = bp_session_logits(s);
    if (!logits) {
        bp_fail(e, BP_ERR_ARGUMENT, 0, "there are no logits: feed a token first");
        return -1;
    }
    size_t vocab = s->session.model->config.vocab;
    profile *time = s->session.threads[0].work.profile;
    profile_start(time);
    memcpy(s->scratch, logits, vocab * sizeof *logits);
    if (!engine_grammar_mask(&s->grammar, s->scratch, vocab, s->session.ids, s->session.position, e)) return -1;
    int32_t id = sampler_pick(s->sampler, s->scratch, s->session.ids, s->session.position);
    id = engine_grammar_choice(&s->grammar, id);
    profile_mark(time, PROFILE_SAMPLING);
    return id;
}
