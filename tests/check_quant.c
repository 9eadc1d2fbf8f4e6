/* check_quant.c - dequantization: blocks made by hand with their values worked out element by element, sizes, unaligned
 * sources, a golden hash over random blocks. */
#include "check.h"
#include "golden/kernel_hashes.h"
#include "kernel_cases.h"

static case_buffers cases;
static uint8_t block[256];
static float out[512];

static void put_half(size_t at, float x) {
    const uint16_t h = bp_half_from_float(x);
    block[at] = (uint8_t)h;
    block[at + 1] = (uint8_t)(h >> 8);
}

static void check_sizes(void) {
    static const struct {
        uint32_t type, elements, bytes;
        const char *name;
    } types[] = {{QUANT_F32, 1, 4, "F32"},
                 {QUANT_F16, 1, 2, "F16"},
                 {QUANT_BF16, 1, 2, "BF16"},
                 {QUANT_I8, 1, 1, "I8"},
                 {QUANT_Q4_0, 32, 18, "Q4_0"},
                 {QUANT_Q4_1, 32, 20, "Q4_1"},
                 {QUANT_Q8_0, 32, 34, "Q8_0"},
                 {QUANT_Q4_K, 256, 144, "Q4_K"},
                 {QUANT_Q6_K, 256, 210, "Q6_K"},
                 {12345, 0, 0, "?"},
                 {4, 0, 0, "?"}};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++) {
        uint32_t elements = 99, bytes = 99;
        CHECK(quant_block(types[i].type, &elements, &bytes) == (types[i].elements != 0), "type %u", types[i].type);
        CHECK(elements == types[i].elements && bytes == types[i].bytes, "type %u: %u %u", types[i].type, elements,
              bytes);
        CHECK(!strcmp(quant_name(types[i].type), types[i].name), "type %u", types[i].type);
    }
}

static void check_plain(void) {
    const float values[4] = {1.5f, -0.0f, 3e38f, -7.25f};
    for (size_t i = 0; i < 4; i++) {
        memcpy(block + 1 + 4 * i, &values[i], 4);
    }
    quant_dequantize(QUANT_F32, block + 1, out, 4);
    CHECK(!memcmp(out, values, sizeof values), "F32 is copied, from any address");
    put_half(1, 0.333251953125f);
    put_half(3, -2.0f);
    quant_dequantize(QUANT_F16, block + 1, out, 2);
    CHECK(out[0] == 0.333251953125f && out[1] == -2.0f, "F16 %g %g", (double)out[0], (double)out[1]);
    const uint8_t bf16[4] = {0x80, 0x3f, 0x40, 0xc0};
    quant_dequantize(QUANT_BF16, bf16, out, 2);
    CHECK(out[0] == 1.0f && out[1] == -3.0f, "BF16 %g %g", (double)out[0], (double)out[1]);
    const uint8_t i8[3] = {0x80, 0xff, 0x7f};
    quant_dequantize(QUANT_I8, i8, out, 3);
    CHECK(out[0] == -128.0f && out[1] == -1.0f && out[2] == 127.0f, "I8");
    out[0] = 5.0f;
    quant_dequantize(QUANT_F32, NULL, out, 0);
    quant_dequantize(4, block, out, 32);
    CHECK(out[0] == 5.0f, "nothing is written for n = 0 or an unknown type");
}

static void check_small_blocks(void) {
    put_half(0, 0.5f);
    for (int i = 0; i < 32; i++) block[2 + i] = (uint8_t)(i * 9 - 140);
    quant_dequantize(QUANT_Q8_0, block, out, 32);
    for (int i = 0; i < 32; i++) CHECK(out[i] == 0.5f * (float)(int8_t)(i * 9 - 140), "Q8_0 %d", i);

    for (int i = 0; i < 16; i++) block[2 + i] = (uint8_t)(i | (15 - i) << 4);
    quant_dequantize(QUANT_Q4_0, block, out, 32);
    for (int i = 0; i < 16; i++) {
        CHECK(out[i] == 0.5f * (float)(i - 8), "Q4_0 %d", i);
        CHECK(out[16 + i] == 0.5f * (float)(7 - i), "Q4_0 %d", 16 + i);
    }

    put_half(2, -3.0f);
    for (int i = 0; i < 16; i++) block[4 + i] = (uint8_t)(i | (15 - i) << 4);
    quant_dequantize(QUANT_Q4_1, block, out, 32);
    for (int i = 0; i < 16; i++) {
        CHECK(out[i] == 0.5f * (float)i - 3.0f, "Q4_1 %d", i);
        CHECK(out[16 + i] == 0.5f * (float)(15 - i) - 3.0f, "Q4_1 %d", 16 + i);
    }
}

