/* check_kernels.c - every kernel of every ISA against the scalar reference, bit for bit; the reference against sums in
 * double; golden hashes. `check_kernels --bench` prints speeds, `check_kernels --seed N` repeats a run. */
#include "check.h"
#include "golden/kernel_hashes.h"
#include "kernel_cases.h"
#include "platform.h"

#include <math.h>

static case_buffers cases, other;
static uint64_t seed = 1;

/* Re-seeded per function, so that a failure repeats alone */
static case_rng rng_for(const char *what) { return (case_rng){case_hash(CASE_HASH_SEED ^ seed, what, strlen(what))}; }

/* ---- shapes and inputs ---- */

typedef struct {
    kernel_signs w;
    size_t first, end, cols, tokens;
    bool use_b;
} shape;

enum { INPUT_NORMAL, INPUT_ZERO, INPUT_DENORMAL, INPUT_HUGE, INPUT_EQUAL, INPUT_ONE_HOT, INPUT_KINDS };

static void fill_input(case_rng *rng, float *x, size_t n, int kind) {
    case_activations(rng, x, n);
    for (size_t i = 0; i < n; i++) switch (kind) {
        case INPUT_ZERO:
            x[i] = 0.0f;
            break;
        case INPUT_DENORMAL:
            x[i] *= 1e-39f;
            break;
        case INPUT_HUGE:
            x[i] *= 1e34f;
            break;
        case INPUT_EQUAL:
            x[i] = 3.0f;
            break;
        case INPUT_ONE_HOT:
            x[i] = i % 251 == 7 ? -1.0f : -0.0f;
            break;
        default:
            break;
        }
}

static shape random_shape(case_rng *rng) {
    static const uint32_t planes[] = {1, 1, 1, 4, 6, 8, 2, 3, 5, 7};
    shape s = {{cases.bytes, NULL, 0, 0, 0}, 0, 0, 0, 0, false};
    s.w.planes = planes[case_below(rng, 10)];
    s.w.tiles = (uint32_t)(1 + case_below(rng, s.w.planes > 1 ? 24 : 97));
    s.w.groups = (uint32_t)(4 + 4 * case_below(rng, 50));
    if (case_below(rng, 2)) s.w.row_scales = cases.row_scales;
    if (case_below(rng, 3)) {
        s.first = case_below(rng, s.w.tiles);
        s.end = s.first + case_below(rng, s.w.tiles - s.first + 1);
    } else {
        s.end = s.w.tiles;
    }
    s.cols = s.w.groups * 8 - case_below(rng, 32);
    s.tokens = 1 + case_below(rng, KERNEL_LANES);
    s.use_b = case_below(rng, 2);
    return s;
}

static void fill_matrix(case_rng *rng, const shape *s) {
    const size_t n = (size_t)s->w.tiles * s->w.planes * s->w.groups * KERNEL_TILE;
    const size_t kind = case_below(rng, 6);
    case_bytes(rng, cases.bytes, n);
    if (kind < 2) memset(cases.bytes, kind ? 0xff : 0, n);
    case_activations(rng, cases.row_scales, s->w.tiles * KERNEL_TILE * kernel_blocks(s->w.groups));
}

/* ---- sign products ---- */

static void fill_outputs(void) {
    memset(cases.y, 0x55, sizeof cases.y);
    memset(other.y, 0x55, sizeof other.y);
}

#define SHAPE_FORMAT "%s %s tiles %u [%zu, %zu) groups %u planes %u tokens %zu cols %zu"
#define SHAPE_ARGUMENTS isa, ref->name, s->w.tiles, s->first, s->end, s->w.groups, s->w.planes, s->tokens, s->cols

