#include "load.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

machine_options machine_defaults(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return (machine_options){.threads = n < 1 ? 1 : n > 64 ? 64 : (uint64_t)n};
}

static bool is_one_of(const char *name, const char *const *names) {
    while (name && *names && strcmp(*names, name) != 0) names++;
    return !name || *names;
}

int machine_check(const machine_options *o, const char *command) {
    static const char *const ISAS[] = {"ref", "avx2", "avx512", "neon", NULL}, *const ARITHS[] = {"lut8", "popcount",
                                                                                                  NULL};
    char wrong[160] = "";
    if (!is_one_of(o->isa, ISAS))
        bp_format(wrong, sizeof wrong, "--isa is ref, avx2, avx512 or neon, not '%s'", o->isa);
    else if (!is_one_of(o->arith, ARITHS))
        bp_format(wrong, sizeof wrong, "--arith is lut8 or popcount, not '%s'", o->arith);
    else if (o->kv_bits != 0 && o->kv_bits != 8 && o->kv_bits != 16)
        bp_format(wrong, sizeof wrong, "--kv is 8 or 16 bits, not %u", (unsigned)o->kv_bits);
    return wrong[0] ? cli_wrong(command, wrong) : CLI_OK;
}

bp_engine *machine_engine(const machine_options *o, bp_err *e) {
    bp_engine_options options = {(uint32_t)o->threads, o->isa, o->arith};
    return bp_engine_open(&options, e);
}

/* *size <- where the first `tier` tiers end */
static bool end_of_tier(uint64_t *size, const source *s, uint64_t tier, bp_err *e) {
    bp_header header;
    if (!bp_header_parse(s->bytes, s->size, &header, e)) return false;
    if (!header.n_tiers) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the model is dense and has no tiers");
    if (tier > header.n_tiers)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the file has %u tiers, not %u", (unsigned)header.n_tiers,
                       (unsigned)tier);
    *size = header.tier_end[tier - 1];
    return *size <= s->size ||
           bp_fail(e, BP_ERR_ARGUMENT, 0, "tier %u is not in the file: it ends before", (unsigned)tier);
}

bool loaded_open(loaded *l, bp_engine *engine, const char *path, uint64_t tier, bp_err *e) {
    bp_err inner = {0};
    *l = (loaded){0};
    if (!source_open(&l->source, path, e)) return false;
    l->size = l->source.size;
    if (!tier || end_of_tier(&l->size, &l->source, tier, &inner))
        l->model = bp_model_open(engine, l->source.bytes, l->size, &inner);
    if (l->model) return true;
    loaded_close(l);
    return bp_fail(e, inner.code, inner.offset, "%s: %s", path, inner.text);
}

void loaded_close(loaded *l) {
    bp_model_close(l->model);
    source_close(&l->source);
    l->model = NULL;
}

bool header_open(gguf *g, void **memory, const source *s, bp_err *e) {
    arena a = arena_measure();
    *memory = NULL;
    if (!gguf_open(g, &a, s->bytes, s->size, e)) return false;
    size_t size = bp_round_up(bp_max(a.used, 1), BP_ALIGN);
    *memory = aligned_alloc(BP_ALIGN, size);
    if (!*memory) return bp_fail(e, BP_ERR_MEMORY, 0, "out of memory for the tensor table");
    a = arena_over(*memory, size);
    return gguf_open(g, &a, s->bytes, s->size, e);
}

double clock_seconds(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}
