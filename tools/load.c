#include "load.h"

#include <sched.h>
#include <stdlib.h>
#include <time.h>

machine_options machine_defaults(void) {
    cpu_set_t set;
    int n = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    return (machine_options){.threads = n < 1 ? 1 : n > 64 ? 64 : (uint64_t)n};
}

bp_engine *machine_engine(const machine_options *o, bp_err *e) {
    bp_engine_options options = {(uint32_t)o->threads, o->isa, o->arith};
    return bp_engine_open(&options, e);
}

bool loaded_open(loaded *l, bp_engine *engine, const char *path, bp_err *e) {
    bp_err inner = {0};
    *l = (loaded){0};
    if (!source_open(&l->source, path, e)) return false;
    l->model = bp_model_open(engine, l->source.bytes, l->source.size, &inner);
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
