/* Prompt files of every format, with their errors, and the collections as they were published. */
#include "check.h"

#include <unistd.h>

#include "compress/prompts.h"

static char path[] = "/tmp/bitpair-check-prompts-XXXXXX";

static void write_prompts(const char *content) {
    FILE *f = fopen(path, "wb");
    CHECK(f, "cannot write %s", path);
    if (!f) return;
    fputs(content, f);
    fclose(f);
}

/* The prompts of a file with this content: first questions joined by '|', further ones by '+'. */
static void expect_prompts(const char *content, const char *wanted) {
    char found[512] = "";
    prompt_list p;
    bp_err e = {0};
    write_prompts(content);
    CHECK(prompts_load(&p, path, &e), "%s: %s", content, e.text);
    for (size_t i = 0; i < p.n; i++)
        for (size_t j = 0; j < p.items[i].n_turns; j++)
            snprintf(found + strlen(found), sizeof found - strlen(found), "%s%s",
                     j   ? "+"
                     : i ? "|"
                         : "",
                     p.items[i].turns[j]);
    CHECK(strcmp(found, wanted) == 0, "found\n%s\nwanted\n%s", found, wanted);
    prompts_free(&p);
}

static void expect_error(const char *content, const char *said) {
    prompt_list p;
    bp_err e = {0};
    write_prompts(content);
    bool refused = !prompts_load(&p, path, &e);
    CHECK(refused && e.code == BP_ERR_FORMAT && strstr(e.text, said), "%s: '%s' without '%s'", content, e.text, said);
    if (!refused) prompts_free(&p);
}

static void check_prompts(void) {
    expect_prompts("one\n\n  two \r\nthree, \"x\"", "one|two|three, \"x\"");
    expect_prompts("\xEF\xBB\xBF"
                   "caf\xC3\xA9\n",
                   "caf\xC3\xA9");
    expect_prompts("{\"turns\": [\"a\", \"b\"]}\n\n{\"turns\": [\" c\\n\"]}\n{\"turns\": []}\n", "a+b|c");
    expect_prompts("{\"turns\": [\"1\", \"2\", \"3\", \"4\", \"5\"]}", "1+2+3+4");
    expect_prompts("{\"text\": \"a\"}\r\n{\"question\": \"b\", \"answer\": \"x\"}\n{\"prompt\": \"c\"}  ", "a|b|c");
    expect_prompts("{\"instruction\": \"do\", \"instances\": [{\"input\": \"\", \"output\": \"x\"}]}\n"
                   "{\"instruction\": \"sum\", \"instances\": [{\"input\": \"1\"}, {\"input\": \"2\"}]}\n"
                   "{\"instruction\": \"say\"}\n",
                   "do|sum\n\n1|sum\n\n2|say");
    expect_prompts("act,prompt\nguide,\"a \"\"b\"\", c\nd\"\r\nx,plain\n\"\",\"\"\n\n", "a \"b\", c\nd|plain");
    expect_prompts("\"act\",\"prompt\"\n\"a, b\",\"c\"", "c");
    expect_error("", "no prompts");
    expect_error(" \n\n", "no prompts");
    expect_error("{\"text\": \"a\"}\n\n{\"text\": \n", "line 3: broken JSON");
    expect_error("{\"text\": \"a\"}\nplain\n", "line 2: broken JSON");
    expect_error("{\"text\": \"a\"}\n{\"txt\": \"a\"}\n", "line 2: none of the fields");
    expect_error("{\"turns\": [\"a\", 1]}\n", "line 1: a turn");
    expect_error("act,prompt\na,\"b\nc\"\nd,\"e\n", "line 4: a quoted field has no end");
    expect_error("act,prompt\na,b,c\n", "line 2: not two columns");
    expect_error("act,prompt\nx,\"y\n\"\na\n", "line 4: not two columns");
    expect_error("act,prompt\na,\"b\"c\n", "line 2: text after");
    prompt_list p;
    bp_err e = {0};
    CHECK(!prompts_load(&p, "/tmp/bitpair-check-absent/prompts", &e) && e.code == BP_ERR_IO, "%s", e.text);
}

/* The collections as they were published: as many prompts as entries. */
static void check_collections(void) {
    static const struct {
        const char *path;
        size_t n, turns;
    } FILES[] = {{"prompts/self_instruct_seed_tasks.jsonl", 175, 1},
                 {"prompts/awesome_chatgpt_prompts_2024.csv", 169, 1},
                 {"prompts/gsm8k_train.jsonl", 7473, 1},
                 {"prompts/mt_bench_question.jsonl", 80, 2}};
    for (size_t i = 0; i < sizeof FILES / sizeof *FILES; i++) {
        prompt_list p;
        bp_err e = {0};
        CHECK(prompts_load(&p, check_data(FILES[i].path), &e), "%s", e.text);
        CHECK(p.n == FILES[i].n, "%s: %zu prompts", FILES[i].path, p.n);
        for (size_t j = 0; j < p.n; j++)
            if (p.items[j].n_turns != FILES[i].turns) CHECK(false, "%s: turns of %zu", FILES[i].path, j);
        prompts_free(&p);
    }
}

int main(void) {
    int file = mkstemp(path);
    CHECK(file >= 0, "no temporary file");
    check_prompts();
    check_collections();
    if (file >= 0) close(file);
    unlink(path);
    return check_end();
}
