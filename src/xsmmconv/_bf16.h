/* BF16: rounding, pairs of channels or positions, matrices of 16-bit elements.
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

/* ---- pairs, for kernels that multiply them natively ------------------------------------------- */

/* Interleave two rows; without a second one its place is taken by true zeros. */
static XC_AVX512_16 void load_pairs(void* dst, const char* even, const char* odd, ptrdiff_t stride,
                                    ptrdiff_t n) {
  enum { PART = 256 };
  uint32_t* out = (uint32_t*)dst;
  uint16_t low[PART], high[PART] = {0};
  for (; n > 0 && (stride != 2 || !odd); n -= PART, out += PART) {
    const ptrdiff_t part = n < PART ? n : PART;
    load_u16_512(low, even, stride, part);
    if (odd) load_u16_512(high, odd, stride, part);
    for (ptrdiff_t i = 0; i < part; i++) out[i] = low[i] | (uint32_t)high[i] << 16;
    even += part * stride;
    if (odd) odd += part * stride;
  }
  for (ptrdiff_t i = 0; i < n; i++) {
    memcpy(low, even + 2 * i, 2);
    memcpy(high, odd + 2 * i, 2);
    out[i] = low[0] | (uint32_t)high[0] << 16;
  }
}

/* The same for every planes-th of neighbours, from the first, second, ... of `cols` of them on:
 * dst[j*ldo + i] = (even[i*planes + j], odd[i*planes + j]) for n positions; cols <= 64. */
static XC_AVX512_16 void load_pairs_together(void* dst, ptrdiff_t ldo, const char* even,
                                             const char* odd, ptrdiff_t planes, ptrdiff_t n,
                                             ptrdiff_t cols) {
  enum { ALL = 2048, COLUMNS = 64 };
  uint32_t pairs[ALL + COLUMNS];
  const ptrdiff_t part = planes < ALL ? ALL / planes : 1;
  for (ptrdiff_t i = 0; i < n; i += part) {
    const ptrdiff_t m = n - i < part ? n - i : part, first = 2 * i * planes;
    load_pairs(pairs, even + first, odd + first, 2, (m - 1) * planes + cols);
    transpose_f32_512((float*)dst + i, ldo, (const char*)pairs, 4 * planes, 4, m, cols);
  }
}

/* dst[col*ldo + row] = (even[row][col], odd[row][col]); true zeros without an odd matrix. */
static XC_AVX512_16 void transpose_row_pairs(void* dst, ptrdiff_t ldo, const char* even,
                                             const char* odd, ptrdiff_t row_stride,
                                             ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols) {
  enum { ROWS = 16, COLUMNS = 128 };
  uint32_t block[ROWS * COLUMNS];
  const ptrdiff_t row = row_stride / 2; /* rows that nearly touch are loaded together */
  if (col_stride == 2 && row_stride % 2 == 0 && cols <= row && row <= 2 * cols && row <= COLUMNS) {
    for (ptrdiff_t i = 0; i < rows; i += ROWS) {
      const ptrdiff_t nr = rows - i < ROWS ? rows - i : ROWS, from = i * row_stride;
      load_pairs(block, even + from, odd ? odd + from : NULL, 2, (nr - 1) * row + cols);
      transpose_f32_512((float*)dst + i, ldo, (const char*)block, 4 * row, 4, nr, cols);
    }
    return;
  }
  for (ptrdiff_t i = 0; i < rows; i += ROWS)
    for (ptrdiff_t j = 0; j < cols; j += COLUMNS) {
      const ptrdiff_t nr = rows - i < ROWS ? rows - i : ROWS;
      const ptrdiff_t nc = cols - j < COLUMNS ? cols - j : COLUMNS;
      for (ptrdiff_t k = 0; k < nr; k++) {
        const ptrdiff_t from = (i + k) * row_stride + j * col_stride;
        load_pairs(block + k * COLUMNS, even + from, odd ? odd + from : NULL, col_stride, nc);
      }
      transpose_f32_512((float*)dst + j * ldo + i, ldo, (const char*)block, 4 * COLUMNS, 4, nr, nc);
    }
}

/* FP32 that is BF16 with zeros behind, to BF16. */
static void narrow(char* dst, const char* src, ptrdiff_t n) {
  for (ptrdiff_t i = 0; i < n; i++) memcpy(dst + 2 * i, src + 4 * i + 2, 2);
}

