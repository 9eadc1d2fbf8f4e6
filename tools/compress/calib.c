#include "calib.h"

#include <stdio.h>
#include <stdlib.h>

#include "io/file.h"
#include "sha256.h"

enum { PATH = 1024, BYTES_PER_TOKEN = 16, VALIDATION = 16 };

/* Tokens of one file so far. */
typedef struct {
    const tokenizer *t;
    const char *text, *path;
    size_t size;
    int32_t *ids;
    size_t n, room;
    void *scratch;
    size_t scratch_size;
} pool_of_tokens;

/* ---- text ------------------------------------------------------------------------------------------------------ */

/* Length of the UTF-8 character at p (left >= 1 bytes), 0 where there is none. */
static size_t character(const uint8_t *p, size_t left) {
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t n = p[0] < 0x80 ? 1 : p[0] < 0xc0 ? 0 : p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : p[0] < 0xf8 ? 4 : 0;
    if (n == 0 || n > left) return 0;
    if (n == 1) return 1;
    uint32_t code = p[0] & (0x7fu >> n);
    for (size_t i = 1; i < n; i++) {
        if ((p[i] & 0xc0) != 0x80) return 0;
        code = code << 6 | (p[i] & 0x3f);
    }
    return code < least[n] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000) ? 0 : n;
}

static bool check_utf8(const pool_of_tokens *p, bp_err *e) {
    const uint8_t *bytes = (const uint8_t *)p->text;
    for (size_t i = 0; i < p->size;) {
        size_t n = character(bytes + i, p->size - i);
        if (n == 0) return bp_fail(e, BP_ERR_FORMAT, i, "calibration text '%s' is not UTF-8", p->path);
        i += n;
    }
    return true;
}

/* The next place from i on where a line, else a word, else a character begins. */
static size_t next_start(const pool_of_tokens *p, size_t i) {
    enum { LOOK = 512 };
    if (i == 0) return 0;
    size_t end = bp_min(p->size, i + LOOK);
    for (size_t j = i; j < end; j++)
        if (p->text[j - 1] == '\n') return j;
    for (size_t j = i; j < end; j++)
        if (p->text[j] == ' ') return j;
    while (i < p->size && ((uint8_t)p->text[i] & 0xc0) == 0x80) i++;
    return i;
}

/* ---- tokens ---------------------------------------------------------------------------------------------------- */

static bool reserve(pool_of_tokens *p, size_t bytes, bp_err *e) {
    size_t ids = p->n + bytes + 8, scratch = bp_round_up(tokenizer_scratch(p->t, bytes) + 1, BP_ALIGN);
    if (ids > p->room) {
        int32_t *bigger = realloc(p->ids, 2 * ids * sizeof *bigger);
        if (!bigger) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the calibration tokens");
        p->ids = bigger;
        p->room = 2 * ids;
    }
    if (scratch > p->scratch_size) {
        free(p->scratch);
        p->scratch = aligned_alloc(BP_ALIGN, scratch);
        p->scratch_size = p->scratch ? scratch : 0;
    }
    return p->scratch || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the calibration tokens");
}

/* How a file is cut: regions, and tokens that each gives at most. One for each window, so that windows come from all
 * over a long text. Where more is asked for than a text can have (a token takes two bytes and more, hardly less), such
 * regions would be of few bytes, and lines longer than a window would lose their ends: then large ones give it all. */
static size_t count_regions(const pool_of_tokens *p, size_t wanted, size_t ctx, size_t *limit) {
    enum { LARGE = 65536 };
    *limit = ctx;
    if (wanted == 0 || wanted <= p->size / 2 / ctx) return wanted;
    size_t n = bp_max(p->size / LARGE, 1);
    *limit = SIZE_MAX / BYTES_PER_TOKEN;
    if (wanted < *limit / ctx) *limit = bp_ceil_div(wanted * ctx, n);
    return n;
}

/* Each region gives its first tokens, or all it has where that is less. Windows are cut from what comes together. */
static bool read_regions(pool_of_tokens *p, size_t wanted, size_t ctx, bp_err *e) {
    size_t limit, regions = count_regions(p, wanted, ctx, &limit), step = regions ? p->size / regions : 0;
    for (size_t r = 0; r < regions && p->n / ctx < wanted; r++) {
        size_t begin = next_start(p, step * r), end = r + 1 == regions ? p->size : next_start(p, step * (r + 1));
        if (begin >= end) continue;
        if ((end - begin) / BYTES_PER_TOKEN >= limit) end = bp_min(end, next_start(p, begin + limit * BYTES_PER_TOKEN));
        size_t n = 0;
        bp_err inner = {0};
        if (!reserve(p, end - begin, e)) return false;
        if (!tokenizer_encode(p->t, p->text + begin, end - begin, TOKENIZE_SPECIAL, p->scratch, p->ids + p->n, &n,
                              &inner))
            return bp_fail(e, inner.code, begin + inner.offset, "calibration text '%s': %s", p->path, inner.text);
        p->n += bp_min(n, limit);
    }
    return true;
}

