#include "block.h"

#include <stdlib.h>

static const struct {
    const char *name;
    size_t offset;
} parts[PARTS] = {
    [PART_Q] = {"attn_q", offsetof(model_layer, q)},         [PART_K] = {"attn_k", offsetof(model_layer, k)},
    [PART_V] = {"attn_v", offsetof(model_layer, v)},         [PART_O] = {"attn_output", offsetof(model_layer, o)},
    [PART_GATE] = {"ffn_gate", offsetof(model_layer, gate)}, [PART_UP] = {"ffn_up", offsetof(model_layer, up)},
    [PART_DOWN] = {"ffn_down", offsetof(model_layer, down)},
};

const char *part_name(part p) { return parts[p].name; }

const linear *part_linear(const model_layer *layer, part p) {
    return (const linear *)(const void *)((const char *)layer + parts[p].offset);
}

block_input part_input(part p) {
    return p < PART_O ? INPUT_QKV : p == PART_O ? INPUT_O : p == PART_DOWN ? INPUT_DOWN : INPUT_FEED;
}

/* Layers from p on that a fused stack takes together */
static uint32_t joined(part p) { return p == PART_Q ? 3 : p == PART_GATE ? 2 : p == PART_O || p == PART_DOWN ? 1 : 0; }

bool stack_fused(const model_layer *layer, part p) { return part_linear(layer, stack_first(p, true))->split[0] > 0; }

stack stack_of(const model_layer *layer, part p, bool fused) {
    const linear *w = part_linear(layer, p);
    if (w->split[0]) return (stack){w->n, w->m, joined(p)};
    if (!fused) return (stack){w->n, w->m, 1};
    stack s = {.parts = joined(p)};
    for (uint32_t i = 0; i < s.parts; i++) s.n += part_linear(layer, p + i)->n;
    if (s.parts) s.m = w->m;
    return s;
}

part stack_first(part p, bool fused) {
    while (fused && !joined(p)) p--;
    return p;
}

size_t stack_row(const model_layer *dense, part p, bool fused) {
    size_t row = 0;
    for (part q = stack_first(p, fused); q < p; q++) row += part_linear(dense, q)->n;
    return row;
}

bool stack_complete(part p, bool fused) { return !fused || p + 1 == PARTS || joined(p + 1); }

void stack_name(char *out, size_t capacity, uint32_t layer, part p, uint32_t n) {
    bp_format(out, capacity, "blk.%u.%s", (unsigned)layer,
              n < 2         ? parts[p].name
              : p == PART_Q ? "attn_qkv"
                            : "ffn_gate_up");
}

bool block_open(block_weights *b, const model_layer *layer, bp_err *e) {
    size_t total = 0;
    for (part p = 0; p < PARTS; p++) total += (size_t)part_linear(layer, p)->n * part_linear(layer, p)->m;
    float *at = b->memory = malloc(total * sizeof *at);
    if (!at)
        return bp_fail(e, BP_ERR_MEMORY, 0, "no memory for the weights of a block (%zu bytes)", total * sizeof *at);
    for (part p = 0; p < PARTS; p++) {
        b->W[p] = at;
        at += (size_t)part_linear(layer, p)->n * part_linear(layer, p)->m;
    }
    return true;
}

void block_close(block_weights *b) {
    free(b->memory);
    *b = (block_weights){0};
}

typedef struct {
    const linear *w;
    float *out;
} rows_task;

enum { ROWS = 64 };

static void dequantize_rows(void *context, size_t block, uint32_t worker) {
    const rows_task *t = context;
    (void)worker;
    for (size_t i = block * ROWS; i < bp_min((block + 1) * ROWS, t->w->n); i++)
        quant_dequantize(t->w->type, t->w->rows + i * t->w->row_bytes, t->out + i * t->w->m, t->w->m);
}

void block_dequantize(workers *w, block_weights *b, const model_layer *layer) {
    for (part p = 0; p < PARTS; p++) {
        rows_task t = {part_linear(layer, p), b->W[p]};
        workers_for(w, bp_ceil_div(t.w->n, ROWS), dequantize_rows, &t);
    }
}

void block_release(const file_view *mapped, const model_layer *layer) {
    for (part p = 0; p < PARTS; p++) {
        const linear *w = part_linear(layer, p);
        file_release(mapped, w->rows, w->n * w->row_bytes);
    }
}
