#include "manual.h"

#include <stdio.h>

/* ---- text -------------------------------------------------------------------------------------------------------- */

/* What main.c's table does not have. */
static const struct {
    const char *name, *summary;
} OTHERS[] = {{"help", "show the options of a command"},
              {"man", "print the manual page"},
              {"completions", "print what makes a shell complete commands and options"}};
enum { N_OTHERS = sizeof OTHERS / sizeof *OTHERS };

/* Inside single quotes of fish. */
static void put_fish(const char *text) {
    for (; *text; text++) {
        if (*text == '\'' || *text == '\\') putchar('\\');
        putchar(*text);
    }
}

/* Inside single quotes of zsh, which a quote ends, in a description, which brackets and colons end. */
static void put_zsh(const char *text) {
    for (; *text; text++) {
        if (*text == '\'') fputs("'\\'", stdout);
        if (strchr("[]:\\", *text)) putchar('\\');
        putchar(*text);
    }
}

/* Each command prints itself by what cli_parse calls for --help. */
static void each_command(const cli_command *commands, size_t n, cli_presenter present) {
    cli_present(present);
    for (size_t i = 0; i < n; i++) {
        char name[64], help[] = "--help";
        snprintf(name, sizeof name, "%s", commands[i].name);
        char *argv[] = {name, help, NULL};
        commands[i].run(2, argv);
    }
}

/* ---- the manual page ----------------------------------------------------------------------------------------------- */

static void put_roff(const char *text) {
    if (*text == '.' || *text == '\'') fputs("\\&", stdout);
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\e", stdout);
        else if (*text == '-')
            fputs("\\-", stdout);
        else
            putchar(*text);
    }
}

static void put_roff_option(char letter, const char *name, const char *metavar, const char *help) {
    fputs(".TP\n", stdout);
    if (letter) printf("\\fB\\-%c\\fR, ", letter);
    fputs("\\fB\\-\\-", stdout);
    put_roff(name);
    fputs("\\fR", stdout);
    if (metavar) {
        fputs(" \\fI", stdout);
        put_roff(metavar);
        fputs("\\fR", stdout);
    }
    putchar('\n');
    put_roff(help);
    putchar('\n');
}

static void present_roff(const cli_spec *spec) {
    printf(".SS bitpair ");
    put_roff(spec->name);
    putchar(' ');
    put_roff(spec->usage);
    putchar('\n');
    put_roff(spec->summary);
    fputs(".\n", stdout);
    for (const cli_option *o = spec->options; o && o->name; o++)
        put_roff_option(o->letter, o->name, o->metavar, o->help);
    if (!spec->examples) return;
    fputs(".PP\nExamples:\n.PP\n.nf\n", stdout);
    for (const char *line = spec->examples; *line;) {
        size_t size = strcspn(line, "\n");
        char text[512];
        snprintf(text, sizeof text, "%.*s", (int)bp_min(size, sizeof text - 1), line);
        put_roff(text);
        putchar('\n');
        line += size + (line[size] == '\n');
    }
    fputs(".fi\n", stdout);
}

static const cli_option NONE[] = {{0}};

int manual_page(const cli_command *commands, size_t n, int argc, char **argv) {
    const cli_spec spec = {.name = "man",
                           .usage = "[> bitpair.1]",
                           .summary = "print the manual page, in roff",
                           .examples = "  bitpair man | man -l -\n"
                                       "  bitpair man > ~/.local/share/man/man1/bitpair.1\n",
                           .options = NONE};
    int rc = cli_parse(&spec, argc, argv, NULL);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    printf(".TH BITPAIR 1 \"\" \"bitpair %s\"\n.SH NAME\nbitpair \\- language models of one or two bits per weight\n"
           ".SH SYNOPSIS\n\\fBbitpair\\fR \\fICOMMAND\\fR ...\n.SH DESCRIPTION\n"
           "MODEL is a GGUF file or a Hugging Face folder with safetensors. Results go to standard output, progress to "
           "standard error. \\fB\\-\\-help\\fR after any command prints its options.\n.SH COMMANDS\n",
           BITPAIR_VERSION);
    each_command(commands, n, present_roff);
    fputs(".SH EXIT STATUS\n0 done, 1 failed, 2 wrong usage, 130 interrupted. The first SIGINT or SIGTERM saves what "
          "can be gone on from, the second ends at once.\n.SH ENVIRONMENT\n.TP\n\\fBNO_COLOR\\fR\n"
          "Messages have no color.\n",
          stdout);
    return CLI_OK;
}

/* ---- completions ------------------------------------------------------------------------------------------------- */

