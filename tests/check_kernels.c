/* check_kernels.c - every kernel of every ISA against the scalar reference, bit for bit; the reference against sums in
 * double; golden hashes. `check_kernels --bench` prints speeds, `check_kernels --seed N` repeats a run. */
#include "check.h"
#include "golden/kernel_hashes.h"
#include "kernel_sweep.h"
#include "platform.h"

#include <math.h>

static double entry_of(const kernel_signs *w, size_t row, size_t col) {
    const size_t j = 2 * (row % 8) + (row % 16) / 8;
    int sum = 0;
    for (size_t p = 0; p < w->planes; p++) {
        const uint8_t byte = w->bytes[((row / 16 * w->planes + p) * w->groups + col / 8) * KERNEL_TILE + j];
        sum += (byte >> (col & 7) & 1 ? 1 : -1) * (1 << p);
    }
    return sum;
}

/* The reference against the naive sum in double: each rounded entry is off by at most half a step (and a little float
 * rounding), so per block the error is at most (lookups / 2) scale sum_p 2^p; the measured RMS error is KERNELS' 1 %.
 */
static void check_reference(const kernel_arith *ref, size_t columns_per_entry) {
    case_rng rng = rng_for("reference");
    double error2 = 0, norm2 = 0;
    for (int i = 0; i < 12; i++) {
        shape s = random_shape(&rng);
        if (s.w.tiles > 12) s.w.tiles = 12;
        fill_matrix(&rng, &s);
        case_activations(&rng, cases.b, s.cols);
        case_activations(&rng, cases.x, s.cols);
        ref->prepare(cases.inputs, cases.x, cases.b, s.cols, s.w.groups);
        ref->product(cases.y, &s.w, cases.inputs, 0, s.w.tiles);
        const float *scales = (const float *)(const void *)cases.inputs;
        const size_t blocks = kernel_blocks(s.w.groups);
        for (size_t row = 0; row < s.w.tiles * KERNEL_TILE; row++) {
            double exact = 0, bound = 0, magnitude = 0;
            for (size_t col = 0; col < s.cols; col++) {
                const double r = s.w.row_scales ? (double)s.w.row_scales[row * blocks + col / KERNEL_BLOCK] : 1.0;
                const double v = entry_of(&s.w, row, col) * (double)cases.x[col] * (double)cases.b[col] * r;
                exact += v;
                magnitude += fabs(v);
                bound += 0.5 / (double)columns_per_entry * (double)scales[col / KERNEL_BLOCK] * fabs(r) *
                         ((1 << s.w.planes) - 1);
            }
            const double error = fabs((double)cases.y[row] - exact);
            CHECK(error <= bound * 1.01 + magnitude * 1e-5, "%s row %zu: %g is %g, bound %g", ref->name, row,
                  (double)cases.y[row], exact, bound);
            if (!s.w.row_scales && s.w.planes == 1) error2 += error * error, norm2 += exact * exact;
        }
    }
    CHECK(error2 <= 0.05 * 0.05 * norm2, "%s: relative RMS error %g", ref->name, sqrt(error2 / norm2));
    printf("%s: relative RMS error %.2f %%\n", ref->name, 100 * sqrt(error2 / norm2));
}

/* Attention over three spans against the formula in double, on the rows as they were rounded: what is left is the
 * rounding of query and weights to int16, with 8 bits. */
