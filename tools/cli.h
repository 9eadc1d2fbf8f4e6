/* cli.h - what the subcommands share: options, progress, errors, interruption. */
#ifndef BITPAIR_CLI_H
#define BITPAIR_CLI_H

#include "err.h"

enum { CLI_OK = 0, CLI_FAILED = 1, CLI_USAGE = 2, CLI_INTERRUPTED = 130 };

typedef enum { CLI_FLAG, CLI_TEXT, CLI_COUNT /* uint64_t */, CLI_REAL /* double */ } cli_kind;

/* One option: `--name VALUE`, `--name=VALUE`, or `-s VALUE`. value points to bool, const char *, uint64_t or double,
 * which holds the default; COUNT and REAL are checked against [low, high] when low < high. */
typedef struct {
    const char *name; /* without dashes; NULL ends a table */
    char letter;      /* 0: none */
    cli_kind kind;
    void *value;
    double low, high;
    const char *metavar; /* "N", "FILE"; NULL for flags */
    const char *help;    /* one line, with the default */
} cli_option;

/* Describes a subcommand for --help. */
typedef struct {
    const char *name;     /* "compress" */
    const char *usage;    /* "MODEL -o OUT.gguf [options]" */
    const char *summary;  /* one sentence */
    const char *examples; /* lines, each beginning with two spaces */
    const cli_option *options;
    size_t n_positional; /* at least so many words besides options */
    size_t n_more;       /* and at most so many more; the caller zeroes the places of those */
} cli_spec;

/* Parses argv[1..]; positional[0..n_positional + n_more) are the words. Returns CLI_OK; CLI_USAGE after printing what
 * is wrong (with a suggestion for a mistyped option); or -1 after printing --help (then exit with CLI_OK). "--" ends
 * the options. */
int cli_parse(const cli_spec *spec, int argc, char **argv, const char **positional);

/* What cli_parse prints for --help; manual.c has others. NULL: the help. */
typedef void (*cli_presenter)(const cli_spec *spec);
void cli_present(cli_presenter present);

/* The first option of a command line that cli_parse took whose name is not in `known` (NULL ends it); NULL: there is
 * none. */
const char *cli_given_besides(const cli_spec *spec, int argc, char **argv, const char *const *known);
/* Was this option given? For those that would be ignored beside others. */
bool cli_given(const cli_spec *spec, int argc, char **argv, const char *name);

/* Prints what is wrong with the options of a command, and where its help is; returns CLI_USAGE. */
int cli_wrong(const char *command, const char *what);

/* Prints `bitpair: TEXT (offset N)` to stderr; returns CLI_FAILED. */
int cli_fail(const bp_err *e);

/* Progress on stderr: percent, rate, ETA, resident memory; one rewritten line on a terminal, a line every 10 seconds
 * otherwise, nothing with
 * --quiet. done and total in any unit. */
typedef struct {
    const char *what;
    double started, printed;
    bool quiet;
} cli_progress;
void cli_progress_begin(cli_progress *p, const char *what, bool quiet);
void cli_progress_update(cli_progress *p, double done, double total, const char *detail);
void cli_progress_end(cli_progress *p);

/* First SIGINT or SIGTERM sets a flag that long loops poll; the second one ends the process at once with 130. */
void cli_catch_interrupt(void);
bool cli_interrupted(void);
void cli_forget_interrupt(void); /* after the flag has been acted upon, e.g. an answer cut short in a chat */

/* A row of main.c's table. */
typedef struct {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is the name; returns an exit code */
    const char *summary;
    bool algebra; /* spends its time in BLAS */
} cli_command;

int cmd_compress(int argc, char **argv);
int cmd_generate_calib(int argc, char **argv);
int cmd_tune(int argc, char **argv);
int cmd_eval(int argc, char **argv);
int cmd_run(int argc, char **argv);
int cmd_chat(int argc, char **argv);
int cmd_bench(int argc, char **argv);
int cmd_inspect(int argc, char **argv);
int cmd_verify(int argc, char **argv);
int cmd_tokenize(int argc, char **argv);

#endif
