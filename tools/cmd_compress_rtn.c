#include "cmd_compress_rtn.h"

#include <stdio.h>

#include "cli.h"
#include "compress/rtn.h"
#include "offline.h"

bool compress_rtn_knows(const char *method) {
    return strcmp(method, "rtn") == 0 || strcmp(method, "q8_0") == 0 || strcmp(method, "q4_0") == 0;
}

static bool show_bytes(void *context, uint64_t done, uint64_t total) {
    cli_progress_update(context, (double)done, (double)total, NULL);
    return !cli_interrupted();
}

static void print_summary(const compress_options *o, const rtn_summary *s) {
    unsigned long long bytes = s->bytes, packed = s->packed_bytes;
    if (o->json)
        printf("{\"bytes\": %llu, \"packed_bytes\": %llu, \"bits_per_weight\": %.6g}\n", bytes, packed, s->packed_bits);
    else
        printf("%s  %llu bytes, %llu if packed, %.3f bits per weight\n", o->out_path, bytes, packed, s->packed_bits);
}

static int write_rounded(const compress_options *o, rtn_options *r) {
    offline_model in = {0};
    rtn_summary summary;
    cli_progress progress;
    bp_err e = {0};
    cli_progress_begin(&progress, "compress", o->quiet);
    r->context = &progress;
    bool ok = offline_open(&in, o->model_path, &e) && (r->workers = workers_open((uint32_t)o->threads, &e));
    r->source = in.description;
    ok = ok && rtn_write(r, in.model, &summary, &e);
    cli_progress_end(&progress);
    workers_close(r->workers);
    offline_close(&in);
    r->context = NULL;
    r->source = NULL;
    if (!ok) return e.code == BP_OK ? CLI_INTERRUPTED : cli_fail(&e);
    print_summary(o, &summary);
    return CLI_OK;
}

const char *const *compress_rtn_options(const char *method) {
    static const char *const GROUPS[] = {"output", "method", "threads",        "force", "json",
                                         "quiet",  "bits",   "embedding-bits", NULL},
                             *const GGML[] = {"output", "method", "threads", "force", "json", "quiet", NULL};
    return method[0] == 'r' ? GROUPS : GGML;
}

int compress_rtn(const compress_options *o, const char *method, double bits, const char *refused) {
    rtn_options r = {.method = method[0] == 'r'   ? RTN_GROUPS
                               : method[1] == '8' ? RTN_Q8_0
                                                  : RTN_Q4_0,
                     .embedding_bits = (uint32_t)o->embedding_bits,
                     .out_path = o->out_path,
                     .force = o->force,
                     .progress = show_bytes};
    const char *wrong = NULL;
    if (!o->out_path) wrong = "-o OUT.gguf is missing";
    if (r.method == RTN_GROUPS && bits != 2 && bits != 3 && bits != 4) wrong = "--method rtn takes --bits 2, 3 or 4";
    if (o->embedding_bits != 0 && o->embedding_bits < 4)
        wrong = "--embedding-bits is 4 to 8, or 0 to keep the source's";
    char text[80];
    if (refused) snprintf(text, sizeof text, "--method %s takes no --%s", method, refused);
    if (refused || wrong) return cli_wrong("compress", refused ? text : wrong);
    r.bits = (uint32_t)bits;
    cli_catch_interrupt();
    return write_rounded(o, &r);
}
