/* The `bitpair` command: finds the subcommand. */
#include <stdio.h>

#include "cli.h"
#include "cli_suggest.h"
#include "linalg/linalg.h"
#include "manual.h"

static const cli_command COMMANDS[] = {
    {"chat", cmd_chat, "talk with a model", false},
    {"run", cmd_run, "continue a raw prompt", false},
    {"compress", cmd_compress, "make a bitpair file from a model", true},
    {"generate-calib", cmd_generate_calib, "let a model write chats to calibrate on", true},
    {"tune", cmd_tune, "distil the original into a compressed model", true},
    {"eval", cmd_eval, "measure perplexity on a text", false},
    {"bench", cmd_bench, "measure speed", false},
    {"inspect", cmd_inspect, "show what is in a model file", false},
    {"verify", cmd_verify, "check the checksums of a bitpair file", false},
    {"tokenize", cmd_tokenize, "turn a text into token ids", false},
};
enum { N_COMMANDS = sizeof COMMANDS / sizeof COMMANDS[0] };

/* What is made of that table. */
static const struct {
    const char *name;
    int (*run)(const cli_command *commands, size_t n, int argc, char **argv);
} MANUALS[] = {{"man", manual_page}, {"completions", manual_completions}};
enum { N_MANUALS = sizeof MANUALS / sizeof MANUALS[0] };

static void print_usage(FILE *to) {
    fprintf(to,
            "bitpair %s - language models of one or two bits per weight\n\nUsage: bitpair COMMAND ...\n\nCommands:\n",
            BITPAIR_VERSION);
    for (size_t i = 0; i < N_COMMANDS; i++) fprintf(to, "  %-14s %s\n", COMMANDS[i].name, COMMANDS[i].summary);
    fputs("\nMODEL is a GGUF file or a Hugging Face folder with safetensors.\n"
          "Exit codes: 0 done, 1 failed, 2 wrong usage, 130 interrupted.\n"
          "See: bitpair COMMAND --help; bitpair man; bitpair completions bash, zsh or fish\n",
          to);
}

static int unknown_command(const char *word) {
    cli_suggestion best = cli_suggestion_for(word);
    for (size_t i = 0; i < N_COMMANDS; i++) cli_suggestion_offer(&best, COMMANDS[i].name);
    for (size_t i = 0; i < N_MANUALS; i++) cli_suggestion_offer(&best, MANUALS[i].name);
    fprintf(stderr, "bitpair: unknown command '%s'", word);
    if (best.word) fprintf(stderr, ", did you mean '%s'?", best.word);
    fputs("\nSee: bitpair --help\n", stderr);
    return CLI_USAGE;
}

/* Output that did not arrive (a full disk, a closed pipe) is a failure even when everything else went well. */
static int flush_output(int rc) {
    bool lost = ferror(stdout) != 0;
    if (fflush(stdout) != 0) lost = true;
    if (!lost || rc != CLI_OK) return rc;
    fputs("bitpair: cannot write to standard output\n", stderr);
    return CLI_FAILED;
}

/* `bitpair help COMMAND` */
static int help_for(char *word) {
    char *argv[] = {word, (char[]){"--help"}, NULL};
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(word, COMMANDS[i].name) == 0) return flush_output(COMMANDS[i].run(2, argv));
    for (size_t i = 0; i < N_MANUALS; i++)
        if (strcmp(word, MANUALS[i].name) == 0) return flush_output(MANUALS[i].run(COMMANDS, N_COMMANDS, 2, argv));
    return unknown_command(word);
}

int main(int argc, char **argv) {
    if (argc < 2) {
        print_usage(stderr);
        return CLI_USAGE;
    }
    const char *word = argv[1];
    if (strcmp(word, "help") == 0 && argc > 2) return help_for(argv[2]);
    if (strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0 || strcmp(word, "help") == 0) {
        print_usage(stdout);
        return flush_output(CLI_OK);
    }
    if (strcmp(word, "--version") == 0) {
        printf("bitpair %s\n", BITPAIR_VERSION);
        return flush_output(CLI_OK);
    }
    for (size_t i = 0; i < N_MANUALS; i++)
        if (strcmp(word, MANUALS[i].name) == 0)
            return flush_output(MANUALS[i].run(COMMANDS, N_COMMANDS, argc - 1, argv + 1));
    for (size_t i = 0; i < N_COMMANDS; i++)
        if (strcmp(word, COMMANDS[i].name) == 0) {
            if (COMMANDS[i].algebra) linalg_restart_with_best(argv);
            return flush_output(COMMANDS[i].run(argc - 1, argv + 1));
        }
    return unknown_command(word);
}
