/* tuner.h - the state of a distillation, private to tune.c, tune_pass.c and tune_state.c. */
#ifndef BITPAIR_TUNER_H
#define BITPAIR_TUNER_H

#include "cli.h"
#include "distill.h"
#include "network.h"
#include "table.h"
#include "tune.h"

typedef struct {
    const tune_options *o;
    const model *teacher, *file;
    const calibration *text;
    workers *w;
    product_kind kind;
    network net;
    student model;
    distiller head;
    model_layer *shapes; /* [n_layers] the student's blocks, none of their linear layers fused */
    block_weights *W;    /* [n_layers] the student's matrices with the tiers of this step */
    block_weights dense; /* one block of the teacher */
    block_trace *traces; /* [n_traces] one per block, or one for all: then inputs are kept and blocks run twice */
    uint32_t n_traces;
    float *inputs;         /* [n_layers, most tokens, d_model] where one trace serves several blocks, else NULL */
    float *embedding[2];   /* [vocab, d_model] of student and teacher */
    float *table[2];       /* the same of their heads; the embedding where tied */
    tuned_table tables[2]; /* where they are trained or new: the student's embedding, and a head of its own */
    uint32_t n_tables;
    float *stream, *x, *y; /* [most tokens, d_model] */
    float *r;              /* [most tokens] */
    float *dW, *scratch;
    float *norm;                  /* [3, d_model] the student's output norm and its moments */
    float *d_norm;                /* [d_model] */
    uint16_t *taught;             /* half [n_seqs, ctx, d_model] the teacher's normalised last stream */
    uint8_t *known;               /* [n_seqs] taught is there */
    size_t *order;                /* [training sequences] of this epoch */
    uint64_t shuffled;            /* 1 + the epoch that order is of; 0: none */
    int32_t *ids;                 /* [most tokens] of this batch */
    size_t *rows;                 /* [sequences of a batch] which */
    float *labels;                /* [sequences of a batch] shares of labels in their losses */
    uint32_t tiers;               /* of this step */
    student_rates rates;          /* of this step */
    double distance[MODEL_TIERS]; /* running mean of the KL of each tier: losses are relative to it */
    factors *best;                /* [n_layers * PARTS] what was best on validation */
    float *best_norm;
    double best_score;                                  /* weighted mean of ln KL; INFINITY before */
    tune_score before[MODEL_TIERS], after[MODEL_TIERS]; /* of the start, and of what was best */
    uint64_t step, best_step, tokens;
    double elapsed; /* seconds of tuning before this run */
    cli_progress progress;
} tuner;

/* Runs the student forward over t->ids (n_seqs sequences): t->x is the input of its head. */
void tuner_forward(tuner *t, size_t n_seqs);

/* t->y <- the teacher's input of its head for the sequences t->rows, from memory where it was computed before. */
void tuner_teach(tuner *t, size_t n_seqs);

/* One step on the sequences t->rows; returns the mean KL before it. */
double tuner_step(tuner *t, size_t n_seqs);

/* The student's matrices with so many tiers. */
void tuner_materialise(tuner *t, uint32_t tiers);

/* Scores on the validation sequences. */
tune_score tuner_validate(tuner *t, uint32_t tiers);

/* Keeps the parameters as they are as the best so far. BP_ERR_MEMORY. */
bool tuner_keep(tuner *t, double score, bp_err *e);

/* The state of the run in OUT.gguf.tune: written whole or not at all; read back with --resume into a tuner whose tables
 * are open and not begun. A state of other options, texts or files is BP_ERR_ARGUMENT. */
bool tuner_save(const tuner *t, const char *path, const uint8_t fingerprint[32], bp_err *e);
bool tuner_load(tuner *t, const char *path, const uint8_t fingerprint[32], bp_err *e);

#endif
