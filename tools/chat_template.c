#include "chat_template.h"

#include <stdio.h>
#include <stdlib.h>

/* ---- recognising ------------------------------------------------------------------------------------------------ */

static const char *find(const char *bytes, size_t size, const char *what) {
    return memmem(bytes, size, what, strlen(what));
}

/* Undoes the escapes of a Jinja string literal. Returns a new string. */
static char *unescape(const char *from, size_t n) {
    char *out = malloc(n + 1), *to = out;
    if (!out) return NULL;
    for (size_t i = 0; i < n; i++) {
        if (from[i] == '\\' && i + 1 < n) {
            i++;
            *to++ = from[i] == 'n' ? '\n' : from[i] == 't' ? '\t' : from[i];
        } else {
            *to++ = from[i];
        }
    }
    *to = 0;
    return out;
}

/* The default system message of a ChatML template stands in it as one literal: '<|im_start|>system\nTEXT<|im_end|>...';
 * the line break is written out or as an escape. A literal that ends before <|im_end|> is continued by the caller's
 * message. */
static char *find_default_system(const char *jinja, size_t size) {
    enum { MOST = 64 }; /* beginnings that are looked at: the time of each is the template's length */
    const char *open = "<|im_start|>system", *close = "<|im_end|>", *end = jinja + size, *to = jinja;
    int tried = 0;
    for (const char *at = jinja; tried++ < MOST && (at = find(at, (size_t)(end - at), open)) != NULL; at++) {
        const char *from = at + strlen(open);
        char quote = at > jinja ? at[-1] : 0;
        if (from < end && *from == '\n')
            from++;
        else if (end - from >= 2 && memcmp(from, "\\n", 2) == 0)
            from += 2;
        else
            continue;
        if (to < from) to = find(from, (size_t)(end - from), close);
        if (!to) return NULL;
        const char *stop = from;
        while (stop < to && *stop != quote) stop += *stop == '\\' ? 2 : 1;
        if (stop >= to && to > from) return unescape(from, (size_t)(to - from));
    }
    return NULL;
}

static bool recognise(chat_template *t, const char *jinja, size_t size) {
    if (find(jinja, size, "<|im_start|>"))
        t->family = CHAT_CHATML;
    else if (find(jinja, size, "<|start_header_id|>"))
        t->family = CHAT_LLAMA3;
    else if (find(jinja, size, "<<SYS>>"))
        t->family = CHAT_LLAMA2;
    else if (find(jinja, size, "[INST] "))
        t->family = CHAT_MISTRAL;
    else if (find(jinja, size, "<|user|>") && find(jinja, size, "<|assistant|>") && find(jinja, size, "eos_token"))
        t->family = CHAT_ZEPHYR;
    else
        return false;
    return true;
}

bool chat_template_open(chat_template *t, const char *jinja, size_t size, const char *bos, const char *eos, bp_err *e) {
    *t = (chat_template){0};
    if (!recognise(t, jinja, size))
        return bp_fail(
            e, BP_ERR_UNSUPPORTED, 0,
            "the model's chat template is of no family that this tool knows; `bitpair run` takes a raw prompt");
    t->dated = find(jinja, size, "Cutting Knowledge Date") != NULL;
    t->thinks = find(jinja, size, "</think>") != NULL;
    t->spaced = find(jinja, size, "' ' + message") || find(jinja, size, "\" \" + message");
    t->bos = find(jinja, size, "bos_token") != NULL;
    snprintf(t->bos_text, sizeof t->bos_text, "%s", bos);
    snprintf(t->eos_text, sizeof t->eos_text, "%s", eos);
    if (t->family == CHAT_CHATML) t->default_system = find_default_system(jinja, size);
    return true;
}

void chat_template_close(chat_template *t) {
    free(t->default_system);
    t->default_system = NULL;
}

/* ---- rendering -------------------------------------------------------------------------------------------------- */

static const char *role_name(chat_role role) {
    return role == CHAT_SYSTEM ? "system" : role == CHAT_USER ? "user" : "assistant";
}

static void append_all(text *out, const char *const *parts, size_t n) {
    for (size_t i = 0; i < n; i++) text_append_string(out, parts[i]);
}
#define APPEND(out, ...)                                                                                               \
    append_all(out, (const char *const[]){__VA_ARGS__},                                                                \
               sizeof((const char *const[]){__VA_ARGS__}) / sizeof(const char *))

