/* Leaf routines that move data between the user's arrays and the kernels' operands.
 *
 * One table per dtype: `load` converts a row to the computing type (FP32 for BF16), `store` writes
 * a row of results (bias, ReLU and rounding on the way), `transpose` brings filters next to each
 * other, in the computing type, and `transpose_out` a matrix of that type to the user's. Source
 * strides are in bytes and arbitrary; nothing is assumed about the alignment of a source. Compiled
 * with AVX2, so only modules imported after the processor was checked include it.
 */
#ifndef XSMMCONV_PACK_H
#define XSMMCONV_PACK_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "_pairs.h"
#include "_depthwise.h"

typedef struct {
  ptrdiff_t stored;    /* bytes of an element in the user's arrays */
  ptrdiff_t computed;  /* bytes of an element in the kernels' operands */
  void (*load)(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n);
  void (*store)(char* dst, ptrdiff_t stride, const void* src, ptrdiff_t n, const void* bias,
                int relu);
  void (*transpose)(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                    ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols);
  void (*transpose_out)(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                        ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols);
  void (*scatter)(void* dst, ptrdiff_t dst_c, const int64_t* tap, const char* src,
                  ptrdiff_t src_c, ptrdiff_t src_t, ptrdiff_t C, ptrdiff_t S);
  void (*gather)(char* dst, ptrdiff_t dst_l, ptrdiff_t dst_r, const void* src, ptrdiff_t src_r,
                 const int64_t* tap, ptrdiff_t lb, ptrdiff_t lanes, ptrdiff_t rows, ptrdiff_t S);
  void (*border)(void* dst, const char* src, const char* weights, const border_tap* taps,
                 ptrdiff_t count, ptrdiff_t width);
} pack_ops;

static inline float identity_f32(float v) { return v; }
static inline double identity_f64(double v) { return v; }

/* ---- store of a row --------------------------------------------------------------------------- */

/* relu(NaN) is NaN: the comparison is written so that a NaN is kept. */
#define XC_STORE(NAME, STORED, COMPUTED, ROUND)                                                  \
  static void store_##NAME(char* dst, ptrdiff_t stride, const void* src, ptrdiff_t n,            \
                           const void* bias, int relu) {                                         \
    const COMPUTED* in = (const COMPUTED*)src;                                                   \
    const COMPUTED b = bias ? *(const COMPUTED*)bias : (COMPUTED)0;                              \
    const int add = bias != NULL;                                                                \
    if (stride == (ptrdiff_t)sizeof(STORED)) {                                                   \
      STORED* out = (STORED*)dst;                                                                \
      if (!add && !relu && sizeof(STORED) == sizeof(COMPUTED)) {                                 \
        if ((const void*)out != src) memcpy(out, in, (size_t)n * sizeof(STORED));                \
      } else if (relu) {                                                                         \
        for (ptrdiff_t i = 0; i < n; i++) {                                                      \
          COMPUTED v = add ? in[i] + b : in[i];                                                  \
          out[i] = ROUND(v < (COMPUTED)0 ? (COMPUTED)0 : v);                                     \
        }                                                                                        \
      } else {                                                                                   \
        for (ptrdiff_t i = 0; i < n; i++) out[i] = ROUND(add ? in[i] + b : in[i]);               \
      }                                                                                          \
      return;                                                                                    \
    }                                                                                            \
    for (ptrdiff_t i = 0; i < n; i++) {                                                          \
      COMPUTED v = add ? in[i] + b : in[i];                                                      \
      if (relu && v < (COMPUTED)0) v = (COMPUTED)0;                                              \
      *(STORED*)(dst + i * stride) = ROUND(v);                                                   \
    }                                                                                            \
  }

/* scatter: dst[tap[t] + c*dst_c] = src[c][t], taps < 0 are left out.
 * gather: dst[l][r][t] = src[r*src_r + tap[t]*lb + l], in the order of dst. Plain loops: weights
 * are small. */
