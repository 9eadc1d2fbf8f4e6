/* Everything that the system may refuse is refused once: each allocation of opening, running and compressing, each write
 * to the disk, and a compression is killed at random moments and resumed. Nothing crashes, every error says what is
 * missing, no half file is left, and what is resumed has the bytes of the uninterrupted run.
 * `check_faults full` tries every allocation and 100 kills, else the later ones are sampled and there are 4 kills,
 * one under a sanitizer.
 *
 * The linker puts __wrap_malloc in the place of malloc, and so on, for this program alone (tests.cmake). */
#include "compress_run.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>
#include <time.h>

#include "engine.h"
#include "io/hf.h"
#include "small_file.h"
#include "tiny_model.h"

/* How many calls still succeed before the one that fails; negative: none fails. */
static atomic_long memory_left = -1, disk_left = -1;

static bool granted(atomic_long *left) {
    if (atomic_load(left) < 0) return true;
    return atomic_fetch_sub(left, 1) != 0;
}

#define WRAP(result, name, declared, given, left, reason, failed)                                                      \
    result __real_##name declared;                                                                                     \
    result __wrap_##name declared;                                                                                     \
    result __wrap_##name declared {                                                                                    \
        if (granted(left)) return __real_##name given;                                                                 \
        errno = reason;                                                                                                \
        return failed;                                                                                                 \
    }
WRAP(void *, malloc, (size_t n), (n), &memory_left, ENOMEM, NULL)
WRAP(void *, calloc, (size_t n, size_t m), (n, m), &memory_left, ENOMEM, NULL)
WRAP(void *, realloc, (void *p, size_t n), (p, n), &memory_left, ENOMEM, NULL)
WRAP(void *, aligned_alloc, (size_t a, size_t n), (a, n), &memory_left, ENOMEM, NULL)
WRAP(int, posix_memalign, (void **p, size_t a, size_t n), (p, a, n), &memory_left, ENOMEM, ENOMEM)
WRAP(char *, strdup, (const char *s), (s), &memory_left, ENOMEM, NULL)
WRAP(char *, strndup, (const char *s, size_t n), (s, n), &memory_left, ENOMEM, NULL)
WRAP(ssize_t, pwrite, (int fd, const void *p, size_t n, off_t at), (fd, p, n, at), &disk_left, ENOSPC, -1)
WRAP(int, fsync, (int fd), (fd), &disk_left, ENOSPC, -1)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), &disk_left, ENOSPC, -1)

#if defined(__SANITIZE_ADDRESS__)
enum { KILLS = 1 }; /* a compression takes ten times as long */
#else
enum { KILLS = 4 };
#endif

static bool full;
static unsigned tried;

/* The next place of a failure: all of the first ones, then fewer and fewer. */
static long after(long n) { return full || n < 60 ? n + 1 : n + 1 + n / 12; }

/* ---- memory: the engine ------------------------------------------------------------------------------------------ */

static bool run_engine(const uint8_t *bytes, size_t size, bp_err *e) {
    static const char grammar[] = "root ::= [a-z ]* \"b\"?";
    bp_engine *g = bp_engine_open(&(bp_engine_options){.threads = 2}, e);
    bp_model *m = g ? bp_model_open(g, bytes, size, e) : NULL;
    bp_session *s = m ? bp_session_open(m, &(bp_session_options){.n_ctx = 32}, e) : NULL, *twin = NULL;
    int32_t ids[16];
    uint64_t file_size, offset;
    bp_header header;
    bp_model *other = s && bp_probe(bytes, size, &file_size, &offset, e) == 1 && bp_header_read(bytes, size, &header, e)
                          ? bp_model_preview(g, bytes, (size_t)offset, size, e)
                          : NULL;
    bool known = other != NULL;
    bp_model_close(other);
    other = known ? bp_model_open_tiers(g, bytes, size, 1, e) : NULL;
    known = other && bp_model_raise_tier(other, 2, e);
    bp_model_close(other);
    ptrdiff_t n = known ? bp_tokenize(m, "abab", 4, 0, ids, 16, e) : -1;
    bool good = n > 0 && bp_verify(bytes, size, e) && bp_session_feed(s, ids, (size_t)n, e) &&
                bp_session_grammar(s, grammar, sizeof grammar - 1, e) && bp_session_sample(s, e) >= 0 &&
                (twin = bp_session_fork(s, e)) != NULL;
    bp_session_close(twin);
    bp_session_close(s);
    bp_model_close(m);
    bp_engine_close(g);
    return good;
}

