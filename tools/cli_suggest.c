#include "cli_suggest.h"

enum { LONGEST = 63 };

/* Levenshtein distance, row by row. Words longer than LONGEST are taken as far apart. */
static size_t edit_distance(const char *a, const char *b) {
    size_t row[LONGEST + 1], n = strlen(a), m = strlen(b);
    if (n > LONGEST || m > LONGEST) return SIZE_MAX;
    for (size_t j = 0; j <= m; j++) row[j] = j;
    for (size_t i = 1; i <= n; i++) {
        size_t diagonal = row[0];
        row[0] = i;
        for (size_t j = 1; j <= m; j++) {
            size_t replace = diagonal + (a[i - 1] != b[j - 1]);
            diagonal = row[j];
            row[j] = bp_min(replace, bp_min(row[j], row[j - 1]) + 1);
        }
    }
    return row[m];
}

cli_suggestion cli_suggestion_for(const char *typed) {
    size_t n = strlen(typed);
    return (cli_suggestion){typed, NULL, bp_max(n / 3, n >= 4 ? 2 : 1) + 1};
}

void cli_suggestion_offer(cli_suggestion *s, const char *word) {
    size_t distance = edit_distance(s->typed, word);
    if (distance >= s->distance) return;
    s->word = word;
    s->distance = distance;
}
