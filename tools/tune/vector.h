/* vector.h - the elementwise steps of training, forward and backward, for one row each; compiled for several
 * instruction sets and chosen at run time. Sums are taken in an order that depends on the instruction set: these are
 * gradients, not the engine's exact arithmetic. Arrays are float32, need no alignment and do not alias unless said. */
#ifndef BITPAIR_VECTOR_H
#define BITPAIR_VECTOR_H

#include "base.h"

/* y [n] = r x . w, r = 1 / sqrt(mean x^2 + eps); returns r. */
float vector_rmsnorm(float *y, const float *x, const float *w, size_t n, float eps);

/* dx [n] += gradient of the above for dy [n]: r (w . dy) - x r^3 / n sum(x . w . dy) */
void vector_rmsnorm_backward(float *dx, const float *dy, const float *x, const float *w, float r, size_t n);

/* h [n] = silu(gate) . up */
void vector_swiglu(float *h, const float *gate, const float *up, size_t n);

/* gate and up [n] are replaced by their gradients for dh [n]. */
void vector_swiglu_backward(float *gate, float *up, const float *dh, size_t n);

/* x [n] -> softmax(scale x) over the first `seen` entries, 0 for the rest. */
void vector_softmax(float *x, float scale, size_t seen, size_t n);

/* Gradient through the softmax: p [n] probabilities, dp [n] their gradient -> dp = scale p . (dp - sum(p . dp)) */
void vector_softmax_backward(float *dp, const float *p, float scale, size_t n);

/* ln sum exp x [n] */
float vector_log_sum_exp(const float *x, size_t n);

/* KL(p || q) = sum_v p_v (ln p_v - ln q_v) of the teacher's logits p [n] to the student's q [n], both in nats; q is
 * replaced by scale (softmax(q) - share softmax(p)): with a share of 1, scale times the gradient with respect to it. */
float vector_distill(float *q, const float *p, float share, float scale, size_t n);

/* q [n] is replaced by scale (softmax(q) - onehot(target)); returns -ln softmax(q)[target]. */
float vector_cross_entropy(float *q, size_t target, float scale, size_t n);

/* The first v at which softmax(q)_0 + ... + softmax(q)_v exceeds u, 0 <= u < 1: drawn from softmax(q) if u is uniform. */
size_t vector_draw(const float *q, double u, size_t n);

/* The first of the largest of x [n], n >= 1, none of them NaN */
size_t vector_argmax(const float *x, size_t n);

/* y [n] += scale x [n] */
void vector_add(float *y, const float *x, float scale, size_t n);

float vector_dot(const float *x, const float *y, size_t n);

/* out [n] = scale . v where x is not negative, -scale . v else (v NULL: 1): one row of a scaled sign matrix */
void vector_signs(float *out, const float *x, float scale, const float *v, size_t n);

/* sum of sign(x) . y . v over the row (v NULL: 1) */
float vector_signs_dot(const float *x, const float *y, const float *v, size_t n);

/* out [n] += scale sign(x) . y */
void vector_signs_add(float *out, const float *x, const float *y, float scale, size_t n);

/* One step of Adam on parameters p [n] with gradient g:
 *     m = beta1 m + (1 - beta1) g;  s = beta2 s + (1 - beta2) g^2;  p -= rate (m correct1) / (sqrt(s correct2) + eps),
 * correct = 1 / (1 - beta^step). */
typedef struct {
    float rate, beta1, beta2, correct1, correct2, eps;
} adam_step;
void vector_adam(float *p, float *m, float *s, const float *g, size_t n, adam_step step);

/* Signs x [n] (+1 or -1) watch their gradient d = scale g . v (docs/DBF.md (19)):
 *     m = beta m + (1 - beta) d;  s = beta s + (1 - beta) d^2
 * and those turn for which x m > curvature s + noise sqrt(s): what a flip gains to first order exceeds what it costs to
 * second order, and the noise of the mean. Of these a share, drawn by `seed`, turns at once: many that turn together
 * overshoot. The m of a sign that turned starts anew. */
typedef struct {
    float beta, curvature, noise;
    uint32_t share, seed; /* share of 2^32; 0: none turns */
} sign_step;
void vector_watch(float *x, float *m, float *s, const float *g, float scale, const float *v, size_t n, sign_step step);

/* mean = beta mean + (1 - beta) g; x -= rate mean */
void vector_momentum(float *x, float *mean, const float *g, size_t n, float rate, float beta);

#endif
