/* States of a program, transitions between them, and the tokens that each allows.
 *
 * A place is pc << 32 | set: a position in the program, and the set of places that a return from its rule goes on at.
 * Sets of places are stored once each, in ascending order, so that equal ones have equal numbers. A state is such a set
 * too: of the places that wait for a byte. Set 0 is empty: nobody waits for the root rule but OP_ACCEPT, and as a state
 * it is the end of what the grammar allows.
 *
 * What one byte does to a state: all places that match it move on, follow jumps, and return; the rules that they call
 * are gathered with all their callers. Then each called rule, in the order of ranks, gets its callers as one set, and is
 * entered. The ranks see to it that all callers are known by then; a rule that may be empty is also passed over where
 * it is called, so that its own return at once has nothing to add. Merging the callers keeps the sets small where
 * stacks of their own would be exponentially many. */
#include "grammar_internal.h"

#include "arena.h"
#include "platform.h"

enum {
    SETS = 1 << 14,
    SET_SLOTS = 2 * SETS,
    PLACES = 1 << 17,    /* of all sets together */
    ROW_BYTES = 1 << 20, /* for transitions */
    STEP_PLACES = 1 << 12,
    SEEN_SLOTS = 2 * STEP_PLACES,
    MASKS = 16,
    CLEARS_MOST = 16,  /* of the tables in one walk over the trie */
    NONE = UINT32_MAX, /* no set, no row, no slot: also the answer of a step that does not fit the tables */
    CORNER = 0         /* a name for set 0 */
};

typedef struct {
    uint32_t first, n; /* places[first .. first + n) */
    uint32_t row;      /* rows[row ..) are its transitions; NONE: no byte was tried yet */
} place_set;

typedef struct {
    uint64_t caller;
    uint32_t next; /* of the same rule; NONE: the last */
} pending_call;

/* What one step needs; empty between two. */
typedef struct {
    uint64_t *todo, *found; /* [STEP_PLACES] places to follow; places that wait for a byte */
    uint64_t *seen;         /* [SEEN_SLOTS] hash table of places followed, plus 1; 0 is free */
    uint32_t *used;         /* [STEP_PLACES] slots of `seen` that are taken */
    pending_call *calls;    /* [STEP_PLACES] */
    uint64_t *callers;      /* [STEP_PLACES] those of one rule */
    uint32_t *first_call;   /* [n_rules] its pending calls by rank; NONE */
    uint64_t *called;       /* bits by rank */
    uint32_t n_todo, n_found, n_used, n_calls;
    bool inside, full; /* in a rule that was entered in this step; something did not fit */
} step_work;

typedef struct {
    uint32_t state; /* NONE: free */
    bool any;
    uint64_t *bits;
} remembered;

struct grammar {
    const grammar_vocabulary *vocabulary;
    grammar_program program;
    uint64_t *places;
    place_set *sets;
    uint32_t *slots; /* hash table of sets: set + 1; 0 is free */
    uint32_t *rows;  /* [most_rows][n_classes] next state, NONE: not known yet */
    uint32_t *moved; /* [SETS] for clearing the tables */
    uint32_t n_places, n_sets, n_rows, most_rows;
    step_work work;
    uint32_t *path, *path_rows; /* [deepest + 1] states on the way to a node of the trie, and their rows */
    uint8_t *bytes;             /* [deepest + 1] the bytes there */
    remembered masks[MASKS];
    uint32_t next_mask;
    uint32_t state;
    bool ended; /* a token that ends a turn was accepted */
};

static uint64_t place(uint32_t pc, uint32_t set) { return (uint64_t)pc << 32 | set; }
static uint32_t pc_of(uint64_t p) { return (uint32_t)(p >> 32); }
static uint32_t set_of(uint64_t p) { return (uint32_t)p; }

static uint64_t mix(uint64_t x) {
    x = (x ^ x >> 31) * 0x9e3779b97f4a7c15u;
    return x ^ x >> 29;
}

/* ---- sets ---- */

static uint32_t slot_of(const grammar *g, const uint64_t *places, uint32_t n) {
    uint64_t h = n;
    for (uint32_t i = 0; i < n; i++) h = mix(h + places[i]);
    uint32_t slot = (uint32_t)(h % SET_SLOTS);
    for (; g->slots[slot]; slot = (slot + 1) % SET_SLOTS) {
        const place_set *s = &g->sets[g->slots[slot] - 1];
        if (s->n == n && memcmp(g->places + s->first, places, n * sizeof *places) == 0) break;
    }
    return slot;
}

