/* quant.c - dequantization of GGUF tensor types. Block layouts and formulas follow ggml's quantization formats; all
 * fields are little endian and read byte by byte or with memcpy, since blocks of odd sizes are not aligned. Quants are
 * copied out first: bytes that may lie in `out` would keep the loops from being vectorized. */
#include "quant.h"

#include "mathf.h"

typedef struct {
    uint32_t type;
    uint32_t elements, bytes;
    const char *name;
    void (*dequantize)(const uint8_t *src, float *out, size_t blocks);
} quant_format;

static uint16_t load_u16(const uint8_t *p) { return (uint16_t)(p[0] | p[1] << 8); }

static float load_half(const uint8_t *p) { return bp_half_to_float(load_u16(p)); }

static void dequantize_f32(const uint8_t *src, float *out, size_t blocks) {
    if (blocks) memcpy(out, src, blocks * sizeof(float));
}

static void dequantize_f16(const uint8_t *src, float *out, size_t blocks) {
    for (size_t i = 0; i < blocks; i++) out[i] = load_half(src + 2 * i);
}

static void dequantize_bf16(const uint8_t *src, float *out, size_t blocks) {
    for (size_t i = 0; i < blocks; i++) out[i] = bp_bf16_to_float(load_u16(src + 2 * i));
}

static void dequantize_i8(const uint8_t *src, float *out, size_t blocks) {
    for (size_t i = 0; i < blocks; i++) out[i] = (float)(int8_t)src[i];
}

/* d f16, q i8[32]: d q */
static void dequantize_q8_0(const uint8_t *src, float *out, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 34, out += 32) {
        const float d = load_half(src);
        for (int i = 0; i < 32; i++) out[i] = d * (float)(int8_t)src[2 + i];
    }
}

/* d f16, nibbles u8[16]: d (q - 8); low nibbles are elements 0..15, high ones 16..31 */
static void dequantize_q4_0(const uint8_t *src, float *out, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 18, out += 32) {
        const float d = load_half(src);
        uint8_t q[16];
        memcpy(q, src + 2, sizeof q);
        for (int i = 0; i < 16; i++) out[i] = (float)((q[i] & 15) - 8) * d;
        for (int i = 0; i < 16; i++) out[i + 16] = (float)((q[i] >> 4) - 8) * d;
    }
}

/* d f16, m f16, nibbles u8[16]: d q + m */
static void dequantize_q4_1(const uint8_t *src, float *out, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 20, out += 32) {
        const float d = load_half(src), m = load_half(src + 2);
        uint8_t q[16];
        memcpy(q, src + 4, sizeof q);
        for (int i = 0; i < 16; i++) out[i] = (float)(q[i] & 15) * d + m;
        for (int i = 0; i < 16; i++) out[i + 16] = (float)(q[i] >> 4) * d + m;
    }
}

/* Scale and minimum (6 bits each) of sub-block j of 8, packed in 12 bytes: sub-blocks 0..3 hold their low 6 bits in
 * bytes j and j + 4; sub-blocks 4..7 their low nibbles in byte j + 4, their top 2 bits on top of bytes j - 4 and j. */
static void q4_k_scale(const uint8_t *packed, int j, uint8_t *scale, uint8_t *minimum) {
    if (j < 4) {
        *scale = packed[j] & 63;
        *minimum = packed[j + 4] & 63;
    } else {
        *scale = (uint8_t)((packed[j + 4] & 15) | (packed[j - 4] >> 6) << 4);
        *minimum = (uint8_t)((packed[j + 4] >> 4) | (packed[j] >> 6) << 4);
    }
}

/* d f16, dmin f16, scales u8[12], nibbles u8[128]: d scale q - dmin minimum, 8 sub-blocks of 32; sub-blocks 2i and 2i+1
 * are the low and high nibbles of bytes 32i..32i+31 */
static void dequantize_q4_k(const uint8_t *src, float *out, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 144, out += 256) {
        const float d = load_half(src), dmin = load_half(src + 2);
        for (int j = 0; j < 8; j++) {
            uint8_t scale, minimum;
            q4_k_scale(src + 4, j, &scale, &minimum);
            const float step = d * (float)scale, low = dmin * (float)minimum;
            const int shift = 4 * (j & 1);
            uint8_t q[32];
            memcpy(q, src + 16 + 32 * (j / 2), sizeof q);
            for (int i = 0; i < 32; i++) out[32 * j + i] = step * (float)(q[i] >> shift & 15) - low;
        }
    }
}

/* ql u8[128], qh u8[64], scales i8[16], d f16: d scale (q - 32), 16 sub-blocks of 16. Per half of 128 elements, element
 * 32 k + l has its low nibble in ql[32 (k & 1) + l] (high half of the byte for k >= 2), its top bits in qh[l] >> 2k. */
static void dequantize_q6_k(const uint8_t *src, float *out, size_t blocks) {
    for (size_t b = 0; b < blocks; b++, src += 210, out += 256) {
        const float d = load_half(src + 208);
        for (int j = 0; j < 16; j++) {
            const int half = j / 8, k = j % 8 / 2, l = 16 * (j & 1);
            uint8_t low[16], high[16];
            memcpy(low, src + 64 * half + 32 * (k & 1) + l, sizeof low);
            memcpy(high, src + 128 + 32 * half + l, sizeof high);
            const float step = d * (float)(int8_t)src[192 + j];
            for (int i = 0; i < 16; i++) {
                const int q = (low[i] >> 4 * (k / 2) & 15) | (high[i] >> 2 * k & 3) << 4;
                out[16 * j + i] = step * (float)(q - 32);
            }
        }
    }
}

static const quant_format FORMATS[] = {
    {QUANT_F32, 1, 4, "F32", dequantize_f32},        {QUANT_F16, 1, 2, "F16", dequantize_f16},
    {QUANT_Q4_0, 32, 18, "Q4_0", dequantize_q4_0},   {QUANT_Q4_1, 32, 20, "Q4_1", dequantize_q4_1},
    {QUANT_Q8_0, 32, 34, "Q8_0", dequantize_q8_0},   {QUANT_Q4_K, 256, 144, "Q4_K", dequantize_q4_k},
    {QUANT_Q6_K, 256, 210, "Q6_K", dequantize_q6_k}, {QUANT_I8, 1, 1, "I8", dequantize_i8},
    {QUANT_BF16, 1, 2, "BF16", dequantize_bf16},
};

static const quant_format *quant_find(uint32_t type) {
    for (size_t i = 0; i < sizeof FORMATS / sizeof FORMATS[0]; i++)
        if (FORMATS[i].type == type) return &FORMATS[i];
    return NULL;
}

bool quant_block(uint32_t type, uint32_t *elements, uint32_t *bytes) {
    const quant_format *f = quant_find(type);
    *elements = f ? f->elements : 0;
    *bytes = f ? f->bytes : 0;
    return f != NULL;
}

const char *quant_name(uint32_t type) {
    const quant_format *f = quant_find(type);
    return f ? f->name : "?";
}

void quant_dequantize(uint32_t type, const void *src, float *out, size_t n) {
    const quant_format *f = quant_find(type);
    if (f) f->dequantize(src, out, n / f->elements);
}