/* Compares one ISA with the reference on one shape: prepared inputs, product, batch; bytes outside stay untouched. */
static void check_arith_shape(const kernel_arith *ref, const kernel_arith *fast, const char *isa, const shape *s,
                              const float *x) {
    const size_t size = ref->input_bytes(s->w.groups), stride = (size_t)s->w.tiles * KERNEL_TILE;
    memset(cases.inputs, 0x55, sizeof cases.inputs);
    memset(other.inputs, 0x55, sizeof other.inputs);
    CHECK(fast->input_bytes(s->w.groups) == size, SHAPE_FORMAT, SHAPE_ARGUMENTS);
    for (size_t t = 0; t < s->tokens; t++) {
        ref->prepare(cases.inputs + t * size, x + t * s->cols, s->use_b ? cases.b : NULL, s->cols, s->w.groups);
        fast->prepare(other.inputs + t * size, x + t * s->cols, s->use_b ? cases.b : NULL, s->cols, s->w.groups);
    }
    CHECK(!memcmp(cases.inputs, other.inputs, sizeof cases.inputs), "prepare " SHAPE_FORMAT, SHAPE_ARGUMENTS);

    fill_outputs();
    ref->product(cases.y, &s->w, cases.inputs, s->first, s->end);
    fast->product(other.y, &s->w, cases.inputs, s->first, s->end);
    CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "product " SHAPE_FORMAT, SHAPE_ARGUMENTS);

    fill_outputs();
    CHECK(fast->batch_scratch(&s->w) <= CASE_SCRATCH, SHAPE_FORMAT, SHAPE_ARGUMENTS);
    memset(other.scratch, 0x55, CASE_SCRATCH);
    for (size_t t = 0; t < s->tokens; t++)
        ref->product(cases.y + t * stride, &s->w, cases.inputs + t * size, s->first, s->end);
    fast->batch(other.y, stride, &s->w, cases.inputs, s->tokens, s->first, s->end, other.scratch);
    CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "batch " SHAPE_FORMAT, SHAPE_ARGUMENTS);
    const size_t used = fast->batch_scratch(&s->w);
    bool clean = true;
    for (size_t i = used; i < CASE_SCRATCH && i < used + 4096; i++) clean = clean && other.scratch[i] == 0x55;
    CHECK(clean, "scratch " SHAPE_FORMAT, SHAPE_ARGUMENTS);
}

static void check_arith(const kernel_arith *ref, const kernel_arith *fast, const char *isa) {
    case_rng rng = rng_for(ref->name);
    for (int i = 0; i < 250; i++) {
        const shape s = random_shape(&rng);
        fill_matrix(&rng, &s);
        case_activations(&rng, cases.b, s.cols);
        fill_input(&rng, cases.x, s.tokens * s.cols, i < 4 * INPUT_KINDS ? i % INPUT_KINDS : INPUT_NORMAL);
        check_arith_shape(ref, fast, isa, &s, cases.x);
    }
}

/* Infinities and NaN among the activations: any result, but no stray access (sanitizers) and the same tables. */
static void check_non_finite(const kernel_arith *ref, const kernel_arith *fast, const char *isa) {
    case_rng rng = rng_for("non-finite");
    const float odd[] = {INFINITY, -INFINITY, NAN, -NAN, 3e38f, -3e38f};
    for (int i = 0; i < 40; i++) {
        shape s = random_shape(&rng);
        const size_t size = ref->input_bytes(s.w.groups);
        fill_matrix(&rng, &s);
        case_activations(&rng, cases.x, s.cols);
        for (size_t k = 0; k < 1 + case_below(&rng, 8); k++)
            cases.x[case_below(&rng, s.cols)] = odd[case_below(&rng, 6)];
        ref->prepare(cases.inputs, cases.x, NULL, s.cols, s.w.groups);
        fast->prepare(other.inputs, cases.x, NULL, s.cols, s.w.groups);
        CHECK(!memcmp(cases.inputs, other.inputs, size), "%s %s groups %u", isa, ref->name, s.w.groups);
        fast->product(other.y, &s.w, other.inputs, s.first, s.end);
        fast->batch(other.y, 0, &s.w, other.inputs, 1, s.first, s.end, other.scratch);
    }
}

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

/* ---- float kernels ---- */