/* The number of a set of places, ascending; NONE: no room. */
static uint32_t intern(grammar *g, const uint64_t *places, uint32_t n) {
    uint32_t slot = slot_of(g, places, n);
    if (g->slots[slot]) return g->slots[slot] - 1;
    if (g->n_sets == SETS || n > PLACES - g->n_places) return NONE;
    memcpy(g->places + g->n_places, places, n * sizeof *places);
    g->sets[g->n_sets] = (place_set){g->n_places, n, NONE};
    g->n_places += n;
    g->slots[slot] = ++g->n_sets;
    return g->n_sets - 1;
}

/* Ascending, each once; returns how many are left. */
static uint32_t sort_places(uint64_t *x, uint32_t n) {
    uint32_t kept = 0;
    for (uint32_t gap = n > 8 ? n / 2 : 1; gap; gap /= 2) /* Shell's sort */
        for (uint32_t i = gap; i < n; i++) {
            uint64_t moved = x[i];
            uint32_t j = i;
            for (; j >= gap && x[j - gap] > moved; j -= gap) x[j] = x[j - gap];
            x[j] = moved;
        }
    for (uint32_t i = 0; i < n; i++)
        if (kept == 0 || x[kept - 1] != x[i]) x[kept++] = x[i];
    return kept;
}

/* Empties the tables but for the state at hand and what it refers to. Sets refer to older ones only, so one pass from
 * the newest to the oldest finds what is needed, and one back moves it, keeping every order. */
static void clear_tables(grammar *g) {
    uint32_t n = g->n_sets, *moved = g->moved;
    memset(moved, 0, n * sizeof *moved);
    moved[CORNER] = moved[g->state] = 1;
    for (uint32_t i = n; i-- > 0;)
        for (uint32_t j = 0; moved[i] && j < g->sets[i].n; j++) moved[set_of(g->places[g->sets[i].first + j])] = 1;
    g->n_sets = g->n_places = g->n_rows = 0;
    for (uint32_t i = 0; i < n; i++) {
        place_set old = g->sets[i];
        if (!moved[i]) continue;
        moved[i] = g->n_sets;
        g->sets[g->n_sets++] = (place_set){g->n_places, old.n, NONE};
        for (uint32_t j = 0; j < old.n; j++) {
            uint64_t p = g->places[old.first + j];
            g->places[g->n_places++] = place(pc_of(p), moved[set_of(p)]);
        }
    }
    g->state = moved[g->state];
    memset(g->slots, 0, SET_SLOTS * sizeof *g->slots);
    for (uint32_t i = 0; i < g->n_sets; i++) g->slots[slot_of(g, g->places + g->sets[i].first, g->sets[i].n)] = i + 1;
    for (uint32_t i = 0; i < MASKS; i++) g->masks[i].state = NONE;
}

/* ---- one step ---- */

static void follow(step_work *w, uint64_t p) {
    uint32_t slot = (uint32_t)(mix(p) % SEEN_SLOTS);
    for (; w->seen[slot]; slot = (slot + 1) % SEEN_SLOTS)
        if (w->seen[slot] == p + 1) return;
    if (w->n_used == STEP_PLACES) {
        w->full = true;
        return;
    }
    w->seen[slot] = p + 1;
    w->used[w->n_used++] = slot;
    w->todo[w->n_todo++] = p;
}

static void add_call(grammar *g, uint32_t rule, uint64_t caller) {
    step_work *w = &g->work;
    uint32_t rank = g->program.rules[rule].rank;
    if (w->n_calls == STEP_PLACES) {
        w->full = true;
        return;
    }
    w->calls[w->n_calls] = (pending_call){caller, w->first_call[rank]};
    w->first_call[rank] = w->n_calls++;
    w->called[rank / 64] |= (uint64_t)1 << rank % 64;
}

static void call(grammar *g, const grammar_instruction *in, uint64_t p) {
    uint64_t behind = p + ((uint64_t)1 << 32);
    const place_set *callers = &g->sets[set_of(p)];
    if (in->op == OP_CALL)
        add_call(g, in->a, behind);
    else
        for (uint32_t i = 0; i < callers->n; i++) add_call(g, in->a, g->places[callers->first + i]);
    if (g->program.rules[in->a].nullable) follow(&g->work, behind);
}

