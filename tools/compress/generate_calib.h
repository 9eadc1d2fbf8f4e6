/* generate_calib.h - text to calibrate and tune on: chats between prompts from files and the dense model itself, whose
 * answers are sampled. Many chats advance at once (decoder.h). The text is the model's own template, one conversation
 * after the other, as calib.h reads it. */
#ifndef BITPAIR_GENERATE_CALIB_H
#define BITPAIR_GENERATE_CALIB_H

#include "engine.h"
#include "model.h"

enum { GENERATE_CALIB_FILES = 16 };

typedef struct {
    const char *prompts; /* files (prompts.h) separated by commas; each begins as many conversations */
    const char *out_path;
    uint64_t tokens;     /* write conversations until they have so many tokens together, templates counted */
    uint64_t max_answer; /* tokens; a longer answer is cut after its last whole sentence */
    /* most tokens of a conversation, 0: 1024 or the model's; prompts without room for an answer are left out */
    uint64_t ctx;
    uint64_t batch;    /* conversations at once: changes which samples are drawn, and the speed */
    uint64_t hold_out; /* N: every Nth prompt of a file is held out; 0: none */
    uint64_t threads, seed;
    double temperature, top_p;
    double follow_ups; /* share of the one-question prompts that get a generic second question */
    bool held_out;     /* use only the prompts that hold_out leaves out */
    bool force, quiet;
} generate_calib_options;

typedef struct {
    uint64_t chats, tokens, bytes;
    uint64_t cut;     /* answers cut at max_answer */
    uint64_t dropped; /* conversations with an empty answer, or with the name of a control token in one */
    uint64_t skipped; /* prompts left out: too long, or with the name of a control token */
    double seconds;
    bool interrupted; /* by SIGINT: what was complete is written */
} generate_calib_result;

/* Writes the file, whole or not at all. `text_side` and `weights` are the same model, opened twice. The same bytes for
 * the same options at any number of threads. Errors: no chat template or one of no known family (BP_ERR_UNSUPPORTED),
 * prompt files (prompts.h), no prompt left of a file, sizes that do not fit (BP_ERR_ARGUMENT), memory, output. */
bool generate_calib_run(const generate_calib_options *o, const bp_model *text_side, const model *weights,
                        generate_calib_result *r, bp_err *e);

#endif
