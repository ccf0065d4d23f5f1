/* Dot products of rows, for weight gradients: some rows a against some taps of rows b.
 *
 * A part of _pack.h, which says what its routines may assume. Positions are the lanes: no operand
 * is transposed, and a tap is an address. Where a tap reads outside of its row, its positions are
 * masked in both operands.
 */
#ifndef XSMMCONV_ROW_DOTS_H
#define XSMMCONV_ROW_DOTS_H

#include "_depthwise.h"

/* A tap of one row b. */
typedef struct {
  ptrdiff_t place; /* bytes from a position's own place to what it reads */
  ptrdiff_t first; /* the positions that use the tap */
  ptrdiff_t end;
  ptrdiff_t out; /* element of the result, for the first row a */
} row_tap;

/* Where the positions from `start` on lie in the operands. */
typedef struct {
  const char* a;
  ptrdiff_t a_row;  /* bytes from row to row, */
  ptrdiff_t a_next; /* and to the next row of the batch */
  const char* b;
  ptrdiff_t b_next;
  ptrdiff_t rows; /* of the batch */
  ptrdiff_t start;
  rows_ahead* ahead; /* two, of which some lines come to L2 before every so many positions: */
  ptrdiff_t stretch;
} row_tile;

/* sums[a][t] += sum of a[q] * b[t][q] over the positions first to end - 1, of which all taps use
 * those from all_first to all_end - 1; they count from the beginning of the tile. */
typedef void (*row_dots_t)(void* sums, const row_tile* tile, const row_tap* taps, ptrdiff_t first,
                           ptrdiff_t all_first, ptrdiff_t all_end, ptrdiff_t end);

#define XC_INLINE static inline __attribute__((always_inline))

/* ---- sums of vectors ------------------------------------------------------------------------- */

/* Two vectors become one that has half as many sums of either, until there is one sum of each:
 * to[i] += the sum of v[i], for n vectors. */
#define XC_LANE(i) ((i) & width ? lanes + (i) - width : (i) + width)
XC_INLINE XC_AVX512 __m512 half_sums_16f(__m512 a, __m512 b, const int width) {
  enum { lanes = 16 };
  const __m512i other = _mm512_setr_epi32(
      XC_LANE(0), XC_LANE(1), XC_LANE(2), XC_LANE(3), XC_LANE(4), XC_LANE(5), XC_LANE(6),
      XC_LANE(7), XC_LANE(8), XC_LANE(9), XC_LANE(10), XC_LANE(11), XC_LANE(12), XC_LANE(13),
      XC_LANE(14), XC_LANE(15));
  const __mmask16 second = (__mmask16)(0xffff / ((1 << width) + 1) << width);
  return _mm512_mask_blend_ps(second, a, b) + _mm512_permutex2var_ps(a, other, b);
}
XC_INLINE XC_AVX512 __m512d half_sums_8d(__m512d a, __m512d b, const int width) {
  enum { lanes = 8 };
  const __m512i other =
      _mm512_setr_epi64(XC_LANE(0), XC_LANE(1), XC_LANE(2), XC_LANE(3), XC_LANE(4), XC_LANE(5),
                        XC_LANE(6), XC_LANE(7));
  const __mmask8 second = (__mmask8)(0xff / ((1 << width) + 1) << width);
  return _mm512_mask_blend_pd(second, a, b) + _mm512_permutex2var_pd(a, other, b);
}
XC_INLINE __m256 half_sums_8f(__m256 a, __m256 b, const int width) {
  if (width < 4) return _mm256_hadd_ps(a, b); /* pairs of a first, then of b, in each half */
  return _mm256_permute2f128_ps(a, b, 0x20) + _mm256_permute2f128_ps(a, b, 0x31);
}
XC_INLINE __m256d half_sums_4d(__m256d a, __m256d b, const int width) {
  if (width < 2) return _mm256_hadd_pd(a, b);
  return _mm256_permute2f128_pd(a, b, 0x20) + _mm256_permute2f128_pd(a, b, 0x31);
}