/* From the places in `todo` to those that wait for a byte. */
static void follow_all(grammar *g) {
    step_work *w = &g->work;
    while (w->n_todo) {
        uint64_t p = w->todo[--w->n_todo];
        const grammar_instruction *in = &g->program.code[pc_of(p)];
        const place_set *callers = &g->sets[set_of(p)];
        switch (in->op) {
        case OP_ACCEPT:
        case OP_MATCH:
            w->found[w->n_found++] = p;
            break;
        case OP_JUMP:
            follow(w, place(in->a, set_of(p)));
            break;
        case OP_SPLIT:
            follow(w, p + ((uint64_t)1 << 32));
            follow(w, place(in->a, set_of(p)));
            break;
        case OP_CALL:
        case OP_TAIL:
            call(g, in, p);
            break;
        case OP_RETURN:
            for (uint32_t i = 0; !w->inside && i < callers->n; i++) follow(w, g->places[callers->first + i]);
            break;
        }
    }
}

/* The callers of a rule as one set; NONE: no room. */
static uint32_t callers_of(grammar *g, uint32_t rank) {
    step_work *w = &g->work;
    uint32_t n = 0;
    for (uint32_t i = w->first_call[rank]; i != NONE; i = w->calls[i].next) w->callers[n++] = w->calls[i].caller;
    w->first_call[rank] = NONE;
    return intern(g, w->callers, sort_places(w->callers, n));
}

static void enter_rules(grammar *g) {
    step_work *w = &g->work;
    w->inside = true;
    for (uint32_t word = 0; word < mask_words(g->program.n_rules); word++)
        while (w->called[word]) {
            uint32_t rank = 64 * word;
            while (!(w->called[word] >> rank % 64 & 1)) rank++;
            w->called[word] &= ~((uint64_t)1 << rank % 64);
            uint32_t callers = callers_of(g, rank);
            if (callers == NONE) w->full = true;
            if (w->full) continue; /* the lists have to become empty all the same */
            follow(w, place(g->program.rules[g->program.by_rank[rank]].start, callers));
            follow_all(g);
        }
    w->inside = false;
}

/* The state of the places in `todo`; NONE: it does not fit the tables. */
static uint32_t settle(grammar *g) {
    step_work *w = &g->work;
    follow_all(g);
    enter_rules(g);
    uint32_t state = w->full ? NONE : intern(g, w->found, sort_places(w->found, w->n_found));
    while (w->n_used) w->seen[w->used[--w->n_used]] = 0;
    w->n_todo = w->n_found = w->n_calls = 0;
    w->full = false;
    return state;
}

static uint32_t compute_step(grammar *g, uint32_t state, uint8_t byte) {
    place_set from = g->sets[state];
    for (uint32_t i = 0; i < from.n; i++) {
        uint64_t p = g->places[from.first + i];
        const grammar_instruction *in = &g->program.code[pc_of(p)];
        if (in->op == OP_MATCH && byte_set_has(&g->program.sets[in->a], byte))
            follow(&g->work, p + ((uint64_t)1 << 32));
    }
    return settle(g);
}

/* Where the transitions of a state begin in `rows`; NONE: no room for them. */
static uint32_t row_of(grammar *g, uint32_t state) {
    place_set *s = &g->sets[state];
    if (s->row != NONE) return s->row;
    if (g->n_rows == g->most_rows) return NONE;
    s->row = g->n_rows++ * g->program.n_classes;
    memset(g->rows + s->row, 0xff, g->program.n_classes * sizeof *g->rows);
    return s->row;
}

/* The state after one more byte; CORNER: none; NONE: it does not fit the tables. */
static uint32_t step(grammar *g, uint32_t state, uint8_t byte) {
    uint32_t row = row_of(g, state);
    if (row == NONE) return NONE;
    uint32_t *next = &g->rows[row + g->program.class_of[byte]];
    if (*next == NONE) *next = compute_step(g, state, byte);
    return *next;
}

/* ---- the text ---- */

/* false: it does not fit the tables, and the state is CORNER. */
static bool enter_root(grammar *g) {
    uint32_t root = g->program.root;
    g->state = CORNER;
    g->ended = false;
    add_call(g, root, place(0, CORNER));
    if (g->program.rules[root].nullable) follow(&g->work, place(0, CORNER));
    uint32_t state = settle(g);
    if (state != NONE) g->state = state;
    return state != NONE;
}

void grammar_restart(grammar *g) {
    if (enter_root(g)) return;
    clear_tables(g);
    enter_root(g); /* it did fit into empty tables when the grammar was opened */
}

bool grammar_can_end(const grammar *g) {
    const place_set *s = &g->sets[g->state]; /* place(0, CORNER) is 0, the first of all */
    return s->n && g->places[s->first] == place(0, CORNER);
}

