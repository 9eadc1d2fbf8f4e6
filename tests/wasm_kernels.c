/* wasm_kernels.c - the kernel tests as a WebAssembly module without a C library, for web/kernels.test.js: the golden
 * computations of kernel_cases.h, the sweep of kernel_sweep.h, and a benchmark of the same kernels. */
#include "base.h"

static uint32_t check_passed, check_failed;

/* Counts; the text would need a C library, and a failing shape can be repeated natively. */
#define CHECK(condition, ...) ((condition) ? check_passed++ : check_failed++)

#include "kernel_sweep.h"
#include "platform.h"

#define EXPORT(name) __attribute__((export_name(name), visibility("default")))

static const kernel_table *table_at(int isa) {
    for (int i = 0; kernel_isas()[i]; i++)
        if (i == isa) return kernel_table_for(kernel_isas()[i]);
    return NULL;
}

/* Hash of family 0..6 (lut8, popcount, float, mathf, quant, cache16, cache8) computed by table `isa` (0 = ref, 1 =
 * simd128) */
EXPORT("golden") uint64_t golden(int family, int isa) {
    const kernel_table *table = table_at(isa);
    if (!table) return 0;
    switch (family) {
    case 0:
        return golden_arith(&table->lut8, &cases);
    case 1:
        return golden_arith(&table->popcount, &cases);
    case 2:
        return golden_float(table, &cases);
    case 3:
        return golden_mathf();
    case 4:
        return golden_quant(&cases);
    case 5:
        return golden_cache(table, &table->cache16, &cases);
    default:
        return golden_cache(table, &table->cache8, &cases);
    }
}

/* Seconds of the fastest of `rounds` runs of one product (tokens = 0) or batch with tables ready; what: 0 lut8, 1
 * popcount */
EXPORT("bench_product")
double bench_product(int what, int isa, uint32_t rows, uint32_t cols, uint32_t planes, uint32_t tokens, int rounds) {
    const kernel_table *table = table_at(isa);
    const kernel_arith *a = what ? &table->popcount : &table->lut8;
    const size_t groups = cols / 8, bytes = (size_t)rows * planes * groups, size = a->input_bytes(groups);
    uint8_t *signs = platform_alloc(bytes), *inputs = platform_alloc(size * KERNEL_LANES);
    float *scales = platform_alloc(rows * kernel_blocks(groups) * sizeof *scales);
    float *y = platform_alloc((size_t)rows * KERNEL_LANES * sizeof *y);
    kernel_signs w = {signs, planes > 1 ? scales : NULL, rows / KERNEL_TILE, (uint32_t)groups, planes};
    void *scratch = platform_alloc(a->batch_scratch(&w));
    case_rng rng = {1};
    case_bytes(&rng, signs, bytes);
    case_activations(&rng, scales, rows * kernel_blocks(groups));
    case_activations(&rng, cases.x, cols);
    for (size_t t = 0; t < KERNEL_LANES; t++) a->prepare(inputs + t * size, cases.x, NULL, cols, groups);
    double best = 1e9;
    for (int i = 0; i < rounds; i++) {
        const double start = platform_seconds();
        if (tokens)
            a->batch(y, rows, &w, inputs, tokens, 0, w.tiles, scratch);
        else
            a->product(y, &w, inputs, 0, w.tiles);
        const double seconds = platform_seconds() - start;
        if (seconds < best) best = seconds;
    }
    platform_free(signs);
    platform_free(inputs);
    platform_free(scales);
    platform_free(y);
    platform_free(scratch);
    return best;
}

static void prepare_cache(const kernel_cache *cache) {
    for (size_t p = 0; p < KERNEL_SPAN; p++) case_store(cache, &cases, p, cases.x + p * 64, cases.b + p, 64);
    for (size_t i = 0; i < CASE_QUERIES; i++)
        cache->prepare(cases.inputs + i * kernel_query_bytes(64), cases.b + i, 64, 0.125f);
}

/* Seconds per call of another kernel, `rounds` calls: 0 lut8 prepare 576, 1 dots 576 x 16, 2 swiglu 1536, 3 rmsnorm
 * 576, 4 and 5 attention of 3 queries over a span of heads of 64, in 16 and 8 bits, 6 popcount prepare 576 */
EXPORT("bench_other") double bench_other(int what, int isa, int rounds) {
    const kernel_table *k = table_at(isa);
    case_rng rng = {1};
    case_activations(&rng, cases.x, 16 * 576);
    case_activations(&rng, cases.b, CASE_COLS);
    const kernel_cache *cache = what == 4 ? &k->cache16 : &k->cache8;
    const kernel_span span = case_span(&cases);
    prepare_cache(cache);
    const double start = platform_seconds();
    for (int i = 0; i < rounds; i++) switch (what) {
        case 0:
            k->lut8.prepare(cases.inputs, cases.x, cases.b, 576, 72);
            break;
        case 1:
            k->dots(cases.y, cases.b, cases.x, 576, 576, 16);
            break;
        case 2:
            k->swiglu(cases.y, cases.x, cases.b, 1536);
            break;
        case 3:
            k->rmsnorm(cases.y, cases.x, cases.b, 576, 1e-5f);
            break;
        case 4:
        case 5:
            cache->attend(cases.y, cases.inputs, 3, &span, KERNEL_SPAN, 64);
            break;
        default:
            k->popcount.prepare(cases.inputs, cases.x, cases.b, 576, 72);
            break;
        }
    return (platform_seconds() - start) / rounds;
}

/* Runs the sweep of table `isa` against ref; failed checks in the upper half, passed ones in the lower. */
EXPORT("sweep") uint64_t sweep(int isa) {
    check_passed = check_failed = 0;
    kernel_sweep(table_at(0), table_at(isa));
    return (uint64_t)check_failed << 32 | check_passed;
}
