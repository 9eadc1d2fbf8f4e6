#include "prompts.h"

#include <stdlib.h>
#include <strings.h>

#include "io/file.h"
#include "io/json.h"
#include "text.h"

/* A file while it is read. */
typedef struct {
    prompt_list *out;
    const char *path, *bytes;
    size_t size, at, line; /* line: that begins at `at`, from 1 */
} reader;

static bool no_memory(bp_err *e) { return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the prompts"); }

static bool bad_line(const reader *r, size_t line, const char *what, bp_err *e) {
    return bp_fail(e, BP_ERR_FORMAT, 0, "'%s' line %zu: %s", r->path, line, what);
}

/* ---- the list -------------------------------------------------------------------------------------------------- */

static bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }

static bool is_blank(const char *bytes, size_t n) {
    while (n && is_space(bytes[n - 1])) n--;
    return n == 0;
}

static bool add_prompt(reader *r, bp_err *e) {
    prompt_list *p = r->out;
    if (p->n == p->room) {
        size_t room = 2 * p->room + 64;
        prompt *bigger = realloc(p->items, room * sizeof *bigger);
        if (!bigger) return no_memory(e);
        p->items = bigger;
        p->room = room;
    }
    p->items[p->n++] = (prompt){0};
    return true;
}

/* Adds a question to the prompt at the end of the list, unless there is nothing in it. */
static bool add_turn(reader *r, const char *bytes, size_t n, bp_err *e) {
    prompt *p = &r->out->items[r->out->n - 1];
    while (n && is_space(bytes[n - 1])) n--;
    for (; n && is_space(*bytes); n--) bytes++;
    if (n == 0 || p->n_turns == PROMPT_TURNS) return true;
    char *copy = malloc(n + 1);
    if (!copy) return no_memory(e);
    memcpy(copy, bytes, n);
    copy[n] = 0;
    p->turns[p->n_turns++] = copy;
    return true;
}

/* A prompt of one question. */
static bool add_question(reader *r, const char *bytes, size_t n, bp_err *e) {
    if (!add_prompt(r, e) || !add_turn(r, bytes, n, e)) return false;
    if (r->out->items[r->out->n - 1].n_turns == 0) r->out->n--;
    return true;
}

/* ---- lines ----------------------------------------------------------------------------------------------------- */

/* The line at r->at, without its end, and steps behind it. */
static const char *next_line(reader *r, size_t *n) {
    const char *line = r->bytes + r->at, *end = memchr(line, '\n', r->size - r->at);
    *n = end ? (size_t)(end - line) : r->size - r->at;
    r->at += *n + (end != NULL);
    r->line++;
    if (*n && line[*n - 1] == '\r') --*n;
    return line;
}

static bool read_plain(reader *r, bp_err *e) {
    while (r->at < r->size) {
        size_t n;
        const char *line = next_line(r, &n);
        if (!add_question(r, line, n, e)) return false;
    }
    return true;
}

/* ---- JSON lines ------------------------------------------------------------------------------------------------ */

static bool add_turns(reader *r, const cJSON *turns, bp_err *e) {
    const cJSON *turn;
    if (!add_prompt(r, e)) return false;
    cJSON_ArrayForEach(turn, turns) {
        const char *s = cJSON_GetStringValue(turn);
        if (!s) return bad_line(r, r->line - 1, "a turn is no string", e);
        if (!add_turn(r, s, strlen(s), e)) return false;
    }
    if (r->out->items[r->out->n - 1].n_turns == 0) r->out->n--;
    return true;
}

static bool add_task(reader *r, const char *instruction, const cJSON *instances, bp_err *e) {
    const cJSON *instance;
    if (!cJSON_IsArray(instances) || !instances->child) return add_question(r, instruction, strlen(instruction), e);
    cJSON_ArrayForEach(instance, instances) {
        const char *input = json_text(instance, "input");
        text both = {0};
        text_append_string(&both, instruction);
        if (input && *input) {
            text_append_string(&both, "\n\n");
            text_append_string(&both, input);
        }
        bool ok = both.lost ? no_memory(e) : add_question(r, both.bytes, both.size, e);
        text_free(&both);
        if (!ok) return false;
    }
    return true;
}

static bool add_object(reader *r, const cJSON *object, bp_err *e) {
    static const char *const names[] = {"question", "text", "prompt"};
    const cJSON *turns = cJSON_GetObjectItemCaseSensitive(object, "turns");
    const char *s = json_text(object, "instruction");
    if (cJSON_IsArray(turns)) return add_turns(r, turns, e);
    if (s) return add_task(r, s, cJSON_GetObjectItemCaseSensitive(object, "instances"), e);
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if ((s = json_text(object, names[i])) != NULL) return add_question(r, s, strlen(s), e);
    return bad_line(r, r->line - 1, "none of the fields turns, instruction, question, text, prompt", e);
}

