/* Matrices rearranged: transposes, lanes of several positions side by side.
 *
 * A part of _pack.h, which says what its routines may assume. Strides of a source are in bytes.
 */
#ifndef XSMMCONV_TRANSPOSE_H
#define XSMMCONV_TRANSPOSE_H

#include "_load.h"

/* Bring the lines of a row to the cache; addresses outside the array do no harm. */
static inline void prefetch_row(const char* p, ptrdiff_t n) {
  const char* const end = p + n;
  for (p -= (uintptr_t)p % 64; p < end; p += 64) _mm_prefetch(p, _MM_HINT_T0);
}

/* ---- transpose: dst[col*ldo + row] = src[row][col] ------------------------------------------- */

/* The first n (1 to 8, 1 to 4) elements of a row, or of a vector to be stored. */
static inline __m256i first8(ptrdiff_t n) {
  return _mm256_cmpgt_epi32(_mm256_set1_epi32((int)n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
static inline __m256i first4(ptrdiff_t n) {
  return _mm256_cmpgt_epi64(_mm256_set1_epi64x(n), _mm256_setr_epi64x(0, 1, 2, 3));
}

static inline __m256 whole8_f32(const char* p) { return _mm256_loadu_ps((const float*)p); }
static inline __m256 whole8_bf16(const char* p) {
  const __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i*)p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}
static inline __m256d whole4_f64(const char* p) { return _mm256_loadu_pd((const double*)p); }

/* The first n of them. */
static inline __m256 load8_f32(const char* p, ptrdiff_t n) {
  return _mm256_maskload_ps((const float*)p, first8(n));
}
static inline __m256 load8_bf16(const char* p, ptrdiff_t n) { /* by way of no memory */
  uint64_t low = 0, high = 0;
  if (n >= 4) {
    memcpy(&low, p, 8);
    memcpy(&high, p + 2 * n - 8, 8);
    high = n > 4 ? high >> (16 * (8 - n)) : 0;
  } else {
    for (ptrdiff_t i = 0; i < n; i++) low |= (uint64_t)bf16_at(p + 2 * i) << (16 * i);
  }
  const __m128i v = _mm_set_epi64x((long long)high, (long long)low);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
static inline __m256d load4_f64(const char* p, ptrdiff_t n) {
  return _mm256_maskload_pd((const double*)p, first4(n));
}

static inline void transpose8(__m256 r[8]) {
  __m256 t[8], u[8];
  for (int i = 0; i < 8; i += 2) {
    t[i] = _mm256_unpacklo_ps(r[i], r[i + 1]);
    t[i + 1] = _mm256_unpackhi_ps(r[i], r[i + 1]);
  }
  for (int i = 0; i < 8; i += 4) {
    u[i] = _mm256_shuffle_ps(t[i], t[i + 2], 0x44);
    u[i + 1] = _mm256_shuffle_ps(t[i], t[i + 2], 0xee);
    u[i + 2] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0x44);
    u[i + 3] = _mm256_shuffle_ps(t[i + 1], t[i + 3], 0xee);
  }
  for (int i = 0; i < 4; i++) {
    r[i] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x20);
    r[i + 4] = _mm256_permute2f128_ps(u[i], u[i + 4], 0x31);
  }
}

static inline void transpose4(__m256d r[4]) {
  const __m256d t0 = _mm256_unpacklo_pd(r[0], r[1]), t1 = _mm256_unpackhi_pd(r[0], r[1]);
  const __m256d t2 = _mm256_unpacklo_pd(r[2], r[3]), t3 = _mm256_unpackhi_pd(r[2], r[3]);
  r[0] = _mm256_permute2f128_pd(t0, t2, 0x20);
  r[1] = _mm256_permute2f128_pd(t1, t3, 0x20);
  r[2] = _mm256_permute2f128_pd(t0, t2, 0x31);
  r[3] = _mm256_permute2f128_pd(t1, t3, 0x31);
}

/* Up to 8 rows of 1 to 4 neighbours in FP32: the taps of filters. */
static inline void transpose_narrow_f32(float* to, ptrdiff_t ldo, const char* block,
                                        ptrdiff_t row_stride, ptrdiff_t nr, ptrdiff_t nc) {
  const __m128i part = _mm256_castsi256_si128(first8(nc));
  const __m256i mask = first8(nr);
  __m256 r[4], t[4];
  for (int k = 0; k < 4; k++) {
    const float* const low = (const float*)(block + k * row_stride);
    const float* const high = (const float*)(block + (k + 4) * row_stride);
    const __m128 first = k < nr ? _mm_maskload_ps(low, part) : _mm_setzero_ps();
    const __m128 second = k + 4 < nr ? _mm_maskload_ps(high, part) : _mm_setzero_ps();
    r[k] = _mm256_insertf128_ps(_mm256_castps128_ps256(first), second, 1);
  }
  for (int k = 0; k < 4; k += 2) {
    t[k] = _mm256_unpacklo_ps(r[k], r[k + 1]);
    t[k + 1] = _mm256_unpackhi_ps(r[k], r[k + 1]);
  }
  r[0] = _mm256_shuffle_ps(t[0], t[2], 0x44);
  r[1] = _mm256_shuffle_ps(t[0], t[2], 0xee);
  r[2] = _mm256_shuffle_ps(t[1], t[3], 0x44);
  r[3] = _mm256_shuffle_ps(t[1], t[3], 0xee);
  for (int k = 0; k < nc; k++)
    if (nr == 8)
      _mm256_storeu_ps(to + k * ldo, r[k]);
    else
      _mm256_maskstore_ps(to + k * ldo, mask, r[k]);
}

/* Where the elements of a row are apart, some of them are collected first: rows of neighbours, in the
 * computing type, are transposed several times as fast. */
typedef void (*load_row)(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n);
typedef void (*transpose_rows)(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                               ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols);
static void transpose_strided(char* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                              ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols, ptrdiff_t size,
                              load_row load, transpose_rows transpose) {
  enum { ROWS = 16, BYTES = 512 };
  char block[ROWS * BYTES];
  const ptrdiff_t most = BYTES / size;
  for (ptrdiff_t i = 0; i < rows; i += ROWS)
    for (ptrdiff_t j = 0; j < cols; j += most) {
      const ptrdiff_t nr = rows - i < ROWS ? rows - i : ROWS;
      const ptrdiff_t nc = cols - j < most ? cols - j : most;
      for (ptrdiff_t k = 0; k < nr; k++)
        load(block + k * BYTES, src + (i + k) * row_stride + j * col_stride, col_stride, nc);
      transpose(dst + (j * ldo + i) * size, ldo, block, BYTES, size, nr, nc);
    }
}

/* Blocks of V x V; at the edges loads and stores are masked. They follow each other along the longer
 * lines, of the source or of the destination: those are in memory. Whole blocks of neighbours have
 * code without a branch, which is several times as fast: a missing row repeats the last one, and
 * is not stored. */
#define XC_TRANSPOSE(NAME, STORED, COMPUTED, V, VECTOR, LOAD, LOADPART, BLOCK, STORE, MASKSTORE,   \
                     FIRST, STRAIGHT)                                                            \
  static inline __attribute__((always_inline)) void transpose_whole_##NAME(                      \
      COMPUTED* to, ptrdiff_t ldo, const char* block, ptrdiff_t row_stride, ptrdiff_t nr) {      \
    VECTOR r[V];                                                                                 \
    for (int k = 0; k < V; k++) r[k] = LOAD(block + (k < nr ? k : nr - 1) * row_stride);         \
    BLOCK(r);                                                                                    \
    if (nr == V)                                                                                 \
      for (int k = 0; k < V; k++) STORE(to + k * ldo, r[k]);                                     \
    else                                                                                         \
      for (int k = 0; k < V; k++) MASKSTORE(to + k * ldo, FIRST(nr), r[k]);                      \
  }                                                                                              \
  static void transpose_part_##NAME(COMPUTED* to, ptrdiff_t ldo, const char* block,              \
                                    ptrdiff_t row_stride, ptrdiff_t nr, ptrdiff_t nc) {          \
    VECTOR r[V];                                                                                 \
    if (nc <= 4 && V == 8 && sizeof(STORED) == 4) {                                              \
      transpose_narrow_f32((float*)(void*)to, ldo, block, row_stride, nr, nc);                   \
      return;                                                                                    \
    }                                                                                            \
    for (int k = 0; k < V; k++) r[k] = LOADPART(block + (k < nr ? k : nr - 1) * row_stride, nc); \
    BLOCK(r);                                                                                    \
    if (nr == V)                                                                                 \
      for (int k = 0; k < nc; k++) STORE(to + k * ldo, r[k]);                                    \
    else                                                                                         \
      for (int k = 0; k < nc; k++) MASKSTORE(to + k * ldo, FIRST(nr), r[k]);                     \
  }                                                                                              \
  static inline __attribute__((always_inline)) void transpose_block_##NAME(                      \
      COMPUTED* to, ptrdiff_t ldo, const char* block, ptrdiff_t row_stride, ptrdiff_t rows,      \
      ptrdiff_t cols) {                                                                          \
    if (cols < V)                                                                                \
      transpose_part_##NAME(to, ldo, block, row_stride, rows < V ? rows : V, cols);              \
    else if (rows < V)                                                                           \
      transpose_whole_##NAME(to, ldo, block, row_stride, rows);                                  \
    else                                                                                         \
      transpose_whole_##NAME(to, ldo, block, row_stride, V);                                     \
  }                                                                                              \
  static void transpose_##NAME(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,  \
                               ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols) {           \
    const ptrdiff_t size = (ptrdiff_t)sizeof(STORED);                                            \
    COMPUTED* to = (COMPUTED*)dst;                                                               \
    if (cols == 1) {                                                                             \
      load_##NAME(dst, src, row_stride, rows);                                                   \
    } else if (rows == 1) {                                                                      \
      for (ptrdiff_t j = 0; j < cols; j++) load_##NAME(to + j * ldo, src + j * col_stride, 0, 1); \
    } else if (row_stride == size && rows > 1) { /* columns are neighbours */                           \
      for (ptrdiff_t j = 0; j < cols; j++) {                                                     \
        const char* column = src + j * col_stride;                                               \
        ptrdiff_t i = 0;                                                                         \
        for (; i + V <= rows; i += V)                                                            \
          STORE(to + j * ldo + i, LOAD(column + i * row_stride));                                \
        if (i < rows)                                                                            \
          MASKSTORE(to + j * ldo + i, FIRST(rows - i),                                           \
                    LOADPART(column + i * row_stride, rows - i));                                \
      }                                                                                          \
    } else if (col_stride != size) {                                                             \
      transpose_strided((char*)dst, ldo, src, row_stride, col_stride, rows, cols,                \
                        (ptrdiff_t)sizeof(COMPUTED), load_##NAME, STRAIGHT);                     \
    } else if (row_stride > ldo * (ptrdiff_t)sizeof(COMPUTED)) {                                 \
      for (ptrdiff_t i = 0; i < rows; i += V)                                                    \
        for (ptrdiff_t j = 0; j < cols; j += V)                                                  \
          transpose_block_##NAME(to + j * ldo + i, ldo, src + i * row_stride + j * size, row_stride,\
                                 rows - i, cols - j);                                            \
    } else {                                                                                     \
      for (ptrdiff_t j = 0; j < cols; j += V)                                                    \
        for (ptrdiff_t i = 0; i < rows; i += V)                                                  \
          transpose_block_##NAME(to + j * ldo + i, ldo, src + i * row_stride + j * size, row_stride,\
                                 rows - i, cols - j);                                            \
    }                                                                                            \
  }

