#include "cli.h"

#include <errno.h>
#include <math.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <unistd.h>

#include "cli_suggest.h"

/* ---- messages --------------------------------------------------------------------------------------------------- */

int cli_fail(const bp_err *e) {
    const char *no_color = getenv("NO_COLOR"), *term = getenv("TERM");
    bool color = isatty(STDERR_FILENO) && !(no_color && no_color[0]) && term && strcmp(term, "dumb") != 0;
    fflush(stdout);
    fprintf(stderr, color ? "\033[1;31mbitpair:\033[0m %s" : "bitpair: %s", e->text);
    if (e->offset) fprintf(stderr, " (offset %llu)", (unsigned long long)e->offset);
    fputc('\n', stderr);
    return CLI_FAILED;
}

/* ---- help ------------------------------------------------------------------------------------------------------- */

enum { HELP_COLUMN = 28 };

static void print_option(char letter, const char *name, const char *metavar, const char *help) {
    int used = letter ? printf("  -%c, --%s", letter, name) : printf("      --%s", name);
    if (metavar) used += printf(" %s", metavar);
    printf("%*s%s\n", used < HELP_COLUMN ? HELP_COLUMN - used : 2, "", help);
}

static void print_help(const cli_spec *spec) {
    printf("bitpair %s - %s\n\nUsage: bitpair %s %s\n\nOptions:\n", spec->name, spec->summary, spec->name, spec->usage);
    for (const cli_option *o = spec->options; o && o->name; o++) print_option(o->letter, o->name, o->metavar, o->help);
    print_option('h', "help", NULL, "show this text");
    if (spec->examples) printf("\nExamples:\n%s", spec->examples);
}

static cli_presenter presenter = print_help;

void cli_present(cli_presenter present) { presenter = present ? present : print_help; }

/* ---- options ---------------------------------------------------------------------------------------------------- */

static int complain(const cli_spec *spec, const char *what, const char *word, const char *hint) {
    fprintf(stderr, "bitpair %s: %s '%s'", spec->name, what, word);
    if (hint) fprintf(stderr, ", did you mean '--%s'?", hint);
    fprintf(stderr, "\nSee: bitpair %s --help\n", spec->name);
    return CLI_USAGE;
}

static const cli_option *find_long(const cli_spec *spec, const char *name, size_t size) {
    for (const cli_option *o = spec->options; o && o->name; o++)
        if (strlen(o->name) == size && memcmp(o->name, name, size) == 0) return o;
    return NULL;
}

static const cli_option *find_letter(const cli_spec *spec, char letter) {
    for (const cli_option *o = spec->options; o && o->name; o++)
        if (o->letter && o->letter == letter) return o;
    return NULL;
}

static const char *closest_option(const cli_spec *spec, const char *name, size_t size) {
    char typed[64];
    snprintf(typed, sizeof typed, "%.*s", (int)bp_min(size, 63), name);
    cli_suggestion best = cli_suggestion_for(typed);
    for (const cli_option *o = spec->options; o && o->name; o++) cli_suggestion_offer(&best, o->name);
    cli_suggestion_offer(&best, "help");
    return best.word;
}

/* Digits only: strtoull would take "-1", " 1" and "+1". */
static bool parse_count(const char *text, uint64_t *out) {
    if (!text[0] || strspn(text, "0123456789") != strlen(text)) return false;
    errno = 0;
    *out = strtoull(text, NULL, 10);
    return errno == 0;
}

static bool parse_real(const char *text, double *out) {
    if (!text[0] || strspn(text, "0123456789.eE+-") != strlen(text)) return false;
    char *end;
    *out = strtod(text, &end);
    return *end == 0 && isfinite(*out);
}

static int bad_value(const cli_spec *spec, const cli_option *o, const char *text, const char *wanted) {
    fprintf(stderr, "bitpair %s: --%s takes %s, not '%s'\n", spec->name, o->name, wanted, text);
    return CLI_USAGE;
}

