/* fuzz_folder.h - a folder in memory for parsers that open files themselves. */
#ifndef BP_FUZZ_FOLDER_H
#define BP_FUZZ_FOLDER_H

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fuzz.h"

static char fuzz_folder[128];

static inline void fuzz_remove_folder(void) {
    char command[160];
    snprintf(command, sizeof command, "rm -rf '%s'", fuzz_folder);
    if (system(command)) fprintf(stderr, "cannot remove %s\n", fuzz_folder);
}

/* The folder of this process, empty at first. */
static inline const char *fuzz_make_folder(void) {
    if (fuzz_folder[0]) return fuzz_folder;
    snprintf(fuzz_folder, sizeof fuzz_folder, "%s/bitpair-fuzz-XXXXXX",
             access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp");
    LAW(mkdtemp(fuzz_folder));
    atexit(fuzz_remove_folder);
    return fuzz_folder;
}

/* Writes a file of the folder; NULL bytes: it is not there. */
static inline void fuzz_put_file(const char *name, const void *bytes, size_t n) {
    char path[256];
    snprintf(path, sizeof path, "%s/%s", fuzz_make_folder(), name);
    if (!bytes) {
        unlink(path);
        return;
    }
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
    LAW(fd >= 0 && write(fd, bytes, n) == (ssize_t)n);
    close(fd);
}

/* The input up to the next 0xff byte, which no JSON and no UTF-8 has. */
static inline const uint8_t *fuzz_part(fuzz_input *in, size_t *n) {
    const uint8_t *end = in->left ? memchr(in->at, 0xff, in->left) : NULL;
    const uint8_t *part = fuzz_bytes(in, end ? (size_t)(end - in->at) : in->left, n);
    fuzz_u8(in);
    return part;
}

#endif
