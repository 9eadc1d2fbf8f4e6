/* The engine against an independent forward pass of the main model (shared/data/golden): log-likelihoods, logits, a
 * chat answer. */
#include <math.h>

#include "chat_template.h"
#include "check.h"
#include "generate.h"
#include "io/json.h"

enum { MOST = 256 };

static size_t read_ids(const cJSON *array, int32_t ids[MOST]) {
    size_t n = 0;
    for (const cJSON *item = array ? array->child : NULL; item && n < MOST; item = item->next)
        ids[n++] = item->valueint;
    return n;
}

static double nll(const float *logits, size_t vocab, int32_t id) {
    double sum = 0, top = (double)logits[id];
    for (size_t i = 0; i < vocab; i++) top = fmax(top, (double)logits[i]);
    for (size_t i = 0; i < vocab; i++) sum += exp((double)logits[i] - top);
    return log(sum) + top - (double)logits[id];
}

/* Every token's -ln p, and the ten highest logits of the last position. The golden pass keeps its cache in float32, the
 * engine in half precision: hence the tolerances. */
static void check_text(bp_session *session, size_t vocab, const cJSON *golden) {
    int32_t ids[MOST];
    bp_err e = {0};
    const cJSON *wanted = cJSON_GetObjectItem(golden, "nll"), *top = cJSON_GetObjectItem(golden, "last_top10");
    size_t n = read_ids(cJSON_GetObjectItem(golden, "ids"), ids);
    float *logits = malloc(n * vocab * sizeof *logits);
    CHECK(n == 64 && cJSON_GetArraySize(wanted) == (int)n - 1, "%zu ids", n);
    CHECK(bp_session_feed_all(session, ids, n, logits, &e), "%s", e.text);
    const cJSON *item = wanted->child;
    for (size_t i = 0; i + 1 < n; i++, item = item->next) {
        double found = nll(logits + i * vocab, vocab, ids[i + 1]);
        CHECK(fabs(found - item->valuedouble) < 0.02, "token %zu: nll %.5f, golden %.5f", i + 1, found,
              item->valuedouble);
    }
    for (item = top->child; item; item = item->next) {
        float found = logits[(n - 1) * vocab + (size_t)item->child->valueint];
        double golden_logit = item->child->next->valuedouble;
        CHECK(fabs((double)found - golden_logit) < 0.05, "logit of %d: %.4f, golden %.4f", item->child->valueint,
              (double)found, golden_logit);
    }
    free(logits);
}

/* The greedy answer to the golden chat prompt, token by token. */
static void check_answer(bp_session *session, const bp_model *model, const cJSON *chat) {
    int32_t prompt[MOST], answer[MOST];
    bp_err e = {0};
    text words = {0};
    sampler_options greedy = sampler_defaults();
    greedy.temperature = 0;
    size_t n = read_ids(cJSON_GetObjectItem(chat, "prompt_ids"), prompt);
    size_t m = read_ids(cJSON_GetObjectItem(chat, "greedy_ids"), answer);
    CHECK(n > 0 && m > 0 && bp_session_rewind(session, 0, &e) && bp_session_sampling(session, &greedy, &e) &&
              bp_session_feed(session, prompt, n, &e),
          "%s", e.text);
    for (size_t i = 0; i < m; i++) {
        char piece[64];
        int32_t id = bp_session_sample(session, &e);
        CHECK(id == answer[i], "answer token %zu is %d, golden %d", i, id, answer[i]);
        CHECK(bp_model_is_end(model, id) == (i + 1 == m), "token %zu: end of turn?", i);
        if (!bp_model_is_end(model, id))
            text_append(&words, piece, bp_token_text(model, id, false, piece, sizeof piece));
        if (!bp_session_feed(session, &id, 1, &e)) break;
    }
    const char *wanted = json_text(chat, "greedy_text");
    CHECK(words.bytes && wanted && strcmp(words.bytes, wanted) == 0, "answer '%s'", words.bytes);
    text_free(&words);
}

/* Template and tokenizer give the golden prompt for its question. */
static void check_prompt(const bp_model *model, const cJSON *chat) {
    int32_t wanted[MOST];
    size_t size = 0, n = 0, n_wanted = read_ids(cJSON_GetObjectItem(chat, "prompt_ids"), wanted);
    bp_err e = {0};
    chat_template t;
    text out = {0};
    chat_message question = {CHAT_USER, "What is the capital of France?"};
    const char *jinja = bp_model_string(model, "tokenizer.chat_template", &size);
    CHECK(jinja && chat_template_open(&t, jinja, size, "", "", &e), "%s", e.text);
    chat_template_render(&t, &question, 1, &out);
    int32_t *ids = generate_tokenize(model, out.bytes, out.size, BP_TOKENIZE_SPECIAL, &n, &e);
    CHECK(ids && n == n_wanted && memcmp(ids, wanted, n * sizeof *ids) == 0, "%zu tokens, golden %zu: %s", n, n_wanted,
          out.bytes);
    free(ids);
    text_free(&out);
    chat_template_close(&t);
}

int main(void) {
    loaded l = {0};
    bp_err e = {0};
    bp_model_info info;
    machine_options machine = machine_defaults();
    cJSON *golden = json_read(check_data("golden/smollm2-135m-instruct-q4_1.json"), &e);
    CHECK(golden, "%s", e.text);
    bp_engine *engine = machine_engine(&machine, &e);
    bool ok =
        golden && engine &&
        loaded_open(&l, engine, check_data("models/smollm2-135m-instruct/SmolLM2-135M-Instruct.Q4_1.gguf"), 0, &e);
    CHECK(ok, "%s", e.text);
    bp_session *session = ok ? bp_session_open(l.model, &(bp_session_options){.kv_bits = 16}, &e) : NULL;
    CHECK(session, "%s", e.text);
    if (session) {
        const cJSON *chat = cJSON_GetObjectItem(golden, "chat");
        bp_model_describe(l.model, &info);
        check_text(session, info.vocab, golden);
        check_answer(session, l.model, chat);
        check_prompt(l.model, chat);
    }
    bp_session_close(session);
    loaded_close(&l);
    bp_engine_close(engine);
    cJSON_Delete(golden);
    return check_end();
}