#define XC_ADD_SUMS(NAME, TARGET, VECTOR, LANES)                                                 \
  XC_INLINE TARGET void add_sums_##NAME(void* to, const VECTOR* v, const int n) {                \
    VECTOR part[LANES];                                                                          \
    XC_UNROLL for (int i = 0; i < n; i += LANES) {                                               \
      XC_UNROLL for (int j = 0; j < LANES; j++) part[j] = i + j < n ? v[i + j] : (VECTOR){0};    \
      XC_UNROLL for (int width = 1; width < LANES; width *= 2)                                   \
        XC_UNROLL for (int j = 0; j < LANES / 2 / width; j++)                                    \
          part[j] = half_sums_##NAME(part[2 * j], part[2 * j + 1], width);                       \
      ((VECTOR*)to)[i / LANES] += part[0];                                                       \
    }                                                                                            \
  }
XC_ADD_SUMS(16f, XC_AVX512, __m512_u, 16)
XC_ADD_SUMS(8d, XC_AVX512, __m512d_u, 8)
XC_ADD_SUMS(8f, , __m256_u, 8)
XC_ADD_SUMS(4d, , __m256d_u, 4)

/* ---- positions that not all taps use --------------------------------------------------------- */

/* Of the elements of a vector those from lo to hi - 1; both may be beyond its ends. */
XC_INLINE uint64_t bits_between(ptrdiff_t lo, ptrdiff_t hi, const int elements) {
  const uint64_t below = lo <= 0 ? 0 : lo >= elements ? ~(uint64_t)0 : ((uint64_t)1 << lo) - 1;
  const uint64_t used = hi <= 0 ? 0 : hi >= elements ? ~(uint64_t)0 : ((uint64_t)1 << hi) - 1;
  return used & ~below;
}
XC_INLINE XC_AVX512 __mmask16 between_16f(ptrdiff_t lo, ptrdiff_t hi) {
  return (__mmask16)bits_between(lo, hi, 16);
}
XC_INLINE XC_AVX512 __mmask8 between_8d(ptrdiff_t lo, ptrdiff_t hi) {
  return (__mmask8)bits_between(lo, hi, 8);
}
XC_INLINE XC_AVX512 __mmask32 between_pairs(ptrdiff_t lo, ptrdiff_t hi) {
  return (__mmask32)bits_between(lo, hi, 32);
}
XC_INLINE __m256i between_8f(ptrdiff_t lo, ptrdiff_t hi) {
  return _mm256_andnot_si256(first8(lo), first8(hi));
}
XC_INLINE __m256i between_4d(ptrdiff_t lo, ptrdiff_t hi) {
  return _mm256_andnot_si256(first4(lo), first4(hi));
}
/* Some elements of memory, or of a vector. */
#define XC_SOME_16F(mask, p) _mm512_maskz_loadu_ps(mask, p)
#define XC_SOME_8D(mask, p) _mm512_maskz_loadu_pd(mask, p)
#define XC_SOME_PAIRS(mask, p) _mm512_castsi512_ps(_mm512_maskz_loadu_epi16(mask, p))
#define XC_SOME_8F(mask, p) _mm256_maskload_ps((const float*)(p), mask)
#define XC_SOME_4D(mask, p) _mm256_maskload_pd((const double*)(p), mask)
#define XC_KEEP_16F(mask, v) _mm512_maskz_mov_ps(mask, v)
#define XC_KEEP_8D(mask, v) _mm512_maskz_mov_pd(mask, v)
#define XC_KEEP_PAIRS(mask, v)                                                                   \
  _mm512_castsi512_ps(_mm512_maskz_mov_epi16(mask, _mm512_castps_si512(v)))
#define XC_KEEP_8F(mask, v) _mm256_and_ps(_mm256_castsi256_ps(mask), v)
#define XC_KEEP_4D(mask, v) _mm256_and_pd(_mm256_castsi256_pd(mask), v)

