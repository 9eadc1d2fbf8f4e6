/* calib.h - calibration text: files -> sequences of token ids, spread evenly over each file. */
#ifndef BITPAIR_CALIB_H
#define BITPAIR_CALIB_H

#include "tokenizer.h"

enum { CALIB_FILES = 16, CALIB_LEAST = 8 /* fewest sequences that can be fitted and validated */ };

typedef struct {
    int32_t *ids;  /* [n_seqs, ctx]: training sequences, then those for validation (one in 16) */
    uint8_t *file; /* [n_seqs] which of the files it is from */
    size_t n_seqs, n_val, ctx;
    uint8_t digest[32]; /* SHA-256 of all files, in order */
} calibration;

/* `paths`: file names separated by commas, an equal share of the sequences from each. Control tokens written in the
 * text (<|im_start|>) are taken as such; no BOS is added. Yields fewer than n_seqs sequences where the text is short.
 * Errors name the file: not there, not UTF-8 (with the offset), too short. */
bool calibration_load(calibration *c, const tokenizer *t, const char *paths, size_t n_seqs, size_t ctx, bp_err *e);
void calibration_free(calibration *c);

/* Of so many sequences, how many are for validation. */
size_t calibration_n_val(size_t n_seqs);

#endif