/* Room for so many more windows. A text may have far fewer than it was asked for, so it is made as they come. */
static bool more_windows(calibration *all, size_t n, bp_err *e) {
    int32_t *bigger = realloc(all->ids, bp_max(all->n_seqs + n, 1) * all->ctx * sizeof *bigger);
    if (bigger) all->ids = bigger;
    uint8_t *files = realloc(all->file, bp_max(all->n_seqs + n, 1));
    if (files) all->file = files;
    return (bigger && files) || bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the calibration tokens");
}

/* Windows of file `index`, appended to all->ids */
static bool read_file(calibration *all, const tokenizer *t, const char *path, size_t index, size_t wanted, sha256 *hash,
                      bp_err *e) {
    file_view f;
    if (!file_map(&f, path, e)) return false;
    pool_of_tokens p = {.t = t, .text = (const char *)f.bytes, .path = path, .size = (size_t)f.size};
    sha256_update(hash, f.bytes, (size_t)f.size);
    bool ok = check_utf8(&p, e) && read_regions(&p, wanted, all->ctx, e);
    size_t windows = ok ? bp_min(wanted, p.n / all->ctx) : 0;
    if (ok && windows == 0)
        ok = bp_fail(e, BP_ERR_FORMAT, 0,
                     "calibration text '%s' is too short: %zu tokens, and a sequence takes %zu (see --ctx)", path, p.n,
                     all->ctx);
    ok = ok && more_windows(all, windows, e);
    if (ok) memcpy(all->ids + all->n_seqs * all->ctx, p.ids, windows * all->ctx * sizeof *all->ids);
    if (ok) memset(all->file + all->n_seqs, (int)index, windows);
    if (ok) all->n_seqs += windows;
    free(p.ids);
    free(p.scratch);
    file_unmap(&f);
    return ok;
}

size_t calibration_n_val(size_t n_seqs) { return bp_max(1, n_seqs / VALIDATION); }

/* Moves every 16th sequence to the end, where validation reads. */
static bool split(calibration *c, bp_err *e) {
    size_t row = c->ctx * sizeof *c->ids, train = 0, val = 0;
    c->n_val = calibration_n_val(c->n_seqs);
    int32_t *kept = malloc(c->n_val * (row + 1));
    if (!kept) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the calibration tokens");
    uint8_t *files = (uint8_t *)(kept + c->n_val * c->ctx);
    for (size_t i = 0; i < c->n_seqs; i++) {
        const int32_t *from = c->ids + i * c->ctx;
        if ((i + 1) * c->n_val / c->n_seqs > val) {
            files[val] = c->file[i];
            memcpy(kept + val++ * c->ctx, from, row);
        } else {
            c->file[train] = c->file[i];
            memmove(c->ids + train++ * c->ctx, from, row);
        }
    }
    memcpy(c->ids + train * c->ctx, kept, val * row);
    memcpy(c->file + train, files, val);
    free(kept);
    return true;
}

static bool next_path(const char **rest, char *path, bp_err *e) {
    size_t n = strcspn(*rest, ",");
    if (n == 0 || n >= PATH)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "--calib: empty or overlong file name in '%s'", *rest);
    memcpy(path, *rest, n);
    path[n] = 0;
    *rest += n + ((*rest)[n] == ',');
    return true;
}

bool calibration_load(calibration *c, const tokenizer *t, const char *paths, size_t n_seqs, size_t ctx, bp_err *e) {
    char path[PATH];
    size_t files = 1;
    sha256 hash;
    sha256_init(&hash);
    *c = (calibration){.ctx = ctx};
    bool ok = true;
    for (const char *s = paths; *s; s++) files += *s == ',';
    if (ok && files > CALIB_FILES)
        ok = bp_fail(e, BP_ERR_ARGUMENT, 0, "--calib: %zu files, at most %d", files, CALIB_FILES);
    for (size_t i = 0; ok && i < files; i++) {
        size_t first, end;
        bp_share(n_seqs, i, files, &first, &end);
        ok = next_path(&paths, path, e) && read_file(c, t, path, i, end - first, &hash, e);
    }
    sha256_final(&hash, c->digest);
    if (ok && c->n_seqs < CALIB_LEAST)
        ok = bp_fail(
            e, BP_ERR_FORMAT, 0,
            "the calibration text is too short: %zu sequences of %zu tokens, at least %d are needed (see --ctx)",
            c->n_seqs, ctx, CALIB_LEAST);
    ok = ok && split(c, e);
    if (!ok) calibration_free(c);
    return ok;
}

void calibration_free(calibration *c) {
    free(c->ids);
    free(c->file);
    c->ids = NULL;
    c->file = NULL;
}
