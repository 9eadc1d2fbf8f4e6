/* bitpair verify: does the file match its own checksums? */
#include <stdio.h>
#include <stdlib.h>

#include "load.h"

enum { PIECE = 1 << 20 };

typedef struct {
    uint64_t bytes, pieces, checked;
    uint64_t unchecked; /* bytes at the end, of a piece that goes on past them */
    bool whole;
} verify_result;

/* A file ends where its last tensor does, or at the end of a tier. */
static bool check_length(const gguf *g, verify_result *r, bp_err *e) {
    const gguf_key *tiers = gguf_find(g, "bitpair.tiers");
    r->whole = g->size == g->full_size;
    bool tier_end = false;
    for (uint64_t i = 0; tiers && tiers->kind == GGUF_ARRAY && tiers->item == GGUF_U64 && i < tiers->count; i++)
        if (gguf_item_u64(tiers, i) == g->size) tier_end = true;
    if (r->whole || tier_end) return true;
    if (g->size > g->full_size)
        return bp_fail(e, BP_ERR_FORMAT, g->full_size, "the file goes on after its last tensor: %llu bytes too many",
                       (unsigned long long)(g->size - g->full_size));
    return bp_fail(e, BP_ERR_FORMAT, g->size,
                   "the file is truncated: it has %llu bytes of %llu, and no tier ends there",
                   (unsigned long long)g->size, (unsigned long long)g->full_size);
}

/* Pieces are checked as far as they are at hand: the last piece of a prefix may go on past it, and its checksum says
 * nothing about a part of it. */
static void count_pieces(const gguf *g, verify_result *r) {
    uint64_t data = g->full_size - g->data_offset, here = g->size - g->data_offset;
    r->bytes = g->size;
    r->pieces = (data + PIECE - 1) / PIECE;
    r->checked = r->whole ? r->pieces : here / PIECE;
    r->unchecked = r->whole ? 0 : here % PIECE;
}

static bool verify_source(const source *s, verify_result *r, bp_err *e) {
    gguf g;
    void *memory;
    bool ok = header_open(&g, &memory, s, e) && bp_verify(s->bytes, (size_t)s->size, e) && check_length(&g, r, e);
    if (ok) count_pieces(&g, r);
    free(memory);
    return ok;
}

static bool verify_path(const char *path, verify_result *r, bp_err *e) {
    source s;
    bp_err inner = {0};
    if (!source_open(&s, path, e)) return false;
    bool ok = verify_source(&s, r, &inner);
    source_close(&s);
    return ok || bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
}

static void print_result(const verify_result *r) {
    printf("good%s: the header and %llu of %llu pieces match their checksums (%.1f MB%s)",
           r->unchecked ? " as far as it can be checked" : "", (unsigned long long)r->checked,
           (unsigned long long)r->pieces, (double)r->bytes / 1e6,
           r->whole ? "" : ", the beginning of a file, up to the end of a tier");
    if (r->unchecked)
        printf("; the last %llu bytes are of a piece that was cut, and nothing tells whether they are right",
               (unsigned long long)r->unchecked);
    putchar('\n');
}

int cmd_verify(int argc, char **argv) {
    bool json = false;
    const cli_option options[] = {{"json", 0, CLI_FLAG, &json, 0, 0, NULL,
                                   "one line of JSON on stdout; \"ok\" is said of all bytes but \"unchecked_bytes\" at "
                                   "the end"},
                                  {0}};
    const cli_spec spec = {.name = "verify",
                           .usage = "MODEL [options]",
                           .summary =
                               "check a bitpair file against the checksums in it (exit code 0: nothing is wrong with "
                               "what can be checked; where a file was cut after a tier, that leaves out the piece "
                               "of 1 MiB that the cut is in)",
                           .examples = "  bitpair verify model.gguf\n",
                           .options = options,
                           .n_positional = 1};
    const char *path;
    int rc = cli_parse(&spec, argc, argv, &path);
    if (rc != CLI_OK) return rc < 0 ? CLI_OK : rc;
    bp_err e = {0};
    verify_result r = {0};
    if (!verify_path(path, &r, &e)) return cli_fail(&e);
    if (json)
        printf("{\"ok\": true, \"bytes\": %llu, \"pieces\": %llu, \"checked\": %llu, \"unchecked_bytes\": %llu, "
               "\"whole\": %s}\n",
               (unsigned long long)r.bytes, (unsigned long long)r.pieces, (unsigned long long)r.checked,
               (unsigned long long)r.unchecked, r.whole ? "true" : "false");
    else
        print_result(&r);
    return CLI_OK;
}