static void present_bash(const cli_spec *spec) {
    printf("        %s) words='--help", spec->name);
    for (const cli_option *o = spec->options; o && o->name; o++) printf(" --%s", o->name);
    fputs("' ;;\n", stdout);
}

static void bash(const cli_command *commands, size_t n) {
    fputs("_bitpair() {\n    local word=${COMP_WORDS[COMP_CWORD]} words= commands='", stdout);
    for (size_t i = 0; i < n; i++) printf("%s ", commands[i].name);
    for (size_t i = 0; i < N_OTHERS; i++) printf("%s ", OTHERS[i].name);
    fputs("'\n    COMPREPLY=()\n    if [ \"$COMP_CWORD\" = 1 ]; then\n"
          "        words=\"$commands --help --version\"\n"
          "    elif [ \"${COMP_WORDS[1]}\" = help ]; then\n        words=$commands\n"
          "    elif [ \"${COMP_WORDS[1]}\" = completions ]; then\n        words='bash zsh fish'\n"
          "    elif [ \"${word#-}\" != \"$word\" ]; then\n        case ${COMP_WORDS[1]} in\n",
          stdout);
    each_command(commands, n, present_bash);
    fputs("        esac\n    fi\n    [ -z \"$words\" ] || COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n}\n"
          "complete -o default -F _bitpair bitpair\n",
          stdout);
}

static void present_zsh(const cli_spec *spec) {
    printf("        %s) _arguments ", spec->name);
    for (const cli_option *o = spec->options; o && o->name; o++) {
        if (o->letter)
            printf("'(-%c --%s)'{-%c,--%s}'[", o->letter, o->name, o->letter, o->name);
        else
            printf("'--%s[", o->name);
        put_zsh(o->help);
        putchar(']');
        if (o->metavar) {
            putchar(':');
            put_zsh(o->metavar);
            fputs(":_files", stdout);
        }
        fputs("' ", stdout);
    }
    fputs("'*:file:_files' ;;\n", stdout);
}

static void zsh(const cli_command *commands, size_t n) {
    fputs("#compdef bitpair\n_bitpair() {\n    local -a commands\n    commands=(", stdout);
    for (size_t i = 0; i < n + N_OTHERS; i++) {
        printf("'%s:", i < n ? commands[i].name : OTHERS[i - n].name);
        put_zsh(i < n ? commands[i].summary : OTHERS[i - n].summary);
        fputs("' ", stdout);
    }
    fputs(")\n    if (( CURRENT == 2 )); then\n        _describe command commands\n"
          "        return\n    fi\n    local command=$words[2]\n    shift words\n    (( CURRENT-- ))\n    case "
          "$command in\n",
          stdout);
    each_command(commands, n, present_zsh);
    fputs("    esac\n}\ncompdef _bitpair bitpair\n", stdout);
}

static void present_fish(const cli_spec *spec) {
    for (const cli_option *o = spec->options; o && o->name; o++) {
        printf("complete -c bitpair -n '__fish_seen_subcommand_from %s' -l %s", spec->name, o->name);
        if (o->letter) printf(" -s %c", o->letter);
        fputs(o->metavar ? " -r -d '" : " -d '", stdout);
        put_fish(o->help);
        fputs("'\n", stdout);
    }
}

static void fish(const cli_command *commands, size_t n) {
    for (size_t i = 0; i < n + N_OTHERS; i++) {
        printf("complete -c bitpair -n __fish_use_subcommand -f -a %s -d '",
               i < n ? commands[i].name : OTHERS[i - n].name);
        put_fish(i < n ? commands[i].summary : OTHERS[i - n].summary);
        fputs("'\n", stdout);
    }
    each_command(commands, n, present_fish);
}

int manual_completions(const cli_command *commands, size_t n, int argc, char **argv) {
    const cli_spec spec = {.name = "completions",
                           .usage = "bash | zsh | fish",
                           .summary = "print what makes a shell complete commands and options",
                           .examples = "  source <(bitpair completions bash)\n"
                                       "  bitpair completions fish > ~/.config/fish/completions/bitpair.fish\n",
                           .options = NONE,
                           .n_positional = 1};
    static const struct {
        const char *name;
        void (*print)(const cli_command *commands, size_t n);
    } SHELLS[] = {{"bash", bash}, {"zsh", zsh}, {"fish", fish}};
    const char *shell;
    int rc = cli_parse(&spec, argc, argv, &shell);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    for (size_t i = 0; i < sizeof SHELLS / sizeof *SHELLS; i++) {
        if (strcmp(shell, SHELLS[i].name) != 0) continue;
        SHELLS[i].print(commands, n);
        return CLI_OK;
    }
    return cli_wrong("completions", "the shell is bash, zsh or fish");
}