static bool too_ambiguous(bp_err *e) {
    return bp_fail(e, BP_ERR_UNSUPPORTED, 0,
                   "the grammar is too ambiguous here: the text so far can be read in more "
                   "ways than the tables hold");
}

/* The state after bytes [n]; NONE: it does not fit even empty tables. */
static uint32_t advance(grammar *g, const char *bytes, size_t n) {
    for (int attempt = 0; attempt < 2; attempt++) {
        uint32_t state = g->state;
        for (size_t i = 0; i < n && state != NONE && state != CORNER; i++) state = step(g, state, (uint8_t)bytes[i]);
        if (state != NONE) return state;
        clear_tables(g);
    }
    return NONE;
}

bool grammar_accept(grammar *g, int32_t id, bp_err *e) {
    const grammar_tokens *t = &g->vocabulary->tokens;
    char text[GRAMMAR_TOKEN_MOST];
    bool known = id >= 0 && (uint32_t)id < t->size;
    if (known && t->is_end(t->context, id)) {
        g->ended = g->ended || grammar_can_end(g);
        return g->ended || bp_fail(e, BP_ERR_ARGUMENT, 0, "the grammar does not allow the text to end here");
    }
    size_t n = known && !g->ended ? t->text(t->context, id, text, sizeof text) : 0;
    uint32_t state = n && n <= sizeof text ? advance(g, text, n) : CORNER;
    if (state == NONE) return too_ambiguous(e);
    if (state == CORNER) return bp_fail(e, BP_ERR_ARGUMENT, 0, "the grammar does not allow token %d here", (int)id);
    g->state = state;
    return true;
}

/* ---- allowed tokens ---- */

/* Finds the path down to depth d anew in tables that are cleared; false when that comes too often in one walk. */
static bool find_path(grammar *g, uint32_t d, unsigned *clears) {
    while ((*clears)++ < CLEARS_MOST) {
        uint32_t i = 0;
        clear_tables(g);
        g->path[0] = g->state;
        g->path_rows[0] = row_of(g, g->state);
        for (; i < d && g->path_rows[i] != NONE; i++) {
            g->path[i + 1] = step(g, g->path[i], g->bytes[i + 1]);
            g->path_rows[i + 1] = g->path[i + 1] == NONE ? NONE : row_of(g, g->path[i + 1]);
        }
        if (g->path_rows[i] != NONE) return true;
    }
    return false;
}

/* The step to depth d of the path that was not known yet; NONE: too ambiguous. */
static uint32_t new_step(grammar *g, uint32_t d, unsigned *clears) {
    uint32_t next = step(g, g->path[d - 1], g->bytes[d]);
    while (next == NONE && find_path(g, d - 1, clears)) next = step(g, g->path[d - 1], g->bytes[d]);
    return next;
}

static void allow(const grammar *g, remembered *m, uint32_t from, uint32_t to) {
    const int32_t *order = g->vocabulary->order;
    for (uint32_t i = from; i < to; i++) m->bits[order[i] / 64] |= (uint64_t)1 << order[i] % 64;
    m->any = m->any || to > from;
}

/* Walks the trie; false: too ambiguous. Tokens lie in the order of their nodes, so those of a branch that is left are
 * one run, and so are those between two such branches: no node has to be asked whether it is a token. */
static bool walk(grammar *g, remembered *m) {
    const grammar_vocabulary *v = g->vocabulary;
    unsigned clears = 0;
    uint32_t decided = 0; /* tokens of the order */
    g->path[0] = g->state;
    g->path_rows[0] = NONE;
    for (uint32_t i = 0; i < v->n_nodes;) {
        const trie_node *node = &v->nodes[i];
        uint32_t d = node->depth;
        if (g->path_rows[d - 1] == NONE && (g->path_rows[d - 1] = row_of(g, g->path[d - 1])) == NONE &&
            !find_path(g, d - 1, &clears))
            return false;
        uint32_t next = g->rows[g->path_rows[d - 1] + g->program.class_of[node->byte]];
        g->bytes[d] = node->byte;
        if (next == NONE && (next = new_step(g, d, &clears)) == NONE) return false;
        if (next == CORNER) {
            allow(g, m, decided, node->first);
            decided = v->nodes[node->next].first;
            i = node->next;
            continue;
        }
        g->path[d] = next;
        g->path_rows[d] = g->sets[next].row;
        i++;
    }
    allow(g, m, decided, v->nodes[v->n_nodes].first);
    return true;
}

