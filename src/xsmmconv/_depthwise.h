/* One channel against one filter, as in depthwise convolutions: no matrix product.
 *
 * A part of _pack.h, which says what its routines may assume.
 */
#ifndef XSMMCONV_DEPTHWISE_H
#define XSMMCONV_DEPTHWISE_H

#include "_pairs.h"

/* ---- a row of one channel against a row of one ----------------------------------------------- */

/* A tap that the columns first to end - 1 of a border tile use. */
typedef struct {
  ptrdiff_t source; /* bytes: what column 0 would read of it */
  ptrdiff_t weight;
  ptrdiff_t first;
  ptrdiff_t end;
} border_tap;

/* dst[m] = sum of weight * src[m] over the taps that column m uses; others change nothing. */
#define XC_BORDER(NAME, COMPUTED, V, VECTOR, ZERO, SET, LOAD, FMA, BLEND, FIRST, MASKLOAD,       \
                  MASKSTORE)                                                                     \
  static void border_##NAME(void* dst, const char* src, const char* weights,                     \
                            const border_tap* taps, ptrdiff_t count, ptrdiff_t width) {          \
    for (ptrdiff_t m = 0; m < width; m += 4 * V) {                                               \
      VECTOR acc[4] = {ZERO(), ZERO(), ZERO(), ZERO()};                                          \
      for (ptrdiff_t t = 0; t < count; t++) {                                                    \
        const ptrdiff_t lo = taps[t].first - m, hi = taps[t].end - m;                            \
        if (hi <= 0 || lo >= 4 * V) continue;                                                    \
        const COMPUTED* from = (const COMPUTED*)(src + taps[t].source) + m;                      \
        const VECTOR w = SET(*(const COMPUTED*)(weights + taps[t].weight));                      \
        if (lo <= 0 && hi >= 4 * V) {                                                            \
          for (int u = 0; u < 4; u++) acc[u] = FMA(w, LOAD(from + u * V), acc[u]);               \
          continue;                                                                              \
        }                                                                                        \
        for (int u = 0; u < 4; u++) {                                                            \
          const __m256i mask = _mm256_andnot_si256(FIRST(lo - u * V), FIRST(hi - u * V));        \
          const VECTOR sum = FMA(w, MASKLOAD(from + u * V, mask), acc[u]);                       \
          acc[u] = BLEND(acc[u], sum, (VECTOR)mask);                                             \
        }                                                                                        \
      }                                                                                          \
      for (int u = 0; u < 4; u++)                                                                \
        MASKSTORE((COMPUTED*)dst + m + u * V, FIRST(width - m - u * V), acc[u]);                 \
    }                                                                                            \
  }

XC_BORDER(f32, float, 8, __m256, _mm256_setzero_ps, _mm256_set1_ps, _mm256_loadu_ps,
          _mm256_fmadd_ps, _mm256_blendv_ps, first8, _mm256_maskload_ps, _mm256_maskstore_ps)
XC_BORDER(f64, double, 4, __m256d, _mm256_setzero_pd, _mm256_set1_pd, _mm256_loadu_pd,
          _mm256_fmadd_pd, _mm256_blendv_pd, first4, _mm256_maskload_pd, _mm256_maskstore_pd)

/* A tap and 16 columns are one masked step. */
static XC_AVX512 void border_f32_512(void* dst, const char* src, const char* weights,
                                     const border_tap* taps, ptrdiff_t count, ptrdiff_t width) {
  for (ptrdiff_t m = 0; m < width; m += 32) {
    const uint64_t columns = width - m < 32 ? (1ull << (width - m)) - 1 : 0xffffffff;
    __m512 low = _mm512_setzero_ps(), high = _mm512_setzero_ps();
    for (ptrdiff_t t = 0; t < count; t++) {
      const ptrdiff_t lo = taps[t].first > m ? taps[t].first - m : 0, hi = taps[t].end - m;
      if (hi <= 0 || lo >= 32) continue;
      const uint64_t used = (hi < 32 ? (1ull << hi) - 1 : 0xffffffff) >> lo << lo;
      const float* const from = (const float*)(src + taps[t].source) + m;
      const __m512 w = _mm512_set1_ps(*(const float*)(weights + taps[t].weight));
      const __mmask16 first = (__mmask16)used, second = (__mmask16)(used >> 16);
      low = _mm512_mask3_fmadd_ps(w, _mm512_maskz_loadu_ps(first, from), low, first);
      high = _mm512_mask3_fmadd_ps(w, _mm512_maskz_loadu_ps(second, from + 16), high, second);
    }
    _mm512_mask_storeu_ps((float*)dst + m, (__mmask16)columns, low);
    _mm512_mask_storeu_ps((float*)dst + m + 16, (__mmask16)(columns >> 16), high);
  }
}

