/* checkpoint.h - the work folder of a run, OUT.gguf.work: one file per finished layer, one of what was measured before
 * them, and a fingerprint of what they were made from. Chains of activations are not stored: they follow from the
 * factors. */
#ifndef BITPAIR_CHECKPOINT_H
#define BITPAIR_CHECKPOINT_H

#include "factors.h"

typedef struct {
    char folder[1024];
    bool opened; /* by this run */
} checkpoint;

/* Opens OUT.gguf.work for a run with this fingerprint (lines of text). A folder that is already there must have the
 * same fingerprint and `resume` be set; with `force` and without `resume` the files of a run are removed from it first.
 * BP_ERR_ARGUMENT says what differs, or that the folder, without a fingerprint, has other files; BP_ERR_IO: cannot be
 * written. */
bool checkpoint_open(checkpoint *c, const char *out_path, const char *fingerprint, bool resume, bool force, bp_err *e);

/* Writes a finished layer, whole or not at all; may be called from several threads for different names. */
bool checkpoint_save(const checkpoint *c, const char *name, const factors *f, bp_err *e);

/* Fills f (opened: same shape and stages) from its file. false, and f unchanged, where there is none or it is damaged.
 * */
bool checkpoint_load(const checkpoint *c, const char *name, factors *f);

/* The same for any file that is a header and bytes; loading wants the first n_same bytes of the header as they are
 * given, and fills the rest of it. */
bool checkpoint_save_bytes(const char *path, const void *header, size_t n_header, const void *bytes, size_t n,
                           bp_err *e);
bool checkpoint_load_bytes(const char *path, void *header, size_t n_header, size_t n_same, void *bytes, size_t n);

/* The end of a run: what it wrote is removed where it is done or where nothing was made yet, and with it the folder, if
 * that has no other files. Nothing for a folder that was not opened. */
void checkpoint_close(const checkpoint *c, bool done);

#endif
