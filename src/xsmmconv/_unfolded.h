/* Few positions: sums in which a weight is used once to four times, so that reading it takes the
 * time. Weights are used as they lie: the weights of a filter are a row [channel][tap], and what
 * each position reads of x is unfolded to such a row.
 *
 * Elements that a position does not reach are masked: no weight meets a zero of the padding.
 */
#ifndef XSMMCONV_UNFOLDED_H
#define XSMMCONV_UNFOLDED_H

#include "_pack.h"
#include "_row_dots.h"

typedef struct {
  char* weights;         /* of the first filter; outer products write them */
  ptrdiff_t weights_row; /* bytes from filter to filter */
  ptrdiff_t filters;
  ptrdiff_t n;           /* weights of a filter, or the first so many of them */
  char* unfolded;        /* [position][weight]; rows are whole vectors */
  ptrdiff_t unfolded_row;
  const char* masks;     /* [vector][position], from the first weight on */
  ptrdiff_t ahead; /* bytes, after which lines to be written are asked for; 0: they are not */
} unfolded;

/* by_filter has [filter][position]. */
typedef void (*unfolded_t)(const unfolded* u, void* by_filter);

#define XC_MULTIPLY_16F(sum, a, b, used) _mm512_mask3_fmadd_ps(a, b, sum, used)
#define XC_MULTIPLY_8D(sum, a, b, used) _mm512_mask3_fmadd_pd(a, b, sum, used)
/* What lies in b beside the elements used is finite. */
#define XC_MULTIPLY_8F(sum, a, b, used) _mm256_fmadd_ps(XC_KEEP_8F(used, a), b, sum)
#define XC_MULTIPLY_4D(sum, a, b, used) _mm256_fmadd_pd(XC_KEEP_4D(used, a), b, sum)

/* Weights from p on: a vector, or what is `left` of a row, less than a vector; `whole` is known to
 * the compiler. */
#define XC_WEIGHTS_AT(NAME, LOWER, TARGET, VECTOR, PUT)                                          \
  XC_INLINE TARGET VECTOR weights_at_##LOWER(const char* p, ptrdiff_t left, const int whole) {   \
    return whole ? *(const VECTOR*)p : (VECTOR)XC_SOME_##NAME(between_##LOWER(0, left), p);      \
  }                                                                                              \
  XC_INLINE TARGET void put_weights_##LOWER(char* p, VECTOR v, ptrdiff_t left,                   \
                                            const int whole) {                                   \
    if (whole)                                                                                   \
      *(VECTOR*)p = v;                                                                           \
    else                                                                                         \
      PUT((void*)p, between_##LOWER(0, left), v);                                                \
  }
XC_WEIGHTS_AT(16F, 16f, XC_AVX512, __m512_u, _mm512_mask_storeu_ps)
XC_WEIGHTS_AT(8D, 8d, XC_AVX512, __m512d_u, _mm512_mask_storeu_pd)
XC_WEIGHTS_AT(8F, 8f, , __m256_u, _mm256_maskstore_ps)
XC_WEIGHTS_AT(4D, 4d, , __m256d_u, _mm256_maskstore_pd)

/* BF16 is widened, and rounded. */
XC_INLINE XC_AVX512_16 __m512_u weights_at_16b(const char* p, ptrdiff_t left, const int whole) {
  const __m256i v = whole ? _mm256_loadu_si256((const __m256i_u*)p)
                          : _mm256_maskz_loadu_epi16(between_16f(0, left), p);
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(v), 16));
}
XC_INLINE XC_AVX512_16 void put_weights_16b(char* p, __m512_u v, ptrdiff_t left,
                                            const int whole) {
  if (whole)
    _mm256_storeu_si256((__m256i_u*)p, bf16_round16(v));
  else
    _mm256_mask_storeu_epi16(p, between_16f(0, left), bf16_round16(v));
}
XC_INLINE __m256_u weights_at_8b(const char* p, ptrdiff_t left, const int whole) {
  __m128i v = _mm_setzero_si128();
  if (whole)
    v = _mm_loadu_si128((const __m128i_u*)p);
  else
    memcpy(&v, p, 2 * (size_t)left);
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(v), 16));
}
XC_INLINE void put_weights_8b(char* p, __m256_u v, ptrdiff_t left, const int whole) {
  const __m128i r = bf16_round8(v);
  if (whole)
    _mm_storeu_si128((__m128i_u*)p, r);
  else
    memcpy(p, &r, 2 * (size_t)left);
}

