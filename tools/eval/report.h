/* report.h - what `bitpair eval` found, as tables for people and as lines of JSON for programs. */
#ifndef BITPAIR_REPORT_H
#define BITPAIR_REPORT_H

#include "eval/perplexity.h"
#include "eval/zeroshot.h"

enum { REPORT_TEXTS = 16 /* most texts of a run */ };

typedef struct {
    const char *path;
    uint64_t bytes;         /* of the file, or `bitpair.packed_bytes` where it states them */
    bool packed;            /* it does: bytes and bits are of the packed form, the file itself is larger */
    double bits_per_weight; /* linear layers of the blocks */
    perplexity texts[REPORT_TEXTS];
    zeroshot tasks[TASKS_SETS];
} report_model;

typedef struct {
    const char *teacher; /* NULL: none */
    uint64_t ctx;
    double seconds; /* of the whole run */
    const char *texts[REPORT_TEXTS];
    size_t n_texts, n_models;
    task_list tasks; /* n 0: none */
    report_model models[PERPLEXITY_MODELS];
} report;

/* Mean over the sets of zeroshot_figure; *se its standard error, sqrt(sum se_i^2) / sets. */
double report_mean(const report *r, const report_model *m, double *se);

/* A table for each text and one for the tasks, to stdout; rows are models. */
void report_print_tables(const report *r);

/* One line of JSON per model, to stdout, in the order of the models:
 *     {"model", "bytes", "packed", "bits_per_weight", "ctx", "seconds" (of the whole run), ["teacher",]
 *      tokens ... top1 of the first text as below,
 *      "texts": [{"text", "tokens", "scored", "nll", "ppl", "bits_per_byte"[, "kl", "top1", "teacher_ppl"]}, ...],
 *      "tasks": [{"task", "rows", "cut", "tokens", "acc", "acc_se", "acc_norm", "acc_norm_se", "figure"}, ...],
 *      "mean", "mean_se"}
 * "figure" is "acc" or "acc_norm": the one that goes into the mean. False when memory ran out. */
bool report_print_json(const report *r);

#endif
