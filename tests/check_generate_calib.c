/* Chats written by the model: the decoder against the forward pass in double precision, and texts that are the
 * template's, repeat from the same seed, and keep held-out prompts apart. */
#include "check.h"

#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

#include "cli.h"
#include "compress/decoder.h"
#include "compress/generate_calib.h"
#include "io/source.h"
#include "linalg/linalg.h"
#include "load.h"
#include "tiny_model.h"

enum { PATH = 512, VOCAB = 49152, WIDTH = 64 };

static char folder[] = "/tmp/bitpair-check-generate-XXXXXX";

static const char *in_folder(const char *name) {
    static char paths[8][PATH];
    static unsigned turn;
    char *path = paths[turn++ & 7];
    snprintf(path, PATH, "%s/%s", folder, name);
    return path;
}

static void write_file(const char *name, const char *bytes) {
    FILE *f = tiny_file(folder, name);
    fputs(bytes, f);
    fclose(f);
}

/* ---- the decoder ----------------------------------------------------------------------------------------------- */

enum { SLOTS = 3, TOKENS = 24, SMALL_VOCAB = 64 };

static void compare(const tiny_model *t, const int32_t *ids, size_t n, const float *logits) {
    double wanted[TOKENS * SMALL_VOCAB], worst = 0, largest = 0;
    const double *last = wanted + (n - 1) * SMALL_VOCAB;
    tiny_forward(t, ids, (uint32_t)n, wanted);
    for (size_t i = 0; i < SMALL_VOCAB; i++) {
        worst = fmax(worst, fabs((double)logits[i] - last[i]));
        largest = fmax(largest, fabs(last[i]));
    }
    CHECK(worst < 1e-4 * largest, "%s: logits after %zu tokens differ by %g of %g", t->class_name, n, worst, largest);
}

/* Sequences that begin at different steps, of which one is taken back and goes on otherwise; at some steps only some
 * rows want logits. all [steps][SLOTS][vocab] receives them. */
static void decode(const tiny_model *t, const model *m, uint32_t threads, float *all) {
    int32_t ids[SLOTS][TOKENS];
    size_t length[SLOTS] = {0};
    bp_err e = {0};
    workers *w = workers_open(threads, &e);
    decoder *d = decoder_open(m, w, SLOTS, TOKENS, &e);
    CHECK(d, "%s", e.text);
    for (size_t i = 0; i < (size_t)SLOTS * TOKENS; i++)
        ids[i / TOKENS][i % TOKENS] = (int32_t)(i * i * 5 % SMALL_VOCAB);
    for (size_t at = 0; d && at < TOKENS; at++) {
        decoder_row rows[SLOTS];
        size_t n = 0;
        if (at == 15) {
            decoder_rewind(d, 1, length[1] = 3);
            for (size_t i = 3; i < TOKENS; i++) ids[1][i] = (int32_t)((i * 11 + 2) % SMALL_VOCAB);
        }
        for (size_t s = SLOTS; s-- > 0;)
            if (at >= 4 * s)
                rows[n++] =
                    (decoder_row){.slot = s, .id = ids[s][length[s]++], .wanted = (at + s) % 3 != 0, .logits = all};
        decoder_step(d, rows, n);
        for (size_t i = 0; i < n; i++) {
            CHECK((rows[i].logits != NULL) == rows[i].wanted, "logits of row %zu", i);
            if (!rows[i].logits) continue;
            if (threads == 1) compare(t, ids[rows[i].slot], length[rows[i].slot], rows[i].logits);
            memcpy(all + (at * SLOTS + rows[i].slot) * SMALL_VOCAB, rows[i].logits, SMALL_VOCAB * sizeof *all);
        }
    }
    CHECK(d && length[0] == TOKENS && length[1] == 3 + TOKENS - 15, "lengths");
    decoder_close(d);
    workers_close(w);
}

