#include "vector.h"

#include <math.h>

/* One body per level of x86-64; the loader picks. Sanitizers do not know the loader's hook. */
#if defined(__x86_64__) && defined(__linux__) && !defined(__SANITIZE_ADDRESS__) && !defined(__clang__)
#define VECTOR __attribute__((target_clones("arch=x86-64-v4", "arch=x86-64-v3", "default")))
#else
#define VECTOR
#endif

/* e^x, relative error 3e-7 in [-60, 60], clamped outside: 2^n e^r with |r| <= ln 2 / 2 and a polynomial of degree 6.
 * Without branches or calls, so that loops over it become vector code. Wider, what is divided by it could be denormal
 * (compilers divide by the clamped value too, and choose afterwards), which costs a processor a hundred cycles. */
static inline float exp_fast(float x) {
    union {
        float f;
        int32_t i;
    } bits;
    x = x < -60.0f ? -60.0f : x;
    x = x > 60.0f ? 60.0f : x;
    float shifted = x * 1.44269504f + 12582912.0f, n = shifted - 12582912.0f; /* the nearest integer, by rounding */
    float r = x - n * 0.693359375f + n * 2.12194440e-4f;
    float p =
        1.0f +
        r * (1.0f + r * (0.5f + r * (0.166666667f + r * (0.0416666667f + r * (0.00833333333f + r * 0.00138888889f)))));
    bits.i = ((int32_t)n + 127) << 23;
    return p * bits.f;
}

VECTOR float vector_dot(const float *x, const float *y, size_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += x[i] * y[i];
    return sum;
}

VECTOR void vector_add(float *y, const float *x, float scale, size_t n) {
    for (size_t i = 0; i < n; i++) y[i] += scale * x[i];
}

VECTOR float vector_rmsnorm(float *y, const float *x, const float *w, size_t n, float eps) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += x[i] * x[i];
    float r = 1 / sqrtf(sum / (float)n + eps);
    for (size_t i = 0; i < n; i++) y[i] = x[i] * r * w[i];
    return r;
}

VECTOR void vector_rmsnorm_backward(float *dx, const float *dy, const float *x, const float *w, float r, size_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += x[i] * w[i] * dy[i];
    float along = r * r * r * sum / (float)n;
    for (size_t i = 0; i < n; i++) dx[i] += r * w[i] * dy[i] - along * x[i];
}

VECTOR void vector_swiglu(float *h, const float *gate, const float *up, size_t n) {
    for (size_t i = 0; i < n; i++) h[i] = gate[i] / (1 + exp_fast(-gate[i])) * up[i];
}

VECTOR void vector_swiglu_backward(float *gate, float *up, const float *dh, size_t n) {
    for (size_t i = 0; i < n; i++) {
        float g = gate[i], s = 1 / (1 + exp_fast(-g)), d = dh[i];
        gate[i] = d * up[i] * s * (1 + g * (1 - s));
        up[i] = d * g * s;
    }
}

VECTOR void vector_softmax(float *x, float scale, size_t seen, size_t n) {
    float top = x[0], sum = 0;
#pragma omp simd reduction(max : top)
    for (size_t i = 0; i < seen; i++) top = x[i] > top ? x[i] : top;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < seen; i++) {
        x[i] = exp_fast((x[i] - top) * scale);
        sum += x[i];
    }
    float inverse = 1 / sum;
    for (size_t i = 0; i < seen; i++) x[i] *= inverse;
    for (size_t i = seen; i < n; i++) x[i] = 0;
}

VECTOR void vector_softmax_backward(float *dp, const float *p, float scale, size_t n) {
    float sum = 0;
#pragma omp simd reduction(+ : sum)
    for (size_t i = 0; i < n; i++) sum += p[i] * dp[i];
    for (size_t i = 0; i < n; i++) dp[i] = scale * p[i] * (dp[i] - sum);
}

VECTOR float vector_log_sum_exp(const float *x, size_t n) {
    float top = x[0];
    double sum = 0;
#pragma omp simd reduction(max : top)
    for (size_t i = 0; i < n; i++) top = x[i] > top ? x[i] : top;
    for (size_t first = 0; first < n; first += 1024) { /* short float sums, joined in double */
        float part = 0;
        size_t end = bp_min(n, first + 1024);
#pragma omp simd reduction(+ : part)
        for (size_t i = first; i < end; i++) part += exp_fast(x[i] - top);
        sum += (double)part;
    }
    return (float)log(sum) + top;
}

