#include "generate_calib.h"

#include <stdio.h>
#include <stdlib.h>

#include "chat_template.h"
#include "decoder.h"
#include "generate.h"
#include "linalg/linalg.h"
#include "linalg/rng.h"
#include "prompts.h"

enum {
    PATIENCE = 100,    /* conversations dropped for each that is written, before giving up */
    CANDIDATES = 1000, /* tokens that may be sampled: top_p leaves fewer wherever the model knows anything */
    FIRST_GUESS = 350, /* tokens of a conversation, before any is finished: counts like GUESSES of them */
    GUESSES = 8,
    DEFAULT_CTX = 1024,
    MESSAGES = 2 * PROMPT_TURNS
};

static const char *const FOLLOW_UPS[] = {
    "Can you explain that in more detail?",
    "Can you give me an example?",
    "Why is that?",
    "Please make it shorter.",
    "Say it in simpler words, please.",
    "What else should I know about this?",
    "Are you sure about that?",
    "Thank you! What would you do next?",
};
enum { N_FOLLOW_UPS = sizeof FOLLOW_UPS / sizeof *FOLLOW_UPS };

/* Prompts of one file, and the order of the current pass over them. */
typedef struct {
    prompt_list list;
    size_t *order;
    size_t n, next; /* usable prompts; the next of the order */
    uint64_t pass;
} deck;

/* One conversation at work; its number among all decides prompt and samples. */
typedef struct {
    bool active;
    uint64_t seed;
    const char *turns[PROMPT_TURNS];
    size_t n_turns, turn;
    chat_message messages[MESSAGES]; /* answers are owned, questions are not */
    size_t n_messages;
    int32_t *ids; /* [ctx] tokens so far: fed [0, fed), the rest are to be fed */
    size_t n, fed, answer;
} chat;

typedef struct {
    const generate_calib_options *o;
    const bp_model *model;
    uint32_t vocab;
    generate_calib_result *r;
    chat_template template;
    text header; /* what a rendering ends with: the beginning of the next answer */
    deck decks[GENERATE_CALIB_FILES];
    size_t n_decks;
    workers *w;
    decoder *decoder;
    chat *chats;       /* [batch] */
    decoder_row *rows; /* [batch] */
    size_t *chat_of;   /* [batch] row -> chat; the chat's slot has its number */
    int32_t *sampled;  /* [batch] */
    size_t n_rows;
    sampler **samplers; /* of each worker */
    void *sampler_memory;
    file_out *out;
    uint64_t started; /* conversations */
    cli_progress progress;
} job;

