/* kernel_sweep.h - one table of kernels against the scalar reference, bit for bit: shapes swept around every tile
 * size, bytes outside untouched, worst-case inputs. Included by check_kernels.c (native) and wasm_kernels.c
 * (WebAssembly, without a C library), each with a CHECK of its own. */
#ifndef BP_KERNEL_SWEEP_H
#define BP_KERNEL_SWEEP_H

#if !defined(CHECK)
#include "check.h"
#endif
#include "kernel_cases.h"

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
    const float odd[] = {__builtin_inff(), -__builtin_inff(), __builtin_nanf(""), -__builtin_nanf(""), 3e38f, -3e38f};
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

/* ---- float kernels ---- */

static void check_dots(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("dots");
    for (int i = 0; i < 300; i++) {
        const size_t n = 1 + case_below(&rng, CASE_COLS - 8), rows = 1 + case_below(&rng, KERNEL_LANES), shift = i & 3;
        case_activations(&rng, cases.b, n + shift);
        fill_input(&rng, cases.x, rows * n, i % INPUT_KINDS);
        fill_outputs();
        ref->dots(cases.y, cases.b + shift, cases.x, n, n, rows);
        fast->dots(other.y, cases.b + shift, cases.x, n, n, rows);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s dots n %zu rows %zu", fast->isa, n, rows);
        double exact = 0, magnitude = 0;
        for (size_t k = 0; k < n; k++) {
            exact += (double)cases.b[shift + k] * (double)cases.x[k];
            magnitude += __builtin_fabs((double)cases.b[shift + k] * (double)cases.x[k]);
        }
        CHECK(__builtin_fabs(exact - (double)cases.y[0]) <= 1e-5 * magnitude + 1e-37, "dots n %zu", n);
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

/* The next float from x > 0 towards `to`. */
static float step_towards(float x, float to) {
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    bits += to > x ? 1 : to < x ? UINT32_MAX : 0;
    memcpy(&x, &bits, sizeof bits);
    return x;
}

/* Every half and its neighbourhood: exact values, ties, just above and below; then every exponent of float at random */
static void check_halves(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("halves");
    for (uint32_t base = 0; base < 65536; base += 256) {
        for (uint32_t i = 0; i < 1024; i++) {
            const float at = bp_half_to_float((uint16_t)(base + i / 4)),
                        up = bp_half_to_float((uint16_t)(base + i / 4 + 1));
            const float tie = 0.5f * at + 0.5f * up;
            uint32_t bits = (uint32_t)case_next(&rng);
            memcpy(&cases.x[i], &bits, sizeof bits);
            if (i % 4) cases.x[i] = i % 4 == 1 ? tie : step_towards(tie, i % 4 == 2 ? at : up);
        }
        ref->cache16.store(cases.bytes, NULL, cases.x, 1024);
        fast->cache16.store(other.bytes, NULL, cases.x, 1024);
        CHECK(!memcmp(cases.bytes, other.bytes, 1024 * 2), "%s halves near %x", fast->isa, base);
    }
}

/* Rows, scales and queries of one case by both tables; the same bytes. Memory past the last position is arbitrary. */
static void check_cache_rows(const kernel_cache *ref, const kernel_cache *fast, const char *isa, case_rng *rng,
                             size_t dim, size_t n_pos, size_t n, int kind) {
    const size_t size = kernel_query_bytes(dim);
    memset(cases.bytes, 0xff, 4 * KERNEL_SPAN * KERNEL_HEAD);
    memset(other.bytes, 0xff, 4 * KERNEL_SPAN * KERNEL_HEAD);
    for (size_t i = 0; i < 2 * KERNEL_SPAN; i++) cases.row_scales[i] = other.row_scales[i] = 3.0f;
    memset(cases.inputs, 0x55, sizeof cases.inputs);
    memset(other.inputs, 0x55, sizeof other.inputs);
    for (size_t p = 0; p < n_pos; p++) {
        fill_input(rng, cases.x, 2 * dim, kind == INPUT_NORMAL || p % 5 == 0 ? kind : INPUT_NORMAL);
        case_store(ref, &cases, p, cases.x, cases.x + dim, dim);
        case_store(fast, &other, p, cases.x, cases.x + dim, dim);
    }
    for (size_t i = 0; i < n; i++) {
        fill_input(rng, cases.b, dim, kind == INPUT_HUGE && ref->bits == 16 ? INPUT_DENORMAL : kind);
        ref->prepare(cases.inputs + i * size, cases.b, dim, 0.125f);
        fast->prepare(other.inputs + i * size, cases.b, dim, 0.125f);
    }
    CHECK(!memcmp(cases.bytes, other.bytes, 4 * KERNEL_SPAN * KERNEL_HEAD), "%s rows dim %zu", isa, dim);
    CHECK(!memcmp(cases.row_scales, other.row_scales, 2 * KERNEL_SPAN * sizeof(float)), "%s scales dim %zu", isa, dim);
    CHECK(!memcmp(cases.inputs, other.inputs, n * size), "%s queries dim %zu", isa, dim);
    ref->restore(cases.x, cases.bytes, cases.row_scales[0], dim);
    fast->restore(other.x, other.bytes, other.row_scales[0], dim);
    CHECK(!memcmp(cases.x, other.x, dim * sizeof(float)), "%s restored dim %zu", isa, dim);
}

static void check_cache(const kernel_table *ref, const kernel_table *fast, bool eight) {
    case_rng rng = rng_for(eight ? "cache 8" : "cache 16");
    const kernel_cache *a = eight ? &ref->cache8 : &ref->cache16, *b = eight ? &fast->cache8 : &fast->cache16;
    for (int i = 0; i < 250; i++) {
        const size_t dim = 16 * (1 + case_below(&rng, KERNEL_HEAD / 16)), n_pos = 1 + case_below(&rng, KERNEL_SPAN);
        const size_t n = 1 + case_below(&rng, CASE_QUERIES), part = kernel_part_floats(dim);
        const kernel_span of_a = case_span(&cases), of_b = case_span(&other);
        check_cache_rows(a, b, fast->isa, &rng, dim, n_pos, n, i % 3 ? INPUT_NORMAL : i / 3 % INPUT_KINDS);
        fill_outputs();
        a->attend(cases.y, cases.inputs, n, &of_a, n_pos, dim);
        b->attend(other.y, other.inputs, n, &of_b, n_pos, dim);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s attention %u dim %zu positions %zu queries %zu", fast->isa,
              (unsigned)a->bits, dim, n_pos, n);
        for (size_t q = 1; q < n; q++) {
            ref->merge(cases.y, cases.y + q * part, dim);
            fast->merge(other.y, other.y + q * part, dim);
        }
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s merge dim %zu", fast->isa, dim);
    }
}

/* Infinities and NaN: any result, but no stray access, and the same bytes */
static void check_cache_non_finite(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("cache non-finite");
    const float odd[] = {__builtin_inff(), -__builtin_inff(), __builtin_nanf(""), -__builtin_nanf(""), 3e38f, -3e38f};
    const size_t dim = 64, n_pos = 40;
    for (int i = 0; i < 40; i++) {
        const kernel_span of_ref = case_span(&cases), of_fast = case_span(&other);
        memset(cases.row_scales, 0, 2 * KERNEL_SPAN * sizeof(float));
        memset(other.row_scales, 0, 2 * KERNEL_SPAN * sizeof(float));
        for (size_t p = 0; p <= n_pos; p++) {
            case_activations(&rng, cases.x, 2 * dim);
            for (size_t k = 0; k < case_below(&rng, 8); k++)
                cases.x[case_below(&rng, 2 * dim)] = odd[case_below(&rng, 6)];
            case_store(&ref->cache8, &cases, p, cases.x, cases.x + dim, dim);
            case_store(&fast->cache8, &other, p, cases.x, cases.x + dim, dim);
        }
        ref->cache8.prepare(cases.inputs, cases.x, dim, 0.125f);
        fast->cache8.prepare(other.inputs, cases.x, dim, 0.125f);
        fill_outputs();
        ref->cache8.attend(cases.y, cases.inputs, 1, &of_ref, n_pos, dim);
        fast->cache8.attend(other.y, other.inputs, 1, &of_fast, n_pos, dim);
        CHECK(!memcmp(cases.y, other.y, sizeof cases.y), "%s non-finite", fast->isa);
    }
}

/* Everything above for one table. */
static void kernel_sweep(const kernel_table *ref, const kernel_table *fast) {
    check_arith(&ref->lut8, &fast->lut8, fast->isa);
    check_arith(&ref->popcount, &fast->popcount, fast->isa);
    check_non_finite(&ref->lut8, &fast->lut8, fast->isa);
    check_non_finite(&ref->popcount, &fast->popcount, fast->isa);
    check_dots(ref, fast);
    check_rows(ref, fast);
    check_halves(ref, fast);
    check_cache(ref, fast, false);
    check_cache(ref, fast, true);
    check_cache_non_finite(ref, fast);
}

#endif
