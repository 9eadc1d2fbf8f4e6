/* student.h - the trainable parameters of a factorized model: for every stage of every linear layer the scales a, c, b
 * and the signs,
 *
 *     W = sum_s diag(a) A diag(c) B diag(b)                                           docs/DBF.md (17)
 *
 * their gradients from dL/dW; scales take steps of Adam, signs flip when that pays (docs/DBF.md (19)): a sign s with mean
 * gradient m loses 2 s m by turning and costs 2 h, h its curvature. For a loss that is the KL to the teacher divided by
 * its present value, h is about the mean square of the gradient over single tokens, T times that over batches of T. */
#ifndef BITPAIR_STUDENT_H
#define BITPAIR_STUDENT_H

#include "compress/factors.h"
#include "product.h"

/* Parameters of one stage, and where Adam keeps its two moments: the same arrays, `moments` and 2 * `moments` floats
 * further on. */
typedef struct {
    uint32_t n, m, k;
    float *a, *c, *b;             /* [n], [k], [m] */
    float *A, *B;                 /* signs [n, k], [k, m] */
    float size_a, size_c, size_b; /* mean magnitudes at the start: steps are relative to them */
    uint32_t steps;               /* of Adam so far */
    float *memory;                /* all of them: a, c, b, A, B */
    size_t count, kept;           /* parameters; how many of them have moments (all, or the scales) */
} student_stage;

typedef struct {
    uint32_t n, m, n_stages;
    student_stage stages[MODEL_STAGES];
} student_layer;

typedef struct {
    uint32_t n_layers, n_tiers;
    student_layer *layers; /* [n_layers * PARTS] in the order of block.h */
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

uint64_t student_bytes(const model *m, bool train_signs);

/* Reads the stages of a factorized model. BP_ERR_ARGUMENT for a dense one; BP_ERR_MEMORY. */
bool student_open(student *s, const model *m, bool train_signs, bp_err *e);
void student_close(student *s);

/* The same for one layer, from factors that were just made. */
bool student_layer_open(student_layer *l, const factors *f, bool train_signs, bp_err *e);
void student_layer_close(student_layer *l);

/* Scratch of the two calls below: floats for the largest layer of m. */
size_t student_scratch(const model *m);

/* W [n, m] <- the first `tiers` stages of a layer. */
void student_dense(workers *w, product_kind kind, const student_layer *l, uint32_t tiers, float *W, float *scratch);

/* One step on stages `first` (0..) to `tiers` - 1, from dW [n, m] = dL/dW (docs/DBF.md (18)). */
void student_update(workers *w, product_kind kind, student_layer *l, uint32_t first, uint32_t tiers, const float *dW,
                    const student_rates *rates, float *scratch);

/* f (closed before) <- the layer as it is stored. BP_ERR_MEMORY. */
bool student_factors(const student_layer *l, factors *f, bp_err *e);

/* Signs that differ from those of the model it was read from, and how many there are. */
void student_flips(const student *s, const model *m, uint64_t *flipped, uint64_t *all);

#endif
