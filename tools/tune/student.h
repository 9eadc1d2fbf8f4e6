/* student.h - the trainable parameters of a factorized model: for every stage of every linear layer the scales a, c, b
 * and the signs,
 *
 *     W = sum_s diag(a) A diag(c) B diag(b)                                           docs/DBF.md (17)
 *
 * where c may be another for every number of tiers that take part (n_c rows of it). Their gradients come from dL/dW;
 * scales take steps of Adam, signs flip when that pays (docs/DBF.md (19)): a sign s with mean gradient m loses 2 s m by
 * turning and costs 2 h, h its curvature. For a loss that is the KL to the teacher divided by its present value, h is
 * about the mean square of the gradient over single tokens, T times that over batches of T. */
#ifndef BITPAIR_STUDENT_H
#define BITPAIR_STUDENT_H

#include "compress/factors.h"
#include "product.h"

/* Parameters of one stage, and where Adam keeps its two moments: the same arrays, `moments` and 2 * `moments` floats
 * further on. */
typedef struct {
    uint32_t n, m, k, n_c;
    bool eight;                    /* stored with a and c in 8 bits (factors.h) */
    float *a, *c, *b;              /* [n], [n_c, k], [m]; row i of c with i stages after this one, the last with more */
    float *A, *B;                  /* signs [n, k], [k, m] */
    float size_a, size_c, size_b;  /* mean magnitudes at the start: steps are relative to them */
    uint32_t steps;                /* of Adam so far, of a, b and the signs */
    uint32_t c_steps[MODEL_TIERS]; /* of each row of c */
    float *memory;                 /* all of them: a, c, b, A, B */
    size_t count, kept;            /* parameters; how many of them have moments (all, or the scales) */
} student_stage;

typedef struct {
    uint32_t n, m, n_stages;
    student_stage stages[MODEL_STAGES];
} student_layer;

typedef struct {
    uint32_t n_layers, n_tiers;
    student_layer *layers; /* [n_layers * PARTS] stacks in the order of block.h */
    bool train_signs;
} student;

typedef struct {
    float scales;       /* step of a scale, relative to the mean size of its vector */
    float tables;       /* of an entry of embedding or head, likewise */
    float beta1, beta2; /* of Adam */
    float sign_beta;    /* of the means that decide about signs */
    float curvature;    /* a sign turns if s m > curvature E[d^2] + noise deviations of the mean */
    float noise;
} student_rates;

/* What takes part in a step, and what of it changes. */
typedef struct {
    uint32_t tiers;   /* so many stages */
    uint32_t first;   /* stages before this one stay, but for middle scales that no tier before it uses */
    uint32_t n_tiers; /* of the file */
    bool apart;       /* what several tiers use stays, too */
} student_turn;

/* At most: with middle scales of its own for every tier. */
uint64_t student_bytes(const model *m, bool train_signs);

/* Reads the stages of a factorized model. tier_scales: every tier has middle scales of its own from now on, else where
 * the file has. BP_ERR_ARGUMENT for a dense one; BP_ERR_FORMAT (scales of a later tier); BP_ERR_MEMORY. */
bool student_open(student *s, const model *m, bool train_signs, bool tier_scales, bp_err *e);
void student_close(student *s);

/* The same for one layer, from factors that were just made. */
bool student_layer_open(student_layer *l, const factors *f, bool train_signs, bp_err *e);
void student_layer_close(student_layer *l);

/* Scratch of the two calls below: floats for the largest layer of m. */
size_t student_scratch(const model *m);

/* W [n, m] <- the first `tiers` stages of a layer. */
void student_dense(workers *w, product_kind kind, const student_layer *l, uint32_t tiers, float *W, float *scratch);

/* One step from dW [n, m] = dL/dW (docs/DBF.md (18)). */
void student_update(workers *w, product_kind kind, student_layer *l, student_turn turn, const float *dW,
                    const student_rates *rates, float *scratch);

/* From now on all stages are stored with a and c in 8 bits, or in half precision. */
void student_set_eight(student *s, bool eight);

/* f (closed before) <- the layer as it is stored. BP_ERR_MEMORY. */
bool student_factors(const student_layer *l, factors *f, bp_err *e);

/* Signs of f [n_layers * PARTS] that differ from those of the model that the student was read from, and how many there
 * are. */
void student_flips(const factors *f, const model *m, uint64_t *flipped, uint64_t *all);

#endif
