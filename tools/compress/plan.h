/* plan.h - the options of a compression, and what will come of them: sizes, memory, work. */
#ifndef BITPAIR_PLAN_H
#define BITPAIR_PLAN_H

#include "factors.h"
#include "io/file.h"
#include "model.h"
#include "tune/output_weights.h"

typedef struct {
    const char *model_path, *out_path;
    const char *calib;               /* files, separated by commas */
    double stage_bits[MODEL_STAGES]; /* nominal bits per weight of each stage */
    uint32_t n_stages;
    const model *base; /* a compressed form of the model whose stages come first and stay; or NULL */
    uint32_t kept;     /* stages of base; those of stage_bits and n_stages include them */
    double base_bits;  /* bits of base per weight: further stages are spread over the layers as its own are */
    const char *base_description, *base_recipe;
    uint64_t calib_tokens, ctx, iterations, embedding_bits, seed, threads;
    uint64_t gradient_tokens;     /* for the weights of outputs; 0: all outputs weigh the same */
    uint64_t scale_bits;          /* 8 or 16: how a and c are stored (pack.h) */
    bool correlated;              /* errors of outputs weigh by whole second moments of gradients */
    bool token_weights;           /* tokens weigh by their gradients: those of all tokens are taken */
    uint64_t max_memory;          /* MB; 0: no limit */
    bool streamed;                /* activations in a scratch file beside the output */
    const file_view *mapped;      /* the file that the model is mapped from; NULL where it is in memory */
    uint64_t block_steps;         /* of fitting the layers of a block together; 0: none */
    double block_rate;            /* first step of a scale in it, relative to its vector's mean size */
    bool fused;                   /* q, k, v and gate, up of a block are one stack each (block.h) */
    bool equal_loss;              /* bits of each layer by measured loss (allocate.h); else the same for all */
    const char *allocation;       /* file that keeps the measurement, or NULL */
    const char *gradients_file;   /* file that keeps the gradients, or NULL: then they go with the work folder */
    const double *factors;        /* [n_layers * PARTS] multiples of stage_bits; NULL: all 1 */
    bool diagonal;                /* the paper's recipe: diagonal statistics of the dense model, no target */
    double damping, lambda, clip; /* lambda < 0: by validation */
    bool resume, force, dry_run, quiet, json;
} compress_options;

/* stage_bits from "1,1,0.5", or from a sum of bits in ceil(bits) equal stages. BP_ERR_ARGUMENT. */
bool plan_parse_stages(compress_options *o, const char *text, bp_err *e);
bool plan_split_bits(compress_options *o, double bits, bp_err *e);

/* Puts the stages of `base` before those that o has, for the dense model m. BP_ERR_ARGUMENT where it is not a whole
 * compressed form of m, or there would be too many. */
bool plan_extend(compress_options *o, const model *m, const model *base, bp_err *e);

typedef struct {
    uint64_t file_bytes;
    double bits_per_weight; /* linear layers, scales counted */
    uint64_t memory;        /* bytes at the peak, file mappings and the program included */
    uint64_t scratch;       /* bytes of the scratch file; 0 where activations stay in memory */
    double work;            /* floating-point operations */
    double block_work;      /* those of the loop over blocks, without what is measured before it */
    double seconds;         /* at the speed of a present-day core */
} compress_plan;

/* The stages of stack `index` (block * PARTS + part) [n, m]. */
void plan_shapes(const compress_options *o, size_t index, size_t n, size_t m, stage_shape shapes[MODEL_STAGES]);

/* Bytes of all factorized layers, scales counted. */
uint64_t plan_factor_bytes(const compress_options *o, const model *m);

/* The same if middles of the nominal bits needed no rounding: what bits by layer may spend. */
uint64_t plan_nominal_bytes(const compress_options *o, const model *m);

/* Work of factorizing a stack [n, m], 0 where n is, and of all the rest of one block (chains and statistics). */
double plan_layer_work(const compress_options *o, size_t index, size_t n, size_t m);
double plan_block_work(const compress_options *o, const model *m, size_t n_tokens);

/* Work of fitting the layers of one block together, and all that is spared where the fitted layers of block `layer` are
 * there already. */
double plan_fit_work(const compress_options *o, const model *m);
double plan_made_work(const compress_options *o, const model *m, uint32_t layer);

/* Are gradients of the dense model taken first? Are the layers of a block fitted together? (needs them) */
bool plan_wants_gradients(const compress_options *o);
bool plan_fits_blocks(const compress_options *o);

/* What is taken of those gradients; where it is kept and who is told is left open. */
output_weights_options plan_gradients(const compress_options *o);

compress_plan plan_make(const compress_options *o, const model *m, size_t n_tokens);

/* The options that shape the result, as one line of JSON in out [capacity]; PLAN_RECIPE bytes are enough. */
enum { PLAN_RECIPE = 65536 };
void plan_recipe(const compress_options *o, char *out, size_t capacity);

#endif