#define XC_WEIGHTS(NAME, STORED, COMPUTED, WIDEN, ROUND)                                         \
  static void scatter_##NAME(void* dst, ptrdiff_t dst_c, const int64_t* tap, const char* src,    \
                             ptrdiff_t src_c, ptrdiff_t src_t, ptrdiff_t C, ptrdiff_t S) {       \
    STORED v;                                                                                    \
    if (dst_c == 1) {                                                                            \
      for (ptrdiff_t t = 0; t < S; t++) {                                                        \
        COMPUTED* restrict out = (COMPUTED*)dst + tap[t];                                        \
        for (ptrdiff_t c = 0; c < C && tap[t] >= 0; c++) {                                       \
          memcpy(&v, src + c * src_c + t * src_t, sizeof v);                                     \
          out[c] = WIDEN(v);                                                                     \
        }                                                                                        \
      }                                                                                          \
      return;                                                                                    \
    }                                                                                            \
    for (ptrdiff_t c = 0; c < C; c++)                                                            \
      for (ptrdiff_t t = 0; t < S; t++) {                                                        \
        if (tap[t] < 0) continue;                                                                \
        memcpy(&v, src + c * src_c + t * src_t, sizeof v);                                       \
        ((COMPUTED*)dst)[tap[t] + c * dst_c] = WIDEN(v);                                         \
      }                                                                                          \
  }                                                                                              \
  static inline void gather_one_##NAME(char* dst, const COMPUTED* src, const int64_t* tap,       \
                                       ptrdiff_t lb, ptrdiff_t S) {                              \
    STORED* restrict out = (STORED*)dst;                                                         \
    for (ptrdiff_t t = 0; t < S; t++) out[t] = ROUND(src[tap[t] * lb]);                          \
  }                                                                                              \
  static void gather_##NAME(char* dst, ptrdiff_t dst_l, ptrdiff_t dst_r, const void* src,        \
                            ptrdiff_t src_r, const int64_t* tap, ptrdiff_t lb, ptrdiff_t lanes,  \
                            ptrdiff_t rows, ptrdiff_t S) {                                       \
    const COMPUTED* in = (const COMPUTED*)src;                                                   \
    if (dst_r < dst_l) {                                                                         \
      for (ptrdiff_t l = 0; l < lanes; l++)                                                      \
        for (ptrdiff_t r = 0; r < rows; r++)                                                     \
          gather_one_##NAME(dst + l * dst_l + r * dst_r, in + r * src_r + l, tap, lb, S);        \
    } else {                                                                                     \
      for (ptrdiff_t r = 0; r < rows; r++)                                                       \
        for (ptrdiff_t l = 0; l < lanes; l++)                                                    \
          gather_one_##NAME(dst + l * dst_l + r * dst_r, in + r * src_r + l, tap, lb, S);        \
    }                                                                                            \
  }

XC_STORE(f32, float, float, identity_f32)
XC_STORE(f64, double, double, identity_f64)
XC_STORE(bf16, uint16_t, float, bf16_round)

/* Sixteen at a time: the compiler would do as many operations for eight. */
static XC_AVX512_16 void store_bf16_512(char* dst, ptrdiff_t stride, const void* src, ptrdiff_t n,
                                        const void* bias, int relu) {
  const float* const in = (const float*)src;
  if (stride != 2) {
    store_bf16(dst, stride, src, n, bias, relu);
    return;
  }
  for (ptrdiff_t i = 0; i < n; i += 16) {
    const __mmask16 mask = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
    __m512 v = _mm512_maskz_loadu_ps(mask, in + i);
    if (bias) v = _mm512_add_ps(v, _mm512_set1_ps(*(const float*)bias));
    if (relu)
      v = _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ),
                             _mm512_setzero_ps());
    _mm256_mask_storeu_epi16(dst + 2 * i, mask, bf16_round16(v));
  }
}
XC_WEIGHTS(f32, float, float, identity_f32, identity_f32)
XC_WEIGHTS(f64, double, double, identity_f64, identity_f64)
XC_WEIGHTS(bf16, uint16_t, float, bf16_widen, bf16_round)

/* ---- the tables ------------------------------------------------------------------------------ */

/* PACK_PAIRS leaves BF16 as it is; it is for loading and transposing alone: `transpose` moves pairs
 * of columns, `transpose_out` single ones. */
enum { PACK_F32 = 0, PACK_F64 = 1, PACK_BF16 = 2, PACK_PAIRS = 3 };

/* `wide`: the kernels' instruction set is AVX-512. */
static inline const pack_ops* pack_ops_of(int dtype, int wide) {
  static const pack_ops wider[2] = {
      {4, 4, load_f32, store_f32, transpose_f32_512, transpose_f32_512, scatter_f32, gather_f32,
       border_f32_512},
      {2, 4, load_bf16_512, store_bf16_512, transpose_bf16_512, transpose_round_512, scatter_bf16,
       gather_bf16, border_f32_512},
  };
  static const pack_ops tables[4] = {
      {4, 4, load_f32, store_f32, transpose_f32, transpose_f32, scatter_f32, gather_f32,
       border_f32},
      {8, 8, load_f64, store_f64, transpose_f64, transpose_f64, scatter_f64, gather_f64,
       border_f64},
      {2, 4, load_bf16, store_bf16, transpose_bf16, transpose_round, scatter_bf16, gather_bf16,
       border_f32},
      {2, 2, load_u16_512, NULL, transpose_pairs, transpose_u16, NULL, NULL, NULL},
  };
  if (wide && (dtype == PACK_F32 || dtype == PACK_BF16)) return &wider[dtype == PACK_BF16];
  return &tables[dtype];
}