static int set_number(const cli_spec *spec, const cli_option *o, const char *text) {
    char wanted[96];
    uint64_t count = 0;
    double real = 0;
    bool ok = o->kind == CLI_COUNT ? parse_count(text, &count) : parse_real(text, &real);
    if (ok && o->kind == CLI_COUNT) real = (double)count;
    if (o->low < o->high)
        snprintf(wanted, sizeof wanted, "a%s number from %.15g to %.15g", o->kind == CLI_COUNT ? " whole" : "", o->low,
                 o->high);
    else
        snprintf(wanted, sizeof wanted, "a%s number", o->kind == CLI_COUNT ? " whole" : "");
    if (!ok || (o->low < o->high && (real < o->low || real > o->high))) return bad_value(spec, o, text, wanted);
    if (o->kind == CLI_COUNT)
        *(uint64_t *)o->value = count;
    else
        *(double *)o->value = real;
    return CLI_OK;
}

static int set_option(const cli_spec *spec, const cli_option *o, const char *text) {
    if (o->kind == CLI_TEXT) {
        *(const char **)o->value = text;
        return CLI_OK;
    }
    return set_number(spec, o, text);
}

/* The option at argv[*i], with its value, which may be the next word. */
static int parse_option(const cli_spec *spec, int argc, char **argv, int *i) {
    const char *word = argv[*i], *value = NULL;
    const cli_option *o;
    if (word[1] == '-') {
        size_t size = strcspn(word + 2, "=");
        o = find_long(spec, word + 2, size);
        if (!o) return complain(spec, "unknown option", word, closest_option(spec, word + 2, size));
        if (word[2 + size]) value = word + 2 + size + 1;
    } else {
        o = find_letter(spec, word[1]);
        if (!o) return complain(spec, "unknown option", word, NULL);
        if (word[2]) value = word + 2;
    }
    if (o->kind == CLI_FLAG) {
        if (value) return complain(spec, "a value is not taken by", word, NULL);
        *(bool *)o->value = true;
        return CLI_OK;
    }
    if (!value && *i + 1 >= argc) return complain(spec, "a value is missing after", word, NULL);
    return set_option(spec, o, value ? value : argv[++*i]);
}

static bool asks_for_help(const char *word) { return strcmp(word, "--help") == 0 || strcmp(word, "-h") == 0; }

int cli_parse(const cli_spec *spec, int argc, char **argv, const char **positional) {
    size_t words = 0;
    bool options = true;
    for (int i = 1; i < argc; i++) {
        const char *word = argv[i];
        if (options && strcmp(word, "--") == 0) {
            options = false;
        } else if (options && asks_for_help(word)) {
            presenter(spec);
            return -1;
        } else if (options && word[0] == '-' && word[1]) {
            int rc = parse_option(spec, argc, argv, &i);
            if (rc != CLI_OK) return rc;
        } else if (words == spec->n_positional + spec->n_more) {
            return complain(spec, "unexpected word", word, NULL);
        } else {
            positional[words++] = word;
        }
    }
    if (words >= spec->n_positional) return CLI_OK;
    fprintf(stderr, "bitpair %s: too few words\nUsage: bitpair %s %s\nSee: bitpair %s --help\n", spec->name, spec->name,
            spec->usage, spec->name);
    return CLI_USAGE;
}

/* The option at or after argv[*i], *i moved behind it; NULL: no more. */
static const cli_option *next_given(const cli_spec *spec, int argc, char **argv, int *i) {
    while (*i < argc && strcmp(argv[*i], "--") != 0) {
        const char *word = argv[(*i)++];
        if (word[0] != '-' || !word[1]) continue;
        const bool is_long = word[1] == '-';
        const size_t size = is_long ? strcspn(word + 2, "=") : 1;
        const cli_option *o = is_long ? find_long(spec, word + 2, size) : find_letter(spec, word[1]);
        if (!o) continue;
        if (o->kind != CLI_FLAG && !word[size + (is_long ? 2 : 1)]) ++*i; /* the next word is its value */
        return o;
    }
    return NULL;
}

