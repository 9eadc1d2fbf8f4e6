#include "eval/tasks.h"

#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/file.h"
#include "io/json.h"

enum { PATH = 4096 };

/* ---- one row ---------------------------------------------------------------------------------------------------- */

static bool begins(const char *s, const char *with) { return strncmp(s, with, strlen(with)) == 0; }

/* The prompt before a choice; NULL: out of memory, or nothing is left of it. */
static char *make_context(const char *s) {
    bool asks = begins(s, "Question: ") || begins(s, "Passage: ");
    size_t n = strlen(s);
    while (n > 0 && strchr(" \t\r\n", s[n - 1])) n--;
    size_t room = n + sizeof "\nAnswer:";
    char *made = n ? malloc(room) : NULL;
    if (made) snprintf(made, room, "%.*s%s", (int)n, s, asks ? "\nAnswer:" : "");
    return made;
}

static char *make_choice(const char *s) {
    s += strspn(s, " \t\r\n");
    return *s ? strdup(s) : NULL;
}

/* `many` are the parts that differ, `one` is the part that all share. */
static bool fill_row(task_row *row, const cJSON *many, const char *one, bool contexts) {
    size_t n = (size_t)cJSON_GetArraySize(many);
    if (n < 2 || n > TASKS_CHOICES || !one) return false;
    const cJSON *item;
    cJSON_ArrayForEach(item, many) {
        const char *s = cJSON_GetStringValue(item);
        if (!s) return false;
        row->context[row->n] = make_context(contexts ? s : one);
        row->choice[row->n] = make_choice(contexts ? one : s);
        row->n++;
        if (!row->context[row->n - 1] || !row->choice[row->n - 1]) return false;
    }
    return true;
}

static bool read_row(task_row *row, const cJSON *object) {
    const cJSON *choices = cJSON_GetObjectItemCaseSensitive(object, "choices");
    const cJSON *contexts = cJSON_GetObjectItemCaseSensitive(object, "context_options");
    uint64_t gold;
    bool ok = choices ? fill_row(row, choices, json_text(object, "query"), false)
                      : fill_row(row, contexts, json_text(object, "continuation"), true);
    ok = ok && json_u64(cJSON_GetObjectItemCaseSensitive(object, "gold"), &gold) && gold < row->n;
    if (ok) row->gold = (size_t)gold;
    return ok;
}

/* ---- one set ---------------------------------------------------------------------------------------------------- */

static void free_set(task_set *s) {
    for (size_t i = 0; i < s->n; i++)
        for (size_t c = 0; c < s->rows[i].n; c++) {
            free(s->rows[i].context[c]);
            free(s->rows[i].choice[c]);
        }
    free(s->rows);
}

static void name_set(task_set *s, const char *path) {
    const char *slash = strrchr(path, '/');
    snprintf(s->name, sizeof s->name, "%.63s", slash ? slash + 1 : path);
    char *dot = strrchr(s->name, '.');
    if (dot && dot != s->name) *dot = 0;
    s->normalised = !begins(s->name, "boolq") && !begins(s->name, "copa") && !begins(s->name, "winograd");
}

static bool read_line(task_set *s, const char *path, const char *line, size_t size, uint64_t at, bp_err *e) {
    task_row *row = &s->rows[s->n++];
    *row = (task_row){0};
    cJSON *object = json_parse(line, size, path, at, e);
    if (!object) return false;
    bool ok = read_row(row, object);
    cJSON_Delete(object);
    if (ok) return true;
    return bp_fail(e, BP_ERR_FORMAT, at,
                   "%s: row %zu has no query, choices (2 to %d) and gold, nor context_options, continuation and gold",
                   path, s->n, TASKS_CHOICES);
}

static bool read_lines(task_set *s, const file_view *f, const char *path, size_t limit, bp_err *e) {
    const char *text = (const char *)f->bytes;
    size_t size = (size_t)f->size, most = 1;
    for (size_t i = 0; i < size; i++) most += text[i] == '\n';
    if (limit) most = bp_min(most, limit);
    s->rows = malloc(most * sizeof *s->rows);
    if (!s->rows) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the rows of %s", path);
    for (size_t at = 0, end; at < size && s->n < most; at = end + 1) {
        const char *newline = memchr(text + at, '\n', size - at);
        end = newline ? (size_t)(newline - text) : size;
        size_t blank = at;
        while (blank < end && strchr(" \t\r", text[blank])) blank++;
        if (blank < end && !read_line(s, path, text + at, end - at, at, e)) return false;
    }
    return s->n > 0 || bp_fail(e, BP_ERR_FORMAT, 0, "%s: there are no rows", path);
}

static bool read_set(task_list *t, const char *path, size_t limit, bp_err *e) {
    file_view f;
    if (t->n == TASKS_SETS) return bp_fail(e, BP_ERR_ARGUMENT, 0, "more than %d sets of tasks", TASKS_SETS);
    if (!file_map(&f, path, e)) return false;
    task_set *s = &t->sets[t->n++];
    name_set(s, path);
    bool ok = read_lines(s, &f, path, limit, e);
    file_unmap(&f);
    return ok;
}

/* ---- the list --------------------------------------------------------------------------------------------------- */

static int is_set(const struct dirent *d) {
    size_t n = strlen(d->d_name);
    return n > 6 && strcmp(d->d_name + n - 6, ".jsonl") == 0;
}

static bool read_folder(task_list *t, const char *folder, size_t limit, bp_err *e) {
    struct dirent **names;
    char path[PATH];
    int n = scandir(folder, &names, is_set, alphasort);
    if (n < 0) return bp_fail(e, BP_ERR_IO, 0, "%s: the folder cannot be read", folder);
    bool ok = n > 0 || bp_fail(e, BP_ERR_FORMAT, 0, "%s: there is no *.jsonl", folder);
    for (int i = 0; i < n; i++) {
        snprintf(path, sizeof path, "%s/%s", folder, names[i]->d_name);
        ok = ok && read_set(t, path, limit, e);
        free(names[i]);
    }
    free(names);
    return ok;
}

static bool read_files(task_list *t, const char *list, size_t limit, bp_err *e) {
    char path[PATH];
    for (const char *at = list;; at++) {
        size_t n = strcspn(at, ",");
        snprintf(path, sizeof path, "%.*s", (int)bp_min(n, PATH - 1), at);
        if (!read_set(t, path, limit, e)) return false;
        at += n;
        if (!*at) return true;
    }
}

bool tasks_read(task_list *t, const char *where, size_t limit, bp_err *e) {
    struct stat st;
    *t = (task_list){0};
    bool folder = stat(where, &st) == 0 && S_ISDIR(st.st_mode);
    if (folder ? read_folder(t, where, limit, e) : read_files(t, where, limit, e)) return true;
    tasks_free(t);
    return false;
}

void tasks_free(task_list *t) {
    for (size_t i = 0; i < t->n; i++) free_set(&t->sets[i]);
    t->n = 0;
}
