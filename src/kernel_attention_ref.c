/* kernel_attention_ref.c - attention over cached keys and values, scalar: what kernel.h says, word for word. */
#include "kernel_attention_impl.h"
#include "mathf.h"

/* ---- softmax of a span ---- */

/* scores[p] = e^(s_p - max s); part [dim + ..] <- max and sum */
static void weigh_ref(float *part, float *scores, size_t n_pos, size_t dim) {
    float largest = -__builtin_inff(), partial[16] = {0};
    for (size_t p = 0; p < n_pos; p++) largest = scores[p] > largest ? scores[p] : largest;
    for (size_t p = 0; p < n_pos; p++) {
        scores[p] = bp_expf(scores[p] - largest);
        partial[p % 16] += scores[p];
    }
    part[dim + KERNEL_PART_MAX] = largest + 0.0f; /* -0 and 0 compare equal: either may be the maximum */
    part[dim + KERNEL_PART_SUM] = kernel_tree_sum(partial, 16);
}

static void merge_ref(float *into, const float *part, size_t dim) {
    const float gap = part[dim + KERNEL_PART_MAX] - into[dim + KERNEL_PART_MAX], c = bp_expf(gap > 0.0f ? -gap : gap);
    const float old = gap > 0.0f ? c : 1.0f, new = gap > 0.0f ? 1.0f : c;
    for (size_t d = 0; d < dim; d++) into[d] = into[d] * old + part[d] * new;
    into[dim + KERNEL_PART_SUM] = into[dim + KERNEL_PART_SUM] * old + part[dim + KERNEL_PART_SUM] * new;
    if (gap > 0.0f) into[dim + KERNEL_PART_MAX] = part[dim + KERNEL_PART_MAX];
}

/* ---- half precision ---- */

static void store16_ref(void *row, float *scale, const float *x, size_t dim) {
    uint16_t *y = row;
    (void)scale;
    for (size_t d = 0; d < dim; d++) y[d] = bp_half_from_float(x[d]);
}

static void restore16_ref(float *x, const void *row, float scale, size_t dim) {
    const uint16_t *y = row;
    (void)scale;
    for (size_t d = 0; d < dim; d++) x[d] = bp_half_to_float(y[d]);
}

static void prepare16_ref(void *query, const float *q, size_t dim, float factor) {
    *query_scale(query) = factor;
    memcpy(query_values(query), q, dim * sizeof *q);
}

static void attend16_ref(float *parts, const void *queries, size_t n, const kernel_span *span, size_t n_pos,
                         size_t dim) {
    const uint16_t *k = span->k, *v = span->v;
    for (size_t i = 0; i < n; i++, parts += kernel_part_floats(dim)) {
        const void *query = (const uint8_t *)queries + i * kernel_query_bytes(dim);
        const float *q = query_values(query);
        float scores[KERNEL_SPAN];
        for (size_t p = 0; p < n_pos; p++) {
            float partial[8] = {0};
            for (size_t d = 0; d < dim; d++) partial[d % 8] += q[d] * bp_half_to_float(k[p * dim + d]);
            scores[p] = *query_scale(query) * kernel_tree_sum(partial, 8);
        }
        weigh_ref(parts, scores, n_pos, dim);
        for (size_t d = 0; d < dim; d++) {
            float sum = 0.0f;
            for (size_t p = 0; p < n_pos; p++) sum += scores[p] * bp_half_to_float(v[p * dim + d]);
            parts[d] = sum;
        }
    }
}

/* ---- 8 bits ---- */

static float largest_ref(const float *x, size_t n) {
    float s = 0.0f;
    for (size_t i = 0; i < n; i++) {
        const float a = kernel_abs(x[i]);
        s = a > s ? a : s;
    }
    return cache8_largest(s);
}

static void store8_ref(void *row, float *scale, const float *x, size_t dim) {
    const float s = largest_ref(x, dim), inverse = kernel_inverse(s);
    int8_t *y = row;
    for (size_t d = 0; d < dim; d++) y[d] = (int8_t)kernel_round(x[d] * inverse);
    *scale = kernel_scale(s);
}

static void restore8_ref(float *x, const void *row, float scale, size_t dim) {
    const int8_t *y = row;
    for (size_t d = 0; d < dim; d++) x[d] = (float)y[d] * scale;
}

static void prepare8_ref(void *query, const float *q, size_t dim, float factor) {
    const float s = largest_ref(q, dim), inverse = cache8_inverse(s);
    int16_t *y = query_values(query);
    for (size_t d = 0; d < dim; d++) y[d] = cache8_round(q[d] * inverse);
    *query_scale(query) = cache8_scale(s) * factor;
}

/* weights [n_pos] <- int16 of w_p v_scale_p; returns what one unit is worth */
static float round_weights_ref(int16_t *weights, const float *w, const float *v_scales, size_t n_pos) {
    float u[KERNEL_SPAN], s = 0.0f;
    for (size_t p = 0; p < n_pos; p++) {
        u[p] = w[p] * v_scales[p];
        s = u[p] > s ? u[p] : s;
    }
    for (size_t p = 0; p < n_pos; p++) weights[p] = cache8_round(u[p] * cache8_inverse(s));
    return cache8_scale(s);
}

static void attend8_ref(float *parts, const void *queries, size_t n, const kernel_span *span, size_t n_pos,
                        size_t dim) {
    const int8_t *k = span->k, *v = span->v;
    for (size_t i = 0; i < n; i++, parts += kernel_part_floats(dim)) {
        const void *query = (const uint8_t *)queries + i * kernel_query_bytes(dim);
        const int16_t *q = query_values(query);
        float scores[KERNEL_SPAN];
        int16_t weights[KERNEL_SPAN];
        for (size_t p = 0; p < n_pos; p++) {
            int32_t dot = 0;
            for (size_t d = 0; d < dim; d++) dot += q[d] * k[p * dim + d];
            scores[p] = (float)dot * (span->k_scales[p] * *query_scale(query));
        }
        weigh_ref(parts, scores, n_pos, dim);
        const float unit = round_weights_ref(weights, scores, span->v_scales, n_pos);
        for (size_t d = 0; d < dim; d++) {
            int32_t sum = 0;
            for (size_t p = 0; p < n_pos; p++) sum += weights[p] * v[p * dim + d];
            parts[d] = (float)sum * unit;
        }
    }
}

void kernel_fill_attention_ref(kernel_table *table) {
    table->cache16 = (kernel_cache){16, store16_ref, restore16_ref, prepare16_ref, attend16_ref};
    table->cache8 = (kernel_cache){8, store8_ref, restore8_ref, prepare8_ref, attend8_ref};
    table->merge = merge_ref;
}