static bool run_folder(const char *folder, bp_err *e) {
    uint8_t *image = NULL;
    uint64_t size;
    bool good = hf_read(folder, &image, &size, e);
    free(image);
    return good;
}

static void check_memory(const char *what, const uint8_t *bytes, size_t size, const char *folder) {
    long n = 0;
    for (bool good = false; !good && n < 1000000; n = after(n)) {
        bp_err e = {0};
        atomic_store(&memory_left, n);
        good = folder ? run_folder(folder, &e) : run_engine(bytes, size, &e);
        atomic_store(&memory_left, -1);
        if (good) break;
        CHECK(e.code == BP_ERR_MEMORY && e.text[0], "%s, allocation %ld: %s, '%s'", what, n, bp_err_name(e.code),
              e.text);
        tried++;
    }
    CHECK(n > 3, "%s: only %ld allocations were seen", what, n);
}

/* ---- memory and disk: commands ----------------------------------------------------------------------------------- */

typedef struct {
    const char *model, *text, *out, *student;
} files;

static int compress_tiny(const files *f, const char *const *more) {
    return call(cmd_compress,
                OPTIONS("compress", f->model, "-o", f->out, "--calib", f->text, "--calib-tokens", "256", "--ctx", "32",
                        "--iterations", "4", "--stages", "1,1", "--threads", "2", "--force"),
                more);
}

static int tune_tiny(const files *f, const char *const *more) {
    return call(cmd_tune,
                OPTIONS("tune", f->model, f->student, "-o", f->out, "--calib", f->text, "--calib-tokens", "1024",
                        "--ctx", "32", "--steps", "2", "--batch", "2", "--threads", "1", "--force"),
                more);
}

/* The command in a child, with the nth call of `left` refused; its stderr in `log`. */
static int run_with(int (*command)(const files *, const char *const *), const files *f, atomic_long *left, long n,
                    const char *log, const char *const *more) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        if (!freopen(log, "w", stderr) || !freopen("/dev/null", "w", stdout)) _exit(99);
        atomic_store(left, n);
        int rc = command(f, more);
        atomic_store(left, -1);
        fflush(NULL);
        _exit(rc);
    }
    return wait_for(pid);
}