/* dst[i] = (src[i], src[i + spacing]), from such FP32. */
static void pair_taps(char* dst, const char* src, ptrdiff_t spacing, ptrdiff_t n) {
  uint32_t* restrict out = (uint32_t*)(void*)dst;
  const uint32_t* const in = (const uint32_t*)(const void*)src;
  for (ptrdiff_t i = 0; i < n; i++) out[i] = in[i] >> 16 | (in[i + spacing] & 0xffff0000u);
}

/* Up to 32 rows become to[column][row]: line by line, since rows may be so far apart that they
 * collide in the cache. */
static XC_AVX512_16 void transpose_lanes(uint16_t* to, const char* src, ptrdiff_t row_stride,
                                         ptrdiff_t rows, ptrdiff_t cols) {
  enum { AHEAD = 256 };
  uint16_t block[32][32] = {{0}};
  for (ptrdiff_t j = 0; j < cols; j += 32) {
    const __mmask32 some = (__mmask32)(cols - j < 32 ? (1u << (cols - j)) - 1 : ~0u);
    for (ptrdiff_t k = 0; k < rows; k++) {
      const char* const from = src + k * row_stride + 2 * j;
      _mm_prefetch(from + AHEAD, _MM_HINT_T0);
      _mm512_storeu_si512(block[k], _mm512_maskz_loadu_epi16(some, from));
    }
    for (int i = 0; i < 32; i += 8) {
      __m512i r[8];
      for (int k = 0; k < 8; k++) {
        r[k] = _mm512_castsi128_si512(_mm_loadu_si128((const __m128i*)(block[k] + i)));
        r[k] = _mm512_inserti32x4(r[k], _mm_loadu_si128((const __m128i*)(block[k + 8] + i)), 1);
        r[k] = _mm512_inserti32x4(r[k], _mm_loadu_si128((const __m128i*)(block[k + 16] + i)), 2);
        r[k] = _mm512_inserti32x4(r[k], _mm_loadu_si128((const __m128i*)(block[k + 24] + i)), 3);
      }
      transpose8_u16_four(r);
      for (int k = 0; k < 8; k++) _mm512_storeu_si512(to + (j + i + k) * 32, r[k]);
    }
  }
}

/* Weights of 32 channels to pairs of these, for neighbouring columns, which are taps and filters. */
static XC_AVX512_16 void scatter_lines(uint32_t* to, ptrdiff_t dst_k, const int64_t* tap,
                                       const char* src, ptrdiff_t src_c, ptrdiff_t cols,
                                       ptrdiff_t S) {
  uint16_t lines[32 * 32];
  ptrdiff_t k = 0, t = 0;
  for (ptrdiff_t j = 0; j < cols; j += 32) {
    const ptrdiff_t nc = cols - j < 32 ? cols - j : 32;
    transpose_lanes(lines, src + 2 * j, src_c, 32, nc);
    for (ptrdiff_t i = 0; i < nc; i++) {
      if (tap[t] >= 0)
        _mm512_storeu_si512(to + k * dst_k + tap[t], _mm512_loadu_si512(lines + 32 * i));
      if (++t == S) t = 0, k++;
    }
  }
}

/* Weights of some filters and channels to pairs of channels:
 * dst[k*dst_k + tap[t] + c/2] = (src[k][c][t], src[k][c + 1][t]) for even c; beside the last channel
 * of an odd number are true zeros, and taps < 0 are left out. */
