/* Rows of a user's array, as the kernels read them: all elements or every step-th one, BF16 as it
 * is or widened to FP32.
 *
 * A part of _pack.h. Strides of a source are in bytes and arbitrary; nothing is assumed about its
 * alignment, and nothing is read beyond its last element.
 */
#ifndef XSMMCONV_LOAD_H
#define XSMMCONV_LOAD_H

#include <immintrin.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#define XC_AVX512 __attribute__((target("avx512f")))
#define XC_AVX512_16 __attribute__((target("avx512f,avx512bw,avx512vl")))

static inline float bf16_widen(uint16_t h) {
  const uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}
static inline uint16_t bf16_at(const char* p) {
  uint16_t v;
  memcpy(&v, p, sizeof v);
  return v;
}

/* ---- every step-th element -------------------------------------------------------------------- */

/* A vector of the result comes from `step` vectors of the source: with L lanes, element i from lane
 * i*step % L, which is all that a permutation looks at, of vector i*step / L. The longer the step,
 * the fewer does each of them have, and one by one is as fast. The routines return how many elements
 * they have done. */
static inline __attribute__((always_inline)) ptrdiff_t every_f32(float* dst, const char* src,
                                                                 const int step, ptrdiff_t n) {
  const __m256i lane = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
  const __m256i at = _mm256_mullo_epi32(lane, _mm256_set1_epi32(step));
  ptrdiff_t i = 0;
  for (; i + 8 < n; i += 8, src += 32 * step) {
    __m256 one = _mm256_permutevar8x32_ps(_mm256_loadu_ps((const float*)src), at);
    for (int v = 1; v < step; v++) {
      const __m256i in = _mm256_cmpeq_epi32(_mm256_srli_epi32(at, 3), _mm256_set1_epi32(v));
      const __m256 some = _mm256_loadu_ps((const float*)(src + 32 * v));
      one = _mm256_blendv_ps(one, _mm256_permutevar8x32_ps(some, at), _mm256_castsi256_ps(in));
    }
    _mm256_storeu_ps(dst + i, one);
  }
  return i;
}
static ptrdiff_t load_every_f32(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n) {
  if (n <= 8 || stride % 4) return 0;
  switch (stride / 4) {
    case 2: return every_f32((float*)dst, src, 2, n);
    case 3: return every_f32((float*)dst, src, 3, n);
    case 4: return every_f32((float*)dst, src, 4, n);
    case 5: case 6: case 7: case 8: return every_f32((float*)dst, src, (int)(stride / 4), n);
    default: return 0;
  }
}

static inline __attribute__((always_inline)) XC_AVX512_16 void every_u16_512(
    uint16_t* dst, const char* src, const int step, ptrdiff_t n) {
  uint16_t each[32];
  __mmask32 in[16];
  for (int i = 0; i < 32; i++) each[i] = (uint16_t)(i * step);
  const __m512i at = _mm512_loadu_si512(each), vector = _mm512_srli_epi16(at, 5);
  for (int v = 0; v < step; v++) in[v] = _mm512_cmpeq_epi16_mask(vector, _mm512_set1_epi16((short)v));
  ptrdiff_t i = 0;
  for (; i + 32 < n; i += 32) {
    const char* const from = src + 2 * i * step;
    __m512i one = _mm512_permutexvar_epi16(at, _mm512_loadu_si512(from));
    for (int v = 1; v < step; v++)
      one = _mm512_mask_permutexvar_epi16(one, in[v], at, _mm512_loadu_si512(from + 64 * v));
    _mm512_storeu_si512(dst + i, one);
  }
  i = n - 32; /* what is read soon after is better not stored with a mask */
  const char* const from = src + 2 * i * step;
  __m512i one = _mm512_setzero_si512();
  ptrdiff_t left = (n - i - 1) * step + 1;
  for (int v = 0; v < step && left > 0; v++, left -= 32) {
    const __mmask32 some = left < 32 ? (1u << left) - 1 : ~0u;
    one = _mm512_mask_permutexvar_epi16(one, in[v], at,
                                        _mm512_maskz_loadu_epi16(some, from + 64 * v));
  }
  _mm512_storeu_si512(dst + i, one);
}
/* Every second and fourth one: fewer instructions. The last element's neighbours are not read. */
static inline XC_AVX512_16 ptrdiff_t second_u16_512(uint16_t* dst, const char* src, ptrdiff_t n) {
  ptrdiff_t i = 0;
  for (; i + 16 < n; i += 16)
    _mm256_storeu_si256((__m256i*)(dst + i), _mm512_cvtepi32_epi16(_mm512_loadu_si512(src + 4 * i)));
  return i;
}
static inline XC_AVX512_16 ptrdiff_t fourth_u16_512(uint16_t* dst, const char* src, ptrdiff_t n) {
  ptrdiff_t i = 0;
  for (; i + 8 < n; i += 8)
    _mm_storeu_si128((__m128i*)(dst + i), _mm512_cvtepi64_epi16(_mm512_loadu_si512(src + 8 * i)));
  return i;
}
static XC_AVX512_16 ptrdiff_t load_every_u16_512(void* dst, const char* src, ptrdiff_t stride,
                                                 ptrdiff_t n) {
  if (stride == 4) return second_u16_512((uint16_t*)dst, src, n);
  if (stride == 8) return fourth_u16_512((uint16_t*)dst, src, n);
  if (n < 32 || stride % 2 || stride < 6 || stride > 24) return 0;
  if (stride == 6)
    every_u16_512((uint16_t*)dst, src, 3, n);
  else
    every_u16_512((uint16_t*)dst, src, (int)(stride / 2), n);
  return n;
}

