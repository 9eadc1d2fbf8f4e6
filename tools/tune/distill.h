/* distill.h - the end of the network: head, distance of the student's distribution to the teacher's, and its gradient.
 *
 *     KL = mean over positions of sum_v p_v (ln p_v - ln q_v),   p = softmax(E_t y), q = softmax(E_s x)
 *     dKL/dx = (q - p)' E_s / positions                                                           docs/DBF.md (20)
 *
 * and, where the text itself is taught too, -ln q of the word that follows in the place of a share of the KL (30).
 */
#ifndef BITPAIR_DISTILL_H
#define BITPAIR_DISTILL_H

#include "product.h"

/* Sums over positions. */
typedef struct {
    double kl, nll, loss;       /* nats; loss: what the gradient is of */
    uint64_t positions, scored; /* scored: positions that a token follows */
    uint64_t agree;             /* both find the same token most likely */
} distill_score;

typedef struct {
    workers *w;
    product_kind kind;
    size_t d_model, vocab;
    const float *teacher; /* [vocab, d_model] head of the teacher */
    const float *student; /* [vocab, d_model] head of the student */
    float *gradient;      /* [vocab, d_model] of the student's head: written by distiller_run; NULL: not wanted */
    float *group;         /* logits of GROUP chunks, with `gradient` */
    float *logits;        /* scratch of each worker */
    distill_score *parts; /* of each chunk of positions */
} distiller;

/* Bytes that distiller_open takes, but for a few per call. */
uint64_t distiller_bytes(size_t vocab, bool gradient, uint32_t threads);

/* most: tokens of a call. gradient: as above, or NULL. BP_ERR_MEMORY. The heads stay the caller's. */
bool distiller_open(distiller *s, workers *w, product_kind kind, size_t d_model, size_t vocab, const float *teacher,
                    const float *student, float *gradient, size_t most, bp_err *e);
void distiller_close(distiller *s);

/* x, y [tokens, d_model]: inputs of the heads of student and teacher; ids [tokens] in sequences of ctx, the next one is
 * what nll scores. dx [tokens, d_model] <- gradient of weight times the mean over positions of the loss
 * (1 - w) KL + w nll, w that of labels [tokens / ctx] for the sequence, 0 with NULL and where no token follows; may be x
 * itself; NULL: only scores. Adds to *score. */
void distiller_run(distiller *s, float *dx, const float *x, const float *y, const int32_t *ids, size_t ctx,
                   size_t tokens, float weight, const float *labels, distill_score *score);

/* The same without a teacher, for words v_t drawn from the student's own distribution (position t with the generator of
 * seed + t): dx <- gradient of the mean of -ln softmax(E x_t)[v_t], whose expected square is the Fisher information of
 * the logits; adds nll, positions and scored. */
void distiller_run_drawn(distiller *s, float *dx, const float *x, uint64_t seed, size_t tokens, distill_score *score);

#endif