XC_TRANSPOSE(f32, float, float, 8, __m256, whole8_f32, load8_f32, transpose8, _mm256_storeu_ps,
             _mm256_maskstore_ps, first8, transpose_f32)
XC_TRANSPOSE(bf16, uint16_t, float, 8, __m256, whole8_bf16, load8_bf16, transpose8, _mm256_storeu_ps,
             _mm256_maskstore_ps, first8, transpose_f32)
XC_TRANSPOSE(f64, double, double, 4, __m256d, whole4_f64, load4_f64, transpose4, _mm256_storeu_pd,
             _mm256_maskstore_pd, first4, transpose_f64)

/* FP32 on processors with AVX-512: 16 rows x 4 columns. Four rows 4 apart are loaded into the
 * quarters of a vector, so that nothing has to move between these. Up to 8 rows, and few columns,
 * are left to the blocks above. */
static inline __attribute__((always_inline)) XC_AVX512 __m512 quarters_f32(const char* block,
                                                                          ptrdiff_t row_stride,
                                                                          ptrdiff_t nr,
                                                                          ptrdiff_t k) {
  __m128 row[4];
  for (int q = 0; q < 4; q++, k += 4)
    row[q] = _mm_loadu_ps((const float*)(block + (k < nr ? k : nr - 1) * row_stride));
  __m512 v = _mm512_mask_broadcast_f32x4(_mm512_castps128_ps512(row[0]), 0x00f0, row[1]);
  v = _mm512_mask_broadcast_f32x4(v, 0x0f00, row[2]);
  return _mm512_mask_broadcast_f32x4(v, 0xf000, row[3]);
}
static inline __attribute__((always_inline)) XC_AVX512 void transpose_16x4(
    float* to, ptrdiff_t ldo, const char* block, ptrdiff_t row_stride, ptrdiff_t nr) {
  const __mmask16 mask = (__mmask16)((1u << nr) - 1);
  __m512 r[4], t[4];
  for (int k = 0; k < 4; k++) r[k] = quarters_f32(block, row_stride, nr, k);
  for (int k = 0; k < 4; k += 2) {
    t[k] = _mm512_unpacklo_ps(r[k], r[k + 1]);
    t[k + 1] = _mm512_unpackhi_ps(r[k], r[k + 1]);
  }
  r[0] = _mm512_shuffle_ps(t[0], t[2], 0x44);
  r[1] = _mm512_shuffle_ps(t[0], t[2], 0xee);
  r[2] = _mm512_shuffle_ps(t[1], t[3], 0x44);
  r[3] = _mm512_shuffle_ps(t[1], t[3], 0xee);
  for (int k = 0; k < 4; k++)
    if (nr == 16)
      _mm512_storeu_ps(to + k * ldo, r[k]);
    else
      _mm512_mask_storeu_ps(to + k * ldo, mask, r[k]);
}
static XC_AVX512 void transpose_tall_f32(void* dst, ptrdiff_t ldo, const char* src,
                                         ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t cols) {
  const ptrdiff_t tall = rows % 16 > 8 ? rows : rows - rows % 16;
  const ptrdiff_t whole = cols - cols % 4;
  const int long_rows = row_stride > ldo * 4;
  /* Columns of a strip of 16 rows, or rows of a strip of 4 columns. */
  const ptrdiff_t width = long_rows ? whole : 4, height = long_rows ? 16 : tall;
  float* const to = (float*)dst;
  for (ptrdiff_t i0 = 0; i0 < tall; i0 += height)
    for (ptrdiff_t j0 = 0; j0 < whole; j0 += width)
      for (ptrdiff_t i = i0; i < i0 + height && i < tall; i += 16) {
        const char* const strip = src + i * row_stride;
        const ptrdiff_t nr = tall - i < 16 ? tall - i : 16;
        for (ptrdiff_t j = j0; j < j0 + width; j += 4) {
          if (nr == 16)
            transpose_16x4(to + j * ldo + i, ldo, strip + j * 4, row_stride, 16);
          else
            transpose_16x4(to + j * ldo + i, ldo, strip + j * 4, row_stride, nr);
        }
      }
  if (tall < rows)
    transpose_f32(to + tall, ldo, src + tall * row_stride, row_stride, 4, rows - tall, whole);
  if (whole < cols)
    transpose_f32(to + whole * ldo, ldo, src + whole * 4, row_stride, 4, rows, cols - whole);
}
/* Whole vectors of rows that follow each other, of few columns: the taps of filters, or the phases
 * of a stride. The elements of a column are so far apart that each vector of the source has some. */