static void check_decoder(const char *class_name, uint32_t head, bool tied, bool scaled) {
    enum { ALL = TOKENS * SLOTS * SMALL_VOCAB };
    static float one[ALL], three[ALL];
    tiny_model t = {.class_name = class_name,
                    .layers = 2,
                    .d = WIDTH,
                    .ff = 200,
                    .heads = 4,
                    .kv = 2,
                    .hd = head,
                    .vocab = SMALL_VOCAB,
                    .dtype = "F32",
                    .tied = tied,
                    .scaled = scaled,
                    .biases = strcmp(class_name, "Qwen2ForCausalLM") == 0,
                    .qk_norms = strcmp(class_name, "Qwen3ForCausalLM") == 0};
    source s = {0};
    bp_err e = {0};
    tiny_make(&t, 7);
    tiny_write(&t, folder, false);
    CHECK(source_open(&s, folder, &e), "%s", e.text);
    model *m = s.bytes ? model_load(s.bytes, s.size, &e) : NULL;
    CHECK(m, "%s", e.text);
    if (m) {
        decode(&t, m, 1, one);
        decode(&t, m, 3, three);
        CHECK(memcmp(one, three, sizeof one) == 0, "%s: logits depend on the number of threads", class_name);
        m->factorized = true;
        CHECK(!decoder_open(m, NULL, 1, 8, &e) && e.code == BP_ERR_ARGUMENT, "a compressed model: %s", e.text);
    }
    model_unload(m);
    source_close(&s);
    tiny_free(&t);
}

/* ---- the chats ------------------------------------------------------------------------------------------------- */

/* A random model that answers in a few letters and often ends: all embeddings have a large first component, and the
 * head looks at nothing but that one for most tokens. */
static void write_model(void) {
    static const char letters[] = "abcdefgh";
    enum { IM_END = 2, FIRST_LETTER = 81 /* 'a' */ };
    tiny_model t = {.class_name = "LlamaForCausalLM",
                    .layers = 1,
                    .d = WIDTH,
                    .ff = 64,
                    .heads = 4,
                    .kv = 2,
                    .hd = 16,
                    .vocab = VOCAB,
                    .dtype = "F16"};
    tiny_make(&t, 3);
    float *embedding = t.tensors[0].data, *head = t.tensors[2].data;
    for (size_t i = 0; i < VOCAB; i++) {
        bool said = i == IM_END || (i >= FIRST_LETTER && i < FIRST_LETTER + sizeof letters - 1);
        embedding[i * WIDTH] = 4;
        head[i * WIDTH] = said ? 2 : -2;
        for (size_t j = 1; j < WIDTH; j++) head[i * WIDTH + j] *= said ? 3.0f : 0.0f;
    }
    tiny_write(&t, folder, false);
    for (int i = 0; i < 2; i++) {
        const char *name = i ? "tokenizer_config.json" : "tokenizer.json";
        char target[PATH], whole[4096];
        snprintf(target, sizeof target, "tokenizers/smollm2/%s", name);
        unlink(in_folder(name));
        CHECK(realpath(check_data(target), whole) && symlink(whole, in_folder(name)) == 0, "cannot link %s", name);
    }
    tiny_free(&t);
}

typedef struct {
    loaded text_side;
    model *weights;
    bp_engine *engine;
} opened;

static bool open_model(opened *o) {
    bp_err e = {0};
    *o = (opened){.engine = bp_engine_open(NULL, &e)};
    bool ok = o->engine && loaded_open(&o->text_side, o->engine, folder, 0, &e);
    if (ok) o->weights = model_load(o->text_side.source.bytes, o->text_side.source.size, &e);
    CHECK(o->weights, "%s", e.text);
    return o->weights != NULL;
}

static void close_model(opened *o) {
    model_unload(o->weights);
    loaded_close(&o->text_side);
    bp_engine_close(o->engine);
}

static generate_calib_options usual(const char *prompts, const char *out) {
    return (generate_calib_options){.prompts = prompts,
                                    .out_path = out,
                                    .tokens = 900,
                                    .max_answer = 24,
                                    .ctx = 128,
                                    .batch = 5,
                                    .threads = 1,
                                    .seed = 1,
                                    .temperature = 1,
                                    .top_p = 1,
                                    .follow_ups = 0.5,
                                    .force = true,
                                    .quiet = true};
}

/* The text that a run writes (malloc, NUL-terminated). */
static char *generate(const opened *m, const generate_calib_options *o, generate_calib_result *r) {
    bp_err e = {0};
    file_view f;
    char *bytes = NULL;
    bool ok = generate_calib_run(o, m->text_side.model, m->weights, r, &e);
    CHECK(ok, "%s", e.text);
    if (ok && file_map(&f, o->out_path, &e)) {
        CHECK(f.size == r->bytes, "%zu bytes, reported %zu", (size_t)f.size, (size_t)r->bytes);
        bytes = strndup((const char *)f.bytes, (size_t)f.size);
        file_unmap(&f);
    }
    return bytes ? bytes : strdup("");
}

