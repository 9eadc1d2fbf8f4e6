/* small_file.h - a whole bitpair file of 12 KB, made in memory: one block in two stages (q, k and v fused; the second
 * stage renews the middle scales of one matrix), a byte-level tokenizer of a few letters, checksums; and the places of all
 * numbers in its header, for tests that change them. */
#ifndef BP_SMALL_FILE_H
#define BP_SMALL_FILE_H

#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "engine.h"
#include "gguf.h"
#include "io/gguf_write.h"
#include "kernel.h"
#include "sha256.h"

enum { SMALL_D = 32, SMALL_FF = 32, SMALL_VOCAB = 20, SMALL_K = 32, SMALL_STAGES = 2, SMALL_FIELDS = 8192 };

/* bytes [size], 64-byte aligned, the caller frees them */
typedef struct {
    uint8_t *bytes;
    size_t size;
} small_file;

static inline uint64_t small_signs(uint64_t rows, uint64_t cols, uint64_t planes) {
    return bp_ceil_div(rows, KERNEL_TILE) * planes * (bp_round_up(cols, KERNEL_PAD) / 8) * KERNEL_TILE;
}

static inline void small_put(gguf_writer *w, const char *name, uint32_t type, uint64_t n) {
    gguf_put_tensor(w, name, type, 1, &n);
}

static inline void small_put_keys(gguf_writer *w) {
    static const struct {
        const char *name;
        uint32_t value;
    } counts[] = {{"bitpair.version", 2},
                  {"llama.block_count", 1},
                  {"llama.embedding_length", SMALL_D},
                  {"llama.feed_forward_length", SMALL_FF},
                  {"llama.attention.head_count", 2},
                  {"llama.attention.head_count_kv", 1},
                  {"llama.context_length", 64},
                  {"llama.vocab_size", SMALL_VOCAB},
                  {"bitpair.embedding.planes", 4},
                  {"tokenizer.ggml.eos_token_id", SMALL_VOCAB - 1}};
    static const char letters[] = "abcdefghijklmnopq ";
    gguf_text tokens[SMALL_VOCAB] = {{0}}, merge = {"a b", 3};
    int32_t types[SMALL_VOCAB];
    for (int i = 0; i < SMALL_VOCAB; i++) {
        tokens[i] = i < 18    ? (gguf_text){letters + i, 1}
                    : i == 18 ? (gguf_text){"ab", 2}
                              : (gguf_text){"<|im_end|>", 10};
        types[i] = i == SMALL_VOCAB - 1 ? 3 : 1;
    }
    tokens[17] = (gguf_text){"\xc4\xa0", 2}; /* GPT-2's space */
    gguf_put_string(w, "general.architecture", "llama", 5);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) gguf_put_u32(w, counts[i].name, counts[i].value);
    gguf_put_f32(w, "llama.rope.freq_base", 10000);
    gguf_put_string(w, "tokenizer.ggml.model", "gpt2", 4);
    gguf_put_string(w, "tokenizer.ggml.pre", "gpt-2", 5);
    gguf_put_strings(w, "tokenizer.ggml.tokens", tokens, SMALL_VOCAB);
    gguf_put_array(w, "tokenizer.ggml.token_type", GGUF_I32, types, SMALL_VOCAB);
    gguf_put_strings(w, "tokenizer.ggml.merges", &merge, 1);
}

