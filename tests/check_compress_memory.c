/* Bounded memory: activations in a scratch file give the same bytes as in memory, the peak stays below --max-memory, and
 * a full disk is refused in words. */
#include "compress_run.h"

#include "compress/spill.h"

#if defined(__SANITIZE_ADDRESS__)
#define SANITIZED 1
#elif defined(__has_feature)
#define SANITIZED __has_feature(address_sanitizer)
#else
#define SANITIZED 0
#endif

/* Pages of this process in memory, from files and shared mappings. */
static size_t shared_bytes(void) {
    unsigned long size = 0, resident = 0, shared = 0;
    FILE *f = fopen("/proc/self/statm", "r");
    CHECK(f && fscanf(f, "%lu %lu %lu", &size, &resident, &shared) == 3, "no /proc/self/statm");
    if (f) fclose(f);
    return shared * (size_t)sysconf(_SC_PAGESIZE);
}

static bool holds(const uint32_t *p, size_t n) {
    for (size_t i = 0; i < n; i++)
        if (p[i] != (uint32_t)(i * 2654435761u)) return false;
    return true;
}

/* What is released leaves memory and is the same when it is read again. */
static void check_spill(void) {
    enum { BYTES = 8 << 20, N = BYTES / 4, ODD = 1003 };
    for (int on_disk = 0; on_disk < 2; on_disk++) {
        spill s;
        bp_err e = {0};
        CHECK(spill_open(&s, BYTES, on_disk ? own_folder : NULL, &e), "%s", e.text);
        uint32_t *p = s.at;
        for (size_t i = 0; i < N; i++) p[i] = (uint32_t)(i * 2654435761u);
        size_t before = shared_bytes();
        spill_release(&s, p + ODD, BYTES / 2);
        size_t after = shared_bytes();
        CHECK(on_disk ? before >= after + BYTES / 2 : before < after + BYTES / 4,
              "%zu bytes resident, %zu after release", before, after);
        CHECK(holds(p, N), "released content is lost");
        spill_release(&s, p, BYTES);
        CHECK(holds(p, N), "released content is lost");
        spill_close(&s);
    }
}

/* The same of a mapped source, and nothing happens to one that is not mapped. */
static void check_mapped(void) {
    enum { BYTES = 8 << 20, N = BYTES / 4, ODD = 1003 };
    char path[PATH];
    bp_err e = {0};
    file_view v;
    uint32_t *p = malloc(BYTES);
    snprintf(path, sizeof path, "%s", in_folder("mapped"));
    for (size_t i = 0; i < N; i++) p[i] = (uint32_t)(i * 2654435761u);
    FILE *f = fopen(path, "w");
    CHECK(fwrite(p, 1, BYTES, f) == BYTES && fclose(f) == 0 && file_map(&v, path, &e), "%s", e.text);
    const uint32_t *at = (const uint32_t *)(const void *)v.bytes;
    CHECK(holds(at, N), "another content");
    size_t before = shared_bytes();
    file_release(&v, at + ODD, BYTES / 2);
    CHECK(before >= shared_bytes() + BYTES / 2, "%zu bytes resident before, %zu after", before, shared_bytes());
    CHECK(holds(at, N), "released content is lost");
    file_unmap(&v);
    file_release(NULL, p, BYTES);
    file_release(&(file_view){(const uint8_t *)p, BYTES, p}, p, BYTES);
    CHECK(holds(p, N), "what is not mapped is lost");
    free(p);
}

static void check_spill_refusals(void) {
    spill s;
    bp_err e = {0};
    CHECK(!spill_open(&s, (size_t)1 << 50, own_folder, &e) && e.code == BP_ERR_IO && strstr(e.text, "disk has"), "%s",
          e.text);
    CHECK(!spill_open(&s, 4096, "/no/such/folder", &e) && e.code == BP_ERR_IO && strstr(e.text, "/no/such/folder"),
          "%s", e.text);
}

/* bitpair compress in a child: its exit code, and its peak resident memory in MB. */
static int run_measured(const char *original, const char *out, const char *calib, const char *const *more,
                        double *peak) {
    struct rusage usage;
    int status = 0;
    pid_t pid = start(original, out, calib, more, in_folder("log"));
    *peak = wait4(pid, &status, 0, &usage) == pid ? (double)usage.ru_maxrss * 1024 / 1e6 : -1;
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

static void check_limit(const char *original, const char *calib) {
    char free_run[PATH], bounded[PATH];
    double free_peak, bounded_peak, limit = 130;
    snprintf(free_run, sizeof free_run, "%s", in_folder("free.gguf"));
    snprintf(bounded, sizeof bounded, "%s", in_folder("bounded.gguf"));
    CHECK(run_measured(original, free_run, calib,
                       OPTIONS("--calib-tokens", "32768", "--iterations", "4", "--block-steps", "4", "--threads", "2"),
                       &free_peak) == 0,
          "compress failed");
    CHECK(run_measured(original, bounded, calib,
                       OPTIONS("--calib-tokens", "32768", "--iterations", "4", "--block-steps", "4", "--threads", "2",
                               "--max-memory", "130"),
                       &bounded_peak) == 0,
          "compress with --max-memory failed");
    CHECK(same_files(free_run, bounded), "a scratch file gives other bytes");
    if (SANITIZED) return; /* the sanitizer's own memory is many times the limit */
    CHECK(free_peak > limit, "without a limit %.0f MB: this test shows nothing", free_peak);
    CHECK(bounded_peak > 0 && bounded_peak <= limit, "peak of %.0f MB under --max-memory 130", bounded_peak);
}

/* The work folder holds no scratch file that a killed process could leave behind. */
static void check_nameless(void) {
    spill s;
    bp_err e = {0};
    size_t names = 0;
    CHECK(spill_open(&s, 4096, own_folder, &e), "%s", e.text);
    DIR *dir = opendir(own_folder);
    for (struct dirent *entry; dir && (entry = readdir(dir));) names += strstr(entry->d_name, "scratch") != NULL;
    if (dir) closedir(dir);
    CHECK(names == 0, "the scratch file has a name");
    spill_close(&s);
}

int main(void) {
    char original[1024], calib[1024];
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    CHECK(mkdtemp(own_folder), "no temporary folder");
    check_spill();
    check_mapped();
    check_spill_refusals();
    check_nameless();
    check_limit(original, calib);
    remove_all();
    return check_end();
}
