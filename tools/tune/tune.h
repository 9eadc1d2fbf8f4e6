/* tune.h - distillation end to end: the factorized student learns the full output distribution of its teacher, with
 * Adam on scales and signs, over text. Every step draws how many tiers of the file take part, so that its prefixes stay
 * models. Validation sequences decide what is kept. */
#ifndef BITPAIR_TUNE_H
#define BITPAIR_TUNE_H

#include "compress/calib.h"
#include "compress/container.h"
#include "student.h"

typedef struct {
    double minutes;     /* budget of wall time; 0: steps alone */
    uint64_t steps;     /* budget of steps; 0: minutes alone */
    uint64_t sequences; /* of a step */
    double rate_scales; /* first step of a scale, relative to its vector's mean size */
    double rate_tables; /* first step of an entry of embedding and head, relative to their mean size; 0: fixed */
    uint64_t
        embedding_bits;  /* the teacher's embedding and head are rounded anew to so many planes first; 0: the file's */
    uint64_t scale_bits; /* 8 or 16: how scales of rows and middles are stored; 0: as the file has them */
    uint32_t first_tier; /* 1..: tiers before it, and what they share with it, stay as they are */
    bool tier_scales;    /* every tier gets middle scales of its own */
    bool apart;          /* what several tiers use stays as it is */
    bool signs;          /* signs are trained too */
    double curvature;    /* of a sign, in squares of the gradient of one token; 1 */
    double noise;        /* deviations by which a sign's gain must exceed chance; 4 */
    double labels[CALIB_FILES]; /* of each file: share of the loss that is its next word, not the teacher's words; 0 */
    double tier_weights[MODEL_TIERS]; /* how often a step uses this many tiers; their sum is 1 */
    double validate_every;            /* seconds between validations */
    uint64_t seed;
    uint32_t threads;
    uint64_t max_memory; /* bytes; 0: no limit. Activations are recomputed where they would not fit */
    bool exact;          /* float32 products even where rounded factors are faster (product.h) */
    const char *files;   /* names and digests of teacher and student: a resumed run must have the same */
    bool resume, quiet;
} tune_options;

/* Scores on the validation sequences with a number of tiers. */
typedef struct {
    double loss, kl, ppl, top1; /* loss: what is minimised; the KL where labels are 0 */
} tune_score;

typedef struct {
    tune_score before[MODEL_TIERS], after[MODEL_TIERS]; /* of the tiers with a weight; after: of what was kept */
    uint64_t steps, tokens, best_step;
    uint64_t flipped, signs;
    double seconds;
} tune_result;

/* Tunes `file` (a factorized model) towards `teacher` (a dense one of the same shape) and writes the best result as
 * c->... to out_path through container_write: `c` holds source, recipe and tables; layers are filled in here.
 * BP_ERR_ARGUMENT (shapes differ, a tier is missing), BP_ERR_MEMORY, errors of files; BP_OK in e->code after an
 * interruption. */
bool tune_run(const tune_options *o, const model *teacher, const model *file, const calibration *text, container *c,
              const char *out_path, bool force, tune_result *result, bp_err *e);

#endif