static void check_dots(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("dots");
    for (int i = 0; i < 300; i++) {
        const size_t n = 1 + case_below(&rng, CASE_COLS - 8), tokens = 1 + case_below(&rng, KERNEL_LANES),
                     shift = i & 3;
        case_activations(&rng, cases.b, n + shift);
        fill_input(&rng, cases.x, tokens * n, i % INPUT_KINDS);
        fill_outputs();
        ref->dots(cases.y, cases.b + shift, cases.x, n, n, tokens);
        fast->dots(other.y, cases.b + shift, cases.x, n, n, tokens);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s dots n %zu tokens %zu", fast->isa, n, tokens);
        double exact = 0, magnitude = 0;
        for (size_t k = 0; k < n; k++) {
            exact += (double)cases.b[shift + k] * (double)cases.x[k];
            magnitude += fabs((double)cases.b[shift + k] * (double)cases.x[k]);
        }
        CHECK(fabs(exact - (double)cases.y[0]) <= 1e-5 * magnitude + 1e-37, "dots n %zu", n);
    }
}

static void check_rows(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("rows");
    for (int i = 0; i < 300; i++) {
        const size_t n = 1 + case_below(&rng, CASE_COLS - 8), shift = i & 3;
        case_activations(&rng, cases.b, n + shift);
        fill_input(&rng, cases.x, n + shift, i % INPUT_KINDS);
        fill_outputs();
        ref->rmsnorm(cases.y, cases.x + shift, cases.b + shift, n, 1e-5f);
        fast->rmsnorm(other.y, cases.x + shift, cases.b + shift, n, 1e-5f);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s rmsnorm n %zu", fast->isa, n);
        ref->swiglu(cases.y, cases.x + shift, cases.b, n);
        fast->swiglu(other.y, cases.x + shift, cases.b, n);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s swiglu n %zu", fast->isa, n);
        memcpy(other.y, cases.b, n * sizeof(float));
        fast->swiglu(other.y, cases.x + shift, other.y, n);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s swiglu in place n %zu", fast->isa, n);
    }
}

/* Every half and its neighbourhood: exact values, ties, just above and below; then every exponent of float at random */
static void check_to_half(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("to_half");
    for (uint32_t base = 0; base < 65536; base += 256) {
        for (uint32_t i = 0; i < 1024; i++) {
            const float at = bp_half_to_float((uint16_t)(base + i / 4)),
                        up = bp_half_to_float((uint16_t)(base + i / 4 + 1));
            const float tie = 0.5f * at + 0.5f * up;
            uint32_t bits = (uint32_t)case_next(&rng);
            memcpy(&cases.x[i], &bits, sizeof bits);
            if (i % 4) cases.x[i] = i % 4 == 1 ? tie : nextafterf(tie, i % 4 == 2 ? at : up);
        }
        ref->to_half(cases.halves, cases.x, 1023);
        fast->to_half(other.halves, cases.x, 1023);
        CHECK(!memcmp(cases.halves, other.halves, 1023 * 2), "%s to_half near %x", fast->isa, base);
    }
}

static void check_attention(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("attention");
    for (int i = 0; i < 200; i++) {
        const size_t dim = 2 * (1 + case_below(&rng, 128)), stride = dim + 3 * case_below(&rng, 3);
        const size_t n_pos = 1 + case_below(&rng, (size_t)KERNEL_LANES * CASE_COLS / stride - 1);
        const size_t values = (size_t)KERNEL_LANES * CASE_COLS;
        fill_input(&rng, cases.x, values, i % 7 ? INPUT_NORMAL : INPUT_HUGE);
        ref->to_half(cases.halves, cases.x, values);
        case_activations(&rng, cases.x, values);
        ref->to_half(cases.halves + values, cases.x, values);
        case_activations(&rng, cases.b, dim);
        if (i % 7 == 0)
            for (size_t d = 0; d < dim; d++) cases.b[d] *= 1e-4f;
        fill_outputs();
        ref->attention(cases.y, cases.b, cases.halves, cases.halves + values, stride, n_pos, dim, 0.125f, cases.x);
        fast->attention(other.y, cases.b, cases.halves, cases.halves + values, stride, n_pos, dim, 0.125f, other.x);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s attention dim %zu positions %zu", fast->isa, dim, n_pos);
        CHECK(!memcmp(cases.x, other.x, n_pos * sizeof(float)), "%s scores dim %zu positions %zu", fast->isa, dim,
              n_pos);
    }
}