static inline __attribute__((always_inline)) XC_AVX512 void transpose_few(
    float* to, ptrdiff_t ldo, const char* src, ptrdiff_t rows, const int cols, const int widen) {
  const __m512i row = _mm512_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15);
  const ptrdiff_t vector = widen ? 32 : 64;
  __m512i place[7];
  __mmask16 in[7][7];
  for (int j = 0; j < cols; j++) {
    place[j] = _mm512_add_epi32(_mm512_mullo_epi32(row, _mm512_set1_epi32(cols)),
                                _mm512_set1_epi32(j));
    for (int k = 0; k < cols; k++)
      in[j][k] = _mm512_cmpeq_epi32_mask(_mm512_srli_epi32(place[j], 4), _mm512_set1_epi32(k));
  }
  for (ptrdiff_t i = 0; i < rows; i += 16, to += 16, src += cols * vector) {
    __m512 v[7];
    for (int k = 0; k < cols; k++)
      if (widen)
        v[k] = _mm512_castsi512_ps(_mm512_slli_epi32(
            _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)(src + k * vector))), 16));
      else
        v[k] = _mm512_loadu_ps(src + k * vector);
    for (int j = 0; j < cols; j++) {
      __m512 one = _mm512_permutexvar_ps(place[j], v[0]);
      for (int k = 1; k < cols; k++)
        one = _mm512_mask_permutexvar_ps(one, in[j][k], place[j], v[k]);
      _mm512_storeu_ps(to + j * ldo, one);
    }
  }
}
#define XC_TRANSPOSE_FEW(NAME, WIDEN)                                                            \
  static XC_AVX512 void transpose_few_##NAME(float* to, ptrdiff_t ldo, const char* src,          \
                                             ptrdiff_t rows, ptrdiff_t cols) {                   \
    if (cols == 2) transpose_few(to, ldo, src, rows, 2, WIDEN);                                  \
    if (cols == 3) transpose_few(to, ldo, src, rows, 3, WIDEN);                                  \
    if (cols == 4) transpose_few(to, ldo, src, rows, 4, WIDEN);                                  \
    if (cols == 5) transpose_few(to, ldo, src, rows, 5, WIDEN);                                  \
    if (cols == 6) transpose_few(to, ldo, src, rows, 6, WIDEN);                                  \
    if (cols == 7) transpose_few(to, ldo, src, rows, 7, WIDEN);                                  \
  }
