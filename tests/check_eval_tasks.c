/* Zero-shot: the sets as files, and likelihoods against the definition on a small real model. */
#include <math.h>
#include <unistd.h>

#include "check.h"
#include "eval/zeroshot.h"
#include "generate.h"

static char folder[] = "/tmp/bitpair-check-tasks-XXXXXX";

/* ---- files ------------------------------------------------------------------------------------------------------ */

static const char *write_file(const char *name, const char *content) {
    static char path[128];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *f = fopen(path, "wb");
    CHECK(f && fputs(content, f) >= 0 && fclose(f) == 0, "cannot write %s", path);
    return path;
}

static void check_prompts(void) {
    task_list t;
    bp_err e = {0};
    const char *path = write_file("copa_like.jsonl",
                                  "{\"query\": \"Question: Why?\\n\", \"choices\": [\" so\", \"not\"], \"gold\": 1}\n\n"
                                  "{\"query\": \"Oak trees \", \"choices\": [\"a\", \"b\", \"c\"], \"gold\": 0}\n"
                                  "{\"context_options\": [\"The cup\", \"The box\"], \"continuation\": \"is full.\", "
                                  "\"gold\": 1}");
    CHECK(tasks_read(&t, path, 0, &e), "%s", e.text);
    CHECK(t.n == 1 && t.sets[0].n == 3 && strcmp(t.sets[0].name, "copa_like") == 0, "%zu sets", t.n);
    CHECK(!t.sets[0].normalised, "copa is known by its plain accuracy");
    const task_row *r = t.sets[0].rows;
    CHECK(strcmp(r[0].context[1], "Question: Why?\nAnswer:") == 0, "'%s'", r[0].context[1]);
    CHECK(strcmp(r[0].choice[0], "so") == 0 && r[0].gold == 1 && r[0].n == 2, "'%s'", r[0].choice[0]);
    CHECK(strcmp(r[1].context[0], "Oak trees") == 0 && r[1].n == 3, "'%s'", r[1].context[0]);
    CHECK(strcmp(r[2].context[0], "The cup") == 0 && strcmp(r[2].context[1], "The box") == 0, "contexts");
    CHECK(strcmp(r[2].choice[0], "is full.") == 0 && strcmp(r[2].choice[1], "is full.") == 0, "continuation");
    tasks_free(&t);
    CHECK(tasks_read(&t, path, 2, &e) && t.sets[0].n == 2, "the limit: %zu rows", t.sets[0].n);
    tasks_free(&t);
    write_file("a.jsonl", "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}");
    CHECK(tasks_read(&t, folder, 0, &e) && t.n == 2 && t.sets[0].normalised && strcmp(t.sets[0].name, "a") == 0,
          "a folder: %s", e.text);
    tasks_free(&t);
}

/* `row` is where the line at fault begins. */
static void expect_refusal(const char *content, uint64_t row, const char *part) {
    task_list t;
    bp_err e = {0};
    CHECK(!tasks_read(&t, write_file("bad.jsonl", content), 0, &e), "%s is accepted", content);
    CHECK(e.code == BP_ERR_FORMAT && strstr(e.text, part) && strstr(e.text, "bad.jsonl"), "%s: %s", content, e.text);
    CHECK(e.offset >= row && e.offset <= strlen(content), "%s: offset %llu", content, (unsigned long long)e.offset);
    CHECK(t.n == 0, "%zu sets are left", t.n);
}

#define GOOD "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 0}\n"

static void check_refusals(void) {
    task_list t;
    bp_err e = {0};
    expect_refusal("", 0, "no rows");
    expect_refusal("\n  \n", 0, "no rows");
    expect_refusal(GOOD "{\"query\": ", strlen(GOOD), "broken JSON");
    expect_refusal(GOOD "[]", strlen(GOOD), "row 2");
    expect_refusal(GOOD "{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": 2}", strlen(GOOD), "row 2");
    expect_refusal("{\"query\": \"q\", \"choices\": [\"a\", \"b\"], \"gold\": -1}", 0, "row 1");
    expect_refusal("{\"query\": \"q\", \"choices\": [\"a\", \"b\"]}", 0, "gold");
    expect_refusal("{\"query\": \"q\", \"choices\": [\"a\"], \"gold\": 0}", 0, "row 1");
    expect_refusal("{\"query\": \"q\", \"choices\": [\"a\", 7], \"gold\": 0}", 0, "row 1");
    expect_refusal("{\"query\": \"q\", \"choices\": [\"a\", \" \"], \"gold\": 0}", 0, "row 1");
    expect_refusal("{\"query\": \"\\n\", \"choices\": [\"a\", \"b\"], \"gold\": 0}", 0, "row 1");
    expect_refusal("{\"context_options\": [\"a\", \"b\"], \"gold\": 0}", 0, "row 1");
    CHECK(!tasks_read(&t, "/no/such/file.jsonl", 0, &e) && e.code == BP_ERR_IO, "%s", e.text);
    CHECK(!tasks_read(&t, "/proc/self/fd", 0, &e) && strstr(e.text, "no *.jsonl"), "%s", e.text);
}

