/* Rows of a source against the taps of filters: a row of results, or each s-th element of one.
 *
 * Whole vectors are in _row_blocks.h; here are the borders, and what a row consists of. Where not all
 * taps reach the source, each is multiplied where it does, and read nowhere else. A sum is over the
 * runs and their taps in their order, one by one or in pairs. It does not depend on the vector that
 * it is computed in.
 */
#ifndef XSMMCONV_ROW_FILTER_H
#define XSMMCONV_ROW_FILTER_H

#include "_row_blocks.h"

/* ---- columns that some taps are for, or too few for a vector --------------------------------- */

/* The first tap that reads what is so many elements behind what tap 0 reads, or more; or `taps`. */
XC_INLINE ptrdiff_t first_tap(ptrdiff_t behind, ptrdiff_t spacing, ptrdiff_t taps) {
  const ptrdiff_t j = behind <= 0 ? 0 : spacing == 1 ? behind : (behind - 1) / spacing + 1;
  return j < taps ? j : taps;
}

/* The products of the columns q to q + n - 1 that are read less than so many elements behind what
 * tap 0 reads for column q. */
XC_INLINE ptrdiff_t products_below(ptrdiff_t behind, ptrdiff_t n, const row_run* run) {
  const ptrdiff_t some = first_tap(behind - n + 1, run->spacing, run->taps);
  const ptrdiff_t none = first_tap(behind, run->spacing, run->taps);
  return some * n + (none - some) * behind - run->spacing * ((none - some) * (none + some - 1) / 2);
}
/* All of them that are within the row. */
XC_INLINE ptrdiff_t products(const row_run* run, ptrdiff_t q, ptrdiff_t n) {
  const ptrdiff_t before = -run->shift - q;
  return products_below(before + run->length, n, run) - products_below(before, n, run);
}

/* The columns q to q + n - 1, which are U vectors or less. What each of them reads is counted, from
 * the beginning of the row: for some columns, the first taps read what is in front of it, and the
 * last taps what is behind it. */
#define XC_FILTER_SOME(NAME, TARGET, VECTOR, INDEX, NUMBERS, LANES, SIZE, FINISH, WEIGHT, INSIDE, \
                       SOME, ADD, STORE)                                                         \
  XC_INLINE TARGET void add_run_##NAME(VECTOR* sum, const row_run* run, ptrdiff_t q,             \
                                       ptrdiff_t n, const int U) {                               \
    static const NUMBERS lanes = {XC_LANES_##LANES};                                             \
    const ptrdiff_t before = -run->shift - q, d = run->spacing;                                  \
    const ptrdiff_t end = first_tap(before + run->length, d, run->taps);                         \
    const NUMBERS length = XC_ALL(NUMBERS, run->length), next = XC_ALL(NUMBERS, d);              \
    ptrdiff_t j = first_tap(before - n + 1, d, end), first = j * d - before;                     \
    NUMBERS place[2] = {lanes + XC_ALL(NUMBERS, first), lanes + XC_ALL(NUMBERS, first + LANES)}; \
    const char* from = run->src + q * SIZE + j * run->step;                                      \
    for (; j < end; j++, from += run->step, first += d) {                                        \
      const VECTOR w = WEIGHT;                                                                   \
      XC_UNROLL for (int u = 0; u < U; u++) {                                                    \
        const __auto_type used = INSIDE((INDEX)place[u], (INDEX)length);                         \
        const char* const p = from + u * LANES * SIZE;                                           \
        sum[u] = ADD(sum[u], w, SOME, used);                                                     \
        place[u] += next;                                                                        \
      }                                                                                          \
    }                                                                                            \
  }                                                                                              \
  XC_INLINE TARGET void filter_vectors_##NAME(char* dst, const row_filter* f, ptrdiff_t q,       \
                                              ptrdiff_t n, const int U) {                        \
    VECTOR sum[2] = {{0}, {0}};                                                                  \
    XC_RUNS add_run_##NAME(sum, run, q, n, U);                                                   \
    FINISH(sum, f, U);                                                                           \
    XC_UNROLL for (int u = 0; u < U; u++)                                                        \
      STORE(dst + u * LANES * SIZE, n - u * LANES, sum[u]);                                      \
  }                                                                                              \
  XC_INLINE TARGET void filter_some_##NAME(char* dst, const row_filter* f, ptrdiff_t q,          \
                                           ptrdiff_t n) {                                        \
    if (n <= LANES)                                                                              \
      filter_vectors_##NAME(dst, f, q, n, 1);                                                    \
    else                                                                                         \
      filter_vectors_##NAME(dst, f, q, n, 2);                                                    \
  }
