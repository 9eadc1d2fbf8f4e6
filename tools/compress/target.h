/* target.h - what a layer is factorized towards: not W, but the W* that maps the student's inputs to the dense model's
 * outputs (docs/DBF.md (13)-(15)), chosen by its error on validation tokens. */
#ifndef BITPAIR_TARGET_H
#define BITPAIR_TARGET_H

#include "metric.h"
#include "statistics.h"

/* Error of a layer on the validation tokens. */
typedef struct {
    workers *w;
    size_t n;
    const statistics *s;
    float *T;        /* [n, m] moments of target and student input: W C + R */
    float *scratch;  /* [n, m] */
    double energy;   /* mean |W x_d|^2 */
    double constant; /* mean |W x_d + r_d - r_q|^2 */
} validation;

/* W [n, m] is the dense layer; s must outlive v. BP_ERR_MEMORY. */
bool validation_open(validation *v, workers *w, const float *W, size_t n, const statistics *s, bp_err *e);
void validation_close(validation *v);

/* mean |V x_q - (W x_d + r_d - r_q)|^2 / mean |W x_d|^2 (the residual terms only where the statistics have them) */
double validation_error(const validation *v, const float *V);

typedef enum { TARGET_PLAIN, TARGET_ASYMMETRIC, TARGET_RESIDUAL } target_kind;
const char *target_kind_name(target_kind kind); /* "plain", "asymmetric", "residual" */

typedef struct {
    target_kind kind;
    float lambda; /* 0 for a plain target */
    double error; /* validation error of the unfactorized target */
} target_choice;

/* out [n, m] <- the best of W, the asymmetric target, and with the residual correction where the statistics have it,
 * for each lambda
 *     W* = [W C + R + lambda W D] (H + lambda D)^-1,   D = diag H
 * lambda < 0: a grid of them; else this one only. BP_ERR_MEMORY. */
bool target_choose(workers *w, float *out, target_choice *choice, const float *W, size_t n, const statistics *s,
                   const metric *t, const validation *v, float lambda, bp_err *e);

#endif
