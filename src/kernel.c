/* kernel.c - one table per ISA of this build and machine, each filled from the reference upwards. */
#include "kernel_impl.h"
#include "platform.h"

enum { ISA_MAX = 4 };

typedef struct {
    const char *name;
    uint32_t cpu; /* PLATFORM_CPU_* bits that it needs */
    void (*fill)(kernel_table *table);
} kernel_isa;

/* Ascending: an ISA builds on all before it. */
static const kernel_isa ISAS[] = {
    {"ref", 0, kernel_fill_ref},
#if defined(__wasm_relaxed_simd__)
    {"relaxed", 0, kernel_fill_simd128},
#elif defined(__wasm_simd128__)
    {"simd128", 0, kernel_fill_simd128},
#endif
#if defined(__x86_64__)
    {"avx2", PLATFORM_CPU_AVX2 | PLATFORM_CPU_F16C, kernel_fill_avx2},
    {"avx512", PLATFORM_CPU_AVX512, kernel_fill_avx512},
#endif
#if defined(__aarch64__)
    {"neon", 0, kernel_fill_neon}, /* part of the architecture */
#endif
};

/* Filled once, by whichever thread asks first; others wait for it. */
static kernel_table tables[ISA_MAX];
static const char *names[ISA_MAX + 1];
static size_t table_count;
static int filled; /* 1: being filled, 2: there; access by __atomic builtins */

static void kernel_fill_tables(void) {
    const uint32_t cpu = platform_cpu();
    size_t n = 0;
    for (size_t i = 0; i < sizeof ISAS / sizeof ISAS[0]; i++) {
        if (ISAS[i].cpu & ~cpu) continue;
        if (n) tables[n] = tables[n - 1];
        ISAS[i].fill(&tables[n]);
        tables[n].isa = names[n] = ISAS[i].name;
        n++;
    }
    table_count = n;
}

static void kernel_need_tables(void) {
    int untouched = 0;
    if (__atomic_load_n(&filled, __ATOMIC_ACQUIRE) == 2) return;
    if (__atomic_compare_exchange_n(&filled, &untouched, 1, false, __ATOMIC_ACQUIRE, __ATOMIC_ACQUIRE)) {
        kernel_fill_tables();
        __atomic_store_n(&filled, 2, __ATOMIC_RELEASE);
    }
    while (__atomic_load_n(&filled, __ATOMIC_ACQUIRE) != 2) continue;
}

static bool names_equal(const char *a, const char *b) {
    while (*a && *a == *b) a++, b++;
    return *a == *b;
}

const kernel_table *kernel_table_for(const char *name) {
    kernel_need_tables();
    if (!name) return &tables[table_count - 1];
    for (size_t i = 0; i < table_count; i++)
        if (names_equal(names[i], name)) return &tables[i];
    return NULL;
}

const char *const *kernel_isas(void) {
    kernel_need_tables();
    return names;
}