#define XC_ADD_PRODUCT(NAME, sum, a, b, used)                                                    \
  (masked ? (XC_MULTIPLY_##NAME(sum, a, b, used)) : (XC_ROWS_##NAME(sum, a, b)))

/* All filters, A at a time, then one at a time. */
#define XC_UNFOLDED_ROWS(STEP, TYPE, VECTOR, LANES, A, SET)                                      \
  for (ptrdiff_t k = 0; k < u->filters;) {                                                       \
    const TYPE* const given = (const TYPE*)by_filter + k * P;                                    \
    char* const w = u->weights + k * u->weights_row;                                             \
    VECTOR by[16];                                                                               \
    ptrdiff_t r = 0;                                                                             \
    if (k + (A) <= u->filters) {                                                                 \
      XC_UNROLL for (int i = 0; i < (A) * P; i++) by[i] = SET(given[i]);                         \
      for (; r + LANES <= u->n; r += LANES) STEP(u, w, by, r, A, P, masked, 1);                  \
      if (r < u->n) STEP(u, w, by, r, A, P, masked, 0);                                          \
      k += (A);                                                                                  \
    } else {                                                                                     \
      XC_UNROLL for (int i = 0; i < P; i++) by[i] = SET(given[i]);                               \
      for (; r + LANES <= u->n; r += LANES) STEP(u, w, by, r, 1, P, masked, 1);                  \
      if (r < u->n) STEP(u, w, by, r, 1, P, masked, 0);                                          \
      k++;                                                                                       \
    }                                                                                            \
  }

/* SIZE: bytes of a weight; KIND: name of what is computed; ROWS: filters read at a time. */
#define XC_UNFOLDED(NAME, KIND, LOWER, TARGET, SIZE, TYPE, VECTOR, MASK, LANES, ROWS, SET)       \
  /* by_filter = sums of weights and what they meet. */                                          \
  XC_INLINE TARGET void dots_step_##LOWER(const unfolded* u, char* const* w, VECTOR* sum,        \
                                          ptrdiff_t r, const int P, const int masked,            \
                                          const int whole) {                                     \
    const MASK* const used = (const MASK*)u->masks + r / LANES * P;                              \
    const ptrdiff_t at = r * (ptrdiff_t)sizeof(TYPE);                                            \
    VECTOR v[ROWS];                                                                              \
    XC_UNROLL for (int i = 0; i < ROWS; i++)                                                     \
      v[i] = weights_at_##LOWER(w[i] + r * SIZE, u->n - r, whole);                               \
    XC_UNROLL for (int p = 0; p < P; p++) {                                                      \
      const VECTOR x = *(const VECTOR*)(u->unfolded + p * u->unfolded_row + at);                 \
      XC_UNROLL for (int i = 0; i < ROWS; i++)                                                   \
        sum[i * P + p] = XC_ADD_PRODUCT(NAME, sum[i * P + p], v[i], x, used[p]);                 \
    }                                                                                            \
  }                                                                                              \
  XC_INLINE TARGET void unfolded_dots_##LOWER(const unfolded* u, void* by_filter, const int P,   \
                                              const int masked) {                                \
    const int U = P > 2 ? 1 : 2; /* sums of each, so that none waits for the one before */       \
    for (ptrdiff_t k = 0; k < u->filters; k += ROWS) {                                           \
      const ptrdiff_t left = u->filters - k, rows = left < ROWS ? left : ROWS;                   \
      VECTOR sum[4 * ROWS];                                                                      \
      TYPE total[2 * LANES] = {0};                                                               \
      char* w[ROWS];                                                                             \
      ptrdiff_t r = 0;                                                                           \
      XC_UNROLL for (int i = 0; i < ROWS; i++)                                                   \
        w[i] = u->weights + (k + (i < rows ? i : rows - 1)) * u->weights_row;                    \
      XC_UNROLL for (int i = 0; i < U * ROWS * P; i++) sum[i] = (VECTOR){0};                     \
      for (; r + U * LANES <= u->n; r += U * LANES)                                              \
        XC_UNROLL for (int j = 0; j < U; j++)                                                    \
          dots_step_##LOWER(u, w, sum + j * ROWS * P, r + j * LANES, P, masked, 1);              \
      for (; r + LANES <= u->n; r += LANES) dots_step_##LOWER(u, w, sum, r, P, masked, 1);       \
      if (r < u->n) dots_step_##LOWER(u, w, sum, r, P, masked, 0);                               \
      XC_UNROLL for (int i = 0; i < (U - 1) * ROWS * P; i++) sum[i] += sum[ROWS * P + i];        \
      add_sums_##KIND(total, sum, ROWS * P);                                                     \
      if (rows == ROWS) /* a size that the compiler knows */                                     \
        memcpy((TYPE*)by_filter + k * P, total, ROWS * P * sizeof(TYPE));                        \
      else                                                                                       \
        memcpy((TYPE*)by_filter + k * P, total, (size_t)(rows * P) * sizeof(TYPE));              \
    }                                                                                            \
  }                                                                                              \
  /* unfolded += weights of A filters times what is given of each. */                            \
  XC_INLINE TARGET void sums_step_##LOWER(const unfolded* u, const char* w, const VECTOR* by,    \
                                          ptrdiff_t r, const int A, const int P,                 \
                                          const int masked, const int whole) {                   \
    const MASK* const used = (const MASK*)u->masks + r / LANES * P;                              \
    const ptrdiff_t at = r * (ptrdiff_t)sizeof(TYPE);                                            \
    VECTOR v[4];                                                                                 \
    XC_UNROLL for (int i = 0; i < A; i++)                                                        \
      v[i] = weights_at_##LOWER(w + i * u->weights_row + r * SIZE, u->n - r, whole);             \
    XC_UNROLL for (int p = 0; p < P; p++) {                                                      \
      VECTOR* const to = (VECTOR*)(u->unfolded + p * u->unfolded_row + at);                      \
      VECTOR sum = *to;                                                                          \
      XC_UNROLL for (int i = 0; i < A; i++)                                                      \
        sum = XC_ADD_PRODUCT(NAME, sum, v[i], by[i * P + p], used[p]);                           \
      *to = sum;                                                                                 \
    }                                                                                            \
  }                                                                                              \
  XC_INLINE TARGET void unfolded_sums_##LOWER(const unfolded* u, void* by_filter, const int P,   \
                                              const int masked) {                                \
    const int many = P > 2 ? ROWS : 4;                                                           \
    XC_UNFOLDED_ROWS(sums_step_##LOWER, TYPE, VECTOR, LANES, many, SET)                          \
  }                                                                                              \
  /* weights of A filters = sums of what is given of each times unfolded. */                     \
  XC_INLINE TARGET void outer_step_##LOWER(const unfolded* u, char* w, const VECTOR* by,         \
                                           ptrdiff_t r, const int A, const int P,                \
                                           const int masked, const int whole) {                  \
    const MASK* const used = (const MASK*)u->masks + r / LANES * P;                              \
    const ptrdiff_t at = r * (ptrdiff_t)sizeof(TYPE);                                            \
    VECTOR sum[2] = {{0}, {0}};                                                                  \
    XC_UNROLL for (int p = 0; p < P; p++) {                                                      \
      const VECTOR x = *(const VECTOR*)(u->unfolded + p * u->unfolded_row + at);                 \
      XC_UNROLL for (int i = 0; i < A; i++)                                                      \
        sum[i] = XC_ADD_PRODUCT(NAME, sum[i], by[i * P + p], x, used[p]);                        \
    }                                                                                            \
    XC_UNROLL for (int i = 0; i < A; i++) {                                                      \
      char* const to = w + i * u->weights_row + r * SIZE;                                        \
      if (u->ahead) __builtin_prefetch(to + u->ahead, 1, 2);                                     \
      put_weights_##LOWER(to, sum[i], u->n - r, whole);                                          \
    }                                                                                            \
  }                                                                                              \
  XC_INLINE TARGET void unfolded_outer_##LOWER(const unfolded* u, void* by_filter, const int P,  \
                                               const int masked) {                               \
    const int many = masked ? 2 : 1; /* two share the masks */                                   \
    XC_UNFOLDED_ROWS(outer_step_##LOWER, TYPE, VECTOR, LANES, many, SET)                         \
  }                                                                                              \
  XC_UNFOLDED_FOR(dots, LOWER, TARGET)                                                           \
  XC_UNFOLDED_FOR(sums, LOWER, TARGET)                                                           \
  XC_UNFOLDED_FOR(outer, LOWER, TARGET)                                                          \
  static const unfolded_t unfolded_table_##LOWER[3][4][2] = {XC_UNFOLDED_TABLE(dots, LOWER),     \
                                                             XC_UNFOLDED_TABLE(sums, LOWER),     \
                                                             XC_UNFOLDED_TABLE(outer, LOWER)};

