/* compress_run.h - `bitpair compress` as its tests call it. */
#ifndef BP_COMPRESS_RUN_H
#define BP_COMPRESS_RUN_H

#include "command_run.h"

/* bitpair compress MODEL -o OUT and these options, in a child; its stderr goes to `log`. */
static inline pid_t start(const char *original, const char *out, const char *calib, const char *const *more,
                          const char *log) {
    return call_apart(cmd_compress,
                      OPTIONS("compress", original, "-o", out, "--calib", calib, "--calib-tokens", "2048", "--ctx",
                              "64", "--iterations", "6"),
                      more, log, "/dev/null");
}

static inline int run(const char *original, const char *out, const char *calib, const char *const *more) {
    return wait_for(start(original, out, calib, more, in_folder("log")));
}

#endif
