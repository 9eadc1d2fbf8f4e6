/* Any bytes as a GGUF file: the probe, the reader and everything a parsed header claims; header, checksums and preview
 * of the engine. The mutator puts extreme numbers where the format has numbers, and keeps magic and version. */
#include "fuzz.h"

#include "engine.h"
#include "gguf.h"

enum {
    PREVIEW_MOST = 1 << 24
}; /* bytes that a claimed file may have to be previewed: a preview takes memory for its scales */

static uint64_t walk_keys(const gguf *g) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->n_keys; i++) {
        const gguf_key *k = &g->keys[i];
        const uint8_t *cursor = k->data;
        LAW((const uint8_t *)k->name.text >= g->bytes &&
            (const uint8_t *)k->name.text + k->name.size <= g->bytes + g->data_offset);
        for (uint64_t j = 0; j < k->count; j++) {
            if (k->item == GGUF_STRING) {
                gguf_text t = gguf_item_string(&cursor);
                for (size_t c = 0; c < t.size; c++) sum += (uint8_t)t.text[c];
            } else {
                sum += gguf_item_u64(k, j);
                sum += gguf_item_f64(k, j) > 0;
            }
        }
    }
    return sum;
}

static uint64_t walk_tensors(const gguf *g) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < g->n_tensors; i++) {
        const gguf_tensor *t = &g->tensors[i];
        LAW(t->offset >= g->data_offset && t->bytes > 0 && t->offset + t->bytes <= g->full_size);
        const uint8_t *data = gguf_data(g, t);
        if (data) sum += data[0] + data[t->bytes - 1];
    }
    return sum;
}

/* Reader and probe say the same. */
static void check_reader(const uint8_t *bytes, size_t size) {
    gguf g;
    bp_err e = {0}, probe_error = {0};
    uint64_t full = 0, data_offset = 0;
    void *memory = NULL;
    arena a = arena_measure();
    gguf_status status = gguf_probe(bytes, size, &full, &data_offset, &probe_error);
    bool good = gguf_open(&g, &a, bytes, size, &e);
    LAW(good == (status == GGUF_READY));
    if (status == GGUF_BAD) fuzz_check_error(&probe_error);
    if (good) {
        LAW(g.full_size == full && g.data_offset == data_offset && full >= data_offset);
        if (posix_memalign(&memory, 64, a.used)) abort();
        a = arena_over(memory, a.used);
        good = gguf_open(&g, &a, bytes, size, &e);
    }
    volatile uint64_t sum = 0;
    if (good) sum = walk_keys(&g) + walk_tensors(&g);
    (void)sum;
    if (!good) fuzz_check_error(&e);
    free(memory);
}

static void check_header(bp_engine *engine, const uint8_t *bytes, size_t size) {
    bp_header h;
    bp_err e = {0};
    if (!bp_header_read(bytes, size, &h, &e)) {
        fuzz_check_error(&e);
        return;
    }
    LAW(h.data_offset <= size && h.n_tiers <= BP_TIERS);
    if (!bp_verify(bytes, size, &e)) fuzz_check_error(&e);
    if (h.file_size > PREVIEW_MOST) return;
    bp_model *m = bp_model_preview(engine, bytes, (size_t)h.data_offset, (size_t)h.file_size, &e);
    if (!m) fuzz_check_error(&e);
    bp_session_options o = {.n_ctx = 1};
    if (m) bp_session_bytes(m, &o);
    bp_model_close(m);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    static bp_engine *engine;
    if (!engine) engine = bp_engine_open(NULL, NULL);
    uint8_t *bytes = fuzz_copy(data, size);
    check_reader(bytes, size);
    check_header(engine, bytes, size);
    free(bytes);
    return 0;
}

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed);

size_t LLVMFuzzerCustomMutator(uint8_t *data, size_t size, size_t most, unsigned seed) {
    static const uint64_t numbers[] = {0,          1,          2,          7,          8,
                                       31,         32,         255,        256,        65535,
                                       65536,      1u << 20,   1u << 28,   1u << 31,   UINT32_MAX,
                                       1ull << 32, 1ull << 62, 1ull << 63, UINT64_MAX, UINT64_MAX - 7,
                                       INT64_MAX};
    srand(seed);
    uint32_t how = (uint32_t)rand() % 4;
    if (size > 32 && how == 0) { /* a number of the format, at any place */
        uint64_t v = numbers[(uint32_t)rand() % (sizeof numbers / sizeof *numbers)];
        size_t at = 8 + (uint32_t)rand() % (size - 16), n = rand() & 1 ? 8 : 4;
        memcpy(data + at, &v, n);
    } else if (size > 64 && how == 1) { /* a piece of the file once more, in another place */
        size_t from = 24 + (uint32_t)rand() % (size - 24), to = 24 + (uint32_t)rand() % (size - 24);
        size_t n = (uint32_t)rand() % 64;
        n = n < size - from ? n : size - from;
        n = n < size - to ? n : size - to;
        memmove(data + to, data + from, n);
    } else {
        size = LLVMFuzzerMutate(data, size, most);
    }
    static const uint8_t start[8] = {'G', 'G', 'U', 'F', 3, 0, 0, 0};
    if (size >= 8 && rand() % 64) memcpy(data, start, 8);
    return size;
}
