/* A chat template of any bytes and a conversation: a family is recognised or refused, and what is rendered holds every
 * message. */
#include "fuzz.h"

#include "chat_template.h"

enum { MESSAGES = 4 };

/* Up to the next zero byte, NUL-terminated; the caller frees it. */
static char *take_text(fuzz_input *in, size_t *n) {
    const uint8_t *end = in->left ? memchr(in->at, 0, in->left) : NULL;
    const uint8_t *from = fuzz_bytes(in, end ? (size_t)(end - in->at) : in->left, n);
    fuzz_u8(in);
    char *text = malloc(*n + 1);
    if (*n) memcpy(text, from, *n);
    text[*n] = 0;
    return text;
}

static void render(const chat_template *t, fuzz_input *in) {
    chat_message messages[MESSAGES];
    char *texts[MESSAGES];
    uint8_t count = fuzz_u8(in) % (MESSAGES + 1), system = fuzz_u8(in) & 1;
    size_t n;
    for (size_t i = 0; i < count; i++) {
        messages[i].content = texts[i] = take_text(in, &n);
        messages[i].role = i == 0 && system ? CHAT_SYSTEM : (i + system) % 2 ? CHAT_ASSISTANT : CHAT_USER;
    }
    text out = {0};
    chat_template_render(t, messages, count, &out);
    LAW(!out.lost);
    for (size_t i = 0; i < count; i++) {
        /* trimmed by some families, an answer's reasoning is left out by others, and a system message without a question */
        if (messages[i].role != CHAT_USER || strpbrk(texts[i], " \t\r\n")) continue;
        LAW(out.bytes && strstr(out.bytes, texts[i]));
    }
    for (size_t i = 0; i < count; i++) free(texts[i]);
    text_free(&out);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    fuzz_input in = {data, size};
    size_t n;
    char *bos = take_text(&in, &n), *eos = take_text(&in, &n), *jinja = take_text(&in, &n);
    char *exact = (char *)fuzz_copy(jinja, n); /* a template is not NUL-terminated */
    chat_template t;
    bp_err e = {0};
    if (chat_template_open(&t, exact, n, bos, eos, &e)) {
        free(exact);
        exact = NULL;
        render(&t, &in);
        chat_template_close(&t);
    } else {
        fuzz_check_error(&e);
    }
    free(exact);
    free(bos);
    free(eos);
    free(jinja);
    return 0;
}