static bool no_memory(bp_err *e) { return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the conversations"); }

/* ---- template -------------------------------------------------------------------------------------------------- */

static bool open_template(job *j, bp_err *e) {
    char bos[64] = "", eos[64] = "";
    bp_model_info info;
    size_t size;
    const char *jinja = bp_model_string(j->model, "tokenizer.chat_template", &size);
    if (!jinja) return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the model has no chat template, so it cannot write chats");
    bp_model_describe(j->model, &info);
    if (info.bos >= 0) bos[bp_min(bp_token_text(j->model, info.bos, true, bos, sizeof bos - 1), sizeof bos - 1)] = 0;
    if (info.eos >= 0) eos[bp_min(bp_token_text(j->model, info.eos, true, eos, sizeof eos - 1), sizeof eos - 1)] = 0;
    if (!chat_template_open(&j->template, jinja, size, bos, eos, e)) return false;
    chat_template bare = j->template; /* renders nothing but the header */
    bare.default_system = NULL;
    bare.dated = bare.bos = false;
    text_append(&j->header, "", 0);
    chat_template_render(&bare, NULL, 0, &j->header);
    return !j->header.lost || no_memory(e);
}

static bool is_control(const bp_model *m, int32_t id) {
    char name[8];
    return bp_token_text(m, id, false, name, sizeof name) == 0 && bp_token_text(m, id, true, name, sizeof name) > 0;
}

/* Would the text be read back with a control token in it? */
static bool names_control(const job *j, const char *s, bool *found, bp_err *e) {
    size_t n;
    int32_t *ids = generate_tokenize(j->model, s, strlen(s), BP_TOKENIZE_SPECIAL, &n, e);
    *found = false;
    for (size_t i = 0; ids && i < n; i++) *found |= is_control(j->model, ids[i]);
    free(ids);
    return ids != NULL;
}

/* Tokens of the conversation so far, ready for the next answer. */
static int32_t *render_ids(const job *j, const chat_message *messages, size_t n_messages, size_t *n, bp_err *e) {
    text rendered = {0};
    int32_t *ids = NULL;
    chat_template_render(&j->template, messages, n_messages, &rendered);
    if (rendered.lost)
        no_memory(e);
    else
        ids = generate_tokenize(j->model, rendered.bytes, rendered.size, BP_TOKENIZE_SPECIAL, n, e);
    text_free(&rendered);
    for (size_t i = 0; ids && i < *n; i++)
        if ((uint32_t)ids[i] >= j->vocab) {
            bp_fail(e, BP_ERR_FORMAT, 0, "the tokenizer gives token %d, the model knows %u", (int)ids[i],
                    (unsigned)j->vocab);
            free(ids);
            return NULL;
        }
    return ids;
}

/* ---- prompts --------------------------------------------------------------------------------------------------- */

/* Is there room for an answer, and no control token among the words? */
static bool usable(job *j, const prompt *p, bool *yes, bp_err *e) {
    chat_message first = {CHAT_USER, p->turns[0]};
    bool control = false;
    size_t n;
    for (size_t i = 0; i < p->n_turns && !control; i++)
        if (!names_control(j, p->turns[i], &control, e)) return false;
    int32_t *ids = render_ids(j, &first, 1, &n, e);
    free(ids);
    *yes = !control && n + j->o->max_answer <= j->o->ctx;
    return ids != NULL;
}

static void shuffle(deck *d, uint64_t seed, size_t file) {
    char name[64];
    snprintf(name, sizeof name, "prompts/%zu/%llu", file, (unsigned long long)d->pass++);
    rng r = rng_named(seed, name);
    for (size_t i = d->n; i > 1; i--) {
        size_t other = (size_t)(rng_uniform(&r) * (double)i), kept = d->order[i - 1];
        d->order[i - 1] = d->order[other];
        d->order[other] = kept;
    }
    d->next = 0;
}

static bool open_deck(job *j, deck *d, const char *path, bp_err *e) {
    const generate_calib_options *o = j->o;
    bp_err inner = {0};
    if (!prompts_load(&d->list, path, e)) return false;
    d->order = malloc(d->list.n * sizeof *d->order);
    if (!d->order) return no_memory(e);
    for (size_t i = 0; i < d->list.n; i++) {
        bool held = o->hold_out && i % o->hold_out == o->hold_out - 1, yes;
        if (held != o->held_out) continue;
        if (!usable(j, &d->list.items[i], &yes, &inner))
            return bp_fail(e, inner.code, inner.offset, "'%s', prompt %zu: %s", path, i + 1, inner.text);
        if (yes) d->order[d->n++] = i;
        j->r->skipped += !yes;
    }
    if (d->n == 0)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "'%s': none of its %zu prompts is left (see --hold-out, --ctx)", path,
                       d->list.n);
    shuffle(d, o->seed, (size_t)(d - j->decks));
    return true;
}

static bool open_decks(job *j, bp_err *e) {
    char *paths = strdup(j->o->prompts), *rest = paths;
    bool ok = paths || no_memory(e);
    for (const char *path; ok && (path = strsep(&rest, ",")) != NULL;) {
        if (!*path)
            ok = bp_fail(e, BP_ERR_ARGUMENT, 0, "--prompts: an empty file name in '%s'", j->o->prompts);
        else if (j->n_decks == GENERATE_CALIB_FILES)
            ok = bp_fail(e, BP_ERR_ARGUMENT, 0, "--prompts: more than %d files", GENERATE_CALIB_FILES);
        else
            ok = open_deck(j, &j->decks[j->n_decks++], path, e);
    }
    free(paths);
    return ok;
}

/* ---- one conversation ------------------------------------------------------------------------------------------ */

static void end_chat(chat *c) {
    for (size_t i = 0; i < c->n_messages; i++)
        if (c->messages[i].role == CHAT_ASSISTANT) free((void *)(uintptr_t)c->messages[i].content);
    c->n_messages = 0;
    c->active = false;
}

/* Asks the next question: its tokens are to be fed. What the rendering repeats of the conversation is kept as far as it
 * gives the same tokens. Ends the chat's turns when there is no room for a question and its answer. */