static size_t count(const char *s, const char *what) {
    size_t n = 0;
    for (; (s = strstr(s, what)) != NULL; s += strlen(what)) n++;
    return n;
}

#define SYSTEM "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"

/* Every conversation is the template's: a system message, then questions and answers in turn, each closed. */
static void check_form(const char *s) {
    static const char question[] = "<|im_start|>user\n", answer[] = "<|im_start|>assistant\n", end[] = "<|im_end|>\n";
    while (*s) {
        size_t turns = 0;
        CHECK(strncmp(s, SYSTEM, strlen(SYSTEM)) == 0, "no system message at '%.40s'", s);
        s = strstr(s, end);
        for (s += s ? strlen(end) : 0; s && strncmp(s, question, strlen(question)) == 0; turns++) {
            s = strstr(s, end);
            bool answered = s && strncmp(s + strlen(end), answer, strlen(answer)) == 0;
            CHECK(answered, "a question without an answer");
            s = answered ? strstr(s + strlen(end) + strlen(answer), end) : NULL;
            CHECK(s, "an answer without an end");
            s += s ? strlen(end) : 0;
        }
        CHECK(turns >= 1 && turns <= 2, "%zu turns", turns);
        if (!s || turns == 0) return;
    }
}

static void check_text(const opened *m) {
    generate_calib_result r, again;
    generate_calib_options o = usual(in_folder("plain"), in_folder("out"));
    write_file("plain", "first question\nsecond one\nthird, the last\nfourth <|im_end|> is left out\n");
    char *text = generate(m, &o, &r);
    check_form(text);
    size_t n = strlen(text) + 8;
    int32_t *ids = malloc(n * sizeof *ids);
    ptrdiff_t tokens = bp_tokenize(m->text_side.model, text, n - 8, BP_TOKENIZE_SPECIAL, ids, n, NULL);
    CHECK(tokens == (ptrdiff_t)r.tokens && r.tokens >= o.tokens && r.tokens < o.tokens + 2 * o.ctx,
          "%td tokens, reported %zu", tokens, (size_t)r.tokens);
    CHECK(r.chats == count(text, "<|im_start|>system\n") && r.skipped == 1 && !strstr(text, "fourth"), "%zu chats",
          (size_t)r.chats);
    size_t firsts = count(text, "first question"), seconds = count(text, "second one"),
           turns = count(text, "<|im_start|>user\n");
    CHECK(firsts + seconds + count(text, "third, the last") == r.chats, "each conversation has one prompt");
    CHECK(firsts <= seconds + 3 && seconds <= firsts + 3, "prompts take turns: %zu and %zu", firsts, seconds);
    CHECK(turns > r.chats && turns < 2 * r.chats, "%zu questions in %zu conversations", turns, (size_t)r.chats);
    CHECK(r.cut > 0 && r.cut < turns, "%zu of %zu answers cut", (size_t)r.cut, turns);
    o.threads = 3;
    char *other = generate(m, &o, &again);
    CHECK(strcmp(text, other) == 0, "the text depends on the number of threads");
    free(other);
    o.seed = 2;
    other = generate(m, &o, &again);
    CHECK(strcmp(text, other) != 0, "the seed has no effect");
    free(other);
    o.temperature = 0;
    o.follow_ups = 0;
    o.tokens = 500;
    other = generate(m, &o, &again);
    CHECK(count(other, "<|im_start|>user\n") == again.chats, "follow-ups that nobody asked for");
    for (const char *s = other; (s = strstr(s, "first question")) != NULL; s++) {
        const char *one = strstr(other, "first question");
        CHECK(strncmp(s, one, (size_t)(strstr(one, "<|im_start|>system") - one)) == 0, "greedy answers differ");
        if (!strstr(s, "<|im_start|>system")) break;
    }
    free(other);
    free(ids);
    free(text);
}

/* The engine's greedy answer to a rendered conversation. */
static void answer_greedily(const opened *m, const char *rendered, uint64_t most, char *answer, size_t room) {
    sampler_options greedy = {.typical_p = 1, .top_p = 1, .repeat_penalty = 1};
    size_t size = strlen(rendered);
    int32_t *ids = malloc((size + 8) * sizeof *ids);
    ptrdiff_t n = bp_tokenize(m->text_side.model, rendered, size, BP_TOKENIZE_SPECIAL, ids, size + 8, NULL);
    bp_session *s = bp_session_open(m->text_side.model, &(bp_session_options){.kv_bits = 16}, NULL);
    CHECK(s && n > 0 && bp_session_sampling(s, &greedy, NULL) && bp_session_feed(s, ids, (size_t)n, NULL), "session");
    for (answer[0] = 0; s && most > 0; most--) {
        char piece[16];
        int32_t id = bp_session_sample(s, NULL);
        if (id < 0 || bp_model_is_end(m->text_side.model, id)) break;
        int bytes = (int)bp_token_text(m->text_side.model, id, false, piece, sizeof piece);
        snprintf(answer + strlen(answer), room - strlen(answer), "%.*s", bytes, piece);
        bp_session_feed(s, &id, 1, NULL);
    }
    bp_session_close(s);
    free(ids);
}

