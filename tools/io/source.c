#include "io/source.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "io/hf.h"

/* The last component of a path, trailing slashes ignored. */
static void name_source(source *s, const char *path) {
    size_t end = strlen(path);
    while (end > 1 && path[end - 1] == '/') end--;
    size_t begin = end;
    while (begin > 0 && path[begin - 1] != '/') begin--;
    snprintf(s->name, sizeof s->name, "%.*s", (int)bp_min(end - begin, sizeof s->name - 1), path + begin);
}

bool source_open(source *s, const char *path, bp_err *e) {
    struct stat st;
    *s = (source){0};
    name_source(s, path);
    if (strcmp(path, "-") != 0 && stat(path, &st) == 0 && S_ISDIR(st.st_mode)) {
        uint8_t *image;
        if (!hf_read(path, &image, &s->size, e)) return false;
        s->bytes = s->image = image;
        return true;
    }
    if (!file_map(&s->view, path, e)) return false;
    s->bytes = s->view.bytes;
    s->size = s->view.size;
    return true;
}

void source_close(source *s) {
    free(s->image);
    file_unmap(&s->view);
    *s = (source){0};
}