/* Scales 8 j + 5 and minima 63 - 8 j: both packings of the 6 bits occur */
static void check_q4_k(void) {
    memset(block, 0, sizeof block);
    put_half(0, 0.25f);
    put_half(2, 0.5f);
    for (int j = 0; j < 8; j++) {
        const int scale = 8 * j + 5, minimum = 63 - 8 * j;
        uint8_t *packed = block + 4;
        if (j < 4) {
            packed[j] |= (uint8_t)scale;
            packed[j + 4] |= (uint8_t)minimum;
        } else {
            packed[j + 4] = (uint8_t)((scale & 15) | (minimum & 15) << 4);
            packed[j - 4] |= (uint8_t)(scale >> 4 << 6);
            packed[j] |= (uint8_t)(minimum >> 4 << 6);
        }
    }
    for (int i = 0; i < 128; i++) block[16 + i] = (uint8_t)(37 * i + 11);
    quant_dequantize(QUANT_Q4_K, block, out, 256);
    for (int i = 0; i < 256; i++) {
        const int j = i / 32, byte = 37 * (32 * (j / 2) + i % 32) + 11, q = byte >> (j & 1 ? 4 : 0) & 15;
        const float expected = 0.25f * (float)(8 * j + 5) * (float)q - 0.5f * (float)(63 - 8 * j);
        CHECK(out[i] == expected, "Q4_K %d: %g is not %g", i, (double)out[i], (double)expected);
    }
}

static void check_q6_k(void) {
    memset(block, 0, sizeof block);
    put_half(208, 0.125f);
    for (int j = 0; j < 16; j++) block[192 + j] = (uint8_t)(int8_t)(11 * j - 80);
    for (int i = 0; i < 256; i++) { /* element i has q = (29 i) mod 64 */
        const int q = 29 * i & 63, half = i / 128, k = i % 128 / 32, l = i % 32;
        block[64 * half + 32 * (k & 1) + l] |= (uint8_t)((q & 15) << (k & 2 ? 4 : 0));
        block[128 + 32 * half + l] |= (uint8_t)(q >> 4 << 2 * k);
    }
    quant_dequantize(QUANT_Q6_K, block, out, 256);
    for (int i = 0; i < 256; i++) {
        const float expected = 0.125f * (float)(11 * (i / 16) - 80) * (float)((29 * i & 63) - 32);
        CHECK(out[i] == expected, "Q6_K %d: %g is not %g", i, (double)out[i], (double)expected);
    }
}

/* Two blocks at once, from an odd address */
static void check_runs(void) {
    uint8_t two[421];
    case_rng rng = {5};
    case_bytes(&rng, two, sizeof two);
    two[1 + 209] = two[1 + 210 + 209] = 0x2c;
    quant_dequantize(QUANT_Q6_K, two + 1, out, 512);
    float second[256];
    memcpy(block, two + 1 + 210, 210);
    quant_dequantize(QUANT_Q6_K, block, second, 256);
    CHECK(!memcmp(second, out + 256, sizeof second), "second block of a run");
}

int main(void) {
    check_sizes();
    check_plain();
    check_small_blocks();
    check_q4_k();
    check_q6_k();
    check_runs();
    CHECK(golden_quant(&cases) == GOLDEN_QUANT, "golden hash is 0x%016llx", (unsigned long long)golden_quant(&cases));
    return check_end();
}
