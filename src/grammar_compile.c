/* Tree -> program. Characters beyond ASCII become alternatives of byte sequences; what may be called before any byte is
 * read is put in order, which a left recursive grammar has not. */
#include "grammar_internal.h"

#include "arena.h"
#include "platform.h"

/* Runs twice: without memory it only counts instructions. */
typedef struct {
    const grammar_tree *t;
    grammar_program *p;
    uint32_t n; /* instructions so far; stays behind GRAMMAR_CODE_MOST once that is reached */
} writer;

static uint32_t emit(writer *w, grammar_op op, uint32_t a) {
    if (w->n > GRAMMAR_CODE_MOST) return w->n;
    if (w->p->code) w->p->code[w->n] = (grammar_instruction){op, a};
    return w->n++;
}

static void aim(writer *w, uint32_t at, uint32_t target) {
    if (w->p->code) w->p->code[at].a = target;
}

/* ---- sets of bytes ---- */

static byte_set range_set(uint32_t low, uint32_t high) {
    byte_set s = {{0}};
    for (uint32_t b = low; b <= high; b++) s.bits[b / 32] |= 1u << b % 32;
    return s;
}

static void emit_match(writer *w, const byte_set *s) {
    grammar_program *p = w->p;
    uint32_t i = 0;
    if (p->sets) {
        const uint32_t known = (uint32_t)bp_min(p->n_sets, GRAMMAR_BYTE_SETS_MOST);
        while (i < known && memcmp(&p->sets[i], s, sizeof *s) != 0) i++;
        if (i < GRAMMAR_BYTE_SETS_MOST) p->sets[i] = *s;
        p->n_sets = (uint32_t)bp_max(p->n_sets, i + 1);
    }
    emit(w, OP_MATCH, i);
}

static void emit_range(writer *w, uint32_t low, uint32_t high) {
    byte_set s = range_set(low, high);
    emit_match(w, &s);
}

/* ---- classes ---- */

/* One way through a class: the bytes of all characters between two that agree in how they can be put apart. */
static void emit_way(writer *w, uint32_t low, uint32_t high, unsigned bytes) {
    static const uint32_t lead[] = {0, 0, 0xc0, 0xe0, 0xf0};
    uint32_t split = emit(w, OP_SPLIT, 0), shift = 6 * (bytes - 1);
    emit_range(w, lead[bytes] | low >> shift, lead[bytes] | high >> shift);
    while (shift) {
        shift -= 6;
        emit_range(w, 0x80 | (low >> shift & 0x3f), 0x80 | (high >> shift & 0x3f));
    }
    emit(w, OP_RETURN, 0);
    aim(w, split, w->n);
}

/* Characters of `bytes` bytes each: cut where the bytes behind the first that differs are not all of 80..bf. */
static void emit_ways(writer *w, uint32_t low, uint32_t high, unsigned bytes) {
    for (unsigned i = 1; i < bytes; i++) {
        uint32_t rest = (1u << 6 * i) - 1;
        if ((low & ~rest) == (high & ~rest)) continue;
        if (low & rest) {
            emit_ways(w, low, low | rest, bytes);
            emit_ways(w, (low | rest) + 1, high, bytes);
            return;
        }
        if ((high & rest) != rest) {
            emit_ways(w, low, (high & ~rest) - 1, bytes);
            emit_ways(w, high & ~rest, high, bytes);
            return;
        }
    }
    emit_way(w, low, high, bytes);
}

static byte_set ascii_of(const grammar_tree *t, const grammar_node *class) {
    byte_set s = {{0}};
    for (uint32_t i = 0; i < class->b; i++) {
        grammar_range r = t->ranges[class->a + i];
        for (uint32_t b = r.low; b <= r.high && b < 0x80; b++) s.bits[b / 32] |= 1u << b % 32;
    }
    return s;
}