#define XC_ALL(NUMBERS, value) ((NUMBERS){0} + (__typeof__(((NUMBERS){0})[0]))(value))
#define XC_LANES_16 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define XC_LANES_8 0, 1, 2, 3, 4, 5, 6, 7
#define XC_LANES_4 0, 1, 2, 3
#define XC_WEIGHT(SET, NUMBER) SET(((const NUMBER*)run->weights)[j])
#define XC_WEIGHT_16(SET) SET(bf16_widen(bf16_at(run->weights + 2 * j)))
#define XC_INSIDE_8F(place, length)                                                              \
  _mm256_andnot_si256(_mm256_srai_epi32(place, 31), _mm256_cmpgt_epi32(length, place))
#define XC_INSIDE_4D(place, length)                                                              \
  _mm256_andnot_si256(_mm256_cmpgt_epi64(_mm256_setzero_si256(), place),                         \
                      _mm256_cmpgt_epi64(length, place))
#define XC_ADD_16F(sum, w, v, mask) _mm512_mask3_fmadd_ps(w, v, sum, mask)
#define XC_ADD_8D(sum, w, v, mask) _mm512_mask3_fmadd_pd(w, v, sum, mask)
#define XC_ADD_8F(sum, w, v, mask)                                                               \
  _mm256_blendv_ps(sum, _mm256_fmadd_ps(w, v, sum), _mm256_castsi256_ps(mask))
#define XC_ADD_4D(sum, w, v, mask)                                                               \
  _mm256_blendv_pd(sum, _mm256_fmadd_pd(w, v, sum), _mm256_castsi256_pd(mask))
#define XC_STORE_16F(p, n, v) _mm512_mask_storeu_ps(p, between_16f(0, n), v)
#define XC_STORE_8D(p, n, v) _mm512_mask_storeu_pd(p, between_8d(0, n), v)
#define XC_STORE_8F(p, n, v) _mm256_maskstore_ps((float*)(p), first8(n), v)
#define XC_STORE_4D(p, n, v) _mm256_maskstore_pd((double*)(p), first4(n), v)

/* Neighbours of a row as FP32. */
XC_INLINE XC_AVX512_16 __m512 some_widened(__mmask16 mask, const char* p) {
  return _mm512_castsi512_ps(
      _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(mask, p)), 16));
}
XC_INLINE XC_AVX512_16 void store_some_16(char* dst, ptrdiff_t n, __m512 v) {
  _mm256_mask_storeu_epi16(dst, between_16f(0, n), bf16_round16(v));
}
/* Elements at, at + 1, ... of a row, of which p is the first: those within the row are loaded with
 * their neighbours there (or what is in front of a panel) and moved to their lanes. */