/* Declares the tensors; ends [SMALL_STAGES] <- index of the last one of each stage. */
static inline void small_put_tensors(gguf_writer *w, size_t *ends) {
    static const struct {
        const char *name;
        uint32_t n, m;
    } layers[] = {{"attn_qkv", 2 * SMALL_D, SMALL_D},
                  {"attn_output", SMALL_D, SMALL_D},
                  {"ffn_gate", SMALL_FF, SMALL_D},
                  {"ffn_up", SMALL_FF, SMALL_D},
                  {"ffn_down", SMALL_D, SMALL_FF}};
    small_put(w, "token_embd.planes", QUANT_I8, small_signs(SMALL_VOCAB, SMALL_D, 4));
    small_put(w, "token_embd.scales", QUANT_F16, bp_round_up(SMALL_VOCAB, KERNEL_TILE));
    small_put(w, "output_norm.weight", QUANT_F32, SMALL_D);
    small_put(w, "blk.0.attn_norm.weight", QUANT_F32, SMALL_D);
    small_put(w, "blk.0.ffn_norm.weight", QUANT_F32, SMALL_D);
    for (int stage = 0; stage < SMALL_STAGES; stage++) {
        for (size_t i = 0; i < sizeof layers / sizeof *layers; i++) {
            uint32_t n = layers[i].n, m = layers[i].m, shape[] = {n, m, SMALL_K, SMALL_K};
            char name[64];
            snprintf(name, sizeof name, "bitpair.linear.blk.0.%s", layers[i].name);
            gguf_put_array(w, name, GGUF_U32, shape, 2 + SMALL_STAGES);
            const uint64_t sizes[] = {n, small_signs(n, SMALL_K, 1), SMALL_K, small_signs(SMALL_K, m, 1), m};
            for (int p = 0; p < 5; p++) {
                snprintf(name, sizeof name, "blk.0.%s.%d.%c", layers[i].name, stage, "aAcBb"[p]);
                ends[stage] = gguf_put_tensor(w, name, p % 2 ? QUANT_I8 : QUANT_F16, 1, &sizes[p]);
            }
        }
    }
    const uint64_t middle = SMALL_K;
    ends[SMALL_STAGES - 1] = gguf_put_tensor(w, "blk.0.ffn_down.0.c.1", QUANT_F16, 1, &middle);
}

/* Where the value of an array key begins; NULL where there is none of that size. */
static inline uint8_t *small_array(const gguf *g, const char *name, gguf_kind item, uint64_t count) {
    const gguf_key *key = gguf_find(g, name);
    if (!key || key->kind != GGUF_ARRAY || key->item != item || key->count != count) return NULL;
    return (uint8_t *)(uintptr_t)key->data;
}

/* Makes the checksums in a file agree with its bytes, as far as the header can be read: whoever makes a hostile file
 * can do that too. */
static inline void small_seal(uint8_t *bytes, size_t size) {
    gguf g;
    arena a = arena_measure();
    if (!gguf_open(&g, &a, bytes, size, NULL)) return;
    void *memory = NULL;
    if (posix_memalign(&memory, BP_ALIGN, bp_max(a.used, 1))) abort();
    a = arena_over(memory, a.used);
    if (gguf_open(&g, &a, bytes, size, NULL) && g.data_offset <= size) {
        uint64_t n = (g.full_size - g.data_offset + BP_PIECE - 1) / BP_PIECE;
        uint8_t *pieces = small_array(&g, "bitpair.piece_sha256", GGUF_U8, 32 * n);
        for (uint64_t i = 0; pieces && i < n; i++) {
            uint64_t start = g.data_offset + i * BP_PIECE;
            uint64_t end = i + 1 < n ? start + BP_PIECE : g.full_size;
            if (end <= size) sha256_digest(bytes + start, (size_t)(end - start), pieces + 32 * i);
        }
        uint8_t *header = small_array(&g, "bitpair.header_sha256", GGUF_U8, 32), digest[32];
        if (header) {
            memset(header, 0, 32);
            sha256_digest(bytes, (size_t)g.data_offset, digest);
            memcpy(header, digest, 32);
        }
    }
    free(memory);
}

static inline void small_fill(const gguf_writer *w, size_t n, small_file *f) {
    static const float one = 1;
    uint16_t half = 0x2a66; /* 0.05 */
    for (size_t i = 0; i < n; i++) {
        uint8_t *to = f->bytes + gguf_writer_offset(w, i);
        uint64_t bytes = gguf_writer_bytes(w, i);
        bool scale = i == 1 || (i > 4 && i % 2 == (i / 5) % 2); /* F16: the scales, and a, c, b of each stage */
        for (uint64_t at = 0; at < bytes; at++)
            to[at] = i == 0 || !scale ? (uint8_t)(at * 197 + at / 7 * 31) : ((const uint8_t *)&half)[at % 2];
        if (i >= 2 && i <= 4)
            for (uint64_t at = 0; at < bytes; at += 4) memcpy(to + at, &one, 4);
    }
}

