/* BF16: rounding, and matrices of 16-bit elements.
 *
 * A part of _pack.h, which says what its routines may assume. Strides of a source are in bytes.
 * Processors that multiply pairs have AVX-512.
 */
#ifndef XSMMCONV_BF16_H
#define XSMMCONV_BF16_H

#include "_transpose.h"

/* ---- rounding -------------------------------------------------------------------------------- */

/* Round to nearest, ties to even; a NaN stays a (quiet) NaN. */
static inline uint16_t bf16_round(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  const uint32_t nan = (u & 0x7fffffffu) > 0x7f800000u;
  const uint32_t rounded = (u + 0x7fffu + ((u >> 16) & 1u)) >> 16;
  return (uint16_t)(nan ? (u >> 16) | 0x40u : rounded);
}

/* The same for 8 and 16 numbers; `low`: in the lower halves of as many of 32 bits. */
static inline __m256i bf16_round8_low(__m256 v) {
  const __m256i u = _mm256_castps_si256(v), high = _mm256_srli_epi32(u, 16);
  const __m256i even = _mm256_and_si256(high, _mm256_set1_epi32(1));
  const __m256i up = _mm256_add_epi32(_mm256_add_epi32(u, _mm256_set1_epi32(0x7fff)), even);
  const __m256i nan = _mm256_castps_si256(_mm256_cmp_ps(v, v, _CMP_UNORD_Q));
  const __m256i quiet = _mm256_or_si256(high, _mm256_set1_epi32(0x40));
  return _mm256_blendv_epi8(_mm256_srli_epi32(up, 16), quiet, nan);
}
static inline __m128i bf16_round8(__m256 v) {
  const __m256i r = bf16_round8_low(v);
  return _mm_packus_epi32(_mm256_castsi256_si128(r), _mm256_extracti128_si256(r, 1));
}
static inline __attribute__((always_inline)) XC_AVX512_16 __m512i bf16_round16_low(__m512 v) {
  const __m512i u = _mm512_castps_si512(v), high = _mm512_srli_epi32(u, 16);
  const __m512i even = _mm512_and_si512(high, _mm512_set1_epi32(1));
  const __m512i up = _mm512_add_epi32(_mm512_add_epi32(u, _mm512_set1_epi32(0x7fff)), even);
  const __mmask16 nan = _mm512_cmp_ps_mask(v, v, _CMP_UNORD_Q);
  return _mm512_mask_or_epi32(_mm512_srli_epi32(up, 16), nan, high, _mm512_set1_epi32(0x40));
}
static inline XC_AVX512_16 __m256i bf16_round16(__m512 v) {
  return _mm512_cvtepi32_epi16(bf16_round16_low(v));
}

/* dst[2*i] = even[i] and dst[2*i + 1] = odd[i], rounded. */
static void interleave_two_rounded(uint16_t* dst, const float* even, const float* odd,
                                   ptrdiff_t n) {
  ptrdiff_t i = 0;
  for (; i + 8 <= n; i += 8) {
    const __m128i a = bf16_round8(_mm256_loadu_ps(even + i));
    const __m128i b = bf16_round8(_mm256_loadu_ps(odd + i));
    _mm_storeu_si128((__m128i*)(dst + 2 * i), _mm_unpacklo_epi16(a, b));
    _mm_storeu_si128((__m128i*)(dst + 2 * i + 8), _mm_unpackhi_epi16(a, b));
  }
  for (; i < n; i++) {
    dst[2 * i] = bf16_round(even[i]);
    dst[2 * i + 1] = bf16_round(odd[i]);
  }
}
static XC_AVX512_16 void interleave_two_rounded_512(uint16_t* dst, const float* even,
                                                    const float* odd, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i += 16) {
    const __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
    const __m512i a = bf16_round16_low(_mm512_maskz_loadu_ps(some, even + i));
    const __m512i b = bf16_round16_low(_mm512_maskz_loadu_ps(some, odd + i));
    _mm512_mask_storeu_epi32(dst + 2 * i, some, _mm512_or_si512(a, _mm512_slli_epi32(b, 16)));
  }
}

/* ---- matrices of 16-bit elements -------------------------------------------------------------- */

