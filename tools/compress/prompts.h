/* prompts.h - questions for the model, from files in the formats in which prompt collections are published. */
#ifndef BITPAIR_PROMPTS_H
#define BITPAIR_PROMPTS_H

#include "err.h"

enum { PROMPT_TURNS = 4 }; /* most questions of one conversation; further ones are left out */

typedef struct {
    char *turns[PROMPT_TURNS]; /* [n_turns] what the user says, one after the other; UTF-8, not empty */
    size_t n_turns;
} prompt;

typedef struct {
    prompt *items; /* [n], in the order of the file */
    size_t n, room;
} prompt_list;

/* Reads a file whose format its content tells:
 *   a first line that begins with '{': JSON lines with one of "turns": [...] (MT-bench, Vicuna), "instruction" with
 *       "instances": [{"input"}] (self-instruct: one prompt each, instruction and input), "question" (GSM8K), "text",
 *       "prompt";
 *   a first line that names the columns act and prompt: CSV with quoted fields (awesome prompts), the column prompt;
 *   else: one prompt a line.
 * White space around a prompt and empty ones are dropped. BP_ERR_FORMAT names file and line, also when nothing is left;
 * BP_ERR_IO, BP_ERR_MEMORY. */
bool prompts_load(prompt_list *p, const char *path, bp_err *e);
void prompts_free(prompt_list *p);

#endif
