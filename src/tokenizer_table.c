/* The two tables of a tokenizer: text -> token, and two tokens -> their merge. Each is one array, sorted by a hash and
 * then by what was hashed; a directory tells where the entries begin whose hash has the same first bits. A lookup
 * takes a step or two in an ordinary vocabulary, O(log n) in one that was chosen to collide. */
#include "tokenizer_internal.h"

enum { NEAR = 4 }; /* entries that are looked at one after another: halving them would not be faster */

#ifndef TABLE_STEP /* tests count comparisons */
#define TABLE_STEP() ((void)0)
#endif

/* Spreads over the upper half what differs anywhere. */
static uint64_t spread(uint64_t x) { return (x ^ x >> 32) * 0x9e3779b97f4a7c15u; }

static uint64_t hash_bytes(uint64_t hash, const char *text, size_t n) {
    for (size_t i = 0; i < n; i++) hash = (hash ^ (uint8_t)text[i]) * 0x100000001b3u;
    return hash;
}

static uint32_t hash_text(const char *a, size_t na, const char *b, size_t nb) {
    return (uint32_t)(spread(hash_bytes(hash_bytes(0xcbf29ce484222325u, a, na), b, nb)) >> 32);
}

static uint32_t hash_pair(uint64_t pair) { return (uint32_t)(pair * 0x9e3779b97f4a7c15u >> 32); }

/* ---- sorting ---- */

/* An array of any items. key: the hash of one; before: in the order that is wanted, with TABLE_STEP */
typedef struct {
    const tokenizer *t;
    void *items;
    uint32_t (*key)(const void *items, uint32_t i);
    bool (*before)(const tokenizer *t, const void *items, uint32_t i, uint32_t j);
    void (*swap)(void *items, uint32_t i, uint32_t j);
} sorting;

static void sift(const sorting *s, uint32_t first, uint32_t root, uint32_t n) {
    for (uint32_t child; (child = 2 * root + 1) < n; root = child) {
        if (child + 1 < n && s->before(s->t, s->items, first + child, first + child + 1)) child++;
        if (!s->before(s->t, s->items, first + root, first + child)) return;
        s->swap(s->items, first + root, first + child);
    }
}

/* Sorts the n items from `first` on. Heapsort: no input is slow. */
static void sort_range(const sorting *s, uint32_t first, uint32_t n) {
    for (uint32_t i = n / 2; i--;) sift(s, first, i, n);
    while (n > 1) {
        s->swap(s->items, first, first + --n);
        sift(s, first, 0, n);
    }
}

unsigned table_bits(uint64_t n) {
    unsigned bits = 4;
    while (((uint64_t)1 << bits) < n) bits++;
    return bits;
}

/* Brings items [n] into the order of their first bits, in place: start[b], at first where the items of b end, moves down with
 * each of them that is put. What stands at i and would go to i or below is in its place. */
static void distribute(const sorting *s, const directory *d, uint32_t n) {
    unsigned shift = 32 - d->bits;
    uint32_t *start = d->start, sum = 0;
    memset(start, 0, (((size_t)1 << d->bits) + 1) * sizeof *start);
    for (uint32_t i = 0; i < n; i++) start[s->key(s->items, i) >> shift]++;
    for (size_t b = 0; b <= (size_t)1 << d->bits; b++) start[b] = sum += start[b];
    for (uint32_t i = 0; i < n; i++)
        for (uint32_t to; start[to = s->key(s->items, i) >> shift] > i;) s->swap(s->items, i, --start[to]);
}

static void sort_table(const sorting *s, const directory *d, uint32_t n) {
    distribute(s, d, n);
    for (size_t b = 0; b < (size_t)1 << d->bits; b++) sort_range(s, d->start[b], d->start[b + 1] - d->start[b]);
}

/* ---- texts: the hash in the upper half, the token in the lower ---- */

/* Is the text of a token a [na] followed by b [nb]? Negative: it comes before, positive: behind */
static int compare_text(const tokenizer *t, uint32_t id, const char *a, size_t na, const char *b, size_t nb) {
    const char *text = token_text(t, id);
    size_t n = token_bytes(t, id);
    int order = memcmp(text, a, bp_min(n, na));
    if (order == 0 && n > na) order = memcmp(text + na, b, bp_min(n - na, nb));
    return order ? order : n < na + nb ? -1 : n > na + nb;
}

static uint32_t text_key(const void *items, uint32_t i) { return (uint32_t)(((const uint64_t *)items)[i] >> 32); }

