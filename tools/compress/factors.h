/* factors.h - a linear layer as the file stores it: a stack of stages (docs/DBF.md (1)), and how it is made. */
#ifndef BITPAIR_FACTORS_H
#define BITPAIR_FACTORS_H

#include "admm.h"
#include "model.h"
#include "target.h"

typedef struct {
    uint32_t k;   /* middle dimension */
    uint32_t n_c; /* >= 1: middle scales for so many tiers */
    bool eight;   /* a and c are stored in 8 bits where their number allows */
} stage_shape;

/* One stage as the file has it: scales of these types (pack_scales), signs in tile16. */
typedef struct {
    stage_shape shape;
    uint32_t type_a, type_c, type_b;
    uint8_t *a, *c, *b; /* [n], [n_c][k], [m]; row i of c from the i-th tier after the stage's own on */
    uint8_t *A, *B;     /* [pack_bytes(n, k)], [pack_bytes(k, m)] */
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

/* Bytes of a stage in the file with one row of middle scales, padding between tensors not counted; and of one more row. */
uint64_t factors_stage_bytes(size_t n, size_t m, stage_shape shape);
uint64_t factors_middle_bytes(stage_shape shape);

/* Room for a stack of such stages; its arrays point into memory. BP_ERR_MEMORY. */
bool factors_open(factors *f, size_t n, size_t m, const stage_shape *shapes, uint32_t n_stages, bp_err *e);
void factors_close(factors *f);

/* W [n, m] <- what the stored stages mean, with the last middle scales of each. BP_ERR_MEMORY. */
bool factors_dense(workers *w, const factors *f, float *W, bp_err *e);

/* What a file has for a stage of a layer (blk.N.PART) with middle dimension k. */
stage_shape factors_shape(const gguf *file, const char *name, uint32_t stage, uint32_t k);

/* c [n_c, k] <- its middle scales; rows that it does not have are as the one before. BP_ERR_FORMAT: another length or
 * type, not there. */
bool factors_read_middles(float *c, const gguf *file, const char *name, uint32_t stage, uint32_t k, uint32_t n_c,
                          bp_err *e);

/* The first `count` stages of f <- those of a layer called `name` as a model's file has them, of the same shape and
 * with as many middle scales. BP_ERR_FORMAT, BP_ERR_MEMORY. */
bool factors_take(factors *f, const model *m, const char *name, const linear *l, uint32_t count, bp_err *e);

typedef struct {
    uint64_t seed;
    uint32_t kept; /* stages that are there already and stay */
    unsigned iterations;
    float damping;                /* of the metric in ADMM; 0.3 */
    float lambda;                 /* of the target; < 0: chosen by validation */
    const output_metric *outputs; /* how their errors weigh */
    bool (*tick)(void *context);  /* once per iteration of ADMM; false: stop */
    void *context;
} factor_options;

/* Fills f (opened) for the dense layer W [n, m] called `name`: target, then stage after stage on what is left.
 * `corrected`: choose a target (target.h); else W itself. Errors of admm_factorize; BP_OK in e->code when tick said
 * stop. */
bool factors_make(workers *w, factors *f, const char *name, const float *W, const statistics *s, const metric *t,
                  bool corrected, const factor_options *options, bp_err *e);

#endif
