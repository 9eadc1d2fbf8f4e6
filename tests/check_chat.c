/* Chat templates against what Jinja makes of the same templates; streams of UTF-8; suggestions. */
#include "chat_template.h"

#include <time.h>

#include "check.h"
#include "cli_suggest.h"
#include "io/json.h"

/* The published templates of these families. */
#define LLAMA3                                                                                                         \
    "{% set loop_messages = messages %}{% for message in loop_messages %}{% set content = '<|start_header_id|>' + "    \
    "message['role'] + '<|end_header_id|>\n\n'+ message['content'] | trim + '<|eot_id|>' %}{% if loop.index0 == 0 %}"  \
    "{% set content = bos_token + content %}{% endif %}{{ content }}{% endfor %}{% if add_generation_prompt %}"        \
    "{{ '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}"
#define TINYLLAMA                                                                                                      \
    "{% for message in messages %}\n{% if message['role'] == 'user' %}\n{{ '<|user|>\n' + message['content'] + "       \
    "eos_token }}\n{% elif message['role'] == 'system' %}\n{{ '<|system|>\n' + message['content'] + eos_token }}\n"    \
    "{% elif message['role'] == 'assistant' %}\n{{ '<|assistant|>\n'  + message['content'] + eos_token }}\n"           \
    "{% endif %}\n{% if loop.last and add_generation_prompt %}\n{{ '<|assistant|>' }}\n{% endif %}\n{% endfor %}"
#define LLAMA2                                                                                                         \
    "{% if loop.index0 == 0 and system_message != false %}{% set content = '<<SYS>>\\n' + system_message + "           \
    "'\\n<</SYS>>\\n\\n' + message['content'] %}{% else %}{% set content = message['content'] %}{% endif %}"           \
    "{% if message['role'] == 'user' %}{{ bos_token + '[INST] ' + content.strip() + ' [/INST]' }}"                     \
    "{% elif message['role'] == 'assistant' %}{{ ' '  + content.strip() + ' ' + eos_token }}{% endif %}"
#define MISTRAL                                                                                                        \
    "{{ bos_token }}{% for message in messages %}{% if message['role'] == 'user' %}{{ '[INST] ' + "                    \
    "message['content'] + ' [/INST]' }}{% elif message['role'] == 'assistant' %}{{ message['content'] + eos_token}}"   \
    "{% endif %}{% endfor %}"
#define CHATML_APOSTROPHE                                                                                              \
    "{% if messages[0].role != 'system' %}{{ '<|im_start|>system\\nYou\\'re kind.<|im_end|>\\n' }}{% endif %}"

static const chat_message MESSAGES[] = {
    {CHAT_SYSTEM, "Be brief."}, {CHAT_USER, " Hi there "}, {CHAT_ASSISTANT, "Hello!"}, {CHAT_USER, "Bye"}};

/* Renders MESSAGES, with or without the system message, and compares. */
static void expect(const char *jinja, bool system, size_t turns, const char *wanted) {
    chat_template t;
    bp_err e = {0};
    text out = {0};
    bool ok = chat_template_open(&t, jinja, strlen(jinja), "<s>", "</s>", &e);
    CHECK(ok, "%s", e.text);
    if (!ok) return;
    chat_template_render(&t, MESSAGES + !system, turns + system, &out);
    CHECK(out.bytes && strcmp(out.bytes, wanted) == 0, "found\n%s\nwanted\n%s\n", out.bytes, wanted);
    text_free(&out);
    chat_template_close(&t);
}

static void check_families(void) {
    expect(LLAMA3, false, 1,
           "<s><|start_header_id|>user<|end_header_id|>\n\nHi "
           "there<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect(LLAMA3, true, 3,
           "<s><|start_header_id|>system<|end_header_id|>\n\nBe "
           "brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n"
           "Hi there<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\nHello!<|eot_id|><|start_header_id|>user"
           "<|end_header_id|>\n\nBye<|eot_id|><|start_header_id|>assistant<|end_header_id|>\n\n");
    expect(TINYLLAMA, false, 1, "<|user|>\n Hi there </s>\n<|assistant|>\n");
    expect(TINYLLAMA, true, 3,
           "<|system|>\nBe brief.</s>\n<|user|>\n Hi there "
           "</s>\n<|assistant|>\nHello!</s>\n<|user|>\nBye</s>\n<|assistant|>\n");
    expect(LLAMA2, false, 1, "<s>[INST] Hi there [/INST]");
    expect(LLAMA2, true, 1, "<s>[INST] <<SYS>>\nBe brief.\n<</SYS>>\n\n Hi there [/INST]");
    expect(LLAMA2, false, 3, "<s>[INST] Hi there [/INST] Hello! </s><s>[INST] Bye [/INST]");
    expect(MISTRAL, false, 1, "<s>[INST]  Hi there  [/INST]");
    expect(MISTRAL, false, 3, "<s>[INST]  Hi there  [/INST]Hello!</s>[INST] Bye [/INST]");
    expect(
        CHATML_APOSTROPHE, false, 1,
        "<|im_start|>system\nYou're kind.<|im_end|>\n<|im_start|>user\n Hi there <|im_end|>\n<|im_start|>assistant\n");
}