/* ---- channels in the lanes ------------------------------------------------------------------- */

/* A position of a panel is a vector, of channels or of pairs of BF16: of what the position holds,
 * and of what the next tap reads (in dots: the next position). Of an odd number one is left over,
 * the first of the last pair. It is multiplied as FP32, since a zero beside it would turn an
 * infinity into a NaN. */

/* The sum of a*b in FP32, FP64, and of pairs and their first halves. */
#define XC_FMA_8F(sum, a, b) _mm256_fmadd_ps(a, b, sum)
#define XC_FMA_4D(sum, a, b) _mm256_fmadd_pd(a, b, sum)
#define XC_FMA_16F(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#define XC_FMA_8D(sum, a, b) _mm512_fmadd_pd(a, b, sum)
#define XC_FMA_PAIRS(sum, a, b) multiply_pairs(sum, a, &(b))
#define XC_FMA_FIRST(sum, a, b) _mm512_fmadd_ps(first_half(a), first_half(b), sum)
static inline __attribute__((always_inline)) XC_AVX512 __m512 first_half(__m512 pairs) {
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(pairs), 16));
}
static inline __attribute__((always_inline)) XC_AVX512 __m512 multiply_pairs(__m512 sum, __m512 a,
                                                                             const __m512_u* b) {
  /* Not every compiler that knows AVX-512 knows this one. */
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "m"(*b));
  return sum;
}

/* Rows in memory that are soon read and written: whoever computes meanwhile fetches their lines. */
typedef struct {
  const char* read;
  ptrdiff_t read_stride; /* bytes from row to row */
  char* write;
  ptrdiff_t write_stride;
  ptrdiff_t rows;
  ptrdiff_t stored; /* bytes of a column */
  /* Where kernels of LIBXSMM compute, before each of them: so many lines of what is read, */
  ptrdiff_t lines;
  ptrdiff_t width; /* and how many bytes there are in a row, and how many of the first are fetched */
  ptrdiff_t done;
} rows_ahead;

typedef void (*products_t)(const void* weights, const void* source, void* dst,
                           const unsigned long long* count, const unsigned long long* weight,
                           const unsigned long long* place, ptrdiff_t n, ptrdiff_t step,
                           ptrdiff_t to, const rows_ahead* ahead);
typedef void (*dots_t)(void* sums, const void* a, const void* b, ptrdiff_t n, ptrdiff_t taps,
                       ptrdiff_t spacing, ptrdiff_t step);

/* What is read comes to L2, as what is written needs L1. */
static inline void fetch(const rows_ahead* ahead, ptrdiff_t column, ptrdiff_t columns) {
  const ptrdiff_t end = (column + columns) * ahead->stored;
  for (ptrdiff_t i = column * ahead->stored; i < end; i += 64)
    for (ptrdiff_t r = 0; r < ahead->rows; r++) {
      _mm_prefetch(ahead->read + r * ahead->read_stride + i, _MM_HINT_T1);
      _mm_prefetch(ahead->write + r * ahead->write_stride + i, _MM_HINT_T0);
    }
}

/* To L1, though there may be more than it holds: so more of them are in L2 in time (measured). */
static inline void fetch_lines(rows_ahead* ahead) {
  ptrdiff_t lines = ahead->lines;
  while (lines > 0 && ahead->rows > 0) {
    for (; lines > 0 && ahead->done < ahead->width; --lines, ahead->done += 64)
      _mm_prefetch(ahead->read + ahead->done, _MM_HINT_T0);
    if (ahead->done >= ahead->width) {
      ahead->done = 0;
      ahead->read += ahead->read_stride;
      --ahead->rows;
    }
  }
}

/* Loops of a known length are to be registers. */
#define XC_UNROLL _Pragma("GCC unroll 32")

/* dst[m*to] (+)= sum_i weights_i * source_i[m*step] for n positions m; the i-th of `count` weights
 * and sources lie at offsets in bytes, as for a kernel. If it is `odd`, the last one is single. */