static bool fill(grammar *g, remembered *m) {
    size_t words = mask_words(g->vocabulary->tokens.size);
    bool end = g->ended || grammar_can_end(g);
    m->state = NONE;
    m->any = end && g->vocabulary->has_end;
    for (size_t i = 0; i < words; i++) m->bits[i] = end ? g->vocabulary->ends[i] : 0;
    return g->ended || walk(g, m);
}

const uint64_t *grammar_allowed(grammar *g, bp_err *e) {
    remembered *m = NULL;
    for (uint32_t i = 0; i < MASKS && !g->ended; i++)
        if (g->masks[i].state == g->state) m = &g->masks[i];
    if (!m) {
        m = &g->masks[g->next_mask++ % MASKS];
        if (!fill(g, m)) return too_ambiguous(e), NULL;
        if (!g->ended) m->state = g->state;
    }
    if (m->any) return m->bits;
    if (g->ended || grammar_can_end(g))
        bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the text is complete, but the vocabulary has no token that ends a turn");
    else
        bp_fail(e, BP_ERR_UNSUPPORTED, 0, "no token of the vocabulary continues the text as the grammar wants it");
    return NULL;
}

/* ---- memory ---- */

static void layout(grammar *g, arena *a, uint32_t n_rules, uint32_t n_classes, const grammar_vocabulary *v) {
    step_work *w = &g->work;
    g->most_rows = (uint32_t)(ROW_BYTES / (n_classes * sizeof *g->rows));
    g->places = ARENA_NEW(a, uint64_t, PLACES);
    g->sets = ARENA_NEW(a, place_set, SETS);
    g->slots = ARENA_NEW(a, uint32_t, SET_SLOTS);
    g->rows = ARENA_NEW(a, uint32_t, (uint64_t)g->most_rows *n_classes);
    g->moved = ARENA_NEW(a, uint32_t, SETS);
    w->todo = ARENA_NEW(a, uint64_t, STEP_PLACES);
    w->found = ARENA_NEW(a, uint64_t, STEP_PLACES);
    w->seen = ARENA_NEW(a, uint64_t, SEEN_SLOTS);
    w->used = ARENA_NEW(a, uint32_t, STEP_PLACES);
    w->calls = ARENA_NEW(a, pending_call, STEP_PLACES);
    w->callers = ARENA_NEW(a, uint64_t, STEP_PLACES);
    w->first_call = ARENA_NEW(a, uint32_t, n_rules);
    w->called = ARENA_NEW(a, uint64_t, mask_words(n_rules));
    g->path = ARENA_NEW(a, uint32_t, (uint64_t)v->deepest + 1);
    g->path_rows = ARENA_NEW(a, uint32_t, (uint64_t)v->deepest + 1);
    g->bytes = ARENA_NEW(a, uint8_t, (uint64_t)v->deepest + 1);
    for (uint32_t i = 0; i < MASKS; i++) {
        g->masks[i].state = NONE;
        g->masks[i].bits = ARENA_NEW(a, uint64_t, mask_words(v->tokens.size));
    }
}

static grammar *grammar_new(const grammar_program *p, const grammar_vocabulary *v, bp_err *e) {
    grammar measured;
    arena a = arena_measure();
    ARENA_NEW(&a, grammar, 1);
    layout(&measured, &a, p->n_rules, p->n_classes, v);
    void *memory = a.overflow ? NULL : platform_alloc(a.used);
    if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the tables of a grammar"), NULL;
    a = arena_over(memory, a.used);
    grammar *g = ARENA_NEW(&a, grammar, 1);
    layout(g, &a, p->n_rules, p->n_classes, v);
    g->program = *p;
    g->vocabulary = v;
    memset(g->work.first_call, 0xff, p->n_rules * sizeof *g->work.first_call);
    intern(g, g->places, 0); /* CORNER */
    if (enter_root(g)) return g;
    platform_free(memory);
    return bp_fail(e, BP_ERR_UNSUPPORTED, 0, "the grammar begins in more ways than the tables hold"), NULL;
}

grammar *grammar_open(const grammar_vocabulary *v, const char *gbnf, size_t n, bp_err *e) {
    grammar_program p = {0};
    grammar_tree t;
    bool compiled = grammar_parse(&t, gbnf, n, e) && grammar_compile(&p, &t, e);
    platform_free(t.memory);
    grammar *g = compiled ? grammar_new(&p, v, e) : NULL;
    if (!g) platform_free(p.memory);
    return g;
}

void grammar_close(grammar *g) {
    if (!g) return;
    platform_free(g->program.memory);
    platform_free(g);
}
