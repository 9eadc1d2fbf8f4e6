/* generate.h - prompt in, streaming text out: what `run` and `chat` share. */
#ifndef BITPAIR_GENERATE_H
#define BITPAIR_GENERATE_H

#include "load.h"
#include "text.h"

typedef struct {
    uint64_t max_tokens, ctx, top_k, repeat_last, seed;
    double temperature, typical_p, top_p, min_p, repeat_penalty, frequency_penalty, presence_penalty;
    const char *logit_bias; /* "ID=BIAS,ID=BIAS", or NULL */
    bool greedy, quiet;
} generate_options;

/* The engine's sampling defaults; max_tokens as given. */
generate_options generate_defaults(uint64_t max_tokens);

/* Rows of a cli_option table. */
/* clang-format off */
#define GENERATE_OPTIONS(o)                                                                                            \
    {"max-tokens", 'n', CLI_COUNT, &(o).max_tokens, 1, 1000000, "N", "most tokens (default 256, chat 1024)"},          \
        {"ctx", 'c', CLI_COUNT, &(o).ctx, 0, 1048576, "N", "context in tokens (default: the model's, 2048 at most)"},  \
        {"greedy", 'g', CLI_FLAG, &(o).greedy, 0, 0, NULL, "always the most likely token"},                            \
        {"temperature", 0, CLI_REAL, &(o).temperature, 0, 100, "X", "0 is greedy (default 0.7)"},                      \
        {"top-k", 0, CLI_COUNT, &(o).top_k, 0, 16777216, "N", "only the N most likely; 0: all (default 40)"},          \
        {"typical-p", 0, CLI_REAL, &(o).typical_p, 0, 1, "X", "only the least surprising that reach X (default 1: off)"}, \
        {"top-p", 0, CLI_REAL, &(o).top_p, 0, 1, "X", "only the most likely that reach X together (default 0.95)"},    \
        {"min-p", 0, CLI_REAL, &(o).min_p, 0, 1, "X", "none below X times the best one (default 0.05)"},               \
        {"repeat-penalty", 0, CLI_REAL, &(o).repeat_penalty, 0.01, 100, "X", "1: off (default 1)"},                    \
        {"frequency-penalty", 0, CLI_REAL, &(o).frequency_penalty, -100, 100, "X", "per recent occurrence (default 0)"},   \
        {"presence-penalty", 0, CLI_REAL, &(o).presence_penalty, -100, 100, "X", "per recent token (default 0)"},      \
        {"repeat-last", 0, CLI_COUNT, &(o).repeat_last, 0, 1024, "N", "tokens the penalties look back (default 64)"},  \
        {"logit-bias", 0, CLI_TEXT, &(o).logit_bias, 0, 0, "ID=X,...", "added to tokens' logits; -inf bans one"},       \
        {"seed", 's', CLI_COUNT, &(o).seed, 0, 0, "N", "of the random numbers (default 0)"},                           \
        {"quiet", 'q', CLI_FLAG, &(o).quiet, 0, 0, NULL, "no statistics on stderr"}
/* clang-format on */

/* Is logit_bias well-formed? CLI_OK, or CLI_USAGE after printing what is wrong. */
int generate_check(const generate_options *o, const char *command);

/* A session with the context and sampling of the options; kv_bits as in bp_session_options. BP_ERR_ARGUMENT also for a malformed logit_bias. */
bp_session *generate_open(bp_model *model, const generate_options *o, uint64_t kv_bits, bp_err *e);

typedef struct {
    size_t prompt_tokens, tokens;
    double prompt_seconds, seconds;
    bool interrupted; /* by SIGINT: what was there is printed */
    bool full;        /* stopped because the context is full */
} generate_stats;

/* Feeds ids [n], a part at a time so that SIGINT stops it. fed [capacity of the session] or NULL: fed[p] <- the token
 * at position p, here and below. */
bool generate_feed(bp_session *session, const int32_t *ids, size_t n, int32_t *fed, generate_stats *stats, bp_err *e);

/* Samples until an end token, max_tokens, a full context or SIGINT; prints to stdout as characters become whole.
 * `answer` (may be NULL) receives the same text. trim: drop white space before the first word. */
bool generate_answer(bp_session *session, const bp_model *model, const generate_options *o, bool trim, text *answer,
                     int32_t *fed, generate_stats *stats, bp_err *e);

/* "prompt 37 tokens, 410.2 tok/s; answer 8 tokens, 61.0 tok/s" to stderr. */
void generate_report(const generate_stats *stats);

/* ids (malloc, *n of them) <- tokens of a text. */
int32_t *generate_tokenize(const bp_model *model, const char *bytes, size_t size, uint32_t flags, size_t *n, bp_err *e);

#endif