/* Greedy answers of both turns are those of the engine's own session over the same text. */
static void check_engine(const opened *m) {
    char prompts[256] = "", different[8][64];
    size_t distinct = 0;
    generate_calib_result r;
    generate_calib_options o = usual(in_folder("turns"), in_folder("out"));
    o.tokens = 700;
    o.temperature = 0;
    for (int i = 0; i < 4; i++)
        snprintf(prompts + strlen(prompts), sizeof prompts - strlen(prompts),
                 "{\"turns\": [\"hello %d\", \"and %d\"]}\n", i, 9 - i);
    write_file("turns", prompts);
    char *text = generate(m, &o, &r), *from = text;
    for (char *at = text; (at = strstr(at, "assistant\n")) != NULL;) {
        char wanted[64], kept = at[10];
        at += 10;
        if (strstr(from, SYSTEM "<|im_start|>user\nhello") != from) from = strstr(from + 1, SYSTEM);
        *at = 0;
        answer_greedily(m, from, o.max_answer, wanted, sizeof wanted);
        *at = kept;
        const char *end = strstr(at, "<|im_end|>");
        CHECK(end && *wanted && (size_t)(end - at) == strlen(wanted) && strncmp(at, wanted, strlen(wanted)) == 0,
              "the engine answers '%s', here it is '%.30s'", wanted, at);
        size_t known = 0;
        while (known < distinct && strcmp(different[known], wanted) != 0) known++;
        if (known == distinct && distinct < 8) memcpy(different[distinct++], wanted, sizeof wanted);
        const char *next = strstr(at, SYSTEM), *question = strstr(at, "<|im_start|>user\n");
        if (next && question && next < question) from = strstr(at, SYSTEM);
    }
    CHECK(distinct >= 3, "%zu different answers only", distinct);
    free(text);
}

/* Files share evenly however long they are; held-out prompts are the rest. */
static void check_files(const opened *m) {
    char paths[2 * PATH + 2], many[4096] = "";
    generate_calib_result r;
    for (int i = 0; i < 40; i++) snprintf(many + strlen(many), sizeof many - strlen(many), "many %d\n", i);
    write_file("many", many);
    write_file("few", "few 0\nfew 1\nfew 2\nfew 3\n");
    snprintf(paths, sizeof paths, "%s,%s", in_folder("many"), in_folder("few"));
    generate_calib_options o = usual(paths, in_folder("out"));
    o.follow_ups = 0;
    o.hold_out = 2;
    char *used = generate(m, &o, &r);
    size_t from_many = count(used, "\nmany "), from_few = count(used, "\nfew ");
    CHECK(from_many + from_few == r.chats && from_many <= from_few + o.batch && from_few <= from_many + o.batch,
          "%zu and %zu conversations", from_many, from_few);
    o.held_out = true;
    char *held = generate(m, &o, &r);
    for (int i = 0; i < 40; i++) {
        char what[32];
        snprintf(what, sizeof what, "\nmany %d<", i);
        CHECK(!strstr(i % 2 ? used : held, what), "prompt %d is on the wrong side", i);
        snprintf(what, sizeof what, "\nfew %d<", i);
        CHECK(i >= 4 || (strstr(i % 2 ? held : used, what) && !strstr(i % 2 ? used : held, what)), "prompt %d", i);
    }
    free(used);
    free(held);
}

static void expect_refusal(const opened *m, const generate_calib_options *o, bp_err_code code, const char *said) {
    generate_calib_result r;
    bp_err e = {0};
    bool ok = generate_calib_run(o, m->text_side.model, m->weights, &r, &e);
    CHECK(!ok && e.code == code && strstr(e.text, said), "'%s' without '%s'", e.text, said);
    CHECK(access(o->out_path, F_OK) != 0, "a file is left behind");
}

