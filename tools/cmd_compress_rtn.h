/* cmd_compress_rtn.h - `bitpair compress --method rtn|q8_0|q4_0`: the baselines of compress/rtn.h. */
#ifndef BITPAIR_CMD_COMPRESS_RTN_H
#define BITPAIR_CMD_COMPRESS_RTN_H

#include "compress/compress.h"

bool compress_rtn_knows(const char *method);

/* The options that apply, for cli_given_besides: --bits and --embedding-bits to rtn alone. */
const char *const *compress_rtn_options(const char *method);

/* Runs it; `refused` is an option that does not apply, or NULL. Returns an exit code. */
int compress_rtn(const compress_options *o, const char *method, double bits, const char *refused);

#endif
