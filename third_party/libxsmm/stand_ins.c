/* What libxsmm_main.c calls of the files that are not compiled: the deep-learning primitives, at
 * start and end, and the generators of packed and of sparse kernels, for which we never ask. */
#define DOES_NOTHING(name) \
  void name();             \
  void name() {}

DOES_NOTHING(libxsmm_dnn_init)
DOES_NOTHING(libxsmm_dnn_finalize)
DOES_NOTHING(libxsmm_generator_getrf_kernel)
DOES_NOTHING(libxsmm_generator_packed_gemm_ac_rm)
DOES_NOTHING(libxsmm_generator_packed_gemm_bc_rm)
DOES_NOTHING(libxsmm_generator_pgemm_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csc_soa_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csr_reg_kernel)
DOES_NOTHING(libxsmm_generator_spgemm_csr_soa_kernel)
DOES_NOTHING(libxsmm_generator_trmm_kernel)
DOES_NOTHING(libxsmm_generator_trsm_kernel)
