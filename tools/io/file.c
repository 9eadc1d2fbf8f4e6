#include "io/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* ---- reading ---------------------------------------------------------------------------------------------------- */

static bool fail_path(bp_err *e, const char *what, const char *path, int reason) {
    return bp_fail(e, BP_ERR_IO, 0, "cannot %s '%s': %s", what, path, strerror(reason));
}

/* What cannot be mapped (a pipe, a device, standard input) is read to its end, into aligned memory. */
static bool read_stream(file_view *f, int fd, const char *path, bp_err *e) {
    size_t room = 1 << 20, used = 0;
    uint8_t *bytes = aligned_alloc(BP_ALIGN, room);
    while (bytes) {
        ssize_t n = read(fd, bytes + used, room - used);
        if (n == 0) break;
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) {
            free(bytes);
            return fail_path(e, "read", path, errno);
        }
        used += (size_t)n;
        if (used < room) continue;
        uint8_t *bigger = aligned_alloc(BP_ALIGN, 2 * room);
        if (bigger) memcpy(bigger, bytes, used);
        free(bytes);
        bytes = bigger;
        room *= 2;
    }
    if (!bytes) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory while reading '%s'", path);
    *f = (file_view){bytes, used, bytes};
    return true;
}

static bool map_open_file(file_view *f, int fd, const char *path, bp_err *e) {
    struct stat st;
    if (fstat(fd, &st) != 0) return fail_path(e, "read", path, errno);
    if (S_ISDIR(st.st_mode)) return bp_fail(e, BP_ERR_IO, 0, "cannot read '%s': it is a folder", path);
    if (!S_ISREG(st.st_mode)) return read_stream(f, fd, path, e);
    if (st.st_size == 0) {
        static const _Alignas(BP_ALIGN) uint8_t nothing[BP_ALIGN];
        *f = (file_view){nothing, 0, NULL};
        return true;
    }
    void *bytes = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    if (bytes == MAP_FAILED) return fail_path(e, "map", path, errno);
    *f = (file_view){bytes, (uint64_t)st.st_size, NULL};
    return true;
}

bool file_map(file_view *f, const char *path, bp_err *e) {
    *f = (file_view){NULL, 0, NULL};
    if (strcmp(path, "-") == 0) return read_stream(f, STDIN_FILENO, "standard input", e);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return fail_path(e, "open", path, errno);
    bool ok = map_open_file(f, fd, path, e);
    close(fd);
    return ok;
}

void file_unmap(file_view *f) {
    if (f->owned)
        free(f->owned);
    else if (f->size)
        munmap((void *)(uintptr_t)f->bytes, (size_t)f->size);
    *f = (file_view){NULL, 0, NULL};
}

void file_release(const file_view *f, const void *from, size_t n) {
    if (!f || f->owned || n == 0) return;
    size_t page = (size_t)sysconf(_SC_PAGESIZE), begin = (size_t)((const uint8_t *)from - f->bytes);
    size_t first = begin / page * page, end = bp_min((size_t)f->size, bp_round_up(begin + n, page));
    if (first < end) madvise((void *)((uintptr_t)f->bytes + first), end - first, MADV_DONTNEED);
}

/* ---- writing ---------------------------------------------------------------------------------------------------- */

struct file_out {
    int fd;
    bool force;
    bool nameless;   /* made with O_TMPFILE: even a killed process leaves nothing behind */
    uint64_t end;    /* where file_append writes */
    char *path;      /* the target */
    char *temporary; /* beside it; a template for mkostemp while nameless */
    char *folder;
};

static void release(file_out *f) {
    if (f->fd >= 0) close(f->fd);
    free(f->path);
    free(f->temporary);
    free(f->folder);
    free(f);
}

void file_discard(file_out *f) {
    if (!f) return;
    if (f->fd >= 0 && !f->nameless) unlink(f->temporary);
    release(f);
}

/* path, folder and temporary name of a new file_out; NULL without memory. */
static file_out *name_file(const char *path, bool force) {
    file_out *f = calloc(1, sizeof *f);
    if (!f) return NULL;
    const char *slash = strrchr(path, '/');
    size_t folder = slash ? bp_max((size_t)(slash - path), 1) : 1, size = strlen(path) + 16;
    f->fd = -1;
    f->force = force;
    f->path = strdup(path);
    f->folder = strndup(slash ? path : ".", folder);
    f->temporary = malloc(size);
    if (!f->path || !f->folder || !f->temporary) {
        release(f);
        return NULL;
    }
    snprintf(f->temporary, size, "%s.XXXXXX", path);
    return f;
}