/* ---- the routines ---------------------------------------------------------------------------- */

XC_INLINE XC_AVX512_16 __m512 multiply_row_pairs(__m512 sum, __m512 a, __m512 b) {
  __asm__("vdpbf16ps %2, %1, %0" : "+v"(sum) : "v"(a), "v"(b));
  return sum;
}

/* EACH: positions of a vector, of SIZE bytes. */
#define XC_ROW_DOTS(NAME, TARGET, VECTOR, MASK, EACH, SIZE, SUMS, MULTIPLY, SOME, KEEP)          \
  XC_INLINE TARGET void row_dots_##NAME(void* sums, const row_tile* tile, const row_tap* taps,   \
                                        ptrdiff_t first, ptrdiff_t all_first, ptrdiff_t all_end, \
                                        ptrdiff_t end, const int A, const int B) {               \
    VECTOR sum[32], v[8];                                                                        \
    const char *a[8], *b[8];                                                                     \
    XC_UNROLL for (int i = 0; i < A * B; i++) sum[i] = (VECTOR){0};                              \
    XC_UNROLL for (int i = 0; i < A; i++) a[i] = tile->a + i * tile->a_row;                      \
    XC_UNROLL for (int j = 0; j < B; j++) b[j] = tile->b + taps[j].place;                        \
    for (ptrdiff_t row = tile->rows;;) {                                                         \
      ptrdiff_t q = first;                                                                       \
      while (q < end) {                                                                          \
        const int all = q >= all_first;                                                          \
        while (all && q + EACH <= all_end) {                                                     \
          const ptrdiff_t left = all_end - q;                                                    \
          const ptrdiff_t last = q + (left < tile->stretch ? left : tile->stretch) - EACH;       \
          fetch_lines(&tile->ahead[0]);                                                          \
          fetch_lines(&tile->ahead[1]);                                                          \
          do {                                                                                   \
            /* As operands in memory these would be loaded B times, and A times. */              \
            XC_UNROLL for (int i = 0; i < A; i++) {                                              \
              v[i] = *(const VECTOR*)(a[i] + q * SIZE);                                          \
              __asm__("" : "+v"(v[i]));                                                          \
            }                                                                                    \
            XC_UNROLL for (int j = 0; j < B; j++) {                                              \
              VECTOR w = *(const VECTOR*)(b[j] + q * SIZE);                                      \
              __asm__("" : "+v"(w));                                                             \
              XC_UNROLL for (int i = 0; i < A; i++)                                              \
                sum[i * B + j] = MULTIPLY(sum[i * B + j], v[i], w);                              \
            }                                                                                    \
            q += EACH;                                                                           \
          } while (q <= last);                                                                   \
        }                                                                                        \
        if (q >= end) break;                                                                     \
        const MASK rest = between_##NAME(0, end - q);                                            \
        XC_UNROLL for (int i = 0; i < A; i++) v[i] = SOME(rest, a[i] + q * SIZE);                \
        if (all && all_end == end) {                                                             \
          XC_UNROLL for (int j = 0; j < B; j++) {                                                \
            const VECTOR w = SOME(rest, b[j] + q * SIZE);                                        \
            XC_UNROLL for (int i = 0; i < A; i++)                                                \
              sum[i * B + j] = MULTIPLY(sum[i * B + j], v[i], w);                                \
          }                                                                                      \
          break;                                                                                 \
        }                                                                                        \
        const ptrdiff_t at = tile->start + q;                                                    \
        XC_UNROLL for (int j = 0; j < B; j++) {                                                  \
          const ptrdiff_t hi = taps[j].end - at < end - q ? taps[j].end - at : end - q;          \
          const MASK used = between_##NAME(taps[j].first - at, hi);                              \
          const VECTOR w = SOME(used, b[j] + q * SIZE);                                          \
          XC_UNROLL for (int i = 0; i < A; i++)                                                  \
            sum[i * B + j] = MULTIPLY(sum[i * B + j], (VECTOR)KEEP(used, v[i]), w);              \
        }                                                                                        \
        q += EACH;                                                                               \
      }                                                                                          \
      if (--row <= 0) break;                                                                     \
      XC_UNROLL for (int i = 0; i < A; i++) a[i] += tile->a_next;                                \
      XC_UNROLL for (int j = 0; j < B; j++) b[j] += tile->b_next;                                \
    }                                                                                            \
    add_sums_##SUMS(sums, sum, A * B);                                                           \
  }