static void check_published_sets(void) {
    static const struct {
        const char *name;
        size_t rows;
    } SETS[] = {{"arc_easy", 2376},   {"boolq", 3270}, {"copa", 100},
                {"openbook_qa", 500}, {"piqa", 1838},  {"winograd_wsc", 273}};
    task_list t;
    bp_err e = {0};
    CHECK(tasks_read(&t, check_data("evalsets"), 0, &e) && t.n == 6, "%s", e.text);
    for (size_t i = 0; i < t.n; i++)
        CHECK(strcmp(t.sets[i].name, SETS[i].name) == 0 && t.sets[i].n == SETS[i].rows, "%s has %zu rows",
              t.sets[i].name, t.sets[i].n);
    tasks_free(&t);
}

/* ---- likelihoods ------------------------------------------------------------------------------------------------ */

static const task_row ROWS[] = {
    {3,
     0,
     {"Once upon a time there was a", "Once upon a time there was a", "Once upon a time there was a"},
     {"little girl named Lily.", "little girl who ate a", "dog"}},
    {2, 0, {"She was happy because", "She was happy because"}, {"yes", "no"}},
    {2, 0, {"The cat saw the dog. The cat", "The cat saw the dog. The dog"}, {"ran away.", "ran away."}},
    {2, 0, {"Tom", "One day, Tim and his mom went to the park to"}, {"play.", "play."}},
};
enum { N_ROWS = sizeof ROWS / sizeof *ROWS };

static int32_t *tokens_of(bp_model *model, const char *context, const char *choice, size_t *n) {
    char whole[512];
    snprintf(whole, sizeof whole, choice ? "%s %s" : "%s", context, choice);
    return generate_tokenize(model, whole, strlen(whole), BP_TOKENIZE_BOS, n, NULL);
}

/* Tokens that the context and context + choice begin with, of all choices after the same context. The tokenizer of the
 * model below has tokens across words, so this is often less than the context. */
static size_t split_of(bp_model *model, const task_row *row, const char *context) {
    size_t split = SIZE_MAX, n_alone, n;
    int32_t *alone = tokens_of(model, context, NULL, &n_alone);
    for (size_t c = 0; c < row->n; c++) {
        if (strcmp(row->context[c], context) != 0) continue;
        int32_t *ids = tokens_of(model, context, row->choice[c], &n);
        size_t same = 0;
        while (same < n_alone && same < n && alone[same] == ids[same]) same++;
        split = bp_min(split, same);
        free(ids);
    }
    free(alone);
    return split;
}

/* L(c) in the last `room` + 1 tokens, one token at a time from an empty cache. */
static double by_definition(bp_model *model, const task_row *row, size_t c, size_t room) {
    size_t n = 0, split = split_of(model, row, row->context[c]);
    bp_model_info info;
    double sum = 0;
    bp_model_describe(model, &info);
    int32_t *ids = tokens_of(model, row->context[c], row->choice[c], &n);
    bp_session *s = bp_session_open(model, NULL, NULL);
    size_t drop = n - 1 > room ? n - 1 - room : 0;
    for (size_t i = drop; i + 1 < n; i++) {
        bp_session_feed(s, ids + i, 1, NULL);
        const float *x = bp_session_logits(s);
        double all = 0;
        for (uint32_t v = 0; v < info.vocab; v++) all += exp((double)x[v]);
        if (i + 1 >= split) sum += (double)x[ids[i + 1]] - log(all);
    }
    bp_session_close(s);
    free(ids);
    return sum;
}

static void check_likelihoods(bp_model *model, workers *team) {
    bp_err e = {0};
    zeroshot_options o = {.model = model, .workers = team};
    for (size_t i = 0; i < N_ROWS; i++) {
        double found[TASKS_CHOICES], again[TASKS_CHOICES], turned[TASKS_CHOICES];
        task_row row = ROWS[i];
        o.workers = team;
        CHECK(zeroshot_likelihoods(found, &o, &row, &e), "%s", e.text);
        for (size_t c = 0; c < row.n; c++) {
            double wanted = by_definition(model, &row, c, SIZE_MAX);
            CHECK(found[c] < -0.01 && fabs(found[c] - wanted) < 1e-6, "row %zu, choice %zu: %.9f, wanted %.9f", i, c,
                  found[c], wanted);
        }
        o.workers = NULL;
        CHECK(zeroshot_likelihoods(again, &o, &row, &e) && memcmp(found, again, row.n * sizeof *found) == 0,
              "the number of workers changes the result");
        for (size_t c = 0; c < row.n; c++) {
            row.context[c] = ROWS[i].context[row.n - 1 - c];
            row.choice[c] = ROWS[i].choice[row.n - 1 - c];
        }
        CHECK(zeroshot_likelihoods(turned, &o, &row, &e), "%s", e.text);
        for (size_t c = 0; c < row.n; c++) CHECK(turned[c] == found[row.n - 1 - c], "the order of choices matters");
    }
}