static bool may_write(const file_out *f, bp_err *e) {
    struct stat st;
    if (!f->path[0]) return bp_fail(e, BP_ERR_IO, 0, "cannot write: the path is empty");
    if (stat(f->path, &st) != 0) return true;
    if (S_ISDIR(st.st_mode)) return bp_fail(e, BP_ERR_IO, 0, "cannot write '%s': it is a folder", f->path);
    if (!S_ISREG(st.st_mode)) return bp_fail(e, BP_ERR_IO, 0, "cannot write '%s': it is not a regular file", f->path);
    if (!f->force) return bp_fail(e, BP_ERR_IO, 0, "'%s' exists: --force overwrites it", f->path);
    return true;
}

static bool has_room(const file_out *f, uint64_t room, bp_err *e) {
    struct statvfs disk;
    if (room == 0 || fstatvfs(f->fd, &disk) != 0) return true;
    uint64_t left;
    if (__builtin_mul_overflow((uint64_t)disk.f_bavail, (uint64_t)disk.f_frsize, &left) || left >= room) return true;
    return bp_fail(e, BP_ERR_IO, 0, "cannot write '%s': it takes %llu MB, the disk has %llu MB left", f->path,
                   (unsigned long long)(room / 1000000 + 1), (unsigned long long)(left / 1000000));
}

/* Opens the temporary: without a name where the file system can, else with one. */
static bool open_temporary(file_out *f, bp_err *e) {
    f->fd = open(f->folder, O_TMPFILE | O_WRONLY | O_CLOEXEC, 0666);
    if (f->fd >= 0) return f->nameless = true;
    f->fd = mkostemp(f->temporary, O_CLOEXEC);
    if (f->fd < 0) return fail_path(e, "write", f->path, errno);
    mode_t mask = umask(0);
    umask(mask);
    fchmod(f->fd, 0666 & ~mask);
    return true;
}

file_out *file_create(const char *path, bool force, uint64_t room, bp_err *e) {
    file_out *f = name_file(path, force);
    if (!f) {
        bp_fail(e, BP_ERR_MEMORY, 0, "out of memory");
        return NULL;
    }
    if (may_write(f, e) && open_temporary(f, e) && has_room(f, room, e)) return f;
    file_discard(f);
    return NULL;
}

bool file_write_at(file_out *f, uint64_t offset, const void *bytes, size_t n, bp_err *e) {
    const uint8_t *from = bytes;
    if (offset + n > f->end) f->end = offset + n;
    while (n > 0) {
        ssize_t written = pwrite(f->fd, from, n, (off_t)offset);
        if (written < 0 && errno == EINTR) continue;
        if (written <= 0) return fail_path(e, "write", f->path, written < 0 ? errno : ENOSPC);
        from += written;
        offset += (uint64_t)written;
        n -= (size_t)written;
    }
    return true;
}

bool file_append(file_out *f, const void *bytes, size_t n, bp_err *e) {
    uint64_t before = f->end;
    if (file_write_at(f, before, bytes, n, e)) return true;
    if (ftruncate(f->fd, (off_t)before) == 0) f->end = before;
    return false;
}

/* Gives a nameless file the temporary name, made of the process id and a counter. 0 or the reason. */
static int name_temporary(file_out *f) {
    char from[64];
    snprintf(from, sizeof from, "/proc/self/fd/%d", f->fd);
    size_t stem = strlen(f->temporary) - 6;
    for (unsigned attempt = 0; attempt < 1000; attempt++) {
        snprintf(f->temporary + stem, 7, "%06u", ((unsigned)getpid() + attempt) % 1000000);
        if (linkat(AT_FDCWD, from, AT_FDCWD, f->temporary, AT_SYMLINK_FOLLOW) == 0) {
            f->nameless = false;
            return 0;
        }
        if (errno != EEXIST) break;
    }
    return errno;
}

/* rename; without force it never replaces what has come to be at the path meanwhile. 0 or the reason. */
static int rename_temporary(const file_out *f) {
    if (!f->force) {
        if (renameat2(AT_FDCWD, f->temporary, AT_FDCWD, f->path, RENAME_NOREPLACE) == 0) return 0;
        if (errno != EINVAL && errno != ENOSYS) return errno;
    }
    return rename(f->temporary, f->path) == 0 ? 0 : errno;
}

/* The new name survives a power cut only when the folder is written too; not every file system can, so no error. */
static void sync_folder(const char *folder) {
    int fd = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0) return;
    fsync(fd);
    close(fd);
}

bool file_commit(file_out *f, bp_err *e) {
    int reason = fsync(f->fd) == 0 ? 0 : errno;
    if (!reason && f->nameless) reason = name_temporary(f);
    if (!reason) reason = rename_temporary(f);
    if (reason) {
        fail_path(e, "write", f->path, reason);
        file_discard(f);
        return false;
    }
    sync_folder(f->folder);
    release(f);
    return true;
}
