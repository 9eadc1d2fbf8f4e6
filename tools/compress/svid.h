/* svid.h - sign times rank-1: the projection of ADMM (docs/DBF.md (5)). */
#ifndef BITPAIR_SVID_H
#define BITPAIR_SVID_H

#include "workers.h"

/* Floats of scratch that svid_project needs. */
size_t svid_scratch(size_t n, size_t k);

/* |N| ~ u v' by `rounds` power iterations, N [n, k], u [n], v [k] with |v| = 1: SVID(N) = sign(N) . (u v'). On entry v
 * is the start (any positive vector, e.g. the last result). A zero matrix gives u = 0. scratch [svid_scratch(n, k)]. */
void svid_project(workers *w, float *u, float *v, const float *N, size_t n, size_t k, unsigned rounds, float *scratch);

#endif
