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
static void check_to_half(const kernel_table *ref, const kernel_table *fast) {
    case_rng rng = rng_for("to_half");
    for (uint32_t base = 0; base < 65536; base += 256) {
        for (uint32_t i = 0; i < 1024; i++) {
            const float at = bp_half_to_float((uint16_t)(base + i / 4)),
                        up = bp_half_to_float((uint16_t)(base + i / 4 + 1));
            const float tie = 0.5f * at + 0.5f * up;
            uint32_t bits = (uint32_t)case_next(&rng);
            memcpy(&cases.x[i], &bits, sizeof bits);
            if (i % 4) cases.x[i] = i % 4 == 1 ? tie : step_towards(tie, i % 4 == 2 ? at : up);
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

/* Everything above for one table. */
static void kernel_sweep(const kernel_table *ref, const kernel_table *fast) {
    check_arith(&ref->lut8, &fast->lut8, fast->isa);
    check_arith(&ref->popcount, &fast->popcount, fast->isa);
    check_non_finite(&ref->lut8, &fast->lut8, fast->isa);
    check_non_finite(&ref->popcount, &fast->popcount, fast->isa);
    check_dots(ref, fast);
    check_rows(ref, fast);
    check_to_half(ref, fast);
    check_attention(ref, fast);
}

#endif
