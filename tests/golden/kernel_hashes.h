/* Hashes of tests/kernel_cases.h, one per arithmetic class and per family of float functions. They change only with the
 * numbers themselves, on purpose; kernels.test.js reads the same lines. */
#ifndef BP_KERNEL_HASHES_H
#define BP_KERNEL_HASHES_H

#define GOLDEN_LUT8 0xba596b861de8d6d2
#define GOLDEN_POPCOUNT 0xde1b63863643c516
#define GOLDEN_FLOAT 0x1361a0fef0af1d38
#define GOLDEN_CACHE16 0xfcfc3ff94fc78474
#define GOLDEN_CACHE8 0xa19a685f665fe383
#define GOLDEN_MATHF 0xcea8787398db9393
#define GOLDEN_QUANT 0xbdd637ba43122eca

#endif
