#include "generate.h"

#include <stdio.h>
#include <stdlib.h>

generate_options generate_defaults(uint64_t max_tokens) {
    sampler_options s = sampler_defaults();
    return (generate_options){.max_tokens = max_tokens,
                              .top_k = s.top_k,
                              .repeat_last = s.repeat_last,
                              .seed = s.seed,
                              .temperature = (double)s.temperature,
                              .typical_p = (double)s.typical_p,
                              .top_p = (double)s.top_p,
                              .min_p = (double)s.min_p,
                              .repeat_penalty = (double)s.repeat_penalty,
                              .frequency_penalty = (double)s.frequency_penalty,
                              .presence_penalty = (double)s.presence_penalty};
}

/* "ID=BIAS,ID=BIAS" -> bias [SAMPLER_BIASES], *n of them. */
static bool parse_bias(const char *list, sampler_bias *bias, uint32_t *n, bp_err *e) {
    while (list && *list) {
        char *end;
        unsigned long id = strtoul(list, &end, 10);
        bool good = *list >= '0' && *list <= '9' && id <= INT32_MAX && *end == '=' && *n < SAMPLER_BIASES;
        if (good) {
            const char *value = end + 1;
            bias[*n] = (sampler_bias){(int32_t)id, strtof(value, &end)};
            good = end != value && (*end == ',' || !*end);
        }
        if (!good)
            return bp_fail(e, BP_ERR_ARGUMENT, 0, "--logit-bias takes ID=BIAS,..., at most %d of them, not '%s'",
                           SAMPLER_BIASES, list);
        list = *end ? end + 1 : end;
        ++*n;
    }
    return true;
}

int generate_check(const generate_options *o, const char *command) {
    sampler_bias bias[SAMPLER_BIASES];
    uint32_t n = 0;
    bp_err e = {0};
    return parse_bias(o->logit_bias, bias, &n, &e) ? CLI_OK : cli_wrong(command, e.text);
}

bp_session *generate_open(bp_model *model, const generate_options *o, uint64_t kv_bits, bp_err *e) {
    bp_session_options options = {.n_ctx = (uint32_t)o->ctx, .kv_bits = (uint32_t)kv_bits};
    sampler_bias bias[SAMPLER_BIASES];
    sampler_options sampling = {.temperature = o->greedy ? 0.0f : (float)o->temperature,
                                .top_k = (uint32_t)o->top_k,
                                .typical_p = (float)o->typical_p,
                                .top_p = (float)o->top_p,
                                .min_p = (float)o->min_p,
                                .repeat_penalty = (float)o->repeat_penalty,
                                .frequency_penalty = (float)o->frequency_penalty,
                                .presence_penalty = (float)o->presence_penalty,
                                .repeat_last = (uint32_t)o->repeat_last,
                                .bias = bias,
                                .seed = o->seed};
    if (!parse_bias(o->logit_bias, bias, &sampling.n_bias, e)) return NULL;
    bp_session *session = bp_session_open(model, &options, e);
    if (!session || bp_session_sampling(session, &sampling, e)) return session;
    bp_session_close(session);
    return NULL;
}

/* Feeds tokens that fit and notes them. */
static bool feed(bp_session *session, const int32_t *ids, size_t n, int32_t *fed, bp_err *e) {
    uint32_t position = bp_session_position(session);
    if (!bp_session_feed(session, ids, n, e)) return false;
    if (fed) memcpy(fed + position, ids, n * sizeof *ids);
    return true;
}

bool generate_feed(bp_session *session, const int32_t *ids, size_t n, int32_t *fed, generate_stats *stats, bp_err *e) {
    double started = clock_seconds();
    size_t chunk = bp_session_chunk(session), room = bp_session_capacity(session) - bp_session_position(session);
    if (n > room)
        return bp_fail(e, BP_ERR_CONTEXT, 0, "the prompt has %zu tokens, the context has room for %zu: see --ctx", n,
                       room);
    for (size_t i = 0; i < n && !stats->interrupted; i += chunk) {
        if (!feed(session, ids + i, bp_min(chunk, n - i), fed, e)) return false;
        stats->interrupted = cli_interrupted();
    }
    stats->prompt_tokens += n;
    stats->prompt_seconds += clock_seconds() - started;
    return true;
}

/* Where the text of an answer goes, character by character. */
typedef struct {
    const bp_model *model;
    utf8_stream utf8;
    text ready;
    text *answer;
    bool trim;
} printer;

static void print_ready(printer *p) {
    size_t skip = 0;
    while (p->trim && skip < p->ready.size && strchr(" \t\n", p->ready.bytes[skip])) skip++;
    if (skip < p->ready.size) {
        p->trim = false;
        fwrite(p->ready.bytes + skip, 1, p->ready.size - skip, stdout);
        fflush(stdout);
        if (p->answer) text_append(p->answer, p->ready.bytes + skip, p->ready.size - skip);
    }
    text_clear(&p->ready);
}

static void print_token(printer *p, int32_t id) {
    char piece[1024];
    size_t n = bp_min(bp_token_text(p->model, id, false, piece, sizeof piece), sizeof piece);
    utf8_push(&p->utf8, &p->ready, piece, n);
    print_ready(p);
}

bool generate_answer(bp_session *session, const bp_model *model, const generate_options *o, bool trim, text *answer,
                     int32_t *fed, generate_stats *stats, bp_err *e) {
    printer p = {.model = model, .answer = answer, .trim = trim};
    double started = clock_seconds();
    bool ok = true;
    while (!stats->interrupted) {
        int32_t id = bp_session_sample(session, e);
        ok = id >= 0;
        if (!ok || bp_model_is_end(model, id)) break;
        stats->tokens++;
        print_token(&p, id);
        if (stats->tokens == o->max_tokens || ferror(stdout)) break;
        stats->full = bp_session_position(session) == bp_session_capacity(session);
        if (stats->full) break;
        ok = feed(session, &id, 1, fed, e);
        if (!ok) break;
        stats->interrupted = cli_interrupted();
    }
    utf8_end(&p.utf8, &p.ready);
    print_ready(&p);
    stats->seconds += clock_seconds() - started;
    if (p.ready.lost || (answer && answer->lost)) ok = bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the answer");
    text_free(&p.ready);
    return ok;
}

static double rate(size_t tokens, double seconds) { return seconds > 0 ? (double)tokens / seconds : 0; }

void generate_report(const generate_stats *stats) {
    fflush(stdout);
    fprintf(stderr, "prompt %zu tokens, %.1f tok/s; answer %zu tokens, %.1f tok/s%s\n", stats->prompt_tokens,
            rate(stats->prompt_tokens, stats->prompt_seconds), stats->tokens, rate(stats->tokens, stats->seconds),
            stats->full ? " (the context is full: see --ctx)" : "");
}

int32_t *generate_tokenize(const bp_model *model, const char *bytes, size_t size, uint32_t flags, size_t *n,
                           bp_err *e) {
    int32_t *ids = size < SIZE_MAX / 8 ? malloc((size + 8) * sizeof *ids) : NULL;
    if (!ids) {
        bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the tokens of a text of %zu bytes", size);
        return NULL;
    }
    ptrdiff_t count = bp_tokenize(model, bytes, size, flags, ids, size + 8, e);
    if (count < 0) {
        free(ids);
        return NULL;
    }
    *n = (size_t)count;
    return ids;
}