/* total += part, for n numbers of `size` bytes: FP32 or FP64. */
static inline void add_up(void* total, const void* part, ptrdiff_t n, ptrdiff_t size) {
  if (size == 4)
    for (ptrdiff_t i = 0; i < n; i++) ((float*)total)[i] += ((const float*)part)[i];
  else
    for (ptrdiff_t i = 0; i < n; i++) ((double*)total)[i] += ((const double*)part)[i];
}

/* dst[i*2 + r] = src[r][i] for two rows of FP32, rounded to BF16. */
static inline void interleave_rounded(char* dst, const char* src, ptrdiff_t row_stride, ptrdiff_t n,
                                      const pack_ops* ops) {
  const float *const even = (const float*)src, *const odd = (const float*)(src + row_stride);
  if (ops->transpose == transpose_f32_512)
    interleave_two_rounded_512((uint16_t*)dst, even, odd, n);
  else
    interleave_two_rounded((uint16_t*)dst, even, odd, n);
}

/* dst[i*rows + r] = src[r][i] for n columns of the computing type. */
static inline void interleave(char* dst, const char* src, ptrdiff_t row_stride, ptrdiff_t rows,
                              ptrdiff_t n, const pack_ops* ops) {
  if (rows == 2) { /* shuffles, where masks would store so few elements */
    if (ops->computed == 4)
      interleave_two_f32((float*)dst, (const float*)src, (const float*)(src + row_stride), n);
    else
      interleave_two_f64((double*)dst, (const double*)src, (const double*)(src + row_stride), n);
    return;
  }
  if (ops->computed == 4 && rows < 8) {
    const ptrdiff_t done =
        ops->transpose == transpose_f32_512
            ? interleave_few_f32((float*)dst, (const float*)src, row_stride / 4, rows, n)
            : interleave_few_avx2((float*)dst, (const float*)src, row_stride / 4, rows, n);
    dst += done * rows * 4;
    src += done * 4;
    n -= done;
  }
  ops->transpose(dst, rows, src, row_stride, ops->computed, rows, n);
}

/* How rows are packed to panels as they are, where PACK_BF16 is not to be converted. */
static inline const pack_ops* element_ops_of(int dtype, int wide) {
  static const pack_ops narrow_bf16 = {
      2, 2, load_u16, NULL, NULL, transpose_elements_u16, NULL, NULL, NULL};
  if (dtype == PACK_BF16) return wide ? pack_ops_of(PACK_PAIRS, 1) : &narrow_bf16;
  return pack_ops_of(dtype, wide);
}

/* Neighbours from two rows; dst may lie at any address. */
static inline void join_pairs(char* dst, const char* even, const char* odd, ptrdiff_t n) {
  const uint16_t *const low = (const uint16_t*)even, *const high = (const uint16_t*)odd;
  for (ptrdiff_t i = 0; i < n; i++) {
    const uint32_t both = low[i] | (uint32_t)high[i] << 16;
    memcpy(dst + 4 * i, &both, 4);
  }
}

/* dst[i*rows + r] = src[r][i], as they are. An even number of rows of BF16 are half as many of
 * pairs, which are interleaved elsewhere if dst is no place for numbers of 32 bits. */
static inline void interleave_elements(char* dst, const char* src, ptrdiff_t row_stride,
                                       ptrdiff_t rows, ptrdiff_t n, const pack_ops* ops,
                                       const pack_ops* single) {
  enum { PART = 256, ROWS = 16 };
  uint32_t pairs[ROWS / 2][PART], whole[ROWS / 2 * PART];
  if (ops->stored > 2) {
    interleave(dst, src, row_stride, rows, n, ops);
    return;
  }
  if (rows == 2) {
    join_pairs(dst, src, src + row_stride, n);
    return;
  }
  if (rows % 2 || rows > ROWS) {
    ops->transpose_out(dst, rows, src, row_stride, 2, rows, n);
    return;
  }
  for (ptrdiff_t i = 0; i < n; i += PART, src += 2 * PART, dst += 2 * PART * rows) {
    const ptrdiff_t m = n - i < PART ? n - i : PART;
    for (ptrdiff_t r = 0; r < rows; r += 2)
      join_pairs((char*)pairs[r / 2], src + r * row_stride, src + (r + 1) * row_stride, m);
    char* const to = (uintptr_t)dst % 4 ? (char*)whole : dst;
    interleave(to, (const char*)pairs, sizeof pairs[0], rows / 2, m, single);
    if (to != dst) memcpy(dst, to, 2 * (size_t)(m * rows));
  }
}

#endif
