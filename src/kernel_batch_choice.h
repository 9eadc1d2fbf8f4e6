/* kernel_batch_choice.h - the lut8 product of several tokens, by whichever way costs least: with 8 or 16 tokens in the
 * lanes (kernel_batch.h), or once per token. Before including it, after kernel_lut8.h, an ISA file defines what a pass
 * with 8 and with 16 lanes costs, whatever the number of tokens, in units of one row of the decode product:
 *
 *     enum { ROW8, TABLES8, ROW16, TABLES16 }     so much for a row, and so much for the tables */
#ifndef BP_KERNEL_BATCH_CHOICE_H
#define BP_KERNEL_BATCH_CHOICE_H

#define BATCH_LANES 8
#include "kernel_batch.h"
#define BATCH_LANES 16
#include "kernel_batch.h"

static void lut8_batch_choice(float *y, size_t y_stride, const kernel_signs *w, const void *inputs, size_t n_tokens,
                              size_t first, size_t end, void *scratch) {
    const size_t rows = (end - first) * KERNEL_TILE * w->planes, eight = bp_min(n_tokens, 8), rest = n_tokens - eight;
    const size_t cost8 = ROW8 * rows + TABLES8, cost16 = ROW16 * rows + TABLES16;
    if (n_tokens * rows > cost16 && cost8 + rest * rows > cost16) {
        lut8_batch16(y, y_stride, w, inputs, n_tokens, first, end, scratch);
        return;
    }
    size_t done = 0;
    if (eight * rows > cost8) {
        lut8_batch8(y, y_stride, w, inputs, eight, first, end, scratch);
        done = eight;
    }
    const size_t token_bytes = lut8_tables_offset(w->groups) + (size_t)w->groups * 32;
    lut8_batch_streams(y + done * y_stride, y_stride, w, (const uint8_t *)inputs + done * token_bytes, n_tokens - done,
                       first, end, scratch);
}

#endif
