/* GGUF headers written and read back; files that appear whole or not at all. */
#include <dirent.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "check.h"
#include "io/file.h"
#include "io/gguf_write.h"
#include "io/json.h"

static char folder[] = "/tmp/bitpair-check-io-XXXXXX";

static const char *in_folder(const char *name) {
    static char path[256];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    return path;
}

/* ---- GGUF ------------------------------------------------------------------------------------------------------- */

/* Opens an image; the memory behind the tables is returned, to be freed. */
static void *open_image(gguf *g, const uint8_t *bytes, uint64_t size, bp_err *e) {
    arena a = arena_measure();
    if (!gguf_open(g, &a, bytes, size, e)) return NULL;
    size_t room = bp_round_up(a.used + 1, BP_ALIGN);
    void *memory = aligned_alloc(BP_ALIGN, room);
    a = arena_over(memory, room);
    if (gguf_open(g, &a, bytes, size, e)) return memory;
    free(memory);
    return NULL;
}

static void put_keys(gguf_writer *w) {
    const gguf_text words[] = {{"one", 3}, {"", 0}, {"th\0ree", 6}};
    const uint16_t shorts[] = {1, 2, 65535};
    gguf_put_string(w, "general.architecture", "llama", 5);
    gguf_put_u32(w, "a.u32", 7);
    gguf_put_u64(w, "a.u64", UINT64_C(1) << 40);
    gguf_put_f32(w, "a.f32", 0.25f);
    gguf_put_bool(w, "a.bool", true);
    gguf_put_strings(w, "a.words", words, 3);
    gguf_put_array(w, "a.shorts", GGUF_U16, shorts, 3);
    gguf_put_array(w, "a.nothing", GGUF_F32, NULL, 0);
    gguf_put_u32(w, "a.u32", 8); /* replaces */
}

static void check_keys(const gguf *g) {
    uint64_t n;
    double x;
    bool flag = false;
    gguf_text t;
    CHECK(g->n_keys == 9, "%u keys", g->n_keys);
    CHECK(gguf_u64(g, "a.u32", &n) && n == 8, "a.u32");
    CHECK(gguf_u64(g, "a.u64", &n) && n == UINT64_C(1) << 40, "a.u64");
    CHECK(gguf_f64(g, "a.f32", &x) && x == 0.25, "a.f32");
    CHECK(gguf_bool(g, "a.bool", &flag) && flag, "a.bool");
    CHECK(gguf_string(g, "general.architecture", &t) && gguf_text_is(t, "llama"), "string");
    const gguf_key *words = gguf_find(g, "a.words"), *shorts = gguf_find(g, "a.shorts");
    CHECK(words && words->count == 3 && words->item == GGUF_STRING, "a.words");
    const uint8_t *cursor = words->data;
    gguf_text first = gguf_item_string(&cursor), second = gguf_item_string(&cursor), third = gguf_item_string(&cursor);
    CHECK(gguf_text_is(first, "one") && second.size == 0, "words");
    CHECK(third.size == 6 && memcmp(third.text, "th\0ree", 6) == 0, "a word with a zero");
    CHECK(shorts && shorts->count == 3 && gguf_item_u64(shorts, 2) == 65535, "a.shorts");
    CHECK(gguf_find(g, "a.nothing") && gguf_find(g, "a.nothing")->count == 0, "an empty array");
    CHECK(gguf_u64(g, "general.alignment", &n) && n == 64, "alignment");
}

/* The image of a file: header and tensor bytes 0, 1, 2, ... */
static uint8_t *make_image(gguf_writer *w, size_t n_tensors, uint64_t *size, bp_err *e) {
    uint8_t *header = NULL;
    uint64_t header_size = 0;
    if (!gguf_writer_finish(w, 64, &header, &header_size, size, e)) return NULL;
    uint8_t *image = aligned_alloc(64, bp_round_up((size_t)*size, 64));
    memset(image, 0, (size_t)*size);
    memcpy(image, header, (size_t)header_size);
    CHECK(header_size % 64 == 0, "header of %llu bytes", (unsigned long long)header_size);
    for (size_t i = 0; i < n_tensors; i++)
        for (uint64_t j = 0; j < gguf_writer_bytes(w, i); j++) image[gguf_writer_offset(w, i) + j] = (uint8_t)j;
    free(header);
    return image;
}