/* A copy of u: what a routine stores could be a part of *u, for all that the compiler knows. */
#define XC_UNFOLDED_AS(WHAT, LOWER, TARGET, P)                                                   \
  static TARGET void unfolded_##WHAT##_##LOWER##_##P(const unfolded* u, void* by_filter) {       \
    const unfolded own = *u;                                                                     \
    unfolded_##WHAT##_##LOWER(&own, by_filter, P, 0);                                            \
  }                                                                                              \
  static TARGET void unfolded_##WHAT##_##LOWER##_##P##_masked(const unfolded* u,                 \
                                                              void* by_filter) {                 \
    const unfolded own = *u;                                                                     \
    unfolded_##WHAT##_##LOWER(&own, by_filter, P, 1);                                            \
  }
#define XC_UNFOLDED_FOR(WHAT, LOWER, TARGET) XC_UP_TO_4(XC_UNFOLDED_AS, WHAT, LOWER, TARGET)
#define XC_UNFOLDED_BOTH(WHAT, LOWER, P)                                                         \
  {unfolded_##WHAT##_##LOWER##_##P, unfolded_##WHAT##_##LOWER##_##P##_masked},
#define XC_UNFOLDED_TABLE(WHAT, LOWER) {XC_UP_TO_4(XC_UNFOLDED_BOTH, WHAT, LOWER)}

XC_UNFOLDED(16F, 16f, 16f, XC_AVX512, 4, float, __m512_u, __mmask16, 16, 4, _mm512_set1_ps)
XC_UNFOLDED(8D, 8d, 8d, XC_AVX512, 8, double, __m512d_u, __mmask8, 8, 4, _mm512_set1_pd)
XC_UNFOLDED(16F, 16f, 16b, XC_AVX512_16, 2, float, __m512_u, __mmask16, 16, 4, _mm512_set1_ps)
XC_UNFOLDED(8F, 8f, 8f, , 4, float, __m256_u, __m256i_u, 8, 2, _mm256_set1_ps)
XC_UNFOLDED(4D, 4d, 4d, , 8, double, __m256d_u, __m256i_u, 4, 2, _mm256_set1_pd)
XC_UNFOLDED(8F, 8f, 8b, , 2, float, __m256_u, __m256i_u, 8, 2, _mm256_set1_ps)

enum { UNFOLDED_DOTS, UNFOLDED_SUMS, UNFOLDED_OUTER };

/* dtype: of the weights, as in _pack.h. */
static inline unfolded_t unfolded_of(int what, int dtype, int wide, int positions, int masked) {
  static const unfolded_t(*const tables[2][3])[4][2] = {
      {unfolded_table_8f, unfolded_table_4d, unfolded_table_8b},
      {unfolded_table_16f, unfolded_table_8d, unfolded_table_16b},
  };
  return tables[wide != 0][dtype][what][positions - 1][masked];
}

/* Masks of n weights, of which a position uses the taps first[p] to end[p] - 1 of each channel. As
 * bits for AVX-512, otherwise as vectors. */
static inline void unfolded_masks(char* to, const int64_t* first, const int64_t* end,
                                  ptrdiff_t positions, ptrdiff_t S, ptrdiff_t n, int size,
                                  int wide) {
  const int lanes = (wide ? 64 : 32) / size;
  for (ptrdiff_t r = 0; r < n; r += lanes)
    for (ptrdiff_t p = 0; p < positions; p++) {
      uint32_t bits = 0;
      for (int i = 0; i < lanes; i++) {
        const ptrdiff_t t = (r + i) % S;
        const int used = r + i < n && first[p] <= t && t < end[p];
        bits |= (uint32_t)used << i;
        if (!wide) memset(to + i * size, used ? 255 : 0, (size_t)size);
      }
      if (wide) memcpy(to, &bits, (size_t)lanes / 8);
      to += wide ? lanes / 8 : 32;
    }
}

/* unfold: what a position reads of x, by the taps first to end - 1 of each channel, where there are
 * zeros. fold: rows of the gradient of x, from the sums of the positions of one row of the batch.
 * load and store: between rows of the batch and [filter][position]. Strides in bytes. */
typedef struct {
  void (*unfold)(void* to, const char* x, ptrdiff_t stride_c, ptrdiff_t stride_t, ptrdiff_t C,
                 ptrdiff_t S, ptrdiff_t first, ptrdiff_t end);
  void (*fold)(char* to, ptrdiff_t width, const char* sums, ptrdiff_t sums_row, ptrdiff_t C,
               ptrdiff_t S, ptrdiff_t d, ptrdiff_t positions, const int64_t* place,
               const int64_t* first, const int64_t* end);
  void (*load)(char* to, const char* grad, ptrdiff_t stride_n, ptrdiff_t stride_k,
               ptrdiff_t stride_q, ptrdiff_t filters, ptrdiff_t N, ptrdiff_t Q);
  void (*store)(char* to, ptrdiff_t stride_n, const char* sums, ptrdiff_t filters, ptrdiff_t N,
                ptrdiff_t Q, const char* bias, int relu);
} unfolded_ops;

#define XC_REARRANGE(NAME, STORED, TYPE, WIDEN, ROUND)                                           \
  static void unfold_##NAME(void* to, const char* x, ptrdiff_t stride_c, ptrdiff_t stride_t,     \
                            ptrdiff_t C, ptrdiff_t S, ptrdiff_t first, ptrdiff_t end) {          \
    TYPE* row = (TYPE*)to;                                                                       \
    STORED v;                                                                                    \
    for (ptrdiff_t c = 0; c < C; c++, row += S, x += stride_c)                                   \
      for (ptrdiff_t t = first; t < end; t++) {                                                  \
        memcpy(&v, x + t * stride_t, sizeof v);                                                  \
        row[t] = WIDEN(v);                                                                       \
      }                                                                                          \
  }                                                                                              \
  static void load_filters_##NAME(char* to, const char* grad, ptrdiff_t stride_n,                \
                                  ptrdiff_t stride_k, ptrdiff_t stride_q, ptrdiff_t filters,     \
                                  ptrdiff_t N, ptrdiff_t Q) {                                    \
    TYPE* next = (TYPE*)to;                                                                      \
    STORED v;                                                                                    \
    for (ptrdiff_t k = 0; k < filters; k++)                                                      \
      for (ptrdiff_t n = 0; n < N; n++)                                                          \
        for (ptrdiff_t q = 0; q < Q; q++) {                                                      \
          memcpy(&v, grad + n * stride_n + k * stride_k + q * stride_q, sizeof v);               \
          *next++ = WIDEN(v);                                                                    \
        }                                                                                        \
  }                                                                                              \
  static void store_filters_##NAME(char* to, ptrdiff_t stride_n, const char* sums,               \
                                   ptrdiff_t filters, ptrdiff_t N, ptrdiff_t Q,                  \
                                   const char* bias, int relu) {                                 \
    const TYPE* next = (const TYPE*)sums;                                                        \
    for (ptrdiff_t k = 0; k < filters; k++) {                                                    \
      const TYPE add = bias ? ((const TYPE*)bias)[k] : (TYPE)0;                                  \
      for (ptrdiff_t n = 0; n < N; n++)                                                          \
        for (ptrdiff_t q = 0; q < Q; q++) {                                                      \
          const TYPE sum = *next++, v = bias ? sum + add : sum;                                  \
          ((STORED*)(to + n * stride_n))[k * Q + q] = ROUND(relu && v < (TYPE)0 ? (TYPE)0 : v);  \
        }                                                                                        \
    }                                                                                            \
  }
