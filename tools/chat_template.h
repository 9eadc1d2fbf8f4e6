/* chat_template.h - the chat templates of known model families, written out in C. The page and the npm package
 * interpret any Jinja template; this tool recognises a family by the text of its template and renders the same. */
#ifndef BITPAIR_CHAT_TEMPLATE_H
#define BITPAIR_CHAT_TEMPLATE_H

#include "err.h"
#include "text.h"

typedef enum { CHAT_SYSTEM, CHAT_USER, CHAT_ASSISTANT } chat_role;

typedef struct {
    chat_role role;
    const char *content; /* NUL-terminated */
} chat_message;

typedef enum { CHAT_CHATML, CHAT_LLAMA3, CHAT_LLAMA2, CHAT_MISTRAL, CHAT_ZEPHYR } chat_family;

typedef struct {
    chat_family family;
    char *default_system; /* the system message that the template adds when there is none; NULL: it adds none */
    bool dated;           /* Llama 3.1 and later: the system message begins with two dates */
    bool thinks;          /* Qwen3: the reasoning of earlier answers is left out */
    bool spaced;          /* Mistral: a space before an answer */
    bool bos;             /* the template begins with the BOS token */
    char bos_text[64], eos_text[64];
} chat_template;

/* Recognises the template jinja [size]. bos and eos are the texts of these tokens ("" for none). BP_ERR_UNSUPPORTED for
 * a template of no known family, BP_ERR_MEMORY. */
bool chat_template_open(chat_template *t, const char *jinja, size_t size, const char *bos, const char *eos, bp_err *e);
void chat_template_close(chat_template *t);

/* Appends the conversation [n] and the header of the next answer to `out`. Only the first message may be a system
 * message. */
void chat_template_render(const chat_template *t, const chat_message *messages, size_t n, text *out);

#endif