static void check_roundtrip(void) {
    bp_err e = {0};
    gguf g;
    uint64_t size, matrix[] = {64, 3}, vector[] = {5}, cube[] = {32, 2, 2};
    gguf_writer *w = gguf_writer_new();
    put_keys(w);
    gguf_put_tensor(w, "matrix", QUANT_Q4_1, 2, matrix);
    gguf_put_tensor(w, "vector", QUANT_F32, 1, vector);
    CHECK(gguf_put_tensor(w, "cube", QUANT_BF16, 3, cube) == 2, "index");
    uint8_t *image = make_image(w, 3, &size, &e);
    void *memory = image ? open_image(&g, image, size, &e) : NULL;
    CHECK(memory, "%s", e.text);
    check_keys(&g);
    const gguf_tensor *m = gguf_tensor_find(&g, "matrix"), *v = gguf_tensor_find(&g, "vector"),
                      *c = gguf_tensor_find(&g, "cube");
    CHECK(g.n_tensors == 3 && g.full_size == size && g.alignment == 64, "table");
    CHECK(m && m->type == QUANT_Q4_1 && m->n_dims == 2 && m->dims[0] == 64 && m->dims[1] == 3 && m->bytes == 120,
          "matrix");
    CHECK(v && v->bytes == 20 && v->offset % 64 == 0 && v->offset == gguf_writer_offset(w, 1), "vector");
    CHECK(c && c->n_dims == 3 && c->dims[2] == 2 && c->bytes == 256, "cube");
    CHECK(c && ((const uint8_t *)gguf_data(&g, c))[255] == 255, "tensor bytes");
    free(memory);
    free(image);
    gguf_writer_free(w);
}

/* Keys copied with gguf_put_key are the same bytes. */
static void check_copied_keys(void) {
    bp_err e = {0};
    gguf g, copy_of;
    uint64_t size, copy_size;
    gguf_writer *w = gguf_writer_new(), *copy = gguf_writer_new();
    put_keys(w);
    uint8_t *image = make_image(w, 0, &size, &e);
    void *memory = open_image(&g, image, size, &e);
    CHECK(memory && size % 64 == 0, "%s", e.text);
    for (uint32_t i = 0; memory && i < g.n_keys; i++) gguf_put_key(copy, &g.keys[i]);
    uint8_t *copied = make_image(copy, 0, &copy_size, &e);
    CHECK(copied && copy_size == size && memcmp(copied, image, (size_t)size) == 0, "copied keys differ");
    void *copy_memory = open_image(&copy_of, copied, copy_size, &e);
    CHECK(copy_memory, "%s", e.text);
    check_keys(&copy_of);
    free(copy_memory);
    free(copied);
    free(memory);
    free(image);
    gguf_writer_free(w);
    gguf_writer_free(copy);
}

/* A digest filled in after the layout does not move anything. */
static void check_refilled_key(void) {
    bp_err e = {0};
    uint8_t zeros[32] = {0}, digest[32], *first, *second;
    uint64_t dims[] = {8}, size[2], full[2];
    memset(digest, 0xAB, sizeof digest);
    gguf_writer *w = gguf_writer_new();
    gguf_put_array(w, "digest", GGUF_U8, zeros, 32);
    gguf_put_tensor(w, "t", QUANT_F32, 1, dims);
    CHECK(gguf_writer_finish(w, 64, &first, &size[0], &full[0], &e), "%s", e.text);
    gguf_put_array(w, "digest", GGUF_U8, digest, 32);
    CHECK(gguf_writer_finish(w, 64, &second, &size[1], &full[1], &e), "%s", e.text);
    CHECK(size[0] == size[1] && full[0] == full[1], "the layout moved");
    size_t differ = 0;
    for (size_t i = 0; i < size[0]; i++) differ += first[i] != second[i];
    CHECK(differ == 32, "%zu bytes differ", differ);
    free(first);
    free(second);
    gguf_writer_free(w);
}