/* The program of a class with more than ASCII. */
static void emit_class(writer *w, const grammar_node *class) {
    static const grammar_range kinds[] = {{0x80, 0x7ff}, {0x800, 0xd7ff}, {0xe000, 0xffff}, {0x10000, 0x10ffff}};
    static const unsigned bytes[] = {2, 3, 3, 4};
    byte_set ascii = ascii_of(w->t, class);
    for (uint32_t i = 0; i < class->b; i++) {
        grammar_range r = w->t->ranges[class->a + i];
        for (size_t k = 0; k < 4; k++) {
            uint32_t low = (uint32_t)bp_max(r.low, kinds[k].low), high = (uint32_t)bp_min(r.high, kinds[k].high);
            if (low <= high) emit_ways(w, low, high, bytes[k]);
        }
    }
    emit_match(w, &ascii); /* the last way; maybe no byte at all */
    emit(w, OP_RETURN, 0);
}

/* ---- elements ---- */

static void emit_alternatives(writer *w, uint32_t first);
static void emit_repeat(writer *w, const grammar_node *node);

static void emit_element(writer *w, uint32_t index) {
    const grammar_node *node = &w->t->nodes[index];
    switch (node->kind) {
    case NODE_LITERAL:
        for (uint32_t i = 0; i < node->b; i++) emit_range(w, w->t->bytes[node->a + i], w->t->bytes[node->a + i]);
        break;
    case NODE_CLASS:
        if (node->rule == NO_RULE) {
            byte_set ascii = ascii_of(w->t, node);
            emit_match(w, &ascii);
        } else {
            emit(w, OP_CALL, node->rule);
        }
        break;
    case NODE_CALL:
        emit(w, OP_CALL, node->a);
        break;
    case NODE_GROUP:
        emit_alternatives(w, node->a);
        break;
    case NODE_REPEAT:
        emit_repeat(w, node);
        break;
    case NODE_ALTERNATIVE:
        break;
    }
}

static void emit_repeat(writer *w, const grammar_node *node) {
    if (node->rule != NO_RULE) { /* copies: one instruction each */
        for (uint32_t i = 0; i < node->low && w->n <= GRAMMAR_CODE_MOST; i++) emit(w, OP_CALL, node->rule);
        if (node->high == REPEAT_ENDLESS) {
            emit(w, OP_SPLIT, w->n + 3);
            emit(w, OP_CALL, node->rule);
            emit(w, OP_JUMP, w->n - 2);
            return;
        }
        for (uint32_t left = node->high - node->low; left && w->n <= GRAMMAR_CODE_MOST; left--) {
            emit(w, OP_SPLIT, w->n + 2 * left);
            emit(w, OP_CALL, node->rule);
        }
    } else if (node->low == 1) {
        uint32_t start = w->n;
        emit_element(w, node->a);
        if (node->high == 1) return;
        emit(w, OP_SPLIT, w->n + 2);
        emit(w, OP_JUMP, start);
    } else if (node->high) {
        uint32_t start = emit(w, OP_SPLIT, 0);
        emit_element(w, node->a);
        if (node->high == REPEAT_ENDLESS) emit(w, OP_JUMP, start);
        aim(w, start, w->n);
    }
}

static void emit_alternatives(writer *w, uint32_t first) {
    uint32_t jumps = UINT32_MAX; /* those to the end, each naming the one before it until the end is known */
    for (uint32_t i = first; i; i = w->t->nodes[i].next) {
        uint32_t split = w->t->nodes[i].next ? emit(w, OP_SPLIT, 0) : UINT32_MAX;
        for (uint32_t element = w->t->nodes[i].a; element; element = w->t->nodes[element].next)
            emit_element(w, element);
        if (split == UINT32_MAX) break;
        jumps = emit(w, OP_JUMP, jumps);
        aim(w, split, w->n);
    }
    for (uint32_t at = jumps; w->p->code && at != UINT32_MAX;) {
        uint32_t before = w->p->code[at].a;
        aim(w, at, w->n);
        at = before;
    }
}