static bool text_before(const tokenizer *t, const void *items, uint32_t i, uint32_t j) {
    uint64_t x = ((const uint64_t *)items)[i], y = ((const uint64_t *)items)[j];
    uint32_t id = (uint32_t)y;
    TABLE_STEP();
    if (x >> 32 != y >> 32) return x < y;
    int order = compare_text(t, (uint32_t)x, token_text(t, id), token_bytes(t, id), "", 0);
    return order ? order < 0 : x < y;
}

static void swap_words(void *items, uint32_t i, uint32_t j) {
    uint64_t *words = items, held = words[i];
    words[i] = words[j];
    words[j] = held;
}

void table_add_text(tokenizer *t, uint32_t id) {
    t->texts[t->n_texts++] = (uint64_t)hash_text(token_text(t, id), token_bytes(t, id), "", 0) << 32 | id;
}

void table_sort_texts(tokenizer *t) {
    sort_table(&(sorting){t, t->texts, text_key, text_before, swap_words}, &t->text_places, t->n_texts);
}

/* Where the entry is against a text: negative, before it */
static int compare_entry(const tokenizer *t, uint32_t i, uint32_t hash, const char *a, size_t na, const char *b,
                         size_t nb) {
    uint32_t key = text_key(t->texts, i);
    TABLE_STEP();
    if (key != hash) return key < hash ? -1 : 1;
    return compare_text(t, (uint32_t)t->texts[i], a, na, b, nb);
}

int32_t tokenizer_find(const tokenizer *t, const char *a, size_t na, const char *b, size_t nb) {
    uint32_t hash = hash_text(a, na, b, nb), place = hash >> (32 - t->text_places.bits);
    uint32_t low = t->text_places.start[place], high = t->text_places.start[place + 1];
    while (high - low >
           NEAR) { /* [low, high) has the first, if there is one, that is not before: of equal texts the first token */
        uint32_t middle = low + (high - low) / 2;
        if (compare_entry(t, middle, hash, a, na, b, nb) < 0)
            low = middle + 1;
        else
            high = middle + 1;
    }
    for (int order; low < high; low++)
        if ((order = compare_entry(t, low, hash, a, na, b, nb)) >= 0) return order ? -1 : (int32_t)t->texts[low];
    return -1;
}

/* ---- merges ---- */

static uint32_t merge_key(const void *items, uint32_t i) { return hash_pair(((const merge *)items)[i].pair); }

static bool merge_before(const tokenizer *t, const void *items, uint32_t i, uint32_t j) {
    const merge *x = (const merge *)items + i, *y = (const merge *)items + j;
    (void)t;
    TABLE_STEP();
    return x->pair != y->pair ? x->pair < y->pair : x->rank < y->rank;
}

static void swap_merges(void *items, uint32_t i, uint32_t j) {
    merge *all = items, held = all[i];
    all[i] = all[j];
    all[j] = held;
}

void table_sort_merges(tokenizer *t, uint32_t n) {
    sort_table(&(sorting){t, t->merges, merge_key, merge_before, swap_merges}, &t->merge_places, n);
}

const merge *table_find_merge(const tokenizer *t, uint64_t pair) {
    uint32_t place = hash_pair(pair) >> (32 - t->merge_places.bits);
    uint32_t low = t->merge_places.start[place], high = t->merge_places.start[place + 1];
    while (high - low > NEAR) { /* as above: of equal ones that of the lowest rank */
        uint32_t middle = low + (high - low) / 2;
        TABLE_STEP();
        if (t->merges[middle].pair < pair)
            low = middle + 1;
        else
            high = middle + 1;
    }
    for (; low < high; low++) {
        TABLE_STEP();
        if (t->merges[low].pair >= pair) return t->merges[low].pair == pair ? t->merges + low : NULL;
    }
    return NULL;
}

/* ---- added tokens ---- */

static bool added_before(const tokenizer *t, const void *items, uint32_t i, uint32_t j) {
    const uint32_t *ids = items, id = ids[j];
    TABLE_STEP();
    int order = compare_text(t, ids[i], token_text(t, id), token_bytes(t, id), "", 0);
    return order ? order < 0 : ids[i] < id;
}

static void swap_ids(void *items, uint32_t i, uint32_t j) {
    uint32_t *ids = items, held = ids[i];
    ids[i] = ids[j];
    ids[j] = held;
}

void table_sort_added(const tokenizer *t, added_set *set) {
    sort_range(&(sorting){t, set->ids, NULL, added_before, swap_ids}, 0, set->n);
}