XC_INLINE __m256 some_widened8(const char* p, ptrdiff_t at, ptrdiff_t length) {
  static const int8_t moved[48] = {-1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1,
                                   0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15,
                                   -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1};
  const ptrdiff_t most = length - 8, low = at < 0 || most < 0 ? 0 : at < most ? at : most;
  const ptrdiff_t by = at - low < -8 ? -8 : at - low > 8 ? 8 : at - low;
  uint16_t few[8] = {0};
  p -= 2 * (at - low);
  if (most < 0) p = (const char*)memcpy(few, p, 2 * (size_t)length);
  const __m128i v = _mm_shuffle_epi8(_mm_loadu_si128((const __m128i*)p),
                                     _mm_loadu_si128((const __m128i*)(moved + 16 + 2 * by)));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
XC_INLINE void store_some_8(char* dst, ptrdiff_t n, __m256 v) {
  const __m128i rounded = bf16_round8(v);
  memcpy(dst, &rounded, 2 * (size_t)(n < 8 ? n : 8));
}

XC_FILTER_SOME(16f, XC_AVX512, __m512, __m512i, __v16si, 16, 4, finish_16f,
               XC_WEIGHT(_mm512_set1_ps, float), _mm512_cmplt_epu32_mask, XC_SOME_16F(used, p),
               XC_ADD_16F, XC_STORE_16F)
XC_FILTER_SOME(8d, XC_AVX512, __m512d, __m512i, __v8di, 8, 8, finish_8d,
               XC_WEIGHT(_mm512_set1_pd, double), _mm512_cmplt_epu64_mask, XC_SOME_8D(used, p),
               XC_ADD_8D, XC_STORE_8D)
XC_FILTER_SOME(8f, , __m256, __m256i, __v8si, 8, 4, finish_8f, XC_WEIGHT(_mm256_set1_ps, float),
               XC_INSIDE_8F, XC_SOME_8F(used, p), XC_ADD_8F, XC_STORE_8F)
XC_FILTER_SOME(4d, , __m256d, __m256i, __v4di, 4, 8, finish_4d, XC_WEIGHT(_mm256_set1_pd, double),
               XC_INSIDE_4D, XC_SOME_4D(used, p), XC_ADD_4D, XC_STORE_4D)
XC_FILTER_SOME(widened, XC_AVX512_16, __m512, __m512i, __v16si, 16, 2, finish_16f,
               XC_WEIGHT_16(_mm512_set1_ps), _mm512_cmplt_epu32_mask, some_widened(used, p),
               XC_ADD_16F, store_some_16)
XC_FILTER_SOME(widened8, , __m256, __m256i, __v8si, 8, 2, finish_8f, XC_WEIGHT_16(_mm256_set1_ps),
               XC_INSIDE_8F, some_widened8(p, first + 8 * u, run->length), XC_ADD_8F, store_some_8)

/* The same in pairs, from a column of an even number on. A pair outside of the row, or half of one,
 * is not read, and so its taps are made zeros, too. */
XC_INLINE XC_AVX512_16 void add_some_pairs(__m512* even, __m512* odd, const char* src,
                                           const char* weights, __m512i* place, __m512i length,
                                           const int even_halves, const int odd_halves,
                                           const int U) {
  uint32_t pair[2];
  memcpy(pair, weights - 2, 4);
  memcpy(pair + 1, weights, 4);
  const __m512i before = _mm512_set1_epi32((int)pair[0]), from = _mm512_set1_epi32((int)pair[1]);
  XC_UNROLL for (int u = 0; u < U; u++) {
    const __mmask32 used = _mm512_cmplt_epu16_mask(place[u], length);
    const __m512i v = _mm512_maskz_loadu_epi16(used, src + 64 * u);
    even[u] = add_halves(even[u], v, _mm512_maskz_mov_epi16(used, from), even_halves);
    odd[u] = add_halves(odd[u], v, _mm512_maskz_mov_epi16(used, before), odd_halves);
    place[u] = _mm512_add_epi16(place[u], _mm512_set1_epi16(2));
  }
}
XC_INLINE XC_AVX512_16 void add_run_pairs(__m512* even, __m512* odd, const row_run* run,
                                          ptrdiff_t q, ptrdiff_t n, const int U) {
  static const uint8_t lanes[32] = {XC_LANES_16, 16, 17, 18, 19, 20, 21, 22, 23,
                                    24,          25, 26, 27, 28, 29, 30, 31};
  const ptrdiff_t before = -run->shift - q, taps = run->taps;
  const ptrdiff_t end = first_tap(before + run->length, 1, taps);
  ptrdiff_t j = first_tap(before - n + 1, 1, end) & ~(ptrdiff_t)1;
  /* Counted in 16 bits: what is read lies within so many elements, as taps are fewer than 2^14. */
  const ptrdiff_t most = 1 << 15, lo = before - j, hi = lo + run->length;
  const ptrdiff_t first = lo < 0 ? 0 : lo < most ? lo : most;
  const ptrdiff_t last = hi < first ? first : hi < most ? hi : most;
  const __m512i length = _mm512_set1_epi16((short)(last - first));
  const __m512i lane = _mm512_cvtepu8_epi16(_mm256_loadu_si256((const __m256i*)lanes));
  __m512i place[2] = {_mm512_sub_epi16(lane, _mm512_set1_epi16((short)first))};
  place[1] = _mm512_add_epi16(place[0], _mm512_set1_epi16(32));
  const char *const src = run->src + 2 * q, *const w = run->weights;
#define XC_ADD(EVEN, ODD)                                                                        \
  add_some_pairs(even, odd, src + 2 * j, w + 2 * j, place, length, EVEN, ODD, U)
  if (j == 0) {
    if (taps == 1)
      XC_ADD(XC_LOWER, XC_UPPER);
    else
      XC_ADD(XC_PAIRS, XC_UPPER);
    j = 2;
  }
  for (; j < taps - 1 && j <= end; j += 2) XC_ADD(XC_PAIRS, XC_PAIRS);
  if (j > end) return;
  if (j < taps)
    XC_ADD(XC_LOWER, XC_PAIRS);
  else
    XC_ADD(XC_NONE, XC_LOWER);
#undef XC_ADD
}
XC_INLINE XC_AVX512_16 void filter_some_pairs(char* dst, const row_filter* f, ptrdiff_t q,
                                              ptrdiff_t n) {
  __m512 even[2], odd[2];
  XC_UNROLL for (int u = 0; u < 2; u++) even[u] = odd[u] = _mm512_setzero_ps();
  dst -= 2 * (q % 2), n += q % 2, q -= q % 2; /* what is there already is computed again */
  if (n <= 32) {
    XC_RUNS add_run_pairs(even, odd, run, q, n, 1);
  } else {
    XC_RUNS add_run_pairs(even, odd, run, q, n, 2);
    finish_16f(even + 1, f, 1);
    finish_16f(odd + 1, f, 1);
    store_columns_16(dst + 64, even[1], odd[1], n - 32, 1);
  }
  finish_16f(even, f, 1);
  finish_16f(odd, f, 1);
  store_columns_16(dst, even[0], odd[0], n < 32 ? n : 32, 1);
}

/* ---- a row ----------------------------------------------------------------------------------- */

/* Some blocks of N vectors: by themselves, so that they have the registers that they need. */
#define XC_FILTER_BLOCKS(NAME, TARGET, COLUMNS, SIZE, N)                                         \
  static __attribute__((noinline, unused)) TARGET void filter_blocks_##NAME##_##N(               \
      char* dst, const row_filter* given, ptrdiff_t at, ptrdiff_t columns, ptrdiff_t blocks) {   \
    const row_filter f = *given;                                                                 \
    for (; blocks > 0; blocks--, at += N * COLUMNS)                                              \
      filter_block_##NAME(dst + at * SIZE, &f, at, columns, N);                                  \
  }

