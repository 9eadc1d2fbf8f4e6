/* profile.h - where the time of a thread goes, by part. A thread without a profile (NULL, as always but in a benchmark)
 * reads no clock: a mark costs one comparison. The clock is the caller's, the engine has none. */
#ifndef BP_PROFILE_H
#define BP_PROFILE_H

#include "base.h"

typedef enum {
    PROFILE_EMBEDDING, /* rows of the embedding, angles */
    PROFILE_NORMS,     /* norms, SwiGLU */
    PROFILE_TABLES,    /* inputs of products prepared */
    PROFILE_LOOKUPS,   /* products of the layers */
    PROFILE_ATTENTION, /* rotation, cache, attention */
    PROFILE_HEAD,      /* the last norm, the head's tables and products */
    PROFILE_BARRIERS,  /* waiting for other threads */
    PROFILE_SAMPLING,
    PROFILE_PARTS
} profile_part;

typedef struct {
    double (*clock)(void);
    double last;                   /* the last mark */
    double seconds[PROFILE_PARTS]; /* sums since it was zeroed */
    bool head;                     /* tables and lookups are the head's */
} profile;

/* From here on time counts. */
static inline void profile_start(profile *p) {
    if (p) p->last = p->clock();
}

/* The time since the last mark was spent on `part`. */
static inline void profile_mark(profile *p, profile_part part) {
    if (!p) return;
    const double now = p->clock();
    if (p->head && part != PROFILE_BARRIERS) part = PROFILE_HEAD;
    p->seconds[part] += now - p->last;
    p->last = now;
}

#endif
