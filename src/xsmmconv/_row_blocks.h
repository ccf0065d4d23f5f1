/* Filtered rows: whole vectors of columns that all taps are for, a few vectors at a time.
 *
 * A part of _row_filter.h. Columns are the lanes, and each tap reads them elsewhere, so nearly every
 * vector would be loaded across the end of a line, which takes two loads. Hence FP32 and FP64 of
 * neighbouring taps are loaded half of the time, and otherwise shifted together from two vectors that
 * are in registers. Neighbours of BF16 are pairs as they lie. Columns of even numbers multiply them
 * by the pairs of taps (w0, w1), (w2, w3), ...; those of odd numbers the same vectors by (0, w0),
 * (w1, w2), ...: no vector is loaded twice. What would meet a zero there is made a zero itself.
 */
#ifndef XSMMCONV_ROW_BLOCKS_H
#define XSMMCONV_ROW_BLOCKS_H

#include "_row_dots.h"

/* Taps that read one row, equally far apart. */
typedef struct {
  const char* src;     /* what the first tap reads for column 0 */
  const char* weights; /* of BF16: after one zero, and two behind the last */
  ptrdiff_t taps;
  ptrdiff_t step;    /* bytes from what a tap reads for a column to what the next one does */
  ptrdiff_t shift;   /* tap j reads element m + shift + j*spacing for column m, */
  ptrdiff_t spacing; /* if that is at least 0 */
  ptrdiff_t length;  /* and less than this */
} row_run;

typedef struct {
  const row_run* runs;
  ptrdiff_t n_runs;
  ptrdiff_t taps;  /* of all of them */
  ptrdiff_t first; /* of the columns that all taps are for */
  ptrdiff_t end;
  const char* bias; /* in the computing type, or NULL */
  ptrdiff_t relu;
} row_filter;

/* ---- what differs between types and instruction sets ----------------------------------------- */

#define XC_SHIFT_16F(high, low, r)                                                               \
  _mm512_castsi512_ps(                                                                           \
      _mm512_alignr_epi32(_mm512_castps_si512(high), _mm512_castps_si512(low), r))
#define XC_SHIFT_8D(high, low, r)                                                                \
  _mm512_castsi512_pd(                                                                           \
      _mm512_alignr_epi64(_mm512_castpd_si512(high), _mm512_castpd_si512(low), r))

/* Bias and ReLU of some vectors; a NaN stays one. */
#define XC_FINISH(NAME, TARGET, VECTOR, NUMBER, SET, RELU)                                       \
  XC_INLINE TARGET void finish_##NAME(VECTOR* sum, const row_filter* f, const int n) {           \
    if (f->bias) {                                                                               \
      const VECTOR bias = SET(*(const NUMBER*)f->bias);                                          \
      XC_UNROLL for (int u = 0; u < n; u++) sum[u] += bias;                                      \
    }                                                                                            \
    if (f->relu) XC_UNROLL for (int u = 0; u < n; u++) sum[u] = RELU(sum[u]);                    \
  }
#define XC_RELU_16F(v)                                                                           \
  _mm512_mask_mov_ps(v, _mm512_cmp_ps_mask(v, _mm512_setzero_ps(), _CMP_LT_OQ), _mm512_setzero_ps())
#define XC_RELU_8D(v)                                                                            \
  _mm512_mask_mov_pd(v, _mm512_cmp_pd_mask(v, _mm512_setzero_pd(), _CMP_LT_OQ), _mm512_setzero_pd())
#define XC_RELU_8F(v) _mm256_andnot_ps(_mm256_cmp_ps(v, _mm256_setzero_ps(), _CMP_LT_OQ), v)
#define XC_RELU_4D(v) _mm256_andnot_pd(_mm256_cmp_pd(v, _mm256_setzero_pd(), _CMP_LT_OQ), v)
XC_FINISH(16f, XC_AVX512, __m512, float, _mm512_set1_ps, XC_RELU_16F)
XC_FINISH(8d, XC_AVX512, __m512d, double, _mm512_set1_pd, XC_RELU_8D)
XC_FINISH(8f, , __m256, float, _mm256_set1_ps, XC_RELU_8F)
XC_FINISH(4d, , __m256d, double, _mm256_set1_pd, XC_RELU_4D)

/* ---- FP32 and FP64: whole vectors of columns that all taps are for --------------------------- */