/* Computes the columns start to end - 1, start being even; column 0 is written to dst. Returns the
 * multiply-adds. */
typedef ptrdiff_t (*filter_row_t)(char* dst, const row_filter* f, ptrdiff_t start, ptrdiff_t end);

/* COLUMNS of a vector, of SIZE bytes, LEAST to MOST vectors at a time, the first column of an EVEN
 * number. SOME, of LANES columns, are for the borders and what is left beside them, or of short
 * rows. What is elsewhere too few for vectors is computed with columns before it, once again. */
#define XC_FILTER_ROW(NAME, TARGET, COLUMNS, SIZE, LEAST, MOST, EVEN, SOME, LANES)               \
  XC_FILTER_BLOCKS(NAME, TARGET, COLUMNS, SIZE, 1)                                               \
  XC_FILTER_BLOCKS(NAME, TARGET, COLUMNS, SIZE, 2)                                               \
  XC_FILTER_BLOCKS(NAME, TARGET, COLUMNS, SIZE, 4)                                               \
  XC_FILTER_BLOCKS(NAME, TARGET, COLUMNS, SIZE, 8)                                               \
  static TARGET ptrdiff_t filter_row_##NAME(char* dst, const row_filter* f, ptrdiff_t start,     \
                                            ptrdiff_t end) {                                     \
    const ptrdiff_t last = end < f->end ? end : f->end;                                          \
    const ptrdiff_t beside = end > last ? end - 2 * LANES : last;                                \
    ptrdiff_t q = start, work = 0;                                                               \
    while (q < end) {                                                                            \
      const ptrdiff_t begin = q;                                                                 \
      if (q < f->first || last - q < LEAST * COLUMNS || q >= beside) {                           \
        /* One vector, if whole ones follow it. */                                               \
        const int one = f->first - q <= LANES && last - q >= LANES + LEAST * COLUMNS;            \
        const ptrdiff_t most = (one ? LANES : 2 * LANES) - (EVEN && q % 2);                      \
        const ptrdiff_t n = end - q < most ? end - q : most;                                     \
        filter_some_##SOME(dst + q * SIZE, f, q, n);                                             \
        XC_RUNS work += products(run, q, n);                                                     \
        q += n;                                                                                  \
        continue;                                                                                \
      }                                                                                          \
      while (q < last && q < beside) {                                                           \
        ptrdiff_t n = MOST, at = q;                                                              \
        while (n > LEAST && n / 2 * COLUMNS >= last - q) n /= 2;                                 \
        if (n * COLUMNS > last - q) at = last - n * COLUMNS;                                     \
        if (at < begin) at = q, n /= 2;                                                          \
        const ptrdiff_t odd = EVEN && at % 2, from = at + odd, some = COLUMNS - odd;             \
        const ptrdiff_t blocks = at < q || n < MOST ? 1 : (last - q) / (MOST * COLUMNS);         \
        if (n == 8 && MOST == 8) filter_blocks_##NAME##_8(dst, f, from, some, blocks);           \
        if (n == 4) filter_blocks_##NAME##_4(dst, f, from, some, blocks);                        \
        if (n == 2) filter_blocks_##NAME##_2(dst, f, from, some, 1);                             \
        if (n == 1 && LEAST == 1) filter_blocks_##NAME##_1(dst, f, from, some, 1);               \
        q = at + blocks * n * COLUMNS;                                                           \
      }                                                                                          \
      work += (q - begin) * f->taps;                                                             \
    }                                                                                            \
    return work;                                                                                 \
  }