#define XC_PRODUCTS(NAME, TARGET, VECTOR, BLOCK, MULTIPLY, SINGLE)                               \
  static inline __attribute__((always_inline)) TARGET void products_block_##NAME(                \
      const char* weights, const char* source, VECTOR* dst, ptrdiff_t count,                     \
      const unsigned long long* weight, const unsigned long long* place, const int n,            \
      ptrdiff_t step, ptrdiff_t to, int add, int odd) {                                          \
    VECTOR sum[BLOCK];                                                                           \
    XC_UNROLL for (int m = 0; m < n; m++) sum[m] = add ? dst[m * to] : (VECTOR){0};              \
    for (ptrdiff_t i = 0; i < count - odd; i++) {                                                \
      const VECTOR w = *(const VECTOR*)(weights + weight[i]);                                    \
      const VECTOR* const from = (const VECTOR*)(source + place[i]);                             \
      XC_UNROLL for (int m = 0; m < n; m++) sum[m] = MULTIPLY(sum[m], w, from[m * step]);        \
    }                                                                                            \
    if (odd) {                                                                                   \
      const VECTOR w = *(const VECTOR*)(weights + weight[count - 1]);                            \
      const VECTOR* const from = (const VECTOR*)(source + place[count - 1]);                     \
      XC_UNROLL for (int m = 0; m < n; m++) sum[m] = SINGLE(sum[m], w, from[m * step]);          \
    }                                                                                            \
    XC_UNROLL for (int m = 0; m < n; m++) dst[m * to] = sum[m];                                  \
  }                                                                                              \
  static inline __attribute__((always_inline)) TARGET void products_##NAME(                      \
      const char* weights, const char* source, VECTOR* dst, ptrdiff_t count,                     \
      const unsigned long long* weight, const unsigned long long* place, ptrdiff_t n,            \
      ptrdiff_t step, ptrdiff_t to, const rows_ahead* ahead, int add, int odd) {                 \
    const ptrdiff_t bytes = step * (ptrdiff_t)sizeof(VECTOR), all = n;                           \
    const ptrdiff_t whole = step <= 2 ? n - n % BLOCK : 0;                                       \
    for (; n > all - whole; n -= BLOCK, dst += BLOCK * to, source += BLOCK * bytes) {            \
      fetch(ahead, all - n, BLOCK);                                                              \
      if (step == 1) /* distances known to the compiler */                                       \
        products_block_##NAME(weights, source, dst, count, weight, place, BLOCK, 1, to, add,     \
                              odd);                                                              \
      else                                                                                       \
        products_block_##NAME(weights, source, dst, count, weight, place, BLOCK, 2, to, add,     \
                              odd);                                                              \
    }                                                                                            \
    for (; n >= 8; n -= 8, dst += 8 * to, source += 8 * bytes)                                   \
      products_block_##NAME(weights, source, dst, count, weight, place, 8, step, to, add, odd);  \
    for (; n > 0; n--, dst += to, source += bytes)                                               \
      products_block_##NAME(weights, source, dst, count, weight, place, 1, step, to, add, odd);  \
  }                                                                                              \
  XC_PRODUCTS_AS(set_##NAME, TARGET, NAME, 0, 0)                                                 \
  XC_PRODUCTS_AS(add_##NAME, TARGET, NAME, 1, 0)
#define XC_PRODUCTS_AS(AS, TARGET, NAME, ADD, ODD)                                               \
  static TARGET void products_##AS(                                                              \
      const void* weights, const void* source, void* dst, const unsigned long long* count,       \
      const unsigned long long* weight, const unsigned long long* place, ptrdiff_t n,            \
      ptrdiff_t step, ptrdiff_t to, const rows_ahead* ahead) {                                   \
    products_##NAME(weights, source, dst, (ptrdiff_t)*count, weight, place, n, step, to, ahead,  \
                    ADD, ODD);                                                                   \
  }

/* sums[j] += sum_i a[i] * b[i*step + j*spacing] for n positions i and `taps` neighbouring taps j.
 * Some taps, or positions, at a time, so that there are enough sums to add to in turns. EACH:
 * positions of an element. */