static bool ask(job *j, chat *c, bool *asked, bp_err *e) {
    size_t n = 0, same = 0, slot = (size_t)(c - j->chats);
    *asked = false;
    if (c->turn == c->n_turns) return true;
    c->messages[c->n_messages] = (chat_message){CHAT_USER, c->turns[c->turn++]};
    int32_t *ids = render_ids(j, c->messages, c->n_messages + 1, &n, e);
    if (!ids) return false;
    if (n + j->o->max_answer <= j->o->ctx) {
        while (same < c->fed && same + 1 < n && ids[same] == c->ids[same]) same++;
        memcpy(c->ids, ids, n * sizeof *ids);
        c->n = c->answer = n;
        c->fed = same;
        c->n_messages++;
        decoder_rewind(j->decoder, slot, same);
        *asked = true;
    }
    free(ids);
    return true;
}

/* Begins conversation number j->started: files take turns, each in its shuffled order. */
static bool begin_chat(job *j, chat *c, bp_err *e) {
    char name[64];
    size_t file = (size_t)(j->started % j->n_decks);
    deck *d = &j->decks[file];
    if (d->next == d->n) shuffle(d, j->o->seed, file);
    const prompt *p = &d->list.items[d->order[d->next++]];
    snprintf(name, sizeof name, "chat/%llu", (unsigned long long)j->started++);
    rng r = rng_named(j->o->seed, name);
    c->seed = rng_next(&r);
    c->active = true;
    c->n_messages = c->n = c->fed = c->turn = 0;
    c->n_turns = p->n_turns;
    for (size_t i = 0; i < p->n_turns; i++) c->turns[i] = p->turns[i];
    if (p->n_turns == 1 && rng_uniform(&r) < j->o->follow_ups)
        c->turns[c->n_turns++] = FOLLOW_UPS[rng_next(&r) % N_FOLLOW_UPS];
    bool asked;
    return ask(j, c, &asked, e);
}

/* Where a text that was cut ends well: behind its last whole sentence or line; where there is none, at its end. */
static size_t whole_sentences(const char *s, size_t n) {
    for (size_t i = n; i > 1; i--)
        if (s[i - 1] == '\n' || (s[i - 1] == ' ' && strchr(".!?", s[i - 2]))) return i - 1;
    return n;
}

/* The answer at the end of the tokens, as a new string. */
static char *answer_text(job *j, const chat *c, bool cut) {
    utf8_stream utf8 = {0};
    text out = {0};
    char piece[1024];
    bool trim = j->template.family == CHAT_LLAMA2 || j->template.family == CHAT_MISTRAL;
    text_append(&out, "", 0);
    for (size_t i = c->answer; i < c->n; i++)
        utf8_push(&utf8, &out, piece,
                  bp_min(bp_token_text(j->model, c->ids[i], false, piece, sizeof piece), sizeof piece));
    if (out.lost) return text_free(&out), NULL;
    if (cut) out.size = whole_sentences(out.bytes, out.size);
    while (cut && out.size && strchr(" \t\n", out.bytes[out.size - 1])) out.size--;
    out.bytes[out.size] = 0;
    size_t skip = trim ? strspn(out.bytes, " \t\n") : 0;
    memmove(out.bytes, out.bytes + skip, out.size - skip + 1);
    return out.bytes;
}

/* Appends the conversation to the file: its rendering without the header of an answer that is not to come. */
static bool write_chat(job *j, const chat *c, bp_err *e) {
    text rendered = {0};
    size_t n = 0;
    chat_template complete = j->template;
    complete.thinks = false; /* reasoning is part of what the model is to say */
    chat_template_render(&complete, c->messages, c->n_messages, &rendered);
    bool ok = !rendered.lost || no_memory(e);
    size_t size = ok ? rendered.size - j->header.size : 0;
    int32_t *ids = ok ? generate_tokenize(j->model, rendered.bytes, size, BP_TOKENIZE_SPECIAL, &n, e) : NULL;
    ok = ids && file_append(j->out, rendered.bytes, size, e);
    if (ok) j->r->chats++, j->r->tokens += n, j->r->bytes += size;
    free(ids);
    text_free(&rendered);
    return ok;
}

/* The answer is whole (or cut): the next question, or the end of the conversation. */
static bool finish_answer(job *j, chat *c, bool cut, bp_err *e) {
    bool control, asked;
    char *answer = answer_text(j, c, cut);
    if (!answer) return no_memory(e);
    c->messages[c->n_messages++] = (chat_message){CHAT_ASSISTANT, answer};
    j->r->cut += cut;
    if (!names_control(j, answer, &control, e)) return false;
    if (control || !*answer) {
        end_chat(c);
        j->r->dropped++;
        return j->r->dropped < PATIENCE * (j->r->chats + 1) ||
               bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the model gives %llu empty answers in %llu: it does not chat",
                       (unsigned long long)j->r->dropped, (unsigned long long)(j->r->dropped + j->r->chats));
    }
    if (!ask(j, c, &asked, e)) return false;
    if (asked) return true;
    bool ok = write_chat(j, c, e);
    end_chat(c);
    return ok;
}