static void check_attention_exact(const kernel_table *ref, const kernel_cache *cache, double tolerance) {
    enum { DIM = 64, N_POS = 300 };
    static float keys[N_POS][DIM], values[N_POS][DIM];
    static double weights[N_POS];
    case_rng rng = rng_for("attention exact");
    float *part = cases.y + kernel_part_floats(DIM), worst = 0;
    case_activations(&rng, cases.b, DIM);
    cache->prepare(cases.inputs, cases.b, DIM, 0.125f);
    double total = 0, top = -INFINITY;
    for (size_t first = 0; first < N_POS; first += KERNEL_SPAN) {
        const size_t n = bp_min(N_POS - first, KERNEL_SPAN);
        const kernel_span span = case_span(&cases);
        for (size_t p = 0; p < n; p++) {
            case_activations(&rng, keys[first + p], DIM);
            case_activations(&rng, values[first + p], DIM);
            case_store(cache, &cases, p, keys[first + p], values[first + p], DIM);
            const size_t at = p * DIM * cache->bits / 8;
            cache->restore(keys[first + p], (const uint8_t *)span.k + at, span.k_scales[p], DIM);
            cache->restore(values[first + p], (const uint8_t *)span.v + at, span.v_scales[p], DIM);
        }
        cache->attend(first ? part : cases.y, cases.inputs, 1, &span, n, DIM);
        if (first) ref->merge(cases.y, part, DIM);
    }
    for (size_t p = 0; p < N_POS; p++) {
        weights[p] = 0;
        for (size_t d = 0; d < DIM; d++) weights[p] += 0.125 * (double)cases.b[d] * (double)keys[p][d];
        top = fmax(top, weights[p]);
    }
    for (size_t p = 0; p < N_POS; p++) total += weights[p] = exp(weights[p] - top);
    for (size_t d = 0; d < DIM; d++) {
        double exact = 0;
        for (size_t p = 0; p < N_POS; p++) exact += weights[p] / total * (double)values[p][d];
        worst = fmaxf(worst, fabsf((float)exact - cases.y[d] / cases.y[DIM + KERNEL_PART_SUM]));
    }
    CHECK((double)worst < tolerance, "attention with %u bits is off by %g", (unsigned)cache->bits, (double)worst);
    printf("attention with %u bits: worst error %.1e\n", (unsigned)cache->bits, (double)worst);
}

/* ---- golden hashes ---- */

static void check_golden(const kernel_table *table) {
    const struct {
        const char *name;
        uint64_t expected, actual;
    } hashes[] = {
        {"GOLDEN_LUT8", GOLDEN_LUT8, golden_arith(&table->lut8, &cases)},
        {"GOLDEN_POPCOUNT", GOLDEN_POPCOUNT, golden_arith(&table->popcount, &cases)},
        {"GOLDEN_FLOAT", GOLDEN_FLOAT, golden_float(table, &cases)},
        {"GOLDEN_CACHE16", GOLDEN_CACHE16, golden_cache(table, &table->cache16, &cases)},
        {"GOLDEN_CACHE8", GOLDEN_CACHE8, golden_cache(table, &table->cache8, &cases)},
        {"GOLDEN_MATHF", GOLDEN_MATHF, golden_mathf()},
        {"GOLDEN_QUANT", GOLDEN_QUANT, golden_quant(&cases)},
    };
    for (size_t i = 0; i < sizeof hashes / sizeof hashes[0]; i++)
        CHECK(hashes[i].expected == hashes[i].actual, "%s: %s is 0x%016llx", table->isa, hashes[i].name,
              (unsigned long long)hashes[i].actual);
}

/* ---- bench ---- */

typedef struct {
    const char *name;
    uint32_t rows, cols, planes;
} bench_shape;

static const bench_shape BENCH_SHAPES[] = {{"288x576", 288, 576, 1},         {"576x288", 576, 288, 1},
                                           {"576x576", 576, 576, 1},         {"1536x576", 1536, 576, 1},
                                           {"576x1536", 576, 1536, 1},       {"head 49152x576", 49152, 576, 4},
                                           {"head 49152x576", 49152, 576, 6}};

/* GMAC/s of the best of several runs; a MAC is one plane's sign times one activation. Tables are built outside. */
static double bench_one(const kernel_arith *a, const kernel_signs *w, size_t tokens, bool batch, float *y,
                        uint8_t *inputs, void *scratch) {
    const size_t rows = (size_t)w->tiles * KERNEL_TILE, size = a->input_bytes(w->groups);
    const double macs = (double)rows * w->groups * 8.0 * w->planes * (double)tokens;
    double best = 1e9;
    const int repeats = (int)(1 + 5e6 / macs);
    for (int round = 0; round < 15; round++) {
        const double start = platform_seconds();
        for (int i = 0; i < repeats; i++) {
            if (batch)
                a->batch(y, rows, w, inputs, tokens, 0, w->tiles, scratch);
            else
                for (size_t t = 0; t < tokens; t++) a->product(y + t * rows, w, inputs + t * size, 0, w->tiles);
        }
        const double seconds = (platform_seconds() - start) / repeats;
        if (seconds < best) best = seconds;
    }
    return macs / best * 1e-9;
}