/* Attention against the formula in double */
static void check_attention_exact(const kernel_table *ref) {
    case_rng rng = rng_for("attention exact");
    const size_t dim = 64, n_pos = 100, values = (size_t)KERNEL_LANES * CASE_COLS;
    static double weights[100];
    case_activations(&rng, cases.b, dim);
    case_activations(&rng, cases.x, values);
    ref->to_half(cases.halves, cases.x, values);
    ref->to_half(cases.halves + values, cases.x + 5, values - 5);
    ref->attention(cases.y, cases.b, cases.halves, cases.halves + values, dim, n_pos, dim, 0.125f, other.x);
    double total = 0, top = -INFINITY;
    for (size_t p = 0; p < n_pos; p++) {
        weights[p] = 0;
        for (size_t d = 0; d < dim; d++)
            weights[p] += 0.125 * (double)cases.b[d] * (double)bp_half_to_float(cases.halves[p * dim + d]);
        top = fmax(top, weights[p]);
    }
    for (size_t p = 0; p < n_pos; p++) total += weights[p] = exp(weights[p] - top);
    for (size_t d = 0; d < dim; d++) {
        double exact = 0;
        for (size_t p = 0; p < n_pos; p++)
            exact += weights[p] / total * (double)bp_half_to_float(cases.halves[values + p * dim + d]);
        CHECK(fabs(exact - (double)cases.y[d]) < 1e-4, "attention %zu: %g is %g", d, (double)cases.y[d], exact);
    }
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
            const double microseconds = (platform_seconds() - start) / (n)*1e6;                                        \
            if (microseconds < result) result = microseconds;                                                          \
        }                                                                                                              \
    } while (0)

static void bench_others(const kernel_table *k) {
    case_rng rng = rng_for("bench");
    const size_t values = (size_t)KERNEL_LANES * CASE_COLS;
    double us;
    case_activations(&rng, cases.x, values);
    case_activations(&rng, cases.b, CASE_COLS);
    k->to_half(cases.halves, cases.x, values);
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
    BENCH_CALL(us, 500, k->to_half(cases.halves, cases.x, 192));
    printf("%-8s to_half 192            %8.3f us\n", k->isa, us);
    BENCH_CALL(us, 100, k->attention(cases.y, cases.b, cases.halves, cases.halves, 64, 400, 64, 0.125f, other.x));
    printf("%-8s attention 64 x 400     %8.3f us  %6.1f GMAC/s\n", k->isa, us, 2 * 64 * 400e-3 / us);
}

static int bench(const char *only) {
    printf("GMAC/s       class     shape       planes product; batch of   2       3       4       6       8       9    "
           "  12      16\n");
    for (const char *const *isa = kernel_isas(); *isa; isa++) {
        const kernel_table *table = kernel_table_for(*isa);
        if (only && strcmp(only, *isa)) continue;
        bench_arith(&table->lut8, *isa, strcmp(*isa, "ref") != 0);
        bench_arith(&table->popcount, *isa, false);
        bench_others(table);
    }
    return 0;
}

int main(int argc, char **argv) {
    if (argc > 1 && !strcmp(argv[1], "--bench")) return bench(argc > 2 ? argv[2] : NULL);
    if (argc > 2 && !strcmp(argv[1], "--seed")) seed = strtoull(argv[2], NULL, 10);
    printf("seed %llu\n", (unsigned long long)seed);
    const kernel_table *ref = kernel_table_for("ref");
    CHECK(ref != NULL && kernel_table_for(NULL) != NULL, "no tables");
    CHECK(kernel_table_for("nonesuch") == NULL && kernel_table_for("re") == NULL, "unknown names are NULL");
    check_reference(&ref->lut8, 4);
    check_reference(&ref->popcount, 1);
    check_attention_exact(ref);
    for (const char *const *isa = kernel_isas(); *isa; isa++) {
        const kernel_table *table = kernel_table_for(*isa);
        printf("checking %s\n", *isa);
        check_golden(table);
        if (table == ref) continue;
        check_arith(&ref->lut8, &table->lut8, *isa);
        check_arith(&ref->popcount, &table->popcount, *isa);
        check_non_finite(&ref->lut8, &table->lut8, *isa);
        check_non_finite(&ref->popcount, &table->popcount, *isa);
        check_dots(ref, table);
        check_rows(ref, table);
        check_to_half(ref, table);
        check_attention(ref, table);
    }
    return check_end();
}
