/* cmd_compress_rtn.h - `bitpair compress --method rtn|q8_0|q4_0`: the baselines of compress/rtn.h. */
#ifndef BITPAIR_CMD_COMPRESS_RTN_H
#define BITPAIR_CMD_COMPRESS_RTN_H

#include "compress/compress.h"

bool compress_rtn_knows(const char *method);

/* Runs it with the options that apply (output, embedding_bits, threads, force, json, quiet); others are refused, staged:
 * --stages or --extend. Returns an exit code. */
int compress_rtn(const compress_options *o, const char *method, double bits, bool staged);

#endif