XC_FILTER_ROW(16f, XC_AVX512, 16, 4, 2, 8, 0, 16f, 16)
XC_FILTER_ROW(8d, XC_AVX512, 8, 8, 2, 8, 0, 8d, 8)
XC_FILTER_ROW(8f, , 8, 4, 2, 8, 0, 8f, 8)
XC_FILTER_ROW(4d, , 4, 8, 2, 8, 0, 4d, 4)
XC_FILTER_ROW(pairs, XC_AVX512_16, 32, 2, 1, 8, 1, pairs, 32)
XC_FILTER_ROW(rounded, XC_AVX512_16, 32, 2, 1, 8, 0, widened, 16)
XC_FILTER_ROW(widened, XC_AVX512_16, 32, 2, 1, 8, 0, widened, 16)
XC_FILTER_ROW(widened8, , 16, 2, 1, 4, 0, widened8, 8)

/* dtypes as in _pack.h, PACK_PAIRS where the processor multiplies pairs; `neighbours`: taps are. */
static inline filter_row_t filter_row_of(int dtype, int wide, int neighbours) {
  if (dtype == 3) return neighbours ? filter_row_pairs : filter_row_rounded;
  if (dtype == 2) return wide ? filter_row_widened : filter_row_widened8;
  if (dtype == 1) return wide ? filter_row_8d : filter_row_4d;
  return wide ? filter_row_16f : filter_row_8f;
}

/* Weights of a run, each `stride` bytes from the one before: behind a zero, and two behind them. */
static inline void copy_weights(char* to, const char* src, ptrdiff_t stride, ptrdiff_t n,
                                ptrdiff_t size) {
  memset(to, 0, 8);
  to += size;
  for (; n > 0; n--, to += size, src += stride) {
    if (size == 2) memcpy(to, src, 2);
    if (size == 4) memcpy(to, src, 4);
    if (size == 8) memcpy(to, src, 8);
  }
  memset(to, 0, 8);
}

#endif