/* Accuracy from likelihoods, by hand. */
static void check_accuracy(bp_model *model, workers *team) {
    bp_err e = {0};
    task_row rows[8];
    zeroshot z, all;
    zeroshot_options o = {.model = model, .workers = team};
    size_t right = 0, right_norm = 0;
    for (size_t i = 0; i < 8; i++) {
        double L[TASKS_CHOICES];
        task_row *row = &rows[i];
        *row = ROWS[i % N_ROWS];
        row->gold = i / N_ROWS;
        CHECK(zeroshot_likelihoods(L, &o, row, &e), "%s", e.text);
        size_t best = 0, best_norm = 0;
        for (size_t c = 1; c < row->n; c++) {
            if (L[c] > L[best]) best = c;
            if (L[c] / (double)strlen(row->choice[c]) > L[best_norm] / (double)strlen(row->choice[best_norm]))
                best_norm = c;
        }
        right += best == row->gold;
        right_norm += best_norm == row->gold;
    }
    task_set set = {.name = "x", .normalised = true, .n = 8, .rows = rows};
    CHECK(zeroshot_measure(&z, &o, &set, &e), "%s", e.text);
    CHECK(z.rows == 8 && z.cut == 0 && z.acc == (double)right / 8 && z.acc_norm == (double)right_norm / 8,
          "acc %f, acc_norm %f; wanted %zu, %zu of 8", z.acc, z.acc_norm, right, right_norm);
    CHECK(right != right_norm, "the rows tell the two accuracies apart");
    CHECK(fabs(z.acc_se - sqrt(z.acc * (1 - z.acc) / 8)) < 1e-12, "se %f", z.acc_se);
    double se;
    CHECK(zeroshot_figure(&z, &set, &se) == z.acc_norm && se == z.acc_norm_se, "the figure of a set");
    set.normalised = false;
    CHECK(zeroshot_figure(&z, &set, &se) == z.acc && se == z.acc_se, "the figure of a set");
    set.n = 1;
    CHECK(zeroshot_measure(&all, &o, &set, &e) && all.rows == 1 && all.tokens > 0 && all.tokens < z.tokens, "one row");
}

static void check_cut(bp_model *model) {
    bp_err e = {0};
    enum { CTX = 12 };
    double found[TASKS_CHOICES];
    char *context = "One day, Tim and his mom went to the park to play with a big red ball and then they";
    task_row row = {2, 0, {context, context}, {"ran", "went home to eat"}};
    zeroshot_options o = {.model = model, .ctx = CTX};
    task_set set = {.name = "x", .n = 1, .rows = &row};
    zeroshot z;
    CHECK(zeroshot_measure(&z, &o, &set, &e) && z.cut == 1, "%llu rows cut: %s", (unsigned long long)z.cut, e.text);
    CHECK(zeroshot_likelihoods(found, &o, &row, &e), "%s", e.text);
    double wanted = by_definition(model, &row, 1, CTX);
    CHECK(fabs(found[1] - wanted) < 1e-6, "%.9f, wanted %.9f", found[1], wanted);
    o.ctx = 3;
    CHECK(!zeroshot_measure(&z, &o, &set, &e) && e.code == BP_ERR_CONTEXT, "%s", e.text);
}

static bool stop(void *context, uint64_t done, uint64_t total, double accuracy) {
    (void)accuracy;
    *(uint64_t *)context = done;
    return done + 1 < total;
}

static void check_stop(bp_model *model) {
    bp_err e = {0};
    task_row rows[N_ROWS];
    uint64_t done = 0;
    zeroshot z;
    memcpy(rows, ROWS, sizeof rows);
    task_set set = {.name = "x", .n = N_ROWS, .rows = rows};
    zeroshot_options o = {.model = model, .progress = stop, .context = &done};
    CHECK(!zeroshot_measure(&z, &o, &set, &e) && strstr(e.text, "interrupted") && done == N_ROWS - 1, "%s", e.text);
}

int main(void) {
    bp_err e = {0};
    loaded l = {0};
    CHECK(mkdtemp(folder), "no temporary folder");
    check_prompts();
    check_refusals();
    check_published_sets();
    bp_engine_options threads = {.threads = 2};
    bp_engine *engine = bp_engine_open(&threads, &e);
    workers *team = workers_open(3, &e);
    if (loaded_open(&l, engine, check_data("models/tinystories-656k"), 0, &e)) {
        check_likelihoods(l.model, team);
        check_accuracy(l.model, team);
        check_cut(l.model);
        check_stop(l.model);
    } else {
        CHECK(false, "%s", e.text);
    }
    loaded_close(&l);
    workers_close(team);
    bp_engine_close(engine);
    char command[128];
    snprintf(command, sizeof command, "rm -r %s", folder);
    CHECK(system(command) == 0, "cannot remove %s", folder);
    return check_end();
}
