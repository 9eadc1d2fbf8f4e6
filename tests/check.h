/* check.h - the whole test framework: CHECK counts, check_end prints `N passed, N failed` and gives the exit code. */
#ifndef BP_CHECK_H
#define BP_CHECK_H

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static unsigned check_passed, check_failed;

/* CHECK(condition, "format", ...): counts one check; a failing one prints file, line and the text. */
#define CHECK(condition, ...)                                                                                          \
    do {                                                                                                               \
        if (condition) {                                                                                               \
            check_passed++;                                                                                            \
        } else if (check_failed++ < 50) {                                                                              \
            printf("%s:%d: %s: ", __FILE__, __LINE__, #condition);                                                     \
            printf(__VA_ARGS__);                                                                                       \
            printf("\n");                                                                                              \
        }                                                                                                              \
    } while (0)

/* Last statement of main: a test that checked nothing has failed. */
static inline int check_end(void) {
    printf("%u passed, %u failed\n", check_passed, check_failed);
    return check_failed != 0 || check_passed == 0;
}

/* Path of a file below shared/data, in a static buffer (two may be alive at a time). */
static inline const char *check_data(const char *relative) {
    static char paths[2][1024];
    static unsigned turn;
    const char *root = getenv("BITPAIR_SHARED_DATA");
    char *path = paths[turn++ & 1];
    snprintf(path, sizeof paths[0], "%s%s/%s", root ? root : BITPAIR_ROOT, root ? "" : "/../shared/data", relative);
    return path;
}

#endif