#define XC_DOTS_OF_LANES(NAME, TARGET, VECTOR, BLOCK, EACH, MULTIPLY, SINGLE)                    \
  static inline __attribute__((always_inline)) TARGET void dots_of_block_##NAME(                 \
      VECTOR* sums, const VECTOR* a, const VECTOR* b, ptrdiff_t n, const int taps,               \
      const int together, ptrdiff_t spacing, ptrdiff_t step) {                                   \
    VECTOR sum[BLOCK][4];                                                                        \
    ptrdiff_t i = 0;                                                                             \
    for (int j = 0; j < taps; j++)                                                               \
      for (int u = 0; u < together; u++) sum[j][u] = (VECTOR){0};                                \
    for (; i + together * EACH <= n; i += together * EACH)                                       \
      for (int u = 0; u < together; u++) {                                                       \
        const VECTOR v = a[i + u * EACH];                                                        \
        const VECTOR* const from = b + (i + u * EACH) * step;                                    \
        for (int j = 0; j < taps; j++) sum[j][u] = MULTIPLY(sum[j][u], v, from[j * spacing]);    \
      }                                                                                          \
    for (; i + EACH <= n; i += EACH)                                                             \
      for (int j = 0; j < taps; j++)                                                             \
        sum[j][0] = MULTIPLY(sum[j][0], a[i], b[i * step + j * spacing]);                        \
    if (i < n)                                                                                   \
      for (int j = 0; j < taps; j++)                                                             \
        sum[j][0] = SINGLE(sum[j][0], a[i], b[i * step + j * spacing]);                          \
    for (int j = 0; j < taps; j++) {                                                             \
      for (int u = 1; u < together; u++) sum[j][0] += sum[j][u];                                 \
      sums[j] += sum[j][0];                                                                      \
    }                                                                                            \
  }                                                                                              \
  static TARGET void dots_of_lanes_##NAME(void* result, const void* lanes, const void* rows,     \
                                             ptrdiff_t n, ptrdiff_t taps, ptrdiff_t spacing,     \
                                             ptrdiff_t step) {                                   \
    VECTOR* sums = (VECTOR*)result;                                                              \
    const VECTOR *a = (const VECTOR*)lanes, *b = (const VECTOR*)rows;                            \
    for (; taps >= BLOCK && spacing == 1; taps -= BLOCK, sums += BLOCK, b += BLOCK)              \
      dots_of_block_##NAME(sums, a, b, n, BLOCK, 1, 1, step); /* known distances */              \
    for (; taps >= 6; taps -= 6, sums += 6, b += 6 * spacing)                                    \
      dots_of_block_##NAME(sums, a, b, n, 6, 2, spacing, step);                                  \
    for (; taps >= 3; taps -= 3, sums += 3, b += 3 * spacing)                                    \
      dots_of_block_##NAME(sums, a, b, n, 3, 4, spacing, step);                                  \
    for (; taps > 0; taps--, sums++, b += spacing)                                               \
      dots_of_block_##NAME(sums, a, b, n, 1, 4, spacing, step);                                  \
  }

XC_PRODUCTS(8f, , __m256_u, 12, XC_FMA_8F, XC_FMA_8F)
XC_PRODUCTS(4d, , __m256d_u, 12, XC_FMA_4D, XC_FMA_4D)
XC_PRODUCTS(16f, XC_AVX512, __m512_u, 24, XC_FMA_16F, XC_FMA_16F)
XC_PRODUCTS(8d, XC_AVX512, __m512d_u, 24, XC_FMA_8D, XC_FMA_8D)
XC_PRODUCTS(pairs, XC_AVX512, __m512_u, 24, XC_FMA_PAIRS, XC_FMA_FIRST)
XC_PRODUCTS_AS(set_odd, XC_AVX512, pairs, 0, 1)
XC_PRODUCTS_AS(add_odd, XC_AVX512, pairs, 1, 1)
XC_DOTS_OF_LANES(8f, , __m256_u, 12, 1, XC_FMA_8F, XC_FMA_8F)
XC_DOTS_OF_LANES(4d, , __m256d_u, 12, 1, XC_FMA_4D, XC_FMA_4D)
XC_DOTS_OF_LANES(16f, XC_AVX512, __m512_u, 16, 1, XC_FMA_16F, XC_FMA_16F)
XC_DOTS_OF_LANES(8d, XC_AVX512, __m512d_u, 16, 1, XC_FMA_8D, XC_FMA_8D)
XC_DOTS_OF_LANES(pairs, XC_AVX512, __m512_u, 16, 2, XC_FMA_PAIRS, XC_FMA_FIRST)

/* Pairs in place of n elements of FP32 that are BF16 with zeros behind: each with the one
 * `distance` further on (or back), or with a zero. n is a multiple of a vector. */