static XC_AVX512_16 void scatter_pairs(void* dst, ptrdiff_t dst_k, const int64_t* tap,
                                       const char* src, ptrdiff_t src_k, ptrdiff_t src_c,
                                       ptrdiff_t src_t, ptrdiff_t K, ptrdiff_t C, ptrdiff_t S) {
  enum { CHANNELS = 32, COLUMNS = 64 };
  if (S == 1 && src_k != 2 && K > 1) { /* positions of a strided row: some of them are collected */
    uint16_t block[CHANNELS * COLUMNS];
    for (ptrdiff_t c = 0; c < C; c += CHANNELS)
      for (ptrdiff_t k = 0; k < K; k += COLUMNS) {
        const ptrdiff_t nc = C - c < CHANNELS ? C - c : CHANNELS;
        const ptrdiff_t nk = K - k < COLUMNS ? K - k : COLUMNS;
        for (ptrdiff_t i = 0; i < nc; i++)
          load_u16_512(block + i * COLUMNS, src + (c + i) * src_c + k * src_k, src_k, nk);
        scatter_pairs((uint32_t*)dst + k * dst_k + c / 2, dst_k, tap, (const char*)block, 2,
                      2 * COLUMNS, 2, nk, nc, 1);
      }
    return;
  }
  const int neighbours = src_t == 2 || S == 1; /* the taps, and perhaps filter after filter */
  const ptrdiff_t together = neighbours && (K == 1 || src_k == 2 * S) ? K : 1;
  const ptrdiff_t cols = neighbours ? together * S : 1;
  ptrdiff_t c = 0;
  for (; cols >= 32 && c + 32 <= C; c += 32) /* whole lines are read and written */
    for (ptrdiff_t k0 = 0; k0 < K; k0 += together)
      scatter_lines((uint32_t*)dst + k0 * dst_k + c / 2, dst_k, tap, src + k0 * src_k + c * src_c,
                    src_c, cols, S);
  for (; c < C; c += 8) {
    const ptrdiff_t nr = C - c < 8 ? C - c : 8;
    const __mmask8 pairs = (__mmask8)((1u << ((nr + 1) / 2 * 2)) - 1);
    for (ptrdiff_t k0 = 0; k0 < K; k0 += together)
      for (ptrdiff_t t0 = 0; t0 < (neighbours ? 1 : S); t0++) {
        const char* const from = src + k0 * src_k + c * src_c + t0 * src_t;
        ptrdiff_t k = k0, t = t0;
        for (ptrdiff_t j = 0; j < cols; j += 8) {
          const ptrdiff_t nc = cols - j < 8 ? cols - j : 8;
          const __mmask8 mask = (__mmask8)((1u << nc) - 1);
          __m128i r[8];
          for (int i = 0; i < 8; i++)
            r[i] = i < nr ? _mm_maskz_loadu_epi16(mask, from + i * src_c + 2 * j)
                          : _mm_setzero_si128();
          transpose8_u16(r);
          for (int i = 0; i < nc; i++) {
            uint32_t* const to = (uint32_t*)dst + k * dst_k + tap[t] + c / 2;
            if (tap[t] >= 0 && nr == 8) /* a masked store takes longer */
              _mm_storeu_si128((__m128i*)(void*)to, r[i]);
            else if (tap[t] >= 0)
              _mm_mask_storeu_epi16(to, pairs, r[i]);
            if (++t == S) t = 0, k++;
          }
        }
      }
  }
}

/* The same for up to 32 filters that are to be neighbours, as scatter_lanes does it. Where a filter's
 * weights follow each other, they are the rows of a matrix to be transposed. At most 256 taps. */
enum { LANE_COLUMNS = 512 };
static XC_AVX512_16 void scatter_filter_lanes(void* dst, ptrdiff_t dst_c, ptrdiff_t dst_t,
                                              const char* src, ptrdiff_t src_k, ptrdiff_t K,
                                              ptrdiff_t C, ptrdiff_t S) {
  uint16_t lanes[LANE_COLUMNS * 32];
  const ptrdiff_t most = LANE_COLUMNS / S / 2 * 2;
  const __mmask32 some = (__mmask32)(K < 32 ? (1u << K) - 1 : ~0u);
  uint16_t beside[2][32];
  for (int i = 0; i < 64; i++) beside[i / 32][i % 32] = (uint16_t)(i / 2 + i % 2 * 32);
  const __m512i low = _mm512_loadu_si512(beside[0]), high = _mm512_loadu_si512(beside[1]);
  for (ptrdiff_t c = 0; c < C; c += most) {
    const ptrdiff_t nc = C - c < most ? C - c : most;
    transpose_lanes(lanes, src + 2 * c * S, src_k, K, nc * S);
    for (ptrdiff_t i = 0; i < nc; i += 2)
      for (ptrdiff_t t = 0; t < S; t++) {
        const uint16_t* const from = lanes + (i * S + t) * 32;
        uint32_t* const to = (uint32_t*)dst + (c + i) / 2 * dst_c + t * dst_t;
        const __m512i even = _mm512_loadu_si512(from);
        const __m512i odd =
            i + 1 < nc ? _mm512_loadu_si512(from + S * 32) : _mm512_setzero_si512();
        _mm512_mask_storeu_epi32(to, (__mmask16)some, _mm512_permutex2var_epi16(even, low, odd));
        _mm512_mask_storeu_epi32(to + 16, (__mmask16)(some >> 16),
                                 _mm512_permutex2var_epi16(even, high, odd));
      }
  }
}