static inline small_file small_file_make(void) {
    gguf_writer *w = gguf_writer_new();
    size_t ends[SMALL_STAGES];
    uint64_t tiers[SMALL_STAGES] = {0}, header_size, size;
    uint8_t digests[32] = {0}, *header = NULL;
    small_file f = {0};
    bp_err e;
    small_put_keys(w);
    small_put_tensors(w, ends);
    gguf_put_array(w, "bitpair.header_sha256", GGUF_U8, digests, 32);
    gguf_put_array(w, "bitpair.piece_sha256", GGUF_U8, digests, 32);
    for (int turn = 0; turn < 2; turn++) { /* the second time the tiers' ends are known */
        free(header);
        gguf_put_array(w, "bitpair.tiers", GGUF_U64, tiers, SMALL_STAGES);
        if (!gguf_writer_finish(w, 64, &header, &header_size, &size, &e)) abort();
        for (int i = 0; i < SMALL_STAGES; i++)
            tiers[i] = gguf_writer_offset(w, ends[i]) + gguf_writer_bytes(w, ends[i]);
    }
    f.size = (size_t)size;
    if (posix_memalign((void **)&f.bytes, BP_ALIGN, f.size)) abort();
    memset(f.bytes, 0, f.size);
    memcpy(f.bytes, header, (size_t)header_size);
    small_fill(w, ends[SMALL_STAGES - 1] + 1, &f);
    small_seal(f.bytes, f.size);
    free(header);
    gguf_writer_free(w);
    return f;
}

/* ---- the numbers of a header ---- */

typedef struct {
    size_t at;
    uint8_t bytes;
} small_field;

typedef struct {
    small_field fields[SMALL_FIELDS];
    size_t n, at;
    const uint8_t *bytes;
} small_map;

static inline uint64_t small_number(small_map *m, uint8_t bytes, bool keep) {
    uint64_t v = 0;
    memcpy(&v, m->bytes + m->at, bytes);
    if (keep && m->n < SMALL_FIELDS) m->fields[m->n++] = (small_field){m->at, bytes};
    m->at += bytes;
    return v;
}

static inline void small_text(small_map *m, bool keep) { m->at += small_number(m, 8, keep); }

/* Of arrays the first few items count. */
static inline void small_value(small_map *m, uint32_t kind, bool keep) {
    static const uint8_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    if (kind == GGUF_STRING) {
        small_text(m, keep);
    } else if (kind == GGUF_ARRAY) {
        uint32_t item = (uint32_t)small_number(m, 4, true);
        uint64_t count = small_number(m, 8, true);
        for (uint64_t i = 0; i < count; i++) small_value(m, item, i < 6);
    } else {
        small_number(m, sizes[kind], keep);
    }
}

/* Every count, length, kind, value, dimension, type and offset of a good header, in the order of the file. */
static inline void small_map_make(small_map *m, const uint8_t *bytes) {
    m->n = 0;
    m->at = 4;
    m->bytes = bytes;
    small_number(m, 4, true);
    uint64_t tensors = small_number(m, 8, true), keys = small_number(m, 8, true);
    for (uint64_t i = 0; i < keys; i++) {
        small_text(m, true);
        small_value(m, (uint32_t)small_number(m, 4, true), true);
    }
    for (uint64_t i = 0; i < tensors; i++) {
        small_text(m, true);
        uint64_t dims = small_number(m, 4, true);
        for (uint64_t d = 0; d < dims; d++) small_number(m, 8, true);
        small_number(m, 4, true);
        small_number(m, 8, true);
    }
}

#endif
