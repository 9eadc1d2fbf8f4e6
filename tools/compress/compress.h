/* compress.h - the loop over blocks: chains, statistics, target, factorization, checkpoint; then the file.
 *
 *     for each block:  norm -> {q k v} -> attention -> {o} -> + -> norm -> {gate up} -> swiglu -> {down} -> +
 *
 * Each {group} shares its input: its statistics are taken over both chains, its layers are factorized, and the student
 * goes on with the result; block_tune.h can fit the layers of the block together then. Weights of outputs come from one
 * backward pass before all blocks (tune/output_weights.h), bits per layer from allocate.h. Gradient tuning of the whole
 * is another command: tune/tune.h. */
#ifndef BITPAIR_COMPRESS_H
#define BITPAIR_COMPRESS_H

#include "calib.h"
#include "container.h"
#include "plan.h"

typedef struct {
    container_summary file;
    size_t calib_tokens;
    double dense_ppl, student_ppl; /* perplexity on the validation sequences */
    double embedding_error;        /* relative squared error of the table; 0 where it is kept */
    double stream_error; /* of the residual stream after the last block, likewise: mean over validation tokens */
    double seconds;
} compress_result;

/* Runs the whole compression of an opened dense model; progress and one line per layer on stderr. `source`:
 * bitpair.source, with the digest of the source. Errors of all parts; BP_OK in e->code after an interruption (finished
 * layers are kept in the work folder). */
bool compress_run(const compress_options *o, const model *m, const calibration *calib, const char *source,
                  compress_result *result, bp_err *e);

#endif
