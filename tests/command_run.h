/* command_run.h - what the tests of offline commands share: a folder of their own, a command in a child process, files
 * compared. */
#ifndef BP_COMMAND_RUN_H
#define BP_COMMAND_RUN_H

#include "check.h"

#include <dirent.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "compress/block.h"
#include "compress/pack.h"
#include "io/source.h"

enum { PATH = 512, ARGUMENTS = 48 };

static char own_folder[] = "/tmp/bitpair-check-XXXXXX"; /* mkdtemp fills it */

static inline const char *in_folder(const char *name) {
    static char paths[4][PATH];
    static unsigned turn;
    char *path = paths[turn++ & 3];
    snprintf(path, PATH, "%s/%s", own_folder, name);
    return path;
}

static inline void remove_all(void) {
    DIR *dir = opendir(own_folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (entry->d_name[0] != '.') unlink(in_folder(entry->d_name));
    if (dir) closedir(dir);
    CHECK(rmdir(own_folder) == 0, "files are left in %s", own_folder);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* A command with two lists of arguments, one after the other, and --quiet; to its exit code. */
static inline int call(int (*command)(int, char **), const char *const *first, const char *const *more) {
    static char quiet[] = "--quiet";
    char arguments[ARGUMENTS][PATH];
    char *argv[ARGUMENTS + 1];
    const char *const *lists[] = {first, more};
    int argc = 0;
    for (size_t l = 0; l < 2; l++)
        for (const char *const *at = lists[l]; *at && argc < ARGUMENTS - 2; at++)
            snprintf(arguments[argc++], PATH, "%s", *at);
    for (int i = 0; i < argc; i++) argv[i] = arguments[i];
    argv[argc++] = quiet;
    argv[argc] = NULL;
    return command(argc, argv);
}

/* The same in a child; stderr goes to the file `log`, stdout to `out`. */
static inline pid_t call_apart(int (*command)(int, char **), const char *const *first, const char *const *more,
                               const char *log, const char *out) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) return pid;
    if (!freopen(log, "w", stderr) || !freopen(out, "w", stdout)) _exit(99);
    int rc = call(command, first, more);
    fflush(NULL);
    _exit(rc);
}

static inline int wait_for(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline bool same_files(const char *a, const char *b) {
    file_view x, y;
    bool same = false;
    if (!file_map(&x, a, NULL)) return false;
    if (file_map(&y, b, NULL)) {
        same = x.size == y.size && memcmp(x.bytes, y.bytes, (size_t)x.size) == 0;
        file_unmap(&y);
    }
    file_unmap(&x);
    return same;
}

/* ---- tiers ------------------------------------------------------------------------------------------------------ */

static inline bool same_stage(const linear *x, const linear *y, uint32_t s) {
    const linear_stage *a = &x->stages[s], *b = &y->stages[s];
    if (!x->n && !y->n) return true; /* fused with another */
    return s < x->n_stages && s < y->n_stages && x->n == y->n && x->m == y->m && a->k == b->k &&
           memcmp(a->a, b->a, x->n * sizeof *a->a) == 0 && memcmp(a->c, b->c, a->k * sizeof *a->c) == 0 &&
           memcmp(a->b, b->b, x->m * sizeof *a->b) == 0 &&
           memcmp(a->A.bytes, b->A.bytes, pack_bytes(x->n, a->k, 1)) == 0 &&
           memcmp(a->B.bytes, b->B.bytes, pack_bytes(a->k, x->m, 1)) == 0;
}

static inline bool same_models(const model *x, const model *y, uint32_t tiers) {
    const linear *e = &x->embedding, *f = &y->embedding;
    bool same = memcmp(x->out_norm, y->out_norm, x->config.d_model * sizeof *x->out_norm) == 0 &&
                e->planes.planes == f->planes.planes &&
                memcmp(e->planes.bytes, f->planes.bytes, pack_bytes(e->n, e->m, e->planes.planes)) == 0;
    for (uint32_t i = 0; same && i < x->config.n_layers * PARTS; i++)
        for (uint32_t s = 0; same && s < tiers; s++)
            same = same_stage(part_linear(&x->layers[i / PARTS], i % PARTS),
                              part_linear(&y->layers[i / PARTS], i % PARTS), s);
    return same;
}

/* The first `tiers` tiers of two files are one model. */
static inline bool same_tiers(const char *a, const char *b, uint32_t tiers) {
    source files[2] = {0};
    model *models[2] = {0};
    const char *paths[] = {a, b};
    bp_err e = {0};
    for (int i = 0; i < 2; i++)
        if (source_open(&files[i], paths[i], &e)) models[i] = model_load(files[i].bytes, files[i].size, &e);
    bool same = models[0] && models[1] && same_models(models[0], models[1], tiers);
    for (int i = 0; i < 2; i++) {
        model_unload(models[i]);
        source_close(&files[i]);
    }
    return same;
}

#endif