static bool read_json_lines(reader *r, bp_err *e) {
    while (r->at < r->size) {
        size_t n, begin = r->at;
        const char *line = next_line(r, &n);
        if (is_blank(line, n)) continue;
        cJSON *object = json_parse(line, n, r->path, begin, NULL);
        bool ok = object ? add_object(r, object, e) : bad_line(r, r->line - 1, "broken JSON", e);
        cJSON_Delete(object);
        if (!ok) return false;
    }
    return true;
}

/* ---- CSV ------------------------------------------------------------------------------------------------------- */

/* One field (RFC 4180: quotes double inside quotes, which may span lines) and the separator after it; *last: it was the
 * last of its record. */
static bool read_field(reader *r, text *field, bool *last, bp_err *e) {
    bool quoted = r->at < r->size && r->bytes[r->at] == '"';
    size_t begin = r->line;
    text_clear(field);
    r->at += quoted;
    for (; r->at < r->size; r->at++) {
        char c = r->bytes[r->at];
        bool end = quoted ? c == '"' : c == ',' || c == '\n' || c == '\r';
        bool doubled = quoted && end && r->at + 1 < r->size && r->bytes[r->at + 1] == '"';
        if (end && !doubled) break;
        r->at += doubled;
        r->line += c == '\n';
        text_append(field, &c, 1);
    }
    if (quoted && r->at == r->size) return bad_line(r, begin, "a quoted field has no end", e);
    r->at += quoted;
    if (r->at < r->size && r->bytes[r->at] == '\r') r->at++;
    *last = r->at == r->size || r->bytes[r->at] == '\n';
    if (!*last && r->bytes[r->at] != ',') return bad_line(r, r->line, "text after a quoted field", e);
    r->line += r->at < r->size && *last;
    r->at += r->at < r->size;
    return !field->lost || no_memory(e);
}

/* Records of two columns, the second being the prompt; the first record holds their names. */
static bool read_csv(reader *r, bp_err *e) {
    text field = {0};
    bool ok = true;
    for (size_t record = 0; ok && r->at < r->size; record++) {
        bool last = false;
        size_t line = r->line, columns = 0;
        for (; ok && !last; columns++) {
            ok = read_field(r, &field, &last, e);
            if (ok && record && columns == 1) ok = add_question(r, field.bytes, field.size, e);
        }
        if (ok && columns != 2 && (columns > 2 || field.size)) ok = bad_line(r, line, "not two columns", e);
    }
    text_free(&field);
    return ok;
}

static bool is_csv(const reader *r) {
    static const char *const headers[] = {"act,prompt", "\"act\",\"prompt\""};
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(headers[i]);
        if (r->size > n && strncasecmp(r->bytes, headers[i], n) == 0 && (r->bytes[n] == '\n' || r->bytes[n] == '\r'))
            return true;
    }
    return false;
}

/* ---- the file -------------------------------------------------------------------------------------------------- */

static bool read_all(reader *r, bp_err *e) {
    static const char mark[] = "\xEF\xBB\xBF"; /* UTF-8 byte order mark */
    if (r->size >= 3 && memcmp(r->bytes, mark, 3) == 0) {
        r->bytes += 3;
        r->size -= 3;
    }
    size_t skip = 0;
    while (skip < r->size && is_space(r->bytes[skip])) skip++;
    bool ok = skip < r->size && r->bytes[skip] == '{' ? read_json_lines(r, e)
              : is_csv(r)                             ? read_csv(r, e)
                                                      : read_plain(r, e);
    if (ok && r->out->n == 0) ok = bp_fail(e, BP_ERR_FORMAT, 0, "'%s' has no prompts", r->path);
    return ok;
}

bool prompts_load(prompt_list *p, const char *path, bp_err *e) {
    file_view f;
    *p = (prompt_list){0};
    if (!file_map(&f, path, e)) return false;
    reader r = {.out = p, .path = path, .bytes = (const char *)f.bytes, .size = (size_t)f.size, .line = 1};
    bool ok = read_all(&r, e);
    file_unmap(&f);
    if (!ok) prompts_free(p);
    return ok;
}

void prompts_free(prompt_list *p) {
    for (size_t i = 0; i < p->n; i++)
        for (size_t j = 0; j < p->items[i].n_turns; j++) free(p->items[i].turns[j]);
    free(p->items);
    *p = (prompt_list){0};
}
