/* container.h - the file of a compressed model (docs/FORMAT.md): keys, tensors in the order of need, tiers, checksums.
 * */
#ifndef BITPAIR_CONTAINER_H
#define BITPAIR_CONTAINER_H

#include "factors.h"
#include "pack.h"

/* Everything that goes into the file; nothing is owned. */
typedef struct {
    const model *model;            /* the dense source: configuration, norms, biases, keys */
    const packed_table *embedding; /* rounded anew; NULL: as the file of `tables` has it */
    const packed_table *head;      /* of an untied head; NULL: as there, or tied */
    const model *tables;           /* NULL: the source */
    const factors *layers;         /* [n_layers * PARTS] in the order of block.h */
    uint32_t n_tiers;              /* most stages of a layer */
    const char *source;            /* bitpair.source */
    const char *recipe;            /* bitpair.recipe: one line of JSON */
} container;

typedef struct {
    uint64_t bytes;
    uint32_t n_tiers;
    uint64_t tier_end[MODEL_TIERS];
    double bits_per_weight[MODEL_TIERS]; /* linear layers, all scales counted */
} container_summary;

/* Writes the file at path: complete and synced, or not at all. Errors of file.h; BP_ERR_MEMORY. */
bool container_write(const container *c, const char *path, bool force, container_summary *summary, bp_err *e);

/* Bytes that tensors of the source other than the factorized ones take, rounded up: for plans. */
uint64_t container_fixed_bytes(const model *m, uint32_t planes);

#endif