static XC_AVX512_16 void pair_lanes(void* panel, ptrdiff_t distance, ptrdiff_t n) {
  uint32_t* const v = (uint32_t*)panel;
  const ptrdiff_t step = distance > 0 ? 16 : -16;
  for (ptrdiff_t i = distance > 0 ? 0 : n - 16; i >= 0 && i < n; i += step) {
    const ptrdiff_t j = i + distance;
    const __m512i first = _mm512_srli_epi32(_mm512_loadu_si512(v + i), 16);
    const __m512i next = j >= 0 && j < n ? _mm512_loadu_si512(v + j) : _mm512_setzero_si512();
    _mm512_storeu_si512(v + i, _mm512_mask_blend_epi16(0xaaaaaaaa, first, next));
  }
}

/* dst[i][r] = (src[r][i], src[r][i + 1]) for n columns that are neighbours of up to 16 rows, and a
 * zero beside the last one. Two of them are an element of 32 bits, which is transposed; those
 * between are put together from two such. */
static XC_AVX512_16 void transpose_paired(void* dst, const char* src, ptrdiff_t row_stride,
                                          ptrdiff_t rows, ptrdiff_t n) {
  uint32_t* const to = (uint32_t*)dst;
  const ptrdiff_t half = n / 2;
  uint32_t* const even = to + 16 * (n - n % 2 - half); /* out of the way of what is written */
  transpose_f32_512(even, 16, src, row_stride, 4, rows, half);
  for (ptrdiff_t r = 0; r < rows && n % 2; r++)
    to[16 * (n - 1) + r] = bf16_at(src + r * row_stride + 2 * (n - 1));
  for (ptrdiff_t i = 0; i < half; i++) {
    const __m512i pair = _mm512_loadu_si512(even + 16 * i);
    const __m512i next = i + 1 < half ? _mm512_loadu_si512(even + 16 * (i + 1))
                         : n % 2      ? _mm512_loadu_si512(to + 16 * (n - 1))
                                      : _mm512_setzero_si512();
    _mm512_storeu_si512(to + 32 * i, pair);
    _mm512_storeu_si512(to + 32 * i + 16, _mm512_or_si512(_mm512_srli_epi32(pair, 16),
                                                          _mm512_slli_epi32(next, 16)));
  }
}

/* dst[r*ldo + i] = src[i][r], rounded to BF16, for n positions of `lanes` rows; n and ldo are even.
 * Rounded, two positions are an element of 32 bits, too. What src holds is lost. */
static XC_AVX512_16 void transpose_rounded(void* dst, ptrdiff_t ldo, char* src, ptrdiff_t n,
                                           ptrdiff_t lanes) {
  const __m512i beside = _mm512_or_si512(
      _mm512_set1_epi32(16 << 16),
      _mm512_mullo_epi32(_mm512_set1_epi32(0x10001), _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9,
                                                                       10, 11, 12, 13, 14, 15)));
  const ptrdiff_t half = n / 2;
  for (ptrdiff_t i = 0; i < half; i++) {
    const __m512 low = _mm512_loadu_ps(src + 128 * i), high = _mm512_loadu_ps(src + 128 * i + 64);
    __m512i both;
    __asm__("vcvtne2ps2bf16 %2, %1, %0" : "=v"(both) : "v"(high), "v"(low));
    _mm512_storeu_si512(src + 64 * i, _mm512_permutexvar_epi16(beside, both));
  }
  transpose_f32_512(dst, ldo / 2, src, 64, 4, half, lanes);
}

/* ---- the table ------------------------------------------------------------------------------- */

typedef struct {
  products_t set; /* results are overwritten, */
  products_t add; /* or added to */
  products_t set_odd;
  products_t add_odd; /* the same where the last of pairs is single */
  dots_t dots;
} lane_ops;

/* By dtype, as in _pack.h: BF16 is FP32, and PACK_PAIRS pairs of it. `wide`: with AVX-512. */
static inline const lane_ops* lane_ops_of(int dtype, int wide) {
  static const lane_ops single = {products_set_8f, products_add_8f, NULL, NULL, dots_of_lanes_8f};
  static const lane_ops tables[2][2] = {
      {{products_set_4d, products_add_4d, NULL, NULL, dots_of_lanes_4d},
       {products_set_8d, products_add_8d, NULL, NULL, dots_of_lanes_8d}},
      {{products_set_16f, products_add_16f, NULL, NULL, dots_of_lanes_16f},
       {products_set_pairs, products_add_pairs, products_set_odd, products_add_odd,
        dots_of_lanes_pairs}},
  };
  if (dtype == 1) return &tables[0][wide != 0];
  return wide ? &tables[1][dtype == 3] : &single;
}

#endif
