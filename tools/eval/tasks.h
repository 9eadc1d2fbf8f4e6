/* tasks.h - sets of multiple-choice questions (zero-shot), one JSON object a line:
 *     {"query": TEXT, "choices": [TEXT, ...], "gold": N}                     every choice after the query
 *     {"context_options": [TEXT, ...], "continuation": TEXT, "gold": N}      the continuation after every context
 * Prompts are those of lm-evaluation-harness: white space at the end of a context is dropped; a context that begins
 * with "Question: " or "Passage: " gets "\nAnswer:"; one space stands between context and continuation. */
#ifndef BITPAIR_TASKS_H
#define BITPAIR_TASKS_H

#include "err.h"

enum { TASKS_CHOICES = 16, TASKS_SETS = 32 /* most of a row, of a run */ };

typedef struct {
    size_t n, gold;               /* choices: 2..TASKS_CHOICES; the right one */
    char *context[TASKS_CHOICES]; /* not empty */
    char *choice[TASKS_CHOICES];  /* not empty, the space in front not included */
} task_row;

typedef struct {
    char name[64];   /* the file's, without ".jsonl" */
    bool normalised; /* acc_norm is what this set is known by (else acc: boolq, copa, winograd) */
    size_t n;
    task_row *rows; /* [n] */
} task_set;

typedef struct {
    size_t n;
    task_set sets[TASKS_SETS]; /* those of a folder in the order of their names */
} task_list;

/* Reads a folder's *.jsonl, or several files separated by commas. limit: only so many rows of each; 0: all.
 * BP_ERR_FORMAT names file and line, with the offset; BP_ERR_IO; BP_ERR_MEMORY. On failure nothing needs to be freed. */
bool tasks_read(task_list *t, const char *where, size_t limit, bp_err *e);
void tasks_free(task_list *t);

#endif
