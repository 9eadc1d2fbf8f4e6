#include "eval/report.h"

#include <cJSON.h>
#include <math.h>
#include <stdio.h>

enum { NAME = 40 /* columns of the longest name */ };

double report_mean(const report *r, const report_model *m, double *se) {
    double sum = 0, squares = 0;
    for (size_t i = 0; i < r->tasks.n; i++) {
        double one;
        sum += zeroshot_figure(&m->tasks[i], &r->tasks.sets[i], &one);
        squares += one * one;
    }
    *se = sqrt(squares) / (double)r->tasks.n;
    return sum / (double)r->tasks.n;
}

/* ---- tables ----------------------------------------------------------------------------------------------------- */

static const char *last_component(const char *path) {
    const char *slash = strrchr(path, '/');
    return slash && slash[1] ? slash + 1 : path;
}

static int name_width(const report *r) {
    size_t width = 5;
    for (size_t i = 0; i < r->n_models; i++) width = bp_max(width, strlen(last_component(r->models[i].path)));
    return (int)bp_min(width, NAME);
}

static void print_columns(const report *r) { printf("%-*s %9s  %6s", name_width(r), "model", "MB ", "bits"); }

static void print_model(const report *r, const report_model *m) {
    int width = name_width(r);
    printf("%-*.*s %8.2f%c  %6.3f", width, width, last_component(m->path), (double)m->bytes / 1e6,
           m->packed ? '*' : ' ', m->bits_per_weight);
}

static void print_text(const report *r, size_t text) {
    const perplexity *first = &r->models[0].texts[text];
    printf("%s: %llu tokens, %llu scored, context %llu", last_component(r->texts[text]),
           (unsigned long long)first->tokens, (unsigned long long)first->scored, (unsigned long long)r->ctx);
    if (r->teacher) printf("; teacher %s, perplexity %.4f", last_component(r->teacher), first->teacher_ppl);
    printf("\n");
    print_columns(r);
    printf("  %10s  %9s", "perplexity", "bits/byte");
    if (r->teacher) printf("  %9s  %8s  %7s", "x teacher", "KL", "top-1 %");
    printf("\n");
    for (size_t i = 0; i < r->n_models; i++) {
        const perplexity *p = &r->models[i].texts[text];
        print_model(r, &r->models[i]);
        printf("  %10.4f  %9.5f", p->ppl, p->bits_per_byte);
        if (r->teacher) printf("  %9.4f  %8.5f  %7.2f", p->ppl / p->teacher_ppl, p->kl, 100 * p->top1);
        printf("\n");
    }
    printf("\n");
}

/* The other figure and the one that counts, with its standard error: "62.1 64.8 +-1.1". */
static void print_task(const zeroshot *z, const task_set *set) {
    double se;
    zeroshot_figure(z, set, &se);
    printf("  %5.1f %5.1f +-%4.1f", 100 * z->acc, 100 * z->acc_norm, 100 * se);
}

static void print_tasks(const report *r) {
    printf("zero-shot, percent right: acc, acc_norm, standard error; the mean takes acc_norm where the name has *\n");
    print_columns(r);
    for (size_t i = 0; i < r->tasks.n; i++)
        printf("  %16.15s%c", r->tasks.sets[i].name, r->tasks.sets[i].normalised ? '*' : ' ');
    printf("  %11s\n", "mean");
    for (size_t i = 0; i < r->n_models; i++) {
        double se, mean = report_mean(r, &r->models[i], &se);
        print_model(r, &r->models[i]);
        for (size_t j = 0; j < r->tasks.n; j++) print_task(&r->models[i].tasks[j], &r->tasks.sets[j]);
        printf("  %5.1f +-%3.1f\n", 100 * mean, 100 * se);
    }
    for (size_t j = 0; j < r->tasks.n; j++) {
        const zeroshot *z = &r->models[0].tasks[j];
        printf("%s%s: %llu rows", j ? ", " : "", r->tasks.sets[j].name, (unsigned long long)z->rows);
        if (z->cut) printf(" (%llu cut from the left)", (unsigned long long)z->cut);
    }
    printf("\n\n");
}