static void check_refusals(const opened *m) {
    generate_calib_options o = usual(in_folder("plain"), in_folder("refused"));
    o.prompts = in_folder("absent");
    expect_refusal(m, &o, BP_ERR_IO, "absent");
    write_file("broken", "{\"text\": \"a\"}\n{\n");
    o.prompts = in_folder("broken");
    expect_refusal(m, &o, BP_ERR_FORMAT, "line 2");
    write_file("latin", "fine\ncaf\xE9\n");
    o.prompts = in_folder("latin");
    expect_refusal(m, &o, BP_ERR_FORMAT, "prompt 2");
    o = usual(in_folder("few"), in_folder("refused"));
    o.hold_out = 9;
    o.held_out = true;
    expect_refusal(m, &o, BP_ERR_ARGUMENT, "none of its 4 prompts");
    o = usual(in_folder("few"), in_folder("refused"));
    o.ctx = 1024;
    expect_refusal(m, &o, BP_ERR_ARGUMENT, "context of 512");
    o.ctx = 24;
    expect_refusal(m, &o, BP_ERR_ARGUMENT, "no room");
    unlink(in_folder("tokenizer_config.json"));
    opened bare;
    if (open_model(&bare)) {
        o = usual(in_folder("few"), in_folder("refused"));
        expect_refusal(&bare, &o, BP_ERR_UNSUPPORTED, "no chat template");
        close_model(&bare);
    }
}

/* A disk that fills up: the run fails, whole conversations stay. */
static void check_full_disk(const opened *m) {
    bp_err e = {0};
    file_view f = {0};
    generate_calib_result r;
    struct rlimit limit, before;
    generate_calib_options o = usual(in_folder("few"), in_folder("full"));
    o.tokens = 100000;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 3000;
    setrlimit(RLIMIT_FSIZE, &limit);
    bool ok = generate_calib_run(&o, m->text_side.model, m->weights, &r, &e);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(!ok && e.code == BP_ERR_IO && strstr(e.text, "full") && strstr(e.text, "conversations are in"), "%s", e.text);
    bool kept = file_map(&f, o.out_path, &e);
    CHECK(kept && f.size == r.bytes && f.size > 1500 && f.size <= 3000, "%zu bytes, reported %zu", (size_t)f.size,
          (size_t)r.bytes);
    char *text = strndup(kept ? (const char *)f.bytes : "", (size_t)f.size);
    check_form(text);
    CHECK(count(text, "<|im_start|>system\n") == r.chats, "%zu conversations", (size_t)r.chats);
    free(text);
    file_unmap(&f);
}

/* The command line; last: an interrupt keeps what is complete. */
static void check_command(const opened *m) {
    char out[] = "--output=x", command[] = "generate-calib", model_word[] = "model", held[] = "--held-out",
         prompts[] = "--prompts=x";
    fclose(stderr);
    CHECK(cmd_generate_calib(3, (char *[]){command, model_word, prompts, NULL}) == CLI_USAGE, "no output");
    CHECK(cmd_generate_calib(3, (char *[]){command, model_word, out, NULL}) == CLI_USAGE, "no prompts");
    CHECK(cmd_generate_calib(5, (char *[]){command, model_word, out, prompts, held, NULL}) == CLI_USAGE,
          "no --hold-out");
    generate_calib_options o = usual(in_folder("few"), in_folder("refused"));
    generate_calib_result r;
    bp_err e = {0};
    cli_catch_interrupt();
    raise(SIGINT);
    CHECK(generate_calib_run(&o, m->text_side.model, m->weights, &r, &e) && r.interrupted && r.chats == 0 &&
              access(o.out_path, F_OK) != 0,
          "an interrupt at the beginning: %s", e.text);
    cli_forget_interrupt();
}

static void remove_files(void) {
    DIR *d = opendir(folder);
    for (const struct dirent *f; d && (f = readdir(d)) != NULL;) unlink(in_folder(f->d_name));
    if (d) closedir(d);
    rmdir(folder);
}

int main(void) {
    opened m;
    CHECK(mkdtemp(folder), "no temporary folder");
    linalg_init();
    check_decoder("LlamaForCausalLM", 16, true, true);
    check_decoder("Qwen2ForCausalLM", 16, false, false);
    check_decoder("Qwen3ForCausalLM", 32, true, false);
    write_model();
    if (open_model(&m)) {
        check_text(&m);
        check_engine(&m);
        check_files(&m);
        check_full_disk(&m);
        check_refusals(&m);
        check_command(&m);
        close_model(&m);
    }
    remove_files();
    return check_end();
}
