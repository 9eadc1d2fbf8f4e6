/* file.h - files as the tool needs them: mapped for reading; written to a temporary beside the target and renamed when
 * whole. */
#ifndef BITPAIR_FILE_H
#define BITPAIR_FILE_H

#include "err.h"

typedef struct {
    const uint8_t *bytes; /* 64-byte aligned (page), read only */
    uint64_t size;
    void *owned; /* private to file.c */
} file_view;

/* Maps a regular file; "-" reads standard input into memory. BP_ERR_IO names path and reason ("is a folder", "No such
 * file..."). */
bool file_map(file_view *f, const char *path, bp_err *e);
void file_unmap(file_view *f);

/* Lets n bytes of a mapped file leave memory until they are read again; nothing for a view in memory, or for NULL. */
void file_release(const file_view *f, const void *from, size_t n);

/* A file under construction: nothing of it is seen at `path` before file_commit. */
typedef struct file_out file_out;

/* Refuses an existing path unless `force`. If `room` > 0, checks first that the disk has that many bytes. */
file_out *file_create(const char *path, bool force, uint64_t room, bp_err *e);
/* Whole or, where that fails, not at all. */
bool file_append(file_out *f, const void *bytes, size_t n, bp_err *e);
bool file_write_at(file_out *f, uint64_t offset, const void *bytes, size_t n, bp_err *e);
/* fsync, rename over path, close. On failure the temporary is removed. */
bool file_commit(file_out *f, bp_err *e);
/* Removes the temporary and closes; NULL is ignored. */
void file_discard(file_out *f);

#endif