static void bench_arith(const kernel_arith *a, const char *isa, bool batches) {
    for (size_t i = 0; i < sizeof BENCH_SHAPES / sizeof BENCH_SHAPES[0]; i++) {
        const bench_shape *s = &BENCH_SHAPES[i];
        const size_t groups = s->cols / 8, bytes = (size_t)s->rows * s->planes * groups, size = a->input_bytes(groups);
        kernel_signs w = {platform_alloc(bytes), NULL, s->rows / KERNEL_TILE, (uint32_t)groups, s->planes};
        float *scales = platform_alloc(s->rows * kernel_blocks(groups) * sizeof *scales);
        float *y = platform_alloc((size_t)s->rows * KERNEL_LANES * sizeof *y), *x = platform_alloc(s->cols * sizeof *x);
        uint8_t *inputs = platform_alloc(size * KERNEL_LANES), *signs = (uint8_t *)(uintptr_t)w.bytes;
        case_rng rng = rng_for("bench");
        if (s->planes > 1) w.row_scales = scales;
        void *scratch = platform_alloc(a->batch_scratch(&w));
        case_bytes(&rng, signs, bytes);
        case_activations(&rng, scales, s->rows * kernel_blocks(groups));
        for (size_t t = 0; t < KERNEL_LANES; t++) {
            case_activations(&rng, x, s->cols);
            a->prepare(inputs + t * size, x, NULL, s->cols, groups);
        }
        printf("%-8s %-9s %-15s %u  %8.1f", isa, a->name, s->name, s->planes,
               bench_one(a, &w, 1, false, y, inputs, scratch));
        const size_t tokens[] = {2, 3, 4, 6, 8, 9, 12, 16};
        for (size_t k = 0; batches && k < sizeof tokens / sizeof tokens[0]; k++)
            printf(" %7.1f", bench_one(a, &w, tokens[k], true, y, inputs, scratch));
        printf("\n");
        platform_free(signs);
        platform_free(scales);
        platform_free(y);
        platform_free(x);
        platform_free(inputs);
        platform_free(scratch);
    }
}

/* Best time of n calls in microseconds */
#define BENCH_CALL(result, n, call)                                                                                    \
    do {                                                                                                               \
        result = 1e9;                                                                                                  \
        for (int round = 0; round < 9; round++) {                                                                      \
            const double start = platform_seconds();                                                                   \
            for (int i = 0; i < (n); i++) call;                                                                        \
            const double microseconds = (platform_seconds() - start) / (n) * 1e6;                                      \
            if (microseconds < result) result = microseconds;                                                          \
        }                                                                                                              \
    } while (0)

/* A walk over a cache that no core holds, as in decoding at depth: three queries and a head of 64, the same span again and
 * again, each time from another place. */
static void bench_cache_from_memory(const kernel_table *k, const kernel_cache *cache, const kernel_span *span) {
    const int spans = 1024;
    const size_t bytes = (size_t)KERNEL_SPAN * 64 * cache->bits / 8;
    uint8_t *keys = platform_alloc((size_t)spans * bytes), *values = platform_alloc((size_t)spans * bytes);
    double us;
    CHECK(keys && values, "no memory for the benchmark");
    if (keys && values) {
        for (size_t s = 0; s < (size_t)spans; s++) {
            memcpy(keys + s * bytes, span->k, bytes);
            memcpy(values + s * bytes, span->v, bytes);
        }
        kernel_span at = *span;
        BENCH_CALL(us, spans, {
            at.k = keys + (size_t)i * bytes;
            at.v = values + (size_t)i * bytes;
            at.next = keys + (size_t)((i + 1) % spans) * bytes;
            cache->attend(cases.y, cases.inputs, 3, &at, KERNEL_SPAN, 64);
        });
        printf("%-8s kv%-2u attention 64 x %d, 3 queries %7.3f us, the cache in memory\n", k->isa,
               (unsigned)cache->bits, KERNEL_SPAN, us);
    }
    platform_free(keys);
    platform_free(values);
}

/* A head of 64 over a whole span, by the number of queries that share its keys and values. Scores lie within 10 or so,
 * as in models: where they spread by 80, weights times values underflow, which takes processors ten times as long. */
static void bench_cache(const kernel_table *k, const kernel_cache *cache) {
    const kernel_span span = case_span(&cases);
    double us;
    for (size_t p = 0; p < KERNEL_SPAN; p++) case_store(cache, &cases, p, cases.x + p * 64, cases.b + p, 64);
    for (size_t i = 0; i < CASE_QUERIES; i++)
        cache->prepare(cases.inputs + i * kernel_query_bytes(64), cases.b + i, 64, 0.002f);
    BENCH_CALL(us, 500, cache->store(cases.scratch, cases.row_scales, cases.x, 64));
    printf("%-8s kv%-2u store 64         %8.3f us\n", k->isa, (unsigned)cache->bits, us);
    for (size_t n = 1; n <= 4; n++) {
        BENCH_CALL(us, 100, cache->attend(cases.y, cases.inputs, n, &span, KERNEL_SPAN, 64));
        printf("%-8s kv%-2u attention 64 x %d, %zu queries %7.3f us  %6.1f GMAC/s\n", k->isa, (unsigned)cache->bits,
               KERNEL_SPAN, n, us, 2 * 64e-3 * (double)(KERNEL_SPAN * n) / us);
    }
    bench_cache_from_memory(k, cache, &span);
}

