/* Any bytes as a grammar: parsed and compiled, or refused with a place. (fuzz_grammar also runs what is compiled; this one
 * is a thousand times faster.) */
#include "fuzz.h"

#include "grammar_internal.h"
#include "platform.h"

static void check_program(const grammar_program *p) {
    LAW(p->n_code > 0 && p->code[0].op == OP_ACCEPT);
    for (uint32_t i = 0; i < p->n_code; i++) {
        grammar_instruction c = p->code[i];
        if (c.op == OP_MATCH) LAW(c.a < p->n_sets);
        if (c.op == OP_JUMP || c.op == OP_SPLIT) LAW(c.a < p->n_code);
        if (c.op == OP_CALL || c.op == OP_TAIL) LAW(c.a < p->n_rules);
        if (c.op == OP_MATCH || c.op == OP_SPLIT || c.op == OP_CALL) LAW(i + 1 < p->n_code);
    }
    for (uint32_t i = 0; i < p->n_rules; i++) LAW(p->rules[i].start < p->n_code);
    LAW(p->n_classes >= 1 && p->n_classes <= 256);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    char *text = (char *)fuzz_copy(data, size);
    grammar_tree t = {0};
    grammar_program p = {0};
    bp_err e = {0};
    if (!grammar_parse(&t, text, size, &e))
        fuzz_check_error(&e);
    else if (!grammar_compile(&p, &t, &e))
        fuzz_check_error(&e);
    else
        check_program(&p);
    if (e.code == BP_ERR_ARGUMENT) LAW(e.offset <= size);
    platform_free(p.memory);
    platform_free(t.memory);
    free(text);
    return 0;
}