/* The same where those of a channel do, filter after filter, for at most 64 taps. */
static XC_AVX512_16 void scatter_channel_lanes(void* dst, ptrdiff_t dst_c, ptrdiff_t dst_t,
                                               const char* src, ptrdiff_t src_c, ptrdiff_t K,
                                               ptrdiff_t C, ptrdiff_t S) {
  enum { TAPS = 64, AHEAD = 16 }; /* channels whose few lines are fetched before */
  uint32_t pairs[32 * TAPS];
  for (ptrdiff_t c = 0; c < C; c += 2) {
    const char* const even = src + c * src_c;
    for (int i = AHEAD; i < AHEAD + 2 && c + i < C; i++) prefetch_row(even + i * src_c, 2 * K * S);
    float* const to = (float*)dst + c / 2 * dst_c;
    load_pairs(S == 1 ? (void*)to : pairs, even, c + 1 < C ? even + src_c : NULL, 2, K * S);
    if (S > 1) transpose_f32_512(to, dst_t, (const char*)pairs, 4 * S, 4, K, S);
  }
}

/* The same for up to 32 filters that are to be neighbours:
 * dst[t*dst_t + c/2*dst_c + k] = (src[k][c][t], src[k][c + 1][t]). */
static void scatter_lanes(void* dst, ptrdiff_t dst_c, ptrdiff_t dst_t, const char* src,
                          ptrdiff_t src_k, ptrdiff_t src_c, ptrdiff_t src_t, ptrdiff_t K,
                          ptrdiff_t C, ptrdiff_t S) {
  const int taps = src_t == 2 || S == 1;
  if (taps && src_c == 2 * S && 2 * S <= LANE_COLUMNS) {
    scatter_filter_lanes(dst, dst_c, dst_t, src, src_k, K, C, S);
    return;
  }
  if (taps && src_k == 2 * S && S <= 64) {
    scatter_channel_lanes(dst, dst_c, dst_t, src, src_c, K, C, S);
    return;
  }
  enum { CHANNELS = 16, TAPS = 8, FILTER = CHANNELS / 2 * TAPS };
  static const int64_t tap[TAPS] = {0, 8, 16, 24, 32, 40, 48, 56};
  float block[32 * FILTER];
  for (ptrdiff_t c = 0; c < C; c += CHANNELS)
    for (ptrdiff_t t = 0; t < S; t += TAPS) {
      const ptrdiff_t nc = C - c < CHANNELS ? C - c : CHANNELS, nt = S - t < TAPS ? S - t : TAPS;
      scatter_pairs(block, FILTER, tap, src + c * src_c + t * src_t, src_k, src_c, src_t, K, nc, nt);
      for (ptrdiff_t i = 0; i < nt; i++)
        transpose_f32_512((float*)dst + (t + i) * dst_t + c / 2 * dst_c, dst_c,
                          (const char*)(block + tap[i]), 4 * FILTER, 4, K, (nc + 1) / 2);
    }
}

/* Pairs of positions: where these are neighbours, a matrix of 32-bit elements. */
static XC_AVX512_16 void transpose_pairs(void* dst, ptrdiff_t ldo, const char* src,
                                         ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                                         ptrdiff_t cols) {
  enum { ROWS = 16, COLUMNS = 128 };
  uint16_t block[ROWS * COLUMNS];
  if (col_stride == 2) {
    transpose_f32_512(dst, ldo, src, row_stride, 4, rows, cols / 2);
    return;
  }
  if (row_stride == 2) { /* two columns are the rows of a pair of channels */
    for (ptrdiff_t j = 0; j < cols; j += 2, src += 2 * col_stride)
      load_pairs((uint32_t*)dst + j / 2 * ldo, src, src + col_stride, 2, rows);
    return;
  }
  for (ptrdiff_t i = 0; i < rows; i += ROWS)
    for (ptrdiff_t j = 0; j < cols; j += COLUMNS) {
      const ptrdiff_t nr = rows - i < ROWS ? rows - i : ROWS;
      const ptrdiff_t nc = cols - j < COLUMNS ? cols - j : COLUMNS;
      for (ptrdiff_t k = 0; k < nr; k++)
        load_u16_512(block + k * COLUMNS, src + (i + k) * row_stride + j * col_stride, col_stride, nc);
      transpose_f32_512((float*)dst + j / 2 * ldo + i, ldo, (const char*)block, 2 * COLUMNS, 4, nr,
                        nc / 2);
    }
}

#endif