#define XC_ROWS_16F(sum, a, b) _mm512_fmadd_ps(a, b, sum)
#define XC_ROWS_8D(sum, a, b) _mm512_fmadd_pd(a, b, sum)
#define XC_ROWS_8F(sum, a, b) _mm256_fmadd_ps(a, b, sum)
#define XC_ROWS_4D(sum, a, b) _mm256_fmadd_pd(a, b, sum)
XC_ROW_DOTS(16f, XC_AVX512, __m512_u, __mmask16, 16, 4, 16f, XC_ROWS_16F, XC_SOME_16F, XC_KEEP_16F)
XC_ROW_DOTS(8d, XC_AVX512, __m512d_u, __mmask8, 8, 8, 8d, XC_ROWS_8D, XC_SOME_8D, XC_KEEP_8D)
XC_ROW_DOTS(pairs, XC_AVX512_16, __m512_u, __mmask32, 32, 2, 16f, multiply_row_pairs,
            XC_SOME_PAIRS, XC_KEEP_PAIRS)
XC_ROW_DOTS(8f, , __m256_u, __m256i, 8, 4, 8f, XC_ROWS_8F, XC_SOME_8F, XC_KEEP_8F)
XC_ROW_DOTS(4d, , __m256d_u, __m256i, 4, 8, 4d, XC_ROWS_4D, XC_SOME_4D, XC_KEEP_4D)

/* For so many rows and taps: there are 32 registers (16 without AVX-512) for the sums, the rows a
 * and one b, and not more than ten for addresses. */
#define XC_ROW_DOTS_AS(NAME, TARGET, A, B)                                                       \
  static TARGET void row_dots_##NAME##_##A##_##B(                                                \
      void* sums, const row_tile* tile, const row_tap* taps, ptrdiff_t first,                    \
      ptrdiff_t all_first, ptrdiff_t all_end, ptrdiff_t end) {                                   \
    row_dots_##NAME(sums, tile, taps, first, all_first, all_end, end, A, B);                     \
  }
#define XC_UP_TO_4(DO, ...)                                                                      \
  DO(__VA_ARGS__, 1) DO(__VA_ARGS__, 2) DO(__VA_ARGS__, 3) DO(__VA_ARGS__, 4)
#define XC_UP_TO_5(DO, ...) XC_UP_TO_4(DO, __VA_ARGS__) DO(__VA_ARGS__, 5)
#define XC_UP_TO_6(DO, ...) XC_UP_TO_5(DO, __VA_ARGS__) DO(__VA_ARGS__, 6)
#define XC_UP_TO_7(DO, ...) XC_UP_TO_6(DO, __VA_ARGS__) DO(__VA_ARGS__, 7)
#define XC_UP_TO_8(DO, ...) XC_UP_TO_7(DO, __VA_ARGS__) DO(__VA_ARGS__, 8)
#define XC_ROW_NAME(NAME, TARGET, A, B) row_dots_##NAME##_##A##_##B,
#define XC_ROW_DOTS_WIDE(NAME, TARGET)                                                           \
  XC_UP_TO_8(XC_ROW_DOTS_AS, NAME, TARGET, 1)                                                    \
  XC_UP_TO_8(XC_ROW_DOTS_AS, NAME, TARGET, 2)                                                    \
  XC_UP_TO_7(XC_ROW_DOTS_AS, NAME, TARGET, 3)                                                    \
  XC_UP_TO_6(XC_ROW_DOTS_AS, NAME, TARGET, 4)                                                    \
  XC_UP_TO_5(XC_ROW_DOTS_AS, NAME, TARGET, 5)                                                    \
  XC_UP_TO_4(XC_ROW_DOTS_AS, NAME, TARGET, 6)                                                    \
  static const row_dots_t row_table_##NAME[6][8] = {                                             \
      {XC_UP_TO_8(XC_ROW_NAME, NAME, TARGET, 1)}, {XC_UP_TO_8(XC_ROW_NAME, NAME, TARGET, 2)},    \
      {XC_UP_TO_7(XC_ROW_NAME, NAME, TARGET, 3)}, {XC_UP_TO_6(XC_ROW_NAME, NAME, TARGET, 4)},    \
      {XC_UP_TO_5(XC_ROW_NAME, NAME, TARGET, 5)}, {XC_UP_TO_4(XC_ROW_NAME, NAME, TARGET, 6)},    \
  };