#define XC_STORE_SUMS(NAME, VECTOR)                                                              \
  finish_##NAME(sum, f, n);                                                                      \
  XC_UNROLL for (int u = 0; u < n; u++) ((VECTOR##_u*)dst)[u] = (VECTOR##_u)sum[u];

#define XC_LOADED_TAPS(VECTOR, NUMBER, SET, FMA)                                                 \
  for (ptrdiff_t j = 0; j < run->taps; j++) {                                                    \
    const VECTOR w = SET(((const NUMBER*)run->weights)[j]);                                      \
    const char* const from = src + j * run->step;                                                \
    XC_UNROLL for (int u = 0; u < n; u++)                                                        \
      sum[u] = FMA(sum[u], w, ((const VECTOR##_u*)from)[u]);                                     \
  }

/* The r-th of up to a vector of neighbouring taps; v holds what the first of them reads. */
#define XC_SHIFTED_TAP(VECTOR, NUMBER, SET, FMA, SHIFT, r)                                       \
  if (r >= some) break;                                                                          \
  XC_UNROLL for (int u = 0; u < n; u++) {                                                        \
    const int shifted = (r + u) % 2;                                                             \
    const VECTOR moved = shifted ? SHIFT(v[u + 1], v[u], r)                                      \
                                 : (VECTOR)((const VECTOR##_u*)(from + r * sizeof(NUMBER)))[u];  \
    sum[u] = FMA(sum[u], SET(w[r]), moved);                                                      \
  }
#define XC_TAPS_TO_7(DO, ...)                                                                    \
  DO(__VA_ARGS__, 1) DO(__VA_ARGS__, 2) DO(__VA_ARGS__, 3) DO(__VA_ARGS__, 4)                    \
  DO(__VA_ARGS__, 5) DO(__VA_ARGS__, 6) DO(__VA_ARGS__, 7)
#define XC_TAPS_TO_15(DO, ...)                                                                   \
  XC_TAPS_TO_7(DO, __VA_ARGS__) DO(__VA_ARGS__, 8) DO(__VA_ARGS__, 9) DO(__VA_ARGS__, 10)        \
  DO(__VA_ARGS__, 11) DO(__VA_ARGS__, 12) DO(__VA_ARGS__, 13) DO(__VA_ARGS__, 14)                \
  DO(__VA_ARGS__, 15)

/* Each run of a filter. */
#define XC_RUNS                                                                                  \
  for (const row_run* run = f->runs; run < f->runs + f->n_runs; run++)

#define XC_FILTER_WIDE(NAME, VECTOR, NUMBER, LANES, SET, FMA, SHIFT, SOME, TAPS)                 \
  XC_INLINE XC_AVX512 void filter_block_##NAME(char* dst, const row_filter* f, ptrdiff_t at,     \
                                               ptrdiff_t columns, const int n) {                 \
    VECTOR sum[8], v[9];                                                                         \
    (void)columns;                                                                               \
    XC_UNROLL for (int u = 0; u < n; u++) sum[u] = (VECTOR){0};                                  \
    XC_RUNS {                                                                                    \
      const char* const src = run->src + at * (ptrdiff_t)sizeof(NUMBER);                         \
      if (run->step != sizeof(NUMBER)) {                                                         \
        XC_LOADED_TAPS(VECTOR, NUMBER, SET, FMA)                                                 \
        continue;                                                                                \
      }                                                                                          \
      for (ptrdiff_t j = 0; j < run->taps; j += LANES) {                                         \
        const int some = run->taps - j < LANES ? (int)(run->taps - j) : LANES;                   \
        const char* const from = src + j * (ptrdiff_t)sizeof(NUMBER);                            \
        const NUMBER* const w = (const NUMBER*)run->weights + j;                                 \
        XC_UNROLL for (int u = 0; u < n; u++) v[u] = ((const VECTOR##_u*)from)[u];               \
        v[n] = SOME((1u << (some - 1)) - 1, from + n * (ptrdiff_t)sizeof(VECTOR));               \
        XC_UNROLL for (int u = 0; u < n; u++) sum[u] = FMA(sum[u], SET(w[0]), v[u]);             \
        do {                                                                                     \
          TAPS(XC_SHIFTED_TAP, VECTOR, NUMBER, SET, FMA, SHIFT)                                  \
        } while (0);                                                                             \
      }                                                                                          \
    }                                                                                            \
    XC_STORE_SUMS(NAME, VECTOR)                                                                  \
  }
XC_FILTER_WIDE(16f, __m512, float, 16, _mm512_set1_ps, XC_ROWS_16F, XC_SHIFT_16F, XC_SOME_16F,
               XC_TAPS_TO_15)
XC_FILTER_WIDE(8d, __m512d, double, 8, _mm512_set1_pd, XC_ROWS_8D, XC_SHIFT_8D, XC_SOME_8D,
               XC_TAPS_TO_7)

#define XC_FILTER_NARROW(NAME, VECTOR, NUMBER, SET, FMA)                                         \
  XC_INLINE void filter_block_##NAME(char* dst, const row_filter* f, ptrdiff_t at,               \
                                     ptrdiff_t columns, const int n) {                           \
    VECTOR sum[8];                                                                               \
    (void)columns;                                                                               \
    XC_UNROLL for (int u = 0; u < n; u++) sum[u] = (VECTOR){0};                                  \
    XC_RUNS {                                                                                    \
      const char* const src = run->src + at * (ptrdiff_t)sizeof(NUMBER);                         \
      XC_LOADED_TAPS(VECTOR, NUMBER, SET, FMA)                                                   \
    }                                                                                            \
    XC_STORE_SUMS(NAME, VECTOR)                                                                  \
  }
XC_FILTER_NARROW(8f, __m256, float, _mm256_set1_ps, XC_ROWS_8F)
XC_FILTER_NARROW(4d, __m256d, double, _mm256_set1_pd, XC_ROWS_4D)

/* ---- BF16 ------------------------------------------------------------------------------------ */

/* Two columns are a number of 32 bits, of which the first is the lower half. `native`: rounded, and
 * multiplied in pairs, by the processor. */
XC_INLINE XC_AVX512_16 void store_columns_16(char* dst, __m512 even, __m512 odd,
                                             ptrdiff_t columns, const int native) {
  const __mmask32 some = (__mmask32)bits_between(0, columns, 32);
  __m512i both;
  if (native) {
    const __m512i beside = _mm512_add_epi32(
        _mm512_set1_epi32(16 << 16),
        _mm512_mullo_epi32(_mm512_set1_epi32(0x10001), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8,
                                                                         9, 10, 11, 12, 13, 14,
                                                                         15)));
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(odd), "v"(even));
    both = _mm512_permutexvar_epi16(beside, both);
  } else {
    both = _mm512_or_si512(bf16_round16_low(even), _mm512_slli_epi32(bf16_round16_low(odd), 16));
  }
  if (columns == 32)
    _mm512_storeu_si512(dst, both);
  else
    _mm512_mask_storeu_epi16(dst, some, both);
}

/* Which halves of a vector of pairs are multiplied by a pair of taps: one may be missing. */
enum { XC_NONE = 0, XC_LOWER = 0xffff, XC_UPPER = (int)0xffff0000, XC_PAIRS = -1 };
XC_INLINE XC_AVX512_16 __m512 add_halves(__m512 sum, __m512i v, __m512i taps, const int halves) {
  if (halves == XC_NONE) return sum;
  if (halves != XC_PAIRS) v = _mm512_and_si512(v, _mm512_set1_epi32(halves));
  return multiply_row_pairs(sum, _mm512_castsi512_ps(v), _mm512_castsi512_ps(taps));
}

/* The pair of taps from j on, for columns of even numbers, and the one before it, for odd ones. Of
 * the last vector only so many elements are read. */
XC_INLINE XC_AVX512_16 void add_pairs(__m512* even, __m512* odd, const char* src,
                                      const char* weights, ptrdiff_t j, const int even_halves,
                                      const int odd_halves, const int n, ptrdiff_t elements) {
  uint32_t pair[2];
  memcpy(pair, weights + 2 * j - 2, 4);
  memcpy(pair + 1, weights + 2 * j, 4);
  const __m512i before = _mm512_set1_epi32((int)pair[0]), from = _mm512_set1_epi32((int)pair[1]);
  XC_UNROLL for (int u = 0; u < n; u++) {
    const char* const place = src + 2 * j + 64 * u;
    const __m512i v = u < n - 1 || elements == 32
                          ? _mm512_loadu_si512(place)
                          : _mm512_maskz_loadu_epi16((__mmask32)((1u << elements) - 1), place);
    even[u] = add_halves(even[u], v, from, even_halves);
    odd[u] = add_halves(odd[u], v, before, odd_halves);
  }
}

/* Of the last vector so many columns are computed: all, or all but one. */
XC_INLINE XC_AVX512_16 void filter_block_pairs(char* dst, const row_filter* f, ptrdiff_t at,
                                               ptrdiff_t columns, const int n) {
  __m512 even[8], odd[8];
  XC_UNROLL for (int u = 0; u < n; u++) even[u] = odd[u] = _mm512_setzero_ps();
  XC_RUNS {
    const char *const src = run->src + 2 * at, *const w = run->weights;
    const ptrdiff_t taps = run->taps;
    ptrdiff_t j = 2;
    if (taps == 1) {
      add_pairs(even, odd, src, w, 0, XC_LOWER, XC_UPPER, n, columns);
      continue;
    }
    add_pairs(even, odd, src, w, 0, XC_PAIRS, XC_UPPER, n, 32);
    for (; j < taps - 1; j += 2) add_pairs(even, odd, src, w, j, XC_PAIRS, XC_PAIRS, n, 32);
    if (j < taps)
      add_pairs(even, odd, src, w, j, XC_LOWER, XC_PAIRS, n, columns);
    else
      add_pairs(even, odd, src, w, j, XC_NONE, XC_LOWER, n, columns - 1);
  }
  finish_16f(even, f, n);
  finish_16f(odd, f, n);
  XC_UNROLL for (int u = 0; u < n; u++)
    store_columns_16(dst + 64 * u, even[u], odd[u], u < n - 1 ? 32 : columns, 1);
}

/* In FP32: one tap after the other, at any distance. */
#define XC_FILTER_WIDENED(NAME, TARGET, VECTOR, INTEGER, BITS, FMA, FINISH, STORE)               \
  XC_INLINE TARGET void filter_block_##NAME(char* dst, const row_filter* f, ptrdiff_t at,        \
                                            ptrdiff_t columns, const int n) {                    \
    const INTEGER upper = BITS##_set1_epi32(XC_UPPER);                                           \
    VECTOR even[8], odd[8];                                                                      \
    (void)columns;                                                                               \
    XC_UNROLL for (int u = 0; u < n; u++) even[u] = odd[u] = (VECTOR){0};                        \
    XC_RUNS for (ptrdiff_t j = 0; j < run->taps; j++) {                                          \
      const VECTOR w = BITS##_set1_ps(bf16_widen(bf16_at(run->weights + 2 * j)));                \
      const INTEGER##_u* const from = (const INTEGER##_u*)(run->src + 2 * at + j * run->step);   \
      XC_UNROLL for (int u = 0; u < n; u++) {                                                    \
        const INTEGER v = from[u];                                                               \
        even[u] = FMA(even[u], w, (VECTOR)BITS##_slli_epi32(v, 16));                             \
        odd[u] = FMA(odd[u], w, (VECTOR)(v & upper));                                            \
      }                                                                                          \
    }                                                                                            \
    FINISH(even, f, n);                                                                          \
    FINISH(odd, f, n);                                                                           \
    XC_UNROLL for (int u = 0; u < n; u++) STORE;                                                 \
  }
#define XC_STORE_16(NATIVE) store_columns_16(dst + 64 * u, even[u], odd[u], 32, NATIVE)
XC_FILTER_WIDENED(widened, XC_AVX512_16, __m512, __m512i, _mm512, XC_ROWS_16F, finish_16f,
                  XC_STORE_16(0))
XC_FILTER_WIDENED(rounded, XC_AVX512_16, __m512, __m512i, _mm512, XC_ROWS_16F, finish_16f,
                  XC_STORE_16(1))
XC_INLINE void store_columns_8(char* dst, __m256 even, __m256 odd) {
  const __m256i low = bf16_round8_low(even), high = bf16_round8_low(odd);
  _mm256_storeu_si256((__m256i*)dst, _mm256_or_si256(low, _mm256_slli_epi32(high, 16)));
}
XC_FILTER_WIDENED(widened8, , __m256, __m256i, _mm256, XC_ROWS_8F, finish_8f,
                  store_columns_8(dst + 32 * u, even[u], odd[u]))

#endif
