/* load.h - an engine from the machine options, and a model from the word MODEL: what every subcommand needs. */
#ifndef BITPAIR_LOAD_H
#define BITPAIR_LOAD_H

#include "cli.h"
#include "engine.h"
#include "gguf.h"
#include "io/source.h"

typedef struct {
    uint64_t threads, kv_bits; /* kv_bits of sessions: 0 is the engine's choice */
    const char *isa, *arith;   /* NULL: the engine's choice */
    uint64_t tier;             /* of compressed files only so many tiers; 0: all */
} machine_options;

/* One thread per processor that this process may use, at most 64. */
machine_options machine_defaults(void);

/* Rows of a cli_option table. */
/* clang-format off */
#define MACHINE_OPTIONS(o)                                                                                             \
    {"threads", 't', CLI_COUNT, &(o).threads, 1, 64, "N", "threads (default: all processors)"},                        \
        {"isa", 0, CLI_TEXT, &(o).isa, 0, 0, "NAME", "kernels: ref, avx2, avx512, neon (default: the best here)"},              \
        {"arith", 0, CLI_TEXT, &(o).arith, 0, 0, "NAME", "arithmetic: lut8 or popcount (default lut8)"},              \
        {"kv", 0, CLI_COUNT, &(o).kv_bits, 8, 16, "BITS", "bits of cached keys and values: 16 or 8 (default 8)"},      \
        {"tier", 0, CLI_COUNT, &(o).tier, 1, BP_TIERS, "N", "only the first N tiers of the file (default: all)"}
/* clang-format on */

/* What the table of options cannot express: names that are none. CLI_OK, or CLI_USAGE after printing what is wrong. */
int machine_check(const machine_options *o, const char *command);

bp_engine *machine_engine(const machine_options *o, bp_err *e);

typedef struct {
    source source;
    uint64_t size; /* bytes of it that the model is made of */
    bp_model *model;
} loaded;

/* The first `tier` tiers of the model, 0: all that there is. Errors name the model; BP_ERR_ARGUMENT: it has no such
 * tier. On failure nothing needs to be closed; loaded_close takes a zeroed struct too. */
bool loaded_open(loaded *l, bp_engine *engine, const char *path, uint64_t tier, bp_err *e);
void loaded_close(loaded *l);

/* Keys and tensor table of a source: *g points into *memory (malloc; to be freed by the caller) and into the source. */
bool header_open(gguf *g, void **memory, const source *s, bp_err *e);

/* Seconds from an arbitrary origin, monotonic. */
double clock_seconds(void);

#endif