static void emit_rule(writer *w, uint32_t rule) {
    const grammar_rule *r = &w->t->rules[rule];
    if (w->p->rules) w->p->rules[rule].start = w->n;
    if (!r->named && w->t->nodes[r->body].kind == NODE_CLASS && w->t->nodes[r->body].rule == rule) {
        emit_class(w, &w->t->nodes[r->body]);
        return;
    }
    if (r->named)
        emit_alternatives(w, r->body);
    else
        emit_element(w, r->body);
    emit(w, OP_RETURN, 0);
}

static uint32_t emit_all(grammar_program *p, const grammar_tree *t) {
    writer w = {.t = t, .p = p};
    emit(&w, OP_ACCEPT, 0);
    for (uint32_t i = 0; i < t->n_rules && w.n <= GRAMMAR_CODE_MOST; i++) emit_rule(&w, i);
    return w.n;
}

/* A call with nothing behind it: lists that are written by recursion then need no more room than those by `*`. */
static void mark_tails(grammar_program *p) {
    for (uint32_t i = 0; i < p->n_code; i++) {
        uint32_t behind = i + 1;
        if (p->code[i].op != OP_CALL) continue;
        for (uint32_t hops = 0; p->code[behind].op == OP_JUMP && hops < 2 * GRAMMAR_DEPTH_MOST; hops++)
            behind = p->code[behind].a;
        if (p->code[behind].op == OP_RETURN) p->code[i].op = OP_TAIL;
    }
}

/* ---- order of rules ---- */

enum { RULE_NEW, RULE_OPEN, RULE_DONE };

/* A walk over what is reached from a rule's beginning without a byte, deeper into each rule that is called there: one
 * that is called while it is open itself is left recursive. */
typedef struct {
    grammar_program *p;
    uint8_t *seen;   /* [n_code] */
    uint8_t *states; /* [n_rules] */
    uint32_t *todo;  /* [2 n_code] places to look at, those of the innermost open rule last */
    uint32_t *open;  /* [n_rules] */
    uint32_t *bases; /* [n_rules] where the places of an open rule begin */
    uint32_t n_todo, n_open, left;
} ordering;

static void ordering_push(ordering *o, uint32_t pc) {
    if (o->seen[pc]) return;
    o->seen[pc] = 1;
    o->todo[o->n_todo++] = pc;
}

static void ordering_enter(ordering *o, uint32_t rule) {
    o->states[rule] = RULE_OPEN;
    o->bases[o->n_open] = o->n_todo;
    o->open[o->n_open++] = rule;
    ordering_push(o, o->p->rules[rule].start);
}

static void ordering_leave(ordering *o) {
    uint32_t rule = o->open[--o->n_open];
    o->states[rule] = RULE_DONE;
    o->p->rules[rule].rank = --o->left;
    o->p->by_rank[o->left] = rule;
}

/* The rule called at pc; false: it is left recursive. */
static bool ordering_call(ordering *o, uint32_t pc, uint32_t rule) {
    if (o->states[rule] == RULE_OPEN) return false;
    if (o->states[rule] == RULE_NEW) {
        o->todo[o->n_todo++] = pc; /* again, when it is known whether the rule may be empty */
        ordering_enter(o, rule);
    } else if (o->p->rules[rule].nullable) {
        ordering_push(o, pc + 1);
    }
    return true;
}

/* A named rule of the circle that ends in `rule`: what is not named is called from one place only, so there is one. */
static uint32_t named_of(const ordering *o, const grammar_tree *t, uint32_t rule) {
    uint32_t i = 0;
    while (o->open[i] != rule) i++;
    while (!t->rules[o->open[i]].named) i++;
    return o->open[i];
}

/* Everything below one rule; a left recursive rule in *culprit if there is one. */
static bool ordering_run(ordering *o, uint32_t rule, uint32_t *culprit) {
    ordering_enter(o, rule);
    while (o->n_open) {
        if (o->n_todo == o->bases[o->n_open - 1]) {
            ordering_leave(o);
            continue;
        }
        uint32_t pc = o->todo[--o->n_todo];
        grammar_instruction in = o->p->code[pc];
        if (in.op == OP_RETURN) o->p->rules[o->open[o->n_open - 1]].nullable = true;
        if (in.op == OP_SPLIT) ordering_push(o, pc + 1);
        if (in.op == OP_SPLIT || in.op == OP_JUMP) ordering_push(o, in.a);
        *culprit = in.a;
        if ((in.op == OP_CALL || in.op == OP_TAIL) && !ordering_call(o, pc, in.a)) return false;
    }
    return true;
}