XC_TRANSPOSE_FEW(f32, 0)
XC_TRANSPOSE_FEW(bf16, 1)
static void transpose_f32_512(void* dst, ptrdiff_t ldo, const char* src, ptrdiff_t row_stride,
                              ptrdiff_t col_stride, ptrdiff_t rows, ptrdiff_t cols) {
  const ptrdiff_t whole = rows - rows % 16;
  if (col_stride != 4 && row_stride != 4 && cols > 1) {
    transpose_strided((char*)dst, ldo, src, row_stride, col_stride, rows, cols, 4, load_f32,
                      transpose_f32_512);
  } else if (rows > 8 && cols >= 16 && col_stride == 4) {
    transpose_tall_f32(dst, ldo, src, row_stride, rows, cols);
  } else if (whole && cols > 1 && cols <= 7 && col_stride == 4 && row_stride == 4 * cols) {
    transpose_few_f32((float*)dst, ldo, src, whole, cols);
    if (whole < rows)
      transpose_f32((float*)dst + whole, ldo, src + whole * row_stride, row_stride, 4,
                    rows - whole, cols);
  } else {
    transpose_f32(dst, ldo, src, row_stride, col_stride, rows, cols);
  }
}
/* Rows of BF16 that are close to each other, such as those of windows with a stride, are widened
 * together with what lies between them. */