static void check_bad_tensors(void) {
    const struct {
        uint32_t type, n_dims;
        uint64_t dims[2];
    } bad[] = {{QUANT_Q4_1, 1, {33, 1}},
               {99, 1, {32, 1}},
               {QUANT_F32, 2, {UINT64_C(1) << 40, UINT64_C(1) << 40}},
               {QUANT_F32, 0, {1, 1}}};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        bp_err e = {0};
        uint8_t *header = NULL;
        uint64_t size, full;
        gguf_writer *w = gguf_writer_new();
        gguf_put_tensor(w, "bad", bad[i].type, bad[i].n_dims, bad[i].dims);
        CHECK(!gguf_writer_finish(w, 64, &header, &size, &full, &e) && strstr(e.text, "bad"), "tensor %zu: %s", i,
              e.text);
        gguf_writer_free(w);
    }
}

/* ---- files ------------------------------------------------------------------------------------------------------ */

static size_t count_files(void) {
    size_t n = 0;
    DIR *d = opendir(folder);
    for (const struct dirent *entry; d && (entry = readdir(d)) != NULL;) n += entry->d_name[0] != '.';
    closedir(d);
    return n;
}

static bool file_is(const char *path, const char *wanted) {
    file_view f;
    if (!file_map(&f, path, NULL)) return false;
    bool same = f.size == strlen(wanted) && memcmp(f.bytes, wanted, (size_t)f.size) == 0;
    file_unmap(&f);
    return same;
}

static bool write_file(const char *path, bool force, const char *bytes, bp_err *e) {
    file_out *f = file_create(path, force, 0, e);
    if (!f) return false;
    if (file_append(f, bytes, strlen(bytes), e)) return file_commit(f, e);
    file_discard(f);
    return false;
}

static void check_files(void) {
    bp_err e = {0};
    const char *path = in_folder("out");
    struct stat st;
    CHECK(write_file(path, false, "first", &e) && file_is(path, "first"), "%s", e.text);
    CHECK(stat(path, &st) == 0 && (st.st_mode & 0444) != 0, "permissions");
    CHECK(!write_file(path, false, "second", &e) && strstr(e.text, "--force") && file_is(path, "first"), "%s", e.text);
    CHECK(write_file(path, true, "third", &e) && file_is(path, "third") && count_files() == 1, "%s", e.text);
    file_out *f = file_create(path, true, 0, &e);
    CHECK(f && file_append(f, "....", 4, &e) && file_write_at(f, 1, "ab", 2, &e) && file_append(f, "!", 1, &e), "%s",
          e.text);
    CHECK(file_is(path, "third"), "seen before its commit");
    CHECK(file_commit(f, &e) && file_is(path, ".ab.!"), "%s", e.text);
    f = file_create(path, true, 0, &e);
    CHECK(f && file_append(f, "lost", 4, &e), "%s", e.text);
    file_discard(f);
    file_discard(NULL);
    CHECK(file_is(path, ".ab.!") && count_files() == 1, "discarded");
    unlink(path);
}

/* Two writers of one path: without force the second commit does not replace the first. */
static void check_race(void) {
    bp_err e = {0};
    char path[256];
    snprintf(path, sizeof path, "%s", in_folder("race"));
    file_out *slow = file_create(path, false, 0, &e);
    CHECK(slow && file_append(slow, "slow", 4, &e), "%s", e.text);
    CHECK(write_file(path, false, "fast", &e), "%s", e.text);
    CHECK(!file_commit(slow, &e) && file_is(path, "fast") && count_files() == 1, "the slow writer won");
    unlink(path);
}

