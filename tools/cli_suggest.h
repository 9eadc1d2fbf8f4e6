/* cli_suggest.h - "did you mean": the offered word that is nearest to a mistyped one. */
#ifndef BITPAIR_CLI_SUGGEST_H
#define BITPAIR_CLI_SUGGEST_H

#include "base.h"

typedef struct {
    const char *typed;
    const char *word; /* the best so far, NULL: none is near enough */
    size_t distance;  /* its distance from `typed`, or the first one that is too far */
} cli_suggestion;

/* typed must stay alive. Words further away than a third of its length (at least 1 edit, 2 from 4 letters on) do not
 * count. */
cli_suggestion cli_suggestion_for(const char *typed);

/* Keeps `word` when it is nearer than all before it. */
void cli_suggestion_offer(cli_suggestion *s, const char *word);

#endif
