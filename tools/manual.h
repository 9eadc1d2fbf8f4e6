/* manual.h - what is made of the options' tables besides --help: a manual page, and completions for shells. */
#ifndef BITPAIR_MANUAL_H
#define BITPAIR_MANUAL_H

#include "cli.h"

/* Each writes to stdout; argv[0] is the command's own name. Exit codes as everywhere. */
int manual_page(const cli_command *commands, size_t n, int argc, char **argv);        /* roff: bitpair.1 */
int manual_completions(const cli_command *commands, size_t n, int argc, char **argv); /* argv[1]: bash, zsh, fish */

#endif
