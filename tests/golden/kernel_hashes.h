/* Hashes of tests/kernel_cases.h, one per arithmetic class and per family of float functions. They change only with the
 * numbers themselves, on purpose; kernels.test.js reads the same lines. */
#ifndef BP_KERNEL_HASHES_H
#define BP_KERNEL_HASHES_H

#define GOLDEN_LUT8 0xba596b861de8d6d2
#define GOLDEN_POPCOUNT 0xde1b63863643c516
#define GOLDEN_FLOAT 0xd350fd1ea743063a
#define GOLDEN_MATHF 0xcea8787398db9393
#define GOLDEN_QUANT 0xbdd637ba43122eca

#endif