/* ---- the lockstep ---------------------------------------------------------------------------------------------- */

/* The random numbers of a token depend on conversation and position alone. */
static void sample_row(void *context, size_t i, uint32_t worker) {
    job *j = context;
    const chat *c = &j->chats[j->chat_of[i]];
    if (!j->rows[i].wanted) return;
    sampler_options o = {.temperature = (float)j->o->temperature,
                         .top_k = CANDIDATES,
                         .typical_p = 1,
                         .top_p = (float)j->o->top_p,
                         .repeat_penalty = 1,
                         .seed = c->seed + c->n * 0x9e3779b97f4a7c15u};
    sampler_reset(j->samplers[worker], &o);
    j->sampled[i] = sampler_pick(j->samplers[worker], j->rows[i].logits, NULL, 0);
}

static void fill_rows(job *j) {
    j->n_rows = 0;
    for (size_t i = 0; i < j->o->batch; i++) {
        const chat *c = &j->chats[i];
        if (!c->active) continue;
        j->chat_of[j->n_rows] = i;
        j->rows[j->n_rows++] = (decoder_row){.slot = i, .id = c->ids[c->fed], .wanted = c->fed + 1 == c->n};
    }
}

static bool take_token(job *j, chat *c, int32_t id, bp_err *e) {
    bool end = bp_model_is_end(j->model, id) || is_control(j->model, id);
    if (!end) c->ids[c->n++] = id;
    bool cut = !end && c->n - c->answer == j->o->max_answer;
    return (!end && !cut) || finish_answer(j, c, cut, e);
}

static bool step(job *j, bp_err *e) {
    fill_rows(j);
    decoder_step(j->decoder, j->rows, j->n_rows);
    workers_for(j->w, j->n_rows, sample_row, j);
    for (size_t i = 0; i < j->n_rows; i++) {
        chat *c = &j->chats[j->chat_of[i]];
        c->fed++;
        if (j->rows[i].wanted && !take_token(j, c, j->sampled[i], e)) return false;
    }
    return true;
}

/* Begins conversations in free slots as long as those at work are not expected to give the tokens asked for. So the
 * last ones come to their end like all others, and long answers are not cut off from the text. Short ones are the first
 * to be complete, so the mean length counts the tokens of the others too, as for lifetimes of which not all are over. */
static bool refill(job *j, size_t *active, bp_err *e) {
    const generate_calib_result *r = j->r;
    double guess = (double)(GUESSES * bp_min(FIRST_GUESS, j->o->ctx / 2)), spent = (double)r->tokens, total = spent;
    for (size_t i = 0; i < j->o->batch; i++) spent += j->chats[i].active ? (double)j->chats[i].fed : 0;
    double mean = (spent + guess) / (double)(r->chats + GUESSES);
    for (size_t i = 0; i < j->o->batch; i++) {
        double likely = (double)j->chats[i].fed + mean / 2;
        if (j->chats[i].active) total += likely > mean ? likely : mean;
    }
    *active = 0;
    for (size_t i = 0; i < j->o->batch; i++) {
        if (!j->chats[i].active && total < (double)j->o->tokens) {
            if (!begin_chat(j, &j->chats[i], e)) return false;
            total += mean;
        }
        *active += j->chats[i].active;
    }
    return true;
}

static void show(job *j) {
    char detail[64];
    uint64_t tokens = j->r->tokens;
    for (size_t i = 0; i < j->o->batch; i++) tokens += j->chats[i].active ? j->chats[i].fed : 0;
    double seconds = clock_seconds() - j->progress.started;
    snprintf(detail, sizeof detail, "%llu chats, %.0f tok/s", (unsigned long long)j->r->chats,
             seconds > 0 ? (double)tokens / seconds : 0);
    cli_progress_update(&j->progress, (double)bp_min(tokens, j->o->tokens), (double)j->o->tokens, detail);
}

