/* compress_run.h - what the tests of `bitpair compress` share: a folder of their own, the command in a child process,
 * files compared. */
#ifndef BP_COMPRESS_RUN_H
#define BP_COMPRESS_RUN_H

#include "check.h"

#include <dirent.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "cli.h"
#include "io/file.h"

enum { PATH = 512, ARGUMENTS = 40 };

static char folder[] = "/tmp/bitpair-check-compress-XXXXXX"; /* mkdtemp fills it */

static inline const char *in_folder(const char *name) {
    static char paths[4][PATH];
    static unsigned turn;
    char *path = paths[turn++ & 3];
    snprintf(path, PATH, "%s/%s", folder, name);
    return path;
}

/* bitpair compress MODEL -o OUT and these options, to the exit code. */
static inline int compress(const char *model, const char *out, const char *calib, const char *const *more) {
    static char quiet[] = "--quiet";
    char arguments[ARGUMENTS][PATH];
    char *argv[ARGUMENTS + 1];
    const char *fixed[] = {"compress",       model,  "-o",    out,  "--calib",      calib,
                           "--calib-tokens", "2048", "--ctx", "64", "--iterations", "6"};
    int argc = 0;
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++) snprintf(arguments[argc++], PATH, "%s", fixed[i]);
    for (; *more && argc < ARGUMENTS - 2; more++) snprintf(arguments[argc++], PATH, "%s", *more);
    for (int i = 0; i < argc; i++) argv[i] = arguments[i];
    argv[argc++] = quiet;
    argv[argc] = NULL;
    return cmd_compress(argc, argv);
}

#define OPTIONS(...) ((const char *const[]){__VA_ARGS__, NULL})

/* The same in a child; its stdout and stderr go to `log`. */
static inline pid_t start(const char *model, const char *out, const char *calib, const char *const *more,
                          const char *log) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid != 0) return pid;
    if (!freopen(log, "w", stderr) || !freopen("/dev/null", "w", stdout)) _exit(99);
    int rc = compress(model, out, calib, more);
    fflush(NULL);
    _exit(rc);
}

static inline int wait_for(pid_t pid) {
    int status = 0;
    waitpid(pid, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static inline int run(const char *model, const char *out, const char *calib, const char *const *more) {
    return wait_for(start(model, out, calib, more, in_folder("log")));
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

static inline void remove_all(void) {
    DIR *dir = opendir(folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));)
        if (entry->d_name[0] != '.') unlink(in_folder(entry->d_name));
    if (dir) closedir(dir);
    CHECK(rmdir(folder) == 0, "files are left in %s", folder);
}

#endif