/* Jinja's `| trim`. */
static void append_trimmed(text *out, const char *s) {
    size_t n = strlen(s);
    while (n && strchr(" \t\r\n", s[n - 1])) n--;
    size_t skip = 0;
    while (skip < n && strchr(" \t\r\n", s[skip])) skip++;
    text_append(out, s + skip, n - skip);
}

/* An answer of a reasoning model without its reasoning, as its template repeats it in later turns. */
static const char *without_reasoning(const char *content) {
    const char *end = NULL;
    for (const char *at = content; (at = strstr(at, "</think>")) != NULL; at++) end = at + strlen("</think>");
    while (end && *end == '\n') end++;
    return end ? end : content;
}

static void render_chatml(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    if (t->default_system && (n == 0 || messages[0].role != CHAT_SYSTEM))
        APPEND(out, "<|im_start|>system\n", t->default_system, "<|im_end|>\n");
    for (size_t i = 0; i < n; i++) {
        const char *content = messages[i].content;
        if (t->thinks && messages[i].role == CHAT_ASSISTANT) content = without_reasoning(content);
        APPEND(out, "<|im_start|>", role_name(messages[i].role), "\n", content, "<|im_end|>\n");
    }
    APPEND(out, "<|im_start|>assistant\n");
}

static void render_llama3_message(const char *role, const char *prefix, const char *content, text *out) {
    APPEND(out, "<|start_header_id|>", role, "<|end_header_id|>\n\n", prefix);
    append_trimmed(out, content);
    APPEND(out, "<|eot_id|>");
}

/* The dates are the template's own defaults, so that the same conversation gives the same answer tomorrow. */
static void render_llama3(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    const char *dates = t->dated ? "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n" : "";
    size_t first = n > 0 && messages[0].role == CHAT_SYSTEM;
    if (first || t->dated) render_llama3_message("system", dates, first ? messages[0].content : "", out);
    for (size_t i = first; i < n; i++) render_llama3_message(role_name(messages[i].role), "", messages[i].content, out);
    APPEND(out, "<|start_header_id|>assistant<|end_header_id|>\n\n");
}

/* Llama 2 repeats BOS before every question, and puts the system message into the first one. */
static void render_llama2(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    size_t first = n > 0 && messages[0].role == CHAT_SYSTEM;
    for (size_t i = first; i < n; i++) {
        bool question = messages[i].role == CHAT_USER;
        text content = {0};
        if (first && i == first) APPEND(&content, "<<SYS>>\n", messages[0].content, "\n<</SYS>>\n\n");
        APPEND(&content, messages[i].content);
        APPEND(out, question && t->bos && i > first ? t->bos_text : "", question ? "[INST] " : " ");
        append_trimmed(out, content.bytes ? content.bytes : "");
        APPEND(out, question ? " [/INST]" : " ", question ? "" : t->eos_text);
        if (content.lost) out->lost = true;
        text_free(&content);
    }
}

/* Mistral's first templates know no system message; it goes before the first question, as the later ones do it. */
static void render_mistral(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    size_t first = n > 0 && messages[0].role == CHAT_SYSTEM;
    for (size_t i = first; i < n; i++) {
        const char *content = messages[i].content;
        if (messages[i].role == CHAT_ASSISTANT)
            APPEND(out, t->spaced ? " " : "", content, t->eos_text);
        else if (first && i == first)
            APPEND(out, "[INST] ", messages[0].content, "\n\n", content, " [/INST]");
        else
            APPEND(out, "[INST] ", content, " [/INST]");
    }
}

static void render_zephyr(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    for (size_t i = 0; i < n; i++)
        APPEND(out, "<|", role_name(messages[i].role), "|>\n", messages[i].content, t->eos_text, "\n");
    APPEND(out, "<|assistant|>\n");
}

void chat_template_render(const chat_template *t, const chat_message *messages, size_t n, text *out) {
    if (t->bos) APPEND(out, t->bos_text);
    switch (t->family) {
    case CHAT_CHATML:
        render_chatml(t, messages, n, out);
        break;
    case CHAT_LLAMA3:
        render_llama3(t, messages, n, out);
        break;
    case CHAT_LLAMA2:
        render_llama2(t, messages, n, out);
        break;
    case CHAT_MISTRAL:
        render_mistral(t, messages, n, out);
        break;
    case CHAT_ZEPHYR:
        render_zephyr(t, messages, n, out);
        break;
    }
}