#define XC_FOLD(NAME, TYPE)                                                                      \
  static void fold_##NAME(char* to, ptrdiff_t width, const char* sums, ptrdiff_t sums_row,       \
                          ptrdiff_t C, ptrdiff_t S, ptrdiff_t d, ptrdiff_t positions,            \
                          const int64_t* place, const int64_t* first, const int64_t* end) {      \
    TYPE* row = (TYPE*)to;                                                                       \
    memset(to, 0, (size_t)(C * width) * sizeof(TYPE));                                           \
    for (ptrdiff_t c = 0; c < C; c++, row += width, sums += S * (ptrdiff_t)sizeof(TYPE))         \
      for (ptrdiff_t p = 0; p < positions; p++) {                                                \
        const TYPE* const sum = (const TYPE*)(sums + p * sums_row);                              \
        for (ptrdiff_t t = first[p]; t < end[p]; t++) row[place[p] + t * d] += sum[t];           \
      }                                                                                          \
  }
XC_REARRANGE(f32, float, float, identity_f32, identity_f32)
XC_REARRANGE(f64, double, double, identity_f64, identity_f64)
XC_REARRANGE(bf16, uint16_t, float, bf16_widen, bf16_round)
XC_FOLD(f32, float)
XC_FOLD(f64, double)

static inline const unfolded_ops* unfolded_ops_of(int dtype) {
  static const unfolded_ops tables[3] = {
      {unfold_f32, fold_f32, load_filters_f32, store_filters_f32},
      {unfold_f64, fold_f64, load_filters_f64, store_filters_f64},
      {unfold_bf16, fold_f32, load_filters_bf16, store_filters_bf16},
  };
  return &tables[dtype];
}

#endif