static XC_AVX512 void transpose_close_bf16(float* to, ptrdiff_t ldo, const char* src,
                                           ptrdiff_t row_stride, ptrdiff_t rows, ptrdiff_t cols) {
  enum { ALL = 2048 };
  float all[ALL];
  const ptrdiff_t apart = row_stride / 2, part = (ALL - cols) / apart;
  for (ptrdiff_t i = 0; i < rows; i += part) {
    const ptrdiff_t nr = rows - i < part ? rows - i : part;
    load_bf16_512(all, src + i * row_stride, 2, (nr - 1) * apart + cols);
    transpose_f32_512(to + i, ldo, (const char*)all, 4 * apart, 4, nr, cols);
  }
}
static XC_AVX512 void transpose_bf16_512(void* dst, ptrdiff_t ldo, const char* src,
                                         ptrdiff_t row_stride, ptrdiff_t col_stride, ptrdiff_t rows,
                                         ptrdiff_t cols) {
  const int close = row_stride > 2 && row_stride <= 64 && row_stride % 2 == 0;
  float* const to = (float*)dst;
  if (cols > 1 && col_stride != 2 && row_stride != 2) {
    transpose_strided((char*)dst, ldo, src, row_stride, col_stride, rows, cols, 4, load_bf16_512,
                      transpose_f32_512);
  } else if (cols > 1 && cols <= 16 && close) {
    const ptrdiff_t whole = cols <= 7 && row_stride == 2 * cols ? rows - rows % 16 : 0;
    transpose_few_bf16(to, ldo, src, whole, cols);
    transpose_close_bf16(to + whole, ldo, src + whole * row_stride, row_stride, rows - whole, cols);
  } else {
    transpose_bf16(dst, ldo, src, row_stride, col_stride, rows, cols);
  }
}

/* The other way round: to[i*rows + r] = src[r*row + i] for few rows and n columns, as many at a time
 * as make whole vectors. Returns how many are done. Stores with masks would take longer. */