static bool order_rules(grammar_program *p, const grammar_tree *t, bp_err *e) {
    uint32_t culprit = 0;
    arena a = arena_measure();
    ordering o = {.p = p, .left = p->n_rules};
    for (int pass = 0; pass < 2; pass++) {
        o.seen = ARENA_NEW(&a, uint8_t, p->n_code);
        o.states = ARENA_NEW(&a, uint8_t, p->n_rules);
        o.todo = ARENA_NEW(&a, uint32_t, 2 * (uint64_t)p->n_code);
        o.open = ARENA_NEW(&a, uint32_t, p->n_rules);
        o.bases = ARENA_NEW(&a, uint32_t, p->n_rules);
        if (pass == 1) break;
        void *memory = platform_alloc(a.used);
        if (!memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory to order the rules of the grammar");
        a = arena_over(memory, a.used);
    }
    bool ok = true;
    for (uint32_t i = 0; i < p->n_rules && ok; i++) ok = o.states[i] != RULE_NEW || ordering_run(&o, i, &culprit);
    if (!ok) culprit = named_of(&o, t, culprit);
    platform_free(a.base);
    if (ok) return true;
    return grammar_wrong(t->text, t->rules[culprit].name, e, "left recursion, use * or + instead, in rule",
                         t->text + t->rules[culprit].name, t->rules[culprit].name_bytes);
}

/* ---- classes of bytes ---- */

static void classify_bytes(grammar_program *p) {
    p->n_classes = 1;
    for (uint32_t s = 0; s < p->n_sets && p->n_classes < 256; s++) {
        uint32_t inside[256]; /* class -> the one for its bytes in the set, 0 not made yet */
        uint32_t outside[256] = {0}, n = p->n_classes;
        memset(inside, 0, sizeof inside);
        for (uint32_t b = 0; b < 256; b++) outside[p->class_of[b]] |= !byte_set_has(&p->sets[s], (uint8_t)b);
        for (uint32_t b = 0; b < 256; b++) {
            uint32_t class = p->class_of[b];
            if (!byte_set_has(&p->sets[s], (uint8_t)b) || !outside[class]) continue;
            if (!inside[class]) inside[class] = n++;
            p->class_of[b] = (uint8_t)inside[class];
        }
        p->n_classes = n;
    }
}

static void program_layout(grammar_program *p, arena *a) {
    p->code = ARENA_NEW(a, grammar_instruction, p->n_code);
    p->rules = ARENA_NEW(a, grammar_entry, p->n_rules);
    p->by_rank = ARENA_NEW(a, uint32_t, p->n_rules);
    p->sets = ARENA_NEW(a, byte_set, GRAMMAR_BYTE_SETS_MOST);
}

bool grammar_compile(grammar_program *p, const grammar_tree *t, bp_err *e) {
    *p = (grammar_program){.n_rules = t->n_rules, .root = t->root};
    p->n_code = emit_all(p, t);
    if (p->n_code > GRAMMAR_CODE_MOST)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the grammar is too large: it compiles to more than %d instructions",
                       GRAMMAR_CODE_MOST);
    arena a = arena_measure();
    program_layout(p, &a);
    p->memory = platform_alloc(a.used);
    if (!p->memory) return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the program of a grammar");
    a = arena_over(p->memory, a.used);
    program_layout(p, &a);
    emit_all(p, t);
    if (p->n_sets > GRAMMAR_BYTE_SETS_MOST)
        return bp_fail(e, BP_ERR_ARGUMENT, 0, "the grammar is too large: it uses more than %d different sets of bytes",
                       GRAMMAR_BYTE_SETS_MOST);
    mark_tails(p);
    classify_bytes(p);
    return order_rules(p, t, e);
}
