/* bitpair chat: one answer to --prompt, or a conversation over the terminal or over lines of standard input. */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "chat_template.h"
#include "generate.h"

typedef struct {
    machine_options machine;
    generate_options generate;
    const char *prompt, *system;
} chat_options;

/* A conversation: messages as texts, and the tokens that the session has seen, so that only what is new is fed. */
typedef struct {
    const chat_options *options;
    const bp_model *model;
    bp_session *session;
    chat_template template;
    chat_message *messages;
    size_t n, room;
    int32_t *fed; /* [capacity of the session]; those before its position are valid */
} conversation;

/* ---- messages --------------------------------------------------------------------------------------------------- */

static bool add_message(conversation *c, chat_role role, const char *content, bp_err *e) {
    if (c->n == c->room) {
        size_t room = 2 * c->room + 8;
        chat_message *bigger = realloc(c->messages, room * sizeof *bigger);
        if (!bigger) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the conversation");
        c->messages = bigger;
        c->room = room;
    }
    char *copy = strdup(content);
    if (!copy) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the conversation");
    c->messages[c->n++] = (chat_message){role, copy};
    return true;
}

/* Removes `count` messages from `first` on. */
static void drop_messages(conversation *c, size_t first, size_t count) {
    if (count == 0) return;
    for (size_t i = first; i < first + count; i++) free((void *)(uintptr_t)c->messages[i].content);
    memmove(c->messages + first, c->messages + first + count, (c->n - first - count) * sizeof *c->messages);
    c->n -= count;
}

static size_t system_messages(const conversation *c) { return c->n > 0 && c->messages[0].role == CHAT_SYSTEM; }

/* ---- one turn --------------------------------------------------------------------------------------------------- */

static int32_t *render_ids(const conversation *c, size_t *n, bp_err *e) {
    text rendered = {0};
    int32_t *ids = NULL;
    chat_template_render(&c->template, c->messages, c->n, &rendered);
    if (rendered.lost)
        bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the conversation");
    else
        ids = generate_tokenize(c->model, rendered.bytes, rendered.size, BP_TOKENIZE_SPECIAL, n, e);
    text_free(&rendered);
    return ids;
}

/* Tokens of the conversation; while there is no room for an answer, the oldest turn is forgotten. */
static int32_t *fitting_ids(conversation *c, size_t *n, bp_err *e) {
    size_t capacity = bp_session_capacity(c->session), answer = bp_min(64, capacity / 4);
    for (bool told = false;; told = true) {
        int32_t *ids = render_ids(c, n, e);
        size_t oldest = system_messages(c);
        if (!ids || *n + answer <= capacity || c->n - oldest < 3) return ids;
        if (!told && !c->options->generate.quiet) fputs("(the oldest turns no longer fit and are forgotten)\n", stderr);
        free(ids);
        drop_messages(c, oldest, 2);
    }
}

/* Rewinds to the longest common beginning and feeds the rest: at least one token, whose logits are wanted. */
static bool feed_new(conversation *c, const int32_t *ids, size_t n, generate_stats *stats, bp_err *e) {
    size_t same = 0, most = bp_session_position(c->session);
    while (same < most && same + 1 < n && c->fed[same] == ids[same]) same++;
    return bp_session_rewind(c->session, (uint32_t)same, e) &&
           generate_feed(c->session, ids + same, n - same, c->fed, stats, e);
}

static bool answer_turn(conversation *c, generate_stats *stats, bp_err *e) {
    size_t n;
    text answer = {0};
    int32_t *ids = fitting_ids(c, &n, e);
    bool trim = c->template.family == CHAT_LLAMA2 || c->template.family == CHAT_MISTRAL;
    bool ok = ids && feed_new(c, ids, n, stats, e) &&
              generate_answer(c->session, c->model, &c->options->generate, trim, &answer, c->fed, stats, e) &&
              add_message(c, CHAT_ASSISTANT, answer.bytes ? answer.bytes : "", e);
    free(ids);
    text_free(&answer);
    if (ok || stats->tokens) puts("");
    if (ok && !c->options->generate.quiet) generate_report(stats);
    return ok;
}

/* ---- the conversation ------------------------------------------------------------------------------------------- */

/* One question from standard input, without its line end; NULL at the end of input. */
static char *read_question(bool terminal, char **line, size_t *room) {
    if (terminal) {
        fputs("> ", stderr);
        fflush(stderr);
    }
    ssize_t n = getline(line, room, stdin);
    if (n < 0) return NULL;
    while (n > 0 && ((*line)[n - 1] == '\n' || (*line)[n - 1] == '\r')) (*line)[--n] = 0;
    return *line;
}

/* A question too long for the context is dropped, and the conversation goes on. */
static int forget_question(conversation *c) {
    drop_messages(c, c->n - 1, 1);
    return CLI_OK;
}

