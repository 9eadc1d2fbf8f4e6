#include "grammar_internal.h"

#include "arena.h"
#include "platform.h"

/* The texts of all tokens while they are sorted. */
typedef struct {
    size_t *at;  /* [size + 1] */
    char *bytes; /* text of i: bytes[at[i]] .. bytes[at[i + 1]] */
    int32_t *order, *other;
    uint32_t n; /* tokens with text */
} texts;

static size_t text_of(const grammar_tokens *t, int32_t id, char *out) {
    size_t n = t->is_end(t->context, id) ? 0 : t->text(t->context, id, out, GRAMMAR_TOKEN_MOST);
    return n <= GRAMMAR_TOKEN_MOST ? n : 0;
}

static size_t all_bytes(const grammar_tokens *t) {
    char text[GRAMMAR_TOKEN_MOST];
    size_t sum = 0;
    for (uint32_t i = 0; i < t->size; i++) sum += text_of(t, (int32_t)i, text);
    return sum;
}

static void gather(texts *x, const grammar_tokens *t) {
    char text[GRAMMAR_TOKEN_MOST];
    for (uint32_t i = 0; i < t->size; i++) {
        size_t n = text_of(t, (int32_t)i, text);
        memcpy(x->bytes + x->at[i], text, n);
        x->at[i + 1] = x->at[i] + n;
        if (n) x->order[x->n++] = (int32_t)i;
    }
}

static const char *text_at(const texts *x, int32_t id, size_t *n) {
    *n = x->at[id + 1] - x->at[id];
    return x->bytes + x->at[id];
}

/* By bytes, a beginning before what it begins; equal texts in the order of ids, since the sort is stable. */
static bool after(const texts *x, int32_t a, int32_t b) {
    size_t na, nb;
    const char *ta = text_at(x, a, &na), *tb = text_at(x, b, &nb);
    int c = memcmp(ta, tb, bp_min(na, nb));
    return c > 0 || (c == 0 && na > nb);
}

static void sort(texts *x) {
    for (size_t width = 1; width < x->n; width *= 2) {
        for (size_t low = 0; low < x->n; low += 2 * width) {
            size_t middle = bp_min(low + width, x->n), high = bp_min(low + 2 * width, x->n);
            for (size_t i = low, a = low, b = middle; i < high; i++)
                x->other[i] =
                    a < middle && (b >= high || !after(x, x->order[a], x->order[b])) ? x->order[a++] : x->order[b++];
        }
        int32_t *sorted = x->other;
        x->other = x->order;
        x->order = sorted;
    }
}

/* Bytes that token i of the order shares with the one before it */
static size_t shared(const texts *x, uint32_t i) {
    size_t na, nb, n = 0;
    if (i == 0) return 0;
    const char *a = text_at(x, x->order[i - 1], &na), *b = text_at(x, x->order[i], &nb);
    while (n < na && n < nb && a[n] == b[n]) n++;
    return n;
}

static uint32_t count_nodes(const texts *x, uint32_t *deepest) {
    uint32_t nodes = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        size_t n;
        text_at(x, x->order[i], &n);
        nodes += (uint32_t)(n - shared(x, i));
        *deepest = (uint32_t)bp_max(*deepest, n);
    }
    return nodes;
}

/* Each token adds nodes for the bytes that it does not share with the one before it; of these only the last has tokens
 * of its own, since the next node begins with the same token. */
static void plant(grammar_vocabulary *v, const texts *x) {
    uint32_t open[GRAMMAR_TOKEN_MOST + 1], n_open = 0, n_nodes = 0;
    for (uint32_t i = 0; i < x->n; i++) {
        size_t n, same = shared(x, i);
        const char *text = text_at(x, x->order[i], &n);
        while (n_open > same) v->nodes[open[--n_open]].next = n_nodes;
        for (; n_open < n; open[n_open++] = n_nodes++)
            v->nodes[n_nodes] = (trie_node){.first = i, .depth = (uint16_t)(n_open + 1), .byte = (uint8_t)text[n_open]};
        v->order[i] = x->order[i];
    }
    while (n_open) v->nodes[open[--n_open]].next = n_nodes;
    v->nodes[n_nodes] = (trie_node){.next = n_nodes, .first = x->n};
}

static void note_ends(grammar_vocabulary *v) {
    for (uint32_t i = 0; i < v->tokens.size; i++) {
        if (!v->tokens.is_end(v->tokens.context, (int32_t)i)) continue;
        v->ends[i / 64] |= (uint64_t)1 << i % 64;
        v->has_end = true;
    }
}

static grammar_vocabulary *vocabulary_layout(arena *a, const grammar_tokens *t, uint32_t n_nodes, uint32_t n) {
    grammar_vocabulary *v = ARENA_NEW(a, grammar_vocabulary, 1);
    trie_node *nodes = ARENA_NEW(a, trie_node, (uint64_t)n_nodes + 1);
    int32_t *order = ARENA_NEW(a, int32_t, n);
    uint64_t *ends = ARENA_NEW(a, uint64_t, mask_words(t->size));
    if (v && nodes && order && ends)
        *v = (grammar_vocabulary){.tokens = *t, .nodes = nodes, .order = order, .n_nodes = n_nodes, .ends = ends};
    return v;
}

static void texts_layout(texts *x, arena *a, const grammar_tokens *t, size_t bytes) {
    *x = (texts){.at = ARENA_NEW(a, size_t, (uint64_t)t->size + 1),
                 .bytes = ARENA_NEW(a, char, bytes),
                 .order = ARENA_NEW(a, int32_t, t->size),
                 .other = ARENA_NEW(a, int32_t, t->size)};
}

static grammar_vocabulary *build(texts *x, const grammar_tokens *t) {
    uint32_t deepest = 0;
    gather(x, t);
    sort(x);
    uint32_t n_nodes = count_nodes(x, &deepest);
    arena a = arena_measure();
    vocabulary_layout(&a, t, n_nodes, x->n);
    void *memory = a.overflow ? NULL : platform_alloc(a.used);
    if (!memory) return NULL;
    a = arena_over(memory, a.used);
    grammar_vocabulary *v = vocabulary_layout(&a, t, n_nodes, x->n);
    v->deepest = deepest;
    plant(v, x);
    note_ends(v);
    return v;
}

grammar_vocabulary *grammar_vocabulary_open(const grammar_tokens *tokens, bp_err *e) {
    texts x;
    size_t bytes = all_bytes(tokens);
    arena a = arena_measure();
    texts_layout(&x, &a, tokens, bytes);
    void *scratch = a.overflow ? NULL : platform_alloc(a.used);
    grammar_vocabulary *v = NULL;
    if (scratch) {
        a = arena_over(scratch, a.used);
        texts_layout(&x, &a, tokens, bytes);
        v = build(&x, tokens);
    }
    platform_free(scratch);
    if (!v) bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tree of %u tokens", (unsigned)tokens->size);
    return v;
}

void grammar_vocabulary_close(grammar_vocabulary *v) { platform_free(v); } /* the first block of its own arena */
