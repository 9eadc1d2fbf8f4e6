#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/file.h"
#include "sha256.h"

enum { PATH = 1400 };

/* The beginning of a layer's file; then the factors, then the SHA-256 of everything before it. */
typedef struct {
    char magic[8];
    uint32_t n, m, n_stages;
    uint32_t k[MODEL_STAGES], eight[MODEL_STAGES];
    factor_report report;
} layer_header;

static const char MAGIC[8] = "bpwork2", FINGERPRINT[] = "fingerprint";

static void path_of(const checkpoint *c, char *path, const char *name) {
    snprintf(path, PATH, "%s/%s", c->folder, name);
}

/* The fingerprint last: what an interrupted removal leaves is still known to be of that run. */
void checkpoint_remove(const checkpoint *c) {
    DIR *dir = opendir(c->folder);
    char path[PATH];
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        if (strcmp(entry->d_name, FINGERPRINT) == 0) continue;
        snprintf(path, sizeof path, "%s/%.255s", c->folder, entry->d_name);
        unlink(path);
    }
    if (dir) closedir(dir);
    path_of(c, path, FINGERPRINT);
    unlink(path);
    rmdir(c->folder);
}

static bool write_file(const char *path, const void *bytes, size_t n, const void *more, size_t n_more, const void *last,
                       size_t n_last, bp_err *e) {
    file_out *f = file_create(path, true, 0, e);
    if (!f) return false;
    if (file_append(f, bytes, n, e) && file_append(f, more, n_more, e) && file_append(f, last, n_last, e))
        return file_commit(f, e);
    file_discard(f);
    return false;
}

/* The line that differs, for the message; lines are "what: value". */
static bool refuse(const char *folder, const file_view *old, const char *fingerprint, bp_err *e) {
    size_t line = 0, i = 0;
    while (i < old->size && fingerprint[i] && old->bytes[i] == (uint8_t)fingerprint[i]) {
        i++;
        if (fingerprint[i - 1] == '\n') line = i;
    }
    size_t there = strcspn(fingerprint + line, "\n"), kept = 0;
    while (line + kept < old->size && old->bytes[line + kept] != '\n') kept++;
    return bp_fail(e, BP_ERR_ARGUMENT, 0,
                   "'%s' is of another run (%.*s; now %.*s): give the same model and options, or --force to start over",
                   folder, (int)bp_min(kept, 80), (const char *)old->bytes + line, (int)bp_min(there, 80),
                   fingerprint + line);
}

/* Does the folder belong to this run? */
static bool check_fingerprint(const checkpoint *c, const char *fingerprint, bool resume, bp_err *e) {
    char path[PATH];
    file_view old;
    path_of(c, path, FINGERPRINT);
    if (!resume)
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "'%s' is left from an interrupted run: go on with --resume, or --force to start over",
                       c->folder);
    if (!file_map(&old, path, e)) return false;
    bool same = old.size == strlen(fingerprint) && memcmp(old.bytes, fingerprint, (size_t)old.size) == 0;
    if (!same) refuse(c->folder, &old, fingerprint, e);
    file_unmap(&old);
    return same;
}

bool checkpoint_open(checkpoint *c, const char *out_path, const char *fingerprint, bool resume, bool force, bp_err *e) {
    char path[PATH];
    if (strlen(out_path) + sizeof ".work" > sizeof c->folder)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the output path is too long");
    snprintf(c->folder, sizeof c->folder, "%s.work", out_path);
    path_of(c, path, FINGERPRINT);
    struct stat st;
    if (stat(path, &st) == 0) {
        if (resume || !force) return check_fingerprint(c, fingerprint, resume, e);
        checkpoint_remove(c);
    }
    if (mkdir(c->folder, 0777) != 0 && errno != EEXIST)
        return bp_fail(e, BP_ERR_IO, 0, "cannot make the work folder '%s': %s", c->folder, strerror(errno));
    return write_file(path, fingerprint, strlen(fingerprint), "", 0, "", 0, e);
}

static layer_header header_of(const factors *f) {
    layer_header h;
    memset(&h, 0, sizeof h); /* padding too: the file is hashed */
    memcpy(h.magic, MAGIC, sizeof h.magic);
    h.n = f->n;
    h.m = f->m;
    h.n_stages = f->n_stages;
    for (uint32_t s = 0; s < f->n_stages; s++) {
        h.k[s] = f->stages[s].shape.k;
        h.eight[s] = f->stages[s].shape.eight;
    }
    return h;
}

static void digest_of(const void *header, size_t n_header, const void *bytes, size_t n, uint8_t digest[32]) {
    sha256 hash;
    sha256_init(&hash);
    sha256_update(&hash, header, n_header);
    sha256_update(&hash, bytes, n);
    sha256_final(&hash, digest);
}

bool checkpoint_save_bytes(const char *path, const void *header, size_t n_header, const void *bytes, size_t n,
                           bp_err *e) {
    uint8_t digest[32];
    digest_of(header, n_header, bytes, n, digest);
    return write_file(path, header, n_header, bytes, n, digest, sizeof digest, e);
}

bool checkpoint_load_bytes(const char *path, void *header, size_t n_header, size_t n_same, void *bytes, size_t n) {
    file_view v;
    struct stat st;
    if (stat(path, &st) != 0 || !file_map(&v, path, NULL)) return false;
    uint8_t digest[32];
    bool ok = v.size == n_header + n + sizeof digest && memcmp(v.bytes, header, n_same) == 0;
    if (ok) {
        digest_of(v.bytes, n_header, v.bytes + n_header, n, digest);
        ok = memcmp(digest, v.bytes + n_header + n, sizeof digest) == 0;
    }
    if (ok) {
        memcpy(header, v.bytes, n_header);
        memcpy(bytes, v.bytes + n_header, n);
    }
    file_unmap(&v);
    return ok;
}

bool checkpoint_save(const checkpoint *c, const char *name, const factors *f, bp_err *e) {
    char path[PATH];
    layer_header h = header_of(f);
    path_of(c, path, name);
    h.report = f->report;
    return checkpoint_save_bytes(path, &h, sizeof h, f->memory, f->n_bytes, e);
}

bool checkpoint_load(const checkpoint *c, const char *name, factors *f) {
    char path[PATH];
    layer_header h = header_of(f);
    path_of(c, path, name);
    if (!checkpoint_load_bytes(path, &h, sizeof h, offsetof(layer_header, report), f->memory, f->n_bytes)) return false;
    f->report = h.report;
    return true;
}