static void bench_others(const kernel_table *k) {
    case_rng rng = rng_for("bench");
    const size_t values = (size_t)KERNEL_LANES * CASE_COLS;
    double us;
    case_activations(&rng, cases.x, values);
    case_activations(&rng, cases.b, CASE_COLS);
    BENCH_CALL(us, 500, k->lut8.prepare(cases.inputs, cases.x, cases.b, 576, 72));
    printf("%-8s lut8 prepare 576       %8.3f us\n", k->isa, us);
    BENCH_CALL(us, 500, k->popcount.prepare(cases.inputs, cases.x, cases.b, 576, 72));
    printf("%-8s popcount prepare 576   %8.3f us\n", k->isa, us);
    BENCH_CALL(us, 500, k->dots(cases.y, cases.b, cases.x, 576, 576, 1));
    printf("%-8s dots 576 x 1           %8.3f us  %6.1f GMAC/s\n", k->isa, us, 576e-3 / us);
    BENCH_CALL(us, 500, k->dots(cases.y, cases.b, cases.x, 576, 576, 16));
    printf("%-8s dots 576 x 16          %8.3f us  %6.1f GMAC/s\n", k->isa, us, 576e-3 * 16 / us);
    BENCH_CALL(us, 500, k->rmsnorm(cases.y, cases.x, cases.b, 576, 1e-5f));
    printf("%-8s rmsnorm 576            %8.3f us\n", k->isa, us);
    BENCH_CALL(us, 500, k->swiglu(cases.y, cases.x, cases.b, 1536));
    printf("%-8s swiglu 1536            %8.3f us\n", k->isa, us);
    bench_cache(k, &k->cache16);
    bench_cache(k, &k->cache8);
}

/* only: the name of one ISA; part: "others" leaves the products out */
static int bench(const char *only, const char *part) {
    const bool products = !part || strcmp(part, "others") != 0;
    printf("GMAC/s       class     shape       planes product; batch of   2       3       4       6       8       9    "
           "  12      16\n");
    for (const char *const *isa = kernel_isas(); *isa; isa++) {
        const kernel_table *table = kernel_table_for(*isa);
        if (only && strcmp(only, *isa)) continue;
        if (products) bench_arith(&table->lut8, *isa, strcmp(*isa, "ref") != 0);
        if (products) bench_arith(&table->popcount, *isa, false);
        bench_others(table);
    }
    return 0;
}

/* It stays within its memory, on every table. */
static void check_warm(const kernel_table *table) {
    const size_t bytes = kernel_warm_bytes(table);
    uint8_t *memory = aligned_alloc(BP_ALIGN, bytes + BP_ALIGN);
    memset(memory, 0, bytes);
    memset(memory + bytes, 0xa5, BP_ALIGN);
    kernel_warm(table, memory);
    bool whole = true;
    for (size_t i = 0; i < BP_ALIGN; i++) whole &= memory[bytes + i] == 0xa5;
    CHECK(bytes % BP_ALIGN == 0 && whole, "%s: warming wrote past its memory", table->isa);
    free(memory);
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench(argc > 2 ? argv[2] : NULL, argc > 3 ? argv[3] : NULL);
    if (argc > 2 && !strcmp(argv[1], "--seed")) seed = strtoull(argv[2], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    const kernel_table *ref = kernel_table_for("ref");
    CHECK(ref != NULL && kernel_table_for(NULL) != NULL, "no tables");
    CHECK(kernel_table_for("nonesuch") == NULL && kernel_table_for("re") == NULL, "unknown names are NULL");
    check_reference(&ref->lut8, 4);
    check_reference(&ref->popcount, 1);
    check_attention_exact(ref, &ref->cache16, 1e-4);
    check_attention_exact(ref, &ref->cache8, 3e-3);
    for (const char *const *isa = kernel_isas(); *isa; isa++) {
        const kernel_table *table = kernel_table_for(*isa);
        printf("checking %s\n", *isa);
        check_golden(table);
        check_warm(table);
        if (table == ref) continue;
        kernel_sweep(ref, table);
    }
    return check_end();
}