static const char *last_words(const char *log) {
    static char text[1024];
    FILE *f = fopen(log, "r");
    size_t n = f ? fread(text, 1, sizeof text - 1, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return text;
}

static bool exists(const char *path) {
    struct stat st;
    return stat(path, &st) == 0;
}

/* Removes a folder without folders in it. */
static void remove_folder(const char *folder) {
    DIR *dir = opendir(folder);
    char path[2 * PATH];
    for (struct dirent *entry; dir && (entry = readdir(dir));) {
        snprintf(path, sizeof path, "%s/%s", folder, entry->d_name);
        if (entry->d_name[0] != '.') unlink(path);
    }
    if (dir) closedir(dir);
    rmdir(folder);
}

static void check_command(const char *what, int (*command)(const files *, const char *const *), const files *f,
                          atomic_long *left, const char *says) {
    char log[PATH], work[PATH + 8];
    snprintf(log, sizeof log, "%s", in_folder("log"));
    snprintf(work, sizeof work, "%s.work", f->out);
    long n = 0;
    int rc = run_with(command, f, left, -1, log, OPTIONS(NULL));
    CHECK(rc == 0, "%s: exit code %d, says '%s'", what, rc, last_words(log));
    if (rc != 0) return;
    unlink(f->out);
    for (; n < 1000000; n = after(n)) {
        rc = run_with(command, f, left, n, log, OPTIONS(NULL));
        if (rc == 0) break;
        const char *words = last_words(log);
        CHECK(rc == 1 && (strstr(words, says) || strstr(words, "cannot start")),
              "%s, call %ld refused: exit code %d, says '%s'", what, n, rc, words);
        CHECK(!exists(f->out), "%s, call %ld refused: a file is left", what, n);
        tried++;
    }
    CHECK(n > 0, "%s: no call was seen", what);
    unlink(f->out);
    remove_folder(work);
}

/* ---- killed ------------------------------------------------------------------------------------------------------ */

static void wait_milliseconds(double ms) {
    struct timespec t = {(time_t)(ms / 1000), (long)(fmod(ms, 1000) * 1e6)};
    nanosleep(&t, NULL);
}

static void check_kills(const char *original, const char *calib, int kills) {
    char one[PATH], out[PATH], log[PATH];
    struct timespec begun, ended;
    snprintf(one, sizeof one, "%s", in_folder("one.gguf"));
    snprintf(out, sizeof out, "%s", in_folder("killed.gguf"));
    snprintf(log, sizeof log, "%s", in_folder("log"));
    clock_gettime(CLOCK_MONOTONIC, &begun);
    CHECK(run(original, one, calib, OPTIONS("--threads", "2")) == 0, "compress failed: %s", last_words(log));
    clock_gettime(CLOCK_MONOTONIC, &ended);
    double whole = 1e3 * (double)(ended.tv_sec - begun.tv_sec) + 1e-6 * (double)(ended.tv_nsec - begun.tv_nsec);
    srand(1);
    int killed = 0, runs = 0, finished = 0;
    /* half of the moments within a first run, the others wherever the work has got to */
    while (killed < kills && runs++ < 20 * kills) {
        bool resume = exists(in_folder("killed.gguf.work"));
        pid_t pid = start(original, out, calib, OPTIONS("--threads", "2", resume ? "--resume" : "--force"), log);
        wait_milliseconds(whole * (double)rand() / (double)RAND_MAX * 0.8);
        kill(pid, rand() & 1 ? SIGKILL : SIGINT);
        int rc = wait_for(pid);
        CHECK(rc == 0 || rc == 130 || rc == -1, "killed: exit code %d, says '%s'", rc, last_words(log));
        killed += rc != 0;
        bool there = exists(out); /* it may be killed after its file is whole and before the work folder is gone */
        CHECK(!there || same_files(one, out), "a killed run leaves half a file");
        if (!there && rand() % 4) continue;
        rc = there ? 0
                   : run(original, out, calib,
                         exists(in_folder("killed.gguf.work")) ? OPTIONS("--resume") : OPTIONS("--force"));
        CHECK(rc == 0 && same_files(one, out), "resumed after kills: exit code %d, other bytes: %s", rc,
              last_words(log));
        finished++;
        unlink(out);
        remove_folder(in_folder("killed.gguf.work"));
    }
    if (exists(in_folder("killed.gguf.work"))) {
        CHECK(run(original, out, calib, OPTIONS("--resume")) == 0 && same_files(one, out),
              "the last one gives other bytes");
        finished++;
    }
    CHECK(killed >= kills && finished > 0, "%d of %d runs were killed, %d were finished", killed, runs, finished);
    printf("%d runs killed, %d finished with the bytes of the uninterrupted one\n", killed, finished);
}

/* ---- */

static void check_tiny(const char *folder) {
    char text[PATH], out[PATH], student[PATH];
    tiny_model m = {.class_name = "LlamaForCausalLM",
                    .layers = 1,
                    .d = 32,
                    .ff = 64,
                    .heads = 2,
                    .kv = 2,
                    .hd = 16,
                    .vocab = 96,
                    .tied = true,
                    .dtype = "F32"};
    tiny_make(&m, 7);
    tiny_write(&m, folder, true);
    snprintf(text, sizeof text, "%s", in_folder("text.txt"));
    snprintf(out, sizeof out, "%s", in_folder("out.file"));
    FILE *f = fopen(text, "w");
    for (int i = 0; i < 4000; i++) fputc('a' + rand() % 26, f);
    fclose(f);
    snprintf(student, sizeof student, "%s", in_folder("student.gguf"));
    files with = {folder, text, out, student};
    check_memory("a folder", NULL, 0, folder);
    check_command("compress", compress_tiny, &with, &memory_left, "memory");
    check_command("compress, disk", compress_tiny, &with, &disk_left, "No space left");
    CHECK(run_with(compress_tiny, &(files){folder, text, student, NULL}, &memory_left, -1, in_folder("log"),
                   OPTIONS(NULL)) == 0,
          "compress failed");
    check_command("tune", tune_tiny, &with, &memory_left, "memory");
    check_command("tune, disk", tune_tiny, &with, &disk_left, "No space left");
    tiny_free(&m);
}

int main(int argc, char **argv) {
    char original[1024], calib[1024], folder[PATH];
    full = argc > 1 && strcmp(argv[1], "full") == 0;
    CHECK(mkdtemp(own_folder), "no temporary folder");
    snprintf(folder, sizeof folder, "%s", in_folder("model"));
    mkdir(folder, 0700);
    small_file f = small_file_make();
    check_memory("the engine", f.bytes, f.size, NULL);
    free(f.bytes);
    check_tiny(folder);
    printf("%u calls were refused\n", tried);
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    check_kills(original, calib, full ? 100 : KILLS);
    remove_folder(folder);
    remove_all();
    return check_end();
}
