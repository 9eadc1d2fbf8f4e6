#include "tokenizer_internal.h"

#define NONE UINT32_MAX

/* Ascending keys for descending scores: the bits of a float order like integers once the sign is dealt with. */
static uint32_t rank_of_score(float score) {
    uint32_t bits;
    memcpy(&bits, &score, sizeof bits);
    return ~(bits >> 31 ? ~bits : bits | 0x80000000u);
}

/* Do the tokens merge? then with which rank, into what? */
static bool find_merge(const tokenizer *t, int32_t left, int32_t right, uint32_t *rank, int32_t *id) {
    if (left < 0 || right < 0) return false;
    uint32_t l = (uint32_t)left, r = (uint32_t)right;
    if (!t->merges) {
        if (token_bytes(t, l) + token_bytes(t, r) > MATCH_MOST) return false;
        *id = tokenizer_find(t, token_text(t, l), token_bytes(t, l), token_text(t, r), token_bytes(t, r));
        if (*id < 0) return false;
        *rank = rank_of_score((float)gguf_item_f64(t->scores, (uint64_t)*id));
        return true;
    }
    const merge *m = table_find_merge(t, (uint64_t)l << 32 | r);
    if (!m) return false;
    *rank = m->rank;
    *id = m->id;
    return true;
}

static void heap_push(bpe_word *w, uint64_t key) {
    size_t i = w->n_heap++;
    for (; i && w->heap[(i - 1) / 2] > key; i = (i - 1) / 2) w->heap[i] = w->heap[(i - 1) / 2];
    w->heap[i] = key;
}

static uint64_t heap_pop(bpe_word *w) {
    uint64_t top = w->heap[0], last = w->heap[--w->n_heap];
    size_t i = 0;
    for (size_t child; (child = 2 * i + 1) < w->n_heap; i = child) {
        if (child + 1 < w->n_heap && w->heap[child + 1] < w->heap[child]) child++;
        if (w->heap[child] >= last) break;
        w->heap[i] = w->heap[child];
    }
    w->heap[i] = last;
    return top;
}

static void propose(const tokenizer *t, bpe_word *w, uint32_t left) {
    uint32_t rank;
    int32_t id;
    if (w->next[left] != NONE && find_merge(t, w->id[left], w->id[w->next[left]], &rank, &id))
        heap_push(w, (uint64_t)rank << 32 | left);
}

/* Always the pair of lowest rank, among equals the leftmost: O(n log n). A pair that changed since it was pushed is
 * known by its rank; one that has the same rank again also has the same place in the order, so it may go now. Every
 * merge takes one key off and puts at most two on, and there are fewer than n of them: the heap never holds 2 n keys.
 */
void bpe_merge(const tokenizer *t, bpe_word *w) {
    w->n_heap = 0;
    for (uint32_t i = 0; i < w->n; i++) {
        w->prev[i] = i ? i - 1 : NONE;
        w->next[i] = i + 1 < w->n ? i + 1 : NONE;
    }
    for (uint32_t i = 0; i + 1 < w->n; i++) propose(t, w, i);
    while (w->n_heap) {
        uint64_t key = heap_pop(w);
        uint32_t left = (uint32_t)key, right = w->next[left], rank;
        int32_t id;
        if (right == NONE || !find_merge(t, w->id[left], w->id[right], &rank, &id) || rank != key >> 32) continue;
        w->id[left] = id;
        w->id[right] = -1; /* keys of the right part are dead: a negative symbol merges with nothing */
        w->next[left] = w->next[right];
        if (w->next[left] != NONE) w->prev[w->next[left]] = left;
        if (w->prev[left] != NONE) propose(t, w, w->prev[left]);
        propose(t, w, left);
    }
}