/* Every second one: known to the compiler, it becomes shuffles. */
#define XC_SECOND(NAME, TYPE)                                                                    \
  static ptrdiff_t load_every_##NAME(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n) { \
    const ptrdiff_t size = (ptrdiff_t)sizeof(TYPE), count = stride == 2 * size ? n : 0;          \
    for (ptrdiff_t i = 0; i < count; i++)                                                        \
      memcpy((char*)dst + i * size, src + 2 * i * size, sizeof(TYPE));                           \
    return count;                                                                                \
  }
XC_SECOND(f64, double)
XC_SECOND(u16, uint16_t)

/* ---- rows ------------------------------------------------------------------------------------- */

#define XC_LOAD(NAME, TYPE, TARGET)                                                              \
  static TARGET void load_##NAME(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n) {    \
    const ptrdiff_t size = (ptrdiff_t)sizeof(TYPE);                                              \
    if (stride == size) {                                                                        \
      memcpy(dst, src, (size_t)(n * size));                                                      \
      return;                                                                                    \
    }                                                                                            \
    for (ptrdiff_t i = load_every_##NAME(dst, src, stride, n); i < n; i++)                       \
      memcpy((char*)dst + i * size, src + i * stride, sizeof(TYPE));                             \
  }
XC_LOAD(f32, float, )
XC_LOAD(f64, double, )
XC_LOAD(u16, uint16_t, )
XC_LOAD(u16_512, uint16_t, XC_AVX512_16)

/* BF16 becomes FP32. */
#define XC_LOAD_WIDENED(NAME, LOAD, TARGET)                                                      \
  static TARGET void load_##NAME(void* dst, const char* src, ptrdiff_t stride, ptrdiff_t n) {    \
    enum { PART = 256, FEW = 16 };                                                               \
    uint16_t part[PART];                                                                         \
    float* out = (float*)dst;                                                                    \
    if (stride == 2) {                                                                           \
      for (ptrdiff_t i = 0; i < n; i++) out[i] = bf16_widen(bf16_at(src + 2 * i));               \
      return;                                                                                    \
    }                                                                                            \
    for (; n > FEW; n -= PART, out += PART, src += PART * stride) {                              \
      const ptrdiff_t m = n < PART ? n : PART;                                                   \
      LOAD(part, src, stride, m);                                                                \
      for (ptrdiff_t i = 0; i < m; i++) out[i] = bf16_widen(part[i]);                            \
    }                                                                                            \
    for (ptrdiff_t i = 0; i < n; i++) out[i] = bf16_widen(bf16_at(src + i * stride));            \
  }
XC_LOAD_WIDENED(bf16, load_u16, )
XC_LOAD_WIDENED(bf16_512, load_u16_512, XC_AVX512_16)

#endif
