/* spill.h - one large array, in memory or in a file without a name that is mapped: then what has been worked through
 * can leave memory and comes back when it is read again. */
#ifndef BITPAIR_SPILL_H
#define BITPAIR_SPILL_H

#include "err.h"

typedef struct {
    void *at; /* 64-byte aligned, undefined content */
    size_t bytes;
    bool on_disk;
} spill;

/* folder: where the file lives (it is gone when the process ends, however it ends); NULL: in memory. BP_ERR_MEMORY;
 * BP_ERR_IO: the folder cannot be written, or the disk has too little room, which is reserved here. */
bool spill_open(spill *s, size_t bytes, const char *folder, bp_err *e);
void spill_close(spill *s);

/* Lets a part of the array leave memory, its content kept; nothing for an array in memory. Other threads may be using
 * any part of it. */
void spill_release(const spill *s, const void *from, size_t bytes);

#endif
