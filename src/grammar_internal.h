/* grammar_internal.h - what the files of the grammar share: text -> tree (grammar_parse) -> program (grammar_compile)
 * -> states (grammar), and the trie of tokens (grammar_vocabulary). */
#ifndef BP_GRAMMAR_INTERNAL_H
#define BP_GRAMMAR_INTERNAL_H

#include "grammar.h"

/* Limits against hostile grammars. */
enum {
    GRAMMAR_TEXT_MOST = 1 << 18, /* bytes of GBNF */
    GRAMMAR_RULES_MOST = 8192,   /* named ones, character classes and repeated groups together */
    GRAMMAR_CODE_MOST = 1 << 18, /* instructions */
    GRAMMAR_BYTE_SETS_MOST = 512,
    GRAMMAR_DEPTH_MOST = 64 /* groups within groups */
};

/* ---- tree ---- */

typedef enum {
    NODE_ALTERNATIVE, /* a: its first element; next: the next alternative */
    NODE_LITERAL,     /* b bytes from bytes[a] on */
    NODE_CLASS,       /* b ranges from ranges[a] on, ascending and apart; rule: where its program stands */
    NODE_CALL,        /* a: rule */
    NODE_GROUP,       /* a: first alternative */
    NODE_REPEAT       /* a: element; low..high times; rule: where the element's program stands, if it needs one */
} node_kind;

#define REPEAT_ENDLESS UINT32_MAX
#define NO_RULE UINT32_MAX

typedef struct {
    node_kind kind;
    uint32_t next; /* element behind it; 0: none */
    uint32_t a, b;
    uint32_t low, high;
    uint32_t rule;
} grammar_node;

typedef struct {
    uint32_t low, high; /* characters, both included */
} grammar_range;

typedef struct {
    uint32_t name, name_bytes; /* in the text */
    uint32_t body;             /* named rule: first alternative, 0: not defined; else the class or repeated element */
    bool named;
} grammar_rule;

/* Lives in one block of `size` bytes that the parser's caller frees. */
typedef struct {
    const char *text;
    uint32_t n;
    grammar_node *nodes; /* [2 n + 2], the first is not used */
    grammar_range *ranges;
    uint8_t *bytes; /* of literals */
    grammar_rule *rules;
    uint32_t *names; /* hash table of named rules: rule + 1, 0 is free */
    uint32_t n_nodes, n_ranges, n_bytes, n_rules;
    uint32_t root;
    void *memory;
} grammar_tree;

/* Fills *t; t->memory (also on failure) is to be freed. text must outlive the tree. */
bool grammar_parse(grammar_tree *t, const char *text, size_t n, bp_err *e);

/* Fills *e with "line L, column C: what" of a byte of the text, returns false. */
bool grammar_wrong(const char *text, size_t at, bp_err *e, const char *what, const char *name, size_t name_bytes);

/* ---- program ---- */

typedef enum {
    OP_ACCEPT, /* the text may end here */
    OP_MATCH,  /* one byte of set a */
    OP_JUMP,   /* go on at a */
    OP_SPLIT,  /* go on at the next instruction, and at a */
    OP_CALL,   /* rule a, then the next instruction */
    OP_TAIL,   /* rule a, then return: its callers are its callee's */
    OP_RETURN
} grammar_op;

typedef struct {
    grammar_op op;
    uint32_t a;
} grammar_instruction;

typedef struct {
    uint32_t bits[8]; /* of 256 */
} byte_set;

typedef struct {
    uint32_t start;
    uint32_t rank; /* a rule comes before those it may call before any byte is read */
    bool nullable; /* may it be empty? */
} grammar_entry;

/* Program 0 is OP_ACCEPT. A position in it is called pc. */
typedef struct {
    grammar_instruction *code;
    grammar_entry *rules;
    uint32_t *by_rank; /* rule of a rank */
    byte_set *sets;
    uint32_t n_code, n_rules, n_sets, root;
    uint8_t class_of[256]; /* bytes that no set tells apart are of one class */
    uint32_t n_classes;
    void *memory;
} grammar_program;

/* p->memory (also on failure) is to be freed. */
bool grammar_compile(grammar_program *p, const grammar_tree *t, bp_err *e);

static inline bool byte_set_has(const byte_set *s, uint8_t byte) { return s->bits[byte / 32] >> byte % 32 & 1; }

/* ---- vocabulary ---- */

/* Node of the trie, in preorder: the beginning of one or more tokens. */
typedef struct {
    uint32_t next;  /* node behind all that begin with this one */
    uint32_t first; /* tokens of just these bytes: order[first] up to the next node's first */
    uint16_t depth; /* 1..: its bytes */
    uint8_t byte;   /* the last of them */
} trie_node;

struct grammar_vocabulary {
    grammar_tokens tokens;
    trie_node *nodes; /* [n_nodes + 1], the last one closes the list */
    int32_t *order;   /* tokens in the order of their bytes */
    uint32_t n_nodes, deepest;
    uint64_t *ends; /* tokens that end a turn, as bits */
    bool has_end;
};

static inline size_t mask_words(uint32_t tokens) { return bp_ceil_div(tokens, 64); }

#endif
