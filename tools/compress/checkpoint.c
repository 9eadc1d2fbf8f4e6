#include "checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "block.h"
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

/* ---- what is in the folder -------------------------------------------------------------------------------------- */

/* Is it the name of a layer, as stack_name makes it? */
static bool is_layer(const char *name) {
    char made[64];
    unsigned layer = 0;
    if (sscanf(name, "blk.%u.", &layer) != 1) return false;
    for (part p = 0; p < PARTS; p++)
        for (uint32_t parts = 1; parts < 3; parts++) {
            stack_name(made, sizeof made, layer, p, parts);
            if (strcmp(name, made) == 0) return true;
        }
    return false;
}

/* What an interrupted write left ends in six letters or digits by chance; a word of small letters is more likely
 * someone's. */
static bool is_temporary(const char *end) {
    static const char RANDOM[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789";
    return strlen(end) == 7 && end[0] == '.' && strspn(end + 1, RANDOM) == 6 &&
           strcspn(end + 1, RANDOM + 26) < 6; /* not small letters alone */
}

/* Does a run write files of this name? */
static bool is_own(const char *entry) {
    char name[256];
    snprintf(name, sizeof name, "%.255s", entry);
    char *end = strrchr(name, '.');
    if (end && is_temporary(end)) *end = 0;
    end = strrchr(name, '.');
    if (end && strcmp(end, ".fitted") == 0) *end = 0;
    return is_layer(name) || strcmp(name, "gradients") == 0 || strcmp(name, "allocation.json") == 0 ||
           strcmp(name, FINGERPRINT) == 0;
}

static bool is_fingerprint(const char *entry) { return strncmp(entry, FINGERPRINT, sizeof FINGERPRINT - 1) == 0; }

/* Files in the folder beside the fingerprint. */
static size_t count_files(const checkpoint *c) {
    size_t n = 0;
    DIR *dir = opendir(c->folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        n += strcmp(entry->d_name, ".") != 0 && strcmp(entry->d_name, "..") != 0 && !is_fingerprint(entry->d_name);
    if (dir) closedir(dir);
    return n;
}

/* Only what a run writes: the folder may have been given other files, and stays then. The fingerprint last: what an
 * interrupted removal leaves is still known to be of that run. */
static void remove_files(const checkpoint *c) {
    DIR *dir = opendir(c->folder);
    char path[PATH];
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        if (!is_own(entry->d_name) || strcmp(entry->d_name, FINGERPRINT) == 0) continue;
        snprintf(path, sizeof path, "%s/%.255s", c->folder, entry->d_name);
        unlink(path);
    }
    if (dir) closedir(dir);
    path_of(c, path, FINGERPRINT);
    unlink(path);
    rmdir(c->folder);
}

void checkpoint_close(const checkpoint *c, bool done) {
    if (c->opened && (done || count_files(c) == 0)) remove_files(c);
}

/* ---- opening ---------------------------------------------------------------------------------------------------- */

static bool write_file(const char *path, const void *bytes, size_t n, const void *more, size_t n_more, const void *last,
                       size_t n_last, bp_err *e) {
    file_out *f = file_create(path, true, 0, e);
    if (!f) return false;
    if (file_append(f, bytes, n, e) && file_append(f, more, n_more, e) && file_append(f, last, n_last, e))
        return file_commit(f, e);
    file_discard(f);
    return false;
}

/* Lines are "what: value", and all options are one: for the message, what differs and a little around it. */
static bool refuse(const char *folder, const file_view *old, const char *fingerprint, bp_err *e) {
    enum { BEFORE = 20, WINDOW = 50 };
    size_t line = 0, i = 0;
    while (i < old->size && fingerprint[i] && old->bytes[i] == (uint8_t)fingerprint[i]) {
        i++;
        if (fingerprint[i - 1] == '\n') line = i;
    }
    const size_t name = strcspn(fingerprint + line, ":\n");
    const size_t from = i - line > name + 2 + BEFORE ? i - BEFORE : bp_min(i, line + name + 2);
    size_t now = strcspn(fingerprint + from, "\n"), kept = 0;
    while (from + kept < old->size && old->bytes[from + kept] != '\n') kept++;
    const char *cut = from > line + name + 2 ? "..." : "";
    return bp_fail(
        e, BP_ERR_ARGUMENT, 0,
        "'%s' is of another run (%.*s: %s%.*s; now %s%.*s): same model and options, or --force to start over", folder,
        (int)name, fingerprint + line, cut, (int)bp_min(kept, WINDOW), (const char *)old->bytes + from, cut,
        (int)bp_min(now, WINDOW), fingerprint + from);
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
        if (resume || !force) return c->opened = check_fingerprint(c, fingerprint, resume, e);
        remove_files(c);
    } else if (count_files(c) > 0) {
        return bp_fail(e, BP_ERR_ARGUMENT, 0,
                       "'%s' has other files than those of a run: move it away, or choose another output", c->folder);
    }
    if (mkdir(c->folder, 0777) != 0 && errno != EEXIST)
        return bp_fail(e, BP_ERR_IO, 0, "cannot make the work folder '%s': %s", c->folder, strerror(errno));
    return c->opened = write_file(path, fingerprint, strlen(fingerprint), "", 0, "", 0, e);
}

/* ---- layers ----------------------------------------------------------------------------------------------------- */

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