static bool is_known(const char *name, const char *const *known) {
    while (*known && strcmp(*known, name) != 0) known++;
    return *known;
}

const char *cli_given_besides(const cli_spec *spec, int argc, char **argv, const char *const *known) {
    int i = 1;
    const cli_option *o;
    while ((o = next_given(spec, argc, argv, &i)))
        if (!is_known(o->name, known)) return o->name;
    return NULL;
}

bool cli_given(const cli_spec *spec, int argc, char **argv, const char *name) {
    int i = 1;
    const cli_option *o;
    while ((o = next_given(spec, argc, argv, &i)))
        if (strcmp(o->name, name) == 0) return true;
    return false;
}

int cli_wrong(const char *command, const char *what) {
    fflush(stdout);
    fprintf(stderr, "bitpair %s: %s\nSee: bitpair %s --help\n", command, what, command);
    return CLI_USAGE;
}

/* ---- progress --------------------------------------------------------------------------------------------------- */

static double seconds_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Megabytes of this process in memory; 0 where the system does not tell. */
static double resident_megabytes(void) {
    unsigned long pages = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    if (!f) return 0;
    if (fscanf(f, "%*u %lu", &pages) != 1) pages = 0;
    fclose(f);
    return (double)pages * (double)sysconf(_SC_PAGESIZE) / 1e6;
}

static void format_duration(char *out, size_t cap, double seconds) {
    unsigned long s = (unsigned long)(seconds + 0.5);
    if (s >= 3600)
        snprintf(out, cap, "%lu:%02lu:%02lu", s / 3600, s / 60 % 60, s % 60);
    else
        snprintf(out, cap, "%lu:%02lu", s / 60, s % 60);
}

void cli_progress_begin(cli_progress *p, const char *what, bool quiet) {
    *p = (cli_progress){.what = what, .started = seconds_now(), .printed = 0, .quiet = quiet};
}

void cli_progress_update(cli_progress *p, double done, double total, const char *detail) {
    double now = seconds_now();
    bool terminal = isatty(STDERR_FILENO);
    if (p->quiet || now - (p->printed > 0 ? p->printed : p->started) < (terminal ? 0.2 : 10)) return;
    p->printed = now;
    char elapsed[32], left[32] = "?";
    format_duration(elapsed, sizeof elapsed, now - p->started);
    if (done > 0.001 * total && total >= done) /* before, it says nothing */
        format_duration(left, sizeof left, (now - p->started) * (total - done) / done);
    fprintf(stderr, "%s%s %5.1f %%  %s elapsed, %s left, %.0f MB%s%s%s", terminal ? "\r\033[K" : "", p->what,
            total > 0 ? 100 * done / total : 0, elapsed, left, resident_megabytes(), detail ? "  " : "",
            detail ? detail : "", terminal ? "" : "\n");
    fflush(stderr);
}

void cli_progress_end(cli_progress *p) {
    if (!p->quiet && p->printed > 0 && isatty(STDERR_FILENO)) fputs("\r\033[K", stderr);
}

/* ---- interruption ----------------------------------------------------------------------------------------------- */

static volatile sig_atomic_t interrupted;

static void on_signal(int number) {
    (void)number;
    if (interrupted) _exit(CLI_INTERRUPTED);
    interrupted = 1;
}

/* Without SA_RESTART, so that waiting for a line of input ends too. */
void cli_catch_interrupt(void) {
    struct sigaction action = {.sa_handler = on_signal};
    sigemptyset(&action.sa_mask);
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
}

bool cli_interrupted(void) { return interrupted != 0; }
void cli_forget_interrupt(void) { interrupted = 0; }
