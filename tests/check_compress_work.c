/* The work folder of bitpair compress: files of others in it stay, a run that made nothing leaves none, and what
 * forbids to go on is named. */
#include "compress_run.h"

#include <signal.h>

static char original[600], calib[600], out[PATH], work[PATH + 8];

static void put(const char *path, const char *text) {
    FILE *f = fopen(path, "w");
    CHECK(f, "cannot write %s", path);
    if (!f) return;
    fputs(text, f);
    fclose(f);
}

/* The path of a file in the work folder. */
static const char *in_work(const char *name) {
    static char paths[4][PATH + 80];
    static unsigned turn;
    char *path = paths[turn++ & 3];
    snprintf(path, sizeof paths[0], "%s/%s", work, name);
    return path;
}

static bool there(const char *path) { return access(path, F_OK) == 0; }

/* Runs with these options; stderr goes to text. */
static int run_log(const char *const *options, char text[2048]) {
    int rc = wait_for(start(original, out, calib, options, in_folder("log")));
    FILE *f = fopen(in_folder("log"), "r");
    size_t n = f ? fread(text, 1, 2047, f) : 0;
    if (f) fclose(f);
    text[n] = 0;
    return rc;
}

/* A folder of that name that no run made is not touched, forced or not; an empty one is taken. */
static void check_not_own(void) {
    char text[2048];
    const char *const *const options[] = {OPTIONS("--seed", "0"), OPTIONS("--force"), OPTIONS("--resume")};
    CHECK(mkdir(work, 0777) == 0, "no folder");
    put(in_work("notes.txt"), "precious");
    put(in_work("gradients"), "of another program");
    for (size_t i = 0; i < 3; i++) {
        int rc = run_log(options[i], text);
        CHECK(rc == 1 && strstr(text, "p.gguf.work' has other files"), "case %zu: exit code %d, %s", i, rc, text);
        CHECK(there(in_work("notes.txt")) && there(in_work("gradients")) && !there(in_work("fingerprint")) &&
                  !there(out),
              "case %zu: files are gone or new", i);
    }
    unlink(in_work("notes.txt"));
    unlink(in_work("gradients"));
    CHECK(run_log(OPTIONS("--seed", "0"), text) == 0 && !there(work) && there(out), "an empty folder: %s", text);
    unlink(out);
}

/* Files that were put into the folder of a run outlive it and --force; what a killed run left there does not. */
static void check_shared(void) {
    char text[2048];
    static const char *const OWN[] = {
        "gradients",         "gradients.123456",      "allocation.json",     "blk.0.attn_qkv",
        "blk.1.ffn_up",      "blk.0.attn_qkv.fitted", "blk.1.attn_v.000017", "blk.0.attn_output.fitted.004711",
        "fingerprint.000001"};
    static const char *const OTHERS[] = {"notes.txt", "blk.0.attn_qkv.backup", "blk.00.attn_q", "gradients-old"};
    CHECK(mkdir(work, 0777) == 0, "no folder");
    put(in_work("fingerprint"), "source: another\n");
    for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++) put(in_work(OWN[i]), "old");
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) put(in_work(OTHERS[i]), "precious");
    CHECK(run_log(OPTIONS("--force"), text) == 0 && there(out), "%s", text);
    for (size_t i = 0; i < sizeof OWN / sizeof *OWN; i++) CHECK(!there(in_work(OWN[i])), "%s stays", OWN[i]);
    CHECK(!there(in_work("fingerprint")), "the fingerprint stays");
    for (size_t i = 0; i < sizeof OTHERS / sizeof *OTHERS; i++) {
        CHECK(there(in_work(OTHERS[i])), "%s is gone", OTHERS[i]);
        unlink(in_work(OTHERS[i]));
    }
    CHECK(rmdir(work) == 0, "other files are left");
    unlink(out);
}

/* A wrong option that shows only in the run leaves nothing that stands in the way of the right one. */
static void check_wrong_option(void) {
    char text[2048], broken[PATH];
    snprintf(broken, sizeof broken, "%s", in_folder("broken.json"));
    put(broken, "{");
    CHECK(run_log(OPTIONS("--gradients-file", own_folder), text) == 1 && !there(work), "a folder for gradients: %s",
          text);
    CHECK(run_log(OPTIONS("--allocate", "equal-loss", "--allocation", broken), text) == 1 && !there(work),
          "a broken allocation: %s", text);
    CHECK(run_log(OPTIONS("--seed", "0"), text) == 0 && there(out), "the corrected command: %s", text);
    unlink(out);
}

/* Not so the folder of another run, and what differs from that is named. */
static void check_difference(void) {
    char text[2048];
    put(in_folder("broken.json"), "{");
    CHECK(mkdir(work, 0777) == 0, "no folder");
    put(in_work("blk.0.attn_qkv"), "of a run");
    put(in_work("fingerprint"), "source: another\n");
    CHECK(run_log(OPTIONS("--seed", "0"), text) == 1 && strstr(text, "--resume") && there(in_work("fingerprint")), "%s",
          text);
    CHECK(run_log(OPTIONS("--resume"), text) == 1 && strstr(text, "(source: another; now "), "%s", text);
    CHECK(run_log(OPTIONS("--force", "--seed", "41", "--gradients-file", own_folder), text) == 1 && !there(work), "%s",
          text);

    pid_t pid = start(original, out, calib, OPTIONS("--seed", "41", "--iterations", "200"), in_folder("log"));
    for (int i = 0; i < 40000 && !there(in_work("gradients")); i++) usleep(500);
    kill(pid, SIGINT);
    int rc = wait_for(pid);
    CHECK(rc == 130 && there(in_work("fingerprint")), "interrupted: exit code %d", rc);
    CHECK(run_log(OPTIONS("--seed", "42", "--iterations", "200", "--resume"), text) == 1 &&
              strstr(text, "(options: ...") && strstr(text, "\"seed\": 41}; now ...") && strstr(text, "\"seed\": 42})"),
          "%s", text);
    CHECK(run_log(OPTIONS("--seed", "41", "--iterations", "6", "--force"), text) == 0 && !there(work), "%s", text);
    unlink(out);
}

int main(void) {
    snprintf(original, sizeof original, "%s", check_data("models/tinystories-656k"));
    snprintf(calib, sizeof calib, "%s", check_data("text/tinystories_sample_2MiB.txt"));
    CHECK(mkdtemp(own_folder), "no temporary folder");
    snprintf(out, sizeof out, "%s", in_folder("p.gguf"));
    snprintf(work, sizeof work, "%s.work", out);
    if (access(original, R_OK) != 0 || access(calib, R_OK) != 0) {
        CHECK(false, "%s or %s is missing: set BITPAIR_SHARED_DATA", original, calib);
    } else {
        check_not_own();
        check_shared();
        check_wrong_option();
        check_difference();
    }
    remove_all();
    return check_end();
}