/* 8 x 8 elements, in each 128 bits of the vectors. */
#define XC_TRANSPOSE8_U16(NAME, VECTOR, OP, TARGET)                                              \
  static inline __attribute__((always_inline)) TARGET void NAME(VECTOR r[8]) {                   \
    VECTOR t[8], u[8];                                                                           \
    for (int i = 0; i < 4; i++) {                                                                \
      t[2 * i] = OP##_unpacklo_epi16(r[2 * i], r[2 * i + 1]);                                    \
      t[2 * i + 1] = OP##_unpackhi_epi16(r[2 * i], r[2 * i + 1]);                                \
    }                                                                                            \
    /* The columns below 4, and from 4 on, of rows 0 to 3 and 4 to 7. */                         \
    for (int h = 0; h < 2; h++) {                                                                \
      u[4 * h] = OP##_unpacklo_epi32(t[h], t[h + 2]);                                            \
      u[4 * h + 1] = OP##_unpackhi_epi32(t[h], t[h + 2]);                                        \
      u[4 * h + 2] = OP##_unpacklo_epi32(t[h + 4], t[h + 6]);                                    \
      u[4 * h + 3] = OP##_unpackhi_epi32(t[h + 4], t[h + 6]);                                    \
    }                                                                                            \
    for (int h = 0; h < 2; h++)                                                                  \
      for (int i = 0; i < 2; i++) {                                                              \
        r[4 * h + 2 * i] = OP##_unpacklo_epi64(u[4 * h + i], u[4 * h + 2 + i]);                  \
        r[4 * h + 2 * i + 1] = OP##_unpackhi_epi64(u[4 * h + i], u[4 * h + 2 + i]);              \
      }                                                                                          \
  }
XC_TRANSPOSE8_U16(transpose8_u16, __m128i, _mm, )
XC_TRANSPOSE8_U16(transpose8_u16_four, __m512i, _mm512, XC_AVX512_16)

/* dst[col*ldo + row] = src[row][col], rounded to BF16; the columns are neighbours. */
static void transpose_round(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                            ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols) {
  uint16_t* const to = (uint16_t*)dst;
  (void)col_stride;
  for (ptrdiff_t j = 0; j < cols; j += 8) {
    const ptrdiff_t nc = cols - j < 8 ? cols - j : 8;
    const __m256i mask = first8(nc);
    for (ptrdiff_t i = 0; i < rows; i += 8) {
      const ptrdiff_t nr = rows - i < 8 ? rows - i : 8;
      __m128i r[8];
      for (int k = 0; k < 8; k++)
        r[k] = bf16_round8(_mm256_maskload_ps(
            (const float*)(src + (i + (k < nr ? k : nr - 1)) * row_stride) + j, mask));
      transpose8_u16(r);
      for (int k = 0; k < nc; k++)
        if (nr == 8)
          _mm_storeu_si128((__m128i*)(to + (j + k) * ldo + i), r[k]);
        else
          memcpy(to + (j + k) * ldo + i, &r[k], 2 * (size_t)nr);
    }
  }
}

/* The same with 32 rows in a vector, a line of the cache. */
static XC_AVX512_16 void transpose_round_512(void* dst, ptrdiff_t ldo, const char* src,
                                             ptrdiff_t row_stride, ptrdiff_t col_stride,
                                             ptrdiff_t rows, ptrdiff_t cols) {
  const ptrdiff_t many = rows - rows % 32, whole = cols - cols % 8;
  uint16_t* const to = (uint16_t*)dst;
  for (ptrdiff_t j = 0; j < whole; j += 8)
    for (ptrdiff_t i = 0; i < many; i += 32) {
      __m512i r[8];
      for (int k = 0; k < 8; k++) {
        const float* const from = (const float*)(src + (i + k) * row_stride) + j;
        const ptrdiff_t step = row_stride / 4 * 8;
        __m256i half[2];
        for (int h = 0; h < 2; h++)
          half[h] = bf16_round16(_mm512_castpd_ps(_mm512_insertf64x4(
              _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(from + 2 * h * step))),
              _mm256_castps_pd(_mm256_loadu_ps(from + (2 * h + 1) * step)), 1)));
        r[k] = _mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
      }
      transpose8_u16_four(r);
      for (int k = 0; k < 8; k++) _mm512_storeu_si512(to + (j + k) * ldo + i, r[k]);
    }
  if (many && whole < cols)
    transpose_round(to + whole * ldo, ldo, src + 4 * whole, row_stride, 4, many, cols - whole);
  if (many < rows)
    transpose_round(to + many, ldo, src + many * row_stride, row_stride, col_stride, rows - many,
                    cols);
}