/* SmolLM2 and Qwen2.5 from their own files. */
static void check_files(void) {
    static const struct {
        const char *path, *system;
    } FILES[] = {{"tokenizers/smollm2/tokenizer_config.json",
                  "You are a helpful AI assistant named SmolLM, trained by Hugging Face"},
                 {"tokenizers/qwen2.5/tokenizer_config.json",
                  "You are Qwen, created by Alibaba Cloud. You are a helpful assistant."}};
    for (size_t i = 0; i < 2; i++) {
        bp_err e = {0};
        char wanted[512];
        cJSON *config = json_read(check_data(FILES[i].path), &e);
        const char *jinja = config ? json_text(config, "chat_template") : NULL;
        CHECK(jinja, "%s", e.text);
        if (!jinja) continue;
        snprintf(wanted, sizeof wanted,
                 "<|im_start|>system\n%s<|im_end|>\n<|im_start|>user\n Hi there <|im_end|>\n<|im_start|>assistant\n",
                 FILES[i].system);
        expect(jinja, false, 1, wanted);
        expect(
            jinja, true, 3,
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n Hi there <|im_end|>\n<|im_start|>assistant\n"
            "Hello!<|im_end|>\n<|im_start|>user\nBye<|im_end|>\n<|im_start|>assistant\n");
        cJSON_Delete(config);
    }
}

static void check_unknown(void) {
    chat_template t;
    bp_err e = {0};
    CHECK(!chat_template_open(&t, "{{ x }}", 7, "", "", &e) && e.code == BP_ERR_UNSUPPORTED &&
              strstr(e.text, "bitpair run"),
          "%s", e.text);
    chat_template_close(&t);
    CHECK(!chat_template_open(&t, "", 0, "", "", &e), "an empty template");
    /* cut short inside the default system message: no default, no harm */
    const char *cut = "'<|im_start|>system\\nYou are";
    CHECK(chat_template_open(&t, cut, strlen(cut), "", "", &e) && !t.default_system, "a cut template");
    chat_template_close(&t);
}

/* Any cut of a text into pieces gives the same characters; broken bytes become U+FFFD. */
static void check_utf8(void) {
    static const struct {
        const char *bytes, *wanted;
    } CASES[] = {{"a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z", "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80z"},
                 {"\x80", "\xEF\xBF\xBD"},
                 {"\xC3z", "\xEF\xBF\xBDz"},
                 {"\xE2\x82", "\xEF\xBF\xBD"},
                 {"\xED\xA0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD"},
                 {"\xF5\xFF", "\xEF\xBF\xBD\xEF\xBF\xBD"},
                 {"\xF0\x80", "\xEF\xBF\xBD\xEF\xBF\xBD"}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        for (size_t cut = 0; cut <= strlen(CASES[i].bytes); cut++) {
            utf8_stream s = {0};
            text out = {0};
            utf8_push(&s, &out, CASES[i].bytes, cut);
            utf8_push(&s, &out, CASES[i].bytes + cut, strlen(CASES[i].bytes) - cut);
            utf8_end(&s, &out);
            CHECK(out.bytes && strcmp(out.bytes, CASES[i].wanted) == 0, "case %zu cut at %zu: '%s'", i, cut, out.bytes);
            text_free(&out);
        }
}

static void check_suggestions(void) {
    cli_suggestion s = cli_suggestion_for("compres");
    cli_suggestion_offer(&s, "inspect");
    cli_suggestion_offer(&s, "compress");
    CHECK(s.word && strcmp(s.word, "compress") == 0, "%s", s.word);
    s = cli_suggestion_for("frobnicate");
    cli_suggestion_offer(&s, "run");
    cli_suggestion_offer(&s, "tokenize");
    CHECK(!s.word, "%s", s.word);
}

/* Many beginnings before one far end: time in proportion to the template, not to its square. */
static void check_bomb(void) {
    enum { BYTES = 4000000 };
    static const char begin[] = "'<|im_start|>system\n'";
    char *jinja = malloc(BYTES);
    chat_template t;
    bp_err e = {0};
    memset(jinja, ' ', BYTES);
    for (size_t at = 0; at + sizeof begin < BYTES - 32; at += sizeof begin - 1) memcpy(jinja + at, begin, sizeof begin - 1);
    memcpy(jinja + BYTES - 16, "<|im_end|>", 10);
    clock_t begun = clock();
    CHECK(chat_template_open(&t, jinja, BYTES, "", "", &e), "%s", e.text);
    double seconds = (double)(clock() - begun) / CLOCKS_PER_SEC;
    CHECK(seconds < 3, "a template of %d bytes took %.1f s", BYTES, seconds);
    chat_template_close(&t);
    free(jinja);
}

int main(void) {
    check_bomb();
    check_families();
    check_files();
    check_unknown();
    check_utf8();
    check_suggestions();
    return check_end();
}