void report_print_tables(const report *r) {
    uint64_t tokens = 0;
    bool packed = false;
    for (size_t i = 0; i < r->n_texts; i++) print_text(r, i);
    if (r->tasks.n) print_tasks(r);
    for (size_t i = 0; i < r->n_models; i++) {
        for (size_t j = 0; j < r->n_texts; j++) tokens += r->models[i].texts[j].tokens;
        for (size_t j = 0; j < r->tasks.n; j++) tokens += r->models[i].tasks[j].tokens;
        packed = packed || r->models[i].packed;
    }
    if (packed) printf("* of the packed form that the file states (bitpair.packed_bytes); the file itself is larger\n");
    printf("%.1f s, %.1f tok/s\n", r->seconds, (double)tokens / r->seconds);
}

/* ---- JSON ------------------------------------------------------------------------------------------------------- */

static bool add(cJSON *o, const char *name, double x) { return cJSON_AddNumberToObject(o, name, x); }

static bool add_perplexity(cJSON *o, const perplexity *p, bool taught) {
    bool ok = add(o, "tokens", (double)p->tokens) && add(o, "scored", (double)p->scored) && add(o, "nll", p->nll) &&
              add(o, "ppl", p->ppl) && add(o, "bits_per_byte", p->bits_per_byte);
    return ok && (!taught || (add(o, "kl", p->kl) && add(o, "top1", p->top1) && add(o, "teacher_ppl", p->teacher_ppl)));
}

static cJSON *add_item(cJSON *list) {
    cJSON *item = cJSON_CreateObject();
    if (item) cJSON_AddItemToArray(list, item);
    return item;
}

static bool add_texts(cJSON *o, const report *r, const report_model *m) {
    cJSON *list = cJSON_AddArrayToObject(o, "texts");
    for (size_t i = 0; list && i < r->n_texts; i++) {
        cJSON *item = add_item(list);
        if (!item || !cJSON_AddStringToObject(item, "text", r->texts[i]) ||
            !add_perplexity(item, &m->texts[i], r->teacher))
            return false;
    }
    return list;
}

static bool add_tasks(cJSON *o, const report *r, const report_model *m) {
    double se, mean = report_mean(r, m, &se);
    cJSON *list = cJSON_AddArrayToObject(o, "tasks");
    for (size_t i = 0; list && i < r->tasks.n; i++) {
        const zeroshot *z = &m->tasks[i];
        const task_set *set = &r->tasks.sets[i];
        cJSON *item = add_item(list);
        bool ok = item && cJSON_AddStringToObject(item, "task", set->name) && add(item, "rows", (double)z->rows) &&
                  add(item, "cut", (double)z->cut) && add(item, "tokens", (double)z->tokens) &&
                  add(item, "acc", z->acc) && add(item, "acc_se", z->acc_se) && add(item, "acc_norm", z->acc_norm) &&
                  add(item, "acc_norm_se", z->acc_norm_se) &&
                  cJSON_AddStringToObject(item, "figure", set->normalised ? "acc_norm" : "acc");
        if (!ok) return false;
    }
    return list && add(o, "mean", mean) && add(o, "mean_se", se);
}

static bool print_line(const report *r, const report_model *m) {
    cJSON *o = cJSON_CreateObject();
    bool ok = o && cJSON_AddStringToObject(o, "model", m->path) && add(o, "bytes", (double)m->bytes) &&
              cJSON_AddBoolToObject(o, "packed", m->packed) && add(o, "bits_per_weight", m->bits_per_weight) &&
              add(o, "ctx", (double)r->ctx) && add(o, "seconds", r->seconds);
    ok = ok && (!r->teacher || cJSON_AddStringToObject(o, "teacher", r->teacher));
    ok = ok && (r->n_texts != 1 || add_perplexity(o, &m->texts[0], r->teacher)); /* of several none is the model's */
    ok = ok && (!r->n_texts || add_texts(o, r, m));
    ok = ok && (!r->tasks.n || add_tasks(o, r, m));
    char *line = ok ? cJSON_PrintUnformatted(o) : NULL;
    if (line) printf("%s\n", line);
    cJSON_free(line);
    cJSON_Delete(o);
    return line;
}

bool report_print_json(const report *r) {
    for (size_t i = 0; i < r->n_models; i++)
        if (!print_line(r, &r->models[i])) return false;
    return true;
}
