#include "spill.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/statvfs.h>
#include <unistd.h>

static bool fail_folder(bp_err *e, const char *folder, int reason) {
    return bp_fail(e, BP_ERR_IO, 0, "cannot make a scratch file in '%s': %s", folder, strerror(reason));
}

/* A file that no name leads to, or -1 with errno. */
static int open_nameless(const char *folder) {
    char path[1400];
    int fd = open(folder, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
    if (fd >= 0) return fd;
    snprintf(path, sizeof path, "%s/scratch.XXXXXX", folder);
    fd = mkostemp(path, O_CLOEXEC);
    if (fd >= 0) unlink(path);
    return fd;
}

/* Without room on the disk a write into the mapping would kill the process, so it is reserved. */
static bool reserve(int fd, size_t bytes, const char *folder, bp_err *e) {
    struct statvfs disk;
    uint64_t left = UINT64_MAX;
    if (fstatvfs(fd, &disk) == 0 && __builtin_mul_overflow((uint64_t)disk.f_bavail, (uint64_t)disk.f_frsize, &left))
        left = UINT64_MAX;
    if (left < bytes)
        return bp_fail(e, BP_ERR_IO, 0, "the activations take %zu MB in '%s', the disk has %llu MB left",
                       bytes / 1000000 + 1, folder, (unsigned long long)(left / 1000000));
    int reason = posix_fallocate(fd, 0, (off_t)bytes);
    return reason == 0 || fail_folder(e, folder, reason);
}

static bool map_file(spill *s, size_t bytes, const char *folder, bp_err *e) {
    int fd = open_nameless(folder);
    if (fd < 0) return fail_folder(e, folder, errno);
    bool ok = reserve(fd, bytes, folder, e);
    void *at = ok ? mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
    if (ok && at == MAP_FAILED) fail_folder(e, folder, errno);
    close(fd);
    if (at == MAP_FAILED) return false;
    *s = (spill){at, bytes, true};
    return true;
}

bool spill_open(spill *s, size_t bytes, const char *folder, bp_err *e) {
    *s = (spill){0};
    bytes = bp_round_up(bp_max(bytes, 1), BP_ALIGN);
    if (folder) return map_file(s, bytes, folder, e);
    s->at = aligned_alloc(BP_ALIGN, bytes);
    s->bytes = bytes;
    return s->at || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for %zu MB of activations", bytes / 1000000);
}

void spill_close(spill *s) {
    if (s->on_disk)
        munmap(s->at, s->bytes);
    else
        free(s->at);
    *s = (spill){0};
}

/* Whole pages, those at the ends too: whoever uses their other half gets them back at its next access. */
void spill_release(const spill *s, const void *from, size_t bytes) {
    if (!s->on_disk || bytes == 0) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = (size_t)((const char *)from - (char *)s->at);
    size_t first = begin / page * page, end = bp_min(s->bytes, bp_round_up(begin + bytes, page));
    madvise((char *)s->at + first, end - first, MADV_DONTNEED);
}
