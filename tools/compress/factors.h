/* factors.h - a linear layer as the file stores it: a stack of stages (docs/DBF.md (1)), and how it is made. */
#ifndef BITPAIR_FACTORS_H
#define BITPAIR_FACTORS_H

#include "admm.h"
#include "model.h"
#include "target.h"

/* One stage: half-precision scales, signs in tile16. */
typedef struct {
    uint32_t k;
    uint16_t *a, *c, *b; /* [n], [k], [m] */
    uint8_t *A, *B;      /* [pack_bytes(n, k)], [pack_bytes(k, m)] */
} factor_stage;

/* What is known about the quality of a layer. Errors are relative to the energy of the dense layer's output. */
typedef struct {
    target_choice target;
    double fit; /* of the factors to their target, training tokens, in the metric (relative to the target) */
    double validation[MODEL_STAGES]; /* of the output after each stage, validation tokens */
} factor_report;

typedef struct {
    uint32_t n, m, n_stages;
    factor_stage stages[MODEL_STAGES];
    factor_report report;
    uint8_t *memory; /* all arrays of all stages, one after the other as in the file (without padding) */
    size_t n_bytes;
} factors;

/* Middle dimension of a stage of `bits` per weight: max(32, 32 round(bits n m / (n + m) / 32)). */
uint32_t factors_middle(double bits, size_t n, size_t m);

/* Bytes of a stage in the file, scales counted, padding between tensors not. */
uint64_t factors_stage_bytes(size_t n, size_t m, size_t k);

/* Room for a stack with these middle dimensions; its arrays point into memory. BP_ERR_MEMORY. */
bool factors_open(factors *f, size_t n, size_t m, const uint32_t *k, uint32_t n_stages, bp_err *e);
void factors_close(factors *f);

/* W [n, m] <- what the stored stages mean. BP_ERR_MEMORY. */
bool factors_dense(workers *w, const factors *f, float *W, bp_err *e);

/* The first `count` stages of f <- those of a layer as a file has it, of the same shape. */
void factors_take(factors *f, const linear *l, uint32_t count);

typedef struct {
    uint64_t seed;
    uint32_t kept; /* stages that are there already and stay */
    unsigned iterations;
    float damping;               /* of the metric in ADMM; 0.3 */
    float lambda;                /* of the target; < 0: chosen by validation */
    const float *weights;        /* [n] of the squared errors of the outputs; NULL: all 1 */
    bool (*tick)(void *context); /* once per iteration of ADMM; false: stop */
    void *context;
} factor_options;

/* Fills f (opened) for the dense layer W [n, m] called `name`: target, then stage after stage on what is left.
 * `corrected`: choose a target (target.h); else W itself. Errors of admm_factorize; BP_OK in e->code when tick said
 * stop. */
bool factors_make(workers *w, factors *f, const char *name, const float *W, const statistics *s, const metric *t,
                  bool corrected, const factor_options *options, bp_err *e);

#endif
