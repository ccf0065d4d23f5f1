/* Pairs of BF16 channels, positions or rows of the batch, for kernels that multiply them natively.
 *
 * A part of _pack.h, which says what its routines may assume. Strides of a source are in bytes.
 * Processors that multiply pairs have AVX-512.
 */
#ifndef XSMMCONV_PAIRS_H
#define XSMMCONV_PAIRS_H

#include "_bf16.h"

/* Where two vectors, joined, have their elements from. */
static const uint16_t joined[64] = {
    0, 32, 1, 33, 2, 34, 3, 35, 4, 36, 5, 37, 6, 38, 7, 39, 8, 40, 9, 41, 10, 42, 11, 43, 12, 44,
    13, 45, 14, 46, 15, 47, 16, 48, 17, 49, 18, 50, 19, 51, 20, 52, 21, 53, 22, 54, 23, 55, 24,
    56, 25, 57, 26, 58, 27, 59, 28, 60, 29, 61, 30, 62, 31, 63,
};

/* Interleave n neighbours of two rows. */
static inline XC_AVX512_16 void join_512(uint32_t* out, const char* even, const char* odd,
                                         ptrdiff_t n) {
  const __m512i first = _mm512_loadu_si512(joined), second = _mm512_loadu_si512(joined + 32);
  ptrdiff_t i = 0;
  for (; i + 32 <= n; i += 32) {
    const __m512i low = _mm512_loadu_si512(even + 2 * i), high = _mm512_loadu_si512(odd + 2 * i);
    _mm512_storeu_si512(out + i, _mm512_permutex2var_epi16(low, first, high));
    _mm512_storeu_si512(out + i + 16, _mm512_permutex2var_epi16(low, second, high));
  }
  for (; i < n; i += 16) {
    const __mmask16 some = (__mmask16)(n - i < 16 ? (1u << (n - i)) - 1 : 0xffff);
    const __m512i low = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, even + 2 * i));
    const __m512i high = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(some, odd + 2 * i));
    const __m512i both = _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
    if (n - i < 16) /* what is read soon after is better not stored with a mask */
      _mm512_mask_storeu_epi32(out + i, some, both);
    else
      _mm512_storeu_si512(out + i, both);
  }
}

/* Interleave two rows; without a second one its place is taken by true zeros. */
static XC_AVX512_16 void load_pairs(void* dst, const char* even, const char* odd, ptrdiff_t stride,
                                    ptrdiff_t n) {
  enum { PART = 256 };
  uint32_t* out = (uint32_t*)dst;
  if (stride == 2 && odd) {
    join_512(out, even, odd, n);
    return;
  }
  uint16_t low[PART], high[PART] = {0};
  for (; n > 0; n -= PART, out += PART) {
    const ptrdiff_t part = n < PART ? n : PART;
    load_u16_512(low, even, stride, part);
    if (odd) load_u16_512(high, odd, stride, part);
    join_512(out, (const char*)low, (const char*)high, part);
    even += part * stride;
    if (odd) odd += part * stride;
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
  const __m512i low = _mm512_loadu_si512(joined), high = _mm512_loadu_si512(joined + 32);
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
