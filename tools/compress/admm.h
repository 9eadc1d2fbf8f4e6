/* admm.h - one stage of a double binary factorization by ADMM in the metric of the layer's inputs (docs/DBF.md
 * (5)-(9)).
 *
 *     W [n, m] ~ diag(a) A diag(c) B diag(b),   A in +-1^(n x k),  B in +-1^(k x m)
 *
 * minimises tr(G (W-V) (H + damping D) (W-V)'), D = diag H. The answer is as ADMM leaves it: refit.h improves
 * its scales. */
#ifndef BITPAIR_ADMM_H
#define BITPAIR_ADMM_H

#include "linalg/rng.h"
#include "metric.h"
#include "output_metric.h"

typedef struct {
    size_t n, m, k;
    float *A; /* [n, k], +1 or -1 */
    float *B; /* [k, m], +1 or -1 */
    float *a; /* [n] */
    float *c; /* [k] */
    float *b; /* [m] */
} binary_factors;

/* All arrays in one allocation; false with BP_ERR_MEMORY. */
bool binary_factors_open(binary_factors *f, size_t n, size_t m, size_t k, bp_err *e);
void binary_factors_close(binary_factors *f);

/* V [n, m] = diag(a) A diag(c) B diag(b). scratch [k * m]. */
void binary_factors_product(workers *w, const binary_factors *f, float *V, float *scratch);

typedef struct {
    unsigned iterations;         /* >= 4 */
    float damping;               /* added to the unit diagonal of M0; 0.3 */
    bool (*tick)(void *context); /* called once per iteration; false stops. NULL: never stops */
    void *context;
} admm_options;

/* The matrix product of most of its work: whichever is fastest on this processor and exact enough. */
linalg_product *admm_product(void);

/* Floating-point operations of admm_factorize, for progress and estimates; `full`: with H, not its diagonal;
 * `correlated`: with moments of all outputs. */
double admm_work(size_t n, size_t m, size_t k, unsigned iterations, bool full, bool correlated);

/* Fills f (opened with n, m, k) from W [n, m] in the metrics of its outputs and inputs. The random start is drawn from
 * r. Fails with BP_ERR_MEMORY; BP_ERR_ARGUMENT where W is not finite or LAPACK gets no memory; BP_OK in e->code when tick
 * stopped it. */
bool admm_factorize(workers *w, binary_factors *f, const float *W, const output_metric *o, const metric *t,
                    const admm_options *options, rng *r, bp_err *e);

#endif