#define XC_ROW_DOTS_NARROW(NAME)                                                                 \
  XC_UP_TO_6(XC_ROW_DOTS_AS, NAME, , 1)                                                          \
  XC_UP_TO_6(XC_ROW_DOTS_AS, NAME, , 2)                                                          \
  XC_UP_TO_4(XC_ROW_DOTS_AS, NAME, , 3)                                                          \
  static const row_dots_t row_table_##NAME[6][8] = {                                             \
      {XC_UP_TO_6(XC_ROW_NAME, NAME, , 1)}, {XC_UP_TO_6(XC_ROW_NAME, NAME, , 2)},                \
      {XC_UP_TO_4(XC_ROW_NAME, NAME, , 3)},                                                      \
  };
XC_ROW_DOTS_WIDE(16f, XC_AVX512)
XC_ROW_DOTS_WIDE(8d, XC_AVX512)
XC_ROW_DOTS_WIDE(pairs, XC_AVX512_16)
XC_ROW_DOTS_NARROW(8f)
XC_ROW_DOTS_NARROW(4d)

/* NULL if there is none for so many. dtypes as in _pack.h; BF16 is multiplied as PACK_PAIRS. */
static inline row_dots_t row_dots_of(int dtype, int wide, int a, int b) {
  static const row_dots_t(*const tables[2][4])[8] = {
      {row_table_8f, row_table_4d, row_table_8f, row_table_8f},
      {row_table_16f, row_table_8d, row_table_16f, row_table_pairs},
  };
  if (a < 1 || a > 6 || b < 1 || b > 8) return NULL;
  return tables[wide != 0][dtype][a - 1][b - 1];
}

/* Stores the sums of some rows and taps, which belong `row` elements apart. */
#define XC_STORE_DOTS(NAME, STORED, COMPUTED, ROUND)                                             \
  static void store_dots_##NAME(void* out, ptrdiff_t row, const row_tap* taps, const void* sums, \
                                ptrdiff_t a, ptrdiff_t b) {                                      \
    const COMPUTED* from = (const COMPUTED*)sums;                                                \
    for (ptrdiff_t i = 0; i < a; i++)                                                            \
      for (ptrdiff_t j = 0; j < b; j++)                                                          \
        ((STORED*)out)[i * row + taps[j].out] = ROUND(*from++);                                  \
  }
XC_STORE_DOTS(f32, float, float, )
XC_STORE_DOTS(f64, double, double, )
XC_STORE_DOTS(bf16, uint16_t, float, bf16_round)
static inline void store_dots(int dtype, void* out, ptrdiff_t row, const row_tap* taps,
                              const void* sums, ptrdiff_t a, ptrdiff_t b) {
  if (dtype == 1)
    store_dots_f64(out, row, taps, sums, a, b);
  else if (dtype == 2)
    store_dots_bf16(out, row, taps, sums, a, b);
  else
    store_dots_f32(out, row, taps, sums, a, b);
}

#endif