static bool converse(job *j, bp_err *e) {
    size_t active;
    while (!(j->r->interrupted = cli_interrupted())) {
        if (!refill(j, &active, e)) return false;
        if (active == 0) break;
        if (!step(j, e)) return false;
        show(j);
    }
    return true;
}

/* ---- the run --------------------------------------------------------------------------------------------------- */

static bool open_samplers(job *j, bp_err *e) {
    size_t n = workers_count(j->w);
    arena a = arena_measure();
    sampler_layout(&a, j->vocab);
    size_t size = bp_round_up(a.used, BP_ALIGN);
    j->samplers = malloc(n * sizeof *j->samplers);
    j->sampler_memory = aligned_alloc(BP_ALIGN, n * size);
    if (!j->samplers || !j->sampler_memory) return no_memory(e);
    for (size_t i = 0; i < n; i++) {
        a = arena_over((char *)j->sampler_memory + i * size, size);
        j->samplers[i] = sampler_layout(&a, j->vocab);
    }
    return true;
}

static bool open_chats(job *j, bp_err *e) {
    size_t batch = (size_t)j->o->batch, ctx = (size_t)j->o->ctx;
    j->chats = calloc(batch, sizeof *j->chats);
    j->rows = malloc(batch * sizeof *j->rows);
    j->chat_of = malloc(batch * sizeof *j->chat_of);
    j->sampled = malloc(batch * sizeof *j->sampled);
    if (!j->chats || !j->rows || !j->chat_of || !j->sampled) return no_memory(e);
    for (size_t i = 0; i < batch; i++)
        if (!(j->chats[i].ids = malloc(ctx * sizeof(int32_t)))) return no_memory(e);
    return true;
}

static bool check_sizes(const generate_calib_options *o, const model_config *c, bp_err *e) {
    if (o->ctx > c->n_ctx)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--ctx %llu is beyond the model's context of %u",
                       (unsigned long long)o->ctx, (unsigned)c->n_ctx);
    if (o->max_answer >= o->ctx)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--max-answer %llu leaves no room for a question in a context of %llu",
                       (unsigned long long)o->max_answer, (unsigned long long)o->ctx);
    return true;
}

static bool open_job(job *j, const model *weights, bp_err *e) {
    linalg_init();
    return check_sizes(j->o, &weights->config, e) && open_template(j, e) &&
           (j->out = file_create(j->o->out_path, j->o->force, 0, e)) && open_decks(j, e) &&
           (j->w = workers_open((uint32_t)j->o->threads, e)) && open_chats(j, e) && open_samplers(j, e) &&
           (j->decoder = decoder_open(weights, j->w, (size_t)j->o->batch, (size_t)j->o->ctx, e));
}

static void close_job(job *j) {
    for (size_t i = 0; j->chats && i < j->o->batch; i++) {
        end_chat(&j->chats[i]);
        free(j->chats[i].ids);
    }
    for (size_t i = 0; i < j->n_decks; i++) {
        prompts_free(&j->decks[i].list);
        free(j->decks[i].order);
    }
    free(j->chats);
    free(j->rows);
    free(j->chat_of);
    free(j->sampled);
    free(j->samplers);
    free(j->sampler_memory);
    decoder_close(j->decoder);
    workers_close(j->w);
    file_discard(j->out);
    text_free(&j->header);
    chat_template_close(&j->template);
}

bool generate_calib_run(const generate_calib_options *o, const bp_model *text_side, const model *weights,
                        generate_calib_result *r, bp_err *e) {
    generate_calib_options own = *o;
    if (own.ctx == 0) own.ctx = bp_min(weights->config.n_ctx, DEFAULT_CTX);
    job j = {.o = &own, .model = text_side, .vocab = weights->config.vocab, .r = r};
    *r = (generate_calib_result){0};
    bool ok = open_job(&j, weights, e);
    cli_progress_begin(&j.progress, "generate-calib", o->quiet);
    double started = clock_seconds();
    ok = ok && converse(&j, e);
    cli_progress_end(&j.progress);
    r->seconds = clock_seconds() - started;
    if (j.out && r->chats) { /* also after an error: what is whole is kept */
        file_out *out = j.out;
        bp_err inner = {0}, reason = *e;
        j.out = NULL;
        bool kept = file_commit(out, &inner);
        if (ok && !kept) *e = inner;
        if (!ok && kept)
            bp_fail(e, reason.code, reason.offset, "%s; %llu conversations are in %s", reason.text,
                    (unsigned long long)r->chats, o->out_path);
        ok = ok && kept;
    }
    close_job(&j);
    return ok;
}