static inline __attribute__((always_inline)) XC_AVX512 ptrdiff_t interleave_few(
    float* to, const float* src, ptrdiff_t row, const int rows, ptrdiff_t n) {
  __m512i column[8];
  __mmask16 in[8][8];
  ptrdiff_t i = 0;
  if (n < 16) return 0;
#pragma GCC unroll 8
  for (int k = 0; k < rows; k++) { /* constants, as far as the compiler is concerned */
    int32_t at[16], of[16];
#pragma GCC unroll 16
    for (int j = 0; j < 16; j++) at[j] = (16 * k + j) / rows, of[j] = (16 * k + j) % rows;
    column[k] = _mm512_loadu_si512(at);
    const __m512i row_of = _mm512_loadu_si512(of);
#pragma GCC unroll 8
    for (int r = 0; r < rows; r++) in[k][r] = _mm512_cmpeq_epi32_mask(row_of, _mm512_set1_epi32(r));
  }
  for (; i + 16 <= n; i += 16, to += 16 * rows) {
    __m512 v[8];
    for (int r = 0; r < rows; r++) v[r] = _mm512_loadu_ps(src + r * row + i);
    for (int k = 0; k < rows; k++) {
      __m512 one = _mm512_permutexvar_ps(column[k], v[0]);
      for (int r = 1; r < rows; r++)
        one = _mm512_mask_permutexvar_ps(one, in[k][r], column[k], v[r]);
      _mm512_storeu_ps(to + 16 * k, one);
    }
  }
  return i;
}
static XC_AVX512 ptrdiff_t interleave_few_f32(float* to, const float* src, ptrdiff_t row,
                                              ptrdiff_t rows, ptrdiff_t n) {
  if (rows == 3) return interleave_few(to, src, row, 3, n);
  if (rows == 4) return interleave_few(to, src, row, 4, n);
  if (rows == 5) return interleave_few(to, src, row, 5, n);
  if (rows == 6) return interleave_few(to, src, row, 6, n);
  if (rows == 7) return interleave_few(to, src, row, 7, n);
  return 0;
}

/* Two rows, for which the compiler finds the shuffles. */
#define XC_INTERLEAVE_TWO(NAME, COMPUTED)                                                        \
  static void interleave_two_##NAME(COMPUTED* restrict to, const COMPUTED* even,                 \
                                    const COMPUTED* odd, ptrdiff_t n) {                          \
    for (ptrdiff_t i = 0; i < n; i++) {                                                          \
      to[2 * i] = even[i];                                                                       \
      to[2 * i + 1] = odd[i];                                                                    \
    }                                                                                            \
  }
XC_INTERLEAVE_TWO(f32, float)
XC_INTERLEAVE_TWO(f64, double)

/* Few rows with AVX2: what a store writes beyond its column, the next one
 * overwrites. */
static ptrdiff_t interleave_few_avx2(float* to, const float* src, ptrdiff_t row, ptrdiff_t rows,
                                     ptrdiff_t n) {
  ptrdiff_t i = 0;
  for (; i + 16 <= n; i += 8) {
    __m256 r[8];
    for (int k = 0; k < 8; k++) r[k] = _mm256_loadu_ps(src + (k < rows ? k : rows - 1) * row + i);
    transpose8(r);
    for (int k = 0; k < 8; k++) _mm256_storeu_ps(to + (i + k) * rows, r[k]);
  }
  return i;
}

/* dst[i][r] = src[i + (stack-1-r)*lag] for n positions of `bytes` each (a multiple of 4). */
static inline void stack_lanes(char* dst, const char* src, ptrdiff_t stack, ptrdiff_t lag,
                               ptrdiff_t n, ptrdiff_t bytes) {
  for (ptrdiff_t r = 0; r < stack; r++) {
    const char* from = src + (stack - 1 - r) * lag * bytes;
    char* to = dst + r * bytes;
    if (bytes == 64) {
      for (ptrdiff_t i = 0; i < n; i++, to += 64 * stack, from += 64) {
        const __m256i low = _mm256_loadu_si256((const __m256i*)from);
        const __m256i high = _mm256_loadu_si256((const __m256i*)(from + 32));
        _mm256_storeu_si256((__m256i*)to, low);
        _mm256_storeu_si256((__m256i*)(to + 32), high);
      }
    } else if (bytes == 32) {
      for (ptrdiff_t i = 0; i < n; i++, to += 32 * stack, from += 32)
        _mm256_storeu_si256((__m256i*)to, _mm256_loadu_si256((const __m256i*)from));
    } else {
      for (ptrdiff_t i = 0; i < n; i++, to += bytes * stack, from += bytes)
        for (ptrdiff_t b = 0; b < bytes; b += 4) memcpy(to + b, from + b, 4);
    }
  }
}

#endif