static void check_refusals(void) {
    bp_err e = {0};
    file_view f;
    CHECK(!file_map(&f, in_folder("nowhere"), &e) && e.code == BP_ERR_IO && strstr(e.text, "No such file"), "%s",
          e.text);
    CHECK(!file_map(&f, folder, &e) && strstr(e.text, "folder"), "%s", e.text);
    CHECK(!file_create(folder, true, 0, &e) && strstr(e.text, "folder"), "%s", e.text);
    CHECK(!file_create("/dev/null", true, 0, &e) && strstr(e.text, "regular"), "%s", e.text);
    CHECK(!file_create(in_folder("no/such/folder"), false, 0, &e) && e.code == BP_ERR_IO, "%s", e.text);
    CHECK(!file_create(in_folder("big"), false, UINT64_MAX / 2, &e) && strstr(e.text, "MB left"), "%s", e.text);
    CHECK(count_files() == 0, "something was left behind");
    CHECK(write_file(in_folder("empty"), false, "", &e), "%s", e.text);
    CHECK(file_map(&f, in_folder("empty"), &e) && f.size == 0 && (uintptr_t)f.bytes % 64 == 0, "%s", e.text);
    file_unmap(&f);
    unlink(in_folder("empty"));
}

/* A disk that fills up, played by the limit of the file size. */
static void check_full_disk(void) {
    bp_err e = {0};
    struct rlimit limit, before;
    signal(SIGXFSZ, SIG_IGN);
    getrlimit(RLIMIT_FSIZE, &before);
    limit = before;
    limit.rlim_cur = 1000;
    setrlimit(RLIMIT_FSIZE, &limit);
    char bytes[4096] = {0};
    file_out *f = file_create(in_folder("full"), false, 0, &e);
    bool written = f && file_append(f, bytes, sizeof bytes, &e);
    file_discard(f);
    setrlimit(RLIMIT_FSIZE, &before);
    CHECK(!written && e.code == BP_ERR_IO && strstr(e.text, "full"), "%s", e.text);
    CHECK(count_files() == 0, "something was left behind");
}

static void check_json(void) {
    bp_err e = {0};
    uint64_t n = 0;
    CHECK(!json_parse("{\"a\": }", 7, "name", 100, &e) && e.offset >= 100 && strstr(e.text, "name"), "%s", e.text);
    CHECK(!json_parse("", 0, "name", 0, &e), "empty text");
    const char *good = "{\"i\": 12, \"r\": 1.5, \"m\": -1, \"h\": 1e300, \"t\": true, \"s\": \"x\"}";
    cJSON *root = json_parse(good, strlen(good), "good", 0, &e);
    CHECK(json_u64(cJSON_GetObjectItem(root, "i"), &n) && n == 12, "%s", e.text);
    CHECK(!json_u64(cJSON_GetObjectItem(root, "r"), &n) && !json_u64(cJSON_GetObjectItem(root, "m"), &n), "not whole");
    CHECK(!json_u64(cJSON_GetObjectItem(root, "h"), &n) && !json_u64(NULL, &n), "too large");
    CHECK(json_flag(root, "t", false) && json_flag(root, "none", true) && !json_flag(root, "s", false), "flags");
    CHECK(!json_text(root, "i") && strcmp(json_text(root, "s"), "x") == 0, "texts");
    cJSON_Delete(root);
}

int main(void) {
    CHECK(mkdtemp(folder), "no temporary folder");
    check_roundtrip();
    check_copied_keys();
    check_refilled_key();
    check_bad_tensors();
    check_files();
    check_race();
    check_refusals();
    check_full_disk();
    check_json();
    CHECK(rmdir(folder) == 0, "the folder is not empty");
    return check_end();
}