/* 32 rows that follow each other, of few columns: see transpose_few. */
static inline __attribute__((always_inline)) XC_AVX512_16 void transpose_few_u16(
    uint16_t* to, ptrdiff_t ldo, const char* src, ptrdiff_t rows, const int cols) {
  __m512i place[7];
  __mmask32 in[7][7];
  for (int j = 0; j < cols; j++) {
    uint16_t at[32];
    for (int i = 0; i < 32; i++) at[i] = (uint16_t)(i * cols + j);
    place[j] = _mm512_loadu_si512(at);
    for (int k = 0; k < cols; k++)
      in[j][k] =
          _mm512_cmpeq_epi16_mask(_mm512_srli_epi16(place[j], 5), _mm512_set1_epi16((short)k));
  }
  for (ptrdiff_t i = 0; i < rows; i += 32, to += 32, src += 64 * cols) {
    __m512i v[7];
    for (int k = 0; k < cols; k++) v[k] = _mm512_loadu_si512(src + 64 * k);
    for (int j = 0; j < cols; j++) {
      __m512i one = _mm512_permutexvar_epi16(place[j], v[0]);
      for (int k = 1; k < cols; k++)
        one = _mm512_mask_permutexvar_epi16(one, in[j][k], place[j], v[k]);
      _mm512_storeu_si512(to + j * ldo, one);
    }
  }
}
static XC_AVX512_16 ptrdiff_t transpose_some_u16(uint16_t* to, ptrdiff_t ldo, const char* src,
                                                 ptrdiff_t rows, ptrdiff_t cols) {
  rows -= rows % 32;
  if (cols == 2) transpose_few_u16(to, ldo, src, rows, 2);
  if (cols == 3) transpose_few_u16(to, ldo, src, rows, 3);
  if (cols == 4) transpose_few_u16(to, ldo, src, rows, 4);
  if (cols == 5) transpose_few_u16(to, ldo, src, rows, 5);
  if (cols == 6) transpose_few_u16(to, ldo, src, rows, 6);
  if (cols == 7) transpose_few_u16(to, ldo, src, rows, 7);
  return cols > 1 && cols < 8 ? rows : 0;
}

/* dst[col*ldo + row] = src[row][col], as they are. */
static XC_AVX512_16 void transpose_u16(void* dst, ptrdiff_t ldo, const char* src,
                                       ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                                       ptrdiff_t cols) {
  uint16_t* to = (uint16_t*)dst;
  if (col_stride != 2 && cols > 1) {
    transpose_strided((char*)dst, ldo, src, row_stride, col_stride, rows, cols, 2, load_u16_512,
                      transpose_u16);
    return;
  }
  if (row_stride == 2 * cols) {
    const ptrdiff_t done = transpose_some_u16(to, ldo, src, rows, cols);
    to += done;
    src += done * row_stride;
    rows -= done;
  }
  for (ptrdiff_t j = 0; j < cols; j += 8) {
    const ptrdiff_t nc = cols - j < 8 ? cols - j : 8;
    const __mmask8 mask = (__mmask8)((1u << nc) - 1);
    for (ptrdiff_t i = 0; i < rows; i += 8) {
      const ptrdiff_t nr = rows - i < 8 ? rows - i : 8;
      const __mmask8 used = (__mmask8)((1u << nr) - 1);
      __m128i r[8];
      for (int k = 0; k < 8; k++)
        r[k] = _mm_maskz_loadu_epi16(mask, src + (i + (k < nr ? k : nr - 1)) * row_stride + 2 * j);
      transpose8_u16(r);
      for (int k = 0; k < nc; k++)
        if (nr == 8)
          _mm_storeu_si128((__m128i*)(to + (j + k) * ldo + i), r[k]);
        else
          _mm_mask_storeu_epi16(to + (j + k) * ldo + i, used, r[k]);
    }
  }
}

/* The same for any processor. */
static void transpose_elements_u16(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                                   ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols) {
  for (ptrdiff_t j = 0; j < cols; j++)
    load_u16((uint16_t*)dst + j * ldo, src + j * col_stride, row_stride, rows);
}

#endif