/* Answers line after line. On a terminal SIGINT ends the answer at hand, at the prompt it ends the program. */
static int converse(conversation *c, bp_err *e) {
    bool terminal = isatty(STDIN_FILENO);
    char *line = NULL, *question;
    size_t room = 0;
    int rc = CLI_OK;
    if (terminal) fputs("/reset begins anew, /exit (or the end of input) ends, Ctrl-C stops an answer.\n", stderr);
    while (rc == CLI_OK && (question = read_question(terminal, &line, &room)) != NULL) {
        generate_stats stats = {0};
        if (strcmp(question, "/exit") == 0) break;
        if (strcmp(question, "/reset") == 0) {
            drop_messages(c, system_messages(c), c->n - system_messages(c));
            continue;
        }
        if (!question[0]) continue;
        if (!add_message(c, CHAT_USER, question, e) || !answer_turn(c, &stats, e)) {
            rc = cli_fail(e);
            if (terminal && e->code == BP_ERR_CONTEXT) rc = forget_question(c);
        }
        if (stats.interrupted && terminal)
            cli_forget_interrupt();
        else if (stats.interrupted)
            rc = CLI_INTERRUPTED;
    }
    free(line);
    return rc == CLI_OK && cli_interrupted() ? CLI_INTERRUPTED : rc;
}

static int chat_once(conversation *c, bp_err *e) {
    generate_stats stats = {0};
    if (!add_message(c, CHAT_USER, c->options->prompt, e) || !answer_turn(c, &stats, e)) return cli_fail(e);
    return stats.interrupted ? CLI_INTERRUPTED : CLI_OK;
}

static bool open_template(conversation *c, bp_err *e) {
    char bos[64] = "", eos[64] = "";
    bp_model_info info;
    size_t size;
    const char *jinja = bp_model_string(c->model, "tokenizer.chat_template", &size);
    if (!jinja)
        return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the model has no chat template; `bitpair run` takes a raw prompt");
    bp_model_describe(c->model, &info);
    if (info.bos >= 0) bos[bp_min(bp_token_text(c->model, info.bos, true, bos, sizeof bos - 1), sizeof bos - 1)] = 0;
    if (info.eos >= 0) eos[bp_min(bp_token_text(c->model, info.eos, true, eos, sizeof eos - 1), sizeof eos - 1)] = 0;
    return chat_template_open(&c->template, jinja, size, bos, eos, e);
}

static bool conversation_open(conversation *c, const chat_options *o, bp_model *model, bp_err *e) {
    *c = (conversation){.options = o, .model = model};
    if (!open_template(c, e)) return false;
    c->session = generate_open(model, &o->generate, o->machine.kv_bits, e);
    if (!c->session) return false;
    c->fed = malloc(bp_session_capacity(c->session) * sizeof *c->fed);
    if (!c->fed) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the conversation");
    return !o->system || add_message(c, CHAT_SYSTEM, o->system, e);
}

static void conversation_close(conversation *c) {
    drop_messages(c, 0, c->n);
    free(c->messages);
    free(c->fed);
    bp_session_close(c->session);
    chat_template_close(&c->template);
}

static int chat_with(const chat_options *o, bp_model *model, bp_err *e) {
    conversation c;
    int rc;
    if (!conversation_open(&c, o, model, e))
        rc = cli_fail(e);
    else
        rc = o->prompt ? chat_once(&c, e) : converse(&c, e);
    conversation_close(&c);
    return rc;
}

int cmd_chat(int argc, char **argv) {
    chat_options o = {.machine = machine_defaults(), .generate = generate_defaults(1024)};
    const cli_option options[] = {
        {"prompt", 'p', CLI_TEXT, &o.prompt, 0, 0, "TEXT", "one question: prints the answer and ends"},
        {"system", 0, CLI_TEXT, &o.system, 0, 0, "TEXT", "system message (default: the model's own)"},
        GENERATE_OPTIONS(o.generate),
        MACHINE_OPTIONS(o.machine),
        {0}};
    const cli_spec spec = {.name = "chat",
                           .usage = "MODEL [--prompt TEXT] [options]",
                           .summary = "talk with a model; without --prompt, line by line",
                           .examples = "  bitpair chat model.gguf\n"
                                       "  bitpair chat model.gguf --prompt 'What is the capital of France?' --greedy\n"
                                       "  bitpair chat model.gguf --system 'Answer in one sentence.' < questions.txt\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    if ((rc = machine_check(&o.machine, spec.name)) != CLI_OK ||
        (rc = generate_check(&o.generate, spec.name)) != CLI_OK)
        return rc;
    bp_err e = {0};
    loaded l = {0};
    cli_catch_interrupt();
    bp_engine *engine = machine_engine(&o.machine, &e);
    if (engine && loaded_open(&l, engine, path, o.machine.tier, &e))
        rc = chat_with(&o, l.model, &e);
    else
        rc = cli_fail(&e);
    loaded_close(&l);
    bp_engine_close(engine);
    return rc;
}