VECTOR float vector_distill(float *q, const float *p, float share, float scale, size_t n) {
    float log_p = vector_log_sum_exp(p, n), log_q = vector_log_sum_exp(q, n);
    double kl = 0;
    for (size_t first = 0; first < n; first += 1024) {
        float part = 0;
        size_t end = bp_min(n, first + 1024);
#pragma omp simd reduction(+ : part)
        for (size_t i = first; i < end; i++) {
            float a = p[i] - log_p, b = q[i] - log_q, pa = exp_fast(a);
            part += pa * (a - b);
            q[i] = scale * (exp_fast(b) - share * pa);
        }
        kl += (double)part;
    }
    return (float)kl;
}

VECTOR float vector_cross_entropy(float *q, size_t target, float scale, size_t n) {
    float log_q = vector_log_sum_exp(q, n), nll = log_q - q[target];
    for (size_t i = 0; i < n; i++) q[i] = scale * exp_fast(q[i] - log_q);
    q[target] -= scale;
    return nll;
}

size_t vector_draw(const float *q, double u, size_t n) {
    float log_q = vector_log_sum_exp(q, n);
    double sum = 0;
    for (size_t i = 0; i + 1 < n; i++)
        if ((sum += (double)exp_fast(q[i] - log_q)) > u) return i;
    return n - 1;
}

VECTOR size_t vector_argmax(const float *x, size_t n) {
    float top = x[0];
    size_t i = 0;
#pragma omp simd reduction(max : top)
    for (size_t j = 1; j < n; j++) top = x[j] > top ? x[j] : top;
    while (i + 1 < n && !(x[i] >= top)) i++;
    return i;
}

VECTOR void vector_signs(float *out, const float *x, float scale, const float *v, size_t n) {
    if (v)
        for (size_t i = 0; i < n; i++) out[i] = x[i] >= 0 ? scale * v[i] : -scale * v[i];
    else
        for (size_t i = 0; i < n; i++) out[i] = x[i] >= 0 ? scale : -scale;
}

VECTOR float vector_signs_dot(const float *x, const float *y, const float *v, size_t n) {
    float sum = 0;
    if (v) {
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++) sum += x[i] >= 0 ? y[i] * v[i] : -y[i] * v[i];
    } else {
#pragma omp simd reduction(+ : sum)
        for (size_t i = 0; i < n; i++) sum += x[i] >= 0 ? y[i] : -y[i];
    }
    return sum;
}

VECTOR void vector_signs_add(float *out, const float *x, const float *y, float scale, size_t n) {
    for (size_t i = 0; i < n; i++) out[i] += x[i] >= 0 ? scale * y[i] : -scale * y[i];
}

VECTOR void vector_adam(float *p, float *m, float *s, const float *g, size_t n, adam_step step) {
    for (size_t i = 0; i < n; i++) {
        m[i] = step.beta1 * m[i] + (1 - step.beta1) * g[i];
        s[i] = step.beta2 * s[i] + (1 - step.beta2) * g[i] * g[i];
        p[i] -= step.rate * (m[i] * step.correct1) / (sqrtf(s[i] * step.correct2) + step.eps);
    }
}

VECTOR void vector_watch(float *x, float *m, float *s, const float *g, float scale, const float *v, size_t n,
                         sign_step step) {
    for (size_t i = 0; i < n; i++) {
        float d = scale * g[i] * v[i];
        m[i] = step.beta * m[i] + (1 - step.beta) * d;
        s[i] = step.beta * s[i] + (1 - step.beta) * d * d;
    }
    for (size_t i = 0; step.share && i < n; i++) {
        uint32_t draw = (uint32_t)i * 2654435761u + step.seed;
        draw = (draw ^ draw >> 15) * 2246822519u;
        draw = (draw ^ draw >> 13) * 3266489917u;
        bool turn = x[i] * m[i] > step.curvature * s[i] + step.noise * sqrtf(s[i]) && draw < step.share;
        x[i] = turn ? -x[i] : x[i];
        m[i] = turn ? 0 : m[i];
    }
}

VECTOR void vector_momentum(float *x, float *mean, const float *g, size_t n, float rate, float beta) {
    for (size_t i = 0; i < n; i++) {
        mean[i] = beta * mean[i] + (1 - beta) * g[i];
        x[i] -= rate * mean[i];
    }
}
