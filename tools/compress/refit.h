/* refit.h - least-squares scales for given signs (docs/DBF.md (10)-(12)), and their rounding. */
#ifndef BITPAIR_REFIT_H
#define BITPAIR_REFIT_H

#include "admm.h"

/* Improves a, c, b of f for W [n, m]: `rounds` times c, a, b in turn, each the
 * exact minimum for the others fixed; the error in the metric (damping as there) never grows. Fails with
 * BP_ERR_MEMORY. */
bool refit_scales(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t, float damping,
                  unsigned rounds, bp_err *e);

/* Rounds all scales as a file stores them, a and c in 8 bits if `eight` (pack.h), balanced so that a, c and b have equal
 * geometric means (far from both ends of the range); c is fitted again after a and b are rounded. Afterwards f holds
 * exactly what a file stores. */
bool refit_round(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t, float damping,
                 bool eight, bp_err *e);

#endif
