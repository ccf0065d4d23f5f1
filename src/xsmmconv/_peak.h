/* The multiply-add peak of one core, by register-only loops: what every share is a share of. */
#ifndef XSMMCONV_PEAK_H
#define XSMMCONV_PEAK_H

#include <time.h>

static inline double peak_now(void) {
  struct timespec t;
  clock_gettime(CLOCK_MONOTONIC, &t);
  return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Independent accumulators hide the latency: 12 for a multiply-add, 24 for a BF16 dot product. */
#define XC_TWELVE(op, r)                                                                 \
  op " %%" r "15,%%" r "15,%%" r "0\n" op " %%" r "15,%%" r "15,%%" r "1\n"             \
  op " %%" r "15,%%" r "15,%%" r "2\n" op " %%" r "15,%%" r "15,%%" r "3\n"             \
  op " %%" r "15,%%" r "15,%%" r "4\n" op " %%" r "15,%%" r "15,%%" r "5\n"             \
  op " %%" r "15,%%" r "15,%%" r "6\n" op " %%" r "15,%%" r "15,%%" r "7\n"             \
  op " %%" r "15,%%" r "15,%%" r "8\n" op " %%" r "15,%%" r "15,%%" r "9\n"             \
  op " %%" r "15,%%" r "15,%%" r "10\n" op " %%" r "15,%%" r "15,%%" r "11\n"
#define XC_TWELVE_MORE(op, r)                                                            \
  op " %%" r "15,%%" r "15,%%" r "16\n" op " %%" r "15,%%" r "15,%%" r "17\n"           \
  op " %%" r "15,%%" r "15,%%" r "18\n" op " %%" r "15,%%" r "15,%%" r "19\n"           \
  op " %%" r "15,%%" r "15,%%" r "20\n" op " %%" r "15,%%" r "15,%%" r "21\n"           \
  op " %%" r "15,%%" r "15,%%" r "22\n" op " %%" r "15,%%" r "15,%%" r "23\n"           \
  op " %%" r "15,%%" r "15,%%" r "24\n" op " %%" r "15,%%" r "15,%%" r "25\n"           \
  op " %%" r "15,%%" r "15,%%" r "26\n" op " %%" r "15,%%" r "15,%%" r "27\n"
#define XC_LOOP(n, body)                                                                 \
  __asm__ volatile("vpxor %%xmm15,%%xmm15,%%xmm15\n"                                     \
                   "vxorps %%xmm0,%%xmm0,%%xmm0\n1:\n" body "dec %0\njnz 1b\n"           \
                   : "+r"(n)::"xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6",    \
                     "xmm7", "xmm8", "xmm9", "xmm10", "xmm11", "xmm15", "cc")

enum { PEAK_AVX2_F32, PEAK_AVX2_F64, PEAK_AVX512_F32, PEAK_AVX512_F64, PEAK_AVX512_BF16 };

/* GFLOP/s of about `rounds` rounds of 12 or 24 instructions; 2 operations per multiply-add. */
static inline double peak_gflops(int kind, long rounds) {
  long n = rounds;
  double flops = 0, start = peak_now();
  switch (kind) {
    case PEAK_AVX2_F32: XC_LOOP(n, XC_TWELVE("vfmadd231ps", "ymm")); flops = 12. * 16; break;
    case PEAK_AVX2_F64: XC_LOOP(n, XC_TWELVE("vfmadd231pd", "ymm")); flops = 12. * 8; break;
    case PEAK_AVX512_F32: XC_LOOP(n, XC_TWELVE("vfmadd231ps", "zmm")); flops = 12. * 32; break;
    case PEAK_AVX512_F64: XC_LOOP(n, XC_TWELVE("vfmadd231pd", "zmm")); flops = 12. * 16; break;
    case PEAK_AVX512_BF16:
      XC_LOOP(n, XC_TWELVE("vdpbf16ps", "zmm") XC_TWELVE_MORE("vdpbf16ps", "zmm"));
      flops = 24. * 64;
      break;
    default: return 0;
  }
  return flops * (double)rounds / (peak_now() - start) * 1e-9;
}

#endif
