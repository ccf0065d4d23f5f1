"""Mirror of the LIBXSMM 1.17 declarations that are used. No bodies."""

cdef extern from "libxsmm.h" nogil:
    ctypedef int libxsmm_blasint

    enum: LIBXSMM_X86_AVX2
    enum: LIBXSMM_X86_AVX512_CORE
    enum: LIBXSMM_X86_AVX512_CPX
    enum: LIBXSMM_GEMM_FLAG_NONE
    enum: LIBXSMM_GEMM_FLAG_VNNI_A
    enum: LIBXSMM_GEMM_PREFETCH_AL2_AHEAD

    ctypedef struct libxsmm_registry_info:
        size_t capacity
        size_t size
        size_t nbytes
        size_t nstatic
        size_t ncache

    void libxsmm_init()
    int libxsmm_get_target_archid()
    const char* libxsmm_get_target_arch()
    int libxsmm_cpuid()
    int libxsmm_get_registry_info(libxsmm_registry_info* info)

    # The batch-reduce kernels that take byte offsets: C (m x n) = beta C + sum_i A_i B_i,
    # A_i = a + a_offs[i], B_i = b + b_offs[i], all column-major.
    ctypedef void (*libxsmm_smmfunction_reducebatch_offs)(
        const float*, const float*, float*, const unsigned long long* count,
        const unsigned long long* a_offs, const unsigned long long* b_offs, ...)
    ctypedef void (*libxsmm_dmmfunction_reducebatch_offs)(
        const double*, const double*, double*, const unsigned long long* count,
        const unsigned long long* a_offs, const unsigned long long* b_offs, ...)
    ctypedef void (*libxsmm_bsmmfunction_reducebatch_offs)(
        const void*, const void*, float*, const unsigned long long* count,
        const unsigned long long* a_offs, const unsigned long long* b_offs, ...)
    ctypedef void (*libxsmm_bmmfunction_reducebatch_offs)(
        const void*, const void*, void*, const unsigned long long* count,
        const unsigned long long* a_offs, const unsigned long long* b_offs, ...)

    libxsmm_smmfunction_reducebatch_offs libxsmm_smmdispatch_reducebatch_offs(
        libxsmm_blasint m, libxsmm_blasint n, libxsmm_blasint k,
        const libxsmm_blasint* lda, const libxsmm_blasint* ldb, const libxsmm_blasint* ldc,
        const float* alpha, const float* beta, const int* flags, const int* prefetch)
    libxsmm_dmmfunction_reducebatch_offs libxsmm_dmmdispatch_reducebatch_offs(
        libxsmm_blasint m, libxsmm_blasint n, libxsmm_blasint k,
        const libxsmm_blasint* lda, const libxsmm_blasint* ldb, const libxsmm_blasint* ldc,
        const double* alpha, const double* beta, const int* flags, const int* prefetch)
    libxsmm_bsmmfunction_reducebatch_offs libxsmm_bsmmdispatch_reducebatch_offs(
        libxsmm_blasint m, libxsmm_blasint n, libxsmm_blasint k,
        const libxsmm_blasint* lda, const libxsmm_blasint* ldb, const libxsmm_blasint* ldc,
        const float* alpha, const float* beta, const int* flags, const int* prefetch)
    libxsmm_bmmfunction_reducebatch_offs libxsmm_bmmdispatch_reducebatch_offs(
        libxsmm_blasint m, libxsmm_blasint n, libxsmm_blasint k,
        const libxsmm_blasint* lda, const libxsmm_blasint* ldb, const libxsmm_blasint* ldc,
        const float* alpha, const float* beta, const int* flags, const int* prefetch)
